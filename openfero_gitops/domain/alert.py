"""What Alertmanager delivers, and what makes two deliveries the same.

Source of the shape: Alertmanager's webhook payload, version "4".
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Status(StrEnum):
    """An alert's own state, whatever its group's is."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a delivery; times are UTC, None where the sender gave none."""

    status: Status
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime | None
    ends_at: datetime | None
    generator_url: str
    fingerprint: str

    @property
    def name(self) -> str:
        """The alert name, empty where the sender left it out."""
        return self.labels.get("alertname", "")


@dataclass(frozen=True, slots=True)
class AlertGroup:
    """One delivery: several alerts, each with a state of its own."""

    status: Status
    group_key: str
    receiver: str
    truncated_alerts: int
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """What one Job is for: these labels in this state since this moment, this attempt.

    `delivery` stands in for `starts_at` where the sender gave none: such an alert is an
    occurrence of its own at each delivery.
    """

    labels: Mapping[str, str]
    status: Status
    starts_at: datetime | None
    attempt: int = 1
    delivery: str = ""

    @property
    def digest(self) -> str:
        """52 characters that fit a label; two replicas that see one occurrence agree on them."""
        moment: int | str
        if self.starts_at is None:
            moment = f"delivery {self.delivery}"
        else:
            moment = (self.starts_at - _EPOCH) // timedelta(microseconds=1)
        return _digest(
            ["occurrence", sorted(self.labels.items()), moment, self.status.value, self.attempt]
        )

    @property
    def incident(self) -> str:
        """The digest of labels and state alone: equal over a startsAt that wobbles."""
        return incident_digest(self.labels, self.status)


def incident_digest(labels: Mapping[str, str], status: Status) -> str:
    """The incident of a label set in a state, as in `Occurrence.incident`."""
    return _digest(["incident", sorted(labels.items()), status.value])


def _digest(value: object) -> str:
    """SHA-256 of the canonical JSON, in unpadded lower-case base32 (RFC 4648)."""
    canonical = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b32encode(hashlib.sha256(canonical).digest()).decode().rstrip("=").lower()
