"""Connections to repositories: authentication, failures, deadlines, and leftovers."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from openfero_gitops.domain.errors import SourceError
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.process import Git, TooMuchOutput
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.descendants import command_and_environment, descendants, open_files, wait_gone
from tests.support.git_servers import (
    HttpServer,
    SshServer,
    http_server,
    make_certificates,
    make_key,
    raw_server,
    ssh_server,
)
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot

ACCESS = frozenset(field.name for field in dataclasses.fields(GitAccess))
PASSWORD = "s3cret/p@ss:w0rd %41"
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one operario."""
    repository = Repository(tmp_path / "origin")
    repository.write("a.yaml", "a: 1\n")
    repository.commit("First")
    return repository


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """Create a credentials file, in a folder whose name a shell would split."""
    file = tmp_path / "it's a $(mount)" / "credentials"
    file.parent.mkdir()
    file.write_text(f"ada:{PASSWORD}\n")
    return file


@pytest.fixture
def guarded(repository: Repository) -> Iterator[HttpServer]:
    """Start an HTTP server that requires a password."""
    with http_server(repository.folder.parent, user="ada", password=PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """Start an sshd for the tests."""
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def source(url: str, tmp_path: Path, **settings: Any) -> GitSource:
    """Create a source with a cache below a test's folder."""
    access = GitAccess(**{name: settings.pop(name) for name in ACCESS & settings.keys()})
    return GitSource(GitSettings(url=url, cache_dir=tmp_path / "cache", access=access, **settings))


async def fetch(url: str, tmp_path: Path, **settings: Any) -> Snapshot:
    """Fetch once with a new source."""
    made = source(url, tmp_path, **settings)
    try:
        return await made.fetch()
    finally:
        await made.aclose()


async def refusal(url: str, tmp_path: Path, **settings: Any) -> str:
    """Fetch once, expect failure, and return the one-line message."""
    with pytest.raises(SourceError) as refused:
        await fetch(url, tmp_path, **settings)
    text = str(refused.value)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 1000
    return text


def write(file: Path, text: str) -> None:
    """Replace a mounted file."""
    file.write_bytes(text.encode())


def remove(file: Path) -> None:
    """Remove a mounted file."""
    file.unlink()


def page(content_type: bytes) -> bytes:
    """Return a response of an unrelated server."""
    text = b"<html>\n<title>Please log in</title>\n</html>\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (content_type, len(text)) + text


class TestHttp:
    """Test http and https."""

    async def test_a_public_repository_is_read(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """A public repository is read without credentials, over Git's smart protocol."""
        with http_server(tmp_path) as server:
            snapshot = await fetch(server.url("origin"), tmp_path)

        assert snapshot.revision.commit == repository.head
        assert snapshot.revision.repository == server.url("origin")

    async def test_a_password_gives_access_to_a_private_repository(
        self, repository: Repository, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """Every character of the password is sent as it is in the file."""
        snapshot = await fetch(guarded.url("origin"), tmp_path, credentials_file=credentials)

        assert snapshot.revision.commit == repository.head

    @pytest.mark.parametrize(
        "line", ["t0ken-of-a-forge\n", "t0ken-of-a-forge", "t0ken-of-a-forge\r\n"]
    )
    async def test_a_token_gives_access_to_a_private_repository(
        self, repository: Repository, credentials: Path, tmp_path: Path, line: str
    ) -> None:
        """A file with a single word is a token, with any line ending."""
        write(credentials, line)
        with http_server(tmp_path, user="x-access-token", password="t0ken-of-a-forge") as server:
            snapshot = await fetch(server.url("origin"), tmp_path, credentials_file=credentials)

        assert snapshot.revision.commit == repository.head

    async def test_credentials_are_read_again_at_each_fetch(
        self, repository: Repository, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """A rotated secret is used without a restart, and a missing one is not fatal."""
        made = source(guarded.url("origin"), tmp_path, credentials_file=credentials)
        first = await made.fetch()
        guarded.password = "r0tated"
        with pytest.raises(SourceError, match="the server refused the credentials"):
            await made.fetch()
        write(credentials, "ada:r0tated\n")
        repository.write("a.yaml", "a: 2\n")

        commit = repository.commit("Second")

        assert (await made.fetch()).revision.commit == commit != first.revision.commit
        await made.aclose()

    async def test_wrong_credentials_are_reported_without_their_value(
        self, repository: Repository, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """The message about a rejected password names its file, not its value."""
        write(credentials, "ada:wr0ng-pass\n")

        text = await refusal(guarded.url("origin"), tmp_path, credentials_file=credentials)

        assert f"{guarded.url('origin')}: the server refused the credentials; update" in text
        assert "wr0ng-pass" not in text
        assert repository.head not in text

    async def test_missing_credentials_are_reported(
        self, repository: Repository, guarded: HttpServer, tmp_path: Path
    ) -> None:
        """Missing credentials are an error; nobody is prompted."""
        assert repository.head

        text = await refusal(guarded.url("origin"), tmp_path)

        assert "set --git-credentials-file" in text

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "No such file or directory"),
            ("", "the file is empty; it must contain user:password, or a token"),
            ("ada:\n", "contains no"),
        ],
    )
    async def test_an_unusable_credentials_file_is_reported(
        self,
        guarded: HttpServer,
        credentials: Path,
        tmp_path: Path,
        content: str | None,
        message: str,
    ) -> None:
        """A missing or empty secret is reported before anything is requested."""
        if content is None:
            remove(credentials)
        else:
            write(credentials, content)

        text = await refusal(guarded.url("origin"), tmp_path, credentials_file=credentials)

        assert text.startswith(str(credentials))
        assert message in text
        assert guarded.authorizations == []

    async def test_no_secret_is_in_the_words_or_the_surroundings_of_any_process(
        self, repository: Repository, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """While git uses credentials, no process has them in its arguments or environment."""
        guarded.gate.clear()
        made = source(guarded.url("origin"), tmp_path, credentials_file=credentials)
        before = descendants()
        fetching = asyncio.create_task(made.fetch())
        assert await asyncio.to_thread(guarded.waiting.wait, 10)

        seen = b"".join(command_and_environment(pid) for pid in descendants() - before)
        guarded.gate.set()
        snapshot = await fetching

        assert b"remote-http" in seen
        assert guarded.url("origin").encode() in seen
        assert PASSWORD.encode() not in seen
        assert b"s3cret" not in seen
        assert b"GIT_TERMINAL_PROMPT" in seen
        assert "s3cret" not in repr(snapshot.revision)
        kept = b"".join(
            file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file()
        )
        assert b"s3cret" not in kept
        assert repository.head == snapshot.revision.commit
        await made.aclose()

    async def test_a_missing_repository_is_reported(
        self, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """A 404 means a wrong address, or credentials without access."""
        text = await refusal(guarded.url("nowhere"), tmp_path, credentials_file=credentials)

        assert "the repository does not exist, or these credentials cannot see it" in text

    async def test_the_url_of_a_page_leads_to_its_repository(
        self, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """A URL that was copied from a browser is reported with the one that is meant."""
        page = guarded.url("origin/-/tree/main/operarios")
        text = await refusal(page, tmp_path, credentials_file=credentials)

        meant = guarded.url("origin")
        assert f"the URL looks like that of a web page: the repository may be {meant} (" in text

    async def test_a_redirect_to_another_host_is_refused(
        self, repository: Repository, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """A redirect cannot send the credentials to another host."""
        with http_server(repository.folder.parent) as elsewhere:
            guarded.redirect_to = f"http://127.0.0.1:{elsewhere.port}"
            text = await refusal(guarded.url("origin"), tmp_path, credentials_file=credentials)

        assert "the server redirects to another URL, which is not followed" in text
        assert elsewhere.hosts == []

    async def test_a_proxy_is_used_where_it_is_configured(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """The request goes to the proxy, for a host that cannot be resolved locally."""
        with http_server(tmp_path) as proxy:
            snapshot = await fetch(
                "http://git.invalid/origin", tmp_path, proxy=f"http://127.0.0.1:{proxy.port}"
            )

        assert snapshot.revision.commit == repository.head
        assert set(proxy.hosts) == {"git.invalid"}

    async def test_the_proxy_of_the_environment_is_not_used(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only the configured proxy is used, on every machine."""
        for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        with http_server(tmp_path) as server:
            snapshot = await fetch(server.url("origin"), tmp_path)

        assert snapshot.revision.commit == repository.head

    async def test_a_certificate_needs_its_ca(self, repository: Repository, tmp_path: Path) -> None:
        """A server certificate of a private CA is trusted only with the CA's file."""
        certificates = make_certificates(tmp_path)
        (tmp_path / "other").mkdir()
        foreign = make_certificates(tmp_path / "other")
        with http_server(tmp_path, certificate=certificates.server) as server:
            url = server.url("origin")
            untrusted = await refusal(url, tmp_path)
            wrong = await refusal(url, tmp_path, ca_file=foreign.ca)
            snapshot = await fetch(url, tmp_path, ca_file=certificates.ca)

        assert "the TLS connection failed" in untrusted
        assert "the TLS connection failed" in wrong
        assert snapshot.revision.commit == repository.head

    async def test_plain_http_behind_https_is_no_tls(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """No plain-text connection is made to a port that does not speak TLS."""
        assert repository.head
        with http_server(tmp_path) as server:
            text = await refusal(f"https://127.0.0.1:{server.port}/origin", tmp_path)

        assert "the TLS connection failed" in text

    async def test_a_commit_is_found_if_the_server_serves_branches_only(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """If a commit cannot be fetched by its id, it is searched for on the branches."""
        first = repository.head
        repository.write("a.yaml", "a: 2\n")
        repository.commit("Second")
        repository.git("config", "uploadpack.allowAnySHA1InWant", "false")
        with http_server(tmp_path) as server:
            server.old_protocol = True
            snapshot = await fetch(server.url("origin"), tmp_path, ref=first)
            missing = await refusal(server.url("origin"), tmp_path, ref="e" * 40)

        assert [file.content for file in snapshot.files] == [b"a: 1\n"]
        assert "there is no commit " + "e" * 40 in missing

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (b"", "the connection was interrupted"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf",
                "the connection was interrupted",
            ),
            (b"\x1b[31mgarbage\x07" * 200, "not from a Git server"),
            (page(b"text/html"), "not from a Git server"),
            (page(b"application/x-git-upload-pack-advertisement"), "not from a Git server"),
            (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "denies access (403)"),
            (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", "asked too often (429)"),
            (b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n", "overloaded or failing"),
        ],
        ids=["nothing", "half", "noise", "page", "page-as-git", "403", "429", "503"],
    )
    async def test_a_malformed_response_is_reported(
        self, tmp_path: Path, answer: bytes, message: str
    ) -> None:
        """Any malformed response yields a one-line error, and the cache stays intact."""
        with raw_server(answer) as port:
            text = await refusal(f"http://127.0.0.1:{port}/origin", tmp_path, timeout=20)

        assert message in text

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("http://127.0.0.1:1/origin", "cannot connect; check"),
            ("https://no-such-host.invalid/origin", "the host name cannot be resolved"),
        ],
    )
    async def test_an_unreachable_server_is_reported(
        self, tmp_path: Path, url: str, message: str
    ) -> None:
        """A closed port and an unknown host have different messages."""
        assert message in await refusal(url, tmp_path)


class TestSsh:
    """Test ssh."""

    async def test_a_key_gives_access_to_a_repository(
        self, repository: Repository, sshd: SshServer, tmp_path: Path
    ) -> None:
        """The key and the host key suffice, with either form of address."""
        settings = {"ssh_key_file": sshd.key, "known_hosts_file": sshd.known_hosts}

        snapshot = await fetch(sshd.url(repository.folder), tmp_path, **settings)

        assert snapshot.revision.commit == repository.head
        missing = await refusal(sshd.url(tmp_path / "nowhere"), tmp_path, **settings)
        assert "the repository does not exist" in missing

    async def test_a_rejected_key_is_reported(
        self, repository: Repository, sshd: SshServer, tmp_path: Path
    ) -> None:
        """No password is requested, no agent used, no other key tried."""
        make_key(tmp_path / "stranger")

        text = await refusal(
            sshd.url(repository.folder),
            tmp_path,
            ssh_key_file=tmp_path / "stranger",
            known_hosts_file=sshd.known_hosts,
        )

        assert "the server refused the SSH key" in text

    @pytest.mark.parametrize("listed", ["other", "elsewhere"])
    async def test_an_unknown_host_key_is_refused(
        self, repository: Repository, sshd: SshServer, tmp_path: Path, listed: str
    ) -> None:
        """A server without an entry in known_hosts, or with a different key, is not trusted."""
        make_key(tmp_path / "other")
        entry = f"[127.0.0.1]:{sshd.port} {(tmp_path / 'other.pub').read_text()}"
        elsewhere = f"git.example {(tmp_path / 'other.pub').read_text()}"
        (tmp_path / "known_hosts").write_text(entry if listed == "other" else elsewhere)

        text = await refusal(
            sshd.url(repository.folder),
            tmp_path,
            ssh_key_file=sshd.key,
            known_hosts_file=tmp_path / "known_hosts",
        )

        expected = {
            "other": "the server's host key is not the one in the known_hosts file",
            "elsewhere": "the server's host key is not in the known_hosts file",
        }
        assert expected[listed] in text

    async def test_an_unusable_key_is_reported(
        self, repository: Repository, sshd: SshServer, tmp_path: Path
    ) -> None:
        """An invalid key file, one readable by all and a missing one have different messages."""
        garbage, shared = tmp_path / "garbage", tmp_path / "shared"
        garbage.write_text("no key\n")
        garbage.chmod(0o600)
        shared.write_bytes(sshd.key.read_bytes())
        shared.chmod(0o644)

        errors = {
            file.name: await refusal(
                sshd.url(repository.folder),
                tmp_path,
                ssh_key_file=file,
                known_hosts_file=sshd.known_hosts,
            )
            for file in (garbage, shared, tmp_path / "absent")
        }

        assert "the file contains no private SSH key" in errors["garbage"]
        assert "other users can read this private key (mode 0644)" in errors["shared"]
        assert "absent: No such file or directory" in errors["absent"]

    async def test_a_server_that_is_not_an_sshd_is_reported(
        self, sshd: SshServer, tmp_path: Path
    ) -> None:
        """A server that sends noise is not an SSH server."""
        with raw_server(b"noise\r\n" * 100) as port:
            text = await refusal(
                f"ssh://git@127.0.0.1:{port}/x",
                tmp_path,
                ssh_key_file=sshd.key,
                known_hosts_file=sshd.known_hosts,
            )

        assert "the connection was closed before the login" in text


class TestDeadline:
    """Test that everything that was started is ended."""

    @pytest.mark.parametrize("scheme", ["http", "https", "ssh"])
    async def test_a_server_that_stalls_is_given_up_with_everything_that_waits_for_it(
        self, sshd: SshServer, tmp_path: Path, scheme: str
    ) -> None:
        """After the deadline the error is reported, and no process of the group remains."""
        settings: dict[str, Any] = {}
        if scheme == "ssh":
            settings = {"ssh_key_file": sshd.key, "known_hosts_file": sshd.known_hosts}
        with raw_server(None) as port:
            user = "git@" if scheme == "ssh" else ""
            made = source(f"{scheme}://{user}127.0.0.1:{port}/x", tmp_path, timeout=3, **settings)
            before = descendants()
            began = time.monotonic()
            fetching = asyncio.create_task(made.fetch())
            started: set[int] = set()
            while not fetching.done():
                started |= descendants() - before
                await asyncio.sleep(0.1)
            took = time.monotonic() - began
            with pytest.raises(SourceError, match="git did not finish within 3 s and was stopped"):
                await fetching

        assert len(started) >= 2
        assert wait_gone(started) == set()
        assert took < 60
        await made.aclose()

    async def test_a_stall_during_a_fetch_keeps_the_cache(
        self, repository: Repository, guarded: HttpServer, credentials: Path, tmp_path: Path
    ) -> None:
        """A server that stalls during a later fetch does not affect the cache."""
        url, access = guarded.url("origin"), {"credentials_file": credentials}
        made = source(url, tmp_path, **access)
        hasty = source(url, tmp_path, **access, timeout=1.5)
        before = await made.fetch()
        repository.write("a.yaml", "a: 2\n")
        commit = repository.commit("Second")
        guarded.gate.clear()

        with pytest.raises(SourceError, match=r"did not finish within 1\.5 s"):
            await hasty.fetch()

        assert await made.snapshot(before.revision.commit) == before
        guarded.gate.set()
        assert (await made.fetch()).revision.commit == commit
        await made.aclose()
        await hasty.aclose()

    async def test_a_cancelled_fetch_ends_its_children_before_it_returns(
        self, tmp_path: Path
    ) -> None:
        """Cancelling a fetch returns at once and leaves no processes."""
        before, files = descendants(), open_files()
        with raw_server(None) as port:
            made = source(f"http://127.0.0.1:{port}/x", tmp_path, timeout=60)
            fetching = asyncio.create_task(made.fetch())
            started: set[int] = set()
            while not started:
                await asyncio.sleep(0.05)
                started = descendants() - before
            began = time.monotonic()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching

            assert time.monotonic() - began < 40
            assert started
            assert wait_gone(started) == set()
        await made.aclose()
        assert open_files() == files

    async def test_closing_ends_a_running_fetch(self, tmp_path: Path) -> None:
        """Closing a source during a fetch leaves no processes and files."""
        with raw_server(None) as port:
            made = source(f"http://127.0.0.1:{port}/x", tmp_path, timeout=60)
            before = descendants()
            fetching = asyncio.create_task(made.fetch())
            started: set[int] = set()
            while not started:
                await asyncio.sleep(0.05)
                started = descendants() - before
            began = time.monotonic()
            await made.aclose()

            assert time.monotonic() - began < 40
            assert wait_gone(started) == set()
            with pytest.raises(SourceError, match="was stopped"):
                await fetching

    async def test_the_event_loop_goes_on_while_git_works(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """No call of a fetch blocks the event loop: each runs in a thread."""
        made = source(repository.url, tmp_path)

        with blockbuster_ctx():
            before = await made.fetch()
            older = await made.versions("a.yaml", before.revision.commit)
            await made.is_ancestor(before.revision.commit, before.revision.commit)
            await made.aclose()
            with pytest.raises(BlockingError):
                time.sleep(0.001)  # noqa: ASYNC251 - the detector is awake

        assert older == []


class TestChildren:
    """Test the process group of a command."""

    @staticmethod
    def git(timeout: float = 20, stop: threading.Event | None = None) -> Git:
        """Create a Git that may run anything, as an alias."""
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C"}
        return Git("here", environment, timeout, stop or threading.Event())

    def test_a_child_that_ignores_the_first_signal_gets_the_second(self) -> None:
        """SIGKILL follows a SIGTERM that is ignored."""
        before = descendants()
        began = time.monotonic()
        script = "!trap '' TERM; while :; do sleep 60; done"

        with pytest.raises(SourceError, match=r"did not finish within 0\.3 s"):
            self.git(0.3).run("-c", f"alias.x={script}", "x")

        assert time.monotonic() - began < 40
        assert wait_gone(descendants() - before) == set()

    def test_processes_left_by_a_child_are_ended(self) -> None:
        """A command is finished when its leader is, even if another process holds its pipes."""
        before = descendants()
        began = time.monotonic()

        finished = self.git().run("-c", "alias.x=!sleep 60 & echo done", "x")

        assert (finished.code, finished.stdout) == (0, b"done\n")
        assert time.monotonic() - began < 40
        assert wait_gone(descendants() - before) == set()

    def test_a_child_that_escaped_its_group_does_not_block(self) -> None:
        """The pipes of an escaped process are closed on our side, and the command is finished."""
        began = time.monotonic()

        finished = self.git().run("-c", "alias.x=!setsid sleep 60 & echo done", "x")

        assert finished.stdout == b"done\n"
        assert time.monotonic() - began < 40

    def test_no_zombie_is_left_where_this_process_is_init(self) -> None:
        """Orphans that are reparented to this process, as in a container, are reaped."""
        script = (
            "import ctypes, pathlib, threading\n"
            "from openfero_gitops.sources.git.process import Git\n"
            "from openfero_gitops.domain.errors import SourceError\n"
            "from tests.support.descendants import descendants\n"
            f"assert ctypes.CDLL(None).prctl({PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0) == 0\n"
            "environment = {'PATH': '/usr/bin:/bin', 'HOME': '/nonexistent'}\n"
            "git = Git('here', environment, 0.3, threading.Event())\n"
            "try:\n"
            "    git.run('-c', 'alias.x=!(sleep 60 & sleep 60) & sleep 60', 'x')\n"
            "except SourceError as error:\n"
            "    print(error)\n"
            "print(descendants())\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, timeout=120, check=True
        )

        message, left = ran.stdout.decode().splitlines()
        assert "did not finish within 0.3 s" in message
        assert left == "set()"

    def test_a_child_with_endless_output_is_stopped(self) -> None:
        """Unlimited output on either stream cannot fill the memory."""
        with pytest.raises(TooMuchOutput):
            self.git().run("-c", "alias.x=!yes", "x", max_bytes=100_000)

        with pytest.raises(SourceError, match="did not finish"):
            self.git(0.5).run("-c", "alias.x=!yes >&2", "x")

    def test_the_end_of_a_long_message_is_kept(self) -> None:
        """The end of git's messages is kept, because it has the cause."""
        finished = self.git().run("-c", "alias.x=!seq 100000 >&2; exit 3", "x")

        assert finished.code == 3
        assert finished.stderr.endswith("99999\n100000\n")
        assert len(finished.stderr) <= 1 << 16

    @pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
    def test_input_and_output_are_concurrent(self, size: int) -> None:
        """Writing and reading are concurrent, whatever the size of the pipes."""
        sent = b"0123456789" * (size // 10)

        finished = self.git().run("-c", "alias.x=!cat", "x", stdin=sent, max_bytes=4_000_000)

        assert finished.stdout == sent

    def test_a_child_that_does_not_read_is_not_an_error(self) -> None:
        """A command may end before it has read all of its input."""
        finished = self.git().run("-c", "alias.x=!exit 5", "x", stdin=b"x" * 1_000_000)

        assert finished.code == 5

    def test_an_operation_stopped_before_it_began(self) -> None:
        """An operation that was stopped before it began does nothing."""
        stop = threading.Event()
        stop.set()

        with pytest.raises(SourceError, match="was stopped"):
            self.git(20, stop).run("-c", "alias.x=!sleep 60", "x")

    def test_a_file_cannot_grow_beyond_its_limit(self, tmp_path: Path) -> None:
        """The file size limit applies to every process of the group."""
        file = tmp_path / "file"

        finished = self.git().run("-c", f"alias.x=!yes > {file}", "x", file_blocks=200)

        assert finished.code != 0
        assert file.stat().st_size == 200 * 512
