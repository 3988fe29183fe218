"""Recording of the git commands that are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openfero_gitops.sources.git.process import Git

if TYPE_CHECKING:
    import pytest

    from openfero_gitops.sources.git.process import Finished


def count_commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that records the name of every git command from now on."""
    given: list[str] = []
    run = Git.run

    def counted(self: Git, *arguments: str, **options: Any) -> Finished:
        words = iter(arguments)
        for word in words:
            if word == "-c":
                next(words)
            elif not word.startswith("-"):
                given.append(word)
                break
        return run(self, *arguments, **options)

    monkeypatch.setattr(Git, "run", counted)
    return given
