"""Which operario, if any, is written for an alert."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.matcher import Matcher
    from openfero_gitops.domain.operario import Operario


class Standing(StrEnum):
    """What became of one operario that an alert's name leads to."""

    CHOSEN = "chosen"
    OUTRANKED = "outranked"
    OWN_JOB = "own-job"
    MATCHERS = "matchers"
    DISABLED = "disabled"
    OTHER_STATUS = "other-status"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An operario that was considered; `unfulfilled` are the matchers that kept it out."""

    operario: Operario
    standing: Standing
    unfulfilled: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """The operario that answers the alert."""

    operario: Operario


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Nothing answers the alert, and why."""

    reason: Reason


#: Without a chosen one, the candidate that came furthest says why.
_REASONS: Final = (
    (Standing.OWN_JOB, Reason.OWN_JOB),
    (Standing.MATCHERS, Reason.MATCHERS),
    (Standing.DISABLED, Reason.DISABLED),
)


def match(alert: Alert, catalog: Catalog, own_jobs: Container[JobKey]) -> Match | NoMatch:
    """Choose the operario of highest priority, then first name, whose conditions all hold.

    `own_jobs` are the Jobs of this controller: an alert about one of them is left alone, unless
    the operario asks for it.
    """
    standings: set[Standing] = set()
    for candidate in consider(alert, catalog, own_jobs):
        if candidate.standing is Standing.CHOSEN:
            return Match(candidate.operario)
        standings.add(candidate.standing)
    found = (reason for standing, reason in _REASONS if standing in standings)
    return NoMatch(next(found, Reason.NO_OPERARIO))


def consider(alert: Alert, catalog: Catalog, own_jobs: Container[JobKey]) -> Iterator[Candidate]:
    """Every operario that bears the alert's name, in the order of choice, and what became of it.

    At most one is chosen; those after it are judged all the same, so that all of them can be told.
    """
    is_own: bool | None = None
    chosen = False
    for operario in catalog.by_alert.get(alert.name.lower(), ()):
        options = operario.options
        unfulfilled: tuple[Matcher, ...] = ()
        if operario.status is not alert.status:
            standing = Standing.OTHER_STATUS
        elif not options.enabled:
            standing = Standing.DISABLED
        elif unfulfilled := tuple(one for one in options.matchers if not one.matches(alert.labels)):
            standing = Standing.MATCHERS
        else:
            if is_own is None:
                is_own = any(key in own_jobs for key in _jobs_spoken_of(alert))
            if is_own and not options.own_jobs:
                standing = Standing.OWN_JOB
            else:
                standing = Standing.OUTRANKED if chosen else Standing.CHOSEN
                chosen = True
        yield Candidate(operario, standing, unfulfilled)


def _jobs_spoken_of(alert: Alert) -> Iterator[JobKey]:
    """Every Job that an alert's labels may be about, by kube-state-metrics' label names.

    A Job's Pod is named after it with a suffix, two of them where the Job is indexed.
    """
    namespace = alert.labels.get("namespace", "")
    if job := alert.labels.get("job_name"):
        yield JobKey(namespace, job)
    name = alert.labels.get("pod", "")
    for _ in range(2):
        name = name.rpartition("-")[0]
        if name:
            yield JobKey(namespace, name)
