from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT
from tests.support.walk import Walk, as_said, compare, pages_run_by, rewritten, steps

if TYPE_CHECKING:
    from pathlib import Path

THIS = "tests/e2e/test_walks.py"


@pytest.mark.parametrize("name", pages_run_by(THIS))
def test_a_walk_of_the_documentation(name: str, tmp_path: Path) -> None:
    """Every command of the page is run, prints what the page says, and ends as it says.

    (`python -m tests.support.walk PAGE` writes what is printed now into it.)
    """
    walk = Walk(tmp_path)
    if name.startswith("operarios-example/"):  # its reader is in a copy of that folder
        shutil.copytree(ROOT / "operarios-example", walk.place, dirs_exist_ok=True)
        (walk.place / "openfero-gitops").unlink()
    compare(name, walk)


def test_a_page_that_is_wrong_is_found(tmp_path: Path) -> None:
    """What a command prints and how it ends replace what the page said, and nothing else."""
    page = (
        "# Page\n\n```text a/b.txt\nhello\n```\n\n```console\n$ cd a\n$ cat b.txt\nbye\n"
        "$ false; echo $?\n1\n$ echo no; (exit 2)\nno\n[exit code 1]\n$ (exit 3)\n"
        "[exit code 3]\n$ true\n[exit code 4]\n$ echo one \\\n    two\none two\n```\n\nEnd\n"
    )
    right = (page.replace("bye", "hello").replace("[exit code 1]", "[exit code 2]")).replace(
        "[exit code 4]\n", ""
    )
    folders = tmp_path / "rewritten", tmp_path / "compared"
    for folder in folders:
        folder.mkdir()
    assert rewritten(page, Walk(folders[0])) == right
    walk = Walk(folders[1])
    passed = [walk.take(step) == step.printed for step in steps(page)]
    assert passed == [True, True, False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("said", "printed", "agrees"),
    [
        ("a\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a …\n", "a 1 b 2\n", True),
        ("a … c\n", "a 1\nb c\n", False),
        ("a\n…\nz\n", "a\nb\nc\nz\n", True),
        ("a\n…\nz\n", "a\nz\n", True),
        ("…\nz\n", "a\ny\n", False),
    ],
)
def test_what_differs_each_time_is_left_out(said: str, printed: str, *, agrees: bool) -> None:
    """`…` stands for any text of a line, and as a line for any number of lines."""
    assert (as_said(said, printed) == said) == agrees
