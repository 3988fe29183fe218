from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.admission.decide import Admit, Refuse, Wait, decide, next_change
from openfero_gitops.admission.expiry import expired_jobs
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.duration import parse_duration
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Foreign, JobKey, Phase
from openfero_gitops.jobs.observe import SELECTOR, observe, read_remediation
from openfero_gitops.jobs.options_annotation import write_options
from openfero_gitops.jobs.render import RENDERER
from tests.support.build import COMMIT, NOW, STARTS_AT, alert, operario, rendered, stored

LATER = NOW + timedelta(minutes=1)
AT = "2026-11-21T03:05:05.678901Z"
APPROVAL = write_options(Options(approval=True), RENDERER)


def condition(kind: str, status: str = "True", **members: str) -> dict[str, str]:
    """Return a Job's condition, at `LATER`."""
    return {"type": kind, "status": status, "lastTransitionTime": AT, **members}


COMPLETE = {"conditions": [condition("Suspended", "False"), condition("Complete")]}
FAILED = {"conditions": [condition("Failed", reason="BackoffLimitExceeded", message="too often")]}
ADMITTED = {keys.ADMITTED_AT: AT}
QUEUE = {keys.KUEUE_QUEUE: "nightly"}
RUNNING = {"suspend": False}


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({}, Phase.WAITING),
        ({"annotations": {keys.OPTIONS: APPROVAL}}, Phase.AWAITING_APPROVAL),
        ({"annotations": {keys.OPTIONS: APPROVAL, keys.APPROVED_BY: "ada"}}, Phase.WAITING),
        ({"annotations": {keys.OPTIONS: APPROVAL, keys.APPROVED_BY: ""}}, Phase.AWAITING_APPROVAL),
        ({"annotations": {keys.OPTIONS: None}}, Phase.AWAITING_APPROVAL),
        ({"spec": RUNNING}, Phase.RUNNING),
        ({"spec": {"suspend": None}}, Phase.RUNNING),
        ({"spec": RUNNING, "annotations": ADMITTED}, Phase.RUNNING),
        ({"spec": RUNNING, "annotations": ADMITTED, "labels": QUEUE}, Phase.RUNNING),
        ({"annotations": ADMITTED}, Phase.HELD),
        ({"annotations": {keys.ADMITTED_AT: "soon"}}, Phase.HELD),
        ({"annotations": {keys.ADMITTED_AT: ""}}, Phase.HELD),
        ({"annotations": ADMITTED, "labels": QUEUE}, Phase.QUEUED),
        ({"labels": QUEUE}, Phase.WAITING),
        ({"status": {"active": 1}}, Phase.HELD),
        ({"status": {"terminating": 1}}, Phase.HELD),
        ({"status": {"failed": 1}}, Phase.HELD),
        ({"status": {"succeeded": 1}}, Phase.HELD),
        ({"status": {"startTime": AT}}, Phase.HELD),
        ({"status": {"active": 0, "ready": 0}}, Phase.WAITING),
        ({"status": {"active": 1}, "annotations": {keys.OPTIONS: APPROVAL}}, Phase.HELD),
        ({"status": {"active": 1}, "labels": QUEUE}, Phase.HELD),
        ({"annotations": {keys.QUEUE: "nightly"}}, Phase.WAITING),
        ({"spec": RUNNING, "status": COMPLETE}, Phase.SUCCEEDED),
        ({"spec": RUNNING, "status": FAILED}, Phase.FAILED),
        (
            {"spec": RUNNING, "status": {"conditions": [condition("Failed", "False")]}},
            Phase.RUNNING,
        ),
        ({"spec": RUNNING, "status": {"conditions": [condition("FailureTarget")]}}, Phase.RUNNING),
        ({"annotations": {keys.DECISION: "refused"}}, Phase.REFUSED),
        ({"annotations": {keys.DECISION: ""}}, Phase.REFUSED),
        ({"annotations": {keys.DECISION: "cancelled"}}, Phase.CANCELLED),
        ({"annotations": {keys.DECISION: "cancelled"}, "status": FAILED}, Phase.CANCELLED),
    ],
)
def test_the_phase_follows_from_the_job(changes: dict[str, Any], phase: Phase) -> None:
    """It depends on suspension, admission, decision, approval, queue and conditions."""
    assert observe(stored(**changes)).phase is phase


@pytest.mark.parametrize(
    ("decision", "finished", "suspended", "admitted", "queued", "approval"),
    list(
        product(
            [None, "refused", "cancelled"],
            [None, "Complete", "Failed"],
            [True, False],
            [True, False],
            [True, False],
            [True, False],
        )
    ),
)
def test_the_first_phase_that_fits_applies(
    decision: str | None,
    finished: str | None,
    suspended: bool,  # noqa: FBT001
    admitted: bool,  # noqa: FBT001
    queued: bool,  # noqa: FBT001
    approval: bool,  # noqa: FBT001
) -> None:
    """If several fit, the documented order decides."""
    job = stored(
        annotations={
            keys.DECISION: decision,
            keys.ADMITTED_AT: AT if admitted else None,
            keys.OPTIONS: write_options(Options(approval=approval), RENDERER),
        },
        labels=QUEUE if queued else {},
        spec={"suspend": suspended},
        status={"conditions": [condition(finished)]} if finished else {},
    )
    order = [
        (Phase.CANCELLED, decision == "cancelled"),
        (Phase.REFUSED, decision == "refused"),
        (Phase.SUCCEEDED, finished == "Complete"),
        (Phase.FAILED, finished == "Failed"),
        (Phase.QUEUED, suspended and admitted and queued),
        (Phase.HELD, suspended and admitted and not queued),
        (Phase.RUNNING, not suspended),
        (Phase.AWAITING_APPROVAL, suspended and not admitted and approval),
        (Phase.WAITING, suspended and not admitted and not approval),
    ]

    remediation = observe(job)

    assert remediation.phase is next(phase for phase, fits in order if fits)
    assert remediation.waiting is (suspended and not admitted and not decision and not finished)


def test_a_rendered_job_is_parsed() -> None:
    """Everything that a decision depends on is on the Job."""
    options = Options(priority=3, cooldown=timedelta(minutes=5))
    made = rendered(by=operario(options=options, labels=QUEUE), attempt=2)

    remediation = observe(stored(made.manifest))

    assert remediation.key == JobKey("jobs", made.key.name)
    assert (remediation.uid, remediation.resource_version) == ("uid-1", "7")
    assert (remediation.operario, remediation.alertname, remediation.status) == (
        "restart-pod",
        "PodCrashLooping",
        Status.FIRING,
    )
    assert remediation.labels == alert().labels
    assert (remediation.occurrence, remediation.incident) == (
        made.occurrence.digest,
        made.occurrence.incident,
    )
    assert (remediation.attempt, remediation.fingerprint, remediation.target) == (
        2,
        "c0ffee",
        '{"pod":"web-1"}',
    )
    assert (remediation.starts_at, remediation.received_at, remediation.delivered_at) == (
        STARTS_AT,
        NOW,
        NOW,
    )
    assert (
        remediation.resolved_at,
        remediation.admitted_at,
        remediation.started_at,
        remediation.finished_at,
    ) == (None,) * 4
    assert not any(
        (
            remediation.started,
            remediation.finished,
            remediation.has_message,
            remediation.deleting,
            remediation.occupying,
        )
    )
    assert (remediation.suspended, remediation.active, remediation.term, remediation.decision) == (
        True,
        0,
        None,
        None,
    )
    assert (remediation.approved_by, remediation.queue, remediation.ttl_seconds) == (
        None,
        "nightly",
        86_400,
    )
    assert remediation.options == options
    assert (remediation.repository, remediation.ref) == ("https://git.example/ops", "main")
    assert (remediation.commit, remediation.path) == (COMMIT, "operarios/restart-pod.yaml")
    assert (remediation.reason, remediation.message) == ("", "")


def test_a_refused_remediation_keeps_its_reason() -> None:
    """Reason and message are those of the decision."""
    made = rendered(
        alert(labels={"alertname": "A", "pod": "--all"}),
        operario(spec={"template": {"spec": {"containers": [{"args": ["$(OPENFERO_POD)"]}]}}}),
    )
    remediation = observe(stored(made.manifest))

    assert (remediation.phase, remediation.reason) == (Phase.REFUSED, "unsafe-value")
    assert remediation.message == made.message


def test_a_job_that_ended_has_its_conditions_reason() -> None:
    """If nothing was decided, reason and message are Kubernetes'."""
    remediation = observe(stored(spec=RUNNING, status=FAILED, annotations=ADMITTED))

    assert (remediation.reason, remediation.message) == ("BackoffLimitExceeded", "too often")
    assert remediation.finished
    assert remediation.finished_at == LATER
    assert not remediation.has_message
    explained = observe(
        stored(spec=RUNNING, status=FAILED, annotations=ADMITTED | {keys.MESSAGE: "exit 1"})
    )
    assert explained.has_message
    assert explained.message == "exit 1"


def test_the_completion_time_is_that_of_the_status() -> None:
    """It takes precedence over the condition's time."""
    status = COMPLETE | {
        "completionTime": "2026-11-21T03:04:59Z",
        "startTime": "2026-11-21T03:04:10Z",
    }
    remediation = observe(stored(spec=RUNNING, status=status, annotations=ADMITTED))

    assert remediation.finished_at == datetime(2026, 11, 21, 3, 4, 59, tzinfo=UTC)
    assert remediation.started_at == datetime(2026, 11, 21, 3, 4, 10, tzinfo=UTC)
    assert remediation.admitted_at == LATER


def test_the_later_annotations_are_parsed() -> None:
    """A repeated delivery, its resolution and a leader's stamp are on the Job."""
    remediation = read_remediation(
        stored(
            annotations={
                keys.LAST_DELIVERED_AT: AT,
                keys.RESOLVED_AT: AT,
                keys.TERM: "replica-a/4#2",
                keys.APPROVED_BY: "ada",
                keys.DECISION: "refused",
            },
            labels={keys.STATUS: "resolved"},
            metadata={"deletionTimestamp": AT},
        )
    )

    assert (remediation.delivered_at, remediation.resolved_at) == (LATER, LATER)
    assert (remediation.term, remediation.approved_by, remediation.decision) == (
        "replica-a/4#2",
        "ada",
        "refused",
    )
    assert remediation.status is Status.RESOLVED
    assert remediation.deleting


@pytest.mark.parametrize(
    ("changes", "started", "occupying"),
    [
        ({}, False, False),
        ({"spec": RUNNING}, True, True),
        ({"annotations": ADMITTED}, True, False),
        ({"annotations": ADMITTED, "status": {"active": 1}}, True, True),
        ({"annotations": ADMITTED, "status": {"terminating": 1}}, True, True),
        ({"annotations": ADMITTED, "labels": QUEUE}, True, True),
        ({"status": {"startTime": AT}}, True, False),
        ({"status": {"active": 1}}, True, True),
        ({"status": {"terminating": 2}}, True, True),
        ({"status": {"failed": 1}}, True, False),
        ({"status": {"succeeded": 1}}, True, False),
        ({"status": {"active": 0, "terminating": 0, "ready": 0}}, False, False),
        ({"spec": RUNNING, "status": COMPLETE}, True, False),
        ({"spec": RUNNING, "annotations": {keys.DECISION: "refused"}}, True, True),
        ({"annotations": {keys.DECISION: "refused"}}, False, False),
    ],
)
def test_started_and_occupying_depend_on_the_jobs_own_fields(
    changes: dict[str, Any],
    started: bool,  # noqa: FBT001
    occupying: bool,  # noqa: FBT001
) -> None:
    """A Job counts while it has Pods or may get some, no matter who started it."""
    remediation = observe(stored(**changes))

    assert (remediation.started, remediation.occupying) == (started, occupying)


@pytest.mark.parametrize(
    ("changes", "by_other"),
    [
        ({}, False),
        ({"spec": RUNNING}, True),
        ({"status": {"failed": 1}}, True),
        ({"spec": RUNNING, "annotations": ADMITTED}, False),
        ({"annotations": ADMITTED | {keys.ADMITTED_BY: "replica-a"}}, False),
        ({"annotations": ADMITTED | {keys.ADMITTED_BY: keys.SOMEBODY_ELSE}}, True),
    ],
)
def test_started_by_other(
    changes: dict[str, Any],
    by_other: bool,  # noqa: FBT001
) -> None:
    """A Job that runs without admission was started by somebody else, also once recorded."""
    assert observe(stored(**changes)).started_by_other is by_other


def test_both_kinds_of_pods_are_counted() -> None:
    """Terminating Pods count as active."""
    assert observe(stored(status={"active": 2, "terminating": 1})).active == 3


def test_an_annotation_without_a_time_still_counts() -> None:
    """Damaging admitted-at or resolved-at does not start a Job."""
    remediation = observe(stored(annotations={keys.ADMITTED_AT: "x", keys.RESOLVED_AT: ""}))

    assert (remediation.admitted_at, remediation.resolved_at) == (NOW, NOW)


def test_a_job_of_unknown_origin_is_parsed() -> None:
    """A Job with only the controller's label has just its metadata."""
    bare = {
        "metadata": {"name": "j", "namespace": "n", "creationTimestamp": "2026-11-21T03:04:06Z"}
    }
    remediation = read_remediation(bare)

    assert (
        remediation.received_at
        == remediation.delivered_at
        == datetime(2026, 11, 21, 3, 4, 6, tzinfo=UTC)
    )
    assert remediation.phase is Phase.RUNNING
    assert (
        remediation.occurrence,
        remediation.target,
        remediation.attempt,
        remediation.operario,
    ) == ("", "", 1, "")
    del bare["metadata"]["creationTimestamp"]
    assert read_remediation(bare).received_at == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_missing_annotation_falls_back_to_the_label() -> None:
    """The operario's label is used if its annotation was removed."""
    assert observe(stored(annotations={keys.OPERARIUS: None})).operario == "restart-pod"


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "null", "{}", '{"labels": []}', "[" * 100_000, '{"labels": null}']
)
def test_a_damaged_alert_has_no_labels(text: str) -> None:
    """An unreadable annotation counts as absent."""
    remediation = read_remediation(stored(annotations={keys.ALERT: text}))

    assert (remediation.labels, remediation.alertname) == ({}, "")


def test_a_long_alert_is_parsed_like_a_short_one() -> None:
    """The cache makes no difference."""
    made = rendered(alert(annotations={"note": "x" * 50_000}))

    assert observe(stored(made.manifest)).labels == alert().labels


def test_labels_are_text() -> None:
    """Other values in the record are converted to text."""
    text = json.dumps({"labels": {"a": 1, "b": None}})

    assert read_remediation(stored(annotations={keys.ALERT: text})).labels == {
        "a": "1",
        "b": "None",
    }


@given(
    st.dictionaries(
        st.sampled_from([getattr(keys, name) for name in dir(keys) if name.isupper()]),
        st.text() | st.sampled_from(["{}", "[[", "0001-01-01T00:00:00Z", "9" * 5000]),
    )
)
def test_no_annotation_makes_parsing_fail(annotations: dict[str, str]) -> None:
    """Whatever somebody writes with kubectl, the Job is read, or reported as foreign."""
    remediation = read_remediation(stored(annotations=annotations))
    observed = observe(stored(annotations=annotations))

    assert remediation.phase in Phase
    assert remediation.received_at.tzinfo is not None
    assert observed == remediation or isinstance(observed, Foreign)


#: What a person with kubectl may write where a time, or the options, are expected.
TIMES = st.sampled_from(
    ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", AT]
) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
LONGEST = "3650d"
WRITTEN = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("max-concurrent", "max-per-hour", "priority"), st.integers()),
        **dict.fromkeys(
            ("cooldown", "max-wait", "resolve-delay", "rerun-after"),
            st.sampled_from(["0", "1h", LONGEST]) | st.text(),
        ),
        "approval": st.booleans(),
    },
).map(json.dumps)
ALERTS = st.builds(
    lambda value: json.dumps({"labels": {"alertname": value}}), st.text() | st.just("\ud800")
)
EDITED = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            (
                keys.RECEIVED_AT,
                keys.STARTS_AT,
                keys.LAST_DELIVERED_AT,
                keys.RESOLVED_AT,
                keys.ADMITTED_AT,
            ),
            TIMES | st.text(),
        ),
        keys.OPTIONS: WRITTEN | st.text(),
        keys.ALERT: ALERTS | st.text(),
        keys.ATTEMPT: st.text(),
        keys.DECISION: st.text(),
        keys.TARGET: st.sampled_from(["", "same"]),
    },
)


@given(
    st.lists(
        st.tuples(
            EDITED,
            st.sampled_from([{}, {keys.STATUS: "resolved"}]),
            st.sampled_from([{}, RUNNING]),
            st.sampled_from([{}, COMPLETE, FAILED, {"startTime": AT}]),
        ),
        max_size=4,
    )
)
def test_no_annotation_stops_admission(jobs: list[tuple[Any, ...]]) -> None:
    """A Job with any annotation is decided on and cleaned up."""
    seen = [
        read_remediation(
            stored(
                annotations=edited,
                labels=labels,
                spec=spec,
                status=status,
                metadata={"name": f"job-{number}", "uid": str(number)},
            )
        )
        for number, (edited, labels, spec, status) in enumerate(jobs)
    ]
    envelope = Envelope(remember=parse_duration(LONGEST), limits=Limits(per_minute=1))

    decided = decide(seen, envelope, pause=None, now=NOW)
    expired_jobs(seen, envelope, NOW)
    next_change(decided)

    assert {remediation.key for remediation, _ in decided} == {
        remediation.key for remediation in seen if remediation.waiting
    }


def test_a_lone_surrogate_in_a_recorded_alert_is_a_damaged_record() -> None:
    """No digest of it can be made; the Job is decided on without labels."""
    remediation = read_remediation(
        stored(
            annotations={keys.ALERT: r'{"labels": {"a": "\ud800"}}'},
            labels={keys.STATUS: "resolved"},
        )
    )

    assert remediation.labels == {}
    assert decide([remediation], Envelope(), pause=None, now=NOW) == [
        (remediation, Refuse(Reason.NOTHING_TO_UNDO))
    ]


def test_a_limit_below_zero_admits_nothing() -> None:
    """Editing the options of a Job can keep that Job from starting, and no other."""
    edited = observe(stored(annotations={keys.OPTIONS: '{"approval":false,"max-per-hour":-1}'}))

    decided = decide([edited], Envelope(), pause=None, now=NOW)

    [(_, wait)] = decided
    assert isinstance(wait, Wait)
    assert (wait.reason, wait.until) == (Reason.MAX_PER_HOUR, NOW + timedelta(hours=1))


@pytest.mark.parametrize("written", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_an_invalid_arrival_time_is_replaced_by_the_creation_time(written: str) -> None:
    """An edited annotation delays neither this Job nor others."""
    remediation = observe(stored(annotations={keys.RECEIVED_AT: written}))

    decided = decide([remediation], Envelope(), pause=None, now=NOW)

    assert remediation.received_at == datetime(2026, 11, 21, 3, 4, 6, tzinfo=UTC)
    assert decided == [(remediation, Admit())]
    assert next_change(decided) is None


def test_the_selector_matches_the_controllers_jobs() -> None:
    """Every rendered Job has the label."""
    key, _, value = SELECTOR.partition("=")

    assert rendered().manifest["metadata"]["labels"][key] == value


def test_a_job_key_is_namespace_and_name() -> None:
    """It reads NAMESPACE/NAME, and earlier Jobs come first."""
    remediation = observe(stored())

    assert str(JobKey("jobs", "a")) == "jobs/a"
    assert remediation.order == (NOW, remediation.key.name, "jobs")


def test_the_cache_of_alerts_is_bounded() -> None:
    """After thousands of Jobs, only some of their alerts are cached."""
    job = stored()
    before = sys.getallocatedblocks()
    for number in range(8000):
        recorded = {"labels": {"alertname": "Pods", "number": str(number)}}
        job["metadata"]["annotations"][keys.ALERT] = json.dumps(recorded)
        observe(job)
    assert sys.getallocatedblocks() - before < 20_000  # an alert takes about eight


QUEUED = {"labels": QUEUE, "annotations": ADMITTED}
FIRST, SECOND = "2026-11-21T03:06:00Z", "2026-11-21T03:16:00Z"


def started(at: str | None, count: int = 0, recorded: str = "", **given: Any) -> dict[str, Any]:
    """Return a Job in a Kueue queue that runs since `at`, with `count` recorded starts."""
    marks = {keys.START_COUNT: str(count), keys.STARTED_AT: recorded} if count else {}
    status = given.pop("status", {}) | ({"startTime": at} if at else {})
    spec = {"suspend": at is None}
    return stored(labels=QUEUE, annotations=ADMITTED | marks, spec=spec, status=status, **given)


def held(count: int, recorded: str, **given: Any) -> dict[str, Any]:
    """Return a Job of no queue, which a person has suspended after so many starts."""
    marks = {keys.START_COUNT: str(count), keys.STARTED_AT: recorded}
    return stored(annotations=ADMITTED | marks, **given)


@pytest.mark.parametrize(
    ("job", "starts", "unrecorded"),
    [
        (stored(**QUEUED), 0, None),
        (started(FIRST), 1, FIRST),
        (started(FIRST, 1, FIRST), 1, None),
        (started(None, 1, FIRST), 1, None),
        (started(SECOND, 1, FIRST), 2, SECOND),
        (started(SECOND, 2, SECOND), 2, None),
        (started(FIRST, status=COMPLETE), 1, None),
        (started(SECOND, 1, FIRST, status=COMPLETE), 2, SECOND),
        (started(SECOND, -3, FIRST), 1, SECOND),
        (started(SECOND, 7, "soon"), 8, SECOND),
        (stored(), 0, None),
        (stored(spec=RUNNING, status={"startTime": FIRST}), 1, None),
        (stored(annotations=ADMITTED), 1, AT),
        (stored(annotations=ADMITTED, status={"startTime": FIRST}), 1, FIRST),
        (held(1, FIRST), 1, None),
        (held(1, FIRST, spec=RUNNING, status={"startTime": SECOND}), 2, SECOND),
        (held(2, SECOND, spec=RUNNING, status={"startTime": SECOND}), 2, None),
    ],
)
def test_the_starts_of_a_job_are_counted(
    job: dict[str, Any], starts: int, unrecorded: str | None
) -> None:
    """By what is recorded on it; a start with another time is another one."""
    remediation = read_remediation(job)
    assert remediation.starts == starts
    moment = datetime.fromisoformat(unrecorded) if unrecorded else None
    assert remediation.unrecorded_start == moment


STOPPED = "Kueue stopped the Job after 1 start; its commands run again when Kueue starts it again"
AGAIN = "the Job was stopped and started again; it has been started 2 times"


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (started(None, 1, FIRST), STOPPED),
        (started(SECOND, 1, FIRST), AGAIN),
        (started(FIRST, 1, FIRST), ""),
        (stored(**QUEUED), ""),
    ],
)
def test_a_message_says_that_kueue_stopped_a_job(job: dict[str, Any], message: str) -> None:
    """While it is queued again, and while it runs again."""
    assert read_remediation(job).message == message
