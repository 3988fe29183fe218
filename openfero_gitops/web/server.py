"""Serves HTTP on one listener, or on separate ones for the webhook and the pages."""

from __future__ import annotations

import logging
import os
import re
import resource
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.tracing import NO_TRACES
from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.api.explain import add_explain
from openfero_gitops.web.api.remediation import add_remediation
from openfero_gitops.web.connections.acceptor import Acceptor, HttpConnection
from openfero_gitops.web.connections.table import ConnectionLimits
from openfero_gitops.web.errors import problems
from openfero_gitops.web.headers import add_default_headers, foreign, is_loopback
from openfero_gitops.web.health import add_health
from openfero_gitops.web.hooks import PushHook, add_push_hook
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.refusals import Refusals
from openfero_gitops.web.stream.route import add_events
from openfero_gitops.web.swagger import add_swagger
from openfero_gitops.web.turns import Turns
from openfero_gitops.web.webhook import add_alerts_check, add_webhook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler

    from openfero_gitops.ports import Traces
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.connections.table import TrackedConnection
    from openfero_gitops.web.evidence import EvidenceReader
    from openfero_gitops.web.ports import Deliveries, Exposition, ReplicaState
    from openfero_gitops.web.repository_links import RepositoryLinks
    from openfero_gitops.web.reviewed import ReviewedReader
    from openfero_gitops.web.stream.streams import EventStreams
    from openfero_gitops.web.tls import TlsFiles
    from openfero_gitops.web.webhook import Intake

_log = structlog.get_logger(__name__)

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
#: Open files besides connections: to the API server, of Git and its pipes, of the interpreter.
_OTHER_OPEN_FILES: Final = 256
#: Of a body that no handler has read yet; aiohttp stops receiving at twice this.
_UNREAD_BYTES: Final = 32 * 1024


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


@dataclass(slots=True)
class _Listener:
    """What is served on one address."""

    app: web.Application
    address: Address
    flag: str
    #: What it serves, the guard of that, and the flag that turns authentication on.
    guarded: list[tuple[str, Guard, str]]
    #: Reachable from this machine only; known once it listens.
    loopback: bool = False


class Server:
    """The HTTP server; `bound` lists the addresses of its listeners once it is started."""

    def __init__(
        self,
        *,
        state: ReplicaState,
        streams: EventStreams,
        deliveries: Deliveries,
        exposition: Exposition,
        evidence: EvidenceReader,
        links: RepositoryLinks,
        webhook_guard: Guard,
        web_guard: Guard,
        listen: Address,
        web_listen: Address | None,
        tls: TlsFiles | None,
        push: PushHook,
        intake: Intake,
        allowed_hosts: Sequence[str] = (),
        limits: ConnectionLimits | None = None,
        reviewed: ReviewedReader | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        """Build the applications; nothing listens yet."""
        self._exposition = exposition
        self._streams = streams
        self._tls = tls
        self._limits = limits or ConnectionLimits()
        self._turns = Turns(self._limits.connections)
        self._refusals = Refusals(exposition)
        self._allowed_hosts = tuple(host.lower() for host in allowed_hosts)
        webhook = self._listener(state, listen, "--listen")
        add_webhook(webhook.app, deliveries, exposition, webhook_guard, intake, traces=traces)
        add_push_hook(webhook.app, push, intake.budget)
        webhook.guarded.append(("webhook", webhook_guard, "--webhook-auth"))
        self._listeners = [webhook]
        pages = webhook
        if web_listen is not None:
            pages = self._listener(state, web_listen, "--web-listen")
            self._listeners.append(pages)
        add_api(
            pages.app,
            state,
            web_guard,
            self._turns,
            now=_utc_now,
            apps=[listener.app for listener in self._listeners],
        )
        add_explain(pages.app, state, web_guard, self._turns, now=_utc_now, budget=intake.budget)
        add_remediation(
            pages.app,
            state,
            web_guard,
            self._turns,
            now=_utc_now,
            evidence=evidence,
            links=links,
        )
        add_events(pages.app, streams, web_guard)
        add_swagger(pages.app, web_guard)
        add_pages(
            pages.app,
            state,
            web_guard,
            self._turns,
            budget=intake.budget,
            evidence=evidence,
            links=links,
            reviewed=reviewed,
        )
        if pages is not webhook:
            add_alerts_check(pages.app, web_guard)
        pages.guarded.append(("pages and API", web_guard, "--web-auth"))
        self._acceptor: Acceptor | None = None
        self._runners: list[web.AppRunner] = []
        self.bound: list[Address] = []

    def _listener(self, state: ReplicaState, address: Address, flag: str) -> _Listener:
        @web.middleware
        async def refuse_foreign(request: web.Request, handler: Handler) -> web.StreamResponse:
            reason = foreign(
                request.method,
                request.headers,
                https=self._tls is not None,
                loopback=listener.loopback,
                allowed_hosts=self._allowed_hosts,
            )
            if reason:
                raise web.HTTPForbidden(text=reason)
            return await handler(request)

        app = web.Application(middlewares=[problems, self._refusals.watch, refuse_foreign])
        app.on_response_prepare.append(_add_default_headers)
        add_health(app, state, self._exposition)
        listener = _Listener(app, address, flag, [])
        return listener

    async def start(self) -> None:
        """Start listening.

        Raises:
            UsageError: an address is not available.
        """
        self._acceptor = Acceptor(fit_to_open_files(self._limits), self._exposition, self._tls)
        for listener in self._listeners:
            runner = runner_of(listener.app)
            await runner.setup()
            self._runners.append(runner)
            address = listener.address
            try:
                names = await self._acceptor.listen(
                    address.host, address.port, partial(_connection, runner)
                )
            except (OSError, UnicodeError) as error:
                await self.stop()
                number = getattr(error, "errno", None) or 0
                reason = os.strerror(number) if number > 0 else str(error)
                raise UsageError(
                    f"cannot listen on {address}: {reason}; set another address with "
                    f"{listener.flag}"
                ) from error
            self.bound.append(Address(address.host, names[0][1]))
            listener.loopback = all(is_loopback(name[0].partition("%")[0]) for name in names)
            _warn_of_open(listener)

    def close_after_answers(self) -> None:
        """Close each connection after its next answer, so that clients connect to other replicas.

        New connections are still accepted. A client that keeps its connection until the server
        stops could send a delivery at the moment when it is closed. Event streams end at once.
        """
        if self._acceptor is not None:
            self._acceptor.closes_connections = True
        self._streams.close()

    async def stop(self) -> None:
        """Finish requests in flight, then close; can be called more than once."""
        if self._acceptor is not None:
            self._acceptor.stop_listening()
        self._streams.close()
        while self._runners:
            await self._runners.pop().cleanup()
        if self._acceptor is not None:
            await self._acceptor.close()
            self._acceptor = None


def _warn_of_open(listener: _Listener) -> None:
    """Warn if others than this machine can use a listener without authentication."""
    if listener.loopback:
        return
    for what, guard, flag in listener.guarded:
        if guard.open:
            _log.warning(
                f"the {what} can be used without authentication",
                address=str(listener.address),
                advice=f"set {flag} basic or bearer, or --client-ca-file; or listen on loopback "
                f"with {listener.flag} 127.0.0.1:{listener.address.port}",
            )


def fit_to_open_files(limits: ConnectionLimits) -> ConnectionLimits:
    """Return limits that leave files for everything else; warn if fewer connections fit.

    Up to its hard limit, a process may set its limit of open files itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.connections + _OTHER_OPEN_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    possible = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    if possible > soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            soft = possible
    if soft >= needed:
        return limits
    connections = max(soft - _OTHER_OPEN_FILES, soft // 2)
    _log.warning(
        "the limit of open files is too low; accepting fewer connections",
        open_files=soft,
        connections=connections,
        advice=f"raise the limit (ulimit -n) to {needed}, or lower --max-connections",
    )
    return replace(
        limits,
        connections=connections,
        connections_per_source=min(limits.connections_per_source, connections),
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def _add_default_headers(request: web.Request, response: web.StreamResponse) -> None:
    host = request.headers.get("Host", "")
    add_default_headers(response.headers, https=request.secure, host=host)


def runner_of(app: web.Application, lingering: float = _LINGER_SECONDS) -> web.AppRunner:
    """Build the runner of an application."""
    return web.AppRunner(app, shutdown_timeout=_SHUTDOWN_SECONDS, **_protocol_options(lingering))


def _protocol_options(lingering: float = _LINGER_SECONDS) -> dict[str, Any]:
    """Return the options of aiohttp's protocol."""
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_not_client_error)
    return {
        "access_log": None,
        "logger": logger,
        "lingering_time": lingering,
        "read_bufsize": _UNREAD_BYTES,
        # aiohttp would decompress a body before the handler reads it, even after it was refused.
        "auto_decompress": False,
    }


def _connection(
    runner: web.AppRunner, acceptor: Acceptor, tracked: TrackedConnection
) -> HttpConnection:
    """Build the protocol of a connection to a runner's application."""
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")
    return HttpConnection(acceptor, tracked, server, **_protocol_options())


def _is_not_client_error(record: logging.LogRecord) -> bool:
    """Drop aiohttp's log entries about requests that are not valid HTTP.

    Those are answered with 400. Each entry would be a traceback with the request, which may contain
    a secret.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)
