from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfero_gitops.admission.decide import (
    Admit,
    Decision,
    Refuse,
    Wait,
    decide,
    next_change,
)
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.operario import Mode, OnResolve, Options
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase, same_incident
from tests.support.build import (
    NOW,
    STARTS_AT,
    finished,
    minutes,
    refused,
    remediation,
    running,
    seconds,
)
from tests.support.copying import replace
from tests.support.depth import scaled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from openfero_gitops.domain.remediation import Remediation

RESOLVED: dict[str, Any] = {"status": Status.RESOLVED, "operario": "undo"}
PAUSE = Pause(PauseCause.COMMAND, "ada paused admission", "ada")
OTHER = {"labels": {"alertname": "Other"}, "target": "other"}


def decisions(
    *remediations: Remediation,
    envelope: Envelope | None = Envelope(),  # noqa: B008 (frozen)
    pause: Pause | None = None,
    now: datetime = NOW,
    unconfirmed: Collection[str] = (),
) -> dict[str, Decision]:
    """Return the decision on each waiting Job, by name."""
    decided = decide(remediations, envelope, pause=pause, now=now, unconfirmed=unconfirmed)
    return {job.key.name: decision for job, decision in decided}


def reasons(*remediations: Remediation, **given: Any) -> dict[str, str]:
    """Return the reason of the decision on each waiting Job, by name."""
    return {
        name: decision.reason.value for name, decision in decisions(*remediations, **given).items()
    }


def options(**given: Any) -> dict[str, Any]:
    """Return options as a field of a remediation."""
    return {"options": Options(**given)}


# Admitted.


def test_a_waiting_job_is_admitted() -> None:
    """A single Job starts."""
    assert decisions(remediation()) == {"job-1": Admit(Reason.ADMITTED)}


def test_only_waiting_jobs_are_decided() -> None:
    """Admitted, decided, ended and deleted Jobs are ignored."""
    assert (
        decisions(
            running("a", **OTHER),
            finished("b", **OTHER),
            refused("c", **OTHER),
            remediation("d", phase=Phase.HELD, admitted_at=NOW, **OTHER),
            remediation("e", phase=Phase.QUEUED, admitted_at=NOW, **OTHER),
            remediation("f", phase=Phase.CANCELLED, decision="cancelled", **OTHER),
            remediation("g", deleting=True),
        )
        == {}
    )


# Waiting.


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        (Reason.NO_CATALOG, {"envelope": None}),
        (Reason.PAUSED, {"pause": PAUSE}),
        (Reason.LIMIT_CONCURRENT, {"envelope": Envelope(limits=Limits(concurrent=0))}),
        (Reason.LIMIT_PER_MINUTE, {"envelope": Envelope(limits=Limits(per_minute=0))}),
    ],
)
def test_nothing_starts_while(reason: Reason, given: dict[str, Any]) -> None:
    """During a pause, without a catalog, and with limits of 0."""
    assert reasons(remediation(), **given) == {"job-1": reason.value}


def test_a_pause_with_an_end_is_over_at_its_end() -> None:
    """Time alone ends it, so the leader decides again at that moment."""
    pause = replace(PAUSE, until=NOW + minutes(20))
    decided = decide([remediation()], Envelope(), pause=pause, now=NOW)
    assert decided[0][1] == Wait(Reason.PAUSED, NOW + minutes(20), "ada paused admission")
    assert next_change(decided) == NOW + minutes(20)
    assert reasons(remediation(), pause=pause, now=NOW + minutes(20)) == {"job-1": "admitted"}


@pytest.mark.parametrize("limit", ["max_concurrent", "max_per_hour"])
def test_an_operarios_limit_of_zero_admits_nothing(limit: str) -> None:
    """0 is a valid limit."""
    assert reasons(remediation(**options(**{limit: 0}))) == {"job-1": limit.replace("_", "-")}


def test_a_job_that_needs_approval_waits_for_it() -> None:
    """After the approval it is treated like any other."""
    asks = options(approval=True)

    assert reasons(remediation(phase=Phase.AWAITING_APPROVAL, **asks)) == {"job-1": "approval"}
    assert reasons(remediation(approved_by="ada", **asks)) == {"job-1": "admitted"}


def test_one_job_runs_per_target() -> None:
    """Whatever its operario, alert or namespace, a Job waits for the running one."""
    other = running("b", namespace="other", labels={"alertname": "B"}, operario="x")

    assert decisions(remediation(), other) == {
        "job-1": Wait(Reason.TARGET_BUSY, message="Job other/b is running on the same target")
    }
    assert reasons(remediation(), replace(other, target="t")) == {"job-1": "admitted"}


@pytest.mark.parametrize(
    ("members", "busy"),
    [
        ({}, True),
        ({"admitted_at": None, "started_at": None}, True),
        ({"phase": Phase.QUEUED, "suspended": True, "active": 0}, True),
        ({"phase": Phase.HELD, "suspended": True, "active": 1}, True),
        ({"phase": Phase.HELD, "suspended": True, "active": 0}, False),
        ({"phase": Phase.REFUSED, "decision": "refused"}, True),
        ({"phase": Phase.CANCELLED, "suspended": True, "active": 0}, False),
        ({"deleting": True}, True),
    ],
)
def test_a_target_is_busy_while_pods_exist(
    members: dict[str, Any],
    busy: bool,  # noqa: FBT001
) -> None:
    """Running, queued, held with Pods, started by a person, decided, deleted: all count."""
    other = running("b", labels={"alertname": "B"}, operario="x", **members)

    assert reasons(remediation(), other)["job-1"] == ("target-busy" if busy else "admitted")
    crowded = Envelope(limits=Limits(concurrent=1))
    elsewhere = replace(other, target="t")
    assert reasons(remediation(), elsewhere, envelope=crowded)["job-1"] == (
        "limit-concurrent" if busy else "admitted"
    )


def test_a_suspended_job_waits_for_its_own_pods() -> None:
    """If it was suspended by hand before it was admitted."""
    ending = remediation(active=1, started=True)

    assert reasons(ending) == {"job-1": "target-busy"}
    assert reasons(replace(ending, active=0)) == {"job-1": "admitted"}


def test_the_cooldown_counts_from_the_last_end() -> None:
    """The next Job of an operario on a target waits for the cooldown."""
    past = {"starts_at": STARTS_AT - minutes(99), "received_at": NOW - minutes(65)}
    job = finished("a", began=NOW - minutes(9), ended=NOW - minutes(8), **past)
    last = finished("b", began=NOW - minutes(9), ended=NOW - minutes(4), **past | {"attempt": 2})
    why = (
        "the last Job of this operario on this target finished at 2026-11-21T03:00:05Z, "
        "its cooldown is 10m"
    )
    wait = Wait(Reason.COOLDOWN, NOW + minutes(6), why)

    for first in (NOW - minutes(70), NOW - minutes(60)):
        before = replace(job, received_at=first)
        assert decisions(before, last, remediation())["job-1"] == wait
    assert reasons(job, last, remediation(), now=NOW + minutes(6))["job-1"] == "admitted"
    assert reasons(last, remediation(**options(cooldown=timedelta(0))))["job-1"] == "admitted"
    assert reasons(last, remediation(operario="x"))["job-1"] == "admitted"
    assert reasons(last, remediation(target="t"))["job-1"] == "admitted"


def test_only_started_jobs_cause_a_cooldown() -> None:
    """A Job that never started causes no cooldown."""
    never = refused("a", starts_at=STARTS_AT - minutes(60), finished_at=NOW)

    assert reasons(never, remediation())["job-1"] == "admitted"


def test_a_job_that_is_deleted_is_forgotten() -> None:
    """A deleted Job counts neither for cooldown, nor for limits, nor for its incident."""
    gone = finished("a", deleting=True)

    assert reasons(gone, remediation(**options(max_per_hour=1)))["job-1"] == "admitted"


def elsewhere(name: str, **given: Any) -> Remediation:
    """Make a waiting Job of another alert with another target."""
    return remediation(name, **{"labels": {"alertname": name}, "target": name} | given)


def ran_elsewhere(name: str, ago: timedelta, **given: Any) -> Remediation:
    """Make such a Job that started so long ago and ended at once."""
    given = {"labels": {"alertname": name}, "target": name} | given
    return finished(name, began=NOW - ago, ended=NOW - ago, **given)


def test_max_concurrent() -> None:
    """Others wait; other operarios are not affected."""
    busy = [running(f"r{n}", labels={"alertname": f"r{n}"}, target=f"r{n}") for n in range(2)]
    job = elsewhere("a", **options(max_concurrent=2))

    assert decisions(*busy, job) == {
        "a": Wait(
            Reason.MAX_CONCURRENT, None, "2 Jobs of this operario running, max-concurrent is 2"
        )
    }
    assert reasons(*busy, replace(job, operario="x"))["a"] == "admitted"
    assert reasons(busy[0], job)["a"] == "admitted"


def test_max_per_hour() -> None:
    """Others wait until the oldest start that counts is an hour ago."""
    ran = [ran_elsewhere(f"r{n}", minutes(15 * n)) for n in range(5)]
    job = elsewhere("a", **options(max_per_hour=2))

    why = "4 Jobs of this operario started in the last hour, max-per-hour is 2"
    assert decisions(*ran, job) == {"a": Wait(Reason.MAX_PER_HOUR, NOW + minutes(45), why)}
    then = NOW + minutes(45)
    assert reasons(*ran, job, now=then - seconds(1))["a"] == "max-per-hour"
    assert reasons(*ran, job, now=then)["a"] == "admitted"
    assert reasons(*ran, replace(job, operario="x"))["a"] == "admitted"


def test_limit_per_minute() -> None:
    """The limit of openfero.yaml counts the starts of all operarios."""
    ran = [ran_elsewhere(f"r{n}", seconds(20 * n), operario=f"o{n}") for n in range(4)]
    given = {"envelope": Envelope(limits=Limits(per_minute=2))}
    job = elsewhere("a")

    why = "3 remediations started in the last minute, limits.perMinute in openfero.yaml is 2"
    wait = Wait(Reason.LIMIT_PER_MINUTE, NOW + seconds(40), why)
    assert decisions(*ran, job, **given) == {"a": wait}
    assert reasons(*ran, job, now=NOW + seconds(39), **given)["a"] == "limit-per-minute"
    assert reasons(*ran, job, now=NOW + seconds(40), **given)["a"] == "admitted"


def test_a_limit_of_zero_is_decided_again() -> None:
    """Even with a limit of 0 there is a next time to decide, so that max-wait is kept."""
    decided = decide([remediation(**options(max_per_hour=0))], Envelope(), pause=None, now=NOW)

    assert (decided[0][1].reason, next_change(decided)) == (Reason.MAX_PER_HOUR, NOW + minutes(60))


def test_limit_concurrent() -> None:
    """The limit of openfero.yaml counts the Jobs of all operarios."""
    busy = [
        running(f"r{n}", labels={"alertname": f"r{n}"}, target=f"r{n}", operario=f"o{n}")
        for n in range(2)
    ]
    full = Envelope(limits=Limits(concurrent=2))

    why = "2 remediations running, limits.concurrent in openfero.yaml is 2"
    wait = Wait(Reason.LIMIT_CONCURRENT, None, why)
    assert decisions(*busy, elsewhere("a"), envelope=full) == {"a": wait}
    assert reasons(busy[0], elsewhere("a"), envelope=full)["a"] == "admitted"


def test_queued_jobs_count_as_running() -> None:
    """For each limit and for the target; the message says that they may not have started."""
    queue = {"phase": Phase.QUEUED, "suspended": True, "active": 0, "queue": "night"}
    queued = [
        running(f"q{n}", labels={"alertname": f"q{n}"}, target=f"q{n}", **queue) for n in range(2)
    ]
    full = Envelope(limits=Limits(concurrent=2))
    why = "2 remediations running or queued by Kueue, limits.concurrent in openfero.yaml is 2"
    wait = Wait(Reason.LIMIT_CONCURRENT, None, why)
    assert decisions(*queued, elsewhere("a", operario="x"), envelope=full) == {"a": wait}

    same = elsewhere("a", **options(max_concurrent=2))
    why = "2 Jobs of this operario running or queued by Kueue, max-concurrent is 2"
    assert decisions(*queued, same) == {"a": Wait(Reason.MAX_CONCURRENT, None, why)}
    assert "by Kueue" not in decisions(*queued[:1], elsewhere("a"))["a"].reason

    busy = Wait(Reason.TARGET_BUSY, message="Job jobs/q0 is in a Kueue queue for the same target")
    assert decisions(*queued, remediation("a", target="q0")) == {"a": busy}


def test_a_start_of_unknown_time_counts_as_of_now() -> None:
    """An admission without an answer and a Job just started by a person count as well."""
    unknown = running(
        "r", labels={"alertname": "r"}, target="r", admitted_at=None, started_at=None, started=True
    )
    a_minute = Envelope(limits=Limits(per_minute=1))

    assert reasons(unknown, elsewhere("a"), envelope=a_minute)["a"] == "limit-per-minute"
    assert reasons(unknown, elsewhere("a", **options(max_per_hour=1)))["a"] == "max-per-hour"


def test_a_queued_job_counts_from_its_admission() -> None:
    """A queued Job counts from its admission."""
    queued = running("r", since=NOW, target="r", labels={"alertname": "r"})
    late = replace(queued, admitted_at=NOW - minutes(2), queue="batch")

    a_minute = Envelope(limits=Limits(per_minute=1))
    assert reasons(queued, elsewhere("a"), envelope=a_minute)["a"] == "limit-per-minute"
    assert reasons(late, elsewhere("a"), envelope=a_minute)["a"] == "admitted"


# Refusals: the same occurrence, the same incident.


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (running("job-1", namespace="other"), "same-occurrence"),
        (finished("job-1", namespace="other"), "same-occurrence"),
        (remediation("job-1", namespace="a", received_at=NOW - seconds(1)), "same-occurrence"),
        (remediation("job-1", namespace="other", received_at=NOW + seconds(1)), "admitted"),
        (refused("job-1", "refused-by-human", namespace="other"), "same-occurrence"),
        (refused("job-1", "unsafe-value", namespace="other"), "same-occurrence"),
        (
            remediation("job-1", namespace="other", phase=Phase.CANCELLED, decision="cancelled"),
            "same-occurrence",
        ),
        (refused("job-1", "same-occurrence", namespace="other"), "admitted"),
        (refused("job-1", "max-wait", namespace="other"), "admitted"),
    ],
)
def test_one_job_per_occurrence_over_all_namespaces(other: Remediation, reason: str) -> None:
    """A final refusal counts in all namespaces; one as a duplicate does not."""
    # Not the same digests by chance of starts: it is the occurrence alone that is compared here.
    job = remediation(starts_at=None, occurrence="o")
    decided = decide(
        [job, replace(other, starts_at=None, occurrence="o", target="t")],
        Envelope(),
        pause=None,
        now=NOW,
    )

    assert {d.reason.value for r, d in decided if r is job} == {reason}


def test_of_equal_jobs_the_first_by_namespace_runs() -> None:
    """Of two Jobs with the same time and name always the same one runs."""
    job, other = remediation(namespace="a"), remediation(namespace="b")
    for order in permutations([job, other]):
        decided = decide(order, Envelope(), pause=None, now=NOW)

        assert [(r.key.namespace, d.reason) for r, d in decided] == [
            ("a", Reason.ADMITTED),
            ("b", Reason.SAME_OCCURRENCE),
        ]


def test_the_refusal_names_the_other_job() -> None:
    """The message names the Job that handles the incident."""
    job = remediation("b", starts_at=STARTS_AT + seconds(1))

    assert decisions(running("a"), job)["b"] == Refuse(
        Reason.SAME_INCIDENT, "Job jobs/a handles or handled this incident"
    )
    twin = remediation("a", namespace="b")
    assert decisions(running("a"), twin)["a"] == Refuse(
        Reason.SAME_OCCURRENCE, "Job jobs/a exists for the same alert occurrence"
    )


@pytest.mark.parametrize(
    ("starts_at", "same"),
    [
        (STARTS_AT - minutes(100), True),
        (STARTS_AT + seconds(1), True),
        (NOW + seconds(60), True),
        (
            NOW
            + seconds(
                60,
            )
            + timedelta(microseconds=1),
            False,
        ),
        (NOW + minutes(5), False),
    ],
)
def test_a_start_that_wobbles_is_the_same_incident(
    starts_at: datetime,
    same: bool,  # noqa: FBT001
) -> None:
    """Up to a minute after the other Job was received."""
    healed = finished("a", ended=NOW - minutes(60))
    job = remediation("b", starts_at=starts_at, received_at=NOW + minutes(6))

    later = NOW + minutes(6)
    assert reasons(healed, job, now=later)["b"] == ("same-incident" if same else "admitted")


def test_an_alert_that_fires_again_after_it_was_resolved_is_a_new_incident() -> None:
    """A startsAt after the recorded resolved-at is a new incident."""
    healed = finished("a", began=NOW - minutes(60), ended=NOW - minutes(59), resolved_at=NOW)
    again = remediation("b", starts_at=NOW + seconds(1), received_at=NOW + seconds(2))
    wobbled = remediation("b", starts_at=NOW, received_at=NOW + seconds(2))
    later = NOW + seconds(3)

    assert reasons(healed, again, now=later)["b"] == "admitted"
    assert reasons(healed, wobbled, now=later)["b"] == "same-incident"


def test_a_new_incident_waits_for_the_cooldown() -> None:
    """Its Job waits for the cooldown."""
    healed = finished("a", resolved_at=NOW)
    again = remediation("b", starts_at=NOW + seconds(1))

    assert reasons(healed, again)["b"] == "cooldown"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (running("a"), "same-incident"),
        (running("a", admitted_at=None, started_at=None, started=True), "same-incident"),
        (finished("a", phase=Phase.FAILED), "same-incident"),
        (remediation("a", phase=Phase.HELD, admitted_at=NOW), "same-incident"),
        (remediation("a", phase=Phase.QUEUED, admitted_at=NOW), "same-incident"),
        (refused("a", admitted_at=NOW), "same-incident"),
        (refused("a"), "admitted"),
        (remediation("a", phase=Phase.FAILED, finished=True), "admitted"),
        (remediation("a", phase=Phase.CANCELLED, decision="cancelled"), "admitted"),
        (remediation("a"), "same-incident"),
        (remediation("a", phase=Phase.AWAITING_APPROVAL), "same-incident"),
        (remediation("c"), "admitted"),
        (remediation("c", received_at=NOW - seconds(1)), "same-incident"),
        (running("a", attempt=2), "admitted"),
        (running("a", starts_at=None), "admitted"),
        (running("a", status=Status.RESOLVED), "admitted"),
        (running("a", labels={"alertname": "B"}), "admitted"),
    ],
)
def test_only_started_and_earlier_jobs_make_a_duplicate(other: Remediation, reason: str) -> None:
    """Decided Jobs that never started, other attempts and alerts without startsAt do not."""
    job = remediation("b", starts_at=STARTS_AT + seconds(1))

    assert reasons(replace(other, target="t", operario="x"), job)["b"] == reason


@pytest.mark.parametrize("received_at", [NOW - seconds(1), NOW + seconds(1)])
def test_no_refusal_depends_on_an_unconfirmed_job(received_at: datetime) -> None:
    """Other Jobs of its incident wait until that is known."""
    unconfirmed = running("a", target="t", operario="x")
    job = remediation("b", starts_at=STARTS_AT + seconds(1), received_at=received_at)
    same = remediation("c", namespace="other", received_at=received_at)
    elsewhere = remediation("d", **OTHER)

    assert (
        reasons(unconfirmed, job, same, elsewhere, unconfirmed={unconfirmed.uid})["d"] == "admitted"
    )
    for other in (job, same):
        assert decisions(unconfirmed, other, unconfirmed={unconfirmed.uid}) == {
            other.key.name: Wait(Reason.TARGET_BUSY, message="Job jobs/a may have started")
        }
        assert isinstance(decisions(unconfirmed, other)[other.key.name], Refuse)


def test_an_alert_without_starts_at_gets_a_job_each_time() -> None:
    """Such an alert was sent by hand, to run the Job."""
    job = remediation("b", starts_at=None)

    assert reasons(finished("a", ended=NOW - minutes(60)), job)["b"] == "admitted"


def test_many_alerts_without_starts_at_are_decided_fast() -> None:
    """Many alerts sent by hand do not block the leader."""
    jobs = [
        remediation(f"j{n}", starts_at=None, incident="i", occurrence=str(n)) for n in range(3000)
    ]
    begin = time.process_time()

    assert Counter(reasons(*jobs).values()) == {"admitted": 1, "target-busy": 2999}
    assert time.process_time() - begin < 2


def test_a_refused_job_causes_no_other_refusal() -> None:
    """A Job that is refused in the same breath does not take another with it.

    Not even one of higher priority, which is admitted before it would have been looked at.
    """
    late = remediation("a", received_at=NOW - minutes(61), starts_at=STARTS_AT - minutes(61))
    for priority in (-1, 0, 1):
        job = remediation("b", starts_at=STARTS_AT - minutes(61), **options(priority=priority))

        assert reasons(late, replace(job, occurrence="o")) == {
            "a": "max-wait",
            "b": "admitted",
        }


def test_an_older_job_is_refused_behind_one_that_is_admitted_in_the_same_pass() -> None:
    """A newer Job of higher priority handles the older incident, too."""
    older = remediation("a", target="t")
    newer = remediation(
        "b",
        starts_at=NOW + seconds(90),
        received_at=NOW + seconds(100),
        **options(priority=1),
    )

    assert reasons(older, newer, now=NOW + seconds(100)) == {"b": "admitted", "a": "same-incident"}


# Refusals: resolved, too late, dry run.


@pytest.mark.parametrize(
    ("on_resolve", "reason"),
    [
        (OnResolve.CANCEL, "resolved"),
        (OnResolve.CANCEL_RUNNING, "resolved"),
        (OnResolve.KEEP, "admitted"),
    ],
)
def test_a_resolved_alerts_job_is_not_started(on_resolve: OnResolve, reason: str) -> None:
    """Unless on-resolve is keep."""
    job = remediation(resolved_at=NOW, **options(on_resolve=on_resolve))

    assert reasons(job) == {"job-1": reason}


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.AWAITING_APPROVAL])
def test_a_job_that_waited_too_long_is_refused(phase: Phase) -> None:
    """Approved or not; 0 waits forever."""
    job = remediation(phase=phase, **options(approval=phase is Phase.AWAITING_APPROVAL))
    wait = "approval" if phase is Phase.AWAITING_APPROVAL else "admitted"

    assert reasons(job, now=NOW + minutes(60))["job-1"] == wait
    assert reasons(job, now=NOW + minutes(60) + seconds(1))["job-1"] == "max-wait"
    endless = replace(job, options=replace(job.options, max_wait=timedelta(0)))
    assert reasons(endless, now=NOW + minutes(6000))["job-1"] == wait


@pytest.mark.parametrize("given", [{"pause": PAUSE}, {"envelope": None}])
def test_max_wait_passes_while_nothing_starts(given: dict[str, Any]) -> None:
    """max-wait also passes during a pause and without a catalog."""
    assert reasons(remediation(), now=NOW + minutes(61), **given)["job-1"] == "max-wait"


def test_a_dry_run_ends_in_a_refusal() -> None:
    """With the mode of the operario or of openfero.yaml the Job never starts."""
    assert reasons(remediation(**options(mode=Mode.DRY_RUN))) == {"job-1": "dry-run"}
    assert reasons(remediation(), envelope=Envelope(mode=Mode.DRY_RUN)) == {"job-1": "dry-run"}


# Resolved operarios.


def fired(**given: Any) -> Remediation:
    """Make the Job of the firing alert, which ran and was resolved."""
    return finished(
        "f",
        **{
            "began": NOW - minutes(10),
            "ended": NOW - minutes(9),
            "received_at": NOW - minutes(10),
            "starts_at": STARTS_AT - minutes(10),
            "resolved_at": NOW,
        }
        | given,
    )


def undo(name: str = "u", **given: Any) -> Remediation:
    """Make the Job of the resolved alert, received at `NOW`."""
    return remediation(name, **{"starts_at": STARTS_AT - minutes(10)} | RESOLVED | given)


def test_a_resolved_job_waits_in_case_the_alert_fires_again() -> None:
    """It runs after resolve-delay, counted from its delivery."""
    why = "waiting for resolve-delay (1m): the alert may fire again"
    assert decisions(fired(), undo()) == {"u": Wait(Reason.RESOLVE_DELAY, NOW + minutes(1), why)}
    assert reasons(fired(), undo(), now=NOW + minutes(1))["u"] == "admitted"
    at_once = undo(**options(resolve_delay=timedelta(0)))
    assert reasons(fired(), at_once)["u"] == "admitted"


@pytest.mark.parametrize(
    "members",
    [
        {"phase": Phase.RUNNING, "finished": False, "finished_at": None, "active": 1},
        {
            "phase": Phase.QUEUED,
            "suspended": True,
            "finished": False,
            "finished_at": None,
            "started_at": None,
        },
        {
            "phase": Phase.HELD,
            "suspended": True,
            "finished": False,
            "finished_at": None,
            "active": 1,
        },
    ],
)
def test_a_resolved_job_waits_for_the_firing_one(members: dict[str, Any]) -> None:
    """Whatever their targets are."""
    waits = decisions(fired(target="t", **members), undo(), now=NOW + minutes(1))

    assert waits == {
        "u": Wait(Reason.FIRING_RUNS, message="Job jobs/f of the firing alert has not finished")
    }


def test_a_resolved_job_waits_for_a_firing_one_that_waits() -> None:
    """A firing Job with on-resolve keep may still run."""
    keeps = options(on_resolve=OnResolve.KEEP, approval=True)
    waiting = remediation(
        "f", starts_at=STARTS_AT, resolved_at=NOW, phase=Phase.AWAITING_APPROVAL, **keeps
    )
    job = undo(starts_at=STARTS_AT)

    assert reasons(waiting, job, now=NOW + minutes(1)) == {"f": "approval", "u": "firing-runs"}


def test_a_held_firing_job_without_pods_does_not_block() -> None:
    """A Job that somebody suspended for good counts as ended."""
    held = fired(phase=Phase.HELD, suspended=True, finished=False, finished_at=None, started_at=NOW)

    assert reasons(held, undo(), now=NOW + minutes(1))["u"] == "admitted"


@pytest.mark.parametrize(
    ("firing", "reason"),
    [
        ({"starts_at": STARTS_AT}, "firing-again"),
        (
            {"starts_at": STARTS_AT, "phase": Phase.REFUSED, "reason": "unsafe-value"},
            "firing-again",
        ),
        ({"starts_at": STARTS_AT, "phase": Phase.CANCELLED}, "firing-again"),
        ({"starts_at": STARTS_AT, "phase": Phase.REFUSED, "reason": "same-incident"}, "admitted"),
        ({"starts_at": STARTS_AT, "phase": Phase.REFUSED, "reason": "same-occurrence"}, "admitted"),
        ({"starts_at": STARTS_AT, "resolved_at": NOW}, "admitted"),
        ({"starts_at": STARTS_AT - minutes(10)}, "admitted"),
        ({"starts_at": STARTS_AT - minutes(11)}, "admitted"),
        ({"starts_at": None}, "admitted"),
    ],
)
def test_a_resolved_job_is_refused_while_the_alert_fires_again(
    firing: dict[str, Any], reason: str
) -> None:
    """A later startsAt that is not resolved refuses the resolved Job, unless it only wobbled."""
    again = fired(**{"resolved_at": None, "began": NOW - minutes(2)} | firing)

    assert reasons(again, undo(), now=NOW + minutes(1))["u"] == reason


def test_a_duplicate_does_not_refuse_the_resolved_job() -> None:
    """The duplicate is refused, and then the resolved Job runs."""
    double = remediation(
        "d", starts_at=STARTS_AT - minutes(10) + seconds(5), received_at=NOW + seconds(1)
    )

    later = NOW + minutes(2)
    assert reasons(fired(), undo(), double, now=later) == {
        "u": "firing-runs",
        "d": "same-incident",
    }
    gone = replace(double, phase=Phase.REFUSED, reason="same-incident")
    assert reasons(fired(), undo(), gone, now=later) == {"u": "admitted"}


def test_a_resolved_alert_without_a_start_is_not_compared() -> None:
    """Without startsAt it is unknown which alert is later."""
    again = fired(starts_at=STARTS_AT, resolved_at=None)

    assert reasons(again, undo(starts_at=None), now=NOW + minutes(1))["u"] == "admitted"


def undone(**given: Any) -> Remediation:
    """Make an earlier resolved Job, which succeeded 5 minutes ago."""
    long_ago = {"starts_at": STARTS_AT - minutes(99), "received_at": NOW - minutes(90)}
    times = {"began": NOW - minutes(6), "ended": NOW - minutes(5)}
    return finished("e", **long_ago | times | RESOLVED | options(cooldown=timedelta(0)) | given)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([], "nothing-to-undo"),
        ([refused("f", resolved_at=NOW)], "nothing-to-undo"),
        ([fired(labels={"alertname": "B"})], "nothing-to-undo"),
        ([fired()], "admitted"),
        ([fired(phase=Phase.FAILED)], "admitted"),
        ([fired(), undone()], "nothing-to-undo"),
        ([fired(began=NOW - minutes(6)), undone()], "nothing-to-undo"),
        ([fired(), undone(phase=Phase.FAILED)], "admitted"),
        ([fired(began=NOW - minutes(5)), undone()], "admitted"),
        ([fired(), undone(began=NOW - minutes(30))], "admitted"),
        ([fired(), undone(labels={"alertname": "B"})], "admitted"),
    ],
)
def test_there_must_be_something_to_undo(others: list[Remediation], reason: str) -> None:
    """A firing Job must have started since the last successful resolved Job."""
    job = undo(**options(cooldown=timedelta(0)))

    assert reasons(*others, job, now=NOW + minutes(1))["u"] == reason


def test_firing_and_resolved_jobs_share_a_target() -> None:
    """A resolved Job waits for any Job that is running on its target."""
    other = running("r", labels={"alertname": "B"})

    assert reasons(fired(), undo(), other, now=NOW + minutes(1))["u"] == "target-busy"


# Order.


def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    """If not all may start, priority decides, then time of arrival, then name."""
    jobs = [
        elsewhere("d", received_at=NOW - minutes(9), **options(priority=-1)),
        elsewhere("b"),
        elsewhere("c", received_at=NOW - minutes(1)),
        elsewhere("a"),
        elsewhere("e", **options(priority=2)),
    ]
    given = {"envelope": Envelope(limits=Limits(concurrent=3))}

    for order in permutations(jobs):
        assert list(reasons(*order, **given).items()) == [
            ("e", "admitted"),
            ("c", "admitted"),
            ("a", "admitted"),
            ("b", "limit-concurrent"),
            ("d", "limit-concurrent"),
        ]


def test_a_waiting_job_does_not_block_others() -> None:
    """A Job that waits for its target does not block later ones."""
    first = remediation("a", **options(priority=9))

    assert reasons(running("r", labels={"alertname": "B"}), first, elsewhere("b")) == {
        "a": "target-busy",
        "b": "admitted",
    }


def test_one_of_several_for_a_target_starts() -> None:
    """Admissions of one pass count for later decisions of the same pass."""
    jobs = [remediation(n, labels={"alertname": n}, operario=n) for n in "abc"]

    assert reasons(*jobs) == {"a": "admitted", "b": "target-busy", "c": "target-busy"}


def test_admissions_of_one_pass_count_toward_every_limit() -> None:
    """Ten Jobs that are decided at once start as if they had arrived one by one."""
    jobs = [elsewhere(str(n)) for n in range(10)]
    per_hour = [replace(j, options=Options(max_per_hour=3)) for j in jobs]
    at_once = [replace(j, options=Options(max_concurrent=4)) for j in jobs]

    assert Counter(reasons(*per_hour).values()) == {"admitted": 3, "max-per-hour": 7}
    assert Counter(reasons(*at_once).values()) == {"admitted": 4, "max-concurrent": 6}
    a_minute = Envelope(limits=Limits(per_minute=2))
    assert Counter(reasons(*jobs, envelope=a_minute).values()) == {
        "admitted": 2,
        "limit-per-minute": 8,
    }


# When to decide_now again.


def test_next_change() -> None:
    """The earliest end of a wait, including max-wait."""
    cooling = finished("a", starts_at=STARTS_AT - minutes(99), resolved_at=NOW - minutes(98))
    waiting = remediation("b")
    approval = elsewhere("c", phase=Phase.AWAITING_APPROVAL, **options(max_wait=minutes(3)))
    endless = elsewhere("d", phase=Phase.AWAITING_APPROVAL, **options(max_wait=minutes(0)))

    def decide_now(*jobs: Remediation) -> datetime | None:
        return next_change(decide(jobs, Envelope(), pause=None, now=NOW))

    assert decide_now(cooling, waiting) == NOW + minutes(10)
    assert decide_now(cooling, waiting, approval) == NOW + minutes(3)
    assert decide_now(endless) is None
    assert decide_now() is None
    assert decide_now(elsewhere("e")) is None


def test_extreme_times_are_compared() -> None:
    """Extreme times in annotations cause no error."""
    first = datetime.min.replace(tzinfo=UTC)

    assert reasons(running("a"), remediation("b", starts_at=first))["b"] == "same-incident"


def test_many_starts_of_one_alert_are_not_compared_each_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Jobs long before a Job's start, or later than it, are skipped."""
    comparisons = 0

    def counted(job: Remediation, other: Remediation) -> bool:
        nonlocal comparisons
        comparisons += 1
        return same_incident(job, other)

    monkeypatch.setattr("openfero_gitops.admission.decide.same_incident", counted)
    many = [
        remediation(
            f"j{number}",
            starts_at=NOW + minutes(10 * number),
            received_at=NOW + minutes(10 * number + 1),
            **options(max_wait=minutes(0)),
        )
        for number in range(200)
    ]
    waits = reasons(*many, now=NOW + minutes(3000), pause=PAUSE)
    assert set(waits.values()) == {"paused"}
    assert comparisons <= 2 * len(many)


# Random Jobs.


def mixed(size: int, seed: int) -> tuple[Remediation, ...]:
    """Make Jobs in any states that the API server may return, which often conflict."""
    random = Random(seed)  # noqa: S311 (the same jobs for the same seed)
    return tuple(any_remediation(random, index) for index in range(size))


def any_remediation(random: Random, index: int) -> Remediation:
    """Make one of them."""
    phase = random.choice([*[Phase.WAITING] * 5, *Phase])
    received = NOW - minutes(random.randrange(70))
    started = phase not in (Phase.WAITING, Phase.AWAITING_APPROVAL, Phase.REFUSED, Phase.CANCELLED)
    started = started or random.randrange(10) == 0
    began = NOW - minutes(random.randrange(70)) if started else None
    ended = phase in (Phase.SUCCEEDED, Phase.FAILED)
    return remediation(
        f"j{index}",
        namespace=random.choice(["jobs", "other"]),
        phase=phase,
        reason=random.choice(["max-wait", "same-incident", "same-occurrence", "dry-run"]),
        status=random.choice([Status.FIRING, Status.FIRING, Status.RESOLVED]),
        labels={"alertname": random.choice("ab")},
        operario=random.choice("ab"),
        target=random.choice("abc"),
        attempt=random.choice([1, 1, 2]),
        starts_at=random.choice([None, received - minutes(5), received, received + minutes(1)]),
        occurrence=random.choice(["same", f"own-{index}", f"own-{index}"]),
        received_at=received,
        resolved_at=random.choice([None, None, NOW - minutes(random.randrange(70))]),
        admitted_at=began,
        started_at=began,
        finished_at=NOW if ended else None,
        finished=ended,
        deleting=random.randrange(10) == 0,
        suspended=phase not in (Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED),
        active=random.randrange(2) if started and not ended else 0,
        options=Options(
            priority=random.randrange(2),
            cooldown=random.choice([minutes(0), minutes(10)]),
            max_concurrent=random.randrange(4),
            max_per_hour=random.randrange(5),
            on_resolve=random.choice(list(OnResolve)),
            resolve_delay=minutes(random.randrange(2)),
        ),
    )


BOARDS = st.builds(mixed, st.integers(0, 9), st.integers(0, 2**32))
ENVELOPES = st.builds(
    lambda concurrent, per_minute: Envelope(limits=Limits(concurrent, per_minute)),
    st.integers(0, 6),
    st.integers(0, 4),
)


def carried_out(jobs: Iterable[Remediation], envelope: Envelope) -> list[Remediation]:
    """Return the Jobs after the decisions on them were carried out."""
    done = {job.key: decision for job, decision in decide_now(jobs, envelope)}
    after = []
    for job in jobs:
        match done.get(job.key):
            case Admit():
                after.append(
                    replace(
                        job,
                        phase=Phase.RUNNING,
                        suspended=False,
                        started=True,
                        admitted_at=NOW,
                        started_at=NOW,
                    )
                )
            case Refuse(reason):
                after.append(
                    replace(job, phase=Phase.REFUSED, decision="refused", reason=reason.value)
                )
            case _:
                after.append(job)
    return after


def decide_now(
    jobs: Iterable[Remediation], envelope: Envelope
) -> list[tuple[Remediation, Decision]]:
    """Decide at `NOW`."""
    return decide(jobs, envelope, pause=None, now=NOW)


def admitted(jobs: Iterable[Remediation], envelope: Envelope) -> list[Remediation]:
    """Return the Jobs that are admitted at `NOW`."""
    return [job for job, decision in decide_now(jobs, envelope) if isinstance(decision, Admit)]


@settings(max_examples=scaled(50))
@given(BOARDS, ENVELOPES)
def test_no_admission_breaks_a_limit(jobs: tuple[Remediation, ...], envelope: Envelope) -> None:
    """One Job per target, and all limits are kept."""
    occupying = [job for job in jobs if job.occupying]
    starts = [
        (job.operario, job.admitted_at)
        for job in jobs
        if job.admitted_at is not None and not job.deleting
    ]

    for job in admitted(jobs, envelope):
        assert job.target not in {other.target for other in occupying}
        mine = [other for other in occupying if other.operario == job.operario]
        assert len(mine) < job.options.max_concurrent
        assert len(occupying) < envelope.limits.concurrent
        hour = [name for name, moment in starts if moment > NOW - minutes(60)]
        assert hour.count(job.operario) < job.options.max_per_hour
        minute = [name for name, moment in starts if moment > NOW - minutes(1)]
        assert len(minute) < envelope.limits.per_minute
        occupying.append(job)
        starts.append((job.operario, NOW))


@settings(max_examples=scaled(50))
@given(BOARDS, ENVELOPES)
def test_one_job_runs_per_occurrence_and_incident(
    jobs: tuple[Remediation, ...], envelope: Envelope
) -> None:
    """No Job starts if another of its occurrence or incident has started."""
    starting = admitted(jobs, envelope)
    before = [job for job in jobs if job.started and not job.deleting]

    for index, job in enumerate(starting):
        # One that is admitted later may be a new incident, after this one.
        others = [other for other in (*before, *starting[:index]) if other is not job]
        assert job.occurrence not in {other.occurrence for other in others}
        assert not [
            other
            for other in others
            if other.incident == job.incident
            and other.attempt == job.attempt
            and job.starts_at is not None
            and other.starts_at is not None
            and job.starts_at <= other.received_at + seconds(60)
            and (other.resolved_at is None or job.starts_at <= other.resolved_at)
        ]


@settings(max_examples=scaled(50))
@given(BOARDS, ENVELOPES, st.randoms(use_true_random=False))
def test_decisions_do_not_depend_on_the_order_of_jobs(
    jobs: tuple[Remediation, ...], envelope: Envelope, random: Random
) -> None:
    """A new leader that lists in another order makes the same decisions in the same order."""
    shuffled = list(jobs)
    random.shuffle(shuffled)

    assert decide_now(jobs, envelope) == decide_now(shuffled, envelope)


@settings(max_examples=scaled(50))
@given(BOARDS, ENVELOPES)
def test_a_second_pass_admits_nothing_more(
    jobs: tuple[Remediation, ...], envelope: Envelope
) -> None:
    """What one pass left waiting for room or a target, the next leaves, with nothing changed.

    Only a refusal may make way for another Job, and then within the limits.
    """
    after = carried_out(jobs, envelope)
    refusals = [job for job, decision in decide_now(jobs, envelope) if isinstance(decision, Refuse)]
    again = admitted(after, envelope)

    assert not again or refusals
    final = carried_out(after, envelope)
    if again:
        assert sum(job.occupying for job in final) <= envelope.limits.concurrent
        targets = Counter(job.target for job in final if job.occupying)
        assert all(targets[job.target] == 1 for job in again)


@settings(max_examples=scaled(50))
@given(BOARDS, ENVELOPES)
def test_every_waiting_job_is_decided_in_order(
    jobs: tuple[Remediation, ...], envelope: Envelope
) -> None:
    """Each waiting Job gets one decision, by priority, then age; waits end in the future."""
    decided = decide_now(jobs, envelope)

    assert [job.key for job, _ in decided] == [
        job.key
        for job in sorted(jobs, key=lambda r: (-r.options.priority, r.order))
        if job.waiting and not job.deleting
    ]
    for _, decision in decided:
        if isinstance(decision, Wait) and decision.until is not None:
            assert decision.until > NOW


def test_a_late_admission_counts_from_the_start_of_the_job() -> None:
    """`admitted-at` is when it was sent; the limits count from when the Job started."""
    one_a_minute = Envelope(limits=Limits(per_minute=1))
    late = finished("a", began=NOW - seconds(70), ended=NOW, labels={"alertname": "B"}, target="b")
    late = replace(late, started_at=NOW - seconds(20))

    assert decisions(late, remediation(), envelope=one_a_minute)["job-1"] == Wait(
        Reason.LIMIT_PER_MINUTE,
        NOW + seconds(40),
        "1 remediation started in the last minute, limits.perMinute in openfero.yaml is 1",
    )
