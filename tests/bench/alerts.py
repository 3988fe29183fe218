"""What an alert costs, from its delivery to its ended Job, on a whole control plane.

The control plane has its controllers and kwok's nodes; two replicas run, and the one that leads
gets the deliveries, admits every Job, and sees it run and succeed. Beside it, in the same rounds, a
handler without any guarantee (`floor.py`) gets the same deliveries, and the same Jobs are created
in the API server directly ("raw"). Processor time is what to compare: it hardly depends on what
else the machine does. It is counted until the last Job is complete and the replicas are idle.

    ALERTS=1000 ROUNDS=3 SIZES=1,100 IN_FLIGHT=16   are the defaults
    TREE=/path/to/another/checkout                  measures that code, too, in the same rounds
    PROFILE=cpu|calls|memory                        writes profiles of the leader: cpu by py-spy,
                                                    which must be installed, calls by cProfile
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.commands.author import CatalogSource, read_catalog
from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.domain.timestamp import format_time, parse_time
from openfero_gitops.jobs.render import Delivery, render
from tests.bench.figures import Figure, Measured
from tests.bench.load import Load, Plan, generate
from tests.cluster.controlplane import COMPONENTS, ControlPlane
from tests.support import record
from tests.support.attacks import Admin, jobs_path
from tests.support.measures import processor_seconds, resident_megabytes
from tests.support.paths import ROOT
from tests.support.process import Process, free_port
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog

ALERTS: Final = int(os.environ.get("ALERTS", "1000"))
ROUNDS: Final = int(os.environ.get("ROUNDS", "3"))
SIZES: Final = [int(size) for size in os.environ.get("SIZES", "1,100").split(",")]
IN_FLIGHT: Final = int(os.environ.get("IN_FLIGHT", "16"))
#: What the figures depend on, in the record of a version.
PARAMETERS: Final = {"ALERTS": ALERTS, "ROUNDS": ROUNDS, "SIZES": SIZES, "IN_FLIGHT": IN_FLIGHT}
TREE: Final = os.environ.get("TREE", "")
PROFILE: Final = os.environ.get("PROFILE", "")
#: A replica is idle if it used less than a tenth of so many seconds.
CALM_SECONDS: Final = 3.0
PATIENCE_SECONDS: Final = 900.0
NAME: Final = "Storm"
ROLES: Final = ("leader", "follower", "second follower")
WITHOUT_LIMITS: Final = {
    "openfero.io/max-concurrent": "100000",
    "openfero.io/max-per-hour": "1000000",
}
#: Goals by the size of groups: processor time over the floor's, Jobs/s over raw.
COST_GOAL: Final = 1.5
RATE_GOALS: Final = {1: 0.5, 100: 0.7}
P99_GOAL: Final = 3.0


@dataclass(frozen=True)
class Delivered:
    """One pass: what was sent, and the processor seconds of each process until all was done."""

    load: Load
    seconds: dict[str, float]
    delays: list[float] = field(default_factory=list)  # from delivery to admission
    resolved: dict[str, float] = field(default_factory=dict)  # processor seconds of the resolution

    @property
    def rate(self) -> float:
        """Jobs that were created a second."""
        return ALERTS / self.load.seconds


class Side:
    """Replicas of one source tree, in a namespace of their own.

    The leader gets the deliveries or, if they are `shared`, all replicas in turn.
    """

    def __init__(
        self, name: str, tree: Path, bench: Bench, *, count: int = 2, shared: bool = False
    ) -> None:
        """Take the name, which is also the namespace."""
        self.name = name
        self._shared = shared
        self._bench = bench
        self.replicas = [
            Replica(
                bench.folder,
                name=f"{name}-{number}",
                kubeconfig=bench.plane.kubeconfig,
                namespace=name,
                repository=bench.repository.url,
                development=False,
                environment={"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"},
                program=self._program(f"{name}-{number}"),
                interval="10m",
            )
            for number in range(count)
        ]

    def _program(self, name: str) -> Sequence[str]:
        if PROFILE not in ("calls", "memory"):
            return ("-m", "openfero_gitops")
        file = self._bench.profiles / f"{name}.{PROFILE}"
        return ("-m", "tests.bench.profiled", PROFILE, str(file))

    async def start(self) -> None:
        """Start the replicas, the one after the other, so that the first leads."""
        for replica in self.replicas:
            await asyncio.to_thread(replica.process.start)
            await asyncio.to_thread(self.replicas[0].wait_for, lambda: self.replicas[0].leads)
        await self.until_idle()

    def end(self) -> None:
        """End the replicas."""
        for replica in self.replicas:
            replica.process.end()

    def used(self) -> dict[str, float]:
        """Return the processor seconds of each replica so far."""
        pids = (replica.process.pid for replica in self.replicas)
        return {name: processor_seconds(pid) for name, pid in zip(ROLES, pids, strict=False)}

    async def until_idle(self) -> None:
        """Return when the replicas have nothing more to do."""
        busy = True
        async with asyncio.timeout(PATIENCE_SECONDS):
            while busy:
                before = self.used()
                await asyncio.sleep(CALM_SECONDS)
                busy = any(
                    seconds - before[name] > CALM_SECONDS / 10
                    for name, seconds in self.used().items()
                )

    async def deliver(self, groups: list[Any]) -> Delivered:
        """Deliver groups, and their resolution once every Job is complete."""
        with self._profile():
            before = self.used()
            load = await self._send(groups)
            delays = await self._until_complete()
            await self.until_idle()
            between = self.used()
        ended = format_time(record.now())
        await self._send([_resolved(body, ended) for body in groups])
        await self.until_idle()
        return Delivered(
            load, _difference(before, between), delays, _difference(between, self.used())
        )

    async def _send(self, groups: list[Any]) -> Load:
        replicas = self.replicas if self._shared else self.replicas[:1]
        urls = [f"{replica.url}/alerts" for replica in replicas]
        return await generate(self._bench.folder, Plan(urls, groups, IN_FLIGHT))

    async def _until_complete(self) -> list[float]:
        """Return when every Job is complete; the seconds from delivery to admission of each."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                jobs = await self._bench.jobs(self.name)
                if sum(map(_is_complete, jobs)) == ALERTS:
                    return [_delay(job) for job in jobs]
                await asyncio.sleep(2.0)  # the list is long

    @contextlib.contextmanager
    def _profile(self) -> Iterator[None]:
        """Sample the leader's stacks within the block, if that is wanted."""
        if PROFILE != "cpu":
            yield
            return
        file = self._bench.profiles / f"{self.name}-{self._bench.passes}.txt"
        pid = self.replicas[0].process.pid
        argv = ["py-spy", "record", "--pid", str(pid), "--format", "raw", "--output", str(file)]
        with Process([*argv, "--rate", "200"], log=self._bench.folder / "py-spy.log") as spy:
            yield
            spy.signal(signal.SIGINT)
            spy.wait()


@dataclass
class Bench:
    """The control plane, the floor, and what is measured in turn."""

    folder: Path
    profiles: Path
    plane: ControlPlane
    repository: Repository
    api: KubernetesApi
    admin: Admin
    floor: Process
    floor_url: str
    catalog: Catalog
    passes: int = 0
    results: defaultdict[tuple[str, int], list[Delivered]] = field(
        default_factory=lambda: defaultdict(list)
    )

    async def jobs(self, namespace: str) -> list[dict[str, Any]]:
        """List the Jobs of a namespace, however busy the API server is."""
        while True:
            with contextlib.suppress(Unavailable):  # its cache may lag in a storm
                return (await self.api.list(JOBS, namespace)).items
            await asyncio.sleep(1.0)

    async def round(self, number: int, sides: Sequence[Side]) -> None:
        """Measure everything once, in one order or the other."""
        for size in SIZES:
            ways = ["floor", "raw", *sides]
            for way in ways if number % 2 == 0 else ways[::-1]:
                self.passes += 1
                groups = groups_of(f"{self.passes}", size)
                if isinstance(way, Side):
                    delivered = await way.deliver(groups)
                elif way == "floor":
                    delivered = await self._floor(groups)
                else:
                    delivered = await self._raw(groups)
                name = way.name if isinstance(way, Side) else way
                self.results[name, size].append(delivered)
                used = ", ".join(f"{k} {v:.2f} s" for k, v in delivered.seconds.items())
                print(
                    f"round {number + 1}, {kind_of(size)}: {name}: {delivered.rate:.0f} Jobs/s; "
                    f"{used}",
                    flush=True,
                )
                await self.clear(name)
                for side in sides:
                    await side.until_idle()

    async def _floor(self, groups: list[Any]) -> Delivered:
        before = processor_seconds(self.floor.pid)
        load = await generate(self.folder, Plan([f"{self.floor_url}/alerts"], groups, IN_FLIGHT))
        return Delivered(load, {"floor": processor_seconds(self.floor.pid) - before})

    async def _raw(self, groups: list[Any]) -> Delivered:
        bodies = [_rendered(body, self.catalog, "raw") for g in groups for body in g["alerts"]]
        plan = Plan(
            [self.admin.url + jobs_path("raw")],
            bodies,
            IN_FLIGHT,
            expected=201,
            headers=self.admin.headers,
            authority=self.admin.authority,
        )
        load = await generate(self.folder, plan)
        return Delivered(load, {"load generator": load.processor_seconds})

    async def ceiling(self) -> Load:
        """Return how fast the load generator is if it is answered at once."""
        groups = groups_of("ceiling", 1)
        return await generate(self.folder, Plan([f"{self.floor_url}/"], groups, IN_FLIGHT))

    async def clear(self, namespace: str) -> None:
        """Delete the Jobs, and wait until their Pods are gone too: they would slow what follows."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.admin.request("DELETE", jobs_path(namespace), propagationPolicy="Background")
            while True:
                if not await self.jobs(namespace) and not await self._has_pods(namespace):
                    return
                await asyncio.sleep(1.0)

    async def _has_pods(self, namespace: str) -> bool:
        path = f"/api/v1/namespaces/{namespace}/pods"
        _, listed = await self.admin.request("GET", path, limit="1")
        return bool(listed.get("items", True))


def kind_of(size: int) -> str:
    """Say how alerts are delivered."""
    return f"groups of {size}" if size > 1 else "one by one"


def groups_of(mark: str, size: int) -> list[Any]:
    """Return deliveries of alerts that no other pass has."""
    alerts = [alert(NAME, host=f"{mark}-{number}") for number in range(ALERTS)]
    return [group(*alerts[i : i + size]) for i in range(0, ALERTS, size)]


def _resolved(body: dict[str, Any], ended: str) -> dict[str, Any]:
    """Return the delivery that resolves every alert of another."""
    alerts = [{**fired, "status": "resolved", "endsAt": ended} for fired in body["alerts"]]
    return {**body, "status": "resolved", "alerts": alerts}


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}


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


def _is_complete(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)


def _delay(job: dict[str, Any]) -> float:
    annotations = job["metadata"]["annotations"]
    received = _moment(annotations[keys.RECEIVED_AT])
    return (_moment(annotations[keys.ADMITTED_AT]) - received).total_seconds()


def _moment(text: str) -> datetime:
    moment = parse_time(text)
    assert moment is not None
    return moment


def _ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def _figures(bench: Bench, side: str, mark: str = "") -> list[Figure]:
    """Compare one side with the floor and raw creates, round by round."""
    figures = []
    for size in SIZES:
        ours, floor, raw = (bench.results[name, size] for name in (side, "floor", "raw"))
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
            Figure.of(f"{kind}: leader / floor", _ratios(cost, least), goal=COST_GOAL),
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
                goal=RATE_GOALS.get(size),
                more_is_better=True,
            ),
        ]
        for share in (0.5, 0.99):
            name = f"p{share * 100:g}"
            answers, raws = ([d.load.quantile(share) for d in way] for way in (ours, raw))
            figures.append(Figure.of(f"{kind}: answer, {name}", answers, "ms"))
            if size == 1:
                figures.append(Figure.of(f"{kind}: raw create, {name}", raws, "ms"))
                goal = P99_GOAL if share > 0.9 else None
                ratios = _ratios(answers, raws)
                figures.append(Figure.of(f"{kind}: answer / raw, {name}", ratios, goal=goal))
        delays = [statistics.median(delivered.delays) for delivered in ours]
        figures.append(Figure.of(f"{kind}: delivery to admission, median", delays, "s"))
    return figures


def _each(seconds: Sequence[float]) -> list[float]:
    return [value / ALERTS * 1000 for value in seconds]


@contextlib.asynccontextmanager
async def open_bench(
    folder: Path, plane: ControlPlane, namespaces: Sequence[str]
) -> AsyncIterator[Bench]:
    """Write the repository, and start the floor."""
    repository = Repository(folder / "operarios")
    repository.write("openfero.yaml", "limits: {concurrent: 100000, perMinute: 100000}\n")
    repository.write("storm.json", operario(NAME, annotations=WITHOUT_LIMITS))
    repository.commit("Operarios")
    catalog = await read_catalog(CatalogSource(str(repository.folder)))
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(_rendered(alert(NAME, host="x"), catalog, "floor")))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = [str(plane.kubeconfig), "floor", str(manifest), str(port)]
    floor = Process(
        [sys.executable, "-m", "tests.bench.floor", *words], log=folder / "floor.log", url=f"{url}/"
    )
    profiles = Path(tempfile.mkdtemp(prefix="profiles-")) if PROFILE else folder
    async with contextlib.AsyncExitStack() as exits:
        api = await KubernetesApi.connect(plane.kubeconfig)
        exits.push_async_callback(api.close)
        admin = await exits.enter_async_context(Admin(plane.kubeconfig))
        for namespace in namespaces:
            created = {"metadata": {"name": namespace}}
            await admin.request("POST", "/api/v1/namespaces", created)
        exits.enter_context(floor)
        yield Bench(folder, profiles, plane, repository, api, admin, floor, url, catalog)


async def _measure(folder: Path, plane: ControlPlane) -> Measured:
    async with contextlib.AsyncExitStack() as exits:
        namespaces = ("floor", "raw", "ours", "other")
        bench = await exits.enter_async_context(open_bench(folder, plane, namespaces))
        trees = {"ours": ROOT, **({"other": Path(TREE)} if TREE else {})}
        sides = []
        for name, tree in trees.items():
            sides.append(Side(name, tree, bench))
            exits.callback(sides[-1].end)
            await sides[-1].start()
        ceiling = await bench.ceiling()
        for number in range(ROUNDS):
            await bench.round(number, sides)
        memory = [resident_megabytes(replica.process.pid) for replica in sides[0].replicas]
    figures = _figures(bench, "ours")
    for name, megabytes in zip(("leader", "follower"), memory, strict=True):
        figures.append(Figure(f"resident memory of the {name} at the end", megabytes, "MiB"))
    figures.append(
        Figure("ceiling of the load generator", ALERTS / ceiling.seconds, "deliveries a second")
    )
    if TREE:
        figures += _figures(bench, "other", " (other tree)")
    text = (
        f"{record.today()}, {record.machine()}; {ALERTS} alerts, {ROUNDS} rounds, {IN_FLIGHT} "
        "requests in flight. Whole control plane, two replicas; median and spread of the rounds."
    )
    details = f"Profiles: {bench.profiles}" if PROFILE else ""
    return Measured(figures, text, details, PARAMETERS)


def main() -> Measured:
    """Run the benchmark."""
    if PROFILE == "cpu" and shutil.which("py-spy") is None:
        raise SystemExit("PROFILE=cpu needs py-spy: `.venv/bin/pip install py-spy`")
    with tempfile.TemporaryDirectory(prefix="alerts-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        plane = ControlPlane(folder / "cluster", components=COMPONENTS)
        stack.callback(plane.remove)
        stack.callback(plane.stop)
        plane.start()
        return asyncio.run(_measure(folder, plane))
