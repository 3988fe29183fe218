"""Which operario, if any, is written for an alert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario


@dataclass(frozen=True, slots=True)
class Match:
    """The operario that answers the alert."""

    operario: Operario


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Nothing answers the alert, and why."""

    reason: Reason


def match(alert: Alert, catalog: Catalog, own_jobs: Container[JobKey]) -> Match | NoMatch:
    """Choose the operario of highest priority, then first name, whose conditions all hold.

    `own_jobs` are the Jobs of this controller: an alert about one of them is left alone, unless
    the operario asks for it.
    """
    candidates = [
        operario
        for operario in catalog.by_alert.get(alert.name.lower(), ())
        if operario.status is alert.status
    ]
    if not candidates:
        return NoMatch(Reason.NO_OPERARIO)
    enabled = [operario for operario in candidates if operario.options.enabled]
    if not enabled:
        return NoMatch(Reason.DISABLED)
    fitting = [
        operario
        for operario in enabled
        if all(matcher.matches(alert.labels) for matcher in operario.options.matchers)
    ]
    if not fitting:
        return NoMatch(Reason.MATCHERS)
    if any(key in own_jobs for key in _jobs_spoken_of(alert)):
        fitting = [operario for operario in fitting if operario.options.own_jobs]
        if not fitting:
            return NoMatch(Reason.OWN_JOB)
    return Match(fitting[0])


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
