"""The command `stats`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from openfero_gitops.cli import log
from openfero_gitops.cli.options import (
    DONE,
    duration,
    format_option,
    kubeconfig_option,
    namespace,
)

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


@click.command()
@kubeconfig_option
@click.option(
    "--namespace",
    type=namespace,
    multiple=True,
    help="Only Jobs in this namespace; repeatable. Default: all namespaces, or those of the "
    "controller if you may not list all.",
)
@click.option("--operario", default="", metavar="NAME", help="Only this operario.")
@click.option(
    "--since",
    type=duration,
    help="Only alerts received in this period before now, such as 7d.",
)
@format_option("table", "json", aliases=("-o", "--output"))
def stats(
    *,
    kubeconfig: Path | None,
    namespace: tuple[str, ...],
    operario: str,
    since: timedelta | None,
    form: str,
) -> int:
    """Show how often each operario ran, and whether its alerts went away, by commit.

    HEALED and NOT HEALED are the effects of the runs. HEAL RATE is the share of healed ones among
    these two, and TIME TO HEAL the median time from receiving an alert to its resolution. SPEC
    identifies the definition: commits with the same SPEC did not change it. Dry runs are counted
    separately. Jobs that were deleted do not count.
    """
    from openfero_gitops.commands.stats import StatsFilter, read_stats  # noqa: PLC0415
    from openfero_gitops.domain.text import pretty_json  # noqa: PLC0415
    from openfero_gitops.inspection.stats_text import stats_table  # noqa: PLC0415
    from openfero_gitops.web.api.operario_shape import stats_report_shape  # noqa: PLC0415
    from openfero_gitops.web.api.shape import to_json  # noqa: PLC0415

    log.to_stderr("console", "warning")
    selection = StatsFilter(namespace, operario, since)
    report = asyncio.run(read_stats(kubeconfig, selection, lambda line: click.echo(line, err=True)))
    if form == "table":
        click.echo(stats_table(report))
    else:
        click.echo(pretty_json(to_json(stats_report_shape(report))))
    return DONE
