"""Workloads of Kueue, as a unit test puts them into the cluster in memory."""

from __future__ import annotations

from typing import Any

from openfero_gitops.cluster.api import Resource
from openfero_gitops.domain import keys

WORKLOADS = Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload")


def workload(uid: str, name: str = "", reason: str = "Pending") -> dict[str, Any]:
    """Return the Workload of a Job that has no quota."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "heal", "uid": uid}
    condition = {"type": "QuotaReserved", "status": "False", "reason": reason, "message": "full"}
    return {
        "metadata": {
            "name": name or f"job-{uid}",
            "labels": {keys.KUEUE_JOB_UID: uid},
            "ownerReferences": [owner],
        },
        "status": {"conditions": [condition]},
    }
