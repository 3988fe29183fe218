"""A cluster in memory: the API's behaviour without its server, and Jobs that are only played."""

from __future__ import annotations

from openfero_gitops.adapters.memory.cluster import Fault, MemoryCluster
from openfero_gitops.adapters.memory.player import (
    FOREVER,
    Durations,
    JobPlayer,
    Outcome,
    as_annotated,
)

__all__ = [
    "FOREVER",
    "Durations",
    "Fault",
    "JobPlayer",
    "MemoryCluster",
    "Outcome",
    "as_annotated",
]
