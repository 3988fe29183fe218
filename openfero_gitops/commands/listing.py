"""Lists the controller's Jobs in a cluster, for commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openfero_gitops.cluster.api import EVERYWHERE, JOBS
from openfero_gitops.cluster.jobs import SELECTOR
from openfero_gitops.commands.approvals import read_policies
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
    controller_namespace: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> list[Any]:
    """List the Jobs of the controller in some namespaces; without any, in all.

    A user who may not list all gets those of the namespaces that the controller has recorded, if
    its records can be read.

    Args:
        api: the API server.
        namespaces: where.
        resource: which part of the Jobs is read.
        read: returns what is kept of a Job; None keeps it as it is.
        option: the option of the command that sets `namespaces`.
        controller_namespace: where the records are; empty if that is not known.
        progress: called with a note if not all namespaces are listed.

    Raises:
        UsageError: RBAC forbids it.
        ApiError: the API server did not answer.
    """

    async def list_in(namespace: str) -> list[Any]:
        return (await api.list(resource, namespace, label_selector=SELECTOR, read=read)).items

    if not namespaces:
        try:
            return await list_in(EVERYWHERE)
        except Forbidden as error:
            recorded = (
                await read_policies(api, controller_namespace) if controller_namespace else {}
            )
            namespaces = sorted(recorded)
            if not namespaces:
                raise UsageError(
                    f"no permission to list Jobs in all namespaces: {error}; use {option} "
                    "to list the Jobs of some namespaces"
                ) from error
            progress(
                "no permission to list Jobs in all namespaces; listing those of the controller: "
                f"{', '.join(map(printable, namespaces))}"
            )
    jobs: list[Any] = []
    for namespace in namespaces:
        try:
            jobs += await list_in(namespace)
        except Forbidden as error:
            raise UsageError(
                f"no permission to list Jobs in namespace {namespace!r}: {error}"
            ) from error
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
