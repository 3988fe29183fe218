"""OpenPGP public keys, as `gpg --export` writes them, armored or not (RFC 9580)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from openfero_gitops.keyfiles.content import UnusableFile, decode, tidy

_ARMORED: Final = b"-----BEGIN PGP"
_BLOCK: Final = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[A-Za-z-]+:(?: [^\n]*)?\n)*"
    r"(?P<body>[A-Za-z0-9+/=\n]*?)(?:\n=[A-Za-z0-9+/]{4})?\n-----END PGP PUBLIC KEY BLOCK-----"
)
_PACKET: Final = 0x80  # the first bit of every packet
_NEW_FORMAT: Final = 0x40
_PUBLIC_KEY: Final = 6
_SECRET_KEY: Final = 5
_KEYBOX: Final = b"KBXf"
_EXPORT: Final = "use the output of gpg --export"


def public_keys(content: bytes) -> bytes:
    """Check a file of public keys, and return them in binary form, as gpg stores them.

    Raises:
        UnusableFile: the content is not a list of public keys.
    """
    if content[8:12] == _KEYBOX:
        raise UnusableFile(f"the file is a keybox of gpg; {_EXPORT}")
    if b"PRIVATE KEY" in content:
        raise UnusableFile(f"the file contains a private key; {_EXPORT}")
    if _ARMORED in content or not _is_binary(content):
        content = _unarmored(decode(content, "the output of gpg --export"))
    kind = _packet_type(content)
    if kind == _SECRET_KEY:
        raise UnusableFile(f"the file contains a private key; {_EXPORT}")
    if kind != _PUBLIC_KEY:
        raise UnusableFile(f"the file contains no OpenPGP key; {_EXPORT}")
    return content


def _is_binary(content: bytes) -> bool:
    return _packet_type(content) in {_PUBLIC_KEY, _SECRET_KEY}


def _unarmored(text: str) -> bytes:
    text = tidy(text)
    if "-----BEGIN PGP PUBLIC KEY BLOCK-----" not in text:
        raise UnusableFile(f"the file contains no OpenPGP key; {_EXPORT}")
    blocks = list(_BLOCK.finditer(text))
    try:
        if len(blocks) != text.count("-----BEGIN PGP PUBLIC KEY BLOCK-----"):
            raise ValueError("a block is cut off")  # noqa: TRY301 - reported below
        return b"".join(
            base64.b64decode("".join(block["body"].split()), validate=True) for block in blocks
        )
    except (binascii.Error, ValueError):
        raise UnusableFile(
            "the file contains a damaged armored key; export it again with gpg --export --armor"
        ) from None


def _packet_type(content: bytes) -> int:
    """Return the type of the first packet; 0 if there is none."""
    if not content or not content[0] & _PACKET:
        return 0
    return content[0] & 0x3F if content[0] & _NEW_FORMAT else (content[0] >> 2) & 0x0F
