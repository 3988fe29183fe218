"""Commands that show what the controller does: status, trace, logs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import (
    DONE,
    FINDINGS,
    kubeconfig_option,
    namespace,
    output_option,
    show_result,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@kubeconfig_option
@click.option(
    "--namespace",
    type=namespace,
    help="Namespace that the controller runs in. Default: the context's namespace.",
)
@click.option(
    "--jobs-namespace",
    type=namespace,
    multiple=True,
    help="Namespace with Jobs of the controller; repeatable. Default: all namespaces.",
)
@output_option
def status(
    *,
    kubeconfig: Path | None,
    namespace: str | None,
    jobs_namespace: tuple[str, ...],
    output: str,
) -> int:
    """Show the state of the controller, and what needs a person.

    Everything is read from the API server, with your permissions; no replica is asked. Exit code 1:
    something needs a person.
    """
    from openfero_gitops.commands.status import read_status  # noqa: PLC0415
    from openfero_gitops.inspection.status_text import as_members, as_text  # noqa: PLC0415

    log.to_stderr("console", "warning")
    state = asyncio.run(read_status(kubeconfig, namespace, jobs_namespace))
    show_result(output, as_text(state), lambda: as_members(state))
    return FINDINGS if state.actions else DONE
