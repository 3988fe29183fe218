"""Approve, refuse or cancel one remediation; pause or resume admission.

Everything goes through the Kubernetes API, so permissions are plain RBAC. The name that is
recorded is the one that the API server reports for the caller. Only a ValidatingAdmissionPolicy
keeps somebody from writing another name by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.pause import LABELS, STILL_PAUSED_BY, request_data
from openfero_gitops.admission.pause import NAME as CONTROL
from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, Invalid, NotFound, UsageError
from openfero_gitops.domain.remediation import Foreign, JobKey, Phase
from openfero_gitops.dryrun.policy import DENIAL
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.remediation import Remediation


_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class JobAction:
    """What an approver does to a Job: its past participle, the phases that allow it, its patch."""

    done: str
    phases: frozenset[Phase]
    patch: Callable[[Remediation, str], patches.Patch]


_WAITING = frozenset({Phase.WAITING, Phase.AWAITING_APPROVAL})

# (That a Job must be approved may be known only from Git, which this command does not read.)
APPROVE = JobAction("approved", _WAITING, patches.approve)
REFUSE = JobAction("refused", _WAITING, patches.refuse_by_hand)
CANCEL = JobAction(
    "cancelled", _WAITING | {Phase.RUNNING, Phase.QUEUED, Phase.HELD}, patches.cancel_by_hand
)


async def act_on_job(
    action: JobAction, job: str, kubeconfig: Path | None, namespace: str | None
) -> str:
    """Apply an action to a Job as the current user.

    Args:
        action: APPROVE, REFUSE or CANCEL.
        job: NAME or NAMESPACE/NAME.
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: of a plain NAME; None means the context's.

    Returns:
        the sentence to print.

    Raises:
        UsageError: there is no such remediation, its phase does not allow the action, or RBAC
            forbids it.
        ApiError: the API server did not do it.
    """
    api = await KubernetesApi.connect(kubeconfig)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        key = _job_key(job, namespace or api.default_namespace)
        username = await api.whoami()
        await apply_action(api, action, key, username)
        return f"Job {key} {action.done} by {username}"


async def apply_action(api: ApiServer, action: JobAction, key: JobKey, username: str) -> None:
    """Patch a Job; retry if it changed in between without changing its phase.

    Raises:
        UsageError: there is no such remediation, its phase does not allow the action, or RBAC
            forbids it.
        ApiError: the API server did not do it.
    """
    remediation = await _read(api, key)
    while True:
        if remediation.phase not in action.phases:
            raise UsageError(
                f"Job {key} cannot be {action.done}: its phase is {_phase_text(remediation)}"
            )
        if action is APPROVE and remediation.approved_by:
            raise UsageError(f"Job {key} is already approved, by {remediation.approved_by}")
        try:
            await api.patch(JOBS, key.namespace, key.name, action.patch(remediation, username))
        except Forbidden as error:
            denied = DENIAL.search(str(error))
            why = (
                "an admission policy of the cluster refused it"
                if denied
                else f"{username} has no permission to patch Jobs in namespace {key.namespace!r}"
            )
            raise UsageError(f"Job {key} was not {action.done}: {why}: {error}") from error
        except Invalid:
            before, remediation = remediation, await _read(api, key)
            is_same_phase = (before.uid, before.phase) == (remediation.uid, remediation.phase)
            if is_same_phase and before != remediation:
                continue
            raise UsageError(
                f"Job {key} changed at the same time, its phase is now "
                f"{_phase_text(remediation)}: check the Job, then try again"
            ) from None
        return


def _job_key(job: str, namespace: str) -> JobKey:
    """Parse NAME or NAMESPACE/NAME, with or without kubectl's prefix `job/` or `job.batch/`."""
    for prefix in ("job/", "jobs/", "job.batch/"):
        job = job.removeprefix(prefix)
    before, slash, name = job.rpartition("/")
    if not name or (slash and not before) or "/" in before:
        raise UsageError(f"{job!r} does not name a Job: write NAME or NAMESPACE/NAME")
    return JobKey(before or namespace, name)


async def _read(api: ApiServer, key: JobKey) -> Remediation:
    try:
        job = await api.get(JOBS, key.namespace, key.name)
    except NotFound:
        raise UsageError(f"Job {key} not found: write NAMESPACE/NAME, or set --namespace") from None
    if (job["metadata"].get("labels") or {}).get(keys.MANAGED_BY) != keys.MANAGER:
        raise UsageError(f"Job {key} is not managed by openfero-gitops; nothing was changed")
    remediation = observe(job)
    if isinstance(remediation, Foreign):
        raise UsageError(
            f"Job {key} was not created by openfero-gitops, although it carries the label "
            f"{keys.MANAGED_BY}: {remediation.why}; nothing was changed"
        )
    return remediation


def _phase_text(remediation: Remediation) -> str:
    reason = f" ({remediation.reason})" if remediation.reason else ""
    return f"{remediation.phase}{reason}"


async def pause(
    paused: bool,  # noqa: FBT001 - one function serves two commands
    kubeconfig: Path | None,
    namespace: str | None,
    timeout_seconds: float,
) -> str:
    """Pause or resume admission as the current user, and wait for the leader's confirmation.

    Args:
        paused: False resumes.
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: the controller's own; None means the context's.
        timeout_seconds: how long to wait for the confirmation.

    Returns:
        the sentence to print.

    Raises:
        UsageError: RBAC forbids it, or no leader confirmed it in time.
        ApiError: the API server did not do it.
    """
    api = await KubernetesApi.connect(kubeconfig)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        store = ConfigMapStore(api, namespace or api.default_namespace)
        return await write_pause(
            store, paused=paused, username=await api.whoami(), timeout_seconds=timeout_seconds
        )


async def write_pause(
    store: ConfigMapStore, *, paused: bool, username: str, timeout_seconds: float
) -> str:
    """Write the request to the control ConfigMap, and wait for the leader's confirmation.

    Returns:
        the sentence to print.

    Raises:
        UsageError: RBAC forbids it, no leader confirmed it in time, or somebody else requested
            the opposite.
        ApiError: the API server did not do it.
    """
    request = request_data(username, datetime.now(UTC), paused=paused)
    try:
        await store.merge(CONTROL, request, LABELS)
    except Forbidden as error:
        raise UsageError(
            f"{username} has no permission to write ConfigMap {CONTROL} in namespace "
            f"{store.namespace!r}: {error}"
        ) from error
    try:
        async with asyncio.timeout(timeout_seconds):
            while (  # noqa: ASYNC110 - a ConfigMap has no event to wait for
                confirmation := await _confirmation(store, request["paused"])
            ) is None:
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise UsageError(
            f"{'Pause' if paused else 'Resume'} requested, but no leader confirmed it within "
            f"{timeout_seconds:.0f} s. Is the controller running in namespace "
            f'"{store.namespace}"? The next leader will apply the request.'
        ) from None
    others = confirmation.get(STILL_PAUSED_BY)
    if others and not paused:
        return f"pause ended by {username}, but admission is still paused: {others}"
    return f"admission {'paused' if paused else 'resumed'} by {username}"


async def _confirmation(store: ConfigMapStore, paused: str) -> dict[str, str] | None:
    """Read the ConfigMap; None until a leader has confirmed the last request of any user.

    Raises:
        UsageError: somebody else requested the opposite.
    """
    control = await store.get(CONTROL)
    data: dict[str, str] = (control or {}).get("data") or {}
    if data.get("paused") != paused:
        raise UsageError(
            f"somebody else changed ConfigMap {CONTROL} at the same time: "
            "check whether admission is paused, then try again"
        )
    return data if data.get("acknowledged") == data.get("request") else None
