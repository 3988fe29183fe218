"""Lists the controller's Jobs in a cluster, for commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openfero_gitops.cluster.api import EVERYWHERE, JOBS
from openfero_gitops.cluster.jobs import SELECTOR
from openfero_gitops.domain.errors import Forbidden, UsageError
from openfero_gitops.domain.text import listed, printable, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from openfero_gitops.cluster.api import ApiServer, Object, Resource


async def list_jobs(
    api: ApiServer,
    namespaces: Sequence[str],
    *,
    resource: Resource = JOBS,
    read: Callable[[Object], Any] | None = None,
    option: str = "--namespace",
) -> list[Any]:
    """List the Jobs of the controller in some namespaces; without any, in all.

    Args:
        api: the API server.
        namespaces: where.
        resource: which part of the Jobs is read.
        read: returns what is kept of a Job; None keeps it as it is.
        option: the option of the command that sets `namespaces`.

    Raises:
        UsageError: RBAC forbids it.
        ApiError: the API server did not answer.
    """
    jobs: list[Any] = []
    for namespace in namespaces or (EVERYWHERE,):
        try:
            jobs += (await api.list(resource, namespace, label_selector=SELECTOR, read=read)).items
        except Forbidden as error:
            if namespace == EVERYWHERE:
                message = (
                    f"no permission to list Jobs in all namespaces: {error}; use {option} "
                    "to list the Jobs of some namespaces"
                )
            else:
                message = f"no permission to list Jobs in namespace {namespace!r}: {error}"
            raise UsageError(message) from error
    return jobs


def explain_no_jobs(operario: str, known: Iterable[str]) -> str:
    """Say that an operario has no Jobs, and which others have; empty if it has some.

    Without this, a misspelled name looks like an operario that never ran.

    Args:
        operario: the name that the user gave; empty selects all.
        known: the operarios of the listed Jobs.
    """
    names = {*known}
    if not operario or operario in names:
        return ""
    others = f"; operarios with Jobs: {listed(map(printable, sorted(names)))}" if names else ""
    return f"no Job of operario {shown(operario)}{others}"
