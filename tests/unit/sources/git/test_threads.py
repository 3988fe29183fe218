"""Operations of Git in threads."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain.errors import SourceError
from openfero_gitops.sources.git.access import GitAccess, GitConnection
from openfero_gitops.sources.git.cache import Cache
from openfero_gitops.sources.git.threads import GitThreads
from openfero_gitops.sources.git.url import parse_remote

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.sources.git.process import Git

URL = "https://git.example.com/ops"


@pytest.mark.parametrize(
    ("number", "lasting"),
    [
        (errno.ENOSPC, False),
        (errno.EDQUOT, False),
        (errno.EIO, False),
        (errno.ESTALE, False),
        (errno.EMFILE, False),
        (errno.EAGAIN, False),
        (errno.EACCES, True),
        (errno.EROFS, True),
        (errno.ENOTDIR, True),
    ],
    ids=errno.errorcode.get,
)
async def test_a_full_disk_is_waited_for(
    tmp_path: Path,
    number: int,
    lasting: bool,  # noqa: FBT001 - a case
) -> None:
    """What may work again without a change is tried again, also at the first start."""
    connection = GitConnection(parse_remote(URL), GitAccess())
    threads = GitThreads(URL, Cache.of(tmp_path, URL), connection, 60.0)

    def fail(_: Git) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(SourceError) as failed:
        await threads.run(fail)

    assert failed.value.lasting is lasting
    assert str(failed.value) == (
        f"{URL}: cannot use the cache directory {tmp_path} ({os.strerror(number)}); check that it"
        " is writable and has free space"
    )
