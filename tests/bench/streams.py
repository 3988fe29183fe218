"""The webhook's answer times while 500 clients follow the event stream, against those without.

One real replica with the chart's settings, beside a real API server. Each round delivers new alerts
one after the other, first without clients and then with them: readers that receive every event,
readers that never read, and deliveries whose bodies trickle. The clients are a process of their
own. Rounds take turns, so that a slow machine slows both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from tests.cluster.controlplane import COMPONENTS, ControlPlane
from tests.support import record
from tests.support.measures import processor_seconds, quantile, resident_mib
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READERS: Final = 450
SLOW_READERS: Final = 50
TRICKLING_BODIES: Final = 50
DELIVERIES: Final = 100
PER_SECOND: Final = 20
ROUNDS: Final = 2
TOKEN: Final = "a-token-that-only-alertmanager-has"
_CLIENTS: Final = (READERS, SLOW_READERS, TRICKLING_BODIES)


@dataclass
class Phase:
    """The deliveries without clients, or with them."""

    name: str
    milliseconds: list[float] = field(default_factory=list)
    processor: float = 0.0
    memory: float = 0.0

    def quantile(self, share: float) -> float:
        """Return the milliseconds within which this share of the requests was answered."""
        return quantile(self.milliseconds, share)


def ratio(idle: Phase, loaded: Phase, share: float) -> float:
    """Compare the times within which this share of the requests was answered."""
    return loaded.quantile(share) / idle.quantile(share)


@contextlib.asynccontextmanager
async def _clients(url: str, received: Counter[str]) -> AsyncIterator[None]:
    """Keep the clients for as long as the block lasts; then add up what they received."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.stream_clients", url, TOKEN, *map(str, _CLIENTS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield
        output, _ = await process.communicate(b"")  # which closes its standard input
        received.update(json.loads(output))
    finally:
        if process.returncode is None:
            process.kill()


async def _deliver(replica: Replica, phase: Phase, mark: str) -> None:
    """Deliver new alerts at a fixed rate, one at a time."""
    processor = processor_seconds(replica.process.pid)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(10)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
        for number in range(DELIVERIES):
            await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            body = group(alert("Real", host=f"{mark}-{number}"))
            sent = time.perf_counter()
            async with http.post(replica.url + "/alerts", json=body) as answer:
                await answer.read()
                assert answer.status == 200, await answer.text()
            phase.milliseconds.append((time.perf_counter() - sent) * 1000)
    phase.processor += processor_seconds(replica.process.pid) - processor
    phase.memory = max(phase.memory, resident_mib(replica.process.pid))


async def _measure(replica: Replica) -> str:
    await asyncio.to_thread(replica.wait_for, lambda: replica.leads)
    idle, loaded = Phase("without clients"), Phase("with 500 event streams")
    received: Counter[str] = Counter()
    await _deliver(replica, Phase("warm"), "warm")
    for number in range(ROUNDS):
        await _deliver(replica, idle, f"idle-{number}")
        async with _clients(replica.url, received):
            await _deliver(replica, loaded, f"loaded-{number}")
    rows = [
        [
            phase.name,
            f"{phase.quantile(0.5):.1f}",
            f"{phase.quantile(0.95):.1f}",
            f"{phase.quantile(0.99):.1f}",
            f"{phase.processor / ROUNDS / (DELIVERIES / PER_SECOND) * 100:.0f} %",
            f"{phase.memory:.0f}",
        ]
        for phase in (idle, loaded)
    ]
    header = ["deliveries", "median, ms", "95 %, ms", "99 %, ms", "processor", "memory, MiB"]
    return (
        f"{record.today()}, {record.machine()}; {READERS} readers, {SLOW_READERS} that never read, "
        f"{TRICKLING_BODIES} bodies that trickle; {PER_SECOND} new alerts a second.\n\n"
        f"{record.table(header, rows)}\n\n"
        f"With the clients, the median answer takes {ratio(idle, loaded, 0.5):.2f} times as long, "
        f"and the 95th percentile {ratio(idle, loaded, 0.95):.2f} times. The clients "
        f"received {received['events']:,} events, and connected again {received['again']} times."
    )


async def _run(folder: Path) -> str:
    plane = ControlPlane(folder / "cluster", components=COMPONENTS[:2])
    with contextlib.ExitStack() as stack:
        stack.enter_context(plane)
        repository = Repository(folder / "operarios")
        repository.write("real.json", operario("Real"))
        repository.commit("Operarios")
        (folder / "token").write_text(TOKEN + "\n")
        replica = Replica(
            folder,
            name="followed",
            kubeconfig=plane.kubeconfig,
            roles=False,
            namespace="default",
            repository=repository.url,
            development=False,
            interval="1m",
            webhook_auth="bearer",
            webhook_credentials_file=str(folder / "token"),
            max_connections="1024",
            max_waiting="100000",
        )
        stack.enter_context(replica)
        return await _measure(replica)


def main() -> str:
    """Run the benchmark and print its table."""
    with tempfile.TemporaryDirectory(prefix="streams-") as folder:
        text = asyncio.run(_run(Path(folder)))
    print(text)
    return text
