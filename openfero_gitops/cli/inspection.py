"""Commands that show what the controller does: status, trace, logs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import (
    DONE,
    FINDINGS,
    job_options,
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
    help="Namespace with Jobs of the controller; repeatable. Default: all namespaces, or those of "
    "the controller if you may not list all.",
)
@output_option
def status(
    *,
    kubeconfig: Path | None,
    namespace: str | None,
    jobs_namespace: tuple[str, ...],
    output: str,
) -> int:
    """Show the state of the controller, and which actions are needed.

    Everything is read from the API server, with your permissions. The controller is not contacted,
    so the command also works while it is down. Exit code 1: an action is needed.
    """
    from openfero_gitops.commands.status import read_status  # noqa: PLC0415
    from openfero_gitops.inspection.status_text import as_members, as_text  # noqa: PLC0415

    log.to_stderr("console", "warning")
    state = asyncio.run(read_status(kubeconfig, namespace, jobs_namespace))
    show_result(output, as_text(state), lambda: as_members(state))
    return FINDINGS if state.actions else DONE


@click.command()
@job_options
@click.option(
    "--controller-namespace",
    type=namespace,
    help="Namespace that the controller runs in, where it records whether the cluster verifies "
    "approvers. Default: the context's namespace.",
)
@output_option
def trace(
    *,
    job: str,
    kubeconfig: Path | None,
    namespace: str | None,
    controller_namespace: str | None,
    output: str,
) -> int:
    """Show one remediation from its alert to its effect.

    JOB is NAME or NAMESPACE/NAME. Shows the alert and its rule, the operario and its commit, who
    approved and admitted the Job, its Pods, whether it helped, and what happened when. Pods and
    Events are shown as long as Kubernetes keeps them.
    """
    from openfero_gitops.commands.trace import read_trace  # noqa: PLC0415
    from openfero_gitops.inspection.trace_text import as_members, as_text  # noqa: PLC0415

    job_trace = asyncio.run(read_trace(job, kubeconfig, namespace, controller_namespace))
    show_result(output, as_text(job_trace), lambda: as_members(job_trace))
    return DONE


@click.command()
@job_options
@click.option(
    "-f", "--follow", is_flag=True, help="Continue until the Job's containers have ended."
)
@click.option("-c", "--container", metavar="NAME", help="Only this container. Default: all.")
def logs(
    *,
    job: str,
    kubeconfig: Path | None,
    namespace: str | None,
    follow: bool,
    container: str | None,
) -> int:
    """Print the logs of JOB's containers.

    JOB is NAME or NAMESPACE/NAME. If the Job had several Pods, the logs are those of the newest.
    With --follow, the command waits for a Job that has not started.
    """
    from openfero_gitops.commands.logs import print_logs  # noqa: PLC0415
    from openfero_gitops.domain.text import printable_lines  # noqa: PLC0415

    def say(line: str) -> None:
        click.echo(printable_lines(line) if sys.stdout.isatty() else line)

    def warn(text: str) -> None:
        click.echo(printable_lines(text), err=True)

    asyncio.run(
        print_logs(job, kubeconfig, namespace, say, warn, container=container, follow=follow)
    )
    return DONE
