"""A forged mirror at a restart: what users who can write ConfigMaps can and cannot run."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.mirror import HEAD, write_mirror
from openfero_gitops.catalog.mirrorer import load_mirror, restore_from_mirror
from openfero_gitops.domain.catalog import blob_id
from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.sync import RefusedRevision
from tests.support.follower import NAMESPACE, Follower
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.workers import operario_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openfero_gitops.catalog.mirror import Mirror
    from openfero_gitops.domain.catalog import Snapshot
    from tests.support.cluster import Kubectl

KEY = b"the key of the mirror, long enough"
EVIL = operario_file("disk", "evil").encode()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one operario."""
    repository = Repository(tmp_path / "origin")
    repository.write("disk.yaml", operario_file("disk"))
    repository.commit("Reviewed")
    return repository


async def mirrored(replicas: Callable[..., Follower], *keys: bytes) -> tuple[Follower, Snapshot]:
    """Write a mirror, and return its writer and what it holds."""
    replica = replicas(keys=keys)
    await replica.sync()
    await replica.mirror()
    snapshot, _ = await load_mirror(replica.store) or pytest.fail("there is no mirror")
    return replica, snapshot


async def store(replica: Follower, mirror: Mirror) -> None:
    """Write ConfigMaps over those that are there."""
    for body in (*mirror.shards, mirror.head):
        await replica.store.put(body, lambda: None)


def of_one_file(snapshot: Snapshot, **members: str) -> Snapshot:
    """Return a snapshot of one evil file, under the ID that Git would give it."""
    given = {"blob": blob_id(EVIL), **members}
    return replace(snapshot, files=(replace(snapshot.files[0], content=EVIL, **given),))


@pytest.mark.parametrize("key", [b"", b"another key, of the attacker's own"])
async def test_with_a_key_a_forged_mirror_neither_runs_nor_pauses(
    repository: Repository, replicas: Callable[..., Follower], tmp_path: Path, key: bytes
) -> None:
    """Its files, its revision and its refused revision are all ignored, and Git's are used."""
    writer, snapshot = await mirrored(replicas, KEY)
    refused = RefusedRevision("f" * 40, "made up", "2026-11-21T03:00:00Z", paused=True)
    await store(writer, write_mirror(of_one_file(snapshot), NAMESPACE, refused, key))
    repository.folder.rename(tmp_path / "away")

    replica = replicas(keys=[KEY])
    await replica.start()
    assert replica.syncer.catalog is None
    assert not replica.syncer.pause
    (tmp_path / "away").rename(repository.folder)
    await replica.sync()

    assert replica.error == ""
    assert replica.catalog == writer.catalog
    assert not replica.syncer.pause


async def test_with_a_key_an_old_mirror_can_be_replayed_until_git_is_reached(
    repository: Repository, replicas: Callable[..., Follower], tmp_path: Path
) -> None:
    """An earlier signed mirror is genuine: it runs while Git is down, and no longer."""
    writer, old = await mirrored(replicas, KEY)
    repository.write("disk.yaml", operario_file("disk", "newer"))
    newest = repository.commit("Newer")
    await writer.sync()
    await writer.mirror()
    await store(writer, write_mirror(old, NAMESPACE, key=KEY))
    repository.folder.rename(tmp_path / "away")

    replica = replicas(keys=[KEY])
    await replica.start()
    assert replica.commit == old.revision.commit
    (tmp_path / "away").rename(repository.folder)
    await replica.sync()

    assert replica.commit == newest


async def test_without_a_key_a_forged_revision_stays_until_a_person_acts(
    replicas: Callable[..., Follower],
) -> None:
    """It is reported as a rewritten history, and the message says what to do."""
    writer, snapshot = await mirrored(replicas)
    revision = replace(snapshot.revision, commit="e" * 40)
    await store(writer, write_mirror(replace(of_one_file(snapshot), revision=revision), NAMESPACE))

    replica = replicas()
    await replica.start()
    assert "evil" in str(replica.catalog.operarios)
    assert "does not continue the active commit eeeeeeeeeeee" in replica.error
    assert "--follow-rewrites" in replica.error

    recovered = replicas(follow_rewrites=True)
    await recovered.start()
    assert recovered.catalog == writer.catalog


async def test_other_content_under_the_id_of_a_file_of_git_is_not_used(
    replicas: Callable[..., Follower],
) -> None:
    """It would be remembered under that ID, and go on being used after Git was read."""
    writer, snapshot = await mirrored(replicas)
    forged = of_one_file(snapshot, blob=snapshot.files[0].blob)
    await store(writer, write_mirror(forged, NAMESPACE))

    replica = replicas()
    await restore_from_mirror(replica.store, replica.syncer)
    assert replica.syncer.catalog is None
    await replica.sync()
    assert replica.catalog == writer.catalog
    assert "evil" not in str(replica.catalog.operarios)


@pytest.mark.parametrize(
    "commit", ["--upload-pack=touch /tmp/x", "HEAD", "-h", "main", "\x1b[2J" * 10, "e" * 100_000]
)
async def test_a_revision_that_is_no_commit_reaches_no_command(
    replicas: Callable[..., Follower], commit: str
) -> None:
    """A mirror of something else than a commit is not used, and is no argument of Git's."""
    writer, snapshot = await mirrored(replicas)
    revision = replace(snapshot.revision, commit=commit)
    await store(writer, write_mirror(replace(snapshot, revision=revision), NAMESPACE))

    replica = replicas()
    await replica.start()
    assert replica.error == ""
    assert replica.catalog == writer.catalog


def _no_shards(mirror: Mirror) -> Mirror:
    return replace(mirror, shards=())


def _other_content(mirror: Mirror) -> Mirror:
    [shard] = mirror.shards
    data = {name: text.replace("echo", "evil") for name, text in shard["data"].items()}
    return replace(mirror, shards=({**shard, "data": {**data, "x": "y"}},))


def _index(index: Any) -> Callable[[Mirror], Mirror]:
    """Give the shard another index, under the name that the head lists."""

    def change(mirror: Mirror) -> Mirror:
        [shard] = mirror.shards
        data = {**shard["data"], "index.json": json.dumps(index)}
        return replace(mirror, shards=({**shard, "data": data},))

    return change


@pytest.mark.parametrize(
    "change",
    [
        _no_shards,
        _other_content,
        _index([]),
        _index("x"),
        _index([{"path": "../../etc/passwd", "blob": "0" * 40, "stale": False}]),
        _index([{"path": "\x00\x1b[2J", "blob": "0" * 40, "stale": False}] * 1000),
    ],
    ids=["no shards", "other content", "empty index", "text", "outside", "control characters"],
)
async def test_a_shard_that_was_changed_is_not_used(
    repository: Repository,
    replicas: Callable[..., Follower],
    tmp_path: Path,
    change: Callable[[Mirror], Mirror],
) -> None:
    """Even without a key, what is not what the head says is not used, and no replica ends."""
    writer, snapshot = await mirrored(replicas)
    for stored in write_mirror(snapshot, NAMESPACE).shards:
        present = await writer.store.get(stored["metadata"]["name"])
        assert present is not None
        await writer.store.delete(present)
    await store(writer, change(write_mirror(snapshot, NAMESPACE)))
    repository.folder.rename(tmp_path / "away")

    replica = replicas()
    await replica.start()
    assert replica.syncer.catalog is None
    (tmp_path / "away").rename(repository.folder)
    await replica.sync()
    assert replica.catalog == writer.catalog


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "a\x1b[2J\x00.yaml", "a" * 9000]
)
async def test_a_forged_path_is_text_and_no_file(
    replicas: Callable[..., Follower], repository: Repository, tmp_path: Path, path: str
) -> None:
    """Files of the mirror are content in memory: their paths open and write nothing."""
    writer, snapshot = await mirrored(replicas)
    await store(writer, write_mirror(of_one_file(snapshot, path=path), NAMESPACE))
    repository.folder.rename(tmp_path / "away")

    replica = replicas()
    await replica.start()
    assert [file.path for file in replica.catalog.files] in ([path], [])
    assert "root:" not in str(replica.catalog)


async def test_a_mirror_that_changes_all_the_time_does_not_keep_a_replica_from_starting(
    replicas: Callable[..., Follower],
) -> None:
    """A head that differs at each read is given up after a few, and Git is read."""
    writer, snapshot = await mirrored(replicas)
    broken = write_mirror(snapshot, NAMESPACE).head
    broken["data"]["digest"] = "0" * 32
    await writer.store.put(broken, lambda: None)

    class Scribbled:
        """The store, with an attacker who writes the head between any two reads."""

        namespace = NAMESPACE
        reads = 0

        async def get(self, name: str) -> Any:
            self.reads += 1
            stored = await writer.store.get(name)
            if stored is not None and name == HEAD:
                stored["metadata"]["resourceVersion"] = f"scribbled-{self.reads}"
            return stored

    scribbled = Scribbled()
    async with asyncio.timeout(60):
        with pytest.raises(SourceError, match="was modified"):
            await load_mirror(scribbled)  # type: ignore[arg-type]
    replica = replicas()
    async with asyncio.timeout(60):
        await restore_from_mirror(scribbled, replica.syncer)  # type: ignore[arg-type]
        await replica.sync()
    assert replica.catalog == writer.catalog
    assert scribbled.reads < 100


@pytest.mark.cluster
def test_a_replica_with_git_down_and_a_forged_mirror_waits_for_git(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """With a key it is not ready and answers 503; when Git is back, it is ready with Git's."""
    repository = Repository(tmp_path / "operarios")
    repository.write("web.json", operario("WebDown"))
    repository.commit("Operarios")
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    start: dict[str, Any] = {
        "kubeconfig": kubeconfig,
        "namespace": namespace,
        "repository": repository.url,
        "mirror_key_file": str(key),
        "development": False,
    }
    with Replica(tmp_path, name="first", **start) as first:
        first.wait_for(lambda: HEAD in kubectl("get", "configmaps", "-n", namespace))
    head = kubectl.json("get", "configmap", HEAD, "-n", namespace)
    forged = {name: text for name, text in head["data"].items() if name != "mark"}
    head["data"] = {**forged, "mark": "0" * 64}
    kubectl("replace", "-n", namespace, "-f", "-", stdin=json.dumps(head))
    away = tmp_path / "away"
    repository.folder.rename(away)
    with Replica(tmp_path, name="second", ready=False, **start) as second:
        second.wait_for(lambda: "is not signed with the mirror key" in second.process.output)
        assert second.deliver(alert("WebDown"))[0] == 503
        away.rename(repository.folder)
        second.wait_for(lambda: second.deliver(alert("WebDown"))[0] == 200)
        assert second.get("/api/sync")["origin"] == "git"
