"""The environment in which Git runs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain.errors import SourceUnavailable
from openfero_gitops.sources.git import access
from openfero_gitops.sources.git.access import GitAccess, GitConnection
from openfero_gitops.sources.git.url import parse_remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget where Git's programs are, before and after."""
    access._exec_path.cache_clear()
    yield
    access._exec_path.cache_clear()


@pytest.mark.parametrize(
    "failure",
    [
        subprocess.TimeoutExpired(["git", "--exec-path"], 10.0),
        BlockingIOError(11, "Resource temporarily unavailable"),
        OSError(12, "Cannot allocate memory"),
        PermissionError(13, "Permission denied"),
        subprocess.CalledProcessError(-9, ["git", "--exec-path"]),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_git_that_could_not_be_asked_is_asked_again(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is retried, and leaves the links to Git's programs as they are."""
    connection = GitConnection(parse_remote("https://git.example/heal.git"), GitAccess())
    connection.environment(tmp_path)
    links = {link: link.readlink() for link in (tmp_path / "programs").iterdir()}
    access._exec_path.cache_clear()

    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", fail)
        with pytest.raises(SourceUnavailable, match="`git --exec-path` failed"):
            connection.environment(tmp_path)

    assert {link: link.readlink() for link in (tmp_path / "programs").iterdir()} == links
    assert connection.environment(tmp_path)["GIT_EXEC_PATH"] == str(tmp_path / "programs")
    assert all(link.exists() for link in links)


def test_git_that_is_installed_later_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there is no git command is not remembered."""
    connection = GitConnection(parse_remote("https://git.example/heal.git"), GitAccess())
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        connection.environment(tmp_path)
    assert not list((tmp_path / "programs").iterdir())

    connection.environment(tmp_path)

    assert (tmp_path / "programs" / "git-remote-https").exists()
