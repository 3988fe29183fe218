"""Commands for people who operate a controller: approve, refuse, cancel, pause, audit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import (
    DONE,
    FINDINGS,
    gate_options,
    git_options,
    kubeconfig_option,
    switch_options,
)

if TYPE_CHECKING:
    from openfero_gitops.sources.git.access import GitAccess


@click.command()
@gate_options
def approve(*, job: str, kubeconfig: Path | None, namespace: str | None) -> int:
    """Let JOB, which waits for a person, start when its limits allow.

    JOB is NAME or NAMESPACE/NAME.
    """
    from openfero_gitops.commands.operator import APPROVE, pass_verdict  # noqa: PLC0415

    click.echo(asyncio.run(pass_verdict(APPROVE, job, kubeconfig, namespace)))
    return DONE


@click.command()
@gate_options
def refuse(*, job: str, kubeconfig: Path | None, namespace: str | None) -> int:
    """Let JOB, which waits, never start.

    JOB is NAME or NAMESPACE/NAME.
    """
    from openfero_gitops.commands.operator import REFUSE, pass_verdict  # noqa: PLC0415

    click.echo(asyncio.run(pass_verdict(REFUSE, job, kubeconfig, namespace)))
    return DONE


@click.command()
@gate_options
def cancel(*, job: str, kubeconfig: Path | None, namespace: str | None) -> int:
    """Stop JOB, or keep it from starting; its alert is not healed again.

    JOB is NAME or NAMESPACE/NAME. Deleting the Job would mean to forget it, so that a repeated
    alert starts a new one.
    """
    from openfero_gitops.commands.operator import CANCEL, pass_verdict  # noqa: PLC0415

    click.echo(asyncio.run(pass_verdict(CANCEL, job, kubeconfig, namespace)))
    return DONE


@click.command()
@kubeconfig_option
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
@git_options
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
    from openfero_gitops.audit import table  # noqa: PLC0415
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
    log.to_stderr("console", "warning")
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
        click.echo(table.as_table(entries))
    elif form == "csv":
        click.echo(table.as_csv(entries))
    else:
        members = {n: shapes.remediation(entry.remediation) for n, entry in enumerate(entries)}
        click.echo(table.as_json(entries, members))
    return DONE if all(entry.proven for entry in entries) else FINDINGS


@click.command()
@switch_options
def pause(*, kubeconfig: Path | None, namespace: str | None, timeout: float) -> int:
    """Let nothing start any more; returns when the leader has acknowledged it.

    Alerts are still taken: their Jobs wait. What runs goes on.
    """
    from openfero_gitops.commands.operator import pause as switch  # noqa: PLC0415

    click.echo(asyncio.run(switch(True, kubeconfig, namespace, timeout)))  # noqa: FBT003
    return DONE


@click.command()
@switch_options
def resume(*, kubeconfig: Path | None, namespace: str | None, timeout: float) -> int:
    """Let what waits start again, within its limits."""
    from openfero_gitops.commands.operator import pause as switch  # noqa: PLC0415

    click.echo(asyncio.run(switch(False, kubeconfig, namespace, timeout)))  # noqa: FBT003
    return DONE
