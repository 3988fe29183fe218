"""Validates objects as the API server does before it stores them.

Only as far as the users of the in-memory cluster need it; the contract suite compares it with a
real API server. Fields without a rule are not validated. All errors are reported together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import CONFIG_MAPS, EVENTS, JOBS, LEASES, PODS, Object, Resource
from openfero_gitops.demo.cluster.decode import JOB_COUNTS, containers
from openfero_gitops.demo.cluster.store import copied
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
_MAX_NAME: Final = 253  # characters
_MAX_JOB_NAME: Final = 63  # characters, since it becomes a label of the Pods
_MAX_ANNOTATIONS_BYTES: Final = 256 * 1024  # all keys and values of an object
_MAX_DATA_BYTES: Final = 1024 * 1024  # all values of a ConfigMap
_MAX_NOTE: Final = 1024  # characters of an Event
_OTHER_FINALIZERS: Final = frozenset({"orphan", "foregroundDeletion", "kubernetes"})

_FIXED: Final = "Invalid value: field is immutable"
# Fields that may be changed in the template of a suspended Job.
_SCHEDULING: Final = ("affinity", "nodeSelector", "schedulingGates", "tolerations")


class ValidationErrors:
    """The errors of an object, which are reported together."""

    def __init__(self, resource: Resource, name: str) -> None:
        kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
        self._subject = f'{kind} "{name}" is invalid'
        self._errors: list[str] = []

    def require(self, condition: object, field: str, message: str) -> None:
        """Add an error unless the condition is true."""
        if not condition:
            self._errors.append(f"{field}: {message}")

    def raise_any(self) -> None:
        """Raise `Invalid` if there are errors."""
        if self._errors:
            errors = self._errors
            message = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
            raise Invalid(f"{self._subject}: {message}")


def check(resource: Resource, new: Object) -> None:
    """Validate a decoded object.

    Raises:
        Invalid: the object has errors, all of which it names.
    """
    metadata = new["metadata"]
    name = metadata.get("name") or ""
    errors = ValidationErrors(resource, name)
    errors.require(name, "metadata.name", "Required value: name or generateName is required")
    errors.require(
        not name or (_SUBDOMAIN.fullmatch(name) and len(name) <= _MAX_NAME),
        "metadata.name",
        f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case '
        "alphanumeric characters, '-' or '.', and start and end with an alphanumeric one",
    )
    _labels(errors, "metadata.labels", metadata.get("labels"))
    _annotations(errors, metadata.get("annotations"))
    for finalizer in metadata.get("finalizers") or ():
        qualified = "/" in finalizer or finalizer in _OTHER_FINALIZERS
        errors.require(qualified, "metadata.finalizers", f'Invalid value: "{finalizer}"')
    if resource in _CHECKS:
        _CHECKS[resource](errors, new)
    errors.raise_any()


def check_update(resource: Resource, old: Object, new: Object) -> None:
    """Validate an update of immutable fields.

    Raises:
        Invalid: one of them has changed.
    """
    errors = ValidationErrors(resource, old["metadata"]["name"])
    if old["metadata"].get("deletionTimestamp"):
        before, after = (set(item["metadata"].get("finalizers") or ()) for item in (old, new))
        errors.require(
            after <= before, "metadata.finalizers", "Forbidden: the object is being deleted"
        )
    if resource in _UPDATES:
        _UPDATES[resource](errors, old, new)
    errors.raise_any()


def _config_map(errors: ValidationErrors, new: Object) -> None:
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (new.get(field) or {}).items():
            errors.require(_DATA_KEY.fullmatch(key), f"{field}[{key}]", f'Invalid value: "{key}"')
            size += len(value.encode())
    errors.require(
        size <= _MAX_DATA_BYTES, "[]", f"Too long: may not be more than {_MAX_DATA_BYTES} bytes"
    )


def _config_map_update(errors: ValidationErrors, old: Object, new: Object) -> None:
    for field in ("immutable", "data", "binaryData") if old.get("immutable") else ():
        errors.require(
            (old.get(field) or None) == (new.get(field) or None),
            field,
            "Forbidden: field is immutable when `immutable` is set",
        )


def _lease(errors: ValidationErrors, new: Object) -> None:
    duration = new["spec"].get("leaseDurationSeconds")
    errors.require(
        duration is None or duration > 0,
        "spec.leaseDurationSeconds",
        f"Invalid value: {duration}: must be greater than 0",
    )


def _event(errors: ValidationErrors, new: Object) -> None:
    for field in ("action", "eventTime", "reason", "reportingController", "reportingInstance"):
        errors.require(new.get(field), field, "Required value")
    kind = new.get("type") or ""
    errors.require(kind in ("Normal", "Warning"), "type", f"has invalid value: {kind}")
    namespace = (new.get("regarding") or {}).get("namespace")
    errors.require(namespace, "involvedObject.namespace", "does not match event.namespace")
    short = len(new.get("note") or "") <= _MAX_NOTE
    errors.require(short, "message", f"can have at most {_MAX_NOTE} characters")


def _job(errors: ValidationErrors, new: Object) -> None:
    name, spec = new["metadata"].get("name") or "", new["spec"]
    # The Pods of an indexed Job have its name with a suffix such as "-0".
    indexed = spec.get("completionMode") == "Indexed"
    limit = _MAX_JOB_NAME - len("-0") if indexed else _MAX_JOB_NAME
    errors.require(
        len(name) <= limit,
        "spec.template.labels",
        f'Invalid value: "{name}": must be no more than {limit} bytes',
    )
    for field in JOB_COUNTS:
        value = spec.get(field)
        errors.require(
            value is None or value >= 0,
            f"spec.{field}",
            f"Invalid value: {value}: must be greater than or equal to 0",
        )
    template = spec["template"]
    _labels(errors, "spec.template.labels", template["metadata"].get("labels"))
    _pod_spec(errors, "spec.template.spec", template["spec"])
    errors.require(
        template["spec"].get("restartPolicy") in ("OnFailure", "Never"),
        "spec.template.spec.restartPolicy",
        'Required value: valid values: "OnFailure", "Never"',
    )


def _job_update(errors: ValidationErrors, old: Object, new: Object) -> None:
    before, after = old["spec"], new["spec"]
    for field in ("completions", "completionMode", "selector", "manualSelector", "managedBy"):
        errors.require(before.get(field) == after.get(field), f"spec.{field}", _FIXED)
    if before["suspend"]:
        unchanged = _without_scheduling(before["template"]) == _without_scheduling(
            after["template"]
        )
    else:  # its Pods were created from the template
        unchanged = before["template"] == after["template"]
    errors.require(unchanged, "spec.template.spec", _FIXED)


def _without_scheduling(template: Object) -> Object:
    pod = copied(template["spec"])
    for field in _SCHEDULING:
        pod.pop(field, None)
    for _, container in containers(pod):
        container.pop("resources", None)
    return pod


def _pod(errors: ValidationErrors, new: Object) -> None:
    _pod_spec(errors, "spec", new.get("spec") or {})


_CHECKS: Final[Mapping[Resource, Callable[[ValidationErrors, Object], None]]] = {
    CONFIG_MAPS: _config_map,
    EVENTS: _event,
    JOBS: _job,
    LEASES: _lease,
    PODS: _pod,
}
_UPDATES: Final[Mapping[Resource, Callable[[ValidationErrors, Object, Object], None]]] = {
    CONFIG_MAPS: _config_map_update,
    JOBS: _job_update,
}


def _labels(errors: ValidationErrors, field: str, labels: Object | None) -> None:
    for key, value in (labels or {}).items():
        errors.require(_QUALIFIED.fullmatch(key), field, f'Invalid value: "{key}"')
        errors.require(_LABEL_VALUE.fullmatch(value), field, f'Invalid value: "{value}"')


def _annotations(errors: ValidationErrors, annotations: Object | None) -> None:
    field, size = "metadata.annotations", 0
    for key, value in (annotations or {}).items():
        errors.require(_QUALIFIED.fullmatch(key.lower()), field, f'Invalid value: "{key}"')
        size += len(key.encode()) + len(value.encode())
    message = f"Too long: may not be more than {_MAX_ANNOTATIONS_BYTES} bytes"
    errors.require(size <= _MAX_ANNOTATIONS_BYTES, field, message)


def _pod_spec(errors: ValidationErrors, field: str, pod: Object) -> None:
    errors.require(pod.get("containers"), f"{field}.containers", "Required value")
    volumes = {volume.get("name") for volume in pod.get("volumes") or ()}
    names: set[str] = set()
    for place, container in containers(pod):
        where = f"{field}.{place}"
        name = container.get("name") or ""
        errors.require(name, f"{where}.name", "Required value")
        errors.require(
            not name or _DNS_LABEL.fullmatch(name), f"{where}.name", f'Invalid value: "{name}"'
        )
        errors.require(name not in names, f"{where}.name", f'Duplicate value: "{name}"')
        names.add(name)
        errors.require(container.get("image"), f"{where}.image", "Required value")
        policy = container.get("imagePullPolicy")
        errors.require(
            policy in (None, "Always", "IfNotPresent", "Never"),
            f"{where}.imagePullPolicy",
            f'Unsupported value: "{policy}"',
        )
        for variable in container.get("env") or ():
            key = variable.get("name") or ""
            errors.require(_ENV_NAME.fullmatch(key), f"{where}.env", f'Invalid value: "{key}"')
        for mount in container.get("volumeMounts") or ():
            volume = mount.get("name")
            errors.require(volume in volumes, f"{where}.volumeMounts", f'Not found: "{volume}"')
