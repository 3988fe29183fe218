from __future__ import annotations

import base64
import hashlib
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.alert import Occurrence, Status, incident_digest
from openfero_gitops.domain.timestamp import format_time, parse_time
from openfero_gitops.jobs.names import job_name, label_value
from tests.support.build import STARTS_AT, alert

if TYPE_CHECKING:
    from random import Random

LABELS = {"alertname": "PodCrashLooping", "pod": "web-1"}
MOMENT = datetime(2026, 11, 21, 3, 4, 5, 678_901, tzinfo=UTC)


def b32(text: str) -> str:
    """Return the SHA-256 of a text in unpadded lower-case base32."""
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def test_the_encoding_of_an_occurrence_is_frozen() -> None:
    """Jobs outlive releases, so the digest of an occurrence must not change."""
    firing = Occurrence(LABELS, Status.FIRING, MOMENT)

    assert firing.digest == "ficeibblhb3mu2qcqupoj5nrfmfpsoab6jw4pg6ub3wrkus2ox3q"
    assert firing.digest == b32(
        '["occurrence",[["alertname","PodCrashLooping"],["pod","web-1"]],'
        '1795230245678901,"firing",1]'
    )


def test_the_encoding_of_an_incident_is_frozen() -> None:
    """Jobs outlive releases, so the digest of an incident must not change."""
    resolved = Occurrence(LABELS, Status.RESOLVED, MOMENT, 7)

    assert resolved.incident == "im2owgwv6st4iricjn666w6hunjiqqmn6q5e7j5r4abbxppn4t2q"
    assert resolved.incident == b32(
        '["incident",[["alertname","PodCrashLooping"],["pod","web-1"]],"resolved"]'
    )
    assert resolved.incident == incident_digest(LABELS, Status.RESOLVED)


@pytest.mark.parametrize(
    ("occurrence", "encoded"),
    [
        (
            Occurrence({}, Status.RESOLVED, MOMENT, 3),
            '["occurrence",[],1795230245678901,"resolved",3]',
        ),
        (
            Occurrence({"b": 'ü"\\\n', "a": "☃"}, Status.FIRING, MOMENT),
            '["occurrence",[["a","☃"],["b","ü\\"\\\\\\n"]],1795230245678901,"firing",1]',
        ),
        (
            Occurrence({"a": "b"}, Status.FIRING, None, delivery="4f"),
            '["occurrence",[["a","b"]],"delivery 4f","firing",1]',
        ),
        (
            Occurrence({"a": "b"}, Status.FIRING, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
            '["occurrence",[["a","b"]],-1000000,"firing",1]',
        ),
    ],
)
def test_every_kind_of_occurrence_has_its_encoding(occurrence: Occurrence, encoded: str) -> None:
    """No labels, non-ASCII text, no start, a time before 1970: all are canonical JSON."""
    assert occurrence.digest == b32(encoded)


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
    st.randoms(use_true_random=False),
)
def test_the_order_of_labels_does_not_matter(labels: dict[str, str], random: Random) -> None:
    """One label set in any order is one occurrence and one incident."""
    items = list(labels.items())
    random.shuffle(items)
    occurrence = Occurrence(labels, Status.FIRING, MOMENT)
    other = Occurrence(dict(items), Status.FIRING, MOMENT)

    assert (occurrence.digest, occurrence.incident) == (other.digest, other.incident)


@given(st.dictionaries(st.text("ab=,"), st.text("ab=,"), max_size=3))
def test_a_digest_fits_a_label(labels: dict[str, str]) -> None:
    """A digest has 52 characters that are valid in a label value."""
    digest = Occurrence(labels, Status.FIRING, MOMENT).digest

    assert len(digest) == 52
    assert set(digest) <= set(string.ascii_lowercase + string.digits)


@given(st.lists(st.dictionaries(st.text("ab"), st.text("ab")), min_size=2, max_size=2))
def test_other_labels_are_another_incident(pair: list[dict[str, str]]) -> None:
    """Two label sets share an incident only if they are equal."""
    left, right = (incident_digest(labels, Status.FIRING) for labels in pair)

    assert (left == right) is (pair[0] == pair[1])


def test_a_microsecond_is_another_occurrence_of_the_same_incident() -> None:
    """The start counts to the microsecond, and only for the occurrence."""
    occurrence = Occurrence(LABELS, Status.FIRING, MOMENT)
    other = Occurrence(LABELS, Status.FIRING, MOMENT + timedelta(microseconds=1))

    assert occurrence.digest != other.digest
    assert occurrence.incident == other.incident


def test_the_time_zone_does_not_matter() -> None:
    """One moment in two time zones is one occurrence."""
    in_kathmandu = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=45)))

    assert (
        Occurrence(LABELS, Status.FIRING, MOMENT).digest
        == Occurrence(LABELS, Status.FIRING, in_kathmandu).digest
    )


def test_status_and_attempt_are_part_of_an_occurrence() -> None:
    """Attempts share an incident; statuses do not."""
    first = Occurrence(LABELS, Status.FIRING, MOMENT)
    second = Occurrence(LABELS, Status.FIRING, MOMENT, 2)
    resolved = Occurrence(LABELS, Status.RESOLVED, MOMENT)

    assert len({first.digest, second.digest, resolved.digest}) == 3
    assert first.incident == second.incident != resolved.incident


def test_without_a_start_each_delivery_is_an_occurrence() -> None:
    """An alert without startsAt is never a repetition of an earlier one."""
    occurrence = Occurrence(LABELS, Status.FIRING, None, delivery="a")
    other = Occurrence(LABELS, Status.FIRING, None, delivery="b")

    assert occurrence.digest != other.digest
    assert occurrence.incident == other.incident


def test_with_a_start_the_delivery_does_not_matter() -> None:
    """A repeated delivery is the same occurrence."""
    occurrence = Occurrence(LABELS, Status.FIRING, MOMENT, delivery="a")
    other = Occurrence(LABELS, Status.FIRING, MOMENT, delivery="b")

    assert occurrence.digest == other.digest


def test_an_alert_without_a_name_has_an_empty_one() -> None:
    """The label alertname is optional."""
    assert alert(labels={"pod": "web-1"}).name == ""
    assert alert().name == "PodCrashLooping"


# Times.


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-11-21T03:03:35.678901Z", 0),
        ("2026-11-21T03:03:35.678901999Z", 0),
        ("2026-11-21T04:03:35.678901+01:00", 0),
        ("2026-11-20T21:33:35.678901-05:30", 0),
        ("2026-11-21T03:03:35.6Z", -78_901),
        ("2026-11-21T03:03:35Z", -678_901),
    ],
)
def test_a_time_is_parsed_to_the_microsecond_in_utc(text: str, microseconds: int) -> None:
    """Offsets are applied and finer fractions are cut off."""
    assert parse_time(text) == STARTS_AT + timedelta(microseconds=microseconds)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "2026-11-21T03:03:35",
        "soon",
        "2026-13-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9000-01-01T00:00:00Z",
        "0999-12-31T23:59:59Z",
        "1000-01-01T00:00:00+01:00",
    ],
)
def test_an_invalid_time_is_none(text: str | None) -> None:
    """Empty text, Go's zero time, a time without an offset and distant years are invalid."""
    assert parse_time(text) is None


@given(st.datetimes(datetime(1000, 1, 1), datetime(8999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_formatted_time_is_parsed_to_the_same(moment: datetime) -> None:
    """Nothing is lost between format_time and parse_time."""
    assert parse_time(format_time(moment)) == moment


# Names that are made from alerts.


@pytest.mark.parametrize(
    ("labels", "status", "slug"),
    [
        (LABELS, Status.FIRING, "podcrashlooping-firing"),
        ({}, Status.RESOLVED, "alert-resolved"),
        ({"alertname": "…"}, Status.FIRING, "alert-firing"),
        ({"alertname": "  Disk is  FULL! "}, Status.FIRING, "disk-is-full-firing"),
        ({"alertname": "42"}, Status.FIRING, "42-firing"),
        ({"alertname": "A" * 80}, Status.FIRING, "a" * 28 + "-firing"),
        ({"alertname": "A" * 80}, Status.RESOLVED, "a" * 26 + "-resolved"),
        ({"alertname": "a" * 27 + " b"}, Status.FIRING, "a" * 27 + "-firing"),
        ({"alertname": "Größe"}, Status.FIRING, "gr-e-firing"),
    ],
)
def test_a_job_is_named_after_alert_status_and_occurrence(
    labels: dict[str, str], status: Status, slug: str
) -> None:
    """At most 35 characters of name and status come before 16 of the digest."""
    occurrence = Occurrence(labels, status, MOMENT)

    assert job_name(occurrence) == f"{slug}-{occurrence.digest[:16]}"
    assert len(slug) <= 35


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(Status))
def test_any_alert_name_gives_a_valid_job_name(name: str, status: Status) -> None:
    """A Job's name is a DNS label of at most 52 characters."""
    made = job_name(Occurrence({"alertname": name}, status, MOMENT))

    assert len(made) <= 52
    assert set(made) <= set(string.ascii_lowercase + string.digits + "-")
    assert made[0] != "-"
    assert f"-{status.value}-" in made


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("Pod_Crash.Looping-1", "Pod_Crash.Looping-1"),
        ("Disk is full", "Disk-is-full"),
        ('{}:{alertname="x"}', "alertname-x"),
        ("a" * 64, "a" * 63),
        ("a" * 62 + "!b", "a" * 62),
        ("a\n", "a"),
        ("…", ""),
    ],
)
def test_text_becomes_the_nearest_label_value(text: str, value: str) -> None:
    """A valid label value is kept; other text is replaced, cut and trimmed."""
    assert label_value(text) == value


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_becomes_a_valid_label_value(text: str) -> None:
    """It has at most 63 characters and starts and ends with a letter or digit."""
    plain = set(string.ascii_letters + string.digits)
    made = label_value(text)

    assert len(made) <= 63
    assert set(made) <= plain | set("._-")
    assert made == "" or {made[0], made[-1]} <= plain
