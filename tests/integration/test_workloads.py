"""A real API server that does not know Kueue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.workloads import WorkloadStore
from openfero_gitops.domain.errors import NotFound
from openfero_gitops.jobs.workload import read_workload

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.cluster
async def test_a_cluster_without_kueue_is_recognized(kubeconfig: Path) -> None:
    """No version of its API is found."""
    api = await KubernetesApi.connect(kubeconfig)
    try:
        with pytest.raises(NotFound, match="Kueue is not installed"):
            await WorkloadStore(api, read_workload).of_jobs("default", ["a"])
    finally:
        await api.close()
