"""What the API server asks of an object before it stores it.

As much of it as matters to those who use the in-memory cluster; the contract suite compares it
with a real API server. Fields that no rule names pass unread. All findings are said together.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import CONFIG_MAPS, EVENTS, JOBS, LEASES, PODS, Object, Resource
from openfero_gitops.demo.cluster.decode import JOB_COUNTS, containers
from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUALIFIED: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_DATA_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_ENV_NAME: Final = re.compile(r"[ -<>-~]+")  # printable ASCII without "="
_LONGEST_NAME: Final = 253
_LONGEST_JOB_NAME: Final = 63  # it becomes a label of the Pods
_ANNOTATIONS: Final = 256 * 1024  # bytes, all keys and values of an object
_DATA: Final = 1024 * 1024  # bytes, all values of a ConfigMap
_NOTE: Final = 1024  # characters of an Event
_OTHER_FINALIZERS: Final = frozenset({"orphan", "foregroundDeletion", "kubernetes"})

_FIXED: Final = "Invalid value: field is immutable"
# What everyone may change in the template of a suspended Job.
_SCHEDULING: Final = ("affinity", "nodeSelector", "schedulingGates", "tolerations")


class Findings:
    """What is wrong with an object, gathered to be said at once."""

    def __init__(self, resource: Resource, name: str) -> None:
        kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
        self._what = f'{kind} "{name}" is invalid'
        self._found: list[str] = []

    def must(self, condition: object, field: str, said: str) -> None:
        """Note what is said of a field, unless the condition holds."""
        if not condition:
            self._found.append(f"{field}: {said}")

    def refuse(self) -> None:
        """Raise `Invalid` if anything was noted."""
        if self._found:
            said = self._found[0] if len(self._found) == 1 else f"[{', '.join(self._found)}]"
            raise Invalid(f"{self._what}: {said}")


def check(resource: Resource, new: Object) -> None:
    """Check a decoded object as it would be stored.

    Raises:
        Invalid: naming every field that is wrong.
    """
    metadata = new["metadata"]
    name = metadata.get("name") or ""
    findings = Findings(resource, name)
    findings.must(name, "metadata.name", "Required value: name or generateName is required")
    findings.must(
        not name or (_SUBDOMAIN.fullmatch(name) and len(name) <= _LONGEST_NAME),
        "metadata.name",
        f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case '
        "alphanumeric characters, '-' or '.', and start and end with an alphanumeric one",
    )
    _labels(findings, "metadata.labels", metadata.get("labels"))
    _annotations(findings, metadata.get("annotations"))
    for finalizer in metadata.get("finalizers") or ():
        qualified = "/" in finalizer or finalizer in _OTHER_FINALIZERS
        findings.must(qualified, "metadata.finalizers", f'Invalid value: "{finalizer}"')
    if resource in _CHECKS:
        _CHECKS[resource](findings, new)
    findings.refuse()


def check_update(resource: Resource, old: Object, new: Object) -> None:
    """Check that what may not change has not.

    Raises:
        Invalid: it has.
    """
    findings = Findings(resource, old["metadata"]["name"])
    if old["metadata"].get("deletionTimestamp"):
        had, has = (set(each["metadata"].get("finalizers") or ()) for each in (old, new))
        findings.must(has <= had, "metadata.finalizers", "Forbidden: the object is being deleted")
    if resource in _UPDATES:
        _UPDATES[resource](findings, old, new)
    findings.refuse()


def _config_map(findings: Findings, new: Object) -> None:
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (new.get(field) or {}).items():
            findings.must(_DATA_KEY.fullmatch(key), f"{field}[{key}]", f'Invalid value: "{key}"')
            size += len(value.encode())
    findings.must(size <= _DATA, "[]", f"Too long: may not be more than {_DATA} bytes")


def _config_map_update(findings: Findings, old: Object, new: Object) -> None:
    for field in ("immutable", "data", "binaryData") if old.get("immutable") else ():
        findings.must(
            (old.get(field) or None) == (new.get(field) or None),
            field,
            "Forbidden: field is immutable when `immutable` is set",
        )


def _lease(findings: Findings, new: Object) -> None:
    duration = new["spec"].get("leaseDurationSeconds")
    findings.must(
        duration is None or duration > 0,
        "spec.leaseDurationSeconds",
        f"Invalid value: {duration}: must be greater than 0",
    )


def _event(findings: Findings, new: Object) -> None:
    for field in ("action", "eventTime", "reason", "reportingController", "reportingInstance"):
        findings.must(new.get(field), field, "Required value")
    kind = new.get("type") or ""
    findings.must(kind in ("Normal", "Warning"), "type", f"has invalid value: {kind}")
    namespace = (new.get("regarding") or {}).get("namespace")
    findings.must(namespace, "involvedObject.namespace", "does not match event.namespace")
    short = len(new.get("note") or "") <= _NOTE
    findings.must(short, "message", f"can have at most {_NOTE} characters")


def _job(findings: Findings, new: Object) -> None:
    name, spec = new["metadata"].get("name") or "", new["spec"]
    # An indexed Job's Pods have its name with "-0" and more behind.
    indexed = spec.get("completionMode") == "Indexed"
    longest = _LONGEST_JOB_NAME - len("-0") if indexed else _LONGEST_JOB_NAME
    findings.must(
        len(name) <= longest,
        "spec.template.labels",
        f'Invalid value: "{name}": must be no more than {longest} bytes',
    )
    for field in JOB_COUNTS:
        value = spec.get(field)
        findings.must(
            value is None or value >= 0,
            f"spec.{field}",
            f"Invalid value: {value}: must be greater than or equal to 0",
        )
    template = spec["template"]
    _labels(findings, "spec.template.labels", template["metadata"].get("labels"))
    _pod_spec(findings, "spec.template.spec", template["spec"])
    findings.must(
        template["spec"].get("restartPolicy") in ("OnFailure", "Never"),
        "spec.template.spec.restartPolicy",
        'Required value: valid values: "OnFailure", "Never"',
    )


def _job_update(findings: Findings, old: Object, new: Object) -> None:
    before, after = old["spec"], new["spec"]
    for field in ("completions", "completionMode", "selector", "manualSelector", "managedBy"):
        findings.must(before.get(field) == after.get(field), f"spec.{field}", _FIXED)
    if before["suspend"]:
        kept = _without_scheduling(before["template"]) == _without_scheduling(after["template"])
    else:  # its Pods have been made from the template
        kept = before["template"] == after["template"]
    findings.must(kept, "spec.template.spec", _FIXED)


def _without_scheduling(template: Object) -> Object:
    pod: Object = json.loads(json.dumps(template["spec"]))
    for field in _SCHEDULING:
        pod.pop(field, None)
    for _, container in containers(pod):
        container.pop("resources", None)
    return pod


def _pod(findings: Findings, new: Object) -> None:
    _pod_spec(findings, "spec", new.get("spec") or {})


_CHECKS: Final[Mapping[Resource, Callable[[Findings, Object], None]]] = {
    CONFIG_MAPS: _config_map,
    EVENTS: _event,
    JOBS: _job,
    LEASES: _lease,
    PODS: _pod,
}
_UPDATES: Final[Mapping[Resource, Callable[[Findings, Object, Object], None]]] = {
    CONFIG_MAPS: _config_map_update,
    JOBS: _job_update,
}


def _labels(findings: Findings, field: str, labels: Object | None) -> None:
    for key, value in (labels or {}).items():
        findings.must(_QUALIFIED.fullmatch(key), field, f'Invalid value: "{key}"')
        findings.must(_LABEL_VALUE.fullmatch(value), field, f'Invalid value: "{value}"')


def _annotations(findings: Findings, annotations: Object | None) -> None:
    field, size = "metadata.annotations", 0
    for key, value in (annotations or {}).items():
        findings.must(_QUALIFIED.fullmatch(key.lower()), field, f'Invalid value: "{key}"')
        size += len(key.encode()) + len(value.encode())
    said = f"Too long: may not be more than {_ANNOTATIONS} bytes"
    findings.must(size <= _ANNOTATIONS, field, said)


def _pod_spec(findings: Findings, field: str, pod: Object) -> None:
    findings.must(pod.get("containers"), f"{field}.containers", "Required value")
    volumes = {volume.get("name") for volume in pod.get("volumes") or ()}
    names: set[str] = set()
    for place, container in containers(pod):
        where = f"{field}.{place}"
        name = container.get("name") or ""
        findings.must(name, f"{where}.name", "Required value")
        findings.must(
            not name or _DNS_LABEL.fullmatch(name), f"{where}.name", f'Invalid value: "{name}"'
        )
        findings.must(name not in names, f"{where}.name", f'Duplicate value: "{name}"')
        names.add(name)
        findings.must(container.get("image"), f"{where}.image", "Required value")
        policy = container.get("imagePullPolicy")
        findings.must(
            policy in (None, "Always", "IfNotPresent", "Never"),
            f"{where}.imagePullPolicy",
            f'Unsupported value: "{policy}"',
        )
        for variable in container.get("env") or ():
            key = variable.get("name") or ""
            findings.must(_ENV_NAME.fullmatch(key), f"{where}.env", f'Invalid value: "{key}"')
        for mount in container.get("volumeMounts") or ():
            volume = mount.get("name")
            findings.must(volume in volumes, f"{where}.volumeMounts", f'Not found: "{volume}"')
