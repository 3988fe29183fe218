from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.regex import Regex, RegexError

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
]
REFUSED = [
    ("(", "not closed", 0),
    ("a)", "closes no group", 1),
    ("[a", "not closed", 0),
    ("[b-a]", "backwards", 1),
    ("*a", "nothing to repeat", 0),
    ("a|+", "nothing to repeat", 2),
    ("{2}", "nothing to repeat", 0),
    ("a**", "repetition of a repetition", 2),
    ("a++", "repetition of a repetition", 2),
    ("a{1001}", "repeats more", 1),
    ("a{3,2}", "repeats more", 1),
    (r"(a)\1", "references back", 3),
    (r"\Z", "no escape", 0),
    (r"\pL", "Unicode classes", 0),
    (r"\C", "no escape", 0),
    (r"[\b]", "no escape", 1),
    ("a\\", "at the end", 1),
    (r"\x4", "by number", 0),
    (r"\x{110000}", "no such character", 0),
    (r"\Qa", "not closed by", 0),
    ("(?=a)", "no look-ahead", 0),
    ("(?<!a)", "no look-ahead", 0),
    ("(?>a)", "Go knows", 0),
    ("(?#a)", "Go knows", 0),
    ("(?P=n)", "Go knows", 0),
    ("(?-)", "Go knows", 0),
    ("(?P<a b>x)", "group's name", 0),
    ("(?P<n>x)(?P<n>y)", "named n", 8),
    ("[[:letter:]]", "no class", 1),
    ("(" * 101 + ")" * 101, "nest deeper", 100),
    ("(((a{10}){10}){10}){10}", "too large", 0),
    ("((((){1000}){1000}){1000}){1000}", "too large", 0),
]


@pytest.mark.parametrize(("pattern", "text", "expected"), GO)
def test_matches_as_go_does(pattern: str, text: str, *, expected: bool) -> None:
    """A pattern matches exactly the texts that Go's regexp matches, anchored at both ends."""
    assert Regex(pattern).fullmatch(text) is expected


@pytest.mark.parametrize(("pattern", "message", "position"), REFUSED)
def test_refuses_with_a_position(pattern: str, message: str, position: int) -> None:
    """A pattern that Go would refuse, or that is too large, is refused and says where."""
    with pytest.raises(RegexError, match=re.escape(message)) as refusal:
        Regex(pattern)
    assert refusal.value.position == position


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+", "a" * 5000 + "!"),
        ("(a|a|a)*b", "a" * 20_000),
        ("(.*)(.*)(.*)(.*)x", "y" * 20_000),
        ("(x?){500}", "x" * 501),
    ],
)
def test_takes_time_linear_in_the_text(pattern: str, text: str) -> None:
    """A pattern that sends a backtracking engine into exponential time is answered at once."""
    began = time.perf_counter()
    assert Regex(pattern).fullmatch(text) is False
    assert time.perf_counter() - began < 5


def test_forgets_what_it_learned_without_changing_its_answer() -> None:
    """Texts of more different characters than are remembered are matched all the same."""
    regex = Regex("[^x]*")
    everything = "".join(map(chr, range(0x100, 0x2000)))
    assert regex.fullmatch(everything)
    assert not regex.fullmatch(everything + "x")
    assert regex.fullmatch(everything)


@given(
    st.lists(st.sampled_from(["a", "b", "[ab]", "(a|b)", "(?:ba)", "a*", "b?", "a+", "c{1,2}"])),
    st.text("abc", max_size=8),
)
def test_agrees_with_re_where_re_agrees_with_go(parts: list[str], text: str) -> None:
    """On the syntax that both read alike, the answer is that of Python's re."""
    pattern = "".join(parts)
    assert Regex(pattern).fullmatch(text) is (re.fullmatch(pattern, text) is not None)


@given(st.text(alphabet="ab(|)*+?{1,2}[^-]\\dwsQE.$:iPx", max_size=20), st.text(max_size=5))
def test_any_text_is_a_pattern_or_is_refused(pattern: str, text: str) -> None:
    """Whatever an author writes compiles or is refused inside of its bounds, never otherwise."""
    position = 0
    try:
        Regex(pattern).fullmatch(text)
    except RegexError as refusal:
        position = refusal.position
    assert 0 <= position <= len(pattern)
