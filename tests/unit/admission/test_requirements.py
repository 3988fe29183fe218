"""What the active catalog requires of waiting Jobs, besides what is recorded on them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from openfero_gitops.admission.decide import Admit, Wait, decide
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Catalog, Envelope
from openfero_gitops.domain.operario import Mode, OnResolve, Options, stricter_options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase, Remediation
from tests.support.build import NOW, alert, catalog, finished, operario, remediation, running
from tests.support.workers import World, in_virtual_time, pods_of, until

GATED = Options(approval=True)


def required(job: Remediation, active: Catalog | None) -> Remediation:
    """Return one remediation with what a catalog requires."""
    (effective,) = with_requirements([job], active)
    return effective


@pytest.mark.parametrize(
    ("name", "strict", "lax"),
    [
        ("approval", True, False),
        ("mode", Mode.DRY_RUN, Mode.RUN),
        ("max_concurrent", 1, 5),
        ("max_per_hour", 0, 30),
        ("cooldown", timedelta(hours=1), timedelta(0)),
        ("max_wait", timedelta(hours=1), timedelta(0)),
        ("resolve_delay", timedelta(hours=1), timedelta(0)),
        ("rerun_after", timedelta(0), timedelta(hours=1)),
        ("max_runs", 1, 3),
        ("on_resolve", OnResolve.CANCEL, OnResolve.KEEP),
    ],
)
def test_the_stricter_value_wins(name: str, strict: Any, lax: Any) -> None:
    """Whether it is the recorded one or that of the operario in Git."""
    given = {name: strict}, {name: lax}
    for recorded, in_git in (given, given[::-1]):
        chosen = stricter_options(Options(**recorded), Options(**in_git))
        assert chosen == Options(**{name: strict})
    same = Options(**{name: strict})
    assert stricter_options(same, Options(**{name: lax})) is same


def test_priority_and_matchers_are_those_of_the_record() -> None:
    """They permit neither more nor less."""
    recorded = Options(priority=3)
    assert stricter_options(recorded, Options(priority=9, target=("pod",), enabled=False)) is (
        recorded
    )


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("in_git", [True, False])
@pytest.mark.parametrize("approved_by", [None, "", "ada"])
def test_approval_is_required_by_the_record_or_by_git(
    recorded: bool,  # noqa: FBT001
    in_git: bool,  # noqa: FBT001
    approved_by: str | None,
) -> None:
    """The phase says so, and the decision gives the reason."""
    unapproved = not approved_by
    was = Phase.AWAITING_APPROVAL if recorded and unapproved else Phase.WAITING
    job = remediation(options=Options(approval=recorded), approved_by=approved_by, phase=was)
    active = catalog(operario(options=Options(approval=in_git)))

    effective = required(job, active)

    waits = (recorded or in_git) and unapproved
    assert effective.phase is (Phase.AWAITING_APPROVAL if waits else Phase.WAITING)
    [(_, decision)] = decide([effective], Envelope(), pause=None, now=NOW)
    if not waits:
        assert decision == Admit()
        return
    assert isinstance(decision, Wait)
    assert decision.reason is Reason.APPROVAL
    changed = in_git and not recorded
    assert ("requires approval in Git, but the options recorded" in decision.message) is changed


@pytest.mark.parametrize(
    "changes",
    [
        {"operario": "another-name"},
        {"operario": ""},
        {"labels": {"alertname": "Other"}, "alertname": "Other"},
        {"status": Status.RESOLVED},
    ],
)
def test_a_job_whose_operario_is_not_in_the_catalog_must_be_approved(
    changes: dict[str, Any],
) -> None:
    """Neither another name on the Job, nor the name of an operario for another alert, helps."""
    active = catalog(operario(), operario("gated", alertname="Third", options=GATED))

    effective = required(remediation(**changes), active)

    assert effective.phase is Phase.AWAITING_APPROVAL
    assert "the active catalog has no operario" in effective.message
    approved = required(remediation(**changes, approved_by="ada"), active)
    assert approved.phase is Phase.WAITING


def test_a_job_whose_operario_was_disabled_must_be_approved() -> None:
    """Somebody disabled it because it should not run; a Job that already waits is no exception."""
    active = catalog(operario(options=Options(enabled=False)))

    effective = required(remediation(), active)

    assert effective.phase is Phase.AWAITING_APPROVAL
    [(_, decision)] = decide([effective], Envelope(), pause=None, now=NOW)
    assert isinstance(decision, Wait)
    assert decision.reason is Reason.APPROVAL
    assert "was disabled in Git" in decision.message
    approved = required(remediation(approved_by="ada"), active)
    assert approved.phase is Phase.WAITING


@pytest.mark.parametrize("gated", [False, True])
def test_a_job_of_another_repository_must_be_approved(gated: bool) -> None:  # noqa: FBT001
    """An operario of the same name and alert does not change that; both repositories are named."""
    active = catalog(operario(options=Options(approval=gated)))
    ours = active.revision.repository
    theirs = "https://git.example.org/former"

    effective = required(remediation(repository=theirs), active)

    assert effective.phase is Phase.AWAITING_APPROVAL
    [(_, decision)] = decide([effective], Envelope(), pause=None, now=NOW)
    assert isinstance(decision, Wait)
    assert decision.reason is Reason.APPROVAL
    assert f'"{theirs}", but the active catalog comes from "{ours}"' in effective.message
    approved = required(remediation(repository=theirs, approved_by="ada"), active)
    assert approved.phase is Phase.WAITING


@pytest.mark.parametrize("spelling", ["{}.git", "{}/", ""])
def test_another_spelling_of_the_repository_needs_no_approval(spelling: str) -> None:
    """Nor does a Job without a recorded repository."""
    active = catalog(operario())
    job = remediation(repository=spelling.format(active.revision.repository))
    assert required(job, active) is job


def test_the_alert_name_is_compared_as_when_matching() -> None:
    """Without regard to case."""
    job = remediation(alertname="podcrashlooping")
    assert required(job, catalog(operario())) is job


def test_jobs_that_do_not_wait_stay_as_they_are() -> None:
    """And so does everything without a catalog, which starts nothing."""
    active = catalog(operario("other", options=GATED))
    jobs = [running("a"), finished("b"), remediation("c")]
    assert with_requirements(jobs, active)[:2] == jobs[:2]
    assert with_requirements(jobs, None) == jobs
    job = remediation()
    assert required(job, catalog(operario())) is job, "nothing is stricter"


class TestAttack:
    """Somebody edits a waiting Job; the leader admits."""

    @in_virtual_time
    async def test_rewritten_options_start_nothing(self) -> None:
        """A Job whose recorded approval was removed waits for a person, who can approve it."""
        world = World()
        replica = world.replica(catalog=catalog(operario(options=GATED)))
        async with replica.watching(), replica.leading():
            key = (await replica.deliver(alert())).items[0].job
            assert key is not None
            await world.annotate(key, keys.OPTIONS, '{"approval":false}')
            await until(lambda: replica.admitter.decisions)
            await world.annotate(key, keys.TERM, "somebody/1/x#1")
            await until(lambda: "in Git" in str(replica.admitter.decisions))
            assert world.starts() == []
            await world.annotate(key, keys.APPROVED_BY, "ada")
            await until(world.starts)
        assert world.starts() == [key]

    @in_virtual_time
    async def test_an_approval_that_is_withdrawn_at_the_last_moment_counts(self) -> None:
        """The patch that starts the Job tests the approval, wherever it is required."""
        world = World()
        replica = world.replica(catalog=catalog(operario(options=GATED)))
        withdrawn: list[bool] = []

        async def withdraw(request: Any, act: Any) -> Any:
            if request.sets(keys.ADMITTED_AT) and not withdrawn:
                withdrawn.append(True)
                await world.annotate(key, keys.APPROVED_BY, "")
            return await act()

        async with replica.watching(), replica.leading():
            key = (await replica.deliver(alert())).items[0].job
            await world.annotate(key, keys.OPTIONS, '{"approval":false}')
            replica.wire.trouble = withdraw
            await world.annotate(key, keys.APPROVED_BY, "ada")
            await until(lambda: withdrawn)
            await until(lambda: "in Git" in str(replica.admitter.decisions))
        assert world.starts() == []

    @in_virtual_time
    async def test_an_operario_that_becomes_stricter_counts_at_once(self) -> None:
        """Jobs that already wait need the approval, too."""
        world = World()
        replica = world.replica()
        replica.paused = True
        async with replica.watching(), replica.leading():
            await replica.deliver(pods_of("web-1"))
            await until(lambda: replica.admitter.decisions)
            stricter = replace(operario(), options=GATED)
            replica.catalog = catalog(stricter)
            replica.paused = False
            await until(lambda: "requires approval in Git" in str(replica.admitter.decisions))
        assert world.starts() == []
