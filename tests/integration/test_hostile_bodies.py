"""Hostile bodies over real sockets: what they cost, and that ordinary alerts are still answered.

Memory and processor time are compared with the size of the body and with the speed of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from openfero_gitops.delivery.alertmanager import PayloadLimits
from openfero_gitops.web.auth import SecretLines
from openfero_gitops.web.hooks import KEPT_BYTES, PushHook
from openfero_gitops.web.webhook import Intake
from tests.support import attacks, pages
from tests.support.attacks import MIB, Attacker, Body
from tests.support.measures import blocked_loop, memory_cost, unit_seconds
from tests.support.replica import alert, group
from tests.support.serving import NO_HOOK, Inbox, local_server, nothing_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.answer import Answer

SIZE = 2 * MIB
SECRET = b"s3cret"
ALERTS = b'{"status":"firing","alerts":['
LABELS = ALERTS + b'{"labels":{"alertname":"Hostile"'


def distinct(count: int, text: str, separator: bytes = b",") -> bytes:
    """Return so many texts, each with another number."""
    return separator.join(text.replace("#", f"{number:x}").encode() for number in range(count))


def whole(body: bytes, name: str) -> Body:
    """Return a body that is sent as it is."""
    return Body(name, 0, b" ", body, b"")


def dense_alerts(size: int = SIZE) -> Body:
    """Alerts with as many labels as fit, just short enough to be read."""
    element = b'{"labels":{' + distinct(5000, '"#":"b"') + b"}}"
    return Body("many labels each", size, element + b",", ALERTS, element + b"]}")


BODIES = [
    (attacks.ones(SIZE), "400"),
    (attacks.empty_objects(SIZE), "400"),
    (Body("labels without an object", SIZE, b'{"labels":1},'), "400"),
    (Body("empty labels", SIZE, b'{"labels":{}},'), "413"),
    (Body("[[[[ at the root", SIZE, b"[", b"[", b""), "400"),
    (attacks.nested(SIZE), "400"),
    (Body("[[[[ in a label", SIZE, b"[", LABELS + b',"x":', b""), "400"),
    (Body("objects in objects", SIZE, b'{"a":', b'{"x":', b""), "400"),
    (attacks.unknown_members(SIZE), "200"),
    (Body("a long unknown text", SIZE, b"x", b'{"alerts":[],"x":"', b'"}'), "200"),
    (Body("escapes", SIZE, b"\\n", b'{"alerts":[],"x":"', b'"}'), "200"),
    (attacks.one_label(SIZE), "200"),
    (whole(LABELS + b"," + distinct(SIZE // 10, '"l#":""') + b"}}]}", "10^5 labels"), "200"),
    (Body("one label again and again", SIZE, b',"a":"b"', LABELS, b"}}]}"), "200"),
    (dense_alerts(), "413"),
    (Body("wrong alerts", SIZE, b'{"labels":{"a":1}},'), "413"),
    (Body("a long group key", SIZE, b"k", b'{"alerts":[],"groupKey":"', b'"}'), "200"),
    (Body("lone surrogates", SIZE, b"\\ud800", LABELS + b',"x":"', b'"}}]}'), "400"),
    (Body("a lone surrogate", SIZE, b"\\n", LABELS + b',"x":"', b'\\ud800"}}]}'), "200"),
    (Body("not UTF-8", SIZE, b"\xff", LABELS + b',"x":"', b'"}}]}'), "200"),
]


@contextlib.asynccontextmanager
async def running(
    inbox: Inbox | None = None, limits: PayloadLimits | None = None, push: PushHook = NO_HOOK
) -> AsyncIterator[tuple[Attacker, Intake]]:
    """Serve the webhook and the hook; give an attacker, and what deliveries may need."""
    intake = Intake(limits or PayloadLimits())
    server = local_server(
        state=pages.quiet(datetime.now(UTC)),
        deliveries=inbox or Inbox(),
        push=push,
        intake=intake,
    )
    before = asyncio.all_tasks()
    await server.start()
    try:
        yield Attacker(f"http://127.0.0.1:{server.bound[0].port}"), intake
    finally:
        await server.stop()
        await nothing_left(before)


async def deliver(attacker: Attacker, body: Any) -> int:
    """Send an ordinary delivery; the status."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        client.post(attacker.url + "/alerts", json=body) as answer,
    ):
        return answer.status


class TestCost:
    """One hostile body costs little, whatever is in it."""

    @pytest.mark.parametrize(
        ("body", "status"), BODIES, ids=lambda value: getattr(value, "name", "")
    )
    async def test_memory_is_a_few_times_the_body(self, body: Body, status: str) -> None:
        """Reading and refusing needs at most eight times the bytes, and a little for all."""
        async with running(limits=PayloadLimits(alerts=1000)) as (attacker, intake):
            with memory_cost() as cost:
                answer = await attacker.post(body)
            assert cost.memory < 8 * body.length + 6 * MIB
            assert answer == status
            assert intake.budget.used == 0

    @pytest.mark.parametrize(
        ("body", "status"), BODIES, ids=lambda value: getattr(value, "name", "")
    )
    async def test_the_event_loop_is_hardly_blocked(self, body: Body, status: str) -> None:
        """Nothing in it keeps the event loop longer than a few tenths of a second."""
        async with running(limits=PayloadLimits(alerts=1000)) as (attacker, _):
            unit = unit_seconds()
            async with blocked_loop() as blocked:
                answer = await attacker.post(body)
            assert answer == status
            assert blocked.seconds < 6 * max(unit, unit_seconds())

    async def test_a_body_without_end_is_cut_off(self) -> None:
        """Chunks are counted: 413 at the limit, and no more memory than that."""
        limits = PayloadLimits(size=SIZE)
        async with running(limits=limits) as (attacker, intake):
            with memory_cost() as cost:
                answer = await attacker.post(attacks.endless())
            assert answer == "413"
            assert cost.memory < 2 * SIZE
            assert intake.budget.used == 0

    async def test_a_promised_size_over_the_limit_is_refused_before_the_body(self) -> None:
        """Content-Length alone is enough for 413."""
        async with running() as (attacker, intake):
            head = attacker.head("POST", "/alerts", Content_Length=str(SIZE * 1000))
            assert (await first_line(attacker, head)).split()[1] == b"413"
            assert intake.budget.used == 0

    async def test_a_promise_reserves_nothing(self) -> None:
        """A request that promises megabytes and sends nothing uses no memory of the budget."""
        async with running() as (attacker, intake):
            _, writer = await attacker.connect()
            writer.write(attacker.head("POST", "/alerts", Content_Length=str(SIZE)) + b"x" * 1000)
            await writer.drain()
            await eventually(lambda: intake.budget.used == 1000)
            assert await deliver(attacker, group(alert("A"))) == 200
            writer.transport.abort()
            await eventually(lambda: intake.budget.used == 0)

    async def test_a_request_that_needs_no_body_leaves_it_unread(self) -> None:
        """GET with an endless body is answered, and its body is neither kept nor counted."""
        async with running() as (attacker, intake):
            with memory_cost() as cost:
                head = attacker.head("GET", "/alerts", Transfer_Encoding="chunked")
                line = await first_line(attacker, head, b"10000\r\n" + b"x" * 65536 + b"\r\n")
            assert line.split()[1] == b"200"
            assert cost.memory < 4 * MIB
            assert intake.budget.used == 0


class TestMany:
    """Many bodies at once, from one attacker."""

    async def test_a_hundred_at_once(self) -> None:
        """They share one budget, and an ordinary delivery among them is accepted."""
        limits = PayloadLimits(size=MIB, alerts=1000)
        inbox = Inbox()
        bodies = itertools.cycle([dense_alerts(MIB), attacks.unknown_members(MIB)])
        async with running(inbox, limits) as (attacker, intake):
            with memory_cost() as cost:
                sending = [
                    asyncio.create_task(attacker.post(body))
                    for body in itertools.islice(bodies, 100)
                ]
                await eventually(lambda: intake.budget.used > 4 * MIB)
                assert await deliver(attacker, group(alert("HostDown"))) == 200
                await asyncio.gather(*sending)
            assert cost.memory < 32 * MIB
            assert set(attacker.answers) <= {"200", "413", "503"}, attacker.answers
            assert intake.budget.used == 0
        assert [taken.alerts[0].name for taken in inbox.groups if taken.alerts] == ["HostDown"]

    async def test_the_budget_ends_in_503(self) -> None:
        """What does not fit is answered with 503, so that Alertmanager repeats it."""
        inbox = HeldInbox()
        limits = PayloadLimits(size=MIB, alerts=2000)
        large = group(*(alert("A", n=str(number), text="x" * 400) for number in range(1500)))
        async with running(inbox, limits) as (attacker, intake):
            waiting = [asyncio.create_task(deliver(attacker, large)) for _ in range(8)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result() for task in done} == {503}
            assert 0 < intake.budget.used <= 16 * MIB
            inbox.released.set()
            assert await deliver(attacker, group(alert("HostDown"))) == 200
            assert set(await asyncio.gather(*waiting)) <= {200, 503}
            assert intake.budget.used == 0


class TestHooks:
    """Push hooks are verified as they arrive."""

    @pytest.fixture
    def push(self, tmp_path: Path) -> PushHook:
        """Give a hook that follows `main`."""
        file = tmp_path / "secret"
        file.write_bytes(SECRET)
        return PushHook(lambda: None, "main", SecretLines(file, lambda _: None))

    @staticmethod
    def pushed(size: int) -> Body:
        """Return a push with so many bytes of commits, as GitHub orders its members."""
        head = b'{"ref":"refs/heads/main","repository":{"default_branch":"main"},"commits":['
        return Body("push", size, b'{"id":"0123456789","modified":["a","b"]},', head)

    async def test_a_large_push_is_verified_without_being_kept(self, push: PushHook) -> None:
        """24 MiB with the right signature request a sync, in a small part of the memory."""
        body = self.pushed(24 * MIB)
        digest = hmac.new(SECRET, digestmod=hashlib.sha256)
        for piece in body:
            digest.update(piece)
        headers = {
            "X_Hub_Signature_256": "sha256=" + digest.hexdigest(),
            "X_GitHub_Event": "push",
        }
        async with running(push=push) as (attacker, intake):
            with memory_cost() as cost:
                assert await attacker.post(body, "/hooks/git", **headers) == "202"
                wrong = headers | {"X_Hub_Signature_256": "sha256=" + "0" * 64}
                assert await attacker.post(body, "/hooks/git", **wrong) == "401"
            assert cost.memory < 16 * KEPT_BYTES
            assert intake.budget.used == 0

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X_Hub_Signature_256": "sha256=short"},
            {"X_Hub_Signature": "sha1=" + "0" * 40},
            {"X_Gitlab_Token": "wrong"},
            {"webhook_id": "1", "webhook_timestamp": "1", "webhook_signature": "v1,AAAA"},
        ],
    )
    async def test_nothing_is_read_without_a_signature(
        self, push: PushHook, headers: dict[str, str]
    ) -> None:
        """401 comes before the body if the headers show that it cannot be verified."""
        async with running(push=push) as (attacker, intake):
            head = attacker.head("POST", "/hooks/git", Content_Length="1000000", **headers)
            assert (await first_line(attacker, head)).split()[1] == b"401"
            assert intake.budget.used == 0

    async def test_a_push_over_githubs_limit_is_413(self, push: PushHook) -> None:
        """The message names the limit of hooks, not that of deliveries."""
        async with running(push=push) as (attacker, _):
            url = attacker.url + "/hooks/git"
            signed = {"X-Hub-Signature-256": "sha256=" + "0" * 64}
            async with aiohttp.ClientSession() as client:
                body = iter(itertools.repeat(b"x" * MIB, 26))
                async with client.post(url, data=as_chunks(body), headers=signed) as answer:
                    assert answer.status == 413
                    detail = json.loads(await answer.read())["detail"]
        assert detail == "the body is larger than 26214400 bytes"


class HeldInbox(Inbox):
    """Accepts deliveries when it is released."""

    def __init__(self) -> None:
        """Hold them."""
        super().__init__()
        self.released = asyncio.Event()

    async def deliver(self, group: AlertGroup) -> Answer:
        """Wait, then accept."""
        await self.released.wait()
        return await super().deliver(group)


async def as_chunks(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Make an asynchronous iterator."""
    for piece in pieces:
        yield piece


async def first_line(attacker: Attacker, *sent: bytes) -> bytes:
    """Send bytes, and return the first line of the answer."""
    reader, writer = await attacker.connect()
    for piece in sent:
        writer.write(piece)
    await writer.drain()
    async with asyncio.timeout(30):
        line = await reader.readline()
    writer.transport.abort()
    return line


async def eventually(condition: Any) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - of a budget, which has no event
            await asyncio.sleep(0.01)
