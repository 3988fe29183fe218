"""The report of a sync of all replicas, with replicas that fail, hang, or do not run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.commands.sync import SyncResults, request_sync
from openfero_gitops.domain.control import NAME
from openfero_gitops.domain.errors import Forbidden, UsageError
from openfero_gitops.domain.sync_answer import SyncAnswer, answer_key, read_answer, write_answer
from tests.support.build import NOW
from tests.support.workers import Wire, World, in_virtual_time, seconds_so_far

NAMESPACE = "controller"
OLD, NEW = "0" * 40, "1" * 40


class Replicas:
    """Replicas that answer requests as a test says."""

    def __init__(self) -> None:
        self.world = World()
        self.store = ConfigMapStore(self.world.cluster, NAMESPACE)
        self.requests: list[str] = []

    async def answer(self, replica: str, after: float, **members: Any) -> None:
        """Read the current request, and answer it after some seconds."""
        await asyncio.sleep(after)
        control = await self.store.get(NAME)
        assert control is not None
        answer = SyncAnswer(replica, control["data"]["sync-request"], NOW, **members)
        await self.store.merge(NAME, {answer_key(replica): write_answer(answer)}, {})

    async def sync(
        self, *answers: Any, leader: str = "a", timeout_seconds: float = 60.0
    ) -> SyncResults:
        """Run the command while replicas answer."""
        async with asyncio.TaskGroup() as tasks:
            for answer in answers:
                tasks.create_task(answer)
            return await request_sync(self.store, "ada", leader, timeout_seconds)


def done(**members: Any) -> dict[str, Any]:
    """The members of a sync that activated a new commit."""
    values = {"finished": True, "before": OLD, "commit": NEW, "error": "", "seconds": 0.3}
    return {**values, **members}


@in_virtual_time
async def test_the_table_of_a_sync() -> None:
    """A line for each replica, the leader first; the last line sums up."""
    replicas = Replicas()
    report = await replicas.sync(
        replicas.answer("b", 3, **done(before=NEW)),
        replicas.answer("a", 1, **done()),
        replicas.answer("c", 2, **done(before="", seconds=12)),
    )
    lines = str(report).splitlines()
    assert report.succeeded
    assert lines[:4] == [
        "REPLICA     COMMIT        SECONDS  RESULT",
        "a (leader)  111111111111  0.3      updated from 000000000000",
        "b           111111111111  0.3      unchanged",
        "c           111111111111  12.0     updated",
    ]
    assert lines[4].startswith("3 replicas synced; took 8.")


@in_virtual_time
async def test_it_waits_for_replicas_that_have_read_the_request() -> None:
    """A sync may take longer than finding the replicas."""
    replicas = Replicas()
    report = await replicas.sync(
        replicas.answer("a", 1, **done()),
        replicas.answer("b", 4),
        replicas.answer("b", 40, **done(seconds=36)),
    )
    assert report.succeeded
    assert 40 <= report.seconds < 42
    assert [replica.replica for replica in report.replicas] == ["a", "b"]


@in_virtual_time
async def test_failures_and_replicas_that_hang_are_reported() -> None:
    """Neither the leader that does not run nor a sync that hangs lasts beyond the timeout."""
    replicas = Replicas()
    report = await replicas.sync(
        replicas.answer("b", 1, **done(commit=OLD, error="no connection to git.example")),
        replicas.answer("c", 2),
        timeout_seconds=30,
    )
    assert not report.succeeded
    assert seconds_so_far() < 32
    lines = str(report).splitlines()
    assert lines[1:4] == [
        "a (leader)  -             -        did not read the request within 30 s; is it running?",
        "b           000000000000  0.3      failed: no connection to git.example",
        "c           -             -        still syncing after 30 s; see /api/sync or its log",
    ]
    assert lines[4].startswith("0 of 3 replicas synced; took 30.")
    members = report.members()
    assert [replica["succeeded"] for replica in members["replicas"]] == [False] * 3
    assert members["replicas"][1]["error"] == "failed: no connection to git.example"
    assert members["replicas"][2]["commit"] is None


@in_virtual_time
async def test_answers_to_earlier_requests_do_not_count() -> None:
    """Those of replicas that are gone are still there; without any other it is an error."""
    replicas = Replicas()
    old = SyncAnswer("gone", "earlier", NOW, **done())
    members = {"sync-request": "earlier", answer_key("gone"): write_answer(old)}
    await replicas.store.merge(NAME, members, {})
    report = await replicas.sync(replicas.answer("a", 1, **done()))
    assert [replica.replica for replica in report.replicas] == ["a"]
    with pytest.raises(UsageError, match="no replica has read the request within 3 s"):
        await request_sync(replicas.store, "ada", "a", 3)


@in_virtual_time
async def test_a_later_request_of_somebody_else_answers_this_one() -> None:
    """A sync that began after it also began after this request."""
    replicas = Replicas()

    async def other() -> None:
        await asyncio.sleep(1)
        await replicas.store.merge(NAME, {"sync-request": "later eve"}, {})

    report = await replicas.sync(
        other(), replicas.answer("a", 0.5, **done()), replicas.answer("b", 3, **done())
    )
    assert report.succeeded
    assert len(report.replicas) == 2


@in_virtual_time
async def test_a_replica_that_has_begun_is_waited_for_whatever_it_reports_next() -> None:
    """It may answer a request that was replaced before this command read it."""
    replicas = Replicas()

    async def others() -> None:
        await asyncio.sleep(3)
        answer = SyncAnswer("b", "between eve", NOW, **done())
        members = {"sync-request": "last eve", answer_key("b"): write_answer(answer)}
        await replicas.store.merge(NAME, members, {})

    report = await replicas.sync(
        replicas.answer("a", 1, **done()),
        replicas.answer("b", 2),
        others(),
        replicas.answer("b", 20, **done(commit=OLD, error="no connection")),
    )
    assert [replica.replica for replica in report.replicas] == ["a", "b"]
    assert not report.succeeded
    assert 20 <= report.seconds < 22


@in_virtual_time
async def test_a_replica_that_has_finished_is_not_waited_for_again() -> None:
    """It may already sync for the next request of somebody else."""
    replicas = Replicas()

    async def other() -> None:
        await asyncio.sleep(3)
        await replicas.store.merge(NAME, {"sync-request": "later eve"}, {})

    report = await replicas.sync(
        replicas.answer("a", 1, **done()), other(), replicas.answer("a", 4)
    )
    assert report.succeeded
    assert report.seconds < 10


@in_virtual_time
async def test_a_missing_permission_is_named() -> None:
    """The user learns which ConfigMap must be writable."""
    wire = Wire(World().cluster)

    async def trouble(*_: Any) -> Any:
        raise Forbidden("configmaps is forbidden")

    wire.trouble = trouble
    with pytest.raises(UsageError, match="ada has no permission to write ConfigMap openfero-contr"):
        await request_sync(ConfigMapStore(wire, NAMESPACE), "ada", "", 30)


@pytest.mark.parametrize(
    "text",
    ["", "[", "1", "[" * 5000, "{}", '{"at": "2026-01-01T00:00:00Z"}', "x" * 100_000],
)
def test_what_is_no_answer_is_ignored(text: str) -> None:
    """Anybody with access may have written it."""
    assert read_answer(text) is None


@pytest.mark.parametrize("replica", ["a", "host.example:8080", "ä" * 300, "x" * 300, "a/b~c"])
def test_the_key_of_a_replica_is_valid_and_its_own(replica: str) -> None:
    """The identity of a replica may be any text."""
    key = answer_key(replica)
    assert len(key) <= 253
    assert not set(key) - set("-._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    assert key != answer_key(replica + "!")
    answer = SyncAnswer(replica[:100], "r", NOW, **done())
    assert read_answer(write_answer(answer)) == answer
