"""A controller that is killed while it fetches leaves no process of Git behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.descendants import command_and_environment, descendants, wait_gone
from tests.support.git_servers import http_server, raw_server, ssh_server
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 60.0  # seconds, on a busy machine

FETCH = """
import asyncio, sys
from pathlib import Path
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.source import GitSettings, GitSource

url, cache, key, known_hosts = sys.argv[1:]
access = GitAccess(
    ssh_key_file=Path(key) if key else None,
    known_hosts_file=Path(known_hosts) if known_hosts else None,
)
asyncio.run(GitSource(GitSettings(url=url, cache_dir=Path(cache), access=access)).fetch())
"""


def commands(pids: set[int]) -> bytes:
    """Return what these processes run."""
    return b" ".join(command_and_environment(pid).split(b"\0PATH=")[0] for pid in pids)


@pytest.mark.parametrize("hangs", ["http", "ssh", "index-pack"])
def test_a_killed_controller_leaves_no_process(tmp_path: Path, hangs: str) -> None:
    """SIGKILL ends git and everything that it has started, whatever it is waiting for."""
    key = known_hosts = ""
    with ExitStack() as servers:
        if hangs == "index-pack":
            repository = Repository(tmp_path / "served" / "origin")
            repository.write("noise.bin", os.urandom(200_000))
            repository.commit("First")
            server = servers.enter_context(http_server(repository.folder.parent))
            server.cut = 100_000
            url = server.url("origin")
        else:
            port = servers.enter_context(raw_server(None))
            url = f"http://127.0.0.1:{port}/x"
        if hangs == "ssh":
            (tmp_path / "sshd").mkdir()
            sshd = servers.enter_context(ssh_server(tmp_path / "sshd"))
            key, known_hosts = str(sshd.key), str(sshd.known_hosts)
            url = f"ssh://git@127.0.0.1:{port}/x"
        controller = subprocess.Popen(
            [sys.executable, "-c", FETCH, url, str(tmp_path / "cache"), key, known_hosts]
        )
        started: set[int] = set()
        try:
            deadline = time.monotonic() + PATIENCE
            last = {"http": b"git-remote-http", "ssh": b"\0-E\0", "index-pack": b"index-pack"}
            while last[hangs] not in commands(started) and time.monotonic() < deadline:
                started = descendants(controller.pid)
                time.sleep(0.05)
            assert last[hangs] in commands(started)
        finally:
            controller.send_signal(signal.SIGKILL)
            controller.wait(PATIENCE)

        assert wait_gone(started, PATIENCE) == set()
        assert len(started) >= 3
