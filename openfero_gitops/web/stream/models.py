"""The data of the events of the stream, as the API describes them."""

from __future__ import annotations

from enum import StrEnum

# Used by pydantic when the classes are built.
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.api.shape import Moment, Shape, Text


class EventType(StrEnum):
    """The type of an event of the stream."""

    REMEDIATION = "remediation"
    ALERT = "alert"
    SYNC = "sync"
    LEADERSHIP = "leadership"
    PAUSE = "pause"
    HEALTH = "health"
    RESET = "reset"


class SyncResult(StrEnum):
    """What a sync changed."""

    ACTIVATED = "activated"
    REFUSED = "refused"
    FAILING = "failing"
    RECOVERED = "recovered"


class RemediationChanged(Shape):
    """Event `remediation`: a remediation was created or changed, or its Job was deleted."""

    namespace: Text
    job: Text
    """Name of the Job."""
    deleted: bool = False
    """Whether the Job was deleted."""
    phase: Phase
    reason: Text
    """Why it is in this phase; empty if there is nothing to say."""
    effect: Effect | None
    """Whether it helped; null if it has no effect."""
    alert: Text
    """Name of the alert, at most 200 characters."""
    status: Status
    operario: Text


class AlertHeard(Shape):
    """Event `alert`: alerts of one name, status and reason came, and got no Job."""

    alert: Text
    """Name of the alert, at most 200 characters; empty if it cannot be read."""
    status: Text
    """`firing` or `resolved`; empty if it cannot be read."""
    reason: Text
    """Why it got no Job."""
    heard_at: Moment
    """When the last one was delivered."""


class SyncChanged(Shape):
    """Event `sync`: a revision was activated or refused, or syncs began or ceased to fail."""

    result: SyncResult
    commit: Text
    """The revision; empty if it is not known."""
    reason: Text = ""
    """Why it was refused, or why syncs fail."""


class LeadershipChanged(Shape):
    """Event `leadership`: another replica leads, or none does."""

    holder: Text
    """Name of the leader; empty if it is not known."""
    leader: bool
    """Whether it is the replica that sends this event."""


class PauseChanged(Shape):
    """Event `pause`: admission was paused or resumed, or the cause of the pause changed."""

    paused: bool
    cause: PauseCause | None = None
    by: Text = ""
    """A person or a source; empty if it is not known."""
    reason: Text = ""
    until: Moment | None = None
    """When the pause ends by itself."""


class HealthChanged(Shape):
    """Event `health`: the replica began or ceased to lack something that it needs."""

    healthy: bool
    failing: tuple[str, ...]
    """Names of the conditions that do not hold."""


class Reset(Shape):
    """Event `reset`: events were missed, or too much changed at once. Read the lists again."""

    reason: Text


#: The type of an event's data.
EventBody = (
    RemediationChanged
    | AlertHeard
    | SyncChanged
    | LeadershipChanged
    | PauseChanged
    | HealthChanged
    | Reset
)

EVENT_TYPES: dict[type[EventBody], EventType] = {
    RemediationChanged: EventType.REMEDIATION,
    AlertHeard: EventType.ALERT,
    SyncChanged: EventType.SYNC,
    LeadershipChanged: EventType.LEADERSHIP,
    PauseChanged: EventType.PAUSE,
    HealthChanged: EventType.HEALTH,
    Reset: EventType.RESET,
}
