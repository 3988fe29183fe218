"""Containers that crash, as kube-state-metrics shows them to Prometheus."""

from __future__ import annotations

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.support.monitoring import LOOPBACK

_METRIC = "kube_pod_container_status_restarts_total"


class ContainerRestarts:
    """Serves how often containers were restarted, read anew from the cluster for each request.

    The metric and its labels are those of kube-state-metrics.

    Args:
        api: the address of `kubectl proxy`.
        namespace: that of the Pods.
    """

    def __init__(self, api: str, namespace: str) -> None:
        exporter = self

        class Answer(BaseHTTPRequestHandler):
            """Answers each request with the metrics."""

            def do_GET(self) -> None:
                content = exporter.metrics().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._pods = f"{api}/api/v1/namespaces/{namespace}/pods"
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

    def metrics(self) -> str:
        """Return a counter for each container of the namespace, in Prometheus' text format."""
        with urllib.request.urlopen(self._pods, timeout=30) as answer:
            pods = json.load(answer)["items"]
        return "".join(
            f'{_METRIC}{{namespace="{pod["metadata"]["namespace"]}",'
            f'pod="{pod["metadata"]["name"]}",container="{status["name"]}"}}'
            f" {status['restartCount']}\n"
            for pod in pods
            for status in pod["status"].get("containerStatuses", ())
        )
