"""What all files of credentials, keys and certificates have in common.

Editors, shells and Secrets leave traces that mean nothing: a byte order mark, CRLF, blanks around a
line, empty lines, a missing last newline. They are removed. What remains must be text of the
expected kind, or the cause is named.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLANKS: Final = " \t\f\v"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_DER: Final = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..|\x83...)", re.DOTALL)
_PKCS_12: Final = re.compile(rb"\x30(?:\x82..|\x83...|\x81.|\x80)\x02\x01\x03", re.DOTALL)
_HTML: Final = re.compile(r"<(?:!doctype\s+html|html|head|\?xml)\b", re.IGNORECASE)
#: base64 of `-----BEGIN `: the start of a PEM block that was encoded once more.
_ENCODED_PEM: Final = "LS0tLS1CRUdJTi"
_PEM: Final = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----(?P<body>.*?)-----END (?P=kind)-----", re.DOTALL
)
_BEGIN: Final = re.compile(r"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----")
_BEGIN_BYTES: Final = b"-----BEGIN "
_ENCRYPTED: Final = re.compile(
    r"ENCRYPTED PRIVATE KEY-----|^Proc-Type:\s*4,\s*ENCRYPTED", re.MULTILINE
)
_PEM_HEADER: Final = re.compile(r"^[A-Za-z0-9-]+: ", re.MULTILINE)
_PEM_COLUMNS: Final = 64
_OPENSSH_COLUMNS: Final = 70


class UnusableFile(ValueError):
    """A file cannot be used; the text begins with the cause, without the name of the file.

    `line` counts from 1; it is 0 where the cause is in no single line.
    """

    def __init__(self, cause: str, line: int = 0) -> None:
        """Keep the line beside the cause."""
        super().__init__(cause)
        self.line = line


def decode(content: bytes, wanted: str, *, binary: str = "convert it to PEM") -> str:
    """Return the text of a file, without byte order mark, its lines separated by LF.

    Args:
        content: the file.
        wanted: what it must contain.
        binary: what to do if it is a binary file in DER format.

    Raises:
        UnusableFile: the file is empty, or not text.
    """
    if content.startswith(_UTF_16) or b"\0\0" in {content[0:4:2], content[1:4:2]}:
        raise UnusableFile("the file is UTF-16 text; save it as UTF-8")
    if _PKCS_12.match(content):
        raise UnusableFile(
            "the file is in PKCS #12 format (.p12 or .pfx); convert it to PEM with"
            " openssl pkcs12 -nodes"
        )
    has_block = _BEGIN_BYTES in content
    if _DER.match(content) and not content.isascii() and not has_block:
        raise UnusableFile(f"the file is in binary DER format; {binary}")
    try:
        # A PEM block is ASCII: what is not UTF-8 is a comment, of an old name perhaps.
        text = content.decode("utf-8-sig", "replace" if has_block else "strict")
    except UnicodeDecodeError:
        raise UnusableFile("the file is not UTF-8 text") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise UnusableFile("the file is not text: it contains NUL bytes")
    start = text.lstrip()
    if not start:
        raise UnusableFile(f"the file is empty; it must contain {wanted}")
    if _HTML.match(start):
        raise UnusableFile(
            "the file is an HTML page, perhaps of a login form; download the file itself"
        )
    if start.startswith(_ENCODED_PEM):
        raise UnusableFile(
            "the file is base64-encoded once too often; decode it with base64 -d (in a Secret,"
            " values under data: are encoded once, and values under stringData: are not encoded)"
        )
    return text


def tidy(text: str) -> str:
    r"""Remove what means nothing: blanks around lines, and empty lines; end with a newline.

    A PEM block whose line breaks were lost, or were written as `\n`, gets them back.
    """
    text = "".join(f"{line}\n" for _, line in numbered(text))
    return _PEM.sub(_wrapped, text)


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, without blanks around them, with their numbers."""
    for number, line in enumerate(text.split("\n"), start=1):
        if stripped := line.strip(_BLANKS):
            yield number, stripped


def lines(content: bytes) -> list[str]:
    """Return the lines of a file with one secret in each line, without empty ones.

    Raises:
        UnusableFile: the file is empty, or not text.
    """
    return [line for _, line in numbered(decode(content, "a secret in each line"))]


def pem_blocks(text: str) -> list[tuple[str, str]]:
    """Return the kind and the base64 of each PEM block of a tidy text."""
    return [(block["kind"], block["body"]) for block in _PEM.finditer(text)]


def is_encrypted(text: str) -> bool:
    """Whether a private key in PEM format has a passphrase, as far as its first lines say so."""
    return _ENCRYPTED.search(text) is not None


def require_pem(text: str, kind: str) -> None:
    """Require PEM blocks, none of them cut off; `kind` is what the file must contain.

    Raises:
        UnusableFile: there is none, or the end of one is missing.
    """
    begun = [match["kind"] for match in _BEGIN.finditer(text)]
    if not begun:
        raise UnusableFile(
            f"the file contains no {kind} in PEM format; its first line must begin with -----BEGIN"
        )
    complete = [block_kind for block_kind, _ in pem_blocks(text)]
    if complete != begun:
        cut = next(
            (kind for kind, other in zip(begun, [*complete, ""], strict=False) if kind != other),
            begun[-1],
        )
        raise UnusableFile(
            f"the file is cut off: the line -----END {cut}----- is missing; copy all of it"
        )


def unpack(body: str, kind: str) -> bytes:
    """Decode the base64 of a PEM block.

    Raises:
        UnusableFile: it is damaged; `kind` says what.
    """
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UnusableFile(
            f"the {kind} is damaged or cut off: its base64 is not valid; copy all of it again"
        ) from None


def _wrapped(block: re.Match[str]) -> str:
    """Return a PEM block with line breaks; unchanged if it has them, or has headers."""
    body, kind = block["body"], block["kind"]
    is_broken = "\\n" in body or not body.startswith("\n") or not body.endswith("\n")
    if not is_broken or _PEM_HEADER.search(body):
        return block[0]
    text = "".join(body.replace("\\r", "").replace("\\n", "").split())
    columns = _OPENSSH_COLUMNS if kind.startswith("OPENSSH") else _PEM_COLUMNS
    wrapped = "\n".join(text[at : at + columns] for at in range(0, len(text), columns))
    return f"-----BEGIN {kind}-----\n{wrapped}\n-----END {kind}-----\n"
