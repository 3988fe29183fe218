"""One ref of a remote repository: listing it, and fetching no more than necessary.

A fetch without options would bring the whole history and every file. Where the server supports
it, the first fetch brings only as many commits as are searched for older versions of a broken
file, and no file that is too large to be read.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import is_commit
from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.git.cache import remove
from openfero_gitops.sources.git.errors import (
    CacheFull,
    Damaged,
    OtherFormat,
    explain,
    lacks_objects,
    no_filter,
    no_shallow,
    no_such_ref,
    not_offered,
    objects_not_offered,
    other_format,
)
from openfero_gitops.sources.git.failure.kinds import GitSetup
from openfero_gitops.sources.git.process import TooMuchDisk, TooMuchOutput
from openfero_gitops.sources.git.url import repository_of_page, suggest_ref

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from openfero_gitops.sources.git.access import GitConnection
    from openfero_gitops.sources.git.process import Finished, Git
    from openfero_gitops.sources.git.repository import BareRepository

TAGS: Final = "refs/tags/"
_BLOCK_BYTES: Final = 512  # the unit of a file size limit
#: A server can list these separately, without its other refs.
_LISTABLE_PREFIXES: Final = ("refs/heads/", "refs/tags/")
_MAX_LIST_BYTES: Final = 1 << 20  # of a list of refs; a fetch costs less than a longer one
_MIN_INDEX_BYTES: Final = 1 << 24
_MAX_WANTED: Final = 1000  # objects in one request; their IDs are arguments of a command
_FORMATS: Final = ("sha1", "sha256")  # of IDs; the first is far more common
_SHA256_DIGITS: Final = 64
_PARTIAL: Final = (
    "the repository is a partial clone (--filter), and lacks files or folders of the history that"
    " is read; run `git fetch --refetch --no-filter` in it"
)
_UNSHALLOW: Final = ("--unshallow",)


class RemoteRef:
    """A ref on the server.

    Args:
        access: the credentials and options for the repository.
        url: the repository's URL.
        ref: a branch, a tag, `HEAD`, `refs/…` or a commit.
        tag_only: the ref must be a tag.
        blob_bytes: the size of the largest file to fetch; None fetches all files.
        pack_bytes: how much the fetched history may take on disk.
    """

    def __init__(
        self,
        access: GitConnection,
        url: str,
        ref: str,
        *,
        tag_only: bool,
        blob_bytes: int | None,
        pack_bytes: int,
    ) -> None:
        self._access = access
        self._url = url
        self._ref = ref
        self._tag_only = tag_only
        self._pack_bytes = pack_bytes
        self._own_ref = f"refs/openfero/tip/{hashlib.sha256(ref.encode()).hexdigest()[:16]}"
        self._too_many_refs = False
        #: None once the server has refused to leave out large files.
        self.blob_bytes = blob_bytes

    def listed(self, git: Git) -> str:
        """Return the ID that the server lists for the ref; empty where only a fetch can tell.

        Raises:
            SourceError: the server did not answer.
        """
        if is_commit(self._ref):
            return self._ref
        if self._too_many_refs:
            return ""
        names = [refspec.removeprefix("+").split(":")[0] for refspec in self._refspecs()]
        kinds = {f"--{name.split('/')[1]}" for name in names if name.startswith(_LISTABLE_PREFIXES)}
        narrow = sorted(kinds) if all(name.startswith(_LISTABLE_PREFIXES) for name in names) else []
        secrets = self._access.secrets()
        options = [*self._access.options(), "ls-remote", "--quiet", *narrow]
        try:
            listed = git.run(*options, "--", self._url, max_bytes=_MAX_LIST_BYTES, lengthy=True)
        except TooMuchOutput:
            self._too_many_refs = True
            return ""
        if listed.code != 0:
            error = self._explain(git.where, listed, secrets)
            # A list of refs does not read the cache.
            raise (error.otherwise or error) if isinstance(error, Damaged) else error
        lines = (line.partition(b"\t") for line in listed.stdout.split(b"\n"))
        ids = {name: sha.decode() for sha, _, name in lines}
        return next((ids[name.encode()] for name in names if name.encode() in ids), "")

    def fetch_new(self, repository: BareRepository, template: Path, depth: int) -> str:
        """Create a repository, and fetch the newest part of the history into it.

        Only the remote knows whether its IDs are made with SHA-1 or SHA-256; its error message
        names the algorithm if the request used the other one.

        Args:
            repository: does not exist yet.
            template: an empty folder.
            depth: how many commits to fetch of each branch.

        Returns:
            like `fetch`.

        Raises:
            SourceError: there is no such ref, or the fetch failed.
            Damaged: what was fetched cannot be read.
            CacheFull: there is no room for it.
        """
        likely, other = _FORMATS if len(self._ref) != _SHA256_DIGITS else _FORMATS[::-1]
        history = (f"--depth={depth}",)
        repository.create(template, likely)
        try:
            return self.fetch(repository, history)
        except OtherFormat:
            remove(repository.folder)
        repository.create(template, other)
        try:
            return self.fetch(repository, history)
        except OtherFormat:
            raise SourceError(
                f"{repository.git.where}: the repository's object format is not supported; sha1 and"
                " sha256 are"
            ) from None

    def fetch(self, repository: BareRepository, history: Sequence[str] = ()) -> str:
        """Fetch, and return the ID of the ref: a commit's, or an annotated tag's.

        Args:
            repository: where to fetch into.
            history: options that limit it.

        Raises:
            SourceError: there is no such ref, or the fetch failed.
            Damaged: the repository here may be the cause.
            CacheFull: there is no room for what was to be fetched.
            OtherFormat: the remote uses another hash.
        """
        if is_commit(self._ref) and repository.has(self._ref):
            return self._ref  # a commit never changes
        self._fetch(repository, history)
        if not is_commit(self._ref):
            return repository.tip(self._own_ref)
        if repository.is_cut and not repository.has(self._ref):
            self._fetch(repository, _UNSHALLOW)  # it may be older than the history of the branches
        if not repository.has(self._ref):
            raise SourceError(f"{repository.git.where}: {self._missing()}")
        return self._ref

    def fetch_blobs(
        self, repository: BareRepository, blobs: Iterable[str], max_bytes: int
    ) -> set[str]:
        """Fetch files that `fetch` left out, with one request unless they are large together.

        Whether a file is sent does not depend on the others: if a pack of several exceeds
        `max_bytes`, each half of them is fetched separately.

        Args:
            repository: where to fetch into; the caller holds its lock.
            blobs: the IDs of the files.
            max_bytes: how large the pack of one file may be.

        Returns:
            the IDs of those that the server does not send, or that are larger than `max_bytes`.

        Raises:
            SourceError: the fetch failed, which says nothing about the files.
            Damaged: the repository here may be the cause.
            CacheFull: there is no room for them.
        """
        unsent: set[str] = set()
        wanted = sorted(blobs)
        groups = [wanted[at : at + _MAX_WANTED] for at in range(0, len(wanted), _MAX_WANTED)]
        while groups:
            group = groups.pop()
            refused = self._fetch_group(repository, group, max_bytes // _BLOCK_BYTES)
            if refused is None and len(group) > 1:
                half = len(group) // 2
                groups += [group[:half], group[half:]]
                continue
            refused = set(group) if refused is None else refused
            unsent |= refused
            if refused and (rest := [blob for blob in group if blob not in refused]):
                groups.append(rest)
        return unsent

    def _fetch_group(
        self, repository: BareRepository, blobs: Sequence[str], blocks: int
    ) -> set[str] | None:
        """Fetch files with one request.

        Returns:
            those that the server refused, so that none was sent; None if only a request for each
            would tell, or if they are too large together.
        """
        secrets = self._access.secrets()
        where = repository.git.where
        held_bytes = repository.packed()
        try:
            fetched = repository.fetch(
                self._access.options(),
                self._url,
                *blobs,
                blob_bytes=self.blob_bytes,
                file_blocks=blocks,
                disk_bytes=self._pack_bytes + max(self._pack_bytes // 4, _MIN_INDEX_BYTES),
            )
        except TooMuchDisk:
            raise self._too_large(where, held_bytes) from None
        if fetched.code == 0:
            return set()
        if not_offered(fetched.stderr):
            return objects_not_offered(fetched.stderr) & set(blobs) or None
        if no_filter(fetched.stderr):
            self.blob_bytes = None
            raise Damaged("the server no longer leaves out large files", blobs)
        # A process that reaches its file size limit is killed and prints nothing.
        if repository.half_a_pack() >= blocks * _BLOCK_BYTES:
            repository.remove_half_a_pack()
            return None
        raise explain(where, fetched, secrets, self._setup())

    def deepen(self, repository: BareRepository) -> None:
        """Fetch the rest of the history.

        Raises:
            SourceError: the fetch failed.
            Damaged: the repository here may be the cause.
            OtherFormat: the remote uses another hash.
        """
        if repository.is_cut:
            self._fetch(repository, _UNSHALLOW)

    def _fetch(self, repository: BareRepository, history: Sequence[str]) -> None:
        """Fetch the first of the refs that `ref` can mean and that the server has."""
        secrets = self._access.secrets()
        where = repository.git.where
        held_bytes = repository.packed()
        blocks = max(0, self._pack_bytes - held_bytes) // _BLOCK_BYTES
        for refspec in self._refspecs():
            try:
                fetched = self._fetch_least(repository, refspec, history, blocks)
            except TooMuchDisk:
                raise self._too_large(where, held_bytes) from None
            if fetched.code == 0:
                return
            stderr = fetched.stderr
            if no_such_ref(fetched) or (is_commit(self._ref) and not_offered(stderr)):
                continue
            if lacks_objects(stderr):
                raise SourceError(f"{where}: {_PARTIAL}")
            if other_format(stderr, repository.object_format):
                raise OtherFormat
            # A process that reaches its file size limit is killed and prints nothing.
            if repository.half_a_pack() >= blocks * _BLOCK_BYTES:
                raise self._too_large(where, held_bytes)
            raise self._explain(where, fetched, secrets)
        raise SourceError(f"{where}: {self._missing()}")

    def _too_large(self, where: str, held_bytes: int) -> SourceError | CacheFull:
        if held_bytes > self._pack_bytes // 2:
            # Most of it may be history that has been rewritten since.
            return CacheFull(f"no room beside the {held_bytes} bytes that are held already")
        return SourceError(
            f"{where}: the repository is larger than the {self._pack_bytes} bytes that"
            " --git-max-size allows; raise the limit, or use a smaller repository"
        )

    def _explain(
        self, where: str, finished: Finished, secrets: Sequence[str]
    ) -> SourceError | Damaged:
        names = self._access.with_names
        finished = replace(finished, stderr=names(finished.stderr), log=names(finished.log))
        return explain(where, finished, secrets, self._setup())

    def _setup(self) -> GitSetup:
        settings = self._access.settings
        return GitSetup(
            credentials=settings.credentials_file is not None,
            ca=settings.ca_file is not None,
            client_cert=settings.client_cert_file is not None,
            proxy=settings.proxy,
            proxy_credentials=settings.proxy_credentials_file is not None,
            page_of=repository_of_page(self._url),
        )

    def _fetch_least(
        self, repository: BareRepository, refspec: str, history: Sequence[str], blocks: int
    ) -> Finished:
        """Fetch as little as the server supports; the caller checks the result."""
        while True:
            fetched = repository.fetch(
                self._access.options(),
                self._url,
                refspec,
                history=history,
                blob_bytes=self.blob_bytes,
                file_blocks=blocks,
                # Indexes come on top.
                disk_bytes=self._pack_bytes + max(self._pack_bytes // 4, _MIN_INDEX_BYTES),
            )
            if self.blob_bytes is not None and no_filter(fetched.stderr):
                self.blob_bytes = None
                if fetched.code == 0:
                    return fetched
            elif history and fetched.code != 0 and no_shallow(fetched.stderr):
                history = ()
            else:
                return fetched

    def _refspecs(self) -> Iterator[str]:
        """Yield what `ref` can mean, in order of precedence.

        A branch precedes a tag of the same name, unlike in Git: an account that may push tags may
        not always push to the branch.
        """
        if is_commit(self._ref):
            yield f"+{self._ref}:{self._own_ref}"
            yield "+refs/heads/*:refs/openfero/heads/*"
        elif self._tag_only:
            yield f"+{TAGS}{self._ref.removeprefix(TAGS)}:{self._own_ref}"
        elif self._ref == "HEAD" or self._ref.startswith("refs/"):
            yield f"+{self._ref}:{self._own_ref}"
        else:
            yield f"+refs/heads/{self._ref}:{self._own_ref}"
            yield f"+{TAGS}{self._ref}:{self._own_ref}"

    def _missing(self) -> str:
        if self._ref == "HEAD":
            return (
                "the repository is empty, or its default branch does not exist; push a commit, set"
                " --ref to a branch, or check the URL"
            )
        name = printable(self._ref)
        if is_commit(self._ref):
            return f"there is no commit {name} on any branch; correct --ref"
        if self._ref.startswith("refs/"):
            return f"there is no ref {name}; correct --ref, or restore the ref"
        advice = suggest_ref(name) or "restore the branch or tag"
        return f"there is no branch or tag {name}; correct --ref, or {advice}"
