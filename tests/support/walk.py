"""A page of the documentation whose commands are run, and their output is compared.

In a fenced block `console` a line that begins with `$ ` is a command, and what follows is what it
prints, on both streams; a line of a command that ends with a backslash goes on in the next line. A
command that fails is followed by a last line `[exit code 1]`, which it does not print. In what it
prints, `…` stands for any text of a line, and a line that is only `…` for any number of lines. A
test may name what else may differ, such as times, so that a page can show a real one. A block whose
fence names a path after its language is a file, written when the walk comes to it. A page has one
folder, and one working directory in it.

A comment in the page says what runs its commands: `<!-- run by: tests/e2e/test_walks.py -->` for
all blocks below it, or `<!-- not run: REASON -->` for the next block, which the walk leaves out.

`python -m tests.support.walk PAGE` writes what is printed now into the page.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from openfero_gitops.cli import main
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


#: Seconds that one command may take, on a busy machine too.
PATIENCE = 600
#: A command that a shell would only split into words.
PLAIN = re.compile(r"openfero-gitops( [\w./-]+| \"[\w ./:-]+\"| \\\n *)+", re.ASCII)
FENCE = re.compile(
    r"(?P<indent> *)(?P<fence>`{3,})"
    r"(?:(?P<directive>\{[\w-]+\}.*)|(?P<language>\w*)(?: (?P<path>\S+))?)"
)
RUN_BY = re.compile(r"<!-- run by: (\S+) -->")
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")
ANY = "…"


@dataclass(frozen=True, slots=True)
class Step:
    """A command with what the page says of it, or a file; `line` counts from 1.

    `printed` is what it prints, and its exit code where that is not 0.
    """

    line: int
    command: str = ""
    printed: str = ""
    path: str = ""
    content: str = ""
    indent: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page; `line` is that of its fence, counted from 1.

    `indent` is that of the fence, which the lines of `body` lack. `run_by` is the test that runs
    its page from here on, and `not_run` why nothing runs the block.
    """

    line: int
    language: str
    path: str
    body: tuple[str, ...]
    run_by: str = ""
    not_run: str = ""
    indent: str = ""


def blocks(page: str) -> Iterator[Block]:
    """Read a page's fenced blocks in their order, without directives."""
    lines = page.splitlines()
    number = 0
    run_by = not_run = ""
    while number < len(lines):
        line = lines[number]
        number += 1
        if comment := RUN_BY.fullmatch(line.strip()):
            run_by = comment[1]
        elif comment := NOT_RUN.fullmatch(line.strip()):
            not_run = comment[1]
        elif fence := FENCE.fullmatch(line):
            start = number
            while lines[number].strip() != fence["fence"]:
                number += 1
            number += 1
            if fence["directive"]:
                continue
            body = tuple(line.removeprefix(fence["indent"]) for line in lines[start : number - 1])
            path, indent = fence["path"] or "", fence["indent"]
            yield Block(start, fence["language"], path, body, run_by, not_run, indent)
            not_run = ""


def steps(page: str) -> Iterator[Step]:
    """Read a page's commands and files in their order."""
    for block in blocks(page):
        if block.not_run:
            continue
        if block.path:
            content = "".join(f"{line}\n" for line in block.body)
            yield Step(block.line, path=block.path, content=content)
        elif block.language == "console":
            yield from _commands(block)


def _commands(block: Block) -> Iterator[Step]:
    body = block.body
    begins = [index for index, line in enumerate(body) if line.startswith("$ ")]
    for index, end in zip(begins, [*begins[1:], len(body)], strict=True):
        last = index
        while body[last].endswith("\\"):
            last += 1
        command = "\n".join(body[index : last + 1]).removeprefix("$ ")
        printed = "".join(f"{line}\n" for line in body[last + 1 : end])
        yield Step(block.line + last + 1, command, printed, indent=block.indent)


def pages_run_by(test: str) -> list[str]:
    """Return the pages whose commands a test runs, as their comments say."""
    return [
        str(file.relative_to(ROOT))
        for file in (*sorted(ROOT.glob("docs/**/*.md")), ROOT / "operarios-example/README.md")
        if test in RUN_BY.findall(file.read_text())
    ]


def as_said(said: str, printed: str, varying: re.Pattern[str] | None = None) -> str:
    """Return what the page says if that agrees with what a command printed, else the latter.

    Matches of `varying` agree with each other, such as two times, and with them the spaces that
    align what follows.
    """

    def alike(text: str) -> str:
        return text if varying is None else re.sub(" +", " ", varying.sub("0", text))

    pattern = "".join(
        r"(?:.*\n)*?"
        if line == f"{ANY}\n"
        else ".*?".join(re.escape(part) for part in line.split(ANY))
        for line in alike(said).splitlines(keepends=True)
    )
    return said if re.fullmatch(pattern, alike(printed)) else printed


class Walk:
    """A folder in which the steps of a page are taken in order."""

    def __init__(self, folder: Path, *, programs: Sequence[Path] = (), **environment: str) -> None:
        """Make the folder; `programs` and `environment` are there for the commands, too."""
        self.place = folder / "walk"
        self.place.mkdir()
        (self.place / "openfero-gitops").symlink_to(ROOT)
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        program = bin_folder / "openfero-gitops"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m openfero_gitops "$@"\n')
        program.chmod(0o755)
        for other in programs:
            (bin_folder / other.name).symlink_to(other)
        self._given = environment
        moment = "2026-11-21T03:04:05Z"
        self._environment = {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "100",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@git.example",
            "GIT_AUTHOR_DATE": moment,
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@git.example",
            "GIT_COMMITTER_DATE": moment,
            **environment,
        }

    def take(self, step: Step) -> str:
        """Write a step's file, or run its command and return what it prints and how it ends."""
        if step.path:
            file = self.place / step.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(step.content)
            return ""
        if PLAIN.fullmatch(step.command):
            return self._run(shlex.split(step.command.replace("\\\n", " "))[1:])
        # A walk can contain failing commands; the new working directory is written to descriptor 3.
        script = f"exec 2>&1\n{step.command}\ncode=$?\npwd >&3\nexit $code\n"
        with tempfile.TemporaryFile("w+") as place:
            ran = subprocess.run(
                ["/bin/bash", "-c", f"exec 3>&{place.fileno()}\n{script}"],
                cwd=self.place,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=(place.fileno(),),
                timeout=PATIENCE,
                check=False,
            )
            place.seek(0)
            self.place = Path(place.read().strip() or self.place)
        return _shown(ran.stdout.decode(), ran.returncode)

    def _run(self, arguments: list[str]) -> str:
        """Run `openfero-gitops` in this process, which is quicker."""
        output = io.StringIO()
        with (
            contextlib.chdir(self.place),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            patch("openfero_gitops.cli.log.to_stderr"),
            patch.dict(os.environ, self._given),
        ):
            code = main(arguments)
        return _shown(output.getvalue(), code)


def _shown(output: str, code: int) -> str:
    return output + (f"[exit code {code}]\n" if code else "")


def compare(name: str, walk: Walk, varying: re.Pattern[str] | None = None) -> None:
    """Take the steps of a page; fail at the first that prints something else than the page says.

    `varying` is for `as_said`.
    """
    commands = 0
    for step in steps((ROOT / name).read_text()):
        printed = as_said(step.printed, walk.take(step), varying)
        commands += bool(step.command)
        assert printed == step.printed, f"{name}:{step.line} prints:\n{printed}"
    assert commands


def rewritten(page: str, walk: Walk, varying: re.Pattern[str] | None = None) -> str:
    """Return the page with what its commands print now, and how they end.

    `varying` is for `as_said`.
    """
    lines = page.splitlines(keepends=True)
    for step, printed in [(step, walk.take(step)) for step in steps(page)][::-1]:
        if step.command:
            said = textwrap.indent(as_said(step.printed, printed, varying), step.indent)
            lines[step.line : step.line + step.printed.count("\n")] = [said]
    return "".join(lines)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            Path(name).write_text(rewritten(Path(name).read_text(), Walk(Path(folder))))
