"""The models of problems of the repository, with the members of `validate --format json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.problem import Severity
from openfero_gitops.web.api.shape import ListShape, Shape, Text

if TYPE_CHECKING:
    from openfero_gitops.domain.problem import Ignored, Problem


class ProblemShape(Shape):
    """What is wrong with a file, where, and what to do about it."""

    path: Text
    """The file, from the root of the repository."""
    line: int
    """From 1; 0 if the problem has no place in the file."""
    column: int
    """From 1; 0 if the problem has no place in the file."""
    pointer: Text
    """JSON Pointer into the document."""
    rule: Text
    """The rule that the file breaks."""
    severity: Severity
    """An error keeps the operario out of the catalog, a warning does not."""
    message: Text
    suggestion: Text | None
    commit: Text | None
    """The commit that was checked."""


class IgnoredShape(Shape):
    """A file or document that takes part in nothing."""

    path: Text
    kind: Text
    """Empty for a document without one, and for a file that was not read."""
    reason: Text | None


class ProblemListShape(ListShape[ProblemShape]):
    """Problems by file, and what is ignored."""

    ignored: list[IgnoredShape]


def problem_shape(value: Problem) -> ProblemShape:
    """Convert a problem."""
    return ProblemShape(
        path=value.path,
        line=value.line,
        column=value.column,
        pointer=value.pointer,
        rule=value.rule,
        severity=value.severity,
        message=value.message,
        suggestion=value.suggestion or None,
        commit=value.commit or None,
    )


def ignored_shape(value: Ignored) -> IgnoredShape:
    """Convert what is ignored."""
    return IgnoredShape(path=value.path, kind=value.kind, reason=value.reason or None)
