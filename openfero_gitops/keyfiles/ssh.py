"""Files of ssh: private keys, known hosts, and allowed signers.

The formats: PROTOCOL.key of OpenSSH; sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"; ssh-keygen(1),
"ALLOWED SIGNERS".
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import Final

from openfero_gitops.keyfiles.content import (
    UnusableFile,
    decode,
    is_encrypted,
    numbered,
    pem_blocks,
    require_pem,
    tidy,
    unpack,
)

_KEY_TYPE: Final = re.compile(
    r"(?:sk-)?(?:ssh-(?:rsa|dss|ed25519|ed448)|ecdsa-sha2-nistp\d+)"
    r"(?:-cert-v0[01])?(?:@openssh\.com)?"
)
_PUBLIC: Final = re.compile(
    rf"{_KEY_TYPE.pattern}\s+AAAA|-----BEGIN (?:[A-Z]+ )?PUBLIC KEY-----|---- BEGIN SSH2 PUBLIC KEY"
)
_PUTTY: Final = "PuTTY-User-Key-File-"
_SSH_COM: Final = "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY"
_PRIVATE: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----|PuTTY-User-Key-File-")
_OPENSSH: Final = "OPENSSH PRIVATE KEY"
_MAGIC: Final = b"openssh-key-v1\0"
_FINGERPRINT: Final = re.compile(r"(?:\d+ )?(?:SHA256:|MD5:)\S+")
_MARKER: Final = re.compile(r"@(?:cert-authority|revoked)\s+")
#: An unquoted word, or one with quoted parts, as of ssh's options (`namespaces="git,file"`).
_WORD: Final = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^\s"])+')
_DER_SEQUENCE: Final = b"\x30"
_LOCKED: Final = (
    "the key has a passphrase, and nobody is there to enter it; use a key without one, or remove"
    " it from a copy with ssh-keygen -p -N ''"
)


def private_key(content: bytes) -> str:
    """Check a private key for ssh, and return it tidy.

    Raises:
        UnusableFile: it is no private key, or one that ssh cannot use without a person.
    """
    text = tidy(
        decode(content, "a private SSH key", binary="convert it with openssl pkey -inform der")
    )
    if text.startswith(_PUTTY):
        raise UnusableFile(
            "the key is in the format of PuTTY (.ppk); convert it with"
            " puttygen FILE.ppk -O private-openssh -o FILE"
        )
    if text.startswith(_SSH_COM):
        raise UnusableFile(
            "the key is in the format of SSH Communications; convert it with ssh-keygen -i"
        )
    if _PUBLIC.match(text):
        raise UnusableFile(
            "the file contains the public key; use the private key (its name has no .pub)"
        )
    require_pem(text, "private SSH key")
    if is_encrypted(text):
        raise UnusableFile(_LOCKED)
    keys = [(kind, body) for kind, body in pem_blocks(text) if kind.endswith("PRIVATE KEY")]
    if not keys:
        kind = pem_blocks(text)[0][0].lower()
        raise UnusableFile(f"the file contains a {kind}, but no private key; use the private key")
    kind, body = keys[0]
    packed = unpack(body, "private key")
    if kind == _OPENSSH:
        _check_openssh(packed)
    elif not packed.startswith(_DER_SEQUENCE):
        raise UnusableFile("the private key is damaged; copy it again")
    elif kind.startswith("DSA"):
        raise UnusableFile(_no_dsa())
    return text


def known_hosts(content: bytes) -> str:
    """Check a file of host keys, and return it tidy.

    ssh ignores lines that it cannot read, so one line that can be read is enough.

    Raises:
        UnusableFile: there is no host key in it; the first wrong line is named.
    """
    text = decode(content, "the lines that ssh-keyscan HOST prints")
    _require_no_private_key(text)
    wrong: UnusableFile | None = None
    usable = False
    for number, line in numbered(text):
        if line.startswith("#"):
            continue
        try:
            _check_host(line, number)
            usable = True
        except UnusableFile as error:
            wrong = wrong or error
    if not usable:
        raise wrong or UnusableFile(
            "the file contains no host key; add the lines that ssh-keyscan HOST prints, after"
            " comparing them with the fingerprints that the server's owner publishes"
        )
    return tidy(text)


def allowed_signers(content: bytes) -> str:
    """Check a file of trusted signers, and return it tidy.

    Raises:
        UnusableFile: a line is wrong, or there is no signer in it.
    """
    text = decode(content, "lines such as `ada@example.com ssh-ed25519 AAAA…`")
    _require_no_private_key(text)
    signers = 0
    for number, line in numbered(text):
        if not line.startswith("#"):
            _check_signer(line, number)
            signers += 1
    if not signers:
        raise UnusableFile(
            "the file contains no signer; add lines such as `ada@example.com ssh-ed25519 AAAA…`"
        )
    return tidy(text)


def _check_openssh(packed: bytes) -> None:
    """Check the binary content of a key in OpenSSH's own format."""
    if not packed.startswith(_MAGIC):
        raise UnusableFile("the private key is damaged; copy it again")
    try:
        cipher, rest = _string(packed[len(_MAGIC) :])
        _, rest = _string(rest)  # key derivation
        _, rest = _string(rest)  # its options
        public, rest = _string(rest[4:])
        secret, _ = _string(rest)
        kind, _ = _string(public)
    except (ValueError, struct.error):
        raise UnusableFile("the private key is cut off; copy all of it") from None
    if cipher != b"none":
        raise UnusableFile(_LOCKED)
    if secret[:4] != secret[4:8]:  # OpenSSH writes the same number twice
        raise UnusableFile("the private key is damaged; copy it again")
    if kind.startswith(b"sk-"):
        raise UnusableFile(
            "the key is bound to a hardware token, which somebody would have to touch; use a key"
            " without a token"
        )
    if kind == b"ssh-dss":
        raise UnusableFile(_no_dsa())


def _no_dsa() -> str:
    return "DSA keys are not supported by OpenSSH any more; make a key with ssh-keygen -t ed25519"


def _check_host(line: str, number: int) -> None:
    line = _MARKER.sub("", line)
    words = line.split()
    if _KEY_TYPE.fullmatch(words[0]):
        raise UnusableFile(
            "has no host name; begin it with the name, as in `git.example.com ssh-ed25519 AAAA…`",
            number,
        )
    if any(_FINGERPRINT.match(word) for word in words[:2]):
        raise UnusableFile(
            "is a fingerprint; the file must contain the keys, as ssh-keyscan prints them", number
        )
    if len(words) < 3 or not _KEY_TYPE.fullmatch(words[1]):  # noqa: PLR2004 - host, type, key
        raise UnusableFile(
            "is no host key; write the name, the type of the key and the key, as in"
            " `git.example.com ssh-ed25519 AAAA…`",
            number,
        )
    _check_public(words[1], words[2], number)


def _check_signer(line: str, number: int) -> None:
    words = _WORD.findall(line)
    types = [at for at, word in enumerate(words) if _KEY_TYPE.fullmatch(word)]
    if not types:
        cause = "is a fingerprint, not a key" if "SHA256:" in line else "names no key"
        raise UnusableFile(
            f"{cause}; write the signer and the key, as in `ada@example.com ssh-ed25519 AAAA…`",
            number,
        )
    at = types[0]
    if at == 0:
        raise UnusableFile(
            "begins with the key; write the name of the signer before it, as in"
            " `ada@example.com ssh-ed25519 AAAA…`",
            number,
        )
    if at + 1 == len(words):
        raise UnusableFile(f"contains no key after {words[at]}; copy all of it", number)
    _check_public(words[at], words[at + 1], number)


def _check_public(kind: str, body: str, number: int) -> None:
    """Check a public key in the form that OpenSSH writes into lines."""
    try:
        named, rest = _string(base64.b64decode(body, validate=True))
        _, rest = _string(rest)
        while rest and "cert" not in kind:  # all other keys are strings up to the end
            _, rest = _string(rest)
    except (binascii.Error, ValueError, struct.error):
        raise UnusableFile(
            "contains a damaged key; it must be in one line, and complete", number
        ) from None
    if named != kind.encode():
        raise UnusableFile(
            f"contains a key of another type than {kind}; copy the line again", number
        )


def _require_no_private_key(text: str) -> None:
    if _PRIVATE.search(text):
        raise UnusableFile("the file contains a private key; it must contain public keys only")


def _string(packed: bytes) -> tuple[bytes, bytes]:
    """Read a string of the SSH protocol: its length in four bytes, and its bytes."""
    (length,) = struct.unpack_from(">I", packed)
    if len(packed) < 4 + length:
        raise ValueError("shorter than its length")
    return packed[4 : 4 + length], packed[4 + length :]
