"""Names, labels and annotations that the API server rejects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD, TEMPLATE, items_of
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error
from openfero_gitops.domain.dns import (
    is_dns_label,
    is_dns_subdomain,
    is_label_value,
    is_qualified_name,
)
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer

#: The kinds of volume that are made from an object, and the field with its name.
OBJECTS: Final = {
    "configMap": "name",
    "secret": "secretName",
    "persistentVolumeClaim": "claimName",
}
_MAX_LABEL_CHARACTERS: Final = 63
_MAX_ANNOTATION_BYTES: Final = 256 * 1024
_CONTROLLER_LABELS: Final = (
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
)
_KEY: Final = "write name or domain/name"


@check(kubernetes_error("invalid-name", "A name must be a valid Kubernetes name."))
def _invalid_name(body: Body) -> Iterator[Breach]:
    for pointer, name in _labels(body):
        if not is_dns_label(name):
            yield _invalid(pointer, name, "lower-case letters, digits and -, at most 63")
    for pointer, name in _subdomains(body):
        if not is_dns_subdomain(name):
            yield _invalid(pointer, name, "lower-case letters, digits, - and ., at most 253")


def _invalid(pointer: Pointer, name: str, characters: str) -> Breach:
    valid = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:_MAX_LABEL_CHARACTERS].strip("-")
    message = f"{shown(name)} is not a valid name: {characters}, a letter or digit at both ends"
    return pointer, message, f"write {valid}" if valid else ""


def _labels(body: Body) -> Iterator[tuple[Pointer, str]]:
    """The names that must be DNS labels; only those of containers and volumes may not be empty."""
    for pointer, fields in (*((c.pointer, c.fields) for c in body.containers), *body.volumes):
        if "name" in fields:
            yield (*pointer, "name"), fields["name"]
    yield from _non_empty(POD, body.pod, "hostname", "subdomain")


def _subdomains(body: Body) -> Iterator[tuple[Pointer, str]]:
    """The names that must be DNS subdomains."""
    yield from _non_empty(
        POD,
        body.pod,
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
        "serviceAccount",
        "serviceAccountName",
    )
    for pointer, secret in items_of(POD, body.pod, "imagePullSecrets"):
        yield from _non_empty(pointer, secret, "name")
    for pointer, volume in body.volumes:
        for kind, field in OBJECTS.items():
            yield from _non_empty((*pointer, kind), volume.get(kind, {}), field)
    for container in body.containers:
        for pointer, variable in items_of(container.pointer, container.fields, "env"):
            source = variable.get("valueFrom", {})
            for kind in ("configMapKeyRef", "secretKeyRef"):
                at = (*pointer, "valueFrom", kind)
                yield from _non_empty(at, source.get(kind, {}), "name")
        for pointer, source in items_of(container.pointer, container.fields, "envFrom"):
            for kind in ("configMapRef", "secretRef"):
                yield from _non_empty((*pointer, kind), source.get(kind, {}), "name")


def _non_empty(
    pointer: Pointer, fields: Mapping[str, Any], *names: str
) -> Iterator[tuple[Pointer, str]]:
    for name in names:
        if fields.get(name):
            yield (*pointer, name), fields[name]


@check(kubernetes_error("invalid-label", "Labels and annotations must have valid keys and values."))
def _invalid_label(body: Body) -> Iterator[Breach]:
    template_metadata = body.template.get("metadata", {})
    for pointer, labels in (
        (("metadata", "labels"), body.labels),
        ((*TEMPLATE, "metadata", "labels"), template_metadata.get("labels", {})),
        ((*POD, "nodeSelector"), body.pod.get("nodeSelector", {})),
    ):
        for key, value in labels.items():
            if not is_qualified_name(key):
                yield (*pointer, key), f"{shown(key)} is not a valid label key", _KEY
            if not is_label_value(value) and "{{" not in value:
                message = (
                    f"{shown(value)} is not a valid label value: letters, digits, -, _ and ., at"
                    " most 63, a letter or digit at both ends"
                )
                yield (*pointer, key), message, "use an annotation for longer text"
    for pointer, texts in (
        (("metadata", "annotations"), body.annotations),
        ((*TEMPLATE, "metadata", "annotations"), template_metadata.get("annotations", {})),
    ):
        for key in texts:
            if not is_qualified_name(key.lower()):
                yield (*pointer, key), f"{shown(key)} is not a valid annotation key", _KEY
        size = sum(len(key) + len(value.encode()) for key, value in texts.items())
        if size > _MAX_ANNOTATION_BYTES:
            message = (
                f"the annotations have {size} bytes; at most {_MAX_ANNOTATION_BYTES} are allowed"
            )
            yield pointer, message, "move long texts to a ConfigMap and mount it"


@check(
    kubernetes_error(
        "controller-label",
        "A Pod template must not set the labels that the Job controller sets.",
        "delete it",
    )
)
def _controller_label(body: Body) -> Iterator[Breach]:
    for key in _CONTROLLER_LABELS:
        if key in body.template.get("metadata", {}).get("labels", {}):
            message = f"label {key} is set by Kubernetes"
            yield (*TEMPLATE, "metadata", "labels", key), message, ""
