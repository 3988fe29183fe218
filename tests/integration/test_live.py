"""`validate --cluster`: Jobs validated with the schema of a real API server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openfero_gitops.catalog.validation.schema import bundle, bundled
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.commands.live import open_cluster
from openfero_gitops.domain.errors import OpenFeroError
from openfero_gitops.domain.help import PAGE
from tests.integration.odd_server import kubeconfig as write_kubeconfig
from tests.support.paths import ROOT
from tests.support.replica import operario

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 120  # seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a folder with an operario that has one field unknown to all versions."""
    folder = tmp_path / "operarios"
    folder.mkdir()
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["labels"] = {"app": "heal"}
    (folder / "hostdown.json").write_text(json.dumps(job))
    return folder


async def validate(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command without any cluster configured on this machine."""
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "openfero_gitops", "validate"]
            + [str(argument) for argument in arguments],
            env=kept | {"PYTHONPATH": str(ROOT), "HOME": "/nonexistent"} | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    ran = await asyncio.to_thread(run)
    assert "Traceback" not in ran.stdout + ran.stderr, ran.stderr
    return ran


async def error_line(*arguments: str | Path) -> str:
    """Run a command that fails, and return its one-line error."""
    ran = await validate(*arguments)
    assert (ran.returncode, ran.stdout) == (2, ""), ran
    line, *help_lines = ran.stderr.splitlines()
    assert all(each.startswith(f"See {PAGE}#") for each in help_lines)
    assert len(help_lines) <= 1
    return line.removeprefix("openfero-gitops: ")


@pytest.mark.cluster
async def test_the_packaged_schema_equals_that_of_a_server(kubeconfig: Path) -> None:
    """The schema generated from a version's published source equals that of its API server."""
    api = await KubernetesApi.connect(kubeconfig)
    try:
        version = await api._request("GET", "/version", 30)
        published = await api.published_schema("batch", "v1")
    finally:
        await api.close()
    assert bundle(published) == bundled(version["gitVersion"])


@pytest.mark.cluster
async def test_a_cluster_is_validated_with_its_version(folder: Path, kubeconfig: Path) -> None:
    """With --cluster the problems are those of the cluster's own version."""
    offline = await validate(folder)
    option = ("--jobs-namespace", "default")
    live = await validate(folder, "--cluster", "--kubeconfig", kubeconfig, *option)
    assert (live.returncode, live.stdout) == (0, offline.stdout)
    assert "[unknown-field]" in live.stdout
    strict = await validate(folder, "--cluster", "--strict", KUBECONFIG=str(kubeconfig))
    assert strict.returncode == 1


@pytest.mark.cluster
async def test_an_older_cluster_is_authoritative(
    folder: Path, tmp_path: Path, kubeconfig: Path
) -> None:
    """The server's description counts, not the packaged schema."""
    api = await KubernetesApi.connect(kubeconfig)
    try:
        published = await api.published_schema("batch", "v1")
    finally:
        await api.close()
    properties = published["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]
    del properties["hostname"]
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["hostname"] = "healer"
    (folder / "hostdown.json").write_text(json.dumps(job))

    async with describing(published) as server:
        ran = await validate(
            folder, "--cluster", "--kubeconfig", write_kubeconfig(tmp_path, address(server))
        )

    assert ran.returncode == 0
    assert 'has no field "hostname"' in ran.stdout


@pytest.mark.cluster
async def test_another_context(folder: Path, kubeconfig: Path) -> None:
    """A context that the kubeconfig does not have is reported on one line."""
    message = await error_line(
        folder, "--cluster", "--kubeconfig", kubeconfig, "--context", "nowhere"
    )
    assert "context nowhere of " in message


def describing(document: dict[str, Any], status: int = 200) -> TestServer:
    """Return a server that answers every request with a JSON document."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return TestServer(app)


def address(server: TestServer) -> str:
    """Return the server's address."""
    return str(server.make_url("/"))


async def test_an_unreachable_cluster(folder: Path, tmp_path: Path) -> None:
    """An unreachable API server is reported on one line."""
    config = write_kubeconfig(tmp_path, "http://127.0.0.1:1")
    message = await error_line(folder, "--cluster", "--kubeconfig", config)
    assert message == "127.0.0.1:1 cannot be reached: Connection refused"


async def test_no_cluster_at_all(folder: Path) -> None:
    """A missing kubeconfig is reported on one line with advice."""
    assert (await error_line(folder, "--cluster")).startswith("no cluster is configured; set")


@pytest.mark.parametrize(
    ("status", "document", "message"),
    [
        (404, {}, "publishes no schema at /openapi/v3/apis/batch/v1"),
        (403, {"kind": "Status", "message": "you may not\nlook"}, "you may not look"),
        (401, {}, "rejects the credentials from"),
        (500, {}, "HTTP 500 from 127.0.0.1"),
        (200, {"components": {}}, "cannot be used"),
        (200, {"components": 1}, "cannot be used"),
        (
            200,
            {"components": {"schemas": {"io.k8s.api.batch.v1.Job": {"$ref": "#/nowhere"}}}},
            "cannot be used",
        ),
    ],
)
async def test_a_server_that_is_not_kubernetes(
    tmp_path: Path, status: int, document: dict[str, Any], message: str
) -> None:
    """A server that rejects the request, or is not Kubernetes, is reported without the token."""
    async with describing(document, status) as server:
        config = write_kubeconfig(tmp_path, address(server))
        with pytest.raises(OpenFeroError) as caught:
            async with open_cluster(config, None):
                pass
    (line,) = str(caught.value).splitlines()
    assert message in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster", "--kubernetes-version", "1.33"], "remove --kubernetes-version"),
        (["--context", "prod"], "need --cluster"),
    ],
)
async def test_contradicting_options(folder: Path, options: list[str], message: str) -> None:
    """Contradicting options are a usage error."""
    ran = await validate(folder, *options)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert message in ran.stderr
