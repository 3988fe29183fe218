"""What is in force after a crash, on a real API server and a real Git repository."""

from __future__ import annotations

import json
import urllib.error
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.mirror import HEAD, SELECTOR, write_mirror
from openfero_gitops.catalog.mirrorer import Mirrorer, load_mirror
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.catalog import Catalog, Revision, Snapshot
from openfero_gitops.leadership.elector import boottime
from openfero_gitops.leadership.term import LeaseTerm
from tests.support.git_servers import http_server
from tests.support.process import free_port
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.workers import Commits, operario_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from openfero_gitops.domain.sync import SyncStatus
    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

PATIENCE = 300.0
#: Makes a file so long that a ConfigMap of the size below holds only two of them.
LONG = "# Reviewed.\n" * 60


class Crash(BaseException):
    """The process ends here."""


class Dying(ConfigMapStore):
    """A store whose process dies just before one of its writes."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        super().__init__(api, namespace)
        self.left = 1_000_000
        self.written = 0

    def _write(self) -> None:
        if self.written >= self.left:
            raise Crash
        self.written += 1

    async def create(self, body: dict[str, Any]) -> bool:
        """See `ConfigMapStore`."""
        self._write()
        return await super().create(body)

    async def put(self, body: dict[str, Any], check: Callable[[], None]) -> None:
        """See `ConfigMapStore`."""
        self._write()
        await super().put(body, check)

    async def delete(self, body: dict[str, Any]) -> None:
        """See `ConfigMapStore`."""
        self._write()
        await super().delete(body)


class _Uncounted:
    """Nothing is counted here."""

    def synced(self, status: SyncStatus) -> None:
        """A sync ended."""


async def two_catalogs() -> tuple[Catalog, Catalog]:
    """One of eight long files, and the next, which changes, adds and removes some."""
    source = Commits()
    files = {f"op{n}.yaml": operario_file(f"op{n}", more=LONG) for n in range(8)}
    source.commit(files)
    old = build_catalog(await source.fetch(), Scope())
    source.commit(
        {
            "op1.yaml": operario_file("op1", "changed", LONG),
            "op5.yaml": operario_file("op5", "changed", LONG),
            "op6.yaml": None,
            "op9.yaml": operario_file("op9", more=LONG),
        }
    )
    return old, build_catalog(await source.fetch(), Scope())


def in_force(catalog: Catalog) -> Snapshot:
    """What the mirror of a catalog holds."""
    files = tuple(sorted(catalog.files, key=lambda file: file.path))
    return Snapshot(catalog.revision, catalog.root, files)


async def test_a_leader_killed_between_any_two_writes_leaves_a_whole_catalog(
    kubeconfig: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one or the new one, byte for byte; the next leader makes it the new one."""
    monkeypatch.setattr("openfero_gitops.catalog.mirror._MAX_SHARD_BYTES", 3000)
    old, new = await two_catalogs()
    api = await KubernetesApi.connect(kubeconfig)
    store = Dying(api, namespace)
    syncer = Syncer(
        source=Commits(),
        scope=Scope(),
        counts=_Uncounted(),
        now=lambda: pytest.fail("nothing is synced here"),
        clock=boottime,
    )
    term = LeaseTerm("a/1", boottime, float("inf"))

    async def mirror(catalog: Catalog, left: int = 1_000_000) -> int:
        """Mirror a catalog with so many writes left, and return how many were made."""
        syncer.catalog = catalog
        syncer.status = replace(syncer.status, revision=catalog.revision, origin="git")
        store.written, store.left = 0, left
        await Mirrorer(store, syncer)._write(catalog, term)
        return store.written

    try:
        await mirror(old)
        writes = await mirror(new)
        assert writes >= 5
        seen = []
        for left in range(writes):
            await mirror(old)
            with pytest.raises(Crash):
                await mirror(new, left)
            loaded = await load_mirror(ConfigMapStore(api, namespace))
            assert loaded is not None
            seen.append(loaded[0])
            assert seen[-1] in (in_force(old), in_force(new))
            await mirror(new)
            assert await load_mirror(store) == (in_force(new), None)
            left_over = await api.list(CONFIG_MAPS, namespace, label_selector=SELECTOR)
            assert len(left_over.items) == config_maps_of(new)
        assert seen[0] == in_force(old)
        assert seen[-1] == in_force(new)
    finally:
        await api.close()


def config_maps_of(catalog: Catalog) -> int:
    """Of how many ConfigMaps its mirror consists."""
    return 1 + len(write_mirror(in_force(catalog), "ns").shards)


class Desk:
    """A repository and the replicas that come and go."""

    def __init__(self, folder: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str) -> None:
        self.folder = folder
        self.kubeconfig = kubeconfig
        self.kubectl = kubectl
        self.namespace = namespace
        self.port = free_port()
        self.repository = Repository(folder / "operarios")
        self.repository.write("disk.json", operario("Disk"))
        self.repository.commit("Operarios")

    def replica(self, name: str, *, ready: bool = True) -> Replica:
        """One more replica, on a disk of its own."""
        return Replica(
            self.folder,
            name=name,
            kubeconfig=self.kubeconfig,
            namespace=self.namespace,
            repository=f"http://127.0.0.1:{self.port}/{self.repository.folder.name}",
            ready=ready,
        )

    def git(self) -> AbstractContextManager[object]:
        """Serve the repository for as long as the block lasts."""
        return http_server(self.folder, port=self.port)

    def head(self) -> dict[str, Any]:
        """The mirror's head, empty where there is none."""
        where = ("-n", self.namespace, f"--field-selector=metadata.name={HEAD}")
        items = self.kubectl.json("get", "configmaps", *where)["items"]
        return dict(items[0]) if items else {}

    def mirrored(self) -> str:
        """The commit that the mirror holds."""
        data = self.head().get("data") or {}
        return str(json.loads(data["revision.json"])["commit"]) if "revision.json" in data else ""

    def mirror(self) -> str:
        """Mirror the repository's head by a leader that then crashes; the commit."""
        commit = self.repository.head
        with self.git(), self.replica("first") as first:
            first.wait_for(lambda: self.mirrored() == commit, PATIENCE)
            first.kill()
        return commit


@pytest.fixture
def desk(tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str) -> Desk:
    """Give a repository with one operario, and nobody at work yet."""
    return Desk(tmp_path, kubeconfig, kubectl, namespace)


def commit_in_force(replica: Replica) -> str:
    """What a replica works by."""
    revision = replica.get("/api/sync")["revision"]
    return str(revision["commit"]) if revision else ""


def is_ready(replica: Replica) -> bool:
    """Whether a replica says that it is."""
    try:
        replica.read("/readyz")
    except urllib.error.HTTPError as error:
        error.close()
        return False
    return True


def test_a_restart_with_git_down_heals_from_the_mirror_and_goes_on_with_git(desk: Desk) -> None:
    """The Job carries the mirrored commit; a Git that moved on is followed, a rewritten one not."""
    commit = desk.mirror()
    with desk.replica("second") as second:
        assert commit_in_force(second) == commit
        assert second.get("/api/sync")["origin"] == "mirror"
        status, answer = second.deliver(alert("Disk", host="a"))
        assert status == 200
        job = answer["items"][0]["job"]
        found = desk.kubectl.json("get", "job", job, "-n", desk.namespace)
        assert found["metadata"]["annotations"]["openfero.io/commit"] == commit
        desk.repository.write("node.json", operario("Node"))
        newer = desk.repository.commit("More")
        with desk.git():
            second.wait_for(lambda: commit_in_force(second) == newer, PATIENCE)
            second.wait_for(lambda: desk.mirrored() == newer, PATIENCE)
        second.kill()
    desk.repository.folder.rename(desk.folder / "old")
    other = Repository(desk.repository.folder)
    other.write("disk.json", operario("Disk", run_for="forever"))
    rewritten = other.commit("Another history")
    with desk.git(), desk.replica("third") as third:
        third.wait_for(lambda: third.get("/api/sync")["refused"], PATIENCE)
        sync = third.get("/api/sync")
        assert commit_in_force(third) == newer
        assert sync["refused"]["commit"] == rewritten
        assert sync["error"]
        assert third.deliver(alert("Node", host="a"))[0] == 200
        assert desk.mirrored() == newer


def test_a_mirror_of_another_version_is_left_until_git_can_replace_it(desk: Desk) -> None:
    """With Git down nothing is guessed: 503, not ready; with Git back it is written anew."""
    stored = write_mirror(Snapshot(Revision("", "", "0" * 40), "", ()), desk.namespace).head
    stored["data"]["format"] = "0"
    desk.kubectl.create(desk.namespace, stored)
    with desk.replica("second", ready=False) as second:
        second.wait_for(lambda: "has format '0'" in second.process.output, PATIENCE)
        assert not is_ready(second)
        assert second.deliver(alert("Disk", host="a"))[0] == 503
        assert desk.head()["data"]["format"] == "0"
        with desk.git():
            second.wait_for(lambda: is_ready(second), PATIENCE)
            second.wait_for(lambda: desk.head()["data"]["format"] == "1", PATIENCE)
        assert desk.mirrored() == desk.repository.head
        assert second.deliver(alert("Disk", host="a"))[0] == 200
