"""One bare repository on disk: what is fetched into it and read from it.

Nothing is ever checked out, and no name in a tree becomes a name on disk. Files are read by the
id of a commit through git's plumbing (`ls-tree`, `cat-file --batch`), a process a question;
GitPython reads refs, tags and commits, in objects that live for one question, since each holds
children and file descriptors until it is closed.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from git import Commit as CommitObject
from git import Repo, SymbolicReference, TagObject
from git.exc import GitError, InvalidGitRepositoryError, NoSuchPathError, ODBError

from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.sources.git.errors import Cut, Damaged, last_line
from openfero_gitops.sources.git.process import TooMuchOutput
from openfero_gitops.sources.tree import Change, Entry, Kind, blob_id, shown, too_many_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from openfero_gitops.sources.git.process import Finished, Git
    from openfero_gitops.sources.tree import Budgets

_REMOTE: Final = "openfero"  # as one command of git calls it; it is written nowhere
_LISTED: Final = 256  # bytes of ls-tree's output that one entry has on average, at most
_HEADER: Final = 64  # bytes that cat-file puts around one blob, at most
_MANY_PACKS: Final = 50  # then they are rolled up: each is opened at every read
_LONGEST_NAME: Final = 200  # characters of an author
_TAGS_OF_TAGS: Final = 8
_ZEROS: Final = "0" * 40
_TREE: Final = "040000"
_ABSENT: Final = b"000000"
_KINDS: Final = {
    "100644": Kind.FILE,
    "100755": Kind.FILE,
    "100664": Kind.FILE,
    "120000": Kind.LINK,
    "160000": Kind.SUBMODULE,
}
_LISTING: Final = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]{40}) +(\d+|-|BAD)\t(.*)", re.DOTALL)
_DIFFERENCE: Final = re.compile(rb":(\d{6}) (\d{6}) [0-9a-f]{40} ([0-9a-f]{40}) [A-Z]\d*")
_CHANGE: Final = re.compile(rb":(\d{6}) \d{6} ([0-9a-f]{40}) [0-9a-f]{40} [A-Z]\d*")


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; `author` is `Name <email>`, `time` RFC 3339, both empty where unreadable."""

    sha: str
    author: str
    time: str


@dataclass(frozen=True, slots=True)
class Before:
    """What a path was in the first parent of a commit that changed it."""

    parent: str
    mode: str
    blob: str


@dataclass(frozen=True, slots=True)
class BareRepository:
    """A bare repository in `folder`, read and written through `git`.

    Of its history the newest part may be all that is here. A question that leads beyond that
    raises `Cut`, unless what is here is to be taken for the `whole` of it. Another process may
    fetch the rest meanwhile: what was `cut` before the question counts as cut.
    """

    folder: Path
    git: Git
    whole: bool = False
    cut: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether there is history that was not fetched."""
        return (self.folder / "shallow").exists()

    @property
    def may_be_cut(self) -> bool:
        """Whether an answer may lie in history that was not fetched, and that is to be minded."""
        return not self.whole and (self.cut or self.is_cut)

    def create(self, template: Path) -> None:
        """Make an empty repository; its folder must not exist.

        Not by GitPython, whose children have this process's environment as well: run by a git
        hook, `git init` would make another repository than this.

        Args:
            template: an empty folder, so that no hook of the machine's is copied.

        Raises:
            SourceError: git could not make it.
        """
        made = self.git.run(
            "init",
            "--quiet",
            "--bare",
            "--object-format=sha1",
            "--initial-branch=none",
            f"--template={template}",
            str(self.folder),
        )
        if made.code != 0:
            said = last_line(made.stderr)
            raise SourceError(f"{self.git.where}: {self.folder} could not be made (git: {said})")

    def fetch(
        self,
        options: list[str],
        url: str,
        refspec: str,
        *,
        history: Sequence[str] = (),
        blob_bytes: int | None = None,
        file_blocks: int | None = None,
    ) -> Finished:
        """Fetch with a refspec; the caller judges how it went.

        With a pattern, refs that are gone are removed here too: one may stand where another's
        folder must.

        Args:
            options: configuration, ahead of git's command.
            url: of the remote.
            refspec: what to fetch, and under which of our refs.
            history: how far back, `--depth=N` or `--unshallow`; what is here goes on, if empty.
            blob_bytes: the largest file to bring, where the server can leave others out.
            file_blocks: of 512 bytes, the largest file that may be written.
        """
        remote = [f"remote.{_REMOTE}.url={url}"]
        filters = []
        if blob_bytes is not None:
            # Said to this one command: where the repository's own configuration says so, whatever
            # reads may go to the network.
            chosen = f"blob:limit={blob_bytes + 1}"
            remote.append(f"remote.{_REMOTE}.promisor=true")
            remote.append(f"remote.{_REMOTE}.partialCloneFilter={chosen}")
            filters.append(f"--filter={chosen}")
        fetched = self.git.run(
            f"--git-dir={self.folder}",
            *options,
            *(word for one in remote for word in ("-c", one)),
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-show-forced-updates",
            # From a clone that was made with --depth, as pipelines make theirs: without it git
            # rejects the ref, and says that all went well.
            "--update-shallow",
            *(["--prune"] if "*" in refspec else []),
            *history,
            *filters,
            "--",
            _REMOTE,
            refspec,
            file_blocks=file_blocks,
        )
        if fetched.code == 0:
            # Of each pack with this mark, the next fetch would look at every object.
            for mark in (self.folder / "objects" / "pack").glob("*.promisor"):
                mark.unlink(missing_ok=True)
        return fetched

    def packed(self) -> int:
        """Return the size in bytes of everything that was fetched."""
        packs = (self.folder / "objects" / "pack").glob("*.pack")
        return sum(path.stat().st_size for path in packs)

    def half_a_pack(self) -> int:
        """Return the size in bytes of what a fetch had written when it was ended, 0 for nothing."""
        left = (self.folder / "objects" / "pack").glob("tmp_pack_*")
        return max((path.stat().st_size for path in left), default=0)

    def tip(self, ref: str) -> str:
        """Return the id that one of our own refs holds, read without a process.

        Raises:
            Damaged: there is no such ref.
        """
        with self._repo() as repo:
            try:
                return SymbolicReference.dereference_recursive(repo, ref)
            except ValueError as error:
                raise Damaged(f"no ref {ref}") from error

    def has(self, commit: str) -> bool:
        """Whether a commit is here."""
        checked = self._run("cat-file", "-e", f"{commit}^{{commit}}")
        return checked.code == 0

    def has_folder(self, commit: str, path: str) -> bool:
        """Whether a commit that is here has a folder at a path."""
        kind = self._run("cat-file", "-t", f"{commit}:{path}")
        return kind.code == 0 and kind.stdout.strip() == b"tree"

    def commits(self, names: Iterable[str]) -> list[Commit]:
        """Read commits; an annotated tag stands for the commit that it names.

        Raises:
            Damaged: one cannot be read.
            SourceError: one is something else than a commit.
        """
        with self._repo() as repo:
            return [self._commit(repo, name) for name in names]

    def entries(self, commit: str, root: str, budgets: Budgets) -> list[Entry]:
        """List everything below a path of a commit, symlinks and submodules as themselves.

        A file that is not here has no size.

        Raises:
            Damaged: the tree cannot be read.
            SourceError: there is no such folder in the commit, or far too much below it.
        """
        most = budgets.entries * _LISTED
        paths = ["--", root] if root else []
        arguments = ("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", commit, *paths)
        try:
            listed = self._run("--literal-pathspecs", *arguments, most=most)
        except TooMuchOutput:
            raise SourceError(too_many_entries(self.git.where, budgets)) from None
        if listed.code != 0 or listed.stderr:
            raise Damaged(last_line(listed.stderr))
        return list(self._below(listed.stdout, commit, root))

    def changes(self, older: str, newer: str, root: str, most: int) -> list[Change] | None:
        """List what two commits differ in below a path, at most so many names.

        None says that all must be listed anew: the older commit is not here, the path itself
        became something else, or they differ in more. A file that is not here has no size.

        Raises:
            Damaged: the new blobs cannot be read.
        """
        paths = ["--", root] if root else []
        options = ("-r", "-z", "--raw", "--no-renames", "--no-abbrev")
        arguments = ("diff-tree", *options, older, newer, *paths)
        try:
            compared = self._run("--literal-pathspecs", *arguments, most=most * _LISTED)
        except TooMuchOutput:
            return None
        if compared.code != 0:
            return None
        tokens = compared.stdout.split(b"\0")[:-1]
        inside = root.encode() + b"/" if root else b""
        found = [
            (_DIFFERENCE.fullmatch(said), name)
            for said, name in zip(tokens[::2], tokens[1::2], strict=True)
        ]
        if len(found) > most or not all(said and name.startswith(inside) for said, name in found):
            return None
        modes = [
            (said[1], said[2].decode(), said[3].decode(), name) for said, name in found if said
        ]
        sizes = self.sizes({blob for _, mode, blob, _ in modes if _KINDS.get(mode) is Kind.FILE})
        return [
            Change(
                name,
                was=before != _ABSENT,
                now=None
                if after == _ABSENT.decode()
                else Entry(
                    name,
                    kind := _KINDS.get(after, Kind.OTHER),
                    sizes.get(blob) if kind is Kind.FILE else 0,
                    blob,
                ),
            )
            for before, after, blob, name in modes
        ]

    def blobs(self, ids: Iterable[str], total: int) -> dict[str, bytes]:
        """Read the content of blobs, each held against its id.

        Args:
            ids: of blobs that `entries` or `older` listed.
            total: bytes that they have together, as listed.

        Raises:
            Damaged: one is missing or not what its id says.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        stdin = "".join(f"{blob}\n" for blob in wanted).encode()
        try:
            read = self._run(
                "cat-file",
                "--batch",
                "--buffer",
                stdin=stdin,
                most=total + _HEADER * len(wanted),
            )
        except TooMuchOutput:
            raise Damaged("a blob is larger than listed") from None
        if read.code != 0:
            raise Damaged(last_line(read.stderr))
        contents: dict[str, bytes] = {}
        at = 0
        for blob in wanted:
            end = read.stdout.find(b"\n", at)
            header = read.stdout[at:end].split()
            if end < 0 or len(header) != 3 or header[1] != b"blob":  # noqa: PLR2004 - id, type, size
                raise Damaged(f"blob {blob} cannot be read")
            at = end + 1 + int(header[2]) + 1
            contents[blob] = read.stdout[end + 1 : at - 1]
            if blob_id(contents[blob]) != blob:
                raise Damaged(f"blob {blob} is not what its id says")
        return contents

    def older(
        self, path: str, commit: str, limit: int, changed: Mapping[bytes, list[Before]] | None
    ) -> list[tuple[str, str]]:
        """List (commit, blob) of what a path held among the first first-parent ancestors.

        Newest first, each blob once, with the newest of these ancestors that holds it there;
        never the blob that `commit` itself has there, a symlink or a submodule.

        Args:
            path: of a file.
            commit: where to begin.
            limit: how many ancestors count.
            changed: what `changed` said of them, None to ask about this path alone.

        Raises:
            Damaged: the history cannot be read.
        """
        name = path.encode()
        if changed is None:
            try:
                changed = _changed(self._log(commit, limit, path))
            except TooMuchOutput:
                raise Damaged("more output than can be") from None
        # What a commit changed, its first parent still had; and no newer ancestor had it since.
        found: dict[str, str] = {}
        before = changed.get(name, [])
        current = self._blob_at(commit, path) if before else ""
        for one in before:
            if _KINDS.get(one.mode) is Kind.FILE and one.blob != current:
                found.setdefault(one.blob, one.parent)
        return [(parent, blob) for blob, parent in found.items()]

    def changed(self, commit: str, limit: int) -> dict[bytes, list[Before]] | None:
        """List what each path was before each first-parent ancestor that changed it.

        None says that this is too much to be listed.

        Raises:
            Damaged: the history cannot be read.
        """
        try:
            return _changed(self._log(commit, limit))
        except TooMuchOutput:
            return None

    def _log(self, commit: str, limit: int, *paths: str) -> bytes:
        skip = f"--skip={limit}"
        beyond = self._checked("rev-list", "--first-parent", "--max-count=1", skip, commit, "--")
        if not beyond and self.may_be_cut:
            self.first_parents(commit, limit)  # is that the beginning, or only of what is here?
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
            raise Damaged(last_line(log.stderr))
        return log.stdout

    def first_parents(self, commit: str, limit: int) -> list[str]:
        """List the first-parent ancestors of a commit, newest first, at most `limit`.

        Raises:
            Damaged: the history cannot be read.
            Cut: not as much of it as is asked for.
        """
        most = f"--max-count={limit + 1}"
        line = self._checked("rev-list", "--first-parent", most, commit, "--").decode().split()
        if len(line) <= limit and self._ends_at(line[-1]):
            raise Cut
        return line[1:]

    def blobs_at(self, path: str, commits: Iterable[str]) -> list[str]:
        """Return the id of what each commit has at a path, empty for nothing.

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
        """Return the size in bytes of each blob that is here.

        Raises:
            Damaged: one is here and cannot be read.
        """
        wanted = list(blobs)
        if not wanted:
            return {}
        stdin = "".join(f"{blob}\n" for blob in wanted).encode()
        checked = self._run("cat-file", "--batch-check", stdin=stdin)
        if checked.code != 0 or checked.stderr:
            raise Damaged(last_line(checked.stderr))
        lines = (line.split() for line in checked.stdout.decode().splitlines())
        return {
            name: int(size) for name, kind, *rest in lines if kind != "missing" for size in rest
        }

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether one commit is in the history of another; a commit that is not here is not.

        Raises:
            Damaged: the history cannot be read.
            Cut: it may be, further back than what is here.
        """
        if self._leads_to(older, newer):
            return True
        if self.may_be_cut and not (self.has(older) and self._leads_to(newer, older)):
            raise Cut
        return False

    def merge_base(self, one: str, other: str) -> str:
        """The newest commit in the history of both; empty where they have none in common.

        Raises:
            Damaged: the history cannot be read.
            Cut: they may have one, further back than what is here.
        """
        answered = self._run("merge-base", one, other)
        if answered.code != 0 and self.may_be_cut:
            raise Cut
        if answered.code not in {0, 1}:
            raise Damaged(last_line(answered.stderr))
        return answered.stdout.decode().strip()

    def roll_up(self) -> Finished | None:
        """Join packs once there are many, at a cost that follows what was added since."""
        if sum(1 for _ in (self.folder / "objects" / "pack").glob("*.pack")) <= _MANY_PACKS:
            return None
        return self._run("repack", "--geometric=2", "-d", "-q", "-n")

    def _leads_to(self, older: str, newer: str) -> bool:
        """Whether what is here of a commit's history holds another."""
        answered = self._run("merge-base", "--is-ancestor", older, newer)
        if answered.code not in {0, 1}:
            if self.has(newer) and not self.has(older):
                return False
            raise Damaged(last_line(answered.stderr))
        return answered.code == 0

    def _ends_at(self, commit: str) -> bool:
        """Whether a commit without parents here may have some that were not fetched."""
        if not self.may_be_cut:
            return False
        try:
            return commit in (self.folder / "shallow").read_text(encoding="ascii").split()
        except FileNotFoundError:
            return True
        except (OSError, ValueError) as error:
            raise Damaged("the list of where history ends cannot be read") from error

    def _run(self, *arguments: str, stdin: bytes = b"", most: int = 1 << 26) -> Finished:
        return self.git.run(f"--git-dir={self.folder}", *arguments, stdin=stdin, most=most)

    def _checked(self, *arguments: str, stdin: bytes = b"") -> bytes:
        try:
            finished = self._run(*arguments, stdin=stdin)
        except TooMuchOutput:
            raise Damaged("more output than can be") from None
        if finished.code != 0:
            raise Damaged(last_line(finished.stderr))
        return finished.stdout

    def _blob_at(self, commit: str, path: str) -> str:
        """Return the id of what a commit has at a path, empty for nothing."""
        listed = self._checked(
            "--literal-pathspecs", "ls-tree", "-z", "--full-tree", commit, "--", path
        )
        fields = listed.split(b"\t")[0].split()
        return fields[2].decode() if listed.count(b"\0") == 1 else ""

    def _below(self, listing: bytes, commit: str, root: str) -> Iterator[Entry]:
        """Read ls-tree's listing; the path itself must be a folder in it."""
        top = root.encode()
        inside = top + b"/" if root else b""
        is_folder = not root
        for line in listing.split(b"\0")[:-1]:
            found = _LISTING.fullmatch(line)
            if found is None:
                raise Damaged(f"tree of {commit}: {shown(line)}")
            mode, name = found[1].decode(), found[5]
            if name == top and root:
                if mode != _TREE:
                    raise SourceError(
                        f"{self.git.where}: {shown(root)} is no folder in commit {commit[:12]};"
                        " name a folder as the path"
                    )
                is_folder = True
            elif mode != _TREE and name.startswith(inside):
                size = None if found[4] == b"BAD" else int(found[4]) if found[4].isdigit() else 0
                yield Entry(name, _KINDS.get(mode, Kind.OTHER), size, found[3].decode())
        if not is_folder:
            raise SourceError(
                f"{self.git.where}: there is no folder {shown(root)} in commit {commit[:12]};"
                " correct the path, or bring the folder back"
            )

    def _commit(self, repo: Repo, name: str) -> Commit:
        try:
            found = repo.rev_parse(name)
            for _ in range(_TAGS_OF_TAGS):
                if isinstance(found, TagObject):
                    found = found.object
        except (GitError, ODBError, ValueError, OSError) as error:
            raise Damaged(f"commit {name} cannot be read") from error
        if not isinstance(found, CommitObject):
            raise SourceError(
                f"{self.git.where}: {name[:12]} is a {found.type}; name a branch, a tag of a commit"
                " or a commit"
            )
        try:
            author = shown(f"{found.author.name or ''} <{found.author.email or ''}>".strip())
            time = format_time(datetime.fromtimestamp(found.committed_date, UTC))
        except (GitError, ODBError, LookupError, ValueError, OverflowError, OSError):
            # A commit that was written by hand: what it holds still counts, who wrote it is not
            # to be known.
            return Commit(found.hexsha, "", "")
        return Commit(found.hexsha, author[:_LONGEST_NAME], time)

    @contextlib.contextmanager
    def _repo(self) -> Iterator[Repo]:
        """Open the repository for one question; nothing of it is left afterwards."""
        try:
            repo = Repo(self.folder, expand_vars=False)
        except (InvalidGitRepositoryError, NoSuchPathError) as error:
            raise Damaged(f"{self.folder} is no repository") from error
        try:
            repo.git.update_environment(**self.git.environment, **self._location())
            yield repo
        finally:
            repo.close()

    def _location(self) -> dict[str, str]:
        """GitPython's children inherit this process's environment: say where, whatever it says."""
        return {
            "GIT_DIR": str(self.folder),
            "GIT_COMMON_DIR": str(self.folder),
            "GIT_OBJECT_DIRECTORY": str(self.folder / "objects"),
        }


def _changed(log: bytes) -> dict[bytes, list[Before]]:
    """Read git's log of what each commit, newest first, changed."""
    # A name may hold anything but NUL, so what a token is follows from its place alone.
    tokens = iter(log.split(b"\0"))
    parents: list[bytes] = []
    changed: dict[bytes, list[Before]] = {}
    for token in tokens:
        found = _CHANGE.fullmatch(token.strip())
        if found is None:
            parents = token.split()[1:]
            continue
        name = next(tokens, b"")
        if parents and found[2].decode() != _ZEROS:
            before = Before(parents[0].decode(), found[1].decode(), found[2].decode())
            changed.setdefault(name, []).append(before)
    return changed
