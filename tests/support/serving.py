"""The HTTP server on loopback, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from openfero_gitops.delivery.alertmanager import PayloadLimits
from openfero_gitops.domain.answer import Answer, Item
from openfero_gitops.domain.help import PAGE
from openfero_gitops.domain.remediation import JobKey, Outcome
from openfero_gitops.metrics import Metrics
from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.hooks import PushHook
from openfero_gitops.web.repository_links import RepositoryLinks
from openfero_gitops.web.server import Address, Server, runner_of
from openfero_gitops.web.stream.history import EventHistory
from openfero_gitops.web.stream.streams import EventStreams
from openfero_gitops.web.webhook import Intake
from tests.support import pages
from tests.support.evidence import sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from openfero_gitops.domain.alert import Alert, AlertGroup

PROBLEM = "application/problem+json"
OPEN = Guard(None, certificate=False)
#: Push hooks that are switched off.
NO_HOOK = PushHook(lambda: None, "HEAD", None)
#: Seconds that any answer may take, on a busy machine.
PATIENCE = 60.0


@dataclass
class Inbox:
    """Accepts deliveries; `say` returns the item of each alert, by default a created Job."""

    say: Callable[[Alert], Item] | None = None
    pause: float = 0.0
    failure: Exception | None = None
    groups: list[AlertGroup] = field(default_factory=list)
    cut_off: int = 0

    async def deliver(self, group: AlertGroup) -> Answer:
        """Accept a delivery."""
        self.groups.append(group)
        try:
            await asyncio.sleep(self.pause)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        if self.failure is not None:
            raise self.failure
        return Answer(tuple((self.say or created)(alert) for alert in group.alerts))


def created(alert: Alert) -> Item:
    """Return the item of an alert whose Job was created."""
    name = f"{alert.name.lower() or 'alert'}-{alert.status}-abc"
    return Item(alert, Outcome.CREATED, operario="heal", job=JobKey("openfero-jobs", name))


def local_server(**changes: Any) -> Server:
    """Make the controller's server, on a free port of loopback and without authentication."""
    state = pages.busy(datetime.now(UTC))
    options: dict[str, Any] = {
        "state": state,
        "evidence": sample(state),
        "links": RepositoryLinks(),
        "streams": EventStreams(EventHistory("test")),
        "deliveries": Inbox(),
        "exposition": Metrics("1.2.3"),
        "webhook_guard": OPEN,
        "web_guard": OPEN,
        "listen": Address("127.0.0.1", 0),
        "web_listen": None,
        "tls": None,
        "push": NO_HOOK,
        "intake": Intake(PayloadLimits()),
    }
    return Server(**{**options, **changes})


class _Server(TestServer):
    """aiohttp's server for tests, with the controller's options.

    (Its own would cancel a request whose caller has gone.)
    """

    async def _make_runner(self, **_: Any) -> web.AppRunner:
        return runner_of(self.app, lingering=0.5)


@contextlib.asynccontextmanager
async def serving(
    add: Callable[[web.Application], None],
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """Serve the routes that `add` adds; check that no task remains."""
    app = web.Application(middlewares=[problems])
    add(app)
    before = asyncio.all_tasks()
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with TestClient(_Server(app), timeout=timeout) as client:
        yield client
    await nothing_left(before)


async def nothing_left(before: set[asyncio.Task[Any]]) -> None:
    """Fail if a task still runs that did not run before."""
    for _ in range(300):
        remaining = asyncio.all_tasks() - before
        if not remaining:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"tasks still run: {remaining}")


async def say(port: int, *parts: bytes, end: bool = False, patience: float = PATIENCE) -> bytes:
    """Send bytes as they are, and return what is answered until the connection is closed.

    `end` closes our half of the connection, as a sender does that has died. Without an answer
    and without an end within `patience` seconds, what came until then is returned.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        async with asyncio.timeout(patience):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            if end:
                writer.write_eof()
            while more := await reader.read(65_536):
                answer += more
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answer


def problem(body: bytes | str, status: int) -> dict[str, Any]:
    """Read a problem document, and check its members."""
    document = json.loads(body)
    assert list(document)[:4] == ["type", "title", "status", "detail"]
    assert document["status"] == status
    assert document["type"] == "about:blank" or document["type"].startswith(f"{PAGE}#")
    assert "\n" not in document["detail"]
    assert "Traceback" not in document["detail"]
    return dict(document)
