"""Options and arguments that several commands share, and how values are read and printed."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

DONE: Final = 0
FINDINGS: Final = 1
FAILED: Final = 2


def namespaces(
    _context: click.Context, _option: click.Parameter, value: str | tuple[str, ...]
) -> str | tuple[str, ...]:
    """Refuse what no namespace can be named."""
    from openfero_gitops.domain.dns import is_dns_label  # noqa: PLC0415

    for name in (value,) if isinstance(value, str) else value:
        if not is_dns_label(name):
            raise click.BadParameter(f"{name!r} is no namespace's name")
    return value


def size(_context: click.Context, _option: click.Parameter, value: str) -> int:
    """Refuse what is no number of bytes."""
    from openfero_gitops.domain.quantity import parse_size  # noqa: PLC0415

    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def git_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The way to a Git URL as `serve` names it, which the command gets as one `access`."""

    @functools.wraps(command)
    def collected(
        *,
        git_credentials_file: Path | None,
        git_ssh_key_file: Path | None,
        git_known_hosts_file: Path | None,
        git_ca_file: Path | None,
        git_proxy: str,
        git_max_size: int,
        **rest: Any,
    ) -> Any:
        from openfero_gitops.sources.git.access import GitAccess  # noqa: PLC0415

        access = GitAccess(
            credentials_file=git_credentials_file,
            ssh_key_file=git_ssh_key_file,
            known_hosts_file=git_known_hosts_file,
            ca_file=git_ca_file,
            proxy=git_proxy,
            pack_bytes=git_max_size,
        )
        return command(access=access, **rest)

    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    wrapped: Callable[..., Any] = collected
    for option in (
        click.option(
            "--git-max-size",
            default="1Gi",
            show_default=True,
            callback=size,
            help="Most that a repository's history may take.",
        ),
        click.option(
            "--git-proxy", default="", help="http://host:port of the proxy before an https URL."
        ),
        click.option("--git-ca-file", type=file, help="PEM file of the CA of an https URL."),
        click.option("--git-known-hosts-file", type=file, help="known_hosts file, for an ssh URL."),
        click.option("--git-ssh-key-file", type=file, help="Private key file, for an ssh URL."),
        click.option(
            "--git-credentials-file",
            type=file,
            help="File with username:password or a token, for an https URL.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def catalog_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a catalog is read by, for every command that reads one of its own."""
    for option in (
        git_options,
        click.option(
            "--kubernetes-version",
            metavar="MAJOR.MINOR",
            help="Whose Jobs are meant.  [default: 1.36]",
        ),
        click.option(
            "--allowed-namespace",
            multiple=True,
            callback=namespaces,
            help="A namespace that operarios may name; all, where none is given.",
        ),
        click.option("--path", default=".", show_default=True, help="Folder inside of SOURCE."),
    ):
        command = option(command)
    return command


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a repository at one commit, for every command that reads it so."""
    command = click.option(
        "--ref", default="HEAD", show_default=True, help="Branch, tag or commit of a Git URL."
    )(catalog_options(command))
    return click.argument("source")(command)


def jobs_namespace_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where Jobs go that name no namespace."""
    return click.option(
        "--jobs-namespace",
        default="openfero-jobs",
        show_default=True,
        callback=namespaces,
        help="Of Jobs that name none.",
    )(command)


def alert_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a delivery."""
    return click.option(
        "--alert",
        "alert_file",
        required=True,
        help="Alertmanager payload or one alert, - for stdin.",
    )(jobs_namespace_option(command))


def kubeconfig_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a cluster, for every command that is for one."""
    return click.option(
        "--kubeconfig",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Default: $KUBECONFIG, ~/.kube/config.",
    )(command)


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a Job in a cluster."""
    command = click.option(
        "--namespace", help="Where a bare NAME is looked for; the context's if not given."
    )(command)
    return click.argument("job")(kubeconfig_option(command))


def switch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a controller in a cluster."""
    for option in (
        click.option(
            "--timeout", default=30.0, show_default=True, help="Seconds to wait for the leader."
        ),
        click.option("--namespace", help="The controller's own; the context's if not given."),
        kubeconfig_option,
    ):
        command = option(command)
    return command


def to_json(value: Any) -> str:
    """Format a value as JSON, indented."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def read_file(file: str) -> bytes:
    """Read a FILE argument; `-` is stdin.

    Raises:
        UsageError: it cannot be read.
    """
    from openfero_gitops.domain.errors import UsageError  # noqa: PLC0415

    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
