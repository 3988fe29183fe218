"""Runs Git as a child process with a deadline that always holds.

A network operation of Git is a tree of processes (git, git-remote-https or ssh, index-pack), each
of which may hang. So each command gets a session of its own: when its deadline passes, its caller
is cancelled or its output exceeds a limit, the whole process group gets SIGTERM, then SIGKILL. No
process remains, not even a zombie where this process is the init process of a container.

If this process itself is killed, nobody is left to do that. So a shell in the group waits for the
end of a pipe that only this process holds open, and then kills the group. (PR_SET_PDEATHSIG would
reach git alone, not its children, and already at the end of the thread that started it.)

Everything here blocks and must run in a thread; the event loop stops it with `stop`.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.sources.git.transport import log_to, progress

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence

_POLL_SECONDS: Final = 0.05  # between two checks of the deadline and of `stop`
_TERMINATION_SECONDS: Final = 1.0  # between SIGTERM and SIGKILL
_REAP_SECONDS: Final = 5.0  # that a killed process may take to disappear
_MEASUREMENT_SECONDS: Final = 0.5  # between two measurements of a folder
_CHUNK_BYTES: Final = 1 << 16
_MAX_STDERR_BYTES: Final = 1 << 16  # only the last ones are kept: a server can write without end
_MAX_LOG_BYTES: Final = 1 << 16  # that are read of a transport's log, from its end
#: Of the names of log files.
LOG_PREFIX: Final = "transport-"
_NOT_FOUND: Final = 127  # a shell's exit code
_NO_GIT: Final = re.compile(r"sh: (?:\d+: |line \d+: )?(?:exec: )?git: .{0,40}not found")
_MAX_LOG_FILE_BYTES: Final = 1 << 23
_LEFTOVER_SECONDS: Final = (
    2.0  # for processes that a failed command left behind to end by themselves
)
# `read` returns when this process has ended. Git does not inherit the pipe.
_SUPERVISE: Final = (
    "exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec 3<&-"
)


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a command.

    Attributes:
        code: the exit code; a negative one is the signal that ended it.
        stdout: its output.
        stderr: the end of its messages.
        command: its name, such as `fetch`.
        log: the end of what ssh or the HTTP library of Git logged, if that was requested.
    """

    code: int
    stdout: bytes
    stderr: str
    command: str = ""
    log: str = ""

    @property
    def ending(self) -> str:
        """How the command ended: `git fetch ended with exit code 1`."""
        name = f"git {self.command}".strip()
        if self.code >= 0:
            return f"{name} ended with exit code {self.code}"
        try:
            signal_name = signal.Signals(-self.code).name
        except ValueError:
            signal_name = "a signal"
        return f"{name} was ended by signal {-self.code} ({signal_name})"


class TooMuchOutput(Exception):
    """The command wrote more to stdout than its limit."""


class TooMuchDisk(Exception):
    """The command wrote more to a folder than its limit."""


@dataclass(frozen=True, slots=True)
class Git:
    """Git with an environment, a deadline for each command, and a way to stop it.

    `where` begins the text of every error; `timeout` is in seconds; setting `stop` ends the
    running command. `memory_bytes` limits the memory of each process, so that a server cannot
    make one so large that the kernel ends the controller; None sets no limit. `log_folder` is for
    the logs of network operations, which contain no secrets and are removed at once.
    """

    where: str
    environment: Mapping[str, str]
    timeout: float
    stop: threading.Event
    memory_bytes: int | None = None
    log_folder: Path | None = None

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        max_bytes: int = 1 << 20,
        file_blocks: int | None = None,
        folder: Path | None = None,
        folder_bytes: int = 0,
        lengthy: bool = False,
    ) -> Finished:
        """Run one command to its end.

        Args:
            arguments: after `git`.
            stdin: the input of the command.
            max_bytes: the limit for stdout.
            file_blocks: of 512 bytes, the size of the largest file that the command may write.
            folder: what the command writes to.
            folder_bytes: how large the files below it may become together.
            lengthy: whether it may run for long, as everything does that uses the network. Then it
                ends with this process, has no input, and its transport logs to `Finished.log`.

        Raises:
            SourceError: git is not installed, did not end in time or was stopped.
            TooMuchOutput: stdout exceeded `max_bytes`.
            TooMuchDisk: the files below `folder` exceeded `folder_bytes`.
        """
        limits = []
        if file_blocks is not None:
            limits.append(f"ulimit -f {file_blocks}")
        if self.memory_bytes is not None:
            # What a process may write to, and not the packs that it maps. (Elsewhere than on Linux
            # this counts less.)
            limits.append(f"ulimit -d {self.memory_bytes // 1024}")
        # Other commands end with this process soon: when they next read or write.
        supervision = [_SUPERVISE] if lengthy else []
        # A shell sets the limits before it starts git: in a process with threads, Python code
        # between fork and exec is not safe, and a limit set afterwards may come too late.
        script = "; ".join((*limits, *supervision, 'exec "$@"'))
        with self._log(requested=lengthy) as log:
            try:
                child = subprocess.Popen(
                    ["sh", "-c", script, "sh", "git", *arguments],
                    stdin=subprocess.PIPE if stdin or lengthy else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**self.environment, **(log_to(str(log)) if log else {})},
                    cwd="/",
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                name = "sh" if shutil.which("git") else "git"
                raise SourceError(
                    f"{self.where}: the {name} command is not installed; install {name}"
                ) from error
            pipes = _Pipes(child, stdin, max_bytes)
            try:
                self._communicate(child, pipes, folder, folder_bytes, log)
            finally:
                _end(child)
                pipes.close()
            written = _tail(log) if log else ""
        stderr = pipes.stderr.decode("utf-8", "replace")
        if (
            child.returncode == _NOT_FOUND
            and not pipes.stdout
            and _NO_GIT.fullmatch(stderr.strip())
        ):
            raise SourceError(f"{self.where}: the git command is not installed; install git")
        command = _command(arguments)
        return Finished(child.returncode, bytes(pipes.stdout), stderr, command, written)

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
        log: Path | None,
    ) -> None:
        """Write and read until the child has ended or its deadline has passed."""
        deadline = time.monotonic() + self.timeout
        abandoned: float | None = None  # when the processes that it has left are given up
        next_measurement = time.monotonic() + _MEASUREMENT_SECONDS
        pauses = _pauses()
        while pipes.are_open or not _has_exited(child.pid):
            self.check()
            if time.monotonic() > next_measurement:
                # A limit for each file is none where there can be many.
                if folder is not None and bytes_below(folder) > folder_bytes:
                    raise TooMuchDisk
                if log is not None and log.stat().st_size > _MAX_LOG_FILE_BYTES:
                    raise SourceUnavailable(
                        f"{self.where}: the server makes git write a log without end; check the URL"
                    )
                next_measurement = time.monotonic() + _MEASUREMENT_SECONDS
            if time.monotonic() > deadline:
                reached = progress(_tail(log)) if log else ""
                raise SourceUnavailable(
                    f"{self.where}: git did not finish within {self.timeout:g} s and was stopped"
                    f"{f' (progress: {reached})' if reached else ''}; check that the server"
                    " responds, or raise --git-timeout"
                )
            if not pipes.are_open:
                time.sleep(next(pauses))
            elif not pipes.transfer(_POLL_SECONDS) and _has_exited(child.pid):
                # A process that the child has left behind still holds a pipe open. It may be ssh,
                # about to write why it failed.
                abandoned = abandoned or time.monotonic() + _LEFTOVER_SECONDS
                if time.monotonic() > abandoned:
                    return

    @contextlib.contextmanager
    def _log(self, *, requested: bool) -> Iterator[Path | None]:
        """Make a file for the log of one command, and remove it afterwards."""
        if not requested or self.log_folder is None:
            yield None
            return
        descriptor, name = tempfile.mkstemp(prefix=LOG_PREFIX, dir=self.log_folder)
        os.close(descriptor)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def _tail(file: Path) -> str:
    """Return the end of a log; empty if it cannot be read."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _MAX_LOG_BYTES))
            return stream.read(_MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _command(arguments: Sequence[str]) -> str:
    """Return the name of the command in the arguments of Git: the first that is no option."""
    words = iter(arguments)
    for word in words:
        if word in {"-c", "-C"}:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""


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
        # Without input it stays open as long as the child runs: see `_SUPERVISE`.
        self._in = child.stdin
        if child.stdin is not None and stdin:
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
        if self._in is not None:
            self._in.close()

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
    pauses = _pauses()
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(next(pauses))
