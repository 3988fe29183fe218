"""Reads another tool's definitions from files or a cluster, and writes a repository."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.golden import ALERT, FOLDER
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.cluster.api import CONFIG_MAPS, EVERYWHERE, SERVICE_ACCOUNTS, Resource
from openfero_gitops.commands.author import (
    CatalogSource,
    check,
    read_catalog,
    run_cases,
    update_cases,
)
from openfero_gitops.commands.connection import api_client
from openfero_gitops.domain.errors import Forbidden, NotFound, UsageError
from openfero_gitops.dryrun.trial import EXAMPLE, example_alert
from openfero_gitops.importing.differences import label_names
from openfero_gitops.importing.manifests import manifest, read_manifests
from openfero_gitops.importing.openfero import Import, convert
from openfero_gitops.importing.report import as_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.cluster.client import KubernetesApi
    from openfero_gitops.importing.manifests import Manifest

_GROUP: Final = "rbac.authorization.k8s.io"
_OPERARIUSES: Final = Resource("openfero.io", "v1alpha1", "operariuses", "Operarius")
_NAMESPACED: Final = (
    _OPERARIUSES,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    Resource(_GROUP, "v1", "roles", "Role"),
    Resource(_GROUP, "v1", "rolebindings", "RoleBinding"),
)
_CLUSTER_WIDE: Final = (
    Resource(_GROUP, "v1", "clusterroles", "ClusterRole"),
    Resource(_GROUP, "v1", "clusterrolebindings", "ClusterRoleBinding"),
)
_SUFFIXES: Final = (".json", ".yaml", ".yml")
#: The report, in the repository itself so that a pull request shows it.
REPORT: Final = "IMPORT.md"
_CASE: Final = "imported"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What was imported, and what `validate` says about the new repository."""

    imported: Import
    findings: Findings

    @property
    def failed(self) -> bool:
        """Whether something could not be converted, or the repository has errors."""
        return not self.imported.is_complete or self.findings.failed


async def import_openfero(
    manifests: Iterable[Manifest], notes: Sequence[str], folder: Path, *, force: bool
) -> ImportResult:
    """Write a repository with the definitions among the objects, their cases and a report.

    `notes` are about what could not be read.

    Raises:
        UsageError: there is no definition, or the folder has files and `force` is not set.
    """
    imported = convert(manifests)
    imported = replace(imported, notes=(*notes, *imported.notes))
    if not imported.definitions:
        raise UsageError(
            "no definition of OpenFero found: neither an Operarius, nor a Job or ConfigMap named "
            "openfero-<alertname>-<status>"
        )
    _prepare(folder, force=force)
    _write(folder, {**imported.files, REPORT: as_markdown(imported)})
    await _write_cases(folder)
    return ImportResult(imported, await check(CatalogSource(str(folder))))


def manifests_of_files(paths: Sequence[str]) -> tuple[list[Manifest], list[str]]:
    """Read the objects of files and folders, `-` for standard input.

    Returns:
        the objects, and a note for each file that could not be read as YAML or JSON.

    Raises:
        UsageError: a path does not exist or cannot be read.
    """
    found: list[Manifest] = []
    notes = []
    for name, content in _contents(paths):
        try:
            found += read_manifests(name, content)
        except Unreadable as problem:
            notes.append(f"{name} is not imported: it cannot be parsed: {problem}")
    return found, notes


async def manifests_of_cluster(
    kubeconfig: Path | None, context: str | None, namespaces: Sequence[str]
) -> tuple[list[Manifest], list[str]]:
    """Read the objects of a cluster, in all namespaces if none is named.

    Returns:
        the objects, and a note for each kind that may not be listed.

    Raises:
        ApiError: the API server does not answer, or forbids to list definitions.
        UsageError: there is no usable kubeconfig.
    """
    found: list[Manifest] = []
    notes = []
    places = [
        (resource, place) for resource in _NAMESPACED for place in namespaces or (EVERYWHERE,)
    ]
    async with api_client(kubeconfig, context) as api:
        for resource, place in (*places, *((resource, EVERYWHERE) for resource in _CLUSTER_WIDE)):
            try:
                found += await _listed(api, resource, place)
            except NotFound:
                continue  # The CustomResourceDefinition is not installed.
            except Forbidden as error:
                if resource in (_OPERARIUSES, CONFIG_MAPS):
                    raise
                notes.append(f"{resource.kind} objects are not imported: {error}")
    return found, notes


async def _listed(api: KubernetesApi, resource: Resource, namespace: str) -> list[Manifest]:
    listed = await api.list(resource, namespace)
    return [
        manifest(
            {"apiVersion": resource.api_version, "kind": resource.kind, **body},
            " ".join([resource.kind, _place(body)]),
        )
        for body in listed.items
    ]


def _place(body: dict[str, Any]) -> str:
    metadata = body["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _contents(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if path == "-":
            yield "standard input", sys.stdin.buffer.read()
            continue
        place = Path(path)
        files = [place] if not place.is_dir() else sorted(place.rglob("*"))
        for file in files:
            if place.is_dir() and (file.suffix not in _SUFFIXES or not file.is_file()):
                continue
            try:
                yield str(file), file.read_bytes()
            except OSError as error:
                raise UsageError(f"cannot read {file}: {error.strerror}") from error


def _prepare(output: Path, *, force: bool) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        others = [entry.name for entry in output.iterdir() if entry.name != ".git"]
    except OSError as error:
        raise UsageError(f"cannot write to {output}: {error.strerror}") from error
    if others and not force:
        raise UsageError(
            f"{output} is not empty: name an empty folder, or add --force to overwrite files"
        )


def _write(output: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = output / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {file}: {error.strerror}") from error


async def _write_cases(output: Path) -> None:
    """Write a golden case for each operario: an alert with every value that it uses."""
    source = CatalogSource(str(output))
    catalog = await read_catalog(source)
    alerts = {}
    for operario in catalog.operarios:
        alert = example_alert(operario)
        labels = dict.fromkeys(label_names(operario.job), EXAMPLE) | dict(alert.labels)
        body = {
            "status": alert.status.value,
            "labels": labels,
            "annotations": dict(alert.annotations),
            "startsAt": "2026-01-01T00:00:00Z",
        }
        path = f"{FOLDER}/{operario.name}/{_CASE}/{ALERT}"
        alerts[path] = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    await asyncio.to_thread(_write, output, alerts)
    update_cases(str(output), await run_cases(source))
