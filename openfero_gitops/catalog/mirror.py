"""The catalog's files as ConfigMaps, and back.

Files are spread over immutable ConfigMaps that are named by the digest of their content; one
more, `openfero-catalog`, names them and is switched last. So a reader sees the old catalog or
the new one, whenever the writer dies, and a changed byte is noticed.

Digests are anybody's to make. With a key that the API server does not hold, the head carries a
mark (HMAC-SHA256) that nobody makes who may only write ConfigMaps.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.domain.text import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HEAD: Final = "openfero-catalog"
SELECTOR: Final = f"{keys.MIRROR}=true,{keys.MANAGED_BY}={keys.MANAGER}"
_FORMAT: Final = "1"
_INDEX: Final = "index.json"
_REFUSED: Final = "refused.json"
_DIGEST: Final = "digest"
_MARK: Final = "mark"
_SEALS: Final = frozenset({_DIGEST, _MARK})
_SHARD_NAME: Final = re.compile(f"{HEAD}-[0-9a-f]{{32}}")
#: What an index says of a file in words.
_FILE_TEXTS: Final = frozenset(
    {"path", "blob", "commit", "commit_author", "commit_time", "verified_signer"}
)
#: Half of what a ConfigMap may hold: JSON escapes make its stored form longer than its content.
_SHARD_BYTES: Final = 512 * 1024
_MOST_SHARDS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Mirror:
    """What stands in the API server: one head, and the ConfigMaps that it names."""

    head: dict[str, Any]
    shards: tuple[dict[str, Any], ...]


def write_mirror(
    snapshot: Snapshot,
    namespace: str,
    refused: RefusedRevision | None = None,
    key: bytes = b"",
) -> Mirror:
    """Build the ConfigMaps for the files in force; equal files give equal ConfigMaps.

    With a `key` the head is marked by it.
    """
    shards = tuple(_shard(files, namespace) for files in _spread(snapshot.files))
    revision = snapshot.revision
    data = {
        "format": _FORMAT,
        "revision.json": canonical_json(
            {
                "repository": revision.repository,
                "ref": revision.ref,
                "commit": revision.commit,
                "author": revision.author,
                "time": revision.time,
                "verified_signer": revision.verified_signer,
                "root": snapshot.root,
            }
        ),
        "shards.json": canonical_json([shard["metadata"]["name"] for shard in shards]),
        _REFUSED: _refused(refused),
    }
    return Mirror(_head(data, namespace, key), shards)


def with_refused(
    head: Mapping[str, Any], namespace: str, refused: RefusedRevision, key: bytes = b""
) -> dict[str, Any]:
    """The same head, which was read and found whole, with another refused revision."""
    data = {name: text for name, text in head["data"].items() if name not in _SEALS}
    return _head({**data, _REFUSED: _refused(refused)}, namespace, key)


def shard_names(head: Mapping[str, Any], keys: Sequence[bytes] = ()) -> list[str]:
    """The ConfigMaps that a head names.

    Raises:
        SourceError: the head is damaged, not one that this version can read, or, where there are
            `keys`, marked by none of them.
    """
    data = head.get("data") or {}
    if data.get("format") != _FORMAT:
        raise SourceError(
            f"the mirror {HEAD} has format {data.get('format')!r}, this version reads "
            f"{_FORMAT!r}: it is written anew at the next successful sync"
        )
    if data.get(_DIGEST) != _digest({key: data[key] for key in data if key not in _SEALS}):
        raise SourceError(f"the mirror is damaged: the content of ConfigMap {HEAD} was changed")
    marks = [_mark(data, key) for key in keys]
    given = str(data.get(_MARK)).encode()  # (As bytes: of text, ASCII alone can be compared.)
    if marks and not any(hmac.compare_digest(mark.encode(), given) for mark in marks):
        raise SourceError(
            f"the mirror is not used: ConfigMap {HEAD} is not marked by the mirror's key: it was "
            "written before there was one, or by somebody who does not have it; it is written "
            "anew at the next successful sync"
        )
    names = _read(data, "shards.json", HEAD)
    if not isinstance(names, list) or not all(
        isinstance(name, str) and _SHARD_NAME.fullmatch(name) for name in names
    ):
        raise SourceError(f"the mirror {HEAD} is damaged: shards.json is not a list of names")
    return names


def read_revision(head: Mapping[str, Any], keys: Sequence[bytes] = ()) -> Revision:
    """The revision that a head says was in force; raises SourceError as `shard_names`."""
    shard_names(head, keys)
    return _revision(head)[0]


def read_refused(head: Mapping[str, Any]) -> RefusedRevision | None:
    """The refused revision that a head remembers; raises SourceError where it is damaged."""
    value = _read(head.get("data") or {}, _REFUSED, HEAD)
    if value is None:
        return None
    try:
        members = _known(RefusedRevision, value)
        paused = members.pop("paused", False)
        return RefusedRevision(**_texts(members), paused=paused is not False)
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(f"the mirror {HEAD} is damaged: {_REFUSED} is incomplete") from error


def read_mirror(
    head: Mapping[str, Any], shards: Iterable[Mapping[str, Any]], keys: Sequence[bytes] = ()
) -> Snapshot:
    """The files that a mirror holds, every digest checked.

    Raises:
        SourceError: a ConfigMap is missing, or its content is not what its name says; or as
            `shard_names`.
    """
    found = {shard["metadata"]["name"]: shard for shard in shards}
    names = shard_names(head, keys)
    revision, root = _revision(head)
    files: list[SourceFile] = []
    for name in names:
        shard = found.get(name)
        if shard is None:
            raise SourceError(f"the mirror is damaged: ConfigMap {name} is missing")
        data: Mapping[str, str] = shard.get("data") or {}
        if _shard_name(data) != name:
            raise SourceError(f"the mirror is damaged: the content of ConfigMap {name} was changed")
        index = _read(data, _INDEX, name)
        try:
            files += [_file(entry, data, revision) for entry in index]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"the mirror is damaged: {_INDEX} of ConfigMap {name} is incomplete"
            ) from error
    files.sort(key=lambda file: file.path)
    return Snapshot(revision, root, tuple(files))


def _revision(head: Mapping[str, Any]) -> tuple[Revision, str]:
    value = _read(head.get("data") or {}, "revision.json", HEAD)
    try:
        root: str = _texts({"root": value["root"]})["root"]
        return Revision(**_texts(_known(Revision, value))), root
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"the mirror {HEAD} is damaged: revision.json is incomplete") from error


def _known(kind: type, members: Mapping[str, Any]) -> dict[str, Any]:
    """Those that this version knows: a newer one of the same format may have written more."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in members.items() if name in names}


def _texts(members: dict[str, Any]) -> dict[str, Any]:
    """The same, where all are texts that UTF-8 can hold; raises TypeError, ValueError."""
    "".join(members.values()).encode()
    return members


def _file(entry: Mapping[str, Any], data: Mapping[str, str], revision: Revision) -> SourceFile:
    _texts({name: value for name, value in entry.items() if name in _FILE_TEXTS})
    if not isinstance(entry["stale"], bool):
        raise TypeError("stale")
    return SourceFile(
        path=entry["path"],
        blob=entry["blob"],
        content=data[entry["blob"]].encode(),
        commit=entry.get("commit", revision.commit),
        commit_author=entry.get("commit_author", revision.author),
        commit_time=entry.get("commit_time", revision.time),
        stale=entry["stale"],
        verified_signer=entry.get("verified_signer", "")
        if entry["stale"]
        else revision.verified_signer,
    )


def _spread(files: Iterable[SourceFile]) -> list[list[SourceFile]]:
    """Files by a stable hash of their path, so that one change touches one ConfigMap."""
    files = list(files)
    count = 1
    while count <= _MOST_SHARDS:
        buckets: dict[int, list[SourceFile]] = defaultdict(list)
        for file in files:
            digest = hashlib.sha256(file.path.encode()).digest()
            buckets[int.from_bytes(digest[:8], "big") % count].append(file)
        if all(
            len(bucket) == 1 or sum(map(_weight, bucket)) <= _SHARD_BYTES
            for bucket in buckets.values()
        ):
            return [buckets[index] for index in sorted(buckets)]
        count *= 2
    raise SourceError("the repository does not fit into ConfigMaps")


def _shard(files: Iterable[SourceFile], namespace: str) -> dict[str, Any]:
    files = sorted(files, key=lambda file: file.path)
    data = {file.blob: file.content.decode() for file in files}
    data[_INDEX] = canonical_json([_entry(file) for file in files])
    return {**_config_map(_shard_name(data), namespace, data), "immutable": True}


def _entry(file: SourceFile) -> dict[str, Any]:
    """What a shard's index says of a file.

    One that is not stale is of the head's revision, which is said there alone: otherwise every
    commit would rewrite every ConfigMap.
    """
    entry: dict[str, Any] = {"path": file.path, "blob": file.blob, "stale": file.stale}
    if file.stale:
        entry["commit"] = file.commit
        entry["commit_author"] = file.commit_author
        entry["commit_time"] = file.commit_time
        if file.verified_signer:
            entry["verified_signer"] = file.verified_signer
    return entry


def _weight(file: SourceFile) -> int:
    """The bytes that a file adds to a ConfigMap."""
    return len(file.content) + len(file.blob) + len(canonical_json(_entry(file)).encode()) + 1


def _shard_name(data: Mapping[str, str]) -> str:
    return f"{HEAD}-{_digest(data)}"


def _digest(data: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(dict(data)).encode()).hexdigest()[:32]


def _head(data: dict[str, str], namespace: str, key: bytes) -> dict[str, Any]:
    data[_DIGEST] = _digest(data)
    if key:
        data[_MARK] = _mark(data, key)
    return _config_map(HEAD, namespace, data)


def _refused(refused: RefusedRevision | None) -> str:
    if refused is None:
        return canonical_json(None)
    said = {"commit": refused.commit, "reason": refused.reason, "time": refused.time}
    # (Versions that know no pause read all but that, and a head without one stays the same.)
    return canonical_json({**said, "paused": True} if refused.paused else said)


def _mark(data: Mapping[str, str], key: bytes) -> str:
    text = canonical_json({name: data[name] for name in data if name != _MARK})
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _config_map(name: str, namespace: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {keys.MIRROR: "true", keys.MANAGED_BY: keys.MANAGER},
        },
        "data": data,
    }


def _read(data: Mapping[str, str], key: str, name: str) -> Any:
    try:
        return json.loads(data[key])
    except (KeyError, ValueError, RecursionError) as error:
        raise SourceError(f"the mirror {name} is damaged: {key} cannot be read") from error
