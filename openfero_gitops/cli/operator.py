"""Commands for cluster operators and approvers: approve, refuse, cancel, audit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from openfero_gitops.cli import log
from openfero_gitops.cli.options import (
    DONE,
    FILE,
    FINDINGS,
    duration,
    format_option,
    git_options,
    job_options,
    kubeconfig_option,
    namespace,
    output_option,
    reason_option,
    show_result,
)

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import timedelta
    from pathlib import Path

    from openfero_gitops.sources.git.access import GitAccess


#: Of `audit`, without those that only `--verify` uses.
_LISTING_OPTIONS: Final = frozenset(
    {
        *("kubeconfig", "namespace", "operario", "alert", "commit", "since", "form"),
        *("verify", "repo", "controller_namespace"),
    }
)
_REASON: Final = "Why, in a few words; recorded on the Job and shown with your name."


@click.command()
@job_options
@reason_option(_REASON)
@output_option
def approve(
    *, job: str, kubeconfig: Path | None, namespace: str | None, reason: str, output: str
) -> int:
    """Approve JOB: it starts as soon as its limits allow.

    JOB is NAME or NAMESPACE/NAME. Permissions are plain Kubernetes RBAC: patch on Jobs. Your name
    is recorded on the Job.
    """
    from openfero_gitops.commands.operator import APPROVE, act_on_job  # noqa: PLC0415

    action_taken = asyncio.run(act_on_job(APPROVE, job, kubeconfig, namespace, reason))
    show_result(output, action_taken, action_taken.members)
    return DONE


@click.command()
@job_options
@reason_option(_REASON)
@output_option
def refuse(
    *, job: str, kubeconfig: Path | None, namespace: str | None, reason: str, output: str
) -> int:
    """Refuse JOB: it never starts.

    JOB is NAME or NAMESPACE/NAME, and has not started yet.
    """
    from openfero_gitops.commands.operator import REFUSE, act_on_job  # noqa: PLC0415

    action_taken = asyncio.run(act_on_job(REFUSE, job, kubeconfig, namespace, reason))
    show_result(output, action_taken, action_taken.members)
    return DONE


@click.command()
@job_options
@reason_option(_REASON)
@output_option
def cancel(
    *, job: str, kubeconfig: Path | None, namespace: str | None, reason: str, output: str
) -> int:
    """Cancel JOB: stop it, or keep it from starting.

    JOB is NAME or NAMESPACE/NAME. Repeated deliveries of its alert start no other Job. (If you
    delete the Job instead, the next delivery creates a new one.)
    """
    from openfero_gitops.commands.operator import CANCEL, act_on_job  # noqa: PLC0415

    action_taken = asyncio.run(act_on_job(CANCEL, job, kubeconfig, namespace, reason))
    show_result(output, action_taken, action_taken.members)
    return DONE


@click.command()
@kubeconfig_option
@click.option(
    "--namespace",
    type=namespace,
    multiple=True,
    help="Only Jobs in this namespace; repeatable. Default: all namespaces, or those of the "
    "controller if you may not list all.",
)
@click.option("--operario", default="", metavar="NAME", help="Only Jobs of this operario.")
@click.option("--alert", default="", metavar="NAME", help="Only Jobs for this alert.")
@click.option(
    "--commit", default="", metavar="COMMIT", help="Only Jobs from this commit; may be abbreviated."
)
@click.option(
    "--since",
    type=duration,
    help="Only alerts received in this period before now, such as 24h.",
)
@format_option("table", "json", "jsonl", "csv", aliases=("-o", "--output"))
@click.option(
    "--verify",
    is_flag=True,
    help="Render each Job again from --repo and compare it with the Job in the cluster.",
)
@click.option(
    "--repo",
    metavar="URL",
    help="With --verify: the repository that you trust, a Git URL or a folder.",
)
@click.option(
    "--ref",
    default="HEAD",
    show_default=True,
    metavar="REF",
    help="With --verify: the reviewed branch; a Job's commit must be part of it.",
)
@click.option(
    "--path",
    default=".",
    show_default=True,
    metavar="DIR",
    help="With --verify: folder inside the repository that holds the operarios.",
)
@click.option(
    "--allowed-signers-file",
    type=FILE,
    help="With --verify: commits must be signed with one of these SSH keys.",
)
@click.option(
    "--openpgp-keyring-file",
    type=FILE,
    help="With --verify: commits must be signed with one of these OpenPGP keys.",
)
@git_options
@click.option(
    "--kubernetes-version",
    metavar="VERSION",
    help="With --verify: the controller's --kubernetes-version.",
)
@click.option(
    "--jobs-namespace",
    type=namespace,
    help="With --verify: the controller's --jobs-namespace. Default: each Job's own namespace.",
)
@click.option(
    "--allowed-namespace",
    type=namespace,
    multiple=True,
    help="With --verify: the controller's --allowed-namespace; repeatable.",
)
@click.option(
    "--controller-namespace",
    type=namespace,
    help="The controller's own namespace, where it records whether the names of approvers were "
    "verified, and which commits were active. Default: the context's namespace, then those of "
    "--namespace.",
)
@click.option(
    "--mirror-key-file",
    type=FILE,
    help="With --verify: the controller's --mirror-key-file; the record must be signed with it.",
)
def audit(
    *,
    kubeconfig: Path | None,
    namespace: tuple[str, ...],
    operario: str,
    alert: str,
    commit: str,
    since: timedelta | None,
    form: str,
    verify: bool,
    repo: str | None,
    ref: str,
    path: str,
    allowed_signers_file: Path | None,
    openpgp_keyring_file: Path | None,
    access: GitAccess,
    kubernetes_version: str | None,
    jobs_namespace: str | None,
    allowed_namespace: tuple[str, ...],
    controller_namespace: str | None,
    mirror_key_file: Path | None,
) -> int:
    """List remediations and the commits that they came from.

    With --verify, each Job is rendered again from its commit and its recorded alert, and compared
    field by field with the Job in the cluster. A Job also differs if it started without the
    approval that its operario requires, if somebody else than the controller started it, or if its
    commit was not active when its alert was received. Exit code 1: a Job differs or cannot be
    verified. The exit code stays 0 if it is only not known whether a commit was active.
    """
    from openfero_gitops.audit import table  # noqa: PLC0415
    from openfero_gitops.catalog.validation.schema import DEFAULT  # noqa: PLC0415
    from openfero_gitops.commands.audit import AuditFilter, Reviewed, signed_by  # noqa: PLC0415
    from openfero_gitops.commands.audit import audit as list_remediations  # noqa: PLC0415
    from openfero_gitops.web.api.remediation_shape import remediation_shape  # noqa: PLC0415
    from openfero_gitops.web.api.shape import to_json  # noqa: PLC0415

    if not verify and not repo and (useless := _given_options(without=_LISTING_OPTIONS)):
        verb = "needs" if len(useless) == 1 else "need"
        raise click.UsageError(
            f"{' and '.join(useless)} {verb} --verify and --repo: without them, no repository is"
            " read"
        )
    if verify != bool(repo):
        raise click.UsageError(
            "use --verify and --repo together: --repo is the repository you trust"
        )
    log.to_stderr("console", "warning")
    reviewed = None
    if repo:
        jobs_namespace = jobs_namespace or ""
        reviewed = Reviewed(
            repo,
            ref,
            path,
            jobs_namespace,
            (jobs_namespace, *allowed_namespace) if allowed_namespace else None,
            signed_by(allowed_signers_file, openpgp_keyring_file),
            kubernetes_version or DEFAULT,
            mirror_key_file,
            access,
        )
    entries = asyncio.run(
        list_remediations(
            kubeconfig,
            AuditFilter(namespace, operario, alert, commit, since),
            reviewed,
            lambda line: click.echo(line, err=True),
            controller_namespace or "",
        )
    )
    if form == "table":
        click.echo(table.as_table(entries))
    elif form == "csv":
        click.echo(table.as_csv(entries))
    else:
        members = {
            number: to_json(
                remediation_shape(
                    entry.remediation, effect=entry.effect, verified=entry.approval_verified
                )
            )
            for number, entry in enumerate(entries)
        }
        click.echo((table.as_json if form == "json" else table.as_json_lines)(entries, members))
    return DONE if all(entry.proven for entry in entries) else FINDINGS


def _given_options(*, without: Container[str | None]) -> list[str]:
    """Return the options of the command line, as flags, except those with the given names."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in without
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
