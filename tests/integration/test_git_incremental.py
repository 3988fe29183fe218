"""Incremental reads yield the same result as reading from scratch."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog import files as reading
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.domain.errors import CatalogRefusal, SourceError
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.tree import Budgets
from tests.support.commands import count_commands
from tests.support.fleet import Fleet, Link, operarios

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.domain.catalog import Catalog, Snapshot

SCOPE = Scope("openfero-jobs", ())
BUDGETS = Budgets(file_bytes=6000, depth=3, files=60)
OPERARIOS = list(operarios(12).items())
ACCOUNT = b"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: operario-%d}\n"
PATHS = ["a.yaml", "A.yaml", "b.yaml", "b/c.yaml", "b/c.yaml/d.json", "b/e/f/g/h.yaml", "x/y.yml"]
PATHS += ["readme.md", "_off/z.yaml", "openfero.yaml", "tests/t.yaml", "a\tb.yaml"]


def edit(chance: Random) -> dict[str, bytes | Link | None]:
    """Return one commit's changes: to a few paths, each of any kind."""
    changes: dict[str, bytes | Link | None] = {}
    for path in chance.sample(PATHS, chance.choice([0, 1, 1, 1, 2, 3])):
        if path == "openfero.yaml":
            changes[path] = chance.choice(
                [b"remember: 2h\n", b"namespaces: [x]\n", b"bad: 1\n", b""]
            )
            continue
        text = chance.choice(OPERARIOS)[1]
        changes[path] = chance.choice(
            [
                text,
                text,
                text.replace(b"batch/v1", b"batch/v0"),
                text + b"---\n" + chance.choice(OPERARIOS)[1],
                text.replace(b"restartPolicy: Never", b"restartPolicy: Sometimes"),
                b"a: [",
                b"#" * 6001,
                b"version https://git-lfs.github.com/spec/v1\n",
                ACCOUNT % chance.randrange(3),
                Link(b"a.yaml"),
                None,
                None,
            ]
        )
    return changes


async def catalog_of(snapshot: Snapshot, source: GitSource, memo: FileMemo) -> Catalog | str:
    """Load like the controller, or return why the revision is rejected."""
    try:
        return await load_catalog(snapshot, SCOPE, memo, source.versions)
    except CatalogRefusal as refusal:
        return f"{refusal} {refusal.problems} {refusal.paused}"


async def read(source: GitSource) -> Snapshot | str:
    """Fetch, or return the error."""
    try:
        return await source.fetch()
    except SourceError as error:
        return str(error)


@pytest.mark.parametrize(("seed", "root"), [(0, ""), (1, "b")])
async def test_a_catalog_does_not_depend_on_earlier_reads(
    tmp_path: Path, seed: int, root: str
) -> None:
    """After any history, an old source and memo give the same result as new ones."""
    chance = Random(seed)  # noqa: S311 - the same history each time
    fleet = Fleet(tmp_path / "origin.git")
    for _ in range(25):
        fleet.commit(edit(chance))
    commits = fleet.write()
    settings = GitSettings(
        url=fleet.url, cache_dir=tmp_path / "cache", ref="main", path=root, budgets=BUDGETS
    )
    old, memo = GitSource(settings), FileMemo("1.36")
    taken = 0

    # Not only in their order: a branch may be moved back, too.
    for commit in [*commits, *chance.sample(commits, 5)]:
        fleet.publish(commit)
        fresh = GitSource(settings)
        snapshot, scratch = await read(old), await read(fresh)
        assert snapshot == scratch
        if not isinstance(snapshot, str) and not isinstance(scratch, str):
            assert snapshot.revision.commit == commit
            catalog = await catalog_of(snapshot, old, memo)
            assert catalog == await catalog_of(scratch, fresh, FileMemo("1.36"))
            taken += not isinstance(catalog, str)
        await fresh.aclose()

    assert taken > 3
    await old.aclose()


async def test_a_commit_that_changes_one_file_reads_and_parses_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged file is the same object in the next snapshot, and is not read."""
    fleet = Fleet(tmp_path / "origin.git")
    files = operarios(40)
    path = sorted(files)[20]
    fleet.commit(files)
    fleet.commit({path: files[path] + b"# changed\n"})
    first, second = fleet.write()
    source = GitSource(GitSettings(url=fleet.url, cache_dir=tmp_path / "cache", ref="main"))
    memo = FileMemo("1.36")
    fleet.publish(first)
    before = await source.fetch()
    catalog = await load_catalog(before, SCOPE, memo)
    parsed: list[bytes] = []
    load = reading.load

    def counted(content: bytes, **options: Any) -> list[object]:
        parsed.append(content)
        return load(content, **options)

    monkeypatch.setattr(reading, "load", counted)
    fleet.publish(second)

    after = await source.fetch()
    later = await load_catalog(after, SCOPE, memo)

    changed = [
        file.path for file, was in zip(after.files, before.files, strict=True) if file is not was
    ]
    assert changed == [path]
    assert parsed == [files[path] + b"# changed\n"]
    assert {operario.origin.commit for operario in catalog.operarios} == {first}
    assert {operario.origin.commit for operario in later.operarios} == {second}
    assert later.operarios[0].job is catalog.operarios[0].job
    await source.aclose()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which every git command is appended."""
    return count_commands(monkeypatch)


@pytest.mark.parametrize("ref", ["main", "HEAD", "refs/heads/main", "v1"])
async def test_an_unchanged_ref_costs_one_list_of_refs(
    tmp_path: Path, commands: list[str], ref: str
) -> None:
    """If the server returns the same refs, nothing else is requested or started."""
    fleet = Fleet(tmp_path / "origin.git")
    fleet.commit(operarios(3))
    [commit] = fleet.write()
    fleet.publish(commit)
    (fleet.folder / "refs" / "tags" / "v1").write_text(f"{commit}\n")
    source = GitSource(GitSettings(url=fleet.url, cache_dir=tmp_path / "cache", ref=ref))
    before = await source.fetch()
    commands.clear()

    assert await source.fetch() is before
    assert commands == ["ls-remote"]
    await source.aclose()


async def test_one_ref_is_listed_on_a_server_with_very_many(
    tmp_path: Path, commands: list[str]
) -> None:
    """If listing HEAD returns every pull request, only HEAD is listed from then on."""
    fleet = Fleet(tmp_path / "origin.git")
    fleet.commit(operarios(3))
    first, second = (fleet.commit({"b.yaml": b"b: 1\n"}), fleet.write())[1]
    fleet.publish(first)
    lines = (f"{first} refs/pull/{number}/head-of-a-branch\n" for number in range(16_000))
    (fleet.folder / "packed-refs").write_text("".join(lines))
    source = GitSource(GitSettings(url=fleet.url, cache_dir=tmp_path / "cache"))
    before = await source.fetch()
    commands.clear()

    assert await source.fetch() is before
    assert await source.fetch() is before
    assert commands == ["ls-remote", "fetch", "fetch"]
    fleet.publish(second)
    assert (await source.fetch()).revision.commit == second
    await source.aclose()


async def test_many_broken_files_cost_one_read_of_the_history(
    tmp_path: Path, commands: list[str]
) -> None:
    """If an envelope invalidates every file, their versions are read with one git command."""
    fleet = Fleet(tmp_path / "origin.git")
    fleet.commit(operarios(60))
    fleet.commit({"openfero.yaml": b"remember: 2h\n"})
    *_, tip = fleet.write()
    fleet.publish(tip)
    source = GitSource(GitSettings(url=fleet.url, cache_dir=tmp_path / "cache", ref="main"))
    paths = [file.path for file in (await source.fetch()).files]
    commands.clear()

    assert [await source.versions(path, tip) for path in paths] == [[] for _ in paths]
    assert commands == ["rev-list", "log"]
    await source.aclose()
