"""What authors do with a repository: validate, render, explain, test, diff.

These commands run the code of the controller, so what passes here also passes there.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from openfero_gitops.author import golden
from openfero_gitops.author.diff import BehaviorDiff, Side, compare
from openfero_gitops.author.explain import Explanation, explain_group
from openfero_gitops.author.report.findings import Findings
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.ignore import select_considered
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.commands.read_ahead import read_ahead
from openfero_gitops.delivery.match import NoMatch, match
from openfero_gitops.delivery.pairs import with_own_job
from openfero_gitops.domain.catalog import Envelope, Snapshot
from openfero_gitops.domain.errors import CatalogRefusal, FolderMissing, UsageError
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.jobs.render import Delivery, render
from openfero_gitops.sources.git.source import GitSource
from openfero_gitops.sources.local import find_root
from openfero_gitops.sources.opening import open_commit, open_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container

    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.domain.alert import Alert, AlertGroup
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.sources.folder import FolderSource
    from openfero_gitops.sources.git.access import GitAccess

#: Git's own placeholder for "no commit": a folder that is read as it is has none.
_NO_COMMIT: Final = "0" * 40


@dataclass(frozen=True, slots=True)
class CatalogSource:
    """Where a catalog is read from, and what it is validated against.

    Attributes:
        location: a folder or a Git URL.
        ref: branch, tag or commit; HEAD of a folder means the working tree.
        path: folder inside the source that holds the operarios.
        allowed_namespaces: namespaces that operarios may name; empty allows all.
        jobs_namespace: namespace for Jobs whose operario names none.
        kubernetes_version: Kubernetes version to validate Jobs against; empty means the default.
        access: how to reach a Git URL.
        replica_labels: labels that do not identify an alert.
    """

    location: str
    ref: str = "HEAD"
    path: str = "."
    allowed_namespaces: tuple[str, ...] = ()
    jobs_namespace: str = "openfero-jobs"
    kubernetes_version: str = ""
    access: GitAccess | None = None
    replica_labels: frozenset[str] = REPLICA_LABELS

    @property
    def scope(self) -> Scope:
        """What operarios may use."""
        allowed = (self.jobs_namespace, *self.allowed_namespaces)
        return Scope(
            jobs_namespace=self.jobs_namespace,
            allowed_namespaces=allowed if self.allowed_namespaces else None,
            kubernetes_version=self.kubernetes_version or DEFAULT,
        )


async def read_catalog(source: CatalogSource) -> Catalog:
    """Build the catalog of a folder or a Git URL.

    Raises:
        OpenFeroError: it cannot be read, or its `openfero.yaml` has errors.
    """
    async with _opened(source) as opened:
        catalog, refusal = await _read(opened, await opened.fetch(), source.scope)
    if refusal is not None:
        raise refusal
    return catalog


class Judge(Protocol):
    """A cluster that judges Jobs."""

    schemas: Schemas

    async def judge(self, catalog: Catalog, jobs_namespace: str) -> tuple[Problem, ...]:
        """Return the problems that only the cluster can find."""
        ...


async def check(
    source: CatalogSource, *, cluster: Judge | None = None, strict: bool = False
) -> Findings:
    """Find every problem in a folder or a Git URL.

    Args:
        source: what to check.
        cluster: its schemas count instead of those of the source's Kubernetes version, and it
            judges the Jobs of the valid operarios.
        strict: warnings count as errors.

    Raises:
        OpenFeroError: it cannot be read, or the cluster does not answer.
        UsageError: the Kubernetes version is not supported.
    """
    memo = FileMemo(cluster.schemas) if cluster else None
    async with _opened(source) as opened:
        catalog, refusal = await _read(opened, await opened.fetch(), source.scope, memo)
    judged = await cluster.judge(catalog, source.jobs_namespace) if cluster else ()
    problems = (*(refusal.problems if refusal else ()), *catalog.problems, *judged)
    return Findings(
        problems=tuple(sorted(problems)),
        ignored=catalog.ignored,
        operarios=0 if refusal else len(catalog.operarios),
        files=tuple(sorted({operario.origin.path for operario in catalog.operarios})),
        refused=refusal is not None,
        strict=strict,
        disabled=0 if refusal else sum(not o.options.enabled for o in catalog.operarios),
    )


@contextlib.asynccontextmanager
async def _opened(source: CatalogSource) -> AsyncIterator[FolderSource | GitSource]:
    with tempfile.TemporaryDirectory(prefix="openfero-gitops-") as cache:
        opened = open_source(source.location, source.ref, source.path, Path(cache), source.access)
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
    """The catalog; if `openfero.yaml` has errors, that of the other files, and the refusal."""
    if memo is None:
        memo = FileMemo(scope.kubernetes_version)
        await read_ahead(memo, snapshot.files, scope.kubernetes_version)
    versions = opened.versions if isinstance(opened, GitSource) else None
    try:
        catalog = await load_catalog(
            snapshot, scope, memo, versions, previous_has_envelope=had_envelope
        )
    except CatalogRefusal as refusal:
        rest = _without({problem.path for problem in refusal.problems}, snapshot)
        considered, ignored = select_considered(rest, Envelope(ignore=refusal.ignore))
        catalog = await load_catalog(considered, scope, memo)
        return replace(catalog, ignored=(*catalog.ignored, *ignored)), refusal
    return catalog, None


def _without(paths: Container[str], snapshot: Snapshot) -> Snapshot:
    return replace(
        snapshot,
        files=tuple(file for file in snapshot.files if file.path not in paths),
        problems=tuple(problem for problem in snapshot.problems if problem.path not in paths),
    )


def render_all(
    catalog: Catalog, group: AlertGroup, source: CatalogSource
) -> tuple[list[dict[str, Any]], list[str]]:
    """The Jobs for a delivery received now, and a line for each alert without one of its own."""
    catalog = _committed(catalog)
    delivery = Delivery(
        id="render",
        group_key=group.group_key,
        group_status=group.status,
        received_at=datetime.now(UTC),
        received_by="render",
    )
    manifests: list[dict[str, Any]] = []
    notes: list[str] = []
    matches: list[tuple[Alert, Operario]] = []
    for alert in group.alerts:
        result = match(alert, catalog, ())
        if isinstance(result, NoMatch):
            notes.append(f"{_named(alert)}: no Job: {result.reason}: {result.reason.text}")
        else:
            matches.append((alert, result.operario))
    own = set(map(id, with_own_job((alert for alert, _ in matches), source.replica_labels)))
    for alert, operario in matches:
        if id(alert) not in own:
            notes.append(
                f"{_named(alert)}: has the same Job as another alert: they differ in replica labels"
            )
            continue
        rendered = render(
            alert,
            operario,
            catalog.envelope,
            catalog.revision,
            delivery,
            jobs_namespace=source.jobs_namespace,
            replica_labels=source.replica_labels,
        )
        if rendered.refusal is not None:
            notes.append(
                f"{_named(alert)}: would be refused: {rendered.refusal}: {rendered.message}"
            )
        manifests.append(rendered.manifest)
    return manifests, notes


def _named(alert: Alert) -> str:
    return f"{alert.name or 'an alert without a name'} ({alert.status})"


def explain_all(catalog: Catalog, group: AlertGroup, source: CatalogSource) -> list[Explanation]:
    """Explain each alert of a delivery received now."""
    return explain_group(
        group,
        _committed(catalog),
        now=datetime.now(UTC),
        jobs_namespace=source.jobs_namespace,
        replica_labels=source.replica_labels,
    )


async def run_cases(source: CatalogSource) -> golden.CaseReport:
    """Compare the golden cases of a folder or a Git URL with the Jobs that would be created.

    Raises:
        OpenFeroError: it cannot be read, or its `openfero.yaml` has errors.
    """
    async with _opened(source) as opened:
        snapshot = await opened.fetch()
        catalog, refusal = await _read(opened, snapshot, source.scope)
        if refusal is not None:
            raise refusal
        cases = await opened.cases(snapshot)
    return golden.run_cases(
        cases,
        _committed(catalog),
        jobs_namespace=source.jobs_namespace,
        replica_labels=source.replica_labels,
    )


def update_cases(folder: str, report: golden.CaseReport) -> list[str]:
    """Write the Jobs that would be created to the `job.yaml` of each case that differs.

    Returns:
        the paths that were written, relative to the root of the repository.

    Raises:
        UsageError: it is no folder, or a file cannot be written.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{folder} is not a folder: --update needs one")
    root = find_root(root) or root.resolve()
    written = []
    for result in report.results:
        if result.created is None or result.passed:
            continue
        path = f"{result.case.path}/{golden.JOB}"
        try:
            if (root / path).is_symlink():
                raise UsageError(f"{path} is a symlink: replace it with a regular file")
            (root / path).write_text(result.created)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        written.append(path)
    return written


async def compare_revisions(
    source: CatalogSource, base: str, head: str, *, from_merge_base: bool = False
) -> BehaviorDiff:
    """Find what behaves differently at `head` than at `base`.

    A folder that `base` does not have yet counts as empty, so that it can be added.

    Args:
        source: the repository; its `ref` is not used.
        base: branch, tag or commit.
        head: the same.
        from_merge_base: compare with the merge base of the two instead of `base`, as a pull
            request does.

    Raises:
        OpenFeroError: one of them cannot be read, or they have no merge base.
    """
    memo = FileMemo(source.scope.kubernetes_version)

    def opened_at(ref: str) -> GitSource:
        return open_commit(source.location, ref, source.path, cache, access=source.access)

    async def read_base(ref: str) -> Side:
        try:
            return await read(ref)
        except FolderMissing as missing:
            empty = Snapshot(missing.revision, source.path, ())
            return Side(empty, await load_catalog(empty, source.scope, memo))

    async def read(ref: str, *, had_envelope: bool = False) -> Side:
        async with contextlib.aclosing(opened_at(ref)) as opened:
            snapshot = await opened.fetch()
            catalog, refusal = await _read(
                opened, snapshot, source.scope, memo, had_envelope=had_envelope
            )
        considered, _ = select_considered(snapshot, catalog.envelope)
        return Side(considered, catalog, refusal)

    with tempfile.TemporaryDirectory(prefix="openfero-gitops-") as folder:
        cache = Path(folder)
        before = await read_base(base)
        if from_merge_base:
            async with contextlib.aclosing(opened_at(head)) as opened:
                commit = await _merge_base(opened, before.snapshot.revision.commit)
            before = await read_base(commit)
        return compare(before, await read(head, had_envelope=before.catalog.has_envelope))


async def _merge_base(head: GitSource, base: str) -> str:
    """The merge base of a commit, which is in the cache, and the head of a source."""
    commit = (await head.fetch()).revision.commit
    merge_base = await head.merge_base(base, commit)
    if not merge_base:
        raise UsageError(
            f"{base[:12]} and {commit[:12]} have no common commit: in a shallow clone, run git "
            "fetch --unshallow first"
        )
    return merge_base


def _committed(catalog: Catalog) -> Catalog:
    """Give the catalog of a folder a placeholder for its commit, which Jobs and cases need."""
    if catalog.revision.commit:
        return catalog
    operarios = (
        replace(operario, origin=replace(operario.origin, commit=_NO_COMMIT))
        for operario in catalog.operarios
    )
    return replace(
        catalog,
        revision=replace(catalog.revision, commit=_NO_COMMIT),
        operarios=tuple(operarios),
    )
