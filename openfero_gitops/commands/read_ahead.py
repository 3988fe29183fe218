"""Reads many files in several processes, for commands that a person or a pipeline waits for.

A reading is a pure function of a file's content. So it does not matter which process has made it,
and what is missing here, for any reason, is read by the build of the catalog itself. The controller
never does this: it must not start processes, and nobody waits for its syncs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from openfero_gitops.background import in_thread
from openfero_gitops.catalog.build import MAX_STEPS
from openfero_gitops.catalog.effort import Watch
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import without_collection
from openfero_gitops.commands.processes import usable_processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openfero_gitops.catalog.files import FileReading
    from openfero_gitops.domain.catalog import SourceFile

#: A process starts in half a second, in which one process reads some hundred files.
MIN_FILES: Final = 1000
_MAX_PROCESSES: Final = 8
_FILES_PER_TASK: Final = 50
_BYTES_PER_PROCESS: Final = 150 * 1024 * 1024


async def read_ahead(
    memo: FileMemo, files: Sequence[SourceFile], kubernetes: str, *, min_files: int = MIN_FILES
) -> None:
    """Read files into a memo, if there are many of them and several processors.

    Args:
        memo: where the readings are kept; it must be for the same version of Kubernetes.
        files: the files of a snapshot.
        kubernetes: the version of Kubernetes to validate for.
        min_files: the number of files from which on it is worth it.
    """
    if len(files) < min_files:
        return
    stop = threading.Event()
    await in_thread(lambda: _read_all(memo, files, kubernetes, stop), stop)


def _read_all(
    memo: FileMemo, files: Sequence[SourceFile], kubernetes: str, stop: threading.Event
) -> None:
    processes = min(usable_processes(_BYTES_PER_PROCESS), _MAX_PROCESSES)
    if processes <= 1:
        return
    # Other threads run in this process, so it must not fork.
    context = multiprocessing.get_context("spawn")
    steps = 0
    with (
        # A process may die for lack of memory, or the system lacks what processes need. Whatever it
        # is, the build reads the missing files itself, and has the error again if a file is it.
        suppress(Exception),
        without_collection(),
        ProcessPoolExecutor(processes, context, _end_with_parent) as executor,
    ):
        with _interrupts_blocked():  # this starts all processes
            readings = executor.map(partial(_read, kubernetes), files, chunksize=_FILES_PER_TASK)
        for file, reading in zip(files, readings, strict=True):
            memo.remember(file, reading)
            steps += reading.steps
            if steps > MAX_STEPS or stop.is_set():
                executor.shutdown(wait=False, cancel_futures=True)
                return


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Leave Ctrl-C, which the terminal sends to every process, to the one that starts others.

    Processes inherit which signals are blocked in the thread that starts them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """End this process when its parent is killed, which would leave it waiting for work."""
    threading.Thread(target=_exit_after_parent, name="end with parent", daemon=True).start()


def _exit_after_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _read(kubernetes: str, file: SourceFile) -> FileReading:
    return FileMemo(kubernetes).read(file, Watch(time.thread_time))
