"""Many deliveries, at most `in_flight` at once."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_SECONDS = 600.0


async def send(
    urls: Sequence[str], groups: Sequence[Any], in_flight: int, *, until_taken: bool = False
) -> list[int]:
    """Deliver every group to every URL; the HTTP statuses.

    `until_taken` repeats deliveries that were answered with 503, as Alertmanager does.
    """
    gate = asyncio.Semaphore(in_flight)

    async def deliver(http: aiohttp.ClientSession, url: str, body: Any) -> int:
        while True:
            async with gate, http.post(url + "/alerts", json=body) as answer:
                await answer.read()
                if answer.status != 503 or not until_taken:
                    return answer.status
            await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - no secret

    timeout = aiohttp.ClientTimeout(total=_MAX_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.timeout(_MAX_SECONDS):
        return await asyncio.gather(*(deliver(http, url, body) for body in groups for url in urls))
