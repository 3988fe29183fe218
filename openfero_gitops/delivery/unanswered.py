"""The record of alerts that were delivered and got no Job, and how two records are merged.

An alert gets no Job if no operario answers it (the reason says why), if it cannot be read, or if
the delivery failed. Such alerts leave nothing else in the cluster. They are recorded by kind: alert
name, status and reason. Each kind has the last alert as a sample, and the *occurrences* that were
heard in the last 24 hours, each with the times at which it was first and last heard.

An occurrence is (incident, start): the digest of the labels without replica labels, and startsAt in
whole seconds. Alertmanager repeats an alert, the members of an Alertmanager cluster deliver it to
different replicas, and both members of a Prometheus pair send it: all of that is one occurrence.

Each replica records what was delivered to it. `merge` joins two records: the union of kinds and of
occurrences, the earliest first time and the latest last time, the latest sample. It is commutative,
associative and idempotent, so that it does not matter how often, and by how many replicas, the same
alert was heard, nor in which order records are read.

What is exact: the names, statuses and reasons, the time at which each was last heard, and the
number of occurrences while a kind has at most `MAX_OCCURRENCES` (fewer if all kinds together have
too many). Beyond the limits `trimmed` drops the kinds that were least recently heard, and the
occurrences whose digests are the highest. So the kinds of the firing and of the resolved alerts of
a name keep the same incidents. It records until when the dropped ones were heard: `is_complete` is
then false for 24 hours, and a count means "at least". Approximate: an
alert whose startsAt varies has several occurrences; one without startsAt has one per second in
which it is delivered; an occurrence counts as heard all the time from its first to its last time.

Times are whole seconds since 1970, because there are many.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from heapq import nlargest, nsmallest
from typing import TYPE_CHECKING, Final, NamedTuple

from openfero_gitops.domain.alert import InvalidAlert, Status, incident_digest
from openfero_gitops.domain.labels import replica_labels_in, without
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.domain.text import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.answer import Item

#: What was not heard for this long is forgotten.
RETENTION: Final = timedelta(hours=24)
#: Kinds in a record: 2,000 alert names, firing and resolved, and some more.
MAX_KINDS: Final = 5000
#: Occurrences of one kind, if all kinds together do not have too many.
MAX_OCCURRENCES: Final = 2000
#: Occurrences of all kinds; those with the most lose some.
_MAX_ALL_OCCURRENCES: Final = 20_000
#: The share of a digest that is kept: 80 bits.
INCIDENT_CHARACTERS: Final = 16
MAX_NAME_CHARACTERS: Final = 256
MAX_MESSAGE_CHARACTERS: Final = 300
#: Of a sample: labels or annotations, a name, a value, and all of them.
MAX_VALUES: Final = 64
_MAX_VALUE_CHARACTERS: Final = 512
_MAX_CHARACTERS: Final = 2048
#: A time may be so far in the future: clocks differ.
_CLOCK_TOLERANCE_SECONDS: Final = 60
_CUT_MARK: Final = "…"

_WITHOUT_JOB: Final = frozenset({Outcome.NO_MATCH, Outcome.INVALID, Outcome.ERROR})


class AlertKind(NamedTuple):
    """What alerts are counted by; `status` is empty for alerts that cannot be read."""

    alertname: str
    status: str
    reason: str


class OccurrenceId(NamedTuple):
    """An incident, and when the alert started; 0 if it cannot be read."""

    incident: str
    start: int


class Heard(NamedTuple):
    """When something was heard first and last."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The last alert of a kind, cut: `is_cut` says whether something is missing.

    `start` and `end` are 0 if the alert has none. `labels` include replica labels.
    """

    heard_at: int
    outcome: str
    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    generator_url: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The alerts of one kind.

    Attributes:
        first: when the first one was heard, for as long as the kind is recorded.
        sample: the last one.
        occurrences: those of the last 24 hours.
        dropped_until: when the last of the occurrences that were dropped was heard, or 0.
    """

    first: int
    sample: Sample
    occurrences: Mapping[OccurrenceId, Heard]
    dropped_until: int = 0

    @property
    def last(self) -> int:
        """When the last one was heard."""
        return self.sample.heard_at

    def is_complete(self, now: datetime) -> bool:
        """Whether all occurrences of the last 24 hours are recorded; else there are more."""
        return self.dropped_until < _oldest(now)


@dataclass(frozen=True, slots=True)
class UnansweredRecord:
    """The alerts without a Job, by kind.

    `dropped_until` is when the last of the kinds that were dropped was heard, or 0.
    """

    kinds: Mapping[AlertKind, Unanswered] = field(default_factory=dict)
    dropped_until: int = 0

    def is_complete(self, now: datetime) -> bool:
        """Whether all kinds of the last 24 hours are recorded; else there are more."""
        return self.dropped_until < _oldest(now)


EMPTY: Final = UnansweredRecord()


def has_no_job(item: Item) -> bool:
    """Whether an alert of a delivery is recorded here: no Job shows that it came."""
    return item.outcome in _WITHOUT_JOB


def record_of(
    items: Iterable[Item], heard_at: datetime, replica_labels: frozenset[str]
) -> UnansweredRecord:
    """Record alerts of a delivery that have no Job."""
    now = seconds_of(heard_at)
    kinds: dict[AlertKind, Unanswered] = {}
    for item in items:
        alert = item.alert
        status = alert.status.value if alert.status else ""
        reason = item.reason.value if item.reason else ""
        kind = AlertKind(_cut(alert.name, MAX_NAME_CHARACTERS), status, reason)
        occurrence = _occurrence(alert, replica_labels, now)
        heard = Unanswered(now, _sample(item, now), {occurrence: Heard(now, now)})
        kinds[kind] = _join(kinds[kind], heard) if kind in kinds else heard
    return UnansweredRecord(kinds)


def incident_of(labels: Mapping[str, str], replica_labels: frozenset[str]) -> str:
    """Return what is equal for all occurrences of an alert, firing or resolved, and its Jobs."""
    names = replica_labels_in(labels, replica_labels)
    return incident_digest(without(labels, names), Status.FIRING)[:INCIDENT_CHARACTERS]


def merge(record: UnansweredRecord, other: UnansweredRecord) -> UnansweredRecord:
    """Return what two records have together; the result may exceed the limits of one."""
    if not record.kinds and not record.dropped_until:
        return other
    kinds = dict(record.kinds)
    for kind, unanswered in other.kinds.items():
        before = kinds.get(kind)
        kinds[kind] = unanswered if before is None else _join(before, unanswered)
    return UnansweredRecord(kinds, max(record.dropped_until, other.dropped_until))


def merge_all(records: Iterable[UnansweredRecord], now: datetime) -> UnansweredRecord:
    """Return what records have together, within the limits of one.

    Each is checked before it is merged: what is too old, or a wrong clock wrote, must not displace
    anything.
    """
    merged = EMPTY
    for record in records:
        merged = trimmed(merge(merged, recent(record, now)))
    return merged


def has_news(record: UnansweredRecord, heard: UnansweredRecord) -> bool:
    """Whether `heard` has kinds or occurrences that are not in a record, and not only times."""
    for kind, unanswered in heard.kinds.items():
        before = record.kinds.get(kind)
        if before is None or any(key not in before.occurrences for key in unanswered.occurrences):
            return True
    return False


def trimmed(record: UnansweredRecord) -> UnansweredRecord:
    """Drop kinds and occurrences, as far as a record exceeds its limits."""
    kinds, dropped_until = record.kinds, record.dropped_until
    if len(kinds) > MAX_KINDS:
        kept = nlargest(MAX_KINDS, kinds, key=lambda kind: (kinds[kind].last, kind))
        remaining = {kind: kinds[kind] for kind in kept}
        dropped = (kinds[kind].last for kind in kinds if kind not in remaining)
        dropped_until = max(dropped_until, *dropped)
        kinds = remaining
    limit = _occurrence_limit([len(unanswered.occurrences) for unanswered in kinds.values()])
    long = [kind for kind, unanswered in kinds.items() if len(unanswered.occurrences) > limit]
    if long:
        kinds = {**kinds, **{kind: _with_fewer(kinds[kind], limit) for kind in long}}
    return record if kinds is record.kinds else UnansweredRecord(kinds, dropped_until)


def _occurrence_limit(numbers: Sequence[int]) -> int:
    """Return the number of occurrences that kinds may have, so that all together fit."""
    left = _MAX_ALL_OCCURRENCES
    if sum(numbers) > left:
        ascending = sorted(numbers)
        for index, number in enumerate(ascending):
            share = left // (len(ascending) - index)
            if number > share:
                return min(share, MAX_OCCURRENCES)
            left -= number
    return MAX_OCCURRENCES


def recent(record: UnansweredRecord, now: datetime) -> UnansweredRecord:
    """Forget what was not heard in the last 24 hours, and times that a wrong clock wrote."""
    oldest, newest = _oldest(now), seconds_of(now) + _CLOCK_TOLERANCE_SECONDS
    kinds: dict[AlertKind, Unanswered] = {}
    for kind, unanswered in record.kinds.items():
        if (remaining := _recent_kind(unanswered, oldest, newest)) is not None:
            kinds[kind] = remaining
    dropped_until = record.dropped_until if record.dropped_until <= newest else 0
    return UnansweredRecord(kinds, dropped_until)


def _recent_kind(unanswered: Unanswered, oldest: int, newest: int) -> Unanswered | None:
    occurrences = {
        key: heard
        for key, heard in unanswered.occurrences.items()
        if oldest <= heard.last <= newest
    }
    if not occurrences:
        return None
    sample = unanswered.sample
    if not oldest <= sample.heard_at <= newest:
        sample = replace(sample, heard_at=max(heard.last for heard in occurrences.values()))
    first = min(unanswered.first, sample.heard_at)
    dropped_until = unanswered.dropped_until if unanswered.dropped_until <= newest else 0
    if (
        len(occurrences) == len(unanswered.occurrences)
        and sample is unanswered.sample
        and (first, dropped_until) == (unanswered.first, unanswered.dropped_until)
    ):
        return unanswered  # (keeps the memory of an unchanged kind shared)
    return Unanswered(first, sample, occurrences, dropped_until)


def most_recent(record: UnansweredRecord) -> list[tuple[AlertKind, Unanswered]]:
    """Return the kinds of a record, the most recently heard first."""
    return sorted(record.kinds.items(), key=lambda entry: (-entry[1].last, entry[0]))


def without_last(record: UnansweredRecord, kept: Sequence[AlertKind]) -> UnansweredRecord:
    """Drop all kinds but some, which were heard more recently than the others."""
    kinds = {kind: record.kinds[kind] for kind in kept}
    dropped = (record.kinds[kind].last for kind in record.kinds if kind not in kinds)
    return UnansweredRecord(kinds, max(record.dropped_until, max(dropped, default=0)))


def seconds_of(time: datetime | None) -> int:
    """Return a time as it is recorded; 0 for none."""
    return int(time.timestamp()) if time else 0


def cut_values(values: Mapping[str, str]) -> dict[str, str]:
    """Return the first labels or annotations, cut to what a sample may have."""
    cut: dict[str, str] = {}
    left = _MAX_CHARACTERS
    # The name of the alert first, because samples are useless without it.
    for name in sorted(values, key=lambda name: (name != "alertname", name)):
        if len(cut) == MAX_VALUES or left <= 0:
            break
        short = _cut(name, min(_MAX_VALUE_CHARACTERS, left))
        left -= len(short)
        cut[short] = value = _cut(values[name], min(_MAX_VALUE_CHARACTERS, left))
        left -= len(value)
    return cut


def _join(unanswered: Unanswered, other: Unanswered) -> Unanswered:
    occurrences = dict(unanswered.occurrences)
    for key, heard in other.occurrences.items():
        before = occurrences.get(key, heard)
        occurrences[key] = Heard(min(before.first, heard.first), max(before.last, heard.last))
    return Unanswered(
        min(unanswered.first, other.first),
        _later(unanswered.sample, other.sample),
        occurrences,
        max(unanswered.dropped_until, other.dropped_until),
    )


def _later(sample: Sample, other: Sample) -> Sample:
    if sample.heard_at != other.heard_at:
        return max(sample, other, key=lambda each: each.heard_at)
    # Any order will do, if all replicas use it.
    return sample if sample == other else max(sample, other, key=_text)


def _text(sample: Sample) -> str:
    return canonical_json(
        [
            sample.outcome,
            sample.message,
            dict(sample.labels),
            dict(sample.annotations),
            sample.start,
            sample.end,
            sample.generator_url,
            sample.is_cut,
        ]
    )


def _with_fewer(unanswered: Unanswered, limit: int) -> Unanswered:
    """Drop the occurrences with the highest digests."""
    occurrences = unanswered.occurrences
    kept = set(nsmallest(limit, occurrences))
    dropped = (heard.last for key, heard in occurrences.items() if key not in kept)
    return replace(
        unanswered,
        occurrences={key: heard for key, heard in occurrences.items() if key in kept},
        dropped_until=max(unanswered.dropped_until, *dropped),
    )


def _occurrence(
    alert: Alert | InvalidAlert, replica_labels: frozenset[str], now: int
) -> OccurrenceId:
    if isinstance(alert, InvalidAlert):
        # Alertmanager repeats it; only its position in the delivery may change.
        return OccurrenceId(incident_of({"": alert.problem}, replica_labels), 0)
    start = seconds_of(alert.starts_at) if alert.starts_at else now
    return OccurrenceId(incident_of(alert.labels, replica_labels), start)


def _sample(item: Item, now: int) -> Sample:
    alert = item.alert
    # Reasons have a text, which need not be recorded.
    repeats_reason = isinstance(item.reason, Reason) and item.message == item.reason.text
    message = "" if repeats_reason else _cut(item.message, MAX_MESSAGE_CHARACTERS)
    if isinstance(alert, InvalidAlert):
        labels = cut_values({"alertname": alert.name} if alert.name else {})
        return Sample(now, item.outcome.value, message, labels)
    labels, annotations = cut_values(alert.labels), cut_values(alert.annotations)
    url = alert.generator_url if len(alert.generator_url) <= _MAX_CHARACTERS else ""
    return Sample(
        now,
        item.outcome.value,
        message,
        labels,
        annotations,
        seconds_of(alert.starts_at),
        seconds_of(alert.ends_at),
        url,
        is_cut=labels != alert.labels
        or annotations != alert.annotations
        or url != alert.generator_url,
    )


def _oldest(now: datetime) -> int:
    return seconds_of(now - RETENTION)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + _CUT_MARK[:limit]
