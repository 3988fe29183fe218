"""What one revision of the repository says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from datetime import timedelta
from itertools import compress, count
from operator import attrgetter, is_not
from typing import TYPE_CHECKING, TypeVar, overload

from openfero_gitops.domain.operario import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Ignored, Problem


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of one repository.

    `repository` is free of credentials; `ref` is the one that was asked for; `commit` is a full
    SHA, empty for a plain folder; `author` and `time` (RFC 3339) are what the commit says of
    itself; `verified_signer` is who signed it, empty where no signature is demanded.
    """

    repository: str
    ref: str
    commit: str
    author: str = ""
    time: str = ""
    verified_signer: str = ""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as it stands in one commit; `path` counts from the repository's root.

    `commit`, and who made and signed it, are empty where it is the snapshot's own revision: so a
    file that did not change is the same in the next.
    """

    path: str
    blob: str
    content: bytes
    commit: str = ""
    commit_author: str = ""
    commit_time: str = ""
    stale: bool = False
    verified_signer: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every file below the configured path that may hold operarios, at one revision.

    `root` is the configured path inside the repository, empty for its root; `problems` are what
    was seen and not read (a symlink, a submodule, a file over its budget).
    """

    revision: Revision
    root: str
    files: tuple[SourceFile, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may run, over all operarios, and how much is kept of each.

    `history` is how many Jobs that ended an operario keeps beyond `remember`, until their TTL.
    """

    concurrent: int = 20
    per_minute: int = 60
    history: int = 100


@dataclass(frozen=True, slots=True)
class JobDefaults:
    """What a Job gets where its author left it out; seconds."""

    backoff_limit: int = 0
    active_deadline_seconds: int = 900
    pod_replacement_policy: str = "Failed"
    ttl_seconds_after_finished: int = 86_400


@dataclass(frozen=True, slots=True)
class Envelope:
    """`openfero.yaml`: the limits that a human reviewed.

    `namespaces` None allows what the controller was given; a tuple narrows it.
    """

    paused: bool = False
    mode: Mode = Mode.RUN
    limits: Limits = Limits()
    namespaces: tuple[str, ...] | None = None
    remember: timedelta = timedelta(hours=24)
    defaults: JobDefaults = JobDefaults()


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every valid operario at one revision, and everything found wrong.

    `as_read` are the operarios without the revision written on them: what did not change is the
    same object in the next catalog, which is the sooner made where it is told of the one `before`.
    """

    revision: Revision
    envelope: Envelope
    operarios: Sequence[Operario]
    problems: tuple[Problem, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    files: tuple[SourceFile, ...] = ()
    has_envelope: bool = False
    root: str = ""
    before: InitVar[Catalog | None] = None
    by_alert: Mapping[str, Sequence[Operario]] = field(init=False, repr=False, compare=False)
    as_read: Sequence[Operario] = field(init=False, repr=False, compare=False)

    def __post_init__(self, before: Catalog | None) -> None:
        """Index by lower-cased alert name, highest priority first, then name."""
        as_read = tuple(self.operarios)
        known = before.by_alert if before else None
        index = dict(known.as_read) if isinstance(known, _Index) else {}
        gone, came = apart(before.as_read if before else (), as_read)
        lost = set(map(id, gone))
        groups = {
            name: [one for one in index.pop(name, ()) if id(one) not in lost]
            for name in {operario.alertname.lower() for operario in (*gone, *came)}
        }
        for operario in came:
            groups[operario.alertname.lower()].append(operario)
        for found in groups.values():
            if len(found) > 1:
                found.sort(key=attrgetter("name"))
                found.sort(key=attrgetter("options.priority"), reverse=True)  # names stay in order
        index |= {name: found for name, found in groups.items() if found}
        object.__setattr__(self, "as_read", as_read)
        object.__setattr__(self, "operarios", _Located(as_read, self.revision))
        object.__setattr__(self, "by_alert", _Index(index, self.revision))


def apart(before: Sequence[_T], after: Sequence[_T]) -> tuple[list[_T], list[_T]]:
    """What one of two sequences holds, and the other does not as the very same object.

    Most is the same from commit to commit: of what is the same at both ends, nothing is touched.
    """
    length = min(len(before), len(after))
    start = _alike(before, after, length)
    end = _alike(reversed(before), reversed(after), length - start)
    one, other = before[start : len(before) - end], after[start : len(after) - end]
    in_one, in_other = set(map(id, one)), set(map(id, other))
    return (
        [item for item in one if id(item) not in in_other],
        [item for item in other if id(item) not in in_one],
    )


def _alike(one: Iterable[object], other: Iterable[object], most: int) -> int:
    """How many objects, at most, two sequences begin with that are the same."""
    differ = compress(count(), map(is_not, one, other))
    return min(next(differ, most), most)


class _Located(Sequence["Operario"]):
    """Operarios of a revision, which is written on each that names no other, when it is taken out.

    Most are those of the revision before, and few are looked at before the next: what a commit
    costs follows what it changes.
    """

    __slots__ = ("_operarios", "_revision")
    __hash__ = None  # type: ignore[assignment] # as a list has none

    def __init__(self, operarios: Sequence[Operario], revision: Revision) -> None:
        self._operarios = operarios
        self._revision = revision

    def __len__(self) -> int:
        return len(self._operarios)

    @overload
    def __getitem__(self, index: int) -> Operario: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Operario]: ...

    def __getitem__(self, index: int | slice) -> Operario | Sequence[Operario]:
        if isinstance(index, slice):
            return _Located(self._operarios[index], self._revision)
        return self._locate(self._operarios[index])

    def __iter__(self) -> Iterator[Operario]:
        return map(self._locate, self._operarios)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    def _locate(self, operario: Operario) -> Operario:
        origin, revision = operario.origin, self._revision
        if origin.commit or not revision.commit:
            return operario
        return replace(
            operario,
            origin=replace(
                origin,
                commit=revision.commit,
                commit_author=revision.author,
                commit_time=revision.time,
                verified_signer=revision.verified_signer,
            ),
        )


class _Index(Mapping[str, Sequence["Operario"]]):
    """The same, by the names of their alerts."""

    __slots__ = ("_index", "_revision")

    def __init__(self, index: Mapping[str, Sequence[Operario]], revision: Revision) -> None:
        self._index = index
        self._revision = revision

    @property
    def as_read(self) -> Mapping[str, Sequence[Operario]]:
        """The same without the revision written on them."""
        return self._index

    def __getitem__(self, name: str) -> Sequence[Operario]:
        return _Located(self._index[name], self._revision)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)
