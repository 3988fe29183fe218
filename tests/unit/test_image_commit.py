from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.build_image import commit_of
from scripts.image_engines import EngineError
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path


def test_changed_sources_are_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label names the commit; it says so if the sources of the image differ from it."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    repository = Repository(tmp_path)
    repository.write("Dockerfile", "FROM scratch")
    repository.commit("Start")
    revision, seconds = repository.git("log", "-1", "--format=%H %ct").split()
    assert commit_of(tmp_path) == (revision, int(seconds))
    repository.write("tests/test.py", "not in the image")
    assert commit_of(tmp_path)[0] == revision
    repository.write("openfero_gitops/new.py", "in the image")
    assert commit_of(tmp_path) == (f"{revision}-dirty", int(seconds))


def test_a_repository_that_git_refuses_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of an unknown commit is built only from sources without a repository."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert commit_of(tmp_path) == ("unknown", 0)
    Repository(tmp_path).commit("Start")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "true")
    with pytest.raises(EngineError, match="dubious ownership"):
        commit_of(tmp_path)
