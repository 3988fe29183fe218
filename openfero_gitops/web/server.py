"""The listeners: one for everything, or the webhook on its own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.web.api import add_api
from openfero_gitops.web.errors import problems
from openfero_gitops.web.health import add_health
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.webhook import BODY_LIMIT, add_webhook

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.state import Deliveries, Exposition, State

_LARGEST_PORT: Final = 65535
#: Seconds in which answers under way are finished at the end.
_GRACE: Final = 9.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens; no host means every interface."""

    host: str | None
    port: int

    def __str__(self) -> str:
        """As a person types it."""
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_address(text: str, flag: str) -> Address:
    """Read `HOST:PORT`, `:PORT` or `[IPv6]:PORT`.

    Raises:
        UsageError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > _LARGEST_PORT:
        raise UsageError(f"{flag}: {text!r} is no address: write HOST:PORT, for example :8080")
    return Address(host.strip("[]") or None, int(port))


def tls_context(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> ssl.SSLContext | None:
    """What https is served with, None for http.

    Raises:
        UsageError: a file cannot be used.
    """
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            # Optional here, so that probes pass; guards demand it where it matters.
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the TLS files cannot be used: {error}") from error
    return context


class Server:
    """The HTTP side; `bound` tells where it listens once started."""

    def __init__(
        self,
        *,
        state: State,
        deliveries: Deliveries,
        exposition: Exposition,
        webhook_guard: Guard,
        web_guard: Guard,
        listen: Address,
        web_listen: Address | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Put the applications together; nothing listens yet."""
        webhook = self._application(state, exposition)
        add_webhook(webhook, deliveries, exposition, webhook_guard)
        reading = webhook if web_listen is None else self._application(state, exposition)
        add_api(reading, state, web_guard)
        add_pages(reading, state, web_guard)
        self._listeners = [(webhook, listen)]
        if web_listen is not None:
            self._listeners.append((reading, web_listen))
        self._tls = tls
        self._runners: list[web.AppRunner] = []
        self.bound: list[Address] = []

    @staticmethod
    def _application(state: State, exposition: Exposition) -> web.Application:
        app = web.Application(middlewares=[problems], client_max_size=BODY_LIMIT)
        add_health(app, state, exposition)
        return app

    async def start(self) -> None:
        """Listen.

        Raises:
            UsageError: an address is taken or not ours.
        """
        for app, address in self._listeners:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE)
            await runner.setup()
            self._runners.append(runner)
            site = web.TCPSite(runner, address.host, address.port, ssl_context=self._tls)
            try:
                await site.start()
            except OSError as error:
                await self.stop()
                why = error.strerror or str(error)
                raise UsageError(
                    f"cannot listen on {address}: {why}: choose another with --listen"
                ) from error
            self.bound.append(Address(address.host, runner.addresses[0][1]))

    async def stop(self) -> None:
        """Finish what is under way, then close; safe to call again."""
        while self._runners:
            await self._runners.pop().cleanup()
