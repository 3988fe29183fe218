"""Read everything about one remediation from the API server, as the current user."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from openfero_gitops.admission.decide import Wait
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.cluster.api import EVERYWHERE, JOB_STATES
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.cluster.jobs import SELECTOR, JobStore
from openfero_gitops.commands.connection import connection, now_here
from openfero_gitops.commands.jobs import job_key, read_job
from openfero_gitops.commands.status import read_records
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, UsageError
from openfero_gitops.domain.remediation import Foreign, Remediation
from openfero_gitops.dryrun import trial
from openfero_gitops.inspection.status import decisions_on
from openfero_gitops.inspection.trace import Trace, trace
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer, Object
    from openfero_gitops.domain.remediation import JobKey

#: The newest Pods of a Job whose Events are read.
_MAX_PODS_WITH_EVENTS = 3


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

    What the user may not read is left out: why a Job waits, Pods, Events, and Jobs of other
    namespaces.
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
    required, wait = await _admission(api, remediation, controller_namespace, now)
    return trace(
        required,
        job,
        incident=incident,
        pods=pods,
        events=events,
        approval_verified=await _is_verified(api, remediation, controller_namespace),
        now=now,
        wait=wait,
    )


def newest(pods: Sequence[Object]) -> list[Object]:
    """Sort Pods, the newest first."""
    return sorted(
        pods,
        key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]),
        reverse=True,
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


async def _admission(
    api: ApiServer, remediation: Remediation, controller_namespace: str, now: datetime
) -> tuple[Remediation, Wait | None]:
    """Return a remediation as it counts for admission, and why it waits, as the leader decides.

    Without a catalog that can be read, it counts as it is recorded. None: it does not wait, or that
    cannot be read.
    """
    if not remediation.waiting:
        return remediation, None
    # The limits count the Jobs of all namespaces, if the user may list them.
    for namespaces in ((), (remediation.key.namespace,)):
        with contextlib.suppress(UsageError):
            records = await read_records(api, controller_namespace, namespaces, now)
            decision = decisions_on(records, now).get(remediation.key)
            (required,) = with_requirements([remediation], records.catalog)
            return required, decision if isinstance(decision, Wait) else None
    return remediation, None


async def _is_verified(
    api: ApiServer, remediation: Remediation, controller_namespace: str
) -> bool | None:
    """Whether the API server has checked the approver's name; None if that cannot be read."""
    with contextlib.suppress(Forbidden):
        stored = await ConfigMapStore(api, controller_namespace).get(trial.CONFIG_MAP)
        results = trial.from_config_map(stored) if stored else None
        policy = results.policies.get(remediation.key.namespace) if results else None
        if policy is not None:
            since = policy.approvals_since
            return since is not None and remediation.received_at >= since
    return None
