"""For GitLab, Jenkins and whatever else shows test results: JUnit's XML.

A file is a test case: one that holds operarios and nothing that fails has passed. A reader of
this format shows one failure of a case, so all of a file's problems stand in one. Warnings that
do not fail are the case's output.
"""

from __future__ import annotations

import html
import re
from itertools import groupby
from typing import TYPE_CHECKING, Final

from openfero_gitops.pipeline.report.findings import advice, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.pipeline.report.findings import Findings

SUITE: Final = "openfero-gitops validate"
# What XML 1.0 cannot write, not even as a reference.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(findings: Findings) -> str:
    """A test case for each file that holds an operario or a problem."""
    by_path: dict[str, Sequence[Problem]] = dict.fromkeys(findings.files, ())
    by_path |= {
        path: tuple(problems)
        for path, problems in groupby(findings.problems, key=lambda one: one.path)
    }
    cases = [_case(path, by_path[path], findings) for path in sorted(by_path)]
    failures = sum(any(map(findings.fails, problems)) for problems in by_path.values())
    if findings.complaint:
        cases.append(_failed_whole(findings.complaint))
        failures += 1
    counts = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="0"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<testsuites name={_quoted(SUITE)} {counts}>",
            f"  <testsuite name={_quoted(SUITE)} {counts}>",
            *cases,
            f"    <system-out>{_text(findings.summary)}</system-out>",
            "  </testsuite>",
            "</testsuites>",
        ]
    )


def _case(path: str, problems: Sequence[Problem], findings: Findings) -> str:
    failing = [one for one in problems if findings.fails(one)]
    passing = [one for one in problems if not findings.fails(one)]
    where = f"classname={_quoted(SUITE)} name={_quoted(path)} file={_quoted(path)}"
    if failing:
        where += f' line="{failing[0].line}"' if failing[0].line else ""
    if not problems:
        return f"    <testcase {where}/>"
    inner = []
    if failing:
        more = f" (and {len(failing) - 1} more)" if len(failing) > 1 else ""
        inner.append(
            f"      <failure type={_quoted(failing[0].rule)}"
            f" message={_quoted(advice(failing[0]) + more)}>{_lines(failing)}</failure>"
        )
    if passing:
        inner.append(f"      <system-out>{_lines(passing)}</system-out>")
    return "\n".join([f"    <testcase {where}>", *inner, "    </testcase>"])


def _failed_whole(complaint: str) -> str:
    return (
        f'    <testcase classname={_quoted(SUITE)} name="the repository">\n'
        f"      <failure message={_quoted(complaint)}>{_text(complaint)}</failure>\n"
        "    </testcase>"
    )


def _lines(problems: Sequence[Problem]) -> str:
    return _text("\n".join(map(line, problems)))


def _quoted(value: str) -> str:
    # (A reader takes a line break in an attribute for a space, unless it is written as this.)
    return f'"{_text(value)}"'.replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")


def _text(value: str) -> str:
    """A text as XML, without what XML cannot write."""
    return html.escape(_NO_XML.sub("\ufffd", value))
