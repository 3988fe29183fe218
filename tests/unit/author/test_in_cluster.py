from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.author.in_cluster import OutcomeNow, outcome_now
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey, Outcome, Phase
from openfero_gitops.jobs.observe import read_remediation
from openfero_gitops.jobs.render import render
from tests.support.build import NOW, alert, catalog, delivery, operario

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation


def job(received: Alert, answering: Operario, /, **changes: Any) -> Remediation:
    """The Job that an alert got earlier."""
    active = catalog(answering)
    rendered = render(
        received, answering, active.envelope, active.revision, delivery(), jobs_namespace="jobs"
    )
    return replace(read_remediation(rendered.manifest), uid="1", **changes)


def now(
    received: Alert, answering: Operario, *jobs: Remediation, pause: Pause | None = None
) -> OutcomeNow:
    """What a delivery does beside these Jobs."""
    return outcome_now(received, catalog(answering), jobs, pause, delivery(), jobs_namespace="jobs")


def other_pod() -> Alert:
    """Another alert for the same operario."""
    return alert(labels=dict(alert().labels, pod="web-2"))


def test_a_job_that_nothing_holds_back_starts_at_once() -> None:
    """Without other Jobs the outcome is a Job that starts."""
    outcome = now(alert(), operario())

    assert (outcome.outcome, outcome.reason) == (Outcome.CREATED, None)
    assert outcome.message.endswith("would be created and start at once")


def test_a_pause_holds_back_the_job() -> None:
    """Paused admission is the reason why a Job waits."""
    pause = Pause(PauseCause.COMMAND, "eve paused admission", "eve", NOW, None, "")

    outcome = now(alert(), operario(), pause=pause)

    assert (outcome.outcome, outcome.reason) == (Outcome.CREATED, Reason.PAUSED)
    assert outcome.message.endswith("would be created and wait: eve paused admission")


def test_a_limit_counts_the_jobs_that_run() -> None:
    """A Job of another alert that runs uses up max-concurrent."""
    limited = operario(options=Options(max_concurrent=1))
    running = job(other_pod(), limited, phase=Phase.RUNNING, started=True, suspended=False)

    outcome = now(alert(), limited, running)

    assert outcome.reason is Reason.MAX_CONCURRENT


def test_a_cooldown_says_until_when() -> None:
    """After a Job for the same target, the wait has an end."""
    cooling = operario(options=Options(cooldown=timedelta(minutes=10)))
    ended = NOW - timedelta(minutes=4)
    earlier = job(
        alert(starts_at=NOW - timedelta(hours=2)),
        cooling,
        phase=Phase.SUCCEEDED,
        started=True,
        finished=True,
        received_at=NOW - timedelta(hours=2),
        started_at=ended,
        finished_at=ended,
        resolved_at=ended,
    )

    outcome = now(alert(), cooling, earlier)

    assert (outcome.reason, outcome.until) == (Reason.COOLDOWN, ended + timedelta(minutes=10))


def test_an_alert_that_has_its_job_gets_no_other() -> None:
    """The existing Job is named with its phase."""
    existing = job(alert(), operario())

    outcome = now(alert(), operario(), existing)

    assert (outcome.outcome, outcome.job) == (Outcome.EXISTS, existing.key)
    assert f"Job {existing.key} exists for this alert (Waiting)" in outcome.message


def test_rerun_after_creates_another_attempt() -> None:
    """An alert that still fires after rerun-after gets a Job of another name."""
    again = operario(options=Options(rerun_after=timedelta(minutes=5), cooldown=timedelta(0)))
    ended = NOW - timedelta(minutes=6)
    first = job(
        alert(),
        again,
        phase=Phase.SUCCEEDED,
        started=True,
        finished=True,
        started_at=ended,
        finished_at=ended,
    )

    outcome = now(alert(), again, first)

    assert outcome.outcome is Outcome.CREATED
    assert outcome.job != first.key


@pytest.mark.parametrize("known", [True, False])
def test_an_alert_about_an_own_job_creates_none(*, known: bool) -> None:
    """Whether a Job is the controller's own is known from its Jobs."""
    about = alert(labels=dict(alert().labels, namespace="jobs", job_name="healer"))
    own = job(other_pod(), operario(), key=JobKey("jobs", "healer"))

    outcome = now(about, operario(), *([own] if known else []))

    assert (outcome.reason is Reason.OWN_JOB) is known


def test_the_wobbling_start_of_an_incident_is_one_incident() -> None:
    """A start that differs by seconds from that of a running Job is refused as the same."""
    answering = operario()
    running = job(
        alert(starts_at=alert().starts_at - timedelta(seconds=20)),
        answering,
        phase=Phase.RUNNING,
        started=True,
        suspended=False,
    )

    outcome = now(alert(), answering, running)

    assert (outcome.outcome, outcome.reason) == (Outcome.REFUSED, Reason.SAME_INCIDENT)
    assert str(running.key) in outcome.message
