from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.delivery.unanswered import UnansweredRecord, merge, record_of
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.answer import Item
from openfero_gitops.domain.catalog import Revision
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.health import Condition
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome, Phase
from openfero_gitops.domain.sync import RefusedRevision, SyncStatus
from openfero_gitops.jobs.view import View
from openfero_gitops.web.stream.changes import MAX_CHANGES, Observation, list_changes
from openfero_gitops.web.stream.models import (
    AlertHeard,
    HealthChanged,
    LeadershipChanged,
    PauseChanged,
    RemediationChanged,
    Reset,
    SyncChanged,
    SyncResult,
)
from tests.support import build, pages
from tests.support.copying import replace

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.stream.models import EventBody

NOW = datetime(2026, 11, 30, 3, 4, 5, tzinfo=UTC)
REVISION = Revision("https://git.example/operarios", "main", "a" * 40)


def observed(*remediations: Remediation, **members: Any) -> tuple[View, Observation]:
    """Make an observation, and a view of some remediations."""
    view = View()
    for job in remediations:
        view.apply(replace(job, resource_version="1"))
    return view, Observation(**members)


def changes(before: tuple[View, Observation], after: tuple[View, Observation]) -> list[EventBody]:
    """Compare two observations; every remediation has the effect `pending`."""
    (view, old), (later, new) = before, after
    record = view.record_changes()
    for job in list(view):
        if later.get(job.key) is None:
            view.remove(job.key, job.uid)
    for job in later:
        view.apply(replace(job, resource_version="2"))
    return list_changes(old, new, record.take(), lambda _: Effect.PENDING)


def test_a_new_remediation() -> None:
    """A remediation that appears is an event with its phase, alert, operario and effect."""
    job = pages.remediation("HostDown", Phase.WAITING, NOW)
    assert changes(observed(), observed(job)) == [
        RemediationChanged(
            namespace=job.key.namespace,
            job=job.key.name,
            phase=Phase.WAITING,
            reason=job.reason,
            effect=Effect.PENDING,
            alert="HostDown",
            status=Status.FIRING,
            operario=job.operario,
        )
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"phase": Phase.RUNNING},
        {"reason": "cooldown"},
        {"message": "the Pod waits for an image"},
        {"effect": Effect.HEALED},
        {"resolved_at": NOW},
        {"approved_by": "ada"},
        {"uid": "another Job of the same name"},
    ],
)
def test_what_a_reader_sees_is_a_change(change: dict[str, Any]) -> None:
    """A change of what the pages show of a remediation is one event."""
    job = pages.remediation("HostDown", Phase.WAITING, NOW)
    (event,) = changes(observed(job), observed(replace(job, **change)))
    assert isinstance(event, RemediationChanged)
    assert event.job == job.key.name


def test_a_renewed_record_is_no_change() -> None:
    """A Job whose time to live was extended by another delivery is no event."""
    job = pages.remediation("HostDown", Phase.SUCCEEDED, NOW)
    renewed = replace(job, resource_version="999", delivered_at=NOW, ttl_seconds=90_000)
    assert changes(observed(job), observed(renewed)) == []


def test_a_deleted_job() -> None:
    """A deleted Job is an event with `deleted` and its last phase."""
    job = pages.remediation("HostDown", Phase.SUCCEEDED, NOW)
    (event,) = changes(observed(job), observed())
    assert isinstance(event, RemediationChanged)
    assert (event.deleted, event.phase) == (True, Phase.SUCCEEDED)


def test_remediations_come_in_the_order_of_their_arrival() -> None:
    """Remediations that changed together are listed in the order in which they arrived."""
    jobs = [
        pages.remediation(f"Alert{number}", Phase.WAITING, NOW - timedelta(minutes=number))
        for number in range(3)
    ]
    names = [event.alert for event in changes(observed(), observed(*jobs))]  # type: ignore[union-attr]
    assert names == ["Alert2", "Alert1", "Alert0"]


def test_too_many_changes_are_a_reset() -> None:
    """If more remediations change at once than are worth an event each, one reset is sent."""
    job = pages.remediation("HostDown", Phase.WAITING, NOW)
    jobs = [
        replace(job, key=replace(job.key, name=f"job-{number}"), uid=str(number))
        for number in range(MAX_CHANGES + 1)
    ]
    assert len(changes(observed(), observed(*jobs[1:]))) == MAX_CHANGES
    (event,) = changes(observed(), observed(*jobs))
    assert isinstance(event, Reset)


def test_texts_are_shortened() -> None:
    """A long name with line breaks is shortened and stays on one line."""
    job = replace(
        pages.remediation("HostDown", Phase.WAITING, NOW), alertname="x\ndata: {}\n" + "y" * 20_000
    )
    (event,) = changes(observed(), observed(job))
    assert isinstance(event, RemediationChanged)
    assert "\n" not in event.alert
    assert len(event.model_dump_json()) < 1000


OK = SyncStatus(revision=REVISION)
REFUSED = replace(OK, refused=RefusedRevision("b" * 40, "it is not signed", "2026-11-30T03:04:05Z"))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (OK, OK, []),
        (OK, replace(OK, last_attempt=NOW, seconds=3.0), []),
        (SyncStatus(), OK, [(SyncResult.ACTIVATED, "a" * 40, "")]),
        (OK, REFUSED, [(SyncResult.REFUSED, "b" * 40, "it is not signed")]),
        (REFUSED, replace(REFUSED, last_attempt=NOW), []),
        (OK, replace(OK, error="no route"), [(SyncResult.FAILING, "", "no route")]),
        (replace(OK, error="no route"), OK, [(SyncResult.RECOVERED, "a" * 40, "")]),
        (
            replace(OK, error="no route", revision=None),
            OK,
            [(SyncResult.ACTIVATED, "a" * 40, "")],
        ),
    ],
)
def test_syncs(
    before: SyncStatus, after: SyncStatus, expected: list[tuple[SyncResult, str, str]]
) -> None:
    """A revision that is activated or refused, and syncs that begin or cease to fail, are events.

    A sync that changes nothing is none.
    """
    assert changes(observed(sync=before), observed(sync=after)) == [
        SyncChanged(result=result, commit=commit, reason=reason)
        for result, commit, reason in expected
    ]


def test_leadership() -> None:
    """Another leader is an event; a renewed lease is none."""
    before = observed(leadership=Leadership(holder="a", since=NOW))
    renewed = observed(leadership=Leadership(holder="a", reason="another"))
    other = observed(leadership=Leadership(leader=True, holder="b"))
    assert changes(before, renewed) == []
    assert changes(before, other) == [LeadershipChanged(holder="b", leader=True)]


def test_health() -> None:
    """A condition that ceases to hold is an event; another message about it is none."""
    healthy = observed(conditions=[Condition("jobs", holds=True)])
    failing = observed(conditions=[Condition("jobs", holds=False, message="timeout")])
    other = observed(conditions=[Condition("jobs", holds=False, message="refused")])
    advised = observed(conditions=[Condition("policy", holds=False, advice="Do it")])
    assert changes(healthy, failing) == [HealthChanged(healthy=False, failing=("jobs",))]
    assert changes(failing, other) == []
    assert changes(healthy, advised) == [HealthChanged(healthy=True, failing=("policy",))]


def heard(at: datetime, *names: str) -> UnansweredRecord:
    """Record alerts that no operario answers."""
    alerts = [build.alert(labels={"alertname": name}) for name in names]
    items = [Item(alert, Outcome.NO_MATCH, Reason.NO_OPERARIO) for alert in alerts]
    return record_of(items, at, frozenset())


def test_an_alert_without_a_job() -> None:
    """An alert that got no Job is an event with the reason, and again when it is heard again."""
    first = heard(NOW, "Other", "HostDown")
    events = changes(observed(), observed(alerts=first))
    assert sorted(event.alert for event in events if isinstance(event, AlertHeard)) == [
        "HostDown",
        "Other",
    ]
    later = NOW + timedelta(seconds=5)
    again = merge(first, heard(later, "HostDown"))
    assert changes(observed(alerts=first), observed(alerts=again)) == [
        AlertHeard(
            alert="HostDown", status="firing", reason=Reason.NO_OPERARIO.value, heard_at=later
        )
    ]
    assert changes(observed(alerts=again), observed(alerts=first)) == []


def test_another_alert_within_the_same_second_is_an_event() -> None:
    """Times of the record are in seconds."""
    items = [
        Item(build.alert(labels={"alertname": "A", "host": host}), Outcome.NO_MATCH,
             Reason.NO_OPERARIO)
        for host in "ab"
    ]  # fmt: skip
    first, both = record_of(items[:1], NOW, frozenset()), record_of(items, NOW, frozenset())
    (event,) = changes(observed(alerts=first), observed(alerts=both))
    assert isinstance(event, AlertHeard)


def test_alerts_that_are_read_at_the_start_are_no_events() -> None:
    """They were heard before, perhaps hours ago."""
    assert changes(observed(alerts=None), observed(alerts=heard(NOW, "A"))) == []


def test_too_many_alerts_are_a_reset() -> None:
    """If more kinds of alerts come at once than are worth an event each, one reset is sent."""
    record = heard(NOW, *(f"Alert{number}" for number in range(MAX_CHANGES + 1)))
    (event,) = changes(observed(), observed(alerts=record))
    assert isinstance(event, Reset)


def test_pause() -> None:
    """A pause and its end are events; another wording of the same pause is none."""
    pause = Pause(PauseCause.COMMAND, "paused", by="ada", reason="upgrade")
    paused = observed(pause=pause)
    assert changes(observed(), paused) == [
        PauseChanged(paused=True, cause=PauseCause.COMMAND, by="ada", reason="upgrade")
    ]
    assert changes(paused, observed(pause=replace(pause, message="still paused"))) == []
    assert changes(paused, observed()) == [PauseChanged(paused=False)]
