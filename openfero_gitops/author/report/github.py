"""For a workflow on GitHub: commands in its log, each of which becomes an annotation of a line.

A log shows a command's text without its file and line, and a workflow shows ten annotations of a
kind and no more; so each text begins with its place, and errors come before warnings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.author.report.findings import line

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.domain.problem import Problem


def github(findings: Findings) -> str:
    """A command for each problem, then a line that counts."""
    ordered = sorted(findings.problems, key=lambda one: not findings.fails(one))
    lines = [_command(one, fails=findings.fails(one)) for one in ordered]
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
    """A text, escaped as the runner reads it again."""
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
