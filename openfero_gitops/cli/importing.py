"""`import`: make a repository of operarios from the definitions of another tool."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import DONE, FILE, FINDINGS, output_option

if TYPE_CHECKING:
    from openfero_gitops.commands.importing import ImportResult


@click.group("import")
def import_() -> None:
    """Make a repository of operarios from the definitions of another tool."""


@import_.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write the repository to. It is created; it must be empty, except for .git.",
)
@click.option("--force", is_flag=True, help="Write to a folder that is not empty.")
@click.option(
    "--kubeconfig",
    type=FILE,
    help="Without FILE: kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config.",
)
@click.option(
    "--context",
    metavar="NAME",
    help="Without FILE: context of the kubeconfig. Default: its current context.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NAME",
    help="Without FILE: namespace to read definitions from. Repeatable. Default: all namespaces.",
)
@output_option
def openfero(
    *,
    files: tuple[str, ...],
    folder: Path,
    force: bool,
    kubeconfig: Path | None,
    context: str | None,
    namespaces: tuple[str, ...],
    output: str,
) -> int:
    """Import OpenFero's definitions from each FILE, or from a cluster.

    Reads Operarius objects, ConfigMaps and Jobs named openfero-<alertname>-<status>, and the
    ServiceAccounts, Roles and bindings that their Jobs use. FILE is a file or folder of YAML or
    JSON, or - for standard input; without FILE, the cluster of your kubeconfig is read.

    Writes the operarios, rbac/, openfero.yaml with mode dry-run, a test case for each operario, and
    IMPORT.md. IMPORT.md and the output list what each definition means in another way than in
    OpenFero; ! marks what to review. Secrets are never written. Nothing in the cluster is changed.

    Exit code 1: a definition is not valid, or the new repository has errors.
    """
    from openfero_gitops.author.report import FORMATS  # noqa: PLC0415
    from openfero_gitops.commands.importing import (  # noqa: PLC0415
        import_openfero,
        manifests_of_cluster,
        manifests_of_files,
    )
    from openfero_gitops.importing.report import as_text, as_values  # noqa: PLC0415

    if files and (kubeconfig is not None or context is not None or namespaces):
        raise click.UsageError(
            "--kubeconfig, --context and --namespace read a cluster: name no FILE"
        )
    log.to_stderr("console", "warning")

    async def run() -> ImportResult:
        if files:
            found, notes = manifests_of_files(files)
        else:
            found, notes = await manifests_of_cluster(kubeconfig, context, namespaces)
        return await import_openfero(found, notes, folder, force=force)

    result = asyncio.run(run())
    if output == "json":
        problems = json.loads(FORMATS["json"](result.findings))
        click.echo(json.dumps({**as_values(result.imported), **problems}, indent=2))
    else:
        click.echo(as_text(result.imported))
        errors = tuple(filter(lambda problem: problem.is_error, result.findings.problems))
        click.echo(FORMATS["text"](replace(result.findings, problems=errors)))
        click.echo(f"Run openfero-gitops validate {folder} for warnings.")
    return FINDINGS if result.failed else DONE
