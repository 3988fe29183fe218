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


def test_folders_of_this_machine() -> None:
    """A folder has one name with and without `file://`."""
    assert same_repository("/srv/ops.git", "file:///srv/ops/")
    assert not same_repository("/srv/ops", "/srv/ops2")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Location(OPS, "main", "jobs"), True),
        (Location("git@git.example.com:platform/ops", "refs/heads/main", "jobs"), True),
        (Location(OPS, "production", "jobs"), False),
        (Location(OPS, "HEAD", "jobs"), False),
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
