"""Work that is good to have, and fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.app import Controller, _aside, places
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.errors import ClockWrong
from openfero_gitops.leadership.elector import TermEnded
from openfero_gitops.settings import load_settings
from tests.support.workers import (
    Commits,
    in_background,
    in_virtual_time,
    operario_file,
    seconds_so_far,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path


@in_virtual_time
async def test_what_fails_begins_anew_and_ends_nothing_else() -> None:
    """Half a minute later, however often it fails."""
    began: list[float] = []

    async def fails() -> None:
        began.append(seconds_so_far())
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async with in_background(_aside(fails)):
        await asyncio.sleep(100)
    assert began == [0, 31, 62, 93]


@pytest.mark.parametrize("end", [TermEnded, ClockWrong])
@in_virtual_time
async def test_what_ends_a_leadership_is_no_failure(end: type[Exception]) -> None:
    """It ends with the other work of that leadership."""

    async def ends() -> None:
        raise end("over")

    with pytest.raises(end):
        await _aside(ends)


class Once:
    """A part of a controller that fails the first time, of what nobody foresaw."""

    def __init__(self, part: object, name: str) -> None:
        self.times = 0
        self._work = getattr(part, name)
        setattr(part, name, self._do)

    async def _do(self, *arguments: Any) -> Any:
        self.times += 1
        if self.times == 1:
            raise ZeroDivisionError
        return await self._work(*arguments)


async def test_what_is_not_admission_ends_neither_a_leadership_nor_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part that fails begins anew, and whoever leads goes on leading."""
    monkeypatch.setattr("openfero_gitops.app._REST", 0.1)
    monkeypatch.setattr("openfero_gitops.admission.pause._SHOWN", 0.1)
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
    where = places(settings, "controller")
    controller = Controller(settings, where, MemoryCluster(), source, "in memory")
    parts = {
        "mirror": Once(controller._mirrorer, "run"),
        "conclude": Once(controller._concluder, "run"),
        "compare": Once(controller.comparer, "run"),
        "asked": Once(controller.asked, "run"),
        "control": Once(controller.control, "paused"),
    }
    admissions = Once(controller._admitter, "run")
    admissions.times = 1  # it never fails
    stop = asyncio.Event()
    running = asyncio.create_task(controller.run(stop, lambda _: None))
    try:
        await until(lambda: running.done() or all(part.times > 1 for part in parts.values()))
        assert not running.done()
        assert {name for name, part in parts.items() if part.times < 2} == set()
        assert admissions.times == 2
    finally:
        stop.set()
        await running
