"""A pause of admission by command, with an API server that does not always answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.admission.decide import Wait
from openfero_gitops.admission.pause import Control
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.control import NAME, read_pause, write_pause
from openfero_gitops.domain.errors import ApiError, Forbidden, Throttled, Unavailable
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.text import is_printable
from openfero_gitops.domain.timestamp import format_seconds
from openfero_gitops.leadership.term import TermEnded
from tests.support import build
from tests.support.workers import (
    Wire,
    World,
    in_background,
    in_virtual_time,
    none,
    pods_of,
    seconds_so_far,
)

if TYPE_CHECKING:
    from tests.support.relay import Act, Request

NAMESPACE = "controller"


class Desk:
    """A `Control` and the ConfigMap that it reads."""

    def __init__(self) -> None:
        self.world = World()
        self.wire = Wire(self.world.cluster)
        self.control = Control(ConfigMapStore(self.wire, NAMESPACE), seconds_so_far)

    async def write(self, data: dict[str, str] | None) -> None:
        """Write the ConfigMap."""
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
        }
        if data is not None:
            body["data"] = data
        cluster = self.world.cluster
        if (await cluster.list(CONFIG_MAPS, NAMESPACE)).items:
            await cluster.replace(CONFIG_MAPS, NAMESPACE, body)
        else:
            await cluster.create(CONFIG_MAPS, NAMESPACE, body)

    def fail(self, error: ApiError) -> None:
        """Let every request fail from now on."""

        async def trouble(_: Request, __: Act) -> Any:
            raise error

        self.wire.trouble = trouble


@pytest.mark.parametrize(
    ("data", "paused"),
    [
        (None, False),
        ({}, False),
        ({"paused": "false"}, False),
        ({"paused": " No "}, False),
        ({"paused": "0"}, False),
        ({"paused": ""}, False),
        ({"paused": "true"}, True),
        ({"paused": "TRUE"}, True),
        ({"paused": "since tuesday"}, True),
        ({"other": "true"}, False),
        ({"paused": " " * 5000 + "true"}, True),
        ({"paused": "false" * 5000}, True),
    ],
)
@in_virtual_time
async def test_values_of_the_config_map(data: dict[str, str] | None, *, paused: bool) -> None:
    """Any value that does not mean "no" pauses; a ConfigMap without the value does not."""
    desk = Desk()
    await desk.write(data)
    assert bool(await desk.control.read_pause()) is paused


@in_virtual_time
async def test_long_values_are_cut() -> None:
    """A user who writes a mebibyte takes no memory for it, and gets no confirmation."""
    desk = Desk()
    await desk.write({"paused": "true", "by": "ada" * 100_000, "request": "r" * 300_000})
    pause = await desk.control.read_pause()
    assert pause is not None
    assert len(pause.message) < 2000
    await desk.control.acknowledge(lambda: None)
    (config_map,) = (await desk.world.cluster.list(CONFIG_MAPS, NAMESPACE)).items
    assert "acknowledged" not in config_map["data"]


@in_virtual_time
async def test_without_a_config_map_nothing_is_paused() -> None:
    """No pause was ever requested."""
    assert not await Desk().control.read_pause()


@in_virtual_time
async def test_a_pause_is_known_within_a_second() -> None:
    """So is its end, with at most one read per second."""
    desk = Desk()
    for written in ("true", "false", "true"):
        await desk.write({"paused": written})
        await asyncio.sleep(1)
        desk.wire.requests.clear()
        answers = [bool(await desk.control.read_pause()) for _ in range(100)]
        assert set(answers) == {written == "true"}
        assert len(desk.wire.requests) == 1


@in_virtual_time
async def test_admission_is_paused_until_the_config_map_was_read() -> None:
    """It is unknown whether it is; pages do not show that before the first read."""
    desk = Desk()
    desk.fail(Unavailable("no connection"))
    assert await desk.control.read_pause()
    assert not desk.control.pause
    desk.wire.trouble = none
    await asyncio.sleep(1)
    assert not await desk.control.read_pause()


@in_virtual_time
async def test_an_unknown_state_is_reported() -> None:
    """If it was not read in this term; otherwise the last answer counts."""
    desk = Desk()
    assert desk.control.trouble == ""
    desk.fail(Forbidden("no right to read it"))
    await desk.control.read_pause()
    assert desk.control.trouble.endswith("no Jobs: no right to read it")
    desk.wire.trouble = none
    await asyncio.sleep(1)
    await desk.control.read_pause()
    assert desk.control.trouble == ""
    desk.fail(Forbidden("no right to read it"))
    await asyncio.sleep(1)
    await desk.control.read_pause()
    assert desk.control.trouble == ""
    desk.control.begin_term()
    assert await desk.control.read_pause()
    assert "starts no Jobs" in desk.control.trouble


@pytest.mark.parametrize("paused", ["true", "false"])
@in_virtual_time
async def test_without_an_answer_the_last_one_stays_valid(paused: str) -> None:
    """An unavailable API server neither pauses nor resumes."""
    desk = Desk()
    await desk.write({"paused": paused})
    assert bool(await desk.control.read_pause()) is (paused == "true")
    desk.fail(Forbidden("no right to read it"))
    await asyncio.sleep(3600)
    assert bool(await desk.control.read_pause()) is (paused == "true")
    assert bool(desk.control.pause) is (paused == "true")


@in_virtual_time
async def test_errors_are_retried_slowly_and_logged_once() -> None:
    """There is one attempt per second, and one log line per error."""
    desk = Desk()
    desk.fail(Throttled("slow down"))
    with capture_logs() as logs:
        for _ in range(1000):
            await desk.control.read_pause()
            await asyncio.sleep(0.01)
        assert 9 <= len(desk.wire.requests) <= 11
        desk.fail(Forbidden("no right"))
        await asyncio.sleep(1)
        await desk.control.read_pause()
        desk.wire.trouble = none
        await asyncio.sleep(1)
        await desk.control.read_pause()
        desk.fail(Forbidden("no right"))
        await asyncio.sleep(1)
        await desk.control.read_pause()
    errors = [entry["error"] for entry in logs if entry["log_level"] == "warning"]
    assert errors == ["slow down", "no right", "no right"]


@in_virtual_time
async def test_every_replica_shows_a_pause() -> None:
    """A replica that does not lead reads the ConfigMap, too."""
    desk = Desk()
    await desk.write({"paused": "true"})
    async with in_background(desk.control.run()):
        await asyncio.sleep(1)
        assert desk.control.pause
        await desk.write({"paused": "false"})
        await asyncio.sleep(10)
        assert not desk.control.pause
    assert len(desk.wire.requests) <= 4


@pytest.mark.parametrize("seconds", [0.1, 0.5, 0.89])
@in_virtual_time
async def test_a_request_is_noticed_within_5_seconds(seconds: float) -> None:
    """Also after a read of the leader, which begins its term at any time."""
    desk = Desk()
    reads: list[float] = []
    desk.control.on_read(lambda _: reads.append(seconds_so_far()))
    async with in_background(desk.control.run()):
        await asyncio.sleep(seconds)
        desk.control.begin_term()
        await desk.control.read_pause()
        await asyncio.sleep(60)
    assert len(reads) <= 15
    assert max(later - read for read, later in pairwise(reads)) <= 5.001


class TestEnd:
    """A pause that ends by itself."""

    @in_virtual_time
    async def test_every_replica_shows_the_pause_until_its_end(self) -> None:
        """Nothing is written when it ends, and the API server need not answer then."""
        world = World()
        replica = world.replica()
        until = world.now() + timedelta(hours=2)
        await world.switch("first", paused=True, until=until, reason="database migration")
        with capture_logs() as logs:
            async with in_background(replica.control.run()):
                await asyncio.sleep(1)
                pause = replica.control.pause
                assert pause is not None
                assert (pause.by, pause.until, pause.reason) == ("ada", until, "database migration")
                assert pause.message == (
                    f"ada paused admission at {format_seconds(build.NOW)} until "
                    f"{format_seconds(until)}: database migration; run `openfero-gitops resume` to "
                    "resume earlier"
                )
                await asyncio.sleep(7190)
                assert replica.control.pause == pause

                async def trouble(_: Request, __: Act) -> Any:
                    raise Unavailable("no connection")

                replica.wire.trouble = trouble
                await asyncio.sleep(20)
                assert replica.control.pause is None
        assert [entry["event"] for entry in logs if entry["log_level"] == "info"] == [
            "admission is paused",
            "admission is not paused: the pause has ended",
        ]
        assert logs[0]["reason"] == "database migration"
        assert len(list(world.writes(CONFIG_MAPS))) == 1

    @in_virtual_time
    async def test_waiting_jobs_start_when_the_pause_ends(self) -> None:
        """The leader needs no write, and waits for no other event."""
        world = World()
        replica = world.replica()
        until = world.now() + timedelta(minutes=20)
        await world.switch("first", paused=True, until=until)
        async with replica.watching(), replica.leading():
            await replica.deliver(pods_of("web-1"))
            await asyncio.sleep(1199 - seconds_so_far())
            assert await world.acknowledged() == "first"
            assert world.starts() == []
            ((_, decision),) = replica.admitter.decisions
            assert isinstance(decision, Wait)
            assert (decision.reason, decision.until) == (Reason.PAUSED, until)
            await asyncio.sleep(1.5)
            assert len(world.starts()) == 1

    @in_virtual_time
    async def test_resume_ends_it_at_once(self) -> None:
        """A later pause has an end of its own, or none."""
        world = World()
        replica = world.replica()
        until = world.now() + timedelta(hours=2)
        await world.switch("first", paused=True, until=until)
        assert await replica.control.read_pause()
        await world.switch("second", paused=False)
        await asyncio.sleep(1)
        assert not await replica.control.read_pause()
        await world.switch("third", paused=True)
        await asyncio.sleep(3600 * 3)
        assert await replica.control.read_pause()
        assert replica.control.pause

    @pytest.mark.parametrize("paused", ["true", "True", "until tuesday", "until", "until 2026"])
    @in_virtual_time
    async def test_an_end_that_cannot_be_read_is_none(self, paused: str) -> None:
        """Users may have written it by hand; to start nothing is safe."""
        desk = Desk()
        await desk.write({"paused": paused, "by": "ada", "reason": "2026-01-01T00:00:00Z"})
        pause = await desk.control.read_pause()
        assert pause is not None
        assert pause.until is None
        assert desk.control.pause

    def test_an_older_version_pauses_without_an_end(self) -> None:
        """It reads any value that does not mean "no" as a pause."""
        members = write_pause("ada", build.NOW, paused=True, until=build.NOW + timedelta(hours=1))
        assert members["paused"] == "until 2026-11-21T04:04:05.678901Z"
        assert read_pause({**members, "paused": "true"}) is not None

    @in_virtual_time
    async def test_control_characters_in_a_reason_are_escaped(self) -> None:
        """Anybody who may write the ConfigMap may have written it."""
        desk = Desk()
        await desk.write({"paused": "true", "by": "ada", "reason": "one\ntwo\x1b[31m" + "x" * 900})
        pause = await desk.control.read_pause()
        assert pause is not None
        assert is_printable(pause.message)
        assert "one\\ntwo" in pause.message
        assert len(pause.reason) < 600


class TestAcknowledging:
    """The confirmation that `openfero-gitops pause` waits for."""

    @in_virtual_time
    async def test_a_request_is_acknowledged_once(self) -> None:
        """However often the leader has read it; a new request is acknowledged again."""
        desk = Desk()
        for request in ("first", "second"):
            await desk.write({"paused": "true", "request": request})
            await asyncio.sleep(1)
            desk.wire.requests.clear()
            for _ in range(5):
                await desk.control.read_pause()
                await desk.control.acknowledge(lambda: None)
                await asyncio.sleep(1)
            control = await desk.world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
            assert control["data"]["acknowledged"] == request
            assert len(desk.wire.writes(CONFIG_MAPS)) == 1

    @in_virtual_time
    async def test_without_a_request_nothing_is_written(self) -> None:
        """Before the first read, without a ConfigMap, and without a request in it."""
        desk = Desk()
        await desk.control.acknowledge(lambda: None)
        await desk.control.read_pause()
        await desk.control.acknowledge(lambda: None)
        await desk.write({"paused": "true"})
        await asyncio.sleep(1)
        await desk.control.read_pause()
        await desk.control.acknowledge(lambda: None)
        assert desk.wire.writes(CONFIG_MAPS) == []

    @in_virtual_time
    async def test_a_replaced_request_is_not_acknowledged(self) -> None:
        """It was replaced since it was read: it is read again first."""
        desk = Desk()
        await desk.write({"paused": "true", "request": "first"})
        await desk.control.read_pause()
        await desk.write({"paused": "false", "request": "second"})
        await desk.control.acknowledge(lambda: None)
        control = await desk.world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
        assert "acknowledged" not in control["data"]
        await asyncio.sleep(1)
        assert not await desk.control.read_pause()
        await desk.control.acknowledge(lambda: None)
        control = await desk.world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
        assert control["data"]["acknowledged"] == "second"

    @in_virtual_time
    async def test_after_the_term_nothing_is_acknowledged(self) -> None:
        """The term is checked right before the write."""
        desk = Desk()
        await desk.write({"paused": "true", "request": "first"})
        await desk.control.read_pause()

        def ended() -> None:
            raise TermEnded

        with pytest.raises(TermEnded):
            await desk.control.acknowledge(ended)
        assert desk.wire.writes(CONFIG_MAPS) == []

    @in_virtual_time
    async def test_a_new_term_trusts_nothing_that_was_read_before(self) -> None:
        """It reads again at once; without an answer no Job starts."""
        desk = Desk()
        assert not await desk.control.read_pause()
        desk.fail(Unavailable("no connection"))
        desk.control.begin_term()
        assert await desk.control.read_pause()
        assert len(desk.wire.requests) == 2

    @in_virtual_time
    async def test_a_pause_in_git_counts_too(self) -> None:
        """A refused revision pauses, whatever the ConfigMap says."""
        desk = Desk()
        pausing: Pause | None = Pause(PauseCause.REFUSED_REVISION, "why")
        control = Control(
            ConfigMapStore(desk.wire, NAMESPACE), seconds_so_far, pause_in_git=lambda: pausing
        )
        assert control.pause is pausing
        assert await control.read_pause() is pausing
        pausing = None
        assert not await control.read_pause()
        assert not control.pause
