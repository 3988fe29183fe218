"""Resolves host names in threads of its own.

The system's resolver may take half a minute if a DNS server does not answer, and cannot be
cancelled. In the threads that everything else shares, a few such lookups would delay the reads of
files and all other work there. So a lookup has a thread of its own, and there is at most one at a
time for a name: other requests for the name wait for that one.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from aiohttp.abc import AbstractResolver, ResolveResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Address = tuple[Any, Any, int, str, tuple[Any, ...]]
    GetAddrInfo = Callable[..., Sequence[Address]]


class Resolver(AbstractResolver):
    """Resolves names for aiohttp; `getaddrinfo` is the blocking function of `socket`."""

    def __init__(self, getaddrinfo: GetAddrInfo = socket.getaddrinfo) -> None:
        """Have no lookups."""
        self._getaddrinfo = getaddrinfo
        self._running: dict[tuple[str, int, int], Future[Sequence[Address]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            OSError: the name cannot be resolved, or no thread can be started for it.
        """
        lookup = self._running.get((host, port, family))
        if lookup is None:
            lookup = self._start(host, port, family)
        addresses = await asyncio.wrap_future(lookup)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=address_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address_family, _, protocol, _, address in addresses
        ]

    def _start(self, host: str, port: int, family: int) -> Future[Sequence[Address]]:
        lookup = self._running[host, port, family] = Future()
        lookup.set_running_or_notify_cancel()  # a caller that is cancelled does not cancel it

        def look_up() -> None:
            try:
                addresses = self._getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            except Exception as error:  # noqa: BLE001 - those who wait raise it
                del self._running[host, port, family]
                lookup.set_exception(error)
            else:
                del self._running[host, port, family]
                lookup.set_result(addresses)

        # (A daemon, so that the process can end meanwhile.)
        thread = threading.Thread(target=look_up, name="resolve", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the limit of threads is reached
            del self._running[host, port, family]
            raise OSError(f"cannot resolve {host}: {error}") from error
        return lookup

    async def close(self) -> None:
        """Leave a lookup that runs to itself."""
