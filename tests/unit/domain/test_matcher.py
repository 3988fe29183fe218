from __future__ import annotations

import contextlib
import pickle
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.matcher import Matcher, Operator, RegexError

# What Go 1.26 answers to regexp.MatchString("^(?:" + pattern + ")$", text).
GO = [
    ("", "", True),
    ("", "a", False),
    ("web-.*", "web-1", True),
    ("web-.*", "my-web-1", False),
    ("a|b", "b", True),
    ("/|/var|/var/(lib|log)(/.*)?", "/var/lib/kubelet", True),
    ("/|/var|/var/(lib|log)(/.*)?", "/var/spool", False),
    (".", "\n", False),
    ("(?s).", "\n", True),
    ("[^a]", "\n", True),
    ("a$", "a\n", False),
    ("(?m)a$\nb", "a\nb", True),
    ("(?m)^b", "b", True),
    (r"\s", "\v", False),
    (r"[\s]", "\v", False),
    (r"\S", "\v", True),
    (r"\d", "٣", False),
    (r"\w", "é", False),
    (r"[[:alpha:]_]+", "ab_", True),
    (r"[[:^digit:]]", "7", False),
    (r"\Qa.b\E", "a.b", True),
    (r"\Qa.b\E", "axb", False),
    (r"\x41\x{e9}\101", "AéA", True),
    ("(?i)straße", "STRAẞE", True),
    ("(?i)k", "\u212a", True),
    ("(?i)[a-z]", "\u017f", True),
    (r"(?i)\W", "k", False),
    ("(?i)[^k]", "\u212a", False),
    ("(?i)\u03c3", "\u03c2", True),
    ("a(?i)b|c", "aB", True),
    ("a(?i)b|c", "C", True),
    ("a(?i)b|c", "AB", False),
    ("(?i:a)b", "Ab", True),
    ("(?i:a)b", "AB", False),
    ("x{2}", "xx", True),
    ("x{,2}", "x{,2}", True),
    ("x{02}", "x{02}", True),
    ("x{1,}", "xxxx", True),
    ("x{0}", "", True),
    ("(a*)*", "aaa", True),
    (r"a\b.*", "a-b", True),
    (r"a\b.*", "ab", False),
    (r"a\B.*", "ab", True),
    (r"\Aa\z", "a", True),
    ("[]a]", "]", True),
    ("[a-]", "-", True),
    ("(?P<n>a)(?<m>b)", "ab", True),
    ("(?U)a+?", "aa", True),
    ("^*a", "a", True),
    ("}]", "}]", True),
    ("a|b|", "", True),
    (r"\pL+", "é\u03b1", True),
    (r"\p{Greek}", "\u03b1", True),
    (r"\p{Greek}", "a", False),
    (r"\P{Greek}", "a", True),
    (r"[\p{^Lu}]", "A", False),
    ("(?P<n>a)(?P<n>b)", "ab", True),
    (r"\Q\C\E", r"\C", True),
    (r"\\C", r"\C", True),
    ("(" * 101 + "a" + ")" * 101, "a", True),
    ("(((a{10}){10}){10})", "a" * 1000, True),
    (".", "\0", True),
    (".", "🙈", True),
]
REFUSED = [
    ("(", "missing closing )"),
    ("a)", "unexpected )"),
    ("a)|(?:b", "unexpected )"),
    ("[a", "missing closing ]"),
    ("[b-a]", "invalid character class range 'b-a'"),
    ("*a", "missing argument to repetition operator '*'"),
    ("a|{2}", "missing argument to repetition operator '{2}'"),
    ("a**", "invalid nested repetition operator '**'"),
    ("a{1001}", "invalid repeat count '{1001}'"),
    ("a{3,2}", "invalid repeat count '{3,2}'"),
    ("((((){1000}){1000}){1000}){1000}", "invalid repeat count '{1000}'"),
    (r"(a)\1", r"invalid escape sequence '\\1'"),
    (r"\Za", r"invalid escape sequence '\\Z'"),
    (r"[\b]", r"invalid escape sequence '\\b'"),
    (r"\x4", "invalid escape sequence"),
    (r"a\C", r"invalid escape sequence '\C'"),
    ("a\\", "trailing backslash at end of expression"),
    (r"a\p{Klingon}", r"invalid character class range '\\p{Klingon}'"),
    (r"\Qa", r"\Q without \E"),
    (r"\Qa\Eb\Q\\" + "\n", r"\Q without \E"),
    ("(?=a)", "invalid or unsupported Perl syntax '(?='"),
    ("(?<!a)", "invalid or unsupported Perl syntax '(?<!'"),
    ("(?#a)", "invalid or unsupported Perl syntax '(?#'"),
    ("(?P<a b>x)", "invalid named capture group '(?P<a b>'"),
    ("[[:letter:]]", "invalid character class range '[:letter:]'"),
    (r"\pL{100}", "expression is too large"),
    ("\ud800", "invalid UTF-8"),
]


def matches(pattern: str, text: str) -> bool:
    """Whether a matcher with a regular expression matches a label's value."""
    return Matcher("a", Operator.MATCHES, pattern).matches({"a": text})


@pytest.mark.parametrize(("pattern", "text", "expected"), GO)
def test_matches_as_go_does(pattern: str, text: str, *, expected: bool) -> None:
    """A pattern matches exactly the texts that Go's regexp matches, anchored at both ends."""
    assert matches(pattern, text) is expected


@pytest.mark.parametrize(("pattern", "message"), REFUSED)
def test_refuses_an_invalid_pattern(
    pattern: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pattern that Go refuses, or that is too large, is refused; RE2 itself prints nothing."""
    with pytest.raises(RegexError) as refusal:
        Matcher("a", Operator.MATCHES, pattern)
    assert str(refusal.value) == message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+", "a" * 5000 + "!"),
        ("(a|a|a)*b", "a" * 20_000),
        ("(.*)(.*)(.*)(.*)x", "y" * 20_000),
        ("(x?){500}", "x" * 501),
        ("(?:.*a.{15})", ("ab" * 3 + "b" * 9) * 5000),
    ],
)
def test_takes_time_linear_in_the_text(pattern: str, text: str) -> None:
    """A pattern for which backtracking takes exponential time is matched quickly."""
    began = time.process_time()
    assert matches(pattern, text) is False
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("pattern", "expected"), [("a.b", True), ("a\ufffdb", True), (r"a\?b", False)]
)
def test_reads_a_lone_surrogate_as_go_does(pattern: str, *, expected: bool) -> None:
    """A lone surrogate in a value, which UTF-8 cannot contain, matches as U+FFFD."""
    assert matches(pattern, "a\ud83db") is expected


def test_an_absent_label_is_empty() -> None:
    """A regular expression is matched with the empty text if the label is absent."""
    assert Matcher("a", Operator.MATCHES, ".*").matches({})
    assert Matcher("a", Operator.NOT_MATCHES, ".+").matches({})


def test_can_be_compared_hashed_and_pickled() -> None:
    """Only name, operator and text count."""
    matcher = Matcher("a", Operator.MATCHES, "b.*")
    copied = pickle.loads(pickle.dumps(matcher))  # noqa: S301
    assert copied == matcher
    assert hash(copied) == hash(matcher)
    assert copied.matches({"a": "bc"})


@given(
    st.lists(st.sampled_from(["a", "b", "[ab]", "(a|b)", "(?:ba)", "a*", "b?", "a+", "c{1,2}"])),
    st.text("abc", max_size=8),
)
def test_agrees_with_re_where_re_agrees_with_go(parts: list[str], text: str) -> None:
    """For syntax that both have in common, the result is that of Python's re."""
    pattern = "".join(parts)
    assert matches(pattern, text) is (re.fullmatch(pattern, text) is not None)


@given(
    st.text(alphabet="ab(|)*+?{1,2}[^-]\\dwsQECpL.$:iPx\0\ud800", max_size=20),
    st.text(st.characters(), max_size=5),
)
def test_any_text_is_a_pattern_or_is_refused(pattern: str, text: str) -> None:
    """Any text compiles or raises RegexError."""
    with contextlib.suppress(RegexError):
        matches(pattern, text)
