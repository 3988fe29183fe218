"""Read the Jobs in a cluster, and compute the statistics of their operarios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.cluster.api import JOB_STATES
from openfero_gitops.cluster.jobs import few_foreign
from openfero_gitops.commands.connection import connection, now_here
from openfero_gitops.commands.listing import explain_no_jobs, list_jobs
from openfero_gitops.domain.remediation import Remediation
from openfero_gitops.effects.stats import report_stats
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.effects.stats import StatsReport


@dataclass(frozen=True, slots=True)
class StatsFilter:
    """Which remediations count; a member that is empty or None selects all.

    `namespaces` are those of the Jobs, `since` is a period before now in which the alert was
    received.
    """

    namespaces: tuple[str, ...] = ()
    operario: str = ""
    since: timedelta | None = None

    def matches(self, remediation: Remediation, now: datetime) -> bool:
        """Whether a remediation counts; its namespace is not checked."""
        return (not self.operario or remediation.operario == self.operario) and (
            self.since is None or remediation.received_at >= now - self.since
        )


async def read_stats(
    kubeconfig: Path | None, selection: StatsFilter, progress: Callable[[str], None]
) -> StatsReport:
    """Compute the statistics of the Jobs in a cluster that the controller created.

    `progress` is called with a note if the selected operario has no Jobs.

    Raises:
        UsageError: RBAC forbids it.
        ApiError: the API server did not answer.
    """
    async with connection(kubeconfig) as (api, clock):
        return await stats_of(
            api, selection, clock.server_now, progress, controller_namespace=api.default_namespace
        )


async def stats_of(
    api: ApiServer,
    selection: StatsFilter,
    clock: Callable[[], datetime] = now_here,
    progress: Callable[[str], None] = lambda _: None,
    *,
    controller_namespace: str = "",
) -> StatsReport:
    """Compute the statistics from an API server; raises as `read_stats` does."""
    observed = await list_jobs(
        api,
        selection.namespaces,
        resource=JOB_STATES,
        read=few_foreign(observe),
        controller_namespace=controller_namespace,
        progress=progress,
    )
    now = clock()
    remediations = [job for job in observed if isinstance(job, Remediation)]
    if note := explain_no_jobs(selection.operario, (job.operario for job in remediations)):
        progress(note)
    return report_stats(
        remediations,
        now,
        lambda remediation: selection.matches(remediation, now),
    )
