"""How golden cases came out: for a terminal, and as test results."""

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
    """What failed and why, what is missing, and a line that counts."""
    lines = [line(problem) for problem in report.problems]
    for verdict in report.results:
        if not verdict.passed:
            lines.append(f"FAILED {verdict.case}")
            lines += (f"  {line(problem)}" for problem in verdict.problems)
            lines += (f"  {one}" for one in verdict.difference.splitlines())
        lines += (f"  {note}" for note in _notes(verdict, updated))
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
    """A test case for each golden case, and one for whatever else is wrong."""
    outcomes = [_outcome(verdict, updated) for verdict in report.results]
    for path, found in groupby(report.problems, key=lambda one: one.path):
        problems = list(found)
        errors = [one for one in problems if one.is_error]
        outcomes.append(of_file(path, errors, [one for one in problems if not one.is_error]))
    said = [f"wrote {path}" for path in updated]
    for name in report.untested:
        if require_cases:
            outcomes.append(JUnitCase(name, failure=JUnitFailure(_missing(name), _missing(name))))
        else:
            said.append(f"note: {_missing(name)}")
    if report.complaint:
        outcomes.append(of_all(report.complaint))
    return suite(SUITE, outcomes, "\n".join([*said, _summary(report)]))


#: What `--format` takes.
FORMATS: Final[Mapping[str, Callable[..., str]]] = {"text": as_text, "junit": as_junit}


def _outcome(verdict: CaseResult, updated: Collection[str]) -> JUnitCase:
    file, place, failure = f"{verdict.case.path}/{JOB}", 0, None
    if verdict.problems:
        file, place = verdict.problems[0].path, verdict.problems[0].line
        failure = failure_of(verdict.problems)
    elif verdict.difference:
        message = f"what would be created is not what {JOB} holds"
        failure = JUnitFailure(message, verdict.difference, kind="golden")
    output = "\n".join(_notes(verdict, updated))
    return JUnitCase(str(verdict.case), file, place, failure, output)


def _notes(verdict: CaseResult, updated: Collection[str]) -> Iterator[str]:
    """What its author may not have meant, while the case is looked at anyway."""
    if not verdict.passed or f"{verdict.case.path}/{JOB}" in updated:
        yield from (f"note: {verdict.case}: {note}" for note in verdict.notes)


def _missing(name: str) -> str:
    return f"{name} has no case: put an alert into {FOLDER}/{name}/<case>/{ALERT}"


def _summary(report: CaseReport) -> str:
    passed = sum(verdict.passed for verdict in report.results)
    said = f"{plural(len(report.results), 'case')}: "
    said += f"{passed} passed, {len(report.results) - passed} failed"
    if errors := sum(problem.is_error for problem in report.problems):
        said += f"; {plural(errors, 'other error')}"
    if report.untested:
        said += f"; {plural(len(report.untested), 'operario')} without a case"
    return said
