"""Who may call: basic or bearer credentials from a file, certificates from a CA.

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

from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_log = structlog.get_logger(__name__)

_CHALLENGES: Final = {"basic": 'Basic realm="openfero-gitops", charset="UTF-8"', "bearer": "Bearer"}


class SecretLines:
    """The lines of a file that holds secrets, one each; read again when it changes.

    `check` raises ValueError where the lines are not what is wanted. A file that cannot be used
    any more is told of once, and its last good content holds.
    """

    def __init__(self, file: Path, check: Callable[[Sequence[str]], None]) -> None:
        """Read the file for a first time.

        Raises:
            UsageError: it cannot be read, or does not hold what is wanted.
        """
        self._file = file
        self._check = check
        self._stamp: tuple[int, ...] | None = None
        self._lines: tuple[bytes, ...] = ()
        self._trouble = ""
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise UsageError(f"credentials file {file} cannot be used: {error}") from error

    def _read(self) -> None:
        state = self._file.stat()
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_dev)
        if stamp == self._stamp:
            return
        try:
            text = self._file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("it is not text in UTF-8") from None
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if not lines:
            raise ValueError("it is empty")
        self._check(lines)
        self._lines = tuple(line.encode() for line in lines)
        self._stamp = stamp

    def now(self) -> tuple[bytes, ...]:
        """The lines as they are now."""
        trouble = ""
        try:
            self._read()
        except (OSError, ValueError) as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            _log.warning(
                "credentials file cannot be used; the last good one holds",
                file=str(self._file),
                error=trouble,
            )
        self._trouble = trouble
        return self._lines


class Credentials:
    """The lines of a file: `user:password` for basic, a token for bearer; one each."""

    def __init__(self, scheme: str, file: Path) -> None:
        """Read the file for a first time.

        Raises:
            UsageError: it cannot be read, or holds no credentials.
        """
        self.scheme = scheme
        self._lines = SecretLines(file, self._check)

    def _check(self, lines: Sequence[str]) -> None:
        if self.scheme == "basic" and not all(map(_is_pair, lines)):
            raise ValueError("each line must read user:password, and neither may be empty")

    def accept(self, authorization: str) -> bool:
        """Whether an Authorization header proves a caller, in time that tells nothing."""
        known = self._lines.now()
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != self.scheme:
            return False
        if self.scheme == "basic":
            try:
                secret = base64.b64decode(given.strip(), validate=True)
            except (binascii.Error, ValueError):
                return False
        else:
            secret = given.strip().encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(secret).digest()
        matches = 0
        for one in known:  # every one, so that the time does not tell which came close
            matches += hmac.compare_digest(digest, hashlib.sha256(one).digest())
        return matches > 0


def _is_pair(line: str) -> bool:
    user, _, password = line.partition(":")
    return bool(user and password)


class Guard:
    """What a listener demands of a caller."""

    def __init__(self, credentials: Credentials | None, *, certificate: bool) -> None:
        """Demand credentials, a client certificate, both, or nothing."""
        self._credentials = credentials
        self._certificate = certificate

    def check(self, request: web.Request) -> None:
        """Let a caller pass, or raise 401."""
        if self._certificate:
            transport = request.transport
            if transport is None or not transport.get_extra_info("peercert"):
                raise web.HTTPUnauthorized(text="a client certificate is needed")
        if self._credentials is None:
            return
        if not self._credentials.accept(request.headers.get("Authorization", "")):
            raise web.HTTPUnauthorized(
                text="no credentials, or wrong ones",
                headers={"WWW-Authenticate": _CHALLENGES[self._credentials.scheme]},
            )
