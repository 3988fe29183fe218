"""What one, two and three replicas cost and do behind one address.

As in `alerts`, but the load generator sends to all replicas in turn, as a Service does. Each number
of replicas has a namespace of its own; they take turns. On a machine with few cores the replicas
and the control plane compete for these, so that more replicas cannot create more Jobs a second.

For the parameters see `replicas_under_test`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.figures import Figure, Measured
from tests.bench.replicas_under_test import (
    ALERTS,
    IN_FLIGHT,
    PARAMETERS,
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
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES: Final = {1: "one replica", 2: "two replicas", 3: "three replicas"}


async def _measure(folder: Path, plane: ControlPlane) -> Measured:
    namespaces = {count: name.replace(" ", "-") for count, name in NAMES.items()}
    results: defaultdict[tuple[int, int], list[Delivered]] = defaultdict(list)
    async with BenchCluster.open(folder, plane, [*namespaces.values()]) as cluster:
        for number in range(ROUNDS):
            for count in sorted(NAMES, reverse=number % 2 == 1):
                side = Side(namespaces[count], ROOT, cluster, count=count, shared=True)
                with contextlib.ExitStack() as exits:
                    exits.callback(side.end)
                    await side.start()
                    for size in SIZES:
                        delivered = await side.deliver(groups_of(f"{number}-{count}-{size}", size))
                        results[count, size].append(delivered)
                        print(
                            f"round {number + 1}, {kind_of(size)}: {NAMES[count]}: "
                            f"{delivered.rate:.0f} Jobs/s",
                            flush=True,
                        )
                        await cluster.clear(side.name)
    text = (
        f"{record.today()}, {record.machine()}; {ALERTS} alerts, {ROUNDS} rounds, {IN_FLIGHT} "
        "requests in flight, sent to all replicas in turn."
    )
    return Measured(_figures(results), text, parameters=PARAMETERS)


def _figures(results: Mapping[tuple[int, int], Sequence[Delivered]]) -> list[Figure]:
    figures = []
    for size in SIZES:
        for count, name in NAMES.items():
            passes = results[count, size]
            kind = f"{kind_of(size)}, {name}"
            figures.append(
                Figure.of(f"{kind}: Jobs created", [each.rate for each in passes], "a second")
            )
            for role in passes[0].seconds:
                used = [each.seconds[role] / ALERTS * 1000 for each in passes]
                figures.append(Figure.of(f"{kind}: processor time of the {role}", used, "ms"))
    return figures


def main() -> Measured:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="replicas-") as name:
        folder = Path(name)
        with ControlPlane(folder / "cluster") as plane:
            return asyncio.run(_measure(folder, plane))
