"""Files of keys, certificates and credentials, with real servers, as their users have them."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cli import main
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.certificates import Authority
from tests.support.git_servers import (
    Certificates,
    http_server,
    make_certificates,
    make_key,
    ssh_server,
)
from tests.support.replica import operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.git_servers import HttpServer, SshServer

BOM = b"\xef\xbb\xbf"
TOKEN = "t0ken-of-a-forge"
#: Makes a folder from which nothing can be executed, and runs a command that knows it as $TMPDIR.
NOEXEC = 'mount -t tmpfs -o noexec,mode=1777 none "$TMPDIR" && exec "$@"'


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with an operario."""
    repository = Repository(tmp_path / "served" / "origin")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Heal hosts")
    return repository


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """Run a server that accepts one key."""
    with ssh_server(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make the certificate of an https server."""
    return make_certificates(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a CA for clients."""
    return Authority(tmp_path_factory.mktemp("clients"), "clients")


@pytest.fixture
def demanding(
    repository: Repository, certificates: Certificates, clients: Authority
) -> Iterator[HttpServer]:
    """Serve the repository to clients with a certificate of this CA."""
    with http_server(
        repository.folder.parent, certificate=certificates.server, client_ca=clients.certificate
    ) as server:
        yield server


async def fetch(url: str, tmp_path: Path, **access: Any) -> str:
    """Fetch once; return the commit."""
    source = GitSource(GitSettings(url, tmp_path / "cache", access=GitAccess(**access)))
    try:
        return (await source.fetch()).revision.commit
    finally:
        await source.aclose()


async def refusal(url: str, tmp_path: Path, **access: Any) -> str:
    """Fetch once, expect failure, and return the one-line message."""
    with pytest.raises(SourceError) as refused:
        await fetch(url, tmp_path, **access)
    text = str(refused.value)
    assert "\n" not in text
    return text


def write(file: Path, content: bytes) -> Path:
    """Write a file that only this user can read."""
    file.write_bytes(content)
    file.chmod(0o600)
    return file


# ssh


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: BOM + content.replace(b"\n", b"\r\n"),
        lambda content: content.rstrip(b"\n"),
        lambda content: b"\n\n   " + content.replace(b"\n", b"\n   ") + b"\n\n",
    ],
    ids=["crlf", "bom", "no-newline", "indented"],
)
async def test_ssh_files_with_traces_of_editors_work(
    repository: Repository, sshd: SshServer, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    """A key and host keys that an editor saved are used, from copies that are private."""
    commit = await fetch(
        sshd.url(repository.folder),
        tmp_path,
        ssh_key_file=write(tmp_path / "key", spoil(sshd.key.read_bytes())),
        known_hosts_file=write(tmp_path / "hosts", spoil(sshd.known_hosts.read_bytes())),
    )

    assert commit == repository.head
    for copy in (tmp_path / "cache").rglob("repaired-*"):
        assert copy.stat().st_mode & 0o077 == 0


async def test_a_repaired_file_keeps_its_name_in_errors(
    repository: Repository, sshd: SshServer, tmp_path: Path
) -> None:
    """Where ssh names the copy of a known_hosts file, the error names the file of the setting."""
    make_key(tmp_path / "other")
    host = sshd.known_hosts.read_text().split()[0]
    kind, key = (tmp_path / "other.pub").read_text().split()[:2]
    hosts = write(tmp_path / "hosts", f"{host} {kind} {key}\r\n".encode())

    error = await refusal(
        sshd.url(repository.folder), tmp_path, ssh_key_file=sshd.key, known_hosts_file=hosts
    )

    assert f"key in {hosts}:1" in error
    assert "repaired-" not in error


async def test_a_key_in_order_is_not_copied(
    repository: Repository, sshd: SshServer, tmp_path: Path
) -> None:
    """Nothing of a private key is written to the cache if it needs no repair."""
    await fetch(
        sshd.url(repository.folder),
        tmp_path,
        ssh_key_file=sshd.key,
        known_hosts_file=sshd.known_hosts,
    )

    copies = (tmp_path / "cache").rglob("repaired-*")
    assert not any(b"PRIVATE KEY" in copy.read_bytes() for copy in copies)


async def test_a_key_is_read_again(repository: Repository, sshd: SshServer, tmp_path: Path) -> None:
    """An unusable key is a failed fetch with its cause; the next one uses the corrected file."""
    key = write(tmp_path / "key", sshd.key.read_bytes())
    access = GitAccess(ssh_key_file=key, known_hosts_file=sshd.known_hosts)
    url = sshd.url(repository.folder)
    source = GitSource(GitSettings(url, tmp_path / "cache", access=access))
    first = await source.fetch()
    for content, cause in (
        (b"", "the file is empty"),
        (sshd.key.with_suffix(".pub").read_bytes(), "the file contains the public key"),
        (sshd.key.read_bytes()[:200], "is cut off"),
    ):
        write(key, content)
        with pytest.raises(SourceError, match=f"{key}: .*{cause}"):
            await source.fetch()
        assert await source.snapshot(first.revision.commit) == first
    write(key, sshd.key.read_bytes().replace(b"\n", b"\r\n"))

    assert await source.fetch() == first
    await source.aclose()


@pytest.mark.parametrize(
    ("user", "accepted"),
    [
        ("git", True),
        ("ada@example.com", True),
        ("deploy+shop", True),
        ("CORP\\ada", True),
        ("ada%40example.com", True),
        ("deploy%2Bshop", True),
        ("org-1234567", True),
        ("-oProxyCommand=x", False),
        ("ada:s3cret", False),
        ("ada b", False),
        ("ada%20b", False),
        ("ada'b", False),
        ("$(id)", False),
    ],
)
def test_user_names_of_ssh(user: str, accepted: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Names of directory services and forges are accepted, and nothing that a shell expands."""
    access = GitAccess(ssh_key_file=tmp_path / "key", known_hosts_file=tmp_path / "hosts")
    forms = [f"ssh://{user}@git.example/shop/operarios.git"]
    if "%" not in user:
        forms.append(f"{user}@git.example:shop/operarios.git")
    for url in forms:
        settings = GitSettings(url, tmp_path / "cache", access=access)
        if accepted:
            GitSource(settings)
        else:
            with pytest.raises(UsageError) as refused:
                GitSource(settings)
            assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("user", ["ada@example.com", "deploy+shop", "CORP\\ada", "a%40b%2Bc"])
async def test_a_user_name_reaches_the_server(sshd: SshServer, tmp_path: Path, user: str) -> None:
    """Git sends this user name to the server, and no other."""
    text = await refusal(
        f"ssh://{user}@127.0.0.1:{sshd.port}/x",
        tmp_path,
        ssh_key_file=sshd.key,
        known_hosts_file=sshd.known_hosts,
    )

    assert re.search("refused|denied", text)
    asked = user.replace("%40", "@").replace("%2B", "+")
    log = sshd.known_hosts.with_name("sshd.log").read_text()
    assert f"user {asked} " in log.replace("\\\\", "\\")


# https


async def test_a_client_certificate_is_shown(
    repository: Repository,
    demanding: HttpServer,
    certificates: Certificates,
    clients: Authority,
    tmp_path: Path,
) -> None:
    """A server that demands client certificates serves those who have one."""
    certificate, key = clients.issue("ada")
    url, ca = demanding.url("origin"), {"ca_file": certificates.ca}
    pair = {"client_cert_file": certificate, "client_key_file": key}

    assert await fetch(url, tmp_path, **ca, **pair) == repository.head
    # (The server closes the connection. Whether its alert is seen before that depends on the time.)
    text = await refusal(url, tmp_path, **ca)
    assert re.search("it may require a client certificate|the connection was interrupted", text)


async def test_certificates_with_traces_of_editors_work(
    repository: Repository,
    demanding: HttpServer,
    certificates: Certificates,
    clients: Authority,
    tmp_path: Path,
) -> None:
    """The CA, the certificate and its key are used whatever editor saved them."""

    def spoilt(name: str, file: Path) -> Path:
        content = BOM + b"\n\n  " + file.read_bytes().replace(b"\n", b" \r\n  ").rstrip()
        return write(tmp_path / name, content)

    certificate, key = clients.issue("ada")
    commit = await fetch(
        demanding.url("origin"),
        tmp_path,
        ca_file=spoilt("ca", certificates.ca),
        client_cert_file=spoilt("certificate", certificate),
        client_key_file=spoilt("key", key),
    )

    assert commit == repository.head


async def test_certificate_files_are_checked_before_the_server_is_asked(
    demanding: HttpServer, certificates: Certificates, clients: Authority, tmp_path: Path
) -> None:
    """Each file is named with its cause, and no connection is made."""
    certificate, key = clients.issue("ada")
    _, other = clients.issue("bob")
    _, locked = clients.issue("locked", passphrase="s3cret")
    expired = write(tmp_path / "expired", certificates.expired.read_bytes())
    chain = write(tmp_path / "chain", expired.read_bytes() + certificate.read_bytes())
    der = write(tmp_path / "der", ssl.PEM_cert_to_DER_cert(certificates.ca.read_text()))
    good = {
        "ca_file": certificates.ca,
        "client_cert_file": certificate,
        "client_key_file": key,
    }
    for changed, cause in (
        ({"client_key_file": other}, f"{other}: the key does not belong to the certificate"),
        ({"client_key_file": locked}, f"{locked}: the key has a passphrase"),
        ({"client_key_file": certificate}, f"{certificate}: the file contains no private key, but"),
        (
            {"client_cert_file": expired, "client_key_file": expired},
            f"{expired}: the certificate has expired, on 20",
        ),
        (
            {"client_cert_file": chain, "client_key_file": expired},
            f"{chain}: the first certificate in the file has expired, on 20",
        ),
        ({"client_cert_file": key}, f"{key}: the file contains no certificate, but a private key"),
        ({"client_cert_file": tmp_path / "no"}, f"{tmp_path / 'no'}: No such file or directory"),
        ({"client_cert_file": tmp_path}, f"{tmp_path}: is a directory"),
        ({"ca_file": der}, f"{der}: the file is in binary DER format; convert it to PEM with"),
        ({"ca_file": key}, f"{key}: the file contains no certificate, but a private key"),
    ):
        text = await refusal(demanding.url("origin"), tmp_path, **{**good, **changed})
        assert text.startswith(cause)

    assert demanding.hosts == []


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        (
            "https://h/p",
            {"client_cert_file": "c"},
            "--git-client-cert-file and --git-client-key-file require each other",
        ),
        ("https://h/p", {"client_key_file": "k"}, "require each other"),
        (
            "http://h/p",
            {"client_cert_file": "c", "client_key_file": "k"},
            "--git-client-cert-file and --git-client-key-file are only for https URLs",
        ),
        ("http://h/p", {"ca_file": "c"}, "--git-ca-file is only for https URLs"),
    ],
)
def test_a_certificate_needs_its_key_and_https(
    url: str, settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    """What cannot work is said before any connection."""
    access = GitAccess(**{name: tmp_path / value for name, value in settings.items()})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        GitSource(GitSettings(url, tmp_path / "cache", access=access))


# Commands


def test_nothing_needs_to_be_executed_from_a_folder(repository: Repository, tmp_path: Path) -> None:
    """With a temporary folder that is mounted noexec, credentials reach the server."""
    credentials = write(tmp_path / "credentials", f"{TOKEN}\n".encode())
    folder = tmp_path / "noexec"
    folder.mkdir()
    mounted = ["unshare", "--map-root-user", "--mount", "sh", "-c", NOEXEC, "sh"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    allowed = subprocess.run([*mounted, "true"], env=environment, check=False, timeout=120)
    with http_server(repository.folder.parent, user="x-access-token", password=TOKEN) as server:
        command = [sys.executable, "-m", "openfero_gitops", "validate", server.url("origin")]
        ran = subprocess.run(
            [
                *(mounted if allowed.returncode == 0 else ()),
                *command,
                *("--git-credentials-file", str(credentials)),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("1 valid operario,")


async def test_no_program_is_written(repository: Repository, tmp_path: Path) -> None:
    """No file in the cache is executable."""
    credentials = write(tmp_path / "credentials", f"{TOKEN}\n".encode())
    with http_server(repository.folder.parent, user="x-access-token", password=TOKEN) as server:
        await fetch(server.url("origin"), tmp_path, credentials_file=credentials)

    files = [file for file in (tmp_path / "cache").rglob("*") if not file.is_symlink()]
    assert [file for file in files if file.is_file() and os.access(file, os.X_OK)] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ada\ns3cret\n", "line 1 has no colon, and another line follows; write user:password"),
        ("ada:s3cret".encode("utf-16"), "the file is UTF-16 text; save it as UTF-8"),
        (b"https://ada:s3cret@git.example", "line 1 is a URL; write user:password, or a token"),
    ],
)
def test_a_command_names_the_file_and_the_cause(
    content: bytes,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The author reads one line, without the secret."""
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)
    file = write(tmp_path / "credentials", content)

    code = main(["validate", "https://git.invalid/x", "--git-credentials-file", str(file)])

    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"openfero-gitops: {file}: {message}")
    assert "s3cret" not in error
