"""The page `/alerts`: all received alerts by name, and what was done or why nothing was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlencode

from aiohttp import web

from openfero_gitops.domain.reason import Reason
from openfero_gitops.web.alert_groups import GroupState, group_alerts, time_of
from openfero_gitops.web.alert_samples import explain_reason, sample_name, write_sample
from openfero_gitops.web.pages.listing import ListFilter, Paging, contains_words, read_page
from openfero_gitops.web.pages.site import PageRoute
from openfero_gitops.web.webhook import ALERTS_PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from multidict import MultiMapping

    from openfero_gitops.delivery.unanswered import AlertKind, Sample, Unanswered
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.alert_groups import NamedAlerts, Tone
    from openfero_gitops.web.pages.site import Site, Visit

_GROUPS: Final = 50
_JOBS: Final = 5
_NEEDS_NOTHING: Final = (
    "This is normal: a resolved alert needs an operario only if something must be undone."
)
#: What to do next, by reason.
_ADVICE: Final = {
    Reason.NO_OPERARIO: "Add an operario for this alert, or handle it manually.",
    Reason.MATCHERS: "Compare the labels with the matchers of the operarios.",
    Reason.DISABLED: "Set enabled to true in the operario to remediate it.",
    Reason.OWN_JOB: (
        "Check why a Job of this controller triggers the alert. No operario is needed."
    ),
    Reason.OWN_ALERT: "No action needed here. Make sure that a receiver for people gets it.",
    Reason.STILL_FIRING: (
        "No action needed. The alert is resolved when the other Prometheus replica resolves it."
    ),
    Reason.INVALID_ALERT: "Correct the sender, or the rule of the alert.",
    Reason.API_REFUSED: (
        "Correct the operario. Alertmanager does not repeat this delivery; the next notification "
        "of the alert makes another attempt."
    ),
    Reason.API_FORBIDDEN: (
        "Check the RBAC permissions and the quotas of the namespace of the Jobs. Alertmanager "
        "repeats the delivery."
    ),
    Reason.NAME_TAKEN: "Check the Job with this name. Alertmanager repeats the delivery.",
}
_REPEATED: Final = (
    "Alertmanager repeats the delivery. If this continues, check Conditions on the About page."
)
#: Of chips, where it is not the name of the state.
_TITLES: Final = {GroupState.UNANSWERED: "No Job", GroupState.ANSWERED: "With a Job"}


@dataclass(frozen=True, slots=True)
class AlertFilter(ListFilter):
    """Which alerts are shown; empty members select all.

    Attributes:
        state: a `GroupState`.
        q: words that all occur in a name, label, annotation, reason or Job.
        open: `all` to open all groups.
    """

    path_of_page: ClassVar = "alerts"
    state: str = ""
    q: str = ""
    open: str = ""


def read_filter(query: MultiMapping[str]) -> AlertFilter:
    """Read the filter of an address.

    Raises:
        web.HTTPBadRequest: a value is not known.
    """
    wanted = AlertFilter(*(query.get(field.name, "").strip() for field in fields(AlertFilter)))
    if wanted.state not in ("", *GroupState):
        raise web.HTTPBadRequest(
            text=f"unknown state {wanted.state[:60]!r}; use {', '.join(GroupState)}"
        )
    if wanted.open not in ("", "all"):
        raise web.HTTPBadRequest(text="open must be all, or left out")
    return wanted


@dataclass(frozen=True, slots=True)
class KindRow:
    """Alerts of one name, status and reason that got no Job.

    `explain` is the address that explains the last one; empty if it cannot be read.
    """

    kind: AlertKind
    count: str
    first: datetime | None
    last: datetime | None
    why: str
    advice: str
    sample: Sample
    sample_json: str
    explain: str

    @property
    def element(self) -> str:
        """The end of the id of its element."""
        return _digest("/".join(self.kind))


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The alerts of one name, as they are drawn."""

    alerts: NamedAlerts
    kinds: Sequence[KindRow]
    jobs: Sequence[Remediation]
    firing: str
    strip: Sequence[tuple[int, Tone]]
    unanswered: bool

    @property
    def strip_text(self) -> str:
        """What the strip shows, in words."""
        halves = f"received in {len(self.strip)} of the 48 half hours"
        return f"Last 24 hours: {halves if self.strip else 'nothing received'}"

    @property
    def element(self) -> str:
        """The id of its element: the same each time that the page is drawn."""
        return f"alert-{_digest(self.alerts.name)}"


def add(site: Site) -> None:
    """Serve `/alerts` to browsers; other clients get OpenFero's answer at the same address."""
    page = PageRoute("/alerts", "alert_list.html", build, title="Alerts")
    site.app[ALERTS_PAGE] = site.respond_with(page)


def build(visit: Visit) -> dict[str, Any]:
    """Compute the variables of the template."""
    wanted, record = read_filter(visit.query), visit.state.unanswered()
    everything = group_alerts(record, visit.state.remediations())
    matching = [g for g in everything if contains_words(wanted.q, g.texts() if wanted.q else ())]
    states = [(group, group.states) for group in matching]
    shown = [group for group, has in states if not wanted.state or wanted.state in has]
    paging = Paging(len(shown), _GROUPS, read_page(visit.query))
    counts = {state: sum(state in has for _, has in states) for state in GroupState}
    chips = [("All", len(matching), replace(wanted, state="").address(), not wanted.state)]
    chips += [
        (
            _TITLES.get(state, state.capitalize()),
            counts[state],
            replace(wanted, state=state).address(),
            wanted.state == state,
        )
        for state in GroupState
    ]
    other = replace(wanted, open="" if wanted.open else "all")
    return {
        "wanted": wanted,
        "total": len(everything),
        "complete": record.is_complete(visit.now),
        "groups": [_row(group, visit.now) for group in paging.cut(shown)],
        "paging": paging,
        "chips": chips,
        "other_open": other.address(paging.page),
    }


def _row(group: NamedAlerts, now: datetime) -> GroupRow:
    return GroupRow(
        group,
        [_kind_row(kind, unanswered, now) for kind, unanswered in group.kinds],
        group.newest_jobs(_JOBS),
        _firing_text(group, now),
        group.strip(now),
        GroupState.UNANSWERED in group.states,
    )


def _firing_text(group: NamedAlerts, now: datetime) -> str:
    firing = group.firing
    return f"{'at least ' if group.has_more_firing(now) else ''}{firing:,}" if firing else ""


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


def _kind_row(kind: AlertKind, unanswered: Unanswered, now: datetime) -> KindRow:
    sample, number = unanswered.sample, len(unanswered.occurrences)
    least = "" if unanswered.is_complete(now) else "at least "
    count = f"{least}{number:,} different alert{'' if number == 1 else 's'}"
    reason = next((reason for reason in Reason if reason.value == kind.reason), None)
    why = explain_reason(kind, sample)
    if kind.status == "resolved" and reason in (Reason.NO_OPERARIO, Reason.MATCHERS):
        advice = _NEEDS_NOTHING
    else:
        advice = _ADVICE.get(reason, _REPEATED) if reason else _REPEATED
    first, last = time_of(unanswered.first), time_of(unanswered.last)
    explain = f"explain?{urlencode({'sample': sample_name(kind)})}" if kind.status else ""
    text = write_sample(kind, sample)
    return KindRow(kind, count, first, last, why, advice, sample, text, explain)
