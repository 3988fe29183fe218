"""Read the documents of one file and find what is wrong with them, independent of the commit.

Nothing here depends on the envelope or on other files, so the same content is read once:
`FileMemo` remembers it by blob id, and a commit that changes one file parses one file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from openfero_gitops.catalog.forms import Reading, read_document
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.domain.problem import Problem
from openfero_gitops.domain.rule import Finding, Pointer, format_pointer

if TYPE_CHECKING:
    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.domain.catalog import SourceFile


@dataclass(frozen=True, slots=True)
class FileReading:
    """What a file contains.

    Attributes:
        documents: its documents with their index, without empty ones.
        problems: the problems of the file itself, without path and commit.
        service_accounts: the names of the ServiceAccounts that it defines.
        ignored: the kinds of the documents that are not operarios.
    """

    documents: tuple[tuple[int, Reading], ...]
    problems: tuple[Problem, ...]
    service_accounts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    _places: dict[tuple[int, Pointer], tuple[int, int]] = field(default_factory=dict, repr=False)

    def locate(self, finding: Finding, file: SourceFile, document: int) -> Problem:
        """Turn a finding about a document into a problem of a file with this content."""
        key = (document, finding.pointer)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Locator(file.content).place(*key)
        return at(_problem(finding, *place), file)


def at(problem: Problem, file: SourceFile) -> Problem:
    """Set the path and commit of a problem."""
    return replace(problem, path=file.path, commit=file.commit)


class FileMemo:
    """Reads files and remembers the readings by content: a cache for a pure function.

    Its size is bounded by `forget_unused`, which follows each build.
    """

    def __init__(self, kubernetes: str | Schemas) -> None:
        """Validate for a Kubernetes version, or against a cluster's own schemas.

        Raises:
            UsageError: the version is not known.
        """
        self._schemas = schemas_of(kubernetes) if isinstance(kubernetes, str) else kubernetes
        self._readings: dict[tuple[str, bool], FileReading] = {}
        self._used: set[tuple[str, bool]] = set()

    def read(self, file: SourceFile) -> FileReading:
        """Read a file, from memory if its content was read before."""
        if not file.blob:
            return self._read(file)
        key = (file.blob, _is_json(file))
        reading = self._readings.get(key)
        if reading is None:
            reading = self._readings[key] = self._read(file)
        self._used.add(key)
        return reading

    def forget_unused(self) -> None:
        """Forget every reading that was not used since the last call."""
        self._readings = {key: self._readings[key] for key in self._used}
        self._used = set()

    def _read(self, file: SourceFile) -> FileReading:
        try:
            documents = load(file.content, is_json=_is_json(file))
        except Unreadable as reason:
            return FileReading((), (unread(reason),))
        readings = tuple(
            (index, read_document(document, self._schemas))
            for index, document in enumerate(documents)
            if document is not None
        )
        locator = Locator(file.content)
        problems = tuple(
            _problem(finding, *_place(locator, index, finding))
            for index, reading in readings
            for finding in reading.findings
        )
        return FileReading(
            readings,
            problems,
            tuple(reading.service_account for _, reading in readings if reading.service_account),
            tuple(reading.ignored for _, reading in readings if reading.ignored is not None),
        )


def _is_json(file: SourceFile) -> bool:
    return file.path.endswith(".json")


def unread(reason: Unreadable) -> Problem:
    """Turn the reason why a file cannot be parsed into a problem, without path and commit."""
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
    """Turn a finding about a document of a file into a problem."""
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
