"""The page `/explain`: which operario matches a pasted alert, and what happens then."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode

from aiohttp import web

from openfero_gitops.author.alert_file import read_alert_file
from openfero_gitops.author.placeholders import with_placeholders
from openfero_gitops.catalog.yaml.dump import to_yaml
from openfero_gitops.delivery.unanswered import most_recent
from openfero_gitops.domain.errors import Overloaded, PayloadError, TooLarge
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.web.alert_groups import needs_answer, time_of
from openfero_gitops.web.alert_samples import (
    explain_reason,
    find_sample,
    sample_name,
    write_sample,
)
from openfero_gitops.web.bodies import Reservation, read_body
from openfero_gitops.web.explaining import (
    MAX_ALERTS,
    MAX_BODY_BYTES,
    MEMORY_FACTOR,
    ExplainedAlert,
    explain_with_jobs,
)
from openfero_gitops.web.highlight import HighlightedText, highlight
from openfero_gitops.web.pages.site import PageRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openfero_gitops.author.in_cluster import OutcomeNow
    from openfero_gitops.delivery.unanswered import UnansweredRecord
    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.pages.site import Site, Visit

_FIELD: Final = "alert"
#: Alerts of a payload that the page explains. Each takes a look at every Job.
_MAX_ALERTS: Final = 10
#: Alerts that are offered to choose from.
_MAX_RECENT: Final = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """What the reader asked, and the answer.

    Attributes:
        text: what was pasted, or the chosen alert.
        error: why it cannot be explained; empty if it can be, or if nothing was asked.
        alerts: the explained alerts, the first of `total`.
        total: how many alerts the text has.
        is_cut: whether the chosen alert was recorded without all of its labels and annotations.
    """

    text: str = ""
    error: str = ""
    alerts: tuple[ExplainedAlert, ...] = ()
    total: int = 0
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class ExplainVerdict:
    """The answer for one alert in a few words, and how it is drawn."""

    text: str
    tone: str
    icon: str


_WAITS: Final = ExplainVerdict("Job waits", "idle", "wait")
_VERDICTS: Final = {
    Outcome.NO_MATCH: ExplainVerdict("No Job", "idle", "refuse"),
    Outcome.EXISTS: ExplainVerdict("Job exists", "run", "ok"),
    Outcome.REFUSED: ExplainVerdict("Job is refused", "warn", "refuse"),
}
_VERDICTS_BY_REASON: Final = {
    (Outcome.REFUSED, Reason.DRY_RUN): ExplainVerdict("Dry run: no Job starts", "warn", "warn"),
    (Outcome.CREATED, Reason.APPROVAL): ExplainVerdict("Job waits for approval", "ask", "ask"),
    (Outcome.CREATED, None): ExplainVerdict("Job starts at once", "ok", "run"),
}


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """The answer for one alert."""

    name: str
    status: str
    labels: tuple[tuple[str, str], ...]
    verdict: ExplainVerdict
    explained: ExplainedAlert
    job: HighlightedText | None


@dataclass(frozen=True, slots=True)
class RecentAlert:
    """An alert that can be chosen; `detail` is its Job, or why it has none."""

    name: str
    status: str
    detail: str
    at: Any
    link: str


def add(site: Site) -> None:
    """Serve the page, and the answer to its form."""

    async def load(request: web.Request) -> Asked:
        if request.method == "POST":
            return await _explain_pasted(site, request)
        if job := request.query.get("job", ""):
            return await _explain_job(site, request, job)
        if name := request.query.get("sample", ""):
            return await _explain_sample(site, request, name)
        return Asked()

    page = PageRoute("/explain", "explain.html", build_explain, load, title="Explain", still=True)
    site.add_form(page)


async def _explain_pasted(site: Site, request: web.Request) -> Asked:
    """Explain the alerts in the field of the form."""
    with Reservation(site.budget) as reservation:
        try:
            body = await read_body(request, MAX_BODY_BYTES, reservation)
            reservation.add(MEMORY_FACTOR * len(body))
            fields = parse_qs(body.decode(errors="replace"), max_num_fields=10)
        except (TooLarge, Overloaded) as error:
            return Asked(error=str(error))
        except ValueError:
            return Asked(error="the form has too many fields; send only the field alert")
        # Browsers send line ends as CRLF.
        text = next(iter(fields.get(_FIELD, ())), "").replace("\r\n", "\n").strip()
        return await _explain_text(site, request, text)


async def _explain_job(site: Site, request: web.Request, key: str) -> Asked:
    """Explain the alert of a Job, by its `NAMESPACE/NAME`."""
    jobs = (job for job in site.state.remediations() if str(job.key) == key)
    job = next(jobs, None)
    if job is None:
        return Asked(error=f"there is no Job {key[:300]}; it may have expired. Paste its alert.")
    return await _explain_text(site, request, _alert_text(job))


async def _explain_sample(site: Site, request: web.Request, name: str) -> Asked:
    """Explain a recorded alert that got no Job, by its `ALERTNAME/STATUS[/REASON]`."""
    found = find_sample(site.state.unanswered(), name)
    if found is None:
        return Asked(
            error=f"no alert {name[:300]} without a Job was heard in the last 24 hours. Paste it."
        )
    kind, sample = found
    asked = await _explain_text(site, request, write_sample(kind, sample))
    return replace(asked, is_cut=sample.is_cut)


async def _explain_text(site: Site, request: web.Request, text: str) -> Asked:
    if not text:
        return Asked(error="the field is empty; paste an alert")
    try:
        group = read_alert_file(text.encode("utf-8", "replace"), "the text")
    except (PayloadError, TooLarge) as error:
        return Asked(text, str(error))
    if not group.alerts:
        return Asked(text, "the payload contains no alert")
    total = len(group.alerts)
    first: AlertGroup = replace(group, alerts=group.alerts[:_MAX_ALERTS])
    try:
        async with site.turns.take(request):
            explained = await explain_with_jobs(site.state, first, site.now())
    except web.HTTPServiceUnavailable as error:
        return Asked(text, error.text or "")
    return Asked(text, alerts=tuple(explained), total=total)


def build_explain(visit: Visit) -> Mapping[str, Any]:
    """Compute the variables of the template."""
    asked: Asked = visit.loaded
    return {
        "asked": asked,
        "api_limit": MAX_ALERTS,
        "answers": [_answer(explained) for explained in asked.alerts],
        "recent": _recent(visit.state.remediations(), visit.base),
        "without_job": _without_job(visit.state.unanswered(), visit.base),
        "has_catalog": visit.state.catalog() is not None,
    }


def _answer(explained: ExplainedAlert) -> AnswerRow:
    explanation = explained.explanation
    alert, rendered = explanation.alert, explanation.rendered
    return AnswerRow(
        name=alert.name,
        status=alert.status.value,
        labels=tuple((k, v) for k, v in alert.labels.items() if k != "alertname"),
        verdict=_verdict(explained.now),
        explained=explained,
        job=highlight(to_yaml([with_placeholders(rendered)]), "yaml") if rendered else None,
    )


def _verdict(now: OutcomeNow) -> ExplainVerdict:
    special = _VERDICTS_BY_REASON.get((now.outcome, now.reason))
    return special or _VERDICTS.get(now.outcome, _WAITS)


def _recent(remediations: Iterable[Remediation], base: str) -> list[RecentAlert]:
    """List the newest alert of each name and status that has a Job."""
    newest: dict[tuple[str, str], Remediation] = {}
    for job in remediations:
        kind = job.alertname, job.status.value
        if kind not in newest or newest[kind].order < job.order:
            newest[kind] = job
    jobs = sorted(newest.values(), key=lambda job: job.order, reverse=True)[:_MAX_RECENT]
    return [
        RecentAlert(
            name=job.alertname,
            status=job.status.value,
            detail=f"Job {job.key}",
            at=job.received_at,
            link=f"{base}explain?{urlencode({'job': str(job.key)})}",
        )
        for job in jobs
    ]


def _without_job(record: UnansweredRecord, base: str) -> list[RecentAlert]:
    """List the alerts without a Job that were heard last, and can be read."""
    kinds = (entry for entry in most_recent(record) if entry[0].status and needs_answer(entry[0]))
    return [
        RecentAlert(
            name=kind.alertname,
            status=kind.status,
            detail=explain_reason(kind, unanswered.sample),
            at=time_of(unanswered.last),
            link=f"{base}explain?{urlencode({'sample': sample_name(kind)})}",
        )
        for kind, unanswered in islice(kinds, _MAX_RECENT)
    ]


def _alert_text(job: Remediation) -> str:
    """Write the alert of a Job as JSON, with what the Job's state has of it."""
    alert = {
        "status": job.status.value,
        "labels": dict(job.labels),
        "startsAt": format_time(job.starts_at) if job.starts_at else None,
        "fingerprint": job.fingerprint,
    }
    return json.dumps(alert, indent=2, ensure_ascii=False)
