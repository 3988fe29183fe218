"""Explain which Job an alert creates, or why it creates none.

Nothing is decided here: `match` chooses the operario, `render` builds the Job, and `decide` decides
about the Job as in an empty cluster. What depends on other Jobs is listed as a condition.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.admission.decide import Wait, decide
from openfero_gitops.delivery.match import CandidateResult, Match, NoMatch, consider, match
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.labels import REPLICA_LABELS, replica_labels_in
from openfero_gitops.domain.operario import Mode, OnResolve
from openfero_gitops.domain.pause import pause_in_git
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.domain.text import labels, listed, nearest, printable, quoted
from openfero_gitops.jobs.observe import read_remediation
from openfero_gitops.jobs.render import Delivery, render, target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from openfero_gitops.delivery.match import Candidate
    from openfero_gitops.domain.alert import Alert, AlertGroup
    from openfero_gitops.domain.catalog import Catalog, Envelope
    from openfero_gitops.domain.operario import Operario, Options
    from openfero_gitops.jobs.render import Rendered

_ZERO: Final = timedelta(0)
#: In place of the ID of a delivery, and of the replica that received it.
_EXPLAIN: Final = "explain"
_MAX_REFUSAL_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An operario for the alert's name that does not get the alert, and why."""

    operario: str
    origin: str
    reason: str

    def __str__(self) -> str:
        """Write it on one line."""
        return f"passed over: {self.operario} ({self.origin}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one alert would do.

    `reason` is why there is no Job, why it is refused, or what it waits for in an empty cluster;
    None if it would start. `message` is one sentence. `passed_over` are the other operarios for
    the alert's name. `notes` are the conditions under which the Job starts, or possible causes why
    there is none. `rendered` is the Job; None if there would be none.
    """

    alert: Alert
    outcome: Outcome
    operario: str
    reason: Reason | None
    message: str
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    rendered: Rendered | None = field(default=None, repr=False)

    @property
    def details(self) -> tuple[str, ...]:
        """The lines below the message: the other operarios, then the notes."""
        return (*map(str, self.passed_over), *self.notes)


def explain_group(
    group: AlertGroup,
    catalog: Catalog,
    *,
    now: datetime,
    jobs_namespace: str,
    replica_labels: frozenset[str] = REPLICA_LABELS,
) -> list[Explanation]:
    """Explain each alert of a delivery received now."""
    delivery = delivery_of(group, now)
    return [
        explain(
            alert,
            catalog,
            delivery,
            jobs_namespace=jobs_namespace,
            replica_labels=replica_labels,
        )
        for alert in group.alerts
    ]


def delivery_of(group: AlertGroup, now: datetime) -> Delivery:
    """Return a delivery of alerts that are only explained."""
    return Delivery(
        id=_EXPLAIN,
        group_key=group.group_key,
        group_status=group.status,
        received_at=now,
        received_by=_EXPLAIN,
    )


def explain(
    alert: Alert,
    catalog: Catalog,
    delivery: Delivery,
    *,
    jobs_namespace: str,
    replica_labels: frozenset[str] = REPLICA_LABELS,
) -> Explanation:
    """Explain which operario matches an alert and what happens then, or why none does."""
    result = match(alert, catalog, ())
    candidates = list(consider(alert, catalog, ()))
    passed_over = tuple(
        _passed_over(candidate, alert, result)
        for candidate in candidates
        if candidate.result is not CandidateResult.CHOSEN
    )
    if not isinstance(result, Match):
        hints = tuple(_hints(alert, catalog, candidates))
        return Explanation(
            alert, Outcome.NO_MATCH, "", result.reason, result.reason.text, passed_over, hints
        )
    operario = result.operario
    rendered = render(
        alert,
        operario,
        catalog.envelope,
        catalog.revision,
        delivery,
        jobs_namespace=jobs_namespace,
        replica_labels=replica_labels,
    )
    matches = f"{operario.name} ({_origin(operario)}) matches"
    if rendered.refusal is not None:
        message = (
            f"{matches}, but its Job is refused: "
            f"{printable(rendered.message, _MAX_REFUSAL_CHARACTERS)}"
        )
        return Explanation(
            alert,
            Outcome.REFUSED,
            operario.name,
            rendered.refusal,
            message,
            passed_over,
            rendered=rendered,
        )
    reason = _not_now(rendered, operario, catalog, delivery)
    message = f"{matches} and creates Job {rendered.key}"
    if reason is Reason.DRY_RUN:
        message += ", which does not run (mode: dry-run)"
    elif reason is not None:
        message += f", which waits: {reason.text}"
    replica = replica_labels_in(alert.labels, replica_labels)
    conditions = tuple(_conditions(alert, operario, catalog.envelope, replica))
    return Explanation(
        alert,
        Outcome.CREATED,
        operario.name,
        reason,
        message,
        passed_over,
        conditions,
        rendered,
    )


def _origin(operario: Operario) -> str:
    if operario.origin.stale:
        return f"{operario.origin.path}, as of commit {operario.origin.commit[:12]}"
    return operario.origin.path


def _passed_over(candidate: Candidate, alert: Alert, result: Match | NoMatch) -> PassedOver:
    operario = candidate.operario
    if isinstance(result, Match) and candidate.result is CandidateResult.OUTRANKED:
        reason = _outranked(operario, result.operario)
    else:
        reason = _mismatch(candidate, alert)
    return PassedOver(operario.name, _origin(operario), reason)


def _outranked(operario: Operario, winner: Operario) -> str:
    own, higher = operario.options.priority, winner.options.priority
    if own == higher:
        return f"it also matches, but {winner.name} comes first (same priority, ordered by name)"
    return f"it also matches, but {winner.name} has a higher priority ({higher} instead of {own})"


def _mismatch(candidate: Candidate, alert: Alert) -> str:
    match candidate.result:
        case CandidateResult.OTHER_STATUS:
            return f"it is for {candidate.operario.status} alerts, this alert is {alert.status}"
        case CandidateResult.DISABLED:
            return "it is disabled"
        case CandidateResult.MATCHERS:
            return "; ".join(
                f"matcher {printable(str(matcher))} does not match: {_label(alert, matcher.name)}"
                for matcher in candidate.unfulfilled
            )
        case CandidateResult.OWN_ALERT:
            return Reason.OWN_ALERT.text
        case _:
            return Reason.OWN_JOB.text


def _label(alert: Alert, name: str) -> str:
    value = alert.labels.get(name)
    if not value:
        return f"the alert has no label {printable(name)}"
    return f"the alert has {labels({name: value})}"


def _hints(alert: Alert, catalog: Catalog, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Possible causes why no operario matches."""
    if not alert.name:
        yield "the alert has no label alertname"
    elif not candidates:
        names = {operario.alertname for operario in catalog.operarios}
        if near := nearest(alert.name, names):
            yield f"did you mean {near}? There is an operario for that alert"
    broken = sorted({problem.path for problem in catalog.problems if problem.is_error})
    if broken:
        verbs = "has errors and was skipped" if len(broken) == 1 else "have errors and were skipped"
        yield f"{listed(map(printable, broken))} {verbs}; run `openfero-gitops validate`"


def _not_now(
    rendered: Rendered, operario: Operario, catalog: Catalog, delivery: Delivery
) -> Reason | None:
    """What the Job would wait for in an empty cluster."""
    [(_, decision)] = decide(
        [read_remediation(rendered.manifest)],
        catalog.envelope,
        pause=pause_in_git(catalog, None),
        now=delivery.received_at,
    )
    if isinstance(decision, Wait):
        return decision.reason
    # A refusal only means that an empty cluster has no firing Job to undo.
    return Reason.DRY_RUN if _is_dry(operario, catalog.envelope) else None


def _is_dry(operario: Operario, envelope: Envelope) -> bool:
    return Mode.DRY_RUN in (operario.options.mode, envelope.mode)


def _conditions(
    alert: Alert, operario: Operario, envelope: Envelope, replica_labels: Sequence[str]
) -> Iterator[str]:
    """The conditions under which a Job starts, in the order in which they are checked."""
    options = operario.options
    if _is_dry(operario, envelope):
        yield "mode dry-run: the API server validates the Job, which does not run"
    paused = "; openfero.yaml pauses it now" if envelope.paused else ""
    yield f"condition: admission is not paused{paused}"
    if options.approval:
        yield "condition: somebody has approved the Job (openfero-gitops approve)"
    if alert.status is Status.RESOLVED:
        if options.resolve_delay > _ZERO:
            delay = format_duration(options.resolve_delay)
            yield f"condition: the alert stays resolved for {delay} (resolve-delay)"
        yield "condition: a Job for the same labels, firing, was started and has ended"
    elif options.on_resolve is not OnResolve.KEEP:
        yield "condition: the alert is still firing"
    labels_of_target = ", ".join(
        f"{printable(name)}={quoted(value)}"
        for name, value in json.loads(target(alert, operario, replica_labels)).items()
    )
    yield f"condition: no other Job is running for the target {labels_of_target}"
    if options.cooldown > _ZERO:
        cooldown = format_duration(options.cooldown)
        yield (
            "condition: the last Job of this operario for this target ended at least "
            f"{cooldown} ago (cooldown)"
        )
    yield from _limit_lines(options, envelope)
    if alert.status is Status.FIRING and not _is_dry(operario, envelope):
        yield from _effect_lines(options)
    if replica_labels:
        names = listed(map(printable, replica_labels))
        yield f"an alert that differs only in {names} has the same Job (replica labels)"
    if alert.starts_at is None:
        yield "the alert has no startsAt: each delivery creates another Job"


def _limit_lines(options: Options, envelope: Envelope) -> Iterator[str]:
    """How many Jobs run, and how long one waits."""
    yield (
        f"limits: at most {options.max_concurrent} running, {options.max_per_hour} started per hour"
    )
    limits = envelope.limits
    yield (
        f"limits of all operarios together: at most {limits.concurrent} running,"
        f" {limits.per_minute} started per minute"
    )
    if options.max_wait > _ZERO:
        yield f"a Job that has waited for {format_duration(options.max_wait)} is refused (max-wait)"


def _effect_lines(options: Options) -> Iterator[str]:
    """When an alert counts as healed, and what follows if several Jobs did not heal it."""
    stop_after = options.stop_after_not_healed
    if stop_after is not None:
        jobs = f"{stop_after} Jobs in a row" if stop_after > 1 else "a Job"
        yield (
            f"after {jobs} for this target that did not heal the alert, the next one must be "
            "approved, or the operario changed (stop-after-not-healed)"
        )
    heals_within = format_duration(options.heals_within)
    yield (
        f"the alert counts as healed if it is resolved within {heals_within} after the Job ended, "
        f"and does not fire again for {heals_within} (heals-within)"
    )


def as_text(explanations: Iterable[Explanation]) -> str:
    """For a terminal: each alert with its labels, then the message, then the details."""
    blocks = []
    for explanation in explanations:
        alert = explanation.alert
        name = printable(alert.name) or "an alert without a name"
        rest = {name: value for name, value in alert.labels.items() if name != "alertname"}
        head = f"{name} ({alert.status}) {labels(rest)}".rstrip()
        outcomes = {Outcome.NO_MATCH: "no Job: ", Outcome.REFUSED: "refused: "}
        message = f"  {outcomes.get(explanation.outcome, '')}{explanation.message}"
        details = (f"    {detail}" for detail in explanation.details)
        blocks.append("\n".join([head, message, *details]))
    return "\n\n".join(blocks) or "the payload contains no alert"


def as_json(explanations: Iterable[Explanation]) -> dict[str, Any]:
    """For programs: the members of the webhook's answer, with the details in the message."""
    return {
        "alerts": [
            {
                "alertname": explanation.alert.name,
                "status": explanation.alert.status.value,
                "fingerprint": explanation.alert.fingerprint,
                "outcome": explanation.outcome.value,
                "operario": explanation.operario or None,
                "reason": explanation.reason.value if explanation.reason else None,
                "message": "\n".join((explanation.message, *explanation.details)),
            }
            for explanation in explanations
        ]
    }
