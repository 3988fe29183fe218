"""The results of golden cases, for a terminal and as JUnit XML."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.golden import ALERT, FOLDER, JOB
from openfero_gitops.author.report.findings import line
from openfero_gitops.author.report.junit import failure_of, of_all, of_file
from openfero_gitops.author.report.suite import JUnitCase, JUnitFailure, suite
from openfero_gitops.domain.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from openfero_gitops.author.golden import CaseReport, CaseResult

SUITE: Final = "openfero-gitops test"


def as_text(
    report: CaseReport, *, updated: Collection[str] = (), require_cases: bool = False
) -> str:
    """The failures, the missing cases, and a summary."""
    lines = [line(problem) for problem in report.problems]
    for result in report.results:
        if not result.passed:
            lines.append(f"FAILED {result.case}")
            lines += (f"  {line(problem)}" for problem in result.problems)
            lines += (f"  {diff_line}" for diff_line in result.difference.splitlines())
        lines += (f"  {note}" for note in _notes(result, updated))
    lines += (f"wrote {path}" for path in updated)
    word = "error" if require_cases else "note"
    lines += (f"{word}: {_missing(name)}" for name in report.untested)
    lines.append(_summary(report))
    if report.complaint:
        lines.append(report.complaint)
    return "\n".join(lines)


def as_junit(
    report: CaseReport, *, updated: Collection[str] = (), require_cases: bool = False
) -> str:
    """One test case per golden case, and one per other problem."""
    cases = [_junit_case(result, updated) for result in report.results]
    for path, group in groupby(report.problems, key=lambda problem: problem.path):
        problems = list(group)
        errors = [problem for problem in problems if problem.is_error]
        warnings = [problem for problem in problems if not problem.is_error]
        cases.append(of_file(path, errors, warnings))
    output = [f"wrote {path}" for path in updated]
    for name in report.untested:
        if require_cases:
            cases.append(JUnitCase(name, failure=JUnitFailure(_missing(name), _missing(name))))
        else:
            output.append(f"note: {_missing(name)}")
    if report.complaint:
        cases.append(of_all(report.complaint))
    return suite(SUITE, cases, "\n".join([*output, _summary(report)]))


#: The values of `--format`.
FORMATS: Final[Mapping[str, Callable[..., str]]] = {"text": as_text, "junit": as_junit}


def _junit_case(result: CaseResult, updated: Collection[str]) -> JUnitCase:
    file, place, failure = f"{result.case.path}/{JOB}", 0, None
    if result.problems:
        file, place = result.problems[0].path, result.problems[0].line
        failure = failure_of(result.problems)
    elif result.difference:
        message = f"the Jobs that would be created differ from {JOB}"
        failure = JUnitFailure(message, result.difference, kind="golden")
    output = "\n".join(_notes(result, updated))
    return JUnitCase(str(result.case), file, place, failure, output)


def _notes(result: CaseResult, updated: Collection[str]) -> Iterator[str]:
    """The notes of a case that failed or was updated."""
    if not result.passed or f"{result.case.path}/{JOB}" in updated:
        yield from (f"note: {result.case}: {note}" for note in result.notes)


def _missing(name: str) -> str:
    return f"{name} has no case: add {FOLDER}/{name}/<case>/{ALERT}"


def _summary(report: CaseReport) -> str:
    passed = sum(result.passed for result in report.results)
    text = f"{plural(len(report.results), 'case')}: "
    text += f"{passed} passed, {len(report.results) - passed} failed"
    if errors := sum(problem.is_error for problem in report.problems):
        text += f"; {plural(errors, 'other error')}"
    if report.untested:
        text += f"; {plural(len(report.untested), 'operario')} without a case"
    return text
