"""Git through proxies: tunnels, SOCKS, and credentials of their own."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.descendants import command_and_environment, descendants
from tests.support.git_servers import Certificates, connect_proxy, http_server, make_certificates
from tests.support.repository import Repository
from tests.support.socks import socks_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.git_servers import HttpServer

PASSWORD = "pr0xy/p@ss:w0rd"
TOKEN = "t0ken-of-a-forge"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with a commit."""
    repository = Repository(tmp_path / "origin")
    repository.write("a.yaml", "a: 1\n")
    repository.commit("First")
    return repository


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make the certificate of the server."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(
    repository: Repository, certificates: Certificates, tmp_path: Path
) -> Iterator[HttpServer]:
    """Serve the repository over https, with a token of its own."""
    assert repository.head
    with http_server(
        tmp_path, user="x-access-token", password=TOKEN, certificate=certificates.server
    ) as server:
        yield server


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> dict[str, Path]:
    """Write the files for the server and for the proxy."""
    (tmp_path / "forge").write_text(f"{TOKEN}\n")
    (tmp_path / "proxy").write_text(f"\ufeffada:{PASSWORD} \r\n")
    return {
        "ca_file": certificates.ca,
        "credentials_file": tmp_path / "forge",
        "proxy_credentials_file": tmp_path / "proxy",
    }


async def fetch(url: str, tmp_path: Path, **access: Path | str) -> str:
    """Fetch once; return the commit."""
    settings = GitAccess(**access)  # type: ignore[arg-type]
    source = GitSource(GitSettings(url, tmp_path / "cache", access=settings))
    try:
        return (await source.fetch()).revision.commit
    finally:
        await source.aclose()


@pytest.mark.parametrize("scheme", ["http", "http-closing", "socks5h", "socks5"])
async def test_a_proxy_has_credentials_of_its_own(
    repository: Repository,
    server: HttpServer,
    files: dict[str, Path],
    tmp_path: Path,
    scheme: str,
) -> None:
    """The proxy and the forge each get their own credentials, and neither those of the other."""
    proxied: Callable[..., Any] = connect_proxy if scheme.startswith("http") else socks_proxy
    if scheme == "http-closing":
        scheme, proxied = "http", functools.partial(connect_proxy, closes=True)
    with proxied("ada", PASSWORD) as proxy:
        url = server.url("origin")
        commit = await fetch(url, tmp_path, proxy=f"{scheme}://127.0.0.1:{proxy.port}", **files)

    assert commit == repository.head
    assert set(proxy.requests) == {url.split("/")[2]}
    assert PASSWORD not in "".join(server.authorizations)


async def test_a_socks_proxy_resolves_the_name(repository: Repository, tmp_path: Path) -> None:
    """With socks5h, a name that only the proxy can resolve is enough."""
    with http_server(tmp_path) as server, socks_proxy() as proxy:
        commit = await fetch(
            f"http://git.invalid:{server.port}/origin",
            tmp_path,
            proxy=f"socks5h://127.0.0.1:{proxy.port}",
        )

    assert commit == repository.head
    assert set(proxy.requests) == {f"git.invalid:{server.port}"}


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize("given", ["wrong", "none"])
async def test_a_proxy_that_refuses_is_named(
    server: HttpServer, files: dict[str, Path], tmp_path: Path, scheme: str, given: str
) -> None:
    """The error names the proxy and its file of credentials, not those of the forge."""
    proxied = connect_proxy if scheme == "http" else socks_proxy
    files["proxy_credentials_file"].write_text("ada:wr0ng\n")
    if given == "none":
        del files["proxy_credentials_file"]
    with proxied("ada", PASSWORD) as proxy:
        way = f"{scheme}://127.0.0.1:{proxy.port}"
        with pytest.raises(SourceError) as refused:
            await fetch(server.url("origin"), tmp_path, proxy=way, **files)

    message = {
        ("http", "wrong"): "refuses the user name and password of --git-proxy-credentials-file",
        ("http", "none"): "requires a user name and password; set --git-proxy-credentials-file",
    }.get((scheme, given), "the SOCKS proxy refused the connection; check --git-proxy, the user")
    assert message in str(refused.value)
    assert "--git-credentials-file" not in str(refused.value)
    assert "wr0ng" not in str(refused.value)
    assert proxy.requests == server.authorizations == []


async def test_an_unusable_file_of_the_proxy_is_named(
    server: HttpServer, files: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing is asked for when the file of the proxy's credentials is not usable."""
    files["proxy_credentials_file"].write_text("http://ada:s3cret@proxy:3128\n")
    with connect_proxy() as proxy:
        way = f"http://127.0.0.1:{proxy.port}"
        with pytest.raises(SourceError) as refused:
            await fetch(server.url("origin"), tmp_path, proxy=way, **files)

    assert str(refused.value).startswith(f"{files['proxy_credentials_file']}: line 1 is a URL")
    assert "s3cret" not in str(refused.value)
    assert proxy.requests == []


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        ("https://h/p", {"proxy": "proxy:3128"}, "--git-proxy 'proxy:3128': must be http://"),
        ("https://h/p", {"proxy": "socks4://p:1080"}, "or socks5h://host:port"),
        ("https://h/p", {"proxy": "socks://p:1080"}, "or socks5h://host:port"),
        (
            "https://h/p",
            {"proxy": "socks5h://ada:s3cret@p:1080"},
            "put the user name and password into the file of --git-proxy-credentials-file",
        ),
        ("https://h/p", {"proxy_credentials_file": "p"}, "requires --git-proxy"),
        (
            "ssh://git@h/p",
            {"proxy": "socks5h://p:1080", "ssh_key_file": "k", "known_hosts_file": "h"},
            "--git-proxy is only for https URLs; ssh connects directly, so use",
        ),
        ("/srv/x", {"proxy": "http://p:1", "ca_file": "c"}, "--git-proxy is only for https URLs"),
    ],
)
def test_what_is_not_supported_is_said(
    url: str, settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    """Before any connection, one sentence says what can be used instead, without a password."""
    access = {
        name: tmp_path / value if name.endswith("_file") else value
        for name, value in settings.items()
    }
    with pytest.raises(UsageError) as refused:
        GitSource(GitSettings(url, tmp_path, access=GitAccess(**access)))  # type: ignore[arg-type]

    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)


async def test_the_passwords_are_in_no_arguments(
    repository: Repository, server: HttpServer, files: dict[str, Path], tmp_path: Path
) -> None:
    """While git uses a proxy, no process has a password in its arguments or environment."""
    server.gate.clear()
    before = descendants()
    with connect_proxy("ada", PASSWORD) as proxy:
        way = f"http://127.0.0.1:{proxy.port}"
        fetching = asyncio.create_task(fetch(server.url("origin"), tmp_path, proxy=way, **files))
        assert await asyncio.to_thread(server.waiting.wait, 30)
        seen = b"".join(command_and_environment(pid) for pid in descendants() - before)
        server.gate.set()
        assert await fetching == repository.head

    assert b"remote-http" in seen
    assert b"pr0xy" not in seen
    assert TOKEN.encode() not in seen
    kept = (tmp_path / "cache").rglob("*")
    assert not any(b"pr0xy" in file.read_bytes() for file in kept if file.is_file())
