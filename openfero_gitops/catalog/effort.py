"""Bound what one file may cost, in steps that are counted the same on every machine.

Every replica must build the same catalog from the same commit, however fast it is. So the limit is
a number of steps, each about ten microseconds of processor time: values that are parsed, findings,
suggestions, characters of scripts. A file that takes more is quarantined as `too-complex`.

Processor time is only the last resort, for work that is not counted: its limit is about ten times
what all steps take on a slow machine, and a file that reaches it shows a defect of this package.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.domain.problem import Severity
from openfero_gitops.domain.rule import Rule, error, warning
from openfero_gitops.domain.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openfero_gitops.domain.problem import Problem

MAX_FILE_STEPS: Final = 100_000
#: Of one thread; more than ten times what MAX_FILE_STEPS takes.
MAX_PROCESSOR_SECONDS: Final = 20.0
#: That are listed for one file. The rest is counted.
MAX_FILE_PROBLEMS: Final = 100
_STEPS_BETWEEN_CHECKS: Final = 1000

TOO_COMPLEX: Final = error(
    "too-complex",
    "A file must not take more than 100,000 steps to check.",
    "Every replica checks every file of every new commit. A step is about ten microseconds: four "
    "values, a problem, a few characters of a script. Thousands of operarios take fewer steps than "
    "this. A file that takes more is generated or malicious, and would delay all others.",
    "split the file, and fix its other problems first",
)
MORE_PROBLEMS: Final = warning(
    "more-problems",
    "A file should not have more than 100 problems.",
    "Nobody reads more at once, and they cost memory on every replica. Errors are listed before "
    "warnings, and the rest is only counted.",
    "fix the problems that are listed",
)


class Interrupted(Exception):
    """The caller no longer wants the result, because the process stops."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How work is watched from outside.

    Attributes:
        processor_seconds: the processor time of the current thread so far.
        is_stopped: whether the result is no longer wanted.
    """

    processor_seconds: Callable[[], float] = lambda: 0.0
    is_stopped: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raise `Interrupted` if the result is no longer wanted."""
        if self.is_stopped():
            raise Interrupted


class Effort:
    """Counts the steps that one file has cost, and the findings about it.

    Attributes:
        steps: the number so far.
        hides_error: whether the current document has an error that is not put into words.
        more: the number of findings that were not put into words.
    """

    def __init__(self, watch: Watch | None = None) -> None:
        """Start to count."""
        self._watch = watch or Watch()
        self._began = self._watch.processor_seconds()
        self._next_check = _STEPS_BETWEEN_CHECKS
        self._words = dict.fromkeys(Severity, MAX_FILE_PROBLEMS)
        self.steps = 0
        self.more = 0
        self.hides_error = False

    def spend(self, steps: int) -> None:
        """Count steps before they are done.

        Raises:
            Unreadable: the file has reached its limit.
            Interrupted: the result is no longer wanted.
        """
        self.steps += steps
        if self.steps > MAX_FILE_STEPS:
            message = f"checking the file takes more than {MAX_FILE_STEPS} steps"
            raise Unreadable(TOO_COMPLEX, 0, 0, message)
        if self.steps >= self._next_check:
            self._next_check = self.steps + _STEPS_BETWEEN_CHECKS
            self.check()

    def check(self) -> None:
        """Check what the steps do not count.

        Raises:
            Unreadable: the file has taken too much processor time.
            Interrupted: the result is no longer wanted.
        """
        self._watch.check()
        if self._watch.processor_seconds() - self._began > MAX_PROCESSOR_SECONDS:
            message = f"checking the file takes more than {MAX_PROCESSOR_SECONDS:g} s"
            raise Unreadable(TOO_COMPLEX, 0, 0, message)

    def begin_document(self) -> None:
        """Begin with another document of the file."""
        self.check()
        self.hides_error = False

    def admits(self, rule: Rule) -> bool:
        """Count a finding; whether it is one of the first of its severity, and put into words."""
        if self._words[rule.severity]:
            self._words[rule.severity] -= 1
            self.spend(10)
            return True
        self.spend(2)
        self.more += 1
        self.hides_error |= rule.severity is Severity.ERROR
        return False


def first_problems(
    problems: Sequence[Problem], most: int = MAX_FILE_PROBLEMS
) -> tuple[Problem, ...]:
    """The problems of a file that are kept: the first ones, errors before warnings."""
    if len(problems) <= most:
        return tuple(problems)
    return tuple(sorted(problems, key=lambda problem: not problem.is_error)[:most])


def with_rest(problems: Sequence[Problem], more: int) -> tuple[Problem, ...]:
    """Add how many problems a file has beside those that are kept."""
    if not more:
        return tuple(problems)
    rule = MORE_PROBLEMS
    message = f"the file has at least {plural(more, 'more problem')}, not listed here"
    rest = replace(
        problems[0],
        line=0,
        column=0,
        pointer="",
        rule=rule.id,
        severity=rule.severity,
        message=message,
        suggestion=rule.advice,
    )
    return (*problems, rest)
