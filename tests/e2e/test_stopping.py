"""What a replica does between SIGTERM and its end, as in a rollout or an eviction."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.replica import PATIENCE_SECONDS, Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster

DELAY_SECONDS = 10
#: Longer than any test: what ends earlier did not wait for it.
ENDLESS = "30m"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create a repository with one operario."""
    repository = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Operarios")
    return repository


def condition(replica: Replica, name: str) -> tuple[int, dict[str, Any]]:
    """Return the status of `/readyz`, and one of its conditions."""
    try:
        with urllib.request.urlopen(f"{replica.url}/readyz", timeout=PATIENCE_SECONDS) as answer:
            status, body = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, json.load(error)
    return status, next(item for item in body["conditions"] if item["name"] == name)


def test_deliveries_are_accepted_for_some_seconds_after_sigterm(
    tmp_path: Path, kubeconfig: Path, shared_namespace: str, repository: Repository
) -> None:
    """A stopped leader hands over at once, is not ready, and accepts new connections for a while.

    Each answer closes its connection, so that no client keeps one until the end.
    """
    common: dict[str, Any] = {
        "kubeconfig": kubeconfig,
        "namespace": shared_namespace,
        "repository": repository.url,
        # Longer than the delay: the second replica leads because the Lease is released.
        "lease_duration": "10m",
        "renew_deadline": "5m",
    }
    with Replica(tmp_path, name="a", shutdown_delay=f"{DELAY_SECONDS}s", **common) as first:
        first.wait_for(lambda: first.leads)
        with Replica(tmp_path, name="b", **common) as second:
            first.process.signal(signal.SIGTERM)
            sent = time.monotonic()
            first.wait_for(lambda: "stopping" in first.process.output)
            status, serving = condition(first, "serving")
            assert (status, serving["holds"]) == (503, False)
            assert serving["message"] == ("this replica is stopping, but still accepts deliveries")
            deliveries = 0
            taken_over = False
            # If the Lease were not released, a delivery would fail after the delay.
            while not taken_over or time.monotonic() - sent < DELAY_SECONDS - 4:
                code, answer = first.deliver(alert("HostDown", host=f"h{deliveries}"))
                assert code == 200, answer
                deliveries += 1
                taken_over = taken_over or second.leads
                time.sleep(0.05)
            with urllib.request.urlopen(f"{first.url}/livez", timeout=PATIENCE_SECONDS) as answer:
                assert answer.headers["Connection"] == "close"
            assert deliveries > 1
            assert first.process.wait() == 0
            assert time.monotonic() - sent >= DELAY_SECONDS
            items = second.get("/api/remediations?limit=1000")["items"]
            mine = {item["labels"]["host"] for item in items if item["alert"] == "HostDown"}
            assert mine == {f"h{number}" for number in range(deliveries)}


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGINT], 0),
        ([signal.SIGTERM, signal.SIGTERM], -signal.SIGTERM),
        ([signal.SIGTERM, signal.SIGINT], -signal.SIGINT),
    ],
    ids=["Ctrl-C", "twice", "then Ctrl-C"],
)
def test_a_person_does_not_wait_for_the_delay(
    tmp_path: Path,
    kubeconfig: Path,
    namespace: str,
    repository: Repository,
    signals: list[signal.Signals],
    code: int,
) -> None:
    """SIGINT stops without the delay, and a second signal ends the process at once."""
    with Replica(
        tmp_path,
        name="c",
        kubeconfig=kubeconfig,
        namespace=namespace,
        repository=repository.url,
        shutdown_delay=ENDLESS,
    ) as replica:
        replica.process.signal(signals[0])
        for sent in signals[1:]:
            replica.wait_for(lambda: "stopping" in replica.process.output)
            replica.process.signal(sent)
        assert replica.process.wait() == code
