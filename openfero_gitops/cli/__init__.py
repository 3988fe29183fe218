"""The command line: parses arguments, runs a command, prints, and sets the exit code.

No other package prints or exits.
"""

from __future__ import annotations

import contextlib
import io
import sys

import click

from openfero_gitops import __version__
from openfero_gitops.cli import author, control, importing, inspection, operator, serve, stats
from openfero_gitops.cli.options import DONE, FAILED, FINDINGS
from openfero_gitops.domain.errors import CatalogRefusal, OpenFeroError
from openfero_gitops.domain.help import ERROR_TOPICS, link
from openfero_gitops.domain.text import printable_lines


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="openfero-gitops")
def cli() -> None:
    """Self-healing from Git: run reviewed Kubernetes Jobs for Alertmanager alerts."""


for _command in (
    author.validate,
    author.render,
    author.explain,
    author.test,
    author.diff,
    author.coverage,
    inspection.status,
    inspection.trace,
    inspection.logs,
    operator.approve,
    operator.refuse,
    operator.cancel,
    operator.audit,
    stats.stats,
    importing.import_,
    control.pause,
    control.resume,
    control.sync,
    serve.serve,
    serve.demo,
):
    cli.add_command(_command)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 success; 1 findings; 2 wrong usage, or an error of I/O, Git or the API server.
    """
    _escape_unencodable()
    try:
        return int(cli.main(argv, prog_name="openfero-gitops", standalone_mode=False) or DONE)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
    except OpenFeroError as error:
        # The text may quote what anybody wrote on a Job, or in an alert.
        click.echo(f"openfero-gitops: {printable_lines(str(error))}", err=True)
        if topic := ERROR_TOPICS.get(type(error).__name__):
            click.echo(f"See {link(topic)}", err=True)
        if isinstance(error, CatalogRefusal):
            return FINDINGS
    except SystemExit as end:
        # click exits with 1 when the reader of stdout is gone (EPIPE); here 1 means findings.
        if not end.code:
            return DONE
    except OSError as error:
        # For example a full disk under stdout. Close it, or the flush at exit fails again.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        click.echo(f"openfero-gitops: {error}", err=True)
    return FAILED


def _escape_unencodable() -> None:
    """Print characters that the terminal's encoding lacks as their codes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
