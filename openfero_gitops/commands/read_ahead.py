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
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from openfero_gitops.background import in_thread
from openfero_gitops.catalog.build import MAX_STEPS
from openfero_gitops.catalog.effort import Watch
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import without_collection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.catalog.files import FileReading
    from openfero_gitops.domain.catalog import SourceFile

#: A process starts in half a second, in which one process reads some hundred files.
MIN_FILES: Final = 1000
_MAX_PROCESSES: Final = 8
_FILES_PER_TASK: Final = 50
#: A process has died, for example for lack of memory, or the system lacks what they need.
_NO_PROCESSES: Final = (BrokenProcessPool, NotImplementedError, OSError)


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
    processes = min(os.cpu_count() or 1, _MAX_PROCESSES)
    if len(files) < min_files or processes == 1:
        return
    stop = threading.Event()
    await in_thread(lambda: _read_all(memo, files, kubernetes, processes, stop), stop)


def _read_all(
    memo: FileMemo,
    files: Sequence[SourceFile],
    kubernetes: str,
    processes: int,
    stop: threading.Event,
) -> None:
    # Other threads run in this process, so it must not fork.
    context = multiprocessing.get_context("spawn")
    steps = 0
    with (
        suppress(*_NO_PROCESSES),
        without_collection(),
        ProcessPoolExecutor(processes, context, _ignore_interrupts) as executor,
    ):
        readings = executor.map(partial(_read, kubernetes), files, chunksize=_FILES_PER_TASK)
        for file, reading in zip(files, readings, strict=True):
            memo.remember(file, reading)
            steps += reading.steps
            if steps > MAX_STEPS or stop.is_set():
                executor.shutdown(wait=False, cancel_futures=True)
                return


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which the terminal sends to every process, to the one that has started this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read(kubernetes: str, file: SourceFile) -> FileReading:
    return FileMemo(kubernetes).read(file, Watch(time.thread_time))
