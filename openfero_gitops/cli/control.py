"""Commands that control the controller as a whole: pause, resume, sync."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli.options import (
    DONE,
    FINDINGS,
    controller_options,
    duration,
    output_option,
    reason_option,
    show_result,
    timeout_option,
)

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


def _pause_duration(value: str) -> timedelta:
    parsed = duration(value)
    if not parsed:
        raise click.BadParameter("it must be longer than 0, such as 2h")
    return parsed


@click.command()
@controller_options
@timeout_option(30.0, "How long to wait for the leader's confirmation.")
@click.option(
    "--for",
    "period",
    type=_pause_duration,
    metavar="DURATION",
    help="How long the pause lasts, such as 2h. Default: until `openfero-gitops resume`.",
)
@reason_option("Why, in a few words; recorded and shown with your name.")
@output_option
def pause(
    *,
    kubeconfig: Path | None,
    namespace: str | None,
    timeout: float,
    period: timedelta | None,
    reason: str,
    output: str,
) -> int:
    """Pause admission: no further Job starts.

    Alerts are still accepted; their Jobs wait. Running Jobs continue. Returns when the leader has
    confirmed the pause. It lasts until `openfero-gitops resume`, or as long as --for says. Another
    pause replaces it.
    """
    from openfero_gitops.commands.control import pause as pause_admission  # noqa: PLC0415

    change = asyncio.run(
        pause_admission(kubeconfig, namespace, timeout, duration=period, reason=reason)
    )
    show_result(output, change, change.members)
    return DONE


@click.command()
@controller_options
@timeout_option(30.0, "How long to wait for the leader's confirmation.")
@output_option
def resume(*, kubeconfig: Path | None, namespace: str | None, timeout: float, output: str) -> int:
    """Resume admission: waiting Jobs start, within their limits."""
    from openfero_gitops.commands.control import resume as resume_admission  # noqa: PLC0415

    change = asyncio.run(resume_admission(kubeconfig, namespace, timeout))
    show_result(output, change, change.members)
    return DONE


@click.command()
@controller_options
@timeout_option(60.0, "How long to wait for the replicas.")
@output_option
def sync(*, kubeconfig: Path | None, namespace: str | None, timeout: float, output: str) -> int:
    """Sync every replica with Git now, and wait until each has reported the result.

    Replicas read the request within 5 seconds, so the command takes at least 8 seconds. It waits
    for every replica that has read it, and for the leader. Exit code 1: a replica failed to sync,
    refused the new commit, or did not report in time.
    """
    from openfero_gitops.commands.sync import sync as sync_replicas  # noqa: PLC0415

    report = asyncio.run(sync_replicas(kubeconfig, namespace, timeout))
    show_result(output, report, report.members)
    return DONE if report.succeeded else FINDINGS
