"""Commands that control the controller as a whole: pause, resume."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli.options import DONE, controller_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@controller_options
def pause(*, kubeconfig: Path | None, namespace: str | None, timeout: float) -> int:
    """Pause admission: no further Job starts.

    Alerts are still accepted; their Jobs wait. Running Jobs continue. Returns when the leader has
    confirmed the pause.
    """
    from openfero_gitops.commands.control import pause as pause_admission  # noqa: PLC0415

    click.echo(asyncio.run(pause_admission(True, kubeconfig, namespace, timeout)))  # noqa: FBT003
    return DONE


@click.command()
@controller_options
def resume(*, kubeconfig: Path | None, namespace: str | None, timeout: float) -> int:
    """Resume admission: waiting Jobs start, within their limits."""
    from openfero_gitops.commands.control import pause as pause_admission  # noqa: PLC0415

    click.echo(asyncio.run(pause_admission(False, kubeconfig, namespace, timeout)))  # noqa: FBT003
    return DONE
