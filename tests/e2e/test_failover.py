"""Handing over under load, and the order in which a backlog drains."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.commands.control import pause, resume
from openfero_gitops.domain import keys
from tests.bench import admission, failover
from tests.cluster.controlplane import COMPONENTS
from tests.support.replica import Replica, alert, group
from tests.support.repository import Repository
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster.controlplane import ControlPlane

#: Longer than what a busy machine may keep a process from running.
LEASE = failover.Lease(10, "7s", "1s")
#: `make bench` measures a thousand.
WAITING = 100
#: If priorities were ignored, some would be further out of place than is allowed below.
BACKLOG = 200
#: By so many places a Job may be early or late: admissions that are in progress at the same time
#: arrive in any order, and one of them may be slow.
OUT_OF_PLACE = 100
NAMESPACE = "backlog"


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Give an API server without controllers; each test has a namespace of its own."""
    return private_control_plane(components=COMPONENTS[:2])


@pytest.mark.cluster
def test_waiting_jobs_outlive_their_leaders(tmp_path: Path, plane: ControlPlane) -> None:
    """Ended or killed: the other admits next; how soon is printed, and bounded in the bench.

    One that was ended in good order hands over what waits; after one that was killed it is stamped.
    """
    signals = [signal.SIGTERM, signal.SIGKILL]
    figures = asyncio.run(failover.measure(tmp_path, plane, signals, LEASE, WAITING))
    print(failover.rows(figures))
    assert [figure.sent for figure in figures] == signals
    assert all(figure.waiting >= WAITING - 2 for figure in figures)
    ended, killed = figures
    assert ended.stamped == 0
    assert killed.stamped >= killed.waiting - 1


@pytest.mark.cluster
def test_a_backlog_drains_by_priority_then_age(tmp_path: Path, plane: ControlPlane) -> None:
    """Of hundreds, none is overtaken but by those whose admission is on its way with its own."""
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    repository = Repository(tmp_path / "operarios")
    admission.write_operarios(repository)
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=plane.kubeconfig,
        namespace=NAMESPACE,
        repository=repository.url,
        development=False,
    ) as replica:
        jobs = asyncio.run(_drained(plane, replica, BACKLOG))
    # Nothing but the admission wrote on them last: the versions tell the order.
    order = sorted(jobs, key=lambda job: int(job["metadata"]["resourceVersion"]))
    places = {admission.rank(job): place for place, job in enumerate(order)}
    assert len(places) == BACKLOG
    displaced = [abs(place - places[at]) for place, at in enumerate(sorted(places))]
    assert max(displaced) < OUT_OF_PLACE
    assert order[0]["metadata"]["labels"][keys.ALERT] == "High"
    assert order[-1]["metadata"]["labels"][keys.ALERT] == "Low"


async def _drained(plane: ControlPlane, replica: Replica, count: int) -> list[dict[str, Any]]:
    """Deliver while paused, resume, and return the Jobs when all are admitted."""
    await pause(plane.kubeconfig, NAMESPACE, 300)
    names = [*admission.PRIORITIES]
    alerts = [alert(names[i % 3], host=f"h{i}") for i in range(count)]
    groups = [group(*alerts[i : i + 20]) for i in range(0, count, 20)]
    await send([replica.url], groups, in_flight=8, until_taken=True)
    await resume(plane.kubeconfig, NAMESPACE, 300)
    api = await KubernetesApi.connect(plane.kubeconfig)
    try:
        async with asyncio.timeout(600):
            while True:
                jobs = (await api.list(JOBS, NAMESPACE)).items
                if sum(keys.ADMITTED_AT in j["metadata"]["annotations"] for j in jobs) == count:
                    return jobs
                await asyncio.sleep(1.0)  # the list is long
    finally:
        await api.close()
