"""The active catalog after a crash, on a real API server and a real Git repository."""

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
    """The process dies here."""


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
    """Metrics that are ignored."""

    def synced(self, status: SyncStatus) -> None:
        """Ignore a sync."""


async def two_catalogs() -> tuple[Catalog, Catalog]:
    """Return a catalog of eight long files, and the next, with changed, added and removed files."""
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


def mirrored_snapshot(catalog: Catalog) -> Snapshot:
    """Return the snapshot in the mirror of a catalog."""
    files = tuple(sorted(catalog.files, key=lambda file: file.path))
    return Snapshot(catalog.revision, catalog.root, files)


async def test_a_leader_killed_between_any_two_writes_leaves_a_complete_catalog(
    kubeconfig: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror is the old one or the new one, byte for byte; the next leader completes it."""
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
            assert seen[-1] in (mirrored_snapshot(old), mirrored_snapshot(new))
            await mirror(new)
            assert await load_mirror(store) == (mirrored_snapshot(new), None)
            left_over = await api.list(CONFIG_MAPS, namespace, label_selector=SELECTOR)
            assert len(left_over.items) == config_maps_of(new)
        assert seen[0] == mirrored_snapshot(old)
        assert seen[-1] == mirrored_snapshot(new)
    finally:
        await api.close()


def config_maps_of(catalog: Catalog) -> int:
    """Return the number of ConfigMaps in its mirror."""
    return 1 + len(write_mirror(mirrored_snapshot(catalog), "ns").shards)


class Desk:
    """A repository and a changing set of replicas."""

    def __init__(self, folder: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str) -> None:
        self.folder = folder
        self.kubeconfig = kubeconfig
        self.kubectl = kubectl
        self.namespace = namespace
        self.port = free_port()
        self.repository = Repository(folder / "operarios")
        self.repository.write("disk.json", operario("Disk"))
        self.repository.commit("Operarios")

    def replica(self, name: str, *, ready: bool = True, development: bool = True) -> Replica:
        """Start another replica, with its own disk."""
        return Replica(
            self.folder,
            name=name,
            kubeconfig=self.kubeconfig,
            namespace=self.namespace,
            repository=f"http://127.0.0.1:{self.port}/{self.repository.folder.name}",
            ready=ready,
            development=development,
        )

    def git(self) -> AbstractContextManager[object]:
        """Serve the repository within the block."""
        return http_server(self.folder, port=self.port)

    def head(self) -> dict[str, Any]:
        """Return the mirror's head, or an empty object."""
        where = ("-n", self.namespace, f"--field-selector=metadata.name={HEAD}")
        items = self.kubectl.json("get", "configmaps", *where)["items"]
        return dict(items[0]) if items else {}

    def mirrored(self) -> str:
        """Return the commit in the mirror."""
        data = self.head().get("data") or {}
        return str(json.loads(data["revision.json"])["commit"]) if "revision.json" in data else ""

    def mirror(self) -> str:
        """Mirror the repository's head by a leader that then crashes; return the commit."""
        commit = self.repository.head
        with self.git(), self.replica("first", development=False) as first:
            first.wait_for(lambda: self.mirrored() == commit, PATIENCE)
            first.kill()
        return commit


@pytest.fixture
def desk(tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str) -> Desk:
    """Create a repository with one operario, without replicas."""
    return Desk(tmp_path, kubeconfig, kubectl, namespace)


def active_commit(replica: Replica) -> str:
    """Return the active commit of a replica."""
    revision = replica.get("/api/sync")["revision"]
    return str(revision["commit"]) if revision else ""


def is_ready(replica: Replica) -> bool:
    """Whether a replica is ready."""
    try:
        replica.read("/readyz")
    except urllib.error.HTTPError as error:
        error.close()
        return False
    return True


def test_a_restart_with_git_down_heals_from_the_mirror_and_continues_with_git(desk: Desk) -> None:
    """The Job has the mirrored commit; newer commits are followed, rewritten history is not."""
    commit = desk.mirror()
    with desk.replica("second") as second:
        assert active_commit(second) == commit
        assert second.get("/api/sync")["origin"] == "mirror"
        status, answer = second.deliver(alert("Disk", host="a"))
        assert status == 200
        job = answer["items"][0]["job"]
        stored = desk.kubectl.json("get", "job", job, "-n", desk.namespace)
        assert stored["metadata"]["annotations"]["openfero.io/commit"] == commit
        desk.repository.write("node.json", operario("Node"))
        newer = desk.repository.commit("More")
        with desk.git():
            second.wait_for(lambda: active_commit(second) == newer, PATIENCE)
            second.wait_for(lambda: desk.mirrored() == newer, PATIENCE)
        second.kill()
    desk.repository.folder.rename(desk.folder / "old")
    recreated = Repository(desk.repository.folder)
    recreated.write("disk.json", operario("Disk", run_for="forever"))
    rewritten = recreated.commit("Another history")
    with desk.git(), desk.replica("third") as third:
        third.wait_for(lambda: third.get("/api/sync")["refused"], PATIENCE)
        sync = third.get("/api/sync")
        assert active_commit(third) == newer
        assert sync["refused"]["commit"] == rewritten
        assert sync["error"]
        assert third.deliver(alert("Node", host="a"))[0] == 200
        assert desk.mirrored() == newer


def test_a_mirror_of_another_version_is_kept_until_git_can_replace_it(desk: Desk) -> None:
    """With Git down the answer is 503 and not ready; with Git back the mirror is rewritten."""
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
