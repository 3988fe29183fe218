"""Kubernetes objects as they are in files or in a cluster, without what a server adds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.catalog.yaml.compose import decode
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.dump import to_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Members of `metadata` that an API server or a controller sets.
_SERVER_SET: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
#: A line `...` ends a document of YAML.
_DOCUMENT_END: Final = re.compile(r"^\.\.\.\s*\Z", re.MULTILINE)
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object, without `status` and what servers add to `metadata`.

    Attributes:
        body: the object.
        origin: where it comes from, for people: a path, or kind, namespace and name in a cluster.
        text: the object as YAML; as its author wrote it, comments included, if that says the same.
    """

    body: dict[str, Any]
    origin: str
    text: str

    @property
    def kind(self) -> str:
        """The kind of the object."""
        return str(self.body.get("kind", ""))

    @property
    def metadata(self) -> dict[str, Any]:
        """Its `metadata`, empty if it has none."""
        metadata = self.body.get("metadata")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """Its namespace, empty if it names none."""
        return str(self.metadata.get("namespace", ""))


def manifest(body: dict[str, Any], origin: str, text: str = "") -> Manifest:
    """Remove from an object what a server added; `text` is kept if there was nothing."""
    cleaned = _cleaned(body)
    if not text or cleaned != body:
        text = to_yaml([cleaned])
    return Manifest(cleaned, origin, text)


def read_manifests(path: str, content: bytes) -> Iterator[Manifest]:
    """Read the objects of a file; those of a `List` are objects of their own.

    Raises:
        Unreadable: it is neither YAML nor JSON.
    """
    is_json = path.endswith(".json")
    documents = load(content, is_json=is_json)
    texts = [""] * len(documents) if is_json else _texts(decode(content), len(documents))
    for document, text in zip(documents, texts, strict=True):
        if not isinstance(document, dict):
            continue
        items = document.get("items")
        if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
            yield from (manifest(item, path) for item in items if isinstance(item, dict))
        else:
            yield manifest(document, path, text)


def _texts(text: str, count: int) -> list[str]:
    """Split a YAML stream into its documents, with their comments."""
    starts = [
        event.end_mark.index if event.explicit and event.end_mark else 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader)
        if isinstance(event, yaml.DocumentStartEvent)
    ]
    if len(starts) != count:
        return [""] * count
    ends = [*(text.rindex("---", 0, start) for start in starts[1:]), len(text)]
    parts = (text[start:end] for start, end in zip(starts, ends, strict=True))
    return [_DOCUMENT_END.sub("", part).strip("\n") + "\n" for part in parts]


def _cleaned(body: dict[str, Any]) -> dict[str, Any]:
    cleaned = {key: value for key, value in body.items() if key != "status"}
    metadata = cleaned.get("metadata")
    if not isinstance(metadata, dict):
        return cleaned
    metadata = {key: value for key, value in metadata.items() if key not in _SERVER_SET}
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict) and _LAST_APPLIED in annotations:
        rest = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
        metadata = {key: value for key, value in metadata.items() if key != "annotations"}
        if rest:
            metadata["annotations"] = rest
    return {**cleaned, "metadata": metadata}
