"""What a check of a whole repository found, and whether that is a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openfero_gitops.domain.problem import Ignored, Problem

REFUSED: Final = "openfero.yaml cannot be followed: the controller would not take this revision"
EMPTY: Final = (
    "no operario at all: is --path the folder that holds them? A Job becomes one by its "
    "annotation openfero.io/alertname, or by its name openfero-ALERTNAME-firing"
)


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is to be told.

    `problems` are sorted by place. `files` are the paths that hold operarios in force, `operarios`
    their number; `refused` says that `openfero.yaml` keeps the whole out of force. With `strict` a
    warning counts as an error.
    """

    problems: tuple[Problem, ...]
    ignored: tuple[Ignored, ...]
    operarios: int
    files: tuple[str, ...] = ()
    refused: bool = False
    strict: bool = False

    def fails(self, problem: Problem) -> bool:
        """Whether this problem alone is reason enough to fail."""
        return problem.is_error or self.strict

    @property
    def complaint(self) -> str:
        """What is wrong with the repository as a whole, beyond any file; empty where nothing is."""
        if self.refused:
            return REFUSED
        if self.operarios or any(problem.is_error for problem in self.problems):
            return ""
        return EMPTY

    @property
    def failed(self) -> bool:
        """Whether anything is reason enough to fail."""
        return not self.operarios or any(map(self.fails, self.problems))

    @property
    def summary(self) -> str:
        """All of it in one line."""
        errors = sum(problem.is_error for problem in self.problems)
        warnings = len(self.problems) - errors
        counts = (
            f"{_count(self.operarios, 'operario')} in force, {_count(errors, 'error')}, "
            f"{_count(warnings, 'warning')}, {_count(len(self.ignored), 'document')} ignored"
        )
        return counts + ("; --strict: warnings fail, too" if self.strict and warnings else "")


def advice(problem: Problem) -> str:
    """What is wrong, and what to do about it."""
    return problem.message + (f" ({problem.suggestion})" if problem.suggestion else "")


def line(problem: Problem) -> str:
    """A problem as compilers write theirs: terminals and editors make a link of its beginning."""
    place = problem.path + (f":{problem.line}:{problem.column}" if problem.line else "")
    return f"{place}: {problem.severity}: {advice(problem)} [{problem.rule}]"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
