"""Damage of the cache: it is found by looking at it, repaired by a new clone, and never assumed."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain.errors import SourceUnavailable
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.damage import confirm, find_damage
from openfero_gitops.sources.git.errors import Damaged
from openfero_gitops.sources.git.process import Git
from openfero_gitops.sources.git.repository import BareRepository
from openfero_gitops.sources.tree import Budgets
from tests.support.follower import Follower
from tests.support.git_servers import HttpServer, http_server, ssh_server
from tests.support.repository import Repository
from tests.support.workers import operario_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one operario, and a file that makes its pack large."""
    repository = Repository(tmp_path / "served" / "origin")
    repository.write("disk.yaml", operario_file("disk", "1"))
    repository.write("notes.txt", "".join(f"line {number}\n" for number in range(5000)))
    repository.commit("First")
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[HttpServer]:
    """Start an HTTP server."""
    with http_server(repository.folder.parent) as server:
        yield server


def bare(cache: Path) -> Path:
    """Return the repository in a cache."""
    [repository] = cache.glob("*/repository.git")
    return repository


def opened(cache: Path, timeout: float = 60.0) -> BareRepository:
    """Open the repository in a cache."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C"}
    git = Git("here", environment, timeout, threading.Event())
    return BareRepository(bare(cache), git)


def overwrite(folder: Path, pattern: str, start: int, content: bytes) -> None:
    """Overwrite a part of the one file that a pattern names."""
    [file] = folder.glob(pattern)
    file.chmod(0o644)
    whole = file.read_bytes()
    file.write_bytes(whole[:start] + content + whole[start + len(content) :])


def truncate(folder: Path, pattern: str, length: int) -> None:
    """Cut off the end of the one file that a pattern names."""
    [file] = folder.glob(pattern)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:length])


def unpack_and_lose(folder: Path, repository: Repository) -> None:
    """Store the objects one by one, and lose the operario's."""
    [pack] = folder.glob("objects/pack/*.pack")
    moved = folder / "pack"
    pack.rename(moved)
    for file in folder.glob("objects/pack/*"):
        file.unlink()
    with moved.open("rb") as stream:
        environment_free = ["unpack-objects", "-q"]
        repository.git(f"--git-dir={folder}", *environment_free, stdin=stream.read())
    blob = repository.git("rev-parse", "HEAD:disk.yaml")
    (folder / "objects" / blob[:2] / blob[2:]).unlink()


DAMAGES = {
    "pack": lambda folder, _: overwrite(folder, "objects/pack/*.pack", 12, b"\xff" * 200),
    "half-a-pack": lambda folder, _: truncate(folder, "objects/pack/*.pack", 100),
    "index": lambda folder, _: truncate(folder, "objects/pack/*.idx", 700),
    "empty-index": lambda folder, _: truncate(folder, "objects/pack/*.idx", 0),
    "ref": lambda folder, _: truncate(folder, "refs/openfero/tip/*", 0),
    "object": unpack_and_lose,
    "head": lambda folder, _: (folder / "HEAD").write_text(""),
    "objects": lambda folder, _: shutil.rmtree(folder / "objects"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_damage_is_found_and_repaired(
    repository: Repository,
    server: HttpServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path, Repository], object],
) -> None:
    """While the server refuses, the damaged cache stays; then a new clone replaces it."""
    cache = tmp_path / "cache"
    first = Follower(server.url("origin"), cache)
    await first.sync()
    await first.aclose()
    before = bare(cache).stat().st_ino
    damage(bare(cache), repository)
    assert find_damage(opened(cache), [repository.git("rev-parse", "HEAD:disk.yaml")])
    repository.write("disk.yaml", operario_file("disk", "2"))
    repository.commit("Second")
    server.refusal = (503, {}, "")
    replica = Follower(server.url("origin"), cache)

    await replica.sync()

    assert replica.error
    assert bare(cache).stat().st_ino == before
    server.refusal = None
    await replica.sync()
    assert (replica.error, replica.commit) == ("", repository.head)
    printed = "".join(capfd.readouterr())
    if bare(cache).stat().st_ino == before:  # all that was needed has been fetched beside it
        assert "damaged" not in printed
    else:
        assert "Git cache is damaged; making a new one" in printed
        assert find_damage(opened(cache)) == ""
    await replica.aclose()


async def test_damage_is_found_over_ssh(
    repository: Repository, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cache that Git cannot read is not taken for a refusal of the server."""
    cache = tmp_path / "cache"
    (tmp_path / "sshd").mkdir()
    with ssh_server(tmp_path / "sshd") as sshd:
        access = GitAccess(ssh_key_file=sshd.key, known_hosts_file=sshd.known_hosts)
        replica = Follower(sshd.url(repository.folder), cache, access=access)
        await replica.sync()
        before = bare(cache).stat().st_ino
        overwrite(bare(cache), "objects/pack/*.pack", 12, b"\xff" * 200)
        repository.write("disk.yaml", operario_file("disk", "2"))
        repository.commit("Second")

        await replica.sync()

        assert (replica.error, replica.commit) == ("", repository.head)
        assert bare(cache).stat().st_ino != before
        assert "Git cache is damaged; making a new one" in "".join(capfd.readouterr())
        await replica.aclose()


async def test_a_healthy_cache_is_never_damaged(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """A suspicion that nothing confirms is an error that is retried, and says what was found."""
    replica = Follower(server.url("origin"), tmp_path / "cache")
    await replica.sync()
    await replica.aclose()
    blob = repository.git("rev-parse", "HEAD:disk.yaml")
    cached = opened(tmp_path / "cache")

    with pytest.raises(SourceUnavailable, match="although git fsck finds no damage in"):
        confirm(cached, Damaged("something", [blob]))
    with pytest.raises(SourceUnavailable, match="the network"):
        confirm(cached, Damaged("something", otherwise=SourceUnavailable("the network")))
    assert confirm(cached, Damaged("something", ["1" * 40])) == f"{'1' * 40} missing"
    assert confirm(cached, Damaged("seen", is_certain=True)) == "seen"


async def test_a_file_that_was_left_out_is_no_damage(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """A large file that was not fetched is missing on purpose."""
    for option in ("allowFilter", "allowAnySHA1InWant"):
        repository.git("config", f"uploadpack.{option}", "true")
    replica = Follower(server.url("origin"), tmp_path / "cache", budgets=Budgets(file_bytes=5000))
    await replica.sync()
    await replica.aclose()
    cached = opened(tmp_path / "cache")
    large = repository.git("rev-parse", "HEAD:notes.txt")

    assert find_damage(cached, [large])  # it is not there
    assert find_damage(cached) == ""
    assert find_damage(cached, blobs=True)


async def test_a_look_that_takes_too_long_finds_nothing(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """What is not confirmed within the time of a command is not damage."""
    replica = Follower(server.url("origin"), tmp_path / "cache")
    await replica.sync()
    await replica.aclose()
    assert repository.head
    truncate(bare(tmp_path / "cache"), "objects/pack/*.pack", 100)

    with pytest.raises(SourceUnavailable, match="the reason"):
        confirm(
            opened(tmp_path / "cache", 0.0),
            Damaged("something", otherwise=SourceUnavailable("the reason")),
        )


async def test_too_little_memory_is_no_damage(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """A look that fails for lack of memory finds nothing."""
    replica = Follower(server.url("origin"), tmp_path / "cache")
    await replica.sync()
    await replica.aclose()
    assert repository.head
    cached = opened(tmp_path / "cache")
    starved = replace(cached, git=replace(cached.git, memory_bytes=200 * 1024))

    assert find_damage(starved) == ""
