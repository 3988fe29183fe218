"""For a program: JSON, the members of which are a public contract."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.domain.problem import Ignored, Problem


def plain(findings: Findings) -> str:
    """Every problem, and every document that is no operario."""
    members = {
        "problems": [problem_members(one) for one in findings.problems],
        "ignored": [ignored_members(one) for one in findings.ignored],
    }
    return json.dumps(members, indent=2, ensure_ascii=False)


def problem_members(problem: Problem) -> dict[str, Any]:
    """A problem; null is what it does not have."""
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "pointer": problem.pointer,
        "rule": problem.rule,
        "severity": problem.severity.value,
        "message": problem.message,
        "suggestion": problem.suggestion or None,
        "commit": problem.commit or None,
    }


def ignored_members(document: Ignored) -> dict[str, Any]:
    """A document that is no operario."""
    return {"path": document.path, "kind": document.kind}
