"""A Job's body for the checks: its parts with their pointers.

Pointers count from the root of the Job. The Job has passed its schema: every value has the type of
its field, but any field may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from openfero_gitops.catalog.validation.schema.gates import Release
    from openfero_gitops.domain.operario import Form
    from openfero_gitops.domain.rule import Pointer

SPEC: Final = ("spec",)
TEMPLATE: Final = ("spec", "template")
POD: Final = ("spec", "template", "spec")


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the Pod template."""

    pointer: Pointer
    fields: Mapping[str, Any]
    is_init: bool

    @property
    def name(self) -> str:
        """Its name, empty if it has none."""
        return str(self.fields.get("name", ""))


@dataclass(frozen=True, slots=True)
class Body:
    """A whole Job, for a version of Kubernetes.

    `braced` are the texts that contain `{{`, without the keys of mappings. `spend` counts the steps
    of a check that takes many without a finding. `form` is that of the operario.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    template: Mapping[str, Any]
    pod: Mapping[str, Any]
    containers: tuple[Container, ...]
    volumes: tuple[tuple[Pointer, Mapping[str, Any]], ...]
    braced: tuple[tuple[Pointer, str], ...]
    release: Release
    spend: Callable[[int], None]
    form: Form

    def pod_and_containers(self) -> Iterator[tuple[Pointer, Mapping[str, Any]]]:
        """The fields of the Pod, then those of each container."""
        yield POD, self.pod
        for container in self.containers:
            yield container.pointer, container.fields


def items_of(
    pointer: Pointer, fields: Mapping[str, Any], name: str
) -> list[tuple[Pointer, Mapping[str, Any]]]:
    """The items of a list of objects, each with its pointer; `pointer` is that of `fields`."""
    return [((*pointer, name, index), item) for index, item in enumerate(fields.get(name, ()))]


def body_of(
    job: Mapping[str, Any],
    release: Release,
    *,
    form: Form,
    may_be_braced: bool,
    spend: Callable[[int], None],
) -> Body:
    """Split a Job, given as its `labels`, `annotations` and `spec`.

    `may_be_braced` False saves the search for `{{`.
    """
    spec = job["spec"]
    template = spec.get("template", {})
    pod = template.get("spec", {})
    roots = {"metadata": {k: v for k, v in job.items() if k != "spec"}, "spec": spec}
    return Body(
        labels=job["labels"],
        annotations=job["annotations"],
        spec=spec,
        template=template,
        pod=pod,
        # Init containers first, in the order in which they run.
        containers=tuple(
            Container(pointer, fields, key == "initContainers")
            for key in ("initContainers", "containers")
            for pointer, fields in items_of(POD, pod, key)
        ),
        volumes=tuple(items_of(POD, pod, "volumes")),
        braced=tuple(_braced(roots)) if may_be_braced else (),
        release=release,
        spend=spend,
        form=form,
    )


def _braced(root: Any) -> Iterator[tuple[Pointer, str]]:
    pending: list[tuple[Pointer, Any]] = [((), root)]
    while pending:
        pointer, value = pending.pop()
        if isinstance(value, str):
            if "{{" in value:
                yield pointer, value
        elif isinstance(value, dict):
            pending += [((*pointer, key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            pending += [((*pointer, index), inner) for index, inner in enumerate(value)]
