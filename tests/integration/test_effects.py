"""Effects on a real API server: it is killed while they are due, and two leaders settle them."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import JOBS, Change
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.timestamp import format_seconds, parse_time
from tests.cluster.controlplane import COMPONENTS
from tests.support import build
from tests.support.workers import Replica, in_background, new_term, pods_of, resolved, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.remediation import JobKey
    from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster

NAMESPACE = "default"
PATIENCE = 300.0
HOUR = timedelta(hours=1)
PODS = ("healed", "early", "still-firing", "silenced")


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Give an API server that the test kills; no Job controller."""
    return private_control_plane(components=COMPONENTS[:2])


class Clock:
    """The cluster and the wall clock, which a test moves forward: see `World`."""

    def __init__(self, cluster: KubernetesApi) -> None:
        self.cluster = cluster
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        """The wall clock's time."""
        return datetime.now(UTC) + self.ahead


@asynccontextmanager
async def leading(*replicas: Replica) -> AsyncIterator[None]:
    """Let replicas watch, and settle as if each was the leader."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_lead(replica)) for replica in replicas]
        await until(lambda: all(replica.view.complete for replica in replicas), PATIENCE)
        yield
        for task in running:
            task.cancel()


async def _lead(replica: Replica) -> None:
    async with in_background(replica.observer.run()):
        await replica.settler.run(new_term(replica.name))


async def complete(plane: ControlPlane, key: JobKey) -> None:
    """End a Job as the Job controller does, which started it when it was admitted."""
    path = f"/apis/batch/v1/namespaces/{key.namespace}/jobs/{key.name}"
    while True:
        _, job = await asyncio.to_thread(plane.request, "GET", path)
        admitted_at = parse_time(job["metadata"]["annotations"][keys.ADMITTED_AT])
        assert admitted_at is not None
        now = format_seconds(datetime.now(UTC))
        condition = {"status": "True", "lastTransitionTime": now, "lastProbeTime": now}
        job["status"] = {
            "startTime": format_seconds(admitted_at),
            "completionTime": now,
            "succeeded": 1,
            "ready": 0,
            "conditions": [
                {**condition, "type": "SuccessCriteriaMet"},
                {**condition, "type": "Complete"},
            ],
        }
        code, answer = await asyncio.to_thread(plane.request, "PUT", f"{path}/status", job)
        if code == 200:
            return
        assert code == 409, answer


async def effects(api: KubernetesApi) -> dict[str, str | None]:
    """Return the recorded effect of the Job of each Pod, consistently."""
    jobs = (await api.list(JOBS, NAMESPACE)).items
    annotations = [job["metadata"]["annotations"] for job in jobs]
    return {_pod(each): each.get(keys.EFFECT) for each in annotations}


def _pod(annotations: dict[str, str]) -> str:
    return next(pod for pod in PODS if f'"pod":"{pod}"' in annotations[keys.ALERT])


async def eventually(api: KubernetesApi, **expected: Effect) -> None:
    """Wait until effects are recorded."""
    wanted = {pod.replace("_", "-"): effect.value for pod, effect in expected.items()}
    async with asyncio.timeout(PATIENCE):
        while not wanted.items() <= (await effects(api)).items():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def record_writes(api: KubernetesApi, since: str, writes: dict[str, list[Any]]) -> None:
    """Note each state of each Job that the API server stores, by Pod."""
    async for event in api.watch(JOBS, NAMESPACE, resource_version=since):
        metadata = event.object["metadata"]
        if event.change is Change.MODIFIED:
            annotations = metadata["annotations"]
            writes[_pod(annotations)].append(annotations.get(keys.EFFECT))


async def test_effects_outlive_the_api_server_and_the_leader(plane: ControlPlane) -> None:
    """Each is settled once, with one write per fact, by whichever of two leaders is first."""
    api = await KubernetesApi.connect(plane.kubeconfig)
    clock: Any = Clock(api)
    unlimited = Options(max_concurrent=100, cooldown=timedelta(0))
    catalog = build.catalog(build.operario(options=unlimited))
    first, second, third = (
        Replica(clock, name, catalog=catalog, namespaces=(NAMESPACE,)) for name in "abc"
    )
    began = clock.now()
    alerts: dict[str, Alert] = {
        pod: pods_of(pod, starts_at=began - timedelta(seconds=5)) for pod in PODS
    }

    async with leading(first, second):
        async with first.leading():
            answer = await first.deliver(*alerts.values())
            jobs = {item.alert.labels["pod"]: item.job for item in answer.items}
            await until(lambda: all(job.started for job in first.view), PATIENCE)
        await asyncio.sleep(1.1)  # Kubernetes has no fractions of seconds
        # One alert is resolved before its Job ends, another after that.
        await second.deliver(resolved(alerts["early"], clock.now()))
        for key in jobs.values():
            assert key is not None
            await complete(plane, key)
        await asyncio.sleep(1.1)
        await first.deliver(resolved(alerts["healed"], clock.now()))
        await asyncio.to_thread(plane.stop_component, "kube-apiserver", signal.SIGKILL)
        clock.ahead = HOUR / 2
    async with leading(first, second):  # with what they know, and nobody to tell
        await asyncio.sleep(3)
    await asyncio.to_thread(plane.start_component, "kube-apiserver")
    listed = await api.list(JOBS, NAMESPACE)
    assert set((await effects(api)).values()) == {None}

    writes: dict[str, list[Any]] = defaultdict(list)
    async with in_background(record_writes(api, listed.resource_version, writes)):
        async with leading(first, second):
            await eventually(api, healed=Effect.HEALED, early=Effect.HEALED)
            first.catalog = second.catalog = build.catalog()  # the operario is removed
            for replica in (second, first, second):
                answer = await replica.deliver(alerts["still-firing"])
                assert answer.items[0].job is None
        clock.ahead = HOUR  # no delivery comes so late
        async with leading(first, second):
            await eventually(api, still_firing=Effect.NOT_HEALED)
        clock.ahead = 7 * HOUR
        async with leading(second):
            await eventually(api, silenced=Effect.UNKNOWN)
        async with leading(third):
            await asyncio.sleep(3)
            late = [resolved(alerts[pod], clock.now()) for pod in ("still-firing", "silenced")]
            assert (await third.deliver(*late)).verdict.name == "ACCEPTED"
            await eventually(api, silenced=Effect.NOT_HEALED)
            await until(lambda: third.tally.effects, PATIENCE)
        await until(lambda: len(writes["silenced"]) == 3, PATIENCE)
    assert await effects(api) == {
        "healed": "healed",
        "early": "healed",
        "still-firing": "not-healed",
        "silenced": "not-healed",
    }
    await api.close()
    # still-firing-at, effect and resolved-at: each is written once, and no effect is written twice.
    assert writes == {
        "healed": ["healed"],
        "early": ["healed"],
        "still-firing": [None, "not-healed", "not-healed"],
        "silenced": ["unknown", "unknown", "not-healed"],
    }
    # What others settled is not counted again.
    assert third.tally.effects == [(jobs["silenced"], Effect.NOT_HEALED, True)]
