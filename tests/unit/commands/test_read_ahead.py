from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.commands import read_ahead as module
from openfero_gitops.commands.read_ahead import read_ahead
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, blob_id
from tests.support.fleet import operarios

if TYPE_CHECKING:
    import pytest

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
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    await read_ahead(memo, snapshot.files, VERSION, min_files=2)
    monkeypatch.setattr(FileMemo, "_read", None)
    assert build_catalog(snapshot, scope, memo=memo) == expected


async def test_few_files_are_read_by_the_build_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started for few files, or on one processor."""
    monkeypatch.setattr(module, "ProcessPoolExecutor", None)
    files = snapshot_with_problems().files
    await read_ahead(FileMemo(VERSION), files, VERSION)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    await read_ahead(FileMemo(VERSION), files, VERSION, min_files=1)
