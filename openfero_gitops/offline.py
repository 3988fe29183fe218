"""What people do with a repository and no cluster: validate, render, explain.

The same pipeline as the controller's: what passes here is what runs there.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.adapters.source import open_source
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.pipeline.catalog import Scope, broken_paths, build_catalog
from openfero_gitops.pipeline.explain import Explanation, explain
from openfero_gitops.pipeline.match import NoMatch, match
from openfero_gitops.pipeline.reading import Parser
from openfero_gitops.pipeline.render import Delivery, render
from openfero_gitops.pipeline.report.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.catalog import Catalog, Snapshot

#: What stands for the commit where a folder is read: Git's own word for none.
_NO_COMMIT: Final = "0" * 40


async def read_catalog(
    source: str,
    ref: str,
    path: str,
    allowed_namespaces: Sequence[str] = (),
    jobs_namespace: str = "openfero-jobs",
) -> Catalog:
    """Build the catalog of a folder or a Git URL.

    Raises:
        OpenFeroError: it cannot be read, or its `openfero.yaml` refuses it whole.
    """
    catalog, refusal = await _build(source, ref, path, _scope(allowed_namespaces, jobs_namespace))
    if refusal is not None:
        raise refusal
    return catalog


async def check(
    source: str,
    ref: str,
    path: str,
    allowed_namespaces: Sequence[str] = (),
    *,
    strict: bool = False,
) -> Findings:
    """Find everything that is wrong in a folder or a Git URL; `strict` counts warnings as errors.

    Raises:
        OpenFeroError: it cannot be read.
    """
    catalog, refusal = await _build(source, ref, path, _scope(allowed_namespaces, "openfero-jobs"))
    problems = (*(refusal.problems if refusal else ()), *catalog.problems)
    return Findings(
        problems=tuple(sorted(problems)),
        ignored=catalog.ignored,
        operarios=0 if refusal else len(catalog.operarios),
        files=tuple(sorted({operario.origin.path for operario in catalog.operarios})),
        refused=refusal is not None,
        strict=strict,
    )


def _scope(allowed_namespaces: Sequence[str], jobs_namespace: str) -> Scope:
    return Scope(
        jobs_namespace=jobs_namespace,
        allowed_namespaces=(jobs_namespace, *allowed_namespaces) if allowed_namespaces else None,
    )


async def _build(
    source: str, ref: str, path: str, scope: Scope
) -> tuple[Catalog, CatalogRefusal | None]:
    """The catalog; where `openfero.yaml` refuses it, that of the other files beside the refusal."""
    parser = Parser(scope.kubernetes_version)
    with tempfile.TemporaryDirectory(prefix="openfero-gitops-") as cache:
        opened = open_source(source, ref, path, Path(cache))
        try:
            snapshot = await opened.fetch()
            try:
                catalog = build_catalog(snapshot, scope, parser=parser)
            except CatalogRefusal as refusal:
                rest = _without({one.path for one in refusal.problems}, snapshot)
                return build_catalog(rest, scope, parser=parser), refusal
            if broken := broken_paths(catalog):
                older = {
                    one: await opened.versions(one, snapshot.revision.commit) for one in broken
                }
                catalog = build_catalog(snapshot, scope, older=older, parser=parser)
        finally:
            await opened.aclose()
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
