"""Describes why a request of aiohttp failed."""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Final

import aiohttp

#: In the text of an error about several addresses of one host.
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


def describe(error: Exception) -> str:
    """Describe an error without addresses and bytes that need not be logged."""
    description = type(error).__name__
    match error:
        case aiohttp.ClientConnectorCertificateError():
            description = f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorDNSError():
            description = "its name cannot be resolved"
        case aiohttp.ClientConnectorError():
            description = describe(error.os_error)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            description = "the connection was closed before the end of the response"
        case ssl.SSLCertVerificationError():
            description = f"its certificate is not trusted: {error}"
        case ssl.SSLError():
            reason = error.reason or "unexpected key, certificate or protocol"
            description = f"TLS failed: {reason}"
        case socket.gaierror():
            description = "its name cannot be resolved"
        case OSError(errno=number) if number:
            description = os.strerror(number)
        case OSError() if errno := _ERRNO.search(str(error)):
            description = os.strerror(int(errno[1]))
    return description
