"""Commands for authors of operarios: a repository, and no cluster but for `validate --cluster`.

Commands import what they need when they run, so that `validate` on a laptop starts at once and
never loads a Kubernetes client.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import (
    DONE,
    FINDINGS,
    alert_options,
    catalog_options,
    jobs_namespace_option,
    read_file,
    source_options,
    to_json,
)

if TYPE_CHECKING:
    from openfero_gitops.author.golden import Report
    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.sources.git.access import GitAccess


@click.command()
@source_options
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
    log.to_stderr("console", "warning")

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
    """The catalog of what `source_options` and `--jobs-namespace` name."""
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


@click.command()
@source_options
@alert_options
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

    log.to_stderr("console", "warning")
    group = read_payload(read_file(alert_file))
    catalog = _catalog(
        source, ref, path, allowed_namespace, jobs_namespace, kubernetes_version, access
    )
    manifests, notes = render_all(catalog, group, jobs_namespace)
    for note in notes:
        click.echo(note, err=True)
    if manifests:
        click.echo(to_yaml(manifests), nl=False)
    return DONE if manifests else FINDINGS


@click.command()
@source_options
@alert_options
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

    log.to_stderr("console", "warning")
    group = read_payload(read_file(alert_file))
    catalog = _catalog(
        source, ref, path, allowed_namespace, jobs_namespace, kubernetes_version, access
    )
    explained = explain_all(catalog, group, jobs_namespace)
    click.echo(to_json(as_json(explained)) if form == "json" else as_text(explained))
    return DONE if any(one.operario for one in explained) else FINDINGS


@click.command()
@source_options
@jobs_namespace_option
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

    log.to_stderr("console", "warning")
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


@click.command()
@click.argument("source")
@click.argument("base")
@click.argument("head")
@catalog_options
@jobs_namespace_option
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

    log.to_stderr("console", "warning")
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
            click.echo(to_json(as_json(found)))
        case "markdown":
            click.echo(as_markdown(found))
        case _:
            click.echo(as_text(found))
    return FINDINGS if found.broken else DONE


@click.command()
@source_options
@jobs_namespace_option
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

    log.to_stderr("console", "warning")
    rules = [
        rule for file in (*rule_files, *more_rules) for rule in read_rules(read_file(file), file)
    ]
    catalog = _catalog(
        source, ref, path, allowed_namespace, jobs_namespace, kubernetes_version, access
    )
    found = cover(catalog, rules, ignore)
    click.echo(to_json(as_json(found)) if form == "json" else as_text(found))
    return DONE if found.complete else FINDINGS
