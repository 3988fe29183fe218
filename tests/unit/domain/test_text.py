from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.text import (
    canonical_bytes,
    canonical_json,
    did_you_mean,
    is_printable,
    nearest,
    pretty_json,
    printable,
    printable_lines,
    quoted,
    shown,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("web-1", '"web-1"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a\nb\x1b[31m\u202e", '"a\\nb\\x1b[31m\\u202e"'),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": ["\u202e"]}, '{"a": ["\\u202e"]}'),
        ("x" * 61, f'"{"x" * 60}…"'),
        (["x" * 61], f'["{"x" * 58}…'),
    ],
)
def test_values_are_shown_as_json_on_one_line(value: object, text: str) -> None:
    """A value in a message is JSON, contains no control characters and is cut."""
    assert shown(value) == text


def test_untrusted_text_is_printed_on_one_line() -> None:
    """Control and bidirectional characters are escaped, other characters are kept."""
    assert printable("café\r\n\u2028") == "café\\r\\n\\u2028"
    assert printable("abc", 2) == "ab…"
    assert quoted("abc", 2) == '"ab…"'


def test_lines_for_a_terminal_keep_tabs_and_line_breaks() -> None:
    """All other control characters are escaped; nothing is cut."""
    assert printable_lines("a\tb\nc\r\x1b[2J\x9b1m\u202e") == "a\tb\nc\\r\\x1b[2J\\x9b1m\\u202e"
    assert printable_lines("é" * 1000) == "é" * 1000


def test_json_holds_nothing_that_a_terminal_obeys() -> None:
    """C1 and bidirectional characters are escaped as in JSON; the value is the same."""
    value = {"message": "café \x1b[2J \x9b2J \u202e \x7f\n\t"}
    text = pretty_json(value)
    assert text == '{\n  "message": "café \\u001b[2J \\u009b2J \\u202e \\u007f\\n\\t"\n}'
    assert json.loads(text) == value


def test_suggestions_name_the_nearest_choice() -> None:
    """A similar choice is suggested, otherwise all of a few, otherwise nothing."""
    assert nearest("PAUZED", ["limits", "paused"]) == "paused"
    assert nearest("x", ["limits", "paused"]) == ""
    assert did_you_mean("limit", ["limits", "paused"]) == "did you mean limits?"
    assert did_you_mean("x", ["limits", "paused"]) == "write one of limits, paused"
    assert did_you_mean("x", map(str, range(9))) == ""


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\x00\x1f"\\/\x7f\u2028')
)


@given(
    st.recursive(
        TEXTS | st.integers() | st.none() | st.booleans(),
        lambda values: st.lists(values) | st.tuples(values) | st.dictionaries(TEXTS, values),
    )
)
def test_canonical_bytes_are_those_of_canonical_json(value: object) -> None:
    """Whatever texts and integers are recorded, the fast function spells them like the other."""
    assert canonical_bytes(value) == canonical_json(value).encode()


def test_canonical_bytes_of_half_a_character_cannot_be_made() -> None:
    """A lone surrogate is an error, as it is where `canonical_json` is encoded."""
    with pytest.raises(UnicodeEncodeError):
        canonical_bytes(["\ud800"])


@given(st.text())
def test_text_that_is_printed_as_it_is_has_nothing_to_escape(text: str) -> None:
    """The quick check for printable text agrees with the characters that are escaped."""
    assert (printable(text, len(text)) == text) == is_printable(text)
