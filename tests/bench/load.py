"""The load generator, a process of its own: POSTs bodies, at most `in_flight` at once.

`python -m tests.bench.load PLAN` reads a plan (a JSON file) and prints a `Load` as JSON. The time
of a request is counted from when its turn comes to the end of its answer. Its own processor time is
reported, since nothing can be measured that is faster than the generator.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.measures import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Plan:
    """What is to be sent: each body once, to the URLs in turn.

    Answers with another status than `expected` are errors.
    """

    urls: list[str]
    bodies: list[Any]
    in_flight: int
    expected: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    authority: str = ""


@dataclass(frozen=True)
class Load:
    """What was sent: the seconds it took, the milliseconds of each answer, and statuses."""

    seconds: float
    processor_seconds: float
    milliseconds: list[float]
    errors: dict[str, int]

    def quantile(self, share: float) -> float:
        """Return the milliseconds within which this share of the requests was answered."""
        return quantile(self.milliseconds, share)


async def send(plan: Plan) -> Load:
    """Carry out a plan."""
    bodies = [json.dumps(body).encode() for body in plan.bodies]
    times: list[float] = []
    errors: Counter[str] = Counter()
    context = ssl.create_default_context(cadata=plan.authority) if plan.authority else True
    connector = aiohttp.TCPConnector(ssl=context, limit=plan.in_flight)
    headers = {"Content-Type": "application/json", **plan.headers}
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as http:

        async def work(requests: Iterator[tuple[int, bytes]]) -> None:
            for number, body in requests:
                began = time.perf_counter()
                async with http.post(plan.urls[number % len(plan.urls)], data=body) as answer:
                    text = await answer.read()
                times.append((time.perf_counter() - began) * 1000)
                if answer.status != plan.expected:
                    errors[f"{answer.status}: {text[:300].decode(errors='replace')}"] += 1

        requests = iter(enumerate(bodies))
        used, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(requests) for _ in range(plan.in_flight)))
        return Load(time.perf_counter() - began, time.process_time() - used, times, dict(errors))


async def generate(folder: Path, plan: Plan) -> Load:
    """Carry out a plan in a process of its own.

    Raises:
        RuntimeError: a request had another status than expected, or the process failed.
    """
    file = folder / "plan.json"
    file.write_text(json.dumps(dataclasses.asdict(plan)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.load", str(file), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator failed with {process.returncode}")
    load = Load(**json.loads(output))
    if load.errors:
        raise RuntimeError(f"unexpected answers: {load.errors}")
    return load


if __name__ == "__main__":
    _plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(dataclasses.asdict(asyncio.run(send(_plan)))))
