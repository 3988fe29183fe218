"""What https is served with: files that are read again when they change.

A mounted Secret rotates without a restart: at every handshake the files are looked at, and the
connection is given the newest certificates that could be used.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NoReturn

import structlog

from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.get_logger(__name__)


def tls_context(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> ssl.SSLContext | None:
    """What https is served with, None for http.

    Raises:
        UsageError: a file cannot be used; the text names its flag.
    """
    if certificate is None or key is None:
        return None
    files = _Files(certificate, key, client_ca)
    context = files.context

    def newest(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = files.read_again()

    # (Called for clients that name no server, too.)
    context.sni_callback = newest
    return context


class _Files:
    """The files, and the newest context that could be made of them."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._given = [
            (flag, path)
            for flag, path in (
                ("--tls-cert-file", certificate),
                ("--tls-key-file", key),
                ("--client-ca-file", client_ca),
            )
            if path is not None
        ]
        self._stamp = self._look()
        self.context = self._load()

    def read_again(self) -> ssl.SSLContext:
        """Give the newest context; files that cannot be used are told of once."""
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return self.context
            # Also where they cannot be used: a certificate is replaced before its key, and the
            # second change makes them fit.
            self._stamp = stamp
            self.context = self._load()
        except UsageError as error:
            _log.warning("TLS files cannot be used; the last good ones hold", error=str(error))
        else:
            _log.info("TLS files read again")
        return self.context

    def _look(self) -> tuple[tuple[int, ...], ...] | None:
        """Tell one state of the files from another; None where one of them is gone."""
        try:
            states = [path.stat() for _, path in self._given]
        except OSError:
            return None
        return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)

    def _load(self) -> ssl.SSLContext:
        for flag, path in self._given:
            try:
                path.read_bytes()
            except OSError as error:
                raise UsageError(f"{flag}: {path} cannot be read: {error.strerror}") from error
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._certificate, self._key, _no_passphrase)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--tls-cert-file {self._certificate} and --tls-key-file {self._key} cannot be "
                f"used: {_why(error)}"
            ) from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"--client-ca-file {self._client_ca} cannot be used: {_why(error)}"
                ) from error
            # Optional here, so that probes pass; guards demand it where it matters.
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def _no_passphrase() -> NoReturn:
    """Refuse an encrypted key, for which OpenSSL would ask on the terminal."""
    raise ValueError("the key has a passphrase: store it without one")


def _why(error: Exception) -> str:
    """OpenSSL's reason in its own words."""
    reason = getattr(error, "reason", None) or str(error)
    return str(reason).replace("_", " ").lower() if isinstance(error, ssl.SSLError) else str(reason)
