"""The threat model names a test for every threat, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs/explanation/threat-model.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)*)`")
THREATS = {
    "Somebody who can push",
    "Somebody with a stolen forge token",
    "Somebody who controls the forge",
    "A man in the middle",
    "Somebody who can write in the controller's namespace",
    "Somebody who can create Jobs in one namespace",
    "Somebody who approves",
    "A compromised remediation",
    "Somebody who sends alerts",
    "Somebody who reaches the ports",
    "Somebody who controls the API server",
}


@cache
def named_tests(file: str) -> set[str]:
    """The names of all tests in a file, without parameters."""
    names: set[str] = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names |= {
            prefix + item.name
            for item in inner
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
            and item.name.startswith("test_")
        }
    return names


def rows(section: str) -> list[str]:
    """The rows of a section's table, without its header."""
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize(("page", "at_least"), [("threat-model", 50), ("guarantees", 20)])
def test_the_named_tests_exist(page: str, at_least: int) -> None:
    """If a test is renamed, the pages about threats and guarantees must be updated."""
    references = NAMED.findall((ROOT / f"docs/explanation/{page}.md").read_text(encoding="utf-8"))
    assert len(references) > at_least
    for reference in references:
        file, _, test = reference.partition("::")
        assert test, f"{reference}: name one test"
        assert (ROOT / file).is_file(), reference
        assert test in named_tests(file), reference


def test_each_threat_has_a_section() -> None:
    """Each section says which risk remains."""
    sections = re.split(r"^### ", PAGE.partition("\n## Threats\n")[2], flags=re.MULTILINE)[1:]
    assert {section.partition("\n")[0] for section in sections} == THREATS
    for section in sections:
        assert len(rows(section)) >= 5
        assert "\nWhat remains: " in section


@pytest.mark.parametrize("line", rows(PAGE.partition("\n## Refs that move\n")[2]))
def test_each_claim_names_a_test(line: str) -> None:
    """No claim is without a test."""
    if line.startswith("| what they try"):
        return
    assert NAMED.search(line.split("|")[-2]), line
