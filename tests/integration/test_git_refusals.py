"""Refused and broken connections: what is reported, what is kept, and how often is tried."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.sources.git.access import GitAccess
from tests.support.follower import Follower
from tests.support.git_servers import (
    HttpServer,
    SshServer,
    connect_proxy,
    gate,
    http_server,
    make_certificates,
    ssh_server,
)
from tests.support.optional import missing
from tests.support.refusals import REFUSALS
from tests.support.repository import Repository
from tests.support.workers import operario_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

TOKEN = "gl0bal-t0ken"
_NOBODY = 54321  # no entry in /etc/passwd


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one operario."""
    repository = Repository(tmp_path / "served" / "origin")
    repository.write("disk.yaml", operario_file("disk", "1"))
    repository.commit("First")
    return repository


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """Start an sshd for the tests."""
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def over_ssh(server: SshServer, repository: Repository, cache: Path, port: int = 0) -> Follower:
    """Return a replica that follows a repository over ssh; `port` is one before the server's."""
    url = server.url(repository.folder)
    known_hosts = server.known_hosts
    if port:
        url = url.replace(f":{server.port}/", f":{port}/")
        known_hosts = cache.with_name("known_hosts")
        entry = server.known_hosts.read_text().replace(f":{server.port} ", f":{port} ")
        known_hosts.write_text(entry)
    return Follower(
        url,
        cache,
        access=GitAccess(ssh_key_file=server.key, known_hosts_file=known_hosts),
    )


def inode(cache: Path) -> int:
    """Return the inode of the repository in the cache: another one is another repository."""
    [repository] = cache.glob("*/repository.git")
    return repository.stat().st_ino


def check_refused(replica: Follower, *words: str) -> None:
    """Expect an error with these words, after which `serve` goes on."""
    for word in words:
        assert word in replica.error
    assert "damage" not in replica.error
    assert replica.error.isprintable()
    assert replica.syncer.lasting_error is None


async def check_kept(
    replica: Follower,
    repository: Repository,
    cache: Path,
    trouble: Callable[[], AbstractContextManager[object]],
    connections: Callable[[], int],
    *words: str,
) -> None:
    """Cause trouble at a first start and later: nothing is lost, and each try connects once."""
    for is_first in (True, False):
        if not is_first:
            repository.write("disk.yaml", operario_file("disk", "2"))
            repository.commit("Second")
        before = None if is_first else (inode(cache), replica.active)
        connected = connections()
        with trouble():
            await replica.sync()
            assert connections() == connected + 1
            check_refused(replica, *words)
            if before is not None:
                assert (inode(cache), replica.active) == before
        await replica.sync()
        assert (replica.error, replica.commit) == ("", repository.head)
        if before is not None:
            assert inode(cache) == before[0]
    await replica.aclose()


class TestSsh:
    """Test ssh with a real server."""

    async def test_hosts_that_refuse_cost_nothing(
        self, repository: Repository, sshd: SshServer, tmp_path: Path
    ) -> None:
        """At a first start and later, what a host says is reported, and the cache is kept."""
        running = over_ssh(sshd, repository, tmp_path / "cache")
        await running.sync()
        before = inode(tmp_path / "cache"), running.active
        words = tmp_path / "words"
        for refusal in REFUSALS:
            starting = over_ssh(sshd, repository, tmp_path / refusal.host)
            words.write_text(refusal.text)
            with sshd.forced(f"cat {words} >&2; exit {refusal.code}"):
                for replica in (starting, running):
                    connected = sshd.connections
                    await replica.sync()

                    assert sshd.connections == connected + 1
                    check_refused(replica, refusal.advice, refusal.quoted)
            assert (inode(tmp_path / "cache"), running.active) == before
            if refusal is REFUSALS[-1]:
                await starting.sync()
                assert (starting.error, starting.commit) == ("", repository.head)
            await starting.aclose()
        await running.sync()
        assert running.error == ""
        await running.aclose()

    async def test_a_connection_closed_after_the_login_costs_nothing(
        self, repository: Repository, sshd: SshServer, tmp_path: Path
    ) -> None:
        """A server that ends after the login is tried again, once at a time."""
        replica = over_ssh(sshd, repository, tmp_path / "cache")

        await check_kept(
            replica,
            repository,
            tmp_path / "cache",
            lambda: sshd.forced("kill -9 $PPID"),
            lambda: sshd.connections,
            "the connection was interrupted after the login",
        )

    async def test_a_connection_closed_before_the_login_costs_nothing(
        self, repository: Repository, sshd: SshServer, tmp_path: Path
    ) -> None:
        """A server that accepts no connection is tried again, once at a time."""
        with gate(sshd.port) as entrance:
            replica = over_ssh(sshd, repository, tmp_path / "cache", entrance.port)
            await check_kept(
                replica,
                repository,
                tmp_path / "cache",
                entrance.closed,
                lambda: entrance.connections,
                "the connection was closed before the login",
                "ssh: kex_exchange_identification",
            )

    async def test_the_offer_of_a_legacy_server_is_shown(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """The algorithms that the server offers are quoted, and what to do is said."""
        legacy = "KexAlgorithms diffie-hellman-group14-sha1\n"
        (tmp_path / "sshd").mkdir()
        with ssh_server(tmp_path / "sshd", legacy) as server:
            replica = over_ssh(server, repository, tmp_path / "cache")
            await replica.sync()
        await replica.aclose()

        assert "the server offers only legacy ssh algorithms" in replica.error
        assert "Their offer: diffie-hellman-group14-sha1" in replica.error

    async def test_the_greeting_of_a_server_does_not_hide_the_reason(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """A server that warns everybody is not taken for one that refuses."""
        (tmp_path / "greeting").write_text("Unauthorized access is forbidden!\n" * 20)
        (tmp_path / "sshd").mkdir()
        with ssh_server(tmp_path / "sshd", f"Banner {tmp_path / 'greeting'}\n") as server:
            replica = over_ssh(server, repository, tmp_path / "cache")
            await replica.sync()
            assert (replica.error, replica.commit) == ("", repository.head)
            with server.forced("echo 'ERROR: Repository not found.' >&2; exit 1"):
                await replica.sync()
        await replica.aclose()

        assert "the repository does not exist, or this key may not read it" in replica.error
        assert "ERROR: Repository not found." in replica.error

    @pytest.mark.parametrize(
        ("words", "advice"),
        [
            ("bash: fork: Cannot allocate memory", "the server lacks memory or processes"),
            ("fatal: write error: No space left on device", "the server cannot use its disk"),
            (f"error: object {'1f' * 20}: missingEmail", "accepted the SSH key, and refused"),
        ],
    )
    async def test_the_trouble_of_a_server_does_not_end_a_first_start(
        self, repository: Repository, sshd: SshServer, tmp_path: Path, words: str, advice: str
    ) -> None:
        """What the server's shell or Git prints is not blamed on this machine."""
        (tmp_path / "words").write_text(f"Welcome\n{words}\n")
        replica = over_ssh(sshd, repository, tmp_path / "cache")
        with sshd.forced(f"cat {tmp_path / 'words'} >&2; exit 128"):
            await replica.sync()
        check_refused(replica, words.removeprefix("fatal: "), advice)
        await replica.sync()
        assert (replica.error, replica.commit) == ("", repository.head)
        await replica.aclose()

    async def test_an_object_that_is_refused_over_ssh_is_lasting(
        self, repository: Repository, sshd: SshServer, tmp_path: Path
    ) -> None:
        """Git's own check of what arrived is told from the words of the server."""
        inner = repository.git("rev-parse", "HEAD^{tree}")
        tree = repository.make_tree(("40000", inner, b".git"))
        commit = repository.commit_tree(tree, "Out", repository.head)
        repository.git("update-ref", "refs/heads/main", commit)
        replica = over_ssh(sshd, repository, tmp_path / "cache")

        await replica.sync()

        assert "an object that Git's check refuses" in replica.error
        assert replica.syncer.lasting_error is not None
        await replica.aclose()

    async def test_a_missing_ssh_program_is_reported(
        self,
        repository: Repository,
        sshd: SshServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Without ssh, the error says what to install."""
        (tmp_path / "programs").mkdir()
        for name in ("git", "sh"):
            (tmp_path / "programs" / name).symlink_to(shutil.which(name) or name)
        monkeypatch.setenv("PATH", str(tmp_path / "programs"))
        replica = over_ssh(sshd, repository, tmp_path / "cache")

        await replica.sync()

        assert "the ssh command is not installed; install openssh-client" in replica.error
        await replica.aclose()

    async def test_a_user_id_without_a_name_is_reported(
        self,
        repository: Repository,
        sshd: SshServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Where ssh runs for a user without an entry in /etc/passwd, the error says so."""
        setpriv, ssh = shutil.which("setpriv"), shutil.which("ssh")
        if os.geteuid() != 0 or setpriv is None:
            missing("the right to change users", "run the tests as root, with util-linux")
        program = tmp_path / "programs" / "ssh"
        program.parent.mkdir()
        as_nobody = f"{setpriv} --reuid={_NOBODY} --regid={_NOBODY} --clear-groups"
        program.write_text(f'#!/bin/sh\nexec {as_nobody} {ssh} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        replica = over_ssh(sshd, repository, tmp_path / "cache")

        await replica.sync()

        assert "does not run under a user ID that has no entry in /etc/passwd" in replica.error
        assert f"No user exists for uid {_NOBODY}" in replica.error
        await replica.aclose()


SSO = (
    "The 'ops' organization has enabled or enforced SAML SSO.\n"
    "To access this repository, visit https://github.com/orgs/ops/sso\nand try again.\n"
)
PLAIN = {"Content-Type": "text/plain"}


class TestHttp:
    """Test http and https with a real server."""

    @pytest.fixture
    def server(self, repository: Repository) -> Iterator[HttpServer]:
        """Start an HTTP server that requires a token."""
        root = repository.folder.parent
        with http_server(root, user="x-access-token", password=TOKEN) as server:
            yield server

    @pytest.fixture
    def replica(self, server: HttpServer, tmp_path: Path) -> Follower:
        """Return a replica that reads from it."""
        credentials = tmp_path / "token"
        credentials.write_text(TOKEN)
        access = GitAccess(credentials_file=credentials)
        return Follower(server.url("origin"), tmp_path / "cache", access=access)

    @pytest.mark.parametrize(
        ("refusal", "words"),
        [
            ((401, {}, ""), ["the server refused the credentials; update"]),
            (
                (403, PLAIN, SSO),
                [
                    "the server's rules deny access; do what its message asks (403)",
                    "server: The 'ops' organization has enabled or enforced SAML SSO. / To access",
                    "and try again.",
                ],
            ),
            ((404, PLAIN, "Not Found"), ["or these credentials cannot see it; check the URL"]),
            ((429, {}, ""), ["the server is asked too often (429)"]),
            ((429, {"Retry-After": "90"}, ""), ["wants no request for 90 s"]),
            (
                (503, {"Retry-After": "5", **PLAIN}, "\n=====\nUpgrading the database\n=====\n"),
                ["not available for now (503)", "5 s", "server: Upgrading the database;"],
            ),
            ((502, {"Content-Type": "text/html"}, "<html>"), ["overloaded or failing (502)"]),
            ((302, {"Location": "/login"}, ""), ["redirects to another URL, which is not"]),
            (
                (200, {"Content-Type": "text/html"}, "<html>Log in</html>"),
                ["the response is not from a Git server, but a page of a website"],
            ),
        ],
        ids=["401", "sso", "404", "429", "retry-after", "maintenance", "502", "redirect", "page"],
    )
    async def test_a_server_that_refuses_costs_nothing(
        self,
        server: HttpServer,
        replica: Follower,
        repository: Repository,
        tmp_path: Path,
        refusal: tuple[int, dict[str, str], str],
        words: list[str],
    ) -> None:
        """The status and what the server says are reported, and the cache is kept."""
        await replica.sync()
        before = inode(tmp_path / "cache"), replica.active
        repository.write("disk.yaml", operario_file("disk", "2"))
        repository.commit("Second")
        server.refusal = refusal

        for _ in range(2):
            await replica.sync()

            check_refused(replica, *words)
            assert (inode(tmp_path / "cache"), replica.active) == before
        assert TOKEN not in replica.error
        server.refusal = None
        await replica.sync()
        assert (replica.error, replica.commit) == ("", repository.head)
        assert inode(tmp_path / "cache") == before[0]
        await replica.aclose()

    @pytest.mark.parametrize("fault", ["reset", "spoil"])
    async def test_a_broken_pack_costs_nothing(
        self,
        server: HttpServer,
        replica: Follower,
        repository: Repository,
        tmp_path: Path,
        fault: str,
    ) -> None:
        """A pack that is cut off or altered on its way is fetched again into the same cache."""
        await replica.sync()
        before = inode(tmp_path / "cache")
        repository.write("disk.yaml", operario_file("disk", "2"))
        repository.write("noise.bin", os.urandom(100_000))
        repository.commit("Second")
        setattr(server, fault, 5000)

        await replica.sync()

        assert "interrupted" in replica.error
        assert inode(tmp_path / "cache") == before
        setattr(server, fault, 0)
        await replica.sync()
        assert (replica.error, replica.commit) == ("", repository.head)
        assert inode(tmp_path / "cache") == before
        await replica.aclose()

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (407, "requires a user name and password; set --git-proxy-credentials-file (407)"),
            (403, "refuses to connect to the server (403); allow the server on the proxy"),
            (502, "cannot connect to the server (502)"),
        ],
    )
    async def test_a_refusing_proxy_is_named(
        self, repository: Repository, tmp_path: Path, status: int, words: str
    ) -> None:
        """What a proxy answers is not taken for the server's answer."""
        certificates = make_certificates(tmp_path)
        with ExitStack() as servers:
            proxy = servers.enter_context(connect_proxy())
            server = servers.enter_context(
                http_server(repository.folder.parent, certificate=certificates.server)
            )
            url = f"http://127.0.0.1:{proxy.port}"
            access = GitAccess(ca_file=certificates.ca, proxy=url)
            replica = Follower(server.url("origin"), tmp_path / "cache", access=access)
            await replica.sync()
            before = inode(tmp_path / "cache")
            proxy.status = status

            await replica.sync()

            assert f"the proxy {url} {words}" in replica.error
            assert inode(tmp_path / "cache") == before
            proxy.status = 0
            await replica.sync()
            assert replica.error == ""
            await replica.aclose()

    async def test_a_certificate_for_another_name_is_explained(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """The error says that the name differs, not that a CA is missing."""
        certificates = make_certificates(tmp_path)
        with http_server(repository.folder.parent, certificate=certificates.server) as server:
            url = server.url("origin").replace("127.0.0.1", "localhost")
            access = GitAccess(ca_file=certificates.ca)
            replica = Follower(url, tmp_path / "cache", access=access)
            await replica.sync()
            await replica.aclose()

        assert "the server's certificate is for another name" in replica.error
        assert "--git-ca-file" not in replica.error
