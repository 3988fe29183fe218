"""Golden cases: an alert beside the Jobs that its author expects of it.

A case is a folder `tests/<operario>/<case>/` below the configured path. `alert.json` is a payload
or one alert; `job.yaml` holds the Jobs that would be created for it, and is empty where none may
be. Everything in a Job that comes from its commit, its file or the clock reads `<name>` there, and
is not compared: a golden tells of behaviour, so that moving a file changes none.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.report.findings import EMPTY
from openfero_gitops.catalog.files import at, unread
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.dump import to_yaml
from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import PayloadError
from openfero_gitops.domain.problem import Problem, Severity
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.domain.text import did_you_mean, printable
from openfero_gitops.jobs import environment
from openfero_gitops.jobs.render import Delivery, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.catalog import Catalog, Snapshot, SourceFile
    from openfero_gitops.jobs.render import Rendered

FOLDER: Final = "tests"
ALERT: Final = "alert.json"
JOB: Final = "job.yaml"

#: Of our own annotations, those that say what a Job does, and not where it came from.
_BEHAVIOUR: Final = frozenset(
    {
        keys.OPERARIUS,
        keys.ALERT,
        keys.STARTS_AT,
        keys.ATTEMPT,
        keys.FINGERPRINT,
        keys.TARGET,
        keys.OPTIONS,
        keys.QUEUE,
        keys.DECISION,
        keys.REASON,
        keys.MESSAGE,
    }
)
_COMMIT: Final = environment.PREFIX + "COMMIT"
_DEPTH: Final = 3  # operario, case, file
_MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_LONGEST_LINE: Final = 400
_CONTEXT: Final = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One case; `path` is its folder, from the repository's root."""

    operario: str
    name: str
    path: str
    alert: SourceFile | None = None
    job: SourceFile | None = None

    def __str__(self) -> str:
        """As people call it."""
        return f"{self.operario}/{self.name}"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How a case came out.

    `created` is what `job.yaml` would have to hold, None where the alert cannot be read;
    `difference` is a unified diff from what it holds, empty where that is the same. `notes` are
    what an author may not have meant.
    """

    case: Case
    created: str | None
    difference: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the case holds what would be created."""
        return not self.problems and not self.difference


@dataclass(frozen=True, slots=True)
class CaseReport:
    """All cases of a revision; `untested` are the names of the operarios that have none."""

    results: tuple[CaseResult, ...]
    problems: tuple[Problem, ...]
    untested: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every case passed, and each of them can be read; without operarios none can."""
        return (
            all(verdict.passed for verdict in self.results)
            and not any(problem.is_error for problem in self.problems)
            and not self.complaint
        )

    @property
    def complaint(self) -> str:
        """What is wrong with the whole, where there is no operario; empty else."""
        return "" if self.results or self.untested else EMPTY


def run_cases(snapshot: Snapshot, catalog: Catalog, *, jobs_namespace: str) -> CaseReport:
    """Hold every case against what the catalog makes of its alert.

    Args:
        snapshot: the files below `tests`, which is its root.
        catalog: of the same revision.
        jobs_namespace: where Jobs go that name none.
    """
    # (A file need not name the commit that it is of, and what is found in it does.)
    commit = snapshot.revision.commit
    files = tuple(replace(file, commit=file.commit or commit) for file in snapshot.files)
    cases, problems = _cases(replace(snapshot, files=files), catalog)
    results = tuple(_judge(case, catalog, jobs_namespace) for case in cases)
    tested = {case.operario for case in cases}
    names = sorted(operario.name for operario in catalog.operarios)
    return CaseReport(
        results=results,
        problems=tuple(sorted((*snapshot.problems, *problems))),
        untested=tuple(name for name in names if name not in tested),
    )


def _cases(snapshot: Snapshot, catalog: Catalog) -> tuple[list[Case], list[Problem]]:
    """The cases in order, and what lies where no case can be."""
    known = {operario.name for operario in catalog.operarios}
    folders: dict[tuple[str, str], dict[str, SourceFile]] = defaultdict(dict)
    problems: list[Problem] = []
    for file in snapshot.files:
        parts = file.path[len(snapshot.root) + 1 :].split("/")
        if parts[-1] not in (ALERT, JOB):
            continue
        if len(parts) != _DEPTH:
            message = "this file belongs to no case"
            suggestion = f"move it to {FOLDER}/<operario>/<case>/{parts[-1]}"
            problems.append(_problem("case-place", file, message, suggestion))
            continue
        folders[parts[0], parts[1]][parts[2]] = file
    cases = []
    for (operario, name), files in sorted(folders.items()):
        path = f"{snapshot.root}/{operario}/{name}"
        if operario in known:
            cases.append(Case(operario, name, path, files.get(ALERT), files.get(JOB)))
            continue
        file = next(iter(files.values()))
        message = f"no operario in force is named {printable(operario)}"
        suggestion = did_you_mean(operario, known) or "rename the folder, or delete it"
        problems.append(_problem("case-operario", replace(file, path=path), message, suggestion))
    return cases, problems


def _judge(case: Case, catalog: Catalog, jobs_namespace: str) -> CaseResult:
    if case.alert is None:
        problem = _missing(case, ALERT, "put an Alertmanager payload or one alert there")
        return CaseResult(case, None, problems=(problem,))
    try:
        group = read_payload(case.alert.content)
    except PayloadError as error:
        return CaseResult(case, None, problems=(_bad_alert(case.alert, error),))
    rendered = list(_rendered(group, catalog, jobs_namespace))
    objects = [_masked(one) for one in rendered]
    created = to_yaml(objects)
    notes = tuple(_notes(case, rendered))
    if case.job is None:
        problem = _missing(case, JOB, "--update writes it; an empty one allows no Job at all")
        return CaseResult(case, created, problems=(problem,), notes=notes)
    try:
        expected = [one for one in load(case.job.content) if one is not None]
    except Unreadable as reason:
        problem = replace(at(unread(reason), case.job), rule="golden-unreadable")
        return CaseResult(case, created, problems=(problem,), notes=notes)
    return CaseResult(case, created, _difference(case.job.path, expected, objects), notes=notes)


def _rendered(group: AlertGroup, catalog: Catalog, jobs_namespace: str) -> Iterator[Rendered]:
    """The Jobs of a delivery, one for each occurrence."""
    delivery = Delivery(
        id="test",
        group_key=group.group_key,
        group_status=group.status,
        received_at=_MOMENT,
        received_by="test",
    )
    seen = set()
    for alert in group.alerts:
        found = match(alert, catalog, ())
        if not isinstance(found, Match):
            continue
        rendered = render(
            alert,
            found.operario,
            catalog.envelope,
            catalog.revision,
            delivery,
            jobs_namespace=jobs_namespace,
        )
        if rendered.key not in seen:
            seen.add(rendered.key)
            yield rendered


def _notes(case: Case, rendered: Sequence[Rendered]) -> Iterator[str]:
    answering = {one.manifest["metadata"]["annotations"][keys.OPERARIUS] for one in rendered}
    for name in sorted(answering - {case.operario}):
        yield f"its alert is answered by {name}"
    for one in rendered:
        if one.refusal is not None:
            yield f"a Job is refused: {one.refusal}: {printable(one.message)}"


def _masked(rendered: Rendered) -> dict[str, Any]:
    """A Job with a name in the place of each value that behaviour does not depend on."""
    manifest = copy.deepcopy(rendered.manifest)
    metadata = manifest["metadata"]
    annotations = metadata["annotations"]
    commit = annotations[keys.COMMIT]
    for key in annotations:
        if _is_provenance(key):
            annotations[key] = f"<{key.removeprefix(keys.PREFIX)}>"
    if rendered.occurrence.starts_at is None:
        # Each delivery of such an alert is an occurrence of its own.
        slug = metadata["name"].rpartition("-")[0]
        metadata["name"] = f"{slug}-<occurrence>"
        metadata["labels"][keys.OCCURRENCE] = "<occurrence>"
    pod = manifest["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
        for variable in container.get("env", ()):
            if variable["name"] == _COMMIT and variable.get("value") == commit:
                variable["value"] = "<commit>"
    return manifest


def _is_provenance(key: str) -> bool:
    return key.startswith(keys.PREFIX) and key not in _BEHAVIOUR


def _compared(value: Any) -> Any:
    """A Job without the annotations that are not compared."""
    try:
        metadata: Mapping[str, Any] = value["metadata"]
        annotations = metadata["annotations"].items()
    except (TypeError, KeyError, AttributeError):
        return value
    kept = {key: text for key, text in annotations if not _is_provenance(key)}
    return {**value, "metadata": {**metadata, "annotations": kept}}


def _difference(path: str, expected: Iterable[Any], created: Iterable[Any]) -> str:
    wanted = to_yaml(map(_compared, expected), sort_keys=True)
    found = to_yaml(map(_compared, created), sort_keys=True)
    lines = difflib.unified_diff(
        wanted.splitlines(),
        found.splitlines(),
        path,
        "what would be created",
        lineterm="",
        n=_CONTEXT,
    )
    return "\n".join(printable(line, _LONGEST_LINE) for line in lines)


def _problem(
    rule: str, file: SourceFile, message: str, suggestion: str, place: tuple[int, int] = (0, 0)
) -> Problem:
    line, column = place
    return Problem(
        file.path, line, column, "", rule, Severity.ERROR, message, suggestion, file.commit
    )


def _missing(case: Case, name: str, suggestion: str) -> Problem:
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
    """A payload that cannot be read, at its line."""
    cause = error.__cause__
    if isinstance(cause, json.JSONDecodeError):
        message = f"not JSON: {cause.msg[:1].lower()}{cause.msg[1:]}"
        return _problem("case-alert", file, message, "", (cause.lineno, cause.colno))
    place = (1, 1)
    with contextlib.suppress(Unreadable):  # JSON that is no YAML: what is found has no place
        place = Locator(file.content).place(0, error.path)
    problem = _problem("case-alert", file, printable(str(error), _LONGEST_LINE), "", place)
    return replace(problem, pointer=format_pointer(error.path))
