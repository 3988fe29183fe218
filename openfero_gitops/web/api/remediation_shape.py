"""The model of a remediation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.api.shape import ListShape, Moment, Shape, Text

if TYPE_CHECKING:
    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment


class RemediationShape(Shape):
    """One occurrence of an alert, the operario that answered it, and its Job."""

    job: Text
    """Name of the Job."""
    namespace: Text
    """Namespace of the Job."""
    phase: Phase
    """The phase of the remediation."""
    reason: Text | None
    """Why it waits, was refused or failed."""
    message: Text | None
    """The reason in words."""
    operario: Text
    """Name of the operario that answered."""
    alert: Text
    """Name of the alert."""
    status: Status
    """Status of the alert."""
    fingerprint: Text | None
    """The alert's fingerprint, as Alertmanager sent it."""
    starts_at: Moment | None
    """When the alert started, as Alertmanager sent it."""
    received_at: Moment
    """When the alert was received."""
    admitted_at: Moment | None
    """When the leader started the Job."""
    finished_at: Moment | None
    """When the Job ended."""
    resolved_at: Moment | None
    """When the alert was resolved."""
    effect: Effect | None
    """Whether the alert went away; null if the Job never ran."""
    effect_at: Moment | None
    """When that was known."""
    effect_message: Text | None
    """The effect in words."""
    attempt: int
    """Which Job of this occurrence it is, from 1."""
    queue: Text | None
    """The LocalQueue of Kueue, if the operario names one."""
    starts: int
    """How often Kubernetes started the Job."""
    approved_by: Text | None
    """Who approved it."""
    approval_verified: bool | None
    """Whether the cluster verified the name of who approved it."""
    approval_reason: Text | None
    """The reason that was given for the approval."""
    repository: Text
    """The Git repository of the operario."""
    ref: Text
    """The branch or tag of the repository."""
    commit: Text
    """The commit of the operario."""
    path: Text
    """The file of the operario, from the root of the repository."""
    verified_signer: Text | None
    """Who signed the commit, if the signature was verified."""
    labels: dict[Text, Text]
    """The labels of the alert."""


class RemediationListShape(ListShape[RemediationShape]):
    """Remediations, newest first."""


def remediation_shape(
    value: Remediation,
    decision: Decision | None = None,
    *,
    effect: Assessment | None,
    verified: bool | None = None,
) -> RemediationShape:
    """Convert a remediation; the reason of a waiting one is that of the current decision.

    `verified` says whether the cluster verified the approver's name; None if unknown.
    """
    reason, message = value.reason, value.message
    if decision is not None and value.waiting:
        reason = decision.reason.value
        message = getattr(decision, "message", "") or decision.reason.text
    return RemediationShape(
        job=value.key.name,
        namespace=value.key.namespace,
        phase=value.phase,
        reason=reason or None,
        message=message or None,
        operario=value.operario,
        alert=value.alertname,
        status=value.status,
        fingerprint=value.fingerprint or None,
        starts_at=value.starts_at,
        received_at=value.received_at,
        admitted_at=value.admitted_at,
        finished_at=value.finished_at,
        resolved_at=value.resolved_at,
        effect=effect.effect if effect else None,
        effect_at=effect.at if effect else None,
        effect_message=effect.message if effect else None,
        attempt=value.attempt,
        queue=value.queue,
        starts=value.starts,
        approved_by=value.approved_by or None,
        approval_verified=verified if value.approved_by else None,
        approval_reason=value.approval_reason or None,
        repository=value.repository,
        ref=value.ref,
        commit=value.commit,
        path=value.path,
        verified_signer=value.verified_signer or None,
        labels=dict(value.labels),
    )
