"""What a list and a watch report, namespace by namespace; objects are in the API's JSON shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openfero_gitops.domain.errors import ApiError


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of a namespace at a resource version; they replace what was known."""

    namespace: str
    items: list[dict[str, Any]]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Changed:
    """An object was added or modified."""

    namespace: str
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object was deleted; `object` is its last state."""

    namespace: str
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """A list or a watch failed and is retried; what is known may be outdated until it succeeds."""

    namespace: str
    error: ApiError


FeedEvent = Listed | Changed | Deleted | Failed
