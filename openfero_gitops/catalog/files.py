"""One file to what its documents are and what is wrong with them, whatever the commit.

Nothing here depends on the envelope or on other files, so a file is read once for its content:
`Parser` remembers it by blob id, and a commit that changes one file parses one file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.forms import Reading, read_document
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.domain.problem import Problem
from openfero_gitops.domain.rule import Finding, Pointer, format_pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.domain.catalog import SourceFile

_BATCH: Final = 64  # files


@dataclass(frozen=True, slots=True)
class FileReading:
    """What a file's content says.

    `documents` are its documents with their index, empty ones left out; `problems` have no path
    and no commit; `service_accounts` are the names of those that it defines, `ignored` the kinds
    of what is no operario. Later findings are located by `locate`, which remembers.
    """

    documents: tuple[tuple[int, Reading], ...]
    problems: tuple[Problem, ...]
    service_accounts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    _places: dict[tuple[int, Pointer], tuple[int, int]] = field(default_factory=dict, repr=False)

    def locate(self, finding: Finding, file: SourceFile, document: int) -> Problem:
        """A finding about one of its documents as a problem of a file with this content."""
        key = (document, finding.pointer)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Locator(file.content).place(*key)
        return at(_problem(finding, *place), file)


def at(problem: Problem, file: SourceFile) -> Problem:
    """The problem as one of this file in this commit."""
    return replace(problem, path=file.path, commit=file.commit)


class Parser:
    """Reads files, and remembers what the last two catalogs read: a memo of a pure function."""

    def __init__(self, kubernetes: str | Schemas) -> None:
        """Take the Kubernetes whose Jobs are meant: a cluster's own schemas, or a version.

        Raises:
            UsageError: the version is not known.
        """
        self._schemas = schemas_of(kubernetes) if isinstance(kubernetes, str) else kubernetes
        #: What the last catalog made of the files that it was made of: `catalog.build`'s own.
        self.judged: object = None
        self._known: dict[tuple[str, bool], FileReading] = {}
        self._before: dict[tuple[str, bool], FileReading] = {}

    def turn(self) -> None:
        """Begin a catalog: what neither it nor the one before it reads is forgotten."""
        self._before, self._known = self._known, {}

    def read(self, file: SourceFile) -> FileReading:
        """What the file says, from memory where its content was read before."""
        [found] = self.read_all([file])
        return found

    def read_all(self, files: Sequence[SourceFile]) -> list[FileReading]:
        """What each of the files says.

        Many are parsed before they are judged: a processor that goes from the one to the other
        with every file has forgotten each time how, and takes a fifth longer.
        """
        found: list[FileReading] = []
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            parsed = [self._recall(file) or _parsed(file) for file in batch]
            for file, one in zip(batch, parsed, strict=True):
                if not isinstance(one, FileReading):
                    one = self._recall(file) or self._judge(file, one)  # noqa: PLW2901
                if file.blob:
                    self._known[_key(file)] = one
                found.append(one)
        return found

    def _recall(self, file: SourceFile) -> FileReading | None:
        key = _key(file)
        return self._known.get(key) or self._before.get(key)

    def _judge(self, file: SourceFile, documents: list[Any] | Unreadable) -> FileReading:
        if isinstance(documents, Unreadable):
            return FileReading((), (unread(documents),))
        read = tuple(
            (index, read_document(document, self._schemas))
            for index, document in enumerate(documents)
            if document is not None
        )
        locator = Locator(file.content)
        problems = tuple(
            _problem(finding, *_place(locator, index, finding))
            for index, reading in read
            for finding in reading.findings
        )
        return FileReading(
            read,
            problems,
            tuple(one.service_account for _, one in read if one.service_account),
            tuple(one.ignored for _, one in read if one.ignored is not None),
        )


def _key(file: SourceFile) -> tuple[str, bool]:
    return file.blob, file.path.endswith(".json")


def _parsed(file: SourceFile) -> list[Any] | Unreadable:
    """A file's documents, or why there are none."""
    try:
        return load(file.content, is_json=file.path.endswith(".json"))
    except Unreadable as reason:
        return reason


def unread(reason: Unreadable) -> Problem:
    """A file that gives no values as a problem, without path and commit."""
    rule = reason.rule
    return Problem(
        path="",
        line=reason.line,
        column=reason.column,
        pointer="",
        rule=rule.id,
        severity=rule.severity,
        message=reason.message,
        suggestion=reason.suggestion,
    )


def located(finding: Finding, document: int, file: SourceFile) -> Problem:
    """A finding about a file that nothing is remembered of."""
    return at(_problem(finding, *Locator(file.content).place(document, finding.pointer)), file)


def _place(locator: Locator, document: int, finding: Finding) -> tuple[int, int]:
    if finding.inside[0]:
        return locator.within(document, finding.pointer, *finding.inside)
    return locator.place(document, finding.pointer)


def _problem(finding: Finding, line: int, column: int) -> Problem:
    rule = finding.rule
    return Problem(
        path="",
        line=line,
        column=column,
        pointer=format_pointer(finding.pointer),
        rule=rule.id,
        severity=rule.severity,
        message=finding.message,
        suggestion=finding.suggestion,
    )
