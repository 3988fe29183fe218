"""Known failures of other tools that follow a repository, which this one does not have.

Each test's docstring names the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from openfero_gitops.app import Controller
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.settings import load_settings
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.descendants import descendants, wait_gone
from tests.support.follower import NAMESPACE, Follower
from tests.support.git_servers import http_server, ssh_server
from tests.support.paths import ROOT
from tests.support.process import free_port
from tests.support.replica import alert, group
from tests.support.repository import Repository
from tests.support.workers import operario_file, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openfero_gitops.domain.catalog import Snapshot
    from openfero_gitops.web.server import Address
    from tests.support.git_servers import HttpServer


DISK = "openfero-disk-firing"
NOISE = 3_000_000  # bytes
PATIENCE = 300.0  # seconds


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one operario."""
    repository = Repository(tmp_path / "served" / "origin")
    repository.write("disk.yaml", operario_file("disk", "1"))
    repository.commit("First")
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[HttpServer]:
    """Start an HTTP server for that repository."""
    with http_server(repository.folder.parent) as made:
        yield made


def change(repository: Repository, text: str) -> str:
    """Commit another version of the operario."""
    repository.write("disk.yaml", operario_file("disk", text))
    return repository.commit(text)


def written(folder: Path) -> int:
    """Return the total size of the files below a folder."""
    sizes = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            sizes += file.lstat().st_size
    return sizes


def leftovers(folder: Path) -> list[Path]:
    """Return the partial packs and lock files below a folder."""
    return [*folder.rglob("tmp_*"), *folder.rglob("*.lock")]


def bare(cache: Path) -> Path:
    """Return the only bare repository in a cache."""
    [folder] = cache.iterdir()
    return folder / "repository.git"


def damage(repository: Path) -> None:
    """Overwrite the middle of every pack with zeros."""
    for pack in repository.glob("objects/pack/*.pack"):
        content = bytearray(pack.read_bytes())
        content[20:-20] = b"\0" * len(content[20:-20])
        pack.chmod(0o600)
        pack.write_bytes(content)


def leave_locks(repository: Path, *, age: float) -> None:
    """Create the lock files that a git left that was killed so many seconds ago."""
    names = ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock"]
    tips = [f"{tip}.lock" for tip in (repository / "refs" / "openfero" / "tip").iterdir()]
    for lock in [*(repository / name for name in names), *map(Path, tips)]:
        lock.touch()
        os.utime(lock, (time.time() - age, time.time() - age))


async def test_a_refused_revision_does_not_fall_open_to_an_old_one(
    repository: Repository, tmp_path: Path
) -> None:
    """argo-cd #29716: a rejected revision was replaced by one 3,401 commits older.

    Here the newest acceptable revision is used, whether a replica saw it, starts with the mirror or
    starts empty; if the mirror's files are lost, none is used rather than an older one.
    """
    for number in range(30):
        good = change(repository, str(number))
    cluster = MemoryCluster()
    witness = Follower(repository.url, tmp_path / "one", cluster=cluster)
    await witness.sync()
    await witness.mirror()
    repository.write("openfero.yaml", "limit: 3\n")
    repository.commit("Refused")
    restarted = Follower(repository.url, tmp_path / "two", cluster=cluster)
    fresh = Follower(repository.url, tmp_path / "three")

    for replica in (witness, restarted, fresh):
        await replica.start()
        await replica.sync()

        assert replica.active == {DISK: good}
        assert "limit" in replica.error
        await replica.aclose()
    await cluster.close()


async def test_no_content_is_kept_under_a_commit_that_it_is_not_of(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """argo-cd #26530: the former content of a checkout was cached under the new SHA.

    Between the commits, fetches are interrupted, time out and are cancelled, and another source
    fetches another branch into the same cache: every snapshot equals what git shows of its commit.
    """
    url = server.url("origin")
    made = GitSource(GitSettings(url, tmp_path / "cache", ref="main", access=GitAccess(timeout=30)))
    hasty = GitSource(
        GitSettings(url, tmp_path / "cache", ref="main", access=GitAccess(timeout=0.5))
    )
    second_branch = GitSource(GitSettings(url, tmp_path / "cache", ref="other"))
    repository.git("branch", "other")

    def shows(snapshot: Snapshot) -> None:
        [file] = snapshot.files
        held = repository.git("show", f"{snapshot.revision.commit}:disk.yaml")
        assert file.content.decode().rstrip("\n") == held
        assert not file.commit  # that of the revision

    for number in range(8):
        commit = change(repository, f"version {number}")
        match number % 4:
            case 1:
                server.gate.clear()
                with pytest.raises(SourceUnavailable):
                    await hasty.fetch()
                server.gate.set()
            case 2:
                fetching = asyncio.create_task(made.fetch())
                await asyncio.sleep(0.01 * number)
                fetching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    shows(await fetching)
            case 3:
                for snapshot in await asyncio.gather(second_branch.fetch(), made.fetch()):
                    shows(snapshot)
        snapshot = await made.fetch()
        assert snapshot.revision.commit == commit
        shows(snapshot)
    for source in (made, hasty, second_branch):
        await source.aclose()


async def test_fetches_that_time_out_leave_nothing_on_the_disk(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """argo-cd #18831: fetches that timed out left tens of GiB of `tmp_pack_*`."""
    cache = tmp_path / "cache"
    patient = GitSource(GitSettings(server.url("origin"), cache))
    hasty = GitSource(GitSettings(server.url("origin"), cache, access=GitAccess(timeout=3)))
    await patient.fetch()
    before = written(cache)
    repository.write("noise.bin", os.urandom(NOISE))
    commit = change(repository, "with much beside it")
    server.cut = NOISE // 2

    stalled = 0
    for _ in range(20):
        with pytest.raises(SourceError, match="did not finish within 3 s"):
            await hasty.fetch()
        stalled += not server.gate.is_set()  # (A slow machine may not reach the gate in time.)
        server.gate.set()
        assert leftovers(cache) == []
        assert written(cache) < before + 10_000
        if stalled == 2:
            break
    assert stalled

    server.cut = 0
    assert (await patient.fetch()).revision.commit == commit
    for source in (patient, hasty):
        await source.aclose()


async def test_a_hung_ssh_does_not_hold_the_lock(repository: Repository, tmp_path: Path) -> None:
    """argo-cd #20785: an ssh process that hung held the lock, and nothing was synced any more."""
    (tmp_path / "sshd").mkdir()
    with ssh_server(tmp_path / "sshd") as sshd:
        settings: dict[str, Any] = {
            "url": sshd.url(repository.folder),
            "cache_dir": tmp_path / "cache",
            "access": GitAccess(ssh_key_file=sshd.key, known_hosts_file=sshd.known_hosts),
        }
        first = GitSource(GitSettings(**settings, ref="main"))
        second = GitSource(GitSettings(**settings, ref="HEAD"))
        settings["access"] = replace(settings["access"], timeout=2)
        hasty = GitSource(GitSettings(**settings, ref="main"))
        before = await first.fetch()
        commit = change(repository, "while it hangs")
        children = descendants()
        sshd.process.signal(signal.SIGSTOP)

        hung = asyncio.create_task(hasty.fetch())
        await until(lambda: descendants() - children)
        started = descendants() - children
        with pytest.raises(SourceUnavailable, match="did not finish within 2 s"):
            await hung
        assert wait_gone(started) == set()
        assert await first.snapshot(before.revision.commit) == before

        sshd.process.signal(signal.SIGCONT)
        for source in (second, first):
            assert (await source.fetch()).revision.commit == commit
        for source in (second, first, hasty):
            await source.aclose()


async def test_a_killed_git_does_not_block_later_ones(
    repository: Repository, server: HttpServer, tmp_path: Path
) -> None:
    """git-sync #986: a leftover `index.lock` made every restart crash again."""
    cache = tmp_path / "cache"
    script = (
        "import asyncio, pathlib, sys\n"
        "from openfero_gitops.sources.git.source import GitSettings, GitSource\n"
        "asyncio.run(GitSource(GitSettings(sys.argv[1], pathlib.Path(sys.argv[2]))).fetch())\n"
    )
    first = GitSource(GitSettings(server.url("origin"), cache))
    await first.fetch()
    await first.aclose()

    for number in range(3):
        repository.write("noise.bin", os.urandom(NOISE // 10))
        commit = change(repository, f"version {number}")
        server.cut = NOISE // 20
        killed = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, server.url("origin"), str(cache)), cwd=ROOT
        )
        await until(lambda: not server.gate.is_set(), PATIENCE)
        below = descendants(killed.pid)
        for pid in [killed.pid, *below]:
            with contextlib.suppress(ProcessLookupError):  # what it has started ends with it
                os.kill(pid, signal.SIGKILL)
        await killed.wait()
        server.cut = 0
        server.gate.set()
        leave_locks(bare(cache), age=61)

        successor = GitSource(GitSettings(server.url("origin"), cache))
        assert (await successor.fetch()).revision.commit == commit
        assert leftovers(cache) == []
        await successor.aclose()


async def test_a_remote_that_is_down_does_not_end_the_controller(
    repository: Repository, tmp_path: Path
) -> None:
    """git-sync #65, #105, #498: the Pod died while the remote was unreachable.

    With a mirror the controller keeps healing. Without one it waits, is not ready, and rejects
    deliveries with a request to retry; both use the repository once it is reachable.
    """
    port = free_port()
    root = repository.folder.parent
    cluster = MemoryCluster()
    url = f"http://127.0.0.1:{port}/origin"
    body = group(alert("disk"))
    async with aiohttp.ClientSession() as http:

        async def status(address: str, path: str) -> int:
            async with http.get(address + path) as answer:
                return answer.status

        async def deliver(address: str) -> int:
            async with http.post(address + "/alerts", json=body) as answer:
                return answer.status

        async with controller(url, tmp_path / "a", cluster) as (bare_one, address):
            await until(lambda: bare_one.syncer.failures > 2, PATIENCE)
            assert await status(address, "/livez") == 200
            assert await status(address, "/readyz") == 503
            assert await deliver(address) == 503
            with http_server(root, port=port):
                await until(lambda: bare_one.syncer.catalog, PATIENCE)
                await until(lambda: bare_one.view.complete, PATIENCE)
                await until(lambda: bare_one.syncer.status.error is None, PATIENCE)
                follower = Follower(url, tmp_path / "m", cluster=cluster)
                await follower.sync()
                await follower.mirror()
                await follower.aclose()
            assert await deliver(address) == 200
        async with controller(url, tmp_path / "b", cluster) as (mirrored, address):
            await until(lambda: mirrored.syncer.failures > 0, PATIENCE)
            await until(lambda: mirrored.view.complete, PATIENCE)
            assert mirrored.syncer.status.origin == "mirror"
            assert await status(address, "/readyz") == 200
            assert await deliver(address) == 200
    await cluster.close()


async def test_a_check_that_fails_does_not_wipe_the_last_good_copy(
    repository: Repository, tmp_path: Path
) -> None:
    """git-sync: its own sanity check failed, and it removed the working copy.

    A damaged copy is replaced only by an intact one: while the remote is down the old copy
    stays on the disk, and the active catalog stays active.
    """
    cache = tmp_path / "cache"
    follower = Follower(repository.url, cache)
    await follower.sync()
    in_force = follower.catalog
    kept = written(bare(cache))
    damage(bare(cache))
    repository.folder.rename(tmp_path / "away")

    for _ in range(3):
        await follower.sync()
        restarted = Follower(repository.url, cache)
        await restarted.sync()
        await restarted.aclose()

        assert follower.catalog is in_force
        assert follower.error
        assert written(bare(cache)) == kept
    (tmp_path / "away").rename(repository.folder)
    commit = change(repository, "it is back")
    await follower.sync()
    assert (follower.commit, follower.error) == (commit, "")
    await follower.aclose()


@contextlib.asynccontextmanager
async def controller(
    url: str, folder: Path, cluster: MemoryCluster
) -> AsyncIterator[tuple[Controller, str]]:
    """Run a controller on an in-memory cluster; yield it and its address."""
    settings = load_settings(
        {
            "repo": url,
            "interval": "1s",
            "listen": "127.0.0.1:0",
            "namespace": NAMESPACE,
            "cache_dir": folder,
        }
    )
    source = GitSource(GitSettings(url, folder))
    made = Controller(
        settings, settings.resolve_namespaces(NAMESPACE), cluster, source, "in memory"
    )
    stop = asyncio.Event()
    listening: asyncio.Future[list[Address]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(made.run(stop, listening.set_result))
    try:
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield made, f"http://127.0.0.1:{listening.result()[0].port}"
        assert not running.done()
    finally:
        stop.set()
        await running
        await source.aclose()
