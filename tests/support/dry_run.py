"""The API server's own verdict on a Job, without any of our code in between."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_IN_FLIGHT = 8
_CLOSED = ("the API server closes the connection, which is a bug",)


@dataclass(frozen=True)
class Refusal:
    """What the API server says: each cause as `field: message`, every index written as `*`."""

    code: int
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What an API server says about a Job.

    `causes` are why it refuses the Job, as in `Refusal`; empty if it accepts it. `dropped` are the
    JSON pointers of what it then leaves out without a word.
    """

    causes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class DryRun:
    """Creates Jobs with `dryRun=All`; an asynchronous context manager."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        """Use a cluster and an existing namespace."""
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._server: str = cluster["server"]
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs?dryRun=All"
        self._headers = {
            "Authorization": f"Bearer {config['users'][0]['user']['token']}",
            "Content-Type": "application/json",
        }
        self._context = ssl.create_default_context(cadata=authority)
        self._gate = asyncio.Semaphore(_IN_FLIGHT)

    async def __aenter__(self) -> Self:
        """Open connections."""
        connector = aiohttp.TCPConnector(ssl=self._context, limit=_IN_FLIGHT)
        self._http = aiohttp.ClientSession(self._server, connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._http.close()

    async def version(self) -> str:
        """Return the API server's version, as `1.36`."""
        async with self._http.get("/version") as answer:
            version = await answer.json()
            return f"{version['major']}.{version['minor']}"

    async def answer(self, job: Mapping[str, Any]) -> Answer:
        """Return what the API server says about a Job."""
        async with self._gate:
            try:
                async with self._http.post(self._path, data=json.dumps(job)) as answer:
                    body = await answer.json()
            except aiohttp.ServerDisconnectedError:
                return Answer(causes=_CLOSED)
        if answer.status != 201:
            return Answer(causes=_read(body).causes)
        return Answer(dropped=tuple(dropped(job["spec"], body["spec"], "/spec")))

    async def refusal(self, job: Mapping[str, Any]) -> Refusal | None:
        """Return why the API server would reject a Job, or None if it would create it."""
        async with self._gate:
            try:
                async with self._http.post(self._path, data=json.dumps(job)) as answer:
                    body = await answer.json()
                    return None if answer.status == 201 else _read(body)
            except aiohttp.ServerDisconnectedError:
                return Refusal(0, _CLOSED)


def _read(status: Mapping[str, Any]) -> Refusal:
    causes = [
        f"{cause.get('field', '')}: {cause.get('message', '')}"
        for cause in (status.get("details") or {}).get("causes") or ()
    ] or [status["message"]]
    return Refusal(status["code"], tuple(re.sub(r"\[\d+\]", "[*]", cause) for cause in causes))


def dropped(sent: Any, got: Any, pointer: str) -> Iterator[str]:
    """Yield the pointers of what was sent and is missing in the answer; empty values do not count.

    Of a list that became shorter only the list is named.
    """
    if isinstance(sent, dict) and isinstance(got, dict):
        for key, value in sent.items():
            below = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in got:
                yield from dropped(value, got[key], below)
            elif value not in (None, "", False, 0, [], {}):
                yield below
    elif isinstance(sent, list) and isinstance(got, list):
        if len(sent) != len(got):
            yield pointer
            return
        for index, (value, kept) in enumerate(zip(sent, got, strict=True)):
            yield from dropped(value, kept, f"{pointer}/{index}")
