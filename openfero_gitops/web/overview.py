"""What the page says, worked out from the controller's values; the templates only draw it.

Which rows are shown, why each stands where it stands, and what a person should know first.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

from openfero_gitops.admission.decide import Admit, Refuse, Wait
from openfero_gitops.domain.operario import Mode, Operario, Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.domain.timestamp import format_time, parse_time
from openfero_gitops.jobs.options_annotation import write_options
from openfero_gitops.web import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.health import Condition
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.domain.sync import SyncStatus
    from openfero_gitops.web.state import State

#: Rows of a table; the filter reaches the others. A remediation takes a millisecond to draw.
_MOST_REMEDIATIONS: Final = 50
_MOST_OTHERS: Final = 200
#: A failure this recent is said before everything else.
_RECENT: Final = timedelta(hours=1)
#: Which tone is read first.
_URGENCY: Final = ("bad", "ask", "warn")
_MEANINGS: Final = {reason.value: reason.text for reason in Reason}
_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Face:
    """How a phase is drawn; `meaning` is for who does not know the word."""

    tone: str
    icon: str
    meaning: str


PHASES: Final = {
    Phase.AWAITING_APPROVAL: Face("ask", "ask", "a person must approve it"),
    Phase.WAITING: Face("idle", "wait", "suspended until the leader admits it"),
    Phase.QUEUED: Face("idle", "queue", "admitted, and waits for Kueue"),
    Phase.RUNNING: Face("run", "run", "its Pods may exist"),
    Phase.HELD: Face("warn", "hold", "admitted, then suspended again by somebody"),
    Phase.FAILED: Face("bad", "fail", "the Job failed"),
    Phase.SUCCEEDED: Face("ok", "ok", "the Job completed"),
    Phase.REFUSED: Face("idle", "refuse", "it never starts"),
    Phase.CANCELLED: Face("idle", "cancel", "a person or a resolved alert stopped it"),
}


@dataclass(frozen=True, slots=True)
class Query:
    """What a reader asked to see: remediations in these phases (none: all), with these words."""

    phases: tuple[Phase, ...]
    text: str

    def link(self, phase: Phase | None) -> str:
        """The address that shows one phase, or all, of what the same words are in."""
        pairs = [("phase", phase.value)] if phase else []
        if self.text:
            pairs.append(("q", self.text))
        return f"./?{urlencode(pairs)}" if pairs else "./"

    def finds(self, texts: Iterable[str]) -> bool:
        """Whether each word occurs in one of the texts, in upper or lower case."""
        if not self.text:
            return True
        text = "\n".join(texts).casefold()
        return all(word in text for word in self.text.casefold().split())


@dataclass(frozen=True, slots=True)
class _Concern:
    """What a person should know before anything else; `tone` is `bad`, `warn` or `ask`."""

    tone: str
    title: str
    detail: str = ""
    since: datetime | None = None
    link: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """A remediation and what is said of it.

    `reason` is the word, `meaning` its sentence, `why` what is said here; `until` is when the
    clock ends a wait; `unusual` are options that are not the default; `commands` are pairs of a
    purpose and a line for a shell.
    """

    one: Remediation
    reason: str
    meaning: str
    why: tuple[str, ...]
    until: datetime | None
    target: Mapping[str, str]
    unusual: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]

    @property
    def ran(self) -> timedelta | None:
        """For how long it ran; None where it has not ended, or never started."""
        one = self.one
        if not one.started or one.started_at is None or one.finished_at is None:
            return None
        return max(one.finished_at - one.started_at, timedelta(0))


@dataclass(frozen=True, slots=True)
class _InForce:
    """An operario, its options that are not the default, and the last remediation by it."""

    one: Operario
    unusual: tuple[tuple[str, str], ...]
    command: str
    last: Remediation | None


@dataclass(frozen=True, slots=True)
class _Table:
    """The first rows of `total` that the filter lets through."""

    rows: Sequence[Any]
    total: int


def look(state: State, query: Query, now: datetime) -> dict[str, Any]:
    """Everything that the templates draw."""
    catalog = state.catalog()
    decisions = state.decisions()
    conditions = state.conditions()
    sync = state.sync()
    about = shapes.about(state.about(), state.leadership())
    every = sorted(state.remediations(), key=lambda one: one.order, reverse=True)
    found = [one for one in every if query.finds(_texts(one, decisions.get(one.key)))]
    shown = [one for one in found if not query.phases or one.phase in query.phases]
    latest = {one.operario: one for one in reversed(every)}
    pause = state.pause()
    healthy = bool(catalog and about["leader"] and all(condition.holds for condition in conditions))
    concerns = [
        *_concerns_of_health(about["leader"], conditions, catalog, sync),
        *_concerns_of_work(every, now),
        *_concerns_of_catalog(catalog, pause),
    ]
    return {
        "now": now,
        "query": query,
        "about": about,
        "conditions": conditions,
        "catalog": catalog,
        "sync": sync,
        "pause": pause,
        "healthy": healthy,
        "concerns": sorted(concerns, key=lambda one: _URGENCY.index(one.tone)),
        "phases": PHASES,
        "counts": Counter(one.phase for one in found),
        "occupying": sum(one.occupying for one in every),
        "known": len(every),
        "found": len(found),
        "under_way": _table(
            [one for one in shown if one.phase not in FINAL],
            _MOST_REMEDIATIONS,
            lambda one: _row(one, decisions.get(one.key), state.is_approval_verified(one)),
        ),
        "ended": _table(
            [one for one in shown if one.phase in FINAL],
            _MOST_REMEDIATIONS,
            lambda one: _row(one, None, state.is_approval_verified(one)),
        ),
        "operarios": _table(
            _operarios(catalog, query),
            _MOST_OTHERS,
            lambda one: _in_force(one, latest.get(one.name)),
        ),
        "problems": _table(_problems(catalog, query), _MOST_OTHERS, lambda one: one),
        "ignored": _table(catalog.ignored if catalog else (), _MOST_OTHERS, lambda one: one),
    }


def _table(values: Sequence[T], most: int, draw: Callable[[T], Any]) -> _Table:
    return _Table([draw(value) for value in values[:most]], len(values))


def _concerns_of_health(
    leader: str | None,
    conditions: Iterable[Condition],
    catalog: Catalog | None,
    sync: SyncStatus,
) -> Iterator[_Concern]:
    """What keeps the controller from its work, or from newer operarios."""
    if catalog is None:
        detail = sync.error or "the first sync has not ended"
        yield _Concern(
            "bad", "No catalog is in force: alerts are answered 503", detail, sync.failing_since
        )
    for condition in conditions:
        if not condition.holds and not (catalog is None and condition.name == "catalog"):
            yield _Concern("bad", f"Not ready: {condition.name}", condition.message)
    if not leader:
        yield _Concern(
            "bad", "No replica leads", "alerts are taken and become Jobs, but no Job is started"
        )
    if catalog is None:
        return
    refused = sync.refused
    kept = f"{short(catalog.revision.commit) or 'what was read last'} stays in force"
    if sync.error and refused and refused.reason == sync.error:
        yield _Concern(
            "warn",
            f"Revision {short(refused.commit)} is refused: {kept}",
            sync.error,
            sync.failing_since,
        )
    elif sync.error:
        yield _Concern(
            "warn",
            f"The repository cannot be read: {kept}",
            sync.error,
            sync.failing_since,
        )
    elif sync.origin == "mirror":
        detail = "Git has not been read since this replica started"
        if refused:
            detail += f"; revision {short(refused.commit)} was refused: {refused.reason}"
        yield _Concern("warn", "The catalog in force comes from the mirror", detail)


def _concerns_of_work(every: Iterable[Remediation], now: datetime) -> Iterator[_Concern]:
    """What ran badly or waits for a person."""
    by_phase: dict[Phase, list[Remediation]] = {}
    for one in every:
        by_phase.setdefault(one.phase, []).append(one)
    failed = [
        one
        for one in by_phase.get(Phase.FAILED, ())
        if now - (one.finished_at or one.received_at) <= _RECENT
    ]
    if failed:
        last = max(failed, key=lambda one: one.finished_at or one.received_at)
        yield _Concern(
            "bad",
            f"{_count(failed, 'remediation')} failed in the last hour",
            f"the latest: {last.alertname or last.operario}",
            last.finished_at or last.received_at,
            f"./?phase={Phase.FAILED.value}",
        )
    if asked := by_phase.get(Phase.AWAITING_APPROVAL):
        oldest = min(asked, key=lambda one: one.order)
        yield _Concern(
            "ask",
            f"{_count(asked, 'remediation')} must be approved by a person",
            f"the oldest: {oldest.alertname or oldest.operario}",
            oldest.received_at,
            f"./?phase={Phase.AWAITING_APPROVAL.value}",
        )
    if held := by_phase.get(Phase.HELD):
        yield _Concern(
            "warn",
            f"{_count(held, 'remediation')} held",
            "somebody suspended again what had been admitted; the controller restarts nothing",
            link=f"./?phase={Phase.HELD.value}",
        )


def _concerns_of_catalog(catalog: Catalog | None, pause: Pause | None) -> Iterator[_Concern]:
    """What keeps the active catalog's operarios from running."""
    if pause is not None:
        title = "Admission is paused: no Job starts"
        yield _Concern("warn", title, pause.message, pause.since)
    if catalog is None:
        return
    if catalog.envelope.mode is Mode.DRY_RUN:
        yield _Concern(
            "warn", "Nothing really runs: mode is dry-run for every operario", "openfero.yaml"
        )
    errors = [problem for problem in catalog.problems if problem.is_error]
    stale = [one for one in catalog.operarios if one.origin.stale]
    if errors:
        detail = f"{errors[0].path}: {errors[0].message}"
        if stale:
            detail = f"{_count(stale, 'operario')} in force in an older version; {detail}"
        yield _Concern(
            "warn", f"{_count(errors, 'error')} in the repository", detail, link="#problems"
        )
    elif stale:
        yield _Concern(
            "warn", f"{_count(stale, 'operario')} in force in an older version", link="#operarios"
        )


def _row(
    one: Remediation,
    decision: Decision | None,
    verified: bool,  # noqa: FBT001 - of the approval
) -> _Row:
    reason, message = one.reason, one.message
    why: list[str] = []
    until = None
    verdict = decision if one.waiting else None
    if isinstance(verdict, Wait):
        reason, message, until = verdict.reason.value, verdict.message, verdict.until
    elif isinstance(verdict, Refuse):
        reason, message = verdict.reason.value, verdict.message
        why.append("The leader is about to refuse it")
    elif isinstance(verdict, Admit):
        reason, message = verdict.reason.value, ""
        why.append("The leader is about to start it")
    meaning = _MEANINGS.get(reason, "")
    if message:
        # A failed Job's message begins with its condition, which is the reason.
        why.append(message.removeprefix(f"{reason}: ") if reason else message)
    elif meaning:
        why.append(meaning[0].upper() + meaning[1:])
    if one.approved_by:
        doubt = "" if verified else " (unverified: the cluster lets anybody write this name)"
        why.append(f"Approved by {one.approved_by}{doubt}")
    why.extend(_circumstances(one))
    return _Row(
        one=one,
        reason=reason,
        meaning=meaning,
        why=tuple(why),
        until=until,
        target=_target(one.target),
        unusual=_unusual(_words(one.options)),
        commands=tuple(_commands(one)),
    )


def _circumstances(one: Remediation) -> Iterator[str]:
    if one.phase is Phase.QUEUED:
        yield f"Kueue starts it from queue {one.queue}" if one.queue else "Kueue starts it"
    elif one.phase is Phase.HELD:
        yield "Somebody suspended it after it had started; nothing restarts it"
    elif one.phase is Phase.RUNNING and one.started_by_other:
        yield "Somebody else than the controller started it"
    if one.deleting:
        yield "It is being deleted"


def _commands(one: Remediation) -> Iterator[tuple[str, str]]:
    """What a person may want to run next; names are Kubernetes', commits and paths are quoted."""
    job = shlex.quote(str(one.key))
    name, at = shlex.quote(one.key.name), f"kubectl -n {shlex.quote(one.key.namespace)}"
    if one.phase is Phase.AWAITING_APPROVAL:
        yield "Let it run", f"openfero-gitops approve {job}"
        yield "Or never", f"openfero-gitops refuse {job}"
    elif one.phase not in FINAL:
        yield "Stop it", f"openfero-gitops cancel {job}"
    if show := _git_show(one.commit, one.path):
        yield "The reviewed file", show
    yield "The Job", f"{at} get job {name} -o yaml"
    yield "Its events", f"{at} describe job {name}"
    if one.started:
        yield "Its log", f"{at} logs job/{name} --all-containers"


def _git_show(commit: str, path: str) -> str:
    """The command that shows a file as it was; empty where no shell should be given it."""
    hidden = any(unicodedata.category(character).startswith("C") for character in path)
    if not path or hidden or not _SHA.fullmatch(commit):
        return ""
    return f"git show {shlex.quote(f'{commit}:{path}')}"


def _target(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _operarios(catalog: Catalog | None, query: Query) -> list[Operario]:
    every = sorted(catalog.operarios if catalog else (), key=lambda one: one.name)
    return [
        one
        for one in every
        if query.finds(
            (one.name, one.alertname, one.status, one.form, one.origin.path, one.origin.commit)
        )
    ]


def _in_force(one: Operario, last: Remediation | None) -> _InForce:
    options = _words(one.options)
    options["matchers"] = ", ".join(str(matcher) for matcher in one.options.matchers)
    options["target"] = ",".join(one.options.target)
    options["enabled"] = "true" if one.options.enabled else "false"
    return _InForce(one, _unusual(options), _git_show(one.origin.commit, one.origin.path), last)


def _words(options: Options) -> dict[str, str]:
    """Options as an author writes them in annotations."""
    written = json.loads(write_options(options))
    written["approval"] = "required" if options.approval else ""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in written.items()
    }


_USUAL: Final = {**_words(Options()), "matchers": "", "target": "", "enabled": "true"}


def _unusual(options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in sorted(options.items()) if value != _USUAL[name])


def _problems(catalog: Catalog | None, query: Query) -> list[Problem]:
    """Errors first."""
    every = sorted(catalog.problems if catalog else (), key=lambda one: (not one.is_error, one))
    return [
        one
        for one in every
        if query.finds((one.path, one.rule, one.severity, one.message, one.suggestion, one.commit))
    ]


def _texts(one: Remediation, decision: Decision | None) -> Iterator[str]:
    """Everything that a reader may look for a remediation by."""
    yield from (str(one.key), one.operario, one.alertname, one.status, one.phase)
    yield from (one.reason, one.message, one.commit, one.path, one.fingerprint)
    yield from (f"{name}={value}" for name, value in one.labels.items())
    if decision is not None and one.waiting:
        yield decision.reason


def _count(values: Sequence[object], noun: str) -> str:
    return f"{len(values)} {noun}{'' if len(values) == 1 else 's'}"


def short(commit: str) -> str:
    """Seven characters of a SHA, and not many more of anything else."""
    return commit[:7] if _SHA.fullmatch(commit) else commit[:16]


def rfc3339(value: datetime | str | None) -> str:
    """To the second, in UTC; empty for what is no time."""
    moment = parse_time(value) if isinstance(value, str) else value
    return format_time(moment)[:19] + "Z" if moment else ""


def ago(value: datetime | str, now: datetime) -> str:
    """How long ago, or how far ahead; the page's script says it in the same words."""
    moment = parse_time(value) if isinstance(value, str) else value
    if moment is None:
        return ""
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return f"in {duration(timedelta(seconds=-seconds))}"
    return f"{duration(timedelta(seconds=seconds))} ago"


def duration(value: timedelta) -> str:
    """The two largest units."""
    seconds = int(value.total_seconds())
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if not minutes:
        return f"{seconds}s"
    if not hours:
        return f"{minutes}m {seconds % 60}s" if minutes < 10 else f"{minutes}m"  # noqa: PLR2004
    if not days:
        return f"{hours}h {minutes % 60}m"
    return f"{days}d {hours % 24}h"
