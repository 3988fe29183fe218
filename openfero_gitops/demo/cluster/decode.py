"""Reading an object as the API server does: whether its fields have the types they must have."""

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
    """Check types; fill what later steps rely on: `metadata`, a Job's `spec.template.spec`.

    Raises:
        Invalid: a field has not its type, or the object is of another kind. (400, not 422.)
    """
    kind = body.get("kind") or resource.kind
    version = body.get("apiVersion") or resource.api_version
    if (kind, version) != (resource.kind, resource.api_version):
        raise Invalid(f"{kind} in version {version} cannot be handled as a {resource.kind}")
    _metadata(resource, body)
    if resource in _FIELDS:
        _FIELDS[resource](resource, body)


def containers(pod: Object) -> Iterator[tuple[str, Object]]:
    """Every container of a Pod's spec, with the path it has there."""
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
    """A field that holds an object, made where it is absent."""
    if parent.get(field) is None:
        parent[field] = {}
    _typed(resource, field, parent[field], dict)
    found: Object = parent[field]
    return found


def _strings(resource: Resource, parent: Object, fields: Iterable[str]) -> None:
    """Fields that hold strings by name: null becomes "", and an empty field is left out."""
    for field in fields:
        _typed(resource, field, parent.get(field), dict)
        for key, value in (parent.get(field) or {}).items():
            _typed(resource, f"{field}[{key}]", value, str)
            parent[field][key] = value or ""
        if not parent.get(field):
            parent.pop(field, None)


def _typed(resource: Resource, field: str, value: Any, wanted: type) -> None:
    """Check a type; null is as if absent. JSON's true is a number to Python, not to Go."""
    if value is None or (isinstance(value, wanted) and (type(value) is bool) is (wanted is bool)):
        return
    raise Invalid(
        f"{resource.kind} in version {resource.api_version} cannot be handled as a "
        f"{resource.kind}: {field} must be of type {wanted.__name__}, not {type(value).__name__}"
    )


def _micro_time(resource: Resource, field: str, value: Any) -> None:
    _typed(resource, field, value, str)
    if value is not None and not _MICRO_TIME.fullmatch(value):
        raise Invalid(
            f"{resource.kind} in version {resource.api_version} cannot be handled as a "
            f'{resource.kind}: {field}: "{value}" has not the form 2006-01-02T15:04:05.000000Z'
        )
