"""The mirror of the catalog is consistent even if its writer crashes between two writes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.mirror import HEAD, head_report, read_history, write_mirror
from openfero_gitops.catalog.mirrorer import Mirrorer, load_mirror, restore_from_mirror
from openfero_gitops.catalog.revisions import Activation, RevisionHistory
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Snapshot, blob_id
from openfero_gitops.domain.errors import (
    ApiError,
    Conflict,
    Forbidden,
    SourceError,
    SourceUnavailable,
    Throttled,
    Unavailable,
)
from openfero_gitops.domain.location import Location
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.domain.sync_report import SyncReport
from openfero_gitops.leadership.term import TermEnded
from tests.support.build import REVISION, minutes, seconds
from tests.support.workers import (
    Commits,
    Wire,
    World,
    in_background,
    in_virtual_time,
    new_term,
    none,
    operario_file,
    seconds_so_far,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from openfero_gitops.catalog.mirror import Mirror
    from openfero_gitops.cluster.api import Object
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.sync import SyncStatus
    from openfero_gitops.leadership.term import LeaseTerm
    from tests.support.relay import Act, Request

NAMESPACE = "controller"
#: Padding of a file, so that a ConfigMap of the size below has room for only two files.
LONG = "# Reviewed.\n" * 60
SHARD_BYTES = 3000
REFUSED = RefusedRevision("e" * 40, "its openfero.yaml is gone", "2026-11-21T03:04:05Z")


@pytest.fixture(autouse=True)
def _small_config_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the size of a shard, so that a few short files need several ConfigMaps."""
    monkeypatch.setattr("openfero_gitops.catalog.mirror._MAX_SHARD_BYTES", SHARD_BYTES)


class Crash(Exception):
    """The process crashes."""


#: What `Commits` is.
FOLLOWED = Location("https://git.example/ops", "main", "")
ELSEWHERE = [
    replace(FOLLOWED, repository="https://git.example/other"),
    replace(FOLLOWED, repository="git@git2.example:ops"),
    replace(FOLLOWED, ref="production"),
    replace(FOLLOWED, ref="HEAD"),
    replace(FOLLOWED, root="jobs"),
]


def failing(error: Exception) -> Callable[[str], Awaitable[None]]:
    """Return a `trouble` that fails every operation."""

    async def trouble(_: str) -> None:
        raise error

    return trouble


class Desk:
    """The mirrorer of a leader, and the cluster it writes to."""

    def __init__(self, source: Commits | None = None, *, location: Location | None = None) -> None:
        self.world = World()
        self.wire = Wire(self.world.cluster)
        self.store = ConfigMapStore(self.wire, NAMESPACE)
        self.source = source or Commits()
        self.syncer = Syncer(
            source=self.source,
            scope=Scope(),
            counts=self,
            now=self.world.now,
            clock=seconds_so_far,
            location=location,
        )
        self.mirrorer = Mirrorer(self.store, self.syncer)

    def synced(self, status: SyncStatus) -> None:
        """Ignore the end of a sync."""

    async def sync(self, **files: str | None) -> Snapshot:
        """Commit files (`disk` is disk.yaml), sync, and return the active snapshot."""
        self.source.commit({f"{name}.yaml": text for name, text in files.items()})
        await self.syncer.sync()
        return snapshot_of(self.syncer.catalog)

    def activate(self, catalog: Catalog) -> None:
        """Activate a catalog that another desk built."""
        self.syncer.catalog = catalog
        self.syncer.status = replace(
            self.syncer.status, revision=catalog.revision, origin="git", error=None
        )

    @asynccontextmanager
    async def mirroring(self, term: LeaseTerm | None = None) -> AsyncIterator[None]:
        """Run the mirrorer during the block, which begins after the first pass."""
        async with in_background(self.mirrorer.run(term or new_term("a"))):
            await asyncio.sleep(1)
            yield

    async def load(self) -> tuple[Snapshot, RefusedRevision | None] | None:
        """Read the mirror as a starting replica does, over a separate connection."""
        return await load_mirror(ConfigMapStore(self.world.cluster, NAMESPACE))

    async def stored(self) -> dict[str, Object]:
        """Return every ConfigMap by name."""
        config_maps = await self.world.cluster.list(CONFIG_MAPS, NAMESPACE)
        return {item["metadata"]["name"]: item for item in config_maps.items}

    def writes(self) -> list[Request]:
        """Return the requested writes."""
        return self.wire.writes(CONFIG_MAPS)

    async def drop(self, name: str) -> None:
        """Delete a ConfigMap as a user does."""
        await self.world.cluster.delete(CONFIG_MAPS, NAMESPACE, name)

    async def put(self, body: Object) -> None:
        """Create a ConfigMap as a user does."""
        metadata = {key: body["metadata"].get(key) for key in ("name", "labels")}
        await self.world.cluster.create(CONFIG_MAPS, NAMESPACE, {**body, "metadata": metadata})


def snapshot_of(catalog: Catalog | None) -> Snapshot:
    """Return the snapshot that the mirror of a catalog contains."""
    assert catalog is not None
    files = tuple(sorted(catalog.files, key=lambda file: file.path))
    return Snapshot(catalog.revision, catalog.root, files)


def names_of(snapshot: Snapshot) -> set[str]:
    """Return the names of the ConfigMaps in the mirror of a snapshot."""
    mirror = write_mirror(snapshot, NAMESPACE)
    return {config_map["metadata"]["name"] for config_map in (mirror.head, *mirror.shards)}


async def unreachable(_: str) -> None:
    """Fail an operation of the source."""
    raise SourceUnavailable("the network is unreachable")


async def reachable(_: str) -> None:
    """Let an operation of the source succeed."""


async def two_catalogs() -> tuple[Catalog, Catalog]:
    """Return a catalog of eight long files, and a later one with changed, new and removed files."""
    desk = Desk()
    files = {f"op{number}": operario_file(f"op{number}", more=LONG) for number in range(8)}
    await desk.sync(openfero="limits: {concurrent: 3}\n", **files)
    old = desk.syncer.catalog
    await desk.sync(
        op1=operario_file("op1", "changed", LONG),
        op5=operario_file("op5", "changed", LONG),
        op6=None,
        op9=operario_file("op9", more=LONG),
    )
    new = desk.syncer.catalog
    assert old is not None
    assert new is not None
    return old, new


class TestWriting:
    """The content of the mirror."""

    @in_virtual_time
    async def test_a_starting_replica_reads_the_active_catalog(self) -> None:
        """It reads all files, stale ones with their commits, and the last refusal."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        await desk.sync(openfero="limits: {concurrent: 3}\n", disk="kind: Job\nspec: {\n")
        await desk.sync(openfero="limit: 3\n", node=operario_file("node", "new"))
        async with desk.mirroring():
            loaded = await desk.load()
        assert loaded is not None
        snapshot, refused = loaded
        assert snapshot == snapshot_of(desk.syncer.catalog)
        assert [(file.path, file.stale) for file in snapshot.files] == [
            ("disk.yaml", True),
            ("node.yaml", False),
            ("openfero.yaml", False),
        ]
        assert refused == desk.syncer.status.refused
        assert refused is not None

    @in_virtual_time
    async def test_it_records_which_commits_were_active(self) -> None:
        """Across leaders, lost heads and older heads; a head that is not signed begins anew."""
        desk = Desk()
        secrets = [b"the key of the mirror"]
        began = desk.world.now()
        desk.mirrorer = Mirrorer(desk.store, desk.syncer, lambda: secrets, tolerance=minutes(2))
        first = (await desk.sync(disk=operario_file("disk"))).revision.commit
        async with desk.mirroring():
            await asyncio.sleep(100)
            older = (await desk.stored())[HEAD]
            second = (await desk.sync(disk=operario_file("disk", "new"))).revision.commit
            await asyncio.sleep(1)
            expected = RevisionHistory(
                (
                    Activation(first, began, REVISION.author),
                    Activation(second, began + seconds(101), REVISION.author),
                ),
                minutes(2),
            )
            assert read_history((await desk.stored())[HEAD], secrets) == expected
            for forged in (None, older):
                await desk.drop(HEAD)
                if forged is not None:
                    await desk.put(forged)
                await asyncio.sleep(61)
                assert read_history((await desk.stored())[HEAD], secrets) == expected
        desk.mirrorer = Mirrorer(desk.store, desk.syncer, lambda: secrets, tolerance=minutes(2))
        async with desk.mirroring():
            assert read_history((await desk.stored())[HEAD], secrets) == expected
        secrets[:] = [b"another key of the mirror"]
        desk.mirrorer = Mirrorer(desk.store, desk.syncer, lambda: secrets, tolerance=minutes(2))
        async with desk.mirroring():
            history = read_history((await desk.stored())[HEAD], secrets)
            assert history.activations == expected.activations[1:]

    @in_virtual_time
    async def test_it_is_signed_with_the_first_key_and_again_when_that_changes(self) -> None:
        """A starting replica accepts only a mirror that is signed with one of its keys."""
        desk = Desk()
        keys = [b"the first of the keys"]
        desk.mirrorer = Mirrorer(desk.store, desk.syncer, lambda: keys)
        store = ConfigMapStore(desk.world.cluster, NAMESPACE)
        snapshot = await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            assert await load_mirror(store, lambda: keys) == (snapshot, None)
            with pytest.raises(SourceError, match="not signed with the mirror key"):
                await load_mirror(store, lambda: [b"another, and not in it"])
            keys.insert(0, b"the second of the keys")
            await asyncio.sleep(61)
            assert await load_mirror(store, lambda: keys[:1]) == (snapshot, None)

    @in_virtual_time
    async def test_a_missing_mirror_is_read_as_none(self) -> None:
        """A missing mirror is not an error."""
        assert await Desk().load() is None

    @in_virtual_time
    async def test_a_commit_changes_only_the_affected_config_maps(self) -> None:
        """A commit to one file of a large repository replaces one shard and the head."""
        old, _ = await two_catalogs()
        desk = Desk()
        desk.activate(old)
        async with desk.mirroring():
            assert len(await desk.stored()) >= 4
        [changed] = [
            file.content + b"# Seen again.\n" for file in old.files if file.path == "op3.yaml"
        ]
        files = tuple(
            replace(file, blob=blob_id(changed), content=changed)
            if file.path == "op3.yaml"
            else file
            for file in old.files
        )
        desk.activate(replace(old, files=files))
        desk.wire.requests.clear()
        async with desk.mirroring():
            loaded = await desk.load()
        assert loaded is not None
        assert loaded[0].files == tuple(sorted(files, key=lambda file: file.path))
        assert [request.verb for request in desk.writes()] == ["create", "replace", "delete"]

    @in_virtual_time
    async def test_the_same_catalog_is_not_written_twice(self) -> None:
        """The check every minute writes nothing; a new catalog is written at once.

        The content of a ConfigMap is read once, as long as nobody changes it.
        """
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            desk.wire.requests.clear()
            await asyncio.sleep(3600)
            assert desk.writes() == []
            assert 55 <= len(desk.wire.requests) <= 63
            newest = await desk.sync(node=operario_file("node"))
            await asyncio.sleep(0.1)
            loaded = await desk.load()
        assert loaded == (newest, None)

    @in_virtual_time
    async def test_the_config_maps_are_made_again_only_if_something_changed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A check of what nobody changed costs one list, however many files there are."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        made = []

        def counted(*arguments: Any) -> Mirror:
            made.append(arguments)
            return write_mirror(*arguments)

        monkeypatch.setattr("openfero_gitops.catalog.mirrorer.write_mirror", counted)
        async with desk.mirroring():
            await asyncio.sleep(3600)
            assert len(made) == 2
            (shard,) = (name for name in await desk.stored() if name != HEAD)
            await desk.drop(shard)
            await asyncio.sleep(180)
            assert len(made) == 4
            assert shard in await desk.stored()
        assert desk.mirrorer._mirrored is None, "the catalog is not kept after the term"

    @in_virtual_time
    async def test_a_refusal_is_written_within_a_minute(self) -> None:
        """A refused revision and its reason are added once, without a change of the files."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"), openfero="paused: false\n")
        async with desk.mirroring():
            await desk.sync(openfero="limit: 3\n")
            await asyncio.sleep(61)
            assert await desk.load() == (snapshot, desk.syncer.status.refused)
            desk.wire.requests.clear()
            for _ in range(5):  # each sync refuses it again
                await desk.syncer.sync()
                await asyncio.sleep(61)
        assert desk.writes() == []

    @in_virtual_time
    async def test_a_pause_is_written_at_once(self) -> None:
        """The pause of a refused revision, and its end, are written within a second."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero="paused: false\n")
        async with desk.mirroring():
            await desk.sync(openfero="paused: true\nlimit: 3\n")
            await asyncio.sleep(1)
            fresh = Desk(desk.source)
            await restore_from_mirror(desk.store, fresh.syncer)
            assert fresh.syncer.pause
            await desk.sync(openfero="paused: false\n")
            await asyncio.sleep(1)
        fresh = Desk(desk.source)
        await restore_from_mirror(desk.store, fresh.syncer)
        assert fresh.syncer.catalog is not None
        assert not fresh.syncer.pause

    @in_virtual_time
    async def test_a_pause_is_restored_from_the_head_of_a_damaged_mirror(self) -> None:
        """A starting replica restores the pause from the head if a shard is missing."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero="paused: false\n")
        await desk.sync(openfero="paused: true\nlimit: 3\n")
        async with desk.mirroring():
            pass
        shard = next(name for name in await desk.stored() if name != HEAD)
        await desk.drop(shard)
        fresh = Desk(desk.source)
        await restore_from_mirror(desk.store, fresh.syncer)
        assert fresh.syncer.catalog is None
        assert fresh.syncer.pause

    @in_virtual_time
    async def test_a_leader_with_a_restored_catalog_writes_refusals(self) -> None:
        """A new refusal is added to the restored files, so its pause survives another restart."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"), openfero="paused: false\n")
        async with desk.mirroring():
            pass
        second = Desk(desk.source)
        await restore_from_mirror(desk.store, second.syncer)
        second.mirrorer = Mirrorer(desk.store, second.syncer)
        desk.wire.requests.clear()
        async with second.mirroring():
            assert desk.writes() == []
            desk.source.commit({"openfero.yaml": "paused: true\nlimit: 3\n"})
            await second.syncer.sync()
            await asyncio.sleep(200)
        assert second.syncer.status.origin == "mirror"
        assert [request.verb for request in desk.writes()] == ["replace"]
        third = Desk(desk.source)
        await restore_from_mirror(desk.store, third.syncer)
        assert third.syncer.pause
        assert await desk.load() == (snapshot, second.syncer.status.refused)

    @in_virtual_time
    async def test_the_head_reports_files_with_errors_and_failed_syncs(self) -> None:
        """It names them within a minute, and is written once while nothing changes."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), bad="kind: Job\nspec: [\n")

        async def report() -> SyncReport:
            return head_report((await desk.stored())[HEAD])

        async with desk.mirroring():
            reported = await report()
            assert (reported.operarios, reported.quarantined_files, reported.error) == (1, 1, "")
            assert [file.path for file in reported.quarantined] == ["bad.yaml"]
            assert reported.quarantined[0].message
            desk.source.trouble = unreachable
            await desk.syncer.sync()
            failing_since = desk.syncer.status.failing_since
            assert failing_since is not None
            await asyncio.sleep(61)
            failed = await report()
            assert failed.error == "the network is unreachable"
            assert failed.failing_since == failing_since.replace(microsecond=0)
            assert failed.quarantined == reported.quarantined
            desk.wire.requests.clear()
            await desk.syncer.sync()
            await asyncio.sleep(200)
            assert desk.writes() == []
            desk.source.trouble = reachable
            await desk.sync(bad=None)
            await asyncio.sleep(61)
            assert await report() == SyncReport(operarios=1, kubernetes_version=DEFAULT)

    @in_virtual_time
    async def test_a_leader_with_a_restored_catalog_reports_that_it_cannot_sync(self) -> None:
        """The files that the last leader found stay in the report."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), bad="kind: Job\nspec: [\n")
        async with desk.mirroring():
            pass
        second = Desk(desk.source)
        await restore_from_mirror(desk.store, second.syncer)
        second.mirrorer = Mirrorer(desk.store, second.syncer)
        second.source.trouble = unreachable
        await second.syncer.sync()
        async with second.mirroring():
            await asyncio.sleep(61)
        reported = head_report((await desk.stored())[HEAD])
        assert reported.error == "the network is unreachable"
        assert [file.path for file in reported.quarantined] == ["bad.yaml"]

    @pytest.mark.parametrize("location", ELSEWHERE, ids=str)
    @pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
    @in_virtual_time
    async def test_a_mirror_of_another_location_is_not_used(
        self,
        location: Location,
        damaged: bool,  # noqa: FBT001
    ) -> None:
        """Neither its operarios nor its pause count; both locations are named.

        Without Git nothing is written to it, and what Git then has need not have openfero.yaml.
        """
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero="limits: {concurrent: 1}\n")
        await desk.sync(openfero="paused: true\nlimit: 3\n")
        async with desk.mirroring():
            pass
        if damaged:
            await desk.drop(next(name for name in await desk.stored() if name != HEAD))
        source = Commits(location.root, location.repository, location.ref)
        source.commit({"node.yaml": operario_file("node")})
        fresh = Desk(source, location=location)
        fresh.mirrorer = Mirrorer(desk.store, fresh.syncer)
        await restore_from_mirror(desk.store, fresh.syncer)
        assert fresh.syncer.catalog is None
        assert not fresh.syncer.pause
        before = await desk.stored()
        reason = fresh.syncer.status.why_no_catalog
        if not damaged:
            assert f"the mirror contains {FOLLOWED}, but the settings name {location}" in reason
        async with fresh.mirroring():
            source.trouble = failing(SourceError("no connection"))
            await fresh.syncer.sync()
            await asyncio.sleep(100)
            assert fresh.syncer.catalog is None
            assert "no connection" in fresh.syncer.status.why_no_catalog
            if not damaged:
                assert str(location) in fresh.syncer.status.why_no_catalog
            assert await desk.stored() == before
        if location.root:
            return  # the history is the same, so that the next commit would have to continue it
        source.trouble = Commits().trouble
        await fresh.syncer.sync()
        assert (fresh.syncer.status.error, fresh.syncer.status.unused_mirror) == (None, "")
        assert fresh.syncer.catalog is not None
        assert [operario.name for operario in fresh.syncer.catalog.operarios] == [
            "openfero-node-firing"
        ]

    @in_virtual_time
    async def test_another_spelling_of_the_repository_is_the_same(self) -> None:
        """A mirror that was read over https is used when the settings change to ssh."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            pass
        fresh = Desk(desk.source, location=Location("git@git.example:ops.git", "main", ""))
        await restore_from_mirror(desk.store, fresh.syncer)
        assert snapshot_of(fresh.syncer.catalog) == snapshot

    @pytest.mark.parametrize("origin", ["mirror", "none"])
    @in_virtual_time
    async def test_it_is_not_written_before_the_first_fetch(self, origin: str) -> None:
        """A catalog that was restored from the mirror is not written back."""
        old, new = await two_catalogs()
        desk = Desk()
        if origin == "mirror":
            await desk.syncer.restore(snapshot_of(new), None)
        writer = Desk()
        writer.activate(old)
        async with writer.mirroring():
            stored = await writer.stored()
        for config_map in stored.values():
            await desk.put(config_map)
        async with desk.mirroring():
            await asyncio.sleep(600)
        assert desk.wire.requests == []
        loaded = await desk.load()
        assert loaded == (snapshot_of(old), None)


class TestCrash:
    """A writer crashes, and another leader takes over."""

    @pytest.mark.parametrize("before", ["nothing", "an older catalog"])
    @in_virtual_time
    async def test_after_each_write_a_complete_catalog_is_readable(self, before: str) -> None:
        """After a crash, the mirror is the old or the new catalog; the next leader completes it."""
        old, new = await two_catalogs()

        async def prepared() -> Desk:
            desk = Desk()
            if before != "nothing":
                desk.activate(old)
                async with desk.mirroring():
                    pass
            desk.activate(new)
            desk.wire.requests.clear()
            return desk

        desk = await prepared()
        async with desk.mirroring():
            writes = len(desk.writes())
        assert writes >= 4
        readable = [
            None if before == "nothing" else (snapshot_of(old), None),
            (snapshot_of(new), None),
        ]
        seen: list[Any] = []
        for last in range(writes + 1):
            desk = await prepared()

            async def crash(request: Request, act: Act, desk: Desk = desk, last: int = last) -> Any:
                if request.writes and len(desk.writes()) > last:
                    raise Crash
                return await act()

            desk.wire.trouble = crash
            if last < writes:
                with pytest.raises(Crash):
                    await desk.mirrorer.run(new_term("a"))
                assert len(desk.writes()) == last + 1
            else:
                async with desk.mirroring():
                    pass
            seen.append(await desk.load())
            assert seen[-1] in readable
            desk.wire.trouble = none
            async with desk.mirroring():
                assert await desk.load() == readable[1]
                assert set(await desk.stored()) == names_of(snapshot_of(new))
        assert seen[0] == readable[0]
        assert seen[-1] == readable[1]
        assert seen == sorted(seen, key=readable.index)  # the switch is one write

    @in_virtual_time
    async def test_a_reader_gets_a_complete_catalog_during_a_switch(self) -> None:
        """Old shards can be deleted after a reader has read the old head."""
        old, new = await two_catalogs()
        desk = Desk()
        desk.activate(old)
        async with desk.mirroring():
            pass
        reader = Wire(desk.world.cluster)
        switched = False

        async def trouble(request: Request, act: Act) -> Any:
            nonlocal switched
            if request.name != HEAD and not switched:
                switched = True
                desk.activate(new)
                async with desk.mirroring():
                    pass
            return await act()

        reader.trouble = trouble
        loaded = await load_mirror(ConfigMapStore(reader, NAMESPACE))
        assert switched
        assert loaded == (snapshot_of(new), None)

    @pytest.mark.parametrize("carried_out", [False, True], ids=["request lost", "response lost"])
    @pytest.mark.parametrize(
        "error", [Unavailable("cut off"), Throttled("slow"), Conflict("quota"), Forbidden("no")]
    )
    @in_virtual_time
    async def test_any_failed_write_is_retried(self, error: ApiError, *, carried_out: bool) -> None:
        """Any write can fail, before or after it took effect."""
        old, new = await two_catalogs()
        desk = Desk()
        desk.activate(old)
        async with desk.mirroring():
            pass
        for failing in range(6):
            desk.activate(new if failing % 2 == 0 else old)
            desk.wire.requests.clear()
            failed = False

            async def trouble(request: Request, act: Act, failing: int = failing) -> Any:
                nonlocal failed
                if request.writes and len(desk.writes()) == failing + 1 and not failed:
                    failed = True
                    if carried_out:
                        await act()
                    raise error
                return await act()

            desk.wire.trouble = trouble
            async with desk.mirroring():
                await asyncio.sleep(6)
                assert failed
                assert await desk.load() == (snapshot_of(desk.syncer.catalog), None)
                assert set(await desk.stored()) == names_of(snapshot_of(desk.syncer.catalog))


class TestDrift:
    """Others change the mirror."""

    @pytest.mark.parametrize("damage", ["shard gone", "shard changed", "head gone", "head changed"])
    @in_virtual_time
    async def test_it_is_restored(self, damage: str) -> None:
        """Within a minute, a changed or deleted ConfigMap is restored."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            (shard,) = (
                config_map for name, config_map in (await desk.stored()).items() if name != HEAD
            )
            head = (await desk.stored())[HEAD]
            changed = shard if damage.startswith("shard") else head
            await desk.drop(changed["metadata"]["name"])
            if damage.endswith("changed"):
                changed["data"] = {**changed["data"], "added": "by hand"}
                await desk.put(changed)
            with pytest.raises(SourceError) if damage != "head gone" else capture_logs():
                assert await desk.load() is None
            await asyncio.sleep(61)
            assert await desk.load() == (snapshot, None)
            assert set(await desk.stored()) == names_of(snapshot)

    @in_virtual_time
    async def test_only_orphans_are_removed(self) -> None:
        """ConfigMaps without both labels of the mirror are not changed."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"))
        ours = {keys.MIRROR: "true", keys.MANAGED_BY: keys.MANAGER}
        foreign = {
            "no-labels": {},
            "one-label": {keys.MIRROR: "true"},
            "other-label": {keys.MANAGED_BY: keys.MANAGER},
            "another-s": {keys.MIRROR: "true", keys.MANAGED_BY: "somebody"},
            f"{HEAD}-0123456789": {"app": "openfero"},
        }
        for name, labels in [*foreign.items(), (f"{HEAD}-orphan", ours)]:
            await desk.put({"metadata": {"name": name, "labels": labels}, "data": {"a": "b"}})
        before = await desk.stored()
        async with desk.mirroring():
            await asyncio.sleep(600)
        after = await desk.stored()
        assert set(after) == names_of(snapshot) | set(foreign)
        assert all(after[name] == before[name] for name in foreign)

    @in_virtual_time
    async def test_forged_shards_are_deleted_some_at_a_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ConfigMaps that look like old shards are deleted; their number does not matter."""
        monkeypatch.setattr("openfero_gitops.catalog.mirrorer._MAX_DELETED_AT_ONCE", 10)
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"))
        labels = {keys.MIRROR: "true", keys.MANAGED_BY: keys.MANAGER}
        for number in range(25):
            forged = {"name": f"{HEAD}-{number:032}", "labels": labels}
            await desk.put({"metadata": forged, "data": {"a": "b"}})
        async with desk.mirroring():
            assert len(await desk.stored()) == len(names_of(snapshot)) + 15
            await asyncio.sleep(121)
            assert set(await desk.stored()) == names_of(snapshot)

    @in_virtual_time
    async def test_what_is_not_named_like_a_shard_is_left_alone_and_logged(self) -> None:
        """ConfigMaps with the mirror's labels and another name stay; one warning counts them."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"))
        labels = {keys.MIRROR: "true", keys.MANAGED_BY: keys.MANAGER}
        for number in range(3):
            metadata = {"name": f"precious-{number}", "labels": labels}
            await desk.put({"metadata": metadata, "data": {"a": "b"}})
        with capture_logs() as logs:
            async with desk.mirroring():
                await asyncio.sleep(600)
        assert len(await desk.stored()) == len(names_of(snapshot)) + 3
        (warning,) = (entry for entry in logs if entry["log_level"] == "warning")
        assert "not part of it" in warning["event"]
        assert warning["error"] == "3 of them, such as 'precious-2'"

    @pytest.mark.parametrize("which", ["head", "shard"])
    @in_virtual_time
    async def test_a_foreign_config_map_is_not_overwritten(self, which: str) -> None:
        """One warning is logged; after the ConfigMap is deleted, the mirror is written."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"))
        (shard,) = names_of(snapshot) - {HEAD}
        name = HEAD if which == "head" else shard
        await desk.put({"metadata": {"name": name, "labels": {}}, "data": {"precious": "yes"}})
        before = (await desk.stored())[name]
        with capture_logs() as logs:
            async with desk.mirroring():
                await asyncio.sleep(600)
                assert (await desk.stored())[name] == before
                await desk.drop(name)
                await asyncio.sleep(6)
                assert await desk.load() == (snapshot, None)
        errors = [entry["error"] for entry in logs if entry["log_level"] == "warning"]
        assert len(errors) == 1
        assert f"{NAMESPACE}/{name} exists without the label" in errors[0]

    @pytest.mark.parametrize(
        "damage", ["shard gone", "shard changed", "head changed", "format", "no data"]
    )
    @in_virtual_time
    async def test_a_damaged_mirror_is_an_error(self, damage: str) -> None:
        """A mirror that someone changed is not used as a catalog."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            pass
        (shard,) = (
            config_map for name, config_map in (await desk.stored()).items() if name != HEAD
        )
        head = (await desk.stored())[HEAD]
        damaged = shard if damage.startswith("shard") else head
        await desk.drop(damaged["metadata"]["name"])
        if damage == "shard changed":
            for key, text in damaged["data"].items():
                damaged["data"][key] = text.replace("heal:1", "evil:1")
        elif damage == "head changed":
            damaged["data"]["revision.json"] = damaged["data"]["revision.json"].replace(
                "main", "evil"
            )
        elif damage == "format":
            damaged["data"]["format"] = "2"
        elif damage == "no data":
            del damaged["data"]
        if damage != "shard gone":
            await desk.put(damaged)
        with pytest.raises(SourceError, match="mirror"):
            await desk.load()

    @in_virtual_time
    async def test_a_mirror_of_another_format_is_replaced(self) -> None:
        """A mirror of another format version is an error; the next sync replaces it."""
        desk = Desk()
        labels = {keys.MIRROR: "true", keys.MANAGED_BY: keys.MANAGER}
        data = {"format": "0", "files": "a"}
        await desk.put({"metadata": {"name": HEAD, "labels": labels}, "data": data})
        await desk.put({"metadata": {"name": f"{HEAD}-a", "labels": labels}, "data": {"b": "c"}})
        with pytest.raises(SourceError, match="format '0', but this version reads '1'"):
            await desk.load()
        snapshot = await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            assert await desk.load() == (snapshot, None)
            assert set(await desk.stored()) == names_of(snapshot)

    @in_virtual_time
    async def test_a_failed_read_of_the_mirror_is_an_error(self) -> None:
        """Missing permissions are an error, not a missing mirror."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            pass

        async def trouble(request: Request, act: Act) -> Any:
            if request.name != HEAD:
                raise Forbidden("no right")
            return await act()

        desk.wire.trouble = trouble
        with pytest.raises(Forbidden):
            await load_mirror(desk.store)


class TestTerm:
    """Only the leader writes, and it retries at a limited rate."""

    @in_virtual_time
    async def test_nothing_is_written_after_the_term(self) -> None:
        """When the term ends between any two writes, no further write follows."""
        old, new = await two_catalogs()
        for last in range(6):
            desk = Desk()
            desk.activate(old)
            async with desk.mirroring():
                pass
            desk.activate(new)
            desk.wire.requests.clear()
            term = new_term("b")

            async def end_term(
                _: Request, act: Act, desk: Desk = desk, term: LeaseTerm = term, last: int = last
            ) -> Any:
                if len(desk.writes()) >= last:
                    term.end()
                return await act()

            desk.wire.trouble = end_term
            with pytest.raises(TermEnded):
                async with asyncio.timeout(120):
                    await desk.mirrorer.run(term)
            assert len(desk.writes()) == last
            assert await desk.load() in [(snapshot_of(old), None), (snapshot_of(new), None)]

    @in_virtual_time
    async def test_a_failing_request_is_retried_every_few_seconds(self) -> None:
        """A lasting error is logged once."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))

        async def trouble(_: Request, __: Act) -> Any:
            raise Unavailable("no connection")

        desk.wire.trouble = trouble
        with capture_logs() as logs:
            async with desk.mirroring():
                await asyncio.sleep(600)
                assert 100 <= len(desk.wire.requests) <= 125
                desk.wire.trouble = none
                await asyncio.sleep(6)
                assert await desk.load() == (snapshot_of(desk.syncer.catalog), None)
        assert [entry["error"] for entry in logs if entry["log_level"] == "warning"] == [
            "no connection"
        ]

    @in_virtual_time
    async def test_deletes_have_preconditions(self) -> None:
        """A ConfigMap that was recreated under the same name is not deleted."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            await desk.sync(disk=operario_file("disk", "changed"))
            await asyncio.sleep(1)
        (delete,) = [request for request in desk.writes() if request.verb == "delete"]
        assert all(delete.body)
