from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.commands import read_ahead as module
from openfero_gitops.commands.read_ahead import read_ahead
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, blob_id
from tests.support.fleet import operarios

if TYPE_CHECKING:
    from openfero_gitops.catalog.files import FileReading

VERSION = "1.36"


def snapshot_with_problems() -> Snapshot:
    """Return operarios, some of which have errors, warnings or no valid syntax."""
    contents = operarios(12)
    for number, path in enumerate(sorted(contents)):
        if number % 4 == 1:
            contents[path] = contents[path].replace(b"spec:", b"spec:\n  unknown: 1", 1)
        if number % 4 == 2:
            contents[path] = contents[path].replace(b"image:", b"image: [", 1)
        if number % 4 == 3:
            contents[path] += b"---\nkind: Other\n"
    files = (
        SourceFile(path=path, blob=blob_id(content, like="0" * 40), content=content)
        for path, content in contents.items()
    )
    return Snapshot(Revision("here", "", ""), "", tuple(files))


async def test_reading_in_several_processes_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The catalog is the same, and no file is read a second time."""
    snapshot = snapshot_with_problems()
    scope = Scope("jobs", None, kubernetes_version=VERSION)
    expected = build_catalog(snapshot, scope)
    assert {problem.severity for problem in expected.problems} == {"error", "warning"}
    memo = FileMemo(VERSION)
    monkeypatch.setattr(module, "usable_processes", lambda _: 2)
    await read_ahead(memo, snapshot.files, VERSION, min_files=2)
    monkeypatch.setattr(FileMemo, "_read", None)
    assert build_catalog(snapshot, scope, memo=memo) == expected


async def test_few_files_are_read_by_the_build_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started for few files, or on one processor."""
    monkeypatch.setattr(module, "ProcessPoolExecutor", None)
    files = snapshot_with_problems().files
    await read_ahead(FileMemo(VERSION), files, VERSION)
    monkeypatch.setattr(module, "usable_processes", lambda _: 1)
    await read_ahead(FileMemo(VERSION), files, VERSION, min_files=1)


def die(_kubernetes: str, _file: SourceFile) -> FileReading:
    """End the process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fail(_kubernetes: str, _file: SourceFile) -> FileReading:
    """Fail with an error that nobody expects."""
    raise LookupError


@pytest.mark.parametrize("read", [die, fail])
async def test_without_processes_the_build_reads_the_files(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in a process, the catalog is the same."""
    snapshot = snapshot_with_problems()
    scope = Scope("jobs", None, kubernetes_version=VERSION)
    memo = FileMemo(VERSION)
    monkeypatch.setattr(module, "usable_processes", lambda _: 2)
    monkeypatch.setattr(module, "_read", read)
    await read_ahead(memo, snapshot.files, VERSION, min_files=2)
    assert build_catalog(snapshot, scope, memo=memo) == build_catalog(snapshot, scope)


async def test_a_cancelled_command_reads_no_further_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its processes, which read what they have begun."""
    files = snapshot_with_problems().files
    loop = asyncio.get_running_loop()
    stopping = threading.Event()
    remembered = []

    def cancel() -> None:
        command.cancel()
        loop.call_later(0.1, stopping.set)

    class Cancelling(FileMemo):
        def remember(self, file: SourceFile, _reading: FileReading) -> None:
            remembered.append(file)
            loop.call_soon_threadsafe(cancel)
            assert stopping.wait(60)

    monkeypatch.setattr(module, "usable_processes", lambda _: 2)
    monkeypatch.setattr(module, "_FILES_PER_TASK", 1)
    command = asyncio.create_task(read_ahead(Cancelling(VERSION), files, VERSION, min_files=2))
    with pytest.raises(asyncio.CancelledError):
        await command
    assert len(remembered) == 1
