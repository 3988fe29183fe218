"""More alerts than a replica may keep waiting, on a real API server."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

LIMIT = 8


def outcomes(answer: dict[str, Any]) -> Counter[tuple[str, str | None]]:
    """Return how many alerts had each outcome, with its reason."""
    return Counter((item["outcome"], item["reason"] or None) for item in answer["items"])


def waiting(replica: Replica) -> str:
    """Return what the replica says about waiting Jobs; empty while the limit is not reached."""
    conditions: list[dict[str, Any]] = replica.get("/readyz")["conditions"]
    messages: dict[str, str | None] = {item["name"]: item["message"] for item in conditions}
    return messages["waiting jobs"] or ""


def test_beyond_the_limit_alerts_are_delivered_again(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """No alert is lost: it is answered with 503 until a waiting Job has ended."""
    repository = Repository(tmp_path / "git")
    gated = {"openfero.io/approval": "required"}
    repository.write("Gated.json", operario("Gated", annotations=gated))
    repository.commit("Operarios")
    alerts = [alert("Gated", host=f"h{number}") for number in range(LIMIT + 4)]
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        max_waiting=str(LIMIT),
    ) as replica:
        code, answer = replica.deliver(*alerts)
        assert code == 503
        full = ("error", "too-many-waiting")
        assert outcomes(answer) == {("created", None): LIMIT, full: 4}
        assert f"--max-waiting is {LIMIT}" in waiting(replica)
        created = [item["job"] for item in answer["items"] if item["outcome"] == "created"]
        kept = [
            sent
            for sent, item in zip(alerts, answer["items"], strict=True)
            if item["job"] in created
        ]
        code, answer = replica.deliver(*kept)
        assert (code, outcomes(answer)) == (200, {("exists", None): LIMIT})
        kubectl("delete", "job", "-n", shared_namespace, *created[:4])
        replica.wait_for(lambda: len(replica.get("/api/remediations")["items"]) == LIMIT - 4)
        assert not waiting(replica)
        rest = [sent for sent in alerts if sent not in kept]
        code, answer = replica.deliver(*rest)
        assert (code, outcomes(answer)) == (200, {("created", None): 4})
        assert f"openfero_gitops_max_waiting {LIMIT}.0" in replica.read("/metrics")
