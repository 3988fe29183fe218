"""For GitLab, Jenkins and whatever else shows test results: JUnit's XML.

A file is a test case: one that holds operarios and nothing that fails has passed. All of a file's
problems stand in its failure. Warnings that do not fail are the case's output.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.report.findings import advice, line
from openfero_gitops.author.report.suite import JUnitCase, JUnitFailure, suite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.domain.problem import Problem

SUITE: Final = "openfero-gitops validate"


def junit(findings: Findings) -> str:
    """A test case for each file that holds an operario or a problem."""
    by_path: dict[str, Sequence[Problem]] = dict.fromkeys(findings.files, ())
    by_path |= {
        path: tuple(problems)
        for path, problems in groupby(findings.problems, key=lambda one: one.path)
    }
    cases = [
        of_file(
            path,
            [one for one in by_path[path] if findings.fails(one)],
            [one for one in by_path[path] if not findings.fails(one)],
        )
        for path in sorted(by_path)
    ]
    if findings.complaint:
        cases.append(of_all(findings.complaint))
    return suite(SUITE, cases, findings.summary)


def of_file(path: str, failing: Sequence[Problem], passing: Sequence[Problem]) -> JUnitCase:
    """A file as a case: what is wrong in it, and what is said of it besides."""
    return JUnitCase(
        path,
        file=path,
        line=failing[0].line if failing else 0,
        failure=failure_of(failing) if failing else None,
        output=_lines(passing),
    )


def of_all(complaint: str) -> JUnitCase:
    """A case for what is wrong with the repository as a whole."""
    return JUnitCase("the repository", failure=JUnitFailure(complaint, complaint))


def failure_of(problems: Sequence[Problem]) -> JUnitFailure:
    """What failed by one or more problems, the first of which is the headline."""
    first, *others = problems
    more = f" (and {len(others)} more)" if others else ""
    return JUnitFailure(advice(first) + more, _lines(problems), kind=first.rule)


def _lines(problems: Sequence[Problem]) -> str:
    return "\n".join(map(line, problems))
