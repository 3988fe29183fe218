"""A Git repository as a source of snapshots.

A fetch is one network operation (two for a tag or a commit that the server does not list) that
resolves the ref once; everything afterwards is read by the ID of the commit. It returns a complete
snapshot or raises an error of one line, and never changes a snapshot that it returned before.

The first fetch brings only part of the history (see `remote`). A question that needs more of it,
such as whether the new commit continues a much older one, fetches the rest once.

The event loop is never blocked: each operation runs in a thread (see `threads`), in which child
processes work with a deadline (see `process`) in a directory of their own (see `cache`).
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, is_commit
from openfero_gitops.domain.errors import (
    FolderMissing,
    NoSuchFolder,
    SourceError,
    SourceUnavailable,
    Unusable,
    Unverified,
    UsageError,
)
from openfero_gitops.domain.signature import Verify
from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.sources.git.access import GitAccess, GitConnection
from openfero_gitops.sources.git.cache import Cache, open_repository, remove
from openfero_gitops.sources.git.damage import confirm
from openfero_gitops.sources.git.errors import (
    CacheFull,
    Cut,
    Damaged,
    OtherFormat,
    TooLarge,
    reason_of,
)
from openfero_gitops.sources.git.files import LargeFiles, earlier_version, require_held
from openfero_gitops.sources.git.remote import TAGS, RemoteRef
from openfero_gitops.sources.git.signatures import Trust, Verifier
from openfero_gitops.sources.git.threads import GitThreads
from openfero_gitops.sources.git.url import parse_ref, parse_remote
from openfero_gitops.sources.git.verdict import SignatureVerdict
from openfero_gitops.sources.tree import (
    CASES,
    Budgets,
    assemble,
    is_lfs_pointer,
    normalise,
    select,
    unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openfero_gitops.sources.git.process import Git
    from openfero_gitops.sources.git.repository import BareRepository, EarlierFile
    from openfero_gitops.sources.git.signatures import Judge

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_MAX_ANCESTORS: Final = 100  # that are searched for older versions of a file


@contextlib.contextmanager
def _unusable(revision: Revision) -> Iterator[None]:
    """Raise an error that says what is wrong with a commit as `Unusable`."""
    try:
        yield
    except SourceUnavailable:
        raise
    except SourceError as error:
        kind = FolderMissing if isinstance(error, NoSuchFolder) else Unusable
        raise kind(str(error), revision) from error


@dataclass(frozen=True, slots=True)
class GitSettings:
    """Where the repository is, how it is reached and how much of it is read.

    Attributes:
        url: `https://`, `http://`, `ssh://user@host/path`, `user@host:path`, `file:///path` or an
            absolute path; without secrets.
        cache_dir: a directory that replicas may share and that may be lost at any time.
        ref: a branch, a tag (a branch of the same name takes precedence), `HEAD` for the default
            branch of the remote, `refs/…`, or the full ID of a commit.
        path: the folder of the operarios, relative to the root of the repository.
        access: credentials and other options for the connection, and its limits.
        budgets: how much of a commit is read.
        trust: what must be signed, and by whom.
    """

    url: str
    cache_dir: Path
    ref: str = "HEAD"
    path: str = "."
    access: GitAccess = field(default_factory=GitAccess)
    budgets: Budgets = field(default_factory=Budgets)
    trust: Trust = field(default_factory=Trust)

    @property
    def timeout(self) -> float:
        """Seconds after which a command of Git is stopped."""
        return self.access.timeout


@dataclass(frozen=True, slots=True)
class _Fetched:
    """The result of the last fetch.

    Attributes:
        tip: the ID that the ref had (of an annotated tag, not of its commit).
        keys: the digest of the keys that verified it; empty where the result may change without
            them.
        snapshot: what was read.
        error: why the commit cannot be used.
    """

    tip: str
    keys: str
    snapshot: Snapshot | None
    error: SourceError | None = None


class GitSource:
    """One ref of one repository, with its history.

    A rewritten branch is followed: the caller decides with `is_ancestor` whether the new commit
    may replace the active one.

    Raises:
        UsageError: the settings are not valid.
    """

    def __init__(self, settings: GitSettings) -> None:
        self._settings = settings
        self._url = parse_remote(settings.url)
        self._ref = parse_ref(settings.ref)
        self._root = normalise(settings.path)
        self._verifier = Verifier(settings.trust)
        self._require_tag_ref()
        access = GitConnection(self._url, settings.access)
        self._where = f"Git repository {self.url}"
        self._cache = Cache.of(settings.cache_dir, self._url.url)
        self._threads = GitThreads(self._where, self._cache, access, settings.timeout)
        # Where commits must be signed, the server is not trusted to tell which files are large.
        signed = settings.trust.verify is not Verify.NONE
        self._remote = RemoteRef(
            access,
            self._url.url,
            self._ref,
            tag_only=settings.trust.verify is Verify.TAG,
            blob_bytes=None if signed else settings.budgets.file_bytes,
            pack_bytes=settings.access.pack_bytes,
        )
        self._fetched: _Fetched | None = None
        self._last: Snapshot | None = None  # read by a fetch, also of a commit that is refused
        self._changes: tuple[str, int, dict[bytes, list[EarlierFile]] | None] | None = None
        self._large_files = LargeFiles(settings.budgets.searched_bytes)
        self._damaged = False  # the next fetch makes a new cache

    @property
    def url(self) -> str:
        """The address of the repository; it contains no secrets."""
        return self._url.url

    async def fetch(self) -> Snapshot:
        """Update the cache and read the commit that the ref now names.

        A snapshot without files is not an error here; the caller decides about it.

        Raises:
            Unusable: the commit cannot be used: it does not contain the path, exceeds a budget,
                or (`Unverified`) no trusted key signed it.
            SourceError: the fetch failed: the ref does not exist, or the server or disk fails.
        """
        fetched = await self._threads.run(self._fetch)
        if fetched.error is not None:
            raise fetched.error.with_traceback(None)
        if fetched.snapshot is None:
            raise SourceError(f"{self._where}: nothing was read")
        return fetched.snapshot

    async def snapshot(self, commit: str) -> Snapshot:
        """Read a commit that is in the cache.

        Raises:
            Unusable: the commit cannot be used, as in `fetch`.
            SourceError: the commit is not in the cache, or cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> Snapshot:
            with self._judging(repository) as judge:
                revision, verdict = self._judged(repository, sha, judge)
            if verdict.refusal:
                raise Unverified(f"{self._where}: {verdict.refusal}", revision)
            return self._files(repository, revision, self._root)

        return await self._read(commit, read)

    async def cases(self, snapshot: Snapshot) -> Snapshot:
        """Read the golden cases of a snapshot: the `tests` folder below its path, if there is one.

        Raises:
            Unusable: the folder exceeds a budget.
            SourceError: the commit is not in the cache, or cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> Snapshot:
            root = f"{snapshot.root}/{CASES}".strip("/")
            if not repository.has_folder(sha, root):
                return Snapshot(snapshot.revision, root, ())
            return self._files(repository, snapshot.revision, root)

        return await self._read(snapshot.revision.commit, read)

    async def revision(self, commit: str) -> Revision:
        """Read the author and time of a commit that is in the cache.

        Raises:
            SourceError: the commit is not in the cache, or cannot be read.
        """
        return await self._read(commit, self._revision)

    async def versions(
        self, path: str, commit: str, limit: int = _MAX_ANCESTORS
    ) -> list[SourceFile]:
        """Read the earlier versions of a file, newest first, each content once, all marked stale.

        Only the first `limit` first-parent ancestors of `commit` are searched. The version in
        `commit` itself and versions over a budget are skipped. Each version names the newest of
        these ancestors that has it, so that `git show COMMIT:PATH` prints exactly this content.
        Where commits must be signed, only versions in signed commits are returned; where tags must
        be signed, none are, since a tag does not vouch for earlier commits.

        Raises:
            SourceError: the commit is not in the cache, or its history cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> list[SourceFile]:
            return self._versions(repository, path, sha, limit)

        return await self._read(commit, read)

    async def existed(self, path: str, commit: str, limit: int = _MAX_ANCESTORS) -> bool:
        """Whether an ancestor that `versions` searches has another version, signed or not.

        Raises:
            SourceError: as `versions`.
        """

        def read(repository: BareRepository, sha: str) -> bool:
            changes = self._changes_before(repository, sha, limit)
            return bool(repository.earlier(path, sha, limit, changes))

        return await self._read(commit, read)

    async def ancestors(self, commit: str, limit: int = _MAX_ANCESTORS) -> list[str]:
        """List the first-parent ancestors of a commit, newest first, at most `limit`.

        Raises:
            SourceError: the commit is not in the cache, or its history cannot be read.
        """

        def read(repository: BareRepository, sha: str) -> list[str]:
            return repository.first_parents(sha, limit)

        return await self._read(commit, read)

    async def is_ancestor(self, older: str, newer: str, *, deepen: bool = True) -> bool:
        """Whether a fetched commit continues an older one; False where history was rewritten.

        Without `deepen`, False may also mean that the older commit was not fetched.

        Raises:
            SourceError: `newer` is not in the cache, or its history cannot be read.
        """

        def compare(repository: BareRepository, sha: str) -> bool:
            return is_commit(older) and repository.is_ancestor(older, sha)

        return await self._read(newer, compare, deepen=deepen)

    async def merge_base(self, first: str, second: str) -> str:
        """Return the newest common ancestor of two fetched commits; empty where there is none.

        Raises:
            SourceError: one of them is not in the cache, or its history cannot be read.
        """

        def find(repository: BareRepository, sha: str) -> str:
            return repository.merge_base(first, sha) if is_commit(first) else ""

        return await self._read(second, find)

    async def aclose(self) -> None:
        """Stop every operation and wait for its end. May be repeated."""
        await self._threads.aclose()

    async def _read(
        self,
        commit: str,
        read: Callable[[BareRepository, str], _T],
        *,
        deepen: bool = True,
    ) -> _T:
        return await self._threads.run(
            lambda git: self._read_cached(git, commit, read, deepen=deepen)
        )

    # Everything below runs in a thread.

    def _require_tag_ref(self) -> None:
        """Refuse `--verify tag` for a ref that is not a tag: a branch moves without a signature."""
        if self._verifier.verify is Verify.TAG and (
            is_commit(self._ref)
            or self._ref == "HEAD"
            or (self._ref.startswith("refs/") and not self._ref.startswith(TAGS))
        ):
            raise UsageError(
                f"ref {printable(self._ref)!r}: --verify tag needs the name of a tag as --ref"
            )

    def _fetch(self, git: Git) -> _Fetched:
        if (fetched := self._if_unchanged(git)) is not None:
            return fetched
        with self._cache.locked(git):
            self._cache.sweep(self._settings.timeout)
            if self._cache.repository.is_dir() and not self._damaged:
                repository = open_repository(self._cache.repository, git)
                try:
                    fetched = self._update(repository)
                except CacheFull as full:
                    _log.info(
                        "Git cache is full; making a new one",
                        repository=self.url,
                        reason=str(full),
                    )
                except Damaged as suspicion:
                    reason = confirm(repository, suspicion)
                    _log.warning(
                        "Git cache is damaged; making a new one",
                        repository=self.url,
                        reason=reason,
                    )
                except OtherFormat:
                    _log.warning(
                        "Git repository has changed its object format; fetching everything again",
                        repository=self.url,
                    )
                else:
                    self._repack(repository)
                    return fetched
            return self._rebuild(git)

    def _if_unchanged(self, git: Git) -> _Fetched | None:
        """Return the last result if the ref and the keys have not changed.

        This costs one list of refs, and uses neither the disk nor the lock.
        """
        fetched = self._fetched
        if fetched is None or self._damaged or not self._cache.repository.is_dir():
            return None
        if self._remote.listed(git) != fetched.tip:
            return None
        with self._judging(open_repository(self._cache.repository, git)) as judge:
            return fetched if fetched.keys == judge.keys.digest else None

    def _rebuild(self, git: Git) -> _Fetched:
        """Make a repository beside the old one, which stays until the new one can be read."""
        repository = open_repository(self._cache.fresh, git)
        self._fetched = None
        try:
            fetched = self._update(repository, fresh=True)
            self._cache.swap()
        except Damaged as damage:
            raise damage.otherwise or SourceUnavailable(
                f"{self._where}: cannot read what was fetched ({damage}); check the repository with"
                " `git fsck`, and the disk of the cache directory"
            ) from damage
        except CacheFull as full:
            raise SourceUnavailable(f"{self._where}: {full}; raise --git-max-size") from full
        finally:
            remove(self._cache.fresh)
        self._damaged = False
        return fetched

    def _update(self, repository: BareRepository, *, fresh: bool = False) -> _Fetched:
        """Fetch, resolve the ref once, and read the commit that it names."""
        with self._swept_on_error():
            if fresh:
                tip = self._remote.fetch_new(repository, self._cache.home, _MAX_ANCESTORS + 1)
            else:
                tip = self._remote.fetch(repository)
        with self._judging(repository) as judge:
            last = self._fetched
            if last is None or (last.tip, last.keys) != (tip, judge.keys.digest):
                self._fetched = last = self._read_tip(repository, tip, judge)
        return last

    @contextlib.contextmanager
    def _swept_on_error(self) -> Iterator[None]:
        """Remove what a failed fetch has left: half a pack may fill the disk."""
        try:
            yield
        except BaseException:
            self._cache.sweep(self._settings.timeout)
            raise

    def _read_tip(self, repository: BareRepository, tip: str, judge: Judge) -> _Fetched:
        """Read what was fetched; a commit that cannot be used is not fetched again."""
        try:
            revision, verdict = self._judged(repository, tip, judge)
            snapshot = self._files(repository, revision, self._root, fetched=True)
        except Unusable as error:
            return _Fetched(tip, "", None, error)
        self._last = snapshot
        if verdict.refusal:
            keys = "" if verdict.transient else judge.keys.digest
            refusal = Unverified(f"{self._where}: {verdict.refusal}", revision, snapshot)
            return _Fetched(tip, keys, snapshot, refusal)
        return _Fetched(tip, judge.keys.digest, snapshot)

    def _judging(self, repository: BareRepository) -> contextlib.AbstractContextManager[Judge]:
        return self._verifier.judging(repository.git, repository.folder, self._cache.folder)

    def _judged(
        self, repository: BareRepository, tip: str, judge: Judge
    ) -> tuple[Revision, SignatureVerdict]:
        """Read the revision that a tip names, and verify its signature if that is required."""
        revision = self._revision(repository, tip)
        match self._verifier.verify:
            case Verify.NONE:
                verdict = SignatureVerdict()
            case Verify.COMMIT:
                verdict = judge.commit(revision.commit)
            case Verify.TAG:
                verdict = judge.tag(tip, self._ref.removeprefix(TAGS), parse_time(revision.time))
        return replace(revision, verified_signer=verdict.signer), verdict

    def _repack(self, repository: BareRepository) -> None:
        """Keep the number of packs small; reading works also where this fails."""
        try:
            repacked = repository.repack()
        except SourceError as error:
            reason = str(error)
        else:
            failed = repacked is not None and repacked.code != 0
            reason = reason_of(repacked) if repacked is not None and failed else ""
        if reason:
            _log.warning("Git cache could not be repacked", repository=self.url, reason=reason)

    def _read_cached(
        self,
        git: Git,
        commit: str,
        read: Callable[[BareRepository, str], _T],
        *,
        deepen: bool,
    ) -> _T:
        """Read from the cache; only where history is missing, and with `deepen`, fetch the rest."""
        if not is_commit(commit):
            raise SourceError(
                f"{self._where}: {printable(commit)!r} is not a commit; write its full ID"
            )
        repository = open_repository(self._cache.repository, git)
        try:
            as_fetched = replace(repository, whole=not deepen, cut=repository.is_cut)
            try:
                return self._read_commit(as_fetched, commit, read)
            except Cut:
                with self._fetching(git, locked=False):
                    self._remote.deepen(repository)
            return self._read_commit(replace(repository, whole=True), commit, read)
        except OtherFormat:
            raise SourceError(
                f"{self._where}: the repository has changed its object format; the next sync"
                " fetches everything again"
            ) from None
        except CacheFull as full:
            self._damaged = True
            raise SourceUnavailable(
                f"{self._where}: {full}; the next sync makes a new one"
            ) from full
        except Damaged as suspicion:
            damage = confirm(repository, suspicion)
            self._damaged = True
            raise SourceUnavailable(
                f"{self._where}: the cache is damaged ({damage}); the next sync makes a new one"
            ) from suspicion

    def _read_commit(
        self, repository: BareRepository, commit: str, read: Callable[[BareRepository, str], _T]
    ) -> _T:
        just_fetched = self._last is not None and self._last.revision.commit == commit
        if not just_fetched and not repository.has(commit):
            if repository.may_be_cut:
                raise Cut
            raise SourceError(
                f"{self._where}: commit {commit} is not in the cache; fetch a ref that contains it"
            )
        return read(repository, commit)

    def _revision(self, repository: BareRepository, tip: str) -> Revision:
        try:
            [commit] = repository.commits([tip])
        except TooLarge as error:
            revision = Revision(self.url, self._settings.ref, tip)
            raise Unusable(f"{self._where}: {error}", revision) from error
        return Revision(self.url, self._settings.ref, commit.sha, commit.author, commit.time)

    @contextlib.contextmanager
    def _fetching(self, git: Git, *, locked: bool) -> Iterator[None]:
        """Hold the lock for a fetch, unless it is held, and sweep if the fetch fails."""
        lock = contextlib.nullcontext() if locked else self._cache.locked(git)
        with lock, self._swept_on_error():
            yield

    def _files(
        self, repository: BareRepository, revision: Revision, root: str, *, fetched: bool = False
    ) -> Snapshot:
        """Read what is below a path of a commit, except files that the last fetch has read.

        `fetched` says that the commit has just been fetched, and that the lock is held.
        """
        budgets = self._settings.budgets
        choose = functools.partial(
            select, root=root, budgets=budgets, where=self._where, commit=revision.commit
        )
        with _unusable(revision):
            entries = repository.entries(revision.commit, root, budgets)
            selection = choose(entries)
        # A failure of the network says nothing about the commit.
        fetching = self._fetching(repository.git, locked=fetched)
        complete = self._large_files.fetch_left_out(
            entries, selection, repository, self._remote, fetching
        )
        require_held(complete, self._last)
        with _unusable(revision):
            if complete is not entries:
                selection = choose(complete)
            held = unchanged(selection, self._last)
            unread = [wanted for wanted in selection.wanted if wanted.path not in held]
            sizes = {wanted.blob: wanted.size for wanted in unread}
            blobs = repository.blobs(sizes, sum(sizes.values()))
            contents = {wanted.path: blobs[wanted.blob] for wanted in unread}
            unrelated = self._large_files.unrelated(repository, selection)
            return assemble(revision, root, selection, contents, held, unrelated=unrelated)

    def _changes_before(
        self, repository: BareRepository, commit: str, limit: int
    ) -> dict[bytes, list[EarlierFile]] | None:
        """Read what the ancestors of a commit changed, once for all of its broken files."""
        if self._changes is None or self._changes[:2] != (commit, limit):
            self._changes = (commit, limit, repository.changes(commit, limit))
        return self._changes[2]

    def _versions(
        self, repository: BareRepository, path: str, commit: str, limit: int
    ) -> list[SourceFile]:
        if self._verifier.verify is Verify.TAG:
            return []
        changes = self._changes_before(repository, commit, limit)
        versions = repository.earlier(path, commit, limit, changes)
        signers: dict[str, str] = {}
        if self._verifier.verify is Verify.COMMIT and versions:
            with self._judging(repository) as judge:
                ancestors = repository.first_parents(commit, limit)
                held = zip(ancestors, repository.blobs_at(path, ancestors), strict=True)
                versions, signers = judge.newest_signed(held, {blob for _, blob in versions})
        max_bytes = self._settings.budgets.file_bytes
        sizes = repository.sizes(blob for _, blob in versions)
        missing = {blob for _, blob in versions} - sizes.keys()
        if missing and self._remote.blob_bytes is None:
            raise Damaged(f"blob {min(missing)} is missing", missing)
        small = {blob for blob, size in sizes.items() if size <= max_bytes}
        commit_sizes = repository.sizes(sha for sha, _ in versions)
        versions = [
            (sha, blob)
            for sha, blob in versions
            if blob in small and commit_sizes.get(sha, 0) <= repository.max_commit_bytes
        ]
        contents = repository.blobs(
            (blob for _, blob in versions), sum(sizes[blob] for _, blob in versions)
        )
        commits = repository.commits(sha for sha, _ in versions)
        return [
            earlier_version(path, blob, contents[blob], commit, signers.get(commit.sha, ""))
            for (_, blob), commit in zip(versions, commits, strict=True)
            if not is_lfs_pointer(contents[blob])
        ]
