"""docs/trust.md names a test for every threat, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)*)`")
THREATS = {
    "A malicious author",
    "A stolen forge token",
    "A compromised forge",
    "A man in the middle",
    "A tampered mirror",
    "A hostile alert",
}


@cache
def found_in(file: str) -> set[str]:
    """Every test of a file, as pytest names it without its parameters."""
    found: set[str] = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        before = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {
            before + one.name
            for one in inner
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            and one.name.startswith("test_")
        }
    return found


def rows(section: str) -> list[str]:
    """The rows of a section's table, without its head."""
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_there_are_tests_named_and_each_of_them_is_there() -> None:
    """A test that was renamed is renamed on the page, too."""
    named = NAMED.findall(PAGE)
    assert len(named) > 50
    for one in named:
        file, _, test = one.partition("::")
        assert test, f"{one}: name one test"
        assert (ROOT / file).is_file(), one
        assert test in found_in(file), one


def test_every_threat_has_its_section() -> None:
    """No more, and no fewer, and each says what remains."""
    sections = re.split(r"^### ", PAGE.partition("\n## Threats\n")[2], flags=re.MULTILINE)[1:]
    assert {section.partition("\n")[0] for section in sections} == THREATS
    for section in sections:
        assert len(rows(section)) >= 5
        assert "\nWhat remains: " in section


@pytest.mark.parametrize("line", rows(PAGE.partition("\n## Refs that move\n")[2]))
def test_every_point_names_its_test(line: str) -> None:
    """Nothing is claimed that is not shown."""
    if line.startswith("| what they try"):
        return
    assert NAMED.search(line.split("|")[-2]), line
