"""What an alert costs, from its delivery to its ended Job, on a whole control plane.

The control plane has its controllers and kwok's nodes; two replicas run, and the one that leads
gets the deliveries, admits every Job, and sees it run and succeed. Beside it, in the same rounds, a
handler without any guarantee (`floor.py`) gets the same deliveries, and the same Jobs are created
in the API server directly ("raw"). Processor time is what to compare: it hardly depends on what
else the machine does. It is counted until the last Job is complete and the replicas are idle.

    TREE=/path/to/another/checkout    measures that code, too, in the same rounds

For the other parameters see `replicas_under_test`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.commands.author import CatalogSource, read_catalog
from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.jobs.render import Delivery, render
from tests.bench.figures import Figure, Measured
from tests.bench.load import Load, Plan, generate
from tests.bench.replicas_under_test import (
    ALERTS,
    IN_FLIGHT,
    NAME,
    PARAMETERS,
    PROFILE,
    ROUNDS,
    SIZES,
    BenchCluster,
    Delivered,
    Side,
    groups_of,
    kind_of,
)
from tests.cluster.controlplane import ControlPlane
from tests.support import record
from tests.support.attacks import jobs_path
from tests.support.measures import processor_seconds, resident_mib
from tests.support.paths import ROOT
from tests.support.process import Process, free_port
from tests.support.replica import alert, group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.domain.catalog import Catalog

TREE: Final = os.environ.get("TREE", "")
#: Of the leader's processor time over the floor's.
MAX_COST_RATIO: Final = 1.5
#: Of the Jobs created a second over raw creates, by the size of groups.
MIN_RATE_RATIOS: Final = {1: 0.5, 100: 0.7}
#: Of the 99th percentile of the answer times over that of raw creates.
MAX_P99_RATIO: Final = 3.0


class Floor:
    """The handler without any guarantee, as a process."""

    def __init__(self, cluster: BenchCluster, catalog: Catalog) -> None:
        """Write the Job that it fills."""
        manifest = cluster.folder / "manifest.json"
        manifest.write_text(json.dumps(_rendered(alert(NAME, host="x"), catalog, "floor")))
        port = free_port()
        self._folder = cluster.folder
        self._url = f"http://127.0.0.1:{port}"
        words = [str(cluster.plane.kubeconfig), "floor", str(manifest), str(port)]
        self.process = Process(
            [sys.executable, "-m", "tests.bench.floor", *words],
            log=cluster.folder / "floor.log",
            url=f"{self._url}/",
        )

    async def deliver(self, deliveries: list[Any]) -> Delivered:
        """Deliver groups."""
        before = processor_seconds(self.process.pid)
        load = await generate(self._folder, Plan([f"{self._url}/alerts"], deliveries, IN_FLIGHT))
        return Delivered(load, {"floor": processor_seconds(self.process.pid) - before})

    async def ceiling(self) -> Load:
        """Return how fast the load generator is if it is answered at once."""
        deliveries = groups_of("ceiling", 1)
        return await generate(self._folder, Plan([f"{self._url}/"], deliveries, IN_FLIGHT))


class RawCreates:
    """The same Jobs, created in the API server directly."""

    def __init__(self, cluster: BenchCluster, catalog: Catalog) -> None:
        """Take what the Jobs are rendered from."""
        self._cluster = cluster
        self._catalog = catalog

    async def deliver(self, deliveries: list[Any]) -> Delivered:
        """Create the Jobs of all alerts."""
        bodies = [_rendered(body, self._catalog, "raw") for g in deliveries for body in g["alerts"]]
        admin = self._cluster.admin
        plan = Plan(
            [admin.url + jobs_path("raw")],
            bodies,
            IN_FLIGHT,
            expected=201,
            headers=admin.headers,
            authority=admin.authority,
        )
        load = await generate(self._cluster.folder, plan)
        return Delivered(load, {"load generator": load.processor_seconds})


Results = defaultdict[tuple[str, int], list[Delivered]]


async def _rounds(
    cluster: BenchCluster, floor: Floor, raw: RawCreates, sides: Sequence[Side]
) -> Results:
    """Measure everything in turn, in one order or the other."""
    results: Results = defaultdict(list)
    ways: dict[str, Floor | RawCreates | Side] = {
        "floor": floor,
        "raw": raw,
        **{side.name: side for side in sides},
    }
    for number in range(ROUNDS):
        for size in SIZES:
            for name in ways if number % 2 == 0 else reversed(ways):
                delivered = await ways[name].deliver(groups_of(f"{number}-{name}-{size}", size))
                results[name, size].append(delivered)
                used = ", ".join(f"{k} {v:.2f} s" for k, v in delivered.seconds.items())
                print(
                    f"round {number + 1}, {kind_of(size)}: {name}: {delivered.rate:.0f} Jobs/s; "
                    f"{used}",
                    flush=True,
                )
                await cluster.clear(name)
                for side in sides:
                    await side.until_idle()
    return results


def _rendered(body: dict[str, Any], catalog: Catalog, namespace: str) -> dict[str, Any]:
    """Return the Job that the controller creates for an alert."""
    (fired,) = read_payload(json.dumps(group(body))).alerts
    outcome = match(fired, catalog, ())
    assert isinstance(outcome, Match)
    delivery = Delivery("bench", "{}:{}", Status.FIRING, record.now(), "bench")
    envelope, revision = catalog.envelope, catalog.revision
    job = render(
        fired, outcome.operario, envelope, revision, delivery, jobs_namespace=namespace
    ).manifest
    del job["metadata"]["labels"][keys.MANAGED_BY]  # the replicas would count and report it
    return job


def _ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def _figures(results: Results, side: str, mark: str = "") -> list[Figure]:
    """Compare one side with the floor and raw creates, round by round."""
    figures = []
    for size in SIZES:
        ours, floor, raw = (results[name, size] for name in (side, "floor", "raw"))
        kind = f"{kind_of(size)}{mark}"
        cost = [delivered.seconds["leader"] for delivered in ours]
        least = [delivered.seconds["floor"] for delivered in floor]
        rates, raw_rates = [d.rate for d in ours], [d.rate for d in raw]
        figures += [
            Figure.of(f"{kind}: processor time of the leader", _each(cost), "ms an alert"),
            Figure.of(
                f"{kind}: of the follower",
                _each([delivered.seconds["follower"] for delivered in ours]),
                "ms an alert",
            ),
            Figure.of(f"{kind}: of the floor", _each(least), "ms an alert"),
            Figure.of(f"{kind}: leader / floor", _ratios(cost, least), goal=MAX_COST_RATIO),
            Figure.of(
                f"{kind}: of the leader, to record the resolution",
                _each([delivered.resolved["leader"] for delivered in ours]),
                "ms an alert",
            ),
            Figure.of(f"{kind}: Jobs created", rates, "a second"),
            Figure.of(f"{kind}: created raw", raw_rates, "a second"),
            Figure.of(
                f"{kind}: Jobs / raw",
                _ratios(rates, raw_rates),
                goal=MIN_RATE_RATIOS.get(size),
                more_is_better=True,
            ),
        ]
        for share in (0.5, 0.99):
            name = f"p{share * 100:g}"
            answers, raws = ([d.load.quantile(share) for d in way] for way in (ours, raw))
            figures.append(Figure.of(f"{kind}: answer, {name}", answers, "ms"))
            if size == 1:
                figures.append(Figure.of(f"{kind}: raw create, {name}", raws, "ms"))
                goal = MAX_P99_RATIO if share > 0.9 else None
                ratios = _ratios(answers, raws)
                figures.append(Figure.of(f"{kind}: answer / raw, {name}", ratios, goal=goal))
        delays = [statistics.median(delivered.delays) for delivered in ours]
        figures.append(Figure.of(f"{kind}: delivery to admission, median", delays, "s"))
    return figures


def _each(seconds: Sequence[float]) -> list[float]:
    return [value / ALERTS * 1000 for value in seconds]


async def _measure(folder: Path, plane: ControlPlane) -> Measured:
    async with contextlib.AsyncExitStack() as exits:
        namespaces = ("floor", "raw", "ours", "other")
        cluster = await exits.enter_async_context(BenchCluster.open(folder, plane, namespaces))
        catalog = await read_catalog(CatalogSource(str(cluster.repository.folder)))
        floor = Floor(cluster, catalog)
        exits.enter_context(floor.process)
        trees = {"ours": ROOT, **({"other": Path(TREE)} if TREE else {})}
        sides = []
        for name, tree in trees.items():
            sides.append(Side(name, tree, cluster))
            exits.callback(sides[-1].end)
            await sides[-1].start()
        ceiling = await floor.ceiling()
        results = await _rounds(cluster, floor, RawCreates(cluster, catalog), sides)
        memory = [resident_mib(replica.process.pid) for replica in sides[0].replicas]
    figures = _figures(results, "ours")
    for name, mib in zip(("leader", "follower"), memory, strict=True):
        figures.append(Figure(f"resident memory of the {name} at the end", mib, "MiB"))
    figures.append(
        Figure("ceiling of the load generator", ALERTS / ceiling.seconds, "deliveries a second")
    )
    if TREE:
        figures += _figures(results, "other", " (other tree)")
    text = (
        f"{record.today()}, {record.machine()}; {ALERTS} alerts, {ROUNDS} rounds, {IN_FLIGHT} "
        "requests in flight. Whole control plane, two replicas; median and spread of the rounds."
    )
    details = f"Profiles: {cluster.profiles}" if PROFILE else ""
    return Measured(figures, text, details, PARAMETERS)


def main() -> Measured:
    """Run the benchmark."""
    if PROFILE == "cpu" and shutil.which("py-spy") is None:
        raise SystemExit("PROFILE=cpu needs py-spy: `.venv/bin/pip install py-spy`")
    with tempfile.TemporaryDirectory(prefix="alerts-") as name:
        folder = Path(name)
        with ControlPlane(folder / "cluster") as plane:
            return asyncio.run(_measure(folder, plane))
