"""How cost grows: with operarios, remembered Jobs, the size of groups, and labels.

Each case is a replica with a namespace of its own, beside the others on one API server without
controllers. The Jobs it remembers are written to etcd before it starts. It leads, and admits every
Job of the alerts that it gets. Processor time is counted until it is idle; the rounds of all cases
take turns, and each is compared with the smallest one.

    LONG=yes make bench ARGS=growth      also starts a replica with 50,000 remembered Jobs
    ROUNDS=3 ALERTS=300                  are the defaults
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.decide import decide_indexed
from openfero_gitops.admission.job_index import JobIndex
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope
from tests.bench.capacity import memory_figure
from tests.bench.figures import Figure, Measured
from tests.cluster.controlplane import ControlPlane
from tests.support import build, record
from tests.support.attacks import Admin, jobs_path
from tests.support.fleet import Fleet, operarios
from tests.support.measures import peak_mib, processor_seconds, resident_mib, until_idle
from tests.support.remembered import remembered_jobs, write_to_etcd
from tests.support.replica import (
    UNLIMITED,
    UNLIMITED_ENVELOPE,
    Replica,
    alert,
    groups,
    operario,
)
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from openfero_gitops.domain.remediation import Remediation

ALERTS: Final = int(os.environ.get("ALERTS", "300"))
ROUNDS: Final = int(os.environ.get("ROUNDS", "3"))
LONG: Final = os.environ.get("LONG") == "yes"
IN_FLIGHT: Final = 4
PROBE_SECONDS: Final = 0.05
NAME: Final = "Storm"
#: Of the processor time of an alert with many operarios over that with few.
MAX_MATCH_RATIO: Final = 1.2
#: Of the processor time of a decision, and of an alert, with many Jobs over that with few.
MAX_DECIDE_RATIO: Final = 3.0
MAX_RESIDENT_MIB: Final = 250e6 / 2**20
#: Operarios and remembered Jobs; the first is the smallest.
CASES: Final = ((10, 100), (1000, 100), (10_000, 100), (10, 10_000), (10_000, 10_000))
LONG_CASES: Final = ((10, 50_000),)
#: For deciding: the Jobs that wait, those remembered beside them, and passes in a round.
WAITING: Final = 20
REMEMBERED: Final = (100, 1000, 10_000, 50_000)
PASSES: Final = 20
#: The size of a group, and the labels of each alert.
SHAPES: Final = ((1, 5), (100, 5), (1000, 5), (5000, 5), (1, 100))


@dataclass(frozen=True)
class Start:
    """How a replica started: until it was ready, and what it held when it was idle.

    `longest_answer` is the longest time that a probe waited for its answer, in milliseconds.
    """

    seconds: float
    processor_seconds: float
    longest_answer: float
    resident: float
    peak: float


class Case:
    """A replica with a number of operarios and of remembered Jobs."""

    def __init__(
        self, folder: Path, plane: ControlPlane, admin: Admin, count: int, jobs: int
    ) -> None:
        """Take the numbers; nothing is written or started yet."""
        self.name = f"{count:,} operarios, {jobs:,} Jobs"
        self.namespace = f"case-{count}-{jobs}"
        self.size = count, jobs
        self._plane = plane
        self._admin = admin
        self._fleet = Fleet(folder / f"{self.namespace}.git")
        files = operarios(count - 1)
        self._fleet.commit(
            {
                **files,
                "openfero.yaml": UNLIMITED_ENVELOPE.encode(),
                "storm.json": operario(NAME, annotations=UNLIMITED).encode(),
            }
        )
        self._fleet.commit({"storm.json": operario(NAME, annotations=UNLIMITED).encode() + b"\n"})
        self._first, self._second = self._fleet.write()
        self._replica = Replica(
            folder,
            name=self.namespace,
            kubeconfig=plane.kubeconfig,
            roles=False,
            namespace=self.namespace,
            repository=self._fleet.url,
            development=False,
            interval="10m",
            max_waiting="100000",
            lease_duration="60s",  # however busy the machine is
            renew_deadline="40s",
        )
        self.started: Start | None = None
        #: Milliseconds of processor time per alert, by shape.
        self.costs: defaultdict[tuple[int, int], list[float]] = defaultdict(list)

    @property
    def _pid(self) -> int:
        return self._replica.process.pid

    async def start(self) -> None:
        """Write what it finds, start it, and wait until it leads and is idle."""
        namespace = {"metadata": {"name": self.namespace}}
        await self._admin.request("POST", "/api/v1/namespaces", namespace)
        jobs = remembered_jobs(self.size[1], self.namespace, record.now())
        await asyncio.to_thread(write_to_etcd, self._plane, jobs)
        self._fleet.publish(self._first)
        with _probing(self._replica.url) as answers:
            began = time.monotonic()
            await asyncio.to_thread(self._replica.process.start)
            seconds, used = time.monotonic() - began, processor_seconds(self._pid)
            await asyncio.to_thread(self._replica.wait_for, lambda: self._replica.leads)
        await self.until_idle()
        self.started = Start(
            seconds,
            used,
            max(answers, default=0.0) * 1000,
            resident_mib(self._pid),
            peak_mib(self._pid),
        )

    def end(self) -> None:
        """End the replica."""
        self._replica.process.end()

    async def until_idle(self) -> None:
        """Return when the replica has nothing more to do."""
        await until_idle([self._pid])

    async def deliver(self, size: int, labels: int, mark: str) -> None:
        """Deliver alerts that no other pass has, and forget their Jobs once all are admitted."""
        alerts = [
            alert(
                NAME, host=f"{mark}-{number}", **{f"label_{n}": f"{n}" for n in range(labels - 2)}
            )
            for number in range(max(ALERTS, size))
        ]
        before = processor_seconds(self._pid)
        # A delivery that takes longer than Alertmanager waits is repeated, as there.
        statuses = await send(
            [self._replica.url], groups(alerts, size), IN_FLIGHT, until_taken=True
        )
        assert set(statuses) == {http.client.OK}, statuses
        await self.until_idle()
        used = processor_seconds(self._pid) - before
        self.costs[size, labels].append(used / len(alerts) * 1000)
        selector = f"{keys.ALERT}={NAME}"
        path = jobs_path(self.namespace)
        await self._admin.request(
            "DELETE", path, labelSelector=selector, propagationPolicy="Background"
        )
        await self.until_idle()

    async def sync(self) -> float:
        """Publish a commit that changes one file; the most memory that was held until it ended."""
        self._fleet.publish(self._second)
        self._replica.process.signal(signal.SIGHUP)
        await self.until_idle()
        return peak_mib(self._pid)


@contextlib.contextmanager
def _probing(url: str) -> Iterator[list[float]]:
    """Ask for the liveness again and again within the block; the seconds of each answer."""
    answers: list[float] = []
    stop = threading.Event()

    def probe() -> None:
        while not stop.wait(PROBE_SECONDS):
            began = time.monotonic()
            with (
                contextlib.suppress(OSError),  # its port is not open yet
                urllib.request.urlopen(f"{url}/livez", timeout=60) as answer,
            ):
                answer.read()
                answers.append(time.monotonic() - began)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def _deciding() -> list[Figure]:
    """Measure deciding on waiting Jobs beside more and more remembered ones.

    The remembered Jobs are of other targets or, which is the expensive case, of the same alert and
    target as all waiting ones.
    """
    kinds = {"of other targets": None, "of the same target": "web"}
    indexes = {
        (kind, count): JobIndex(
            [
                *(_waiting_job(number, host) for number in range(WAITING)),
                *(_ended_job(number, host) for number in range(count)),
            ]
        )
        for kind, host in kinds.items()
        for count in REMEMBERED
    }
    costs: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for case, index in indexes.items():
            began = time.process_time()
            for _ in range(PASSES):
                jobs = index.waiting.values()
                decide_indexed(index, jobs, Envelope(), pause=None, now=build.NOW)
            costs[case].append((time.process_time() - began) / PASSES * 1000)
    figures = []
    for (kind, count), milliseconds in costs.items():
        name = f"deciding on {WAITING} waiting Jobs beside {count:,} {kind}"
        figures.append(Figure.of(name, milliseconds, "ms"))
        if count == REMEMBERED[-1]:
            least = costs[kind, REMEMBERED[0]]
            ratios = [cost / base for cost, base in zip(milliseconds, least, strict=True)]
            name = f"{name}: over {REMEMBERED[0]:,}"
            figures.append(Figure.of(name, ratios, goal=MAX_DECIDE_RATIO))
    return figures


def _waiting_job(number: int, host: str | None) -> Remediation:
    """Return a Job that waits; `host` is its target, its number if there is none."""
    host = host or f"{number}"
    return build.remediation(
        f"waiting-{number}",
        starts_at=build.NOW - timedelta(seconds=WAITING - number),
        labels={"alertname": NAME, "host": host},
        target=host,
    )


def _ended_job(number: int, host: str | None) -> Remediation:
    """Return a Job of the last day that has ended.

    It is of one of a hundred operarios and a target of its own or, with a `host`, of the operario
    and the target of the waiting Jobs.
    """
    ended = build.NOW - timedelta(seconds=60 + number % 86_000)
    target = host or f"ended-{number}"
    other = {} if host else {"operario": f"operario-{number % 100}"}
    return build.finished(
        f"ended-{number}",
        began=ended,
        ended=ended,
        received_at=ended,
        starts_at=ended,
        labels={"alertname": NAME, "host": target},
        target=target,
        **other,
    )


def _figures(cases: Sequence[Case], syncs: Mapping[str, float]) -> list[Figure]:
    small = cases[0]
    figures = []
    for case in cases:
        start = case.started
        assert start is not None
        figures += [
            Figure(f"{case.name}: start to ready", start.seconds, "s"),
            Figure(f"{case.name}: processor time of that", start.processor_seconds, "s"),
            Figure(f"{case.name}: longest answer to a probe", start.longest_answer, "ms"),
            Figure(
                memory_figure(*case.size),
                start.resident,
                "MiB",
                goal=MAX_RESIDENT_MIB if case.size == (10_000, 10_000) else None,
            ),
            Figure(f"{case.name}: most memory during the start", start.peak, "MiB"),
        ]
        if case.name in syncs:
            figures.append(
                Figure(f"{case.name}: most memory, also of a sync", syncs[case.name], "MiB")
            )
        costs = case.costs[1, 5]
        figures.append(Figure.of(f"{case.name}: processor time", costs, "ms an alert"))
        if case is not small:
            ratios = [cost / least for cost, least in zip(costs, small.costs[1, 5], strict=True)]
            goal = MAX_MATCH_RATIO if case.size[1] == small.size[1] else MAX_DECIDE_RATIO
            name = f"{case.name}: processor time over {small.name}"
            figures.append(Figure.of(name, ratios, goal=goal))
    for size, labels in SHAPES:
        name = f"groups of {size:,}, {labels} labels"
        costs = small.costs[size, labels]
        figures.append(Figure.of(f"{name}: processor time", costs, "ms an alert"))
        ratios = [cost / least for cost, least in zip(costs, small.costs[1, 5], strict=True)]
        figures.append(Figure.of(f"{name}: processor time over one by one with 5", ratios))
    return figures


async def _measure(folder: Path, plane: ControlPlane) -> Measured:
    syncs = {}
    async with contextlib.AsyncExitStack() as exits:
        admin = await exits.enter_async_context(Admin(plane.kubeconfig))
        cases: list[Case] = []
        for size in CASES + (LONG_CASES if LONG else ()):
            case = Case(folder, plane, admin, *size)
            exits.callback(case.end)
            await case.start()
            cases.append(case)
            print(f"{case.name}: {case.started}", flush=True)
        for number in range(ROUNDS):
            for case in cases:
                await case.deliver(1, 5, f"{number}")
                print(f"round {number + 1}: {case.name}: {case.costs[1, 5][-1]:.2f} ms", flush=True)
            for shape in SHAPES[1:]:
                await cases[0].deliver(*shape, f"{number}-{shape}")
        for case in cases:
            if case.size[0] > 1000:
                syncs[case.name] = await case.sync()
    text = (
        f"{record.today()}, {record.machine()}; {ALERTS} alerts in a pass, {ROUNDS} rounds. One "
        "leading replica for each case, an API server without controllers."
    )
    parameters = {"ALERTS": ALERTS, "ROUNDS": ROUNDS, "IN_FLIGHT": IN_FLIGHT, "LONG": LONG}
    return Measured([*_figures(cases, syncs), *_deciding()], text, parameters=parameters)


def main() -> Measured:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = Path(name)
        with ControlPlane(folder / "cluster", components=("etcd", "kube-apiserver")) as plane:
            return asyncio.run(_measure(folder, plane))
