"""Why an alert gets the Job that it gets, or none, in words for its operario's author.

Nothing is decided here: `match` chooses, `render` builds, and `decide` is asked about the Job as
if it came to an empty cluster. What depends on what else runs there is told as what will be asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.admission.decide import Wait, decide
from openfero_gitops.delivery.match import CandidateResult, Match, NoMatch, consider, match
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.operario import Mode, OnResolve
from openfero_gitops.domain.pause import pause_in_git
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.domain.text import labels, listed, nearest, plural, printable, quoted
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.render import render, target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from openfero_gitops.delivery.match import Candidate
    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.catalog import Catalog, Envelope
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.jobs.render import Delivery, Rendered

_NONE: Final = timedelta(0)
_LONGEST_REFUSAL: Final = 1000


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of one alert.

    `reason` is why there is no Job, why it is refused, or what it waits for on an empty cluster;
    None where nothing stands against it. `message` is one sentence, `details` are the lines that
    say the rest: who else was considered, and what is asked before the Job starts.
    """

    alert: Alert
    outcome: Outcome
    operario: str
    reason: Reason | None
    message: str
    details: tuple[str, ...] = ()


def explain(
    alert: Alert, catalog: Catalog, delivery: Delivery, *, jobs_namespace: str
) -> Explanation:
    """Say which operario answers an alert and what happens then, or why none does."""
    found = match(alert, catalog, ())
    candidates = list(consider(alert, catalog, ()))
    passed_over = tuple(
        _passed_over(one, alert, found)
        for one in candidates
        if one.result is not CandidateResult.CHOSEN
    )
    if not isinstance(found, Match):
        hints = tuple(_hints(alert, catalog, candidates))
        return Explanation(
            alert, Outcome.NO_MATCH, "", found.reason, found.reason.text, passed_over + hints
        )
    operario = found.operario
    rendered = render(
        alert,
        operario,
        catalog.envelope,
        catalog.revision,
        delivery,
        jobs_namespace=jobs_namespace,
    )
    by = f"{operario.name} ({_where(operario)})"
    if rendered.refusal is not None:
        message = (
            f"{by} answers, and its Job is refused for good: {printable(rendered.message, 1000)}"
        )
        return Explanation(
            alert, Outcome.REFUSED, operario.name, rendered.refusal, message, passed_over
        )
    reason = _not_now(rendered, operario, catalog, delivery)
    message = f"{by} answers with the Job {rendered.key}"
    if reason is Reason.DRY_RUN:
        message += ", which is tried and not run (mode: dry-run)"
    elif reason is not None:
        message += f", which waits first: {reason.text}"
    asked = tuple(_asked(alert, operario, catalog.envelope))
    return Explanation(alert, Outcome.CREATED, operario.name, reason, message, passed_over + asked)


def _where(operario: Operario) -> str:
    if operario.origin.stale:
        return f"{operario.origin.path}, as it was in commit {operario.origin.commit[:12]}"
    return operario.origin.path


def _passed_over(candidate: Candidate, alert: Alert, found: Match | NoMatch) -> str:
    operario = candidate.operario
    if isinstance(found, Match) and candidate.result is CandidateResult.OUTRANKED:
        why = _outranked(operario, found.operario)
    else:
        why = _unfit(candidate, alert)
    return f"passed over: {operario.name} ({_where(operario)}): {why}"


def _outranked(operario: Operario, winner: Operario) -> str:
    own, theirs = operario.options.priority, winner.options.priority
    over = f"higher priority: {theirs} over {own}"
    first = "same priority, first by name" if theirs == own else over
    return f"it fits, but {winner.name} goes first ({first})"


def _unfit(candidate: Candidate, alert: Alert) -> str:
    match candidate.result:
        case CandidateResult.OTHER_STATUS:
            return f"it answers {candidate.operario.status} alerts, this one is {alert.status}"
        case CandidateResult.DISABLED:
            return "it is switched off (enabled: false)"
        case CandidateResult.MATCHERS:
            return "; ".join(
                f"its matcher {printable(str(one))} does not hold, {_has(alert, one.name)}"
                for one in candidate.unfulfilled
            )
        case _:
            return Reason.OWN_JOB.text


def _has(alert: Alert, name: str) -> str:
    value = alert.labels.get(name)
    if not value:
        return f"the alert has no label {printable(name)}"
    return f"the alert has {labels({name: value})}"


def _hints(alert: Alert, catalog: Catalog, candidates: Sequence[Candidate]) -> Iterator[str]:
    """What else may be the matter where nothing answers."""
    if not alert.name:
        yield "the alert has no label alertname"
    elif not candidates:
        names = {operario.alertname for operario in catalog.operarios}
        if near := nearest(alert.name, names):
            yield f"did you mean {near}? An operario is written for that alert"
    broken = sorted({problem.path for problem in catalog.problems if problem.is_error})
    if broken:
        yield (
            f"{plural(len(broken), 'file')} with an error: is it there? validate tells: "
            f"{listed(map(printable, broken))}"
        )


def _not_now(
    rendered: Rendered, operario: Operario, catalog: Catalog, delivery: Delivery
) -> Reason | None:
    """What the Job would wait for even if nothing else were in the cluster."""
    [(_, decision)] = decide(
        [observe(rendered.manifest)],
        catalog.envelope,
        pause=pause_in_git(catalog, None),
        now=delivery.received_at,
    )
    if isinstance(decision, Wait):
        return decision.reason
    # (A refusal here only says that an empty cluster holds nothing to undo.)
    return Reason.DRY_RUN if _is_dry(operario, catalog.envelope) else None


def _is_dry(operario: Operario, envelope: Envelope) -> bool:
    return Mode.DRY_RUN in (operario.options.mode, envelope.mode)


def _asked(alert: Alert, operario: Operario, envelope: Envelope) -> Iterator[str]:
    """What is asked before a Job starts, in the order in which it is asked."""
    options = operario.options
    if _is_dry(operario, envelope):
        yield "mode dry-run: the API server judges the Job, then it is refused"
    if envelope.paused:
        yield "asked: is admission paused? openfero.yaml says that it is"
    else:
        yield "asked: is admission paused (openfero-gitops pause)?"
    if options.approval:
        yield "asked: has a person approved it (openfero-gitops approve)?"
    if alert.status is Status.RESOLVED:
        if options.resolve_delay > _NONE:
            delay = format_duration(options.resolve_delay)
            yield f"asked: does the alert stay resolved for {delay}?"
        yield "asked: did a firing Job for these labels start, and has it ended?"
    elif options.on_resolve is not OnResolve.KEEP:
        yield "asked: is the alert still firing?"
    aim = ", ".join(
        f"{printable(name)}={quoted(value)}"
        for name, value in json.loads(target(alert, operario)).items()
    )
    yield f"asked: does no other Job work on its target {aim}?"
    if options.cooldown > _NONE:
        cooldown = format_duration(options.cooldown)
        yield f"asked: did its last Job on that target end at least {cooldown} ago?"
    yield (
        f"asked: do fewer than {options.max_concurrent} Jobs of this operario run, and did fewer"
        f" than {options.max_per_hour} start in this hour?"
    )
    limits = envelope.limits
    yield (
        f"asked: do fewer than {limits.concurrent} Jobs run in all, and did fewer than"
        f" {limits.per_minute} start in this minute?"
    )
    if options.max_wait > _NONE:
        yield f"a Job that has waited {format_duration(options.max_wait)} is refused"
    if alert.starts_at is None:
        yield "the alert has no startsAt: each delivery of it makes a Job of its own"


def as_text(explanations: Iterable[Explanation]) -> str:
    """For a terminal: each alert with its labels, then a sentence, then the details."""
    blocks = []
    for one in explanations:
        named = printable(one.alert.name) or "an alert without a name"
        rest = {name: value for name, value in one.alert.labels.items() if name != "alertname"}
        head = f"{named} ({one.alert.status}) {labels(rest)}".rstrip()
        word = {Outcome.NO_MATCH: "no Job: ", Outcome.REFUSED: "refused: "}.get(one.outcome, "")
        blocks.append(
            "\n".join([head, f"  {word}{one.message}", *(f"    {d}" for d in one.details)])
        )
    return "\n\n".join(blocks) or "the payload holds no alert"


def as_json(explanations: Iterable[Explanation]) -> dict[str, Any]:
    """For programs: the members of the webhook's answer, the details in the message."""
    return {
        "alerts": [
            {
                "alertname": one.alert.name,
                "status": one.alert.status.value,
                "fingerprint": one.alert.fingerprint,
                "outcome": one.outcome.value,
                "operario": one.operario or None,
                "reason": one.reason.value if one.reason else None,
                "message": "\n".join((one.message, *one.details)),
            }
            for one in explanations
        ]
    }
