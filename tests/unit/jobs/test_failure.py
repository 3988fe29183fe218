from __future__ import annotations

from typing import Any

import pytest

from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs.failure import failure_message
from tests.support.build import finished
from tests.support.copying import replace

FAILED = finished(
    phase=Phase.FAILED, reason="BackoffLimitExceeded", message="Job has reached the limit"
)
CONDITION = "BackoffLimitExceeded: Job has reached the limit"


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Return a Pod with these container statuses."""
    return {"status": {"containerStatuses": list(containers), "initContainerStatuses": list(init)}}


def ended(name: str, code: int, at: str = "2026-11-21T03:04:05Z", **state: str) -> dict[str, Any]:
    """Return the status of a terminated container."""
    return {"name": name, "state": {"terminated": {"exitCode": code, "finishedAt": at, **state}}}


def test_condition_exit_code_and_message() -> None:
    """The message has the Job's condition and the container's termination message."""
    message = failure_message(
        FAILED, [pod(ended("heal", 3, reason="Error", message="no such pod\n"))]
    )

    assert message == f"{CONDITION}; container heal exited with code 3 (Error): no such pod"


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (ended("heal", 137, reason="OOMKilled"), "container heal exited with code 137 (OOMKilled)"),
        (ended("heal", 1, message=" "), "container heal exited with code 1"),
        (ended("heal", 1), "container heal exited with code 1"),
    ],
)
def test_missing_parts_of_a_container_status_are_left_out(
    container: dict[str, Any], expected: str
) -> None:
    """Reason and termination message are optional."""
    assert failure_message(FAILED, [pod(container)]) == f"{CONDITION}; {expected}"


@pytest.mark.parametrize(
    "pods",
    [
        [],
        [{}],
        [{"status": None}],
        [{"status": {"containerStatuses": None}}],
        [pod(ended("heal", 0))],
        [pod({"name": "heal", "state": {"running": {}}})],
        [pod({"name": "heal", "state": None})],
    ],
)
def test_without_a_failed_container_there_is_only_the_condition(pods: list[dict[str, Any]]) -> None:
    """Pods may be deleted, pending, or have succeeded."""
    assert failure_message(FAILED, pods) == CONDITION


def test_the_last_failed_container_is_used() -> None:
    """Of several Pods and containers, including init containers, the last one counts."""
    first = pod(ended("a", 1, "2026-11-21T03:04:05Z"))
    last = pod(ended("b", 0, "2026-11-21T03:09:00Z"), init=(ended("i", 2, "2026-11-21T03:05:00Z"),))

    for pods in ([first, last], [last, first]):
        assert failure_message(FAILED, pods).endswith("; container i exited with code 2")


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("DeadlineExceeded", "", "DeadlineExceeded"),
        ("", "", "the Job failed"),
        ("DeadlineExceeded", "too slow", "DeadlineExceeded: too slow"),
    ],
)
def test_missing_parts_of_a_condition_are_left_out(
    reason: str, message: str, expected: str
) -> None:
    """Reason and message are both optional."""
    assert failure_message(finished(reason=reason, message=message), []) == expected


def test_a_long_message_is_cut() -> None:
    """It fits into an annotation."""
    message = failure_message(FAILED, [pod(ended("heal", 1, message="x" * 5000))])

    assert len(message) == 2048
    assert message.startswith(CONDITION)


def test_a_pod_that_never_started() -> None:
    """If no container failed, the recorded reason of its waiting is added."""
    job = replace(FAILED, pod_waiting="ErrImagePull: Pod p, container heal: no such host")
    assert failure_message(job, []) == (
        f"{CONDITION}; its Pod waited: ErrImagePull: Pod p, container heal: no such host"
    )
    failed = failure_message(job, [pod(ended("heal", 3))])
    assert failed == f"{CONDITION}; container heal exited with code 3"
