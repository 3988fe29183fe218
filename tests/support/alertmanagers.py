"""Real Alertmanagers on loopback, and a receiver for what they send to people."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.support.optional import require_alertmanager
from tests.support.paths import ROOT
from tests.support.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

LOOPBACK: Final = "127.0.0.1"
_CONFIG: Final = "alertmanager.json"
EXAMPLE: Final = ROOT / "operarios-example" / "alertmanager" / "alertmanager.yaml"


@dataclass
class Inbox:
    """What a person was sent: alert names with their status, and when."""

    url: str
    received: list[tuple[float, str, Mapping[str, str]]] = field(default_factory=list)

    def pages(self, status: str = "firing", **labels: str) -> list[float]:
        """When alerts with these labels were sent, by the monotonic clock."""
        return [
            at
            for at, state, found in list(self.received)
            if state == status and labels.items() <= found.items()
        ]


@contextlib.contextmanager
def inbox() -> Iterator[Inbox]:
    """Serve a webhook that keeps what it gets."""

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            now = time.monotonic()
            kept.received.extend((now, each["status"], each["labels"]) for each in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Webhook)
    kept = Inbox(f"http://{LOOPBACK}:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """Give the address of a server that accepts connections and never answers."""
    with socket.create_server((LOOPBACK, 0), backlog=1024) as listener:
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"


def example_config() -> dict[str, Any]:
    """Return the example configuration for Alertmanager."""
    config: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return config


@contextlib.contextmanager
def cluster(folder: Path, config: Mapping[str, Any], size: int = 2) -> Iterator[list[str]]:
    """Run Alertmanagers that know each other; give their addresses."""
    executable = require_alertmanager()
    file = folder / _CONFIG
    file.write_text(json.dumps(config))
    gossip = [free_port() for _ in range(size)]
    ports = [free_port() for _ in range(size)]
    with contextlib.ExitStack() as exits:
        for index, port in enumerate(ports):
            process = Process(
                [
                    executable,
                    f"--config.file={file}",
                    f"--storage.path={folder / f'alertmanager-{index}'}",
                    f"--web.listen-address={LOOPBACK}:{port}",
                    f"--cluster.listen-address={LOOPBACK}:{gossip[index]}",
                    *(f"--cluster.peer={LOOPBACK}:{peer}" for peer in gossip),
                    "--cluster.settle-timeout=0s",
                    "--cluster.peer-timeout=1s",
                ],
                log=folder / f"alertmanager-{index}.log",
                url=f"http://{LOOPBACK}:{port}/-/ready",
            )
            exits.enter_context(process)
        yield [f"http://{LOOPBACK}:{port}" for port in ports]


def configure(folder: Path, config: Mapping[str, Any], urls: Sequence[str]) -> None:
    """Let running Alertmanagers of this folder use another configuration."""
    (folder / _CONFIG).write_text(json.dumps(config))
    for url in urls:
        request = urllib.request.Request(f"{url}/-/reload", method="POST")
        with urllib.request.urlopen(request, timeout=60):
            pass


def send(
    urls: Sequence[str], starts_at: datetime, ends_at: datetime | None = None, **labels: str
) -> None:
    """Send an alert to every Alertmanager, as Prometheus does; it is resolved if it has an end."""
    alert = {"labels": labels, "startsAt": starts_at.isoformat(), "annotations": {}}
    if ends_at is not None:
        alert["endsAt"] = ends_at.isoformat()
    for url in urls:
        request = urllib.request.Request(
            f"{url}/api/v2/alerts",
            json.dumps([alert]).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60):
            pass


def open_alerts(url: str, **labels: str) -> list[dict[str, Any]]:
    """Return the alerts of an Alertmanager that have not ended."""
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=60) as answer:
        alerts = json.load(answer)
    return [alert for alert in alerts if labels.items() <= alert["labels"].items()]
