"""Lists the controller's Jobs in a cluster, for commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.cluster.api import EVERYWHERE, JOBS
from openfero_gitops.cluster.jobs import SELECTOR
from openfero_gitops.domain.errors import Forbidden, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.cluster.api import ApiServer, Object


async def list_jobs(api: ApiServer, namespaces: Sequence[str]) -> list[Object]:
    """List the Jobs of the controller in some namespaces; without any, in all.

    Raises:
        UsageError: RBAC forbids it.
        ApiError: the API server did not answer.
    """
    jobs: list[Object] = []
    for namespace in namespaces or (EVERYWHERE,):
        try:
            jobs += (await api.list(JOBS, namespace, label_selector=SELECTOR)).items
        except Forbidden as error:
            if namespace == EVERYWHERE:
                message = (
                    f"no permission to list Jobs in all namespaces: {error}; use --namespace "
                    "to list the Jobs of some namespaces"
                )
            else:
                message = f"no permission to list Jobs in namespace {namespace!r}: {error}"
            raise UsageError(message) from error
    return jobs
