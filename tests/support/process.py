"""Servers as child processes: they answer before the test goes on, and never outlive it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.cluster.controlplane import LOOPBACK, free_port, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Process", "ProcessError", "free_port"]


class ProcessError(RuntimeError):
    """A process that ended early or does not answer; its text ends with its last log lines."""


class Process:
    """A child in a process group of its own, with its output in a file.

    As a context manager it starts, waits until it answers, and ends with the block.

    Args:
        argv: the command.
        log: file that its output is appended to.
        port: wait until a connection to this port is accepted.
        host: the address of the port, as a number.
        url: wait until a GET of this http address is answered with 2xx or 3xx.
        env: its whole environment; without it, this process's.
        cwd: where it runs.
        patience: seconds it may take until it answers, and again until it ends.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        port: int | None = None,
        host: str = LOOPBACK,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        patience: float = 120,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.log = log
        self._port = port
        self._host = host
        self._url = url
        self._env = env
        self._cwd = cwd
        self._patience = patience
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()

    @property
    def pid(self) -> int:
        """The process id, which is its group's too."""
        return self._started().pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        child = self._started()
        if child.returncode is not None:
            return child.returncode
        # Left unreaped until `end`: so long its id, and its group's, is not given away.
        left = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if left is None:
            return None
        return left.si_status if left.si_code == os.CLD_EXITED else -left.si_status

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ProcessError: it ended, or did not answer in time; it is ended then.
        """
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        try:
            self.wait_until_it_answers()
        except BaseException:
            self.end()
            raise

    def wait_until_it_answers(self) -> None:
        """Return once port and URL answer; also after `signal`, for a server that comes back.

        Raises:
            ProcessError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + self._patience
        while True:
            answers = self._answers()
            if self.returncode is not None:
                raise ProcessError(self._said(f"ended with {self.returncode}"))
            if answers:
                return
            if time.monotonic() > deadline:
                raise ProcessError(self._said(f"did not answer within {self._patience} s"))
            time.sleep(0.05)

    def wait(self, patience: float | None = None) -> int:
        """Wait until it ends by itself; return its exit code.

        Raises:
            ProcessError: it still runs after `patience` seconds.
        """
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        while (code := self.returncode) is None:
            if time.monotonic() > deadline:
                raise ProcessError(self._said("still runs"))
            time.sleep(0.02)
        return code

    def signal(self, sent: signal.Signals) -> None:
        """Send a signal to the whole group: SIGKILL is a crash, SIGSTOP a hang, SIGCONT its end."""
        os.killpg(self.pid, sent)

    def end(self) -> None:
        """End the group: SIGTERM, and SIGKILL for what is left of it. Nothing to end is fine."""
        if self._child is None or self._child.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        with contextlib.suppress(ProcessError):
            self.wait()
        self.signal(signal.SIGKILL)
        self._child.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise ProcessError(f"{self.argv[0]} was not started")
        return self._child

    def _answers(self) -> bool:
        try:
            if self._port is not None:
                socket.create_connection((self._host, self._port), timeout=1).close()
            if self._url is not None:
                return _get(self._url) < http.HTTPStatus.BAD_REQUEST
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _said(self, sentence: str) -> str:
        return f"{self.argv[0]} {sentence}; the end of {self.log}:\n{tail(self.log)}"


def _get(url: str) -> int:
    """Return the HTTP status of a plain GET."""
    address = urlsplit(url)
    path = (address.path or "/") + (f"?{address.query}" if address.query else "")
    connection = http.client.HTTPConnection(address.netloc, timeout=1)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status
