"""Large files that a fetch leaves out: what is said of a commit does not depend on how it came."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.domain.errors import SourceError, SourceUnavailable, Unusable
from openfero_gitops.sources.git.repository import BareRepository
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.tree import Budgets
from tests.support.git_servers import HttpServer, http_server
from tests.support.repository import Repository, lose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot
    from openfero_gitops.sources.git.process import Finished

BUDGETS = Budgets(file_bytes=5000, searched_bytes=200_000)
OPERARIO = b"# openfero-disk-firing\n"


def noise(size: int, seed: int = 0) -> bytes:
    """Return incompressible bytes."""
    return Random(seed).randbytes(size)  # noqa: S311, not a secret


@pytest.fixture
def origin(tmp_path: Path) -> Repository:
    """Create a repository that supports filters, with one small file."""
    repository = Repository(tmp_path / "served" / "origin")
    repository.git("config", "uploadpack.allowFilter", "true")
    repository.write("a.yaml", "a: 1\n")
    return repository


@pytest.fixture
def server(origin: Repository) -> Iterator[HttpServer]:
    """Serve the repository over HTTP."""
    with http_server(origin.folder.parent) as served:
        yield served


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., GitSource]]:
    """Return a function that opens a source; the same name of a cache means the same cache."""
    sources: list[GitSource] = []

    def open_one(url: str, cache: str = "cache") -> GitSource:
        sources.append(GitSource(GitSettings(url, tmp_path / cache, budgets=BUDGETS)))
        return sources[-1]

    yield open_one
    for source in sources:
        await source.aclose()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return the list to which each fetch of files by their IDs is appended."""
    made: list[tuple[str, ...]] = []
    original = BareRepository.fetch

    def fetch(
        self: BareRepository, options: list[str], url: str, *refspecs: str, **others: Any
    ) -> Finished:
        if ":" not in refspecs[0]:
            made.append(refspecs)
        return original(self, options, url, *refspecs, **others)

    monkeypatch.setattr(BareRepository, "fetch", fetch)
    return made


def fail_blobs(monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None]) -> None:
    """Call `fail` before each fetch of files by their IDs."""
    original = BareRepository.fetch

    def fetch(
        self: BareRepository, options: list[str], url: str, *refspecs: str, **others: Any
    ) -> Finished:
        if ":" not in refspecs[0]:
            fail()
        return original(self, options, url, *refspecs, **others)

    monkeypatch.setattr(BareRepository, "fetch", fetch)


def inode(tmp_path: Path) -> int:
    """Identify the repository in the cache: a new clone has another number."""
    [repository] = (tmp_path / "cache").glob("*/repository.git")
    return repository.stat().st_ino


def said(snapshot: Snapshot) -> tuple[list[Any], ...]:
    """Return everything that is said of a commit."""
    return list(snapshot.files), list(snapshot.problems), list(snapshot.ignored)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("board.json", noise(9000)),
        ("many.yaml", OPERARIO + noise(9000)),
        ("deep/er/values.yml", noise(6000)),
        ("huge.json", noise(300_000)),
        ("zeros.yaml", bytes(300_000)),
        ("n" * 200 + "/" + "n" * 200 + "/" + "n" * 200 + ".json", noise(9000)),
    ],
    ids=["json", "operario", "folder", "not searched", "compressible", "long name"],
)
async def test_an_ancestor_with_another_large_file_is_read(
    origin: Repository, opened: Callable[..., GitSource], tmp_path: Path, path: str, content: bytes
) -> None:
    """It reads as if it were the tip, and the cache is kept."""
    origin.write(path, content)
    ancestor = origin.commit("Large")
    as_tip = await opened(origin.url, "other").fetch()
    origin.write(path, noise(8000, 1))
    origin.commit("Another")
    source = opened(origin.url)
    await source.fetch()
    kept = inode(tmp_path)
    for reader in (source, opened(origin.url)):
        assert said(await reader.snapshot(ancestor)) == said(as_tip)
    await source.fetch()
    assert inode(tmp_path) == kept


@pytest.mark.parametrize("sizes", [[300_000], [9000] * 25, [300_000, 250_000, 9000, 100_000]])
async def test_a_restart_keeps_the_cache(
    origin: Repository, opened: Callable[..., GitSource], tmp_path: Path, sizes: list[int]
) -> None:
    """Files that were left out are not taken for damage, however many and large they are."""
    for number, size in enumerate(sizes):
        origin.write(f"board{number}.json", noise(size, number))
    origin.commit("Large")
    before = await opened(origin.url).fetch()
    kept = inode(tmp_path)
    with capture_logs() as logs:
        assert said(await opened(origin.url).fetch()) == said(before)
    assert (logs, inode(tmp_path)) == ([], kept)
    # Each file that can be searched was searched, whatever else is in the commit.
    assert len(before.ignored) == sum(size <= BUDGETS.searched_bytes for size in sizes)


async def test_files_are_fetched_with_one_request(
    origin: Repository, opened: Callable[..., GitSource], requests: list[tuple[str, ...]]
) -> None:
    """Their number does not decide which of them are searched."""
    for number in range(60):
        origin.write(f"board{number}.json", bytes(9000) + bytes([number]))
    origin.commit("Large")
    snapshot = await opened(origin.url).fetch()
    assert Counter(map(len, requests)) == {60: 1}
    assert (len(snapshot.ignored), snapshot.problems) == (60, ())


@pytest.mark.parametrize("count", [1, 3])
async def test_a_server_that_sends_no_file_by_its_id(
    origin: Repository,
    server: HttpServer,
    opened: Callable[..., GitSource],
    requests: list[tuple[str, ...]],
    tmp_path: Path,
    count: int,
) -> None:
    """The files are reported, also after a restart, and the cache is kept."""
    server.old_protocol = True
    origin.git("config", "uploadpack.allowAnySHA1InWant", "false")
    for number in range(count):
        origin.write(f"board{number}.json", noise(9000, number))
    origin.commit("Large")
    source = opened(server.url("origin"))
    before = await source.fetch()
    kept = inode(tmp_path)
    assert {problem.rule for problem in before.problems} == {"file-too-large"}
    assert len(before.problems) == count
    assert len(requests) == 1
    with capture_logs() as logs:
        assert said(await opened(server.url("origin")).fetch()) == said(before)
    assert (logs, inode(tmp_path)) == ([], kept)
    # What it does not send is not requested again.
    del requests[:]
    origin.write("a.yaml", "a: 2\n")
    origin.commit("Small")
    assert len((await source.fetch()).problems) == count
    assert requests == []


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "77"}, 77),
        (503, {"Retry-After": "5"}, 5),
        (503, {}, 0),
        (502, {}, 0),
        (500, {}, 0),
    ],
)
async def test_a_failure_of_the_server_says_nothing_about_the_commit(
    origin: Repository,
    server: HttpServer,
    opened: Callable[..., GitSource],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    seconds: float,
) -> None:
    """The sync fails with the time to wait, and the next one reads the commit as others do."""
    origin.write("board.json", noise(9000))
    origin.commit("Large")
    expected = await opened(server.url("origin"), "other").fetch()
    source = opened(server.url("origin"))
    refusal = (status, headers, "later")
    with monkeypatch.context() as patch:
        fail_blobs(patch, lambda: setattr(server, "refusal", refusal))
        with pytest.raises(SourceUnavailable) as failed:
            await source.fetch()
    assert failed.value.retry_after == pytest.approx(seconds, abs=1)
    server.refusal = None
    assert said(await source.fetch()) == said(expected)
    assert [entry.path for entry in expected.ignored] == ["board.json"]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_lasting_failure_is_no_refusal_of_the_commit(
    origin: Repository,
    server: HttpServer,
    opened: Callable[..., GitSource],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """A token that expires between two requests is not remembered as a fault of the commit."""
    origin.write("board.json", noise(9000))
    origin.commit("Large")
    source = opened(server.url("origin"))
    with monkeypatch.context() as patch:
        fail_blobs(patch, lambda: setattr(server, "refusal", (status, {}, "no")))
        with pytest.raises(SourceError) as failed:
            await source.fetch()
    assert not isinstance(failed.value, Unusable)
    server.refusal = None
    assert [entry.path for entry in (await source.fetch()).ignored] == ["board.json"]


async def test_a_torn_connection_is_retried_for_a_commit_of_the_history(
    origin: Repository,
    server: HttpServer,
    opened: Callable[..., GitSource],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The cache is not damaged, and the next read succeeds."""
    origin.write("board.json", noise(9000))
    ancestor = origin.commit("Large")
    origin.write("board.json", "{}")
    origin.commit("Small")
    source = opened(server.url("origin"))
    await source.fetch()
    kept = inode(tmp_path)
    with monkeypatch.context() as patch:
        fail_blobs(patch, lambda: setattr(server, "reset", 3000))
        with pytest.raises(SourceUnavailable):
            await source.snapshot(ancestor)
    server.reset = 0
    assert [entry.path for entry in (await source.snapshot(ancestor)).ignored] == ["board.json"]
    await source.fetch()
    assert inode(tmp_path) == kept


async def test_a_lost_file_of_an_ancestor_is_fetched_alone(
    origin: Repository, opened: Callable[..., GitSource], tmp_path: Path
) -> None:
    """A small file that is missing is read again, without a new clone."""
    ancestor = origin.commit("Small")
    lost = origin.git("rev-parse", "HEAD:a.yaml")
    origin.write("a.yaml", "a: 2\n")
    origin.commit("Another")
    await opened(origin.url).fetch()
    kept = inode(tmp_path)
    [repository] = (tmp_path / "cache").glob("*/repository.git")
    await asyncio.to_thread(lose, repository, lost)
    snapshot = await opened(origin.url).snapshot(ancestor)
    assert [file.content for file in snapshot.files] == [b"a: 1\n"]
    assert (snapshot.problems, inode(tmp_path)) == ((), kept)
