"""The examples of values in the chart's README."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.chart import CHART, REPOSITORY, merged, render_chart
from tests.support.cluster import require_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


def examples() -> Iterator[dict[str, Any]]:
    """Yield the values in the chart's README."""
    text = (CHART / "README.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        if "alertmanagerConfigMatcherStrategy" not in block:  # those are of another chart
            yield yaml.safe_load(block)


def test_the_values_in_the_readme_are_accepted() -> None:
    """Each example renders, and creates what its section promises."""
    created = set()
    for values in examples():
        created |= {each["kind"] for each in render_chart("team", merged(REPOSITORY, values))}
    assert created >= {
        "AlertmanagerConfig", "ConfigMap", "Ingress", "PrometheusRule", "ServiceMonitor",
    }  # fmt: skip


def test_the_readme_says_what_to_set_where_helm_sees_no_cluster() -> None:
    """With these values rendering gives the same objects each time, for Kueue and without a Pod."""
    text = (CHART / "README.md").read_text()
    [note] = re.findall(r"^- .*render without a cluster.*$", text, re.MULTILINE)
    values = REPOSITORY
    for path, value in re.findall(r"`(\w+(?:[.]\w+)+)(?:=(true|false))?`", note):
        changes: Any = value == "true" if value else "mine"
        for key in reversed(path.split(".")):
            changes = {key: changes}
        values = merged(values, changes)
    objects = render_chart("team", values)
    assert objects == render_chart("team", values) != render_chart("team", REPOSITORY)
    assert "Pod" not in {each["kind"] for each in objects}
    assert "kueue.x-k8s.io" in {
        group
        for each in objects
        if each["kind"] == "Role"
        for rule in each["rules"]
        for group in rule["apiGroups"]
    }
