"""What Alertmanager delivers, and what makes two deliveries the same.

The fields are those of Alertmanager's webhook payload, version "4".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from openfero_gitops.domain.labels import without
from openfero_gitops.domain.text import canonical_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
#: Two characters at a time: `base64.b32encode` takes longer than the hash.
_BASE32_PAIRS: Final = [first + second for first in _BASE32 for second in _BASE32]


class Status(StrEnum):
    """The state of one alert; its group may have another."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a delivery; times are UTC, None if the sender gave none."""

    status: Status
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime | None
    ends_at: datetime | None
    generator_url: str
    fingerprint: str

    @property
    def name(self) -> str:
        """The label `alertname`, empty if there is none."""
        return self.labels.get("alertname", "")


@dataclass(frozen=True, slots=True)
class InvalidAlert:
    """An alert of a delivery that cannot be read: which one, and what is wrong with it.

    `index` is its position in the delivery. `path` is that of the wrong member in the body, and
    `pointer` the same as a JSON Pointer, cut. `name` is empty if it cannot be read either.
    """

    index: int
    name: str
    path: tuple[str | int, ...]
    pointer: str
    problem: str

    @property
    def status(self) -> None:
        """Unknown."""
        return

    @property
    def fingerprint(self) -> str:
        """Not read."""
        return ""


@dataclass(frozen=True, slots=True)
class AlertGroup:
    """One delivery: several alerts, each with a state of its own, and those that are wrong.

    `unread` says of each member of the group that has a wrong type what is wrong with it: it was
    treated as absent.
    """

    status: Status
    group_key: str
    truncated_alerts: int
    alerts: tuple[Alert, ...]
    invalid: tuple[InvalidAlert, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Occurrence:
    """What one Job is created for: labels, state, start and attempt.

    `labels` are without replica labels: the alerts of both members of a high-availability pair are
    one occurrence.

    `delivery` is used instead of `starts_at` if the sender gave no start: each delivery of such
    an alert is a new occurrence.
    """

    labels: Mapping[str, str]
    status: Status
    starts_at: datetime | None
    attempt: int = 1
    delivery: str = ""

    @classmethod
    def of(
        cls, alert: Alert, delivery: str, attempt: int = 1, replica_labels: Sequence[str] = ()
    ) -> Self:
        """Return what an attempt of an alert is for.

        Args:
            alert: the alert, with all of its labels.
            delivery: the id of its delivery.
            attempt: counted from 1.
            replica_labels: the names of the labels that do not identify the alert.
        """
        labels = without(alert.labels, replica_labels)
        return cls(labels, alert.status, alert.starts_at, attempt, delivery)

    @cached_property
    def digest(self) -> str:
        """52 characters that are valid in a label value; equal on every replica."""
        moment: int | str
        if self.starts_at is None:
            moment = f"delivery {self.delivery}"
        else:
            moment = (self.starts_at - _EPOCH) // timedelta(microseconds=1)
        return _digest(
            ["occurrence", sorted(self.labels.items()), moment, self.status.value, self.attempt]
        )

    @cached_property
    def incident(self) -> str:
        """The digest of labels and state alone: independent of a wobbling startsAt."""
        return incident_digest(self.labels, self.status)


def incident_digest(labels: Mapping[str, str], status: Status) -> str:
    """Return the digest of the incident that labels in a state belong to.

    `labels` are without replica labels.
    """
    return _digest(["incident", sorted(labels.items()), status.value])


def _digest(value: object) -> str:
    """Hash with SHA-256, as unpadded lower-case base32 (RFC 4648)."""
    digest = hashlib.sha256(canonical_bytes(value)).digest()
    bits = int.from_bytes(digest) << 4  # 256 bits, filled up to 52 times 5
    return "".join([_BASE32_PAIRS[bits >> shift & 1023] for shift in range(250, -1, -10)])
