"""Authenticates clients: basic or bearer credentials from a file, or certificates from a CA.

The file is read again when it changes, so that a mounted Secret rotates without a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.content import lines as secret_lines
from openfero_gitops.keyfiles.file import LastUsable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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

    def accept(self, authorization: str) -> bool:
        """Check an Authorization header, in constant time."""
        secrets = self._lines.now()
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != self.scheme:
            return False
        if self.scheme == "basic":
            try:
                secret = base64.b64decode(value.strip(), validate=True)
            except (binascii.Error, ValueError):
                return False
        else:
            secret = value.strip().encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(secret).digest()
        matches = 0
        for accepted in secrets:  # all of them, so that the time does not depend on which matches
            matches += hmac.compare_digest(digest, hashlib.sha256(accepted).digest())
        return matches > 0


def _is_pair(line: str) -> bool:
    user, _, password = line.partition(":")
    return bool(user and password)


class Guard:
    """The authentication that a listener requires."""

    def __init__(self, credentials: Credentials | None, *, certificate: bool) -> None:
        """Require credentials, a client certificate, both, or nothing."""
        self._credentials = credentials
        self._certificate = certificate

    @property
    def open(self) -> bool:
        """Whether anybody may enter."""
        return self._credentials is None and not self._certificate

    def check(self, request: web.Request) -> None:
        """Raise 401 if a request is not authenticated."""
        if self._certificate:
            transport = request.transport
            if transport is None or not transport.get_extra_info("peercert"):
                raise web.HTTPUnauthorized(text="a client certificate is required")
        if self._credentials is None:
            return
        if not self._credentials.accept(request.headers.get("Authorization", "")):
            raise web.HTTPUnauthorized(
                text="missing or wrong credentials",
                headers={"WWW-Authenticate": _CHALLENGES[self._credentials.scheme]},
            )
