"""Small objects for tests of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import Object


def config_map(name: str, labels: dict[str, str] | None = None, **fields: Any) -> Object:
    """Return a ConfigMap; `fields` are `data`, `immutable`."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels or {}},
        **fields,
    }


def job(name: str, played: dict[str, str] | None = None, **spec: Any) -> Object:
    """Return a suspended Job; `played` are annotations of its Pods for the Pod simulator."""
    annotations = {f"kwok.openfero.io/{key}": value for key, value in (played or {}).items()}
    container = {"name": "main", "image": "example.org/none:1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
            **spec,
        },
    }


def lease(name: str, **spec: Any) -> Object:
    """Return a Lease."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": spec,
    }


def event(name: str, namespace: str, **fields: Any) -> Object:
    """Return an Event about a Job."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name},
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "reportingController": "openfero.io/test",
        "reportingInstance": "test-1",
        "action": "Admit",
        "reason": "Admitted",
        "type": "Normal",
        "regarding": {"kind": "Job", "namespace": namespace, "name": "heal"},
        **fields,
    }


def without(value: Object, *path: str) -> Object:
    """Return a copy without the member at this path."""
    head, *rest = path
    if not rest:
        return {key: each for key, each in value.items() if key != head}
    return {**value, head: without(value[head], *rest)}


def having(value: Object, new: Any, *path: str) -> Object:
    """Return a copy with another value at this path."""
    head, *rest = path
    return {**value, head: having(value[head], new, *rest) if rest else new}
