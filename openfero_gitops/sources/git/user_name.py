"""A name for a user without one, which ssh insists on.

OpenShift runs each namespace under a user ID of its own, which no image can know. Where the library
nss_wrapper is installed, as in the image, it reads the user's entry from a file of ours.
"""

from __future__ import annotations

import functools
import os
import pwd
from pathlib import Path
from typing import Final

_FOLDERS: Final = ("usr/lib", "usr/lib64", "usr/lib/*-linux-gnu")


def user_name_environment(private: Path) -> dict[str, str]:
    """Return variables that name this process's user to ssh; none if it has a name.

    Args:
        private: a folder that only we use.

    Raises:
        OSError: the folder is not writable.
    """
    user, group = os.getuid(), os.getgid()
    try:
        pwd.getpwuid(user)
    except KeyError:
        library = _library()
    else:
        return {}
    if library is None:
        return {}  # ssh refuses to run, and the error says what to do
    passwd, groups = private / "passwd", private / "group"
    passwd.write_text(f"openfero:x:{user}:{group}::/nonexistent:/usr/sbin/nologin\n")
    groups.write_text(f"openfero:x:{group}:\n")
    return {
        "LD_PRELOAD": str(library),
        "NSS_WRAPPER_PASSWD": str(passwd),
        "NSS_WRAPPER_GROUP": str(groups),
    }


@functools.cache
def _library() -> Path | None:
    """Return the path of nss_wrapper, or None if it is not installed."""
    libraries = (
        library for folder in _FOLDERS for library in Path("/").glob(f"{folder}/libnss_wrapper.so")
    )
    return next(libraries, None)
