"""Names are resolved without delaying anything else."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from typing import Any

import pytest

from openfero_gitops.alertmanager.client import Access, Alertmanager
from openfero_gitops.alertmanager.resolver import Resolver
from openfero_gitops.domain.errors import AlertmanagerError


class SlowDns:
    """A DNS server that answers when the test lets it."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.lookups: list[str] = []

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> Any:
        """Wait as the system's resolver does."""
        self.lookups.append(host)
        self.answers.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


async def test_a_slow_lookup_delays_no_other_work_in_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many Alertmanagers there are, and however often alerts are sent."""
    dns = SlowDns()
    monkeypatch.setattr(socket, "getaddrinfo", dns.getaddrinfo)
    count = 2 * (os.cpu_count() or 1) + 8  # more than there are threads to share
    names = [f"alertmanager-{number}.example" for number in range(count)]
    clients = [
        Alertmanager(f"http://{name}", Access(), 0.05, Resolver(dns.getaddrinfo)) for name in names
    ]

    async def send(client: Alertmanager) -> None:
        for _ in range(3):
            with pytest.raises(AlertmanagerError, match=r"no answer within 0\.05 s"):
                await client.send([])

    try:
        await asyncio.gather(*map(send, clients))
        started = time.monotonic()
        await asyncio.to_thread(int)
        assert time.monotonic() - started < 30
        # No lookup began while the one before had not ended.
        assert sorted(dns.lookups) == sorted(names)
    finally:
        dns.answers.set()


async def test_whoever_asks_meanwhile_gets_the_same_answer() -> None:
    """The next lookup begins only after it has ended; an error is raised to each."""
    dns = SlowDns()
    resolver = Resolver(dns.getaddrinfo)
    both = [asyncio.create_task(resolver.resolve("am.example", 9093)) for _ in range(2)]
    await asyncio.sleep(0)
    dns.answers.set()
    errors = await asyncio.gather(*both, return_exceptions=True)
    assert [type(error) for error in errors] == [socket.gaierror] * 2
    assert dns.lookups == ["am.example"]
    with pytest.raises(socket.gaierror):
        await resolver.resolve("am.example", 9093)
    assert dns.lookups == ["am.example"] * 2


async def test_addresses_are_those_of_the_system() -> None:
    """They are numbers, so that nothing is looked up again."""
    results = await Resolver().resolve("localhost", 9093)
    assert {result["host"] for result in results} <= {"127.0.0.1", "::1"}
    assert {(result["hostname"], result["port"]) for result in results} == {("localhost", 9093)}


async def test_a_lookup_without_a_thread_fails_and_the_next_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process may have reached its limit of threads for a moment."""
    resolver = Resolver()

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(OSError, match="cannot resolve localhost: can't start new thread"):
            await resolver.resolve("localhost", 9093)
    assert await asyncio.wait_for(resolver.resolve("localhost", 9093), 60)
