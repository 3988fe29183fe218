"""Git servers on loopback, and servers that misbehave."""

from __future__ import annotations

import base64
import functools
import getpass
import os
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tests.support.optional import missing
from tests.support.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK: Final = "127.0.0.1"
_SSHD: Final = Path("/usr/sbin/sshd")


@dataclass
class HttpServer:
    """The settings of a server, and the requests that it received; both can change at any time.

    While `gate` is cleared, authorized requests are held back, and `waiting` is set.
    With a `refusal`, a status with headers and a text, nothing else is answered.
    With `old_protocol`, a client can fetch only the tips of branches. After `cut` bytes of
    a pack nothing more is sent until the gate is set again, which is cleared then; after `reset`
    bytes the connection is torn; the byte after `spoil` of them is another.
    """

    port: int
    scheme: str = "http"
    address: str = LOOPBACK
    user: str = ""
    password: str = ""
    redirect_to: str = ""
    refusal: tuple[int, dict[str, str], str] | None = None
    old_protocol: bool = False
    cut: int = 0
    reset: int = 0
    spoil: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)
    authorizations: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        """Return the URL of the repository in this folder of the root."""
        return f"{self.scheme}://{self.address}:{self.port}/{name}"


@contextmanager
def http_server(
    root: Path,
    *,
    user: str = "",
    password: str = "",
    certificate: Path | None = None,
    client_ca: Path | None = None,
    port: int = 0,
    address: str = LOOPBACK,
) -> Iterator[HttpServer]:
    """Serve the repositories below a folder over git's smart protocol.

    Args:
        root: the folder.
        user: with a user, basic authentication is required.
        password: the user's.
        certificate: a PEM file with key and certificate, for https.
        client_ca: a PEM file with the CA of the certificates that clients need.
        port: the port; 0 for any free one.
        address: where it listens.
    """

    class Handler(_Backend):
        """The handler of a server."""

        project_root = root

    with ThreadingHTTPServer((address, port), Handler) as server:
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if client_ca is not None:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # type: ignore[method-assign] # a refused handshake
        state = HttpServer(
            server.server_port,
            "https" if certificate else "http",
            address,
            user=user,
            password=password,
        )
        state.gate.set()
        Handler.state = state
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="git over http")
        thread.start()
        try:
            yield state
        finally:
            state.gate.set()
            server.shutdown()
            thread.join()


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder's files, which is Git's dumb protocol, and return the folder's URL."""

    class Quiet(SimpleHTTPRequestHandler):
        """A handler without log output."""

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Discard the message."""

    handler = functools.partial(Quiet, directory=str(folder.parent))
    with ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="files")
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}/{folder.name}"
        finally:
            server.shutdown()
            thread.join()


class _Backend(BaseHTTPRequestHandler):
    """Hands each request to `git http-backend`; also plays the proxy for absolute addresses."""

    project_root: Path
    state: HttpServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve the list of refs."""
        self._serve(b"")

    def do_POST(self) -> None:
        """Serve a negotiation."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self._serve(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Log nothing."""

    def _serve(self, body: bytes) -> None:
        address = urlsplit(self.path)
        self.state.hosts.append(self.headers["Host"])
        if self.state.refusal is not None:
            status, sent, text = self.state.refusal
            self._answer(status, list(sent.items()), text.encode())
            return
        if self.state.redirect_to:
            self._answer(301, [("Location", self.state.redirect_to + self.path)])
            return
        if self.state.user:
            given = self.headers.get("Authorization", "")
            self.state.authorizations.append(given)
            pair = f"{self.state.user}:{self.state.password}".encode()
            if given != f"Basic {base64.b64encode(pair).decode()}":
                self._answer(401, [("WWW-Authenticate", 'Basic realm="git"')])
                return
        if not self.state.gate.is_set():
            self.state.waiting.set()
            self.state.gate.wait(30)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(self.project_root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": address.path,
            "QUERY_STRING": address.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": "" if self.state.old_protocol else self.headers.get("Git-Protocol", ""),
        }
        answered = subprocess.run(
            ["git", "http-backend"],
            env=environment,
            input=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=False,
        ).stdout
        head, _, content = answered.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if line]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        rest = [(name, value) for name, value in headers if name != "Status"]
        self._answer(int(status.split()[0]), rest, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may have ended
            self.end_headers()
            if 0 < self.state.spoil < len(content):
                at = self.state.spoil
                content = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
            if 0 < self.state.reset < len(content):
                self.wfile.write(content[: self.state.reset])
                torn = struct.pack("ii", 1, 0)  # closing discards unsent data
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, torn)
                self.close_connection = True
                self.connection.close()
                return
            if 0 < self.state.cut < len(content):
                self.wfile.write(content[: self.state.cut])
                content = content[self.state.cut :]
                self.state.gate.clear()
                self.state.gate.wait(30)
            self.wfile.write(content)


@contextmanager
def raw_server(answer: bytes | None) -> Iterator[int]:
    """Accept every connection and send these bytes for any request; yield the port.

    With None, nothing is sent, and the connection stays open.
    """
    held: list[socket.socket] = []
    with socket.create_server((LOOPBACK, 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    if answer is None:
                        held.append(connection)
                        continue
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=accept, name="raw server")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


@dataclass
class Gate:
    """A port before a server; while `shut` it closes (and counts) each connection at once."""

    port: int = 0
    shut: bool = False
    connections: int = 0
    refused: int = 0

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Shut it for as long as the block lasts."""
        self.shut = True
        try:
            yield
        finally:
            self.shut = False


@contextmanager
def gate(server_port: int) -> Iterator[Gate]:
    """Forward connections to a server on loopback, and count them."""
    state = Gate()
    with socket.create_server((LOOPBACK, 0)) as listener:
        state.port = listener.getsockname()[1]

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    state.connections += 1
                    if state.shut:
                        state.refused += 1
                        connection.close()
                        continue
                    forwarder = threading.Thread(target=_forward, args=(connection, server_port))
                    forwarder.start()
                    forwarders.append(forwarder)

        forwarders: list[threading.Thread] = []
        thread = threading.Thread(target=accept, name="gate")
        thread.start()
        try:
            yield state
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for forwarder in forwarders:
                forwarder.join()


@dataclass(frozen=True)
class Certificates:
    """A CA of a test's own, and a server's certificate (with its key) that it signed."""

    ca: Path
    server: Path
    expired: Path


def make_certificates(folder: Path) -> Certificates:
    """Make a CA, a certificate for 127.0.0.1 that is valid for a day, and one that was."""

    def openssl(*arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=folder, capture_output=True, timeout=120, check=True
        )

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *key, "-days", "1", "-subj", "/CN=CA of a test"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    openssl("req", *key, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName=IP:{LOOPBACK}\n")
    made = []
    for name, days in (("server", "1"), ("expired", "-1")):
        openssl(
            *("x509", "-req", "-days", days, "-in", "server.csr", "-CA", "ca.pem"),
            *("-CAkey", "ca.key", "-CAcreateserial", "-extfile", str(extensions)),
            *("-out", f"{name}.pem"),
        )
        made.append(folder / f"{name}-and-key.pem")
        key_text = (folder / "server.key").read_bytes()
        made[-1].write_bytes(key_text + (folder / f"{name}.pem").read_bytes())
    return Certificates(folder / "ca.pem", *made)


@dataclass(frozen=True)
class SshServer:
    """A private sshd: a key that it accepts, and the file that knows its host key."""

    process: Process
    port: int
    key: Path
    known_hosts: Path
    user: str
    authorized_keys: Path

    @property
    def connections(self) -> int:
        """How many connections it has accepted."""
        return self.process.output.count("Connection from ")

    @contextmanager
    def forced(self, command: str) -> Iterator[None]:
        """Run this command after each login, instead of the requested one."""
        key = self.authorized_keys.read_text()
        self.authorized_keys.write_text(f'command="{command}" {key}')
        try:
            yield
        finally:
            self.authorized_keys.write_text(key)

    def url(self, folder: Path) -> str:
        """Where a repository on this machine is."""
        return f"ssh://{self.user}@{LOOPBACK}:{self.port}{folder}"


@contextmanager
def ssh_server(folder: Path, options: str = "") -> Iterator[SshServer]:
    """Run sshd on a free port, with keys made for it in `folder`, for this user alone.

    `options` are further lines of its configuration.
    """
    if not _SSHD.exists():
        missing("sshd", "apt-get install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, gives up its rights
    for name in ("host", "user"):
        make_key(folder / name)
    port = free_port()
    user = getpass.getuser()
    (folder / "authorized_keys").write_bytes((folder / "user.pub").read_bytes())
    host_key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[{LOOPBACK}]:{port} {host_key}")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress {LOOPBACK}:{port}\n"
        f"HostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\n"
        f"AllowUsers {user}\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n"
        f"{options}"
    )
    argv = [_SSHD, "-D", "-e", "-f", config]
    with Process(argv, log=folder / "sshd.log", port=port) as process:
        yield SshServer(
            process,
            port,
            folder / "user",
            folder / "known_hosts",
            user,
            folder / "authorized_keys",
        )


def make_key(path: Path) -> None:
    """Make an ssh key pair without a passphrase."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)],
        timeout=120,
        check=True,
    )


@dataclass
class ConnectProxy:
    """The port of the proxy, and the addresses it was asked to connect to.

    With a `status`, it refuses all of them.
    """

    port: int
    requests: list[str] = field(default_factory=list)
    status: int = 0


@contextmanager
def connect_proxy(
    user: str = "", password: str = "", *, closes: bool = False
) -> Iterator[ConnectProxy]:
    """Run a proxy that does nothing but CONNECT, as those before https do.

    Every name is this machine to it. With a user, basic authentication is required; with
    `closes`, the connection ends when it is missing.
    """
    state = ConnectProxy(0)
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        """The handler of a client."""

        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            """Open a tunnel, and carry bytes until either side ends."""
            if user and self.headers.get("Proxy-Authorization") != f"Basic {pair}":
                self.send_response(407)
                self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
                self.send_header("Content-Length", "0")
                if closes:
                    self.send_header("Connection", "close")
                self.end_headers()
                return
            state.requests.append(self.path)
            if state.status:
                self.send_error(state.status)
                return
            port = int(self.path.rpartition(":")[2])
            self.send_response(200)
            self.end_headers()
            with socket.create_connection((LOOPBACK, port)) as far:
                ways = ((self.connection, far), (far, self.connection))
                carriers = [threading.Thread(target=_carry, args=way) for way in ways]
                for carrier in carriers:
                    carrier.start()
                for carrier in carriers:
                    carrier.join()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Log nothing."""

    with served_in_thread(Handler, "proxy") as state.port:
        yield state


@contextmanager
def served_in_thread(handler: type[BaseHTTPRequestHandler], name: str) -> Iterator[int]:
    """Serve HTTP on loopback in a thread of this name; give the port."""
    with ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name=name)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _forward(connection: socket.socket, port: int) -> None:
    """Carry bytes between a connection and a server until both sides have ended."""
    with connection, socket.create_connection((LOOPBACK, port)) as far:
        ways = ((connection, far), (far, connection))
        carriers = [threading.Thread(target=_carry, args=way) for way in ways]
        for carrier in carriers:
            carrier.start()
        for carrier in carriers:
            carrier.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
