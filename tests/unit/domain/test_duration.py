from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
        ("1h30m", timedelta(minutes=90)),
        ("90m", timedelta(minutes=90)),
        ("1d", timedelta(days=1)),
        ("2w", timedelta(weeks=2)),
        ("1y", timedelta(days=365)),
        ("15s500ms", timedelta(seconds=15.5)),
        ("1y2w3d4h5m6s7ms", timedelta(365 + 14 + 3, 6 + 5 * 60 + 4 * 3600, 0, 7)),
        ("007s", timedelta(seconds=7)),
        (" 10m ", timedelta(minutes=10)),
        ("3650d", timedelta(days=3650)),
    ],
)
def test_a_duration_is_read_as_prometheus_reads_it(text: str, value: timedelta) -> None:
    """Units follow each other from the largest to the smallest; 0 alone needs none."""
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-1m", "+1m", "1.5h", "1m1h", "1h 30m", "1H", "1h30", "1m1m", "1us", "٣s", "ms"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Signs, fractions, wrong order, spaces, other units and other digits are errors."""
    with pytest.raises(ValueError, match="is not a duration: write a number with a unit"):
        parse_duration(text)


def test_a_bare_number_is_refused_with_a_hint() -> None:
    """A number without a unit is not guessed at; the error says how to write it."""
    with pytest.raises(ValueError, match=r"'300' is not a duration.*for example 300s or 300m"):
        parse_duration("300")


@pytest.mark.parametrize("text", ["3651d", "999999999999999999y", "11y", "1y" * 15, "9" * 39 + "d"])
def test_nothing_lasts_longer_than_ten_years(text: str) -> None:
    """Numbers of any size are refused, not computed with."""
    with pytest.raises(ValueError, match=r"longer than ten years|is not a duration"):
        parse_duration(text)


def test_a_long_text_is_refused_without_repeating_it() -> None:
    """An error stays readable, whatever was written."""
    with pytest.raises(ValueError, match="is not a duration") as caught:
        parse_duration("9" * 1_000_000)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "0"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(days=8, milliseconds=1), "8d1ms"),
        (timedelta(seconds=59.9996), "1m"),
    ],
)
def test_a_duration_is_written_shortly(value: timedelta, text: str) -> None:
    """Units that are zero are left out; less than a millisecond is rounded."""
    assert format_duration(value) == text


@given(st.integers(0, 3650 * 86_400_000).map(lambda count: timedelta(milliseconds=count)))
def test_a_duration_that_was_written_is_read_back(value: timedelta) -> None:
    """Nothing is lost between format_duration and parse_duration."""
    assert parse_duration(format_duration(value)) == value
