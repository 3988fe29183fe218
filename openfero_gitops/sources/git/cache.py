"""The directory in which one remote repository is kept between two fetches.

    <cache_dir>/<digest of the URL>/
        lock              held by the one process that fetches
        repository.git    the bare repository
        fresh.git         a new one while it is made; it takes the other's place once it is whole
        home              empty: what git takes for a home
        askpass-…         hands the mounted credentials to git

Several replicas may share it. A reader needs no lock: what it reads is named by content.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.sources.git.process import Git

_TICK: Final = 0.05  # seconds between two tries for the lock


@dataclass(frozen=True, slots=True)
class Cache:
    """One remote's directory. Every method may raise OSError where the disk does not allow it."""

    folder: Path

    @classmethod
    def of(cls, cache_dir: Path, url: str) -> Cache:
        """Name the directory of a URL; no other URL has it."""
        return cls(cache_dir.absolute() / hashlib.sha256(url.encode()).hexdigest()[:32])

    @property
    def repository(self) -> Path:
        """The repository to read from."""
        return self.folder / "repository.git"

    @property
    def fresh(self) -> Path:
        """Where a new one is made."""
        return self.folder / "fresh.git"

    @property
    def home(self) -> Path:
        """An empty folder."""
        return self.folder / "home"

    def open(self) -> None:
        """Make the directory, for ourselves alone."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home.mkdir(exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def locked(self, git: Git) -> Iterator[None]:
        """Keep other processes and threads out; the lock ends with the process that holds it.

        Raises:
            SourceError: another held it for as long as one command of `git` may take.
        """
        deadline = time.monotonic() + git.timeout
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not _try_lock(descriptor):
                git.check()
                if time.monotonic() > deadline:
                    raise SourceUnavailable(
                        f"{git.where}: another process has been fetching into {self.folder} for"
                        f" {git.timeout:g} s; wait for it, or use another cache directory"
                    )
                time.sleep(_TICK)
            yield
        finally:
            os.close(descriptor)

    def sweep(self, age: float) -> None:
        """Remove what a killed git left: half a pack, a lock file older than `age` seconds.

        To be called with the lock held: then nobody of ours is writing.
        """
        for leftover in (self.fresh, self.folder / "old.git"):
            remove(leftover)
        oldest = time.time() - age
        for folder, _, names in os.walk(self.repository):
            for name in names:
                path = Path(folder, name)
                if name.startswith(("tmp_", ".tmp-")) or (
                    name.endswith(".lock") and _changed(path) < oldest
                ):
                    path.unlink(missing_ok=True)

    def swap(self) -> None:
        """Put the fresh repository in the other's place."""
        old = self.folder / "old.git"
        with contextlib.suppress(FileNotFoundError):
            self.repository.rename(old)
        self.fresh.rename(self.repository)
        remove(old)


def remove(folder: Path) -> None:
    """Remove a folder with everything in it, or what stands in its place, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _changed(path: Path) -> float:
    """When a file was last written, in seconds since 1970; now for one that is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
