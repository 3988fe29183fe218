"""Certificates and their private keys."""

from __future__ import annotations

import base64
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.keyfiles.certificates import (
    certificates,
    check_pair,
    load_authorities,
    private_key,
)
from openfero_gitops.keyfiles.content import UnusableFile
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable

BOM = b"\xef\xbb\xbf"
SPOILS: list[Callable[[bytes], bytes]] = [
    lambda pem: pem,
    lambda pem: pem.replace(b"\n", b"\r\n"),
    lambda pem: pem.rstrip(b"\n"),
    lambda pem: BOM + pem,
    lambda pem: b"\n  " + pem.replace(b"\n", b"\n  ") + b"\n\n",
    lambda pem: pem.replace(b"\n", b"\\n"),
    lambda pem: b"# a comment\n" + pem,
    lambda pem: "# Zertifikat für Zürich\n".encode() + pem,
    lambda pem: "# Zertifikat für Zürich\r\n".encode("latin-1") + pem.replace(b"\n", b"\r\n"),
    lambda pem: "0 s:CN=Zürich\n".encode() + pem,
    lambda pem: pem + "# café\n".encode("latin-1"),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a CA."""
    return Authority(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[bytes, bytes]:
    """Make a certificate and its key."""
    certificate, key = authority.issue("client")
    return certificate.read_bytes(), key.read_bytes()


def openssl(content: bytes, *arguments: str) -> bytes:
    """Convert a file with openssl."""
    ran = subprocess.run(
        ["openssl", *arguments], input=content, stdout=subprocess.PIPE, timeout=120, check=True
    )
    return ran.stdout


@pytest.mark.parametrize("spoil", SPOILS)
def test_traces_of_editors_mean_nothing(
    pair: tuple[bytes, bytes], spoil: Callable[[bytes], bytes]
) -> None:
    """OpenSSL accepts the repaired certificate and key together."""
    certificate, key = map(spoil, pair)

    check_pair(certificates(certificate), private_key(key))


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_ca_is_trusted_whatever_an_editor_left(
    authority: Authority, pair: tuple[bytes, bytes], spoil: Callable[[bytes], bytes]
) -> None:
    """Only the certificates of a file are passed on, not the comments, text and keys around."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    load_authorities(context, certificates(spoil(authority.certificate.read_bytes()) + pair[1]))

    [trusted] = context.get_ca_certs()
    assert trusted["subject"] == ((("commonName", "ca"),),)


def test_a_damaged_certificate_is_named_whatever_its_bytes(pair: tuple[bytes, bytes]) -> None:
    """Only comments may contain what is not UTF-8: within a block it is damage."""
    certificate, _ = pair
    with pytest.raises(UnusableFile, match="its base64 is not valid; copy all of it again"):
        certificates(certificate.replace(b"MII", b"M\xe9I", 1))


def test_a_file_in_order_stays_as_it_is(pair: tuple[bytes, bytes]) -> None:
    """A certificate and a key as openssl writes them need no repair."""
    certificate, key = pair

    assert certificates(certificate).text.encode() == certificate
    assert private_key(key).encode() == key


def test_a_period_of_validity(pair: tuple[bytes, bytes], authority: Authority) -> None:
    """Expired and not yet valid are different causes; a bundle needs one valid certificate."""
    now = datetime.now(UTC)
    one = certificates(pair[0])
    [validity] = one.validities

    one.check(now)
    assert timedelta(hours=23) < validity.end - now < timedelta(hours=25)
    with pytest.raises(UnusableFile, match=r"the certificate has expired, on 20\d\d-.* UTC; renew"):
        one.check(now + timedelta(days=2))
    with pytest.raises(UnusableFile, match=r"is not valid before 20\d\d-.*; check the clock"):
        one.check(now - timedelta(days=2))
    bundle = certificates(pair[0] + authority.certificate.read_bytes())
    bundle.check(now + timedelta(hours=36))
    with pytest.raises(UnusableFile, match="every certificate in the file has expired"):
        bundle.check(now + timedelta(days=3))


def test_the_certificate_that_is_shown_must_be_valid_itself(
    pair: tuple[bytes, bytes], authority: Authority
) -> None:
    """The first certificate counts: a valid one of its chain does not replace it."""
    now = datetime.now(UTC)
    intermediate = authority.certificate.read_bytes()
    chain = certificates(pair[0] + intermediate)

    chain.check_first(now)
    with pytest.raises(UnusableFile, match=r"the first certificate in the file has expired, on 20"):
        chain.check_first(now + timedelta(hours=36))
    certificates(intermediate + pair[0]).check_first(now + timedelta(hours=36))
    with pytest.raises(UnusableFile, match=r"the certificate has expired, on 20\d\d-.*; renew it"):
        certificates(pair[0]).check_first(now + timedelta(hours=36))
    with pytest.raises(UnusableFile, match=r"is not valid before 20\d\d-.*; check the clock"):
        chain.check_first(now - timedelta(days=2))


def test_another_file_is_named_for_a_certificate(pair: tuple[bytes, bytes]) -> None:
    """The cause is named for each file that is often mistaken for a certificate."""
    certificate, key = pair
    der = openssl(certificate, "x509", "-outform", "der")
    causes = {
        b"": "the file is empty; it must contain a certificate",
        der: "binary DER format; convert it to PEM with openssl x509 -inform der",
        openssl(certificate, "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"): "PKCS #7",
        openssl(key + certificate, "pkcs12", "-export", "-passout", "pass:x"): "PKCS #12",
        key: "contains no certificate, but a private key",
        base64.b64encode(certificate): "base64-encoded once too often",
        base64.b64encode(der): "contains no certificate in PEM format",
        certificate.decode().encode("utf-16"): "UTF-16",
        b"<!doctype html>": "an HTML page",
        certificate[:200]: "cut off: the line -----END CERTIFICATE----- is missing",
        certificate + certificate[:200]: "cut off",
        certificate.replace(b"MII", b"M*I", 1): "its base64 is not valid",
        certificate.replace(b"MII", b"AII", 1): "certificate 1 in the file is damaged",
        certificate + certificate.replace(b"MII", b"AII", 1): "certificate 2 in the file is",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n": "certificate 1 in the file",
    }
    for content, cause in causes.items():
        with pytest.raises(UnusableFile) as refused:
            certificates(content)
        assert cause in str(refused.value), content


def test_another_file_is_named_for_a_key(pair: tuple[bytes, bytes], authority: Authority) -> None:
    """The cause is named for each file that is often mistaken for a certificate's key."""
    certificate, key = pair
    _, locked = authority.issue("locked", passphrase="s3cret")
    causes = {
        b"": "the file is empty; it must contain a private key",
        certificate: "contains no private key, but a certificate",
        locked.read_bytes(): "the key has a passphrase",
        openssl(key, "ec", "-aes128", "-passout", "pass:x"): "the key has a passphrase",
        openssl(key, "pkey", "-pubout"): "contains no private key, but a public key",
        openssl(key, "pkey", "-outform", "der"): "binary DER format",
        key[:100]: "cut off",
        b"<html>": "an HTML page",
    }
    for content, cause in causes.items():
        with pytest.raises(UnusableFile) as refused:
            private_key(content)
        assert cause in str(refused.value), content


def test_a_key_of_another_certificate(pair: tuple[bytes, bytes], authority: Authority) -> None:
    """A key that does not belong to the certificate is refused."""
    _, other = authority.issue("other")

    with pytest.raises(UnusableFile, match="the key does not belong to the certificate"):
        check_pair(certificates(pair[0]), private_key(other.read_bytes()))
