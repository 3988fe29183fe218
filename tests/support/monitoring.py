"""Prometheus, a pair of Alertmanagers, and the metrics of machines that have problems."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from tests.support.optional import require_alertmanager, require_prometheus
from tests.support.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

LOOPBACK = "127.0.0.1"
PATIENCE_SECONDS = 60
_METRIC = "host_has_problem"


@contextlib.contextmanager
def alertmanager_pair(folder: Path, config: Mapping[str, Any]) -> Iterator[list[str]]:
    """Run two Alertmanagers that form a cluster; yield their addresses as HOST:PORT.

    Neither waits for the other, so both deliver, as they do when gossip is slow.
    """
    executable = require_alertmanager()
    path = folder / "alertmanager.yml"
    path.write_text(json.dumps(config))
    gossip = [free_port(), free_port()]
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        for index, port in enumerate(ports):
            argv = [
                executable,
                f"--config.file={path}",
                f"--storage.path={folder / f'alertmanager-{index}'}",
                f"--web.listen-address={LOOPBACK}:{port}",
                f"--cluster.listen-address={LOOPBACK}:{gossip[index]}",
                f"--cluster.peer={LOOPBACK}:{gossip[1 - index]}",
                "--cluster.peer-timeout=0s",
                "--cluster.settle-timeout=0s",
            ]
            log = folder / f"alertmanager-{index}.log"
            url = f"http://{LOOPBACK}:{port}/-/ready"
            stack.enter_context(Process(argv, log=log, url=url))
        yield [f"{LOOPBACK}:{port}" for port in ports]


def webhook_route(urls: Iterable[str]) -> dict[str, Any]:
    """Return a configuration that delivers each alert name as a group, to all URLs.

    A group is delivered as soon as it changes, and repeated every two seconds.
    """
    return {
        "route": {
            "receiver": "openfero",
            "group_by": ["alertname"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "2s",
        },
        "receivers": [
            {
                "name": "openfero",
                "webhook_configs": [
                    {"url": f"{url}/alerts", "send_resolved": True, "max_alerts": 10_000}
                    for url in urls
                ],
            }
        ],
    }


@contextlib.contextmanager
def prometheus(
    folder: Path,
    rules: Sequence[Mapping[str, Any]],
    alertmanagers: Sequence[str],
    *targets: str,
    resend: str = "1s",
) -> Iterator[str]:
    """Run a Prometheus that evaluates alert rules every second; yield its URL.

    It scrapes the targets (HOST:PORT) as often. Its first alerts may come before it has found the
    Alertmanagers, and are then sent after `resend`. After four times that long without a
    repetition, Alertmanager considers an alert resolved.
    """
    executable = require_prometheus()
    rule_file = folder / "rules.yml"
    rule_file.write_text(json.dumps({"groups": [{"name": "test", "rules": rules}]}))
    config = {
        "global": {"evaluation_interval": "1s", "scrape_interval": "1s"},
        "rule_files": [str(rule_file)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": alertmanagers}]}]},
        "scrape_configs": [{"job_name": "hosts", "static_configs": [{"targets": targets}]}],
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(config))
    url = f"http://{LOOPBACK}:{free_port()}"
    process = Process(
        [
            executable,
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={url.removeprefix('http://')}",
            f"--rules.alert.resend-delay={resend}",
        ],
        log=folder / "prometheus.log",
        url=f"{url}/-/ready",
    )
    with process:
        yield url


def is_alerting(url: str, count: int) -> bool:
    """Whether Prometheus has found so many Alertmanagers."""
    return len(_get(f"{url}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]) == count


def alerts_of(alertmanager: str, name: str) -> list[Any]:
    """Return the alerts of this name that an Alertmanager has, silenced or not."""
    answer: list[Any] = _get(
        f"http://{alertmanager}/api/v2/alerts?filter=alertname%3D{name}&active=true&silenced=true"
    )
    return answer


def is_silenced(alertmanager: str, name: str) -> bool:
    """Whether an Alertmanager has silenced all alerts of this name."""
    states = {alert["status"]["state"] for alert in alerts_of(alertmanager, name)}
    return states == {"suppressed"}


def silence(alertmanager: str, name: str, since: str, until: str) -> None:
    """Silence the alerts of a name in a pair of Alertmanagers, through one of them."""
    body = {
        "matchers": [{"name": "alertname", "value": name, "isRegex": False, "isEqual": True}],
        "startsAt": since,
        "endsAt": until,
        "createdBy": "ada",
        "comment": "known",
    }
    request = urllib.request.Request(
        f"http://{alertmanager}/api/v2/silences",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        answer.read()


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


class Exporter:
    """Serves metrics on loopback, made anew for each request.

    Args:
        metrics: returns them in Prometheus' text format.
    """

    def __init__(self, metrics: Callable[[], str]) -> None:
        class Answer(BaseHTTPRequestHandler):
            """Answers each request with the metrics."""

            def do_GET(self) -> None:
                content = metrics().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        """Serve the metrics."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where Prometheus scrapes it, as HOST:PORT."""
        return f"{LOOPBACK}:{self._server.server_port}"


class Hosts(Exporter):
    """Hosts with problems, as an exporter shows them to Prometheus.

    A problem has the name of the alert that it causes.
    """

    def __init__(self) -> None:
        """Have no problems."""
        super().__init__(self.metrics)
        self._problems: dict[tuple[str, str], bool] = {}

    def have(self, problem: str, host: str) -> None:
        """Let a host have a problem."""
        self._problems[problem, host] = True

    def heal(self, problem: str, host: str) -> None:
        """Let a host's problem be over."""
        self._problems[problem, host] = False

    def metrics(self) -> str:
        """Return a gauge for each problem and host, in Prometheus' text format."""
        return "".join(
            f'{_METRIC}{{problem="{problem}",host="{host}"}} {int(is_there)}\n'
            for (problem, host), is_there in list(self._problems.items())
        )

    @staticmethod
    def rule(problem: str) -> dict[str, Any]:
        """Return the alert rule for a problem."""
        return {
            "alert": problem,
            "expr": f'max by (host) ({_METRIC}{{problem="{problem}"}}) == 1',
            "labels": {"severity": "critical"},
        }
