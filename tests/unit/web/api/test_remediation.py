"""The API of one remediation, and its log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from openfero_gitops.domain.errors import Forbidden, Invalid, NotFound, Unavailable
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.api import remediation as endpoint
from openfero_gitops.web.api.remediation import add_remediation
from openfero_gitops.web.evidence import EvidenceReader
from openfero_gitops.web.repository_links import RepositoryLinks
from openfero_gitops.web.slots import Slots
from openfero_gitops.web.turns import Turns
from tests.support.evidence import SampleReader, different
from tests.support.pages import SCRIPT, busy
from tests.support.serving import OPEN, PROBLEM, local_server, serving

if TYPE_CHECKING:
    import contextlib
    from collections.abc import AsyncGenerator

    from aiohttp import web
    from aiohttp.test_utils import TestClient

    from openfero_gitops.domain.errors import ApiError
    from tests.support.pages import Showcase

    Client = TestClient[web.Request, web.Application]

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


def path_of(phase: Phase) -> str:
    """Return the address of the first remediation in a phase."""
    key = next(job.key for job in busy(NOW).jobs if job.phase is phase)
    return f"/api/remediations/{key}"


def api(reader: SampleReader | None = None) -> contextlib.AbstractAsyncContextManager[Client]:
    """Serve the endpoints of the busy state."""
    state = busy(NOW)
    reader = reader or SampleReader(state)

    def add(app: web.Application) -> None:
        add_remediation(
            app,
            state,
            OPEN,
            Turns(),
            now=lambda: NOW,
            evidence=EvidenceReader(reader, reader.verify),
            links=RepositoryLinks(),
        )

    return serving(add)


async def test_everything_about_a_remediation() -> None:
    """The answer has the members of the list, the timeline, Pods, Events and the verification."""
    async with api(SampleReader(busy(NOW), verification=different())) as client:
        answer = await (await client.get(path_of(Phase.FAILED))).json()
    assert answer["phase"] == "Failed"
    assert answer["recordedAlert"]["annotations"]["summary"] == "Pod crashes again and again"
    assert answer["timeline"][0] == {
        "at": "2026-11-21T02:54:34.000000Z",
        "step": "firing",
        "text": "the alert started firing",
    }
    assert answer["pods"][0]["containers"][0]["exitCode"] == 1
    assert [event["reason"] for event in answer["events"]] == ["Waiting", "SuccessfulCreate"]
    assert answer["verification"]["proof"] == "differs"
    assert answer["verification"]["differences"] == [
        {
            "field": "/spec/template/spec/containers/0/image",
            "expected": "registry.example.com/kubectl:1.36",
            "actual": "evil.example/x",
        }
    ]
    assert answer["verification"]["changed"] == ["/spec/parallelism"]
    assert answer["incident"][0]["attempt"] == 2
    assert (answer["missing"], answer["commitUrl"]) == ([], None)


async def test_without_the_api_server() -> None:
    """If the API server does not answer, the answer says what is missing."""
    failing = SampleReader(busy(NOW), failure=Unavailable("no response"))
    async with api(failing) as client:
        answer = await (await client.get(path_of(Phase.FAILED))).json()
    assert answer["phase"] == "Failed"
    assert answer["verification"] is None
    assert len(answer["missing"]) == 3


async def test_log() -> None:
    """The log is plain text, and `tail` limits it to its last lines."""
    async with api(SampleReader(busy(NOW), log_text=f"{SCRIPT}\nlast\n")) as client:
        answer = await client.get(f"{path_of(Phase.FAILED)}/log")
        assert answer.content_type == "text/plain"
        assert await answer.text() == f"{SCRIPT}\nlast\n"
        assert await (await client.get(f"{path_of(Phase.FAILED)}/log?tail=1")).text() == "last\n"
        followed = await client.get(f"{path_of(Phase.FAILED)}/log?follow=true&tail=1")
        assert await followed.text() == "last\n"


@pytest.mark.parametrize("follow", ["false", "true"])
@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Forbidden("no"), 403, "logs.enabled=true"),
        (NotFound("no"), 404, "was deleted"),
        (Invalid("is waiting to start"), 409, "is waiting to start"),
        (Unavailable("no response"), 503, "no response"),
    ],
)
async def test_log_that_cannot_be_read(
    error: ApiError, status: int, text: str, follow: str
) -> None:
    """Why a log cannot be read is a problem document, also if it is to be followed."""
    async with api(SampleReader(busy(NOW), log_failure=error)) as client:
        answer = await client.get(f"{path_of(Phase.FAILED)}/log?follow={follow}")
        assert (answer.status, answer.content_type) == (status, PROBLEM)
        assert text in (await answer.json())["detail"]


@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("/api/remediations/a/b", 404, "no remediation has the Job a/b"),
        ("/api/remediations/a/b/log", 404, "no remediation has the Job a/b"),
        (f"{path_of(Phase.FAILED)}/log?container=x", 404, "no container 'x'; it has heal"),
        (f"{path_of(Phase.WAITING)}/log", 404, "it has not started"),
        (f"{path_of(Phase.FAILED)}/log?tail=0", 400, "tail"),
        (f"{path_of(Phase.FAILED)}/log?lines=3", 400, "unknown parameter 'lines'"),
    ],
)
async def test_refusals(address: str, status: int, text: str) -> None:
    """What cannot be answered is said."""
    async with api() as client:
        answer = await client.get(address)
        assert answer.status == status
        assert text in (await answer.json())["detail"]


class Running(SampleReader):
    """A container that writes a line, then nothing; counts the logs that are read."""

    def __init__(self, shown: Showcase) -> None:
        super().__init__(shown)
        self.reading = self.most_reading = 0
        self.left = asyncio.Event()

    async def log(self, *_: Any, **options: Any) -> AsyncGenerator[bytes]:
        """Yield a line, then wait."""
        del options
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        try:
            yield b"begun\n"
            await asyncio.Event().wait()
        finally:
            self.reading -= 1
            self.left.set()


async def test_follower_that_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many logs are followed; all end with the server, and no task remains."""
    monkeypatch.setattr(endpoint, "MAX_FOLLOWERS", 2)
    reader = Running(busy(NOW))
    async with api(reader) as client:
        address = f"{path_of(Phase.FAILED)}/log?follow=true"
        answers = [await client.get(address) for _ in range(2)]
        assert [await answer.content.readline() for answer in answers] == [b"begun\n"] * 2
        refused = await client.get(address)
        assert refused.status == 503
        assert "2 logs are followed already" in (await refused.json())["detail"]
        assert reader.reading == 2
        app = client.server.app  # type: ignore[attr-defined]
        await app.shutdown()
        for answer in answers:
            assert await answer.content.read() == b""
        refused = await client.get(address)
        assert refused.status == 503
    assert reader.reading == 0


async def test_logs_that_are_read_at_once_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the API server hangs, only a few requests for logs wait for it; others get 503."""
    monkeypatch.setattr(endpoint, "_READ_SECONDS", 1.5)
    monkeypatch.setattr(endpoint, "Slots", partial(Slots, max_wait_seconds=0.1))
    reader = Running(busy(NOW))
    async with api(reader) as client:
        address = f"{path_of(Phase.FAILED)}/log"
        requests = [asyncio.create_task(client.get(address)) for _ in range(20)]
        answers = [await request for request in requests]
        details = [(await answer.json())["detail"] for answer in answers]
    assert {answer.status for answer in answers} == {503}
    assert sum(detail.startswith("8 logs are being read already") for detail in details) == 12
    assert reader.most_reading == 8


async def test_followers_end_with_the_client_and_with_the_server() -> None:
    """A client that leaves ends the reading of its log at once, and so does stopping the server."""
    reader = Running(busy(NOW))
    server = local_server(state=busy(NOW), evidence=EvidenceReader(reader, reader.verify))
    await server.start()
    address = f"http://{server.bound[0]}{path_of(Phase.FAILED)}/log?follow=true"
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        for _ in range(2):
            answer = await session.get(address)
            assert await answer.content.readline() == b"begun\n"
        answer.close()
        await reader.left.wait()
        await server.stop()
    assert reader.reading == 0
