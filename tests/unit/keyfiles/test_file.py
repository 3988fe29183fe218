"""Reading a file of credentials or keys, and reading it again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from openfero_gitops.keyfiles.content import UnusableFile
from openfero_gitops.keyfiles.credentials import credentials
from openfero_gitops.keyfiles.file import CheckedFile, require_private
from openfero_gitops.keyfiles.ssh import known_hosts

HOST = (
    "git.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """A mounted Secret rotates, through a symlink, too; an unusable one is only an error."""
    for name in ("old", "new"):
        (tmp_path / name).write_text(f"ada:{name}\n")
    link = tmp_path / "credentials"
    link.symlink_to("old")
    file = CheckedFile(link, credentials)

    assert file.read().password == "old"
    link.unlink()
    with pytest.raises(UnusableFile, match="credentials: No such file or directory; mount it"):
        file.read()
    link.symlink_to("new")
    assert file.read().password == "new"


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """A folder, a pipe and a huge file have their own messages."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(9 * 2**20)
    (tmp_path / "pair").write_text("\n\nada:\n")
    causes = {
        tmp_path: "is a directory; name the file in it",
        tmp_path / "pipe": "is not a regular file (perhaps a pipe)",
        tmp_path / "huge": "the file has more than 8388608 bytes",
        tmp_path / "pair": "line 3 contains no password",
    }
    for path, cause in causes.items():
        with pytest.raises(UnusableFile) as refused:
            CheckedFile(path, credentials).read()
        assert str(refused.value).startswith(f"{path}: {cause}")


def test_a_file_of_another_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that this user may not read is named with the user."""

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "file").write_text("ada:s3cret\n")
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(UnusableFile, match=rf"permission denied for user {os.getuid()}; let this"):
        CheckedFile(tmp_path / "file", credentials).read()


def test_only_a_repaired_file_is_copied(tmp_path: Path) -> None:
    """Programs get the file itself, or a copy that only this user can read if it was repaired."""
    folder = tmp_path / "private"
    folder.mkdir()
    path = tmp_path / "known_hosts"
    file = CheckedFile(path, known_hosts)

    path.write_text(f"{HOST}\n")
    assert file.usable(folder, str) == path
    assert list(folder.iterdir()) == []
    path.write_text(f"\ufeff{HOST}\r\n")
    copy = file.usable(folder, str)
    assert (copy.parent, copy.read_text(), copy.stat().st_mode & 0o777) == (
        folder,
        f"{HOST}\n",
        0o600,
    )
    assert file.usable(folder, str) == copy
    path.write_text("not a host key\n")
    assert file.usable(folder, str) == path


@pytest.mark.parametrize(("owner", "step"), [(Path, "replace"), (os, "fdopen")])
def test_no_part_of_a_copy_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    """If the copy of a key cannot be completed, what was written of it is removed."""
    folder = tmp_path / "private"
    folder.mkdir()
    path = tmp_path / "known_hosts"
    path.write_text(f"\ufeff{HOST}\r\n")
    file = CheckedFile(path, known_hosts)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, full)
        with pytest.raises(OSError, match="No space left"):
            file.usable(folder, str)

    assert list(folder.iterdir()) == []
    assert file.usable(folder, str).read_text() == f"{HOST}\n"


def test_a_key_must_be_private(tmp_path: Path) -> None:
    """As ssh does, a key of this user that others can read is refused, with its mode."""
    key = tmp_path / "key"
    key.write_text("key")
    for mode in (0o600, 0o400):
        key.chmod(mode)
        require_private(key)
    for mode in (0o644, 0o640, 0o604):
        key.chmod(mode)
        with pytest.raises(UnusableFile, match=rf"\(mode {mode:04o}\).* run chmod 600 {key}"):
            require_private(key)
