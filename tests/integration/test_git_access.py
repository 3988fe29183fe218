"""The options for access to a repository, and that every command applies them."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cli import cli, main
from openfero_gitops.clients import git_source
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.settings import load_settings
from tests.support.git_servers import (
    connect_proxy,
    http_server,
    make_certificates,
    make_key,
    raw_server,
    ssh_server,
)
from tests.support.replica import operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot

TOKEN = "t0ken-of-a-forge"
READERS = ("validate", "render", "explain", "test", "diff", "coverage", "audit")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with an operario, and a branch `pr` with another image."""
    repository = Repository(tmp_path / "served" / "origin")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Heal hosts")
    repository.branch("pr")
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/new:2"
    repository.write("hostdown.json", json.dumps(job))
    repository.commit("A newer image")
    repository.switch("main")
    return repository


@pytest.fixture
def private(repository: Repository, tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """Serve it over https with a token; yield its URL, the CA's file and the token's."""
    certificates = make_certificates(tmp_path)
    credentials = tmp_path / "credentials"
    credentials.write_text(f"{TOKEN}\n")
    with http_server(
        repository.folder.parent,
        user="x-access-token",
        password=TOKEN,
        certificate=certificates.server,
    ) as server:
        yield server.url("origin"), certificates.ca, credentials


@pytest.fixture
def ran(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command in-process, for its exit code and output."""
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run


async def fetch(tmp_path: Path, **flags: str | Path) -> Snapshot:
    """Fetch once with the source that `serve` creates from its settings."""
    settings = {name: str(value) for name, value in flags.items()}
    source = git_source(load_settings({"cache_dir": str(tmp_path / "cache"), **settings}))
    try:
        return await source.fetch()
    finally:
        await source.aclose()


# serve


async def test_serve_uses_the_configured_proxy(
    repository: Repository, private: tuple[str, Path, Path], tmp_path: Path
) -> None:
    """A tunnel is opened for the repository, unless its host is excluded from the proxy."""
    url, ca, credentials = private
    way = {"repo": url, "git_ca_file": ca, "git_credentials_file": credentials}
    with connect_proxy() as proxy:
        way["git_proxy"] = f"http://127.0.0.1:{proxy.port}"
        passed_by = await fetch(tmp_path, **way, git_no_proxy="git.example,127.0.0.1")
        assert proxy.requests == []
        through = await fetch(tmp_path, **way)

    assert set(proxy.requests) == {url.split("/")[2]}
    assert through.revision.commit == passed_by.revision.commit == repository.head


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"git_proxy": "http://ada:s3cret@proxy:3128"},
            "user name and password into the file of --git-proxy-credentials-file",
        ),
        ({"git_no_proxy": "a\nb"}, "--git-no-proxy must be a list"),
        (
            {"git_proxy": "http://proxy:3128", "repo": "/srv/operarios"},
            "--git-proxy is only for https",
        ),
    ],
)
def test_invalid_access_options_are_reported(flags: dict[str, str], message: str) -> None:
    """The wrong flag is named before any connection is made, without its password."""
    settings = load_settings({"repo": "https://git.example/operarios", **flags})
    with pytest.raises(UsageError) as refused:
        git_source(settings)

    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)


async def test_serve_applies_the_size_limit(repository: Repository, tmp_path: Path) -> None:
    """A repository above the size limit is rejected with the flag's name, and accepted below it."""
    repository.write("noise.bin", os.urandom(1_500_000))
    commit = repository.commit("Noise")
    way = {"repo": repository.url}

    with pytest.raises(SourceError, match="the 1048576 bytes that --git-max-size allows; raise"):
        await fetch(tmp_path, **way, git_max_size="1Mi")

    assert (await fetch(tmp_path, **way, git_max_size="2M")).revision.commit == commit


# Authors and auditors


@pytest.mark.parametrize("command", READERS)
def test_a_reader_has_the_options_of_serve(command: str) -> None:
    """Every command that reads a Git URL has the same options as the controller."""
    context = cli.make_context("openfero-gitops", [], resilient_parsing=True)
    of_serve, of_reader = (
        {
            name
            for option in cli.commands[command_name].get_params(context)
            for name in option.opts
            if name.startswith("--git-")
        }
        for command_name in ("serve", command)
    )

    assert {"--git-timeout", "--git-client-cert-file", "--git-no-proxy"} <= of_serve
    assert of_reader == of_serve


@pytest.mark.parametrize(
    "arguments", [("validate", "URL"), ("diff", "URL", "main", "pr"), ("test", "URL")]
)
def test_a_reader_has_the_deadline_of_its_option(
    arguments: tuple[str, ...], ran: Callable[..., tuple[int, str, str]]
) -> None:
    """A server that does not answer is waited for as long as --git-timeout says."""
    with raw_server(None) as port:
        url = f"http://127.0.0.1:{port}/origin"
        given = [url if argument == "URL" else argument for argument in arguments]
        code, out, err = ran(*given, "--git-timeout", "1s")

    assert (code, out) == (2, "")
    assert "1 s" in err
    for wrong in ("0", "60", "1 minute"):
        code, _, err = ran(*given, "--git-timeout", wrong)
        assert code == 2
        assert "--git-timeout" in err


def test_validate_reads_a_private_repository_over_https(
    private: tuple[str, Path, Path], ran: Callable[..., tuple[int, str, str]]
) -> None:
    """With a CA and a token it is read; without them, the error names the missing option."""
    url, ca, credentials = private

    code, out, _ = ran("validate", url, "--git-ca-file", ca, "--git-credentials-file", credentials)
    assert (code, out.splitlines()[-1][:17]) == (0, "1 valid operario,")
    cases = (((), "--git-ca-file"), (("--git-ca-file", ca), "--git-credentials-file"))
    for options, missing in cases:
        code, out, err = ran("validate", url, *options)
        assert (code, out) == (2, "")
        assert f"set {missing}" in err


def test_diff_reads_a_repository_over_ssh(
    repository: Repository, tmp_path: Path, ran: Callable[..., tuple[int, str, str]]
) -> None:
    """With a key and host keys both commits are read; without them, both options are named."""
    (tmp_path / "sshd").mkdir()
    with ssh_server(tmp_path / "sshd") as sshd:
        arguments = ("diff", sshd.url(repository.folder), "main", "pr", "--merge-base")
        hosts = ("--git-known-hosts-file", sshd.known_hosts)
        code, out, err = ran(*arguments, "--git-ssh-key-file", sshd.key, *hosts)
        assert (code, err) == (0, "")
        assert "registry.example/new:2" in out
        make_key(tmp_path / "stranger")
        code, out, err = ran(*arguments, "--git-ssh-key-file", tmp_path / "stranger", *hosts)
        assert (code, out) == (2, "")
        assert "the server refused the SSH key" in err
    code, out, err = ran(*arguments)
    assert (code, out) == (2, "")
    assert "ssh requires --git-ssh-key-file and --git-known-hosts-file" in err


def test_validate_uses_a_proxy_and_a_size_limit(
    repository: Repository,
    private: tuple[str, Path, Path],
    ran: Callable[..., tuple[int, str, str]],
) -> None:
    """Proxy and size come from the command line; invalid values are exit code 2."""
    url, ca, credentials = private
    repository.write("noise.bin", os.urandom(1_500_000))
    repository.commit("Noise")
    arguments = ("validate", url, "--git-ca-file", ca, "--git-credentials-file", credentials)
    with connect_proxy() as proxy:
        way = ("--git-proxy", f"http://127.0.0.1:{proxy.port}")
        assert ran(*arguments, *way)[0] == 0
        assert set(proxy.requests) == {url.split("/")[2]}
    code, _, err = ran(*arguments, "--git-max-size", "1Mi")
    assert code == 2
    assert re.search("the 1048576 bytes that --git-max-size allows", err)
    code, _, err = ran(*arguments, "--git-max-size", "1GB")
    assert code == 2
    assert "'--git-max-size': \"1GB\" is not a size" in err
