"""What a list and a watch tell, namespace by namespace; objects are in the API's JSON shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openfero_gitops.domain.errors import ApiError


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything in a namespace, as of a resource version: replaces what was known."""

    namespace: str
    items: list[dict[str, Any]]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Changed:
    """An object was added or modified."""

    namespace: str
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gone:
    """An object was deleted; its last state."""

    namespace: str
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection failed, and is being tried again: what is known grows old."""

    namespace: str
    error: ApiError


News = Listed | Changed | Gone | Lost
