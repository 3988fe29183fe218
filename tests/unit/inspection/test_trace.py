"""What `trace` says about a remediation, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from openfero_gitops.admission.decide import Wait
from openfero_gitops.domain import keys
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Foreign
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.inspection.trace import Trace, trace
from openfero_gitops.inspection.trace_text import as_members, as_text
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.options_annotation import write_options
from openfero_gitops.jobs.render import RENDERER
from tests.support import build
from tests.support.build import NOW, minutes, seconds, stored

CONTAINER = "container heal of Pod job-x2x9q"
END = "2026-11-21T03:04:17Z"
SUCCEEDED = {
    "startTime": "2026-11-21T03:04:08Z",
    "completionTime": END,
    "succeeded": 1,
    "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": END}],
}
ADMITTED = {
    keys.ADMITTED_AT: format_time(NOW + seconds(3)),
    keys.ADMITTED_BY: "replica-b",
    keys.TERM: "replica-b/1/2026-11-21T03:00:00Z#1",
}


def traced(
    annotations: dict[str, str | None] | None = None,
    *,
    pods: tuple[Any, ...] = (),
    events: tuple[Any, ...] = (),
    verified: bool | None = None,
    wait: Wait | None = None,
    instead_of_wait: str = "",
    managed_fields: list[Any] | None = None,
    **job: Any,
) -> Trace:
    """Return the trace of the Job of `build.alert()`, an hour after the delivery."""
    given = stored(annotations=annotations, **job)
    given["metadata"]["managedFields"] = managed_fields or []
    remediation = observe(given)
    assert not isinstance(remediation, Foreign)
    return trace(
        remediation,
        given,
        incident=[remediation],
        pods=pods,
        events=events,
        approval_verified=verified,
        now=NOW + minutes(60),
        wait=wait,
        instead_of_wait=instead_of_wait,
    )


def pod(name: str = "job-x2x9q", **state: Any) -> dict[str, Any]:
    """Return a Pod with one container in a state."""
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-11-21T03:04:08Z"},
        "status": {
            "phase": "Succeeded" if "terminated" in state else "Pending",
            "containerStatuses": [{"name": "heal", "state": state}],
        },
    }


def event(reason: str, note: str, at: str, *, ours: bool = False) -> dict[str, Any]:
    """Return an Event about the Job."""
    return {
        "metadata": {"creationTimestamp": at},
        "regarding": {"kind": "Job", "name": "job"},
        "reason": reason,
        "note": note,
        "type": "Normal",
        "reportingController": "openfero.io/openfero-gitops" if ours else "job-controller",
    }


def test_a_healed_alert_is_told_from_its_start_to_its_effect() -> None:
    """The head has what is recorded; the timeline what happened, in order, with its distance."""
    terminated = {
        "exitCode": 0,
        "reason": "Completed",
        "startedAt": "2026-11-21T03:04:09Z",
        "finishedAt": "2026-11-21T03:04:16Z",
    }
    resolved = {keys.RESOLVED_AT: format_time(NOW + minutes(2))}
    text = as_text(
        traced(
            {**ADMITTED, **resolved},
            spec={"suspend": False},
            status=SUCCEEDED,
            pods=(pod(terminated=terminated),),
            events=(
                event("Waiting", "cooldown: 3 s", "2026-11-21T03:04:06Z", ours=True),
                event("SuccessfulCreate", "Created pod", "2026-11-21T03:04:08Z"),
                event("Completed", "Job completed", "2026-11-21T03:04:17Z"),
            ),
        )
    )
    job = build.rendered().key
    assert text.splitlines() == [
        f"Job        {job}",
        "Phase      Succeeded",
        "Effect     healed: resolved 1m48s after the Job ended",
        "Alert      PodCrashLooping (firing)",
        'Labels     pod="web-1", severity="page"',
        "           summary: web-1 restarts",
        "Rule       http://prometheus.example/graph?g0.expr=up",
        'Target     pod="web-1"',
        "Operario   restart-pod (priority 0)",
        f"Commit     {build.COMMIT}, by Ada, T",
        "           https://git.example/ops main, operarios/restart-pod.yaml",
        f"           git show {build.COMMIT}:operarios/restart-pod.yaml",
        "Signature  not verified",
        "Waited     3s",
        "Ran        9s",
        "Pods       job-x2x9q Succeeded: heal exited with code 0 (Completed)",
        "",
        "TIME                  AFTER  WHAT",
        "2026-11-21T03:03:35Z  -30s   the alert started firing",
        "2026-11-21T03:04:05Z  0s     received by replica-a: Job created",
        "2026-11-21T03:04:06Z  1s     Waiting: cooldown: 3 s",
        "2026-11-21T03:04:08Z  3s     admitted by replica-b, after waiting 3s",
        "2026-11-21T03:04:08Z  3s     the Job started",
        "2026-11-21T03:04:08Z  3s     SuccessfulCreate: Created pod",
        "2026-11-21T03:04:09Z  4s     container heal of Pod job-x2x9q started",
        f"2026-11-21T03:04:16Z  11s    {CONTAINER} exited with code 0 (Completed)",
        "2026-11-21T03:04:17Z  12s    the Job succeeded after 9s",
        "2026-11-21T03:06:05Z  2m     the alert was resolved",
        "2026-11-21T03:06:05Z  2m     effect: healed, resolved 1m48s after the Job ended",
    ]


def test_an_approval_is_not_shown_after_the_start_that_needed_it() -> None:
    """The leader announces an approval when it has seen it, perhaps after it admitted the Job."""
    late = event("Approved", "approved by ada", "2026-11-21T03:04:10Z", ours=True)
    lines = as_text(traced(ADMITTED, spec={"suspend": False}, events=(late,))).splitlines()
    assert lines[-2:] == [
        "2026-11-21T03:04:08Z  3s     Approved: approved by ada",
        "2026-11-21T03:04:08Z  3s     admitted by replica-b, after waiting 3s",
    ]


def test_an_approval_has_the_time_at_which_it_was_written() -> None:
    """The API server recorded it; the Event, which is gone after an hour, is not shown twice."""
    approved = {keys.APPROVED_BY: "ada", keys.APPROVAL_REASON: "the disk is full"}
    owned = {"f:metadata": {"f:annotations": {f"f:{keys.APPROVED_BY}": {}}}}
    entry = {"manager": "cli", "time": "2026-11-21T03:04:06Z", "fieldsV1": owned}
    late = event("Approved", "approved by ada", "2026-11-21T03:04:10Z", ours=True)
    found = traced({**ADMITTED, **approved}, events=(late,), managed_fields=[entry])
    assert [line for line in as_text(found).splitlines() if "pproved" in line] == [
        "2026-11-21T03:04:06Z  1s     approved by ada: the disk is full"
    ]
    assert as_members(found)["approvedAt"] == "2026-11-21T03:04:06.000000Z"


@pytest.mark.parametrize(
    ("verified", "note"),
    [
        (True, " (name verified by the API server)"),
        (False, " (name not verified: no admission policy checks it)"),
        (None, " (name not checked: set --controller-namespace)"),
    ],
)
def test_an_approval_has_its_name_its_reason_and_whether_it_was_verified(
    verified: bool | None,  # noqa: FBT001 - a parameter of the test
    note: str,
) -> None:
    """It is not known if the record of the controller cannot be read."""
    found = traced(
        {
            keys.OPTIONS: write_options(Options(approval=True), RENDERER),
            keys.APPROVED_BY: "ada",
            keys.APPROVAL_REASON: "the disk is full",
        },
        verified=verified,
    )
    assert f"Approval   by ada{note}: the disk is full" in as_text(found)
    members = as_members(found)
    assert members["approvalVerified"] is verified
    assert members["approvalReason"] == "the disk is full"


def test_a_job_that_waits_for_approval_says_how_to_approve_it() -> None:
    """And how long it has waited so far."""
    found = traced({keys.OPTIONS: write_options(Options(approval=True), RENDERER)})
    lines = as_text(found).splitlines()
    assert f"Approval   required; run openfero-gitops approve {found.remediation.key}" in lines
    assert "Waited     1h so far" in lines
    assert as_members(found)["waitedSeconds"] is None


def test_a_waiting_job_says_why() -> None:
    """The reason is that of the leader's decision; it is unknown without the records for it."""
    found = traced(wait=Wait(Reason.COOLDOWN, NOW + minutes(61)))
    assert as_text(found).splitlines()[1] == (
        f"Phase      Waiting: cooldown: {Reason.COOLDOWN.text}, until 2026-11-21T04:05:05Z"
    )
    assert as_members(found)["reason"] == "cooldown"
    lines = as_text(traced(wait=Wait(Reason.NOT_HELPING, None, "it fired again"))).splitlines()
    assert lines[1:3] == [
        "Phase      Waiting: not-helping: it fired again",
        f"           openfero-gitops approve {found.remediation.key}",
    ]
    found = traced(instead_of_wait="all checks passed")
    assert as_text(found).splitlines()[1] == "Phase      Waiting: all checks passed"
    assert as_members(found)["message"] == "all checks passed"


def test_a_queued_job_names_its_queue() -> None:
    """In the head, in the timeline and in the JSON."""
    found = traced({**ADMITTED, keys.QUEUE: "healing"}, labels={keys.KUEUE_QUEUE: "healing"})
    text = as_text(found)
    assert text.splitlines()[1] == "Phase        Queued"
    assert "Kueue queue  healing, for 59m" in text
    assert "none while the Job is in the queue" in text
    assert "passed to Kueue queue healing by replica-b, after waiting 3s" in text
    assert (as_members(found)["queue"], as_members(found)["starts"]) == ("healing", 0)


def test_a_signature_has_its_signer() -> None:
    """It was verified when the commit became active."""
    assert "Signature  verified, by ada" in as_text(traced({keys.VERIFIED_SIGNER: "ada"}))


def test_a_pod_that_waits_says_why() -> None:
    """Its state has the reason of Kubernetes."""
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    found = traced(ADMITTED, spec={"suspend": False}, pods=(pod(waiting=waiting),))
    assert "Pods       job-x2x9q Pending: heal waiting (ErrImagePull: no such image)" in as_text(
        found
    )
    [container] = as_members(found)["pods"][0]["containers"]
    assert (container["state"], container["exitCode"]) == ("waiting", None)


def test_deleted_pods_are_not_missing_ones() -> None:
    """A Job that has ended had Pods, one that runs has none yet."""
    ended = traced(ADMITTED, spec={"suspend": False}, status=SUCCEEDED)
    assert "Pods       deleted" in as_text(ended)
    running = traced(ADMITTED, spec={"suspend": False})
    assert "Pods       not created yet" in as_text(running)
    assert "Pods" not in as_text(traced())


def test_the_json_has_the_alert_and_all_events() -> None:
    """Also those Events that the timeline leaves out."""
    found = traced(events=(event("Suspended", "Job suspended", "2026-11-21T03:04:06Z"),))
    members = as_members(found)
    assert members["alert"]["generatorURL"] == "http://prometheus.example/graph?g0.expr=up"
    assert [event["reason"] for event in members["events"]] == ["Suspended"]
    assert len(members["timeline"]) == 2
    assert members["options"]["healsWithin"] == "15m"
    assert members["effect"] is None


def test_a_damaged_record_is_left_out() -> None:
    """A container and an Event without members are shown as far as they go."""
    broken = {"metadata": {"name": "p"}, "status": {"containerStatuses": [{}]}}
    found = traced(pods=(broken,), events=({"metadata": {}},))
    assert as_members(found)["pods"][0]["containers"][0]["state"] == "waiting"
    assert as_members(found)["events"][0]["at"] is None


def test_no_text_controls_the_terminal() -> None:
    """Control characters in messages of Pods and in Events are escaped."""
    terminated = {"exitCode": 1, "message": "\x1b[2Jgone", "finishedAt": END}
    found = traced(
        ADMITTED,
        spec={"suspend": False},
        pods=(pod(terminated=terminated),),
        events=(event("Odd", "\x1b[31m", END),),
    )
    assert "\x1b" not in as_text(found)
