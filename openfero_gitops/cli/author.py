"""Commands for authors of operarios; they need no cluster, except `validate --cluster`.

Commands import what they need when they run, so that `validate` starts fast and never loads a
Kubernetes client.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import (
    DONE,
    FILE,
    FINDINGS,
    alert_options,
    catalog_options,
    format_option,
    jobs_namespace_option,
    name_of,
    progress_line,
    read_file,
    ref_option,
    replica_label_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.commands.author import CatalogSource


@click.command()
@ref_option
@catalog_options
@jobs_namespace_option
@format_option(
    "text",
    "json",
    "junit",
    "sarif",
    "github",
    explanation="junit: test results; sarif: code scanning; github: workflow annotations.",
)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@click.option(
    "--cluster",
    is_flag=True,
    help="Validate Jobs against the schema of a cluster, and let it create each one in a "
    "server-side dry run. Nothing is stored.",
)
@click.option(
    "--kubeconfig",
    type=FILE,
    help="With --cluster: kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config.",
)
@click.option(
    "--context",
    metavar="NAME",
    help="With --cluster: context of the kubeconfig. Default: its current context.",
)
def validate(
    *,
    source: CatalogSource,
    form: str,
    strict: bool,
    cluster: bool,
    kubeconfig: Path | None,
    context: str | None,
) -> int:
    """Check the operarios in SOURCE, a folder or a Git URL.

    Reports every problem with its path, line and rule. No cluster is contacted, except with
    --cluster.

    Exit code 1: there are errors, or there is no operario.
    """
    from openfero_gitops.author.report import FORMATS  # noqa: PLC0415
    from openfero_gitops.commands.author import check  # noqa: PLC0415

    if cluster and source.kubernetes_version:
        raise click.UsageError("--cluster uses the cluster's version: remove --kubernetes-version")
    if not cluster and (kubeconfig is not None or context is not None):
        raise click.UsageError("--kubeconfig and --context need --cluster")
    log.to_stderr("console", "warning")

    def say(line: str) -> None:
        click.echo(line, err=True)

    async def run_in_cluster() -> Findings:
        # Slow to import: the Kubernetes client.
        from openfero_gitops.commands.live import open_cluster  # noqa: PLC0415

        with progress_line("dry runs") as progress:
            async with open_cluster(kubeconfig, context, say, progress) as live:
                return await check(source, cluster=live, strict=strict)

    findings = asyncio.run(run_in_cluster() if cluster else check(source, strict=strict))
    click.echo(FORMATS[form](findings))
    return FINDINGS if findings.failed else DONE


@click.command()
@ref_option
@catalog_options
@alert_options
def render(
    *,
    source: CatalogSource,
    alert_file: str,
) -> int:
    """Print the Jobs that an alert would create, as YAML.

    Exit code 1: the alert would create no Job. A Job that is refused, for example because a value
    is unsafe in its command, is created and counts.
    """
    from openfero_gitops.author.alert_file import read_alert_file  # noqa: PLC0415
    from openfero_gitops.catalog.yaml.dump import to_yaml  # noqa: PLC0415
    from openfero_gitops.commands.author import read_catalog, render_all  # noqa: PLC0415

    log.to_stderr("console", "warning")
    group = read_alert_file(read_file(alert_file), name_of(alert_file))
    catalog = asyncio.run(read_catalog(source))
    manifests, notes = render_all(catalog, group, source)
    for note in notes:
        click.echo(note, err=True)
    if manifests:
        click.echo(to_yaml(manifests), nl=False)
    return DONE if manifests else FINDINGS


@click.command()
@ref_option
@catalog_options
@alert_options
@format_option("text", "json")
def explain(
    *,
    source: CatalogSource,
    alert_file: str,
    form: str,
) -> int:
    """Show which operario matches an alert, or why none does.

    Lists every operario for the alert's name, and the conditions under which the Job starts.
    Exit code 1: no alert would create a Job.
    """
    from openfero_gitops.author.alert_file import read_alert_file  # noqa: PLC0415
    from openfero_gitops.author.explain import as_json, as_text  # noqa: PLC0415
    from openfero_gitops.commands.author import explain_all, read_catalog  # noqa: PLC0415
    from openfero_gitops.domain.text import pretty_json  # noqa: PLC0415

    log.to_stderr("console", "warning")
    group = read_alert_file(read_file(alert_file), name_of(alert_file))
    catalog = asyncio.run(read_catalog(source))
    explanations = explain_all(catalog, group, source)
    click.echo(pretty_json(as_json(explanations)) if form == "json" else as_text(explanations))
    return DONE if any(explanation.operario for explanation in explanations) else FINDINGS


@click.command()
@ref_option
@catalog_options
@jobs_namespace_option
@replica_label_option
@click.option(
    "--update",
    is_flag=True,
    help="Write the Jobs that would be created to job.yaml; SOURCE must be a folder.",
)
@click.option("--require-cases", is_flag=True, help="Fail if an operario has no case.")
@format_option("text", "junit")
def test(
    *,
    source: CatalogSource,
    update: bool,
    require_cases: bool,
    form: str,
) -> int:
    """Compare golden cases with the Jobs that would be created.

    A case is a folder tests/OPERARIO/CASE/ below --path. Its alert.json holds an alert, its
    job.yaml the Jobs that are expected for it; an empty job.yaml expects none.

    Exit code 1: a case fails.
    """
    from openfero_gitops.author.report.cases import FORMATS  # noqa: PLC0415
    from openfero_gitops.commands.author import run_cases, update_cases  # noqa: PLC0415
    from openfero_gitops.domain.errors import UsageError  # noqa: PLC0415

    log.to_stderr("console", "warning")
    if update and source.ref != "HEAD":
        raise UsageError("--update writes to the working tree: remove --ref")

    report = asyncio.run(run_cases(source))
    updated: list[str] = []
    if update and (updated := update_cases(source.location, report)):
        report = asyncio.run(run_cases(source))
    click.echo(FORMATS[form](report, updated=updated, require_cases=require_cases))
    passed = report.passed and not (require_cases and report.untested)
    return DONE if passed else FINDINGS


@click.command()
@catalog_options
@click.argument("base")
@click.argument("head")
@jobs_namespace_option
@click.option(
    "--merge-base",
    is_flag=True,
    help="Compare HEAD with its merge base with BASE, as a pull request does.",
)
@format_option("text", "json", "markdown", explanation="markdown: a comment for a pull request.")
def diff(
    *,
    source: CatalogSource,
    base: str,
    head: str,
    merge_base: bool,
    form: str,
) -> int:
    """Show how behavior changes between two revisions.

    SOURCE is a folder in a Git repository, or a Git URL. BASE and HEAD are branches, tags or
    commits; in a folder, any revision that git understands. Changes of text alone are left out;
    the most dangerous changes come first.

    Exit code 1: HEAD breaks something that worked in BASE.
    """
    from openfero_gitops.author.diff.comment import as_markdown  # noqa: PLC0415
    from openfero_gitops.author.diff.plain import as_json, as_text  # noqa: PLC0415
    from openfero_gitops.commands.author import compare_revisions  # noqa: PLC0415
    from openfero_gitops.domain.text import pretty_json  # noqa: PLC0415

    log.to_stderr("console", "warning")
    difference = asyncio.run(compare_revisions(source, base, head, from_merge_base=merge_base))
    formats = {
        "text": as_text,
        "json": lambda diff: pretty_json(as_json(diff)),
        "markdown": as_markdown,
    }
    click.echo(formats[form](difference))
    return FINDINGS if difference.broken else DONE


@click.command()
@ref_option
@catalog_options
@jobs_namespace_option
@click.argument("more_rules", nargs=-1, metavar="[FILE]...")
@click.option(
    "--rules",
    "rule_files",
    multiple=True,
    required=True,
    metavar="FILE...",
    help="Rule files, manifests with rules (PrometheusRule, VMRule and others), or the answer of "
    "/api/v1/rules; - for stdin.",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="NAME",
    help="Name of an alert that needs no operario; repeatable.",
)
@format_option("text", "json")
def coverage(
    *,
    source: CatalogSource,
    rule_files: tuple[str, ...],
    more_rules: tuple[str, ...],
    ignore: tuple[str, ...],
    form: str,
) -> int:
    """Find alerting rules without an operario, and operarios that no alert can reach.

    Exit code 1: there is one of either.
    """
    from openfero_gitops.author.alert_rules import read_rules  # noqa: PLC0415
    from openfero_gitops.author.coverage import as_json, as_text, cover  # noqa: PLC0415
    from openfero_gitops.commands.author import read_catalog  # noqa: PLC0415
    from openfero_gitops.domain.text import pretty_json  # noqa: PLC0415

    log.to_stderr("console", "warning")
    rules = [
        rule
        for file in (*rule_files, *more_rules)
        for rule in read_rules(read_file(file), name_of(file))
    ]
    catalog = asyncio.run(read_catalog(source))
    report = cover(catalog, rules, ignore)
    click.echo(pretty_json(as_json(report)) if form == "json" else as_text(report))
    return DONE if report.complete else FINDINGS
