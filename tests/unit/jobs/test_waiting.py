"""Why the Pods of a started Job do not run."""

from __future__ import annotations

from typing import Any

import pytest

from openfero_gitops.jobs.waiting import (
    PodWait,
    has_started,
    is_pending,
    wait_of_events,
    wait_of_pod,
)


def pod(
    *containers: dict[str, Any],
    init: tuple[dict[str, Any], ...] = (),
    conditions: tuple[dict[str, str], ...] = (),
) -> dict[str, Any]:
    """Return a Pod with these states of its containers."""
    return {
        "metadata": {"name": "heal-x"},
        "status": {
            "phase": "Pending",
            "conditions": list(conditions),
            "containerStatuses": [{"name": f"c{n}", **c} for n, c in enumerate(containers)],
            "initContainerStatuses": [{"name": f"i{n}", **c} for n, c in enumerate(init)],
        },
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """Return the status of a container that waits."""
    return {"state": {"waiting": {"reason": reason, "message": message}}}


RUNNING: dict[str, Any] = {"state": {"running": {"startedAt": "t"}}}
CREATING = waiting("ContainerCreating")
INITIALIZING = waiting("PodInitializing")
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient cpu.",
}


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (
            pod(waiting("ImagePullBackOff", 'Back-off pulling image "heal:1"')),
            'ImagePullBackOff: Pod heal-x, container c0: Back-off pulling image "heal:1"',
        ),
        (
            pod(waiting("CreateContainerConfigError", 'secret "token" not found')),
            'CreateContainerConfigError: Pod heal-x, container c0: secret "token" not found',
        ),
        (
            pod(INITIALIZING, init=(waiting("ErrImagePull", "no such host"),)),
            "ErrImagePull: Pod heal-x, container i0: no such host",
        ),
        (
            pod(RUNNING, waiting("InvalidImageName", 'invalid "A"')),
            'InvalidImageName: Pod heal-x, container c1: invalid "A"',
        ),
        (
            pod(waiting("CrashLoopBackOff") | {"lastState": {"terminated": {"exitCode": 1}}}),
            "CrashLoopBackOff: Pod heal-x, container c0: no message",
        ),
        (
            pod(conditions=(UNSCHEDULABLE,)),
            "Unschedulable: Pod heal-x: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (
            pod(conditions=({"type": "PodScheduled", "status": "False", "reason": "Gated"},)),
            "Gated: Pod heal-x: not scheduled",
        ),
        (
            pod(waiting("CreateContainerError", "a\nb\x1b[2J")),
            r"CreateContainerError: Pod heal-x, container c0: a\nb\x1b[2J",
        ),
    ],
)
def test_why_a_pod_waits(seen: dict[str, Any], text: str) -> None:
    """The container, or the scheduler, says why; the text is one line."""
    assert str(wait_of_pod(seen)) == text


@pytest.mark.parametrize(
    "seen",
    [
        pod(),
        pod(CREATING),
        pod(INITIALIZING, init=(RUNNING,)),
        pod(RUNNING),
        pod(RUNNING, conditions=(UNSCHEDULABLE,)),
        pod({}),
        pod({"state": None}),
        {"metadata": {"name": "p"}, "status": None},
        {"metadata": {"name": "p"}},
        pod(conditions=({"type": "PodScheduled", "status": "True"},)),
    ],
)
def test_a_pod_that_does_not_say(seen: dict[str, Any]) -> None:
    """What every Pod goes through is no reason."""
    assert wait_of_pod(seen) is None


def test_a_message_is_cut() -> None:
    """A long message fits into an annotation."""
    wait = wait_of_pod(pod(waiting("ErrImagePull", "x" * 5000)))
    assert len(str(wait)) < 1000


def test_the_last_warning_counts() -> None:
    """Of a volume that is missing, only Events say so; Normal ones do not count."""
    events = [
        {
            "type": "Warning",
            "reason": "FailedMount",
            "note": 'secret "tls" not found',
            "deprecatedLastTimestamp": "2026-11-21T03:05:00Z",
        },
        {"type": "Normal", "reason": "Pulled", "eventTime": "2026-11-21T03:09:00Z"},
        {
            "type": "Warning",
            "reason": "FailedScheduling",
            "note": "none",
            "eventTime": "2026-11-21T03:01:00Z",
        },
    ]
    assert str(wait_of_events("Pod p", events)) == 'FailedMount: Pod p: secret "tls" not found'
    assert wait_of_events("Pod p", events[1:2]) is None
    assert wait_of_events("Pod p", []) is None


@pytest.mark.parametrize(
    ("recorded", "reason", "replaces"),
    [
        ("", "ErrImagePull", True),
        ("Unschedulable: Pod p: none", "ErrImagePull", True),
        ("ErrImagePull: Pod p: no such host", "ErrImagePull", False),
        ("ErrImagePull: Pod p: no such host", "ImagePullBackOff", False),
        ("ImagePullBackOff: Pod p: back-off", "ErrImagePull", True),
        ("ImagePullBackOff: Pod p: back-off", "ImagePullBackOff", False),
        ("CrashLoopBackOff: back-off 10s", "CrashLoopBackOff", False),
    ],
)
def test_few_writes(recorded: str, reason: str, replaces: bool) -> None:  # noqa: FBT001
    """A reason that alternates with another of the same cause is written twice at most."""
    assert PodWait(reason, "more").replaces(recorded) is replaces


@pytest.mark.parametrize(
    ("seen", "started"),
    [
        (pod(RUNNING), True),
        (pod(INITIALIZING, init=(RUNNING,)), True),
        (pod({"state": {"terminated": {"exitCode": 0}}}), True),
        (pod(waiting("CrashLoopBackOff") | {"lastState": {"terminated": {"exitCode": 1}}}), True),
        (pod(CREATING), False),
        (pod(), False),
    ],
)
def test_a_container_that_runs_or_ran(seen: dict[str, Any], started: bool) -> None:  # noqa: FBT001
    """A Pod with one has started."""
    assert has_started(seen) is started


def test_pods_that_count() -> None:
    """Pods that have ended, or are being deleted, wait for nothing."""
    assert is_pending(pod())
    assert not is_pending({"metadata": {}, "status": {"phase": "Failed"}})
    assert not is_pending({"metadata": {"deletionTimestamp": "t"}, "status": {}})
