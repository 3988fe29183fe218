"""The requests by which an operario is tried in a cluster, and what their answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.dryrun.trial import (
    account_missing,
    manifest,
    remark_of,
    remarks_about,
    remarks_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.dryrun.trial import Remark, Trial


class Cluster(Protocol):
    """The cluster in which operarios are tried."""

    async def version(self) -> str:
        """Return the version of Kubernetes; raises ApiError."""
        ...

    async def dry_run(self, manifest: dict[str, Any]) -> Sequence[str]:
        """Create a Job with `dryRun=All` and return the warnings; raises ApiError."""
        ...

    async def has_account(self, namespace: str, name: str) -> bool:
        """Whether a ServiceAccount exists; raises ApiError."""
        ...


async def dry_run(
    cluster: Cluster,
    trial: Trial,
    catalog: Catalog,
    jobs_namespace: str,
    *,
    as_controller: bool = True,
) -> tuple[Remark, ...]:
    """Return what the API server says about a Job; raises ApiError if it says nothing.

    Without `as_controller` the Job lacks the label that the chart's policy reserves for the
    controller.
    """
    job = manifest(trial.operario, catalog, jobs_namespace)
    if not as_controller:
        labels = job["metadata"]["labels"]
        del labels[keys.MANAGED_BY]
    try:
        return remarks_of(await cluster.dry_run(job))
    except ApiError as error:
        remarks = remarks_about(error, trial.operario, job)
        if not remarks:
            raise
        return remarks


async def check_account(cluster: Cluster, trial: Trial) -> tuple[Remark, ...]:
    """Return what there is to say about a Job's ServiceAccount; raises ApiError."""
    try:
        exists = await cluster.has_account(trial.namespace, trial.account)
    except ApiError as error:
        remark = remark_of(error)
        if remark is None:
            raise
        return (remark,)
    return () if exists else (account_missing(trial),)
