"""Sends alerts to one Alertmanager, with aiohttp.

Every request has a connection of its own: there is one each ten seconds at most, and a connection
that a firewall forgot in between would only fail. No redirect is followed, and proxy variables of
the environment are ignored.

The files of the credentials and of the CA are read again when they change. If the new content is
not usable, the previous one is used, and a warning is logged.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from openfero_gitops import __version__
from openfero_gitops.alertmanager.resolver import Resolver
from openfero_gitops.domain.errors import AlertmanagerError
from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import parse_http_date
from openfero_gitops.keyfiles.certificates import certificates, load_authorities
from openfero_gitops.keyfiles.credentials import bearer_token, user_and_password
from openfero_gitops.keyfiles.file import LastUsable
from openfero_gitops.request_errors import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path


_API: Final = "/api/v2/alerts"
#: For the whole request, so that an alert that must be sent each 10 s can be sent again in time.
_TIMEOUT_SECONDS: Final = 5.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_ANSWER_CHARACTERS: Final = 300
_OK: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)
_MARKUP: Final = re.compile(r"\s*<")

_HINTS: Final[Mapping[int, str]] = {
    401: "check --alertmanager-auth and --alertmanager-credentials-file",
    403: "the credentials are not allowed to send alerts",
    404: "check the path of --alertmanager-url: alerts are sent to URL/api/v2/alerts",
    405: "check the path of --alertmanager-url: alerts are sent to URL/api/v2/alerts",
}


class Access:
    """How to authenticate to Alertmanager, and which certificates to trust."""

    def __init__(
        self,
        scheme: str = "none",
        credentials_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """Read the files; `scheme` is none, basic or bearer.

        Raises:
            UsageError: a file is not usable.
        """
        self._authorization: LastUsable[str] | None = None
        if scheme != "none" and credentials_file is not None:
            self._authorization = LastUsable(credentials_file, _HEADERS[scheme])
        self._context = LastUsable(ca_file, _trusting) if ca_file is not None else None

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request."""
        return {} if self._authorization is None else {"Authorization": self._authorization.now()}

    def tls(self) -> ssl.SSLContext | bool:
        """Return the context for https; True is the system's."""
        return True if self._context is None else self._context.now()


def _basic(content: bytes) -> str:
    pair = user_and_password(content)
    return "Basic " + base64.b64encode(f"{pair.user}:{pair.password}".encode()).decode()


def _bearer(content: bytes) -> str:
    return f"Bearer {bearer_token(content)}"


_HEADERS: Final[Mapping[str, Callable[[bytes], str]]] = {"basic": _basic, "bearer": _bearer}


def _trusting(content: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_authorities(context, certificates(content))
    return context


class Alertmanager:
    """One Alertmanager; of a cluster, each member is one."""

    def __init__(
        self,
        url: str,
        access: Access,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        resolver: Resolver | None = None,
    ) -> None:
        """Take its address, without a slash at its end."""
        self.url = url
        self._access = access
        self._timeout_seconds = timeout_seconds
        self._resolver = resolver or Resolver()

    async def send(self, alerts: Sequence[Mapping[str, Any]]) -> datetime | None:
        """Send alerts as its API v2 reads them.

        Returns:
            Its time when it answered, in whole seconds; None if it does not say.

        Raises:
            AlertmanagerError: it did not answer, or did not accept all of them.
        """
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"openfero-gitops/{__version__}",
            **self._access.headers(),
        }
        body = json.dumps(alerts).encode()
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(resolver=self._resolver),
                    cookie_jar=aiohttp.DummyCookieJar(),
                ) as session,
                session.post(
                    self.url + _API,
                    data=body,
                    headers=headers,
                    ssl=self._access.tls(),
                    allow_redirects=False,
                ) as response,
            ):
                answer = await response.content.read(_MAX_ANSWER_BYTES)
                location = response.headers.get("Location", "")
                date = response.headers.get("Date", "")
                status, reason = response.status, response.reason or ""
        except TimeoutError as error:
            raise AlertmanagerError(f"no answer within {self._timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise AlertmanagerError(_cause(error)) from error
        if status in _OK:
            return parse_http_date(date)
        if status in _REDIRECT:
            raise AlertmanagerError(
                f"HTTP {status}: it redirects to {printable(location) or 'nowhere'}; redirects are "
                "not followed; set --alertmanager-url to the final address"
            )
        hint = _HINTS.get(status, "")
        said = ": ".join(filter(None, (f"HTTP {status} {printable(reason)}", _said(answer))))
        raise AlertmanagerError("; ".join(filter(None, (said, hint))))


def _said(answer: bytes) -> str:
    """Return the message of an answer; Alertmanager quotes it as JSON, proxies send a page."""
    text = answer.decode(errors="replace").strip()
    if _MARKUP.match(text):
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if isinstance(value, dict):
        value = value.get("message") or value.get("error") or ""
    return printable(" ".join(str(value).split()), _MAX_ANSWER_CHARACTERS)


def _cause(error: Exception) -> str:
    """Return why a request failed, and what to do about it."""
    description = describe(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{description}; check --alertmanager-ca-file"
    return description
