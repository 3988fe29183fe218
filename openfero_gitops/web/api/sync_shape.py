"""The models of the sync with Git."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from openfero_gitops.domain.sync import LagState
from openfero_gitops.web.api.shape import Moment, Shape, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openfero_gitops.domain.catalog import Revision
    from openfero_gitops.domain.sync import ReplicaLag, SyncRecord, SyncStatus

#: Names of changed operarios in one record.
_MAX_NAMES: Final = 100


class RevisionShape(Shape):
    """A commit of the repository."""

    repository: Text
    ref: Text
    commit: Text
    author: Text | None
    time: Text | None
    verified_signer: Text | None
    """Who signed the commit, if the signature was verified."""


class RefusedShape(Shape):
    """A commit that was refused."""

    commit: Text
    reason: Text
    time: Text


class LagShape(Shape):
    """How the active commit of this replica relates to the leader's."""

    step: LagState
    leader: Text
    """The active commit of the leader."""
    since: Moment
    """When it was neither behind nor apart, for the last time."""


class NamesShape(Shape):
    """How many names, and the first of them."""

    count: int
    names: list[Text]


class SyncRecordShape(Shape):
    """A sync that changed the catalog, or consecutive syncs that failed with one error."""

    at: Moment
    """When it happened first."""
    until: Moment
    """When it happened last."""
    times: int
    from_: Annotated[Text | None, Field(alias="from")]
    """The active commit before."""
    to: Text | None
    """The commit of the sync; null if unknown."""
    origin: Text
    """`git` or `mirror`."""
    added: NamesShape
    """Operarios that were added."""
    changed: NamesShape
    removed: NamesShape
    quarantined: NamesShape
    """Files with errors, by path."""
    envelope: bool
    """Whether the meaning of `openfero.yaml` changed."""
    steps: dict[str, float]
    """Seconds that each step took."""
    error: Text | None
    """Why it failed; null if it succeeded."""


class SyncShape(Shape):
    """The status of the last sync; recent ones in `history`, newest first."""

    revision: RevisionShape | None
    """The active commit."""
    origin: Text | None
    """Where the active catalog comes from: `git` or `mirror`."""
    active_since: Moment | None
    """When the active commit was activated."""
    last_attempt: Moment | None
    last_success: Moment | None
    seconds: float
    """How long the last sync took."""
    error: Text | None
    """Why the last sync failed; null if it succeeded."""
    failing_since: Moment | None
    refused: RefusedShape | None
    """The last commit that was refused."""
    unused_mirror: Text | None
    """Why the mirror was not used at the start."""
    operarios: int
    """Operarios of the active catalog."""
    problems: int
    """Errors in its files."""
    steps: dict[str, float]
    """Seconds that each step of the last sync took."""
    compared_with_leader: LagShape | None
    """How this replica compares with the leader; null if unknown."""
    history: list[SyncRecordShape]


def revision_shape(value: Revision | None) -> RevisionShape | None:
    """Convert a commit of the repository."""
    if value is None:
        return None
    return RevisionShape(
        repository=value.repository,
        ref=value.ref,
        commit=value.commit,
        author=value.author or None,
        time=value.time or None,
        verified_signer=value.verified_signer or None,
    )


def sync_shape(value: SyncStatus, lag: ReplicaLag | None = None) -> SyncShape:
    """Convert the status of the last sync, and how this replica compares with the leader."""
    refused = value.refused
    return SyncShape(
        revision=revision_shape(value.revision),
        origin=value.origin or None,
        active_since=value.active_since,
        last_attempt=value.last_attempt,
        last_success=value.last_success,
        seconds=round(value.seconds, 3),
        error=value.error,
        failing_since=value.failing_since,
        refused=RefusedShape(commit=refused.commit, reason=refused.reason, time=refused.time)
        if refused
        else None,
        unused_mirror=value.unused_mirror or None,
        operarios=value.operarios,
        problems=value.problems,
        steps=_seconds(value.steps),
        compared_with_leader=LagShape(step=lag.state, leader=lag.leader, since=lag.since)
        if lag
        else None,
        history=[_record_shape(record) for record in value.history],
    )


def _record_shape(value: SyncRecord) -> SyncRecordShape:
    changes = value.changes
    return SyncRecordShape(
        at=value.at,
        until=value.until,
        times=value.times,
        from_=value.before or None,
        to=value.after or None,
        origin=value.origin,
        added=_names(changes.added),
        changed=_names(changes.changed),
        removed=_names(changes.removed),
        quarantined=_names(changes.quarantined),
        envelope=changes.envelope,
        steps=_seconds(value.steps),
        error=value.error,
    )


def _names(names: Sequence[str]) -> NamesShape:
    return NamesShape(count=len(names), names=list(names[:_MAX_NAMES]))


def _seconds(steps: Mapping[str, float]) -> dict[str, float]:
    return {step: round(seconds, 3) for step, seconds in steps.items()}
