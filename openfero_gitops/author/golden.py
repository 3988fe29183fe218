"""Golden cases: an alert, and the Jobs that are expected for it.

A case is a folder `tests/<operario>/<case>/` below the configured path. `alert.json` is a webhook
payload or a single alert; `job.yaml` holds the Jobs that the alert would create, and is empty if
it must create none. Values that depend on the commit, the file or the clock are replaced by
`<name>` and not compared, so that moving a file changes no case.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.alert_file import read_alerts
from openfero_gitops.author.placeholders import is_provenance, with_placeholders
from openfero_gitops.author.report.findings import EMPTY
from openfero_gitops.author.report.lines import diff_lines
from openfero_gitops.catalog.files import at, unread
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.dump import to_yaml
from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.delivery.pairs import with_own_job
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import PayloadError
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.domain.problem import Problem, Severity
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.domain.text import did_you_mean, printable
from openfero_gitops.jobs.render import Delivery, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.catalog import Catalog, Snapshot, SourceFile
    from openfero_gitops.jobs.render import Rendered

    _Create = Callable[[AlertGroup], list[Rendered]]

FOLDER: Final = "tests"
ALERT: Final = "alert.json"
JOB: Final = "job.yaml"

_PATH_PARTS: Final = 3  # operario, case, file
_RECEIVED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_MAX_MESSAGE_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One case; `path` is its folder, relative to the root of the repository."""

    operario: str
    name: str
    path: str
    alert: SourceFile | None = None
    job: SourceFile | None = None

    def __str__(self) -> str:
        """The name of the case in messages."""
        return f"{self.operario}/{self.name}"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of one case.

    `created` is the content that `job.yaml` should have, None if the alert cannot be read;
    `difference` is a unified diff to it, empty if there is none. `notes` are results that the
    author may not have intended.
    """

    case: GoldenCase
    created: str | None
    difference: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the expected Jobs would be created."""
        return not self.problems and not self.difference


@dataclass(frozen=True, slots=True)
class CaseReport:
    """The results of all cases; `untested` are the names of the operarios without a case."""

    results: tuple[CaseResult, ...]
    problems: tuple[Problem, ...]
    untested: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every case passed, there is no other error, and there is an operario."""
        return (
            all(result.passed for result in self.results)
            and not any(problem.is_error for problem in self.problems)
            and not self.complaint
        )

    @property
    def complaint(self) -> str:
        """The message if there is no operario; otherwise empty."""
        return "" if self.results or self.untested else EMPTY


def run_cases(
    snapshot: Snapshot,
    catalog: Catalog,
    *,
    jobs_namespace: str,
    replica_labels: frozenset[str] = REPLICA_LABELS,
) -> CaseReport:
    """Compare every case with the Jobs that the catalog would create.

    Args:
        snapshot: the files below `tests`, which is its root.
        catalog: the catalog of the same revision.
        jobs_namespace: namespace for Jobs whose operario names none.
        replica_labels: labels that do not identify an alert.
    """
    create = partial(
        _created,
        catalog=catalog,
        jobs_namespace=jobs_namespace,
        replica_labels=replica_labels,
    )
    # Problems name the commit of their file, which a snapshot may leave out.
    commit = snapshot.revision.commit
    files = tuple(replace(file, commit=file.commit or commit) for file in snapshot.files)
    cases, problems = find_cases(replace(snapshot, files=files), catalog)
    results = tuple(_run(case, create) for case in cases)
    tested = {case.operario for case in cases}
    names = sorted(operario.name for operario in catalog.operarios)
    return CaseReport(
        results=results,
        problems=tuple(sorted((*snapshot.problems, *problems))),
        untested=tuple(name for name in names if name not in tested),
    )


def find_cases(snapshot: Snapshot, catalog: Catalog) -> tuple[list[GoldenCase], list[Problem]]:
    """The cases in order, and the problems of files that belong to no case."""
    operarios = {operario.name for operario in catalog.operarios}
    folders: dict[tuple[str, str], dict[str, SourceFile]] = defaultdict(dict)
    problems: list[Problem] = []
    for file in snapshot.files:
        parts = file.path[len(snapshot.root) + 1 :].split("/")
        if parts[-1] not in (ALERT, JOB):
            continue
        if len(parts) != _PATH_PARTS:
            message = "the file is not in the folder of a case"
            suggestion = f"move it to {FOLDER}/<operario>/<case>/{parts[-1]}"
            problems.append(_problem("case-place", file, message, suggestion))
            continue
        folders[parts[0], parts[1]][parts[2]] = file
    cases = []
    for (operario, name), files in sorted(folders.items()):
        path = f"{snapshot.root}/{operario}/{name}"
        if operario in operarios:
            cases.append(GoldenCase(operario, name, path, files.get(ALERT), files.get(JOB)))
            continue
        file = next(iter(files.values()))
        message = f"there is no valid operario {printable(operario)}"
        suggestion = did_you_mean(operario, operarios) or "rename the folder, or delete it"
        problems.append(_problem("case-operario", replace(file, path=path), message, suggestion))
    return cases, problems


def _run(case: GoldenCase, create: _Create) -> CaseResult:
    if case.alert is None:
        problem = _missing(case, ALERT, "add an Alertmanager payload, or a single alert")
        return CaseResult(case, None, problems=(problem,))
    try:
        group = read_alerts(case.alert.content)
    except PayloadError as error:
        return CaseResult(case, None, problems=(_bad_alert(case.alert, error),))
    rendered = create(group)
    objects = [with_placeholders(job) for job in rendered]
    created = to_yaml(objects)
    notes = tuple(_notes(case, rendered))
    if case.job is None:
        problem = _missing(case, JOB, "use --update to write it; an empty file expects no Job")
        return CaseResult(case, created, problems=(problem,), notes=notes)
    try:
        expected = [job for job in load(case.job.content) if job is not None]
    except Unreadable as reason:
        problem = replace(at(unread(reason), case.job), rule="golden-unreadable")
        return CaseResult(case, created, problems=(problem,), notes=notes)
    return CaseResult(case, created, _difference(case.job.path, expected, objects), notes=notes)


def _created(
    group: AlertGroup, catalog: Catalog, jobs_namespace: str, replica_labels: frozenset[str]
) -> list[Rendered]:
    """The Jobs for a delivery, one for alerts that are one alert."""
    delivery = Delivery(
        id="test",
        group_key=group.group_key,
        group_status=group.status,
        received_at=_RECEIVED_AT,
        received_by="test",
    )
    matches = {
        id(alert): result.operario
        for alert in group.alerts
        if isinstance(result := match(alert, catalog, ()), Match)
    }
    matching = (alert for alert in group.alerts if id(alert) in matches)
    return [
        render(
            alert,
            matches[id(alert)],
            catalog.envelope,
            catalog.revision,
            delivery,
            jobs_namespace=jobs_namespace,
            replica_labels=replica_labels,
        )
        for alert in with_own_job(matching, replica_labels)
    ]


def _notes(case: GoldenCase, rendered: Sequence[Rendered]) -> Iterator[str]:
    matching = {job.manifest["metadata"]["annotations"][keys.OPERARIUS] for job in rendered}
    for name in sorted(matching - {case.operario}):
        yield f"its alert matches {name}"
    for job in rendered:
        if job.refusal is not None:
            yield f"its Job is refused: {job.refusal}: {printable(job.message)}"


def _compared(value: Any) -> Any:
    """A Job without the annotations that are not compared."""
    try:
        metadata: Mapping[str, Any] = value["metadata"]
        annotations = metadata["annotations"].items()
    except (TypeError, KeyError, AttributeError):
        return value
    kept = {key: text for key, text in annotations if not is_provenance(key)}
    return {**value, "metadata": {**metadata, "annotations": kept}}


def _difference(path: str, expected: Iterable[Any], created: Iterable[Any]) -> str:
    wanted = to_yaml(map(_compared, expected), sort_keys=True)
    actual = to_yaml(map(_compared, created), sort_keys=True)
    return "\n".join(diff_lines(wanted, actual, (path, "what would be created")))


def _problem(
    rule: str, file: SourceFile, message: str, suggestion: str, place: tuple[int, int] = (0, 0)
) -> Problem:
    line, column = place
    return Problem(
        file.path, line, column, "", rule, Severity.ERROR, message, suggestion, file.commit
    )


def _missing(case: GoldenCase, name: str, suggestion: str) -> Problem:
    file = case.alert or case.job
    commit = file.commit if file else ""
    message = f"the case has no {name}"
    return Problem(
        f"{case.path}/{name}",
        0,
        0,
        "",
        "case-incomplete",
        Severity.ERROR,
        message,
        suggestion,
        commit,
    )


def _bad_alert(file: SourceFile, error: PayloadError) -> Problem:
    """The problem of a payload that cannot be read, with its line."""
    cause = error.__cause__
    if isinstance(cause, json.JSONDecodeError):
        message = f"invalid JSON: {cause.msg[:1].lower()}{cause.msg[1:]}"
        return _problem("case-alert", file, message, "", (cause.lineno, cause.colno))
    place = (1, 1)
    with contextlib.suppress(Unreadable):  # valid JSON that is not valid YAML has no places
        place = Locator(file.content).place(0, error.path)
    problem = _problem(
        "case-alert", file, printable(str(error), _MAX_MESSAGE_CHARACTERS), "", place
    )
    return replace(problem, pointer=format_pointer(error.path))
