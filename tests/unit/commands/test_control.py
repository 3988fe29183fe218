"""Pausing and resuming while others write to the same ConfigMap."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.admission.pause import Control
from openfero_gitops.app import Controller
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.commands.control import request_pause
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.control import NAME as CONTROL
from openfero_gitops.domain.control import write_pause
from openfero_gitops.domain.errors import Conflict, Invalid, UsageError
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.settings import load_settings
from tests.support import build
from tests.support.workers import (
    NAMESPACE,
    Commits,
    Wire,
    World,
    in_background,
    in_virtual_time,
    operario_file,
    seconds_so_far,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.relay import Act, Request


async def change(
    store: ConfigMapStore, username: str, *, paused: bool, timeout_seconds: float = 20
) -> str:
    """Pause or resume as a user, and return what is printed."""
    request = write_pause(username, build.NOW, paused=paused)
    return str(await request_pause(store, request, timeout_seconds))


class TestPause:
    """A pause while others write to the same ConfigMap."""

    @pytest.mark.parametrize("existing", [None, {}, {"data": {"sync": "news b", "request": "old"}}])
    @in_virtual_time
    async def test_members_of_others_are_kept(self, existing: dict[str, Any] | None) -> None:
        """The members of others are kept, whether there is a ConfigMap or not."""
        world = World()
        person = ConfigMapStore(world.cluster, NAMESPACE)
        if existing is not None:
            await person.create(control(**existing))
        async with in_background(acknowledging(world)):
            printed = await change(person, "ada", paused=True)
        assert printed == "admission paused by ada"
        control_object = await world.cluster.get(CONFIG_MAPS, NAMESPACE, CONTROL)
        assert control_object["data"]["paused"] == "true"
        assert control_object["data"].get("sync") == ("news b" if existing else None)

    @pytest.mark.parametrize("how", ["conflict", "created", "deleted", "filled"])
    @in_virtual_time
    async def test_a_conflict_is_retried(self, how: str) -> None:
        """A conflict is retried, so that the pause is written."""
        world = World()
        if how != "created":
            body = control() if how == "filled" else control(data={"paused": "false"})
            await world.cluster.create(CONFIG_MAPS, NAMESPACE, body)
        wire = Wire(world.cluster)
        remaining = [1]

        async def trouble(request: Request, act: Act) -> Any:
            if not remaining or request.verb not in ("patch", "create", "replace"):
                return await act()
            if how == "created" and request.verb == "patch":
                return await act()
            remaining.clear()
            if how == "conflict":
                raise Conflict("the object has been modified")
            if how == "created":
                await world.cluster.create(CONFIG_MAPS, NAMESPACE, control(data={"sync": "b"}))
            elif how == "deleted":
                await world.cluster.delete(CONFIG_MAPS, NAMESPACE, CONTROL)
            else:
                store = ConfigMapStore(world.cluster, NAMESPACE)
                await store.merge(CONTROL, {"sync": "b"}, {})
            return await act()

        wire.trouble = trouble
        async with in_background(acknowledging(world)):
            person = ConfigMapStore(wire, NAMESPACE)
            printed = await change(person, "ada", paused=True)
        assert printed == "admission paused by ada"
        control_object = await world.cluster.get(CONFIG_MAPS, NAMESPACE, CONTROL)
        assert control_object["data"]["paused"] == "true"
        assert control_object["data"].get("sync") == ("b" if how in ("created", "filled") else None)

    @in_virtual_time
    async def test_two_users_may_request_the_same(self) -> None:
        """Two users may request the same; a request that was replaced is reported."""
        world = World()
        store = ConfigMapStore(world.cluster, NAMESPACE)

        async def request(username: str, *, paused: bool = True) -> str:
            return await change(store, username, paused=paused)

        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(request("ada")), tasks.create_task(request("bob"))]
            await asyncio.sleep(1)
            tasks.create_task(acknowledging(world, once=True))
        assert [task.result() for task in both] == [
            "admission paused by ada",
            "admission paused by bob",
        ]
        resuming = asyncio.create_task(request("eve", paused=False))
        await asyncio.sleep(1)
        pausing = asyncio.create_task(request("ada"))
        with pytest.raises(UsageError, match="somebody else changed ConfigMap openfero-control"):
            await resuming
        async with in_background(acknowledging(world)):
            assert await pausing == "admission paused by ada"

    @in_virtual_time
    async def test_an_immutable_config_map_is_an_error(self) -> None:
        """A ConfigMap that cannot be changed is an error."""
        world = World()
        wire = Wire(world.cluster)

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "patch":
                raise Invalid("field is immutable when `immutable` is set")
            return await act()

        wire.trouble = trouble
        with pytest.raises(Invalid, match="immutable"):
            await change(ConfigMapStore(wire, NAMESPACE), "ada", paused=True)

    @pytest.mark.parametrize("paused", [True, False])
    @in_virtual_time
    async def test_resume_reports_what_still_pauses(self, *, paused: bool) -> None:
        """`resume` reports that openfero.yaml still pauses admission; `pause` does not."""
        world = World()
        store = ConfigMapStore(world.cluster, NAMESPACE)
        why = "openfero.yaml sets paused: true at commit 0123456789ab"
        async with in_background(acknowledging(world, why)):
            printed = await change(store, "ada", paused=paused)
        assert printed == (
            "admission paused by ada"
            if paused
            else f"pause ended by ada, but admission is still paused: {why}"
        )


async def test_resume_names_the_commit_that_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader's confirmation names the commit whose openfero.yaml pauses admission."""
    monkeypatch.setattr("openfero_gitops.admission.admitter._MAX_IDLE_SECONDS", 0.1)
    settings = load_settings(
        {
            "repo": "https://git.example/ops",
            "listen": "127.0.0.1:0",
            "namespace": NAMESPACE,
            "cache_dir": tmp_path,
        }
    )
    source, cluster = Commits(), MemoryCluster()
    source.commit({"openfero.yaml": "paused: true\n", "disk.yaml": operario_file("disk")})
    controller = Controller(
        settings, settings.resolve_namespaces(NAMESPACE), cluster, source, "in memory"
    )
    stop = asyncio.Event()
    running = asyncio.create_task(controller.run(stop, lambda _: None))
    try:
        await until(lambda: controller.syncer.catalog)
        store = ConfigMapStore(cluster, NAMESPACE)
        printed = await change(store, "ada", paused=False, timeout_seconds=60)
    finally:
        stop.set()
        await running
    why = f"openfero.yaml sets paused: true at commit {source.head[:12]}; set it to false to resume"
    assert printed == f"pause ended by ada, but admission is still paused: {why}"


def control(**more: Any) -> dict[str, Any]:
    """The ConfigMap as another writer made it."""
    metadata = {"name": CONTROL, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **more}


async def acknowledging(world: World, others: str = "", *, once: bool = False) -> None:
    """Confirm requests like a leader, a few times per second."""
    leader = Control(
        ConfigMapStore(world.cluster, NAMESPACE),
        seconds_so_far,
        pause_in_git=lambda: Pause(PauseCause.CONFIGURATION, others) if others else None,
    )
    while True:
        await asyncio.sleep(0.3)
        await leader.read_pause()
        await leader.acknowledge(lambda: None)
        if once:
            return
