"""Options and arguments that several commands share, and the types of their values."""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from openfero_gitops.sources.git.access import GitAccess

DONE: Final = 0
FINDINGS: Final = 1
FAILED: Final = 2

#: Of a reason that a person gives. With the names around it, it fits into the note of an Event.
MAX_REASON_CHARACTERS: Final = 300

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


def namespace(value: str) -> str:
    """Type of an option: the name of a namespace."""
    from openfero_gitops.domain.dns import is_dns_label  # noqa: PLC0415

    if not is_dns_label(value):
        raise click.BadParameter(f"{value!r} is not a valid namespace name")
    return value


def replica_label(value: str) -> str:
    """Type of an option: the name of a label that does not identify an alert."""
    from openfero_gitops.domain.labels import with_replica_labels  # noqa: PLC0415

    try:
        with_replica_labels((value,))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


def size(value: str) -> int:
    """Type of an option: a number of bytes, such as 1Gi."""
    from openfero_gitops.domain.quantity import parse_size  # noqa: PLC0415

    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def duration(value: str) -> timedelta:
    """Type of an option: a duration as Prometheus writes it, such as 1h30m."""
    from openfero_gitops.domain.duration import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def git_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for reaching a Git URL; the command receives them as one `access`."""

    @functools.wraps(command)
    def collected(
        *,
        git_credentials_file: Path | None,
        git_ssh_key_file: Path | None,
        git_known_hosts_file: Path | None,
        git_ca_file: Path | None,
        git_client_cert_file: Path | None,
        git_client_key_file: Path | None,
        git_proxy: str,
        git_proxy_credentials_file: Path | None,
        git_no_proxy: str,
        git_timeout: timedelta,
        git_max_size: int,
        git_max_memory: int,
        **rest: Any,
    ) -> Any:
        from openfero_gitops.sources.git.access import GitAccess  # noqa: PLC0415

        access = GitAccess(
            credentials_file=git_credentials_file,
            ssh_key_file=git_ssh_key_file,
            known_hosts_file=git_known_hosts_file,
            ca_file=git_ca_file,
            client_cert_file=git_client_cert_file,
            client_key_file=git_client_key_file,
            proxy=git_proxy,
            proxy_credentials_file=git_proxy_credentials_file,
            no_proxy=git_no_proxy,
            timeout=git_timeout.total_seconds(),
            pack_bytes=git_max_size,
            memory_bytes=git_max_memory,
        )
        return command(access=access, **rest)

    return _with(
        collected,
        click.option(
            "--git-credentials-file",
            type=FILE,
            help="File with username:password, or a token, for https URLs.",
        ),
        click.option("--git-ssh-key-file", type=FILE, help="Private key file, for ssh URLs."),
        click.option("--git-known-hosts-file", type=FILE, help="known_hosts file, for ssh URLs."),
        click.option(
            "--git-ca-file",
            type=FILE,
            help="PEM file with the CA of the Git server, for https URLs.",
        ),
        click.option(
            "--git-client-cert-file",
            type=FILE,
            help="PEM file with a client certificate, for https servers that require one.",
        ),
        click.option(
            "--git-client-key-file",
            type=FILE,
            help="PEM file with the private key of the client certificate.",
        ),
        click.option(
            "--git-proxy",
            default="",
            metavar="URL",
            help="Proxy for https URLs: http://host:port, https://host:port or "
            "socks5h://host:port.",
        ),
        click.option(
            "--git-proxy-credentials-file",
            type=FILE,
            help="File with username:password for the proxy.",
        ),
        click.option(
            "--git-no-proxy",
            default="",
            metavar="HOSTS",
            help="Comma-separated hosts to reach without the proxy.",
        ),
        click.option(
            "--git-timeout",
            type=duration,
            default="1m",
            show_default=True,
            metavar="DURATION",
            help="Maximum duration of one Git operation.",
        ),
        click.option(
            "--git-max-size",
            type=size,
            default="1Gi",
            show_default=True,
            help="Maximum size of the repository's history.",
        ),
        click.option(
            "--git-max-memory",
            type=size,
            default="192Mi",
            show_default=True,
            help="Maximum memory of each Git process.",
        ),
    )


def catalog_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add SOURCE and the options of every command that builds a catalog.

    The command receives them as one `source`, together with `--ref`, `--jobs-namespace` and
    `--replica-label`.
    """

    @functools.wraps(command)
    def collected(
        *,
        source: str,
        path: str,
        allowed_namespace: tuple[str, ...],
        kubernetes_version: str | None,
        access: GitAccess,
        ref: str = "HEAD",
        jobs_namespace: str = "openfero-jobs",
        replica_label: tuple[str, ...] = (),
        **rest: Any,
    ) -> Any:
        from openfero_gitops.commands.author import CatalogSource  # noqa: PLC0415
        from openfero_gitops.domain.labels import with_replica_labels  # noqa: PLC0415

        catalog_source = CatalogSource(
            source,
            ref,
            path,
            allowed_namespace,
            jobs_namespace,
            kubernetes_version or "",
            access,
            with_replica_labels(replica_label),
        )
        return command(source=catalog_source, **rest)

    return _with(
        collected,
        click.argument("source"),
        click.option(
            "--path",
            default=".",
            show_default=True,
            metavar="DIR",
            help="Folder inside SOURCE that holds the operarios.",
        ),
        click.option(
            "--allowed-namespace",
            type=namespace,
            multiple=True,
            help="Namespace that operarios may name; repeatable. Default: all.",
        ),
        click.option(
            "--kubernetes-version",
            metavar="VERSION",
            help="Kubernetes version to validate Jobs against.  [default: 1.36]",
        ),
        git_options,
    )


def ref_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--ref`."""
    return click.option(
        "--ref",
        default="HEAD",
        show_default=True,
        metavar="REF",
        help="Branch, tag or commit to read.",
    )(command)


def jobs_namespace_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--jobs-namespace`."""
    return click.option(
        "--jobs-namespace",
        type=namespace,
        default="openfero-jobs",
        show_default=True,
        help="Namespace for Jobs whose operario names none.",
    )(command)


def replica_label_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--replica-label`."""
    return click.option(
        "--replica-label",
        type=replica_label,
        multiple=True,
        metavar="LABEL",
        help="Label that only says which Prometheus sent the alert, as the controller's setting; "
        "repeatable.",
    )(command)


def alert_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--alert`, `--jobs-namespace` and `--replica-label`."""
    return _with(
        command,
        click.option(
            "--alert",
            "alert_file",
            required=True,
            metavar="FILE",
            help="Alerts as JSON: a webhook payload, a single alert, or what amtool or the API of "
            "Alertmanager or Prometheus prints; - for stdin.",
        ),
        jobs_namespace_option,
        replica_label_option,
    )


def one_line(value: str) -> str:
    """Type of an option: a text for people, which is shown on one line."""
    from openfero_gitops.domain.text import printable  # noqa: PLC0415

    text = printable(" ".join(value.split()), MAX_REASON_CHARACTERS)
    if not text:
        raise click.BadParameter("it is empty")
    return text


def reason_option(explanation: str) -> Callable[..., Any]:
    """Add `--reason`; an empty text if it is not given."""
    return click.option(
        "--reason",
        type=one_line,
        metavar="REASON",
        help=explanation,
        callback=lambda _context, _option, text: text or "",
    )


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--output`, which is `text` or `json`; `show_result` prints accordingly."""
    return click.option(
        "-o",
        "--output",
        "--format",
        "output",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="Output format.",
    )(command)


def show_result(output: str, text: object, members: Callable[[], dict[str, Any]]) -> None:
    """Print the result of a command: a text for people, or its members as JSON."""
    from openfero_gitops.domain.text import pretty_json  # noqa: PLC0415

    click.echo(pretty_json(members()) if output == "json" else str(text))


def kubeconfig_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--kubeconfig`."""
    return click.option(
        "--kubeconfig",
        type=FILE,
        help="Kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config.",
    )(command)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add JOB and the options that locate it in a cluster."""
    return _with(
        command,
        click.argument("job"),
        kubeconfig_option,
        click.option(
            "--namespace",
            type=namespace,
            help="Namespace of JOB, if JOB is a plain NAME. Default: the context's namespace.",
        ),
    )


def controller_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that locate a controller in a cluster."""
    return _with(
        command,
        kubeconfig_option,
        click.option(
            "--namespace",
            type=namespace,
            help="Namespace that the controller runs in. Default: the context's namespace.",
        ),
    )


def timeout_option(default: float, explanation: str) -> Callable[..., Any]:
    """Add `--timeout`, in seconds."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=explanation,
    )


def format_option(
    *formats: str, explanation: str = "Output format.", aliases: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Add `--format`, also under other names; the first of `formats` is its default."""
    return click.option(
        *aliases,
        "--format",
        "form",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help=explanation,
    )


def _with(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    """Apply decorators so that `--help` lists the options in the order given."""
    for option in reversed(options):
        command = option(command)
    return command


@contextlib.contextmanager
def progress_line(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much is finished on one line of the terminal; elsewhere nothing is shown.

    The function is called with the number that is finished, and of all.
    """
    shown = ""

    def show(finished: int, total: int) -> None:
        nonlocal shown
        line = f"{what}: {finished} of {total}"
        click.echo(f"\r{line:<{len(shown)}}", nl=False, err=True)
        shown = line

    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    try:
        yield show
    finally:
        if shown:
            click.echo(f"\r{'':<{len(shown)}}\r", nl=False, err=True)


def name_of(file: str) -> str:
    """A FILE argument in messages."""
    return "stdin" if file == "-" else file


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
