from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.demo.cluster.jsonpatch import apply_patch
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Invalid
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.options_annotation import write_options
from openfero_gitops.jobs.render import RENDERER
from tests.support.build import NOW, operario, rendered, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.domain.remediation import Remediation

LATER = NOW + timedelta(seconds=1)
AT = "2026-11-21T03:04:06.678901Z"
COMPLETE = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": AT}]}


def admit(remediation: Remediation) -> patches.Patch:
    """Admit a Job."""
    return patches.admit(remediation, "t#2", "replica-a", LATER)


def refuse(remediation: Remediation) -> patches.Patch:
    """Refuse a Job."""
    return patches.refuse(remediation, "t#2", Reason.MAX_WAIT, "")


def stamp(remediation: Remediation) -> patches.Patch:
    """Claim a Job for a leader."""
    return patches.stamp(remediation, "t#2")


def resolve(remediation: Remediation) -> patches.Patch:
    """Record that an alert was resolved."""
    return patches.resolve(remediation, LATER)


def keep_alive(remediation: Remediation) -> patches.Patch:
    """Record that an alert was delivered again."""
    return patches.keep_alive(remediation, LATER, 100_000)


def record_failure(remediation: Remediation) -> patches.Patch:
    """Record why a Job failed."""
    return patches.record_failure(remediation, "exit 1")


def approve(remediation: Remediation) -> patches.Patch:
    """Approve a Job."""
    return patches.approve(remediation, "ada")


def refuse_by_hand(remediation: Remediation) -> patches.Patch:
    """Refuse a Job as a user."""
    return patches.refuse_by_hand(remediation, "ada")


def cancel_by_hand(remediation: Remediation) -> patches.Patch:
    """Cancel a Job as a user."""
    return patches.cancel_by_hand(remediation, "ada")


def started_by_other(remediation: Remediation) -> patches.Patch:
    """Record that somebody else started a Job."""
    return patches.started_by_other(remediation, LATER)


EVERY = [
    admit,
    refuse,
    stamp,
    resolve,
    keep_alive,
    record_failure,
    approve,
    refuse_by_hand,
    cancel_by_hand,
    started_by_other,
    patches.cancel_resolved,
]


def patched(job: dict[str, Any], patch: Callable[[Remediation], patches.Patch]) -> dict[str, Any]:
    """Apply a patch that is based on the Job itself."""
    return apply_patch(job, patch(observe(job)))


def changes(job: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the annotations that were added or changed."""
    before = job["metadata"]["annotations"]
    now = after["metadata"]["annotations"]
    return {key: value for key, value in now.items() if before.get(key) != value}


@pytest.mark.parametrize("term", [None, "t#1"])
def test_admission_starts_the_job_and_records_the_replica(term: str | None) -> None:
    """The Job is unsuspended with the new stamp, time and replica."""
    job = stored(annotations={keys.TERM: term})
    after = patched(job, admit)

    assert changes(job, after) == {
        keys.TERM: "t#2",
        keys.ADMITTED_AT: AT,
        keys.ADMITTED_BY: "replica-a",
    }
    assert after["spec"] == job["spec"] | {"suspend": False}
    assert observe(after).phase is Phase.RUNNING


def test_a_job_with_a_queue_is_handed_to_kueue() -> None:
    """The label that was held back is added, and Kueue unsuspends the Job."""
    made = rendered(by=operario(labels={keys.KUEUE_QUEUE: "nightly"}))
    after = patched(stored(made.manifest), admit)

    assert after["spec"]["suspend"] is True
    assert after["metadata"]["labels"][keys.KUEUE_QUEUE] == "nightly"
    assert observe(after).phase is Phase.QUEUED


@pytest.mark.parametrize("suspended", [True, False])
def test_a_job_that_somebody_else_started_is_recorded_as_started(
    suspended: bool,  # noqa: FBT001
) -> None:
    """This includes a Job that has been suspended again."""
    job = stored(spec={"suspend": False})
    meanwhile = stored(spec={"suspend": suspended})
    after = apply_patch(meanwhile, started_by_other(observe(job)))

    assert changes(meanwhile, after) == {keys.ADMITTED_AT: AT, keys.ADMITTED_BY: "somebody else"}
    assert after["spec"] == meanwhile["spec"]
    assert observe(after).phase is (Phase.HELD if suspended else Phase.RUNNING)


@pytest.mark.parametrize(
    "meanwhile",
    [
        {"annotations": {keys.ADMITTED_AT: AT}},
        {"annotations": {keys.DECISION: "cancelled"}},
        {"metadata": {"uid": "uid-2"}},
    ],
)
def test_no_admission_is_overwritten(meanwhile: dict[str, Any]) -> None:
    """A Job that was admitted, decided or replaced meanwhile is not changed."""
    job = stored(spec={"suspend": False})

    with pytest.raises(Invalid):
        apply_patch(stored(**meanwhile), started_by_other(observe(job)))


@pytest.mark.parametrize("message", ["", "too late"])
def test_a_refusal_is_recorded(message: str) -> None:
    """Decision, reason and message are on the Job, which stays suspended."""
    job = stored()
    after = apply_patch(job, patches.refuse(observe(job), "t#2", Reason.MAX_WAIT, message))

    assert changes(job, after) == {
        keys.TERM: "t#2",
        keys.DECISION: "refused",
        keys.REASON: "max-wait",
        keys.MESSAGE: message or Reason.MAX_WAIT.text,
    }
    assert after["spec"] == job["spec"]


def test_a_stamp_changes_nothing_else() -> None:
    """A claimed Job is still waiting."""
    job = stored()

    assert changes(job, patched(job, stamp)) == {keys.TERM: "t#2"}


@pytest.mark.parametrize("patch", [admit, refuse, stamp])
@pytest.mark.parametrize(
    "meanwhile",
    [
        {"metadata": {"uid": "uid-2"}},
        {"spec": {"suspend": False}},
        {"annotations": {keys.TERM: "t#7"}},
        {"annotations": {keys.TERM: ""}},
        {"annotations": {keys.TERM: None}},
        {"annotations": {keys.TERM: "t#1", keys.ADMITTED_AT: AT}},
        {"annotations": {keys.TERM: "t#1", keys.ADMITTED_AT: ""}},
        {"annotations": {keys.TERM: "t#1", keys.DECISION: "cancelled"}},
    ],
)
def test_a_leader_acts_only_on_what_it_read(
    patch: Callable[[Remediation], patches.Patch], meanwhile: dict[str, Any]
) -> None:
    """The patch fails after any other stamp, start, admission or decision, or for another Job."""
    read = stored(annotations={keys.TERM: "t#1"})
    job = stored(**{"annotations": {keys.TERM: "t#1"}} | meanwhile)

    with pytest.raises(Invalid):
        apply_patch(job, patch(observe(read)))


def test_the_second_of_two_leaders_fails() -> None:
    """Of two admissions based on one state, only one succeeds."""
    read = observe(stored())
    after = apply_patch(stored(), admit(read))

    with pytest.raises(Invalid):
        apply_patch(after, admit(read))


def test_an_alert_that_was_resolved_meanwhile_is_not_admitted() -> None:
    """A view that lags behind cannot start a Job that is recorded as resolved."""
    read = observe(stored())
    resolved = patched(stored(), resolve)

    with pytest.raises(Invalid):
        apply_patch(resolved, admit(read))
    assert apply_patch(resolved, refuse(read))
    assert patched(resolved, admit)["spec"]["suspend"] is False


@pytest.mark.parametrize("required", [True, False])
def test_a_withdrawn_approval_does_not_admit(required: bool) -> None:  # noqa: FBT001
    """Approvers can withdraw until the Job starts, also if the operario does not require them."""
    asks = {keys.OPTIONS: write_options(Options(approval=required), RENDERER)}
    approved = stored(annotations=asks | {keys.APPROVED_BY: "ada"})
    read = observe(approved)

    assert apply_patch(approved, admit(read))["spec"]["suspend"] is False
    for now in (None, "eve"):
        with pytest.raises(Invalid):
            apply_patch(stored(annotations=asks | {keys.APPROVED_BY: now}), admit(read))


def test_the_first_record_of_a_resolution_is_kept() -> None:
    """A second replica does not change its time."""
    job = stored()
    after = patched(job, resolve)

    assert changes(job, after) == {keys.RESOLVED_AT: AT}
    with pytest.raises(Invalid):
        apply_patch(after, patches.resolve(observe(job), LATER + timedelta(minutes=1)))


@pytest.mark.parametrize(
    ("given", "ttl"), [({}, 86_400), ({"spec": {"suspend": False}, "status": COMPLETE}, 100_000)]
)
def test_a_repeated_delivery_extends_the_expiry(given: dict[str, Any], ttl: int) -> None:
    """The delivery is recorded; the TTL of a finished Job is increased."""
    job = stored(**given)
    after = patched(job, keep_alive)

    assert changes(job, after) == {keys.LAST_DELIVERED_AT: AT}
    assert after["spec"]["ttlSecondsAfterFinished"] == ttl


def test_a_failure_is_recorded_once() -> None:
    """The message of a failed Job is not overwritten."""
    job = stored()
    after = patched(job, record_failure)

    assert changes(job, after) == {keys.MESSAGE: "exit 1"}
    with pytest.raises(Invalid):
        apply_patch(after, record_failure(observe(job)))


def test_an_approval_lets_a_job_be_admitted() -> None:
    """The first approver is recorded; a second one does not replace them."""
    job = stored(annotations={keys.OPTIONS: write_options(Options(approval=True), RENDERER)})
    after = patched(job, approve)

    assert observe(job).phase is Phase.AWAITING_APPROVAL
    assert changes(job, after) == {keys.APPROVED_BY: "ada"}
    assert observe(after).phase is Phase.WAITING
    with pytest.raises(Invalid):
        apply_patch(after, patches.approve(observe(job), "eve"))


def test_the_reason_of_an_approval_is_recorded() -> None:
    """It is kept beside the approver, but not for a later approval without a reason."""
    job = stored(annotations={keys.OPTIONS: write_options(Options(approval=True), RENDERER)})
    after = patched(job, lambda remediation: patches.approve(remediation, "ada", "as agreed"))
    assert observe(after).approval_reason == "as agreed"
    withdrawn = stored(after, annotations={keys.APPROVED_BY: None})
    again = patched(withdrawn, approve)
    assert observe(again).approved_by == "ada"
    assert observe(again).approval_reason == ""


@pytest.mark.parametrize("decide", [patches.refuse_by_hand, patches.cancel_by_hand])
def test_the_reason_of_a_decision_follows_the_name(
    decide: Callable[[Remediation, str, str], patches.Patch],
) -> None:
    """A user's reason is part of the message."""
    after = patched(stored(), lambda remediation: decide(remediation, "ada", "it does not help"))
    assert observe(after).message.endswith("ed by ada: it does not help")


@pytest.mark.parametrize(
    ("patch", "phase", "reason"),
    [
        (refuse_by_hand, Phase.REFUSED, "refused-by-human"),
        (cancel_by_hand, Phase.CANCELLED, "cancelled-by-human"),
    ],
)
def test_a_user_stops_a_waiting_job(
    patch: Callable[[Remediation], patches.Patch], phase: Phase, reason: str
) -> None:
    """Decision and user are recorded; a leader's patch based on the earlier state fails."""
    job = stored()
    after = patched(job, patch)
    remediation = observe(after)

    assert (remediation.phase, remediation.reason) == (phase, reason)
    assert "by ada" in remediation.message
    assert after["spec"] == job["spec"]
    with pytest.raises(Invalid):
        apply_patch(after, admit(observe(job)))


@pytest.mark.parametrize(
    "given",
    [
        {"spec": {"suspend": False}, "annotations": {keys.ADMITTED_AT: AT}},
        {"spec": {"suspend": False}},
        {"annotations": {keys.ADMITTED_AT: AT}},
        {"annotations": {keys.ADMITTED_AT: AT}, "labels": {keys.KUEUE_QUEUE: "nightly"}},
    ],
)
def test_a_user_stops_a_running_job(given: dict[str, Any]) -> None:
    """Its deadline is exceeded at once, and it does not count as failed for a rerun."""
    job = stored(**given)
    after = patched(job, cancel_by_hand)

    assert after["spec"] == job["spec"] | {"activeDeadlineSeconds": 0}
    assert observe(after).phase is Phase.CANCELLED
    with pytest.raises(Invalid):
        apply_patch(after, cancel_by_hand(observe(job)))


@pytest.mark.parametrize("patch", [approve, refuse_by_hand, cancel_by_hand])
@pytest.mark.parametrize(
    "meanwhile",
    [
        {"spec": {"suspend": False}},
        {"annotations": {keys.ADMITTED_AT: AT}},
        {"annotations": {keys.DECISION: "refused"}},
        {"metadata": {"uid": "uid-2"}},
    ],
)
def test_a_users_decision_applies_to_the_state_they_saw(
    patch: Callable[[Remediation], patches.Patch], meanwhile: dict[str, Any]
) -> None:
    """A Job that was started, decided or replaced meanwhile is not changed."""
    with pytest.raises(Invalid):
        apply_patch(stored(**meanwhile), patch(observe(stored())))


def test_a_users_decision_does_not_depend_on_the_leader() -> None:
    """It applies after a new leader's stamp."""
    stamped = stored(annotations={keys.TERM: "t#9"})

    for patch in (approve, refuse_by_hand, cancel_by_hand):
        assert apply_patch(stamped, patch(observe(stored())))


@pytest.mark.parametrize("patch", EVERY)
def test_another_job_of_the_name_is_not_changed(
    patch: Callable[[Remediation], patches.Patch],
) -> None:
    """The uid must be that of the Job that was read."""
    with pytest.raises(Invalid):
        apply_patch(stored(metadata={"uid": "uid-2"}), patch(observe(stored())))


def test_every_patch_tests_before_it_changes() -> None:
    """The API server applies a patch as a whole; its tests come first."""
    for patch in EVERY:
        kinds = [operation["op"] for operation in patch(observe(stored()))]

        assert kinds == sorted(kinds, key=lambda kind: kind != "test")
        assert kinds[0] == "test"


def test_each_start_by_kueue_is_recorded_once() -> None:
    """With its time and their number; two leaders cannot count one start twice."""
    queue = {"labels": {keys.KUEUE_QUEUE: "nightly"}, "annotations": {keys.ADMITTED_AT: AT}}
    times = ["2026-11-21T03:06:00Z", "2026-11-21T03:16:00Z", "2026-11-21T03:26:00Z"]
    job = stored(**queue, spec={"suspend": False})
    for number, start in enumerate(times, 1):
        job = {**job, "status": {"startTime": start}}
        before = observe(job)
        assert before.unrecorded_start is not None
        patch = patches.record_start(before, before.unrecorded_start)
        job = apply_patch(job, patch)
        assert job["metadata"]["annotations"][keys.START_COUNT] == str(number)
        assert observe(job).unrecorded_start is None
        with pytest.raises(Invalid):
            apply_patch(job, patch)


def test_a_job_that_kueue_has_given_a_queue_is_left_to_kueue() -> None:
    """Its webhook does that if there is a default queue; unsuspended, Kueue would stop the Job."""
    job = stored(labels={keys.KUEUE_QUEUE: "default"})
    assert observe(job).phase is Phase.WAITING
    after = apply_patch(job, admit(observe(job)))
    assert after["spec"]["suspend"] is True
    assert after["metadata"]["labels"][keys.KUEUE_QUEUE] == "default"
    assert observe(after).phase is Phase.QUEUED
