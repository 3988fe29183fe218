"""Creates Pods, and the states that follow from what happens to them, as values."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import JOBS, PODS

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import Object
    from openfero_gitops.demo.cluster.player import PodOutcome

TRACKED: Final = "batch.kubernetes.io/job-tracking"  # finalizer of a Pod not counted yet
ENDED: Final = ("Succeeded", "Failed")
_GRACE_SECONDS: Final = 30  # the default of a Pod


def new_pod(job: Object, now: datetime) -> Object:
    """Return a new Pod of a Job."""
    template, owner = job["spec"]["template"], job["metadata"]
    uid = str(uuid.uuid4())
    reference = {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "name": owner["name"],
        "uid": owner["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            **template["metadata"],
            "name": f"{owner['name'][:57]}-{uid[:5]}",
            "generateName": f"{owner['name']}-",
            "namespace": owner["namespace"],
            "uid": uid,
            "generation": 1,
            "creationTimestamp": format_seconds(now),
            "ownerReferences": [reference],
            "finalizers": [TRACKED],
        },
        "spec": {**template["spec"], "nodeName": "in-memory"},
        "status": {"phase": "Pending"},
    }


def started(pod: Object, now: datetime) -> Object:
    """Return a Pod as Running."""
    state = {"running": {"startedAt": format_seconds(now)}}
    status = {"phase": "Running", "startTime": format_seconds(now)}
    return _with(pod, status, state, ready=True)


def ended(pod: Object, outcome: PodOutcome, now: datetime) -> Object:
    """Return a Pod as Succeeded or Failed."""
    terminated: Object = {
        "exitCode": outcome.exit_code,
        "reason": "Error" if outcome.exit_code else "Completed",
        "startedAt": pod["status"].get("startTime") or format_seconds(now),
        "finishedAt": format_seconds(now),
    }
    if outcome.message:
        terminated["message"] = outcome.message
    phase = "Failed" if outcome.exit_code else "Succeeded"
    status = {**pod["status"], "phase": phase}
    return _with(pod, status, {"terminated": terminated}, ready=False)


def deleted(pod: Object, now: datetime) -> Object:
    """Return a Pod with a deletion timestamp."""
    if _is_deleted(pod):
        return pod
    grace = (pod.get("spec") or {}).get("terminationGracePeriodSeconds", _GRACE_SECONDS)
    deletion = {
        "deletionGracePeriodSeconds": grace,
        "deletionTimestamp": format_seconds(now + timedelta(seconds=grace)),
    }
    return {**pod, "metadata": {**pod["metadata"], **deletion}}


def counted(pod: Object) -> Object:
    """Return a Pod that the Job controller has counted."""
    others = [name for name in finalizers(pod) if name != TRACKED]
    return {**pod, "metadata": {**pod["metadata"], "finalizers": others}}


def is_active(pod: Object) -> bool:
    """Whether a Pod is running, or will."""
    return pod["status"]["phase"] not in ENDED and not _is_deleted(pod)


def is_stopping(pod: Object) -> bool:
    """Whether a Pod is being deleted and has not ended."""
    return pod["status"]["phase"] not in ENDED and _is_deleted(pod)


def owner_of(pod: Object) -> Object | None:
    """Return the owner reference to the Job of a Pod."""
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == JOBS.kind:
            owner: Object = reference
            return owner
    return None


def finalizers(pod: Object) -> list[str]:
    """Return the finalizers of a Pod."""
    names: list[str] = pod["metadata"].get("finalizers") or []
    return names


def format_seconds(moment: datetime) -> str:
    """Format a time as Kubernetes does: whole seconds in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_deleted(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _with(pod: Object, status: Object, state: Object, *, ready: bool) -> Object:
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": 0,
            "lastState": {},
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]
    return {**pod, "status": {**status, "containerStatuses": containers}}
