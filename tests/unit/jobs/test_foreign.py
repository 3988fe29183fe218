"""Jobs that carry the controller's label, but that it did not create."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence, Status
from openfero_gitops.domain.remediation import Foreign, Remediation
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.jobs import foreign
from openfero_gitops.jobs.observe import observe
from tests.support.build import NOW, alert, delivery, operario, rendered, stored

CREATED = "2026-11-21T03:04:06Z"
OTHER = alert(labels={"alertname": "DiskFull", "node": "n1"})
OVERSIZE = alert(labels={"alertname": "PodCrashLooping", "note": "x" * 70_000})


def of_other_alert(**changes: Any) -> Occurrence:
    """Return the occurrence of another alert."""
    return Occurrence(OTHER.labels, OTHER.status, changes.get("starts_at", OTHER.starts_at))


@pytest.mark.parametrize(
    "received",
    [
        alert(),
        alert(starts_at=None),
        alert(status=Status.RESOLVED),
        alert(labels={"alertname": "--- Ärger ---", "": "", "x": "\u2028"}),
        alert(labels={"alertname": "X" * 3000}),
        alert(annotations={"description": "x" * 100_000}),
        OVERSIZE,
    ],
)
@pytest.mark.parametrize("attempt", [1, 7])
def test_what_was_rendered_is_ours(received: Any, attempt: int) -> None:
    """The Job of any alert is read as a remediation."""
    made = rendered(received, attempt=attempt, delivered=delivery(id="f" * 32))

    assert isinstance(observe(stored(made.manifest)), Remediation)
    assert isinstance(observe(made.manifest), Remediation), "before it is created, too"


@pytest.mark.parametrize(
    "received",
    [
        alert(),
        alert(starts_at=None),
        alert(status=Status.RESOLVED),
        alert(labels={"alertname": "A", "prometheus_replica": "1", "rule_replica": "2"}),
    ],
)
def test_identity_of_a_rendered_job_is_not_computed_again(
    received: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the occurrence of a rendered Job says of it is what its recorded alert says."""
    made = rendered(received, attempt=2, delivered=delivery(id="f" * 32))
    job = stored(made.manifest)
    recorded = foreign.RecordedAlert(made.manifest["metadata"]["annotations"][keys.ALERT])
    monkeypatch.setattr("openfero_gitops.jobs.observe.recorded_alert", lambda _: recorded)
    read = observe(job)
    recorded.remember_identity(made.occurrence, made.key.name, made.replica_labels)
    monkeypatch.setattr(foreign, "Occurrence", None)

    assert observe(job) == read
    assert isinstance(read, Remediation)


@pytest.mark.parametrize(("characters", "reads"), [(1, 1), (3000, 0)])
def test_identity_of_a_long_alert_is_not_kept(
    characters: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded of it is not shared, so it is not even read."""
    labels = {"alertname": "A", "unique": f"kept-{characters}" + "x" * characters}
    made = rendered(alert(labels=labels))
    text = made.manifest["metadata"]["annotations"][keys.ALERT]
    read = []

    class Counted(foreign.RecordedAlert):
        def __init__(self, text: str) -> None:
            read.append(text)
            super().__init__(text)

    monkeypatch.setattr(foreign, "RecordedAlert", Counted)
    foreign.remember_identity(text, made.occurrence, made.key.name, made.replica_labels)
    assert len(read) == reads


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=4),
    st.text(max_size=20),
    st.sampled_from(Status),
    st.none() | st.just(NOW),
    st.integers(1, 9),
    st.lists(st.text(max_size=5), max_size=3),
)
def test_no_alert_makes_a_foreign_job(
    labels: dict[str, str], name: str, status: Status, starts_at: Any, attempt: int, target: Any
) -> None:
    """Whatever the labels and the target's labels are, our own Job is never foreign."""
    from openfero_gitops.domain.operario import Options  # noqa: PLC0415

    received = alert(labels=labels | {"alertname": name}, status=status, starts_at=starts_at)
    by = operario(options=Options(target=tuple(target)))

    assert isinstance(
        observe(stored(rendered(received, by, attempt=attempt).manifest)), Remediation
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"metadata": {"name": "job-1"}}, "its name does not"),
        ({"metadata": {"name": "podcrashlooping-firing-aaaaaaaaaaaaaaaa"}}, "its name does not"),
        ({"labels": {keys.OCCURRENCE: of_other_alert().digest}}, "its label openfero.io/occurr"),
        ({"labels": {keys.OCCURRENCE: ""}}, "its label openfero.io/occurrence does not"),
        ({"labels": {keys.INCIDENT: of_other_alert().incident}}, "its label openfero.io/incident"),
        ({"labels": {keys.STATUS: "resolved"}}, "its label openfero.io/occurrence does not"),
        ({"annotations": {keys.ALERT: None}}, "its recorded alert is missing"),
        ({"annotations": {keys.ALERT: "[" * 10_000}}, "its recorded alert is missing"),
        ({"annotations": {keys.ALERT: '{"labels":{"alertname":"X"}}'}}, "its label openfero.io/oc"),
        ({"annotations": {keys.STARTS_AT: format_time(NOW)}}, "its label openfero.io/occurrence"),
        ({"annotations": {keys.STARTS_AT: ""}}, "its label openfero.io/occurrence does not"),
        ({"annotations": {keys.ATTEMPT: "2"}}, "its label openfero.io/occurrence does not"),
        ({"annotations": {keys.ATTEMPT: "9" * 4000}}, "its label openfero.io/occurrence does not"),
        ({"annotations": {keys.TARGET: '{"pod":"db-1"}'}}, "its annotation openfero.io/target"),
        ({"annotations": {keys.TARGET: "{}"}}, "its annotation openfero.io/target does not"),
        ({"annotations": {keys.TARGET: None}}, "its annotation openfero.io/target does not"),
    ],
)
def test_what_does_not_belong_together_is_foreign(changes: dict[str, Any], why: str) -> None:
    """Name, occurrence, incident, target and recorded alert are one."""
    foreign = observe(stored(**changes))

    assert isinstance(foreign, Foreign)
    assert foreign.why.startswith(why)
    assert (foreign.uid, foreign.resource_version) == ("uid-1", "7")


@pytest.mark.parametrize(
    ("received_after", "ours"), [(-86_400, True), (0, True), (119, True), (121, False)]
)
def test_an_alert_cannot_be_received_after_its_job_was_created(
    received_after: int,
    ours: bool,  # noqa: FBT001
) -> None:
    """Clocks may differ by two minutes; a Job that was restored from a backup is older."""
    moment = NOW.replace(second=6, microsecond=0) + timedelta(seconds=received_after)
    job = stored(
        annotations={keys.RECEIVED_AT: format_time(moment)},
        metadata={"creationTimestamp": CREATED},
    )

    assert isinstance(observe(job), Remediation) is ours


def test_an_alert_without_start_belongs_to_its_delivery() -> None:
    """The id of another delivery does not belong to the Job's name."""
    made = rendered(alert(starts_at=None), delivered=delivery(id="one"))
    job = stored(made.manifest, annotations={keys.DELIVERY: '{"id":"two"}'})

    assert isinstance(observe(job), Foreign)


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"annotations": {keys.DECISION: None}}, False),
        ({"annotations": {keys.DECISION: "cancelled"}}, False),
        ({"annotations": {keys.REASON: "resolved"}}, False),
        ({"spec": {"suspend": False}}, False),
        ({"status": {"failed": 1}}, False),
        ({"annotations": {keys.ADMITTED_AT: format_time(NOW)}}, False),
        ({"labels": {keys.OCCURRENCE: of_other_alert().digest}}, False),
        ({"labels": {keys.INCIDENT: of_other_alert().incident}}, True),
    ],
)
def test_a_job_without_recorded_labels_was_refused_at_its_creation(
    changes: dict[str, Any],
    ours: bool,  # noqa: FBT001
) -> None:
    """It has never started, and counts for no incident."""
    job = observe(stored(rendered(OVERSIZE).manifest, **changes))

    assert isinstance(job, Remediation) is ours
    if isinstance(job, Remediation):
        assert job.incident == ""


def test_a_record_of_an_earlier_release_is_accepted() -> None:
    """Up to 64 KiB of an alert were recorded; more is foreign."""
    for characters, ours in ((60_000, True), (70_000, False)):
        labels = {"alertname": "PodCrashLooping", "note": "x" * characters}
        base = alert(labels=labels)
        occurrence = Occurrence.of(base, "")
        record = json.dumps({"labels": labels})
        target = json.dumps({"alertname": "PodCrashLooping"})
        job = stored(
            annotations={keys.ALERT: record, keys.TARGET: target},
            labels={keys.OCCURRENCE: occurrence.digest, keys.INCIDENT: occurrence.incident},
            metadata={"name": f"podcrashlooping-firing-{occurrence.digest[:16]}"},
        )
        assert isinstance(observe(job), Remediation) is ours


def test_the_check_costs_little() -> None:
    """Reading a Job takes far less than what a list or an event of it costs to receive."""
    annotations = {"description": "x" * 700}
    texts = [
        json.dumps(stored(rendered(alert(annotations=annotations | {"n": str(n)})).manifest))
        for n in range(200)
    ]
    jobs = list(map(json.loads, texts))
    started = time.process_time()
    for job in jobs:
        observe(job)
    observing = time.process_time() - started
    started = time.process_time()
    for text in texts:
        json.loads(text)
    assert observing < 20 * (time.process_time() - started)
