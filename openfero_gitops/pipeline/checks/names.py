"""Names, labels and annotations that the API server refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.pipeline.body import POD, TEMPLATE
from openfero_gitops.pipeline.dns import (
    is_dns_label,
    is_dns_subdomain,
    is_label_value,
    is_qualified_name,
)
from openfero_gitops.pipeline.rules import Breach, Pointer, check, error, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.pipeline.body import Body

_LONGEST_LABEL: Final = 63
_ANNOTATION_BYTES: Final = 256 * 1024


@check(error("invalid-name", "A name is one that Kubernetes takes."))
def _invalid_name(body: Body) -> Iterator[Breach]:
    labels: list[tuple[Pointer, Any]] = []
    subdomains: list[tuple[Pointer, Any]] = []
    pod = body.pod
    for container in body.containers:
        labels.append(((*container.pointer, "name"), container.fields.get("name")))
        for index, source in enumerate(container.fields.get("envFrom", ())):
            for kind in ("configMapRef", "secretRef"):
                way = ("envFrom", index, kind, "name")
                subdomains.append(((*container.pointer, *way), source.get(kind, {}).get("name")))
    for at, volume in body.volumes:
        labels.append(((*at, "name"), volume.get("name")))
        for kind, field in (
            ("configMap", "name"),
            ("secret", "secretName"),
            ("persistentVolumeClaim", "claimName"),
        ):
            if kind in volume:
                subdomains.append(((*at, kind, field), volume[kind].get(field)))
    labels += (((*POD, field), pod.get(field)) for field in ("hostname", "subdomain"))
    subdomains += (
        ((*POD, field), pod.get(field))
        for field in ("serviceAccountName", "serviceAccount", "priorityClassName", "nodeName")
    )
    subdomains += (((*POD, "runtimeClassName"), pod.get("runtimeClassName")),)
    for found, fits, words in (
        (labels, is_dns_label, "lower-case letters, digits and -, at most 63"),
        (subdomains, is_dns_subdomain, "lower-case letters, digits, - and ., at most 253"),
    ):
        for pointer, name in found:
            if name is not None and not fits(name):
                proper = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:_LONGEST_LABEL]
                yield (
                    pointer,
                    f"{shown(name)} is no name: {words}, a letter or digit at both ends",
                    f"write {proper}" if proper and fits(proper) else "",
                )


@check(error("invalid-label", "Labels and annotations have keys and values that Kubernetes takes."))
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
            yield at, f"the annotations have {size} bytes, more than {_ANNOTATION_BYTES}", ""


_CONTROLLER_LABELS: Final = (
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
)


@check(error("controller-label", "The labels by which a Job finds its Pods are left to it."))
def _controller_label(body: Body) -> Iterator[Breach]:
    for key in _CONTROLLER_LABELS:
        if key in body.template.get("metadata", {}).get("labels", {}):
            yield (
                (*TEMPLATE, "metadata", "labels", key),
                f"Kubernetes sets {key} itself and refuses another value",
                "delete it",
            )
