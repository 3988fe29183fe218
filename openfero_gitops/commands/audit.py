"""What ran, from which commit, and whether that can be proven.

The Jobs are the record; nothing else is asked. `--verify` derives each of them again from a
repository that the auditor names: what a Job says of its own repository proves nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openfero_gitops.audit.table import AuditEntry
from openfero_gitops.audit.verify import Proof, Verification, recorded_revision, verify
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.cluster.api import EVERYWHERE, JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.jobs import SELECTOR
from openfero_gitops.domain.errors import (
    CatalogRefusal,
    Forbidden,
    SourceError,
    Unverified,
    UsageError,
)
from openfero_gitops.domain.signature import Verify
from openfero_gitops.jobs.observe import observe
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.opening import open_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.sources.git.access import GitAccess
    from openfero_gitops.sources.git.source import GitSource


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which remediations are asked for; what is empty or None does not narrow.

    `namespaces` are those of the Jobs; `commit` may be shortened; `since` counts back from now.
    """

    namespaces: tuple[str, ...] = ()
    operario: str = ""
    alert: str = ""
    commit: str = ""
    since: timedelta | None = None

    def takes(self, one: Remediation, now: datetime) -> bool:
        """Whether a remediation is among them."""
        return (
            (not self.operario or one.operario == self.operario)
            and (not self.alert or one.alertname.lower() == self.alert.lower())
            and one.commit.startswith(self.commit)
            and (self.since is None or one.received_at >= now - self.since)
        )


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What an auditor trusts: a repository, the ref that holds what was reviewed, its signers.

    `kubernetes_version` is the controller's setting; `access` is the way to the repository.

    `jobs_namespace` and `allowed_namespaces` are what the controller was given; where no
    jobs namespace is named, that of each Job is taken.
    """

    repository: str
    ref: str = "HEAD"
    path: str = "."
    jobs_namespace: str = ""
    allowed_namespaces: tuple[str, ...] | None = None
    trust: Trust = field(default_factory=Trust)
    kubernetes_version: str = DEFAULT
    access: GitAccess | None = None


def signed_by(ssh: Path | None, openpgp: Path | None) -> Trust:
    """Demand signatures where signers are named."""
    verify = Verify.COMMIT if ssh or openpgp else Verify.NONE
    return Trust(verify, ssh, openpgp)


async def audit(
    kubeconfig: Path | None,
    selection: AuditFilter,
    reviewed: Reviewed | None,
    progress: Callable[[str], None],
) -> list[AuditEntry]:
    """Read the remediations, by when they came; with `reviewed`, prove each.

    Raises:
        UsageError: RBAC forbids it, or the repository cannot be named so.
        SourceError: the repository cannot be read.
        ApiError: the API server did not answer.
    """
    api = await KubernetesApi.connect(kubeconfig)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        jobs: list[Mapping[str, Any]] = []
        for namespace in selection.namespaces or (EVERYWHERE,):
            try:
                jobs += (await api.list(JOBS, namespace, label_selector=SELECTOR)).items
            except Forbidden as error:
                where = "every namespace" if namespace == EVERYWHERE else f"namespace {namespace!r}"
                raise UsageError(
                    f"Jobs may not be listed in {where}: {error}: name the namespaces that you may "
                    "read with --namespace"
                ) from error
    now = datetime.now(UTC)
    chosen = [(one, job) for job in jobs if selection.takes(one := observe(job), now)]
    chosen.sort(key=lambda pair: pair[0].order)
    if reviewed is None:
        return [AuditEntry(one, job) for one, job in chosen]
    verdicts = await _verify([job for _, job in chosen], reviewed, progress)
    return [
        AuditEntry(one, job, verdict) for (one, job), verdict in zip(chosen, verdicts, strict=True)
    ]


async def _verify(
    jobs: Sequence[Mapping[str, Any]], reviewed: Reviewed, progress: Callable[[str], None]
) -> list[Verification]:
    """The verdict on each Job; a commit's catalog is built once for all its Jobs."""
    by_commit: dict[str, list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        by_commit[recorded_revision(job)].append(index)
    verdicts: dict[int, Verification] = {}
    scope = Scope(reviewed.jobs_namespace, reviewed.allowed_namespaces, reviewed.kubernetes_version)
    memo = FileMemo(scope.kubernetes_version)
    with tempfile.TemporaryDirectory(prefix="openfero-gitops-") as cache:
        source = open_commit(
            reviewed.repository,
            reviewed.ref,
            reviewed.path,
            Path(cache),
            reviewed.trust,
            access=reviewed.access,
        )
        async with contextlib.AsyncExitStack() as exits:
            exits.push_async_callback(source.aclose)
            progress(f"reading {source.url} ...")
            tip = (await source.fetch()).revision.commit
            for number, (commit, indexes) in enumerate(by_commit.items(), 1):
                progress(f"commit {number} of {len(by_commit)}: {commit[:12]} ...")
                found = await _catalog_at(source, commit, tip, scope, memo)
                for index in indexes:
                    verdicts[index] = (
                        found
                        if isinstance(found, Verification)
                        else _verdict(jobs[index], found, reviewed)
                    )
    return [verdicts[index] for index in range(len(jobs))]


async def _catalog_at(
    source: GitSource, commit: str, tip: str, scope: Scope, memo: FileMemo
) -> Catalog | Verification:
    """The catalog of a commit, or why nothing of that commit can be proven."""
    if not commit:
        return Verification(Proof.DIFFERS, "it names no commit")
    if not await source.is_ancestor(commit, tip):
        return Verification(
            Proof.DIFFERS,
            f"commit {commit[:12]} is not part of what was reviewed, which ends at {tip[:12]}",
        )
    try:
        snapshot = await source.snapshot(commit)
        return await load_catalog(snapshot, scope, memo, source.versions)
    except CatalogRefusal as error:
        return Verification(Proof.DIFFERS, f"commit {commit[:12]} is one that is refused: {error}")
    except Unverified as error:
        return Verification(Proof.DIFFERS, str(error))
    except SourceError as error:
        return Verification(Proof.UNPROVABLE, str(error))


def _verdict(job: Mapping[str, Any], catalog: Catalog, reviewed: Reviewed) -> Verification:
    """Compare; the address under which a controller knows the repository is its own affair."""
    one = observe(job)
    revision = replace(catalog.revision, repository=one.repository, ref=one.ref)
    return verify(
        job,
        replace(catalog, revision=revision),
        jobs_namespace=reviewed.jobs_namespace or one.key.namespace,
        signed=reviewed.trust.verify is not Verify.NONE,
    )
