"""Verifies Jobs against the history of a repository.

`audit.verify` compares a Job with a catalog; here that catalog is built from the Job's commit.
`audit --verify` does it with a repository that the auditor names, and the pages, for one Job at a
time, with the repository that the controller follows: convenient, but an auditor who does not trust
the controller must use the command.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.audit.verify import (
    ActiveRevisions,
    Proof,
    Verification,
    find_objections,
    recorded_revision,
    verify,
    with_objections,
)
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.catalog.mirror import HEAD, read_history
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.domain.errors import CatalogRefusal, SourceError, Unverified
from openfero_gitops.domain.text import shown
from openfero_gitops.jobs.observe import read_remediation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.catalog.build import Scope
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.ports import ConfigMaps, History

    Job = Mapping[str, Any]

_MAX_URL_CHARACTERS: Final = 200  # that are shown
#: Verifications that are kept.
_MAX_RESULTS: Final = 256


def not_reviewed(job: Job, commit: str, tip: str, url: str) -> Verification:
    """Say that the commit of a Job is not in the history that was reviewed."""
    recorded = read_remediation(job).repository
    message = f"commit {commit[:12]} is not part of the reviewed history, which ends at {tip[:12]}"
    if recorded.removeprefix("file://") != url.removeprefix("file://"):
        message += (
            f"; the Job records the repository {shown(recorded, _MAX_URL_CHARACTERS)}, and"
            f" {shown(url, _MAX_URL_CHARACTERS)} was reviewed"
        )
    return Verification(Proof.DIFFERS, message)


async def catalog_at(
    source: History, commit: str, scope: Scope, memo: FileMemo
) -> Catalog | Verification:
    """The catalog of a reviewed commit, or why no Job of that commit can be verified."""
    if not commit:
        return Verification(Proof.DIFFERS, "the Job records no commit")
    try:
        snapshot = await source.snapshot(commit)
        return await load_catalog(snapshot, scope, memo, source.versions)
    except CatalogRefusal as error:
        return Verification(Proof.DIFFERS, f"the controller rejects commit {commit[:12]}: {error}")
    except Unverified as error:
        return Verification(Proof.DIFFERS, str(error))
    except SourceError as error:
        return Verification(Proof.UNPROVABLE, str(error))


def verify_with(
    job: Job,
    catalog: Catalog,
    *,
    jobs_namespace: str,
    signed: bool,
    record: ActiveRevisions | None,
) -> Verification:
    """Compare, whatever URL and ref the controller used for the repository.

    An empty `jobs_namespace` means the Job's own.
    """
    remediation = read_remediation(job)
    revision = replace(catalog.revision, repository=remediation.repository, ref=remediation.ref)
    return verify(
        job,
        replace(catalog, revision=revision),
        jobs_namespace=jobs_namespace or remediation.key.namespace,
        signed=signed,
        record=record,
    )


class JobVerifier:
    """Verifies single Jobs against the repository that the controller follows.

    The result is kept per version of the Job. Only one catalog is built at a time, and the last one
    is kept: the Jobs that people look at mostly have the active commit, or one other.
    """

    def __init__(
        self,
        source: History,
        scope: Scope,
        *,
        active: Callable[[], Catalog | None],
        signed: bool,
        store: ConfigMaps,
        mirror_keys: Callable[[], Sequence[bytes]],
        now: Callable[[], datetime],
    ) -> None:
        """Take the history, and the settings with which the controller reads it.

        `active` returns the active catalog; `store` has the record of when which commit was active,
        which is signed with one of `mirror_keys` if there are any.
        """
        self._source = source
        self._scope = scope
        self._active = active
        self._signed = signed
        self._store = store
        self._mirror_keys = mirror_keys
        self._now = now
        self._memo = FileMemo(scope.kubernetes_version)
        self._one = asyncio.Lock()
        self._last: Catalog | None = None
        self._results: OrderedDict[tuple[str, str, str], Verification] = OrderedDict()

    async def verify(self, job: Job) -> Verification:
        """Verify a Job; slow if its commit is not the active one.

        Raises:
            SourceError: the repository cannot be read.
            ApiError: the record of active commits cannot be read.
        """
        active = self._active()
        if active is None:
            return Verification(Proof.UNPROVABLE, "there is no active catalog to compare with")
        tip = active.revision.commit
        metadata = job["metadata"]
        version = (str(metadata.get("uid")), str(metadata.get("resourceVersion")), tip)
        result = self._results.get(version)
        if result is None:
            async with self._one:
                result = await self._verify(job, active)
            self._results[version] = result
            while len(self._results) > _MAX_RESULTS:
                self._results.popitem(last=False)
        return result

    async def _verify(self, job: Job, active: Catalog) -> Verification:
        commit, tip = recorded_revision(job), active.revision.commit
        if not commit:
            # A folder has no history.
            return Verification(Proof.UNPROVABLE, "the Job records no commit")
        catalog: Catalog | Verification = active
        if commit != tip:
            if not await self._source.is_ancestor(commit, tip):
                refused = not_reviewed(job, commit, tip, active.revision.repository)
                return with_objections(refused, find_objections(job))
            if self._last is not None and self._last.revision.commit == commit:
                catalog = self._last
            else:
                catalog = await catalog_at(self._source, commit, self._scope, self._memo)
        if isinstance(catalog, Verification):
            return with_objections(catalog, find_objections(job))
        if catalog is not active:
            self._last = catalog
        return verify_with(
            job,
            catalog,
            jobs_namespace=self._scope.jobs_namespace,
            signed=self._signed,
            record=await self._record(),
        )

    async def _record(self) -> ActiveRevisions:
        head = await self._store.get(HEAD)
        history = read_history(head, self._mirror_keys()) if head else RevisionHistory()
        return ActiveRevisions(history, self._now())
