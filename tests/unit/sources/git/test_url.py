from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.git.url import (
    Protocol,
    parse_ref,
    parse_remote,
    repository_of_page,
    suggest_ref,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://github.com/owner/repo.git", Protocol.HTTPS),
        ("https://git.example.com:8443/a/b", Protocol.HTTPS),
        ("http://127.0.0.1:3000/a", Protocol.HTTP),
        ("http://[::1]:3000/a", Protocol.HTTP),
        ("ssh://git@host.example:2222/a/b.git", Protocol.SSH),
        ("git@github.com:owner/repo.git", Protocol.SSH),
        ("file:///srv/a b.git", Protocol.FILE),
        ("/srv/repo.git", Protocol.FILE),
    ],
)
def test_an_address_is_known_by_its_protocol(url: str, protocol: Protocol) -> None:
    """Every supported form of URL is accepted unchanged."""
    remote = parse_remote(url)

    assert (remote.url, remote.protocol) == (url, protocol)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-oProxyCommand=touch /tmp/x",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch% /tmp/x",
        "fd::17",
        "git://host/path",
        "ftp://host/path",
        "HTTPS://host/path",
        "https://host",
        "https:///path",
        "https://-host/path",
        "https://host:0/path",
        "https://host:65536/path",
        "https://host:99999/path",
        "https://host/a b",
        "https://host/a\nb",
        "https://host/${HOME}",
        "/srv/${HOME}",
        "ssh://-oProxyCommand=x/path",
        "ssh://git@-oProxyCommand=x/path",
        "ssh://host/path",
        "git@-host:path",
        "git@host:-path",
        "-x@host:path",
        "relative/path",
        "file://host/path",
        "file:relative",
        "/srv/a\nb",
        "https://host/" + "a" * 2048,
    ],
)
def test_what_is_no_address_is_refused_in_one_line(url: str) -> None:
    """An option, a command, an unknown scheme or half an address never reaches git."""
    with pytest.raises(UsageError, match="Git URL") as refused:
        parse_remote(url)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:s3cret@host/path",
        "https://s3cret@host/path",
        "https://ada:1/s3cret@host/path@x/y",
        "https://ada:@s3cret@host/path",
        "https://host/path?private_token=s3cret",
        "https://host/path#s3cret",
        "ssh://git:s3cret@host/path",
        "git:s3cret@host:path",
        "ftp://ada:s3cret@host/path",
        "foo://host/?token=s3cret",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    """A URL with a password is refused, and the message does not contain it."""
    with pytest.raises(UsageError) as refused:
        parse_remote(url)

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("ref", "advice"),
    [
        ("origin/main", "write main, as the branch is called on the server"),
        ("remotes/upstream/release/1", "write release/1, as the branch is called on the server"),
        ("pull/168/head", "write refs/pull/168/head"),
        ("merge-requests/7/head", "write refs/merge-requests/7/head"),
        ("changes/84/6684/3", "write refs/changes/84/6684/3"),
        ("heads/main", "write refs/heads/main"),
        ("0afb89b42f20", "write all digits of a commit's ID"),
        ("a" * 41, "write all digits of a commit's ID"),
        ("main", ""),
        ("release/1", ""),
        ("origin", ""),
        ("decade", "write all digits of a commit's ID"),
    ],
)
def test_a_ref_of_another_kind_of_place_is_recognised(ref: str, advice: str) -> None:
    """A name as other tools show it leads to the name that the server knows."""
    assert suggest_ref(ref) == advice


@pytest.mark.parametrize(
    ("url", "repository"),
    [
        ("https://git.example/team/shop/-/tree/main/operarios", "https://git.example/team/shop"),
        ("https://git.example/team/shop/tree/main", "https://git.example/team/shop"),
        ("https://git.example/team/shop/blob/main/a.yaml", "https://git.example/team/shop"),
        ("https://git.example/team/shop/src/branch/main", "https://git.example/team/shop"),
        ("https://git.example/projects/X/repos/y/browse", "https://git.example/projects/X/repos/y"),
        ("https://git.example/team/shop/pull/3/files", "https://git.example/team/shop"),
        ("https://git.example/team/shop.git", ""),
        ("https://git.example/team/treehouse", ""),
        ("https://git.example/tree/shop", ""),
        ("ssh://git@git.example/team/shop/tree/main", ""),
    ],
)
def test_the_repository_of_a_page_is_guessed(url: str, repository: str) -> None:
    """A URL copied from a browser leads to its repository; another is left alone."""
    assert repository_of_page(url) == repository


@pytest.mark.parametrize(
    "ref", ["HEAD", "main", "v1.2.3", "feature/x-y", "refs/heads/main", "ünïcode", "0" * 40]
)
def test_a_ref_is_accepted(ref: str) -> None:
    """Branches, tags, full refs and commits are accepted."""
    assert parse_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "--upload-pack=x",
        "-",
        "a b",
        "a..b",
        "a:b",
        "a^",
        "a~1",
        "a*",
        "a?",
        "[a",
        "a\\b",
        "a@{1}",
        "@",
        "/a",
        "a/",
        "a//b",
        "a/.b",
        ".a",
        "a.",
        "a.lock",
        "a.lock/b",
        "a\nb",
        "a" * 256,
    ],
)
def test_what_no_ref_can_be_called_is_refused(ref: str) -> None:
    """A ref is never an option, a range, a refspec or a pattern."""
    with pytest.raises(UsageError, match="ref "):
        parse_ref(ref)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ssh://git@h/p"}, "requires --git-ssh-key-file and --git-known-hosts-file"),
        ({"url": "git@h:p", "ssh_key_file": "k"}, "ssh requires --git-known-hosts-file"),
        (
            {"url": "ssh://git@h/p", "ssh_key_file": "a b", "known_hosts_file": "k"},
            "ssh does not support",
        ),
        (
            {"url": "ssh://git@h/p", "ssh_key_file": "%d", "known_hosts_file": "k"},
            "ssh does not support",
        ),
        ({"url": "https://h/p", "ssh_key_file": "k"}, "--git-ssh-key-file is only for ssh URLs"),
        ({"url": "https://h/p", "known_hosts_file": "k"}, "is only for ssh URLs"),
        ({"url": "/p", "credentials_file": "c"}, "is only for https URLs"),
        ({"url": "https://h/p", "proxy": "http://ada:s3cret@proxy:3128"}, "--git-proxy must be"),
        ({"url": "https://h/p", "proxy": "socks4://proxy:1080"}, "or socks5h://host:port"),
        ({"url": "https://h/p", "no_proxy": "a\nb"}, "--git-no-proxy must be"),
        ({"url": "https://h/p", "timeout": 0.0}, "timeout 0"),
        ({"url": "https://h/p", "path": "../x"}, "leaves the repository"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_at_once(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    """Contradicting settings are refused when the source is created."""
    given = {
        key: tmp_path / str(value) if key.endswith("_file") else value
        for key, value in settings.items()
    }
    ways = {field.name for field in dataclasses.fields(GitAccess)} & given.keys()
    access = GitAccess(**{key: given.pop(key) for key in ways})  # type: ignore[arg-type]

    with pytest.raises(UsageError, match=message) as refused:
        GitSource(GitSettings(cache_dir=tmp_path, access=access, **given))  # type: ignore[arg-type]

    assert "s3cret" not in str(refused.value)
