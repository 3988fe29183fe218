"""Decodes objects as the API server does: validates the types of their fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import CONFIG_MAPS, EVENTS, JOBS, LEASES, Object, Resource
from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_MICRO_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)", re.ASCII)
JOB_COUNTS: Final = (
    "activeDeadlineSeconds",
    "backoffLimit",
    "completions",
    "parallelism",
    "ttlSecondsAfterFinished",
)


def decode(resource: Resource, body: Object) -> None:
    """Validate types, and add required objects: `metadata`, a Job's `spec.template.spec`.

    Raises:
        Invalid: a field has another type, or the object is of another kind. (400, not 422.)
    """
    kind = body.get("kind") or resource.kind
    version = body.get("apiVersion") or resource.api_version
    if (kind, version) != (resource.kind, resource.api_version):
        raise Invalid(f"{kind} in version {version} cannot be handled as a {resource.kind}")
    _metadata(resource, body)
    if resource in _FIELDS:
        _FIELDS[resource](resource, body)


def containers(pod: Object) -> Iterator[tuple[str, Object]]:
    """Yield each container of a Pod's spec with its path."""
    for field in ("initContainers", "containers"):
        for index, container in enumerate(pod.get(field) or ()):
            yield f"{field}[{index}]", container


def _metadata(resource: Resource, parent: Object) -> None:
    _strings(resource, _object(resource, parent, "metadata"), ("labels", "annotations"))


def _config_map(resource: Resource, body: Object) -> None:
    _strings(resource, body, ("data", "binaryData"))
    _typed(resource, "immutable", body.get("immutable"), bool)


def _job(resource: Resource, body: Object) -> None:
    spec = _object(resource, body, "spec")
    _typed(resource, "spec.suspend", spec.get("suspend"), bool)
    for field in JOB_COUNTS:
        _typed(resource, f"spec.{field}", spec.get(field), int)
    template = _object(resource, spec, "template")
    _metadata(resource, template)
    for _, container in containers(_object(resource, template, "spec")):
        for variable in container.get("env") or ():
            _typed(resource, "env.value", variable.get("value"), str)


def _lease(resource: Resource, body: Object) -> None:
    spec = _object(resource, body, "spec")
    for field in ("acquireTime", "renewTime"):
        _micro_time(resource, f"spec.{field}", spec.get(field))


def _event(resource: Resource, body: Object) -> None:
    _micro_time(resource, "eventTime", body.get("eventTime"))


_FIELDS: Final[Mapping[Resource, Callable[[Resource, Object], None]]] = {
    CONFIG_MAPS: _config_map,
    JOBS: _job,
    LEASES: _lease,
    EVENTS: _event,
}


def _object(resource: Resource, parent: Object, field: str) -> Object:
    """Return the object in a field, which is added if absent."""
    if parent.get(field) is None:
        parent[field] = {}
    _typed(resource, field, parent[field], dict)
    value: Object = parent[field]
    return value


def _strings(resource: Resource, parent: Object, fields: Iterable[str]) -> None:
    """Validate maps of strings: null becomes "", and an empty map is removed."""
    for field in fields:
        _typed(resource, field, parent.get(field), dict)
        for key, value in (parent.get(field) or {}).items():
            _typed(resource, f"{field}[{key}]", value, str)
            parent[field][key] = value or ""
        if not parent.get(field):
            parent.pop(field, None)


def _typed(resource: Resource, field: str, value: Any, expected: type) -> None:
    """Validate a type; null means absent. JSON's true is a number in Python, but not in Go."""
    if value is None or (
        isinstance(value, expected) and (type(value) is bool) is (expected is bool)
    ):
        return
    raise Invalid(
        f"{resource.kind} in version {resource.api_version} cannot be handled as a "
        f"{resource.kind}: {field} must be of type {expected.__name__}, not {type(value).__name__}"
    )


def _micro_time(resource: Resource, field: str, value: Any) -> None:
    _typed(resource, field, value, str)
    if value is not None and not _MICRO_TIME.fullmatch(value):
        raise Invalid(
            f"{resource.kind} in version {resource.api_version} cannot be handled as a "
            f'{resource.kind}: {field}: "{value}" is not in the form 2006-01-02T15:04:05.000000Z'
        )
