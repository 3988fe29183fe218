"""What a list and a watch report about Jobs, namespace by namespace.

Jobs are read as they arrive, so that only what is needed of them is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.domain.errors import ApiError
    from openfero_gitops.domain.remediation import Foreign, JobKey, Remediation


@dataclass(frozen=True, slots=True)
class Listed:
    """All Jobs of a namespace at a resource version; they replace what was known."""

    namespace: str
    jobs: Sequence[Remediation | Foreign]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A Job was added or modified."""

    namespace: str
    job: Remediation | Foreign


@dataclass(frozen=True, slots=True)
class Deleted:
    """A Job was deleted, at a resource version."""

    namespace: str
    key: JobKey
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A list or a watch failed and is retried; what is known may be outdated until it succeeds."""

    namespace: str
    error: ApiError


FeedEvent = Listed | Changed | Deleted | Failed
