"""Hundreds of alerts at once, and an API server that goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster import Kubectl, require_binaries
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster.controlplane import ControlPlane


def _repository(folder: Path) -> Repository:
    made = Repository(folder)
    made.write("storm.json", operario("Storm"))
    made.commit("Operarios")
    return made


@pytest.mark.cluster
@pytest.mark.parametrize(("count", "size"), [(200, 1), (500, 100)])
def test_alerts_delivered_twice_to_two_replicas_have_one_job_each(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str, count: int, size: int
) -> None:
    """Every alert has exactly one Job, in groups of any size, from any sender, also if repeated."""
    repository = _repository(tmp_path / "operarios")
    alerts = [alert("Storm", host=f"h{number}") for number in range(count)]
    groups = [group(*alerts[i : i + size]) for i in range(0, len(alerts), size)]
    start = {
        "kubeconfig": kubeconfig,
        "namespace": namespace,
        "repository": repository.url,
        "development": False,
    }
    with Replica(tmp_path, name="a", **start) as a, Replica(tmp_path, name="b", **start) as b:
        # What is answered with 503 is delivered again, as Alertmanager does.
        statuses = asyncio.run(send([a.url, b.url], groups, in_flight=32, until_taken=True))
        assert set(statuses) == {200}
        stored = kubectl.json("get", "jobs", "-n", namespace)["items"]
    occurrences = {job["metadata"]["labels"]["openfero.io/occurrence"] for job in stored}
    assert len(stored) == len(occurrences) == count


@pytest.mark.cluster
def test_a_delivery_while_the_api_server_is_down_is_repeated_and_heals_once(
    tmp_path: Path,
    private_control_plane: Callable[..., ControlPlane],
    request: pytest.FixtureRequest,
) -> None:
    """503 while it is stopped, killed in mid-delivery too; then every Job is there once."""
    plane = private_control_plane(components=("etcd", "kube-apiserver"))
    kubectl = Kubectl(require_binaries(request.config) / "kubectl", plane.kubeconfig)
    repository = _repository(tmp_path / "operarios")
    alerts = [alert("Storm", host=f"h{number}") for number in range(200)]
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=plane.kubeconfig,
        namespace="default",
        repository=repository.url,
    ) as replica:
        groups = [group(*alerts[i : i + 10]) for i in range(0, 200, 10)]

        async def in_the_middle() -> list[int]:
            sending = asyncio.create_task(send([replica.url], groups, in_flight=8))
            await asyncio.sleep(0.15)
            await asyncio.to_thread(plane.stop_component, "kube-apiserver")
            return await sending

        statuses = asyncio.run(in_the_middle())
        assert 503 in statuses, "the API server was stopped in time"
        assert set(statuses) <= {200, 503}
        status, answer = replica.deliver(alert("Storm", host="late"))
        assert status == 503
        assert answer["items"][0]["reason"] == "api-unavailable"
        plane.start_component("kube-apiserver")
        replica.process.wait_until_it_answers()
        statuses = asyncio.run(send([replica.url], groups, in_flight=8, until_taken=True))
        assert set(statuses) == {200}
        replica.wait_for(lambda: replica.deliver(alert("Storm", host="late"))[0] == 200)
    stored = kubectl.json("get", "jobs", "-n", "default")["items"]
    assert len(stored) == 201
