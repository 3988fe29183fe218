"""What people do with a repository and no cluster: validate, render, explain, test, diff.

The same code as in the controller: what passes here runs there.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author import golden
from openfero_gitops.author.diff import Difference, Side, compare
from openfero_gitops.author.explain import Explanation, explain
from openfero_gitops.author.report.findings import Findings
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.delivery.match import NoMatch, match
from openfero_gitops.domain.errors import CatalogRefusal, UsageError
from openfero_gitops.jobs.render import Delivery, render
from openfero_gitops.sources.folder import repository_root
from openfero_gitops.sources.opening import open_commit, open_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Sequence

    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.catalog import Catalog, Snapshot
    from openfero_gitops.sources.folder import FolderSource
    from openfero_gitops.sources.git.access import GitAccess
    from openfero_gitops.sources.git.source import GitSource

#: What stands for the commit where a folder is read: Git's own word for none.
_NO_COMMIT: Final = "0" * 40


async def read_catalog(
    source: str,
    ref: str,
    path: str,
    allowed_namespaces: Sequence[str] = (),
    jobs_namespace: str = "openfero-jobs",
    *,
    kubernetes_version: str = DEFAULT,
    access: GitAccess | None = None,
) -> Catalog:
    """Build the catalog of a folder or a Git URL.

    Args:
        source: the folder or the URL.
        ref: of the repository.
        path: the part of it that counts.
        allowed_namespaces: where Jobs may go; everywhere, where none is named.
        jobs_namespace: where those go that name none.
        kubernetes_version: whose Jobs are meant.
        access: the way to a URL.

    Raises:
        OpenFeroError: it cannot be read, or its `openfero.yaml` refuses it whole.
    """
    scope = _scope(allowed_namespaces, jobs_namespace, kubernetes_version)
    async with _opened(source, ref, path, access) as opened:
        catalog, refusal = await _read(opened, await opened.fetch(), scope)
    if refusal is not None:
        raise refusal
    return catalog


async def check(
    source: str,
    ref: str,
    path: str,
    allowed_namespaces: Sequence[str] = (),
    *,
    kubernetes: str | Schemas = DEFAULT,
    strict: bool = False,
    access: GitAccess | None = None,
) -> Findings:
    """Find everything that is wrong in a folder or a Git URL.

    Args:
        source: the folder or the URL.
        ref: of the repository.
        path: the part of it that counts.
        allowed_namespaces: where Jobs may go; everywhere, where none is named.
        kubernetes: the version that the Jobs are for, or a cluster's own schemas.
        strict: warnings count as errors.
        access: the way to a URL.

    Raises:
        OpenFeroError: it cannot be read.
        UsageError: the version is not known.
    """
    scope = _scope(allowed_namespaces, "openfero-jobs")
    memo = FileMemo(kubernetes)
    async with _opened(source, ref, path, access) as opened:
        catalog, refusal = await _read(opened, await opened.fetch(), scope, memo)
    problems = (*(refusal.problems if refusal else ()), *catalog.problems)
    return Findings(
        problems=tuple(sorted(problems)),
        ignored=catalog.ignored,
        operarios=0 if refusal else len(catalog.operarios),
        files=tuple(sorted({operario.origin.path for operario in catalog.operarios})),
        refused=refusal is not None,
        strict=strict,
    )


def _scope(
    allowed_namespaces: Sequence[str], jobs_namespace: str, kubernetes_version: str = DEFAULT
) -> Scope:
    return Scope(
        jobs_namespace=jobs_namespace,
        allowed_namespaces=(jobs_namespace, *allowed_namespaces) if allowed_namespaces else None,
        kubernetes_version=kubernetes_version,
    )


@contextlib.asynccontextmanager
async def _opened(
    source: str, ref: str, path: str, access: GitAccess | None
) -> AsyncIterator[FolderSource | GitSource]:
    with tempfile.TemporaryDirectory(prefix="openfero-gitops-") as cache:
        opened = open_source(source, ref, path, Path(cache), access)
        try:
            yield opened
        finally:
            await opened.aclose()


async def _read(
    opened: FolderSource | GitSource,
    snapshot: Snapshot,
    scope: Scope,
    memo: FileMemo | None = None,
    *,
    had_envelope: bool = False,
) -> tuple[Catalog, CatalogRefusal | None]:
    """The catalog; where `openfero.yaml` refuses it, that of the other files beside the refusal."""
    memo = memo or FileMemo(scope.kubernetes_version)
    try:
        catalog = await load_catalog(
            snapshot, scope, memo, opened.versions, previous_has_envelope=had_envelope
        )
    except CatalogRefusal as refusal:
        rest = _without({problem.path for problem in refusal.problems}, snapshot)
        return await load_catalog(rest, scope, memo), refusal
    return catalog, None


def _without(paths: Container[str], snapshot: Snapshot) -> Snapshot:
    return replace(
        snapshot,
        files=tuple(file for file in snapshot.files if file.path not in paths),
        problems=tuple(problem for problem in snapshot.problems if problem.path not in paths),
    )


def render_all(
    catalog: Catalog, group: AlertGroup, jobs_namespace: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """The Jobs for a delivery that arrives now, and a line for each alert that gets none."""
    catalog = _committed(catalog)
    delivery = _delivery(group, "render")
    manifests: list[dict[str, Any]] = []
    notes: list[str] = []
    for alert in group.alerts:
        name = alert.name or "an alert without a name"
        found = match(alert, catalog, ())
        if isinstance(found, NoMatch):
            notes.append(f"{name} ({alert.status}): no Job: {found.reason}: {found.reason.text}")
            continue
        rendered = render(
            alert,
            found.operario,
            catalog.envelope,
            catalog.revision,
            delivery,
            jobs_namespace=jobs_namespace,
        )
        if rendered.refusal is not None:
            notes.append(
                f"{name} ({alert.status}): would be refused: {rendered.refusal}: {rendered.message}"
            )
        manifests.append(rendered.manifest)
    return manifests, notes


def explain_all(catalog: Catalog, group: AlertGroup, jobs_namespace: str) -> list[Explanation]:
    """What becomes of each alert of a delivery that arrives now, and why."""
    catalog = _committed(catalog)
    delivery = _delivery(group, "explain")
    return [
        explain(alert, catalog, delivery, jobs_namespace=jobs_namespace) for alert in group.alerts
    ]


async def judge_cases(
    source: str,
    ref: str,
    path: str,
    allowed_namespaces: Sequence[str],
    jobs_namespace: str,
    *,
    kubernetes_version: str = DEFAULT,
    access: GitAccess | None = None,
) -> golden.Report:
    """Hold the golden cases of a folder or a Git URL against its operarios.

    Args:
        source: as in `read_catalog`, with everything that follows.
        ref: the same.
        path: the same.
        allowed_namespaces: the same.
        jobs_namespace: the same.
        kubernetes_version: the same.
        access: the same.

    Raises:
        OpenFeroError: it cannot be read, or its `openfero.yaml` refuses it whole.
    """
    scope = _scope(allowed_namespaces, jobs_namespace, kubernetes_version)
    async with _opened(source, ref, path, access) as opened:
        snapshot = await opened.fetch()
        catalog, refusal = await _read(opened, snapshot, scope)
        if refusal is not None:
            raise refusal
        cases = await opened.cases(snapshot.revision.commit)
    return golden.judge(cases, _committed(catalog), jobs_namespace=jobs_namespace)


def update_cases(folder: str, report: golden.Report) -> list[str]:
    """Write what would be created into every `job.yaml` that says something else.

    Returns:
        the paths that were written, from the repository's root.

    Raises:
        UsageError: it is no folder, or a file cannot be written.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{folder}: --update writes into a folder, and this is none")
    root = repository_root(root) or root.resolve()
    written = []
    for verdict in report.verdicts:
        if verdict.created is None or verdict.passed:
            continue
        path = f"{verdict.case.path}/{golden.JOB}"
        try:
            if (root / path).is_symlink():
                raise UsageError(f"{path}: a symlink is not written through; replace it by a file")
            (root / path).write_text(verdict.created)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        written.append(path)
    return written


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared: two refs of a repository, and what counts of it.

    With `since_parting` not `base` itself is meant but the commit at which `head` left it, as a
    forge shows a pull request.
    """

    source: str
    base: str
    head: str
    path: str = "."
    allowed_namespaces: tuple[str, ...] = ()
    jobs_namespace: str = "openfero-jobs"
    since_parting: bool = False
    kubernetes_version: str = DEFAULT
    access: GitAccess | None = None


async def compare_revisions(asked: Comparison) -> Difference:
    """Find what the second of two commits does otherwise than the first.

    Raises:
        OpenFeroError: one of them cannot be read, or they have no history in common.
    """
    memo = FileMemo(asked.kubernetes_version)
    scope = _scope(asked.allowed_namespaces, asked.jobs_namespace, asked.kubernetes_version)

    async def read(ref: str, *, had_envelope: bool = False) -> Side:
        opened = open_commit(asked.source, ref, asked.path, cache, access=asked.access)
        try:
            snapshot = await opened.fetch()
            found = await _read(opened, snapshot, scope, memo, had_envelope=had_envelope)
        finally:
            await opened.aclose()
        return Side(snapshot, *found)

    with tempfile.TemporaryDirectory(prefix="openfero-gitops-") as folder:
        cache = Path(folder)
        base = await read(asked.base)
        if asked.since_parting:
            base = await read(await _parting(asked, base.snapshot.revision.commit, cache))
        return compare(base, await read(asked.head, had_envelope=base.catalog.has_envelope))


async def _parting(asked: Comparison, base: str, cache: Path) -> str:
    """The commit at which `head` left `base`, both of which are in the cache then."""
    opened = open_commit(asked.source, asked.head, asked.path, cache, access=asked.access)
    try:
        head = (await opened.fetch()).revision.commit
        parting = await opened.merge_base(base, head)
    finally:
        await opened.aclose()
    if not parting:
        raise UsageError(
            f"{base[:12]} and {head[:12]} have no commit in common; in a clone that was made with"
            " --depth, fetch what is missing (git fetch --unshallow)"
        )
    return parting


def _delivery(group: AlertGroup, by: str) -> Delivery:
    return Delivery(
        id=by,
        group_key=group.group_key,
        group_status=group.status,
        received_at=datetime.now(UTC),
        received_by=by,
    )


def _committed(catalog: Catalog) -> Catalog:
    """A folder's catalog as if it had been committed: a command may be about the commit."""
    if catalog.revision.commit:
        return catalog
    operarios = (
        replace(one, origin=replace(one.origin, commit=_NO_COMMIT)) for one in catalog.operarios
    )
    return replace(
        catalog,
        revision=replace(catalog.revision, commit=_NO_COMMIT),
        operarios=tuple(operarios),
    )
