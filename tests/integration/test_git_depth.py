"""How much is fetched: the newest history and no large files, where the server offers that."""

from __future__ import annotations

import asyncio
import functools
import http.server
import itertools
import shutil
import threading
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.errors import SourceError, SourceUnavailable, Unverified
from openfero_gitops.domain.signature import Verify
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.commands import count_commands
from tests.support.fleet import Fleet
from tests.support.git_servers import http_server, make_key
from tests.support.repository import lose, run_git

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot

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
    run_git(made.folder, "config", "uploadpack.allowAnySHA1InWant", "true")
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


def held(cache: Path) -> int:
    """How many commits a cache holds."""
    [repository] = cache.glob("*/repository.git")
    return len(run_git(repository, "rev-list", "--all").split())


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
        run_git(fleet.folder, "update-server-info")
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
        tree = run_git(fleet.folder, "rev-parse", f"{line[-1]}^{{tree}}")
        other = run_git(fleet.folder, "commit-tree", tree, "-m", "another beginning")
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
        run_git(fleet.folder, "config", "uploadpack.allowAnySHA1InWant", str(by_id).lower())
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
        with pytest.raises(SourceError, match="repository does not exist"):
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
            with pytest.raises(SourceUnavailable, match="did not finish within 3 s"):
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
        before = set(run_git(folder, "rev-list", tip).split())
        line = run_git(folder, "rev-list", "--first-parent", tip).split()
        assert await source.ancestors(tip) == line[1:101]
        changed = run_git(folder, "log", "--first-parent", "-m", "--format=%H", tip, "--", "a.yaml")
        assert changed
        whole = opened(fleet.url, "whole")
        await whole.fetch()
        assert not await whole.is_ancestor("f" * 40, tip)  # now it has everything
        expected = await whole.versions("a.yaml", tip)
        assert await source.versions("a.yaml", tip) == expected
        for commit in chance.sample(commits, 12):
            assert await source.is_ancestor(commit, tip) == (commit in before)


class TestLargeFiles:
    """What is larger than any file that is read stays where it is, if the server can do that."""

    @pytest.fixture
    def offering(self, fleet: Fleet) -> Fleet:
        """Give a repository that can leave out files, as the large hosts can."""
        run_git(fleet.folder, "config", "uploadpack.allowFilter", "true")
        return fleet

    @pytest.fixture
    async def both(
        self, opened: Callable[..., GitSource], offering: Fleet
    ) -> Callable[[], Awaitable[Snapshot]]:
        """Give a way to fetch with all offers and with none, and have the same."""
        plain = offering.folder.with_name("plain.git")
        plain.mkdir()
        less, whole = opened(offering.url), opened(f"file://{plain}", "whole")

        async def fetch() -> Snapshot:
            shutil.rmtree(plain)
            shutil.copytree(offering.folder, plain)
            run_git(plain, "config", "uploadpack.allowFilter", "false")
            one, other = await less.fetch(), await whole.fetch()
            assert one.files == other.files
            where = [(problem.path, problem.rule) for problem in one.problems]
            assert where == [(problem.path, problem.rule) for problem in other.problems]
            return one

        return fetch

    async def test_they_are_left_out_and_told(
        self, offering: Fleet, both: Callable[[], Awaitable[Snapshot]], tmp_path: Path
    ) -> None:
        """Nothing of them is on the disk, and a reader is told of those that would be read."""
        offering.commit({"video.bin": noise(3 << 20), "was.yaml": text(600_000, 1), "a.yaml": b"a"})
        offering.commit({"was.yaml": text(1000, 2), "large.yaml": text(700_000, 3)})
        offering.publish(offering.write()[-1])
        snapshot = await both()
        assert [file.path for file in snapshot.files] == ["a.yaml", "was.yaml"]
        [problem] = snapshot.problems
        assert (problem.path, problem.rule) == ("large.yaml", "file-too-large")
        assert problem.message == "the file has more than 524288 bytes"
        assert weight(tmp_path / "cache") < 20_000
        assert weight(tmp_path / "whole") > 3 << 20

    async def test_where_commits_are_signed_nothing_is_left_out(
        self, offering: Fleet, opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A forge that keeps one file back would choose which of them are renewed."""
        offering.commit({"a.yaml": b"a", "large.yaml": text(700_000, 3)})
        offering.publish(offering.write()[-1])
        signers = tmp_path / "signers"
        make_key(tmp_path / "key")
        public = (tmp_path / "key.pub").read_text()
        signers.write_text(f'ada@example.com namespaces="git" {public}')
        trust = Trust(verify=Verify.COMMIT, allowed_signers_file=signers)
        with pytest.raises(Unverified):
            await opened(offering.url, trust=trust).fetch()
        assert weight(tmp_path / "cache") > 100_000

    async def test_they_are_followed_through_their_changes(
        self, offering: Fleet, both: Callable[[], Awaitable[Snapshot]]
    ) -> None:
        """A file that shrinks is sent as a difference to one that is not here; and so on."""
        base = text(700_000, 1)
        steps: list[dict[str, bytes | None]] = [
            {"a.yaml": b"a: 1\n", "large.yaml": base, "video.bin": noise(1 << 20)},
            {"large.yaml": base[:400_000]},
            {"a.yaml": b"a: 2\n"},
            {"large.yaml": base + b"more: true\n"},
            {"video.bin": None},
            {"large.yaml": None, "other.yaml": base},
            {"video.bin": noise(1 << 20)},
            {"other.yaml": base[:1000]},
        ]
        for step in steps:
            offering.commit(step)
        read = []
        for commit in offering.write():
            offering.publish(commit)
            snapshot = await both()
            read.append({file.path: len(file.content) for file in snapshot.files})
        assert read[0] == {"a.yaml": 5}
        assert read[1] == read[2] == {"a.yaml": 5, "large.yaml": 400_000}
        assert read[3] == read[4] == read[5] == read[6] == {"a.yaml": 5}
        assert read[7] == {"a.yaml": 5, "other.yaml": 1000}

    async def test_many_syncs_later_and_after_a_restart_they_are_told_again(
        self,
        offering: Fleet,
        both: Callable[[], Awaitable[Snapshot]],
        opened: Callable[..., GitSource],
    ) -> None:
        """Packs are rolled up meanwhile, and whoever comes fresh to the cache reads the same."""
        offering.commit({"a.yaml": b"a: 0\n", "large.yaml": text(700_000, 1)})
        for number in range(55):
            offering.commit({"a.yaml": f"a: {number}\n".encode()})
        for commit in offering.write():
            offering.publish(commit)
            last = await both()
        again = opened(offering.url)
        fresh = await again.fetch()
        assert fresh == last
        assert await again.versions("large.yaml", last.revision.commit) == []

    async def test_a_file_that_is_lost_is_fetched_again(
        self, offering: Fleet, opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """It is not taken for one that was left out."""
        offering.commit({"a.yaml": b"a: 1\n", "large.yaml": text(700_000, 1)})
        offering.publish(offering.write()[-1])
        before = await opened(offering.url).fetch()
        [cache] = (tmp_path / "cache").glob("*/repository.git")
        lose(cache, next(file.blob for file in before.files))
        assert await opened(offering.url).fetch() == before

    async def test_the_rest_of_the_history_comes_without_them(
        self, offering: Fleet, opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """Also where a large file was there long ago alone."""
        offering.commit({"video.bin": noise(2 << 20)})
        offering.commit({"video.bin": None})
        for number in range(150):
            offering.commit({"a.yaml": f"a: {number}\n".encode()})
        commits = offering.write()
        offering.publish(commits[-1])
        source = opened(offering.url)
        await source.fetch()
        assert await source.is_ancestor(commits[0], commits[-1])
        assert held(tmp_path / "cache") == len(commits)
        assert weight(tmp_path / "cache") < 200_000
        assert (await source.fetch()).revision.commit == commits[-1]

    async def test_a_server_that_refuses_after_all_is_asked_for_all(
        self, offering: Fleet, opened: Callable[..., GitSource]
    ) -> None:
        """A host may allow other kinds of leaving out than by size."""
        run_git(offering.folder, "config", "uploadpackfilter.blob:limit.allow", "false")
        offering.commit({"a.yaml": b"a: 1\n", "large.yaml": text(700_000, 1)})
        offering.publish(offering.write()[-1])
        with http_server(offering.folder.parent) as server:
            snapshot = await opened(server.url("origin.git")).fetch()
        [problem] = snapshot.problems
        assert problem.message == "the file has 700000 bytes, more than 524288"


def noise(size: int) -> bytes:
    """Bytes that nothing makes smaller."""
    return Random(size).randbytes(size)  # noqa: S311, not a secret


def text(size: int, seed: int) -> bytes:
    """A YAML file of a size in bytes, which hardly gets smaller."""
    chance = Random(seed)  # noqa: S311, not a secret
    lines = (f"k{number}: {chance.getrandbits(240):x}\n" for number in itertools.count())
    found = bytearray()
    while len(found) < size:
        found += next(lines).encode()
    return bytes(found[:size])


def weight(cache: Path) -> int:
    """How many bytes a cache has in packs."""
    return sum(pack.stat().st_size for pack in cache.glob("*/repository.git/objects/pack/*.pack"))


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
    return fleet.take(b"".join(stream))
