"""The log line of each decision."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.demo.cluster import FOREVER, Durations, JobPlayer
from openfero_gitops.domain.errors import Invalid, Unavailable
from openfero_gitops.domain.operario import Mode, OnResolve, Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.jobs import patches
from tests.support import build
from tests.support.workers import (
    World,
    in_background,
    in_virtual_time,
    pods_of,
    resolved,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from openfero_gitops.domain.errors import ApiError
    from openfero_gitops.domain.operario import Operario
    from tests.support.relay import Act, Request
    from tests.support.workers import Replica, Trouble

_LASTING = JobPlayer(Durations(run=FOREVER))


def decisions(log: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the decisions of a log, without the level and the name of the event."""
    return [
        {name: value for name, value in line.items() if name not in ("event", "log_level")}
        for line in log
        if line["event"] == "decision"
    ]


def expected(decision: str, job: object, reason: str = "", **details: str) -> dict[str, str]:
    """Return the fields of a decision about the alert `PodCrashLooping`."""
    return {
        "decision": decision,
        "alert": "PodCrashLooping",
        "operario": "restart-pod",
        "job": str(job),
        "commit": build.COMMIT,
        "reason": reason,
        **details,
    }


def failing(error: ApiError) -> Trouble:
    """Let no Job be created."""

    async def trouble(request: Request, act: Act) -> Any:
        if request.verb == "create" and request.resource == JOBS:
            raise error
        return await act()

    return trouble


def world_with(operario: Operario, player: JobPlayer | None = None) -> tuple[World, Replica]:
    """Return a cluster, and a replica with one operario."""
    world = World(player)
    return world, world.replica(catalog=build.catalog(operario))


@asynccontextmanager
async def all_working(world: World, replica: Replica) -> AsyncIterator[None]:
    """Let the cluster run Jobs, and the replica lead."""
    async with (
        world.playing(),
        replica.watching(),
        replica.leading() as term,
        in_background(replica.cleaner.run(term)),
    ):
        yield


@in_virtual_time
async def test_a_job_is_created_and_admitted() -> None:
    """Each is logged once; a repetition, and an alert that nothing matches, decide nothing."""
    world, replica = world_with(build.operario())
    with capture_logs() as log:
        async with replica.watching(), replica.leading():
            answer = await replica.deliver(pods_of())
            await until(lambda: len(world.starts()) == 1)
            await replica.deliver(pods_of())
            await replica.deliver(build.alert(labels={"alertname": "Unknown"}))
            await asyncio.sleep(60)
    job = answer.items[0].job
    assert decisions(log) == [expected("created", job), expected("admitted", job, "admitted")]


@in_virtual_time
async def test_an_alert_that_cannot_be_rendered() -> None:
    """Its Job is refused when it is created."""
    unsafe = build.operario(spec=build.job_spec(args=["{{ .Alert.Labels.pod }}"]))
    _, replica = world_with(unsafe)
    with capture_logs() as log:
        async with replica.watching(), replica.leading():
            answer = await replica.deliver(pods_of("--all"))
            await asyncio.sleep(60)
    (item,) = answer.items
    assert decisions(log) == [expected("refused", item.job, "unsafe-value", message=item.message)]


@in_virtual_time
async def test_a_job_that_cannot_be_created() -> None:
    """A failure is logged at each delivery, an invalid Job once; both are warnings."""
    _, replica = world_with(build.operario())
    with capture_logs() as log:
        async with replica.watching():
            for error in (Unavailable("no answer"), Unavailable("no answer"), Invalid("wrong")):
                replica.wire.trouble = failing(error)
                answer = await replica.deliver(pods_of())
            await replica.deliver(pods_of())
    job = answer.items[0].job
    failed = expected("not-created", job, "api-unavailable", message="no answer")
    assert decisions(log) == [
        failed,
        failed,
        expected("not-created", job, "api-refused", message="wrong"),
    ]
    assert {line["log_level"] for line in log if line["event"] == "decision"} == {"warning"}


@in_virtual_time
async def test_the_leader_refuses_a_job() -> None:
    """The line has the leader's reason and its message."""
    _, replica = world_with(build.operario(options=Options(mode=Mode.DRY_RUN)))
    with capture_logs() as log:
        async with replica.watching(), replica.leading():
            answer = await replica.deliver(pods_of())
            await until(lambda: len(decisions(log)) == 2)
    job = answer.items[0].job
    assert decisions(log)[1]["decision"] == "refused"
    assert decisions(log)[1] == expected("refused", job, "dry-run")


@in_virtual_time
async def test_a_resolved_alert_cancels_its_job() -> None:
    """The cancellation of a running Job is a decision."""
    operario = build.operario(options=Options(on_resolve=OnResolve.CANCEL_RUNNING))
    world, replica = world_with(operario, _LASTING)
    with capture_logs() as log:
        async with all_working(world, replica):
            answer = await replica.deliver(pods_of())
            await until(lambda: len(world.starts()) == 1)
            await replica.deliver(resolved(pods_of(), world.now()))
            await until(lambda: len(decisions(log)) == 3)
    assert decisions(log)[2] == expected("cancelled", answer.items[0].job, "resolved")


@in_virtual_time
async def test_decisions_of_people() -> None:
    """The leader logs who refused or cancelled a Job, and who approved one that it admits."""
    operario = build.operario(options=Options(approval=True))
    world, replica = world_with(operario, _LASTING)
    with capture_logs() as log:
        async with all_working(world, replica):
            answer = await replica.deliver(pods_of("web-1"), pods_of("web-2"))
            refused, approved = (item.job for item in answer.items)
            await replica.jobs.patch(
                refused, patches.refuse_by_hand(replica.view.get(refused), "ada", "not now")
            )
            await replica.jobs.patch(approved, patches.approve(replica.view.get(approved), "ada"))
            await until(lambda: len(world.starts()) == 1)
            await until(lambda: replica.view.get(approved).finished is False)
            await until(lambda: replica.view.get(approved).admitted_at is not None)
            running = replica.view.get(approved)
            await replica.jobs.patch(approved, patches.cancel_by_hand(running, "bob"))
            await until(lambda: len(decisions(log)) == 5)
    by_people = [line for line in decisions(log) if line["decision"] != "created"]
    assert sorted(by_people, key=lambda line: line["decision"]) == [
        expected("admitted", approved, "admitted", approved_by="ada"),
        expected(
            "cancelled", approved, Reason.CANCELLED_BY_HUMAN.value, message="cancelled by bob"
        ),
        expected(
            "refused", refused, Reason.REFUSED_BY_HUMAN.value, message="refused by ada: not now"
        ),
    ]
