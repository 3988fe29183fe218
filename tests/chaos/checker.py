"""What the history says: each promise, how often it was broken, and how in words.

The judgement itself is `tests.support.verdict`'s. Here the revisions of etcd, which are the one
true order, become its moments; and what only this side knows is added: which alerts were there to
be healed, and when a sender was told that one is.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope, Limits
from tests.support.history import Answered, Change, Violation
from tests.support.verdict import Judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos import senders
    from tests.chaos.recorder import Seen

#: What is promised, by the words of the table; the rules that break it.
PROMISES: Final = {
    "Jobs lost": ("lost",),
    "Jobs doubled": ("doubled",),
    "incidents healed twice": ("healed-twice", "target"),
    "limit exceeded at any instant": ("limit",),
    "started after a pause was acknowledged": ("paused",),
    "started without approval": ("approval",),
    "started after the alert was resolved": ("resolved", "undoing"),
    "decisions that did not last, or of two leaders": ("final", "phase", "two-leaders", "dry-run"),
    "left undecided at the end": ("undecided",),
    "effects wrong, or settled by two leaders differently": ("effect",),
    "effects not settled at the end": ("unsettled",),
    "started again although it did not help": ("not-helping",),
    "forged Jobs started or changed": ("foreign",),
}

#: Seconds at the end of a run in which nothing happens any more but that effects are settled:
#: longer than `heals-within` of any operario, and than another leader takes.
CALM: Final = 25.0
#: Seconds of these in which the last effects are settled.
_SETTLES: Final = timedelta(seconds=10)
#: Later than the recorder hears of anything, while etcd answers.
_HEARD: Final = timedelta(seconds=5)
#: Kubernetes' own times are whole seconds.
_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_INSTANT: Final = timedelta(microseconds=1)
_NO_LIMIT: Final = 2**31


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was written and said in one run."""

    jobs: Sequence[Seen]
    control: Sequence[Seen]
    answered: Sequence[senders.Answered]
    expected: frozenset[Alert]
    limits: Limits
    forged: Sequence[Seen] = ()
    ended: float = 0.0  # when nothing more was recorded, and nothing had changed for `CALM`


#: An alert that some operario answers: labels in order, state, start.
Alert = tuple[tuple[tuple[str, str], ...], str, str]


def judge(history: History) -> list[Violation]:
    """Everything that was broken, in order."""
    # (How often within a minute is judged below, by the moments that the leader wrote.)
    limits = replace(history.limits, per_minute=_NO_LIMIT)
    court = Judge(Envelope(limits=limits))
    for _, event in _in_order(history):
        match event:
            case Change():
                court.change(event)
            case Answered():
                court.answered(event)
            case datetime():
                court.paused(event)
            case None:
                court.resumed()
    end = max((seen.at for seen in history.jobs), default=0.0)
    return [
        *court.violations,
        *_answered_too_soon(history),
        *_never_made(history, _moment(end)),
        *_made_twice(history),
        *_too_many_a_minute(history),
        *_undecided(history, _moment(end)),
        *_forged_and_touched(history),
        *_unsettled(court, _moment(history.ended)),
    ]


def count(violations: Iterable[Violation]) -> dict[str, int]:
    """How often each promise was broken."""
    rules = Counter(violation.rule for violation in violations)
    counts = {words: sum(rules.pop(rule, 0) for rule in of) for words, of in PROMISES.items()}
    return counts | ({"other": sum(rules.values())} if rules else {})


def _in_order(history: History) -> list[tuple[datetime, Change | Answered | datetime | None]]:
    """Everything as the judge is told it: by revision, with moments that never go back."""
    events: list[tuple[datetime, Change | Answered | datetime | None]] = []
    before: dict[str, dict[str, Any]] = {}
    last = datetime.min.replace(tzinfo=UTC)
    for seen in sorted((*history.jobs, *history.control), key=lambda record: record.revision):
        last = max(last + _INSTANT, _moment(seen.at))
        if (seen.object or before.get(seen.key, {})).get("kind") == "ConfigMap":
            before[seen.key] = seen.object or {}
            events.extend((last, event) for event in _said(seen, last))
            continue
        kind = "MODIFIED" if seen.key in before else "ADDED"
        job = seen.object
        if job is None:
            kind, job = "DELETED", before.pop(seen.key)
        else:
            before[seen.key] = job
        events.append((last, Change(last, kind, job)))
    for answer in history.answered:
        at = _moment(answer.at) + _HEARD
        job = tuple(answer.job.split("/")) if answer.job else None
        events.append(
            (
                at,
                Answered(
                    sent=_moment(answer.sent_at),
                    answered=at,
                    labels=answer.labels,
                    status=answer.status,
                    starts_at=_time(answer.starts_at),
                    ends_at=_time(answer.ends_at),
                    job=(job[0], job[1]) if job else None,
                ),
            )
        )
    events.sort(key=lambda event: event[0])
    return events


def _said(seen: Seen, moment: datetime) -> list[datetime | None]:
    """What the control says: a pause since this moment, or that it is not paused any more."""
    data = (seen.object or {}).get("data") or {}
    if data.get("paused") != "true":
        return [None]
    return [moment] if data.get("acknowledged") == data.get("request") else []


def _answered_too_soon(history: History) -> list[Violation]:
    """A 200 for a Job that the API server stored only later."""
    created: dict[str, datetime] = {}
    for seen in history.jobs:
        if seen.object is not None and seen.key not in created:
            created[seen.key] = _time(seen.object["metadata"]["creationTimestamp"])
    return [
        Violation(_moment(answer.at), "lost", f"{answer.job} was answered before it was stored")
        for answer in history.answered
        if answer.job in created and created[answer.job] > _moment(answer.at)
    ]


def _never_made(history: History, end: datetime) -> list[Violation]:
    """An alert that some operario answers, and that has no Job at the end."""
    delivered = {_alert(job) for job in _last(history).values()}
    return [
        Violation(end, "lost", f"{dict(labels)} {status} since {starts} has no Job")
        for labels, status, starts in sorted(history.expected - delivered)
    ]


def _made_twice(history: History) -> list[Violation]:
    """Two Jobs of one alert and attempt; or one that was started, and started again."""
    violations = []
    by_occurrence: defaultdict[tuple[Alert, str], set[str]] = defaultdict(set)
    starts: Counter[str] = Counter()
    suspended: dict[str, bool] = {}
    for seen in history.jobs:
        if seen.object is None:
            continue
        metadata, uid = seen.object["metadata"], seen.object["metadata"]["uid"]
        attempt = metadata["annotations"].get(keys.ATTEMPT, "1")
        by_occurrence[_alert(seen.object), attempt].add(uid)
        now = seen.object["spec"].get("suspend") is True
        if suspended.get(uid, True) and not now:
            starts[uid] += 1
            if starts[uid] > 1:
                words = f"{seen.key} was started {starts[uid]} times"
                violations.append(Violation(_moment(seen.at), "doubled", words))
        suspended[uid] = now
    for (alert, attempt), uids in by_occurrence.items():
        if len(uids) > 1:
            words = f"{dict(alert[0])} {alert[1]} has {len(uids)} Jobs of attempt {attempt}"
            violations.append(Violation(_moment(history.jobs[-1].at), "doubled", words))
    return violations


def _too_many_a_minute(history: History) -> list[Violation]:
    """More admissions than `perMinute` in any minute, by the moments that the leader wrote."""
    admitted = sorted(
        (_time(written), name)
        for name, job in _last(history).items()
        if (written := job["metadata"]["annotations"].get(keys.ADMITTED_AT))
    )
    limit = history.limits.per_minute
    return [
        Violation(moment, "limit", f"{name} is more than {limit} within a minute")
        for (first, _), (moment, name) in zip(admitted, admitted[limit:], strict=False)
        if moment - first < _MINUTE
    ]


def _forged_and_touched(history: History) -> list[Violation]:
    """A forged Job that was started, decided, changed or deleted, instead of left alone."""
    violations = []
    first: dict[str, dict[str, Any]] = {}
    for seen in history.forged:
        job = seen.object
        if job is None:
            violations.append(Violation(_moment(seen.at), "foreign", f"{seen.key} was deleted"))
            continue
        created = first.setdefault(seen.key, job)
        texts = ("labels", "annotations")
        if any(job["metadata"].get(kind) != created["metadata"].get(kind) for kind in texts):
            violations.append(Violation(_moment(seen.at), "foreign", f"{seen.key} was changed"))
        if job["spec"].get("suspend") is not True:
            violations.append(Violation(_moment(seen.at), "foreign", f"{seen.key} was started"))
    return violations


def _unsettled(court: Judge, end: datetime) -> list[Violation]:
    """An effect that was long due at the end, and is not settled."""
    return [Violation(end, "unsettled", words) for words in court.unsettled(end - _SETTLES)]


def has_ended(job: Mapping[str, Any]) -> bool:
    """Whether the status of a Job has the condition Complete or Failed."""
    return any(
        condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        for condition in (job.get("status") or {}).get("conditions") or ()
    )


def _undecided(history: History, end: datetime) -> list[Violation]:
    """A Job that still waits, and not for a human; or one that never ended."""
    violations = []
    for name, job in _last(history).items():
        annotations = job["metadata"]["annotations"]
        asks = json.loads(annotations.get(keys.OPTIONS, "{}")).get("approval") is True
        unanswered = asks and keys.APPROVED_BY not in annotations
        if not (has_ended(job) or keys.DECISION in annotations or unanswered):
            state = "has not ended" if keys.ADMITTED_AT in annotations else "waits"
            violations.append(Violation(end, "undecided", f"{name} {state}"))
    return violations


def _last(history: History) -> dict[str, dict[str, Any]]:
    """Each Job as it was at the end."""
    last: dict[str, dict[str, Any]] = {}
    for seen in history.jobs:
        if seen.object is None:
            last.pop(seen.key, None)
        else:
            last[seen.key] = seen.object
    return last


def _alert(job: dict[str, Any]) -> Alert:
    annotations = job["metadata"]["annotations"]
    labels = json.loads(annotations[keys.ALERT])["labels"]
    status = job["metadata"]["labels"][keys.STATUS]
    return tuple(sorted(labels.items())), status, annotations.get(keys.STARTS_AT, "")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=65536)
def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
