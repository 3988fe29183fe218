"""The pause that a human asks for, read from an API server that does not always answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.admission.pause import NAME, Control
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.errors import ApiError, Forbidden, Throttled, Unavailable
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.leadership.term import TermEnded
from tests.support.workers import Wire, World, in_background, in_virtual_time, none, seconds_so_far

if TYPE_CHECKING:
    from tests.support.relay import Act, Request

NAMESPACE = "controller"


class Desk:
    """A control and the ConfigMap that it reads."""

    def __init__(self) -> None:
        self.world = World()
        self.wire = Wire(self.world.cluster)
        self.control = Control(ConfigMapStore(self.wire, NAMESPACE), seconds_so_far)

    async def write(self, data: dict[str, str] | None) -> None:
        """Write the ConfigMap as a person does."""
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
        """Let every request fail from here on."""

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
    ],
)
@in_virtual_time
async def test_what_is_written_is_understood(data: dict[str, str] | None, *, paused: bool) -> None:
    """Whatever is not plainly "no" pauses; a ConfigMap that says nothing does not."""
    desk = Desk()
    await desk.write(data)
    assert bool(await desk.control.read_pause()) is paused


@in_virtual_time
async def test_without_a_config_map_nothing_is_paused() -> None:
    """Nobody has ever asked for a pause."""
    assert not await Desk().control.read_pause()


@in_virtual_time
async def test_a_pause_is_known_within_a_second() -> None:
    """And so is its end; in between one read a second is enough, however often it is asked."""
    desk = Desk()
    for written in ("true", "false", "true"):
        await desk.write({"paused": written})
        await asyncio.sleep(1)
        desk.wire.asked.clear()
        answers = [bool(await desk.control.read_pause()) for _ in range(100)]
        assert set(answers) == {written == "true"}
        assert len(desk.wire.asked) == 1


@in_virtual_time
async def test_where_it_never_could_be_read_admission_is_paused() -> None:
    """Nobody knows that it is not; the pages do not say so before anything was read."""
    desk = Desk()
    desk.fail(Unavailable("no connection"))
    assert await desk.control.read_pause()
    assert not desk.control.pause
    desk.wire.trouble = none
    await asyncio.sleep(1)
    assert not await desk.control.read_pause()


@in_virtual_time
async def test_that_nobody_knows_is_told_as_such() -> None:
    """Where it never was read, also in a new term; where it was, the last answer is known."""
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
async def test_where_it_cannot_be_read_the_last_answer_holds(paused: str) -> None:
    """An API server that is gone neither pauses nor resumes."""
    desk = Desk()
    await desk.write({"paused": paused})
    assert bool(await desk.control.read_pause()) is (paused == "true")
    desk.fail(Forbidden("no right to read it"))
    await asyncio.sleep(3600)
    assert bool(await desk.control.read_pause()) is (paused == "true")
    assert bool(desk.control.pause) is (paused == "true")


@in_virtual_time
async def test_a_failing_api_server_is_not_pressed_nor_the_log_filled() -> None:
    """However often it is asked, there is one try a second, and one line for each trouble."""
    desk = Desk()
    desk.fail(Throttled("slow down"))
    with capture_logs() as logs:
        for _ in range(1000):
            await desk.control.read_pause()
            await asyncio.sleep(0.01)
        assert 9 <= len(desk.wire.asked) <= 11
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
async def test_the_pages_see_a_pause_on_every_replica() -> None:
    """A replica that does not lead reads it from time to time, too."""
    desk = Desk()
    await desk.write({"paused": "true"})
    async with in_background(desk.control.run()):
        await asyncio.sleep(1)
        assert desk.control.pause
        await desk.write({"paused": "false"})
        await asyncio.sleep(10)
        assert not desk.control.pause
    assert len(desk.wire.asked) <= 4


class TestAcknowledging:
    """The word that a person waits for."""

    @in_virtual_time
    async def test_a_request_is_acknowledged_once(self) -> None:
        """However often the leader has looked since; another request is another."""
        desk = Desk()
        for request in ("first", "second"):
            await desk.write({"paused": "true", "request": request})
            await asyncio.sleep(1)
            desk.wire.asked.clear()
            for _ in range(5):
                await desk.control.read_pause()
                await desk.control.acknowledge(lambda: None)
                await asyncio.sleep(1)
            control = await desk.world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
            assert control["data"]["acknowledged"] == request
            assert len(desk.wire.writes(CONFIG_MAPS)) == 1

    @in_virtual_time
    async def test_where_nobody_asked_nothing_is_written(self) -> None:
        """Not before anything was read, without a ConfigMap, or with one written by hand."""
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
    async def test_a_request_that_was_overtaken_is_not_acknowledged(self) -> None:
        """Another person wrote since it was read: it is read again first."""
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
        """What checks the term is asked right before the write."""
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
        """It asks again at once, and where there is no answer nothing may start."""
        desk = Desk()
        assert not await desk.control.read_pause()
        desk.fail(Unavailable("no connection"))
        desk.control.begin_term()
        assert await desk.control.read_pause()
        assert len(desk.wire.asked) == 2

    @in_virtual_time
    async def test_what_else_pauses_counts_too(self) -> None:
        """A refused revision that says so pauses, whatever the ConfigMap says."""
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
