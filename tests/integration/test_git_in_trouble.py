"""A faulty Git server: what stays active, what is reported, and what is left behind."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.sources.git.access import GitAccess
from tests.support.descendants import descendants, open_files
from tests.support.follower import Follower
from tests.support.git_servers import (
    Certificates,
    ConnectProxy,
    HttpServer,
    connect_proxy,
    http_server,
    make_certificates,
)
from tests.support.process import free_port
from tests.support.repository import Repository
from tests.support.workers import operario_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

TOKEN = "gl0bal-t0ken"
DEADLINE = 5.0  # seconds
ENDING = 60.0  # additional seconds on a busy machine


@dataclass
class Forge:
    """A private repository behind https, and access to it."""

    repository: Repository
    certificates: Certificates
    credentials: Path
    port: int

    def serve(self, *, expired: bool = False) -> AbstractContextManager[HttpServer]:
        """Run its server."""
        pair = self.certificates.expired if expired else self.certificates.server
        return http_server(
            self.repository.folder.parent,
            user="x-access-token",
            password=TOKEN,
            certificate=pair,
            port=self.port,
        )

    def follow(self, cache: Path, proxy: ConnectProxy | None = None) -> Follower:
        """Return a replica that reads it."""
        return Follower(
            f"https://127.0.0.1:{self.port}/origin",
            cache,
            ref="main",
            access=GitAccess(
                timeout=DEADLINE,
                credentials_file=self.credentials,
                ca_file=self.certificates.ca,
                proxy=f"http://127.0.0.1:{proxy.port}" if proxy else "",
            ),
        )

    def push(self) -> str:
        """Commit a new version, and a file that makes the pack large."""
        self.repository.write("disk.yaml", operario_file("disk", "2"))
        self.repository.write("noise.bin", os.urandom(100_000))
        return self.repository.commit("Second")


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """Create a repository with one operario, and a token for access."""
    repository = Repository(tmp_path / "served" / "origin")
    repository.write("disk.yaml", operario_file("disk", "1"))
    repository.commit("First")
    credentials = tmp_path / "token"
    credentials.write_text(TOKEN)
    return Forge(repository, make_certificates(tmp_path), credentials, free_port())


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    """Start a proxy that opens tunnels."""
    with connect_proxy() as proxy:
        yield proxy


def output(replica: Follower, capture: pytest.CaptureFixture[str]) -> str:
    """Return all output: the error, the complete status and the log."""
    printed = capture.readouterr()
    return f"{replica.error} {replica.syncer.status!r} {printed.out} {printed.err}"


@pytest.mark.parametrize(
    ("trouble", "message", "longest"),
    [
        (lambda server: setattr(server, "cut", 5000), "did not finish within 5 s", DEADLINE),
        (lambda server: setattr(server, "reset", 5000), "the connection was interrupted", 0),
        (lambda server: setattr(server, "spoil", 5000), "interrupted", 0),
        (lambda server: server.gate.clear(), "did not finish within 5 s", DEADLINE),
        (lambda server: setattr(server, "redirect_to", "https://127.0.0.1:1"), "redirects", 0),
        (lambda server: setattr(server, "password", "another"), "refused the credentials", 0),
    ],
    ids=["stalls", "resets", "spoils", "hangs", "redirects", "asks-again"],
)
async def test_a_faulty_server_keeps_the_active_catalog(
    forge: Forge,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    trouble: Callable[[HttpServer], None],
    message: str,
    longest: float,
) -> None:
    """The fault is reported on one line in time, leaks nothing, and the next sync recovers."""
    with forge.serve() as server:
        replica = forge.follow(tmp_path / "cache")
        await replica.sync()
        before = replica.active
        second = forge.push()
        children, files = descendants(), open_files()
        began = time.monotonic()

        trouble(server)
        await replica.sync()

        took = time.monotonic() - began
        assert replica.active == before
        assert message in replica.error
        assert "\n" not in replica.error
        assert took < longest + ENDING
        assert descendants() == children
        assert TOKEN not in output(replica, capfd)
        server.cut = server.reset = server.spoil = 0
        server.redirect_to, server.password = "", TOKEN
        server.gate.set()
        await replica.sync()
        assert (replica.error, replica.commit) == ("", second)
        assert open_files() <= files + 2  # the server's threads may not have closed theirs yet
        await replica.aclose()


async def test_an_expired_certificate_keeps_the_active_catalog(
    forge: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An expired certificate is not trusted; a renewed one is."""
    replica = forge.follow(tmp_path / "cache")
    with forge.serve():
        await replica.sync()
    before = replica.active
    second = forge.push()
    with forge.serve(expired=True):
        await replica.sync()

        assert replica.active == before
        assert "the TLS connection failed" in replica.error
        assert "dates of" in replica.error
        assert TOKEN not in output(replica, capfd)
    with forge.serve():
        await replica.sync()
        assert replica.commit == second
    await replica.aclose()


async def test_a_proxy_tunnels_https(
    forge: Forge, proxy: ConnectProxy, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A sync works through a proxy that only opens tunnels, and fails without it."""
    replica = forge.follow(tmp_path / "cache", proxy)
    with forge.serve() as server:
        await replica.sync()
        second = forge.push()
        await replica.sync()

        assert replica.commit == second
        assert set(proxy.requests) == {f"127.0.0.1:{forge.port}"}
        assert set(server.hosts) == {f"127.0.0.1:{forge.port}"}
    replica_without = forge.follow(tmp_path / "other", ConnectProxy(1))
    await replica_without.sync()
    assert "cannot connect" in replica_without.error
    assert TOKEN not in output(replica, capfd) + output(replica_without, capfd)
    await replica.aclose()
    await replica_without.aclose()


async def test_a_rotated_token_is_used(
    forge: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A sync fails while the two tokens differ, and neither of them is shown."""
    replica = forge.follow(tmp_path / "cache")
    with forge.serve() as server:
        for number in range(3):
            server.password = f"t0ken-{number}"
            await replica.sync()
            assert "refused the credentials" in replica.error
            forge.credentials.write_text(f"t0ken-{number}\n")
            await replica.sync()
            assert replica.error == ""
    assert "t0ken-" not in output(replica, capfd)
    await replica.aclose()


async def test_an_unusable_file_keeps_the_active_catalog(
    forge: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A Secret that breaks while a replica runs is a failed sync that names the file and cause."""
    replica = forge.follow(tmp_path / "cache")
    ca = forge.certificates.ca.read_bytes()
    with forge.serve() as server:
        await replica.sync()
        first = replica.syncer.catalog
        commit = forge.push()
        asked = len(server.authorizations)
        for file, content, cause in (
            (forge.credentials, b"", "the file is empty"),
            (forge.credentials, TOKEN.encode("utf-16"), "the file is UTF-16 text"),
            (forge.credentials, b"<html>Sign in", "the file is an HTML page"),
            (forge.certificates.ca, ca[:200], "the file is cut off"),
            (forge.certificates.ca, b"\n", "the file is empty; it must contain a certificate"),
        ):
            usable = file.read_bytes()
            file.write_bytes(content)
            await replica.sync()
            assert replica.error.startswith(f"{file}: {cause}")
            assert replica.syncer.catalog is first
            file.write_bytes(usable)
        assert len(server.authorizations) == asked
        forge.credentials.write_bytes(b"\xef\xbb\xbf " + TOKEN.encode() + b" \r\n\r\n")
        await replica.sync()
        assert (replica.error, replica.syncer.status.revision.commit) == ("", commit)
    assert TOKEN not in output(replica, capfd)
    await replica.aclose()
