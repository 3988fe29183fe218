"""Whether a Job started in the way the controller starts Jobs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from openfero_gitops.audit.verify import (
    ActiveRevisions,
    Proof,
    Verification,
    find_objections,
    verify,
    with_objections,
)
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.operario import Mode, Options
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.domain.timestamp import format_time
from tests.support import build
from tests.support.build import COMMIT, NOW, catalog, minutes, operario, rendered, stored

GATED = operario(options=Options(approval=True))
AT = format_time(NOW + minutes(1))
TERM = f"replica-a/7/{format_time(NOW - minutes(60))}#12"
ADMITTED = {keys.ADMITTED_AT: AT, keys.ADMITTED_BY: "replica-a", keys.TERM: TERM}
RUNNING: dict[str, Any] = {"suspend": False}


def job(
    by: Any = None, annotations: dict[str, str | None] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a Job that the leader started, with some changes."""
    values = {"spec": RUNNING, "status": {"startTime": AT}, **changes}
    return stored(
        rendered(by=by or operario()).manifest, annotations=ADMITTED | (annotations or {}), **values
    )


def verified(of: dict[str, Any], by: Any = None, **given: Any) -> Verification:
    """Verify a Job of one operario."""
    active = catalog(by or operario(), envelope=given.pop("envelope", None))
    return verify(of, active, jobs_namespace=build.JOBS_NAMESPACE, **given)


def test_a_job_that_the_leader_started_is_verified() -> None:
    """With approval where it is required; and one that still waits for it."""
    assert verified(job()) == Verification(Proof.VERIFIED)
    approved = job(GATED, {keys.APPROVED_BY: "ada"})
    assert verified(approved, GATED) == Verification(Proof.VERIFIED)
    waiting = stored(rendered(by=GATED).manifest)
    assert verified(waiting, GATED) == Verification(Proof.VERIFIED)


@pytest.mark.parametrize(
    "term", ["replica-a/7#12", f"replica-a/7/{AT}#1", "replica-a/7/#1", "replica-a/7/no time#1"]
)
def test_the_stamp_of_any_release_is_the_leaders(term: str) -> None:
    """With the time of the term, and without."""
    assert verified(job(annotations={keys.TERM: term})).proof is Proof.VERIFIED


def test_an_identity_may_contain_what_separates_a_stamp() -> None:
    """It is everything before the number of the term."""
    identity = "zone/1/replica#a"
    annotations: dict[str, str | None] = {
        keys.ADMITTED_BY: identity,
        keys.TERM: f"{identity}/7/{AT}#1",
    }
    assert verified(job(annotations=annotations)).proof is Proof.VERIFIED


@pytest.mark.parametrize(
    ("annotations", "changes", "message"),
    [
        ({keys.ADMITTED_AT: None}, {}, "started by somebody else"),
        ({keys.ADMITTED_BY: keys.SOMEBODY_ELSE}, {}, "started by somebody else"),
        ({keys.ADMITTED_BY: None}, {}, 'not admitted by a leader: admitted-by ""'),
        ({keys.TERM: None}, {}, 'and term "" do not belong together'),
        ({keys.TERM: "replica-a"}, {}, "do not belong together"),
        ({keys.TERM: "replica-a/7"}, {}, "do not belong together"),
        ({keys.TERM: TERM.replace("replica-a", "replica-b")}, {}, "do not belong together"),
        ({keys.TERM: "replica-ab/7#1"}, {}, "do not belong together"),
        (
            {keys.TERM: f"replica-a/7/{format_time(NOW + minutes(9))}#1"},
            {},
            "before the term of its leader began",
        ),
        (
            {keys.ADMITTED_AT: format_time(NOW - minutes(9))},
            {"status": {}},
            "before its alert was received",
        ),
        (
            {keys.ADMITTED_AT: format_time(NOW + minutes(9))},
            {},
            "the Job started at 2026-11-21T03:05:05Z, before it was admitted at 2026-11-21T03:13",
        ),
        ({keys.DECISION: "refused"}, {}, "the Job was refused, but it started"),
        (
            {keys.DECISION: "refused"},
            {"spec": {}, "status": {"failed": 1}},
            "the Job was refused, but it started",
        ),
    ],
)
def test_another_start_differs(
    annotations: dict[str, str | None], changes: dict[str, Any], message: str
) -> None:
    """A start by hand, a forged admission, a refusal that was ignored."""
    verification = verified(job(annotations=annotations, **changes))

    assert verification.proof is Proof.DIFFERS
    assert message in verification.message
    assert verification.differences == ()
    assert message in "; ".join(find_objections(job(annotations=annotations, **changes)))


def test_a_cancelled_job_ran_as_it_should() -> None:
    """Cancelling stops a Job that was admitted."""
    assert verified(job(annotations={keys.DECISION: "cancelled"})).proof is Proof.VERIFIED


@pytest.mark.parametrize("approved_by", [None, ""])
def test_a_start_without_the_required_approval_differs(approved_by: str | None) -> None:
    """Whatever the recorded options say, and whoever else admitted it."""
    verification = verified(job(GATED, {keys.APPROVED_BY: approved_by}), GATED)
    assert verification.proof is Proof.DIFFERS
    assert verification.message == (
        'operario "restart-pod" requires approval, but the Job started without it'
    )
    by_hand = job(GATED, dict.fromkeys(ADMITTED))
    message = verified(by_hand, GATED).message
    assert "started by somebody else" in message
    assert "requires approval" in message


@pytest.mark.parametrize(("mode", "envelope"), [(Mode.DRY_RUN, Mode.RUN), (Mode.RUN, Mode.DRY_RUN)])
def test_a_dry_run_that_started_differs(mode: Mode, envelope: Mode) -> None:
    """Of the operario, or of the envelope."""
    by = operario(options=Options(mode=mode))
    verification = verified(job(by), by, envelope=Envelope(mode=envelope))
    assert verification.message == "mode is dry-run, but the Job started"
    assert verification.proof is Proof.DIFFERS


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "template", "metadata"), {"annotations": {"sidecar.istio.io/inject": "true"}}),
        (("spec", "template", "metadata"), {"labels": {"app": "victim"}}),
        (("metadata", "finalizers"), ["example.org/keep"]),
        (("metadata", "finalizers"), ["orphan"]),
        (("metadata", "ownerReferences"), [{"kind": "Pod", "name": "p", "uid": "u"}]),
    ],
)
def test_what_binds_a_job_to_others_differs(path: tuple[str, ...], value: Any) -> None:
    """Pod-template labels and annotations, finalizers, owner references."""
    changed = copy.deepcopy(job())
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    verification = verified(changed)
    assert verification.proof is Proof.DIFFERS
    (difference,) = verification.differences
    assert format_pointer(difference.pointer).startswith(format_pointer(path))


def test_what_kueue_adds_to_a_pod_template_is_an_allowed_change() -> None:
    """Its own labels and annotations, and those of the cluster autoscaler."""
    changed = copy.deepcopy(job())
    changed["spec"]["template"]["metadata"] = {
        "labels": {"kueue.x-k8s.io/podset": "main", "job-name": "x"},
        "annotations": {"autoscaling.x-k8s.io/consume-provisioning-request": "r"},
        "creationTimestamp": None,
    }
    verification = verified(changed)
    assert verification.proof is Proof.VERIFIED
    assert len(verification.changed) == 2


@pytest.mark.parametrize("finalizer", ["foregroundDeletion", "orphan"])
def test_a_job_that_is_being_deleted_is_verified(finalizer: str) -> None:
    """Kubernetes sets a finalizer of its own for that time."""
    metadata = {"finalizers": [finalizer], "deletionTimestamp": AT}
    assert verified(job(metadata=metadata)) == Verification(Proof.VERIFIED)


class TestActiveCommit:
    """The commit of a Job was active when its alert was received."""

    @pytest.mark.parametrize(
        ("activations", "proof", "message"),
        [
            ([(COMMIT, -60)], Proof.VERIFIED, ""),
            ([("a" * 40, -60), (COMMIT, 1)], Proof.VERIFIED, ""),
            (
                [("a" * 40, -60), (COMMIT, 10)],
                Proof.DIFFERS,
                (
                    "commit 111111111111 was not active when the alert was received, at "
                    "2026-11-21T03:04:05Z; the leader had aaaaaaaaaaaa"
                ),
            ),
            ([(COMMIT, -90), ("a" * 40, -60)], Proof.DIFFERS, "commit 111111111111 was not act"),
            ([("a" * 40, -60)], Proof.DIFFERS, "commit 111111111111 was not active"),
            ([("a" * 40, 60)], Proof.NOT_KNOWN, "it is not known whether commit 111111111111 was"),
            ([], Proof.NOT_KNOWN, "it is not known whether"),
        ],
    )
    def test_it_is_compared_with_the_controllers_record(
        self, activations: list[tuple[str, float]], proof: Proof, message: str
    ) -> None:
        """What the record does not reach is not known, and is no difference."""
        history = RevisionHistory()
        for commit, since in activations:
            history = history.activate(commit, NOW + minutes(since), minutes(2))
        record = ActiveRevisions(history, NOW + minutes(600))

        verification = verified(job(), record=record)

        assert verification.proof is proof
        assert verification.message.startswith(message)

    def test_other_differences_count_more_than_what_is_not_known(self) -> None:
        """A Job that differs in any other way differs."""
        record = ActiveRevisions(RevisionHistory(), NOW)
        verification = verified(job(annotations={keys.ADMITTED_BY: "eve"}), record=record)
        assert verification.proof is Proof.DIFFERS


def test_objections_are_added_to_what_cannot_be_proven() -> None:
    """A Job whose commit is gone, and that was started by hand, differs."""
    unprovable = Verification(Proof.UNPROVABLE, "the commit is gone")
    assert with_objections(unprovable, []) is unprovable
    both = with_objections(unprovable, ["it is odd"])
    assert both == Verification(Proof.DIFFERS, "it is odd; the commit is gone")
