"""Approve, refuse or cancel one remediation.

Everything goes through the Kubernetes API, so permissions are plain RBAC. The name that is
recorded is the one that the API server reports for the caller. Only a ValidatingAdmissionPolicy
keeps somebody from writing another name by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.commands.connection import api_client
from openfero_gitops.commands.jobs import NotOurs, job_key, read_job
from openfero_gitops.domain.errors import Forbidden, Invalid, UsageError
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.domain.text import printable
from openfero_gitops.dryrun.policy import DENIAL
from openfero_gitops.jobs import patches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.remediation import Remediation


@dataclass(frozen=True, slots=True)
class JobAction:
    """What an approver does to a Job: its past participle, the phases that allow it, its patch.

    The patch depends on the Job, the user and the user's reason.
    """

    done: str
    phases: frozenset[Phase]
    patch: Callable[[Remediation, str, str], patches.Patch]


@dataclass(frozen=True, slots=True)
class ActionTaken:
    """What was done to which Job, by whom and why; `reason` is empty if the user gave none."""

    key: JobKey
    done: str
    username: str
    reason: str = ""

    def __str__(self) -> str:
        """The sentence to print."""
        because = f": {self.reason}" if self.reason else ""
        return f"Job {self.key} {self.done} by {self.username}{because}"

    def members(self) -> dict[str, Any]:
        """The members of the JSON to print."""
        return {
            "job": self.key.name,
            "namespace": self.key.namespace,
            "action": self.done,
            "by": self.username,
            "reason": self.reason or None,
        }


_WAITING = frozenset({Phase.WAITING, Phase.AWAITING_APPROVAL})

# (That a Job must be approved may be known only from Git, which this command does not read.)
APPROVE = JobAction("approved", _WAITING, patches.approve)
REFUSE = JobAction("refused", _WAITING, patches.refuse_by_hand)
CANCEL = JobAction(
    "cancelled", _WAITING | {Phase.RUNNING, Phase.QUEUED, Phase.HELD}, patches.cancel_by_hand
)


async def act_on_job(
    action: JobAction,
    job: str,
    kubeconfig: Path | None,
    namespace: str | None,
    reason: str = "",
) -> ActionTaken:
    """Apply an action to a Job as the current user.

    Args:
        action: APPROVE, REFUSE or CANCEL.
        job: NAME or NAMESPACE/NAME.
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: of a plain NAME; None means the context's.
        reason: of the user, on one line; recorded on the Job.

    Raises:
        UsageError: there is no such remediation, its phase does not allow the action, or RBAC
            forbids it.
        ApiError: the API server did not do it.
    """
    async with api_client(kubeconfig) as api:
        key = job_key(job, namespace or api.default_namespace)
        username = await api.whoami()
        await apply_action(api, action, key, username, reason)
        return ActionTaken(key, action.done, username, reason)


async def apply_action(
    api: ApiServer, action: JobAction, key: JobKey, username: str, reason: str = ""
) -> None:
    """Patch a Job; retry if it changed in between without changing its phase.

    Raises:
        UsageError: there is no such remediation, its phase does not allow the action, or RBAC
            forbids it.
        ApiError: the API server did not do it.
    """
    remediation = await _read_changeable(api, key)
    while True:
        if remediation.phase not in action.phases:
            raise UsageError(
                f"Job {key} cannot be {action.done}: its phase is {_phase_text(remediation)}"
            )
        if action is APPROVE and remediation.approved_by:
            by = printable(remediation.approved_by)
            raise UsageError(f"Job {key} is already approved, by {by}")
        try:
            patch = action.patch(remediation, username, reason)
            await api.patch(JOBS, key.namespace, key.name, patch)
        except Forbidden as error:
            denied = DENIAL.search(str(error))
            why = (
                "an admission policy of the cluster refused it"
                if denied
                else f"{username} has no permission to patch Jobs in namespace {key.namespace!r}"
            )
            raise UsageError(f"Job {key} was not {action.done}: {why}: {error}") from error
        except Invalid:
            before, remediation = remediation, await _read_changeable(api, key)
            is_same_phase = (before.uid, before.phase) == (remediation.uid, remediation.phase)
            if is_same_phase and before != remediation:
                continue
            raise UsageError(
                f"Job {key} changed at the same time, its phase is now "
                f"{_phase_text(remediation)}: check the Job, then try again"
            ) from None
        return


async def _read_changeable(api: ApiServer, key: JobKey) -> Remediation:
    try:
        return (await read_job(api, key))[0]
    except NotOurs as error:
        raise UsageError(f"{error}; nothing was changed") from None


def _phase_text(remediation: Remediation) -> str:
    reason = f" ({printable(remediation.reason)})" if remediation.reason else ""
    return f"{remediation.phase}{reason}"
