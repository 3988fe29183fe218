"""A Git server over HTTP that sends whatever a test wants, in protocol version 2."""

from __future__ import annotations

import hashlib
import struct
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import chain
from typing import TYPE_CHECKING, Final

from tests.support.git_servers import LOOPBACK, served_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

COMMIT: Final = 1
TREE: Final = 2
BLOB: Final = 3
TAG: Final = 4
REF_DELTA: Final = 7
_NAMES: Final = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}

FLUSH: Final = b"0000"
DELIMITER: Final = b"0001"
CAPABILITIES: Final = (
    b"version 2\n",
    b"agent=git/2.39.5\n",
    b"ls-refs=unborn\n",
    b"fetch=shallow filter packfile-uris\n",
    b"bundle-uri\n",
    b"object-format=sha1\n",
)


def packet(content: bytes) -> bytes:
    """Return a line of Git's protocol."""
    return b"%04x" % (len(content) + 4) + content


def sideband(chunks: Iterable[bytes], band: int = 1) -> Iterator[bytes]:
    """Send bytes over a side band: 1 is the pack, 2 are messages, 3 is a fatal error."""
    for chunk in chunks:
        for start in range(0, len(chunk), 65_000):
            yield packet(bytes([band]) + chunk[start : start + 65_000])


def object_id(kind: int, content: bytes) -> str:
    """Return the ID of an object."""
    head = b"%s %d\0" % (_NAMES[kind], len(content))
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def entry(kind: int, content: bytes, base: str = "") -> bytes:
    """Return an object as in a pack; a delta names its base."""
    return _entry_head(kind, len(content)) + bytes.fromhex(base) + zlib.compress(content)


def zeros(kind: int, size: int) -> Iterator[bytes]:
    """Return an object of nothing but zeros, of any size: a thousandth of it is sent."""
    yield _entry_head(kind, size)
    deflate = zlib.compressobj(9)
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        yield deflate.compress(block)
    yield deflate.flush()


def _entry_head(kind: int, size: int) -> bytes:
    head = [(kind << 4) | (size & 15)]
    size >>= 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head)


def copies(base_size: int, count: int) -> bytes:
    """Return a delta that copies the first 16 MiB of its base again and again."""
    size = min(base_size, 0xFFFFFF)
    copy = bytes([0x80 | 0x70]) + size.to_bytes(3, "little")
    return _varint(base_size) + _varint(size * count) + copy * count


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append((number & 0x7F) | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def pack(*entries: Iterable[bytes]) -> Iterator[bytes]:
    """Return a pack of objects, each given as its pieces."""
    digest = hashlib.sha1(usedforsecurity=False)
    head = b"PACK" + struct.pack(">II", 2, len(entries))
    for piece in chain([head], chain.from_iterable(entries)):
        digest.update(piece)
        yield piece
    yield digest.digest()


def commit(tree: str, *parents: str, message: bytes = b"Hostile\n", author: bytes = b"A") -> bytes:
    """Return the content of a commit."""
    person = author + b" <a@example.com> 1790000000 +0000\n"
    lines = b"".join(b"parent %s\n" % parent.encode() for parent in parents)
    return b"tree %s\n%sauthor %scommitter %s\n%s" % (tree.encode(), lines, person, person, message)


def tree(*entries: tuple[bytes, bytes, str]) -> bytes:
    """Return the content of a tree, given as (mode, name, ID)."""
    return b"".join(mode + b" " + name + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries)


@dataclass
class HostileServer:
    """What a server sends, and the requests that it received.

    Attributes:
        port: where it listens.
        refs: the packets that answer a list of refs.
        answer: the packets that answer a fetch.
        respond: handles a request instead, by path; returns whether it did.
        requests: method, path, `Authorization` and body.
    """

    port: int = 0
    refs: Callable[[], Iterable[bytes]] = lambda: [FLUSH]
    answer: Callable[[], Iterable[bytes]] = lambda: [FLUSH]
    respond: Callable[[BaseHTTPRequestHandler], bool] = lambda _: False
    requests: list[tuple[str, str, str, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL of the repository."""
        return f"http://{LOOPBACK}:{self.port}/repository.git"

    def serve_commit(self, sha: str, *entries: Iterable[bytes]) -> None:
        """Serve a pack, and a default branch at a commit."""
        self.refs = lambda: [
            packet(b"%s HEAD symref-target:refs/heads/main\n" % sha.encode()),
            packet(b"%s refs/heads/main\n" % sha.encode()),
            FLUSH,
        ]
        self.answer = lambda: chain([packet(b"packfile\n")], sideband(pack(*entries)), [FLUSH])


class _Handler(BaseHTTPRequestHandler):
    """The handler of a client."""

    protocol_version = "HTTP/1.1"
    state: HostileServer

    def do_GET(self) -> None:
        """List the capabilities."""
        self._record(b"")
        if self.state.respond(self):
            return
        if not self.path.endswith("/info/refs?service=git-upload-pack"):
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        lines = [packet(b"# service=git-upload-pack\n"), FLUSH]
        lines += [*map(packet, CAPABILITIES), FLUSH]
        self._send("application/x-git-upload-pack-advertisement", lines)

    def do_POST(self) -> None:
        """List refs, or send a pack."""
        body = self._body()
        self._record(body)
        if self.state.respond(self):
            return
        packets = self.state.refs() if b"command=ls-refs" in body else self.state.answer()
        self._send("application/x-git-upload-pack-result", packets)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Log nothing."""

    def _record(self, body: bytes) -> None:
        authorization = self.headers.get("Authorization", "")
        self.state.requests.append((self.command, self.path, authorization, body))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, content_type: str, chunks: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may have ended
            self.end_headers()
            for chunk in chunks:
                if chunk:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def hostile_server() -> Iterator[HostileServer]:
    """Serve one repository."""
    state = HostileServer()
    handler = type("Handler", (_Handler,), {"state": state})
    with served_in_thread(handler, "hostile git") as state.port:
        yield state
