"""The part of a kubelet that serves the logs of containers, for the API server to ask."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.cluster.controlplane import NODE
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl


class KubeletLogs:
    """Lines by container; a log that is followed ends when `ended` is set."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = {}
        self.ended = threading.Event()
        self.requests: list[str] = []

    def clear(self) -> None:
        """Forget what the containers of other Pods wrote."""
        self.lines.clear()
        self.requests.clear()
        self.ended.clear()

    def write(self, container: str, *lines: bytes) -> None:
        """Let a container write lines."""
        self.lines.setdefault(container, []).extend(lines)


@contextmanager
def kubelet_logs(kubectl: Kubectl, folder: Path) -> Iterator[KubeletLogs]:
    """Serve the logs of the test cluster's node, which kwok does not do."""
    logs = KubeletLogs()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            logs.requests.append(self.path)
            container = address.path.rsplit("/", 1)[-1]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            written = 0
            while True:
                ended = logs.ended.is_set()
                lines = logs.lines.get(container, [])
                self.wfile.write(b"".join(lines[written:]))
                self.wfile.flush()
                written = len(lines)
                if ended or parse_qs(address.query).get("follow") != ["true"]:
                    return
                logs.ended.wait(0.05)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    certificate, key = Authority(folder, "kubelet").issue("kubelet")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, name="kubelet")
    thread.start()
    _announce(kubectl, [{"type": "InternalIP", "address": "127.0.0.1"}], server.server_port)
    try:
        yield logs
    finally:
        logs.ended.set()
        _announce(kubectl, [], 0)
        server.shutdown()
        server.server_close()
        thread.join()


def _announce(kubectl: Kubectl, addresses: list[dict[str, str]], port: int) -> None:
    """Tell the API server where the kubelet of the node is."""
    status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
    patch = json.dumps({"status": status})
    kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", patch)
