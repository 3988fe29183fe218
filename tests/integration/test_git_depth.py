"""The newest history is fetched; what leads further back has the rest fetched, once."""

from __future__ import annotations

import asyncio
import functools
import http.server
import subprocess
import threading
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.adapters.git import GitSettings, GitSource
from openfero_gitops.adapters.git_access import GitAccess
from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from tests.support.commands import count_commands
from tests.support.fleet import Fleet
from tests.support.git_servers import http_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

LONG = 250  # commits, more than twice of what is fetched at first
FETCHED = 101


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the list to which every command that is given to git is added."""
    return count_commands(monkeypatch)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Give an empty repository, whose commits can be asked for by their ids."""
    made = Fleet(tmp_path / "origin.git")
    git(made.folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return made


@pytest.fixture
def line(fleet: Fleet) -> list[str]:
    """Give a line of many commits, the last of which is published."""
    for number in range(LONG):
        fleet.commit({"a.yaml": f"version: {number}\n".encode()})
    commits = fleet.write()
    fleet.publish(commits[-1])
    return commits


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., GitSource]]:
    """Give a way to open a source with a cache, which is the same where it has the same name."""
    sources: list[GitSource] = []

    def open_one(url: str, cache: str = "cache", **settings: Any) -> GitSource:
        sources.append(GitSource(GitSettings(url=url, cache_dir=tmp_path / cache, **settings)))
        return sources[-1]

    yield open_one
    for source in sources:
        await source.aclose()


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run git in a bare repository and return what it says."""
    argv = ["git", f"--git-dir={folder}", *arguments]
    return (
        subprocess.run(argv, input=stdin, capture_output=True, check=True).stdout.decode().strip()
    )


def held(cache: Path) -> int:
    """How many commits a cache holds."""
    [repository] = cache.glob("*/repository.git")
    return len(git(repository, "rev-list", "--all").split())


class TestFetchingLess:
    """How much is fetched, and of whom."""

    async def test_the_first_fetch_brings_what_older_versions_are_looked_for_in(
        self,
        fleet: Fleet,
        line: list[str],
        opened: Callable[..., GitSource],
        commands: list[str],
        tmp_path: Path,
    ) -> None:
        """Everything that a sync may ask is answered without the network."""
        source = opened(fleet.url)
        await source.fetch()
        assert held(tmp_path / "cache") == FETCHED
        commands.clear()

        assert await source.ancestors(line[-1]) == line[-2:-102:-1]
        versions = await source.versions("a.yaml", line[-1])
        assert [one.commit for one in versions] == line[-2:-102:-1]
        assert await source.existed("a.yaml", line[-1])
        assert not await source.existed("b.yaml", line[-1])
        assert await source.is_ancestor(line[-101], line[-1])
        assert not await source.is_ancestor(line[-1], line[-101])
        assert "fetch" not in commands

    async def test_what_comes_later_is_fetched_as_it_comes(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A cache that began with a part has all that was committed since."""
        source = opened(fleet.url)
        fleet.publish(line[149])
        await source.fetch()
        for commit in line[150:]:
            fleet.publish(commit)
            assert (await source.fetch()).revision.commit == commit

        assert held(tmp_path / "cache") == FETCHED + 100
        assert await source.is_ancestor(line[100], line[-1])

    async def test_a_server_that_gives_all_or_nothing_is_asked_for_all(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A folder of files behind a web server is such a one."""
        git(fleet.folder, "update-server-info")
        with file_server(fleet.folder) as url:
            snapshot = await opened(url).fetch()
        assert snapshot.revision.commit == line[-1]
        assert held(tmp_path / "cache") == LONG

    async def test_a_short_history_is_whole(
        self, fleet: Fleet, opened: Callable[..., GitSource], commands: list[str]
    ) -> None:
        """What is not in it is nowhere: nothing more is asked for."""
        for number in range(20):
            fleet.commit({"a.yaml": f"version: {number}\n".encode()})
        commits = fleet.write()
        fleet.publish(commits[-1])
        source = opened(fleet.url)
        await source.fetch()
        commands.clear()

        assert not await source.is_ancestor("f" * 40, commits[-1])
        with pytest.raises(SourceError, match="is not in the cache"):
            await source.snapshot("f" * 40)
        assert "fetch" not in commands


class TestFetchingTheRest:
    """What leads further back."""

    @pytest.mark.parametrize("question", ["ancestor", "snapshot", "versions", "merge base"])
    async def test_a_question_about_long_ago_has_the_rest_fetched_once(
        self,
        fleet: Fleet,
        line: list[str],
        opened: Callable[..., GitSource],
        commands: list[str],
        tmp_path: Path,
        question: str,
    ) -> None:
        """Whatever is asked, the answer is the one that a whole clone gives."""
        source = opened(fleet.url)
        await source.fetch()
        commands.clear()
        if question == "ancestor":
            assert await source.is_ancestor(line[3], line[-1])
        elif question == "snapshot":
            assert (await source.snapshot(line[3])).files[0].content == b"version: 3\n"
        elif question == "versions":
            found = await source.versions("a.yaml", line[-20])
            assert [one.commit for one in found] == line[-21:-121:-1]
        else:
            assert await source.merge_base(line[3], line[-1]) == line[3]

        assert commands.count("fetch") == 1
        assert held(tmp_path / "cache") == LONG
        assert await source.is_ancestor(line[1], line[-1])
        assert not await source.is_ancestor("f" * 40, line[-1])
        assert commands.count("fetch") == 1

    async def test_a_rewritten_branch_is_told_from_one_that_goes_on(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """Both look alike where the commit in force is older than what was fetched."""
        tree = git(fleet.folder, "rev-parse", f"{line[-1]}^{{tree}}")
        other = identified(fleet.folder, "commit-tree", tree, "-m", "another beginning")
        source = opened(fleet.url)
        await source.fetch()
        assert not await source.is_ancestor(other, line[-1])

        again = opened(fleet.url, "another")
        fleet.publish(other)
        await again.fetch()
        assert held(tmp_path / "another") == 1
        assert not await again.is_ancestor(line[-1], other)

    @pytest.mark.parametrize("by_id", [True, False])
    async def test_a_commit_of_long_ago_can_be_the_ref(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], *, by_id: bool
    ) -> None:
        """Also of a server that hands out branches alone."""
        git(fleet.folder, "config", "uploadpack.allowAnySHA1InWant", str(by_id).lower())
        with http_server(fleet.folder.parent) as server:
            server.old_protocol = not by_id
            source = opened(server.url("origin.git"), ref=line[20])
            snapshot = await source.fetch()
            assert snapshot.files[0].content == b"version: 20\n"
            assert await source.is_ancestor(line[5], line[20])
            assert len(await source.versions("a.yaml", line[20])) == 20

    async def test_without_the_server_the_answer_is_not_made_up(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource]
    ) -> None:
        """What is here can still be asked, and later the rest."""
        source = opened(fleet.url)
        await source.fetch()
        away = fleet.folder.rename(fleet.folder.with_name("away.git"))
        with pytest.raises(SourceError, match="no such repository"):
            await source.is_ancestor(line[3], line[-1])
        assert not await source.is_ancestor(line[3], line[-1], deepen=False)
        assert await source.is_ancestor(line[-9], line[-1])
        away.rename(fleet.folder)
        assert await source.is_ancestor(line[3], line[-1])

    async def test_a_server_that_stalls_in_the_middle_leaves_the_cache_as_it_was(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """Half a pack is removed, and the next time all is well."""
        with http_server(fleet.folder.parent) as server:
            source = opened(server.url("origin.git"), timeout=3)
            await source.fetch()
            server.cut = 3000
            with pytest.raises(SourceUnavailable, match="did not end within 3 s"):
                await source.is_ancestor(line[3], line[-1])
            server.cut = 0
            server.gate.set()
            assert held(tmp_path / "cache") == FETCHED
            assert not list((tmp_path / "cache").rglob("tmp_pack_*"))
            assert not list((tmp_path / "cache").rglob("*.lock"))
            assert (await source.fetch()).revision.commit == line[-1]
            assert await source.is_ancestor(line[3], line[-1])

    async def test_the_rest_counts_towards_the_size_that_is_allowed(
        self, fleet: Fleet, opened: Callable[..., GitSource]
    ) -> None:
        """The error names the setting; what is here stays."""
        noise = Random(5)  # noqa: S311, not a secret
        fleet.commit({"old.bin": noise.randbytes(1 << 20)})
        fleet.commit({"old.bin": None, "a.yaml": b"version: 0\n"})
        for number in range(120):
            fleet.commit({"a.yaml": f"version: {number}\n".encode()})
        commits = fleet.write()
        fleet.publish(commits[-1])
        source = opened(fleet.url, access=GitAccess(pack_bytes=512 * 1024))
        await source.fetch()
        with pytest.raises(SourceError, match="larger than the 524288 bytes that --git-max-size"):
            await source.is_ancestor(commits[0], commits[-1])
        assert (await source.fetch()).files[0].content == b"version: 119\n"

    async def test_replicas_on_one_cache_ask_at_the_same_time(
        self,
        fleet: Fleet,
        line: list[str],
        opened: Callable[..., GitSource],
        commands: list[str],
    ) -> None:
        """One fetches, the others wait for it and find everything."""
        replicas = [opened(fleet.url) for _ in range(3)]
        for replica in replicas:
            await replica.fetch()
        commands.clear()
        found = await asyncio.gather(
            *(replica.is_ancestor(line[3], line[-1]) for replica in replicas)
        )
        assert found == [True, True, True]
        assert commands.count("fetch") == 1

    @pytest.mark.parametrize("seed", range(3))
    async def test_any_history_answers_as_a_whole_clone_of_it(
        self, fleet: Fleet, opened: Callable[..., GitSource], seed: int
    ) -> None:
        """With merges, several beginnings, and branches of very different length."""
        chance = Random(seed)  # noqa: S311, not a secret
        commits = tangle(fleet, chance, 400)
        fleet.publish(commits[-1])
        source = opened(fleet.url)
        await source.fetch()
        tip, folder = commits[-1], fleet.folder
        before = set(git(folder, "rev-list", tip).split())
        line = git(folder, "rev-list", "--first-parent", tip).split()
        assert await source.ancestors(tip) == line[1:101]
        changed = git(folder, "log", "--first-parent", "-m", "--format=%H", tip, "--", "a.yaml")
        assert changed
        whole = opened(fleet.url, "whole")
        await whole.fetch()
        assert not await whole.is_ancestor("f" * 40, tip)  # now it has everything
        expected = await whole.versions("a.yaml", tip)
        assert await source.versions("a.yaml", tip) == expected
        for commit in chance.sample(commits, 12):
            assert await source.is_ancestor(commit, tip) == (commit in before)


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder's files, which is what git calls the dumb protocol."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        """Says nothing."""

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="files")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{folder.name}"
        finally:
            server.shutdown()
            thread.join()


def identified(folder: Path, *arguments: str) -> str:
    """Run git as somebody."""
    who = ("-c", "user.name=Ada Example", "-c", "user.email=ada@example.com")
    argv = ["git", f"--git-dir={folder}", *who, *arguments]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode().strip()


def tangle(fleet: Fleet, chance: Random, count: int) -> list[str]:
    """Write commits of one to three parents each, some of none, and return their ids, in order."""
    stream = []
    for mark in range(1, count + 1):
        content = b"version: %d\n" % chance.randrange(20)
        stream.append(b"reset refs/heads/tangle\ncommit refs/heads/tangle\nmark :%d\n" % mark)
        stream.append(
            b"committer Ada Example <ada@example.com> %d +0000\ndata 0\n" % (1_790_000_000 + mark)
        )
        parents = min(chance.choice([0, 1, 1, 1, 1, 1, 1, 1, 2, 3]), mark - 1)
        if mark == count:
            parents = 1
        recent = range(max(1, mark - 3), mark)
        chosen = list(
            dict.fromkeys(
                chance.choice(recent if chance.random() < 0.95 else range(1, mark))
                for _ in range(parents)
            )
        )
        for place, parent in enumerate(chosen):
            stream.append(b"%s :%d\n" % (b"merge" if place else b"from", parent))
        stream.append(b"M 100644 inline a.yaml\ndata %d\n%s\n" % (len(content), content))
    marks = fleet.folder / "marks"
    git(fleet.folder, "fast-import", "--quiet", f"--export-marks={marks}", stdin=b"".join(stream))
    pairs = (one.split() for one in marks.read_text().splitlines())
    return [sha for _, sha in sorted((int(mark[1:]), sha) for mark, sha in pairs)]
