"""Describes why a request of aiohttp failed."""

from __future__ import annotations

import os
import ssl

import aiohttp


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
        case ssl.SSLError():
            reason = error.reason or "unexpected key, certificate or protocol"
            description = f"TLS failed: {reason}"
        case OSError(errno=number) if number:
            description = os.strerror(number)
    return description
