"""The content of one revision of the repository."""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.operario import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Ignored, Problem
    from openfero_gitops.domain.watchdog import Watchdog


#: SHA-1 or SHA-256, whichever the repository uses.
_FULL_COMMIT: Final = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256_DIGITS: Final = 64

_OPERARIO: Final = re.compile(rb"openfero[-./]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of one repository.

    Attributes:
        repository: the URL, without credentials.
        ref: of the settings.
        commit: a full commit ID; empty for a plain folder.
        author: of the commit.
        time: of the commit, RFC 3339.
        verified_signer: who signed the commit; empty if no signature is required.
    """

    repository: str
    ref: str
    commit: str
    author: str = ""
    time: str = ""
    verified_signer: str = ""


def blob_id(content: bytes, like: str = "") -> str:
    """Return the ID that Git gives to a file with this content.

    Args:
        content: of the file.
        like: another ID of the repository. If it has 64 digits, the repository uses SHA-256,
            otherwise SHA-1.
    """
    algorithm = "sha256" if len(like) == _SHA256_DIGITS else "sha1"
    digest = hashlib.new(algorithm, b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


def may_hold_operario(content: bytes) -> bool:
    """Whether a file that cannot be parsed may hold an operario.

    Each operario has OpenFero's prefix in its name, its kind or an annotation.
    """
    return _OPERARIO.search(content) is not None


def is_commit(text: str) -> bool:
    """Whether a text is a full commit ID, of 40 (SHA-1) or 64 (SHA-256) digits."""
    return _FULL_COMMIT.fullmatch(text) is not None


def git_show(commit: str, path: str) -> str:
    """Return the command that shows a file at a commit; empty if it is not safe to paste."""
    hidden = any(unicodedata.category(character).startswith("C") for character in path)
    if not path or hidden or not is_commit(commit):
        return ""
    return f"git show {shlex.quote(f'{commit}:{path}')}"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file at one commit; `path` starts at the repository's root.

    `commit`, its author, time and signer are empty if it is the snapshot's own revision. `stale`
    is True for an older version that replaces a broken one.
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

    `root` is the configured path inside the repository, empty for its root. `problems` are about
    entries that were not read: a symlink, a submodule, a file that is too large. `ignored` are
    entries that are no operarios, although their name suggests it.
    """

    revision: Revision
    root: str
    files: tuple[SourceFile, ...]
    problems: tuple[Problem, ...] = ()
    ignored: tuple[Ignored, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for all operarios together, and for the history of each.

    `history` is the number of finished Jobs per operario that are kept beyond `remember`, until
    their TTL expires.
    """

    concurrent: int = 20
    per_minute: int = 60
    history: int = 100


@dataclass(frozen=True, slots=True)
class JobDefaults:
    """Values for fields that a Job leaves out; times in seconds."""

    backoff_limit: int = 0
    active_deadline_seconds: int = 900
    pod_replacement_policy: str = "Failed"
    ttl_seconds_after_finished: int = 86_400


@dataclass(frozen=True, slots=True)
class Envelope:
    """The safety envelope `openfero.yaml`.

    `namespaces` restricts the namespaces that are granted to the controller; None allows all.
    `ignore` are patterns of files that are not read, as in `.gitignore`. `watchdog` is an alert
    that always fires; None if there is none.
    """

    paused: bool = False
    mode: Mode = Mode.RUN
    limits: Limits = Limits()
    namespaces: tuple[str, ...] | None = None
    remember: timedelta = timedelta(hours=24)
    defaults: JobDefaults = JobDefaults()
    ignore: tuple[str, ...] = ()
    watchdog: Watchdog | None = None


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
