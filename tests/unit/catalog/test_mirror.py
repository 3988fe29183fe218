from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfero_gitops.catalog import mirror as mirror_module
from openfero_gitops.catalog.mirror import (
    HEAD,
    Mirror,
    MirrorReader,
    read_mirror,
    read_refused,
    read_revision,
    shard_names,
    with_refused,
    write_mirror,
)
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, blob_id
from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.jobs.names import label_value
from openfero_gitops.sources.tree import Budgets
from tests.support.depth import scaled
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMIT, NEXT, OLDER = "a" * 40, "b" * 40, "c" * 40
REVISION = Revision("https://git.example/ops", "main", COMMIT, "Ada <ada@git.example>", "T1")
REFUSED = RefusedRevision(NEXT, "openfero.yaml is missing", "2026-11-21T03:04:05Z")
#: The maximum size of a ConfigMap in Kubernetes: all keys and values together.
MIB = 1024 * 1024


def file(path: str, content: bytes | str = "kind: Job\n", *, commit: str = "") -> SourceFile:
    """Return a file of the revision or, with an older commit, a stale file of that commit."""
    content = content.encode() if isinstance(content, str) else content
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 (git's)
    if commit:
        return SourceFile(path, blob, content, commit, "Eve", "T0", stale=True)
    return SourceFile(path, blob, content, COMMIT, REVISION.author, REVISION.time)


def snapshot(*files: SourceFile, root: str = "ops") -> Snapshot:
    """Return a snapshot of these files, sorted by path."""
    return Snapshot(REVISION, root, tuple(sorted(files, key=lambda file: file.path)))


def numbered_files(count: int, size: int = 20) -> list[SourceFile]:
    """Return different files of about `size` bytes each."""
    return [file(f"ops/{n:04}.yaml", f"# {n}\n".ljust(size, "x")) for n in range(count)]


def read(mirror: Mirror) -> Snapshot:
    """Read a mirror after a round trip through JSON."""
    head, *shards = json.loads(json.dumps([mirror.head, *mirror.shards]))
    return read_mirror(head, shards)


def names(mirror: Mirror) -> set[str]:
    """Return the names of a mirror's shards."""
    return {shard["metadata"]["name"] for shard in mirror.shards}


def content_bytes(config_map: dict[str, Any]) -> int:
    """Return the size of a ConfigMap as Kubernetes measures it."""
    return sum(len(key) + len(value.encode()) for key, value in config_map["data"].items())


def test_files_are_restored() -> None:
    """Path, blob, content and commit of each file are restored exactly."""
    given = snapshot(
        file("ops/a.yaml", "a: ü\r\n\t☃\n"),
        file("ops/b.yaml", b"\xef\xbb\xbfb: 1\n"),
        file("ops/c.yaml", ""),
        file("ops/d/e f.json", '{"x": "\\u0000"}'),
        file("ops/stale.yaml", "old", commit=OLDER),
        file("ops/openfero.yaml", "paused: false"),
    )

    assert read(write_mirror(given, "ns")) == given


def sha256_file(path: str, content: bytes) -> SourceFile:
    """Return a file of a repository whose IDs are SHA-256."""
    return SourceFile(
        path,
        hashlib.sha256(b"blob %d\0" % len(content) + content).hexdigest(),
        content,
        "a" * 64,
        REVISION.author,
        REVISION.time,
    )


def test_files_of_a_sha256_repository_are_restored() -> None:
    """IDs of 64 digits are restored; the content of each file is compared with its ID."""
    revision = dataclasses.replace(REVISION, commit="a" * 64)
    given = Snapshot(revision, "ops", (sha256_file("ops/a.yaml", b"kind: Job\n"),))

    assert read(write_mirror(given, "ns")) == given


@pytest.mark.parametrize("digits", [40, 41, 63, 64, 65])
def test_content_under_an_id_of_another_hash_is_an_error(digits: int) -> None:
    """No other digest is taken for the ID."""
    content = b"kind: Job\n"
    blob = hashlib.sha512(b"blob %d\0" % len(content) + content).hexdigest()[:digits]
    given = Snapshot(
        REVISION, "ops", (dataclasses.replace(file("ops/a.yaml", content), blob=blob),)
    )

    with pytest.raises(SourceError, match="is incomplete"):
        read(write_mirror(given, "ns"))


def test_signers_are_restored() -> None:
    """The signers of the revision and of stale files are restored."""
    revision = dataclasses.replace(REVISION, verified_signer="ada@git.example SHA256:x")
    current = dataclasses.replace(file("ops/a.yaml"), verified_signer=revision.verified_signer)
    older = file("ops/b.yaml", "b", commit=OLDER)
    signed = dataclasses.replace(file("ops/c.yaml", "c", commit=OLDER), verified_signer="eve y")
    given = Snapshot(revision, "ops", (current, older, signed))

    assert read(write_mirror(given, "ns")) == given


def test_a_signature_is_verified_with_any_of_the_keys() -> None:
    """During a key rotation, a reader accepts the signatures of all its keys."""
    given = snapshot(*numbered_files(3))
    signed_mirror = write_mirror(given, "ns", key=b"new and long enough")

    for mirror_keys in ([b"new and long enough"], [b"another one", b"new and long enough"], []):
        assert read_mirror(signed_mirror.head, signed_mirror.shards, mirror_keys) == given
        assert read_revision(signed_mirror.head, mirror_keys) == given.revision
    assert {**signed_mirror.head["data"], "mark": ""} == {
        **write_mirror(given, "ns").head["data"],
        "mark": "",
    }


def test_a_mirror_with_another_signature_is_rejected() -> None:
    """A mirror without a valid signature is rejected even if all its digests are valid."""
    forged = write_mirror(snapshot(file("ops/evil.yaml")), "ns", key=b"a key of their own")
    signed_mirror = write_mirror(snapshot(*numbered_files(3)), "ns", key=b"the key of the mirror")
    mixed = {
        **forged.head,
        "data": {**forged.head["data"], "mark": signed_mirror.head["data"]["mark"]},
    }

    for head in (forged.head, write_mirror(snapshot(file("ops/evil.yaml")), "ns").head, mixed):
        for read_as in (
            lambda head: read_mirror(head, forged.shards, [b"the key of the mirror"]),
            lambda head: read_revision(head, [b"the key of the mirror"]),
        ):
            with pytest.raises(SourceError, match="is not signed with the mirror key"):
                read_as(head)


@pytest.mark.parametrize("files", [[], numbered_files(1), numbered_files(50)])
def test_any_number_of_files_is_restored(files: list[SourceFile]) -> None:
    """A mirror can contain no file, one file or many files."""
    assert read(write_mirror(snapshot(*files), "ns")) == snapshot(*files)


def test_two_files_with_equal_content_are_restored() -> None:
    """The same blob at two paths is restored as two files."""
    given = snapshot(file("ops/a.yaml", "same"), file("ops/b.yaml", "same", commit=OLDER))

    assert read(write_mirror(given, "ns")) == given


def test_the_order_of_config_maps_does_not_matter() -> None:
    """A snapshot is sorted by path, whatever the order of the shards."""
    given = snapshot(*numbered_files(12, 200_000))
    mirror = write_mirror(given, "ns")

    assert len(mirror.shards) > 2
    assert read_mirror(mirror.head, reversed(mirror.shards)) == given


def test_the_config_maps_have_the_documented_format() -> None:
    """Immutable, labeled ConfigMaps contain the files under their blob ids, and an index."""
    given = snapshot(file("ops/a.yaml", "a"), file("ops/b.yaml", "b", commit=OLDER))
    head, (shard,) = write_mirror(given, "ns").head, write_mirror(given, "ns").shards
    labels = {keys.MIRROR: "true", keys.MANAGED_BY: "openfero-gitops"}

    assert head["metadata"] == {"name": "openfero-catalog", "namespace": "ns", "labels": labels}
    assert "immutable" not in head
    assert shard["metadata"]["labels"] == labels
    assert shard["metadata"]["namespace"] == "ns"
    assert shard["immutable"] is True
    assert (shard["apiVersion"], shard["kind"]) == ("v1", "ConfigMap")
    a, b = given.files
    assert shard["data"] == {
        a.blob: "a",
        b.blob: "b",
        "index.json": canonical_json(
            [
                {"path": "ops/a.yaml", "blob": a.blob, "stale": False},
                {
                    "path": "ops/b.yaml",
                    "blob": b.blob,
                    "stale": True,
                    "commit": OLDER,
                    "commit_author": "Eve",
                    "commit_time": "T0",
                },
            ]
        ),
    }
    digest = hashlib.sha256(canonical_json(shard["data"]).encode()).hexdigest()
    assert shard["metadata"]["name"] == f"openfero-catalog-{digest[:32]}"
    assert label_value(shard["metadata"]["name"]) == shard["metadata"]["name"]
    assert head["data"]["format"] == "1"
    assert json.loads(head["data"]["shards.json"]) == [shard["metadata"]["name"]]


def test_the_head_contains_the_revision_and_the_refused_revision() -> None:
    """The active revision and the refused revision are restored from the head."""
    plain = write_mirror(snapshot(), "ns")
    refused = write_mirror(snapshot(), "ns", REFUSED)

    assert read_refused(plain.head) is None
    assert read_refused(refused.head) == REFUSED
    assert read(refused).revision == REVISION
    assert read(refused).root == "ops"


def test_a_commit_without_changed_files_changes_only_the_head() -> None:
    """A new commit with the same files changes no shard."""
    files = [*numbered_files(30, 60_000), file("ops/stale.yaml", "old", commit=OLDER)]
    before = write_mirror(snapshot(*files), "ns")
    moved = [
        file if file.stale else dataclasses.replace(file, commit=NEXT, commit_time="T2")
        for file in files
    ]
    revision = dataclasses.replace(REVISION, commit=NEXT, time="T2")
    after = write_mirror(dataclasses.replace(snapshot(*moved), revision=revision), "ns")

    assert after.shards == before.shards
    assert after.head != before.head
    assert {file.commit for file in read(after).files} == {NEXT, OLDER}


@pytest.mark.parametrize("index", [0, 7, 29])
def test_a_changed_file_changes_one_shard(index: int) -> None:
    """A commit to one file replaces one shard."""
    files = numbered_files(30, 60_000)
    before = write_mirror(snapshot(*files), "ns")
    changed = [*files[:index], file(files[index].path, "changed"), *files[index + 1 :]]
    after = write_mirror(snapshot(*changed), "ns")

    assert len(names(before)) > 2
    assert len(names(after) - names(before)) == 1
    assert len(names(before) - names(after)) == 1


def test_a_file_that_becomes_stale_changes_one_shard() -> None:
    """The commit of a stale file is in its shard."""
    files = numbered_files(30, 60_000)
    before = write_mirror(snapshot(*files), "ns")
    stale = dataclasses.replace(files[3], commit=OLDER, stale=True)
    after = write_mirror(snapshot(*files[:3], stale, *files[4:]), "ns")

    assert len(names(after) - names(before)) == 1


@pytest.mark.parametrize(
    "files",
    [
        [file(f"ops/{n}.yaml", str(n).ljust(512 * 1024, "x")) for n in range(20)],
        [file(f"ops/{n}.yaml", str(n).ljust(260 * 1024, "☃")[: 87 * 1024]) for n in range(40)],
        numbered_files(8000, 100),
        [file(f"ops/{'d' * 200}/{'é' * 900}{n}.yaml", str(n)) for n in range(1500)],
        [file(f"ops/{n}.yaml", "same", commit=OLDER) for n in range(8000)],
    ],
    ids=["largest", "not ASCII", "many", "long paths", "stale"],
)
def test_every_config_map_is_smaller_than_the_limit(files: list[SourceFile]) -> None:
    """Large files, many files and long paths do not exceed the size limit of Kubernetes."""
    mirror = write_mirror(snapshot(*files), "ns")

    assert max(map(content_bytes, mirror.shards)) < 0.6 * MIB
    assert content_bytes(mirror.head) < 0.6 * MIB
    assert read(mirror) == snapshot(*files)


def test_a_repository_that_is_too_large_is_an_error() -> None:
    """Files that cannot be split into shards are an error."""
    same_place = [file("ops/a.yaml", str(n).ljust(400_000, "x")) for n in range(2)]

    with pytest.raises(SourceError, match="too large"):
        write_mirror(snapshot(*same_place), "ns")


def flipped(text: str, position: int) -> str:
    """Return a text with another character at a position."""
    replacement = "1" if text[position] != "1" else "2"
    return text[:position] + replacement + text[position + 1 :]


@settings(max_examples=scaled(20))
@given(st.data())
def test_a_changed_character_is_detected(data: st.DataObject) -> None:
    """A mirror with a changed character in its head or in a file is rejected."""
    mirror = write_mirror(snapshot(*numbered_files(6)), "ns", REFUSED)
    config_maps = copy.deepcopy([mirror.head, *mirror.shards])
    content = data.draw(st.sampled_from(config_maps))["data"]
    key = data.draw(st.sampled_from(sorted(content)))
    position = data.draw(st.integers(0, len(content[key]) - 1))
    content[key] = flipped(content[key], position)

    with pytest.raises(SourceError, match=r"damaged|format"):
        read_mirror(config_maps[0], config_maps[1:])


def test_an_added_or_removed_key_is_detected() -> None:
    """A mirror with an added or removed key is rejected."""
    mirror = write_mirror(snapshot(*numbered_files(3)), "ns")
    for change in ("add", "remove"):
        head, shard = copy.deepcopy([mirror.head, *mirror.shards])
        for config_map, untouched in ((head, [shard]), (shard, [])):
            damaged = copy.deepcopy(config_map)
            if change == "add":
                damaged["data"]["0" * 40] = "x"
            else:
                damaged["data"].popitem()
            parts = [damaged, *untouched] if untouched else [head, damaged]

            with pytest.raises(SourceError, match=r"damaged|format"):
                read_mirror(parts[0], parts[1:])


def test_a_missing_config_map_is_detected() -> None:
    """A mirror with a deleted shard is rejected."""
    mirror = write_mirror(snapshot(*numbered_files(12, 200_000)), "ns")

    with pytest.raises(SourceError, match=f"ConfigMap {HEAD}-[0-9a-f]{{32}} is missing"):
        read_mirror(mirror.head, mirror.shards[1:])


def test_config_maps_that_the_head_does_not_list_are_ignored() -> None:
    """Shards of an earlier mirror are not read."""
    mirror = write_mirror(snapshot(*numbered_files(3)), "ns")
    earlier = write_mirror(snapshot(file("ops/old.yaml", "old")), "ns")

    assert read_mirror(mirror.head, [*earlier.shards, *mirror.shards]) == snapshot(
        *numbered_files(3)
    )


def head_with(**data: str) -> dict[str, Any]:
    """Return a head with this content and the matching digest."""
    whole = {**write_mirror(snapshot(), "ns").head["data"], **data}
    del whole["digest"]
    digest = hashlib.sha256(canonical_json(whole).encode()).hexdigest()[:32]
    return {"metadata": {"name": HEAD}, "data": {**whole, "digest": digest}}


def revision_json(**members: Any) -> str:
    """Return the JSON of a revision with these members, which may be invalid."""
    merged = {**json.loads(write_mirror(snapshot(), "ns").head["data"]["revision.json"]), **members}
    return json.dumps(merged)


def shard_of(index: str, **data: str) -> dict[str, Any]:
    """Return a shard with this index and the name that matches its content."""
    whole = {**data, "index.json": index}
    digest = hashlib.sha256(canonical_json(whole).encode()).hexdigest()[:32]
    return {"metadata": {"name": f"{HEAD}-{digest}"}, "data": whole}


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        ({"metadata": {"name": HEAD}}, "has format None"),
        ({"metadata": {"name": HEAD}, "data": None}, "has format None"),
        (head_with(format="2"), "format '2', but this version reads '1'"),
        (head_with(**{"shards.json": "{}"}), "shards.json is not a list"),
        (head_with(**{"shards.json": "[1]"}), "shards.json is not a list"),
        (head_with(**{"shards.json": '[""]'}), "shards.json is not a list"),
        (head_with(**{"shards.json": f'["{HEAD}-{"0" * 31}/"]'}), "shards.json is not a list"),
        (head_with(**{"shards.json": "["}), "shards.json cannot be read"),
        (head_with(**{"shards.json": "[" * 100_000}), "shards.json cannot be read"),
        (head_with(**{"revision.json": "[]"}), "revision.json is incomplete"),
        (head_with(**{"revision.json": "{}"}), "revision.json is incomplete"),
        (head_with(**{"revision.json": '{"root": "", "x": 1}'}), "revision.json is incomplete"),
        (head_with(**{"revision.json": revision_json(commit=5)}), "revision.json is incomplete"),
        (head_with(**{"revision.json": revision_json(time=5)}), "revision.json is incomplete"),
        (
            head_with(**{"revision.json": revision_json(verified_signer=True)}),
            "revision.json is incomplete",
        ),
        (head_with(**{"revision.json": revision_json(root=None)}), "revision.json is incomplete"),
        (
            head_with(**{"revision.json": revision_json(ref="\ud800")}),
            "revision.json is incomplete",
        ),
        (head_with(**{"revision.json": ""}), "revision.json cannot be read"),
        (head_with(**{"revision.json": '"' + "x" * 300_000 + '"'}), "revision.json is too long"),
        (
            head_with(**{"shards.json": json.dumps([f"{HEAD}-{n:032x}" for n in range(4200)])}),
            "too large: more than 4096 ConfigMaps",
        ),
    ],
)
def test_an_invalid_head_is_an_error(head: dict[str, Any], complaint: str) -> None:
    """A head of another format version, or with invalid content, is an error."""
    with pytest.raises(SourceError, match=complaint):
        read_mirror(head, [])


def test_a_mirror_that_is_larger_than_a_repository_is_an_error() -> None:
    """Reading ends at the size that a repository may have, however many shards there are."""
    content = "x" * 500_000
    texts = [f"{n:6}{content}" for n in range(200)]
    shards = [
        shard_of(
            json.dumps([{"path": text[:6], "blob": blob_id(text.encode()), "stale": False}]),
            **{blob_id(text.encode()): text},
        )
        for text in texts
    ]
    names = [shard["metadata"]["name"] for shard in shards]
    reader = MirrorReader(head_with(**{"shards.json": json.dumps(names)}))

    def add() -> int:
        for number, shard in enumerate(shards):
            try:
                reader.add(shard["metadata"]["name"], shard)
            except SourceError as error:
                assert "too large: more than 20000 files or 64 MiB" in str(error)  # noqa: PT017
                return number
        return len(shards)

    assert add() == 64 * MIB // 500_006


def test_more_files_than_a_repository_may_have_are_an_error() -> None:
    """A file that is listed again and again counts each time."""
    blob = blob_id(b"")
    index = json.dumps([{"path": f"{n}", "blob": blob, "stale": False} for n in range(20_001)])
    shard = shard_of(index, **{blob: ""})

    with pytest.raises(SourceError, match="too large: more than 20000 files"):
        read_mirror(head_with(**{"shards.json": json.dumps([shard["metadata"]["name"]])}), [shard])


def test_a_mirror_may_have_what_a_repository_may_have() -> None:
    """The limits of reading a mirror are those of reading a repository."""
    assert Budgets().files == mirror_module._MAX_READ_FILES
    assert Budgets().total_bytes == mirror_module._MAX_READ_BYTES


@pytest.mark.parametrize(
    "text",
    [
        '{"commit": "x"}',
        '{"commit": 5, "reason": "x", "time": "x"}',
        '{"commit": "x", "reason": "\\ud800", "time": "x"}',
        "[1]",
        '"x"',
        "0",
        "{}",
        "{",
    ],
)
def test_an_invalid_refused_revision_is_an_error(text: str) -> None:
    """An invalid refused.json is an error, not a missing one."""
    with pytest.raises(SourceError, match=r"refused\.json"):
        read_refused(head_with(**{"refused.json": text}))


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "1",
        "[1]",
        "[{}]",
        '[{"path": "a", "blob": "gone"}]',
        '[{"path": 5, "blob": "index.json", "stale": false}]',
        '[{"path": "\\ud800", "blob": "index.json", "stale": false}]',
        '[{"path": "a", "blob": [], "stale": false}]',
        '[{"path": "a", "blob": "index.json", "stale": false}]',
        '[{"path": "a", "blob": "index.json", "stale": 1}]',
        '[{"path": "a", "blob": "index.json", "stale": true, "commit_time": 5}]',
    ],
)
def test_an_invalid_index_is_an_error(index: str) -> None:
    """A shard with a matching name but an invalid index is an error."""
    shard = shard_of(index)
    head = head_with(**{"shards.json": json.dumps([shard["metadata"]["name"]])})

    with pytest.raises(SourceError, match="damaged"):
        read_mirror(head, [shard])


@pytest.mark.parametrize("mark", ["é", "\0", "", None])
def test_an_invalid_signature_is_an_error(mark: str | None) -> None:
    """A head with an invalid or missing signature is rejected."""
    head = write_mirror(snapshot(), "ns", key=b"the key of the mirror").head
    data = {name: text for name, text in head["data"].items() if name != "mark"}
    if mark is not None:
        data["mark"] = mark

    with pytest.raises(SourceError, match="is not signed with the mirror key"):
        shard_names({**head, "data": data}, [b"the key of the mirror"])


#: Arbitrary JSON, most of it close to valid records.
NAMES = st.sampled_from(
    [
        *("repository", "ref", "commit", "author", "time", "verified_signer", "root", "reason"),
        *("paused", "path", "blob", "stale", "commit_author", "commit_time"),
    ]
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=9),
    max_leaves=12,
)


def damaged_record(record: dict[str, Any]) -> st.SearchStrategy[str]:
    """Records with removed and replaced members, or any other JSON or text."""
    members = st.fixed_dictionaries(
        {}, optional={name: st.just(value) | JSON for name, value in record.items()}
    )
    return (members | JSON).map(json.dumps) | TEXT


BLOB = blob_id(b"kind: Job\n")
ENTRY = {"path": "ops/a.yaml", "blob": BLOB, "stale": True, "commit": OLDER, "commit_time": "T"}


@given(
    revision=damaged_record(json.loads(revision_json())),
    refused=damaged_record({**dataclasses.asdict(REFUSED), "paused": True}),
    index=st.lists(damaged_record(ENTRY).filter(lambda text: text[:1] == "{"), max_size=2).map(
        lambda entries: f"[{','.join(entries)}]"
    )
    | JSON.map(json.dumps),
    shards=st.none() | JSON.map(json.dumps),
    mark=st.none() | TEXT,
)
def test_arbitrary_content_does_not_crash_a_reader(
    revision: str, refused: str, index: str, shards: str | None, mark: str | None
) -> None:
    """A mirror with valid digests and arbitrary content is read, or is a SourceError."""
    shard = shard_of(index, **{BLOB: "kind: Job\n"})
    names_of = json.dumps([shard["metadata"]["name"]]) if shards is None else shards
    head = head_with(
        **{"revision.json": revision, "refused.json": refused, "shards.json": names_of}
    )
    if mark is not None:
        head["data"]["mark"] = mark
    snapshots: list[Snapshot] = []
    for mirror_keys in ([], [b"the key of the mirror"]):
        with contextlib.suppress(SourceError):
            snapshots.append(read_mirror(head, [shard], mirror_keys))
        with contextlib.suppress(SourceError):
            assert type(read_revision(head, mirror_keys).commit) is str
    with contextlib.suppress(SourceError):
        refused_revision = read_refused(head)
        assert refused_revision is None or type(refused_revision.paused) is bool
    for mirrored in snapshots:
        assert read(write_mirror(mirrored, "ns")).revision == mirrored.revision
        assert {type(part.path) for part in mirrored.files} <= {str}


def test_the_pause_of_a_refused_revision_is_restored() -> None:
    """A value of paused that is not a boolean pauses; a missing one does not."""
    paused = dataclasses.replace(REFUSED, paused=True)

    assert read_refused(write_mirror(snapshot(), "ns", paused).head) == paused
    assert read_refused(write_mirror(snapshot(), "ns", REFUSED).head) == REFUSED
    odd = {**dataclasses.asdict(REFUSED), "paused": "since tuesday"}
    assert read_refused(head_with(**{"refused.json": json.dumps(odd)})) == paused


def test_a_refusal_can_be_added_to_a_head() -> None:
    """Only the refused revision, the digest and the signature change."""
    key = b"the key of the mirror"
    paused = dataclasses.replace(REFUSED, paused=True)
    before = write_mirror(snapshot(*numbered_files(3)), "ns", key=key)

    updated = with_refused(before.head, "ns", paused, key)

    assert updated == write_mirror(snapshot(*numbered_files(3)), "ns", paused, key).head


def test_the_names_of_the_shards_are_read_from_the_head() -> None:
    """The head lists the names of all shards."""
    mirror = write_mirror(snapshot(*numbered_files(12, 200_000)), "ns")

    assert set(shard_names(mirror.head)) == names(mirror)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))
    )
)
def test_any_text_is_restored(contents: dict[str, str]) -> None:
    """Any path and any content in UTF-8 is restored unchanged."""
    given_files = snapshot(*(file(path, text) for path, text in contents.items()))

    assert read(write_mirror(given_files, "ns")) == given_files


def paths_of(files: Iterable[SourceFile]) -> list[str]:
    """Return the paths of files."""
    return [file.path for file in files]


def test_the_same_files_give_the_same_config_maps() -> None:
    """The mirror does not depend on the order of the files."""
    files = numbered_files(20, 60_000)
    mirror = write_mirror(Snapshot(REVISION, "ops", tuple(files)), "ns")
    reordered = write_mirror(Snapshot(REVISION, "ops", tuple(reversed(files))), "ns")

    assert mirror == reordered
    assert paths_of(read(reordered).files) == paths_of(files)


def test_a_mirror_of_the_first_release_is_readable() -> None:
    """A stored mirror of format 1 without signers is read completely."""
    stored = json.loads((FIXTURES / "mirrors" / "first-release.json").read_text())
    snapshot = read_mirror(stored["head"], stored["shards"])
    assert (snapshot.revision.commit, snapshot.root) == ("1" * 40, "ops")
    assert [(file.path, file.commit[0], file.stale) for file in snapshot.files] == [
        ("ops/disk.yaml", "1", False),
        ("ops/node.yaml", "0", True),
        ("ops/openfero.yaml", "1", False),
    ]
    refused = read_refused(stored["head"])
    assert refused == RefusedRevision("e" * 40, "its openfero.yaml is gone", "2026-11-21T03:04:05Z")


def test_additional_members_of_a_later_version_are_ignored() -> None:
    """After a rollback, the older version can read the mirror of the newer one."""
    mirror = write_mirror(snapshot(*numbered_files(2)), "ns", REFUSED)
    extended = {
        name: canonical_json({**json.loads(mirror.head["data"][name]), "later": [1]})
        for name in ("revision.json", "refused.json")
    }
    head = head_with(**{**mirror.head["data"], **extended})
    assert read_mirror(head, mirror.shards) == snapshot(*numbered_files(2))
    assert read_refused(head) == REFUSED
