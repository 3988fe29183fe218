"""Read everything about one remediation from the API server, as the current user."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.admission.decide import Admit, Refuse, Wait
from openfero_gitops.admission.queue import read_statuses
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.cluster.api import EVERYWHERE, JOB_STATES
from openfero_gitops.cluster.jobs import SELECTOR, JobStore
from openfero_gitops.cluster.workloads import WorkloadStore
from openfero_gitops.commands.approvals import is_approval_verified, read_policies
from openfero_gitops.commands.connection import connection, now_here
from openfero_gitops.commands.jobs import job_key, read_job
from openfero_gitops.commands.status import NoController, read_records
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError, Forbidden, UsageError
from openfero_gitops.domain.remediation import Foreign, Phase, Remediation
from openfero_gitops.inspection.status import decisions_on, why_no_catalog
from openfero_gitops.inspection.trace import Trace, newest, trace
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.workload import QueueStatus, read_workload, with_queue_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer, Object
    from openfero_gitops.domain.remediation import JobKey
    from openfero_gitops.inspection.status import Records

#: The newest Pods of a Job whose Events are read.
_MAX_PODS_WITH_EVENTS = 3
_NO_CONTROLLER = "to see why, set --controller-namespace to the controller's namespace"
_CHECK = "check --controller-namespace"
_UNREADABLE = "the reason cannot be read: {}"


async def read_trace(
    job: str, kubeconfig: Path | None, namespace: str | None, controller_namespace: str | None
) -> Trace:
    """Read what is known of a remediation.

    Args:
        job: NAME or NAMESPACE/NAME.
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: of a plain NAME; None means the context's.
        controller_namespace: where the controller records whether approvers' names are verified;
            None means the context's.

    Raises:
        UsageError: there is no such remediation, or RBAC forbids to read it.
        ApiError: the API server did not answer.
    """
    async with connection(kubeconfig) as (api, clock):
        key = job_key(job, namespace or api.default_namespace)
        where = controller_namespace or api.default_namespace
        return await trace_of(api, key, where, clock.server_now)


async def trace_of(
    api: ApiServer,
    key: JobKey,
    controller_namespace: str,
    clock: Callable[[], datetime] = now_here,
) -> Trace:
    """Read what is known of a remediation; see `read_trace`.

    What the user may not read is left out: Pods, Events, and Jobs of other namespaces. Why the
    reason of a waiting or queued Job cannot be read is in the trace.
    """
    remediation, job = await read_job(api, key)
    store = JobStore(api, (key.namespace,), observe)
    pods: list[Object] = []
    events: list[Object] = []
    with contextlib.suppress(Forbidden):
        pods = await store.pods(key)
    with contextlib.suppress(Forbidden):
        events = await store.events(key.namespace, remediation.uid)
        for pod in newest(pods)[:_MAX_PODS_WITH_EVENTS]:
            events += await store.events(key.namespace, pod["metadata"]["uid"])
    now = clock()
    incident = await _incident(api, remediation)
    admission = await _admission(api, remediation, controller_namespace, now)
    return trace(
        admission.remediation,
        job,
        incident=incident,
        pods=pods,
        events=events,
        approval_verified=is_approval_verified(
            remediation, await read_policies(api, controller_namespace)
        ),
        now=now,
        wait=admission.wait,
        instead_of_wait=admission.instead_of_wait,
    )


async def _incident(api: ApiServer, remediation: Remediation) -> list[Remediation]:
    """List the Jobs of the same incident, in all namespaces if the user may."""
    if not remediation.incident:
        return []
    selector = f"{SELECTOR},{keys.INCIDENT}={remediation.incident}"
    for namespace in (EVERYWHERE, remediation.key.namespace):
        with contextlib.suppress(Forbidden):
            jobs = (
                await api.list(JOB_STATES, namespace, label_selector=selector, read=observe)
            ).items
            return [job for job in jobs if not isinstance(job, Foreign)]
    return []


@dataclass(frozen=True, slots=True)
class _Admission:
    """A remediation as it counts for admission, and why it does not start; see `Trace`."""

    remediation: Remediation
    wait: Wait | None = None
    instead_of_wait: str = ""


async def _admission(
    api: ApiServer, remediation: Remediation, controller_namespace: str, now: datetime
) -> _Admission:
    """Decide on a waiting remediation as the leader does; for a queued one, ask Kueue.

    Without a catalog that can be read, it counts as it is recorded.
    """
    if remediation.phase is Phase.QUEUED:
        return _Admission(await _with_reason_of_kueue(api, remediation, now))
    if not remediation.waiting:
        return _Admission(remediation)
    known = ""
    # The limits count the Jobs of all namespaces, if the user may list them.
    for namespaces in ((), (remediation.key.namespace,)):
        try:
            records = await read_records(api, controller_namespace, namespaces, now)
        except NoController as error:
            forbidden = error.__cause__
            known = _UNREADABLE.format(f"{forbidden}; {_CHECK}") if forbidden else _NO_CONTROLLER
            break
        except (UsageError, ApiError) as error:
            known = _UNREADABLE.format(error)
        else:
            return _decided(remediation, records, now)
    return _Admission(remediation, instead_of_wait=known)


async def _with_reason_of_kueue(
    api: ApiServer, remediation: Remediation, now: datetime
) -> Remediation:
    try:
        statuses = await read_statuses(WorkloadStore(api, read_workload), [remediation], now)
    except ApiError as error:
        return with_queue_status(remediation, QueueStatus("", _UNREADABLE.format(error)))
    status = statuses.get(remediation.uid)
    return remediation if status is None else with_queue_status(remediation, status)


def _decided(remediation: Remediation, records: Records, now: datetime) -> _Admission:
    (required,) = with_requirements([remediation], records.catalog)
    match decisions_on(records, now).get(remediation.key):
        case Wait() as wait:
            return _Admission(required, wait)
        case Refuse(reason, message):
            known = f"the leader is about to refuse it: {message or reason.text}"
        case Admit():
            known = "all checks passed; no leader has started it yet"
        case None if records.catalog is None:
            known = why_no_catalog(records)
        case None if remediation.deleting:
            known = "it is being deleted, so it does not start"
        case None:
            known = "it has just changed; run the command again"
    return _Admission(required, instead_of_wait=known)
