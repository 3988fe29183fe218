"""What a fleet needs: a calculation from what one alert costs.

    python -m tests.bench.capacity --clusters 1000 --alerts-per-hour 1000000

prints what each release of the controller needs if every cluster has its own, and if one release
serves them all. The costs are those that were recorded last in `docs/bench`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.bench.figures import FOLDER
from tests.support import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Costs:
    """What one alert costs, from its delivery to its ended Job.

    `leader_ms` and `follower_ms` are processor time. `requests` are those of the controller to the
    API server: it creates the Job, admits it, records its resolution and its effect, and writes two
    Events. `job_kib` is what a replica keeps in memory of a Job, `stored_kib` what etcd keeps of it
    with its Pod and Events.
    """

    leader_ms: float = 2.5
    follower_ms: float = 0.7
    requests: int = 6
    base_mib: float = 115.0
    job_kib: float = 3.0
    stored_kib: float = 20.0


@dataclass(frozen=True)
class Capacity:
    """What one release can use: of a processor core, of etcd, and of the API server.

    A replica is one process with one event loop, which uses one core. Above half of it, answers
    take longer. Half of etcd's default quota of 2 GiB is left to everything else, and so is most of
    the API server. With more Jobs than were measured it is unknown how long decisions take.
    """

    core_share: float = 0.5
    stored_mib: float = 1024.0
    requests_per_second: float = 200.0
    remembered: int = 50_000


@dataclass(frozen=True)
class Demand:
    """The alerts of one release; at peak, `peak` times as many arrive as on average.

    Only alerts that have an operario and do not repeat one with a Job count.
    """

    alerts_per_hour: float
    peak: float = 10.0
    remember_hours: float = 24.0


@dataclass(frozen=True)
class Need:
    """What one release needs, and how many releases would have to share it."""

    alerts_per_second: float
    leader_cores: float
    remembered: int
    memory_mib: float
    stored_mib: float
    requests_per_second: float
    releases: int
    limit: str


def need(demand: Demand, costs: Costs, capacity: Capacity) -> Need:
    """Return what the alerts of one release need at their peak.

    `limit` names what is used most, in comparison with what there is.
    """
    per_second = demand.alerts_per_hour / 3600
    at_peak = per_second * demand.peak
    remembered = demand.alerts_per_hour * demand.remember_hours
    stored_mib = remembered * costs.stored_kib / 1024
    cores = at_peak * costs.leader_ms / 1000
    requests = at_peak * costs.requests
    shares = {
        "processor of the leader": cores / capacity.core_share,
        "size of etcd": stored_mib / capacity.stored_mib,
        "requests to the API server": requests / capacity.requests_per_second,
        "remembered Jobs": remembered / capacity.remembered,
    }
    limit = max(shares, key=lambda name: shares[name])
    return Need(
        at_peak,
        cores,
        math.ceil(remembered),
        costs.base_mib + remembered * costs.job_kib / 1024,
        stored_mib,
        requests,
        max(1, math.ceil(shares[limit])),
        limit,
    )


def recorded(folder: Path = FOLDER) -> Costs:
    """Return the costs with the figures of the newest version in which alerts were measured."""
    costs = Costs()
    versions = sorted(
        folder.glob("[0-9]*.json"), key=lambda file: tuple(map(int, file.stem.split(".")))
    )
    for file in versions:
        alerts = json.loads(file.read_text())["benches"].get("alerts", {"figures": []})
        values = {figure["name"]: figure["value"] for figure in alerts["figures"]}
        costs = replace(
            costs,
            leader_ms=values.get("one by one: processor time of the leader", costs.leader_ms),
            follower_ms=values.get("one by one: of the follower", costs.follower_ms),
        )
    return costs


def table(clusters: int, alerts_per_hour: float, costs: Costs, demand: Demand) -> str:
    """Return what is needed per cluster, and with one release for all, as a table."""
    capacity = Capacity()
    columns = {
        f"each of {clusters:,} clusters": alerts_per_hour / clusters,
        "one release for all": alerts_per_hour,
    }
    needs = [
        need(replace(demand, alerts_per_hour=alerts), costs, capacity)
        for alerts in columns.values()
    ]
    rows: list[tuple[str, Sequence[str]]] = [
        ("alerts an hour", [f"{alerts:,.0f}" for alerts in columns.values()]),
        ("alerts a second, at peak", [f"{each.alerts_per_second:,.1f}" for each in needs]),
        ("cores of the leader, at peak", [f"{each.leader_cores:,.3f}" for each in needs]),
        ("remembered Jobs", [f"{each.remembered:,}" for each in needs]),
        ("memory of each replica", [f"{each.memory_mib:,.0f} MiB" for each in needs]),
        ("etcd", [f"{each.stored_mib:,.0f} MiB" for each in needs]),
        ("requests a second, at peak", [f"{each.requests_per_second:,.0f}" for each in needs]),
        ("releases that this takes", [f"{each.releases:,}" for each in needs]),
        ("because of", [each.limit if each.releases > 1 else "" for each in needs]),
    ]
    return record.table(["", *columns], [[name, *cells] for name, cells in rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the calculation."""
    default = Demand(0)
    parser = argparse.ArgumentParser(prog="python -m tests.bench.capacity")
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--alerts-per-hour", type=float, default=1_000_000)
    parser.add_argument("--peak", type=float, default=default.peak, help="times the average")
    parser.add_argument("--remember-hours", type=float, default=default.remember_hours)
    parser.add_argument("--keep", action="store_true", help="write it to docs/sizing.md, too")
    arguments = parser.parse_args(argv)
    demand = Demand(0, arguments.peak, arguments.remember_hours)
    text = table(arguments.clusters, arguments.alerts_per_hour, recorded(), demand)
    print(text)
    if arguments.keep:
        record.keep("capacity", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
