"""The state of a replica that knows thousands of remediations."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from functools import cached_property
from itertools import cycle, islice, product
from typing import TYPE_CHECKING

from openfero_gitops.delivery.unanswered import record_of, trimmed
from openfero_gitops.domain.alert import Alert, Status
from openfero_gitops.domain.answer import Item
from openfero_gitops.domain.problem import Problem, Severity
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome, Phase, Remediation
from openfero_gitops.effects.incident import Incident
from tests.support.pages import Showcase, catalog, operario, remediation, synced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.delivery.unanswered import UnansweredRecord
    from openfero_gitops.domain.remediation import JobKey

_PHASES = (Phase.WAITING, Phase.RUNNING, *3 * (Phase.SUCCEEDED, Phase.FAILED, Phase.REFUSED))


class Crowd(Showcase):
    """Finds the Jobs of an incident as fast as a replica does, and decides once, as it does."""

    @cached_property
    def _incidents(self) -> dict[str, Incident]:
        incidents: dict[str, list[Remediation]] = defaultdict(list)
        for job in self.jobs:
            incidents[job.incident].append(job)
        return {name: Incident(jobs) for name, jobs in incidents.items()}

    @cached_property
    def _decided(self) -> Mapping[JobKey, Decision]:
        return super().decisions()

    def _incident_of(self, remediation: Remediation) -> Incident:
        return self._incidents[remediation.incident]

    def decisions(self) -> Mapping[JobKey, Decision]:
        """Return the decisions made before."""
        return self._decided


def many(
    moment: datetime, *, jobs: int = 10_000, operarios: int = 500, alerts: int = 2000
) -> Crowd:
    """Make a state with so many remediations, in all phases, and operarios with a problem each.

    `alerts` is the number of names of alerts without a Job; each was heard of ten targets.
    """
    active = catalog(
        *(operario(f"openfero-alert{n}-firing", f"Alert{n}") for n in range(operarios)),
        problems=tuple(
            Problem(f"alert{n}/firing.yaml", 1, 1, "/spec", "rule", Severity.WARNING, "wrong")
            for n in range(operarios)
        ),
    )
    remediations = [
        remediation(
            f"Alert{n % operarios}",
            phase,
            moment - timedelta(seconds=7 * n),
            number=str(n),
            labels={"alertname": f"Alert{n % operarios}", "namespace": "shop", "pod": f"pod-{n}"},
        )
        for n, phase in enumerate(islice(cycle(_PHASES), jobs))
    ]
    heard = unanswered(moment, alerts)
    return Crowd(moment, active, synced(active, moment), remediations, alerts=heard)


def unanswered(moment: datetime, names: int) -> UnansweredRecord:
    """Make a record of alerts without a Job with so many names, each heard of ten targets."""
    return trimmed(record_of(_without_job(moment, names), moment, frozenset()))


def _without_job(moment: datetime, names: int) -> Iterator[Item]:
    reason = Reason.NO_OPERARIO
    for n, target in product(range(names), range(10)):
        labels = {"alertname": f"Other{n}", "namespace": "shop", "pod": f"pod-{target}"}
        annotations = {"summary": f"Answers of pod-{target} take 2.4 s (limit 1 s)"}
        start = moment - timedelta(seconds=n)
        alert = Alert(Status.FIRING, labels, annotations, start, None, "https://p.example", "")
        yield Item(alert, Outcome.NO_MATCH, reason, reason.text)
