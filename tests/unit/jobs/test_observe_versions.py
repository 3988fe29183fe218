from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.cluster.answers import parse_event
from openfero_gitops.cluster.api import OBSERVED_JOBS, Change, WatchEvent
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.remediation import Foreign, Remediation
from openfero_gitops.jobs import observe as observe_module
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.options_annotation import write_options
from openfero_gitops.jobs.render import RENDERER
from openfero_gitops.jobs.view import View
from tests.support.build import alert, rendered, stored

AT = "2026-11-21T03:05:05Z"
LATER = "2026-11-21T03:06:05.123456Z"
COMPLETE = {"type": "Complete", "status": "True", "lastTransitionTime": AT, "reason": "All"}


def event(job: dict[str, Any]) -> dict[str, Any]:
    """Return a Job as an event of a watch delivers it."""
    parsed = parse_event(json.dumps({"type": "MODIFIED", "object": job}).encode(), OBSERVED_JOBS)
    assert isinstance(parsed, WatchEvent)
    return parsed.object


def values(*texts: str | None) -> st.SearchStrategy[str | None]:
    """Draw None, for an annotation that is absent, more often than each text."""
    return st.sampled_from([None, None, *texts])


ANNOTATIONS = st.fixed_dictionaries(
    {
        keys.ADMITTED_AT: values(AT, "soon"),
        keys.DECISION: values("refused", "cancelled", ""),
        keys.REASON: values("resolved", "too-large"),
        keys.MESSAGE: values("", "m", "x" * 3000),
        keys.POD_WAITING: values("ErrImagePull: no such host"),
        keys.START_COUNT: values("1", "-1", "x"),
        keys.STARTED_AT: values(AT, LATER),
        keys.APPROVED_BY: values("", "ada"),
        keys.TERM: values("a#1"),
    },
    optional={
        keys.OPTIONS: st.just(write_options(Options(approval=True), RENDERER)),
        keys.TARGET: st.just('{"pod":"another"}'),
        keys.ALERT: st.just('{"truncated":true,"labels":{"alertname":"PodCrashLooping"}}'),
        keys.RECEIVED_AT: st.just("2027-01-01T00:00:00Z"),
    },
)
STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "active": st.sampled_from([0, 1]),
        "ready": st.sampled_from([0, 1]),
        "terminating": st.sampled_from([None, 1]),
        "startTime": st.sampled_from([AT, LATER]),
        "completionTime": st.just(LATER),
        "conditions": st.lists(
            st.sampled_from(
                [
                    COMPLETE,
                    COMPLETE | {"type": "Failed", "message": "too often"},
                    COMPLETE | {"type": "Suspended"},
                    COMPLETE | {"type": "Suspended", "status": "False"},
                ]
            ),
            max_size=2,
        ),
    },
)
VERSIONS = st.fixed_dictionaries(
    {
        "annotations": ANNOTATIONS,
        "labels": st.sampled_from([{}, {}, {keys.KUEUE_QUEUE: "q"}, {keys.OCCURRENCE: "forged"}]),
        "spec": st.sampled_from([{"suspend": True}, {"suspend": False}, {"suspend": None}]),
        "status": STATUSES,
        "metadata": st.sampled_from([{}, {"deletionTimestamp": AT}]),
    }
)


@given(st.lists(VERSIONS, min_size=1, max_size=3), st.data())
def test_events_are_observed_as_if_each_were_the_first(
    versions: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Taking what has not changed from the last version gives the same as reading all again."""
    view = View()
    for number in range(1, 7):
        version = data.draw(st.sampled_from(versions)) | {"status": data.draw(STATUSES)}
        job = stored(**version)
        job["metadata"]["resourceVersion"] = str(number)
        observed = view.read(event(job))
        assert observed == observe(job)
        assert view.apply(observed)
        assert view.read(event(job)) is observed


def test_a_job_is_read_wholly_only_if_its_labels_or_annotations_changed() -> None:
    """The digests of the alert are not calculated for each change of the status."""
    view = View()
    admitted = {keys.ADMITTED_AT: AT}
    jobs = [
        stored(status={}),
        stored(status={"active": 1}),
        stored(status={"active": 1, "ready": 1}),
        stored(annotations=admitted),
        stored(annotations=admitted, status={"active": 1}),
        stored(annotations=admitted, labels={keys.KUEUE_QUEUE: "q"}),
    ]
    with mock.patch.object(
        observe_module, "why_foreign", side_effect=observe_module.why_foreign
    ) as checks:
        for number, job in enumerate(jobs):
            job["metadata"]["resourceVersion"] = str(number + 1)
            view.apply(observe(event(job), view.get))
    assert checks.call_count == 3


@pytest.mark.parametrize("key", [keys.INCIDENT, keys.OCCURRENCE])
def test_a_job_that_is_edited_becomes_foreign(key: str) -> None:
    """What an event changed is checked, though the Job was known."""
    view = View()
    job = stored()
    view.apply(observe(event(job), view.get))
    job["metadata"]["labels"][key] = "forged"
    job["metadata"]["resourceVersion"] = "8"
    assert isinstance(observe(event(job), view.get), Foreign)


def test_another_job_of_the_same_name_is_read_wholly() -> None:
    """The same labels and annotations do not make it the same Job."""
    view = View()
    view.apply(observe(event(stored()), view.get))
    later = event(stored(metadata={"uid": "uid-2", "creationTimestamp": "2026-11-20T03:04:06Z"}))
    assert isinstance(observe(later, view.get), Foreign), "received after it was created"


def test_an_event_keeps_the_incident_that_the_replica_labels_give() -> None:
    """The view gives a Job its incident under the current replica labels; events keep it."""
    named = alert(labels={"alertname": "PodCrashLooping", "pod": "web-1", "site": "a"})
    view = View(frozenset({"site"}))
    made = rendered(named).manifest
    for number in (1, 2):
        job = stored(made, metadata={"resourceVersion": str(number)}, status={"active": number})
        view.apply(observe(event(job), view.get))
    (remediation,) = view
    assert remediation.replica_labels == ("site",)
    assert remediation.active == 2
    assert remediation.status is Status.FIRING


@pytest.mark.parametrize("annotations", [None, "absent"])
def test_a_job_without_annotations_is_foreign(annotations: str | None) -> None:
    """Anybody can create one with the label of the controller."""
    job = stored()
    job["metadata"]["annotations"] = annotations
    if annotations:
        del job["metadata"]["annotations"]
    assert isinstance(observe(event(job), View().get), Foreign)


def test_an_object_whose_annotations_are_parsed_is_observed_too() -> None:
    """The in-memory cluster and lists deliver such objects."""
    assert observe(stored(), View().get) == observe(stored())
    assert isinstance(observe(stored()), Remediation)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}, Change.BOOKMARK),
        ({"type": "DELETED", "object": stored()}, Change.DELETED),
        ({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410}}, None),
    ],
)
def test_other_lines_of_a_watch_are_parsed_too(line: dict[str, Any], kind: Change | None) -> None:
    """A bookmark has no labels, and an error is not a Job."""
    parsed = parse_event(json.dumps(line).encode(), OBSERVED_JOBS)
    if kind is None:
        assert parsed == line["object"]
    else:
        assert isinstance(parsed, WatchEvent)
        assert parsed.change is kind
        assert parsed.object["metadata"]["resourceVersion"] == "7"
