"""`logs` while Pods start, and after they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import JOBS, PODS
from openfero_gitops.commands.logs import write_logs
from openfero_gitops.demo.cluster import FOREVER, Durations, JobPlayer, MemoryCluster
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Invalid, NotFound, Unavailable, UsageError
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.domain.timestamp import format_time
from tests.support import build
from tests.support.workers import World, in_virtual_time, pods_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from openfero_gitops.cluster.api import Resource


class Cluster:
    """The in-memory cluster, with logs; each answer is lines, or an error."""

    def __init__(self, world: World, *answers: list[str] | Exception) -> None:
        self._cluster = world.cluster
        self._answers = list(answers)
        self.requests = 0
        self.second_container = ""

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        """Return an object; a Pod with a second container if there are two."""
        found = await self._cluster.get(resource, namespace, name)
        if resource == PODS and self.second_container:
            found["spec"]["containers"] += [{"name": self.second_container}]
        return found

    def __getattr__(self, name: str) -> Any:
        """Do everything else as the cluster does."""
        return getattr(self._cluster, name)

    async def pod_log(self, *_: str, follow: bool = False) -> AsyncGenerator[bytes, None]:
        """Answer with what comes next."""
        assert follow in (True, False)
        self.requests += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        for line in answer:
            yield f"{line}\n".encode()


async def printed(
    *answers: list[str] | Exception, follow: bool, deleted: bool = False, second: str = ""
) -> tuple[list[str], int]:
    """Return what is printed of a running Job, and the number of requests for logs."""
    world = World(JobPlayer(Durations(run=FOREVER)))
    replica = world.replica()
    lines: list[str] = []
    async with world.playing(), replica.watching(), replica.leading():
        answer = await replica.deliver(pods_of("web-1"))
        key = answer.items[0].job
        assert isinstance(key, JobKey)
        await until(world.starts)
        cluster = Cluster(world, *answers)
        cluster.second_container = second
        if deleted:
            await world.cluster.delete(JOBS, key.namespace, key.name)
        say, warn = lines.append, lambda text: lines.append(f"WARNING {text}")
        await write_logs(cluster, key, say, warn, follow=follow)  # type: ignore[arg-type]
        assert (await world.cluster.list(PODS, key.namespace)).items
    return lines, cluster.requests


WAITING = Invalid('container "heal" in pod "x" is waiting to start: ContainerCreating')


@in_virtual_time
async def test_a_container_that_starts_is_waited_for() -> None:
    """--follow asks again each second until the container has started."""
    lines, requests = await printed(WAITING, WAITING, ["one", "two"], follow=True)
    assert lines == ["one", "two"]
    assert requests == 3


@in_virtual_time
async def test_without_follow_the_message_says_what_a_container_waits_for() -> None:
    """It is that of Kubernetes."""
    with pytest.raises(UsageError, match="is waiting to start: ContainerCreating"):
        await printed(WAITING, follow=False)


@in_virtual_time
@pytest.mark.parametrize("order", ["first", "last"])
async def test_the_logs_of_other_containers_are_printed(order: str) -> None:
    """Why a container has none is said apart from them."""
    answers: list[list[str] | Exception] = [["one"], WAITING]
    if order == "first":
        answers.reverse()
    lines, _ = await printed(*answers, follow=False, second="other")
    name = "heal" if order == "last" else "other"
    assert lines[0] == f"[{name}] one"
    assert lines[1].startswith("WARNING no logs of Pod ")
    assert len(lines) == 2


@in_virtual_time
async def test_that_no_container_has_started_is_an_error() -> None:
    """Nothing was printed."""
    with pytest.raises(UsageError, match="is waiting to start: ContainerCreating"):
        await printed(WAITING, follow=False, second="other")


@in_virtual_time
async def test_a_container_cannot_write_over_its_name() -> None:
    """A carriage return is escaped where lines begin with the name of their container."""
    answers = ["[other] fine\r"], ["\r[heal] fine"]
    lines, _ = await printed(*answers, follow=False, second="other")
    assert lines == ["[heal] [other] fine\\r", "[other] \\r[heal] fine"]


@in_virtual_time
async def test_a_pod_that_is_deleted_while_it_is_read_is_an_error() -> None:
    """Its logs are gone with it."""
    with pytest.raises(UsageError, match="was deleted, and its logs with it"):
        await printed(NotFound("no"), follow=True)


@in_virtual_time
async def test_an_api_server_that_does_not_answer_is_one_error() -> None:
    """It is not hidden in a group of errors, however many containers are followed."""
    with pytest.raises(Unavailable, match="no response"):
        await printed(Unavailable("no response"), follow=True)


@in_virtual_time
async def test_a_job_that_is_gone_is_an_error() -> None:
    """The message says how to name a Job."""
    with pytest.raises(UsageError, match="not found: write NAMESPACE/NAME"):
        await printed([], follow=True, deleted=True)


async def test_a_job_in_a_kueue_queue_has_not_started() -> None:
    """It was admitted, but there are no Pods whose logs could be gone."""
    cluster = MemoryCluster()
    job = build.stored(
        annotations={keys.ADMITTED_AT: format_time(build.NOW), keys.QUEUE: "healing"},
        labels={keys.KUEUE_QUEUE: "healing"},
        metadata={"resourceVersion": ""},
    )
    await cluster.create(JOBS, build.JOBS_NAMESPACE, job)
    key = JobKey(build.JOBS_NAMESPACE, job["metadata"]["name"])
    with pytest.raises(UsageError, match="it has not started, its phase is Queued; --follow waits"):
        await write_logs(cluster, key, print, print, follow=False)
