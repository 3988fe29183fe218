"""Adds defaults to Jobs as the API server does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.demo.cluster.decode import containers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.cluster.api import Object

UID_LABEL: Final = "batch.kubernetes.io/controller-uid"
NAME_LABEL: Final = "batch.kubernetes.io/job-name"

_JOB: Final = {
    "parallelism": 1,
    "backoffLimit": 6,
    "completionMode": "NonIndexed",
    "manualSelector": False,
    "suspend": False,
    "podReplacementPolicy": "TerminatingOrFailed",
}
_POD: Final = {
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": 30,
}
_CONTAINER: Final = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}


def fill_new_job(job: Object) -> None:
    """Add the generated fields of a new Job, which has a uid, and the defaults."""
    metadata, spec = job["metadata"], job["spec"]
    uid, name = metadata["uid"], metadata["name"]
    generated = {UID_LABEL: uid, NAME_LABEL: name, "controller-uid": uid, "job-name": name}
    template = spec["template"]["metadata"]
    template["labels"] = {**(template.get("labels") or {}), **generated}
    metadata["labels"] = metadata.get("labels") or {**template["labels"]}
    spec["selector"] = {"matchLabels": {UID_LABEL: uid}}
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    fill_job(job)


def fill_job(job: Object) -> None:
    """Add the defaults, which an update may have removed."""
    _fill(job["spec"], _JOB)
    pod = job["spec"]["template"]["spec"]
    _fill(pod, _POD)
    pod.setdefault("securityContext", {})
    for _, container in containers(pod):
        _fill(container, _CONTAINER)
        container.setdefault("resources", {})
        if container.get("imagePullPolicy") is None:
            image = container.get("image") or ""
            tag = image.rpartition("/")[2].partition(":")[2]
            is_latest = "@" not in image and tag in ("", "latest")
            container["imagePullPolicy"] = "Always" if is_latest else "IfNotPresent"


def _fill(fields: Object, defaults: Mapping[str, object]) -> None:
    for key, value in defaults.items():
        if fields.get(key) is None:
            fields[key] = value
