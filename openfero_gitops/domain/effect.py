"""Whether the alert went away after its remediation."""

from __future__ import annotations

from enum import StrEnum


class Effect(StrEnum):
    """What a remediation did to its alert; recorded on its Job once it is settled."""

    PENDING = "pending"
    HEALED = "healed"
    NOT_HEALED = "not-healed"
    UNKNOWN = "unknown"


#: Effects that are final; later news may still decide an unknown one.
FINAL_EFFECTS = frozenset({Effect.HEALED, Effect.NOT_HEALED})
