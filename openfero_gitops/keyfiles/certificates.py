"""Certificates and their keys in PEM format, for TLS.

Only what is needed to name a cause is read from a certificate: its period of validity (RFC 5280,
4.1). TLS itself is left to the programs that use the files.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn

from openfero_gitops.keyfiles.content import (
    UnusableFile,
    decode,
    is_encrypted,
    pem_blocks,
    require_pem,
    tidy,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_CERTIFICATES: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"})
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_LONG_LENGTH: Final = 0x80


@dataclass(frozen=True, slots=True)
class Validity:
    """The period in which a certificate is valid."""

    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Certificates:
    """Certificates in PEM format: the tidy text of the file, and when each of them is valid."""

    text: str
    validities: tuple[Validity, ...]

    def check(self, now: datetime) -> None:
        """Check that any of the certificates, those of CAs, is valid now.

        A bundle may contain some that have expired: others are used then.

        Raises:
            UnusableFile: none is valid now.
        """
        if not any(validity.begin <= now <= validity.end for validity in self.validities):
            several = len(self.validities) > 1
            name = "every certificate in the file" if several else "the certificate"
            _require_valid(self.validities[0], now, name)

    def check_first(self, now: datetime) -> None:
        """Check that the first certificate, which is shown to a server, is valid now.

        The others are its chain, and only help to verify it.

        Raises:
            UnusableFile: it is not valid now.
        """
        several = len(self.validities) > 1
        name = "the first certificate in the file" if several else "the certificate"
        _require_valid(self.validities[0], now, name)

    def blocks(self) -> str:
        """Return the certificates in ASCII, without comments and anything else in the file."""
        return "".join(
            f"-----BEGIN {kind}-----{body}-----END {kind}-----\n"
            for kind, body in pem_blocks(self.text)
            if kind in _CERTIFICATES
        )


def certificates(content: bytes) -> Certificates:
    """Check a file of certificates: those of CAs, or a certificate with its chain.

    Raises:
        UnusableFile: it contains no certificate, or a damaged one.
    """
    text = tidy(
        decode(content, "a certificate", binary="convert it to PEM with openssl x509 -inform der")
    )
    require_pem(text, "certificate")
    blocks = pem_blocks(text)
    packed = [unpack(body, "certificate") for kind, body in blocks if kind in _CERTIFICATES]
    if not packed:
        kind = blocks[0][0]
        raise UnusableFile(
            "the file is in PKCS #7 format; convert it with openssl pkcs7 -print_certs"
            if kind == "PKCS7"
            else f"the file contains no certificate, but a {kind.lower()}"
        )
    return Certificates(
        text, tuple(_validity(each, number) for number, each in enumerate(packed, start=1))
    )


def private_key(content: bytes) -> str:
    """Check the private key of a certificate, and return the tidy text of the file.

    Raises:
        UnusableFile: it is no private key, or it has a passphrase.
    """
    text = tidy(
        decode(content, "a private key", binary="convert it to PEM with openssl pkey -inform der")
    )
    require_pem(text, "private key")
    kinds = [kind for kind, _ in pem_blocks(text)]
    keys = [kind for kind in kinds if kind.endswith("PRIVATE KEY")]
    if not keys:
        raise UnusableFile(f"the file contains no private key, but a {kinds[0].lower()}")
    if is_encrypted(text):
        raise UnusableFile(
            "the key has a passphrase, and nobody is there to enter it; remove it from a copy with"
            " openssl pkey -in FILE -out COPY"
        )
    if keys[0].startswith("OPENSSH"):
        raise UnusableFile("the file contains an SSH key; use the private key of the certificate")
    unpack(next(body for kind, body in pem_blocks(text) if kind == keys[0]), "private key")
    return text


def check_pair(certificate: Certificates, key: str) -> None:
    """Check that a key belongs to the first of some certificates.

    Raises:
        UnusableFile: it does not, or OpenSSL cannot use one of them.
    """
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)


def load_pair(context: ssl.SSLContext, certificate: Certificates, key: str) -> None:
    """Make a context show a certificate.

    Raises:
        UnusableFile: the key does not belong to it, or OpenSSL cannot use one of them.
    """
    try:
        with _file(certificate.text) as certificate_file, _file(key) as key_file:
            context.load_cert_chain(certificate_file, key_file, _no_passphrase)
    except ssl.SSLError as error:
        raise UnusableFile(
            "the key does not belong to the certificate; use the key that the certificate was"
            " requested with"
            if error.reason == "KEY_VALUES_MISMATCH"
            else f"the certificate or its key cannot be used ({_reason(error)})"
        ) from error


def load_authorities(context: ssl.SSLContext, authorities: Certificates) -> None:
    """Make a context trust certificates.

    Raises:
        UnusableFile: OpenSSL cannot use them.
    """
    try:
        context.load_verify_locations(cadata=authorities.blocks())
    except ssl.SSLError as error:
        raise UnusableFile(f"the certificates cannot be used ({_reason(error)})") from error


def _require_valid(validity: Validity, now: datetime, name: str) -> None:
    """Require that a certificate is valid; `name` begins the text if it has expired."""
    if now < validity.begin:
        raise UnusableFile(
            f"the certificate is not valid before {_day(validity.begin)}; check the clock of"
            " this machine, or use a certificate that is valid now"
        )
    if now > validity.end:
        raise UnusableFile(f"{name} has expired, on {_day(validity.end)}; renew it")


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason."""
    return str(error.reason or error).replace("_", " ").lower()


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Pass a text to OpenSSL as a file that nobody else can open."""
    with (
        tempfile.TemporaryFile()
        if not hasattr(os, "memfd_create")
        else os.fdopen(os.memfd_create("pem"), "w+b") as stream
    ):
        stream.write(text.encode())
        stream.flush()
        stream.seek(0)
        yield f"/dev/fd/{stream.fileno()}"


def _no_passphrase() -> NoReturn:
    """Refuse an encrypted key; OpenSSL would ask for the passphrase on the terminal."""
    raise UnusableFile("the key has a passphrase; use a key without one")


def _validity(packed: bytes, number: int) -> Validity:
    """Read the period of validity from a certificate in DER format."""
    try:
        signed = _content(_content(packed, _SEQUENCE), _SEQUENCE)
        if signed[0] == _VERSION:
            signed = _after(signed)
        for _ in ("serial number", "algorithm", "issuer"):
            signed = _after(signed)
        period = _content(signed, _SEQUENCE)
        return Validity(_time(period), _time(_after(period)))
    except (IndexError, ValueError):
        raise UnusableFile(
            f"certificate {number} in the file is damaged, or not a certificate; copy it again"
        ) from None


def _element(packed: bytes) -> tuple[int, int]:
    """Return where the content of the first element of DER begins and ends."""
    length, begin = packed[1], 2
    if length & _LONG_LENGTH:
        count = length & ~_LONG_LENGTH
        begin += count
        length = int.from_bytes(packed[2:begin])
    if len(packed) < begin + length:
        raise ValueError("shorter than its length")
    return begin, begin + length


def _content(packed: bytes, tag: int) -> bytes:
    if packed[0] != tag:
        raise ValueError("another element")
    begin, end = _element(packed)
    return packed[begin:end]


def _after(packed: bytes) -> bytes:
    return packed[_element(packed)[1] :]


def _time(packed: bytes) -> datetime:
    begin, end = _element(packed)
    text = packed[begin:end].decode("ascii")
    if packed[0] == _UTC_TIME:  # two digits of the year: 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _day(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
