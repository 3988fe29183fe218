"""Text for a terminal: one line per problem, then a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.author.report.findings import line
from openfero_gitops.domain.text import listed, printable

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings


_MAX_PATHS: Final = 5  # that are named for one reason


def text(findings: Findings) -> str:
    """Every problem on a line of its own, in the format of compilers."""
    lines = [*map(line, findings.problems), *_ignored(findings), findings.summary]
    if findings.complaint:
        lines.append(findings.complaint)
    return "\n".join(lines)


def _ignored(findings: Findings) -> list[str]:
    """One line for each reason why files are ignored, other than that they are no operarios."""
    paths: dict[str, dict[str, None]] = {}
    for entry in findings.ignored:
        if entry.reason:
            paths.setdefault(entry.reason, {})[printable(entry.path)] = None
    return [f"ignored: {listed(names, _MAX_PATHS)}: {reason}" for reason, names in paths.items()]
