"""A replica that only runs the elector and records its status in a journal.

Its guarded work checks the term and writes a line, a hundred times a second, until it finishes.
SIGUSR1 makes it crash. The journal has a JSON object per line; `at` is CLOCK_MONOTONIC, which all
processes of a machine share:

    standing              the process is up
    status                leader, holder, term, reason changed
    begin, end            the guarded work of that term; whether it was handed over
    write                 the term's check succeeded
    refused               the term's check failed
    gone                  the process ends normally
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.lease import KubernetesLease
from openfero_gitops.leadership.elector import Elector
from openfero_gitops.leadership.term import TermEnded

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.domain.lease import Leadership, LeaseDurations
    from openfero_gitops.leadership.term import LeaseTerm

TICK = 0.01


class Journal:
    """A file whose lines are complete even if the process is killed while writing."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, event: str, **more: object) -> None:
        """Write a line."""
        line = {"at": time.clock_gettime(time.CLOCK_MONOTONIC), "event": event, **more}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Work:
    """The guarded work: it can ignore its cancellation for `deaf` seconds, or crash."""

    def __init__(self, journal: Journal, *, deaf: float) -> None:
        self._journal = journal
        self._deaf = deaf
        self._broken = False

    def crash(self) -> None:
        """Make it fail at its next step."""
        self._broken = True

    async def __call__(self, term: LeaseTerm) -> None:
        """Run until cancelled."""
        self._journal("begin", term=term.id, handed_over=term.handed_over)
        cancelled: float | None = None
        try:
            while cancelled is None or time.monotonic() < cancelled + self._deaf:
                try:
                    await asyncio.sleep(TICK)
                except asyncio.CancelledError:
                    cancelled = time.monotonic()
                if term.closing.is_set():
                    term.finish(settled=True)
                else:
                    self._write(term)
                if self._broken:
                    self._broken = False
                    raise RuntimeError("the guarded work crashes on request")
        finally:
            self._journal("end", term=term.id)

    def _write(self, term: LeaseTerm) -> None:
        try:
            term.check()
        except TermEnded:
            self._journal("refused", term=term.id)
        else:
            self._journal("write", term=term.id)


def main(**settings: Any) -> None:
    """Run until SIGTERM."""
    asyncio.run(_run(**settings))


async def _run(
    kubeconfig: Path,
    namespace: str,
    identity: str,
    durations: LeaseDurations,
    journal: Path,
    deaf: float,
) -> None:
    write = Journal(journal)
    api = await KubernetesApi.connect(kubeconfig)

    def record(status: Leadership) -> None:
        write(
            "status",
            leader=status.leader,
            holder=status.holder,
            term=status.term,
            reason=status.reason,
        )

    work = Work(write, deaf=deaf)
    lease = KubernetesLease(api, namespace)
    elector = Elector(lease, identity, durations, work, on_change=[record])
    running = asyncio.create_task(elector.run(), name="elector")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    loop.add_signal_handler(signal.SIGUSR1, work.crash)
    write("standing")
    try:
        with suppress(asyncio.CancelledError):
            await running
    finally:
        await api.close()
    write("gone")
