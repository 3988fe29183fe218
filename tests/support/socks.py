"""A SOCKS5 proxy on loopback (RFC 1928), with a user name and password if wanted (RFC 1929)."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK: Final = "127.0.0.1"
_NO_AUTHENTICATION: Final = 0
_PASSWORD: Final = 2
_NOT_ACCEPTED: Final = 0xFF
_NAME: Final = 3


@dataclass
class SocksProxy:
    """The port of the proxy, and the addresses that it was asked to connect to, as they came."""

    port: int = 0
    requests: list[str] = field(default_factory=list)


@contextmanager
def socks_proxy(user: str = "", password: str = "") -> Iterator[SocksProxy]:
    """Run a proxy; every name is this machine to it. With a user, a password is required."""
    state = SocksProxy()
    wanted = (user.encode(), password.encode())

    class Handler(socketserver.StreamRequestHandler):
        """The handler of a client."""

        def handle(self) -> None:
            """Authenticate, open a tunnel, and carry bytes until either side ends."""
            _, count = self.rfile.read(2)
            methods = self.rfile.read(count)
            method = _PASSWORD if user else _NO_AUTHENTICATION
            if method not in methods:
                self.connection.sendall(bytes((5, _NOT_ACCEPTED)))
                return
            self.connection.sendall(bytes((5, method)))
            if user:
                self.rfile.read(1)
                sent = tuple(self.rfile.read(self.rfile.read(1)[0]) for _ in range(2))
                self.connection.sendall(bytes((1, 0 if sent == wanted else 1)))
                if sent != wanted:
                    return
            kind = self.rfile.read(4)[3]
            if kind == _NAME:
                host = self.rfile.read(self.rfile.read(1)[0]).decode()
            else:
                host = socket.inet_ntoa(self.rfile.read(4))
            port = int.from_bytes(self.rfile.read(2))
            state.requests.append(f"{host}:{port}")
            with socket.create_connection((LOOPBACK, port)) as far:
                self.connection.sendall(bytes((5, 0, 0, 1, 127, 0, 0, 1)) + port.to_bytes(2))
                carrier = threading.Thread(target=_carry, args=(far, self.connection))
                carrier.start()
                with suppress(OSError):
                    while chunk := self.rfile.read1(1 << 16):
                        far.sendall(chunk)
                    far.shutdown(socket.SHUT_WR)
                carrier.join()

    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Handler) as server:
        server.daemon_threads = True
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="socks proxy")
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
