"""The comparison of Jobs that two versions of the code create."""

from __future__ import annotations

from typing import Any

from openfero_gitops.domain import keys
from tests.bench.same_jobs import differences


def _job(name: str = "a", image: str = "x", received: str = "1", uid: str = "u") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": uid,
            "labels": {},
            "annotations": {keys.RECEIVED_AT: received, keys.COMMIT: "c"},
        },
        "spec": {
            "suspend": True,
            "selector": {"matchLabels": {"uid": uid}},
            "template": {"metadata": {"labels": {"uid": uid}}, "spec": {"image": image}},
        },
    }


def test_moments_and_uids_may_differ() -> None:
    """Jobs are the same if only what names a delivery or an object differs."""
    assert differences([_job(received="1", uid="u")], [_job(received="2", uid="v")]) == []


def test_another_field_is_named_with_both_values() -> None:
    """A field that differs is named with its Job, and with both values."""
    assert differences([_job(image="new")], [_job(image="old")]) == [
        "a /spec/template/spec/image: 'old' became 'new'"
    ]


def test_a_missing_job_is_a_difference() -> None:
    """A Job that only one of the trees created is a difference."""
    assert len(differences([_job("a"), _job("b")], [_job("a")])) == 1
