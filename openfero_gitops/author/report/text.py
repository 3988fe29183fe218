"""Text for a terminal: one line per problem, then a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.author.report.findings import line

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings


def text(findings: Findings) -> str:
    """Every problem on a line of its own, in the format of compilers."""
    lines = [*map(line, findings.problems), findings.summary]
    if findings.complaint:
        lines.append(findings.complaint)
    return "\n".join(lines)
