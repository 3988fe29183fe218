"""The catalog's mirror, whose writer dies between any two writes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.mirror import HEAD, write_mirror
from openfero_gitops.catalog.mirrorer import Mirrorer, load_mirror, restore_from_mirror
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Snapshot
from openfero_gitops.domain.errors import (
    ApiError,
    Conflict,
    Forbidden,
    SourceError,
    Throttled,
    Unavailable,
)
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.leadership.term import TermEnded
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
    from collections.abc import AsyncIterator

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.sync import SyncStatus
    from openfero_gitops.leadership.term import LeaseTerm
    from tests.support.relay import Act, Request

NAMESPACE = "controller"
#: Makes a file so long that a ConfigMap of the size below holds only two of them.
LONG = "# Reviewed.\n" * 60
SHARD_BYTES = 3000
REFUSED = RefusedRevision("e" * 40, "its openfero.yaml is gone", "2026-11-21T03:04:05Z")


@pytest.fixture(autouse=True)
def _small_config_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few short files need several ConfigMaps, as hundreds do."""
    monkeypatch.setattr("openfero_gitops.catalog.mirror._MAX_SHARD_BYTES", SHARD_BYTES)


class Crash(Exception):
    """The process ends here."""


class Desk:
    """A leader's mirrorer, and the cluster in which it writes."""

    def __init__(self, source: Commits | None = None) -> None:
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
        )
        self.mirrorer = Mirrorer(self.store, self.syncer)

    def synced(self, status: SyncStatus) -> None:
        """A sync ended: nothing is counted."""

    async def sync(self, **files: str | None) -> Snapshot:
        """Commit files (`disk` is disk.yaml), sync, and return what is in force."""
        self.source.commit({f"{name}.yaml": text for name, text in files.items()})
        await self.syncer.sync()
        return in_force(self.syncer.catalog)

    def hold(self, catalog: Catalog) -> None:
        """Put a catalog into force that another desk has built."""
        self.syncer.catalog = catalog
        self.syncer.status = replace(
            self.syncer.status, revision=catalog.revision, origin="git", error=None
        )

    @asynccontextmanager
    async def mirroring(self, term: LeaseTerm | None = None) -> AsyncIterator[None]:
        """Mirror for as long as the block lasts, which begins when the first pass is over."""
        async with in_background(self.mirrorer.run(term or new_term("a"))):
            await asyncio.sleep(1)
            yield

    async def load(self) -> tuple[Snapshot, RefusedRevision | None] | None:
        """What a replica that starts would read, over a wire of its own."""
        return await load_mirror(ConfigMapStore(self.world.cluster, NAMESPACE))

    async def stored(self) -> dict[str, Object]:
        """Every ConfigMap, by name."""
        listed = await self.world.cluster.list(CONFIG_MAPS, NAMESPACE)
        return {item["metadata"]["name"]: item for item in listed.items}

    def writes(self) -> list[Request]:
        """The writes that were asked for."""
        return self.wire.writes(CONFIG_MAPS)

    async def drop(self, name: str) -> None:
        """Delete a ConfigMap as a person does."""
        await self.world.cluster.delete(CONFIG_MAPS, NAMESPACE, name)

    async def put(self, body: Object) -> None:
        """Create a ConfigMap as a person does."""
        metadata = {key: body["metadata"].get(key) for key in ("name", "labels")}
        await self.world.cluster.create(CONFIG_MAPS, NAMESPACE, {**body, "metadata": metadata})


def in_force(catalog: Catalog | None) -> Snapshot:
    """What the mirror of a catalog holds."""
    assert catalog is not None
    files = tuple(sorted(catalog.files, key=lambda file: file.path))
    return Snapshot(catalog.revision, catalog.root, files)


def names_of(snapshot: Snapshot) -> set[str]:
    """The ConfigMaps that a mirror of this consists of."""
    mirror = write_mirror(snapshot, NAMESPACE)
    return {config_map["metadata"]["name"] for config_map in (mirror.head, *mirror.shards)}


async def two_catalogs() -> tuple[Catalog, Catalog]:
    """One of eight long files, and the next, which changes, adds and removes some."""
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
    """What stands in the API server."""

    @in_virtual_time
    async def test_a_replica_that_starts_reads_what_is_in_force(self) -> None:
        """The files, byte for byte, the stale one with its own commit, and the last refusal."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        await desk.sync(openfero="limits: {concurrent: 3}\n", disk="kind: Job\nspec: {\n")
        await desk.sync(openfero="limit: 3\n", node=operario_file("node", "new"))
        async with desk.mirroring():
            loaded = await desk.load()
        assert loaded is not None
        snapshot, refused = loaded
        assert snapshot == in_force(desk.syncer.catalog)
        assert [(file.path, file.stale) for file in snapshot.files] == [
            ("disk.yaml", True),
            ("node.yaml", False),
            ("openfero.yaml", False),
        ]
        assert refused == desk.syncer.status.refused
        assert refused is not None

    @in_virtual_time
    async def test_it_is_marked_by_the_first_key_and_anew_when_that_changes(self) -> None:
        """A replica that starts takes one that is marked by a key that it has, and no other."""
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
    async def test_without_a_mirror_there_is_nothing_to_read(self) -> None:
        """That is no error: it is how every cluster begins."""
        assert await Desk().load() is None

    @in_virtual_time
    async def test_a_commit_changes_only_what_it_touches(self) -> None:
        """Of a large repository one ConfigMap is written anew, and the head."""
        old, _ = await two_catalogs()
        desk = Desk()
        desk.hold(old)
        async with desk.mirroring():
            assert len(await desk.stored()) >= 4
        files = tuple(
            replace(file, blob="3" * 40, content=file.content + b"# Seen again.\n")
            if file.path == "op3.yaml"
            else file
            for file in old.files
        )
        desk.hold(replace(old, files=files))
        desk.wire.asked.clear()
        async with desk.mirroring():
            loaded = await desk.load()
        assert loaded is not None
        assert loaded[0].files == tuple(sorted(files, key=lambda file: file.path))
        assert [request.verb for request in desk.writes()] == ["create", "replace", "delete"]

    @in_virtual_time
    async def test_the_same_catalog_is_not_written_twice(self) -> None:
        """Looking after it every minute for an hour writes nothing; a swap is written at once."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            desk.wire.asked.clear()
            await asyncio.sleep(3600)
            assert desk.writes() == []
            assert 55 <= len(desk.wire.asked) <= 61
            newest = await desk.sync(node=operario_file("node"))
            await asyncio.sleep(0.1)
            loaded = await desk.load()
        assert loaded == (newest, None)

    @in_virtual_time
    async def test_a_refusal_is_remembered_within_a_minute(self) -> None:
        """The files in force stay; that a newer revision was refused, and why, is added once."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"), openfero="paused: false\n")
        async with desk.mirroring():
            await desk.sync(openfero="limit: 3\n")
            await asyncio.sleep(61)
            assert await desk.load() == (snapshot, desk.syncer.status.refused)
            desk.wire.asked.clear()
            for _ in range(5):  # refused again and again
                await desk.syncer.sync()
                await asyncio.sleep(61)
        assert desk.writes() == []

    @in_virtual_time
    async def test_a_pause_is_remembered_before_anything_can_go_wrong(self) -> None:
        """A refused revision that pauses is noted at once, and its end, too."""
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
    async def test_a_pause_is_remembered_where_the_files_are_damaged(self) -> None:
        """The head tells of it, whatever became of the rest."""
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
    async def test_a_refusal_is_noted_by_whoever_serves_from_the_mirror(self) -> None:
        """What Git says now is written beside the files in force, which stay; what it said is not.

        So a pause outlasts the second restart as it does the first.
        """
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"), openfero="paused: false\n")
        async with desk.mirroring():
            pass
        second = Desk(desk.source)
        await restore_from_mirror(desk.store, second.syncer)
        second.mirrorer = Mirrorer(desk.store, second.syncer)
        desk.wire.asked.clear()
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

    @pytest.mark.parametrize("origin", ["mirror", "none"])
    @in_virtual_time
    async def test_it_is_not_written_before_a_fetch_of_ones_own(self, origin: str) -> None:
        """What came from the mirror proves nothing about Git, and is not written back."""
        old, new = await two_catalogs()
        desk = Desk()
        if origin == "mirror":
            await desk.syncer.restore(in_force(new), None)
        other = Desk()
        other.hold(old)
        async with other.mirroring():
            stored = await other.stored()
        for config_map in stored.values():
            await desk.put(config_map)
        async with desk.mirroring():
            await asyncio.sleep(600)
        assert desk.wire.asked == []
        loaded = await desk.load()
        assert loaded == (in_force(old), None)


class TestCrash:
    """A writer that dies, and its successor."""

    @pytest.mark.parametrize("before", ["nothing", "an older catalog"])
    @in_virtual_time
    async def test_between_any_two_writes_a_whole_catalog_can_be_read(self, before: str) -> None:
        """The old one or the new one, never a mixture; the next leader makes it the new one."""
        old, new = await two_catalogs()

        async def prepared() -> Desk:
            desk = Desk()
            if before != "nothing":
                desk.hold(old)
                async with desk.mirroring():
                    pass
            desk.hold(new)
            desk.wire.asked.clear()
            return desk

        desk = await prepared()
        async with desk.mirroring():
            writes = len(desk.writes())
        assert writes >= 4
        readable = [None if before == "nothing" else (in_force(old), None), (in_force(new), None)]
        seen: list[Any] = []
        for last in range(writes + 1):
            desk = await prepared()

            async def dies(request: Request, act: Act, desk: Desk = desk, last: int = last) -> Any:
                if request.writes and len(desk.writes()) > last:
                    raise Crash
                return await act()

            desk.wire.trouble = dies
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
                assert set(await desk.stored()) == names_of(in_force(new))
        assert seen[0] == readable[0]
        assert seen[-1] == readable[1]
        assert seen == sorted(seen, key=readable.index)  # the switch is one write

    @in_virtual_time
    async def test_a_reader_sees_a_whole_catalog_while_it_is_switched(self) -> None:
        """Old ConfigMaps may go between its reading the head and its reading them."""
        old, new = await two_catalogs()
        desk = Desk()
        desk.hold(old)
        async with desk.mirroring():
            pass
        reader = Wire(desk.world.cluster)
        switched = False

        async def trouble(request: Request, act: Act) -> Any:
            nonlocal switched
            if request.name != HEAD and not switched:
                switched = True
                desk.hold(new)
                async with desk.mirroring():
                    pass
            return await act()

        reader.trouble = trouble
        loaded = await load_mirror(ConfigMapStore(reader, NAMESPACE))
        assert switched
        assert loaded == (in_force(new), None)

    @pytest.mark.parametrize("carried_out", [False, True], ids=["lost", "unheard"])
    @pytest.mark.parametrize(
        "error", [Unavailable("cut off"), Throttled("slow"), Conflict("quota"), Forbidden("no")]
    )
    @in_virtual_time
    async def test_any_failing_write_is_made_good(
        self, error: ApiError, *, carried_out: bool
    ) -> None:
        """Whichever of the writes it is, and whether or not it was carried out unheard."""
        old, new = await two_catalogs()
        desk = Desk()
        desk.hold(old)
        async with desk.mirroring():
            pass
        for failing in range(6):
            desk.hold(new if failing % 2 == 0 else old)
            desk.wire.asked.clear()
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
                assert await desk.load() == (in_force(desk.syncer.catalog), None)
                assert set(await desk.stored()) == names_of(in_force(desk.syncer.catalog))


class TestDrift:
    """What others do to the mirror."""

    @pytest.mark.parametrize("what", ["shard gone", "shard changed", "head gone", "head changed"])
    @in_virtual_time
    async def test_it_is_restored(self, what: str) -> None:
        """Within a minute the mirror is what was written."""
        desk = Desk()
        snapshot = await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            (shard,) = (
                config_map for name, config_map in (await desk.stored()).items() if name != HEAD
            )
            head = (await desk.stored())[HEAD]
            changed = shard if what.startswith("shard") else head
            await desk.drop(changed["metadata"]["name"])
            if what.endswith("changed"):
                changed["data"] = {**changed["data"], "added": "by hand"}
                await desk.put(changed)
            with pytest.raises(SourceError) if what != "head gone" else capture_logs():
                assert await desk.load() is None
            await asyncio.sleep(61)
            assert await desk.load() == (snapshot, None)
            assert set(await desk.stored()) == names_of(snapshot)

    @in_virtual_time
    async def test_orphans_are_removed_and_nothing_else(self) -> None:
        """Ours are told by both labels; what carries neither or one of them is not touched."""
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

    @pytest.mark.parametrize("which", ["head", "shard"])
    @in_virtual_time
    async def test_a_foreign_config_map_in_the_way_is_left_alone(self, which: str) -> None:
        """It is said once that it must go; when a person has removed it the mirror is written."""
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
    async def test_a_damaged_mirror_is_no_catalog(self, damage: str) -> None:
        """Nothing is healed by files that nobody reviewed: reading them is an error."""
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
    async def test_a_mirror_of_another_format_is_written_anew(self) -> None:
        """An older, or a newer, version's is not read; the next sync replaces it, whole."""
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
    async def test_a_mirror_that_cannot_be_read_is_not_taken_for_none(self) -> None:
        """No right to read, or no answer, is the API server's error, not an empty mirror."""
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
    """Only a leader writes, and it does not press a failing API server."""

    @in_virtual_time
    async def test_after_the_term_nothing_is_written(self) -> None:
        """Wherever in its work the leader is when the term ends, that was its last write."""
        old, new = await two_catalogs()
        for last in range(6):
            desk = Desk()
            desk.hold(old)
            async with desk.mirroring():
                pass
            desk.hold(new)
            desk.wire.asked.clear()
            term = new_term("b")

            async def ends(
                _: Request, act: Act, desk: Desk = desk, term: LeaseTerm = term, last: int = last
            ) -> Any:
                if len(desk.writes()) >= last:
                    term.end()
                return await act()

            desk.wire.trouble = ends
            with pytest.raises(TermEnded):
                async with asyncio.timeout(120):
                    await desk.mirrorer.run(term)
            assert len(desk.writes()) == last
            assert await desk.load() in [(in_force(old), None), (in_force(new), None)]

    @in_virtual_time
    async def test_a_failing_api_server_is_asked_every_few_seconds(self) -> None:
        """And the log says each trouble once."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))

        async def trouble(_: Request, __: Act) -> Any:
            raise Unavailable("no connection")

        desk.wire.trouble = trouble
        with capture_logs() as logs:
            async with desk.mirroring():
                await asyncio.sleep(600)
                assert 100 <= len(desk.wire.asked) <= 125
                desk.wire.trouble = none
                await asyncio.sleep(6)
                assert await desk.load() == (in_force(desk.syncer.catalog), None)
        assert [entry["error"] for entry in logs if entry["log_level"] == "warning"] == [
            "no connection"
        ]

    @in_virtual_time
    async def test_deletes_carry_what_was_judged(self) -> None:
        """A ConfigMap that was made anew under an old one's name is not taken for it."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        async with desk.mirroring():
            await desk.sync(disk=operario_file("disk", "changed"))
            await asyncio.sleep(1)
        (delete,) = [request for request in desk.writes() if request.verb == "delete"]
        assert all(delete.body)
