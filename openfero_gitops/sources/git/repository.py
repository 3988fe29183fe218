"""One bare repository on disk: fetching into it and reading from it.

Nothing is ever checked out, and no name in a tree becomes a file name on disk. Files are read by
the ID of a commit with Git's plumbing commands (`ls-tree`, `cat-file --batch`), one process for a
question. IDs have 40 digits in a SHA-1 repository and 64 in a SHA-256 one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import blob_id, is_commit
from openfero_gitops.domain.errors import NoSuchFolder, SourceError
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.git.commits import parse_commit
from openfero_gitops.sources.git.errors import Cut, Damaged, TooLarge, reason_of
from openfero_gitops.sources.git.process import TooMuchOutput, bytes_below
from openfero_gitops.sources.local import object_format
from openfero_gitops.sources.tree import Entry, Kind, printable_name, too_many_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from openfero_gitops.sources.git.commits import Commit
    from openfero_gitops.sources.git.process import Finished, Git
    from openfero_gitops.sources.tree import Budgets

_REMOTE: Final = "openfero"  # a name for one fetch command; it is not configured anywhere
_BYTES_PER_ENTRY: Final = 256  # of ls-tree's output, on average at most
_HEADER_BYTES: Final = 128  # that cat-file puts around one blob, at most
_MAX_OUTPUT_BYTES: Final = 1 << 26  # of commands whose output has no other limit
_MAX_PACKS: Final = 50  # each read opens all of them; then they are joined
_MAX_COMMIT_BYTES: Final = 8 << 20
_TREE: Final = "040000"
_KINDS: Final = {
    "100644": Kind.FILE,
    "100755": Kind.FILE,
    "100664": Kind.FILE,
    "120000": Kind.LINK,
    "160000": Kind.SUBMODULE,
}
_LISTING: Final = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]{40,64}) +(\d+|-|BAD)\t(.*)", re.DOTALL)
_CHANGE: Final = re.compile(rb":(\d{6}) \d{6} ([0-9a-f]{40,64}) [0-9a-f]{40,64} [A-Z]\d*")


@dataclass(frozen=True, slots=True)
class EarlierFile:
    """What a path was in `parent`, the first parent of a commit that changed it."""

    parent: str
    mode: str
    blob: str


@dataclass(frozen=True, slots=True)
class GitObject:
    """An object as it is stored: its ID, its kind (`blob`, `commit`, …) and its content."""

    name: str
    kind: str
    content: bytes


@dataclass(frozen=True, slots=True)
class BareRepository:
    """A bare repository in `folder`, read and written with `git`.

    Only the newest part of its history may have been fetched. A question that needs more raises
    `Cut`, unless `whole` says to answer from what was fetched. Another process may fetch the rest
    meanwhile, hence `cut`: whether history was missing before the question.
    """

    folder: Path
    git: Git
    whole: bool = False
    cut: bool = False

    @property
    def max_commit_bytes(self) -> int:
        """The size in bytes of the largest commit or tag that is read."""
        return _MAX_COMMIT_BYTES

    @property
    def object_format(self) -> str:
        """The hash of the IDs, `sha1` or `sha256`."""
        try:
            return object_format(self.folder)
        except OSError as error:
            raise Damaged("the file `config` cannot be read") from error

    @property
    def is_cut(self) -> bool:
        """Whether part of the history was not fetched."""
        return (self.folder / "shallow").exists()

    @property
    def may_be_cut(self) -> bool:
        """Whether an answer may be in history that was not fetched, and `Cut` is to be raised."""
        return not self.whole and (self.cut or self.is_cut)

    def create(self, template: Path, object_format: str) -> None:
        """Make an empty repository; its folder must not exist.

        Args:
            template: an empty folder, so that no hooks of the machine are copied.
            object_format: `sha1` or `sha256`, that of the remote to fetch from.

        Raises:
            SourceError: Git could not make it.
        """
        made = self.git.run(
            "init",
            "--quiet",
            "--bare",
            f"--object-format={object_format}",
            "--initial-branch=none",
            f"--template={template}",
            str(self.folder),
        )
        if made.code != 0:
            reason = reason_of(made)
            raise SourceError(f"{self.git.where}: cannot create {self.folder} (git: {reason})")

    def fetch(
        self,
        options: list[str],
        url: str,
        *refspecs: str,
        history: Sequence[str] = (),
        blob_bytes: int | None = None,
        file_blocks: int | None = None,
        disk_bytes: int = 0,
    ) -> Finished:
        """Fetch refspecs; the caller checks the result.

        With a pattern, refs that the remote has deleted are deleted here too: one of them may be
        in the way of a new ref, as `a` is of `a/b`.

        Args:
            options: configuration, before Git's command.
            url: the URL of the remote.
            refspecs: what to fetch, and under which of our refs; or IDs of objects.
            history: how far back, `--depth=N` or `--unshallow`; if empty, what is here goes on.
            blob_bytes: the size of the largest file to fetch, if the server can leave out others.
            file_blocks: of 512 bytes, the size of the largest file that may be written.
            disk_bytes: how large the repository may become.

        Raises:
            SourceError: git did not end in time or was stopped.
            TooMuchDisk: the repository became larger.
        """
        remote = [f"remote.{_REMOTE}.url={url}"]
        filters = []
        if blob_bytes is not None:
            # Only for this command. In the configuration of the repository it would allow commands
            # that read to use the network.
            filter_spec = f"blob:limit={blob_bytes + 1}"
            remote.append(f"remote.{_REMOTE}.promisor=true")
            remote.append(f"remote.{_REMOTE}.partialCloneFilter={filter_spec}")
            filters.append(f"--filter={filter_spec}")
        fetched = self.git.run(
            f"--git-dir={self.folder}",
            *options,
            *(word for option in remote for word in ("-c", option)),
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-show-forced-updates",
            # Without it, Git rejects refs of a remote that is itself a shallow clone, as in CI
            # pipelines, and still reports success.
            "--update-shallow",
            *(["--prune"] if any("*" in refspec for refspec in refspecs) else []),
            *history,
            *filters,
            "--",
            _REMOTE,
            *refspecs,
            file_blocks=file_blocks,
            folder=self.folder,
            folder_bytes=disk_bytes,
            lengthy=True,
        )
        if fetched.code == 0:
            # The next fetch would read every object of each pack with this marker.
            for marker in (self.folder / "objects" / "pack").glob("*.promisor"):
                marker.unlink(missing_ok=True)
        return fetched

    def packed(self) -> int:
        """Return the size in bytes of everything fetched so far, without indexes."""
        everything = bytes_below(self.folder / "objects")
        indexes = (self.folder / "objects" / "pack").glob("*.[ir][de][xv]")
        return everything - sum(path.stat().st_size for path in indexes)

    def half_a_pack(self) -> int:
        """Return the size in bytes of the incomplete pack that a stopped fetch has left, or 0."""
        packs = (self.folder / "objects" / "pack").glob("tmp_pack_*")
        return max((path.stat().st_size for path in packs), default=0)

    def remove_half_a_pack(self) -> None:
        """Remove what a stopped fetch has left; only for the holder of the lock."""
        for path in (self.folder / "objects" / "pack").glob("tmp_pack_*"):
            path.unlink(missing_ok=True)

    def tip(self, ref: str) -> str:
        """Return the ID that one of our own refs holds.

        Raises:
            Damaged: there is no such ref.
        """
        try:
            # One file for each ref: no process needs to be started for a sync without news.
            tip = (self.folder / ref).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise Damaged(f"ref {ref} is missing") from error
        if not is_commit(tip):
            raise Damaged(f"ref {ref} is damaged")
        return tip

    def has(self, commit: str) -> bool:
        """Whether a commit was fetched."""
        checked = self._run("cat-file", "-e", f"{commit}^{{commit}}")
        return checked.code == 0

    def has_folder(self, commit: str, path: str) -> bool:
        """Whether a fetched commit has a folder at a path."""
        kind = self._run("cat-file", "-t", f"{commit}:{path}")
        return kind.code == 0 and kind.stdout.strip() == b"tree"

    def commits(self, names: Iterable[str]) -> list[Commit]:
        """Read commits; an annotated tag is resolved to its commit.

        Raises:
            Damaged: one cannot be read.
            TooLarge: one is too large to be read.
            SourceError: one is not a commit.
        """
        names = list(names)
        peeled = [f"{name}^{{}}" for name in names]
        sizes = self._require_small([*names, *peeled])
        objects = self._objects(peeled, sum(sizes.values()))
        for name, object_ in zip(names, objects, strict=True):
            if object_.kind != "commit":
                raise SourceError(
                    f"{self.git.where}: {name[:12]} is a {object_.kind}; set --ref to a branch, a"
                    " tag of a commit, or a commit"
                )
        return [parse_commit(object_.name, object_.content) for object_ in objects]

    def entries(self, commit: str, root: str, budgets: Budgets) -> list[Entry]:
        """List everything below a path of a commit; symlinks and submodules are not followed.

        A file that was not fetched has no size.

        Raises:
            Damaged: the tree cannot be read.
            SourceError: there is no such folder in the commit, or too much below it.
        """
        paths = ["--", root] if root else []
        arguments = ("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", commit, *paths)
        try:
            max_bytes = budgets.entries * _BYTES_PER_ENTRY
            listed = self._run("--literal-pathspecs", *arguments, max_bytes=max_bytes)
        except TooMuchOutput:
            raise SourceError(too_many_entries(self.git.where, budgets)) from None
        if listed.code != 0 or listed.stderr:
            raise Damaged(reason_of(listed))
        return list(self._parse_listing(listed.stdout, commit, root))

    def blobs(self, ids: Iterable[str], total: int) -> dict[str, bytes]:
        """Read the contents of blobs, and verify each against its ID.

        Args:
            ids: of blobs that `entries` or `earlier` listed.
            total: their total size in bytes, as listed.

        Raises:
            Damaged: a blob is missing, or its content does not match its ID.
        """
        wanted = list(dict.fromkeys(ids))
        objects = self._objects(wanted, total)
        for blob, object_ in zip(wanted, objects, strict=True):
            if object_.kind != "blob":
                raise Damaged(f"blob {blob} cannot be read", [blob])
            if blob_id(object_.content, like=blob) != blob:
                text = f"the content of blob {blob} does not match its ID"
                raise Damaged(text, is_certain=True)
        return {object_.name: object_.content for object_ in objects}

    def earlier(
        self,
        path: str,
        commit: str,
        limit: int,
        changes: Mapping[bytes, list[EarlierFile]] | None,
    ) -> list[tuple[str, str]]:
        """List (commit, blob) of the earlier versions of a file, newest first.

        Each blob is listed once, with the newest of the first-parent ancestors that has it at this
        path. The blob in `commit` itself, symlinks and submodules are skipped.

        Args:
            path: of the file.
            commit: where to start.
            limit: how many ancestors to search.
            changes: what `changes` returned for them; None to read only the changes of this path.

        Raises:
            Damaged: the history cannot be read.
        """
        if changes is None:
            try:
                changes = _parse_log(self._log(commit, limit, path))
            except TooMuchOutput:
                raise Damaged("the history of one file is too long to be read") from None
        # The first parent of a commit that changed the file still had the version before it, and
        # no newer ancestor has it.
        versions: dict[str, str] = {}
        candidates = changes.get(path.encode(), [])
        current = self._blob_at(commit, path) if candidates else ""
        for file in candidates:
            if _KINDS.get(file.mode) is Kind.FILE and file.blob != current:
                versions.setdefault(file.blob, file.parent)
        return [(parent, blob) for blob, parent in versions.items()]

    def changes(self, commit: str, limit: int) -> dict[bytes, list[EarlierFile]] | None:
        """List by path what each first-parent ancestor changed; None where that is too much.

        Raises:
            Damaged: the history cannot be read.
        """
        try:
            return _parse_log(self._log(commit, limit))
        except TooMuchOutput:
            return None

    def _log(self, commit: str, limit: int, *paths: str) -> bytes:
        skip = f"--skip={limit}"
        beyond = self._checked("rev-list", "--first-parent", "--max-count=1", skip, commit, "--")
        if not beyond and self.may_be_cut:
            self.first_parents(commit, limit)  # raises Cut where the history only seems to end
        spans = [commit, *(f"^{sha}" for sha in beyond.decode().split())]
        log = self._run(
            "--literal-pathspecs",
            "log",
            "--first-parent",
            "--diff-merges=first-parent",
            "--raw",
            "--no-abbrev",
            "--no-renames",
            "--no-show-signature",
            "-z",
            "--format=%H %P",
            *spans,
            "--",
            *paths,
        )
        if log.code != 0:
            raise Damaged(reason_of(log))
        return log.stdout

    def first_parents(self, commit: str, limit: int) -> list[str]:
        """List the first-parent ancestors of a commit, newest first, at most `limit`.

        Raises:
            Damaged: the history cannot be read.
            Cut: part of these ancestors was not fetched.
        """
        most = f"--max-count={limit + 1}"
        listed = self._checked("rev-list", "--first-parent", most, commit, "--")
        commits = listed.decode().split()
        if len(commits) <= limit and self._ends_at(commits[-1]):
            raise Cut
        return commits[1:]

    def blobs_at(self, path: str, commits: Iterable[str]) -> list[str]:
        """Return the ID of what each commit has at a path, empty where it has nothing.

        Raises:
            Damaged: one cannot be read.
        """
        if "\n" in path:
            return ["" for _ in commits]
        stdin = "".join(f"{commit}:{path}\n" for commit in commits).encode()
        if not stdin:
            return []
        listed = self._checked("cat-file", "--batch-check=%(objectname)", stdin=stdin)
        return ["" if line.endswith(b" missing") else line.decode() for line in listed.splitlines()]

    def sizes(self, blobs: Iterable[str]) -> dict[str, int]:
        """Return the size in bytes of each blob that was fetched.

        Raises:
            Damaged: a fetched blob cannot be read.
        """
        wanted = list(blobs)
        if not wanted:
            return {}
        stdin = "".join(f"{blob}\n" for blob in wanted).encode()
        checked = self._run("cat-file", "--batch-check", stdin=stdin)
        if checked.code != 0 or checked.stderr:
            raise Damaged(reason_of(checked))
        lines = (line.split() for line in checked.stdout.decode().splitlines())
        return {
            name: int(size) for name, kind, *rest in lines if kind != "missing" for size in rest
        }

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether one commit is in the history of another.

        Raises:
            Damaged: the history cannot be read.
            Cut: it may be in the part that was not fetched.
        """
        if self._reaches(older, newer):
            return True
        if self.may_be_cut and not (self.has(older) and self._reaches(newer, older)):
            raise Cut
        return False

    def merge_base(self, first: str, second: str) -> str:
        """Return the newest common ancestor of two commits; empty where there is none.

        Raises:
            Damaged: the history cannot be read.
            Cut: it may be in the part that was not fetched.
        """
        base = self._run("merge-base", first, second)
        if base.code != 0 and self.may_be_cut:
            raise Cut
        if base.code not in {0, 1}:
            raise Damaged(reason_of(base))
        return base.stdout.decode().strip()

    def repack(self) -> Finished | None:
        """Join packs once there are many; the cost depends on what was added since."""
        if sum(1 for _ in (self.folder / "objects" / "pack").glob("*.pack")) <= _MAX_PACKS:
            return None
        words = ("repack", "--geometric=2", "-d", "-q", "-n")
        return self.git.run(f"--git-dir={self.folder}", *words, lengthy=True)

    def _reaches(self, older: str, newer: str, *, again: bool = True) -> bool:
        """Whether the fetched history of a commit contains another."""
        compared = self._run("merge-base", "--is-ancestor", older, newer)
        if compared.code in {0, 1}:
            return compared.code == 0
        if self.has(newer):
            if not self.has(older):
                return False
            if again:  # another replica on this cache may have fetched it since
                return self._reaches(older, newer, again=False)
        raise Damaged(reason_of(compared))

    def _ends_at(self, commit: str) -> bool:
        """Whether a commit without fetched parents may have parents on the server."""
        if not self.may_be_cut:
            return False
        try:
            return commit in (self.folder / "shallow").read_text(encoding="ascii").split()
        except FileNotFoundError:
            return True
        except (OSError, ValueError) as error:
            raise Damaged("the file `shallow` cannot be read") from error

    def _run(
        self, *arguments: str, stdin: bytes = b"", max_bytes: int = _MAX_OUTPUT_BYTES
    ) -> Finished:
        return self.git.run(
            f"--git-dir={self.folder}", *arguments, stdin=stdin, max_bytes=max_bytes
        )

    def _checked(self, *arguments: str, stdin: bytes = b"") -> bytes:
        try:
            finished = self._run(*arguments, stdin=stdin)
        except TooMuchOutput:
            raise Damaged("git printed more than expected") from None
        if finished.code != 0:
            raise Damaged(reason_of(finished))
        return finished.stdout

    def _blob_at(self, commit: str, path: str) -> str:
        """Return the ID of what a commit has at a path, empty where it has nothing."""
        listed = self._checked(
            "--literal-pathspecs", "ls-tree", "-z", "--full-tree", commit, "--", path
        )
        fields = listed.split(b"\t")[0].split()
        return fields[2].decode() if listed.count(b"\0") == 1 else ""

    def _parse_listing(self, listing: bytes, commit: str, root: str) -> Iterator[Entry]:
        """Parse the output of ls-tree, in which the path itself must be a folder."""
        where = f"{self.git.where}: {printable(root)}"
        top = root.encode()
        prefix = top + b"/" if root else b""
        has_root = not root
        for line in listing.split(b"\0")[:-1]:
            fields = _LISTING.fullmatch(line)
            if fields is None:
                raise Damaged(f"tree of {commit}: {printable_name(line)}")
            mode, name, size = fields[1].decode(), fields[5], fields[4]
            if name == top and root:
                if mode != _TREE:
                    raise SourceError(
                        f"{where} is not a folder in commit {commit[:12]}; set --path to a folder"
                    )
                has_root = True
            elif mode != _TREE and name.startswith(prefix):
                kind = _KINDS.get(mode, Kind.OTHER)
                length = None if size == b"BAD" else int(size) if size.isdigit() else 0
                yield Entry(name, kind, length, fields[3].decode())
        if not has_root:
            raise NoSuchFolder(
                f"{where} does not exist in commit {commit[:12]}; correct --path, or restore the"
                " folder"
            )

    def _require_small(self, names: Iterable[str]) -> dict[str, int]:
        """Refuse commits and tags that are too large to be held in memory; return all sizes."""
        sizes = self.sizes(names)
        for name, size in sizes.items():
            if size > _MAX_COMMIT_BYTES:
                raise TooLarge(
                    f"commit or tag {name[:12]} has {size} bytes, more than {_MAX_COMMIT_BYTES};"
                    " commit again with fewer parents and a shorter message"
                )
        return sizes

    def _objects(self, names: Sequence[str], total: int) -> list[GitObject]:
        """Read objects in the order of their names.

        Args:
            names: anything that Git resolves to an object.
            total: their size in bytes, at most.

        Raises:
            Damaged: one is missing, or they are larger.
        """
        if not names:
            return []
        stdin = "".join(f"{name}\n" for name in names).encode()
        max_bytes = total + _HEADER_BYTES * len(names)
        try:
            read = self._run("cat-file", "--batch", "--buffer", stdin=stdin, max_bytes=max_bytes)
        except TooMuchOutput:
            raise Damaged("an object is larger than listed", is_certain=True) from None
        if read.code != 0:
            raise Damaged(reason_of(read), names)
        objects: list[GitObject] = []
        start = 0
        for name in names:
            end = read.stdout.find(b"\n", start)
            header = read.stdout[start:end].decode().split()
            if end < 0 or len(header) != 3:  # noqa: PLR2004 - id, type, size
                raise Damaged(f"object {name.removesuffix('^{}')} cannot be read", [name])
            start = end + 1 + int(header[2]) + 1
            objects.append(GitObject(header[0], header[1], read.stdout[end + 1 : start - 1]))
        return objects


def _parse_log(log: bytes) -> dict[bytes, list[EarlierFile]]:
    """Parse `git log --raw -z` into what each path was before each change, newest first."""
    # A name may hold any byte but NUL: only its place tells a name from other tokens.
    tokens = iter(log.split(b"\0"))
    parents: list[bytes] = []
    changes: dict[bytes, list[EarlierFile]] = {}
    for token in tokens:
        fields = _CHANGE.fullmatch(token.strip())
        if fields is None:
            parents = token.split()[1:]
            continue
        name = next(tokens, b"")
        if parents and fields[2].strip(b"0"):  # all zeros: there was no file
            file = EarlierFile(parents[0].decode(), fields[1].decode(), fields[2].decode())
            changes.setdefault(name, []).append(file)
    return changes
