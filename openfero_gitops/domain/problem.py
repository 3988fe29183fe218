"""A located finding about the repository."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """An error keeps the operario out of the catalog, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong, where, and what to do about it.

    `path` is relative to the repository's root; `line` and `column` count from 1, 0 where the
    finding has no place in a file; `pointer` is a JSON Pointer into the document; `commit` is
    where the finding was made, empty for a folder that is no commit.
    """

    path: str
    line: int
    column: int
    pointer: str
    rule: str
    severity: Severity
    message: str
    suggestion: str = ""
    commit: str = ""

    @property
    def is_error(self) -> bool:
        """Whether the finding keeps its operario out of the catalog."""
        return self.severity is Severity.ERROR


@dataclass(frozen=True, slots=True, order=True)
class Ignored:
    """A document that is no operario: read, and left alone."""

    path: str
    kind: str


def problem_members(problem: Problem) -> dict[str, Any]:
    """A problem; null is what it does not have."""
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "pointer": problem.pointer,
        "rule": problem.rule,
        "severity": problem.severity.value,
        "message": problem.message,
        "suggestion": problem.suggestion or None,
        "commit": problem.commit or None,
    }


def ignored_members(document: Ignored) -> dict[str, Any]:
    """A document that is no operario."""
    return {"path": document.path, "kind": document.kind}
