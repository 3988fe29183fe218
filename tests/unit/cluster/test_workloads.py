"""Which version of Kueue's API is read, and how many requests that takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.workloads import WorkloadStore
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import NotFound
from openfero_gitops.jobs.workload import read_workload
from tests.support.relay import Relay, Request
from tests.support.workloads import WORKLOADS, workload

if TYPE_CHECKING:
    from tests.support.relay import Act


class Kueue(Relay):
    """An API server that serves some versions of Kueue's API."""

    def __init__(self, *versions: str) -> None:
        self.cluster = MemoryCluster()
        super().__init__(self.cluster)
        self.versions = versions
        self.asked: list[str] = []

    async def send(self, request: Request, timeout: float, act: Act) -> Any:
        """Answer, or say that the version does not exist."""
        del timeout
        assert request.resource is not None
        self.asked.append(request.resource.version)
        if request.resource.version not in self.versions:
            raise NotFound("the server could not find the requested resource")
        return await act()

    async def add(self, *workloads: dict[str, Any]) -> None:
        """Create Workloads in the oldest version that is served."""
        resource = replace(WORKLOADS, version=self.versions[-1])
        for each in workloads:
            await self.cluster.create(resource, "jobs", each)


@pytest.mark.parametrize(
    ("versions", "asked"),
    [
        (("v1beta2",), ["v1beta2", "v1beta2"]),
        (("v1beta2", "v1beta1"), ["v1beta2", "v1beta2"]),
        (("v1beta1",), ["v1beta2", "v1beta1", "v1beta1"]),
    ],
)
async def test_the_newest_version_that_the_cluster_has_is_read(
    versions: tuple[str, ...], asked: list[str]
) -> None:
    """Kueue before 0.15 has only v1beta1; the version is remembered."""
    api = Kueue(*versions)
    await api.add(workload("a"))
    store = WorkloadStore(api, read_workload)
    await store.of_jobs("jobs", ["a", "b"])
    await store.of_jobs("jobs", ["a", "b"])
    assert api.asked == asked


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        (("v1beta1",), ("v1beta2",), ["v1beta1", "v1beta2", "v1beta2"]),
        (("v1beta2",), ("v1beta1",), ["v1beta2", "v1beta1", "v1beta1"]),
        (("v1beta2", "v1beta1"), ("v1beta1",), ["v1beta2", "v1beta1", "v1beta1"]),
        (("v1beta1",), ("v1beta2", "v1beta1"), ["v1beta1", "v1beta1"]),
    ],
)
async def test_kueue_may_change_the_versions_that_it_serves(
    before: tuple[str, ...], after: tuple[str, ...], asked: list[str]
) -> None:
    """Where the remembered version is gone, the other one is read, and remembered."""
    api = Kueue(*before)
    await api.add(workload("a"))
    store = WorkloadStore(api, read_workload)
    await store.of_jobs("jobs", ["a"])
    api.asked.clear()
    api.versions = after
    await api.add(workload("b"))
    for _ in range(2):
        assert "b" in await store.of_jobs("jobs", ["a", "b"])
    assert api.asked == asked


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_kueue_may_be_removed_and_come_back(version: str) -> None:
    """While it is gone, each call says so; then its Workloads are read again."""
    api = Kueue(version)
    await api.add(workload("a"))
    store = WorkloadStore(api, read_workload)
    await store.of_jobs("jobs", ["a"])
    api.versions = ()
    for _ in range(2):
        with pytest.raises(NotFound, match="Kueue is not installed"):
            await store.of_jobs("jobs", ["a"])
    api.versions = (version,)
    assert "a" in await store.of_jobs("jobs", ["a"])


async def test_without_kueue_nothing_is_found() -> None:
    """The caller learns that the API does not exist."""
    with pytest.raises(NotFound):
        await WorkloadStore(Kueue(), read_workload).of_jobs("jobs", ["a"])


async def test_only_workloads_of_the_jobs_are_returned() -> None:
    """By the uid of their owner; many Jobs are few requests."""
    api = Kueue("v1beta2")
    forged = workload("c", "forged")
    forged["metadata"]["labels"][keys.KUEUE_JOB_UID] = "a"
    await api.add(*(workload(f"job-{n}") for n in range(200)), workload("other"), forged)
    uids = ["a", *(f"job-{n}" for n in range(0, 200, 2))]
    statuses = await WorkloadStore(api, read_workload).of_jobs("jobs", uids)
    assert sorted(statuses) == sorted(uids[1:])
    assert {status.reason for status in statuses.values() if status} == {"Pending"}
    assert len(api.asked) == 2
