"""Find and read `openfero.yaml` among the files of a snapshot, or refuse the snapshot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openfero_gitops.catalog.effort import MAX_FILE_PROBLEMS, with_rest
from openfero_gitops.catalog.envelope import (
    ENVELOPE_DOCUMENTS,
    ENVELOPE_MISSING,
    ENVELOPE_NAME,
    LIKE_NAME,
    NAME,
    read_envelope,
    says_paused,
)
from openfero_gitops.catalog.files import at, located, unread
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.catalog.yaml.locate import Locator
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.domain.problem import Problem
from openfero_gitops.domain.rule import warning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openfero_gitops.domain.catalog import Snapshot, SourceFile
    from openfero_gitops.domain.rule import Finding, Rule

NAMESPACE_NOT_GRANTED = warning(
    "namespace-not-granted",
    "`openfero.yaml` should list only namespaces that are granted to the controller.",
    "The entry has no effect, because the controller has no permissions in this namespace.",
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a catalog depends on besides the repository.

    `jobs_namespace` is where Jobs go that name no namespace, empty if that is not known.
    `allowed_namespaces` are the namespaces that the controller was given; None if that is not
    known (a check without a controller): then only openfero.yaml decides.
    """

    jobs_namespace: str = ""
    allowed_namespaces: tuple[str, ...] | None = None
    kubernetes_version: str = DEFAULT


def _in_root(root: str, name: str) -> str:
    return f"{root}/{name}" if root else name


def envelope_paths(root: str) -> frozenset[str]:
    """The paths, in lower case, of the envelope and of files that are probably meant to be it."""
    return frozenset(_in_root(root, name).lower() for name in (NAME, *LIKE_NAME))


def find_envelope(
    snapshot: Snapshot, candidates: Sequence[SourceFile], scope: Scope, *, previous: bool
) -> tuple[Envelope, list[Problem], SourceFile | None]:
    """Find and read `openfero.yaml`.

    Args:
        snapshot: the files of one revision.
        candidates: those of them that are `openfero.yaml`, or probably meant to be it.
        scope: the settings of the controller.
        previous: whether there was an `openfero.yaml` before this revision.

    Returns:
        the envelope, the problems of its file, and the file.

    Raises:
        CatalogRefusal: the envelope is broken, or was deleted.
    """
    path = _in_root(snapshot.root, NAME)
    misnamed = [file for file in candidates if file.path != path]
    wrong_name = ENVELOPE_NAME.at(
        (),
        f"this file is not read: the safety envelope must be named {NAME}",
        f"rename it to {NAME}",
    )
    problems: list[Problem] = []
    for other in misnamed:
        problems += located([wrong_name], 0, other, Locator(other.content))
    reserved = envelope_paths(snapshot.root)
    # `openfero.YAML` is not even read.
    problems += [
        _problem(ENVELOPE_NAME, entry.path, wrong_name.message, wrong_name.suggestion, snapshot)
        for entry in snapshot.ignored
        if entry.path.lower() in reserved
    ]
    unreadable = [
        problem for problem in snapshot.problems if problem.path == path and problem.is_error
    ]
    file = next((file for file in candidates if file.path == path), None)
    if file is None:
        if previous and not problems and not unreadable:
            problems.append(_missing(path, snapshot))
        if problems or unreadable:
            paused = any(says_paused(file.content) for file in misnamed)
            raise _refusal([*problems, *unreadable], snapshot, paused=paused)
        return Envelope(), [], None
    try:
        documents = load(file.content)
    except Unreadable as reason:
        problem = at(unread(reason), file)
        raise _refusal([problem], snapshot, paused=says_paused(file.content)) from None
    values = [(index, value) for index, value in enumerate(documents) if value is not None]
    index, value = values[0] if values else (0, None)
    envelope, findings = read_envelope(value)
    if len(values) > 1:
        message = f"{NAME} contains {len(values)} YAML documents"
        findings.append(ENVELOPE_DOCUMENTS.at((), message, "keep only one"))
    findings += _not_granted(envelope, scope)
    findings.sort(key=lambda finding: not finding.is_error)
    first = located(findings[:MAX_FILE_PROBLEMS], index, file, Locator(file.content))
    own = with_rest(first, len(findings) - len(first))
    if any(problem.is_error for problem in own):
        paused = says_paused(file.content)
        raise _refusal(own, snapshot, paused=paused, ignore=envelope.ignore)
    return envelope, [*problems, *own], file


def _missing(path: str, snapshot: Snapshot) -> Problem:
    message = f"{NAME} was deleted, and its limits with it"
    suggestion = "restore it; to remove its limits, keep an empty file"
    return _problem(ENVELOPE_MISSING, path, message, suggestion, snapshot)


def _problem(rule: Rule, path: str, message: str, suggestion: str, snapshot: Snapshot) -> Problem:
    """Return a problem of a file that was not read."""
    return Problem(
        path=path,
        line=0,
        column=0,
        pointer="",
        rule=rule.id,
        severity=rule.severity,
        message=message,
        suggestion=suggestion,
        commit=snapshot.revision.commit,
    )


def _refusal(
    problems: Sequence[Problem],
    snapshot: Snapshot,
    *,
    paused: bool,
    ignore: tuple[str, ...] = (),
) -> CatalogRefusal:
    first = next(problem for problem in problems if problem.is_error)
    where = f"{first.path}:{first.line}" if first.line else first.path
    hint = f" ({first.suggestion})" if first.suggestion else ""
    message = f"{where}: {first.message}{hint}; the active catalog is kept"
    found = sorted_problems(snapshot, problems)
    return CatalogRefusal(message, found, paused=paused, ignore=ignore)


def sorted_problems(snapshot: Snapshot, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort the problems of a snapshot; those without a commit get the snapshot's."""
    commit = snapshot.revision.commit
    return tuple(
        sorted(
            problem if problem.commit else replace(problem, commit=commit) for problem in problems
        )
    )


def _not_granted(envelope: Envelope, scope: Scope) -> list[Finding]:
    granted = granted_namespaces(scope)
    if granted is None:
        return []
    return [
        NAMESPACE_NOT_GRANTED.at(
            ("namespaces", index),
            f"namespace {name} is not granted to the controller",
            f"add --allowed-namespace {name}, or delete the line",
        )
        for index, name in enumerate(envelope.namespaces or ())
        if name not in granted
    ]


def granted_namespaces(scope: Scope) -> frozenset[str] | None:
    """Return the namespaces in which the controller may create Jobs; None if that is not known."""
    if scope.allowed_namespaces is None:
        return None
    return frozenset((*scope.allowed_namespaces, scope.jobs_namespace))
