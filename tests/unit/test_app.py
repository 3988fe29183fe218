"""A replica goes on working while parts of it fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from openfero_gitops.app import Controller
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.settings import load_settings
from tests.support.workers import Commits, operario_file, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class FailsOnce:
    """Makes a method of a part fail the first time it is called."""

    def __init__(self, part: object, name: str) -> None:
        self.calls = 0
        self._work = getattr(part, name)
        setattr(part, name, self._call)

    async def _call(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise ZeroDivisionError
        return await self._work(*arguments)


async def test_a_failing_part_ends_neither_the_term_nor_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failing part other than admission is restarted; the replica keeps leading."""
    monkeypatch.setattr("openfero_gitops.background._RESTART_SECONDS", 0.1)
    monkeypatch.setattr("openfero_gitops.admission.pause._POLL_SECONDS", 0.1)
    settings = load_settings(
        {
            "repo": "https://git.example/ops",
            "listen": "127.0.0.1:0",
            "namespace": "controller",
            "cache_dir": tmp_path,
        }
    )
    source = Commits()
    source.commit({"disk.yaml": operario_file("disk")})
    namespaces = settings.resolve_namespaces("controller")
    controller = Controller(settings, namespaces, MemoryCluster(), source, "in memory")
    parts = {
        "mirror": FailsOnce(controller._mirrorer, "run"),
        "conclude": FailsOnce(controller._cleaner, "run"),
        "compare": FailsOnce(controller.lag_monitor, "run"),
        "asked": FailsOnce(controller.sync_requests, "run"),
        "control": FailsOnce(controller.control, "read_pause"),
    }
    admitter = FailsOnce(controller._admitter, "run")
    admitter.calls = 1  # it never fails
    stop = asyncio.Event()
    running = asyncio.create_task(controller.run(stop, lambda _: None))
    try:
        await until(lambda: running.done() or all(part.calls > 1 for part in parts.values()))
        assert not running.done()
        assert {name for name, part in parts.items() if part.calls < 2} == set()
        assert admitter.calls == 2
    finally:
        stop.set()
        await running
