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

from openfero_gitops.catalog.mirror import (
    HEAD,
    Mirror,
    read_mirror,
    read_refused,
    read_revision,
    shard_names,
    with_refused,
    write_mirror,
)
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.jobs.names import label_value
from tests.support.depth import scaled
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMIT, NEXT, OLDER = "a" * 40, "b" * 40, "c" * 40
REVISION = Revision("https://git.example/ops", "main", COMMIT, "Ada <ada@git.example>", "T1")
REFUSED = RefusedRevision(NEXT, "openfero.yaml is missing", "2026-11-21T03:04:05Z")
#: What Kubernetes lets a ConfigMap hold: all keys and values together.
MIB = 1024 * 1024


def file(path: str, content: bytes | str = "kind: Job\n", *, commit: str = "") -> SourceFile:
    """A file as it stands in the revision, or, with an older commit, as it stood there."""
    content = content.encode() if isinstance(content, str) else content
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 (git's)
    if commit:
        return SourceFile(path, blob, content, commit, "Eve", "T0", stale=True)
    return SourceFile(path, blob, content, COMMIT, REVISION.author, REVISION.time)


def snapshot(*files: SourceFile, root: str = "ops") -> Snapshot:
    """These files, in the order that a snapshot has."""
    return Snapshot(REVISION, root, tuple(sorted(files, key=lambda file: file.path)))


def some(count: int, size: int = 20) -> list[SourceFile]:
    """So many files of about so many bytes, all different."""
    return [file(f"ops/{n:04}.yaml", f"# {n}\n".ljust(size, "x")) for n in range(count)]


def read(mirror: Mirror) -> Snapshot:
    """What comes back when the API server has stored it."""
    head, *shards = json.loads(json.dumps([mirror.head, *mirror.shards]))
    return read_mirror(head, shards)


def names(mirror: Mirror) -> set[str]:
    """The names of its ConfigMaps, without the head's."""
    return {shard["metadata"]["name"] for shard in mirror.shards}


def content_bytes(config_map: dict[str, Any]) -> int:
    """What Kubernetes measures."""
    return sum(len(key) + len(value.encode()) for key, value in config_map["data"].items())


def test_the_catalogs_files_come_back() -> None:
    """Paths, blobs, content and where each file stood are what they were, to the byte."""
    given = snapshot(
        file("ops/a.yaml", "a: ü\r\n\t☃\n"),
        file("ops/b.yaml", b"\xef\xbb\xbfb: 1\n"),
        file("ops/c.yaml", ""),
        file("ops/d/e f.json", '{"x": "\\u0000"}'),
        file("ops/stale.yaml", "old", commit=OLDER),
        file("ops/openfero.yaml", "paused: false"),
    )

    assert read(write_mirror(given, "ns")) == given


def test_the_signers_come_back() -> None:
    """The revision's, which is that of its files, and of each older version its own or none."""
    revision = dataclasses.replace(REVISION, verified_signer="ada@git.example SHA256:x")
    current = dataclasses.replace(file("ops/a.yaml"), verified_signer=revision.verified_signer)
    older = file("ops/b.yaml", "b", commit=OLDER)
    other = dataclasses.replace(file("ops/c.yaml", "c", commit=OLDER), verified_signer="eve y")
    given = Snapshot(revision, "ops", (current, older, other))

    assert read(write_mirror(given, "ns")) == given


def test_a_mark_is_made_by_a_key_and_accepted_by_any_that_made_it() -> None:
    """While a key is changed, the old one and the new one are accepted."""
    given = snapshot(*some(3))
    marked = write_mirror(given, "ns", key=b"new and long enough")

    for keys_of in ([b"new and long enough"], [b"another one", b"new and long enough"], []):
        assert read_mirror(marked.head, marked.shards, keys_of) == given
        assert read_revision(marked.head, keys_of) == given.revision
    assert {**marked.head["data"], "mark": ""} == {
        **write_mirror(given, "ns").head["data"],
        "mark": "",
    }


def test_a_mirror_that_somebody_else_made_is_not_used() -> None:
    """Whoever may write ConfigMaps can make every digest, and lacks the key of the mark."""
    theirs = write_mirror(snapshot(file("ops/evil.yaml")), "ns", key=b"a key of their own")
    marked = write_mirror(snapshot(*some(3)), "ns", key=b"the key of the mirror")
    mixed = {**theirs.head, "data": {**theirs.head["data"], "mark": marked.head["data"]["mark"]}}

    for head in (theirs.head, write_mirror(snapshot(file("ops/evil.yaml")), "ns").head, mixed):
        for read_as in (
            lambda head: read_mirror(head, theirs.shards, [b"the key of the mirror"]),
            lambda head: read_revision(head, [b"the key of the mirror"]),
        ):
            with pytest.raises(SourceError, match="is not signed with the mirror key"):
                read_as(head)


@pytest.mark.parametrize("files", [[], some(1), some(50)])
def test_any_number_of_files_comes_back(files: list[SourceFile]) -> None:
    """An empty catalog is mirrored, too."""
    assert read(write_mirror(snapshot(*files), "ns")) == snapshot(*files)


def test_two_files_of_equal_content_come_back() -> None:
    """One blob at two paths is two files."""
    given = snapshot(file("ops/a.yaml", "same"), file("ops/b.yaml", "same", commit=OLDER))

    assert read(write_mirror(given, "ns")) == given


def test_the_order_of_config_maps_does_not_matter() -> None:
    """A snapshot is sorted by path, however its parts are listed."""
    given = snapshot(*some(12, 200_000))
    mirror = write_mirror(given, "ns")

    assert len(mirror.shards) > 2
    assert read_mirror(mirror.head, reversed(mirror.shards)) == given


def test_the_config_maps_are_marked_as_documented() -> None:
    """Files lie under their blob ids in immutable ConfigMaps, which no ancestor takes for its."""
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


def test_the_head_names_the_revision_and_the_refused_one() -> None:
    """A restart with Git down knows what is in force, and what was refused and why."""
    plain = write_mirror(snapshot(), "ns")
    refused = write_mirror(snapshot(), "ns", REFUSED)

    assert read_refused(plain.head) is None
    assert read_refused(refused.head) == REFUSED
    assert read(refused).revision == REVISION
    assert read(refused).root == "ops"


def test_a_commit_that_changes_no_file_changes_the_head_alone() -> None:
    """What is equal is not written again."""
    files = [*some(30, 60_000), file("ops/stale.yaml", "old", commit=OLDER)]
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
def test_a_changed_file_touches_one_config_map_and_the_head(index: int) -> None:
    """A commit to one file costs one new ConfigMap."""
    files = some(30, 60_000)
    before = write_mirror(snapshot(*files), "ns")
    changed = [*files[:index], file(files[index].path, "changed"), *files[index + 1 :]]
    after = write_mirror(snapshot(*changed), "ns")

    assert len(names(before)) > 2
    assert len(names(after) - names(before)) == 1
    assert len(names(before) - names(after)) == 1


def test_a_file_that_becomes_stale_touches_one_config_map() -> None:
    """That a file is no longer of the head's commit is said beside it."""
    files = some(30, 60_000)
    before = write_mirror(snapshot(*files), "ns")
    stale = dataclasses.replace(files[3], commit=OLDER, stale=True)
    after = write_mirror(snapshot(*files[:3], stale, *files[4:]), "ns")

    assert len(names(after) - names(before)) == 1


@pytest.mark.parametrize(
    "files",
    [
        [file(f"ops/{n}.yaml", str(n).ljust(512 * 1024, "x")) for n in range(20)],
        [file(f"ops/{n}.yaml", str(n).ljust(260 * 1024, "☃")[: 87 * 1024]) for n in range(40)],
        some(8000, 100),
        [file(f"ops/{'d' * 200}/{'é' * 900}{n}.yaml", str(n)) for n in range(1500)],
        [file(f"ops/{n}.yaml", "same", commit=OLDER) for n in range(8000)],
    ],
    ids=["largest", "not ASCII", "many", "long paths", "stale"],
)
def test_every_config_map_is_well_under_a_mib(files: list[SourceFile]) -> None:
    """Neither large files nor many, nor long paths, make one that Kubernetes would not take."""
    mirror = write_mirror(snapshot(*files), "ns")

    assert max(map(content_bytes, mirror.shards)) < 0.6 * MIB
    assert content_bytes(mirror.head) < 0.6 * MIB
    assert read(mirror) == snapshot(*files)


def test_what_does_not_fit_is_an_error() -> None:
    """A repository that cannot be spread is said to be so, and nothing is written."""
    same_place = [file("ops/a.yaml", str(n).ljust(400_000, "x")) for n in range(2)]

    with pytest.raises(SourceError, match="too large"):
        write_mirror(snapshot(*same_place), "ns")


def flipped(text: str, position: int) -> str:
    """A text with another character at a position."""
    other = "1" if text[position] != "1" else "2"
    return text[:position] + other + text[position + 1 :]


@settings(max_examples=scaled(40))
@given(st.data())
def test_a_changed_character_is_noticed(data: st.DataObject) -> None:
    """Whatever was changed by hand, in the head or in a file, the mirror is not taken."""
    mirror = write_mirror(snapshot(*some(6)), "ns", REFUSED)
    config_maps = copy.deepcopy([mirror.head, *mirror.shards])
    content = data.draw(st.sampled_from(config_maps))["data"]
    key = data.draw(st.sampled_from(sorted(content)))
    position = data.draw(st.integers(0, len(content[key]) - 1))
    content[key] = flipped(content[key], position)

    with pytest.raises(SourceError, match=r"damaged|format"):
        read_mirror(config_maps[0], config_maps[1:])


def test_a_key_more_or_less_is_noticed() -> None:
    """A file that was taken out, or put in, makes the digest another."""
    mirror = write_mirror(snapshot(*some(3)), "ns")
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


def test_a_missing_config_map_is_noticed() -> None:
    """A part that somebody deleted is not read over."""
    mirror = write_mirror(snapshot(*some(12, 200_000)), "ns")

    with pytest.raises(SourceError, match=f"ConfigMap {HEAD}-[0-9a-f]{{32}} is missing"):
        read_mirror(mirror.head, mirror.shards[1:])


def test_config_maps_that_nobody_names_are_left_out() -> None:
    """What an earlier writer left behind does not come into the catalog."""
    mirror = write_mirror(snapshot(*some(3)), "ns")
    left = write_mirror(snapshot(file("ops/old.yaml", "old")), "ns")

    assert read_mirror(mirror.head, [*left.shards, *mirror.shards]) == snapshot(*some(3))


def sealed(**data: str) -> dict[str, Any]:
    """A head with this content and the digest that belongs to it."""
    whole = {**write_mirror(snapshot(), "ns").head["data"], **data}
    del whole["digest"]
    digest = hashlib.sha256(canonical_json(whole).encode()).hexdigest()[:32]
    return {"metadata": {"name": HEAD}, "data": {**whole, "digest": digest}}


def revised(**members: Any) -> str:
    """The record of a revision with these members, which need not be what they should."""
    merged = {**json.loads(write_mirror(snapshot(), "ns").head["data"]["revision.json"]), **members}
    return json.dumps(merged)


def shard_of(index: str, **data: str) -> dict[str, Any]:
    """A ConfigMap with this index, under the name that belongs to its content."""
    whole = {**data, "index.json": index}
    digest = hashlib.sha256(canonical_json(whole).encode()).hexdigest()[:32]
    return {"metadata": {"name": f"{HEAD}-{digest}"}, "data": whole}


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        ({"metadata": {"name": HEAD}}, "has format None"),
        ({"metadata": {"name": HEAD}, "data": None}, "has format None"),
        (sealed(format="2"), "format '2', but this version reads '1'"),
        (sealed(**{"shards.json": "{}"}), "shards.json is not a list"),
        (sealed(**{"shards.json": "[1]"}), "shards.json is not a list"),
        (sealed(**{"shards.json": '[""]'}), "shards.json is not a list"),
        (sealed(**{"shards.json": f'["{HEAD}-{"0" * 31}/"]'}), "shards.json is not a list"),
        (sealed(**{"shards.json": "["}), "shards.json cannot be read"),
        (sealed(**{"shards.json": "[" * 100_000}), "shards.json cannot be read"),
        (sealed(**{"revision.json": "[]"}), "revision.json is incomplete"),
        (sealed(**{"revision.json": "{}"}), "revision.json is incomplete"),
        (sealed(**{"revision.json": '{"root": "", "x": 1}'}), "revision.json is incomplete"),
        (sealed(**{"revision.json": revised(commit=5)}), "revision.json is incomplete"),
        (sealed(**{"revision.json": revised(time=5)}), "revision.json is incomplete"),
        (sealed(**{"revision.json": revised(verified_signer=True)}), "revision.json is incomplete"),
        (sealed(**{"revision.json": revised(root=None)}), "revision.json is incomplete"),
        (sealed(**{"revision.json": revised(ref="\ud800")}), "revision.json is incomplete"),
        (sealed(**{"revision.json": ""}), "revision.json cannot be read"),
    ],
)
def test_a_head_that_cannot_be_understood_is_an_error(head: dict[str, Any], complaint: str) -> None:
    """Another version's head, or one that makes no sense, is refused in words."""
    with pytest.raises(SourceError, match=complaint):
        read_mirror(head, [])


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
def test_a_refused_revision_that_cannot_be_understood_is_an_error(text: str) -> None:
    """A damaged memory is told from none."""
    with pytest.raises(SourceError, match=r"refused\.json"):
        read_refused(sealed(**{"refused.json": text}))


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
        '[{"path": "a", "blob": "index.json", "stale": 1}]',
        '[{"path": "a", "blob": "index.json", "stale": true, "commit_time": 5}]',
    ],
)
def test_an_index_that_cannot_be_understood_is_an_error(index: str) -> None:
    """A ConfigMap whose content is what its name says may still say nothing."""
    shard = shard_of(index)
    head = sealed(**{"shards.json": json.dumps([shard["metadata"]["name"]])})

    with pytest.raises(SourceError, match="damaged"):
        read_mirror(head, [shard])


@pytest.mark.parametrize("mark", ["é", "\0", "", None])
def test_a_mark_that_is_no_mark_is_none(mark: str | None) -> None:
    """Whatever text stands there, the head is refused in words."""
    head = write_mirror(snapshot(), "ns", key=b"the key of the mirror").head
    data = {name: text for name, text in head["data"].items() if name != "mark"}
    if mark is not None:
        data["mark"] = mark

    with pytest.raises(SourceError, match="is not signed with the mirror key"):
        shard_names({**head, "data": data}, [b"the key of the mirror"])


#: JSON as anybody may write it, most of it close to what should stand there.
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


def spoilt(record: dict[str, Any]) -> st.SearchStrategy[str]:
    """A record with some members gone and others replaced, or something else altogether."""
    members = st.fixed_dictionaries(
        {}, optional={name: st.just(value) | JSON for name, value in record.items()}
    )
    return (members | JSON).map(json.dumps) | TEXT


ENTRY = {"path": "ops/a.yaml", "blob": "b" * 40, "stale": True, "commit": OLDER, "commit_time": "T"}


@given(
    revision=spoilt(json.loads(revised())),
    refused=spoilt({**dataclasses.asdict(REFUSED), "paused": True}),
    index=st.lists(spoilt(ENTRY).filter(lambda text: text[:1] == "{"), max_size=2).map(
        lambda entries: f"[{','.join(entries)}]"
    )
    | JSON.map(json.dumps),
    shards=st.none() | JSON.map(json.dumps),
    mark=st.none() | TEXT,
)
def test_whoever_may_write_config_maps_makes_no_reader_fail(
    revision: str, refused: str, index: str, shards: str | None, mark: str | None
) -> None:
    """All digests are right and the content is anything: it is read whole, or refused in words."""
    shard = shard_of(index, **{"b" * 40: "kind: Job\n"})
    names_of = json.dumps([shard["metadata"]["name"]]) if shards is None else shards
    head = sealed(**{"revision.json": revision, "refused.json": refused, "shards.json": names_of})
    if mark is not None:
        head["data"]["mark"] = mark
    found: list[Snapshot] = []
    for keys_of in ([], [b"the key of the mirror"]):
        with contextlib.suppress(SourceError):
            found.append(read_mirror(head, [shard], keys_of))
        with contextlib.suppress(SourceError):
            assert type(read_revision(head, keys_of).commit) is str
    with contextlib.suppress(SourceError):
        was = read_refused(head)
        assert was is None or type(was.paused) is bool
    for mirrored in found:
        assert read(write_mirror(mirrored, "ns")).revision == mirrored.revision
        assert {type(part.path) for part in mirrored.files} <= {str}


def test_the_pause_of_a_refused_revision_comes_back() -> None:
    """And whatever is not plainly "no" there pauses; a head without the word does not."""
    paused = dataclasses.replace(REFUSED, paused=True)

    assert read_refused(write_mirror(snapshot(), "ns", paused).head) == paused
    assert read_refused(write_mirror(snapshot(), "ns", REFUSED).head) == REFUSED
    odd = {**dataclasses.asdict(REFUSED), "paused": "since tuesday"}
    assert read_refused(sealed(**{"refused.json": json.dumps(odd)})) == paused


def test_a_refusal_is_noted_beside_files_that_stay() -> None:
    """Only what is said of it changes, and the digest and the mark with it."""
    key = b"the key of the mirror"
    paused = dataclasses.replace(REFUSED, paused=True)
    before = write_mirror(snapshot(*some(3)), "ns", key=key)

    noted = with_refused(before.head, "ns", paused, key)

    assert noted == write_mirror(snapshot(*some(3)), "ns", paused, key).head


def test_the_names_of_the_parts_are_read_from_the_head() -> None:
    """A starting replica asks for these and no others."""
    mirror = write_mirror(snapshot(*some(12, 200_000)), "ns")

    assert set(shard_names(mirror.head)) == names(mirror)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))
    )
)
def test_any_text_comes_back(contents: dict[str, str]) -> None:
    """Whatever a path and a file hold that UTF-8 can write is returned unchanged."""
    given_files = snapshot(*(file(path, text) for path, text in contents.items()))

    assert read(write_mirror(given_files, "ns")) == given_files


def ordered(files: Iterable[SourceFile]) -> list[str]:
    """Their paths."""
    return [file.path for file in files]


def test_the_same_files_give_the_same_config_maps() -> None:
    """Two leaders that mirror one catalog write the same, whatever order they read it in."""
    files = some(20, 60_000)
    mirror = write_mirror(Snapshot(REVISION, "ops", tuple(files)), "ns")
    other = write_mirror(Snapshot(REVISION, "ops", tuple(reversed(files))), "ns")

    assert mirror == other
    assert ordered(read(other).files) == ordered(files)


def test_what_the_first_release_wrote_is_read_by_all_that_follow() -> None:
    """A frozen mirror of format 1, from before there were signers, gives back all its files."""
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


def test_what_a_later_version_of_this_format_says_more_is_passed_over() -> None:
    """After a rollback the older version reads what the newer one wrote."""
    mirror = write_mirror(snapshot(*some(2)), "ns", REFUSED)
    more = {
        name: canonical_json({**json.loads(mirror.head["data"][name]), "later": [1]})
        for name in ("revision.json", "refused.json")
    }
    head = sealed(**{**mirror.head["data"], **more})
    assert read_mirror(head, mirror.shards) == snapshot(*some(2))
    assert read_refused(head) == REFUSED
