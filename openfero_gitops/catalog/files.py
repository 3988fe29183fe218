"""Read the documents of one file and find what is wrong with them, independent of the commit.

Nothing here depends on the envelope or on other files, so the same content is read once:
`FileMemo` remembers it by blob id, and a commit that changes one file parses one file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.effort import MAX_FILE_PROBLEMS, Effort, Watch
from openfero_gitops.catalog.forms import Reading, read_document
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.catalog.yaml.characters import ODD, find_invisible
from openfero_gitops.catalog.yaml.compose import TOO_MANY_DOCUMENTS, Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.domain.catalog import may_hold_operario
from openfero_gitops.domain.problem import Problem
from openfero_gitops.domain.rule import FILE_TOO_LARGE, Finding, Pointer, format_pointer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.domain.catalog import SourceFile

#: What a file exceeds that is probably another program's.
_BUDGETS: Final = (FILE_TOO_LARGE, TOO_MANY_DOCUMENTS)
#: Added to what to do about a file that cannot be parsed: nobody knows whether it is an operario.
_IGNORE: Final = "if it holds no operario, list it under ignore in openfero.yaml"
_MAX_PLACES: Final = 2 * MAX_FILE_PROBLEMS


@dataclass(frozen=True, slots=True)
class FileReading:
    """What a file contains.

    Attributes:
        documents: its operarios, valid or not, with the index of their document.
        problems: the first problems of the file itself, errors first, without path and commit.
        more: the number of its other problems.
        service_accounts: the names of the ServiceAccounts that it defines.
        ignored: the kinds of the first documents that are not operarios, or are disabled, and why.
        steps: what it has cost to read the file; see `catalog.effort`.
        characters: of its operarios as JSON, which tell how much memory they take.
    """

    documents: tuple[tuple[int, Reading], ...]
    problems: tuple[Problem, ...]
    service_accounts: tuple[str, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    more: int = 0
    steps: int = 0
    characters: int = 0
    _places: dict[tuple[int, Pointer], tuple[int, int]] = field(default_factory=dict, repr=False)

    def locate(
        self, finding: Finding, file: SourceFile, document: int, locator: Locator
    ) -> Problem:
        """Turn a finding about a document into a problem of a file with this content.

        The file is only parsed for the first problems: of others nobody sees the place.
        """
        key = (document, finding.pointer)
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _MAX_PLACES:
                return at(_problem(finding, 0, 0), file)
            place = self._places[key] = locator.place(*key)
        return at(_problem(finding, *place), file)

    def without_details(self) -> FileReading:
        """The same with one problem at most, for a repository with too many of them."""
        return replace(
            self,
            problems=self.problems[:1],
            more=self.more + len(self.problems[1:]),
            ignored=self.ignored[:1],
        )


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

    def read(self, file: SourceFile, watch: Watch | None = None) -> FileReading:
        """Read a file, from memory if its content was read before.

        Raises:
            Interrupted: `watch` says that the result is no longer wanted.
        """
        watch = watch or Watch()
        watch.check()
        if not file.blob:
            return self._read(file, watch)
        key = (file.blob, _is_json(file))
        reading = self._readings.get(key)
        if reading is None:
            reading = self._readings[key] = self._read(file, watch)
        self._used.add(key)
        return reading

    def remember(self, file: SourceFile, reading: FileReading) -> None:
        """Keep what was read of a file elsewhere, for the same version of Kubernetes."""
        if file.blob:
            self._readings[file.blob, _is_json(file)] = reading

    def forget(self, file: SourceFile) -> None:
        """Forget what was read of a file."""
        self._readings.pop((file.blob, _is_json(file)), None)
        self._used.discard((file.blob, _is_json(file)))

    def forget_unused(self) -> None:
        """Forget every reading that was not used since the last call."""
        self._readings = {key: self._readings[key] for key in self._used}
        self._used = set()

    def _read(self, file: SourceFile, watch: Watch) -> FileReading:
        effort = Effort(watch)
        readings: list[tuple[int, Reading]] = []
        try:
            has_odd_characters = not file.content.isascii() and bool(
                ODD.search(file.content.decode(errors="replace"))
            )
            documents = load(file.content, is_json=_is_json(file), spend=effort.spend)
            for index, document in enumerate(documents):
                if document is not None:
                    effort.begin_document()
                    reading = read_document(document, self._schemas, effort)
                    if has_odd_characters and (reading.draft or reading.findings):
                        invisible = tuple(find_invisible(document))
                        reading = replace(reading, findings=(*reading.findings, *invisible))
                    readings.append((index, reading))
        except Unreadable as reason:
            if reason.rule in _BUDGETS and not may_hold_operario(file.content):
                ignored = (("", f"{reason.message}, and no operario in it"),)
                return FileReading((), (), ignored=ignored, steps=effort.steps)
            return FileReading((), (_with_way_out(unread(reason), file),), steps=effort.steps)
        findings = [(index, finding) for index, reading in readings for finding in reading.findings]
        findings.sort(key=lambda item: not item[1].is_error)
        locator = Locator(file.content)
        problems = tuple(
            _problem(finding, *_place(locator, index, finding))
            for index, finding in sorted(findings[:MAX_FILE_PROBLEMS], key=itemgetter(0))
        )
        return FileReading(
            # Of thousands of documents that are no operarios, nothing else is kept.
            tuple(item for item in readings if item[1].name or item[1].draft),
            problems,
            tuple(reading.service_account for _, reading in readings if reading.service_account),
            tuple(
                [
                    (reading.ignored, reading.reason)
                    for _, reading in readings
                    if reading.ignored is not None
                ][:MAX_FILE_PROBLEMS]
            ),
            more=effort.more + len(findings) - len(problems),
            steps=effort.steps,
            characters=sum(reading.characters for _, reading in readings),
        )


def _with_way_out(problem: Problem, file: SourceFile) -> Problem:
    """Say how to ignore a file that cannot be parsed, unless it certainly has an operario."""
    if may_hold_operario(file.content) or _IGNORE in problem.suggestion:
        return problem
    return replace(problem, suggestion="; ".join(filter(None, (problem.suggestion, _IGNORE))))


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


def located(
    findings: Iterable[Finding], document: int, file: SourceFile, locator: Locator
) -> list[Problem]:
    """Turn findings about a document of a file into problems."""
    return [
        at(_problem(finding, *locator.place(document, finding.pointer)), file)
        for finding in findings
    ]


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
