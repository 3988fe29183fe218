"""Pods as values: what one is made of, and what it is after the next thing that happens to it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import JOBS, PODS

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import Object
    from openfero_gitops.demo.cluster.player import Outcome

TRACKED: Final = "batch.kubernetes.io/job-tracking"  # the finalizer of a Pod not counted yet
ENDED: Final = ("Succeeded", "Failed")
_GRACE: Final = 30  # seconds, where the Pod says nothing else


def made_for(job: Object, now: datetime) -> Object:
    """A new Pod of a Job."""
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
            "creationTimestamp": written(now),
            "ownerReferences": [reference],
            "finalizers": [TRACKED],
        },
        "spec": {**template["spec"], "nodeName": "in-memory"},
        "status": {"phase": "Pending"},
    }


def started(pod: Object, now: datetime) -> Object:
    """It as Running."""
    state = {"running": {"startedAt": written(now)}}
    status = {"phase": "Running", "startTime": written(now)}
    return _with(pod, status, state, ready=True)


def ended(pod: Object, outcome: Outcome, now: datetime) -> Object:
    """It as Succeeded or Failed."""
    terminated: Object = {
        "exitCode": outcome.exit_code,
        "reason": "Error" if outcome.exit_code else "Completed",
        "startedAt": pod["status"].get("startTime") or written(now),
        "finishedAt": written(now),
    }
    if outcome.message:
        terminated["message"] = outcome.message
    phase = "Failed" if outcome.exit_code else "Succeeded"
    status = {**pod["status"], "phase": phase}
    return _with(pod, status, {"terminated": terminated}, ready=False)


def deleted(pod: Object, now: datetime) -> Object:
    """It as one that has been told to stop."""
    if _is_deleted(pod):
        return pod
    grace = (pod.get("spec") or {}).get("terminationGracePeriodSeconds", _GRACE)
    told = {
        "deletionGracePeriodSeconds": grace,
        "deletionTimestamp": written(now + timedelta(seconds=grace)),
    }
    return {**pod, "metadata": {**pod["metadata"], **told}}


def counted(pod: Object) -> Object:
    """It without the mark that the Job controller has still to count it."""
    others = [each for each in finalizers(pod) if each != TRACKED]
    return {**pod, "metadata": {**pod["metadata"], "finalizers": others}}


def is_active(pod: Object) -> bool:
    """Tell whether it runs, or will."""
    return pod["status"]["phase"] not in ENDED and not _is_deleted(pod)


def is_stopping(pod: Object) -> bool:
    """Tell whether it has been told to stop and has not yet."""
    return pod["status"]["phase"] not in ENDED and _is_deleted(pod)


def owner_of(pod: Object) -> Object | None:
    """The reference to the Job that it belongs to."""
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("kind") == JOBS.kind:
            found: Object = reference
            return found
    return None


def finalizers(pod: Object) -> list[str]:
    """What has to be done before it may go."""
    found: list[str] = pod["metadata"].get("finalizers") or []
    return found


def written(moment: datetime) -> str:
    """A time as Kubernetes writes it: whole seconds in UTC."""
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
