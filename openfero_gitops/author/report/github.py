"""Workflow commands of GitHub, which become annotations of lines.

The log shows the text of a command without its file and line, and at most ten annotations of a
kind are shown. So each text begins with its place, and errors precede warnings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.author.report.findings import line

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.domain.problem import Problem


def github(findings: Findings) -> str:
    """One command per problem, then a summary."""
    ordered = sorted(findings.problems, key=lambda problem: not findings.fails(problem))
    lines = [_command(problem, fails=findings.fails(problem)) for problem in ordered]
    if findings.complaint:
        lines.append(f"::error title=openfero-gitops::{_data(findings.complaint)}")
    return "\n".join([*lines, findings.summary])


def _command(problem: Problem, *, fails: bool) -> str:
    properties = {"file": problem.path, "title": problem.rule}
    if problem.line:
        properties |= {"line": str(problem.line), "col": str(problem.column)}
    written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{'error' if fails else 'warning'} {written}::{_data(line(problem))}"


def _data(value: str) -> str:
    """Escape text for a workflow command."""
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
