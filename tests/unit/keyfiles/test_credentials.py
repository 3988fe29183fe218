"""A file with a user name and a password, or a token."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.credentials import credentials, user_and_password
from openfero_gitops.sources.git.access import GitAccess, GitConnection
from openfero_gitops.sources.git.url import parse_remote

if TYPE_CHECKING:
    from pathlib import Path

BOM = b"\xef\xbb\xbf"
READABLE = [
    (b"ada:s3cret", "ada", "s3cret"),
    (b"ada:s3cret\n", "ada", "s3cret"),
    (b"ada:s3cret\r\n", "ada", "s3cret"),
    (b"ada:s3cret\r\n\r\n \n", "ada", "s3cret"),
    (b"\n\n  ada:s3cret\t \n", "ada", "s3cret"),
    (BOM + b"ada:s3cret\n", "ada", "s3cret"),
    (BOM + b" \r\n ada:s3cret \r\n", "ada", "s3cret"),
    (b"ada:s3:cr=et/ %41#\n", "ada", "s3:cr=et/ %41#"),
    ("ada:pässwörd\n".encode(), "ada", "pässwörd"),
    (b"t0ken\n", "x-access-token", "t0ken"),
    (b"t0ken", "x-access-token", "t0ken"),
    (BOM + b"t0ken\r\n", "x-access-token", "t0ken"),
    (b":t0ken\n", "x-access-token", "t0ken"),
    (b" :t0ken \r\n", "x-access-token", "t0ken"),
    (b":a:b\n", "x-access-token", "a:b"),
    (b" :a:b: \r\n", "x-access-token", "a:b:"),
    (b"::a\n", "x-access-token", ":a"),
    (b"a:b:\n", "a", "b:"),
    (b"#t0ken\n", "x-access-token", "#t0ken"),
    (b"ada:s3cret\nbob:other\n", "ada", "s3cret"),
    (b"$(id)`id`\\n\"'*:pass*?[a]\\n$HOME\n", "$(id)`id`\\n\"'*", "pass*?[a]\\n$HOME"),
]


@pytest.mark.parametrize(("content", "user", "password"), READABLE)
def test_traces_of_editors_mean_nothing(content: bytes, user: str, password: str) -> None:
    """A byte order mark, blanks, CRLF and empty lines are not part of the credentials."""
    read = credentials(content)

    assert (read.user, read.password) == (user, password)
    assert password not in repr(read)


@pytest.mark.parametrize(("content", "user", "password"), READABLE)
def test_git_receives_the_same(tmp_path: Path, content: bytes, user: str, password: str) -> None:
    """The credential helper, which is written for a shell, reads the file in the same way."""
    file = tmp_path / "it's a secret"
    file.write_bytes(content)
    access = GitConnection(parse_remote("https://git.example/x"), GitAccess(credentials_file=file))

    filled = subprocess.run(
        ["git", *access.options(), "credential", "fill"],
        input=b"url=https://git.example\n\n",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )

    lines = filled.stdout.decode().splitlines()
    assert lines[-2:] == [f"username={user}", f"password={password}"]


@pytest.mark.parametrize(
    ("content", "line", "cause"),
    [
        (b"", 0, "the file is empty; it must contain user:password"),
        (b" \r\n\t\n", 0, "the file is empty"),
        (BOM, 0, "the file is empty"),
        (b"ada:\n", 1, "contains no password"),
        (b"\n\nada: \n", 3, "contains no password"),
        (b":\n", 1, "contains no password"),
        (b"ada\ns3cret\n", 1, "has no colon, and another line follows"),
        ("ada:s3cret\n".encode("utf-16"), 0, "UTF-16"),
        ("ada:s3cret\n".encode("utf-16-be"), 0, "UTF-16"),
        (b"ada:s\xff\xfecret\n", 0, "not UTF-8"),
        (b"ada:s3\0cret\n", 0, "NUL"),
        (b"ada:s3\x1bcret\n", 1, "a control character"),
        ("ada:s3cret\u00a0\n".encode(), 1, "an unusual space character"),
        (b"<!DOCTYPE html>\n<html>", 0, "an HTML page"),
        (b"https://ada:s3cret@git.example\n", 1, "is a URL"),
        (b"machine git.example login ada password s3cret\n", 1, "a .netrc file"),
        (b"username=ada\npassword=s3cret\n", 1, "the format of git credential"),
        (b"username: ada\npassword: s3cret\n", 1, "YAML"),
        (b'{"username": "ada"}', 1, "JSON"),
        (b"Bearer s3cret\n", 1, "an HTTP header"),
        (b"Authorization: Basic czNjcmV0\n", 1, "an HTTP header"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\ns3cret\n", 1, "a key or certificate"),
        (b"ssh-ed25519 AAAAs3cret ada\n", 1, "a public SSH key"),
        (b"LS0tLS1CRUdJTiBPUEVOU1NIIFBSSVZBVEUgS0VZLS0tLS0K", 0, "base64-encoded once too often"),
    ],
)
def test_another_form_is_named(content: bytes, line: int, cause: str) -> None:
    """The line and the cause are named, and never the secret."""
    with pytest.raises(UnusableFile) as refused:
        credentials(content)

    assert cause in str(refused.value)
    assert refused.value.line == line
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("content", [b"t0ken\n", b":t0ken\n", BOM + b" t0ken"])
def test_a_proxy_needs_a_user(content: bytes) -> None:
    """A proxy knows no tokens, so a user must be named."""
    assert user_and_password(b"ada:s3cret\n").user == "ada"
    with pytest.raises(UnusableFile, match="names no user; write user:password"):
        user_and_password(content)
