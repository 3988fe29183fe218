"""For a person at a terminal: a line for each problem, then one that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.author.report.findings import line

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings


def text(findings: Findings) -> str:
    """Every problem on a line of its own, as compilers write theirs."""
    lines = [*map(line, findings.problems), findings.summary]
    if findings.complaint:
        lines.append(findings.complaint)
    return "\n".join(lines)
