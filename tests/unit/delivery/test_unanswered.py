"""The record of alerts without a Job: what is counted, how records are merged, and their limits."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfero_gitops.delivery import unanswered
from openfero_gitops.delivery.unanswered import (
    EMPTY,
    MAX_KINDS,
    MAX_OCCURRENCES,
    AlertKind,
    Heard,
    OccurrenceId,
    Sample,
    Unanswered,
    UnansweredRecord,
    has_news,
    has_no_job,
    merge,
    merge_all,
    recent,
    record_of,
    seconds_of,
    trimmed,
)
from openfero_gitops.delivery.unanswered_text import (
    MAX_BYTES,
    MAX_PLAIN_BYTES,
    UnreadableShare,
    read_record,
    write_record,
)
from openfero_gitops.domain.alert import InvalidAlert, Status
from openfero_gitops.domain.answer import Item
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from tests.support import build

if TYPE_CHECKING:
    from datetime import datetime

NOW = build.NOW
DAY = timedelta(hours=24)
#: The latest time that a text may have.
MAX_SECONDS = 221_845_392_000


def item(**given_alert: Any) -> Item:
    """An alert that no operario answers."""
    reason = Reason.NO_OPERARIO
    return Item(build.alert(**given_alert), Outcome.NO_MATCH, reason, reason.text)


def heard(*items: Item, at: datetime = NOW) -> UnansweredRecord:
    """The record of one delivery."""
    return record_of(items, at, REPLICA_LABELS)


def named(name: str, **labels: str) -> dict[str, str]:
    """The labels of an alert."""
    return {"alertname": name, **labels}


def counts(record: UnansweredRecord) -> dict[AlertKind, int]:
    """The number of occurrences by kind."""
    return {kind: len(each.occurrences) for kind, each in record.kinds.items()}


PODS = AlertKind("PodCrashLooping", "firing", "no-operario")

_TIMES = st.integers(0, 50).map(lambda number: seconds_of(NOW) - number)
_SAMPLES = st.builds(
    Sample,
    heard_at=_TIMES,
    outcome=st.sampled_from(["no-match", "error"]),
    message=st.sampled_from(["", "API server: no answer"]),
    labels=st.dictionaries(st.sampled_from("ab"), st.text(max_size=2), max_size=2),
    start=_TIMES,
    is_cut=st.booleans(),
)
_OCCURRENCES = st.dictionaries(
    st.builds(OccurrenceId, st.sampled_from("xyz"), st.integers(0, 2)),
    st.tuples(_TIMES, _TIMES).map(lambda times: Heard(*sorted(times))),
    min_size=1,
    max_size=4,
)
_KINDS = st.builds(
    AlertKind,
    st.sampled_from(["A", "B", ""]),
    st.sampled_from(["firing", "resolved", ""]),
    st.just("no-operario"),
)
_RECORDS = st.builds(
    UnansweredRecord,
    st.dictionaries(_KINDS, st.builds(Unanswered, _TIMES, _SAMPLES, _OCCURRENCES, _TIMES)),
    _TIMES,
)


@given(_RECORDS, _RECORDS, _RECORDS)
def test_records_merge_in_any_order_and_any_number_of_times(
    first: UnansweredRecord, second: UnansweredRecord, third: UnansweredRecord
) -> None:
    """Merging is commutative, associative and idempotent, so replicas agree."""
    assert merge(first, second) == merge(second, first)
    assert merge(merge(first, second), third) == merge(first, merge(second, third))
    assert merge(first, first) == merge(first, EMPTY) == merge(EMPTY, first) == first
    both = merge(first, second)
    assert merge(both, second) == both
    assert not has_news(both, first)


@given(_RECORDS)
def test_a_written_record_is_read_as_it_was(record: UnansweredRecord) -> None:
    """Nothing of a small record is lost."""
    data, written = write_record(record)
    assert written is record
    assert read_record(data) == record


def test_an_alert_that_two_replicas_hear_is_one_occurrence() -> None:
    """Neither repetitions nor replica labels count, and the times are those of all deliveries."""
    pair = [
        item(labels=named("PodCrashLooping", pod="web-1", prometheus_replica=each)) for each in "ab"
    ]
    later = NOW + timedelta(minutes=5)
    merged = merge(heard(pair[0], pair[1]), heard(pair[1], at=later))
    assert counts(merged) == {PODS: 1}
    times = next(iter(merged.kinds[PODS].occurrences.values()))
    assert times == (seconds_of(NOW), seconds_of(later))
    assert (merged.kinds[PODS].first, merged.kinds[PODS].last) == times


def test_other_labels_or_another_start_are_another_occurrence() -> None:
    """The count is that of alerts, as Alertmanager sees them."""
    again = item(starts_at=NOW + timedelta(minutes=1))
    other = item(labels=named("PodCrashLooping", pod="web-2"))
    assert counts(heard(item(), again, other, item())) == {PODS: 3}


def test_each_status_and_reason_is_counted_for_itself() -> None:
    """A resolved alert has the incident of the firing one, so that it can be recognised."""
    record = heard(
        item(),
        item(status=Status.RESOLVED),
        replace(item(), reason=Reason.DISABLED, message=Reason.DISABLED.text),
        replace(item(), outcome=Outcome.ERROR, reason=Reason.BUSY, message="no time"),
    )
    assert {(kind.status, kind.reason) for kind in record.kinds} == {
        ("firing", "no-operario"),
        ("resolved", "no-operario"),
        ("firing", "disabled"),
        ("firing", "busy"),
    }
    incidents = {key.incident for each in record.kinds.values() for key in each.occurrences}
    assert len(incidents) == 1
    messages = {kind.reason: each.sample.message for kind, each in record.kinds.items()}
    assert messages == {"no-operario": "", "disabled": "", "busy": "no time"}


def test_an_alert_that_cannot_be_read_is_recorded_with_its_problem() -> None:
    """Its position in the delivery does not matter; it has neither a status nor labels."""
    alert = InvalidAlert(0, "Odd", ("alerts", 0), "/alerts/0/startsAt", "is not a time")
    invalid = Item(
        alert, Outcome.INVALID, Reason.INVALID_ALERT, "/alerts/0/startsAt: is not a time"
    )
    moved = replace(invalid, alert=replace(alert, index=3, pointer="/alerts/3/startsAt"))
    record = heard(invalid, moved)
    kind = AlertKind("Odd", "", "invalid-alert")
    assert counts(record) == {kind: 1}
    assert record.kinds[kind].sample.labels == {"alertname": "Odd"}


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.CREATED, False),
        (Outcome.EXISTS, False),
        (Outcome.REFUSED, False),
        (Outcome.NO_MATCH, True),
        (Outcome.INVALID, True),
        (Outcome.ERROR, True),
    ],
)
def test_alerts_with_a_job_are_not_recorded(outcome: Outcome, *, expected: bool) -> None:
    """The Job shows that they came."""
    assert has_no_job(Item(build.alert(), outcome)) is expected


def test_the_latest_alert_is_the_sample() -> None:
    """Whatever the order in which the records are read."""
    old, new = (
        heard(item(fingerprint="old")),
        heard(item(annotations={"summary": "newer"}), at=NOW + timedelta(seconds=1)),
    )
    for merged in (merge(old, new), merge(new, old)):
        assert merged.kinds[PODS].sample.annotations == {"summary": "newer"}


def test_what_was_not_heard_for_a_day_is_forgotten() -> None:
    """Occurrences one by one, and the kind with its last one."""
    other = item(labels=named("PodCrashLooping", pod="web-2"))
    record = merge(heard(item()), heard(other, at=NOW + timedelta(hours=2)))
    assert counts(recent(record, NOW + DAY)) == {PODS: 2}
    assert counts(recent(record, NOW + DAY + timedelta(seconds=1))) == {PODS: 1}
    assert recent(record, NOW + DAY + timedelta(hours=3)) == EMPTY


def test_times_in_the_future_are_ignored() -> None:
    """A replica whose clock is wrong must not hide what others hear."""
    record = heard(item(), at=NOW + timedelta(hours=1))
    assert recent(record, NOW) == EMPTY
    assert counts(recent(record, NOW + timedelta(minutes=59))) == {PODS: 1}


def test_the_number_of_names_is_bounded() -> None:
    """The least recently received are dropped, and for a day the record counts as incomplete."""
    many = [item(labels=named(f"Alert{number}")) for number in range(MAX_KINDS)]
    record = trimmed(merge(heard(item()), heard(*many, at=NOW + timedelta(seconds=9))))
    assert len(record.kinds) == MAX_KINDS
    assert PODS not in record.kinds
    assert not record.is_complete(NOW + timedelta(hours=24))
    assert record.is_complete(NOW + timedelta(hours=24, seconds=1))


def test_the_number_of_occurrences_is_bounded() -> None:
    """The highest digests are dropped, and the count is not complete for a day."""
    pods = [item(labels=named("PodCrashLooping", pod=str(n))) for n in range(MAX_OCCURRENCES)]
    full = heard(*pods)
    assert trimmed(full) is full
    record = trimmed(merge(full, heard(item())))
    kept, dropped = record.kinds[PODS].occurrences, merge(full, heard(item())).kinds[PODS]
    assert len(kept) == MAX_OCCURRENCES
    assert max(kept) < max(dropped.occurrences)
    assert not record.kinds[PODS].is_complete(NOW + timedelta(hours=24))
    assert record.kinds[PODS].is_complete(NOW + timedelta(hours=24, seconds=1))


def test_kinds_with_few_occurrences_keep_them_and_the_others_share_the_rest() -> None:
    """So that the memory of all of them is bounded, too."""
    seconds = seconds_of(NOW)

    def kind(number: int) -> Unanswered:
        occurrences = {OccurrenceId("i", n): Heard(seconds, seconds) for n in range(number)}
        return Unanswered(seconds, Sample(seconds, "no-match"), occurrences)

    numbers = [1] * 1000 + [2000] * 19
    kinds = {PODS._replace(alertname=str(i)): kind(number) for i, number in enumerate(numbers)}
    record = merge_all([UnansweredRecord(kinds)], NOW)
    assert set(counts(record).values()) == {1, 1000}
    assert sum(counts(record).values()) == 20_000


def test_two_thousand_alerts_fit_firing_and_resolved() -> None:
    """With labels of the usual length, also in the text."""
    labels = {f"label-{n}": f"value of the label {n}" for n in range(12)}
    record = EMPTY
    for status in Status:
        alerts = [
            item(labels=named(f"Alert{n}", pod=f"web-{n}", **labels), status=status)
            for n in range(2000)
        ]
        record = merge(record, heard(*alerts))
    data, written = write_record(merge_all([record], NOW))
    assert len(written.kinds) == len(read_record(data).kinds) == 4000
    assert written.is_complete(NOW)


def test_a_record_with_times_in_the_future_displaces_nothing() -> None:
    """It is checked before it is merged: by occurrence, and also by sample."""
    ahead = heard(item(), at=NOW + timedelta(hours=2))
    far = Heard(MAX_SECONDS, MAX_SECONDS)
    forged = Unanswered(0, Sample(MAX_SECONDS, ""), {OccurrenceId("i", 0): far}, MAX_SECONDS)
    flood = UnansweredRecord(
        {PODS._replace(alertname=f"Forged{n}"): forged for n in range(MAX_KINDS)}, MAX_SECONDS
    )
    for records in ([heard(item()), ahead, flood], [flood, ahead, heard(item())]):
        assert merge_all(records, NOW) == heard(item())


def test_a_sample_from_the_future_does_not_hide_its_kind() -> None:
    """What the kind has of the past counts, as does that of a replica whose clock was corrected."""
    mixed = merge(heard(item()), heard(item(labels=named("PodCrashLooping", pod="2"))))
    mixed = merge(mixed, heard(item(labels=named("PodCrashLooping", pod="3")), at=NOW + DAY))
    kind = replace(mixed.kinds[PODS], dropped_until=MAX_SECONDS)
    checked = recent(UnansweredRecord({PODS: kind}), NOW).kinds[PODS]
    assert (len(checked.occurrences), checked.last) == (2, seconds_of(NOW))
    assert checked.is_complete(NOW)


_LONG = st.builds(
    lambda character, size: character * size,
    st.sampled_from(["x", "ß", "\u202e", "\U0001f525"]),
    st.sampled_from([0, 1, 255, 257, 513, 3000]),
)


@settings(max_examples=20)
@given(
    st.dictionaries(_LONG, _LONG, max_size=4),
    st.dictionaries(_LONG, _LONG, max_size=4),
    _LONG,
    _LONG,
)
def test_hostile_sizes_are_cut(
    labels: dict[str, str], annotations: dict[str, str], name: str, message: str
) -> None:
    """A sample has at most 4096 characters, says that it is cut, and can be read again."""
    hostile = item(labels={**labels, "alertname": name}, annotations=annotations)
    hostile = replace(hostile, message=message)
    record = heard(hostile)
    sample = next(iter(record.kinds.values())).sample
    values = (*sample.labels.items(), *sample.annotations.items())
    assert sum(len(key) + len(value) for key, value in values) <= 2 * 2048
    assert sample.is_cut == (
        sample.labels != hostile.alert.labels  # type: ignore[union-attr]
        or sample.annotations != annotations
    )
    data, _ = write_record(record)
    assert read_record(data) == record


def test_a_text_fits_in_a_config_map_whatever_the_alerts_are() -> None:
    """What was heard last is kept; what was written is returned."""
    random = Random(1)  # noqa: S311 - no secret

    def noise() -> str:
        return random.randbytes(1000).decode("utf-16", "replace")

    sample = Sample(0, "no-match", labels={})
    kinds = {
        AlertKind(str(n), "firing", "no-operario"): Unanswered(
            n,
            replace(sample, heard_at=n, labels={"a": noise()}),
            {OccurrenceId("i", n): Heard(n, n)},
        )
        for n in range(1, MAX_KINDS)
    }
    data, written = write_record(UnansweredRecord(kinds))
    assert len(data) <= MAX_BYTES
    assert read_record(data) == written
    assert 100 < len(written.kinds) < MAX_KINDS
    assert min(each.last for each in written.kinds.values()) == written.dropped_until + 1


def compressed(value: Any) -> bytes:
    """A text as it is stored."""
    return zlib.compress(json.dumps(value).encode())


def members(**changed: Any) -> dict[str, Any]:
    """A record of one alert, with other members."""
    data, _ = write_record(heard(item()))
    value: dict[str, Any] = json.loads(zlib.decompress(data))
    value["alerts"][0].update(changed)
    return value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "incomplete"),
        (b"alerts", "incorrect header"),
        (zlib.compress(b"{}")[:-3], "incomplete"),
        (zlib.compress(b"[" * 100_000), "recursion"),
        (zlib.compress(b" " * (MAX_PLAIN_BYTES + 1)), "too large"),
        (zlib.compress(b"\xff"), "decode"),
        (compressed([]), "format"),
        (compressed({"format": 2, "alerts": []}), "format"),
        (compressed({"format": 1, "droppedUntil": 0}), "list of alerts"),
        (compressed({"format": 1, "droppedUntil": -1, "alerts": []}), "time"),
        (compressed(members(first=True)), "time"),
        (compressed(members(first=1e300)), "time"),
        (compressed(members(first=10**30)), "time"),
        (compressed(members(alertname=None)), "alertname"),
        (compressed(members(occurrences={})), "occurrences"),
        (compressed(members(occurrences=[["i", 1, 2]])), "occurrence"),
        (compressed(members(sample=[])), "object"),
        (compressed(members(sample={"heardAt": 1})), "outcome"),
    ],
)
def test_a_forged_text_is_refused(data: bytes, why: str) -> None:
    """The message says what is wrong; nothing else is raised, and little memory is needed."""
    with pytest.raises(UnreadableShare, match=why):
        read_record(data)


def test_reading_cuts_what_writing_would_have_cut() -> None:
    """A forged record is no larger than one that a replica writes."""
    value = members(alertname="x" * 9999, occurrences=[["i" * 99, n, n, n] for n in range(3000)])
    value["alerts"] = [*value["alerts"]] * 3
    record = read_record(compressed(value))
    ((kind, each),) = record.kinds.items()
    assert len(kind.alertname) == unanswered.MAX_NAME_CHARACTERS
    assert len(each.occurrences) == MAX_OCCURRENCES
    assert {len(key.incident) for key in each.occurrences} == {unanswered.INCIDENT_CHARACTERS}
