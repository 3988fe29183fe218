"""JUnit XML for GitLab, Jenkins and other tools that show test results.

A file is a test case. Its failure contains all problems of the file; warnings that do not fail the
check are its output.
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
    """One test case per file that has an operario or a problem."""
    by_path: dict[str, Sequence[Problem]] = dict.fromkeys(findings.files, ())
    by_path |= {
        path: tuple(problems)
        for path, problems in groupby(findings.problems, key=lambda problem: problem.path)
    }
    cases = [
        of_file(
            path,
            [problem for problem in by_path[path] if findings.fails(problem)],
            [problem for problem in by_path[path] if not findings.fails(problem)],
        )
        for path in sorted(by_path)
    ]
    if findings.complaint:
        cases.append(of_all(findings.complaint))
    return suite(SUITE, cases, findings.summary)


def of_file(path: str, failing: Sequence[Problem], passing: Sequence[Problem]) -> JUnitCase:
    """The test case of a file."""
    return JUnitCase(
        path,
        file=path,
        line=failing[0].line if failing else 0,
        failure=failure_of(failing) if failing else None,
        output=_lines(passing),
    )


def of_all(complaint: str) -> JUnitCase:
    """The test case of a message about the repository as a whole."""
    return JUnitCase("the repository", failure=JUnitFailure(complaint, complaint))


def failure_of(problems: Sequence[Problem]) -> JUnitFailure:
    """A failure for one or more problems; the first is the headline."""
    first, *others = problems
    more = f" (and {len(others)} more)" if others else ""
    return JUnitFailure(advice(first) + more, _lines(problems), kind=first.rule)


def _lines(problems: Sequence[Problem]) -> str:
    return "\n".join(map(line, problems))
