"""Large repositories and long histories, written by one `git fast-import`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support.paths import ROOT
from tests.support.repository import run_git

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

EXAMPLE: Final = ROOT / "operarios-example"
_FIRST: Final = 1_790_000_000  # seconds since 1970; each further commit is a minute later
_FOLDERS: Final = 100
_NAME: Final = re.compile(r"(?m)^  name: openfero-([a-z]+)")
_SCRIPT: Final = re.compile(r"(?m)^( +)set -eu$")
_ACCOUNT: Final = re.compile(r"serviceAccountName: (\S+)")


@dataclass(frozen=True)
class Link:
    """A symlink, in the place of a file's content."""

    target: bytes


class Fleet:
    """A bare repository whose commits are written first, and then published one by one.

    A source follows `branch`; `publish` moves it to a commit.
    """

    def __init__(self, folder: Path, branch: str = "main") -> None:
        self.folder = folder
        self._branch = folder / "refs" / "heads" / branch
        self._queue: list[Mapping[str, bytes | Link | None]] = []
        self._written = 0
        run_git(folder, "init", "--quiet", "--bare", f"--initial-branch={branch}", str(folder))

    @property
    def url(self) -> str:
        """Where it can be fetched from, on this machine."""
        return f"file://{self.folder}"

    def commit(self, changes: Mapping[str, bytes | Link | None]) -> None:
        """Queue a commit that writes files, or removes those that are None."""
        self._queue.append(changes)

    def write(self) -> list[str]:
        """Write the queued commits, and return their ids."""
        written = self.take(b"".join(self._stream()))
        self._queue.clear()
        return written

    def take(self, stream: bytes) -> list[str]:
        """Import a stream of fast-import; return the ids of its commits in order of marks."""
        marks = self.folder / "marks"
        run_git(self.folder, "fast-import", "--quiet", f"--export-marks={marks}", stdin=stream)
        lines = (line.split() for line in marks.read_text().splitlines())
        return [sha for _, sha in sorted((int(mark[1:]), sha) for mark, sha in lines)]

    def publish(self, commit: str) -> None:
        """Move the branch to a commit, as a push does."""
        fresh = self._branch.with_name("fresh")
        fresh.write_text(f"{commit}\n")
        fresh.replace(self._branch)

    def _stream(self) -> Iterator[bytes]:
        """Yield the queued commits, on a branch that no source follows."""
        for mark, changes in enumerate(self._queue, start=1):
            when = _FIRST + 60 * self._written
            yield b"commit refs/heads/written\nmark :%d\n" % mark
            yield b"committer Ada Example <ada@example.com> %d +0000\ndata 0\n" % when
            if mark == 1 and self._written:
                yield b"from refs/heads/written^0\n"
            for path, content in changes.items():
                if content is None:
                    yield b"D %s\n" % path.encode()
                elif isinstance(content, Link):
                    yield b"M 120000 inline %s\ndata %d\n" % (path.encode(), len(content.target))
                    yield content.target + b"\n"
                else:
                    yield b"M 100644 inline %s\ndata %d\n" % (path.encode(), len(content))
                    yield content + b"\n"
            self._written += 1


def operarios(count: int) -> dict[str, bytes]:
    """Return operarios by path: those of the example repository under new names.

    All scripts differ, so that no file can be read from a memo.
    Their ServiceAccounts are included, so that there are no problems.
    """
    paths = (
        path
        for path in sorted(EXAMPLE.rglob("*.yaml"))
        if "tests" not in path.relative_to(EXAMPLE).parts
    )
    texts = [path.read_text() for path in paths]
    jobs = [text for text in texts if "\nkind: Job\n" in text and _NAME.search(text)]
    accounts = sorted({account for text in jobs for account in _ACCOUNT.findall(text)})
    files = {
        "accounts.yaml": "---\n".join(
            f"apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n"
            for name in accounts
        ).encode()
    }
    for number in range(count):
        text = _NAME.sub(rf"  name: openfero-\1-{number:05}", jobs[number % len(jobs)], count=1)
        text = _SCRIPT.sub(rf"\1set -eu\n\1echo remedy {number}", text, count=1)
        files[f"team-{number % _FOLDERS:02}/{number:05}.yaml"] = text.encode()
    return files
