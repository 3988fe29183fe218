"""Runs Git as a child process with a deadline that always holds.

A network operation of Git is a tree of processes (git, git-remote-https or ssh, index-pack), each
of which may hang. So each command gets a session of its own: when its deadline passes, its caller
is cancelled or its output exceeds a limit, the whole process group gets SIGTERM, then SIGKILL. No
process remains, not even a zombie where this process is the init process of a container.

Everything here blocks and must run in a thread; the event loop stops it with `stop`.
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
    from pathlib import Path

_POLL_SECONDS: Final = 0.05  # between two checks of the deadline and of `stop`
_TERMINATION_SECONDS: Final = 1.0  # between SIGTERM and SIGKILL
_REAP_SECONDS: Final = 5.0  # that a killed process may take to disappear
_MEASUREMENT_SECONDS: Final = 0.5  # between two measurements of a folder
_CHUNK_BYTES: Final = 1 << 16
_MAX_STDERR_BYTES: Final = 1 << 16  # only the last ones are kept: a server can write without end


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a command. A negative code is the signal that ended it; `stderr` may be cut."""

    code: int
    stdout: bytes
    stderr: str


class TooMuchOutput(Exception):
    """The command wrote more to stdout than its limit."""


class TooMuchDisk(Exception):
    """The command wrote more to a folder than its limit."""


@dataclass(frozen=True, slots=True)
class Git:
    """Git with an environment, a deadline for each command, and a way to stop it.

    `where` begins the text of every error; `timeout` is in seconds; setting `stop` ends the
    running command. `memory_bytes` limits the memory of each process, so that a server cannot
    make one so large that the kernel ends the controller; None sets no limit.
    """

    where: str
    environment: Mapping[str, str]
    timeout: float
    stop: threading.Event
    memory_bytes: int | None = None

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        max_bytes: int = 1 << 20,
        file_blocks: int | None = None,
        folder: Path | None = None,
        folder_bytes: int = 0,
    ) -> Finished:
        """Run one command to its end.

        Args:
            arguments: after `git`.
            stdin: the input of the command.
            max_bytes: the limit for stdout.
            file_blocks: of 512 bytes, the size of the largest file that the command may write.
            folder: what the command writes to.
            folder_bytes: how large the files below it may become together.

        Raises:
            SourceError: git is not installed, did not end in time or was stopped.
            TooMuchOutput: stdout exceeded `max_bytes`.
            TooMuchDisk: the files below `folder` exceeded `folder_bytes`.
        """
        argv = ["git", *arguments]
        limits = []
        if file_blocks is not None:
            limits.append(f"ulimit -f {file_blocks}")
        if self.memory_bytes is not None:
            # What a process may write to, and not the packs that it maps. (Elsewhere than on Linux
            # this counts less.)
            limits.append(f"ulimit -d {self.memory_bytes // 1024}")
        if limits:
            # A shell sets the limits before it starts git: in a process with threads, Python code
            # between fork and exec is not safe, and a limit set afterwards may come too late.
            argv = ["sh", "-c", "; ".join((*limits, 'exec "$@"')), "sh", *argv]
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
            raise SourceError(
                f"{self.where}: the git command is not installed; install git"
            ) from error
        pipes = _Pipes(child, stdin, max_bytes)
        try:
            self._communicate(child, pipes, folder, folder_bytes)
        finally:
            _end(child)
            pipes.close()
        return Finished(
            child.returncode, bytes(pipes.stdout), pipes.stderr.decode("utf-8", "replace")
        )

    def check(self) -> None:
        """Raise `SourceUnavailable` if the operation was stopped."""
        if self.stop.is_set():
            raise SourceUnavailable(f"{self.where}: the operation was stopped")

    def _communicate(
        self,
        child: subprocess.Popen[bytes],
        pipes: _Pipes,
        folder: Path | None,
        folder_bytes: int,
    ) -> None:
        """Write and read until the child has ended or its deadline has passed."""
        deadline = time.monotonic() + self.timeout
        next_measurement = time.monotonic() + _MEASUREMENT_SECONDS
        pauses = _pauses()
        while pipes.are_open or not _has_exited(child.pid):
            self.check()
            if folder is not None and time.monotonic() > next_measurement:
                # A limit for each file is none where there can be many.
                if bytes_below(folder) > folder_bytes:
                    raise TooMuchDisk
                next_measurement = time.monotonic() + _MEASUREMENT_SECONDS
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"{self.where}: git did not finish within {self.timeout:g} s and was stopped;"
                    " check that the server responds, or raise --git-timeout"
                )
            if not pipes.are_open:
                time.sleep(next(pauses))
            elif not pipes.transfer(_POLL_SECONDS) and _has_exited(child.pid):
                return  # a process that the child has left behind still holds a pipe open


def bytes_below(folder: Path) -> int:
    """Return the size in bytes of all files below a folder, which may change meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - many files
    return size


class _Pipes:
    """Stdin, stdout and stderr of a child."""

    def __init__(self, child: subprocess.Popen[bytes], stdin: bytes, max_bytes: int) -> None:
        self._unwritten = memoryview(stdin)
        self._max_bytes = max_bytes
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
    def are_open(self) -> bool:
        """Whether there is something left to read or to write."""
        return bool(self._selector.get_map())

    def transfer(self, timeout: float) -> bool:
        """Read or write each pipe that is ready; False if none is within `timeout` seconds.

        Raises:
            TooMuchOutput: stdout exceeded its limit.
        """
        ready = self._selector.select(timeout)
        for key, events in ready:
            stream = cast("IO[bytes]", key.fileobj)
            more = self._feed(stream) if events & selectors.EVENT_WRITE else self._drain(stream)
            if not more:
                self._selector.unregister(stream)
                stream.close()
        return bool(ready)

    def close(self) -> None:
        """Close the pipes that are still open."""
        for key in list(self._selector.get_map().values()):
            cast("IO[bytes]", key.fileobj).close()
        self._selector.close()

    def _feed(self, stream: IO[bytes]) -> bool:
        """Write a chunk; False once all is written or the child has closed its end."""
        try:
            written = os.write(stream.fileno(), self._unwritten[:_CHUNK_BYTES])
        except BrokenPipeError:
            return False
        self._unwritten = self._unwritten[written:]
        return bool(self._unwritten)

    def _drain(self, stream: IO[bytes]) -> bool:
        """Read a chunk; False at the end."""
        chunk = os.read(stream.fileno(), _CHUNK_BYTES)
        if stream is self._out:
            self.stdout += chunk
            if len(self.stdout) > self._max_bytes:
                raise TooMuchOutput
        else:
            self.stderr += chunk
            del self.stderr[:-_MAX_STDERR_BYTES]
        return bool(chunk)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise TypeError("the child was started without this pipe")
    return stream


def _end(child: subprocess.Popen[bytes]) -> None:
    """End every process of the group.

    The leader is reaped last: until then, no other process can get its ID, which is the group's.
    """
    if not _has_exited(child.pid):
        _signal_group(child.pid, signal.SIGTERM)
        _await_exit(child.pid, _TERMINATION_SECONDS)
    _signal_group(child.pid, signal.SIGKILL)
    _await_exit(child.pid, _REAP_SECONDS)
    with contextlib.suppress(subprocess.TimeoutExpired):  # blocked in the kernel
        child.wait(timeout=_REAP_SECONDS)
    _reap_orphans(child.pid)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _has_exited(pid: int) -> bool:
    """Whether a child has ended; does not reap it."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return result is not None


def _await_exit(pid: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    pauses = _pauses()
    while not _has_exited(pid) and time.monotonic() < deadline:
        time.sleep(next(pauses))


def _pauses() -> Iterator[float]:
    """Yield growing pauses in seconds: most children exit right after they close their pipes."""
    pause = _POLL_SECONDS / 250
    while True:
        yield pause
        pause = min(2 * pause, _POLL_SECONDS / 10)


def _reap_orphans(group: int) -> None:
    """Reap the other processes of a group, which this process inherits where it is init."""
    deadline = time.monotonic() + _REAP_SECONDS
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(_POLL_SECONDS / 10)
