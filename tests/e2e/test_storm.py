"""Hundreds of alerts at once, and an API server that goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain import keys
from tests.cluster.controlplane import COMPONENTS
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.controlplane import ControlPlane


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Give a repository with an operario for each test."""
    made = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    for name in ("Single", "Grouped", "Repeated"):
        made.write(f"{name.lower()}.json", operario(name))
    made.commit("Operarios")
    return made


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Give an API server without controllers, which would only use the machine."""
    return private_control_plane(components=COMPONENTS[:2])


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, plane: ControlPlane, repository: Repository
) -> Iterator[tuple[Replica, Replica]]:
    """Give two replicas."""
    folder = tmp_path_factory.mktemp("pair")
    start = {
        "kubeconfig": plane.kubeconfig,
        "namespace": "default",
        "repository": repository.url,
        "development": False,
    }
    with Replica(folder, name="a", **start) as a, Replica(folder, name="b", **start) as b:
        yield a, b


def stored_jobs(plane: ControlPlane, name: str) -> list[dict[str, Any]]:
    """Return the Jobs of an alert's name."""
    path = f"/apis/batch/v1/namespaces/default/jobs?labelSelector={keys.ALERT}%3D{name}"
    items: list[dict[str, Any]] = plane.request("GET", path)[1]["items"]
    return items


@pytest.mark.cluster
@pytest.mark.parametrize(("name", "count", "size"), [("Single", 200, 1), ("Grouped", 300, 100)])
def test_alerts_delivered_twice_to_two_replicas_have_one_job_each(
    plane: ControlPlane, pair: tuple[Replica, Replica], name: str, count: int, size: int
) -> None:
    """Every alert has exactly one Job, in groups of any size, from any sender, also if repeated."""
    alerts = [alert(name, host=f"h{number}") for number in range(count)]
    groups = [group(*alerts[i : i + size]) for i in range(0, len(alerts), size)]
    # What is answered with 503 is delivered again, as Alertmanager does.
    urls = [replica.url for replica in pair]
    statuses = asyncio.run(send(urls, groups, in_flight=32, until_taken=True))
    assert set(statuses) == {200}
    stored = stored_jobs(plane, name)
    occurrences = {job["metadata"]["labels"][keys.OCCURRENCE] for job in stored}
    assert len(stored) == len(occurrences) == count


@pytest.mark.cluster
def test_a_delivery_while_the_api_server_is_down_is_repeated_and_heals_once(
    plane: ControlPlane, pair: tuple[Replica, Replica]
) -> None:
    """503 while it is stopped, killed in mid-delivery too; then every Job is there once."""
    replica = pair[0]
    alerts = [alert("Repeated", host=f"h{number}") for number in range(200)]
    groups = [group(*alerts[i : i + 10]) for i in range(0, 200, 10)]

    async def in_the_middle() -> set[int]:
        async def stop() -> None:
            await asyncio.sleep(0.15)
            await asyncio.to_thread(plane.stop_component, "kube-apiserver")

        stopping = asyncio.create_task(stop())
        statuses: set[int] = set()
        while 503 not in statuses:  # again, if all were accepted before it stopped
            statuses.update(await send([replica.url], groups, in_flight=8))
        await stopping
        return statuses

    assert asyncio.run(in_the_middle()) <= {200, 503}
    status, answer = replica.deliver(alert("Repeated", host="late"))
    assert status == 503
    assert answer["items"][0]["reason"] == "api-unavailable"
    plane.start_component("kube-apiserver")
    replica.process.wait_until_it_answers()
    statuses = asyncio.run(send([replica.url], groups, in_flight=8, until_taken=True))
    assert set(statuses) == {200}
    replica.wait_for(lambda: replica.deliver(alert("Repeated", host="late"))[0] == 200)
    assert len(stored_jobs(plane, "Repeated")) == 201
