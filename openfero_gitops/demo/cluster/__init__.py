"""An in-memory API server, whose Jobs are simulated."""

from __future__ import annotations

from openfero_gitops.demo.cluster.cluster import MemoryCluster
from openfero_gitops.demo.cluster.player import (
    FOREVER,
    Durations,
    JobPlayer,
    PodOutcome,
    as_annotated,
)

__all__ = [
    "FOREVER",
    "Durations",
    "JobPlayer",
    "MemoryCluster",
    "PodOutcome",
    "as_annotated",
]
