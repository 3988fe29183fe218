"""The commands that run a controller: `serve` and `demo`."""

from __future__ import annotations

import asyncio
import gc
import signal
from asyncio.sslproto import SSLProtocol
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import DONE, FAILED, FILE, FINDINGS, namespace
from openfero_gitops.domain.errors import CatalogRefusal, OpenFeroError

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.settings import SettingDoc
    from openfero_gitops.web.server import Address

#: What `--help` shows for the values of settings that are plain texts.
_TEXTS: Final = {
    "repo": "URL",
    "ref": "REF",
    "path": "DIR",
    "git_proxy": "URL",
    "replica_label": "LABEL",
    "git_no_proxy": "HOSTS",
    "kubernetes_version": "VERSION",
    "listen": "ADDRESS",
    "web_listen": "ADDRESS",
    "allowed_host": "HOST",
    "alertmanager_url": "URL",
    "commit_url": "URL",
    "external_url": "URL",
    "file_url": "URL",
    "identity": "NAME",
    "web_trusted_proxy": "CIDR",
    "web_user_header": "HEADER",
}


_MAX_TLS_RECORD_BYTES: Final = 16 * 1024
_OBJECTS_BEFORE_COLLECTION: Final = 10_000


class _CommandOfSettings(click.Command):
    """A command with a flag for each setting; a flag that is not given is None.

    The settings are imported only when this command runs or shows its help: importing them takes
    as long as everything else that a command loads.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The flags, in the order of the settings."""
        self.params = self.params or _settings_options()
        return super().get_params(ctx)


def _settings_options() -> list[click.Parameter]:
    from openfero_gitops.settings import describe  # noqa: PLC0415 - see _CommandOfSettings

    options: list[click.Parameter] = []
    for setting in describe():
        default = setting.default or setting.default_text
        shown = setting.description + (f"  [default: {default}]" if default else "")
        switch: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if setting.switch else {}
        options.append(
            click.Option(
                [setting.flag, setting.name],
                multiple=setting.repeatable,
                default=None,
                metavar=_metavar(setting),
                help=shown,
                **switch,
            )
        )
    return options


def _metavar(setting: SettingDoc) -> str:
    """What `--help` shows for a setting's value.

    The type of the option stays text, since the settings themselves check their values.
    """
    if setting.choices:
        return f"[{'|'.join(setting.choices)}]"
    return _TEXTS.get(setting.name, setting.type)


@click.command(cls=_CommandOfSettings)
def serve(**flags: Any) -> int:
    """Run the controller until it receives SIGTERM or SIGINT; SIGHUP starts a sync.

    After SIGTERM it accepts deliveries for --shutdown-delay. A second signal ends it at once.

    Each flag can also be set by an environment variable (OPENFERO_GITOPS_ and the flag's name in
    capitals, with _ for -), or by a key of the YAML file that OPENFERO_GITOPS_CONFIG names.
    """
    tune_interpreter()
    import structlog  # noqa: PLC0415

    from openfero_gitops.app import serve as run  # noqa: PLC0415
    from openfero_gitops.settings import load_settings  # noqa: PLC0415
    from openfero_gitops.settings_in_use import list_settings  # noqa: PLC0415

    given = {name: value for name, value in flags.items() if value}
    settings = load_settings(given)
    listed = list_settings(settings, given)
    log.to_stderr(settings.log_format)
    if settings.log_format != "json":
        asyncio.run(run(settings, _listen_to_signals, _print_addresses, listed))
        return DONE
    logger = structlog.get_logger(__name__)

    def listening(addresses: list[Address]) -> None:
        logger.info("listening", addresses=[str(address) for address in addresses])

    try:
        asyncio.run(run(settings, _listen_to_signals, listening, listed))
    except (OpenFeroError, OSError) as error:
        logger.critical("fatal error; exiting", error=str(error))
        return FINDINGS if isinstance(error, CatalogRefusal) else FAILED
    except Exception:
        logger.critical("internal error; exiting", exc_info=True)
        return FAILED
    return DONE


@click.command()
@click.option("--once", is_flag=True, help="Play the demonstration in the terminal, then exit.")
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="ADDRESS",
    help="Address to serve the pages on.",
)
@click.option(
    "--kubeconfig", type=FILE, help="Use this cluster instead of the in-memory API server."
)
@click.option(
    "--namespace",
    type=namespace,
    default="openfero-demo",
    show_default=True,
    help="With --kubeconfig: namespace to use.",
)
@click.option(
    "--example",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Use this folder of operarios instead of the starter repository.",
)
def demo(
    *, once: bool, listen: str, kubeconfig: Path | None, namespace: str, example: Path | None
) -> int:
    """Run a demonstration on this machine; it needs no cluster.

    The starter repository is committed to a temporary Git repository, sample alerts arrive, an
    in-memory API server takes the Jobs through their phases, and the pages are served.
    """
    tune_interpreter()
    from openfero_gitops.demo.story import DemoOptions, run_demo  # noqa: PLC0415

    log.to_stderr("console", "error")
    options = DemoOptions(
        once=once, listen=listen, kubeconfig=kubeconfig, namespace=namespace, example=example
    )
    asyncio.run(run_demo(options, _stop_on_signals, click.echo))
    return DONE


def tune_interpreter() -> None:
    """Change two defaults that are costly for a server with many small answers and objects.

    asyncio passes OpenSSL a new buffer of 256 KiB at each read, although a TLS record has at most
    16 KiB: mapping and unmapping it took a tenth of the processor time of an alert. The garbage
    collector runs after 700 new objects, which a single delivery has; hardly any of them are in
    reference cycles. Imports create many objects, too: call this before them.
    """
    SSLProtocol.max_size = _MAX_TLS_RECORD_BYTES
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)


def _print_addresses(addresses: list[Address]) -> None:
    click.echo("listening on " + " and ".join(map(str, addresses)), err=True)


def _listen_to_signals(
    stop: asyncio.Event, without_delay: asyncio.Event, sync: Callable[[], None]
) -> None:
    """Stop on SIGTERM, and on SIGINT without delay; start a sync on SIGHUP."""

    def end(number: signal.Signals) -> None:
        if number is signal.SIGINT:
            without_delay.set()
        stop.set()

    _on_stop_signal(end)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, sync)


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Stop on SIGTERM and SIGINT."""
    _on_stop_signal(lambda _: stop.set())


def _on_stop_signal(stop: Callable[[signal.Signals], None]) -> None:
    """Call a function at the first SIGTERM or SIGINT; the second ends the process at once."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def first(number: signal.Signals) -> None:
        for handled in signals:
            loop.remove_signal_handler(handled)
            # Python would raise KeyboardInterrupt, and asyncio then wait for all that is under way.
            signal.signal(handled, signal.SIG_DFL)
        stop(number)

    for number in signals:
        loop.add_signal_handler(number, first, number)
