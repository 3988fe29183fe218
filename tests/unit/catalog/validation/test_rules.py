from __future__ import annotations

import re

import pytest

from openfero_gitops.catalog.validation.rules import CHECKS
from openfero_gitops.domain.rule import RULES, error
from tests.support.paths import ROOT
from tests.support.rules import (
    ABSENT,
    BAD,
    GOOD,
    IN_A_FILE,
    IN_WORDS,
    MADE,
    PATHS,
    path_of,
    problems_of,
    problems_of_paths,
)


@pytest.mark.parametrize("rule", IN_A_FILE)
def test_every_rule_finds_its_fixture_and_nothing_else(rule: str) -> None:
    """The bad fixture has exactly one problem: of its rule, at the marked line."""
    content = MADE[rule][0] if rule in MADE else (BAD / f"{rule}.yaml").read_bytes()
    marked = [
        number for number, line in enumerate(content.split(b"\n"), start=1) if b"# <- here" in line
    ]
    (problem,) = problems_of(content, path_of(rule))
    assert problem.rule == rule
    assert problem.severity is RULES[rule].severity
    assert [problem.line] == (marked or [0])
    assert problem.message
    assert problem.suggestion or ": " in problem.message  # what to do about it


@pytest.mark.parametrize("rule", IN_A_FILE)
def test_a_good_fixture_has_no_problems(rule: str) -> None:
    """The good example in the documentation violates no rule."""
    content = MADE[rule][1] if rule in MADE else (GOOD / f"{rule}.yaml").read_bytes()
    assert problems_of(content, path_of(rule, fixed=True)) == ()


@pytest.mark.parametrize("rule", sorted(PATHS))
def test_every_rule_about_a_path_finds_its_defect(rule: str) -> None:
    """Each rule about paths finds its bad example and nothing in its good one."""
    bad, good = PATHS[rule]
    (problem,) = problems_of_paths(bad)
    assert (problem.rule, problem.severity) == (rule, RULES[rule].severity)
    assert problem.message
    assert problem.suggestion
    assert problems_of_paths(good) == ()


def test_every_fixture_is_of_a_rule() -> None:
    """Every rule has its fixtures, and no fixture belongs to a rule that no longer exists."""
    names = RULES.keys() - ABSENT - MADE.keys() - PATHS.keys()
    assert {path.stem for path in BAD.iterdir()} == names
    assert {path.stem for path in GOOD.iterdir()} == names
    assert IN_WORDS.keys() == ABSENT | MADE.keys() | PATHS.keys() | {"envelope-name"}


def test_rules_describe_themselves() -> None:
    """Each rule has a unique id in kebab case, a sentence and a reason."""
    for name, rule in RULES.items():
        assert name == rule.id == name.lower().replace("_", "-")
        assert rule.text.endswith(".")
    with pytest.raises(ValueError, match="rule syntax is declared twice"):
        error("syntax", "A file must be YAML.", "Nothing else can be parsed.")
    assert all(rule.id in RULES for rule, _ in CHECKS)
    assert all(rule.why.endswith(".") for rule in RULES.values())


def test_the_documentation_has_every_rule() -> None:
    """Each rule has a section with its requirement and a bad and a good example."""
    page = (ROOT / "docs/reference/rules.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == sorted(RULES)
    for name, section in sections.items():
        assert section.startswith(f"{RULES[name].text} ")
        assert "Bad: " in section
        assert "Good:" in section
        assert f"| [`{name}`](#{name}) | {RULES[name].severity} | {RULES[name].text} |" in page
