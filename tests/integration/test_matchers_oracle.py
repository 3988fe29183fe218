"""Compare our matchers with Alertmanager's by `amtool config routes test`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain.matcher_parser import MatcherError, parse_matchers
from tests.support.amtool import Amtool, require_amtool

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["a", "b", "a:b", "_c1", "größe", "a.b", "a b", "ü", "1a", "{", ""]
WORDS = ["", "a", "b", "web-1", "WEB-1", "x y", "größe", "a,b", "10.0.0.1", "\n", '"', "\\", "🙈"]
PATTERNS = [
    *("", ".*", ".+", "a|b", "(a|b)", "web-.*", "web-[0-9]+", "(?i)web-1", "[^a]*", "a?", "gr..e"),
    *(r"\d+\..*", r"(?s).", r".", r"\w+", r"web\-1", "^a$", "a$", "(", "[", "a{2,1}", "*", "(?=a)"),
    *(r"\bweb\b.*", "[[:alpha:]]+", "(?i)GRÖSSE|größe", r"\x61", "(?P<n>a)", "(a*)*", "x{0,1}.y"),
    *(r"\p{L}+", r"\P{Latin}", r"\C", r"\Qa", r"\Qa.b\E|a", "(?P<n>a)(?P<n>b)", "a)", "[[:foo:]]"),
]
#: Characters of generated text that is rarely a valid matcher.
PIECES = [
    *("a", "b", "a.b", "größe", '"', "'", "`", "\\", '\\"', "\\n", "\\x41", "\\u00fc", "\\377"),
    *("=", "!=", "=~", "!~", "!", "~", ",", "{", "}", " ", "\t", "\n", "\u00a0", "(", ".*", "1"),
    *('"a"', '"a b"', 'a="b"', "c=d", '"ü"="x"', "\\d", "\u2028", "🙈", "", "\v"),
]


@pytest.fixture(scope="module")
def amtool(tmp_path_factory: pytest.TempPathFactory) -> Amtool:
    """Return the real command."""
    folder: Path = tmp_path_factory.mktemp("amtool")
    return require_amtool(folder)


def quoted(text: str, draw: random.Random) -> str:
    """Return a value as users write it: quoted or unquoted."""
    if draw.random() < 0.3:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def written(draw: random.Random) -> str:
    """Return plausible matchers in either syntax, with and without braces."""
    parts = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        operator = draw.choice(["=", "!=", "=~", "!~"])
        value = draw.choice(PATTERNS if "~" in operator else WORDS)
        name = draw.choice(NAMES)
        name = quoted(name, draw) if draw.random() < 0.4 else name
        space = draw.choice(["", "", " "])
        parts.append(f"{space}{name}{space}{operator}{space}{quoted(value, draw)}{space}")
    text = ",".join(parts) + draw.choice(["", "", "", ","])
    return draw.choice(["{%s}", "{%s}", "%s", "%s", "{%s", "%s}"]) % text


def scribbled(draw: random.Random) -> str:
    """Return text that is rarely a matcher."""
    return "".join(draw.choices(PIECES, k=draw.randrange(9)))


def labels(draw: random.Random) -> dict[str, str]:
    """Return a label set of an alert."""
    names = [name for name in NAMES if name]
    return {name: draw.choice(WORDS) for name in draw.sample(names, draw.randrange(6))}


def read_by_us(text: str) -> bool:
    """Whether we accept a text."""
    try:
        parse_matchers(text)
    except MatcherError:
        return False
    return True


def texts(seed: int, count: int) -> list[str]:
    """Return so many texts, most of them plausible."""
    draw = random.Random(seed)  # noqa: S311 (the same cases in every run)
    made = [scribbled(draw) if draw.random() < 0.4 else written(draw) for _ in range(count)]
    return list(dict.fromkeys(made))


def test_alertmanager_accepts_and_matches_what_we_accept(amtool: Amtool) -> None:
    """Every text that we accept is accepted by Alertmanager, and matches the same label sets."""
    accepted = [text for text in texts(1, 3000) if read_by_us(text)]
    matchers = [parse_matchers(text) for text in accepted]
    draw = random.Random(2)  # noqa: S311
    sets = [{}, *(labels(draw) for _ in range(60))]
    matched = [
        {
            number
            for number, conditions in enumerate(matchers)
            if all(matcher.matches(label_set) for matcher in conditions)
        }
        for label_set in sets
    ]
    assert len(accepted) > 500
    for label_set, ours, expected in zip(
        sets, matched, amtool.matched(accepted, sets), strict=True
    ):
        assert {accepted[number] for number in ours ^ expected} == set(), label_set


def test_alertmanager_rejects_what_we_reject(amtool: Amtool) -> None:
    """Every text that we reject is rejected by Alertmanager."""
    refused = [text for text in texts(3, 600) if not read_by_us(text)][:150]
    assert len(refused) == 150
    assert [text for text in refused if amtool.accepts(text)] == []
