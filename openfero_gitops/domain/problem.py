"""Problems found in the repository."""

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

    `path` is relative to the repository's root; `line` and `column` count from 1 and are 0 if the
    problem has no place in the file; `pointer` is a JSON Pointer into the document; `commit` is the
    commit that was checked, empty for a plain folder.
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
        """Whether it keeps its operario out of the catalog."""
        return self.severity is Severity.ERROR


@dataclass(frozen=True, slots=True, order=True)
class Ignored:
    """A file or document that takes part in nothing.

    `kind` is empty for a document without one, and for a file that was not read. `reason` is empty
    for a document that is not an operario. A `path` that ends with `/` is a whole folder.
    """

    path: str
    kind: str
    reason: str = ""


def problem_members(problem: Problem) -> dict[str, Any]:
    """The JSON members of a problem; an empty suggestion or commit is null."""
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
    """The JSON members of what is ignored; an empty reason is null."""
    return {"path": document.path, "kind": document.kind, "reason": document.reason or None}
