"""The Pod of `helm test`: its script against real replicas, and what the chart makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority
from tests.support.chart import CHART, NAME, REPOSITORY, Object, merged, only, render_chart
from tests.support.cluster import require_binaries
from tests.support.replica import Replica, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.chart import Values
    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


def run_script(url: str, auth: str, **environment: str) -> tuple[int, str]:
    """Run the script of the Pod and return its exit code and output."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", (CHART / "files/helm_test.py").read_text()],
        env={"PATH": os.environ["PATH"], "URL": url, "AUTH": auth, "ATTEMPTS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_a_working_webhook_passes_and_creates_no_job(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """A real replica accepts the delivery; without the right credentials the test fails."""
    repository = Repository(tmp_path / "git")
    # An operario for the very alert that the script sends.
    repository.write("Test.json", operario("OpenFeroRemediating"))
    repository.commit("Operarios")
    credentials = tmp_path / "token"
    credentials.write_text("a-token-of-the-webhook\nanother-that-is-also-accepted\n")
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        webhook_auth="bearer",
        webhook_credentials_file=str(credentials),
    ) as replica:
        code, text = run_script(replica.url, "bearer", CREDENTIALS_FILE=str(credentials))
        assert code == 0, text
        assert [line.partition(":")[0] for line in text.splitlines()] == ["ok"] * 4
        assert "wrong credentials is refused: 401" in text
        assert "got no Job" in text
        wrong = tmp_path / "wrong"
        wrong.write_text("not-the-token\n")
        code, text = run_script(replica.url, "bearer", CREDENTIALS_FILE=str(wrong))
        assert code == 1
        assert "credentials of the Secret is accepted: the answer is 401, not 200" in text
        code, text = run_script(replica.url, "none")
        assert (code, "the answer is 401, not 200" in text) == (1, True)
    assert kubectl("get", "jobs", "-n", shared_namespace, "-o", "name") == ""


class AcceptsAll(BaseHTTPRequestHandler):
    """A webhook that checks no credentials, and has an operario for every alert."""

    def do_GET(self) -> None:
        """Be ready."""
        self._answer({"status": "ok"})

    def do_POST(self) -> None:
        """Accept the delivery."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"items": [{"outcome": "created", "reason": None}]})

    def _answer(self, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def accepts_all(certificate: Path | None = None, key: Path | None = None) -> Iterator[int]:
    """Serve that webhook on loopback, with TLS if there is a certificate; yield its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), AcceptsAll) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_webhook_that_does_not_check_credentials_fails(tmp_path: Path) -> None:
    """So does one that would create a Job, and an address where nothing listens."""
    credentials = tmp_path / "token"
    credentials.write_text("ada:password")
    with accepts_all() as port:
        url = f"http://127.0.0.1:{port}"
        code, text = run_script(url, "basic", CREDENTIALS_FILE=str(credentials))
        assert code == 1
        assert "wrong credentials is refused: the answer is 200, not 401" in text
        code, text = run_script(url, "none")
        assert code == 1
        assert "FAILED: the alert was not recognized as a test" in text
    code, text = run_script(url, "none")
    assert code == 1
    assert text.startswith(f"FAILED: {url} cannot be reached: ")


def test_certificates_are_verified(tmp_path: Path) -> None:
    """A certificate of an unknown CA fails; with client certificates only readiness is checked."""
    authority = Authority(tmp_path, "test")
    with accepts_all(*authority.issue("127.0.0.1")) as port:
        url = f"https://127.0.0.1:{port}"
        code, text = run_script(url, "none", CLIENT_CERTIFICATES="required")
        assert code == 1
        assert "CERTIFICATE_VERIFY_FAILED" in text
        trusted = {"CA_FILE": str(authority.certificate)}
        code, text = run_script(url, "none", CLIENT_CERTIFICATES="required", **trusted)
        assert code == 0
        assert "skipped: a delivery" in text


def pod_of(values: Values) -> Object:
    """Return the Pod of `helm test` with these values."""
    return only(render_chart("team", merged(REPOSITORY, values)), "Pod")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {},
            {
                "AUTH": "bearer",
                "URL": f"http://{NAME}.team.svc:8080",
                "CREDENTIALS_FILE": "/etc/openfero-gitops/webhook/token",
            },
        ),
        (
            {"webhook": {"auth": "basic"}, "service": {"port": 80}},
            {
                "AUTH": "basic",
                "URL": f"http://{NAME}.team.svc:80",
                "CREDENTIALS_FILE": "/etc/openfero-gitops/webhook/basic",
            },
        ),
        (
            {
                "webhook": {"auth": "none"},
                "tls": {"existingSecret": "certificate", "clientCaKey": "ca.crt"},
            },
            {
                "AUTH": "none",
                "URL": f"https://{NAME}.team.svc:8080",
                "CA_FILE": "/etc/openfero-gitops/tls/ca.crt",
                "CLIENT_CERTIFICATES": "required",
            },
        ),
    ],
)
def test_the_pod_is_told_how_to_reach_the_webhook(values: Values, expected: dict[str, str]) -> None:
    """Its variables follow from the values; credentials are in mounted files alone."""
    [container] = pod_of(values)["spec"]["containers"]
    assert {each["name"]: each["value"] for each in container["env"]} == expected
    mounted = {each["mountPath"] for each in container["volumeMounts"] or []}
    files = {path.rpartition("/")[0] for name, path in expected.items() if name.endswith("_FILE")}
    assert mounted == files


def test_the_pod_is_selected_by_nothing_but_its_own_network_rule() -> None:
    """It gets no deliveries and counts for no budget, but may reach the webhook."""
    values = merged(REPOSITORY, {"networkPolicy": {"webhookFrom": [{"podSelector": {"a": {}}}]}})
    objects = render_chart("team", merged(REPOSITORY, values))
    labels = only(objects, "Pod")["metadata"]["labels"]
    selected = only(objects, "Service")["spec"]["selector"]
    assert not selected.items() <= labels.items()
    [rule] = only(objects, "NetworkPolicy")["spec"]["ingress"][1:]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    off = render_chart("team", merged(values, {"helmTest": {"enabled": False}}))
    assert "Pod" not in {each["kind"] for each in off}
    assert len(only(off, "NetworkPolicy")["spec"]["ingress"]) == 1


def test_the_pod_may_run_where_only_restricted_pods_may(kubectl: Kubectl, namespace: str) -> None:
    """The API server accepts it in a namespace with Pod Security `restricted`."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    pod = pod_of({"imagePullSecrets": [{"name": "registry"}], "nodeSelector": {"a": "b"}})
    pod["metadata"]["namespace"] = namespace
    strict = ("create", "--validate=strict", "--dry-run=server", "-n", namespace, "-f", "-")
    assert "created" in kubectl(*strict, stdin=json.dumps(pod))
