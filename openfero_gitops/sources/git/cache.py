"""The directory that keeps a remote repository between two fetches.

    <cache_dir>/<digest of the URL>/
        lock              held by the one process that fetches
        repository.git    the bare repository
        fresh.git         a new repository until it is complete; then it replaces the other
        home              an empty folder, the home directory of Git
        transport-…       the log of a running command
        repaired-…        a copy of a key or certificate without what an editor left in it

Replicas may share it. Readers need no lock, since what they read is addressed by content.
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

from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.keyfiles.file import COPY_PREFIX
from openfero_gitops.sources.git.process import LOG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.sources.git.process import Git
    from openfero_gitops.sources.git.repository import BareRepository

_LOCK_POLL_SECONDS: Final = 0.05
_ABANDONED_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Cache:
    """The directory of one remote. Every method may raise OSError."""

    folder: Path

    @classmethod
    def of(cls, cache_dir: Path, url: str) -> Cache:
        """Return the directory of a URL."""
        return cls(cache_dir.absolute() / hashlib.sha256(url.encode()).hexdigest()[:32])

    @property
    def repository(self) -> Path:
        """The bare repository."""
        return self.folder / "repository.git"

    @property
    def fresh(self) -> Path:
        """The repository while it is being made."""
        return self.folder / "fresh.git"

    @property
    def home(self) -> Path:
        """An empty folder, the home directory of Git."""
        return self.folder / "home"

    def open(self) -> None:
        """Make the directory, which other users cannot read."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home.mkdir(exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def locked(self, git: Git) -> Iterator[None]:
        """Hold a lock against other processes and threads; it ends with the process.

        Raises:
            SourceError: another process held the lock for as long as a command may take.
        """
        deadline = time.monotonic() + git.timeout
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not _try_lock(descriptor):
                git.check()
                if time.monotonic() > deadline:
                    raise SourceUnavailable(
                        f"{git.where}: another process has been using {self.folder} for more than"
                        f" {git.timeout:g} s; wait for it, or set another --cache-dir"
                    )
                time.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def sweep(self, age: float) -> None:
        """Remove the files of a killed process: incomplete packs, lock files older than `age`.

        The caller must hold the lock, so that no other process of ours is writing. `age` is in
        seconds. Logs and copies of keys are written without the lock, and removed when no running
        process can use them.
        """
        for leftover in (self.fresh, self.folder / "old.git"):
            remove(leftover)
        oldest = time.time() - age
        abandoned = time.time() - max(age, _ABANDONED_SECONDS)
        for path in self.folder.glob("*"):
            if path.name.startswith((LOG_PREFIX, COPY_PREFIX)) and _modified_at(path) < abandoned:
                path.unlink(missing_ok=True)
        for folder, _, names in os.walk(self.repository):
            for name in names:
                path = Path(folder, name)
                if name.startswith(("tmp_", ".tmp-")) or (
                    name.endswith(".lock") and _modified_at(path) < oldest
                ):
                    path.unlink(missing_ok=True)

    def swap(self) -> None:
        """Replace the repository with the fresh one."""
        old = self.folder / "old.git"
        with contextlib.suppress(FileNotFoundError):
            self.repository.rename(old)
        self.fresh.rename(self.repository)
        remove(old)


def remove(folder: Path) -> None:
    """Remove a folder with everything in it, or a file of that name, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()


def open_repository(folder: Path, git: Git) -> BareRepository:
    """Open a repository.

    GitPython is imported here, since importing it fails where there is no git command.

    Raises:
        SourceError: there is none.
    """
    try:
        from openfero_gitops.sources.git.repository import BareRepository  # noqa: PLC0415
    except ImportError as error:
        if shutil.which("git") is not None:
            raise  # not a missing git command
        raise SourceError(f"{git.where}: the git command is not installed; install git") from error
    return BareRepository(folder, git)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _modified_at(path: Path) -> float:
    """Return when a file was last written, in seconds since 1970; now if it does not exist."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
