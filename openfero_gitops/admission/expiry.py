"""Which Jobs are to be removed, and why: a pure function over every Job of ours.

Kubernetes removes a finished Job after its TTL, and no other one ever. Everything counts from
the last delivery: an alert that is repeated keeps its Jobs.
Nothing is removed inside of `remember`, nothing that may have a Pod, and nothing that is not
whole enough to be surely ours.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from openfero_gitops.domain.remediation import FINAL, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.remediation import Remediation

#: Times `remember`: what waits for a person, or was held by one, is kept so much longer.
_FOR_A_PERSON: Final = 7
#: So long after its time is a finished Job left to Kubernetes' own clean-up.
_TTL_GRACE: Final = timedelta(minutes=15)
_OPEN: Final = (Phase.WAITING, Phase.AWAITING_APPROVAL, Phase.HELD)


class Why(StrEnum):
    """What makes a Job one that is to be removed."""

    DECIDED = "it never started, and its alert has not come for as long as is remembered"
    ALERT_GONE = "it waits, or is held, and its alert has not come for much longer than that"
    HISTORY = "its operario has as many newer ones that ended as are kept"
    OVERDUE = "its time to live is over, and Kubernetes has not removed it"


class Expired(NamedTuple):
    """A Job to be removed."""

    one: Remediation
    why: Why


def expired(
    remediations: Iterable[Remediation], envelope: Envelope, now: datetime
) -> list[Expired]:
    """What is to be removed, the longest unheard of first."""
    ended: dict[str, list[Remediation]] = defaultdict(list)
    found: list[Expired] = []
    for one in remediations:
        # What lacks these marks was not made by us, whatever its label says.
        if one.deleting or not one.occurrence or not one.operario:
            continue
        if one.finished:
            ended[one.operario].append(one)
        elif (why := _of_unfinished(one, envelope, now)) is not None:
            found.append(Expired(one, why))
    for of_operario in ended.values():
        of_operario.sort(key=_last_heard, reverse=True)
        for index, one in enumerate(of_operario):
            if _last_heard(one) + envelope.remember >= now:
                continue
            if index >= envelope.limits.history:
                found.append(Expired(one, Why.HISTORY))
            elif _last_heard(one) + _time_to_live(one, envelope) + _TTL_GRACE < now:
                found.append(Expired(one, Why.OVERDUE))
    found.sort(key=lambda each: (each.one.delivered_at, each.one.order))
    return found


def _of_unfinished(one: Remediation, envelope: Envelope, now: datetime) -> Why | None:
    if not one.suspended or one.active:
        return None  # it has Pods, or will have
    unheard = now - one.delivered_at
    if one.phase in FINAL and unheard > envelope.remember:
        return Why.DECIDED
    if one.phase in _OPEN and unheard > envelope.remember * _FOR_A_PERSON:
        return Why.ALERT_GONE
    return None


def _last_heard(one: Remediation) -> datetime:
    return max(one.delivered_at, one.finished_at or one.delivered_at)


def _time_to_live(one: Remediation, envelope: Envelope) -> timedelta:
    """What its Job says; one that says nothing, or had it removed, is remembered like others."""
    return max(timedelta(seconds=one.ttl_seconds or 0), envelope.remember)
