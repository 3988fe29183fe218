"""The commands that run a controller: `serve` and `demo`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import DONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.web.server import Address


class _OfSettings(click.Command):
    """A command with a flag for every setting, which is None where the flag is not given.

    What settings there are is looked up when the command is meant: it takes as long as all the
    rest that another command loads.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The flags, in the order of the settings."""
        self.params = self.params or _settings_options()
        return super().get_params(ctx)


def _settings_options() -> list[click.Parameter]:
    from openfero_gitops.settings import describe  # noqa: PLC0415 - see the module's docstring

    options: list[click.Parameter] = []
    for one in describe():
        default = one.default or one.otherwise
        shown = one.meaning + (f"  [default: {default}]" if default else "")
        kind: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if one.switch else {}
        names = [one.flag, one.name]
        options.append(click.Option(names, multiple=one.many, default=None, help=shown, **kind))
    return options


@click.command(cls=_OfSettings)
def serve(**flags: Any) -> int:
    """Run the controller until it is told to stop.

    Each flag can also be given as an environment variable, OPENFERO_GITOPS_ and the flag's name
    in capitals, or as a key of the YAML file that OPENFERO_GITOPS_CONFIG names.
    """
    from openfero_gitops.app import serve as run  # noqa: PLC0415
    from openfero_gitops.settings import load_settings  # noqa: PLC0415

    settings = load_settings({name: value for name, value in flags.items() if value})
    log.to_stderr(settings.log_format)
    asyncio.run(run(settings, _listen_to_signals, _say_listening))
    return DONE


@click.command()
@click.option("--once", is_flag=True, help="Play the story in the terminal, then end.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Address of the pages.")
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Play on this cluster instead of the one in memory.",
)
@click.option("--namespace", default="openfero-demo", show_default=True, help="With --kubeconfig.")
@click.option(
    "--example",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Play another folder of operarios.",
)
def demo(
    *, once: bool, listen: str, kubeconfig: Path | None, namespace: str, example: Path | None
) -> int:
    """Show the whole thing on one machine, without a cluster.

    The starter repository is put into a Git repository of its own, a cluster in memory plays the
    Jobs through their phases, sample alerts arrive, and the pages are served.
    """
    from openfero_gitops.demo.story import Stage, play  # noqa: PLC0415

    log.to_stderr("console", "error")
    stage = Stage(
        once=once, listen=listen, kubeconfig=kubeconfig, namespace=namespace, example=example
    )
    asyncio.run(play(stage, _stop_on_signals, click.echo))
    return DONE


def _say_listening(addresses: list[Address]) -> None:
    click.echo("listening on " + " and ".join(map(str, addresses)), err=True)


def _listen_to_signals(stop: asyncio.Event, sync: Callable[[], None]) -> None:
    """The same, and let SIGHUP ask for a sync."""
    _stop_on_signals(stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, sync)


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT end a run in good order; a second one ends it at once."""
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
