"""The pages for platform engineers: their commands on a real control plane, and their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.cluster.controlplane import binaries
from tests.support.chart import REPOSITORY, merged, render_chart
from tests.support.cluster import Kubectl, delete_namespace, require_binaries
from tests.support.paths import ROOT
from tests.support.walk import RUN_BY, Walk, as_said, blocks, steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

THIS = "tests/e2e/test_walks_with_helm.py"
FOLDER = ROOT / "docs/how-to/platform"
#: They are one walk: a page goes on with the installation of the page before.
PAGES = [
    "install.md", "private-repository.md", "push-hooks.md", "signed-commits.md", "permissions.md",
    "monitoring.md", "upgrade.md", "uninstall.md",
]  # fmt: skip
#: Files of these names are values of the chart.
VALUES = [
    pytest.param("\n".join(block.body), id=f"{page.name}:{block.line}")
    for page in sorted(FOLDER.glob("*.md"))
    for block in blocks(page.read_text())
    if block.path.endswith("values.yaml")
]


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


@pytest.fixture
def walk(tmp_path: Path, kubeconfig: Path, kubectl: Kubectl) -> Iterator[Walk]:
    """Walk with kubectl and helm for the cluster, whose namespaces are deleted at the end."""
    programs = [binaries() / "kubectl", binaries() / "helm"]
    kubectl("create", "namespace", "shop")  # one of `allowedNamespaces`
    yield Walk(tmp_path, programs=programs, KUBECONFIG=str(kubeconfig))
    for namespace in ("openfero", "openfero-jobs", "shop"):
        delete_namespace(kubectl, namespace)


def test_from_the_installation_to_its_end(walk: Walk) -> None:
    """Every command of the pages is run in order, and prints what they say."""
    for name in PAGES:
        page = (FOLDER / name).read_text()
        for step in steps(page):
            printed = as_said(step.printed, walk.take(step))
            assert (f"{name}:{step.line}", printed) == (f"{name}:{step.line}", step.printed)


def test_every_page_of_the_walk_is_in_it() -> None:
    """A page that names this test is one of those that it runs."""
    named = {page.name for page in FOLDER.glob("*.md") if THIS in RUN_BY.findall(page.read_text())}
    assert named == set(PAGES)


@pytest.mark.parametrize("text", VALUES)
def test_the_values_of_a_page_are_accepted(text: str) -> None:
    """The chart renders with the values, and its schema refuses names that it does not have."""
    objects = render_chart("openfero", merged(REPOSITORY, yaml.safe_load(text)))
    assert "Deployment" in {each["kind"] for each in objects}
