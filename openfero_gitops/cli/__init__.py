"""The command line: arguments to a command; the only package that prints and exits."""

from __future__ import annotations

import contextlib
import io
import sys

import click

from openfero_gitops import __version__
from openfero_gitops.cli import author, operator, serve
from openfero_gitops.cli.options import DONE, FAILED, FINDINGS
from openfero_gitops.domain.errors import CatalogRefusal, OpenFeroError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="openfero-gitops")
def cli() -> None:
    """Self-healing from Git: alerts run reviewed Kubernetes Jobs, once, with their commit."""


for _command in (
    author.validate,
    author.render,
    author.explain,
    author.test,
    author.diff,
    author.coverage,
    operator.approve,
    operator.refuse,
    operator.cancel,
    operator.audit,
    operator.pause,
    operator.resume,
    serve.serve,
    serve.demo,
):
    cli.add_command(_command)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done; 1 findings; 2 wrong usage, or I/O, Git or the API failed.
    """
    _escape_what_cannot_be_shown()
    try:
        return int(cli.main(argv, standalone_mode=False) or DONE)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
    except OpenFeroError as error:
        click.echo(f"openfero-gitops: {error}", err=True)
        if isinstance(error, CatalogRefusal):
            return FINDINGS
    except SystemExit as end:
        # click's own end where the reader has gone (EPIPE), whose 1 would say "findings" here.
        if not end.code:
            return DONE
    except OSError as error:
        # A full disk under stdout, for example. What was not written must not fail again at exit.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        click.echo(f"openfero-gitops: {error}", err=True)
    return FAILED


def _escape_what_cannot_be_shown() -> None:
    """Let a terminal that cannot show a character get its code, and no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
