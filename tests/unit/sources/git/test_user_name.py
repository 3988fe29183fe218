from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from openfero_gitops.sources.git import user_name
from openfero_gitops.sources.git.user_name import user_name_environment

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libnss_wrapper.so")


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the user of this process have no entry in the passwd database."""

    def getpwuid(user: int) -> pwd.struct_passwd:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)


def test_a_user_with_a_name_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a user with an entry there are no variables and no files."""
    entry = pwd.struct_passwd(("ci", "x", os.getuid(), 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", {os.getuid(): entry}.__getitem__)
    monkeypatch.setattr(user_name, "_library", lambda: LIBRARY)
    assert user_name_environment(tmp_path) == {}
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("nameless")
def test_a_user_without_a_name_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is loaded into ssh, and the files that it reads name user and group."""
    monkeypatch.setattr(user_name, "_library", lambda: LIBRARY)
    environment = user_name_environment(tmp_path)
    assert environment.pop("LD_PRELOAD") == str(LIBRARY)
    passwd = Path(environment["NSS_WRAPPER_PASSWD"]).read_text().split(":")
    assert passwd[2:4] == [str(os.getuid()), str(os.getgid())]
    assert Path(environment["NSS_WRAPPER_GROUP"]).read_text().split(":")[2] == str(os.getgid())


@pytest.mark.usefixtures("nameless")
def test_without_the_library_ssh_says_itself_that_there_is_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the library is not installed, no variable is set."""
    monkeypatch.setattr(user_name, "_library", lambda: None)
    assert user_name_environment(tmp_path) == {}
