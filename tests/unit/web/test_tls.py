"""TLS sessions of clients, with real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.web.auth import Guard
from openfero_gitops.web.tls import load_tls
from tests.support.certificates import Authority
from tests.support.serving import local_server
from tests.unit.web.connections.test_acceptor import DELIVERY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE = 60.0


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give the CA of the server, and of clients at first."""
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@contextlib.asynccontextmanager
async def serving(ours: Authority, ca: Path) -> AsyncIterator[int]:
    """Serve a webhook that needs a certificate of the CA in a file; give the port."""
    server = local_server(
        webhook_guard=Guard(None, certificate=True), tls=load_tls(*ours.issue("server"), ca)
    )
    await server.start()
    yield server.bound[0].port
    await server.stop()


def deliver(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bytes, ssl.SSLSession | None, bool]:
    """Deliver an alert; return the status line, the session, and whether it was resumed."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as wrapped,
    ):
        wrapped.sendall(DELIVERY)
        status = wrapped.recv(2**16).partition(b"\r\n")[0]
        return status, wrapped.session, bool(wrapped.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("tickets", [True, False])
async def test_no_session_outlives_the_ca_of_its_client(
    ours: Authority,
    tmp_path: Path,
    version: ssl.TLSVersion,
    tickets: bool,  # noqa: FBT001 - a case
) -> None:
    """A session is resumed while the client's CA is trusted, and not after it was replaced."""
    other = Authority(tmp_path, "other")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(ours.certificate.read_bytes())
    client = ours.client(*ours.issue("client"))
    client.minimum_version = client.maximum_version = version
    if not tickets:
        client.options |= ssl.OP_NO_TICKET
    async with serving(ours, ca) as port:
        status, session, _ = await asyncio.to_thread(deliver, port, client)
        assert status == b"HTTP/1.1 200 OK"
        status, session, resumed = await asyncio.to_thread(deliver, port, client, session)
        assert status == b"HTTP/1.1 200 OK"
        # (Python's server resumes no session of TLS 1.2 by its id.)
        assert resumed or (version is ssl.TLSVersion.TLSv1_2 and not tickets)
        ca.write_bytes(other.certificate.read_bytes())
        with contextlib.suppress(OSError):  # the certificate itself is refused
            status, _, resumed = await asyncio.to_thread(deliver, port, client, session)
            assert not resumed
            assert status != b"HTTP/1.1 200 OK"


async def test_a_secret_is_replaced_below_an_open_connection(
    ours: Authority, tmp_path: Path
) -> None:
    """When Kubernetes swaps the folder of a Secret, open connections go on, new ones see the new.

    Between the two folders, one lies there whose key belongs to another certificate.
    """
    pairs = {"first": ours.issue("first"), "second": ours.issue("second")}
    mixed = (pairs["second"][0], pairs["first"][1])
    for folder, (certificate, key) in {**pairs, "mixed": mixed}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tls.crt").write_bytes(certificate.read_bytes())
        (tmp_path / folder / "tls.key").write_bytes(key.read_bytes())
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")

    def swap(folder: str) -> None:
        (tmp_path / "..new").symlink_to(folder)
        (tmp_path / "..new").rename(tmp_path / "..data")

    async def shown(port: int) -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ours.client())
        subject = dict(pair for (pair,) in writer.get_extra_info("peercert")["subject"])
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return subject["commonName"]

    async def ask() -> bytes:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
        return head.partition(b"\r\n")[0]

    swap("first")
    server = local_server(tls=load_tls(tmp_path / "tls.crt", tmp_path / "tls.key", None))
    await server.start()
    port = server.bound[0].port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ours.client())
    try:
        for folder, expected in (("first", "first"), ("mixed", "first"), ("second", "second")):
            swap(folder)
            assert await shown(port) == expected
            assert await ask() == b"HTTP/1.1 200 OK"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await server.stop()
