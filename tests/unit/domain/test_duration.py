from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.duration import format_age, format_duration, parse_duration


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
def test_a_duration_is_parsed_as_in_prometheus(text: str, value: timedelta) -> None:
    """Units go from the largest to the smallest; only 0 needs none."""
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-1m", "+1m", "1.5h", "1m1h", "1h 30m", "1H", "1h30", "1m1m", "1us", "٣s", "ms"],
)
def test_an_invalid_duration_is_refused(text: str) -> None:
    """Signs, fractions, wrong order, spaces, other units and other digits are errors."""
    with pytest.raises(ValueError, match="is not a duration: write a number with a unit"):
        parse_duration(text)


def test_a_bare_number_is_refused_with_a_hint() -> None:
    """The error says how to write a number with a unit."""
    with pytest.raises(ValueError, match=r"'300' is not a duration.*for example 300s or 300m"):
        parse_duration("300")


@pytest.mark.parametrize("text", ["3651d", "999999999999999999y", "11y", "1y" * 15, "9" * 39 + "d"])
def test_more_than_ten_years_are_refused(text: str) -> None:
    """Numbers of any size are refused without calculating with them."""
    with pytest.raises(ValueError, match=r"longer than ten years|is not a duration"):
        parse_duration(text)


def test_a_long_text_is_refused_without_repeating_it() -> None:
    """The error is short, whatever the text."""
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
def test_a_duration_is_formatted_without_zero_units(value: timedelta, text: str) -> None:
    """Fractions of milliseconds are rounded."""
    assert format_duration(value) == text


@given(st.integers(0, 3650 * 86_400_000).map(lambda count: timedelta(milliseconds=count)))
def test_a_formatted_duration_is_parsed_to_the_same(value: timedelta) -> None:
    """Nothing is lost between format_duration and parse_duration."""
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (timedelta(seconds=-3), "0s"),
        (timedelta(0), "0s"),
        (timedelta(seconds=59.9), "59s"),
        (timedelta(minutes=3, seconds=20), "3m20s"),
        (timedelta(minutes=9), "9m"),
        (timedelta(minutes=10, seconds=20), "10m"),
        (timedelta(hours=5, seconds=50), "5h"),
        (timedelta(hours=5, minutes=7), "5h7m"),
        (timedelta(days=2, hours=4, minutes=5), "2d4h"),
        (timedelta(days=400, minutes=5), "400d"),
    ],
)
def test_an_age_has_at_most_two_units(given: timedelta, text: str) -> None:
    """The units that matter for its size."""
    assert format_age(given) == text
