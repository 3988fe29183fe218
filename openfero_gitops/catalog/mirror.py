"""Write the files of a catalog as ConfigMaps, and read them back.

Files are distributed over immutable ConfigMaps ("shards") that are named by the digest of their
content. The ConfigMap `openfero-catalog` (the "head") lists them and is switched last: whenever
the writer dies, a reader sees either the old catalog or the new one, and a changed byte is noticed.

Anybody can compute digests. With a key that is not stored in the API server, the head is signed
(HMAC-SHA256), so that permission to write ConfigMaps is not enough to forge it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, overload

from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, blob_id, is_commit
from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.location import Location
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.domain.sync_report import SyncReport, read_report, report_members
from openfero_gitops.domain.text import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD: Final = "openfero-catalog"
SELECTOR: Final = f"{keys.MIRROR}=true,{keys.MANAGED_BY}={keys.MANAGER}"
_FORMAT: Final = "1"
_INDEX: Final = "index.json"
_REFUSED: Final = "refused.json"
_HISTORY: Final = "history.json"
_REPORT: Final = "report.json"
_DIGEST: Final = "digest"
_SIGNATURE_KEY: Final = "mark"
_VERIFICATION_KEYS: Final = frozenset({_DIGEST, _SIGNATURE_KEY})
_SHARD_NAME: Final = re.compile(f"{HEAD}-[0-9a-f]{{32}}")
#: Members of a file in an index whose values are strings.
_FILE_STRINGS: Final = frozenset(
    {"path", "blob", "commit", "commit_author", "commit_time", "verified_signer"}
)
#: Half of the limit of a ConfigMap: JSON escapes make its stored form longer than its content.
_MAX_SHARD_BYTES: Final = 512 * 1024
_MAX_SHARDS: Final = 1 << 16
#: What a repository may have, see `sources.tree.Budgets`; users who can write ConfigMaps can
#: make a mirror that is larger.
_MAX_READ_FILES: Final = 20_000
_MAX_READ_BYTES: Final = 64 * 1024 * 1024
_MAX_READ_SHARDS: Final = 4096
#: Characters of a member of the head; the longest is the list of shards.
_MAX_HEAD_CHARACTERS: Final = 256 * 1024


class Shards(Sequence[dict[str, Any]]):
    """The shards of a mirror; each is made when it is read, since all together are large."""

    def __init__(self, buckets: Iterable[Sequence[SourceFile]], namespace: str) -> None:
        """Take the files of each shard."""
        self._namespace = namespace
        self._files = {_shard(files, namespace)["metadata"]["name"]: files for files in buckets}
        self.names = tuple(self._files)

    def __len__(self) -> int:
        """The number of shards."""
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Make a shard."""
        if isinstance(index, slice):
            return [self.named(name) for name in self.names[index]]
        return self.named(self.names[index])

    def __eq__(self, other: object) -> bool:
        """Whether the content is the same: names are digests of it."""
        return isinstance(other, Shards) and self.names == other.names

    def __hash__(self) -> int:
        """The same for the same content."""
        return hash(self.names)

    def named(self, name: str) -> dict[str, Any]:
        """Make the shard of a name."""
        return _shard(self._files[name], self._namespace)


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirrored catalog: the head, and the shards that it lists."""

    head: dict[str, Any]
    shards: Shards


def write_mirror(
    snapshot: Snapshot,
    namespace: str,
    refused: RefusedRevision | None = None,
    key: bytes = b"",
) -> Mirror:
    """Build the ConfigMaps of the active files; equal files give equal ConfigMaps.

    If there is a `key`, it signs the head.
    """
    shards = Shards(_spread(snapshot.files), namespace)
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
        "shards.json": canonical_json(list(shards.names)),
        _REFUSED: _refused(refused),
    }
    return Mirror(_head(data, namespace, key), shards)


def with_refused(
    head: Mapping[str, Any], namespace: str, refused: RefusedRevision, key: bytes = b""
) -> dict[str, Any]:
    """Replace the refused revision in a head that was read and verified."""
    return _with(head, namespace, _REFUSED, _refused(refused), key)


def with_history(
    head: Mapping[str, Any], namespace: str, history: RevisionHistory, key: bytes = b""
) -> dict[str, Any]:
    """Replace the record of active revisions in a head that was just written or verified."""
    return _with(head, namespace, _HISTORY, canonical_json(history.to_json()), key)


def with_report(
    head: Mapping[str, Any], namespace: str, report: SyncReport, key: bytes = b""
) -> dict[str, Any]:
    """Replace the report in a head that was just written or verified."""
    return _with(head, namespace, _REPORT, canonical_json(report_members(report)), key)


def _with(
    head: Mapping[str, Any], namespace: str, member: str, text: str, key: bytes
) -> dict[str, Any]:
    data = {name: text for name, text in head["data"].items() if name not in _VERIFICATION_KEYS}
    return _head({**data, member: text}, namespace, key)


def shard_names(head: Mapping[str, Any], keys: Sequence[bytes] = ()) -> list[str]:
    """Verify a head and return the names of its shards.

    Raises:
        SourceError: the head is damaged, has an unknown format or, if there are `keys`, is signed
            with none of them.
    """
    data = head.get("data") or {}
    if data.get("format") != _FORMAT:
        raise SourceError(
            f"ConfigMap {HEAD} has format {data.get('format')!r}, but this version reads "
            f"{_FORMAT!r}; the next successful sync rewrites the mirror"
        )
    if data.get(_DIGEST) != _digest(
        {key: data[key] for key in data if key not in _VERIFICATION_KEYS}
    ):
        raise SourceError(f"the mirror is damaged: ConfigMap {HEAD} was modified")
    expected = [_sign(data, key) for key in keys]
    signature = str(
        data.get(_SIGNATURE_KEY)
    ).encode()  # (compare_digest accepts only ASCII strings, but any bytes.)
    if expected and not any(hmac.compare_digest(text.encode(), signature) for text in expected):
        raise SourceError(
            f"the mirror is not used: ConfigMap {HEAD} is not signed with the mirror key: it "
            "was written before the key was set or by somebody without the key; the next "
            "successful sync rewrites the mirror"
        )
    names = _read(data, "shards.json", HEAD)
    if not isinstance(names, list) or not all(
        isinstance(name, str) and _SHARD_NAME.fullmatch(name) for name in names
    ):
        raise SourceError(f"ConfigMap {HEAD} is damaged: shards.json is not a list of names")
    return names


def is_shard_name(name: str) -> bool:
    """Whether a ConfigMap of this name may be a shard of any mirror, of another format too."""
    return name.startswith(f"{HEAD}-")


def content_digest(config_map: Mapping[str, Any]) -> str:
    """Return the digest of a ConfigMap's data."""
    return _digest(config_map["data"])


def digest_in_name(name: str) -> str:
    """Return the digest of the data that a shard of this name has."""
    return name.removeprefix(f"{HEAD}-")


def read_revision(head: Mapping[str, Any], keys: Sequence[bytes] = ()) -> Revision:
    """Return the active revision of a head; raises SourceError like `shard_names`."""
    shard_names(head, keys)
    return _revision(head)[0]


def read_location(head: Mapping[str, Any]) -> Location:
    """Return the repository, ref and path of a head; raises SourceError if it is damaged."""
    revision, root = _revision(head)
    return Location(revision.repository, revision.ref, root)


def read_refused(head: Mapping[str, Any]) -> RefusedRevision | None:
    """Return the last refused revision of a head; raises SourceError if it is damaged."""
    value = _read(head.get("data") or {}, _REFUSED, HEAD)
    if value is None:
        return None
    try:
        members = _known_members(RefusedRevision, value)
        paused = members.pop("paused", False)
        return RefusedRevision(**_strings(members), paused=paused is not False)
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(f"ConfigMap {HEAD} is damaged: {_REFUSED} is incomplete") from error


def head_report(head: Mapping[str, Any]) -> SyncReport:
    """Return the report of a head; an empty one if it has none that can be read."""
    data = head.get("data") or {}
    try:
        members = _read(data, _REPORT, HEAD) if _REPORT in data else {}
    except SourceError:
        members = {}
    return read_report(members if isinstance(members, dict) else {})


def read_history(head: Mapping[str, Any], keys: Sequence[bytes] = ()) -> RevisionHistory:
    """Return the record of active revisions of a head; empty if it has none.

    Raises:
        SourceError: it is damaged; or like `shard_names`.
    """
    shard_names(head, keys)
    if _HISTORY not in head["data"]:
        return RevisionHistory()
    try:
        return RevisionHistory.from_json(_read(head["data"], _HISTORY, HEAD))
    except (LookupError, TypeError, ValueError) as error:
        raise SourceError(f"ConfigMap {HEAD} is damaged: {_HISTORY} is incomplete") from error


def read_mirror(
    head: Mapping[str, Any], shards: Iterable[Mapping[str, Any]], keys: Sequence[bytes] = ()
) -> Snapshot:
    """Return the mirrored files after checking every digest.

    Raises:
        SourceError: a shard is missing or was modified; or like `MirrorReader`.
    """
    by_name = {shard["metadata"]["name"]: shard for shard in shards}
    reader = MirrorReader(head, keys)
    for name in reader.names:
        reader.add(name, by_name.get(name))
    return reader.snapshot()


class MirrorReader:
    """Reads the shards of a mirror one by one, so that only one is held beside the files."""

    def __init__(self, head: Mapping[str, Any], keys: Sequence[bytes] = ()) -> None:
        """Verify a head; `names` are those of its shards, which are to be added.

        Raises:
            SourceError: like `shard_names`; or it lists more than a repository may have.
        """
        self.names = tuple(dict.fromkeys(shard_names(head, keys)))
        self._revision, self._root = _revision(head)
        self._files: list[SourceFile] = []
        self._bytes = 0
        if len(self.names) > _MAX_READ_SHARDS:
            raise SourceError(f"the mirror is too large: more than {_MAX_READ_SHARDS} ConfigMaps")

    def add(self, name: str, shard: Mapping[str, Any] | None) -> None:
        """Verify a shard, and add its files.

        Raises:
            SourceError: it is missing or was modified, or the mirror is larger than a repository
                may be.
        """
        if shard is None:
            raise SourceError(f"the mirror is damaged: ConfigMap {name} is missing")
        data: Mapping[str, str] = shard.get("data") or {}
        if _shard_name(data) != name:
            raise SourceError(f"the mirror is damaged: ConfigMap {name} was modified")
        try:
            for entry in _read(data, _INDEX, name):
                file = _file(entry, data, self._revision)
                self._bytes += len(file.content)
                self._files.append(file)
                if self._bytes > _MAX_READ_BYTES or len(self._files) > _MAX_READ_FILES:
                    raise SourceError(
                        f"the mirror is too large: more than {_MAX_READ_FILES} files or "
                        f"{_MAX_READ_BYTES >> 20} MiB"
                    )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"the mirror is damaged: {_INDEX} of ConfigMap {name} is incomplete"
            ) from error

    def snapshot(self) -> Snapshot:
        """Return the files of all shards that were added."""
        files = sorted(self._files, key=lambda file: file.path)
        return Snapshot(self._revision, self._root, tuple(files))


def _revision(head: Mapping[str, Any]) -> tuple[Revision, str]:
    value = _read(head.get("data") or {}, "revision.json", HEAD)
    try:
        root: str = _strings({"root": value["root"]})["root"]
        revision = Revision(**_strings(_known_members(Revision, value)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"ConfigMap {HEAD} is damaged: revision.json is incomplete") from error
    if not is_commit(revision.commit):
        raise SourceError(f"ConfigMap {HEAD} is damaged: revision.json names no commit")
    return revision, root


def _known_members(kind: type, members: Mapping[str, Any]) -> dict[str, Any]:
    """Select the members that this version knows; newer versions of the format may add others."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in members.items() if name in names}


def _strings(members: dict[str, Any]) -> dict[str, Any]:
    """Return members unchanged if all are valid strings; raises TypeError or ValueError."""
    "".join(members.values()).encode()
    return members


def _file(entry: Mapping[str, Any], data: Mapping[str, str], revision: Revision) -> SourceFile:
    _strings({name: value for name, value in entry.items() if name in _FILE_STRINGS})
    if not isinstance(entry["stale"], bool):
        raise TypeError("stale")
    blob, content = entry["blob"], data[entry["blob"]].encode()
    # Readings of files are remembered by their ID. Under the ID of a file of Git's, other content
    # would go on being used after Git was read.
    if blob_id(content, like=blob) != blob:
        raise ValueError("blob")
    return SourceFile(
        path=entry["path"],
        blob=blob,
        content=content,
        commit=entry.get("commit", revision.commit),
        commit_author=entry.get("commit_author", revision.author),
        commit_time=entry.get("commit_time", revision.time),
        stale=entry["stale"],
        verified_signer=entry.get("verified_signer", "")
        if entry["stale"]
        else revision.verified_signer,
    )


def _spread(files: Iterable[SourceFile]) -> list[list[SourceFile]]:
    """Distribute files by a stable hash of their path, so that one change affects one shard."""
    files = list(files)
    count = 1
    while count <= _MAX_SHARDS:
        buckets: dict[int, list[SourceFile]] = defaultdict(list)
        for file in files:
            digest = hashlib.sha256(file.path.encode()).digest()
            buckets[int.from_bytes(digest[:8], "big") % count].append(file)
        if all(
            len(bucket) == 1 or sum(map(_weight, bucket)) <= _MAX_SHARD_BYTES
            for bucket in buckets.values()
        ):
            return [buckets[index] for index in sorted(buckets)]
        count *= 2
    raise SourceError("the repository is too large to be mirrored in ConfigMaps")


def _shard(files: Iterable[SourceFile], namespace: str) -> dict[str, Any]:
    files = sorted(files, key=lambda file: file.path)
    data = {file.blob: file.content.decode() for file in files}
    data[_INDEX] = canonical_json([_entry(file) for file in files])
    return {**_config_map(_shard_name(data), namespace, data), "immutable": True}


def _entry(file: SourceFile) -> dict[str, Any]:
    """The entry of a file in the index of its shard.

    A file that is not stale belongs to the revision in the head, which is not repeated here:
    otherwise every commit would rewrite every shard.
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
    """The bytes that a file adds to a shard."""
    return len(file.content) + len(file.blob) + len(canonical_json(_entry(file)).encode()) + 1


def _shard_name(data: Mapping[str, str]) -> str:
    return f"{HEAD}-{_digest(data)}"


def _digest(data: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(dict(data)).encode()).hexdigest()[:32]


def _head(data: dict[str, str], namespace: str, key: bytes) -> dict[str, Any]:
    data[_DIGEST] = _digest(data)
    if key:
        data[_SIGNATURE_KEY] = _sign(data, key)
    return _config_map(HEAD, namespace, data)


def _refused(refused: RefusedRevision | None) -> str:
    if refused is None:
        return canonical_json(None)
    members: dict[str, Any] = {
        "commit": refused.commit,
        "reason": refused.reason,
        "time": refused.time,
    }
    if refused.paused:
        members["paused"] = True
    return canonical_json(members)


def _sign(data: Mapping[str, str], key: bytes) -> str:
    text = canonical_json({name: data[name] for name in data if name != _SIGNATURE_KEY})
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
    if name == HEAD and len(data.get(key) or "") > _MAX_HEAD_CHARACTERS:
        raise SourceError(f"ConfigMap {name} is damaged: {key} is too long")
    try:
        return json.loads(data[key])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise SourceError(f"ConfigMap {name} is damaged: {key} cannot be read") from error
