from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openfero_gitops.domain.alert import Alert, Status
from openfero_gitops.domain.answer import Answer, Item, Verdict
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome, Phase
from openfero_gitops.domain.sync import Changes, RefusedRevision, SyncStatus
from openfero_gitops.metrics import Metrics
from tests.support.optional import require
from tests.support.pages import remediation

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
ALERT = Alert(Status.FIRING, {"alertname": "A"}, {}, None, None, "", "")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Read one sample as Prometheus would."""
    for family in text_string_to_metric_families(metrics.expose().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def used() -> Metrics:
    """Make metrics that have all counted something."""
    metrics = Metrics("1.2.3")
    items = [
        Item(ALERT, Outcome.CREATED),
        Item(ALERT, Outcome.CREATED),
        Item(ALERT, Outcome.REFUSED, Reason.UNSAFE_VALUE),
        Item(ALERT, Outcome.EXISTS),
        Item(ALERT, Outcome.NO_MATCH, Reason.NO_OPERARIO),
        Item(ALERT, Outcome.ERROR, Reason.BUSY, verdict=Verdict.REPEAT),
    ]
    metrics.foreign_jobs(lambda: 3)
    metrics.max_waiting(7)
    metrics.delivered(Answer(tuple(items)), 4)
    metrics.answered(503, 0.2)
    metrics.decided(Reason.ADMITTED)
    metrics.ended(remediation("A", Phase.SUCCEEDED, NOW))
    metrics.ended(remediation("A", Phase.FAILED, NOW))
    metrics.settled(_settled(Effect.HEALED), is_active=True)
    metrics.leadership(leading=True)
    metrics.synced(SyncStatus(last_success=NOW, seconds=0.4, operarios=6, problems=2))
    return metrics


@pytest.mark.parametrize(
    "name",
    ["openfero_jobs_created_total", "openfero_jobs_succeeded_total", "openfero_jobs_failed_total"],
)
def test_openferos_names_are_there_from_the_start(name: str) -> None:
    """OpenFero's three counters exist from the start, with the value 0."""
    assert value(Metrics("1.2.3"), name) == 0


def test_jobs_are_counted_by_what_became_of_alerts() -> None:
    """A refused remediation counts as a created Job; an existing Job does not."""
    metrics = used()
    assert value(metrics, "openfero_jobs_created_total") == 3
    alerts = "openfero_gitops_alerts_total"
    assert value(metrics, alerts, outcome="created", reason="") == 2
    assert value(metrics, alerts, outcome="refused", reason="unsafe-value") == 1
    assert value(metrics, alerts, outcome="exists", reason="") == 1
    assert value(metrics, alerts, outcome="no-match", reason="no-operario") == 1
    assert value(metrics, alerts, outcome="error", reason="busy") == 1
    assert value(metrics, "openfero_gitops_alerts_truncated_total") == 4


def test_answers_are_counted_by_status_and_time() -> None:
    """All answers are counted, including those to deliveries that could not be read."""
    metrics = used()
    metrics.answered(401, 0.001)
    metrics.answered(401, 12)
    deliveries = "openfero_gitops_deliveries_total"
    assert value(metrics, deliveries, code="503") == 1
    assert value(metrics, deliveries, code="401") == 2
    assert value(metrics, "openfero_gitops_delivery_seconds_count") == 3
    assert value(metrics, "openfero_gitops_delivery_seconds_bucket", le="9.0") == 2


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.SUCCEEDED, Phase.FAILED)])
def test_only_ends_of_jobs_are_ends(phase: Phase) -> None:
    """Only succeeded and failed remediations are counted."""
    metrics = used()
    metrics.ended(remediation("A", phase, NOW))
    assert value(metrics, "openfero_jobs_succeeded_total") == 1
    assert value(metrics, "openfero_jobs_failed_total") == 1


def test_decisions_and_leadership() -> None:
    """Decisions count by reason; leading is 1 on the leader and 0 elsewhere."""
    metrics = used()
    assert value(metrics, "openfero_gitops_decisions_total", reason="admitted") == 1
    assert value(metrics, "openfero_gitops_leader") == 1
    metrics.leadership(leading=False)
    assert value(metrics, "openfero_gitops_leader") == 0
    assert value(Metrics("1"), "openfero_gitops_leader") == 0


def test_the_limits_of_requests_are_read_at_each_scrape() -> None:
    """Each purpose has its own limit."""
    metrics, limits = Metrics("1"), {"delivery": 32, "admission": 8}
    metrics.requests_limits(
        delivery=lambda: limits["delivery"], admission=lambda: limits["admission"]
    )
    name = "openfero_gitops_api_requests_limit"
    assert value(metrics, name, purpose="delivery") == 32
    limits["admission"] = 4
    assert value(metrics, name, purpose="admission") == 4


def test_every_change_of_leadership_is_counted() -> None:
    """Setting the same state again, as each renewal does, is not a transition."""
    metrics = Metrics("1")
    name = "openfero_gitops_leader_transitions_total"
    metrics.leadership(leading=False)
    assert value(metrics, name) == 0
    for leading in (True, True, False, False, True):
        metrics.leadership(leading=leading)
    assert value(metrics, name) == 3


def test_what_waits_is_shown_by_reason_and_goes_to_zero() -> None:
    """A reason that no Job waits for any more is set to 0."""
    metrics = Metrics("1")
    metrics.waiting({Reason.APPROVAL: 2, Reason.COOLDOWN: 1})
    metrics.waiting({Reason.COOLDOWN: 4})
    assert value(metrics, "openfero_gitops_waiting", reason="approval") == 0
    assert value(metrics, "openfero_gitops_waiting", reason="cooldown") == 4
    metrics.waiting({})
    assert value(metrics, "openfero_gitops_waiting", reason="cooldown") == 0


def test_foreign_jobs_are_counted_when_they_are_read() -> None:
    """The gauge is what the view has at that moment, and 0 without a view."""
    jobs = ["a"]
    metrics = Metrics("1")
    assert value(metrics, "openfero_gitops_foreign_jobs") == 0
    metrics.foreign_jobs(lambda: len(jobs))
    jobs.append("b")
    assert value(metrics, "openfero_gitops_foreign_jobs") == 2


def test_the_time_of_the_watchdog_is_that_of_the_named_alert() -> None:
    """It is 0 before the first delivery, and absent without a watchdog."""
    name = "openfero_gitops_watchdog_last_delivered_timestamp_seconds"
    metrics = Metrics("1")
    assert value(metrics, name, alertname="Watchdog") is None
    metrics.watchdog("Watchdog", None)
    assert value(metrics, name, alertname="Watchdog") == 0
    metrics.watchdog("Watchdog", NOW)
    assert value(metrics, name, alertname="Watchdog") == NOW.timestamp()
    metrics.watchdog("DeadMansSwitch", None)
    assert value(metrics, name, alertname="Watchdog") is None
    metrics.watchdog("", None)
    assert value(metrics, name, alertname="DeadMansSwitch") is None


def test_the_policy_of_each_namespace_has_its_version() -> None:
    """It is 0 where there is none, and missing where that is unknown."""
    metrics = Metrics("1.2.3")
    metrics.policy("jobs", 1)
    metrics.policy("shop", 1)
    metrics.policy("shop", 0)
    name = "openfero_gitops_job_policy_version"
    assert value(metrics, name, jobs_namespace="jobs") == 1
    assert value(metrics, name, jobs_namespace="shop") == 0
    assert value(metrics, name, jobs_namespace="web") is None


def test_events_and_dry_runs_are_counted_by_result() -> None:
    """Lost Events and failed dry runs are counted separately from successful ones."""
    metrics = Metrics("1")
    for result in ("sent", "sent", "lost"):
        metrics.event_recorded(result)
    for result in ("accepted", "warning", "refused", "failed", "accepted"):
        metrics.dry_run(result)
    assert value(metrics, "openfero_gitops_events_total", result="sent") == 2
    assert value(metrics, "openfero_gitops_events_total", result="lost") == 1
    assert value(metrics, "openfero_gitops_dry_runs_total", result="accepted") == 2
    assert value(metrics, "openfero_gitops_dry_runs_total", result="refused") == 1


def test_a_refused_commit_is_shown_until_the_next_sync_that_does_not_refuse_it() -> None:
    """A later failure for another reason, such as an outage of Git, is not a refusal."""
    metrics = Metrics("1")
    name = "openfero_gitops_revision_refused"
    refused = RefusedRevision("c" * 40, "no signature", "2026-11-21T03:04:05Z")
    for error, expected in (("no signature", 1), ("timeout", 0), ("no signature", 1), (None, 0)):
        metrics.synced(SyncStatus(error=error, refused=refused))
        assert value(metrics, name) == expected
    metrics.synced(SyncStatus(error="timeout"))
    assert value(metrics, name) == 0


def test_a_sync_that_fails_leaves_what_is_in_force() -> None:
    """A failed sync is counted, and the time of the last success does not change."""
    metrics = used()
    before = SyncStatus(last_success=NOW, seconds=0.4, operarios=6, problems=2)
    metrics.synced(replace(before, error="no route", seconds=2.5))
    assert value(metrics, "openfero_gitops_syncs_total", result="success") == 1
    assert value(metrics, "openfero_gitops_syncs_total", result="failure") == 1
    assert value(metrics, "openfero_gitops_sync_seconds") == 2.5
    last = "openfero_gitops_sync_last_success_timestamp_seconds"
    assert value(metrics, last) == NOW.timestamp()
    assert value(metrics, "openfero_gitops_operarios") == 6
    assert value(metrics, "openfero_gitops_problems") == 2


def test_the_process_shows_itself() -> None:
    """Memory, open files and the version are exposed beside the controller's own."""
    metrics = Metrics("1.2.3")
    assert value(metrics, "openfero_gitops_build_info", version="1.2.3") == 1
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"):
        assert (value(metrics, name) or 0) > 0


def test_two_replicas_in_one_process_count_apart() -> None:
    """Nothing is registered globally."""
    first, second = used(), Metrics("1.2.3")
    assert value(first, "openfero_jobs_created_total") == 3
    assert value(second, "openfero_jobs_created_total") == 0


def test_the_exposition_is_clean() -> None:
    """Every metric has a type and a help text, and none the `_created` twin of a counter."""
    text = used().expose().decode()
    ours = [f for f in text_string_to_metric_families(text) if f.name.startswith("openfero")]
    assert len(ours) >= 15
    for family in ours:
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
    assert "_created{" not in text
    assert "_created " not in text


def test_promtool_finds_nothing() -> None:
    """Prometheus' own checker has no complaint about names, types and units."""
    promtool = require("promtool", "apt-get install prometheus", "promtool")
    exposition = used().expose()
    ran = subprocess.run(
        [promtool, "check", "metrics"],
        input=exposition,
        capture_output=True,
        timeout=120,
        check=False,
    )
    output = (ran.stdout + ran.stderr).decode()
    assert [line for line in output.splitlines() if "openfero" in line] == []
    assert ran.returncode == 0, output


def _settled(effect: Effect, seconds: float = 90.0) -> Remediation:
    """A remediation of the operario `openfero-a-firing` with a settled effect."""
    resolved_at = NOW + timedelta(seconds=seconds) if effect is Effect.HEALED else None
    return remediation("A", Phase.SUCCEEDED, NOW, effect=effect, resolved_at=resolved_at)


def test_effects_are_counted_by_operario() -> None:
    """From 0, so that the first of each effect is an increase; healed ones with their time."""
    metrics = Metrics("1.2.3")
    for effect in (Effect.HEALED, Effect.HEALED, Effect.UNKNOWN):
        metrics.settled(_settled(effect), is_active=True)
    counts = {
        effect: value(
            metrics,
            "openfero_gitops_effects_total",
            operario="openfero-a-firing",
            effect=effect.value,
        )
        for effect in Effect
    }
    assert counts == {
        Effect.PENDING: None,
        Effect.HEALED: 2.0,
        Effect.NOT_HEALED: 0.0,
        Effect.UNKNOWN: 1.0,
    }
    of_operario = {"operario": "openfero-a-firing"}
    name = "openfero_gitops_time_to_heal_seconds"
    assert value(metrics, f"{name}_sum", **of_operario) == 180.0
    assert value(metrics, f"{name}_bucket", **of_operario, le="60.0") == 0.0
    assert value(metrics, f"{name}_bucket", **of_operario, le="120.0") == 2.0


def test_operarios_that_were_removed_have_no_series() -> None:
    """Theirs are removed with them, and later effects of their Jobs are counted together."""
    metrics = Metrics("1.2.3")
    metrics.settled(_settled(Effect.HEALED), is_active=True)
    metrics.changed(Changes(removed=("openfero-a-firing", "openfero-b-firing")))
    assert "openfero-a-firing" not in metrics.expose().decode()
    metrics.settled(_settled(Effect.NOT_HEALED), is_active=False)
    text = metrics.expose().decode()
    assert "openfero-a-firing" not in text
    removed = {"operario": "(removed)", "effect": "not-healed"}
    assert value(metrics, "openfero_gitops_effects_total", **removed) == 1.0
