"""promtool: checks rules and queries, and tests rules with made-up series."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.optional import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_SELECTOR = re.compile(r"(openfero_[a-z_]+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")


def check_rules(folder: Path, groups: Sequence[Mapping[str, Any]]) -> None:
    """Fail unless every expression and template of the rules can be parsed."""
    path = folder / "rules.yml"
    path.write_text(json.dumps({"groups": groups}))
    _run("check", "rules", str(path))


def check_queries(folder: Path, queries: Sequence[str]) -> None:
    """Fail unless every query can be parsed."""
    rules = [{"record": f"query_{index}", "expr": each} for index, each in enumerate(queries)]
    check_rules(folder, [{"name": "queries", "rules": rules}])


def run_rule_tests(
    folder: Path, groups: Sequence[Mapping[str, Any]], tests: Sequence[Mapping[str, Any]]
) -> None:
    """Run `promtool test rules`, with an evaluation each minute, and fail if a test does."""
    check_rules(folder, groups)
    path = folder / "tests.yml"
    described = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    path.write_text(json.dumps(described))
    _run("test", "rules", str(path))


def selectors(query: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each metric of ours in a query, with the labels that its selector names."""
    for metric, matchers in _SELECTOR.findall(query):
        yield metric, frozenset(_LABEL.findall(re.sub(r'"(?:\\.|[^"\\])*"', '""', matchers)))


def _run(*arguments: str) -> None:
    promtool = require("promtool", "apt-get install prometheus", "promtool")
    ran = subprocess.run(
        [promtool, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
