"""Whether two addresses are of the same repository."""

from __future__ import annotations

import pytest

from openfero_gitops.domain.location import Location, same_repository

OPS = "https://git.example.com/platform/ops.git"


@pytest.mark.parametrize(
    "address",
    [
        OPS,
        "https://git.example.com/platform/ops",
        "https://git.example.com/platform/ops/",
        "https://git.example.com/platform/ops.git/",
        "https://git.example.com//platform/ops.git",
        "https://GIT.example.com/platform/ops.git",
        "https://git.example.com:443/platform/ops.git",
        "https://user:token@git.example.com/platform/ops.git",
        "http://git.example.com/platform/ops.git",
        "ssh://git@git.example.com/platform/ops.git",
        "ssh://git@git.example.com:2222/platform/ops.git",
        "git@git.example.com:platform/ops.git",
        "deploy@git.example.com:/platform/ops",
    ],
)
def test_spellings_of_one_repository(address: str) -> None:
    """Protocol, user, default port, `.git` and slashes do not make another repository."""
    assert same_repository(OPS, address)
    assert same_repository(address, OPS)


@pytest.mark.parametrize(
    "address",
    [
        "https://git.example.com/platform/ops2.git",
        "https://git.example.com/platform/op.git",
        "https://git.example.com/team/ops.git",
        "https://git.example.com/ops.git",
        "https://git2.example.com/platform/ops.git",
        "https://git.example.com.evil.example/platform/ops.git",
        "https://git.example.com:8443/platform/ops.git",
        "https://git.example.com/platform/Ops.git",
        "git@git2.example.com:platform/ops.git",
        "git@git.example.com:platform/ops2",
        "/platform/ops.git",
        "file:///git.example.com/platform/ops.git",
        "",
    ],
)
def test_other_repositories(address: str) -> None:
    """Another host, port of the same protocol, or path is another repository."""
    assert not same_repository(OPS, address)
    assert not same_repository(address, OPS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ssh://a%40b@git.example.com/x/y", "a@b@git.example.com:x/y"),
        ("ssh://a%40b@git.example.com/x/y.git", "ssh://a@b@git.example.com:22/x/y"),
        ("CORP\\ada@git.example.com:x/y", "ssh://CORP%5Cada@git.example.com/x/y.git"),
        ("git@git.example.com:ops.git", "ssh://git@git.example.com:22/ops"),
        ("git@git.example.com:ops.git", "https://git.example.com:8443/ops"),
        ("git@git.example.com:/ops.git", "git@git.example.com:ops"),
        ("ada@git.example.com:ops.git", "ada@git.example.com:ops/"),
        ("ada@git.example.com:ops.git", "ssh://ada@git.example.com/~/ops"),
        ("ada@git.example.com:ops.git", "ada@git.example.com:~/ops"),
        ("ada@git.example.com:/srv/ops.git", "ssh://bob@git.example.com/srv/ops.git"),
        ("http://git.example.com:80/o/r", "https://git.example.com/o/r.git"),
        ("http://git.example.com:3000/o/r", "http://git.example.com:03000/o/r"),
        ("git@[::1]:o/r", "ssh://git@[::1]:22/o/r"),
        ("/srv/ops.git", "file:///srv/ops.git/"),
        ("/srv//ops", "file:///srv/ops"),
    ],
)
def test_other_spellings_of_one_repository(one: str, other: str) -> None:
    """Users count only in paths in their home, as encoded; ports only if they say the server."""
    assert same_repository(one, other)
    assert same_repository(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@git.example.com:ops.git", "bob@git.example.com:ops.git"),
        ("ada@git.example.com:ops.git", "git@git.example.com:ops.git"),
        ("ada@git.example.com:~/ops.git", "bob@git.example.com:~/ops.git"),
        ("ssh://ada@git.example.com/~/ops", "ssh://bob@git.example.com/~/ops"),
        ("ada@git.example.com:ops.git", "ssh://bob@git.example.com/ops.git"),
        ("ada@git.example.com:ops.git", "https://git.example.com/ops.git"),
        ("ada@b@git.example.com:ops.git", "ada@c@git.example.com:ops.git"),
        ("https://git.example.com:8443/o/r", "http://git.example.com:3000/o/r"),
        ("https://git.example.com:8443/o/r", "http://git.example.com:8443/o/r"),
        ("https://git.example.com/o/r", "http://git.example.com:3000/o/r"),
        ("https://git.example.com:80/o/r", "http://git.example.com:443/o/r"),
        ("ssh://git@git.example.com:2222/o/r", "ssh://git@git.example.com/o/r"),
        ("ssh://git@git.example.com:2222/o/r", "git@git.example.com:o/r"),
        ("/srv/ops", "/srv/ops.git"),
        ("/srv/ops", "file:///srv/ops.git"),
        ("/srv/ops", "/srv/ops2"),
        ("/srv/ops", "srv/ops"),
    ],
)
def test_repositories_with_similar_addresses(one: str, other: str) -> None:
    """Another user's home, another port of the web, and a folder named `.git` are others."""
    assert not same_repository(one, other)
    assert not same_repository(other, one)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Location(OPS, "main", "jobs"), True),
        (Location("git@git.example.com:platform/ops", "refs/heads/main", "jobs"), True),
        (Location(OPS, "production", "jobs"), False),
        (Location(OPS, "HEAD", "jobs"), False),
        (Location(OPS, "heads/main", "jobs"), False),
        (Location(OPS, "refs/heads/heads/main", "jobs"), False),
        (Location(OPS, "refs/tags/main", "jobs"), False),
        (Location(OPS, "main", ""), False),
        (Location(OPS, "main", "jobs2"), False),
        (Location("https://git.example.com/team/ops", "main", "jobs"), False),
    ],
)
def test_ref_and_path_count(other: Location, same: bool) -> None:  # noqa: FBT001
    """Another ref or folder of the repository is another location."""
    assert Location(OPS, "main", "jobs").is_same(other) is same


def test_a_location_on_one_line() -> None:
    """It is named without credentials and without control characters."""
    assert str(Location(OPS, "main", "")) == f"{OPS} (ref main)"
    shown = str(Location("https://me:s3cret@git.example.com/\x1bops", "v1", "a/b"))
    assert shown == r"https://git.example.com/\x1bops (ref v1, path a/b)"
