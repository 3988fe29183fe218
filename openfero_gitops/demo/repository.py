"""The Git repository of the demo."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

import git

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_AUTHOR: Final = git.Actor("openfero-gitops demo", "demo@openfero-gitops.invalid")
#: Options of the operarios of the story, so that their effects are known within seconds.
_SHORT_TIMES: Final = {
    "workloads/kubepodcrashlooping/monitoring-firing.yaml": {"heals-within": "8s"},
    "workloads/kubedeploymentreplicasmismatch/firing.yaml": {
        "heals-within": "2s",
        "cooldown": "0",
        # Longer than heals-within: the effect of a run is known before the next one.
        "rerun-after": "3s",
        "max-runs": "9",
    },
}


class DemoRepository:
    """A new Git repository with the files of the example, of which some have shorter times."""

    def __init__(self, folder: Path, example: Path) -> None:
        """Copy and commit the files."""
        self.folder = folder
        shutil.copytree(example, folder)
        for path, times in _SHORT_TIMES.items():
            file = folder / path
            if file.is_file():
                file.write_text(_with_times(file.read_text(), times))
        with git.Repo.init(folder, initial_branch="main") as repo:
            repo.git.add(all=True)
            repo.index.commit("Operarios for the cluster", author=_AUTHOR, committer=_AUTHOR)

    @property
    def is_starter(self) -> bool:
        """Whether it has the operarios that the story is about."""
        return all((self.folder / path).is_file() for path in _SHORT_TIMES)

    def merge_change(self, path: str) -> str:
        """Commit a comment to one file, as a merged pull request would."""
        file = self.folder / path
        file.write_text(file.read_text() + "# Reviewed.\n")
        with git.Repo(self.folder) as repo:
            repo.index.add([path])
            commit = repo.index.commit(
                f"Add a comment to {path}", author=_AUTHOR, committer=_AUTHOR
            )
            return commit.hexsha

    @property
    def head(self) -> str:
        """The id of the latest commit."""
        with git.Repo(self.folder) as repo:
            return repo.head.commit.hexsha

    def describe(self, commit: str) -> str:
        """Describe a commit as `git log --oneline` does."""
        with git.Repo(self.folder) as repo:
            return str(repo.git.log("-1", "--format=%h %s (%an)", commit))


def _with_times(text: str, times: Mapping[str, str]) -> str:
    """Set options of the first operario in a file; new ones stand before its target."""
    for option, time in times.items():
        line = rf'\g<indent>openfero.io/{option}: "{time}" # short, for the demo\n'
        present = re.compile(rf"^(?P<indent> *)openfero\.io/{option}:.*\n", re.MULTILINE)
        before = re.compile(r"^(?P<indent> *)(?=openfero\.io/target:)", re.MULTILINE)
        if present.search(text):
            text = present.sub(line, text, count=1)
        else:
            text = before.sub(rf"{line}\g<indent>", text, count=1)
    return text
