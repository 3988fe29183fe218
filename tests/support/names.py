"""A name server for the Pods of a node."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.cluster.node import ADDRESS
from tests.support.optional import require
from tests.support.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def name_server(folder: Path, hosts: Path) -> Iterator[None]:
    """Answer questions for the names in the files of a folder.

    They are as `/etc/hosts`: an address, and NAME.NAMESPACE.svc.cluster.local for a Service. Files
    that are added later count, too; one that is there is not read again.
    """
    dnsmasq = require("dnsmasq", "apt-get install dnsmasq-base", "dnsmasq")
    argv = [
        dnsmasq,
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
        "--log-facility=-",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        f"--listen-address={ADDRESS}",
        "--local=/local/",
        f"--hostsdir={hosts}",
    ]
    # It takes connections as well as datagrams.
    with Process(argv, log=folder / "dnsmasq.log", port=53, host=ADDRESS):
        yield
