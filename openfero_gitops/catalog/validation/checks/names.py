"""Names, labels and annotations that the API server refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD, TEMPLATE
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.dns import (
    is_dns_label,
    is_dns_subdomain,
    is_label_value,
    is_qualified_name,
)
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body

#: The volumes that are made from an object, and the field that names it.
OBJECTS: Final = {
    "configMap": "name",
    "secret": "secretName",
    "persistentVolumeClaim": "claimName",
}
_LONGEST_LABEL: Final = 63
_ANNOTATION_BYTES: Final = 256 * 1024


@check(
    error(
        "invalid-name",
        "A name must be a valid Kubernetes name.",
        API_SERVER_REJECTS,
    )
)
def _invalid_name(body: Body) -> Iterator[Breach]:
    for pointer, name in _labels(body):
        if not is_dns_label(name):
            yield _misnamed(pointer, name, "lower-case letters, digits and -, at most 63")
    for pointer, name in _subdomains(body):
        if not is_dns_subdomain(name):
            yield _misnamed(pointer, name, "lower-case letters, digits, - and ., at most 253")


def _misnamed(pointer: Pointer, name: str, wanted: str) -> Breach:
    proper = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:_LONGEST_LABEL].strip("-")
    message = f"{shown(name)} is no name: {wanted}, a letter or digit at both ends"
    return pointer, message, f"write {proper}" if proper else ""


def _labels(body: Body) -> Iterator[tuple[Pointer, str]]:
    """Names of one part. A container or a volume must have one; elsewhere an empty one is none."""
    for at, fields in (*((c.pointer, c.fields) for c in body.containers), *body.volumes):
        if "name" in fields:
            yield (*at, "name"), fields["name"]
    yield from _set(POD, body.pod, "hostname", "subdomain")


def _subdomains(body: Body) -> Iterator[tuple[Pointer, str]]:
    """Names of objects."""
    yield from _set(
        POD,
        body.pod,
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
        "serviceAccount",
        "serviceAccountName",
    )
    for index, secret in enumerate(body.pod.get("imagePullSecrets", ())):
        yield from _set((*POD, "imagePullSecrets", index), secret, "name")
    for at, volume in body.volumes:
        for kind, field in OBJECTS.items():
            yield from _set((*at, kind), volume.get(kind, {}), field)
    for container in body.containers:
        for index, variable in enumerate(container.fields.get("env", ())):
            at = (*container.pointer, "env", index, "valueFrom")
            for kind in ("configMapKeyRef", "secretKeyRef"):
                yield from _set((*at, kind), variable.get("valueFrom", {}).get(kind, {}), "name")
        for index, source in enumerate(container.fields.get("envFrom", ())):
            at = (*container.pointer, "envFrom", index)
            for kind in ("configMapRef", "secretRef"):
                yield from _set((*at, kind), source.get(kind, {}), "name")


def _set(at: Pointer, fields: Mapping[str, Any], *names: str) -> Iterator[tuple[Pointer, str]]:
    for name in names:
        if fields.get(name):
            yield (*at, name), fields[name]


@check(
    error(
        "invalid-label",
        "Labels and annotations must have valid keys and values.",
        API_SERVER_REJECTS,
    )
)
def _invalid_label(body: Body) -> Iterator[Breach]:
    template_metadata = body.template.get("metadata", {})
    for at, labels in (
        (("metadata", "labels"), body.labels),
        ((*TEMPLATE, "metadata", "labels"), template_metadata.get("labels", {})),
        ((*POD, "nodeSelector"), body.pod.get("nodeSelector", {})),
    ):
        for key, value in labels.items():
            if not is_qualified_name(key):
                yield (*at, key), f"{shown(key)} is no label key", "write name or domain/name"
            if not is_label_value(value) and "{{" not in value:
                message = (
                    f"{shown(value)} is no label value: letters, digits, -, _ and ., at most 63, a"
                    " letter or digit at both ends"
                )
                yield (*at, key), message, "put longer text into an annotation"
    for at, notes in (
        (("metadata", "annotations"), body.annotations),
        ((*TEMPLATE, "metadata", "annotations"), template_metadata.get("annotations", {})),
    ):
        for key in notes:
            if not is_qualified_name(key.lower()):
                yield (*at, key), f"{shown(key)} is no annotation key", "write name or domain/name"
        size = sum(len(key) + len(value.encode()) for key, value in notes.items())
        if size > _ANNOTATION_BYTES:
            message = f"the annotations have {size} bytes, more than {_ANNOTATION_BYTES}"
            yield at, message, "keep long texts in a ConfigMap, and mount it"


_CONTROLLER_LABELS: Final = (
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
)


@check(
    error(
        "controller-label",
        "A Pod template must not set the labels that the Job controller sets.",
        API_SERVER_REJECTS,
    )
)
def _controller_label(body: Body) -> Iterator[Breach]:
    for key in _CONTROLLER_LABELS:
        if key in body.template.get("metadata", {}).get("labels", {}):
            yield (
                (*TEMPLATE, "metadata", "labels", key),
                f"Kubernetes sets {key} itself and refuses another value",
                "delete it",
            )
