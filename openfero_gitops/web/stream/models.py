"""The data of the events of the stream, as the API describes them."""

from __future__ import annotations

# Used by pydantic when the classes are built.
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.domain.remediation import Phase


class EventType(StrEnum):
    """The type of an event of the stream."""

    REMEDIATION = "remediation"
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


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class RemediationChanged(_Data):
    """A remediation was created or changed, or its Job was deleted."""

    namespace: str
    job: str = Field(description="Name of the Job.")
    deleted: bool = Field(default=False, description="The Job was deleted.")
    phase: Phase
    reason: str = Field(description="Why it is in this phase; empty if there is nothing to say.")
    effect: Effect | None = Field(description="Whether it helped; null if it has no effect.")
    alert: str = Field(description="Name of the alert, shortened to 200 characters.")
    status: Status
    operario: str


class SyncChanged(_Data):
    """A revision was activated or refused, or syncs began or ceased to fail."""

    result: SyncResult
    commit: str = Field(description="The revision; empty if it is not known.")
    reason: str = Field(default="", description="Why it was refused, or why syncs fail.")


class LeadershipChanged(_Data):
    """Another replica leads, or none does."""

    holder: str = Field(description="Name of the leader; empty if it is not known.")
    leader: bool = Field(description="Whether it is the replica that sends this event.")


class PauseChanged(_Data):
    """Admission was paused or resumed, or the cause of the pause changed."""

    paused: bool
    cause: PauseCause | None = None
    by: str = Field(default="", description="A person or a source; empty if it is not known.")
    reason: str = ""
    until: datetime | None = Field(default=None, description="When the pause ends by itself.")


class HealthChanged(_Data):
    """The replica began or ceased to lack something that it needs."""

    healthy: bool
    failing: tuple[str, ...] = Field(description="Names of the conditions that do not hold.")


class Reset(_Data):
    """Events were missed, or too many things changed at once: read the lists again."""

    reason: str


#: The type of an event's data.
EventBody = (
    RemediationChanged | SyncChanged | LeadershipChanged | PauseChanged | HealthChanged | Reset
)

EVENT_TYPES: dict[type[EventBody], EventType] = {
    RemediationChanged: EventType.REMEDIATION,
    SyncChanged: EventType.SYNC,
    LeadershipChanged: EventType.LEADERSHIP,
    PauseChanged: EventType.PAUSE,
    HealthChanged: EventType.HEALTH,
    Reset: EventType.RESET,
}
