"""A Git repository as a source of snapshots.

One fetch is one network operation (two for a tag or an unadvertised commit), which resolves the
ref once; everything after it is read by the commit's id. It ends with a complete snapshot or with
an error of one line, and never changes what an earlier one returned: the catalog in force is the
caller's.

The first fetch takes as much of the history as a broken file's older versions are looked for in,
where the server can count it off, and leaves out files that are larger than any that is read, where
the server can do that. What leads further back (that the newest commit continues one from long
ago, a commit that a Job names) has the rest fetched, once.

The event loop only waits. Each operation is one hop into a thread, where children do the work
under a deadline (`git_process`) in a directory of their own (`git_cache`); cancelling the caller
ends the children first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import (
    SourceError,
    SourceUnavailable,
    Unusable,
    Unverified,
    UsageError,
)
from openfero_gitops.domain.signature import Verify
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.sources.git.access import Access, GitAccess
from openfero_gitops.sources.git.cache import Cache, remove
from openfero_gitops.sources.git.errors import (
    Cut,
    Damaged,
    explain,
    last_line,
    no_filter,
    no_shallow,
    no_such_ref,
    not_offered,
)
from openfero_gitops.sources.git.process import Git, TooMuchOutput
from openfero_gitops.sources.git.signatures import Trust, Verdict, Verifier
from openfero_gitops.sources.git.url import is_commit, parse_ref, parse_remote
from openfero_gitops.sources.tree import (
    CASES,
    Budgets,
    Known,
    assemble,
    carry,
    is_lfs_pointer,
    is_readable,
    normalise,
    revise,
    select,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from openfero_gitops.sources.git.process import Finished
    from openfero_gitops.sources.git.repository import BareRepository, Before, Commit
    from openfero_gitops.sources.git.signatures import Judge
    from openfero_gitops.sources.tree import Entry, Selection

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_ANCESTORS: Final = 100  # of a commit: as far back as an older version of a file may come from
_BLOCK: Final = 512  # bytes, the unit of a file limit
_LISTED_ALONE: Final = ("refs/heads/", "refs/tags/")  # a server can be asked for these only
_MOST_REFS: Final = 1 << 20  # bytes of a list of refs; where it is longer, a fetch is cheaper
_TAGS: Final = "refs/tags/"
_WHOLE: Final = ("--unshallow",)


@dataclass(frozen=True, slots=True)
class GitSettings:
    """Where the repository is, how it is reached and how much of it is taken.

    Attributes:
        url: `https://`, `http://`, `ssh://user@host/path`, `user@host:path`, `file:///path` or an
            absolute path; without secrets.
        cache_dir: a directory that may be shared by replicas and lost at any time.
        ref: a branch, a tag (a branch of the same name goes first), `HEAD` for what the remote
            calls its default, `refs/…`, or all 40 characters of a commit.
        path: the folder of the operarios, from the repository's root.
        timeout: seconds that one command of git may take; a fetch that takes longer is ended.
        access: the way there, and how much may come along it.
        budgets: how much of a commit is read.
        trust: what must be signed, and by whom.
    """

    url: str
    cache_dir: Path
    ref: str = "HEAD"
    path: str = "."
    timeout: float = 60.0
    access: GitAccess = field(default_factory=GitAccess)
    budgets: Budgets = field(default_factory=Budgets)
    trust: Trust = field(default_factory=Trust)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last fetch: what the ref held (the tag, not its commit), and what was made of it.

    `keys` is the digest of those that it was judged by, empty where that may change by itself;
    with an `error` it cannot be taken.
    """

    tip: str
    keys: str
    snapshot: Snapshot | None
    error: SourceError | None = None


class GitSource:
    """One ref of one repository.

    A rewritten branch is followed: whether the new commit may replace the one in force is for
    the caller to judge, with `is_ancestor`.

    Raises:
        UsageError: the settings cannot work.
    """

    def __init__(self, settings: GitSettings) -> None:
        self._settings = settings
        self._remote = parse_remote(settings.url)
        self._ref = parse_ref(settings.ref)
        self._root = normalise(settings.path)
        self._verifier = Verifier(settings.trust)
        self._check_tag()
        if settings.timeout <= 0:
            raise UsageError(f"timeout {settings.timeout}: write a number of seconds above 0")
        self._access = Access(self._remote, settings.access)
        self._where = f"Git repository {self.url}"
        self._cache = Cache.of(settings.cache_dir, self._remote.url)
        self._own_ref = f"refs/openfero/tip/{hashlib.sha256(self._ref.encode()).hexdigest()[:16]}"
        self._seen: _Seen | None = None
        self._known: Known | None = None
        self._history: tuple[str, int, dict[bytes, list[Before]] | None] | None = None
        self._too_many_refs = False
        # The largest file to fetch. None is for all: where commits must be signed, the server is
        # not trusted to say what is large.
        signed = settings.trust.verify is not Verify.NONE
        self._blob_bytes = None if signed else settings.budgets.file_bytes
        self._left_out: set[str] = set()  # blobs that a fetch did not bring, for their size
        self._suspect = False  # a read found the cache damaged: the next fetch makes a new one
        self._under_way: dict[asyncio.Task[object], threading.Event] = {}
        self._closed = False

    @property
    def url(self) -> str:
        """The repository's address, fit to be shown: there never is a secret in it."""
        return self._remote.url

    async def fetch(self) -> Snapshot:
        """Bring the cache up to date, and read the commit that the ref now names.

        A snapshot without files is no error here: an emptied path is for the caller to judge.

        Raises:
            Unusable: the commit that the ref names cannot be taken: the path is not in it, a
                budget is exceeded, or (`Unverified`) nobody who is trusted signed it.
            SourceError: in one line, what failed and what to do; the ref may be gone, the server
                or the disk in trouble.
        """
        seen = await self._hop(self._fetch)
        if seen.error is not None:
            raise seen.error.with_traceback(None)
        if seen.snapshot is None:
            raise SourceError(f"{self._where}: nothing was read")
        return seen.snapshot

    async def snapshot(self, commit: str) -> Snapshot:
        """Read a commit that is already in the cache.

        Raises:
            Unusable: it cannot be taken, as in `fetch`.
            SourceError: it is not there, or cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> Snapshot:
            with self._judging(repository) as judge:
                revision, verdict = self._judged(repository, sha, judge)
            if verdict.refusal:
                raise Unverified(f"{self._where}: {verdict.refusal}", revision)
            return self._files_or_why(repository, revision)[0]

        return await self._hop(lambda git: self._read_cached(git, commit, read))

    async def cases(self, commit: str) -> Snapshot:
        """Read a cached commit's golden cases, `tests` below the path; nothing where there is none.

        Raises:
            SourceError: the commit is not there, or cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> Snapshot:
            root = f"{self._root}/{CASES}".strip("/")
            revision = self._revision(repository, sha)
            if not repository.has_folder(sha, root):
                return Snapshot(revision, root, ())
            return self._files(repository, revision, root)[0]

        return await self._hop(lambda git: self._read_cached(git, commit, read))

    async def revision(self, commit: str) -> Revision:
        """Tell who made a commit that is in the cache, and when.

        Raises:
            SourceError: it is not there, or cannot be read.
        """
        return await self._hop(lambda git: self._read_cached(git, commit, self._revision))

    async def versions(self, path: str, commit: str, limit: int = _ANCESTORS) -> list[SourceFile]:
        """Read what a file was before, newest first, each content once, all of them stale.

        Looked at are the first `limit` first-parent ancestors of `commit`; what the file is in
        `commit` itself is left out, and so is what is over a budget. Each carries the newest of
        these ancestors that has it, so that `git show COMMIT:PATH` gives exactly this content.
        Where commits must be signed, only those count that are; where tags must be, none does:
        no tag speaks for a commit before its own.

        Raises:
            SourceError: the commit is not in the cache, or its history cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> list[SourceFile]:
            return self._versions(repository, path, sha, limit)

        return await self._hop(lambda git: self._read_cached(git, commit, read))

    async def existed(self, path: str, commit: str, limit: int = _ANCESTORS) -> bool:
        """Whether an ancestor, of those that `versions` looks at, had another file there.

        Signed or not: that something was there is no reason to trust it.

        Raises:
            SourceError: as `versions`.
        """

        def look(repository: BareRepository, sha: str) -> bool:
            return bool(repository.older(path, sha, limit, self._changed(repository, sha, limit)))

        return await self._hop(lambda git: self._read_cached(git, commit, look))

    async def ancestors(self, commit: str, limit: int = _ANCESTORS) -> list[str]:
        """List the first-parent ancestors of a commit, newest first, at most `limit`.

        Raises:
            SourceError: the commit is not in the cache, or its history cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> list[str]:
            return repository.first_parents(sha, limit)

        return await self._hop(lambda git: self._read_cached(git, commit, read))

    async def is_ancestor(self, older: str, newer: str, *, deepen: bool = True) -> bool:
        """Whether a fetched commit continues an earlier one; False says that it was rewritten.

        Where it is not to `deepen` the history, and False, that may only lie too far back.

        Raises:
            SourceError: `newer` is not in the cache, or its history cannot be read.
        """

        def compare(repository: BareRepository, sha: str) -> bool:
            return is_commit(older) and repository.is_ancestor(older, sha)

        return await self._hop(lambda git: self._read_cached(git, newer, compare, deepen=deepen))

    async def merge_base(self, one: str, other: str) -> str:
        """The newest commit in the history of two fetched ones; empty where there is none.

        Raises:
            SourceError: one of them is not in the cache, or its history cannot be read.
        """

        def find(repository: BareRepository, sha: str) -> str:
            return repository.merge_base(one, sha) if is_commit(one) else ""

        return await self._hop(lambda git: self._read_cached(git, other, find))

    async def aclose(self) -> None:
        """End what is under way, and wait for it; nothing is left running. May be repeated."""
        self._closed = True
        for stop in self._under_way.values():
            stop.set()
        while self._under_way:
            await asyncio.wait(list(self._under_way))

    async def _hop(self, operation: Callable[[Git], _T]) -> _T:
        """Run one operation in a thread; a cancelled caller waits until its children are gone."""
        if self._closed:
            raise SourceError(f"{self._where}: the source is closed")
        stop = threading.Event()
        work = asyncio.create_task(
            asyncio.to_thread(self._guard, operation, stop), name=f"git {self.url}"
        )
        self._under_way[work] = stop
        work.add_done_callback(self._under_way.pop)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({work})
            work.exception()  # it is the cancellation that the caller hears of
            raise

    # All below runs in a thread.

    def _guard(self, operation: Callable[[Git], _T], stop: threading.Event) -> _T:
        """Word what the disk says; everything else has been worded where it happened."""
        try:
            self._cache.open()
            environment = self._access.environment(self._cache.folder)
            return operation(Git(self._where, environment, self._settings.timeout, stop))
        except OSError as error:
            raise SourceError(
                f"{self._where}: the cache directory {self._settings.cache_dir} cannot be used"
                f" ({error.strerror or error}); it must be writable and have room"
            ) from error

    def _check_tag(self) -> None:
        """A branch may move without anybody's signature: only a tag can be held to its own."""
        if self._verifier.verify is Verify.TAG and (
            is_commit(self._ref)
            or self._ref == "HEAD"
            or (self._ref.startswith("refs/") and not self._ref.startswith(_TAGS))
        ):
            raise UsageError(f"ref {shown(self._ref)!r}: --verify tag needs the name of a tag")

    def _fetch(self, git: Git) -> _Seen:
        if (seen := self._unchanged(git)) is not None:
            return seen
        with self._cache.locked(git):
            self._cache.sweep(self._settings.timeout)
            if self._cache.repository.is_dir() and not self._suspect:
                try:
                    seen = self._update(_repository(self._cache.repository, git))
                except Damaged as damage:
                    _log.warning(
                        "git cache unusable; a new one is made",
                        repository=self.url,
                        reason=str(damage),
                    )
                else:
                    self._roll_up(_repository(self._cache.repository, git))
                    return seen
            return self._rebuild(git)

    def _unchanged(self, git: Git) -> _Seen | None:
        """Ask the server what the ref holds; return what is known of it, if that is the same.

        It costs one list of refs, and touches neither the disk nor the lock.
        """
        seen = self._seen
        if seen is None or self._suspect or not self._cache.repository.is_dir():
            return None
        tip = self._ref if is_commit(self._ref) else self._listed(git)
        if tip != seen.tip:
            return None
        with self._judging(_repository(self._cache.repository, git)) as judge:
            return seen if seen.keys == judge.keys.digest else None

    def _listed(self, git: Git) -> str:
        """The id that the server says the ref holds; empty where only a fetch can tell."""
        if self._too_many_refs:
            return ""
        names = [refspec.removeprefix("+").split(":")[0] for refspec in self._refspecs()]
        kinds = {f"--{name.split('/')[1]}" for name in names if name.startswith(_LISTED_ALONE)}
        narrow = sorted(kinds) if all(name.startswith(_LISTED_ALONE) for name in names) else []
        secrets = self._access.secrets()
        options = [*self._access.options(), "ls-remote", "--quiet", *narrow]
        try:
            listed = git.run(*options, "--", self._remote.url, most=_MOST_REFS)
        except TooMuchOutput:
            self._too_many_refs = True
            return ""
        if listed.code != 0:
            error = explain(self._where, listed.stderr, secrets)
            if isinstance(error, Damaged):
                return ""
            raise error
        lines = (line.partition(b"\t") for line in listed.stdout.split(b"\n"))
        held = {name: sha.decode() for sha, _, name in lines}
        return next((held[name.encode()] for name in names if name.encode() in held), "")

    def _rebuild(self, git: Git) -> _Seen:
        """Make a repository beside the old one, which stays until the new one can be read."""
        repository = _repository(self._cache.fresh, git)
        self._seen = None
        try:
            repository.create(self._cache.home)
            seen = self._update(repository, history=(f"--depth={_ANCESTORS + 1}",))
            self._cache.swap()
        except Damaged as damage:
            raise SourceError(
                f"{self._where}: what was fetched cannot be read (git: {damage}); check the"
                " repository with git fsck, and the disk of the cache directory"
            ) from damage
        finally:
            remove(self._cache.fresh)
        self._suspect = False
        return seen

    def _update(self, repository: BareRepository, history: Sequence[str] = ()) -> _Seen:
        """Fetch, resolve the ref once, and read the commit that it names."""
        tip = self._fetch_tip(repository, history)
        with self._judging(repository) as judge:
            if self._seen is None or (self._seen.tip, self._seen.keys) != (tip, judge.keys.digest):
                self._seen = self._look(repository, tip, judge)
        return self._seen

    def _look(self, repository: BareRepository, tip: str, judge: Judge) -> _Seen:
        """Read what the ref holds; what is wrong with it is no reason to fetch it again."""
        revision, verdict = self._judged(repository, tip, judge)
        try:
            snapshot, selection = self._files_or_why(repository, revision, fetched=True)
        except Unusable as error:
            return _Seen(tip, "", None, error)
        self._known = Known(snapshot, selection)
        if verdict.refusal:
            keys = "" if verdict.passing else judge.keys.digest
            refusal = Unverified(f"{self._where}: {verdict.refusal}", revision, snapshot)
            return _Seen(tip, keys, snapshot, refusal)
        return _Seen(tip, judge.keys.digest, snapshot)

    def _judging(self, repository: BareRepository) -> contextlib.AbstractContextManager[Judge]:
        return self._verifier.judging(repository.git, repository.folder, self._cache.folder)

    def _verdict(self, tip: str, revision: Revision, judge: Judge) -> Verdict:
        """Judge what a ref holds, or one of the commits before it."""
        match self._verifier.verify:
            case Verify.NONE:
                return Verdict()
            case Verify.COMMIT:
                return judge.commit(revision.commit)
            case Verify.TAG:
                name = self._ref.removeprefix(_TAGS)
                return judge.tag(tip, name, parse_time(revision.time))

    def _fetch_tip(self, repository: BareRepository, history: Sequence[str]) -> str:
        """Fetch, and return the id that the ref holds: a commit's, or an annotated tag's."""
        if is_commit(self._ref) and repository.has(self._ref):
            return self._ref  # it can never be another
        self._ask(repository, history)
        if not is_commit(self._ref):
            return repository.tip(self._own_ref)
        if repository.is_cut and not repository.has(self._ref):
            self._ask(repository, _WHOLE)  # it may lie further back than each branch was cut
        if not repository.has(self._ref):
            raise SourceError(f"{self._where}: {self._missing()}")
        return self._ref

    def _deepen(self, git: Git) -> None:
        """Fetch the rest of the history."""
        with self._cache.locked(git):
            repository = _repository(self._cache.repository, git)
            if repository.is_cut:
                self._ask(repository, _WHOLE)

    def _ask(self, repository: BareRepository, history: Sequence[str]) -> None:
        """Fetch what the ref means; nothing is left of a fetch that fails."""
        secrets = self._access.secrets()
        try:
            self._ask_in_turn(repository, history, secrets)
        except BaseException:
            self._cache.sweep(self._settings.timeout)  # half a pack would fill the disk
            raise

    def _ask_in_turn(
        self, repository: BareRepository, history: Sequence[str], secrets: tuple[str, ...]
    ) -> None:
        """Fetch the first thing that the server has of those that the ref may mean."""
        held = repository.packed()
        most = self._settings.access.pack_bytes
        blocks = max(0, most - held) // _BLOCK
        for refspec in self._refspecs():
            fetched = self._fetch_as_offered(repository, refspec, history, blocks)
            if fetched.code == 0:
                return
            said = fetched.stderr
            if not (no_such_ref(said) or (is_commit(self._ref) and not_offered(said))):
                # A process that reached its file limit dies of it without a word.
                if repository.half_a_pack() >= blocks * _BLOCK:
                    if held > most // 2:
                        # Much of it may be history that was rewritten since.
                        raise Damaged(f"{held} bytes are held already, there is no room for more")
                    raise SourceError(
                        f"{self._where}: the repository is larger than the {most} bytes that"
                        " --git-max-size allows; raise that, or use a smaller repository"
                    )
                raise explain(self._where, said, secrets)
        raise SourceError(f"{self._where}: {self._missing()}")

    def _fetch_as_offered(
        self, repository: BareRepository, refspec: str, history: Sequence[str], blocks: int
    ) -> Finished:
        """Fetch as little as the server can be made to send; the caller judges how it went."""
        while True:
            fetched = repository.fetch(
                self._access.options(),
                self._remote.url,
                refspec,
                history=history,
                blob_bytes=self._blob_bytes,
                file_blocks=blocks,
            )
            said = fetched.stderr
            if self._blob_bytes is not None and no_filter(said):
                self._blob_bytes = None
                if fetched.code == 0:
                    return fetched
            elif history and fetched.code != 0 and no_shallow(said):
                history = ()
            else:
                return fetched

    def _refspecs(self) -> Iterator[str]:
        """What to ask for, in order, until the server has one.

        Git alone would take a tag before a branch of the same name; but who may push a tag may
        not always push the branch.
        """
        if is_commit(self._ref):
            yield f"+{self._ref}:{self._own_ref}"
            yield "+refs/heads/*:refs/openfero/heads/*"
        elif self._verifier.verify is Verify.TAG:
            yield f"+{_TAGS}{self._ref.removeprefix(_TAGS)}:{self._own_ref}"
        elif self._ref == "HEAD" or self._ref.startswith("refs/"):
            yield f"+{self._ref}:{self._own_ref}"
        else:
            yield f"+refs/heads/{self._ref}:{self._own_ref}"
            yield f"+refs/tags/{self._ref}:{self._own_ref}"

    def _missing(self) -> str:
        if self._ref == "HEAD":
            return (
                "it is empty, or its default branch does not exist; push a commit, name a branch"
                " as the ref, or check the URL"
            )
        name = shown(self._ref)
        if is_commit(self._ref):
            return f"there is no commit {name} on any branch; correct the ref"
        if self._ref.startswith("refs/"):
            return f"there is no {name}; correct the ref, or bring it back"
        return f"there is no branch or tag {name}; correct the ref, or bring it back"

    def _roll_up(self, repository: BareRepository) -> None:
        """Keep the number of packs level; where that fails, reading still works."""
        try:
            rolled = repository.roll_up()
        except SourceError as error:
            reason = str(error)
        else:
            reason = last_line(rolled.stderr) if rolled is not None and rolled.code != 0 else ""
        if reason:
            _log.warning("git cache not repacked", repository=self.url, reason=reason)

    def _read_cached(
        self,
        git: Git,
        commit: str,
        read: Callable[[BareRepository, str], _T],
        *,
        deepen: bool = True,
    ) -> _T:
        """Read about a commit by its full id.

        Without the network, unless it leads further back than what is here; and without it even
        then, where it is not to `deepen`.
        """
        if not is_commit(commit):
            raise SourceError(
                f"{self._where}: {shown(commit)!r} is no commit, write all 40 characters"
            )
        repository = _repository(self._cache.repository, git)
        try:
            here = replace(repository, whole=not deepen, cut=repository.is_cut)
            try:
                return self._read_here(here, commit, read)
            except Cut:
                self._deepen(git)
            return self._read_here(replace(repository, whole=True), commit, read)
        except Damaged as damage:
            self._suspect = True
            raise SourceError(
                f"{self._where}: the cache is damaged (git: {damage}); the next fetch makes a new"
                " one"
            ) from damage

    def _read_here(
        self, repository: BareRepository, commit: str, read: Callable[[BareRepository, str], _T]
    ) -> _T:
        fetched = self._known is not None and self._known.snapshot.revision.commit == commit
        if not fetched and not repository.has(commit):
            if repository.may_be_cut:
                raise Cut
            raise SourceError(
                f"{self._where}: commit {commit} is not in the cache; fetch a ref that holds it"
            )
        return read(repository, commit)

    def _revision(self, repository: BareRepository, tip: str) -> Revision:
        [commit] = repository.commits([tip])
        return Revision(self.url, self._settings.ref, commit.sha, commit.author, commit.time)

    def _judged(
        self, repository: BareRepository, tip: str, judge: Judge
    ) -> tuple[Revision, Verdict]:
        """Read which commit is named, and say whether it may be taken."""
        revision = self._revision(repository, tip)
        verdict = self._verdict(tip, revision, judge)
        return replace(revision, verified_signer=verdict.signer), verdict

    def _files_or_why(
        self, repository: BareRepository, revision: Revision, *, fetched: bool = False
    ) -> tuple[Snapshot, Selection]:
        """Read the operarios of a commit, or say that it has none that can be read."""
        try:
            return self._files(repository, revision, self._root, fetched=fetched)
        except SourceUnavailable:
            raise
        except SourceError as error:
            raise Unusable(str(error), revision) from error

    def _files(
        self, repository: BareRepository, revision: Revision, root: str, *, fetched: bool = False
    ) -> tuple[Snapshot, Selection]:
        """Read what lies below a path of a commit; what the last fetch found there is known.

        `fetched` says that the commit has just come.
        """
        known = self._known if root == self._root else None
        selection = None
        if known is not None:
            selection = self._revised(repository, known, revision.commit, fetched=fetched)
        if selection is None:
            entries = repository.entries(revision.commit, root, self._settings.budgets)
            self._require_there(entries, fetched=repository.folder == self._cache.fresh)
            selection = select(
                entries,
                root=root,
                budgets=self._settings.budgets,
                where=self._where,
                commit=revision.commit,
            )
        carried = carry(selection, known)
        unknown = [selection.wanted[place] for place in carried.missing]
        sizes = {file.blob: file.size for file in unknown}
        blobs = repository.blobs(sizes, sum(sizes.values()))
        contents = {file.path: blobs[file.blob] for file in unknown}
        return assemble(revision, root, selection, contents, carried), selection

    def _revised(
        self, repository: BareRepository, known: Known, commit: str, *, fetched: bool
    ) -> Selection | None:
        """Choose by what a commit changed; None where it must be listed as a whole."""
        budgets = self._settings.budgets
        before = known.snapshot.revision.commit
        changes = repository.changes(before, commit, self._root, budgets.files)
        if changes is None:
            return None
        self._require_there((change.now for change in changes if change.now), fetched=fetched)
        selection = revise(
            known.selection,
            changes,
            root=self._root,
            budgets=budgets,
            where=self._where,
            commit=commit,
        )
        return selection if selection.names.entries else None  # the path may be gone

    def _require_there(self, entries: Iterable[Entry], *, fetched: bool) -> None:
        """Tell a file that a fetch left out from one that was lost.

        What is not there right after it should have been `fetched` was left out. What is not there
        at another time may be either: then all is fetched anew.
        """
        absent = {one.blob for one in entries if one.size is None and is_readable(one.name)}
        if fetched and self._blob_bytes is not None:
            self._left_out |= absent
        elif lost := absent - self._left_out:
            raise Damaged(f"blob {min(lost)} is not there")

    def _changed(
        self, repository: BareRepository, commit: str, limit: int
    ) -> dict[bytes, list[Before]] | None:
        """What the ancestors of a commit changed: a thousand broken files ask for it one by one."""
        if self._history is None or self._history[:2] != (commit, limit):
            self._history = (commit, limit, repository.changed(commit, limit))
        return self._history[2]

    def _versions(
        self, repository: BareRepository, path: str, commit: str, limit: int
    ) -> list[SourceFile]:
        if self._verifier.verify is Verify.TAG:
            return []
        changed = self._changed(repository, commit, limit)
        found = repository.older(path, commit, limit, changed)
        signers: dict[str, str] = {}
        if self._verifier.verify is Verify.COMMIT and found:
            with self._judging(repository) as judge:
                line = repository.first_parents(commit, limit)
                held = zip(line, repository.blobs_at(path, line), strict=True)
                found, signers = judge.newest_signed(held, {blob for _, blob in found})
        most = self._settings.budgets.file_bytes
        sizes = repository.sizes(blob for _, blob in found)
        absent = {blob for _, blob in found} - sizes.keys()
        if absent and self._blob_bytes is None:
            raise Damaged(f"blob {min(absent)} is not there")
        found = [(sha, blob) for sha, blob in found if sizes.get(blob, most + 1) <= most]
        contents = repository.blobs(
            (blob for _, blob in found), sum(sizes[blob] for _, blob in found)
        )
        commits = repository.commits(sha for sha, _ in found)
        return [
            _version(path, blob, contents[blob], commit, signers.get(commit.sha, ""))
            for (_, blob), commit in zip(found, commits, strict=True)
            if not is_lfs_pointer(contents[blob])
        ]


def _version(path: str, blob: str, content: bytes, commit: Commit, signer: str) -> SourceFile:
    return SourceFile(
        path=path,
        blob=blob,
        content=content,
        commit=commit.sha,
        commit_author=commit.author,
        commit_time=commit.time,
        stale=True,
        verified_signer=signer,
    )


def _repository(folder: Path, git: Git) -> BareRepository:
    """Import GitPython where it is used: it refuses to be imported without a git command."""
    try:
        from openfero_gitops.sources.git.repository import BareRepository  # noqa: PLC0415
    except ImportError as error:
        if shutil.which("git") is not None:
            raise  # something else is missing: this is no matter of git's
        raise SourceError(f"{git.where}: there is no git command; install git") from error
    return BareRepository(folder, git)
