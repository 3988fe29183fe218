"""Loads the certificates for https, again when the files change.

A mounted Secret rotates without a restart: each new connection checks the files, and uses the
newest usable certificates.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, TypeVar

import structlog

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.keyfiles.certificates import (
    certificates,
    load_authorities,
    load_pair,
    private_key,
)
from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.file import CheckedFile, naming

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class TlsContext(ssl.SSLContext):
    """A TLS context that knows the CA which its clients' certificates are verified with."""

    #: The content of the CA file; None if clients need no certificate.
    client_ca: bytes | None = None


def load_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """Load the files for https; None for http.

    Raises:
        UsageError: a file is not usable; the message names its flag.
    """
    if certificate is None or key is None:
        return None
    return TlsFiles(certificate, key, client_ca)


class TlsFiles:
    """The files, and the newest TLS context that could be built from them."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        """Read the files.

        Raises:
            UsageError: a file is not usable; the message names its flag.
        """
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._paths = [
            (flag, path)
            for flag, path in (
                ("--tls-cert-file", certificate),
                ("--tls-key-file", key),
                ("--client-ca-file", client_ca),
            )
            if path is not None
        ]
        self._stamp = self._read_stamp()
        self._context = self._load()

    @property
    def client_ca(self) -> bytes | None:
        """The content of the newest usable CA file; None if clients need no certificate."""
        return self._context.client_ca

    def newest(self) -> TlsContext:
        """Return the newest context; log once if the files have become unusable.

        A context has TLS sessions of its own: those of an earlier one cannot be resumed with it.
        """
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return self._context
            # Set this also if the files are not usable: a certificate may be replaced before its
            # key, and then the second change makes them usable.
            self._stamp = stamp
            self._context = self._load()
        except UsageError as error:
            _log.warning(
                "cannot use the TLS files; the previous ones stay in use", error=str(error)
            )
        else:
            _log.info("reloaded the TLS files")
        return self._context

    def _read_stamp(self) -> tuple[tuple[int, ...], ...] | None:
        """Return a value that changes with the files; None if one of them is missing."""
        try:
            states = [path.stat() for _, path in self._paths]
        except OSError:
            return None
        return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)

    def _load(self) -> TlsContext:
        try:
            certificate = _parse(self._certificate, certificates)
            key = _parse(self._key, private_key)
            context = TlsContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            with naming(self._key):
                load_pair(context, certificate, key)
            if self._client_ca is not None:
                authorities = _parse(self._client_ca, certificates)
                with naming(self._client_ca):
                    load_authorities(context, authorities)
                # Optional, so that probes work; guards require a certificate elsewhere.
                context.verify_mode = ssl.CERT_OPTIONAL
                context.client_ca = authorities.text.encode()
        except UnusableFile as error:
            named = (flag for flag, path in self._paths if str(error).startswith(f"{path}: "))
            flags = " and ".join(named)
            raise UsageError(f"{flags}: {error}") from error
        return context


def _parse(path: Path, parse: Callable[[bytes], T]) -> T:
    return CheckedFile(path, parse).read()
