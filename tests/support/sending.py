"""Deliveries: many at once, and one after the other while something else happens."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from tests.support.replica import alert, group

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


class Deliveries:
    """Delivers one alert after the other in a thread, each again until it is answered with 200.

    As a context manager it ends when each of them is. Each delivery has a connection of its own, so
    that a Service chooses a replica for it.

    Args:
        url: of the webhook.
        token: the bearer token.
        name: of the alerts, which differ in their label `id`.
        period: seconds between two alerts.
    """

    def __init__(self, url: str, token: str, name: str, period: float) -> None:
        self.answers: Counter[str] = Counter()
        self.ids: list[str] = []
        self._url = f"{url}/alerts"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._name = name
        self._period = period
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=name)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no new alert, and wait until all are taken."""
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=_MAX_SECONDS),
            ) as http,
            asyncio.timeout(_MAX_SECONDS),
            asyncio.TaskGroup() as deliveries,
        ):
            while not self._ended.is_set():
                self.ids.append(f"{len(self.ids)}")
                deliveries.create_task(self._deliver(http, self.ids[-1]))
                await asyncio.sleep(self._period)

    async def _deliver(self, http: aiohttp.ClientSession, number: str) -> None:
        now = datetime.now(UTC).isoformat()
        body = group(alert(self._name, id=number) | {"startsAt": now})
        while True:
            try:
                async with http.post(self._url, json=body) as answer:
                    await answer.read()
                    self.answers[str(answer.status)] += 1
                    if answer.status == 200:
                        return
            except aiohttp.ClientError as error:
                self.answers[str(error)] += 1
            await asyncio.sleep(0.5)
