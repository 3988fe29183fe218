"""The Job controller's part, where none runs: what it writes on a Job that runs and succeeds."""

from __future__ import annotations

import http.client
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.timestamp import format_seconds
from tests.support.attacks import Admin, jobs_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def running(since: datetime) -> list[dict[str, Any]]:
    """Return the JSON Patch of the status of a Job whose Pod runs."""
    return _status({"active": 1, "ready": 1, "startTime": format_seconds(since)})


def succeeded(since: datetime) -> list[dict[str, Any]]:
    """Return the JSON Patch of the status of a Job that has run and succeeds now."""
    now = format_seconds(datetime.now(UTC))
    conditions = [
        {"type": name, "status": "True", "lastProbeTime": now, "lastTransitionTime": now}
        for name in ("SuccessCriteriaMet", "Complete")
    ]
    times = {"startTime": format_seconds(since), "completionTime": now}
    return _status({"succeeded": 1, "conditions": conditions, **times})


async def end_jobs(kubeconfig: Path, namespace: str, names: Iterable[str]) -> None:
    """Let Jobs succeed."""
    async with Admin(kubeconfig) as admin:
        for name in names:
            await write_status(admin, namespace, name, succeeded(datetime.now(UTC)))


async def write_status(
    admin: Admin, namespace: str, name: str, patch: list[dict[str, Any]]
) -> None:
    """Patch the status of a Job."""
    path = f"{jobs_path(namespace)}/{name}/status"
    code, answer = await admin.request("PATCH", path, patch)
    assert code == http.client.OK, answer


def _status(members: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"op": "add", "path": "/status", "value": members}]
