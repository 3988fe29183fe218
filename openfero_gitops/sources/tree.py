"""Selects the files of a repository that are read, and reports the others.

Pure functions: a source lists what is below the configured path, `select` chooses the files, the
source reads them, and `assemble` builds the snapshot. A commit and a working copy of it are
therefore read by the same rules. All input is untrusted: a name may be any bytes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, blob_id
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.domain.problem import Ignored, Problem
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
from openfero_gitops.domain.text import is_printable, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: The folder that holds the golden test cases; it contains no operarios.
CASES: Final = "tests"

_SUFFIXES: Final = (b".yaml", b".yml", b".json")
_NEAR_SUFFIX: Final = re.compile(rb"\.(?:ya?ml|json)(?:$|[^a-z0-9/][^/]*$)", re.IGNORECASE)
_MAX_IGNORED: Final = 1000
_LFS_PREFIX: Final = b"version https://git-lfs"
_MAX_PRINTED_NAME: Final = 512  # characters


@dataclass(frozen=True, slots=True)
class Budgets:
    """How much of a repository is read. What exceeds a budget is reported, never truncated.

    `file_bytes`, `path_bytes` and `depth` (folders above a file) apply to one file, which is then
    skipped with an error. One over `file_bytes`, but not over `searched_bytes`, is searched instead
    of parsed, and ignored if it holds no operario. `files`, `total_bytes` and `entries` (everything
    below the path, read or not) apply to the repository, which is then refused as a whole.
    """

    file_bytes: int = 512 * 1024
    path_bytes: int = 4096
    depth: int = 32
    files: int = 20_000
    total_bytes: int = 64 * 1024 * 1024
    searched_bytes: int = 16 * 1024 * 1024
    entries: int = 200_000


class Kind(StrEnum):
    """The type of an entry, as its listing says."""

    FILE = "file"
    LINK = "symlink"
    SUBMODULE = "submodule"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name below the configured path.

    `name` is relative to the repository's root. `size` is in bytes; None for a file that was not
    fetched because it is over the budget. `blob` is empty where only the content would tell.
    """

    name: bytes
    kind: Kind
    size: int | None = 0
    blob: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to read: its name is printable and its size is within the budget."""

    path: str
    size: int
    blob: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to read, sorted by path, and a problem for each entry that is skipped.

    `large` are files over the budget of one file that can be searched: if they hold no operario,
    they are ignored instead of reported. `ignored` are files whose name is nearly that of a file
    that is read.
    """

    wanted: tuple[Wanted, ...]
    problems: tuple[Problem, ...]
    large: tuple[Wanted, ...] = ()
    ignored: tuple[Ignored, ...] = ()


def normalise(path: str) -> str:
    """Return the canonical form of a configured path: no `./`, no trailing `/`, empty for the root.

    Raises:
        UsageError: the path is absolute, leaves the repository or is not printable.
    """
    shown = printable(path)
    if path.startswith("/"):
        raise UsageError(
            f"path {shown!r} is absolute; give a path relative to the root of the repository"
        )
    if not is_printable(path):
        raise UsageError(f"path {shown!r} contains a character that cannot be printed")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UsageError(f"path {shown!r} leaves the repository; give a path without '..'")
    return "/".join(parts)


def printable_name(name: bytes) -> str:
    """Return a file name of any bytes as one line of printable characters."""
    return printable(name.decode("utf-8", "backslashreplace"), _MAX_PRINTED_NAME)


def is_lfs_pointer(content: bytes) -> bool:
    """Whether the content is a Git LFS pointer instead of the file itself."""
    return content.startswith(_LFS_PREFIX)


def is_readable(name: bytes) -> bool:
    """Whether a file of this name is read."""
    return name.endswith(_SUFFIXES)


def is_skipped_folder(name: bytes) -> bool:
    """Whether a folder of this name is skipped with everything below it."""
    return name[:1] in {b".", b"_"} or name == CASES.encode()


def select(
    entries: Iterable[Entry], *, root: str, budgets: Budgets, where: str, commit: str = ""
) -> Selection:
    """Choose the files to read among everything below `root`.

    Args:
        entries: all below `root`, in any order; submodules and symlinks are not followed.
        root: the configured path, normalised.
        budgets: the limits.
        where: begins the text of an error.
        commit: written on every problem; empty for a folder.

    Raises:
        SourceError: the repository as a whole is over a budget.
    """
    prefix_length = len(root.encode()) + 1 if root else 0
    wanted: dict[bytes, Wanted] = {}
    problems: dict[bytes, Problem] = {}
    large: list[Wanted] = []
    ignored: list[Ignored] = []
    for number, entry in enumerate(entries, start=1):
        match _judge(entry, entry.name[prefix_length:], budgets, commit):
            case Wanted() as file:
                wanted[entry.name] = file
            case Problem() as problem:
                problems[entry.name] = problem
                if problem.rule == FILE_TOO_LARGE.id and entry.size is not None:
                    large.append(Wanted(problem.path, entry.size, entry.blob))
            case Ignored() as near if len(ignored) < _MAX_IGNORED:
                ignored.append(near)
        if number > budgets.entries:
            raise SourceError(too_many_entries(where, budgets))
        if len(wanted) + len(problems) > budgets.files:
            raise SourceError(
                f"{where}: more than {budgets.files} YAML and JSON files below"
                f" {root or 'the root'}; set --path to the folder of the operarios"
            )
    size = sum(file.size for file in wanted.values())
    if size > budgets.total_bytes:
        raise SourceError(
            f"{where}: the YAML and JSON files below {root or 'the root'} have {size} bytes in"
            f" total, more than {budgets.total_bytes}; set --path to the folder of the operarios"
        )
    files = sorted(wanted.values(), key=attrgetter("path"))
    all_problems = sorted([*problems.values(), *_case_twins(files, commit)])
    return Selection(
        tuple(files),
        tuple(all_problems),
        tuple(_searchable(large, budgets)),
        tuple(sorted(ignored)),
    )


def _searchable(large: Iterable[Wanted], budgets: Budgets) -> Iterator[Wanted]:
    """Choose the files that are too large to be read but can be searched, the smallest first."""
    total = 0
    for file in sorted(large, key=attrgetter("size", "path")):
        total += file.size
        if file.size > budgets.searched_bytes or total > budgets.total_bytes:
            return
        yield file


def too_many_entries(where: str, budgets: Budgets) -> str:
    """Return the error text for a tree that is too large to list."""
    return (
        f"{where}: more than {budgets.entries} entries below the path; set --path to the folder"
        " of the operarios"
    )


def unchanged(selection: Selection, before: Snapshot | None) -> dict[str, SourceFile]:
    """Return the wanted files that an earlier snapshot already holds, by path."""
    held = {file.path: file for file in before.files} if before else {}
    return {
        wanted.path: file
        for wanted in selection.wanted
        if (file := held.get(wanted.path)) is not None and file.blob == wanted.blob
    }


def assemble(
    revision: Revision,
    root: str,
    selection: Selection,
    contents: Mapping[str, bytes],
    held: Mapping[str, SourceFile] | None = None,
    *,
    unrelated: Iterable[str] = (),
    like: str = "",
) -> Snapshot:
    """Build the snapshot from the files that were read.

    Args:
        revision: the revision of the files.
        root: the configured path.
        selection: the files of the snapshot.
        contents: the content by path, of every wanted file that is not in `held`.
        held: files that are already in memory, by path.
        unrelated: the paths of the large files that hold no operario.
        like: any ID of the repository, for files whose ID is not known.
    """
    held = held or {}
    unrelated = frozenset(unrelated)
    files: list[SourceFile] = []
    problems = [problem for problem in selection.problems if problem.path not in unrelated]
    ignored = [
        *selection.ignored,
        *(Ignored(path, "", "more than 512 KiB, and no operario in it") for path in unrelated),
    ]
    for wanted in selection.wanted:
        if wanted.path in held:
            files.append(held[wanted.path])
            continue
        content = contents[wanted.path]
        if is_lfs_pointer(content):
            problems.append(
                _problem(
                    wanted.path,
                    LFS_POINTER,
                    "the file is a Git LFS pointer; its content is not in Git",
                    "remove its pattern from .gitattributes and commit the file itself",
                    revision.commit,
                )
            )
        else:
            blob = wanted.blob or blob_id(content, like=like)
            files.append(SourceFile(path=wanted.path, blob=blob, content=content))
    return Snapshot(revision, root, tuple(files), tuple(sorted(problems)), tuple(sorted(ignored)))


def _judge(
    entry: Entry, below: bytes, budgets: Budgets, commit: str
) -> Wanted | Problem | Ignored | None:
    """Decide whether an entry is read, reported, listed as ignored, or not mentioned (None)."""
    *folders, name = below.split(b"/")
    if name[:1] in {b".", b"_"} or any(is_skipped_folder(folder) for folder in folders):
        return None
    readable = is_readable(name)
    if entry.kind is Kind.FILE:
        return _judge_file(entry, budgets, commit) if readable else _near_suffix(name, entry)
    path = printable_name(entry.name)
    if entry.kind is Kind.OTHER:
        message = "the entry is a device, socket or pipe, not a file"
        replacement = "replace it with a regular file"
        return _problem(path, NOT_A_FILE, message, replacement, commit) if readable else None
    if name == CASES.encode():
        return None
    if entry.kind is Kind.LINK:
        return _symlink(path, commit, readable=readable)
    return _problem(
        path,
        SUBMODULE,
        "submodules are not fetched: the files in this folder are not read",
        "commit the files themselves",
        commit,
    )


def _near_suffix(name: bytes, entry: Entry) -> Ignored | None:
    """List a file whose name contains a suffix of a file that is read: `a.YAML`, `a.yaml.bak`."""
    match = _NEAR_SUFFIX.search(name)
    if match is None:
        return None
    suffix = printable_name(match[0])
    return Ignored(
        printable_name(entry.name),
        "",
        f"its name ends with {suffix}: only .yaml, .yml and .json are read",
    )


def _judge_file(entry: Entry, budgets: Budgets, commit: str) -> Wanted | Problem:
    try:
        path = entry.name.decode("utf-8")
    except UnicodeDecodeError:
        path = ""
    depth = entry.name.count(b"/")
    if len(entry.name) > budgets.path_bytes:
        rule = PATH_TOO_LONG
        message = f"the path has {len(entry.name)} bytes, more than {budgets.path_bytes}"
        suggestion = "shorten the names of its folders"
    elif depth > budgets.depth:
        rule = PATH_TOO_DEEP
        message = f"the file is {depth} folders deep, more than {budgets.depth}"
        suggestion = "move the file up"
    elif not path:
        rule, message = PATH_NOT_UTF_8, "the file's name is not valid UTF-8"
        suggestion = "rename the file"
    elif not is_printable(path):
        rule = PATH_NOT_PRINTABLE
        message = "the file's name contains a character that cannot be printed"
        suggestion = "rename the file"
    elif entry.size is None or entry.size > budgets.file_bytes:
        rule = FILE_TOO_LARGE
        message = (
            f"the file has more than {budgets.file_bytes} bytes"
            if entry.size is None
            else f"the file has {entry.size} bytes, more than {budgets.file_bytes}"
        )
        suggestion = (
            "split the file; if it holds no operario, list it under ignore in openfero.yaml"
        )
    else:
        return Wanted(path, entry.size, entry.blob)
    return _problem(printable_name(entry.name), rule, message, suggestion, commit)


def _symlink(path: str, commit: str, *, readable: bool) -> Problem:
    # A link with the name of an operario is an error: its author expects the operario to run.
    if readable:
        suggestion = "replace the link with the file that it points to"
        return _problem(path, SYMLINK, "symlinks are not followed", suggestion, commit)
    return _problem(
        path,
        LINKED_FOLDER,
        "symlinks are not followed: files in a linked folder are not read",
        "replace the link with the folder that it points to",
        commit,
    )


def _folded(path: str) -> str:
    """Return one text for all names that a case-insensitive file system treats as the same."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def _case_twins(files: list[Wanted], commit: str) -> list[Problem]:
    first_paths: dict[str, str] = {}
    problems = []
    for file in files:
        first = first_paths.setdefault(_folded(file.path), file.path)
        if first != file.path:
            problems.append(
                _problem(
                    file.path,
                    CASE_TWINS,
                    f"the path differs from {first} only in case: a case-insensitive file system"
                    " keeps only one of them",
                    "rename one of them",
                    commit,
                )
            )
    return problems


def _problem(path: str, rule: Rule, message: str, suggestion: str, commit: str) -> Problem:
    return Problem(path, 0, 0, "", rule.id, rule.severity, message, suggestion, commit)
