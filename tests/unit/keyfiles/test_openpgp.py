"""OpenPGP public keys."""

from __future__ import annotations

import base64

import pytest

from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.openpgp import public_keys

BOM = b"\xef\xbb\xbf"
#: A packet of a public key; what is in it is left to gpg.
KEY = b"\x98\x33\x04" + b"\xa5" * 0x32
SECRET = b"\x94\x33\x04" + b"\xa5" * 0x32


def armored(key: bytes, kind: bytes = b"PUBLIC KEY BLOCK") -> bytes:
    """Return a key as `gpg --export --armor` writes it."""
    body = base64.encodebytes(key)
    return b"-----BEGIN PGP %s-----\n\n%s=abcd\n-----END PGP %s-----\n" % (kind, body, kind)


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        armored(KEY),
        armored(KEY).replace(b"\n", b"\r\n"),
        BOM + armored(KEY),
        b"\n  " + armored(KEY).replace(b"\n", b"  \n  ").rstrip(),
        armored(KEY).replace(b"\n\n", b"\nVersion: GnuPG v2\nComment: a: b\n\n"),
        armored(KEY).replace(b"\n\n", b"\nComment: \n\n"),
        armored(KEY).replace(b"\n\n", b"\nVersion: GnuPG v2\nComment:\nCharset: UTF-8\n\n"),
        armored(KEY).replace(b"\n\n", "\nComment: Schlüssel\n\n".encode("latin-1")),
        b"pub ed25519 2026-01-01\n\n" + armored(KEY),
    ],
)
def test_traces_of_editors_mean_nothing(content: bytes) -> None:
    """Binary and armored keys are the same, whatever an editor left in the armor."""
    assert public_keys(content) == KEY


def test_several_armored_keys_are_joined() -> None:
    """All blocks of a file count."""
    assert public_keys(armored(KEY) + b"\n" + armored(KEY)) == KEY + KEY


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the file is empty; it must contain the output of gpg --export"),
        (SECRET, "contains a private key"),
        (armored(SECRET, b"PRIVATE KEY BLOCK"), "contains a private key"),
        (armored(SECRET), "contains a private key"),
        (b"\x88\x33\x04" + b"\xa5" * 0x32, "not UTF-8 text"),
        (armored(KEY, b"SIGNATURE"), "contains no OpenPGP key"),
        (b"\0\0\0\x20\x01\x01\0\x02KBXf\0\0", "a keybox of gpg"),
        (armored(KEY).decode().encode("utf-16"), "UTF-16"),
        (armored(KEY)[:-30], "a damaged armored key"),
        (armored(KEY).replace(b"paWl", b"pa*l", 1), "a damaged armored key"),
        (base64.b64encode(armored(KEY)), "base64-encoded once too often"),
        (b"<html>", "an HTML page"),
        (b"ada@example.com ssh-ed25519 AAAA\n", "contains no OpenPGP key"),
    ],
)
def test_another_file_is_named(content: bytes, cause: str) -> None:
    """The cause is named, and what to use instead."""
    with pytest.raises(UnusableFile) as refused:
        public_keys(content)

    assert cause in str(refused.value)
