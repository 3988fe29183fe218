"""What commands cost until they do their work: processor time of whole processes.

`serve` is measured from its start until it is ready, with the example repository and an in-memory
API server that this process runs; what git uses for the first fetch is a figure of its own. Each
round also runs a Python that imports only the two largest libraries: the ratios are to that, so
that a slow machine slows both.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.demo.cluster.server import serve_cluster
from tests.bench.figures import Figure, Measured
from tests.bench.git import ran
from tests.support.measures import processor_seconds
from tests.support.paths import ROOT
from tests.support.replica import Replica
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS: Final = int(os.environ.get("ROUNDS", "5"))
_NAMESPACE: Final = "starts"
_EXAMPLE: Final = ROOT / "operarios-example"
_FLOOR: Final = "import aiohttp, pydantic"
_COMMANDS: Final = {
    "--version": ["--version"],
    "--help": ["--help"],
    "serve --help": ["serve", "--help"],
    "validate the example": ["validate", str(_EXAMPLE)],
    "demo --once": ["demo", "--once"],
}
#: The most that `serve` should cost, in ratio to the floor; it was 5.35 when this was new.
_MAX_SERVE: Final = 2.7


async def _until_ready(folder: Path, repository: str) -> tuple[float, float]:
    """Return the processor time of `serve` until it is ready: its own, and that of git."""
    async with serve_cluster(MemoryCluster(), folder, _NAMESPACE) as kubeconfig:
        replica = Replica(
            folder,
            name="starts",
            kubeconfig=kubeconfig,
            roles=False,
            namespace=_NAMESPACE,
            repository=repository,
            development=False,
        )
        try:
            await asyncio.to_thread(replica.process.start)
            pid = replica.process.pid
            own = processor_seconds(pid, children=False)
            return own, processor_seconds(pid) - own
        finally:
            await asyncio.to_thread(replica.process.end)


def _serve(repository: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="starts-") as name:
        return asyncio.run(_until_ready(Path(name), repository))


def _python(*arguments: str) -> float:
    """Return the processor time of a Python process."""
    argv = [sys.executable, *arguments]
    run: Callable[[], object] = functools.partial(
        subprocess.run, argv, cwd=ROOT, stdout=subprocess.DEVNULL, check=True
    )
    return ran(run).cpu


def _measure(folder: Path) -> list[Figure]:
    shutil.copytree(_EXAMPLE, folder, dirs_exist_ok=True)
    repository = Repository(folder)
    repository.commit("Operarios")
    floor, git = [], []
    serve: list[float] = []
    commands: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(ROUNDS):
        floor.append(_python("-c", _FLOOR))
        own, children = _serve(repository.url)
        serve.append(own)
        git.append(children)
        for name, arguments in _COMMANDS.items():
            commands[name].append(_python("-m", "openfero_gitops", *arguments))

    def figures(name: str, seconds: list[float], goal: float | None = None) -> list[Figure]:
        ratios = [used / least for used, least in zip(seconds, floor, strict=True)]
        return [
            Figure.of(f"{name} / imports of aiohttp and pydantic", ratios, goal=goal),
            Figure.of(name, seconds, "s"),
        ]

    return [
        *figures("serve until ready", serve, _MAX_SERVE),
        Figure.of("of that, git", git, "s"),
        *(figure for name, seconds in commands.items() for figure in figures(name, seconds)),
        Figure.of("imports of aiohttp and pydantic", floor, "s"),
    ]


def main() -> Measured:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="starts-") as name:
        figures = _measure(Path(name) / "operarios")
    return Measured(figures, "Processor time of whole processes.", parameters={"rounds": ROUNDS})
