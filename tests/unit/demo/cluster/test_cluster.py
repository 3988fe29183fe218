from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cluster.api import CONFIG_MAPS, EVENTS, JOBS, PODS, Change
from openfero_gitops.demo.cluster import (
    FOREVER,
    Durations,
    JobPlayer,
    MemoryCluster,
    PodOutcome,
)
from openfero_gitops.domain.errors import Expired
from tests.contract.objects import config_map, event, job

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import Object


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def pass_(self, seconds: float) -> None:
        """Advance the time."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """Provide a clock for one test."""
    return Clock()


def ended(jobs: Object) -> str:
    """Return the reason and the kind of the condition that ended a Job."""
    for item in jobs["status"].get("conditions", ()):
        if item["type"] in ("Complete", "Failed"):
            return f"{item['type']} {item['reason']}"
    return ""


async def test_jobs_in_a_time_that_a_test_moves(clock: Clock) -> None:
    """Without `run`, `play` simulates what is due, and returns when the next step is due."""
    api = MemoryCluster(player=JobPlayer(Durations(run=3600)), clock=clock)
    await api.create(JOBS, "a", job("heal", suspend=False, ttlSecondsAfterFinished=7200))
    assert api.play() == clock.now + timedelta(hours=1)
    running = await api.get(JOBS, "a", "heal")
    assert running["status"]["active"] == running["status"]["ready"] == 1
    assert running["status"]["startTime"] == "2026-01-02T03:04:05Z"
    clock.pass_(3599)
    api.play()
    assert ended(await api.get(JOBS, "a", "heal")) == ""
    clock.pass_(1)
    assert api.play() == clock.now + timedelta(hours=2)
    done = await api.get(JOBS, "a", "heal")
    assert ended(done) == "Complete CompletionsReached"
    assert done["status"]["completionTime"] == "2026-01-02T04:04:05Z"
    clock.pass_(7200)
    assert api.play() is None
    for resource in (JOBS, PODS):
        assert (await api.list(resource, "a")).items == []


async def test_nothing_is_played_unasked() -> None:
    """Jobs do not change while the cluster does not run."""
    api = MemoryCluster()
    made = await api.create(JOBS, "a", job("heal"))
    assert await api.get(JOBS, "a", "heal") == made.object


async def test_outcome(clock: Clock) -> None:
    """A player decides how each Job ends; its Pod has the exit code and message."""

    def outcome(jobs: Object) -> PodOutcome:
        return PodOutcome(2, "boom") if jobs["metadata"]["name"] == "bad" else PodOutcome()

    player = JobPlayer(Durations(run=0), outcome)
    api = MemoryCluster(player=player, clock=clock)
    for name in ("good", "bad"):
        await api.create(JOBS, "a", job(name, suspend=False))
    api.play()
    assert ended(await api.get(JOBS, "a", "good")) == "Complete CompletionsReached"
    assert ended(await api.get(JOBS, "a", "bad")) == "Failed BackoffLimitExceeded"
    (pod,) = (await api.list(PODS, "a", label_selector="job-name=bad")).items
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["message"]) == (2, "boom")


async def test_retries(clock: Clock) -> None:
    """A failed Pod is replaced after a pause that doubles, until the backoff limit is passed."""
    player = JobPlayer(Durations(run=0, retry=10), lambda _: PodOutcome(1))
    api = MemoryCluster(player=player, clock=clock)
    await api.create(JOBS, "a", job("heal", suspend=False, backoffLimit=2))
    for seconds, failed in ((0, 1), (9, 1), (1, 2), (19, 2), (1, 3)):
        clock.pass_(seconds)
        api.play()
        assert (await api.get(JOBS, "a", "heal"))["status"]["failed"] == failed
    assert ended(await api.get(JOBS, "a", "heal")) == "Failed BackoffLimitExceeded"
    assert len((await api.list(PODS, "a")).items) == 3


async def test_completions(clock: Clock) -> None:
    """A Job with several Pods respects its parallelism and completions."""
    api = MemoryCluster(player=JobPlayer(Durations(run=10)), clock=clock)
    await api.create(JOBS, "a", job("heal", suspend=False, completions=5, parallelism=2))
    for active, succeeded in ((2, None), (2, 2), (1, 4), (None, 5)):
        api.play()
        status = (await api.get(JOBS, "a", "heal"))["status"]
        assert (status.get("active"), status.get("succeeded")) == (active, succeeded)
        clock.pass_(10)
    assert ended(await api.get(JOBS, "a", "heal")) == "Complete CompletionsReached"


async def test_replacement_of_a_pod_that_stops(clock: Clock) -> None:
    """With podReplacementPolicy Failed a resumed Job waits for its old Pod; else it does not."""
    for policy, pods in (("Failed", 1), ("TerminatingOrFailed", 2)):
        api = MemoryCluster(player=JobPlayer(Durations(run=FOREVER, stop=30)), clock=clock)
        await api.create(JOBS, "a", job("heal", suspend=False, podReplacementPolicy=policy))
        for suspend in (True, False):
            api.play()
            change = {"op": "replace", "path": "/spec/suspend", "value": suspend}
            await api.patch(JOBS, "a", "heal", [change])
        api.play()
        assert len((await api.list(PODS, "a")).items) == pods
        clock.pass_(30)
        api.play()
        assert (await api.get(JOBS, "a", "heal"))["status"]["ready"] == 1
        assert len((await api.list(PODS, "a")).items) == 1


async def test_deleted_pod_is_a_failure(clock: Clock) -> None:
    """A deleted Pod counts as failed, and disappears."""
    api = MemoryCluster(player=JobPlayer(Durations(run=FOREVER)), clock=clock)
    await api.create(JOBS, "a", job("heal", suspend=False))
    api.play()
    (pod,) = (await api.list(PODS, "a")).items
    await api.delete(PODS, "a", pod["metadata"]["name"])
    api.play()
    assert ended(await api.get(JOBS, "a", "heal")) == "Failed BackoffLimitExceeded"
    assert (await api.list(PODS, "a")).items == []


async def test_namesake(clock: Clock) -> None:
    """A recreated Job does not inherit the Pods of the first one."""
    api = MemoryCluster(player=JobPlayer(Durations(run=FOREVER, stop=5)), clock=clock)
    await api.create(JOBS, "a", job("heal", suspend=False))
    api.play()
    await api.delete(JOBS, "a", "heal")
    second = (await api.create(JOBS, "a", job("heal", suspend=False))).object
    api.play()
    clock.pass_(5)
    api.play()
    (pod,) = (await api.list(PODS, "a")).items
    assert pod["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"]


async def test_a_storm_is_played_in_time() -> None:
    """Hundreds of Jobs that start at once all complete, and requests are answered meanwhile."""
    api = MemoryCluster(player=JobPlayer(Durations(run=0.05)))
    controllers = asyncio.create_task(api.run())
    for n in range(300):
        await api.create(JOBS, "a", job(f"heal-{n}", suspend=False))
    async with asyncio.timeout(60):
        while True:
            jobs = (await api.list(JOBS, "a")).items
            if all(ended(item) for item in jobs):
                break
            await asyncio.sleep(0.1)
    controllers.cancel()
    with pytest.raises(asyncio.CancelledError):
        await controllers
    assert len(jobs) == 300


async def test_bounded_history() -> None:
    """Versions before the history are Expired; later ones can be watched."""
    api = MemoryCluster(history=10)
    versions = []
    for n in range(50):
        made = await api.create(CONFIG_MAPS, "a", config_map(f"n-{n}"))
        versions.append(made.object["metadata"]["resourceVersion"])
    with pytest.raises(Expired, match="too old resource version"):
        await anext(api.watch(CONFIG_MAPS, "a", resource_version=versions[20]))
    watch = api.watch(CONFIG_MAPS, "a", resource_version=versions[39], timeout=0.05)
    async with aclosing(watch) as events:
        added = [item.object["metadata"] async for item in events if item.change is Change.ADDED]
    assert [item["name"] for item in added] == [f"n-{n}" for n in range(40, 50)]


async def test_watch_that_falls_behind() -> None:
    """A watch whose reader is slower than the history is long is Expired."""
    api = MemoryCluster(history=10)
    async with aclosing(api.watch(CONFIG_MAPS, "a", resource_version="1")) as events:
        await anext(events)
        for n in range(50):
            await api.create(CONFIG_MAPS, "a", config_map(f"n-{n}"))
        with pytest.raises(Expired):
            await anext(events)


async def test_last_bookmark() -> None:
    """A watch ends with a bookmark of the latest version, including other resources."""
    api = MemoryCluster()
    await api.create(JOBS, "b", job("elsewhere"))
    version = (await api.list(CONFIG_MAPS, "a")).resource_version
    async with aclosing(api.watch(CONFIG_MAPS, "a", resource_version="1", timeout=0.05)) as events:
        seen = [item async for item in events]
    assert [item.change for item in seen] == ["BOOKMARK", "BOOKMARK"]
    assert seen[-1].object["metadata"]["resourceVersion"] == version


async def test_events_expire(clock: Clock) -> None:
    """Events expire after an hour, as in a cluster."""
    api = MemoryCluster(clock=clock)
    await api.create(EVENTS, "a", event("first", "a"))
    clock.pass_(3000)
    await api.create(EVENTS, "a", event("second", "a"))
    assert len((await api.list(EVENTS, "a")).items) == 2
    clock.pass_(1000)
    await api.create(EVENTS, "a", event("third", "a"))
    names = [item["metadata"]["name"] for item in (await api.list(EVENTS, "a")).items]
    assert names == ["second", "third"]
