"""Authenticates clients: by credentials from a file, by certificates, or by a trusted proxy.

The file may hold several credentials and is read again when it changes, so that a mounted Secret
rotates without a restart. A client address that tries many wrong credentials has to wait.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.content import lines as secret_lines
from openfero_gitops.keyfiles.file import LastUsable
from openfero_gitops.web.attempts import Attempts
from openfero_gitops.web.connections.table import source_of
from openfero_gitops.web.proxies import TrustedProxies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_log = structlog.get_logger(__name__)

_CHALLENGES: Final = {"basic": 'Basic realm="openfero-gitops", charset="UTF-8"', "bearer": "Bearer"}


class SecretLines:
    """The lines of a file with one secret per line, read again when the file changes.

    `check` raises ValueError if the lines are not valid. If the file stops being usable, this is
    logged once, and the previous content stays valid.
    """

    def __init__(self, file: Path, check: Callable[[Sequence[str]], None]) -> None:
        """Read the file.

        Raises:
            UsageError: it cannot be read, or is not valid.
        """
        self._check = check
        self._lines = LastUsable(file, self._parse)

    def _parse(self, content: bytes) -> tuple[bytes, ...]:
        lines = secret_lines(content)
        try:
            self._check(lines)
        except ValueError as error:
            raise UnusableFile(str(error)) from error
        return tuple(line.encode() for line in lines)

    def now(self) -> tuple[bytes, ...]:
        """Return the current lines."""
        return self._lines.now()


class Credentials:
    """Credentials in a file, one per line: `user:password` for basic, a token for bearer."""

    def __init__(self, scheme: str, file: Path) -> None:
        """Read the file.

        Raises:
            UsageError: it cannot be read, or contains no valid credentials.
        """
        self.scheme = scheme
        self._lines = SecretLines(file, self._check)

    def _check(self, lines: Sequence[str]) -> None:
        if self.scheme == "basic" and not all(map(_is_pair, lines)):
            raise ValueError("each line must be user:password, and neither may be empty")

    def read(self, authorization: str) -> Presented | None:
        """Check an Authorization header, in constant time; None if it holds no credentials."""
        secrets = self._lines.now()
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != self.scheme:
            return None
        if self.scheme == "basic":
            try:
                secret = base64.b64decode(value.strip(), validate=True)
            except (binascii.Error, ValueError):
                return None
            user = secret.partition(b":")[0].decode("utf-8", "replace")
        else:
            secret = value.strip().encode("utf-8", "surrogateescape")
            user = ""
        digest = hashlib.sha256(secret).digest()
        matches = 0
        for accepted in secrets:  # all of them, so that the time does not depend on which matches
            matches += hmac.compare_digest(digest, hashlib.sha256(accepted).digest())
        return Presented(accepted=matches > 0, digest=digest, user=user)

    def accept(self, authorization: str) -> bool:
        """Whether an Authorization header holds valid credentials."""
        presented = self.read(authorization)
        return presented is not None and presented.accepted


@dataclass(frozen=True, slots=True)
class Presented:
    """Credentials that a client sent; `digest` tells them apart, `user` is empty for a token."""

    accepted: bool
    digest: bytes
    user: str


def _is_pair(line: str) -> bool:
    user, _, password = line.partition(":")
    return bool(user and password)


class Door(StrEnum):
    """What is entered."""

    WEBHOOK = "webhook"
    PAGES = "pages"


class Cause(StrEnum):
    """Why a client is not authenticated."""

    NO_CERTIFICATE = "no-certificate"
    NO_CREDENTIALS = "no-credentials"
    WRONG_CREDENTIALS = "wrong-credentials"
    BLOCKED = "blocked"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        name: of the user; empty if unknown.
        source: what said the name, for people; empty if nothing did.
        address: of the client, which a trusted proxy may have named.
    """

    name: str = ""
    source: str = ""
    address: str = ""


#: A caller of whom nothing is known.
ANYBODY: Final = Caller()


class Guard:
    """The authentication that a listener requires."""

    def __init__(
        self,
        credentials: Credentials | None,
        *,
        certificate: bool,
        proxies: TrustedProxies | None = None,
        door: Door = Door.PAGES,
        count: Callable[[Door, Cause], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Require credentials, a client certificate, both, or nothing.

        If `proxies` has a user header, one of the proxies must name the user; otherwise the proxies
        only name the addresses of clients. `count` is called for each refusal; `clock` returns
        seconds.
        """
        self._credentials = credentials
        self._certificate = certificate
        self._proxies = proxies or TrustedProxies()
        self._door = door
        self._count = count
        self._clock = clock
        self._attempts = Attempts()

    @property
    def open(self) -> bool:
        """Whether anybody may enter."""
        return not (self._credentials or self._certificate or self._proxies.user_header)

    def check(self, request: web.Request) -> Caller:
        """Return who sends a request.

        Raises:
            web.HTTPException: the request is not authenticated (401), its client has to wait (429;
                503 at the webhook), or it does not come from the proxy (403).
        """
        peer = request.remote or ""
        address = self._proxies.client_of(peer, request.headers)
        caller = Caller(address=address)
        if self._certificate:
            transport = request.transport
            certificate = transport.get_extra_info("peercert") if transport else None
            if not certificate:
                self._count(self._door, Cause.NO_CERTIFICATE)
                raise web.HTTPUnauthorized(text="a client certificate is required")
            caller = Caller(_common_name(certificate), "client certificate", address)
        if self._proxies.user_header:
            user = self._proxies.user_of(peer, request.headers)
            if user.refusal:
                self._count(self._door, Cause.PROXY)
                raise web.HTTPForbidden(text=user.refusal)
            caller = Caller(user.name, f"proxy {peer}", address)
        if self._credentials is not None:
            user_name = self._check_credentials(self._credentials, request, address)
            caller = Caller(user_name, "password", address) if user_name else caller
        return caller

    def _check_credentials(
        self, credentials: Credentials, request: web.Request, address: str
    ) -> str:
        """Return the user of valid credentials."""
        presented = credentials.read(request.headers.get("Authorization", ""))
        if presented is None:
            raise self._unauthorized(credentials, Cause.NO_CREDENTIALS)
        now = self._clock()
        source = source_of(address)
        wait = self._attempts.wait_seconds(source, now)
        # The answer to a blocked source does not depend on whether its guess is right.
        if wait and not (
            presented.accepted and self._attempts.is_familiar(source, presented.digest)
        ):
            self._count(self._door, Cause.BLOCKED)
            raise self._blocked(wait)
        if not presented.accepted:
            if self._attempts.failed(source, presented.digest, now):
                _log.warning(
                    "many wrong credentials from one address; it has to wait between attempts",
                    door=self._door.value,
                    sender=source,
                )
            raise self._unauthorized(credentials, Cause.WRONG_CREDENTIALS)
        self._attempts.accepted(source, presented.digest)
        return presented.user

    def _unauthorized(self, credentials: Credentials, cause: Cause) -> web.HTTPUnauthorized:
        self._count(self._door, cause)
        return web.HTTPUnauthorized(
            text="missing or wrong credentials",
            headers={"WWW-Authenticate": _CHALLENGES[credentials.scheme]},
        )

    def _blocked(self, wait: float) -> web.HTTPException:
        """Build the answer to a source that has to wait.

        Alertmanager repeats a delivery after 503, but not after 429. Its credentials may be new,
        and the wrong ones from a neighbor behind the same address.
        """
        seconds = math.ceil(wait)
        text = f"too many wrong credentials from this address; wait {seconds} s"
        headers = {"Retry-After": str(seconds)}
        if self._door is Door.WEBHOOK:
            return web.HTTPServiceUnavailable(text=text, headers=headers)
        return web.HTTPTooManyRequests(text=text, headers=headers)


def _common_name(certificate: Mapping[str, Any]) -> str:
    """Return the common name of the subject of a verified certificate."""
    for attributes in certificate.get("subject", ()):
        for name, value in attributes:
            if name == "commonName":
                return str(value)
    return ""
