"""Which files of a repository are read, and what is said about those that are not.

Pure: an adapter lists what lies below the configured path, `select` chooses, the adapter reads
what was chosen, `assemble` makes the snapshot. So a commit and a working copy of it are read by
the same rules. Everything here is an untrusted author's: a name may be any bytes.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, apart
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
    from collections.abc import Iterable, Mapping, Sequence

#: The folder of the golden cases, which are no operarios.
CASES: Final = "tests"

_FEW: Final = 1000  # changes, below which each is looked up
_PATH: Final = attrgetter("path")
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

    The rest is what `revise` goes on from: what became of each name that is anybody's business,
    and what those names come to.
    """

    wanted: tuple[Wanted, ...]
    problems: tuple[Problem, ...]
    names: Names = field(repr=False)


@dataclass(slots=True)
class Names:
    """Every name below a path, as far as it counts.

    Attributes:
        entries: how many there are, read or not.
        judged: what became of those that are anybody's business.
        refused: those of them that are not read.
        folded: how many files' paths some file system would take for the same.
        size: bytes of all files to read.
    """

    entries: int = 0
    judged: dict[bytes, Wanted | Problem] = field(default_factory=dict)
    refused: dict[bytes, Problem] = field(default_factory=dict)
    folded: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def copy(self) -> Names:
        """One that can be changed without this one."""
        return Names(
            self.entries, self.judged.copy(), self.refused.copy(), self.folded.copy(), self.size
        )

    def add(self, name: bytes, found: Wanted | Problem) -> None:
        """Note what becomes of a name."""
        self.judged[name] = found
        if isinstance(found, Problem):
            self.refused[name] = found
            return
        key = _folded(found.path)
        self.folded[key] = self.folded.get(key, 0) + 1
        self.size += found.size

    def remove(self, name: bytes) -> Wanted | Problem | None:
        """Forget a name, and return what had become of it."""
        found = self.judged.pop(name, None)
        self.refused.pop(name, None)
        if isinstance(found, Wanted):
            key = _folded(found.path)
            self.folded[key] -= 1
            if not self.folded[key]:
                del self.folded[key]
            self.size -= found.size
        return found


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
    names = Names()
    for entry in entries:
        names.entries += 1
        found = _judge(entry, entry.name[skipped:], budgets, commit)
        if found is not None:
            names.add(entry.name, found)
        _require_few(names, root, budgets, where)
    wanted = [one for one in names.judged.values() if isinstance(one, Wanted)]
    wanted.sort(key=_PATH)
    return _selection(wanted, names, root=root, budgets=budgets, where=where, commit=commit)


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
    names, wanted = before.names.copy(), list(before.wanted)
    for change in changes:
        names.entries += (change.now is not None) - change.was
        lost = names.remove(change.name)
        if isinstance(lost, Wanted):
            del wanted[_place(wanted, lost.path)]
        if change.now is None:
            continue
        found = _judge(change.now, change.name[skipped:], budgets, commit)
        if found is not None:
            names.add(change.name, found)
        if isinstance(found, Wanted):
            wanted.insert(_place(wanted, found.path), found)
    _require_few(names, root, budgets, where)
    return _selection(wanted, names, root=root, budgets=budgets, where=where, commit=commit)


def _place(files: Sequence[Wanted | SourceFile | None], path: str) -> int:
    """Where among files, sorted by path, one of this path stands, or would."""
    return bisect_left(files, path, key=_PATH)


def _above(root: str) -> int:
    """How much of a name counts from the repository's root, and not from the path."""
    return len(root.encode()) + 1 if root else 0


def _require_few(names: Names, root: str, budgets: Budgets, where: str) -> None:
    if names.entries > budgets.entries:
        raise SourceError(too_many_entries(where, budgets))
    if len(names.judged) > budgets.files:
        raise SourceError(
            f"{where}: more than {budgets.files} YAML and JSON files below"
            f" {root or 'the root'}; name the folder of the operarios as the path"
        )


def _selection(
    wanted: list[Wanted], names: Names, *, root: str, budgets: Budgets, where: str, commit: str
) -> Selection:
    if names.size > budgets.total_bytes:
        raise SourceError(
            f"{where}: the YAML and JSON files below {root or 'the root'} have {names.size} bytes"
            f" together, more than {budgets.total_bytes}; name the folder of the operarios as the"
            " path"
        )
    problems = [
        one if one.commit == commit else replace(one, commit=commit)
        for one in names.refused.values()
    ]
    if max(names.folded.values(), default=0) > 1:
        problems += _case_twins(wanted, commit)
    return Selection(tuple(wanted), tuple(sorted(problems)), names)


def too_many_entries(where: str, budgets: Budgets) -> str:
    """Word the refusal of a tree that is too large to be listed."""
    return (
        f"{where}: more than {budgets.entries} entries below the path; name the folder of the"
        " operarios as the path"
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What was read of a commit: the next is told from it by what changed."""

    snapshot: Snapshot
    selection: Selection


@dataclass(frozen=True, slots=True)
class Carried:
    """For each wanted file what is known of it; `missing` are the places of those to be read."""

    files: list[SourceFile | None]
    missing: list[int]


def carry(selection: Selection, known: Known | None) -> Carried:
    """Find what is known already: the files of the same path and blob."""
    before = known.snapshot.files if known else ()
    gone, came = apart(known.selection.wanted if known else (), selection.wanted)
    if known is None or len(before) < len(known.selection.wanted) or len(gone) > _FEW:
        # (A pointer of Git LFS is wanted, and no file.)
        held = {file.path: file for file in before}
        files = [_same(held.get(one.path), one) for one in selection.wanted]
        return Carried(files, [place for place, file in enumerate(files) if file is None])
    stayed, missing = list(before), []
    held = {lost.path: stayed.pop(_place(stayed, lost.path)) for lost in gone}
    files = [*stayed]
    for one in came:  # in their order, so that each place is its last
        place = _place(selection.wanted, one.path)
        same = _same(held.get(one.path), one)
        files.insert(place, same)
        if same is None:
            missing.append(place)
    return Carried(files, missing)


def _same(file: SourceFile | None, wanted: Wanted) -> SourceFile | None:
    return file if file is not None and wanted.blob and file.blob == wanted.blob else None


def assemble(
    revision: Revision,
    root: str,
    selection: Selection,
    contents: Mapping[str, bytes],
    carried: Carried | None = None,
) -> Snapshot:
    """Make the snapshot of what was read.

    Args:
        revision: whose files they are.
        root: the configured path.
        selection: what is wanted.
        contents: by path, of every wanted file that is not known.
        carried: what is known of this selection's files.
    """
    carried = carried or carry(selection, None)
    files, problems = carried.files.copy(), list(selection.problems)
    for place in carried.missing:
        wanted = selection.wanted[place]
        content = contents[wanted.path]
        if not is_lfs_pointer(content):
            blob = wanted.blob or blob_id(content)
            files[place] = SourceFile(path=wanted.path, blob=blob, content=content)
            continue
        problems.append(
            _problem(
                wanted.path,
                LFS_POINTER,
                "the file is a Git LFS pointer, its content is not in Git",
                "commit the file itself: take its pattern out of .gitattributes and add it again",
                revision.commit,
            )
        )
    present = tuple(file for file in files if file is not None)
    return Snapshot(revision, root, present, tuple(sorted(problems)))


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
        message = (
            f"the file has more than {budgets.file_bytes} bytes"
            if entry.size is None
            else f"the file has {entry.size} bytes, more than {budgets.file_bytes}"
        )
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
    seen: dict[str, str] = {}
    problems = []
    for file in wanted:
        first = seen.setdefault(_folded(file.path), file.path)
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
