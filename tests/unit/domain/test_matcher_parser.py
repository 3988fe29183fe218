from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.matcher_parser import MatcherError, parse_matchers

EQUAL, NOT_EQUAL = Operator.EQUAL, Operator.NOT_EQUAL
MATCHES, NOT_MATCHES = Operator.MATCHES, Operator.NOT_MATCHES

# What Alertmanager 0.31 makes of a text, in its default (fallback) mode.
READ = [
    ("", []),
    ("{}", []),
    ('{a="b", c=~"d.*"}', [("a", EQUAL, "b"), ("c", MATCHES, "d.*")]),
    ('a="b",c=~"d.*"', [("a", EQUAL, "b"), ("c", MATCHES, "d.*")]),
    ("a=b", [("a", EQUAL, "b")]),
    (" a != b , c!~d ", [("a", NOT_EQUAL, "b"), ("c", NOT_MATCHES, "d")]),
    ("a=b,", [("a", EQUAL, "b")]),
    ('a="b,c"', [("a", EQUAL, "b,c")]),
    ("a=", [("a", EQUAL, "")]),
    ('a=""', [("a", EQUAL, "")]),
    ("{a=b", [("a", EQUAL, "b")]),
    ("a=b c", [("a", EQUAL, "b c")]),
    (r'a=~"\d+"', [("a", MATCHES, r"\d+")]),
    (r'a="say \"hi\"\n\\"', [("a", EQUAL, 'say "hi"\n\\')]),
    (r'a=~"\d,\w",b=c', [("a", MATCHES, r"\d,\w"), ("b", EQUAL, "c")]),
    (r'a=~"\d\"",b=c', [("a", MATCHES, r'\d"'), ("b", EQUAL, "c")]),
    (r'"\ud7ff\ue000"=x', [("\ud7ff\ue000", EQUAL, "x")]),
    ("a:b=c", [("a:b", EQUAL, "c")]),
    ('"a.b"="c"', [("a.b", EQUAL, "c")]),
    ("a.b=c", [("a.b", EQUAL, "c")]),
    ('{"größe"=~"l|xl"}', [("größe", MATCHES, "l|xl")]),
    (r'"\u00fc\x41\101"=x', [("üAA", EQUAL, "x")]),
    (r'"\xc3\xa9"=x', [("é", EQUAL, "x")]),
    ('"a b"="c",d=e', [("a b", EQUAL, "c"), ("d", EQUAL, "e")]),
]
REFUSED = [
    ("a", "unexpected end: expected =, !=, =~ or !~", 1),
    ("=b", "unexpected '=': expected a label name", 0),
    ("a.b=", "unexpected end: expected a value in double quotes", 4),
    ('"a.b"="c', "missing closing quotation mark", 6),
    ('{"a.b"=c', "unexpected end: expected a comma or }", 8),
    ('"a.b"=c}', "unexpected '}': expected a comma", 7),
    ('{"a.b"=c} d', "unexpected 'd': expected the end", 10),
    ('"a.b"=c d=e', "unexpected 'd': expected a comma", 8),
    (r'"a.b"="\d"', r"\d is not an escape", 7),
    (r'"a.b"="\400"', r"\400 is not an escape", 7),
    (r'"a.b"="\ud800"', r"\ud800 is not an escape", 7),
    (r'"a.b"="\xff"', "not valid UTF-8", 6),
    ('"a.b"="c\nd"', "must not contain a line break", 6),
    ('"a.b"=~"("', "invalid regular expression", 7),
    ("a=~(b", "missing closing )", 3),
    ("a ~ b", "unexpected '~': expected =, !=, =~ or !~", 2),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_reads_what_alertmanager_reads(
    text: str, expected: list[tuple[str, Operator, str]]
) -> None:
    """A text gives the matchers that Alertmanager reads in it."""
    parsed = [(matcher.name, matcher.operator, matcher.value) for matcher in parse_matchers(text)]
    assert parsed == expected


@pytest.mark.parametrize(("text", "message", "position"), REFUSED)
def test_refuses_with_a_position(text: str, message: str, position: int) -> None:
    """A text that Alertmanager refuses is refused with what is wrong and at which character."""
    with pytest.raises(MatcherError) as refusal:
        parse_matchers(text)
    assert message in str(refusal.value)
    assert refusal.value.position == position


def test_an_absent_label_counts_as_the_empty_text() -> None:
    """A matcher sees no difference between a label that is absent and one that is empty."""
    assert all(matcher.matches({}) for matcher in parse_matchers('a="",b!="x",c=~"x?",d!~"x+"'))


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
            st.sampled_from([EQUAL, NOT_EQUAL]),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_written_is_read_back(parts: list[tuple[str, Operator, str]]) -> None:
    """Matchers written as text and read again are the same matchers."""
    matchers = tuple(Matcher(*part) for part in parts)
    assert parse_matchers("{" + ", ".join(map(str, matchers)) + "}") == matchers


@given(st.text(alphabet="ab.{}=!~,\"\\'` \nxu0é1", max_size=25))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever an author writes is read, or refused at a place inside of it."""
    position = 0
    try:
        parse_matchers(text)
    except MatcherError as refusal:
        position = refusal.position
    assert 0 <= position <= len(text)
