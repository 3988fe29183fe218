"""JSON for programs; its members are a public contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.problem import ignored_members, problem_members
from openfero_gitops.domain.text import pretty_json

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings


def plain(findings: Findings) -> str:
    """Every problem, and every document that is not an operario."""
    members = {
        "problems": list(map(problem_members, findings.problems)),
        "ignored": list(map(ignored_members, findings.ignored)),
    }
    return pretty_json(members)
