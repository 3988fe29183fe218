"""Serves HTTP on one listener, or on separate ones for the webhook and the pages."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.web.api import add_api
from openfero_gitops.web.errors import problems
from openfero_gitops.web.health import add_health
from openfero_gitops.web.hooks import PushHook, add_push_hook
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.tls import tls_context
from openfero_gitops.web.webhook import add_webhook

if TYPE_CHECKING:
    import ssl

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import Deliveries, Exposition, ReplicaState
    from openfero_gitops.web.webhook import Intake

__all__ = ["Address", "Server", "parse_address", "runner_of", "tls_context"]

#: An IPv6 address is in brackets, optionally with a zone (`%eth0`).
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?)\]|(?P<host>[^\s:/\[\]]*))"
    r":(?P<port>[0-9]{1,5})"
)
_MAX_PORT: Final = 65535
#: Time to finish requests in flight on shutdown.
_SHUTDOWN_SECONDS: Final = 9.0
#: Time to read the rest of a refused body, so that its sender receives the answer.
_LINGER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a listener; without a host, all interfaces."""

    host: str | None
    port: int

    def __str__(self) -> str:
        """Format as `HOST:PORT`."""
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_address(text: str, flag: str) -> Address:
    """Read `HOST:PORT`, `:PORT` or `[IPv6]:PORT`.

    Raises:
        UsageError: it is not an address.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise UsageError(f"{flag}: {text!r} is not an address; use HOST:PORT, for example :8080")
    return Address(match["six"] or match["host"] or None, int(match["port"]))


class Server:
    """The HTTP server; `bound` lists the addresses of its listeners once it is started."""

    def __init__(
        self,
        *,
        state: ReplicaState,
        deliveries: Deliveries,
        exposition: Exposition,
        webhook_guard: Guard,
        web_guard: Guard,
        listen: Address,
        web_listen: Address | None,
        tls: ssl.SSLContext | None,
        push: PushHook,
        intake: Intake,
    ) -> None:
        """Build the applications; nothing listens yet."""
        webhook = self._application(state, exposition)
        add_webhook(webhook, deliveries, exposition, webhook_guard, intake)
        add_push_hook(webhook, push, intake.budget)
        pages = webhook if web_listen is None else self._application(state, exposition)
        add_api(pages, state, web_guard)
        add_pages(pages, state, web_guard)
        self._listeners = [(webhook, listen, "--listen")]
        if web_listen is not None:
            self._listeners.append((pages, web_listen, "--web-listen"))
        self._tls = tls
        self._runners: list[web.AppRunner] = []
        self.bound: list[Address] = []

    @staticmethod
    def _application(state: ReplicaState, exposition: Exposition) -> web.Application:
        app = web.Application(middlewares=[problems])
        add_health(app, state, exposition)
        return app

    async def start(self) -> None:
        """Start listening.

        Raises:
            UsageError: an address is not available.
        """
        for app, address, flag in self._listeners:
            runner = runner_of(app)
            await runner.setup()
            self._runners.append(runner)
            site = web.TCPSite(runner, address.host, address.port, ssl_context=self._tls)
            try:
                await site.start()
            except (OSError, UnicodeError) as error:
                await self.stop()
                errno = getattr(error, "errno", None) or 0
                reason = os.strerror(errno) if errno > 0 else str(error)
                raise UsageError(
                    f"cannot listen on {address}: {reason}; set another address with {flag}"
                ) from error
            self.bound.append(Address(address.host, runner.addresses[0][1]))

    async def stop(self) -> None:
        """Finish requests in flight, then close; can be called more than once."""
        while self._runners:
            await self._runners.pop().cleanup()


def runner_of(app: web.Application, lingering: float = _LINGER_SECONDS) -> web.AppRunner:
    """Build the runner of an application."""
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_not_client_error)
    return web.AppRunner(
        app,
        access_log=None,
        logger=logger,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        lingering_time=lingering,
        # aiohttp would decompress a body before the handler reads it, even after it was refused.
        auto_decompress=False,
    )


def _is_not_client_error(record: logging.LogRecord) -> bool:
    """Drop aiohttp's log entries about requests that are not valid HTTP.

    Those are answered with 400. Each entry would be a traceback with the request, which may contain
    a secret.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)
