"""The result of `validate`, and whether it is a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.text import plural

if TYPE_CHECKING:
    from openfero_gitops.domain.problem import Ignored, Problem

REFUSED: Final = "openfero.yaml has errors: the controller would reject this revision"
EMPTY: Final = (
    "no operario found: is --path the folder that contains them? A Job is an operario if it has "
    "the annotation openfero.io/alertname, or a name like openfero-ALERTNAME-firing"
)


@dataclass(frozen=True, slots=True)
class Findings:
    """All problems of a repository.

    `problems` are sorted by path and line. `operarios` is the number of valid operarios, of which
    `disabled` are disabled; `files` are the paths that contain them. `refused` means that
    `openfero.yaml` has errors, so that the controller would reject the revision. With `strict`,
    warnings count as errors.
    """

    problems: tuple[Problem, ...]
    ignored: tuple[Ignored, ...]
    operarios: int
    files: tuple[str, ...] = ()
    refused: bool = False
    strict: bool = False
    disabled: int = 0

    def fails(self, problem: Problem) -> bool:
        """Whether this problem is a failure."""
        return problem.is_error or self.strict

    @property
    def complaint(self) -> str:
        """The message about the repository as a whole; empty if there is none."""
        if self.refused:
            return REFUSED
        if self.operarios or any(problem.is_error for problem in self.problems):
            return ""
        return EMPTY

    @property
    def failed(self) -> bool:
        """Whether the check failed."""
        return not self.operarios or any(map(self.fails, self.problems))

    @property
    def summary(self) -> str:
        """The numbers of operarios and problems, on one line."""
        errors = sum(problem.is_error for problem in self.problems)
        warnings = len(self.problems) - errors
        disabled = f" ({self.disabled} disabled)" if self.disabled else ""
        counts = (
            f"{plural(self.operarios, 'valid operario')}{disabled}, {plural(errors, 'error')}, "
            f"{plural(warnings, 'warning')}, {plural(len(self.ignored), 'document')} ignored"
        )
        return counts + (
            "; warnings count as errors (--strict)" if self.strict and warnings else ""
        )


def advice(problem: Problem) -> str:
    """The message of a problem, and the suggestion."""
    return problem.message + (f" ({problem.suggestion})" if problem.suggestion else "")


def line(problem: Problem) -> str:
    """A problem in the format of compilers, which terminals and editors turn into a link."""
    place = problem.path + (f":{problem.line}:{problem.column}" if problem.line else "")
    return f"{place}: {problem.severity}: {advice(problem)} [{problem.rule}]"
