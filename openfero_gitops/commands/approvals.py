"""Whether the API server has checked the names of approvers, as the controller recorded it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.errors import Forbidden
from openfero_gitops.dryrun import trial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.dryrun.policy import Policy


async def read_policies(api: ApiServer, controller_namespace: str) -> Mapping[str, Policy]:
    """Read what the leader found about the admission policy of each namespace with Jobs.

    It is empty if the record does not exist or the user may not read it.
    """
    with contextlib.suppress(Forbidden):
        stored = await ConfigMapStore(api, controller_namespace).get(trial.CONFIG_MAP)
        results = trial.from_config_map(stored) if stored else None
        if results is not None:
            return results.policies
    return {}


def is_approval_verified(remediation: Remediation, policies: Mapping[str, Policy]) -> bool | None:
    """Whether the API server has checked the approver's name; None if that is not known."""
    policy = policies.get(remediation.key.namespace)
    return None if policy is None else policy.verifies(remediation.received_at)
