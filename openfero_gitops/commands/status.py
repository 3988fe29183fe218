"""Read the state of a controller from the API server, as the current user."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.queue import read_statuses
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.envelope_file import envelope_paths
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.catalog.mirror import (
    HEAD,
    head_report,
    read_history,
    read_refused,
    read_revision,
)
from openfero_gitops.catalog.mirrorer import load_mirror
from openfero_gitops.catalog.validation.schema import DEFAULT, versions
from openfero_gitops.cluster.api import JOB_STATES
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.cluster.jobs import few_foreign
from openfero_gitops.cluster.lease import KubernetesLease
from openfero_gitops.cluster.workloads import WorkloadStore
from openfero_gitops.commands.connection import connection, now_here
from openfero_gitops.commands.listing import list_jobs
from openfero_gitops.domain import control
from openfero_gitops.domain.errors import ApiError, Forbidden, SourceError, UsageError
from openfero_gitops.domain.pause import pause_in_git
from openfero_gitops.domain.remediation import Foreign, Phase, Remediation
from openfero_gitops.inspection.status import Records, summarize
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.workload import read_workload, with_queue_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.sync_report import SyncReport
    from openfero_gitops.inspection.status import ControllerStatus

_TIMEOUT_SECONDS: Final = 10.0


class NoController(UsageError):
    """The namespace has no controller, or RBAC forbids to read it (then that is the cause)."""


async def read_status(
    kubeconfig: Path | None, namespace: str | None, jobs_namespaces: Sequence[str]
) -> ControllerStatus:
    """Read the state of a controller.

    Args:
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: the controller's own; None means the context's.
        jobs_namespaces: where its Jobs are; none means all namespaces.

    Raises:
        UsageError: there is no controller in that namespace, or RBAC forbids to read it.
        ApiError: the API server did not answer.
    """
    async with connection(kubeconfig) as (api, clock):
        where = namespace or api.default_namespace
        return await status_of(api, where, jobs_namespaces, clock.server_now)


async def status_of(
    api: ApiServer,
    namespace: str,
    jobs_namespaces: Sequence[str] = (),
    clock: Callable[[], datetime] = now_here,
) -> ControllerStatus:
    """Read the state of the controller in a namespace; see `read_status`."""
    now = clock()
    records = await read_records(api, namespace, jobs_namespaces, now)
    return summarize(await _with_reasons_of_kueue(api, records, now), now)


async def _with_reasons_of_kueue(api: ApiServer, records: Records, now: datetime) -> Records:
    """Give the queued Jobs Kueue's reasons; if these cannot be read, say why."""
    queued = [job for job in records.jobs if job.phase is Phase.QUEUED]
    try:
        statuses = await read_statuses(WorkloadStore(api, read_workload), queued, now)
    except ApiError as error:
        return replace(records, queue_error=str(error))
    jobs = [
        with_queue_status(job, statuses[job.uid]) if job.uid in statuses else job
        for job in records.jobs
    ]
    return replace(records, jobs=jobs)


async def read_records(
    api: ApiServer, namespace: str, jobs_namespaces: Sequence[str], now: datetime
) -> Records:
    """Read what the state of a controller is computed from; see `read_status`."""
    try:
        records = await _read_controller(api, namespace, now)
    except Forbidden as error:
        raise NoController(
            f"no permission to read the controller in namespace {namespace!r}: {error}; set "
            "--namespace to the namespace of the controller"
        ) from error
    observed = await list_jobs(
        api,
        jobs_namespaces,
        resource=JOB_STATES,
        read=few_foreign(observe),
        option="--jobs-namespace",
        controller_namespace=namespace,
    )
    jobs = [job for job in observed if isinstance(job, Remediation)]
    foreign = [job for job in observed if isinstance(job, Foreign)]
    records = replace(records, jobs=jobs, foreign=foreign)
    try:
        catalog = await _read_catalog(
            ConfigMapStore(api, namespace),
            records.report,
            whole=any(job.waiting for job in jobs),
        )
    except SourceError as error:
        return replace(records, mirror_error=str(error))
    pause = pause_in_git(catalog, records.refused) or records.pause
    return replace(records, catalog=catalog, pause=pause)


async def _read_controller(api: ApiServer, namespace: str, now: datetime) -> Records:
    """Read the Lease, the head of the mirror and the pause."""
    store = ConfigMapStore(api, namespace)
    lease = await KubernetesLease(api, namespace).read(timeout=_TIMEOUT_SECONDS)
    head = await store.get(HEAD)
    if lease is None and head is None:
        raise NoController(
            f"no controller found in namespace {namespace!r}: set --namespace to the namespace of "
            "the controller"
        )
    members = control.read_members(await store.get(control.NAME))
    pause = control.read_pause(members)
    if pause is not None and pause.is_over(now):
        pause = None
    records = Records(namespace, (), lease=lease, pause=pause, watchdog=members.get("watchdog", ""))
    if head is None:
        return records
    try:
        activations = read_history(head).activations
        return replace(
            records,
            revision=read_revision(head),
            active_since=activations[-1].since if activations else None,
            refused=read_refused(head),
            report=head_report(head),
        )
    except SourceError as error:
        return replace(records, mirror_error=str(error))


async def _read_catalog(
    store: ConfigMapStore, report: SyncReport, *, whole: bool
) -> Catalog | None:
    """Build the catalog from the mirror; only its openfero.yaml, unless it is needed `whole`.

    The settings of the controller decide about it, too: they are in the report.

    Raises:
        SourceError: the mirror is damaged.
    """
    mirrored = await load_mirror(store)
    if mirrored is None:
        return None
    snapshot, _ = mirrored
    if not whole:
        paths = envelope_paths(snapshot.root)
        kept = tuple(file for file in snapshot.files if file.path.lower() in paths)
        snapshot = replace(snapshot, files=kept)
    version = report.kubernetes_version
    if version not in versions():  # that of a newer controller
        version = DEFAULT
    scope = Scope(report.jobs_namespace, report.allowed_namespaces, version)
    return await load_catalog(snapshot, scope, FileMemo(version))
