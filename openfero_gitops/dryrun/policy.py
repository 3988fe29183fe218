"""Finds out whether the chart's admission policy protects the Jobs of a namespace.

The controller cannot read policies. It creates a Job with the annotation `POLICY_PROBE` and an
approval in another name with `dryRun=All`. The policy refuses this to everybody and names its
version. A policy that users made, and that only checks approvals, is recognized by its message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound
from openfero_gitops.domain.text import listed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: The version of the policy in `charts/openfero-gitops/templates/job-policy.yaml`.
VERSION: Final = 1

#: The wording of admission policies and webhooks; RBAC and quotas have others.
DENIAL: Final = re.compile(r"denied (?:the )?request")
_CONTROLLER_ONLY: Final = re.compile(r"only the controller \(.*\) creates Jobs with the label")
_ACTIVE: Final = re.compile(r"policy version ([0-9]{1,9}) is active")
#: Quotas are checked after policies.
_QUOTA: Final = re.compile(r"exceeded quota")
_MAX_NAMESPACES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Policy:
    """What the probes of a namespace found.

    `version` is 0 if no policy is active, and None if this is unknown because of `error`.
    `approvals_since` is the time since which nobody can approve in another name, None if somebody
    can. `at` is the time of the last probe (UTC).
    """

    at: datetime
    version: int | None = None
    approvals_since: datetime | None = None
    error: str = ""

    def verifies(self, received_at: datetime) -> bool:
        """Whether nobody could approve in another name a Job whose alert was received then."""
        return self.approvals_since is not None and received_at >= self.approvals_since


def probe(namespace: str) -> dict[str, Any]:
    """Return the Job to create in a dry run.

    Common policies about images, resources and security accept it.
    """
    container = {
        "name": "probe",
        "image": "registry.k8s.io/pause:3.10",
        "resources": {
            "requests": {"cpu": "1m", "memory": "1Mi"},
            "limits": {"cpu": "1m", "memory": "1Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "openfero-policy-probe",
            "namespace": namespace,
            "labels": {keys.MANAGED_BY: keys.MANAGER},
            "annotations": {
                keys.POLICY_PROBE: str(VERSION),
                keys.APPROVED_BY: "openfero.io:nobody",
            },
        },
        "spec": {"suspend": True, "template": {"spec": pod}},
    }


def evaluate(error: ApiError | None, before: Policy | None, now: datetime) -> Policy | None:
    """Return what the answer to a probe says; None if it says nothing, and is to be repeated.

    Args:
        error: None if the Job was accepted.
        before: what the last probe found.
        now: the time of the answer.
    """
    since = before.approvals_since if before is not None else None
    message = str(error)
    denied = isinstance(error, Forbidden | Invalid) and DENIAL.search(message)
    if denied and (version := _ACTIVE.search(message)):
        return Policy(now, int(version[1]), since or now)
    if denied and keys.APPROVED_BY in message:
        return Policy(now, 0, since or now)
    if error is None or (isinstance(error, Forbidden) and _QUOTA.search(message)):
        return Policy(now, 0)
    if isinstance(error, Forbidden | Invalid | NotFound):
        # Something else refuses the Job first: a webhook, another policy, RBAC, or no namespace.
        return replace(before or Policy(now), at=now, error=message)
    return None


def is_for_controller_only(message: str) -> bool:
    """Whether the chart's policy denied a Job only because the caller is not the controller."""
    return _CONTROLLER_ONLY.search(message) is not None


def advice(policies: Mapping[str, Policy]) -> str:
    """Return what users can do to Jobs, and how to prevent it; empty if the policy is active.

    Args:
        policies: by namespace.
    """
    by_version: dict[int | None, list[str]] = {}
    for namespace, policy in sorted(policies.items()):
        by_version.setdefault(policy.version, []).append(namespace)
    parts = []
    if missing := by_version.pop(0, None):
        parts.append(
            f"users who can create or patch Jobs in {_namespaces(missing)} can also start, approve "
            "and change remediations, because the Helm chart's admission policy is missing; "
            "install it with jobPolicy.create=true"
        )
    if unknown := by_version.pop(None, None):
        parts.append(
            f"it is unknown whether the Helm chart's admission policy is active in "
            f"{_namespaces(unknown)}, because something else refuses the Job "
            f"openfero-policy-probe: {policies[unknown[0]].error}"
        )
    for version, namespaces in by_version.items():
        if version is not None and version < VERSION:
            parts.append(
                f"the admission policy in {_namespaces(namespaces)} has version {version}, but "
                f"this controller needs version {VERSION}; upgrade the Helm chart"
            )
    return "; ".join(parts)


def _namespaces(names: list[str]) -> str:
    noun = "namespace" if len(names) == 1 else "namespaces"
    return f"{noun} {listed(names, _MAX_NAMESPACES_SHOWN)}"
