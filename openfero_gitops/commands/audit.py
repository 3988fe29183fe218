"""List remediations from the Jobs in a cluster, and verify them against a repository.

`--verify` renders each Job again from a repository that the auditor names. The repository that is
recorded on a Job is not used, because it proves nothing.
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
from openfero_gitops.audit.verify import (
    ActiveRevisions,
    Verification,
    find_objections,
    recorded_revision,
    with_objections,
)
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.mirror import HEAD, read_history
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.commands.approvals import is_approval_verified, read_policies
from openfero_gitops.commands.connection import api_client
from openfero_gitops.commands.listing import explain_no_jobs, list_jobs
from openfero_gitops.domain.errors import (
    Forbidden,
    SourceError,
)
from openfero_gitops.domain.signature import Verify
from openfero_gitops.effects.assess import assess_all
from openfero_gitops.jobs.observe import read_remediation
from openfero_gitops.keyfiles.mirror import check_mirror_keys
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.opening import open_commit
from openfero_gitops.verification import catalog_at, not_reviewed, verify_with
from openfero_gitops.web.auth import SecretLines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.dryrun.policy import Policy
    from openfero_gitops.sources.git.access import GitAccess


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which remediations to list; a member that is empty or None selects all.

    `namespaces` are those of the Jobs, `commit` may be abbreviated, `since` is a period before
    now.
    """

    namespaces: tuple[str, ...] = ()
    operario: str = ""
    alert: str = ""
    commit: str = ""
    since: timedelta | None = None

    def matches(self, remediation: Remediation, now: datetime) -> bool:
        """Whether a remediation is selected; its namespace is not checked."""
        return (
            (not self.operario or remediation.operario == self.operario)
            and (not self.alert or remediation.alertname.lower() == self.alert.lower())
            and remediation.commit.startswith(self.commit)
            and (self.since is None or remediation.received_at >= now - self.since)
        )


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What an auditor trusts.

    Attributes:
        repository: a Git URL or a folder.
        ref: the branch whose commits were reviewed.
        path: folder inside the repository that holds the operarios.
        jobs_namespace: the controller's setting; empty means each Job's own namespace.
        allowed_namespaces: the controller's setting.
        trust: whose signatures commits must have.
        kubernetes_version: the controller's setting.
        mirror_key_file: the controller's setting: the record must be signed with one of its keys.
        access: how to reach a Git URL.
    """

    repository: str
    ref: str = "HEAD"
    path: str = "."
    jobs_namespace: str = ""
    allowed_namespaces: tuple[str, ...] | None = None
    trust: Trust = field(default_factory=Trust)
    kubernetes_version: str = DEFAULT
    mirror_key_file: Path | None = None
    access: GitAccess | None = None


def signed_by(ssh: Path | None, openpgp: Path | None) -> Trust:
    """Require signatures if there is a file of signers."""
    verify_commits = Verify.COMMIT if ssh or openpgp else Verify.NONE
    return Trust(verify_commits, ssh, openpgp)


async def audit(
    kubeconfig: Path | None,
    selection: AuditFilter,
    reviewed: Reviewed | None,
    progress: Callable[[str], None],
    controller_namespace: str = "",
) -> list[AuditEntry]:
    """List remediations, oldest first; with `reviewed`, verify each.

    The records of the controller are in `controller_namespace`; empty means the context's
    namespace, then those of the Jobs that are listed.

    Raises:
        UsageError: RBAC forbids it, or the arguments do not name a repository.
        SourceError: the repository cannot be read.
        ApiError: the API server did not answer.
    """
    async with api_client(kubeconfig) as api:
        jobs = await list_jobs(
            api,
            selection.namespaces,
            controller_namespace=controller_namespace or api.default_namespace,
            progress=progress,
        )
        places = [controller_namespace]
        if not controller_namespace:
            places = [api.default_namespace, *selection.namespaces]
        policies = await _read_policies(api, places)
        record = None
        if reviewed is not None:
            record = await _read_record(api, places, reviewed.mirror_key_file, progress)
    now = datetime.now(UTC)
    remediations = [(read_remediation(job), job) for job in jobs]
    if note := explain_no_jobs(
        selection.operario, (remediation.operario for remediation, _ in remediations)
    ):
        progress(note)
    effects = assess_all((remediation for remediation, _ in remediations), now)
    selected = [
        AuditEntry(
            remediation,
            job,
            effects.get(remediation.key),
            approval_verified=is_approval_verified(remediation, policies),
        )
        for remediation, job in remediations
        if selection.matches(remediation, now)
    ]
    selected.sort(key=lambda entry: entry.remediation.order)
    if reviewed is None:
        return selected
    verifications = await _verify([entry.job for entry in selected], reviewed, progress, record)
    return [
        replace(entry, verification=verification)
        for entry, verification in zip(selected, verifications, strict=True)
    ]


async def _read_policies(api: ApiServer, namespaces: Sequence[str]) -> Mapping[str, Policy]:
    for namespace in dict.fromkeys(namespaces):
        if policies := await read_policies(api, namespace):
            return policies
    return {}


async def _read_record(
    api: ApiServer,
    namespaces: Sequence[str],
    key_file: Path | None,
    progress: Callable[[str], None],
) -> ActiveRevisions:
    """Read when which commit was active; the record is empty if it cannot be read."""
    problem = f"no ConfigMap {HEAD} in namespace {' or '.join(dict.fromkeys(namespaces))}"
    try:
        secrets = SecretLines(key_file, check_mirror_keys).now() if key_file else ()
        for namespace in dict.fromkeys(namespaces):
            head = await ConfigMapStore(api, namespace).get(HEAD)
            if head is not None:
                return ActiveRevisions(read_history(head, secrets), datetime.now(UTC))
    except (Forbidden, SourceError) as error:
        problem = str(error)
    progress(
        f"cannot read which commits were active: {problem}; use --controller-namespace to name the "
        "controller's namespace"
    )
    return ActiveRevisions(RevisionHistory(), datetime.now(UTC))


async def _verify(
    jobs: Sequence[Mapping[str, Any]],
    reviewed: Reviewed,
    progress: Callable[[str], None],
    record: ActiveRevisions | None = None,
) -> list[Verification]:
    """Verify each Job; the catalog of a commit is built once for all its Jobs."""
    by_commit: dict[str, list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        by_commit[recorded_revision(job)].append(index)
    verifications: dict[int, Verification] = {}
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
        async with contextlib.aclosing(source):
            progress(f"fetching {source.url} ...")
            tip = (await source.fetch()).revision.commit
            for number, (commit, indexes) in enumerate(by_commit.items(), 1):
                progress(f"verifying commit {commit[:12]} ({number} of {len(by_commit)}) ...")
                if commit and not await source.is_ancestor(commit, tip):
                    for index in indexes:
                        verifications[index] = with_objections(
                            not_reviewed(jobs[index], commit, tip, source.url),
                            find_objections(jobs[index]),
                        )
                    continue
                catalog = await catalog_at(source, commit, scope, memo)
                for index in indexes:
                    verifications[index] = (
                        with_objections(catalog, find_objections(jobs[index]))
                        if isinstance(catalog, Verification)
                        else verify_with(
                            jobs[index],
                            catalog,
                            jobs_namespace=reviewed.jobs_namespace,
                            signed=reviewed.trust.verify is not Verify.NONE,
                            record=record,
                        )
                    )
    return [verifications[index] for index in range(len(jobs))]
