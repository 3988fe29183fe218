"""What a fleet needs: a calculation from what one alert costs.

    python -m tests.bench.capacity --clusters 1000 --alerts-per-hour 1000000

prints what each release of the controller needs if every cluster has its own, and if one release
serves them all, with the assumptions. Costs that were recorded in `docs/bench` replace estimates.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tests.bench.figures import FOLDER, version_key
from tests.support import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CLUSTERS: Final = 1000
ALERTS_PER_HOUR: Final = 1_000_000
#: A figure of the bench `alerts`.
LEADER: Final = "one by one: processor time of the leader"
#: The cases of the bench `growth` that show what memory depends on: operarios and remembered Jobs.
SMALL: Final = (10, 100)
MANY_JOBS: Final = (10, 10_000)
MANY_OPERARIOS: Final = (10_000, 100)


@dataclass(frozen=True)
class Costs:
    """What one alert costs, from its delivery to its ended Job, and what a replica holds.

    `leader_ms` is processor time. `requests` are those of the controller to the API server: it
    creates the Job, admits it, records its resolution and its effect, and writes two Events.
    `base_mib`, `operario_kib` and `job_kib` are resident memory of a replica; `stored_kib` is what
    etcd keeps of a remembered Job and its Pod. `origins` names the version in which a cost was
    recorded; the others are estimates.
    """

    leader_ms: float = 10.0
    requests: int = 6
    base_mib: float = 105.0
    operario_kib: float = 14.0
    job_kib: float = 4.5
    stored_kib: float = 15.0
    origins: Mapping[str, str] = field(default_factory=dict)


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
    operarios: int = 200


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
        costs.base_mib
        + (demand.operarios * costs.operario_kib + remembered * costs.job_kib) / 1024,
        stored_mib,
        requests,
        max(1, math.ceil(shares[limit])),
        limit,
    )


def recorded(folder: Path = FOLDER) -> Costs:
    """Return the costs with the newest recorded figures of the benches `alerts` and `growth`."""
    costs = Costs()
    for file in sorted(folder.glob("[0-9]*.json"), key=lambda file: version_key(file.stem)):
        benches = json.loads(file.read_text())["benches"]
        values = {
            figure["name"]: figure["value"]
            for bench in ("alerts", "growth")
            for figure in benches.get(bench, {"figures": []})["figures"]
        }
        measured = _memory(values)
        if LEADER in values:
            measured["leader_ms"] = values[LEADER]
        origins = {**costs.origins, **dict.fromkeys(measured, file.stem)}
        costs = replace(costs, **measured, origins=origins)
    return costs


def _memory(values: Mapping[str, float]) -> dict[str, Any]:
    """Return the costs of memory, if all cases that they depend on were measured."""
    names = {size: memory_figure(*size) for size in (SMALL, MANY_JOBS, MANY_OPERARIOS)}
    if any(name not in values for name in names.values()):
        return {}
    small, many_jobs, many_operarios = (values[name] for name in names.values())
    operario_mib = (many_operarios - small) / (MANY_OPERARIOS[0] - SMALL[0])
    job_mib = (many_jobs - small) / (MANY_JOBS[1] - SMALL[1])
    return {
        "base_mib": small - SMALL[0] * operario_mib - SMALL[1] * job_mib,
        "operario_kib": operario_mib * 1024,
        "job_kib": job_mib * 1024,
    }


def memory_figure(operarios: int, jobs: int) -> str:
    """Return the name of a figure of the bench `growth`."""
    return f"{operarios:,} operarios, {jobs:,} Jobs: resident memory"


def formula(costs: Costs) -> str:
    """Return the memory of a replica as a formula."""
    return (
        f"    {costs.base_mib:.0f} + operarios * {costs.operario_kib / 1024:.4f} "
        f"+ remembered Jobs * {costs.job_kib / 1024:.4f}   {_origin(costs, 'base_mib')}"
    )


def table(clusters: int, alerts_per_hour: float, costs: Costs, demand: Demand) -> str:
    """Return what is needed per cluster, and with one release for all, with the assumptions."""
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
    needed = record.table(["", *columns], [[name, *cells] for name, cells in rows])
    return f"{needed}\n\n{_assumptions(costs, demand, capacity)}"


def _assumptions(costs: Costs, demand: Demand, capacity: Capacity) -> str:
    used = (
        f"{capacity.core_share:g} cores, {capacity.stored_mib:,.0f} MiB of etcd, "
        f"{capacity.requests_per_second:,.0f} requests a second, {capacity.remembered:,} Jobs"
    )
    rows = [
        ["operarios", f"{demand.operarios:,}", "chosen"],
        ["peak", f"{demand.peak:g} times the average", "chosen"],
        ["`remember`", f"{demand.remember_hours:g} h", "chosen"],
        ["at most for one release", used, "chosen"],
        ["leader, for an alert", f"{costs.leader_ms:.1f} ms", _origin(costs, "leader_ms")],
        ["requests, for an alert", f"{costs.requests}", "counted in the code"],
        ["memory without operarios", f"{costs.base_mib:.0f} MiB", _origin(costs, "base_mib")],
        ["memory, for an operario", f"{costs.operario_kib:.1f} KiB", _origin(costs, "base_mib")],
        ["memory, for a Job", f"{costs.job_kib:.1f} KiB", _origin(costs, "base_mib")],
        ["etcd, for a Job and its Pod", f"{costs.stored_kib:.0f} KiB", "(estimate)"],
    ]
    return record.table(["assumption", "value", "from"], rows)


def _origin(costs: Costs, cost: str) -> str:
    version = costs.origins.get(cost)
    return f"measured in {version}" if version else "(estimate)"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the calculation."""
    default = Demand(0)
    parser = argparse.ArgumentParser(prog="python -m tests.bench.capacity")
    parser.add_argument("--clusters", type=int, default=CLUSTERS)
    parser.add_argument("--alerts-per-hour", type=float, default=ALERTS_PER_HOUR)
    parser.add_argument("--operarios", type=int, default=default.operarios, help="of a release")
    parser.add_argument("--peak", type=float, default=default.peak, help="times the average")
    parser.add_argument("--remember-hours", type=float, default=default.remember_hours)
    arguments = parser.parse_args(argv)
    demand = Demand(0, arguments.peak, arguments.remember_hours, arguments.operarios)
    print(table(arguments.clusters, arguments.alerts_per_hour, recorded(), demand))
    return 0


def blocks(costs: Costs) -> dict[str, str]:
    """Return the blocks of docs/explanation/sizing.md that are calculated, by their names."""
    return {
        "memory": formula(costs),
        "capacity": table(CLUSTERS, ALERTS_PER_HOUR, costs, Demand(0)),
    }


def keep() -> None:
    """Write the calculated blocks into docs/explanation/sizing.md."""
    for block, text in blocks(recorded()).items():
        record.keep(block, text)


if __name__ == "__main__":
    sys.exit(main())
