"""`openfero-gitops stats`, on Jobs in a real API server."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cli import main
from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.timestamp import format_time
from tests.support.build import alert, delivery, operario, rendered, stored

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster

RECEIVED = datetime.now(UTC) - timedelta(hours=2)


def job_of(number: int, namespace: str, effect: Effect | None) -> dict[str, Any]:
    """Return a started Job of one of three alerts, with a settled effect; it resolved after 4m.

    It has no Pods, so that it never ends.
    """
    received = RECEIVED + timedelta(minutes=number)
    by = operario(namespace=namespace)
    delivered = delivery(received_at=received)
    manifest = rendered(
        alert(labels={"alertname": "Down", "pod": str(number)}), by, delivered=delivered
    ).manifest
    written = {
        keys.ADMITTED_AT: format_time(received),
        keys.RESOLVED_AT: format_time(received + timedelta(minutes=4)),
        keys.EFFECT: effect.value if effect else None,
        keys.EFFECT_AT: format_time(received + timedelta(minutes=20)),
    }
    job = stored(manifest, annotations=written, spec={"suspend": False, "parallelism": 0})
    job["metadata"] = {
        name: job["metadata"][name] for name in ("name", "namespace", "labels", "annotations")
    }
    return job


def test_runs_and_effects_of_the_jobs_in_the_cluster(
    kubeconfig: Path, shared_namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints a line for the commit, or the same as JSON, and an empty result."""
    effects = (Effect.HEALED, Effect.HEALED, Effect.NOT_HEALED)

    async def create() -> None:
        api = await KubernetesApi.connect(kubeconfig)
        for number, effect in enumerate(effects):
            await api.create(JOBS, shared_namespace, job_of(number, shared_namespace, effect))
        await api.close()

    asyncio.run(create())
    target = ("stats", "--kubeconfig", str(kubeconfig), "--namespace", shared_namespace)
    assert main([*target]) == 0
    head, row, _, summary = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["OPERARIO", "COMMIT", "SPEC", "RUNS"]
    assert row.split()[1] == "1" * 12
    assert row.split()[3:] == ["3", "0", "0", "2", "1", "0", "0", "67%", "4m"]
    assert summary == (
        f"3 runs since {RECEIVED:%Y-%m-%dT%H:%M:%SZ}, from the Jobs that still exist."
    )
    assert main([*target, "-o", "json", "--since", "3h"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert (item["runs"], item["healed"], item["notHealed"]) == (3, 2, 1)
    assert item["medianSecondsToHeal"] == 240
    assert main([*target, "--operario", "unknown"]) == 0
    output = capsys.readouterr()
    assert "no Job of the controller matches" in output.out
    assert re.fullmatch(
        r'no Job of operario "unknown"; operarios with Jobs: [\w-]+\n', output.err
    ), output.err
    assert main(["audit", *target[1:], "--operario", "unknown"]) == 0
    output = capsys.readouterr()
    assert output.out == "0 remediations\n"
    assert output.err.startswith('no Job of operario "unknown"; ')
