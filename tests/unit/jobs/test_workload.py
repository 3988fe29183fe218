"""What the conditions of a Kueue Workload say about its Job."""

from __future__ import annotations

from typing import Any

import pytest

from openfero_gitops.jobs.workload import (
    QueueStatus,
    is_stuck,
    read_workload,
    with_queue_status,
    without_workload,
)
from tests.support import build


def condition(kind: str, reason: str, message: str = "", *, status: str = "True") -> dict[str, str]:
    """Return a condition of a Workload."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


def workload(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    """Return a Workload of the Job with uid `job-1`."""
    owner = {"kind": "Job", "name": "heal", "uid": "job-1"}
    return {
        "metadata": {"name": "job-heal-1234", "ownerReferences": [owner]},
        "status": {"conditions": list(conditions), **status},
    }


NO_QUOTA = condition(
    "QuotaReserved",
    "Pending",
    "couldn't assign flavors to pod set main: insufficient unused quota for pods in flavor "
    "default, 1 more needed",
    status="False",
)
MISSING = condition(
    "QuotaReserved", "Inadmissible", "LocalQueue healing doesn't exist", status="False"
)
PREEMPTED = condition("Evicted", "Preempted", "Preempted to accommodate a workload")
DEACTIVATED = condition("Evicted", "Deactivated", "The workload is deactivated")
LIMIT = condition("Evicted", "DeactivatedDueToRequeuingLimitExceeded", "exceeded the limit")


@pytest.mark.parametrize(
    ("given", "reason", "stuck"),
    [
        (workload(NO_QUOTA), "Pending", False),
        (workload(MISSING), "Inadmissible", True),
        (workload(PREEMPTED, NO_QUOTA), "Pending", False),
        (workload(PREEMPTED), "Preempted", False),
        (workload(DEACTIVATED, NO_QUOTA), "Deactivated", True),
        (workload(LIMIT, NO_QUOTA), "DeactivatedDueToRequeuingLimitExceeded", True),
        (
            workload(
                condition("QuotaReserved", "QuotaReserved"),
                admissionChecks=[
                    {"name": "capacity", "state": "Ready"},
                    {"name": "provision", "state": "Pending", "message": "waiting for 2 nodes"},
                ],
            ),
            "AdmissionCheckPending",
            False,
        ),
        (
            workload(
                condition("QuotaReserved", "QuotaReserved"),
                condition("Admitted", "NoReservation", "no reservation", status="False"),
            ),
            "NoReservation",
            False,
        ),
    ],
)
def test_the_condition_that_keeps_a_job_from_its_start_is_shown(
    given: dict[str, Any], reason: str, *, stuck: bool
) -> None:
    """The most important first; it says whether somebody has to do something."""
    read = read_workload(given)
    assert read is not None
    assert read[0] == "job-1"
    assert read[1] is not None
    assert read[1].reason == reason
    assert is_stuck(read[1].reason, read[1].message) is stuck


@pytest.mark.parametrize(
    "given",
    [
        workload(),
        workload(condition("Admitted", "Admitted"), condition("QuotaReserved", "QuotaReserved")),
        workload(condition("Finished", "Succeeded")),
        {"metadata": workload()["metadata"]},
    ],
)
def test_a_workload_may_say_nothing(given: dict[str, Any]) -> None:
    """It is new, or its Job has started."""
    assert read_workload(given) == ("job-1", None)


@pytest.mark.parametrize("owners", [None, [], [{"kind": "Pod", "uid": "pod-1"}]])
def test_a_workload_of_something_else_is_ignored(owners: Any) -> None:
    """Kueue creates Workloads for many kinds."""
    given = workload(NO_QUOTA)
    given["metadata"]["ownerReferences"] = owners
    assert read_workload(given) is None


def test_a_long_message_is_cut_and_printable() -> None:
    """Users who can create Workloads choose their text."""
    given = workload(condition("QuotaReserved", "x" * 999, "a\n\x1b[31m" * 9999, status="False"))
    read = read_workload(given)
    assert read is not None
    assert isinstance(read[1], QueueStatus)
    assert len(read[1].reason) <= 101
    assert "\n" not in read[1].message
    assert len(read[1].message) < 9999


def test_a_job_without_a_workload_names_what_to_check() -> None:
    """Kueue is not there, or does not manage the namespace."""
    status = without_workload("shop")
    assert is_stuck(status.reason, status.message)
    assert "manages Jobs in namespace shop" in status.message


TOO_SMALL = (
    "insufficient quota for cpu in flavor small, previously considered podsets requests (0) + "
    "current podset request (8) > maximum capacity (2)"
)
IN_USE = "insufficient unused quota for cpu in flavor large, 1 more needed"


@pytest.mark.parametrize(
    ("message", "stuck"),
    [
        (f"couldn't assign flavors to pod set main: {TOO_SMALL}", True),
        (f"couldn't assign flavors to pod set main: {TOO_SMALL}, {IN_USE}", False),
        ("couldn't assign flavors to pod set main: resource gpu unavailable in ClusterQueue", True),
        ("couldn't assign flavors to pod set main: flavor a doesn't match node affinity", True),
        ("Workload namespace doesn't match ClusterQueue selector", True),
        ("The workload has failed admission checks", False),
    ],
)
def test_a_job_that_never_fits_is_stuck(message: str, *, stuck: bool) -> None:
    """Kueue's reason is the same as for quota that is in use; only the message tells."""
    assert is_stuck("Pending", message) is stuck


def test_the_reason_of_kueue_comes_before_what_is_known_of_the_job() -> None:
    """A Job that was stopped has a message already."""
    job = build.remediation(message="Kueue stopped the Job")
    shown = with_queue_status(job, QueueStatus("Pending", "no quota"))
    assert (shown.reason, shown.message) == ("Pending", "no quota; Kueue stopped the Job")
