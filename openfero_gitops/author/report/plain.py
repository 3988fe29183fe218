"""For a program: JSON, the members of which are a public contract."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from openfero_gitops.domain.problem import ignored_members, problem_members

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings


def plain(findings: Findings) -> str:
    """Every problem, and every document that is no operario."""
    members = {
        "problems": [problem_members(one) for one in findings.problems],
        "ignored": [ignored_members(one) for one in findings.ignored],
    }
    return json.dumps(members, indent=2, ensure_ascii=False)
