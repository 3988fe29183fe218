"""argv to a command: the only place that prints and exits.

Commands import what they need when they run, so that `validate` on a laptop starts at once and
never loads a Kubernetes client.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from openfero_gitops import __version__
from openfero_gitops.domain.errors import CatalogRefusal, OpenFeroError

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.author.golden import Report
    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.sources.git.access import GitAccess
    from openfero_gitops.web.server import Address

DONE: Final = 0
FINDINGS: Final = 1
FAILED: Final = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="openfero-gitops")
def cli() -> None:
    """Self-healing from Git: alerts run reviewed Kubernetes Jobs, once, with their commit."""


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


@cli.command(cls=_OfSettings)
def serve(**flags: Any) -> int:
    """Run the controller until it is told to stop.

    Each flag can also be given as an environment variable, OPENFERO_GITOPS_ and the flag's name
    in capitals, or as a key of the YAML file that OPENFERO_GITOPS_CONFIG names.
    """
    from openfero_gitops.app import serve as run  # noqa: PLC0415
    from openfero_gitops.settings import load_settings  # noqa: PLC0415

    settings = load_settings({name: value for name, value in flags.items() if value})
    _log_to_stderr(settings.log_format)
    asyncio.run(run(settings, _listen_to_signals, _say_listening))
    return DONE


@cli.command()
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

    _log_to_stderr("console", "error")
    stage = Stage(
        once=once, listen=listen, kubeconfig=kubeconfig, namespace=namespace, example=example
    )
    asyncio.run(play(stage, _stop_on_signals, click.echo))
    return DONE


def _namespaces(
    _context: click.Context, _option: click.Parameter, value: str | tuple[str, ...]
) -> str | tuple[str, ...]:
    """Refuse what no namespace can be named."""
    from openfero_gitops.domain.dns import is_dns_label  # noqa: PLC0415

    for name in (value,) if isinstance(value, str) else value:
        if not is_dns_label(name):
            raise click.BadParameter(f"{name!r} is no namespace's name")
    return value


def _size(_context: click.Context, _option: click.Parameter, value: str) -> int:
    """Refuse what is no number of bytes."""
    from openfero_gitops.domain.quantity import parse_size  # noqa: PLC0415

    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _git_options(command: Callable[..., Any]) -> Callable[..., Any]:
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
            callback=_size,
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


def _catalog_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a catalog is read by, for every command that reads one of its own."""
    for option in (
        _git_options,
        click.option(
            "--kubernetes-version",
            metavar="MAJOR.MINOR",
            help="Whose Jobs are meant.  [default: 1.36]",
        ),
        click.option(
            "--allowed-namespace",
            multiple=True,
            callback=_namespaces,
            help="A namespace that operarios may name; all, where none is given.",
        ),
        click.option("--path", default=".", show_default=True, help="Folder inside of SOURCE."),
    ):
        command = option(command)
    return command


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a repository at one commit, for every command that reads it so."""
    command = click.option(
        "--ref", default="HEAD", show_default=True, help="Branch, tag or commit of a Git URL."
    )(_catalog_options(command))
    return click.argument("source")(command)


@cli.command()
@_source_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "junit", "sarif", "github"]),
    default="text",
    show_default=True,
    help="For a terminal, a program, test results, code scanning, a workflow's annotations.",
)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--cluster", is_flag=True, help="Ask a cluster which Jobs it takes.")
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --cluster. Default: $KUBECONFIG, ~/.kube/config.",
)
@click.option("--context", "context", help="With --cluster; the kubeconfig's current one.")
def validate(
    *,
    source: str,
    ref: str,
    path: str,
    allowed_namespace: tuple[str, ...],
    kubernetes_version: str | None,
    access: GitAccess,
    form: str,
    strict: bool,
    cluster: bool,
    kubeconfig: Path | None,
    context: str | None,
) -> int:
    """Find what is wrong in SOURCE, a folder or a Git URL.

    Everything is told at once, each with its path, line and rule; docs/rules.md has a bad and a
    good example of every rule. No cluster is asked but with --cluster.

    Exits 1 where there are errors, or no operario at all.
    """
    from openfero_gitops.author.report import FORMATS  # noqa: PLC0415
    from openfero_gitops.catalog.validation.schema import DEFAULT  # noqa: PLC0415
    from openfero_gitops.commands.author import check  # noqa: PLC0415

    if cluster and kubernetes_version is not None:
        raise click.UsageError("--cluster asks for the cluster's version: name none beside it")
    if not cluster and (kubeconfig is not None or context is not None):
        raise click.UsageError("--kubeconfig and --context go with --cluster")
    _log_to_stderr("console", "warning")

    async def run() -> Findings:
        kubernetes: str | Schemas = kubernetes_version or DEFAULT
        if cluster:
            from openfero_gitops.commands.live import schemas_of_cluster  # noqa: PLC0415

            kubernetes = await schemas_of_cluster(kubeconfig, context)
        return await check(
            source,
            ref,
            path,
            allowed_namespace,
            kubernetes=kubernetes,
            strict=strict,
            access=access,
        )

    findings = asyncio.run(run())
    click.echo(FORMATS[form](findings))
    return FINDINGS if findings.failed else DONE


def _catalog(  # noqa: PLR0917 - in the order of `read_catalog`
    source: str,
    ref: str,
    path: str,
    allowed_namespace: tuple[str, ...],
    jobs_namespace: str,
    kubernetes_version: str | None,
    access: GitAccess,
) -> Catalog:
    """The catalog of what `_source_options` and `--jobs-namespace` name."""
    from openfero_gitops.catalog.validation.schema import DEFAULT  # noqa: PLC0415
    from openfero_gitops.commands.author import read_catalog  # noqa: PLC0415

    return asyncio.run(
        read_catalog(
            source,
            ref,
            path,
            allowed_namespace,
            jobs_namespace,
            kubernetes_version=kubernetes_version or DEFAULT,
            access=access,
        )
    )


def _jobs_namespace_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where Jobs go that name no namespace."""
    return click.option(
        "--jobs-namespace",
        default="openfero-jobs",
        show_default=True,
        callback=_namespaces,
        help="Of Jobs that name none.",
    )(command)


def _alert_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a delivery."""
    return click.option(
        "--alert",
        "alert_file",
        required=True,
        help="Alertmanager payload or one alert, - for stdin.",
    )(_jobs_namespace_option(command))


@cli.command()
@_source_options
@_alert_options
def render(
    *,
    source: str,
    ref: str,
    path: str,
    allowed_namespace: tuple[str, ...],
    kubernetes_version: str | None,
    access: GitAccess,
    alert_file: str,
    jobs_namespace: str,
) -> int:
    """Print the Jobs that would be created for an alert, as YAML.

    Exits 1 where nothing would be created.
    """
    from openfero_gitops.catalog.yaml.dump import to_yaml  # noqa: PLC0415
    from openfero_gitops.commands.author import render_all  # noqa: PLC0415
    from openfero_gitops.delivery.alertmanager import read_payload  # noqa: PLC0415

    _log_to_stderr("console", "warning")
    group = read_payload(_read(alert_file))
    catalog = _catalog(
        source, ref, path, allowed_namespace, jobs_namespace, kubernetes_version, access
    )
    manifests, notes = render_all(catalog, group, jobs_namespace)
    for note in notes:
        click.echo(note, err=True)
    if manifests:
        click.echo(to_yaml(manifests), nl=False)
    return DONE if manifests else FINDINGS


@cli.command()
@_source_options
@_alert_options
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def explain(
    *,
    source: str,
    ref: str,
    path: str,
    allowed_namespace: tuple[str, ...],
    kubernetes_version: str | None,
    access: GitAccess,
    alert_file: str,
    jobs_namespace: str,
    form: str,
) -> int:
    """Say which operario answers an alert, or why none does.

    Every operario that was considered is told, and what is asked before the Job starts. Exits 1
    where no alert gets a Job.
    """
    from openfero_gitops.author.explain import as_json, as_text  # noqa: PLC0415
    from openfero_gitops.commands.author import explain_all  # noqa: PLC0415
    from openfero_gitops.delivery.alertmanager import read_payload  # noqa: PLC0415

    _log_to_stderr("console", "warning")
    group = read_payload(_read(alert_file))
    catalog = _catalog(
        source, ref, path, allowed_namespace, jobs_namespace, kubernetes_version, access
    )
    explained = explain_all(catalog, group, jobs_namespace)
    click.echo(_to_json(as_json(explained)) if form == "json" else as_text(explained))
    return DONE if any(one.operario for one in explained) else FINDINGS


@cli.command()
@_source_options
@_jobs_namespace_option
@click.option("--update", is_flag=True, help="Write what would be created; SOURCE is a folder.")
@click.option("--require-cases", is_flag=True, help="Every operario needs a case.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "junit"]),
    default="text",
    show_default=True,
    help="For a terminal, or as test results.",
)
def test(
    *,
    source: str,
    ref: str,
    path: str,
    allowed_namespace: tuple[str, ...],
    kubernetes_version: str | None,
    access: GitAccess,
    jobs_namespace: str,
    update: bool,
    require_cases: bool,
    form: str,
) -> int:
    """Hold golden cases against what would be created.

    A case is tests/OPERARIO/CASE/ below the path: alert.json, and job.yaml with the Jobs that its
    alert gets; an empty one allows none. Exits 1 where one fails.
    """
    from openfero_gitops.author.report.cases import FORMATS  # noqa: PLC0415
    from openfero_gitops.catalog.validation.schema import DEFAULT  # noqa: PLC0415
    from openfero_gitops.commands.author import judge_cases, update_cases  # noqa: PLC0415
    from openfero_gitops.domain.errors import UsageError  # noqa: PLC0415

    _log_to_stderr("console", "warning")
    if update and ref != "HEAD":
        raise UsageError("--update writes into a folder as it lies there: leave out --ref")

    def judged() -> Report:
        return asyncio.run(
            judge_cases(
                source,
                ref,
                path,
                allowed_namespace,
                jobs_namespace,
                kubernetes_version=kubernetes_version or DEFAULT,
                access=access,
            )
        )

    report = judged()
    updated: list[str] = []
    if update and (updated := update_cases(source, report)):
        report = judged()
    click.echo(FORMATS[form](report, updated=updated, require_cases=require_cases))
    passed = report.passed and not (require_cases and report.untested)
    return DONE if passed else FINDINGS


@cli.command()
@click.argument("source")
@click.argument("base")
@click.argument("head")
@_catalog_options
@_jobs_namespace_option
@click.option(
    "--merge-base",
    is_flag=True,
    help="Compare with where HEAD left BASE, as a pull request is shown.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
)
def diff(
    *,
    source: str,
    base: str,
    head: str,
    path: str,
    allowed_namespace: tuple[str, ...],
    kubernetes_version: str | None,
    access: GitAccess,
    jobs_namespace: str,
    merge_base: bool,
    form: str,
) -> int:
    """Say what a pull request changes in behaviour, not in text.

    SOURCE is a folder of a Git repository or a Git URL; BASE and HEAD are branches, tags or
    commits, in a folder whatever git takes for one. The most dangerous change comes first;
    markdown is a comment for the pull request. Exits 1 where HEAD breaks what BASE did not.
    """
    from openfero_gitops.author.diff.comment import as_markdown  # noqa: PLC0415
    from openfero_gitops.author.diff.plain import as_json, as_text  # noqa: PLC0415
    from openfero_gitops.catalog.validation.schema import DEFAULT  # noqa: PLC0415
    from openfero_gitops.commands.author import Comparison, compare_revisions  # noqa: PLC0415

    _log_to_stderr("console", "warning")
    asked = Comparison(
        source,
        base,
        head,
        path,
        allowed_namespace,
        jobs_namespace,
        since_parting=merge_base,
        kubernetes_version=kubernetes_version or DEFAULT,
        access=access,
    )
    found = asyncio.run(compare_revisions(asked))
    match form:
        case "json":
            click.echo(_to_json(as_json(found)))
        case "markdown":
            click.echo(as_markdown(found))
        case _:
            click.echo(as_text(found))
    return FINDINGS if found.broken else DONE


@cli.command()
@_source_options
@_jobs_namespace_option
@click.argument("more_rules", nargs=-1, metavar="[FILE]...")
@click.option(
    "--rules",
    "rule_files",
    multiple=True,
    required=True,
    metavar="FILE...",
    help="PrometheusRule objects or a Prometheus rule file, - for stdin; also several.",
)
@click.option(
    "--ignore", multiple=True, metavar="ALERTNAME", help="An alert that needs no operario."
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def coverage(
    *,
    source: str,
    ref: str,
    path: str,
    allowed_namespace: tuple[str, ...],
    kubernetes_version: str | None,
    access: GitAccess,
    jobs_namespace: str,
    rule_files: tuple[str, ...],
    more_rules: tuple[str, ...],
    ignore: tuple[str, ...],
    form: str,
) -> int:
    """Find alerts without an operario, and operarios that no alert reaches.

    Exits 1 where there is one of either.
    """
    from openfero_gitops.author.alert_rules import read_rules  # noqa: PLC0415
    from openfero_gitops.author.coverage import as_json, as_text, cover  # noqa: PLC0415

    _log_to_stderr("console", "warning")
    rules = [rule for file in (*rule_files, *more_rules) for rule in read_rules(_read(file), file)]
    catalog = _catalog(
        source, ref, path, allowed_namespace, jobs_namespace, kubernetes_version, access
    )
    found = cover(catalog, rules, ignore)
    click.echo(_to_json(as_json(found)) if form == "json" else as_text(found))
    return DONE if found.complete else FINDINGS


def _kubeconfig_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a cluster, for every command that is for one."""
    return click.option(
        "--kubeconfig",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Default: $KUBECONFIG, ~/.kube/config.",
    )(command)


def _gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a Job in a cluster."""
    command = click.option(
        "--namespace", help="Where a bare NAME is looked for; the context's if not given."
    )(command)
    return click.argument("job")(_kubeconfig_option(command))


@cli.command()
@_gate_options
def approve(*, job: str, kubeconfig: Path | None, namespace: str | None) -> int:
    """Let JOB, which waits for a person, start when its limits allow.

    JOB is NAME or NAMESPACE/NAME.
    """
    from openfero_gitops.commands.operator import APPROVE, pass_verdict  # noqa: PLC0415

    click.echo(asyncio.run(pass_verdict(APPROVE, job, kubeconfig, namespace)))
    return DONE


@cli.command()
@_gate_options
def refuse(*, job: str, kubeconfig: Path | None, namespace: str | None) -> int:
    """Let JOB, which waits, never start.

    JOB is NAME or NAMESPACE/NAME.
    """
    from openfero_gitops.commands.operator import REFUSE, pass_verdict  # noqa: PLC0415

    click.echo(asyncio.run(pass_verdict(REFUSE, job, kubeconfig, namespace)))
    return DONE


@cli.command()
@_gate_options
def cancel(*, job: str, kubeconfig: Path | None, namespace: str | None) -> int:
    """Stop JOB, or keep it from starting; its alert is not healed again.

    JOB is NAME or NAMESPACE/NAME. Deleting the Job would mean to forget it, so that a repeated
    alert starts a new one.
    """
    from openfero_gitops.commands.operator import CANCEL, pass_verdict  # noqa: PLC0415

    click.echo(asyncio.run(pass_verdict(CANCEL, job, kubeconfig, namespace)))
    return DONE


@cli.command()
@_kubeconfig_option
@click.option("--namespace", multiple=True, help="Of the Jobs; every one, if none is given.")
@click.option("--operario", default="", help="Only of this operario.")
@click.option("--alert", default="", help="Only for this alert name.")
@click.option("--commit", default="", help="Only from this commit, which may be shortened.")
@click.option("--since", help="Only what was received in this last while, such as 24h.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
)
@click.option("--verify", is_flag=True, help="Derive each Job again from --repo, and compare.")
@click.option("--repo", help="With --verify: the repository that you trust; a Git URL or a folder.")
@click.option("--ref", default="HEAD", show_default=True, help="What was reviewed ends here.")
@click.option("--path", default=".", show_default=True, help="Folder of the operarios in it.")
@click.option(
    "--allowed-signers-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --verify: commits must be signed by one of these ssh keys.",
)
@click.option(
    "--openpgp-keyring-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same, for OpenPGP.",
)
@_git_options
@click.option("--kubernetes-version", help="As the controller was given it.")
@click.option("--jobs-namespace", default="", help="Of Jobs whose operario names none.")
@click.option("--allowed-namespace", multiple=True, help="As the controller was given them.")
def audit(
    *,
    kubeconfig: Path | None,
    namespace: tuple[str, ...],
    operario: str,
    alert: str,
    commit: str,
    since: str | None,
    form: str,
    verify: bool,
    repo: str | None,
    ref: str,
    path: str,
    allowed_signers_file: Path | None,
    openpgp_keyring_file: Path | None,
    access: GitAccess,
    kubernetes_version: str | None,
    jobs_namespace: str,
    allowed_namespace: tuple[str, ...],
) -> int:
    """List the remediations with the commits that they came from.

    With --verify each Job is derived again from its commit and the alert that it carries, and
    compared, field by field. Exits 1 where one is not what Git gives, or cannot be proven.
    """
    from openfero_gitops.audit import table as ledger  # noqa: PLC0415
    from openfero_gitops.catalog.validation.schema import DEFAULT  # noqa: PLC0415
    from openfero_gitops.commands.audit import Reviewed, Selection, signed_by  # noqa: PLC0415
    from openfero_gitops.commands.audit import audit as read  # noqa: PLC0415
    from openfero_gitops.domain.duration import parse_duration  # noqa: PLC0415
    from openfero_gitops.web import shapes  # noqa: PLC0415

    if verify != bool(repo):
        raise click.UsageError("--verify and --repo belong together: name the repository you trust")
    try:
        window = parse_duration(since) if since else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from error
    _log_to_stderr("console", "warning")
    reviewed = None
    if repo:
        allowed = (jobs_namespace, *allowed_namespace) if allowed_namespace else None
        trust = signed_by(allowed_signers_file, openpgp_keyring_file)
        reviewed = Reviewed(
            repo, ref, path, jobs_namespace, allowed, trust, kubernetes_version or DEFAULT, access
        )
    entries = asyncio.run(
        read(
            kubeconfig,
            Selection(namespace, operario, alert, commit, window),
            reviewed,
            lambda line: click.echo(line, err=True),
        )
    )
    if form == "table":
        click.echo(ledger.as_table(entries))
    elif form == "csv":
        click.echo(ledger.as_csv(entries))
    else:
        members = {n: shapes.remediation(entry.remediation) for n, entry in enumerate(entries)}
        click.echo(ledger.as_json(entries, members))
    return DONE if all(entry.proven for entry in entries) else FINDINGS


def _switch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a controller in a cluster."""
    for option in (
        click.option(
            "--timeout", default=30.0, show_default=True, help="Seconds to wait for the leader."
        ),
        click.option("--namespace", help="The controller's own; the context's if not given."),
        _kubeconfig_option,
    ):
        command = option(command)
    return command


@cli.command()
@_switch_options
def pause(*, kubeconfig: Path | None, namespace: str | None, timeout: float) -> int:
    """Let nothing start any more; returns when the leader has acknowledged it.

    Alerts are still taken: their Jobs wait. What runs goes on.
    """
    from openfero_gitops.commands.operator import pause as switch  # noqa: PLC0415

    click.echo(asyncio.run(switch(True, kubeconfig, namespace, timeout)))  # noqa: FBT003
    return DONE


@cli.command()
@_switch_options
def resume(*, kubeconfig: Path | None, namespace: str | None, timeout: float) -> int:
    """Let what waits start again, within its limits."""
    from openfero_gitops.commands.operator import pause as switch  # noqa: PLC0415

    click.echo(asyncio.run(switch(False, kubeconfig, namespace, timeout)))  # noqa: FBT003
    return DONE


def _to_json(value: Any) -> str:
    import json  # noqa: PLC0415

    return json.dumps(value, indent=2, ensure_ascii=False)


def _read(file: str) -> bytes:
    from openfero_gitops.domain.errors import UsageError  # noqa: PLC0415

    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


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


def _log_to_stderr(form: str, level: str = "info") -> None:
    """One line per event: JSON for machines, coloured text for a terminal."""
    import logging  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # (Where rich is installed, the default prints every local variable: secrets, too.)
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if form == "json" else _keep,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def _keep(_logger: Any, _name: str, event: Any) -> Any:
    return event
