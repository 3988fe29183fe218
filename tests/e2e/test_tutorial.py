"""The tutorial of the documentation on a real node: its commands are run, their output compared."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.controlplane import binaries
from tests.cluster.node import ADDRESS, Node
from tests.support.cluster import Kubectl, KubectlError
from tests.support.git_servers import http_server
from tests.support.image import REFERENCE, require_image
from tests.support.installation import IMAGES
from tests.support.names import name_server
from tests.support.optional import require
from tests.support.paths import ROOT
from tests.support.tools_image import static_busybox, write_program, write_tools
from tests.support.walk import Walk, as_said, steps

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.alertmanager,
    pytest.mark.prometheus,
    pytest.mark.xdist_group("node"),
]

PAGE = "docs/tutorial.md"
#: The Services that Pods find by name, since the node has no DNS of its own.
SERVICES = (
    ("openfero-gitops", "openfero"),
    ("alertmanager", "monitoring"),
    ("checkout", "shop"),
)
#: Image names in the manifests, and the local program that replaces each image.
#: Debian's Alertmanager reads them from there.
TEMPLATES = sorted(Path("/usr/share/prometheus/alertmanager").glob("*.tmpl"))
PROGRAMS = {
    "docker.io/prom/prometheus:v3.5.0": "prometheus",
    "docker.io/prom/alertmanager:v0.28.1": "prometheus-alertmanager",
}


@pytest.fixture(scope="module")
def image_archive() -> Path:
    """Build the image before the node takes over: nothing can be downloaded in its network."""
    [archive] = require_image().glob("*-image.tar")
    return archive


@pytest.fixture(scope="module")
def node(image_archive: Path, real_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Give a node that has the images which a cluster of the reader would pull."""
    folder = tmp_path_factory.mktemp("images")
    busybox = static_busybox()
    assert busybox is not None
    tools = [*IMAGES, "docker.io/library/busybox:1.37.0"]
    write_tools(folder / "tools.tar", busybox, binaries() / "kubectl", tools)
    for name, program in PROGRAMS.items():
        path = require(program, f"apt-get install {program}", program)
        write_program(folder / f"{program}.tar", path, name, TEMPLATES)
    for archive in (*folder.iterdir(), image_archive):
        real_node.import_images(archive)
    repository, _, _ = REFERENCE.rpartition(":")
    real_node.tag_image(REFERENCE, f"{repository}:0.1.0")
    return real_node


def test_the_tutorial(node: Node, tmp_path: Path) -> None:
    """Its commands print what the page says, up to the proof of a healed alert."""
    kubectl = Kubectl(binaries() / "kubectl", node.kubeconfig)
    bare = tmp_path / "git" / "operarios.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", bare], check=True)
    subprocess.run(["git", "-C", bare, "config", "http.receivepack", "true"], check=True)
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    with (
        http_server(tmp_path / "git", address=ADDRESS) as server,
        name_server(tmp_path, hosts),
    ):
        walk = Walk(
            tmp_path,
            programs=[binaries() / name for name in ("kubectl", "helm")],
            KUBECONFIG=str(node.kubeconfig),
            repository=server.url("operarios.git"),
        )
        began = time.monotonic()
        for step in steps((ROOT / PAGE).read_text()):
            printed = walk.take(step)
            publish_names(kubectl, hosts)
            seconds = time.monotonic() - began
            print(f"{seconds:7.1f} s  {PAGE}:{step.line} {step.command or step.path}", flush=True)
            print(printed, flush=True)
            assert (step.line, as_said(step.printed, printed)) == (step.line, step.printed)


def publish_names(kubectl: Kubectl, hosts: Path) -> None:
    """Let Pods find the Services that exist by now."""
    for name, namespace in SERVICES:
        file = hosts / name
        if not file.exists():
            try:
                service = kubectl.json("get", "service", name, "-n", namespace)
            except KubectlError:
                continue
            address = service["spec"]["clusterIP"]
            file.write_text(f"{address} {name}.{namespace}.svc.cluster.local\n")
