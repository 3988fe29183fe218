"""What one revision of the repository says, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import compress, count
from operator import is_not
from typing import TYPE_CHECKING, TypeVar

from openfero_gitops.domain.operario import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
    """Every valid operario at one revision, and every problem found.

    `by_alert` has the operarios by lower-cased alert name, highest priority first, then by name.
    """

    revision: Revision
    envelope: Envelope
    operarios: tuple[Operario, ...]
    problems: tuple[Problem, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    files: tuple[SourceFile, ...] = ()
    has_envelope: bool = False
    root: str = ""
    by_alert: Mapping[str, Sequence[Operario]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the operarios."""
        index: dict[str, list[Operario]] = {}
        for operario in self.operarios:
            index.setdefault(operario.alertname.lower(), []).append(operario)
        for operarios in index.values():
            operarios.sort(key=lambda operario: (-operario.options.priority, operario.name))
        object.__setattr__(self, "by_alert", index)


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
