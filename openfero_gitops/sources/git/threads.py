"""Runs Git in threads on behalf of the event loop, and stops it."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from openfero_gitops.background import in_thread
from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.sources.git.process import Git

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.sources.git.access import GitConnection
    from openfero_gitops.sources.git.cache import Cache

_T = TypeVar("_T")
#: What a full or failing disk, and a busy machine, answer: it may work again without a change.
_TEMPORARY: Final = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
    }
)


class GitThreads:
    """Runs each operation on a repository in a thread of its own.

    Args:
        where: begins the text of every error.
        cache: the directory of the repository; it is created where it is missing.
        access: the environment of the commands.
        timeout: seconds that one command may take.
    """

    def __init__(self, where: str, cache: Cache, access: GitConnection, timeout: float) -> None:
        self._where = where
        self._cache = cache
        self._access = access
        self._timeout = timeout
        self._running: dict[asyncio.Task[object], threading.Event] = {}
        self._closed = False

    async def run(self, operation: Callable[[Git], _T]) -> _T:
        """Run an operation; a cancelled caller waits until its child processes have ended.

        Raises:
            SourceError: the operation failed, the cache directory cannot be used, or this is
                closed.
        """
        if self._closed:
            raise SourceError(f"{self._where}: the source is closed")
        stop = threading.Event()
        task = asyncio.create_task(
            in_thread(lambda: self._run_in_thread(operation, stop), stop),
            name=f"git: {self._where}",
        )
        self._running[task] = stop
        task.add_done_callback(self._running.pop)
        return await task

    async def aclose(self) -> None:
        """Stop every operation and wait for its end. May be repeated."""
        self._closed = True
        for stop in self._running.values():
            stop.set()
        while self._running:
            await asyncio.wait(list(self._running))

    def _run_in_thread(self, operation: Callable[[Git], _T], stop: threading.Event) -> _T:
        try:
            self._cache.open()
            git = Git(
                self._where,
                self._environment(),
                self._timeout,
                stop,
                memory_bytes=self._access.memory_bytes,
                log_folder=self._cache.folder,
            )
            return operation(git)
        except OSError as error:
            kind = SourceUnavailable if error.errno in _TEMPORARY else SourceError
            raise kind(
                f"{self._where}: cannot use the cache directory {self._cache.folder.parent}"
                f" ({error.strerror or error}); check that it is writable and has free space"
            ) from error

    def _environment(self) -> dict[str, str]:
        try:
            return self._access.environment(self._cache.folder)
        except SourceUnavailable as error:
            raise SourceUnavailable(f"{self._where}: {error}") from error
