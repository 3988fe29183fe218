from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openfero_gitops.admission.decide import Wait, decide
from openfero_gitops.admission.usage import measure_usage
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from tests.support.build import NOW, finished, minutes, operario, remediation, running
from tests.support.copying import replace

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

OPTIONS = Options(cooldown=minutes(10), stop_after_not_healed=2)
RESTART = operario(options=OPTIONS)


def pod(name: str) -> dict[str, Any]:
    """Return labels and target of an alert about a Pod."""
    return {
        "operario": RESTART.name,
        "labels": {"alertname": "PodCrashLooping", "pod": name},
        "target": f'{{"pod":"{name}"}}',
        "spec_digest": RESTART.spec_digest,
    }


def ended(name: str, ago: float, effect: Effect, target: str = "web-1") -> Remediation:
    """Return a Job that ran for a minute, and ended so many minutes ago."""
    end = NOW - minutes(ago)
    began = end - minutes(1)
    given = {"began": began, "ended": end, "received_at": began, "starts_at": began}
    return finished(name, effect=effect, effect_at=end, **pod(target) | given)


def test_running_started_and_waiting_jobs_of_the_operario_are_counted() -> None:
    """Jobs of others, and starts more than an hour ago, do not count."""
    usage = measure_usage(
        RESTART,
        [
            running("a", **pod("a")),
            ended("b", 30, Effect.HEALED, "b"),
            ended("c", 90, Effect.HEALED, "c"),
            remediation("d", **pod("d")),
            running("e", **pod("e") | {"operario": "another"}),
        ],
        NOW,
    )
    assert (usage.running, usage.started_last_hour, usage.waiting) == (1, 2, 1)


def test_a_target_on_which_another_operario_works_is_busy() -> None:
    """A target is busy while a Job of any operario runs on it, and that Job is named."""
    other = running("other", **pod("web-1") | {"operario": "another"})
    (state,) = measure_usage(RESTART, [ended("a", 60, Effect.HEALED), other], NOW).targets
    assert state.busy is other


def test_a_cooldown_counts_until_its_end() -> None:
    """Ten minutes after the end of the last Job for it, a target is free again."""
    job = ended("a", 4, Effect.HEALED)
    (state,) = measure_usage(RESTART, [job], NOW).targets
    assert state.cooldown_until == NOW + minutes(6)
    assert measure_usage(RESTART, [job], NOW + minutes(6)).targets == []


def test_an_open_breaker_is_reported_until_the_operario_changes() -> None:
    """A breaker is open for the version that did not help, first of all targets."""
    jobs = [
        ended("a", 60, Effect.NOT_HEALED),
        ended("b", 40, Effect.NOT_HEALED),
        running("c", **pod("c")),
    ]
    first, second = measure_usage(RESTART, jobs, NOW).targets
    assert "the last 2 Jobs of this operario for this target did not heal" in first.not_helping
    assert second.not_helping == ""
    changed = replace(RESTART, spec_digest="another")
    assert [state.not_helping for state in measure_usage(changed, jobs, NOW).targets] == [""]


def test_admission_agrees_about_each_target() -> None:
    """A Job that is delivered now waits exactly where a target is reported, for its reason."""
    jobs = [
        ended("a", 60, Effect.NOT_HEALED, "stopped"),
        ended("b", 40, Effect.NOT_HEALED, "stopped"),
        ended("c", 4, Effect.HEALED, "cooling"),
        ended("d", 50, Effect.HEALED, "free"),
        running("e", received_at=NOW - minutes(5), starts_at=NOW - minutes(5), **pod("busy")),
    ]
    names = ("stopped", "cooling", "free", "busy")
    new = [
        remediation(f"new-{name}", options=OPTIONS, starts_at=NOW, **pod(name)) for name in names
    ]
    decisions = {
        job.target: decision.reason
        for job, decision in decide([*jobs, *new], Envelope(), pause=None, now=NOW)
        if isinstance(decision, Wait)
    }
    reported = {
        state.latest.target: Reason.NOT_HELPING
        if state.not_helping
        else (Reason.TARGET_BUSY if state.busy else Reason.COOLDOWN)
        for state in measure_usage(RESTART, jobs, NOW).targets
    }
    assert decisions == reported
