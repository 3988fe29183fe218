"""The model of everything that is known about one remediation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openfero_gitops.audit.verify import Proof
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.web.api.remediation_shape import RemediationShape
from openfero_gitops.web.api.shape import Moment, Shape, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.audit.verify import Verification
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.inspection.trace import ContainerState, Trace
    from openfero_gitops.web.evidence import Evidence


class MomentShape(Shape):
    """Something that happened."""

    at: Moment
    """When."""
    step: Text
    """What kind of moment it is, in kebab case."""
    text: Text
    """What happened."""


class ContainerShape(Shape):
    """A container of a Pod."""

    name: Text
    state: Text
    """`waiting`, `running` or `terminated`."""
    exit_code: int | None
    """Null unless it has terminated."""
    reason: Text | None
    message: Text | None
    started_at: Moment | None
    finished_at: Moment | None


class PodShape(Shape):
    """A Pod of the Job that still exists."""

    name: Text
    phase: Text
    created_at: Moment | None
    containers: list[ContainerShape]


class EventShape(Shape):
    """A Kubernetes Event about the Job or one of its Pods."""

    at: Moment | None
    about: Text
    """Kind and name of the object."""
    reason: Text
    note: Text
    warning: bool
    count: int


class RelatedShape(Shape):
    """Another Job of the same incident."""

    namespace: Text
    job: Text
    phase: Phase
    attempt: int
    received_at: Moment


class DifferenceShape(Shape):
    """A field that differs from what the commit and the recorded alert produce."""

    field: Text
    """JSON pointer."""
    expected: Any
    """Its value by Git; null if it is absent."""
    actual: Any
    """Its value in the cluster; null if it is absent."""


class VerificationShape(Shape):
    """Whether the Job is what its commit and its recorded alert produce."""

    proof: Proof
    message: Text | None
    differences: list[DifferenceShape]
    changed: list[Text]
    """Fields that differ, but that Kubernetes lets users and Kueue change."""


class RemediationDetailShape(RemediationShape):
    """Everything that is known about one remediation."""

    annotations: dict[Text, Text]
    """Those of the Job; empty if it could not be read."""
    recorded_alert: dict[Text, Any]
    """The alert as it was recorded; empty if it could not be read."""
    timeline: list[MomentShape]
    """What happened, in order."""
    pods: list[PodShape]
    events: list[EventShape]
    incident: list[RelatedShape]
    """The other Jobs of the same incident."""
    verification: VerificationShape | None
    """Null if the Job could not be verified now."""
    unverified: Text | None
    """Why not."""
    missing: list[Text]
    """What could not be read now, and why."""
    commit_url: Text | None
    """The commit on its forge, if its address is known."""
    file_url: Text | None
    """The file at the commit on its forge."""


def detail_shape(
    base: RemediationShape,
    trace: Trace,
    evidence: Evidence,
    *,
    incident: Iterable[Remediation],
    commit_url: str,
    file_url: str,
) -> RemediationDetailShape:
    """Add everything else to a remediation."""
    return RemediationDetailShape(
        **dict(base),
        annotations=dict(trace.annotations),
        recorded_alert=dict(trace.alert),
        timeline=[
            MomentShape(at=m.at, step=m.step.name.lower().replace("_", "-"), text=m.text)
            for m in trace.timeline
        ],
        pods=[
            PodShape(
                name=pod.name,
                phase=pod.phase,
                created_at=pod.created_at,
                containers=[_container(container) for container in pod.containers],
            )
            for pod in trace.pods
        ],
        events=[
            EventShape(
                at=event.at,
                about=event.about,
                reason=event.reason,
                note=event.note,
                warning=event.warning,
                count=event.count,
            )
            for event in trace.events
        ],
        incident=[
            RelatedShape(
                namespace=other.key.namespace,
                job=other.key.name,
                phase=other.phase,
                attempt=other.attempt,
                received_at=other.received_at,
            )
            for other in incident
        ],
        verification=_verification(evidence.verification) if evidence.verification else None,
        unverified=evidence.unverified or None,
        missing=list(evidence.missing),
        commit_url=commit_url or None,
        file_url=file_url or None,
    )


def _container(container: ContainerState) -> ContainerShape:
    return ContainerShape(
        name=container.name,
        state=container.state,
        exit_code=container.exit_code,
        reason=container.reason or None,
        message=container.message or None,
        started_at=container.started_at,
        finished_at=container.finished_at,
    )


def _verification(verification: Verification) -> VerificationShape:
    return VerificationShape(
        proof=verification.proof,
        message=verification.message or None,
        differences=[
            DifferenceShape(
                field=format_pointer(each.pointer), expected=each.before, actual=each.after
            )
            for each in verification.differences
        ],
        changed=[format_pointer(each.pointer) for each in verification.changed],
    )
