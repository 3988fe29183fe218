"""Loads the certificates for https, again when the files change.

A mounted Secret rotates without a restart: each new connection checks the files, and uses the
newest usable certificates.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NoReturn

import structlog

from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

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
        contents = {}
        for flag, path in self._paths:
            try:
                contents[path] = path.read_bytes()
            except OSError as error:
                raise UsageError(f"{flag}: cannot read {path}: {error.strerror}") from error
        context = TlsContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._certificate, self._key, _no_passphrase)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"cannot use --tls-cert-file {self._certificate} and --tls-key-file {self._key}: "
                f"{_reason(error)}"
            ) from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"cannot use --client-ca-file {self._client_ca}: {_reason(error)}"
                ) from error
            # Optional, so that probes work; guards require a certificate elsewhere.
            context.verify_mode = ssl.CERT_OPTIONAL
            context.client_ca = contents[self._client_ca]
        return context


def _no_passphrase() -> NoReturn:
    """Refuse an encrypted key; OpenSSL would ask for the passphrase on the terminal."""
    raise ValueError("the key is encrypted; store it without a passphrase")


def _reason(error: Exception) -> str:
    """Return OpenSSL's reason."""
    reason = getattr(error, "reason", None) or str(error)
    return str(reason).replace("_", " ").lower() if isinstance(error, ssl.SSLError) else str(reason)
