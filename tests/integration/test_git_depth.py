"""How much is fetched: recent history without large files, if the server supports it."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.errors import SourceError, SourceUnavailable, Unverified
from openfero_gitops.domain.signature import Verify
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.process import Git
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.commands import count_commands
from tests.support.fleet import Fleet
from tests.support.git_servers import file_server, http_server, make_key
from tests.support.repository import lose, run_git

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from openfero_gitops.domain.catalog import Snapshot
    from openfero_gitops.sources.git.process import Finished

LONG = 250  # commits, more than twice the depth of the first fetch
FETCHED = 101


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which every git command is appended."""
    return count_commands(monkeypatch)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Create an empty repository, whose commits can be fetched by their ids."""
    made = Fleet(tmp_path / "origin.git")
    run_git(made.folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    return made


@pytest.fixture
def line(fleet: Fleet) -> list[str]:
    """Create a line of many commits, the last of which is published."""
    for number in range(LONG):
        fleet.commit({"a.yaml": f"version: {number}\n".encode()})
    commits = fleet.write()
    fleet.publish(commits[-1])
    return commits


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., GitSource]]:
    """Return a function that opens a source; sources with the same cache name share a cache."""
    sources: list[GitSource] = []

    def open_one(url: str, cache: str = "cache", **settings: Any) -> GitSource:
        sources.append(GitSource(GitSettings(url=url, cache_dir=tmp_path / cache, **settings)))
        return sources[-1]

    yield open_one
    for source in sources:
        await source.aclose()


def held(cache: Path) -> int:
    """Return the number of commits in a cache."""
    [repository] = cache.glob("*/repository.git")
    return len(run_git(repository, "rev-list", "--all").split())


class TestFetchingLess:
    """Test how much is fetched, and when."""

    async def test_the_first_fetch_includes_the_history_for_older_versions(
        self,
        fleet: Fleet,
        line: list[str],
        opened: Callable[..., GitSource],
        commands: list[str],
        tmp_path: Path,
    ) -> None:
        """Everything that a sync may query is answered without the network."""
        source = opened(fleet.url)
        await source.fetch()
        assert held(tmp_path / "cache") == FETCHED
        commands.clear()

        assert await source.ancestors(line[-1]) == line[-2:-102:-1]
        versions = await source.versions("a.yaml", line[-1])
        assert [version.commit for version in versions] == line[-2:-102:-1]
        assert await source.existed("a.yaml", line[-1])
        assert not await source.existed("b.yaml", line[-1])
        assert await source.is_ancestor(line[-101], line[-1])
        assert not await source.is_ancestor(line[-1], line[-101])
        assert "fetch" not in commands

    async def test_later_commits_are_fetched(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A cache with a partial history has everything that was committed later.

        Commits arrive one by one and ten at a time.
        """
        source = opened(fleet.url)
        fleet.publish(line[149])
        await source.fetch()
        for commit in (*line[150:160], *line[169::10]):
            fleet.publish(commit)
            assert (await source.fetch()).revision.commit == commit

        assert held(tmp_path / "cache") == FETCHED + 100
        assert await source.is_ancestor(line[100], line[-1])

    async def test_everything_is_fetched_without_partial_fetches(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A static file server supports no partial fetches."""
        run_git(fleet.folder, "update-server-info")
        with file_server(fleet.folder) as url:
            snapshot = await opened(url).fetch()
        assert snapshot.revision.commit == line[-1]
        assert held(tmp_path / "cache") == LONG

    async def test_a_short_history_is_complete(
        self, fleet: Fleet, opened: Callable[..., GitSource], commands: list[str]
    ) -> None:
        """A short history is complete: nothing more is requested."""
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
    """Test queries that need older history."""

    @pytest.mark.parametrize("question", ["ancestor", "snapshot", "versions", "merge base"])
    async def test_a_query_about_old_commits_fetches_the_rest_once(
        self,
        fleet: Fleet,
        line: list[str],
        opened: Callable[..., GitSource],
        commands: list[str],
        tmp_path: Path,
        question: str,
    ) -> None:
        """Every answer equals that of a complete clone."""
        source = opened(fleet.url)
        await source.fetch()
        commands.clear()
        if question == "ancestor":
            assert await source.is_ancestor(line[3], line[-1])
        elif question == "snapshot":
            assert (await source.snapshot(line[3])).files[0].content == b"version: 3\n"
        elif question == "versions":
            versions = await source.versions("a.yaml", line[-20])
            assert [version.commit for version in versions] == line[-21:-121:-1]
        else:
            assert await source.merge_base(line[3], line[-1]) == line[3]

        assert commands.count("fetch") == 1
        assert held(tmp_path / "cache") == LONG
        assert await source.is_ancestor(line[1], line[-1])
        assert not await source.is_ancestor("f" * 40, line[-1])
        assert commands.count("fetch") == 1

    async def test_a_rewritten_branch_is_recognised(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """The two cases look alike if the active commit is older than the fetched history."""
        tree = run_git(fleet.folder, "rev-parse", f"{line[-1]}^{{tree}}")
        unrelated = run_git(fleet.folder, "commit-tree", tree, "-m", "another root")
        source = opened(fleet.url)
        await source.fetch()
        assert not await source.is_ancestor(unrelated, line[-1])

        again = opened(fleet.url, "another")
        fleet.publish(unrelated)
        await again.fetch()
        assert held(tmp_path / "another") == 1
        assert not await again.is_ancestor(line[-1], unrelated)

    @pytest.mark.parametrize("by_id", [True, False])
    async def test_an_old_commit_can_be_the_ref(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], *, by_id: bool
    ) -> None:
        """This includes servers that serve branches only."""
        run_git(fleet.folder, "config", "uploadpack.allowAnySHA1InWant", str(by_id).lower())
        with http_server(fleet.folder.parent) as server:
            server.old_protocol = not by_id
            source = opened(server.url("origin.git"), ref=line[20])
            snapshot = await source.fetch()
            assert snapshot.files[0].content == b"version: 20\n"
            assert await source.is_ancestor(line[5], line[20])
            assert len(await source.versions("a.yaml", line[20])) == 20

    async def test_without_the_server_a_query_is_an_error(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource]
    ) -> None:
        """Local commits can still be queried, and the others later."""
        source = opened(fleet.url)
        await source.fetch()
        away = fleet.folder.rename(fleet.folder.with_name("away.git"))
        with pytest.raises(SourceError, match="repository does not exist"):
            await source.is_ancestor(line[3], line[-1])
        assert not await source.is_ancestor(line[3], line[-1], deepen=False)
        assert await source.is_ancestor(line[-9], line[-1])
        away.rename(fleet.folder)
        assert await source.is_ancestor(line[3], line[-1])

    async def test_a_server_that_stalls_keeps_the_cache(
        self, fleet: Fleet, line: list[str], opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A partial pack is removed, and the next fetch succeeds."""
        with http_server(fleet.folder.parent) as server:
            source = opened(server.url("origin.git"))
            hasty = opened(server.url("origin.git"), access=GitAccess(timeout=3))
            await source.fetch()
            server.cut = 3000
            with pytest.raises(SourceUnavailable, match="did not finish within 3 s"):
                await hasty.is_ancestor(line[3], line[-1])
            server.cut = 0
            server.gate.set()
            assert held(tmp_path / "cache") == FETCHED
            assert not list((tmp_path / "cache").rglob("tmp_pack_*"))
            assert not list((tmp_path / "cache").rglob("*.lock"))
            assert (await source.fetch()).revision.commit == line[-1]
            assert await source.is_ancestor(line[3], line[-1])

    async def test_the_rest_counts_towards_the_size_limit(
        self, fleet: Fleet, opened: Callable[..., GitSource]
    ) -> None:
        """The error names the setting; the local commits stay."""
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

    async def test_replicas_on_one_cache_query_concurrently(
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
        answers = await asyncio.gather(
            *(replica.is_ancestor(line[3], line[-1]) for replica in replicas)
        )
        assert answers == [True, True, True]
        assert commands.count("fetch") == 1

    async def test_another_replica_fetches_while_one_compares(
        self,
        fleet: Fleet,
        line: list[str],
        opened: Callable[..., GitSource],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A commit that was missing for the comparison, and is there afterwards, is no damage."""
        source = opened(fleet.url)
        await source.fetch()
        run = Git.run
        compared: list[int] = []

        def overtaken(self: Git, *arguments: str, **options: Any) -> Finished:
            finished = run(self, *arguments, **options)
            if "merge-base" in arguments:
                compared.append(finished.code)
                if len(compared) == 1:
                    folder = arguments[0].removeprefix("--git-dir=")
                    run_git(Path(folder), "fetch", "--quiet", "--unshallow", fleet.url)
            return finished

        monkeypatch.setattr(Git, "run", overtaken)
        assert await source.is_ancestor(line[3], line[-1])
        assert compared == [128, 0]

    @pytest.mark.parametrize("seed", range(3))
    async def test_any_history_answers_like_a_complete_clone(
        self, fleet: Fleet, opened: Callable[..., GitSource], seed: int
    ) -> None:
        """The history has merges, several roots, and branches of very different length."""
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
        complete = opened(fleet.url, "whole")
        await complete.fetch()
        assert not await complete.is_ancestor("f" * 40, tip)  # now it has everything
        expected = await complete.versions("a.yaml", tip)
        assert await source.versions("a.yaml", tip) == expected
        for commit in chance.sample(commits, 12):
            assert await source.is_ancestor(commit, tip) == (commit in before)


class TestLargeFiles:
    """Test that files above the size limit are not fetched, if the server supports that."""

    @pytest.fixture
    def offering(self, fleet: Fleet) -> Fleet:
        """Create a repository that supports filters, as large hosts do."""
        run_git(fleet.folder, "config", "uploadpack.allowFilter", "true")
        return fleet

    @pytest.fixture
    async def both(
        self, opened: Callable[..., GitSource], offering: Fleet
    ) -> Callable[[], Awaitable[Snapshot]]:
        """Return a function that fetches with and without filters, and compares the snapshots."""
        plain = offering.folder.with_name("plain.git")
        plain.mkdir()
        less, complete = opened(offering.url), opened(f"file://{plain}", "whole")

        async def fetch() -> Snapshot:
            shutil.rmtree(plain)
            shutil.copytree(offering.folder, plain)
            run_git(plain, "config", "uploadpack.allowFilter", "false")
            filtered, unfiltered = await less.fetch(), await complete.fetch()
            assert filtered.files == unfiltered.files
            where = [(problem.path, problem.rule) for problem in filtered.problems]
            assert where == [(problem.path, problem.rule) for problem in unfiltered.problems]
            assert filtered.ignored == unfiltered.ignored
            return filtered

        return fetch

    async def test_they_are_left_out_and_reported(
        self, offering: Fleet, both: Callable[[], Awaitable[Snapshot]], tmp_path: Path
    ) -> None:
        """Their contents are not on the disk, unless they may be operarios: those are reported."""
        offering.commit({"video.bin": noise(3 << 20), "was.yaml": text(600_000, 1), "a.yaml": b"a"})
        large = b"# openfero-a-firing\n" + text(700_000, 3)
        offering.commit(
            {"was.yaml": text(1000, 2), "large.yaml": large, "b.json": text(600_000, 4)}
        )
        offering.publish(offering.write()[-1])
        snapshot = await both()
        assert [file.path for file in snapshot.files] == ["a.yaml", "was.yaml"]
        [problem] = snapshot.problems
        assert (problem.path, problem.rule) == ("large.yaml", "file-too-large")
        assert problem.message == "the file has 700020 bytes, more than 524288"
        assert [entry.path for entry in snapshot.ignored] == ["b.json"]
        # Neither the video nor the version of a file that is small now.
        assert weight(tmp_path / "cache") < 1 << 20
        assert weight(tmp_path / "whole") > 3 << 20

    async def test_where_commits_are_signed_nothing_is_left_out(
        self, offering: Fleet, opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A forge that withholds one file could choose which files are updated."""
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

    async def test_their_changes_are_followed(
        self, offering: Fleet, both: Callable[[], Awaitable[Snapshot]]
    ) -> None:
        """This includes a file that shrinks, which is sent as a delta to a missing one."""
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

    async def test_they_are_reported_after_many_syncs_and_a_restart(
        self,
        offering: Fleet,
        both: Callable[[], Awaitable[Snapshot]],
        opened: Callable[..., GitSource],
    ) -> None:
        """Packs are consolidated in between, and a new source on the cache reads the same."""
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

    async def test_a_lost_file_is_fetched_again(
        self, offering: Fleet, opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """A missing object is not mistaken for a large file that was left out."""
        offering.commit({"a.yaml": b"a: 1\n", "large.yaml": text(700_000, 1)})
        offering.publish(offering.write()[-1])
        before = await opened(offering.url).fetch()
        [cache] = (tmp_path / "cache").glob("*/repository.git")
        lose(cache, next(file.blob for file in before.files))
        assert await opened(offering.url).fetch() == before

    async def test_the_rest_of_the_history_is_fetched_without_them(
        self, offering: Fleet, opened: Callable[..., GitSource], tmp_path: Path
    ) -> None:
        """This includes a large file that existed only long ago."""
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

    async def test_everything_is_fetched_if_the_server_rejects_the_filter(
        self, offering: Fleet, opened: Callable[..., GitSource]
    ) -> None:
        """A host may support only other filters than by size."""
        run_git(offering.folder, "config", "uploadpackfilter.blob:limit.allow", "false")
        large = text(700_000, 1) + b"# openfero-a-firing"
        offering.commit({"a.yaml": b"a: 1\n", "large.yaml": large})
        offering.publish(offering.write()[-1])
        with http_server(offering.folder.parent) as server:
            snapshot = await opened(server.url("origin.git")).fetch()
        [problem] = snapshot.problems
        assert problem.message == f"the file has {len(large)} bytes, more than 524288"


def noise(size: int) -> bytes:
    """Return incompressible bytes."""
    return Random(size).randbytes(size)  # noqa: S311, not a secret


def text(size: int, seed: int) -> bytes:
    """Return a YAML file of this size in bytes that is hardly compressible."""
    chance = Random(seed)  # noqa: S311, not a secret
    lines = (f"k{number}: {chance.getrandbits(240):x}\n" for number in itertools.count())
    content = bytearray()
    while len(content) < size:
        content += next(lines).encode()
    return bytes(content[:size])


def weight(cache: Path) -> int:
    """Return the size of a cache's packs in bytes."""
    return sum(pack.stat().st_size for pack in cache.glob("*/repository.git/objects/pack/*.pack"))


def tangle(fleet: Fleet, chance: Random, count: int) -> list[str]:
    """Write commits of zero to three parents each, and return their ids in order."""
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
