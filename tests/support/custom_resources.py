"""Definitions of the custom resources that the chart creates, from their published Go modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.go_tool import GoTool
from tests.support.optional import require

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

_MODULES = (
    (
        GoTool(
            "prometheus-operator",
            "github.com/prometheus-operator/prometheus-operator",
            "",
            "v0.85.0",
        ),
        "example/prometheus-operator-crd",
        (
            "monitoring.coreos.com_alertmanagerconfigs.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
            "monitoring.coreos.com_servicemonitors.yaml",
        ),
    ),
    (
        GoTool("gateway-api", "sigs.k8s.io/gateway-api", "", "v1.5.0"),
        "config/crd/standard",
        ("gateway.networking.k8s.io_httproutes.yaml",),
    ),
)


def custom_resource_files() -> list[Path]:
    """Return the files that define them, downloaded at first; without Go see `missing`."""
    go = require("Go", "install Go 1.26 or later (https://go.dev/dl)", "go")
    return [tool.source(go) / folder / name for tool, folder, names in _MODULES for name in names]


def install_custom_resources(kubectl: Kubectl) -> None:
    """Let the API server know these resources."""
    names = []
    for path in custom_resource_files():
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(path))
        group, _, plural = path.stem.partition("_")
        names.append(f"crd/{plural}.{group}")
    kubectl("wait", "--for=condition=Established", "--timeout=120s", *names)
