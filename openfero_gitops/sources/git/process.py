"""Children that a deadline really ends.

A network operation of git is a small tree of processes (git, git-remote-https or ssh, index-pack),
any of which may hang. So each operation leads a session of its own: when its time is over, when
its caller is cancelled or when it says too much, the whole process group gets SIGTERM, then
SIGKILL, and nothing of it is left, not even a zombie where this process is a container's init.

Everything here blocks and belongs in a thread; `stop` is how the event loop reaches into it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, cast

from openfero_gitops.domain.errors import SourceError, SourceUnavailable

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

_TICK: Final = 0.05  # seconds between two looks at the deadline and at `stop`
_GRACE: Final = 1.0  # seconds between SIGTERM and SIGKILL
_LAST_WAIT: Final = 5.0  # seconds that a killed process may take to vanish
_CHUNK: Final = 1 << 16  # bytes
_STDERR_KEPT: Final = 1 << 16  # bytes, the last ones: a server can talk without end


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended; `stderr` is the end of it. A negative code is the signal it died of."""

    code: int
    stdout: bytes
    stderr: str


class TooMuchOutput(Exception):
    """The child wrote more to stdout than it was allowed."""


@dataclass(frozen=True, slots=True)
class Git:
    """Git with one environment, one deadline for each command and one way to be stopped.

    `where` begins every error; `timeout` is in seconds; a set `stop` ends the command under way.
    """

    where: str
    environment: Mapping[str, str]
    timeout: float
    stop: threading.Event

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        most: int = 1 << 20,
        file_blocks: int | None = None,
    ) -> Finished:
        """Run one command to its end.

        Args:
            arguments: after `git`.
            stdin: all that the command may read.
            most: bytes of stdout.
            file_blocks: of 512 bytes, the largest file that the command may write.

        Raises:
            SourceError: git is not there, did not end in time or was stopped.
            TooMuchOutput: it wrote more than `most`.
        """
        argv = ["git", *arguments]
        if file_blocks is not None:
            # Set by a shell before git is there: nothing of Python's is safe between fork and exec
            # in a process with threads, and a limit that is set later comes too late for some.
            argv = ["sh", "-c", 'ulimit -f "$0"; exec "$@"', str(file_blocks), *argv]
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(self.environment),
                cwd="/",
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise SourceError(f"{self.where}: there is no git command; install git") from error
        talk = _Talk(child, stdin, most)
        try:
            self._converse(child, talk)
        finally:
            _end(child)
            talk.close()
        return Finished(
            child.returncode, bytes(talk.stdout), talk.stderr.decode("utf-8", "replace")
        )

    def check(self) -> None:
        """Raise where the operation was stopped."""
        if self.stop.is_set():
            raise SourceUnavailable(f"{self.where}: reading was stopped")

    def _converse(self, child: subprocess.Popen[bytes], talk: _Talk) -> None:
        """Write and read until the child has ended, or its time is over."""
        deadline = time.monotonic() + self.timeout
        pauses = _pauses()
        while talk.is_open or not _has_exited(child.pid):
            self.check()
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"{self.where}: git did not end within {self.timeout:g} s and was stopped;"
                    " check that the server answers, or allow more time"
                )
            if not talk.is_open:
                time.sleep(next(pauses))
            elif not talk.turn(_TICK) and _has_exited(child.pid):
                return  # only a stray child of it still holds a pipe open


class _Talk:
    """The three pipes of a child: all is written that it may read, all is read that it writes."""

    def __init__(self, child: subprocess.Popen[bytes], stdin: bytes, most: int) -> None:
        self._rest = memoryview(stdin)
        self._most = most
        self._out = _pipe(child.stdout)
        self._err = _pipe(child.stderr)
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._selector = selectors.DefaultSelector()
        for stream in (self._out, self._err):
            self._selector.register(stream, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            self._selector.register(child.stdin, selectors.EVENT_WRITE)

    @property
    def is_open(self) -> bool:
        """Whether there is something left to read or to write."""
        return bool(self._selector.get_map())

    def turn(self, patience: float) -> bool:
        """Serve every pipe that is ready; False where none was within `patience` seconds.

        Raises:
            TooMuchOutput: on stdout.
        """
        ready = self._selector.select(patience)
        for key, events in ready:
            stream = cast("IO[bytes]", key.fileobj)
            more = self._feed(stream) if events & selectors.EVENT_WRITE else self._drain(stream)
            if not more:
                self._selector.unregister(stream)
                stream.close()
        return bool(ready)

    def close(self) -> None:
        """Close what is still open."""
        for key in list(self._selector.get_map().values()):
            cast("IO[bytes]", key.fileobj).close()
        self._selector.close()

    def _feed(self, stream: IO[bytes]) -> bool:
        """Write what a ready pipe takes; False once all is written or the child reads no more."""
        try:
            self._rest = self._rest[os.write(stream.fileno(), self._rest[:_CHUNK]) :]
        except BrokenPipeError:
            return False
        return bool(self._rest)

    def _drain(self, stream: IO[bytes]) -> bool:
        """Read what is there; False at the end."""
        chunk = os.read(stream.fileno(), _CHUNK)
        if stream is self._out:
            self.stdout += chunk
            if len(self.stdout) > self._most:
                raise TooMuchOutput
        else:
            self.stderr += chunk
            del self.stderr[:-_STDERR_KEPT]
        return bool(chunk)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise TypeError("the child was started without this pipe")
    return stream


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the group.

    The leader is reaped last: until then its id, which is the group's, cannot become another's.
    """
    if not _has_exited(child.pid):
        _signal_group(child.pid, signal.SIGTERM)
        _await_exit(child.pid, _GRACE)
    _signal_group(child.pid, signal.SIGKILL)
    _await_exit(child.pid, _LAST_WAIT)
    with contextlib.suppress(subprocess.TimeoutExpired):  # in the kernel's hands: nothing helps
        child.wait(timeout=_LAST_WAIT)
    _reap_orphans(child.pid)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _has_exited(pid: int) -> bool:
    """Whether a child has ended; it stays to be reaped."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return found is not None


def _await_exit(pid: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    pauses = _pauses()
    while not _has_exited(pid) and time.monotonic() < deadline:
        time.sleep(next(pauses))


def _pauses() -> Iterator[float]:
    """Seconds between two looks: a child is gone a moment after its pipes are, or it hangs."""
    pause = _TICK / 250
    while True:
        yield pause
        pause = min(2 * pause, _TICK / 10)


def _reap_orphans(group: int) -> None:
    """Reap what the leader left behind, where this process is init and inherits it."""
    deadline = time.monotonic() + _LAST_WAIT
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(_TICK / 10)
