"""The listeners: one for everything, or the webhook on its own."""

from __future__ import annotations

import logging
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
from openfero_gitops.web.webhook import BODY_LIMIT, add_webhook

if TYPE_CHECKING:
    import ssl

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import Deliveries, Exposition, ReplicaState

__all__ = ["Address", "Server", "parse_address", "runner_of", "tls_context"]

#: An IPv6 address stands in brackets; a zone (`%eth0`) may follow it.
_ADDRESS: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?)\]|(?P<host>[^\s:/\[\]]*))"
    r":(?P<port>[0-9]{1,5})"
)
_LARGEST_PORT: Final = 65535
#: Seconds in which answers under way are finished at the end.
_GRACE: Final = 9.0
#: Seconds in which the rest of a refused body is read, so that its sender sees the answer.
_LINGERING: Final = 2.0


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
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > _LARGEST_PORT:
        raise UsageError(f"{flag}: {text!r} is no address: write HOST:PORT, for example :8080")
    return Address(found["six"] or found["host"] or None, int(found["port"]))


class Server:
    """The HTTP side; `bound` tells where it listens once started."""

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
    ) -> None:
        """Put the applications together; nothing listens yet."""
        webhook = self._application(state, exposition)
        add_webhook(webhook, deliveries, exposition, webhook_guard)
        add_push_hook(webhook, push)
        reading = webhook if web_listen is None else self._application(state, exposition)
        add_api(reading, state, web_guard)
        add_pages(reading, state, web_guard)
        self._listeners = [(webhook, listen, "--listen")]
        if web_listen is not None:
            self._listeners.append((reading, web_listen, "--web-listen"))
        self._tls = tls
        self._runners: list[web.AppRunner] = []
        self.bound: list[Address] = []

    @staticmethod
    def _application(state: ReplicaState, exposition: Exposition) -> web.Application:
        app = web.Application(middlewares=[problems], client_max_size=BODY_LIMIT)
        add_health(app, state, exposition)
        return app

    async def start(self) -> None:
        """Listen.

        Raises:
            UsageError: an address is taken or not ours.
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
                why = getattr(error, "strerror", None) or str(error)
                raise UsageError(
                    f"cannot listen on {address}: {why}: choose another with {flag}"
                ) from error
            self.bound.append(Address(address.host, runner.addresses[0][1]))

    async def stop(self) -> None:
        """Finish what is under way, then close; safe to call again."""
        while self._runners:
            await self._runners.pop().cleanup()


def runner_of(app: web.Application, lingering: float = _LINGERING) -> web.AppRunner:
    """An application as this module serves it."""
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_ours)
    return web.AppRunner(
        app,
        access_log=None,
        logger=logger,
        shutdown_timeout=_GRACE,
        lingering_time=lingering,
        # Else aiohttp would unpack what a caller sends before anybody has asked for it, and go on
        # after it was refused.
        auto_decompress=False,
    )


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether what aiohttp logs is about us, and not about a request that is no HTTP.

    Those are answered with 400; logged, each would be a traceback with what was sent in it, which
    may be a secret.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)
