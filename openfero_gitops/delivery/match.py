"""Chooses the operario for an alert."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.notification import is_own_alert
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.matcher import Matcher
    from openfero_gitops.domain.operario import Operario


class CandidateResult(StrEnum):
    """Whether an operario for the alert's name was chosen, and if not, why."""

    CHOSEN = "chosen"
    OUTRANKED = "outranked"
    OWN_ALERT = "own-alert"
    OWN_JOB = "own-job"
    MATCHERS = "matchers"
    DISABLED = "disabled"
    OTHER_STATUS = "other-status"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An operario for the alert's name; `unfulfilled` are its matchers that do not match."""

    operario: Operario
    result: CandidateResult
    unfulfilled: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """The operario for the alert."""

    operario: Operario


@dataclass(frozen=True, slots=True)
class NoMatch:
    """There is no operario for the alert, and why."""

    reason: Reason


#: If no candidate is chosen, the one that met most conditions gives the reason.
_REASONS: Final = (
    (CandidateResult.OWN_ALERT, Reason.OWN_ALERT),
    (CandidateResult.OWN_JOB, Reason.OWN_JOB),
    (CandidateResult.MATCHERS, Reason.MATCHERS),
    (CandidateResult.DISABLED, Reason.DISABLED),
)


def match(alert: Alert, catalog: Catalog, own_jobs: Container[JobKey]) -> Match | NoMatch:
    """Choose the operario with the highest priority, then the first name, that matches.

    `own_jobs` are the Jobs of this controller. An alert about one of them, or one that the
    controller itself sent to Alertmanager, only matches operarios with the option own-jobs.
    """
    results: set[CandidateResult] = set()
    for candidate in consider(alert, catalog, own_jobs):
        if candidate.result is CandidateResult.CHOSEN:
            return Match(candidate.operario)
        results.add(candidate.result)
    reasons = (reason for result, reason in _REASONS if result in results)
    # (That no operario exists for an alert of our own is not worth a person's attention.)
    default = Reason.OWN_ALERT if is_own_alert(alert.labels) else Reason.NO_OPERARIO
    return NoMatch(next(reasons, default))


def consider(alert: Alert, catalog: Catalog, own_jobs: Container[JobKey]) -> Iterator[Candidate]:
    """Yield every operario for the alert's name, in order of priority, and whether it matches.

    At most one is chosen. Those after it are evaluated too, so that all can be explained.
    """
    own: CandidateResult | None = None
    checked = chosen = False
    for operario in catalog.by_alert.get(alert.name.lower(), ()):
        options = operario.options
        unfulfilled: tuple[Matcher, ...] = ()
        if operario.status is not alert.status:
            result = CandidateResult.OTHER_STATUS
        elif not options.enabled:
            result = CandidateResult.DISABLED
        elif unfulfilled := _unfulfilled(operario, alert):
            result = CandidateResult.MATCHERS
        else:
            if not checked:
                own, checked = _why_own(alert, own_jobs), True
            if own is not None and not options.own_jobs:
                result = own
            else:
                result = CandidateResult.OUTRANKED if chosen else CandidateResult.CHOSEN
                chosen = True
        yield Candidate(operario, result, unfulfilled)


def _why_own(alert: Alert, own_jobs: Container[JobKey]) -> CandidateResult | None:
    """Why a Job for an alert could cause the same alert again."""
    if is_own_alert(alert.labels):
        return CandidateResult.OWN_ALERT
    if any(key in own_jobs for key in _jobs_named_by(alert)):
        return CandidateResult.OWN_JOB
    return None


def _unfulfilled(operario: Operario, alert: Alert) -> tuple[Matcher, ...]:
    matchers = operario.options.matchers
    return tuple(matcher for matcher in matchers if not matcher.matches(alert.labels))


def _jobs_named_by(alert: Alert) -> Iterator[JobKey]:
    """Yield the Jobs that an alert may be about, by the labels of kube-state-metrics.

    The name of a Job's Pod is the Job's name with a suffix, or with two if the Job is indexed.
    """
    namespace = alert.labels.get("namespace", "")
    if job := alert.labels.get("job_name"):
        yield JobKey(namespace, job)
    name = alert.labels.get("pod", "")
    for _ in range(2):
        name = name.rpartition("-")[0]
        if name:
            yield JobKey(namespace, name)
