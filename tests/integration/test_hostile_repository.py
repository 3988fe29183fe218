from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.replica import Replica
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster

#: Seconds in which a replica ends that does nothing, on a slow machine.
PATIENCE = 90.0


def operario_with_problems(name: str) -> str:
    """Return an operario with hundreds of problems, in eight kilobytes of JSON."""
    containers = [{"name": f"c{number}", f"x{name}": 1} for number in range(240)]
    return json.dumps(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"openfero-{name}-firing"},
            "spec": {"template": {"spec": {"containers": containers}}},
        }
    )


def test_sigterm_ends_a_sync_at_once(
    tmp_path: Path, kubeconfig: Path, shared_namespace: str
) -> None:
    """SIGTERM ends a replica that is validating thousands of hostile files, with exit code 0."""
    repository = Repository(tmp_path / "operarios")
    for number in range(1_500):
        repository.write(f"{number}.json", operario_with_problems(f"a{number}"))
    repository.commit("Hostile files")
    replica = Replica(
        tmp_path,
        name="stopped",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        ready=False,
        development=False,
    )
    with replica:
        # The cache is complete once all files were read, just before they are checked.
        replica.wait_for(lambda: list(tmp_path.glob("cache-stopped/*/repository.git")))
        time.sleep(5)
        assert replica.get("/api/sync")["revision"] is None
        began = time.monotonic()
        replica.process.signal(signal.SIGTERM)
        assert replica.process.wait() == 0
        assert time.monotonic() - began < PATIENCE
