"""Which files of a repository are read, and what is said about those that are not.

Pure: an adapter lists what lies below the configured path, `select` chooses, the adapter reads
what was chosen, `assemble` makes the snapshot. So a commit and a working copy of it are read by
the same rules. Everything here is an untrusted author's: a name may be any bytes.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.domain.problem import Problem
from openfero_gitops.domain.rule import (
    CASE_TWINS,
    FILE_TOO_LARGE,
    LFS_POINTER,
    LINKED_FOLDER,
    NOT_A_FILE,
    PATH_NOT_PRINTABLE,
    PATH_NOT_UTF_8,
    PATH_TOO_DEEP,
    PATH_TOO_LONG,
    SUBMODULE,
    SYMLINK,
    Rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The folder of the golden cases, which are no operarios.
CASES: Final = "tests"

_SUFFIXES: Final = (b".yaml", b".yml", b".json")
_LFS: Final = b"version https://git-lfs"
_SHOWN: Final = 512  # characters of a hostile path that are repeated to a reader
# Control characters, line and paragraph separators, and the marks that reorder what a reviewer
# sees (bidirectional overrides).
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Budgets:
    """How much of a repository is read; what is over one is reported, never cut.

    `file_bytes`, `path_bytes` and `depth` (folders above a file) concern one file, which is then
    left out with an error. `files`, `total_bytes` and `entries` (everything below the path, read
    or not) concern the whole, which is then refused.
    """

    file_bytes: int = 512 * 1024
    path_bytes: int = 4096
    depth: int = 32
    files: int = 20_000
    total_bytes: int = 64 * 1024 * 1024
    entries: int = 200_000


class Kind(StrEnum):
    """What an entry is, before anything of it is read."""

    FILE = "file"
    LINK = "symlink"
    SUBMODULE = "submodule"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name below the configured path.

    `name` counts from the repository's root; `size` is in bytes, None for a file that was not
    fetched because it has more than are read; `blob` is empty where only the content would tell.
    """

    name: bytes
    kind: Kind
    size: int | None = 0
    blob: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One name that two commits differ in: whether it was there, and what it is now, if it is."""

    name: bytes
    was: bool
    now: Entry | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to read: its name has been found printable and its size within the budget."""

    path: str
    size: int
    blob: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What to read, sorted by path, and what was left out and why.

    `judged` has what became of each name that is anybody's business, and `entries` counts all
    names: what `revise` goes on from.
    """

    wanted: tuple[Wanted, ...]
    problems: tuple[Problem, ...]
    judged: Mapping[bytes, Wanted | Problem] = field(default_factory=dict, repr=False)
    entries: int = 0


def normalise(path: str) -> str:
    """Bring a configured path to its one form: no `./`, no trailing `/`, empty for the root.

    Raises:
        UsageError: the path is absolute, leaves the repository or cannot be printed.
    """
    if path.startswith("/"):
        raise UsageError(
            f"path {shown(path)!r}: it counts from the repository's root, write it without the"
            " leading /"
        )
    if _UNPRINTABLE.search(path):
        raise UsageError(f"path {shown(path)!r}: it holds a character that cannot be printed")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UsageError(f"path {shown(path)!r}: it leaves the repository, write it without ..")
    return "/".join(parts)


def shown(name: bytes | str) -> str:
    """Make a hostile name safe to print: one line, no control characters, of bounded length."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    text = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def blob_id(content: bytes) -> str:
    """Return the id that git gives to a file of this content."""
    digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


def is_lfs_pointer(content: bytes) -> bool:
    """Whether Git LFS put this in the file's place."""
    return content.startswith(_LFS)


def is_readable(name: bytes) -> bool:
    """Whether a file of this name is read, if it is one."""
    return name.endswith(_SUFFIXES)


def hidden(name: bytes) -> bool:
    """Whether a folder of this name is passed over with everything below it."""
    return name[:1] in {b".", b"_"} or name == CASES.encode()


def select(
    entries: Iterable[Entry], *, root: str, budgets: Budgets, where: str, commit: str = ""
) -> Selection:
    """Choose the files to read among everything below `root`.

    Args:
        entries: all below `root`, in any order, submodules and symlinks as themselves.
        root: the configured path, normalised.
        budgets: what is too much.
        where: what a reader calls this repository.
        commit: noted on every problem; empty for a folder.

    Raises:
        SourceError: the repository as a whole is over a budget.
    """
    skipped = _above(root)
    judged: dict[bytes, Wanted | Problem] = {}
    count = 0
    for count, entry in enumerate(entries, start=1):
        found = _judge(entry, entry.name[skipped:], budgets, commit)
        if found is not None:
            judged[entry.name] = found
        _require_few(count, judged, root, budgets, where)
    return _selection(judged, count, root=root, budgets=budgets, where=where, commit=commit)


def revise(
    before: Selection,
    changes: Iterable[Change],
    *,
    root: str,
    budgets: Budgets,
    where: str,
    commit: str,
) -> Selection:
    """Choose as `select` does in another commit, given all that it differs in from an earlier one.

    Raises:
        SourceError: the repository as a whole is over a budget.
    """
    skipped = _above(root)
    judged = dict(before.judged)
    count = before.entries
    for change in changes:
        count += (change.now is not None) - change.was
        judged.pop(change.name, None)
        if change.now is not None:
            found = _judge(change.now, change.name[skipped:], budgets, commit)
            if found is not None:
                judged[change.name] = found
    _require_few(count, judged, root, budgets, where)
    return _selection(judged, count, root=root, budgets=budgets, where=where, commit=commit)


def _above(root: str) -> int:
    """How much of a name counts from the repository's root, and not from the path."""
    return len(root.encode()) + 1 if root else 0


def _require_few(
    entries: int, judged: Mapping[bytes, object], root: str, budgets: Budgets, where: str
) -> None:
    if entries > budgets.entries:
        raise SourceError(too_many_entries(where, budgets))
    if len(judged) > budgets.files:
        raise SourceError(
            f"{where}: more than {budgets.files} YAML and JSON files below"
            f" {root or 'the root'}; name the folder of the operarios as the path"
        )


def _selection(
    judged: Mapping[bytes, Wanted | Problem],
    entries: int,
    *,
    root: str,
    budgets: Budgets,
    where: str,
    commit: str,
) -> Selection:
    wanted = [one for one in judged.values() if isinstance(one, Wanted)]
    problems = [
        one if one.commit == commit else replace(one, commit=commit)
        for one in judged.values()
        if isinstance(one, Problem)
    ]
    total = sum(one.size for one in wanted)
    if total > budgets.total_bytes:
        raise SourceError(
            f"{where}: the YAML and JSON files below {root or 'the root'} have {total} bytes"
            f" together, more than {budgets.total_bytes}; name the folder of the operarios as the"
            " path"
        )
    wanted.sort(key=attrgetter("path"))
    problems.extend(_case_twins(wanted, commit))
    return Selection(tuple(wanted), tuple(sorted(problems)), judged, entries)


def too_many_entries(where: str, budgets: Budgets) -> str:
    """Word the refusal of a tree that is too large to be listed."""
    return (
        f"{where}: more than {budgets.entries} entries below the path; name the folder of the"
        " operarios as the path"
    )


def assemble(
    revision: Revision,
    root: str,
    selection: Selection,
    contents: Mapping[str, bytes],
    known: Mapping[str, SourceFile] | None = None,
) -> Snapshot:
    """Make the snapshot of what was read.

    Args:
        revision: whose files they are.
        root: the configured path.
        selection: what is wanted.
        contents: by path, of every wanted file that is not `known`.
        known: by path, files of another revision: they stand for themselves where their blob is
            the one that is wanted.
    """
    files: list[SourceFile] = []
    problems = list(selection.problems)
    known = known or {}
    for file in selection.wanted:
        same = known.get(file.path)
        if same is not None and file.blob and same.blob == file.blob:
            files.append(same)
            continue
        content = contents[file.path]
        if is_lfs_pointer(content):
            problems.append(
                _problem(
                    file.path,
                    LFS_POINTER,
                    "the file is a Git LFS pointer, its content is not in Git",
                    "commit the file itself: take its pattern out of .gitattributes and add it"
                    " again",
                    revision.commit,
                )
            )
            continue
        files.append(
            SourceFile(
                path=file.path,
                blob=file.blob or blob_id(content),
                content=content,
            )
        )
    return Snapshot(revision, root, tuple(files), tuple(sorted(problems)))


def _judge(entry: Entry, below: bytes, budgets: Budgets, commit: str) -> Wanted | Problem | None:
    """Say what becomes of one entry; None where it is nobody's business."""
    *folders, name = below.split(b"/")
    if name[:1] in {b".", b"_"} or any(hidden(folder) for folder in folders):
        return None
    readable = is_readable(name)
    if entry.kind is Kind.FILE:
        return _judge_file(entry, budgets, commit) if readable else None
    path = shown(entry.name)
    if entry.kind is Kind.OTHER:
        return _no_file(path, commit) if readable else None
    if name == CASES.encode():
        return None
    if entry.kind is Kind.LINK:
        return _symlink(path, commit, readable=readable)
    return _submodule(path, commit)


def _judge_file(entry: Entry, budgets: Budgets, commit: str) -> Wanted | Problem:
    """Want a file, or say which of its budgets it is over."""
    try:
        path = entry.name.decode("utf-8")
    except UnicodeDecodeError:
        path = ""
    depth = entry.name.count(b"/")
    if len(entry.name) > budgets.path_bytes:
        rule = PATH_TOO_LONG
        message = f"the path has {len(entry.name)} bytes, more than {budgets.path_bytes}"
        suggestion = "rename its folders"
    elif depth > budgets.depth:
        rule = PATH_TOO_DEEP
        message = f"the file lies {depth} folders deep, more than {budgets.depth}"
        suggestion = "move it up"
    elif not path:
        rule, message = PATH_NOT_UTF_8, "the file's name is not UTF-8"
        suggestion = "rename the file"
    elif _UNPRINTABLE.search(path):
        rule = PATH_NOT_PRINTABLE
        message = "the file's name holds a character that cannot be printed"
        suggestion = "rename the file"
    elif entry.size is None or entry.size > budgets.file_bytes:
        rule = FILE_TOO_LARGE
        many = "" if entry.size is None else f"{entry.size} bytes, "
        message = f"the file has {many}more than {budgets.file_bytes}"
        message += " bytes" if entry.size is None else ""
        suggestion = "split it, or move it out of the configured path"
    else:
        return Wanted(path, entry.size, entry.blob)
    return _problem(shown(entry.name), rule, message, suggestion, commit)


def _no_file(path: str, commit: str) -> Problem:
    message = "a device, socket or pipe is not read"
    return _problem(path, NOT_A_FILE, message, "replace it by a file", commit)


def _symlink(path: str, commit: str, *, readable: bool) -> Problem:
    """A link with the name of an operario is an error: something was meant to run."""
    if readable:
        suggestion = "replace the link by the file it points to"
        return _problem(path, SYMLINK, "symlinks are not followed", suggestion, commit)
    return _problem(
        path,
        LINKED_FOLDER,
        "symlinks are not followed: if this is one to a folder, nothing in it is read",
        "move the folder itself here",
        commit,
    )


def _submodule(path: str, commit: str) -> Problem:
    return _problem(
        path,
        SUBMODULE,
        "submodules are not fetched: nothing in this folder is read",
        "commit the files themselves",
        commit,
    )


def _folded(path: str) -> str:
    """One text for all names that some file system takes for the same."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def _case_twins(wanted: list[Wanted], commit: str) -> list[Problem]:
    """Report paths that one file system would take for the same."""
    folded = [_folded(file.path) for file in wanted]
    if len(set(folded)) == len(folded):
        return []
    seen: dict[str, str] = {}
    problems = []
    for file, key in zip(wanted, folded, strict=True):
        first = seen.setdefault(key, file.path)
        if first != file.path:
            problems.append(
                _problem(
                    file.path,
                    CASE_TWINS,
                    f"the path differs only in case from {first}: both are read here, and only"
                    " one on a file system without case",
                    "rename one of them",
                    commit,
                )
            )
    return problems


def _problem(path: str, rule: Rule, message: str, suggestion: str, commit: str) -> Problem:
    return Problem(path, 0, 0, "", rule.id, rule.severity, message, suggestion, commit)
