"""The alerts that the controller itself sends to Alertmanager, so that people are notified."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: On each of these alerts, with the value `true`. Routes and matchers select by it.
OWN_LABEL: Final = "openfero"
#: The name of the alert that is, or was, remediated. (`alertname` is that of the notification.)
REMEDIATED_LABEL: Final = "remediated_alertname"
OPERARIO_LABEL: Final = "operario"


class NotificationKind(StrEnum):
    """The name of an alert that the controller sends; the most urgent first."""

    NOT_HELPING = "OpenFeroNotHelping"
    APPROVAL_NEEDED = "OpenFeroApprovalNeeded"
    FAILED = "OpenFeroRemediationFailed"
    NOT_HEALED = "OpenFeroNotHealed"
    REMEDIATING = "OpenFeroRemediating"

    @property
    def interval(self) -> timedelta:
        """How often it is sent again."""
        return timedelta(seconds=10) if self is self.REMEDIATING else timedelta(minutes=1)

    @property
    def lifetime(self) -> timedelta:
        """When it ends after it was last sent, as after a crash of the controller.

        It outlives the election of a new leader. The page that `OpenFeroRemediating` holds back
        must be sent within a minute of a crash; Alertmanager takes up to the route's
        `group_interval` of that.
        """
        return timedelta(seconds=30) if self is self.REMEDIATING else timedelta(minutes=4)


@dataclass(frozen=True, slots=True)
class Notification:
    """An alert that must exist in Alertmanager.

    `labels` identify it; `url` is that of the remediation's page, or empty.
    """

    kind: NotificationKind
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    url: str = ""


def is_own_alert(labels: Mapping[str, str]) -> bool:
    """Whether the controller sent an alert with these labels.

    Its name counts too: people may use the label on alerts of theirs, to route them here.
    """
    return labels.get(OWN_LABEL) == "true" and labels.get("alertname") in _NAMES


_NAMES: Final = frozenset(NotificationKind)
