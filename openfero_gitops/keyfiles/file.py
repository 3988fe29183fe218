"""Reads a file of credentials, keys or certificates, and again when it changes."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.keyfiles.content import UnusableFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = structlog.get_logger(__name__)

T = TypeVar("T")
MAX_BYTES: Final = 8 * 1024 * 1024
#: Of the name of a copy while it is written.
COPY_PREFIX: Final = ".repaired-"
_OTHERS: Final = 0o077
_ABANDONED_SECONDS: Final = 3600.0  # after which no running process can use a copy


class CheckedFile(Generic[T]):
    """A file, and what a function of this package makes of its content.

    A mounted Secret changes while this process runs, so the file is read again when its time, size
    or identity have changed.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        """Take a path, and the function that checks such files; nothing is read yet."""
        self.path = path
        self._parse = parse
        self._stamp: tuple[int, ...] | None = None
        self._value: T | None = None
        self._content = b""
        self._copies: set[Path] = set()

    def read(self) -> T:
        """Read and check the file.

        Raises:
            UnusableFile: it cannot be read or used; the text begins with its path.
        """
        try:
            state = self.path.stat()
            stamp = (state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino)
            if stamp != self._stamp or self._value is None:
                with naming(self.path):
                    content = read_file(self.path)
                    self._value, self._content, self._stamp = self._parse(content), content, stamp
        except OSError as error:
            raise UnusableFile(f"{self.path}: {_reason(error)}") from error
        return self._value

    def usable(self, folder: Path, text: Callable[[T], str]) -> Path:
        """Return the path of a file that a program can use.

        That is the file itself, or a private copy if its content had to be repaired. A file that
        cannot be used is returned as it is: `read` says why.

        Args:
            folder: for the copy; only this user can read it.
            text: returns the content that the program is to read.

        Raises:
            OSError: the folder is not writable.
        """
        try:
            repaired = text(self.read()).encode()
        except UnusableFile:
            return self.path
        if repaired == self._content:
            return self.path
        copy = _copy(self.path, folder, repaired)
        self._copies.add(copy)
        return copy

    def with_name(self, text: str) -> str:
        """Replace in a program's message the path of the copy by that of the file."""
        for copy in tuple(self._copies):
            text = text.replace(str(copy), str(self.path))
        return text


class LastUsable(Generic[T]):
    """What is made of a file, read again when the file changes, and kept while it is not usable.

    If the file stops being usable, this is logged once.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        """Read the file.

        Raises:
            UsageError: it cannot be read, or is not valid.
        """
        self._file = CheckedFile(path, parse)
        self._error = OnChange(_log.warning, "cannot use a file; its previous content stays valid")
        try:
            self._value = self._file.read()
        except UnusableFile as error:
            raise UsageError(str(error)) from error

    def now(self) -> T:
        """Return the current value."""
        try:
            self._value = self._file.read()
        except UnusableFile as error:
            self._error.set(str(error), file=str(self._file.path))
        else:
            self._error.clear()
        return self._value


def read_file(path: Path) -> bytes:
    """Read a file.

    Raises:
        OSError: it cannot be read.
        UnusableFile: it is not a file, or too large for what it must contain.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        # Reading a pipe could block, and it can be read only once.
        raise UnusableFile("is not a regular file (perhaps a pipe); write its content to a file")
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UnusableFile(
            f"the file has more than {MAX_BYTES} bytes; check that this is the right file"
        )
    return content


def require_private(path: Path) -> None:
    """Require that no other user can read a key, as ssh does for keys of its own user.

    Raises:
        UnusableFile: others can; the text begins with the path.
    """
    with suppress(OSError):
        state = path.stat()
        if state.st_uid == os.getuid() and state.st_mode & _OTHERS:
            mode = stat.S_IMODE(state.st_mode)
            raise UnusableFile(
                f"{path}: other users can read this private key (mode {mode:04o}), so ssh refuses"
                f" it; run chmod 600 {path}, or mount the Secret with defaultMode: 0400"
            )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a path, and the line if there is one, before an error of a function of this package."""
    try:
        yield
    except UnusableFile as error:
        line = f"line {error.line} " if error.line else ""
        raise UnusableFile(f"{path}: {line}{error}", error.line) from error


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"permission denied for user {os.getuid()}; let this user read it (for a Secret:"
            " fsGroup of the Pod's securityContext)"
        )
    if isinstance(error, IsADirectoryError):
        return "is a directory; name the file in it"
    return f"{error.strerror or error}; mount it, or correct its path"


def _copy(original: Path, folder: Path, content: bytes) -> Path:
    """Write a copy that only this user can read; its name depends on its content."""
    prefix = f"repaired-{hashlib.sha256(os.fsencode(original)).hexdigest()[:8]}-"
    copy = folder / f"{prefix}{hashlib.sha256(content).hexdigest()[:16]}"
    if not copy.is_file():
        descriptor, name = tempfile.mkstemp(prefix=COPY_PREFIX, dir=folder)  # with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            Path(name).replace(copy)
        except BaseException:
            Path(name).unlink(missing_ok=True)  # part of a key, perhaps
            raise
    oldest = time.time() - _ABANDONED_SECONDS
    for other in folder.glob(f"{prefix}*"):
        with suppress(OSError):
            if other != copy and other.stat().st_mtime < oldest:
                other.unlink()
    return copy
