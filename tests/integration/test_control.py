"""What users and replicas share in `openfero-control`, on a real API server with two replicas."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cli import main
from openfero_gitops.commands.control import PauseChange, pause
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]


ENVELOPE = "watchdog: {within: 1m}\n"
DELIVERED = re.compile(r"openfero_gitops_watchdog_last_delivered_timestamp_seconds\{.*\} (\S+)")


class Fleet:
    """Two replicas that sync on request, and the command line of a user."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str) -> None:
        self.folder = folder
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.repository = Repository(folder / "operarios")
        self.repository.write("quick.json", operario("Quick"))
        self.repository.write("openfero.yaml", ENVELOPE)
        self.repository.commit("Operarios")
        self.replicas = [self.replica(name) for name in ("a", "b")]

    def replica(self, name: str) -> Replica:
        """A replica, not started."""
        return Replica(
            self.folder,
            name=name,
            kubeconfig=self.kubeconfig,
            namespace=self.namespace,
            repository=self.repository.url,
            development=name == "a",
            interval="1h",
        )

    @property
    def leader(self) -> Replica:
        """The replica that leads."""
        first = self.replicas[0]
        return first.wait_for(lambda: next((r for r in self.replicas if r.leads), None))

    def run(self, *argv: str) -> int:
        """Run a command as a user; return its exit code."""
        where = ("--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace)
        return main([*argv, *where])


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path, shared_namespace: str
) -> Iterator[Fleet]:
    """Start two replicas, which all tests share."""
    started = Fleet(tmp_path_factory.mktemp("fleet"), kubeconfig, shared_namespace)
    with started.replicas[0], started.replicas[1]:
        assert started.leader
        yield started


def test_a_pause_ends_by_itself_on_every_replica(fleet: Fleet, kubectl: Kubectl) -> None:
    """Who, why and until when is in the API of each replica; then the waiting Job starts."""

    def pause_for(duration: timedelta) -> PauseChange:
        where = (fleet.kubeconfig, fleet.namespace, 120)
        return asyncio.run(pause(*where, duration=duration, reason="database migration"))

    change = pause_for(timedelta(hours=1))
    assert change.until is not None
    assert str(change).endswith(f"until {change.until:%Y-%m-%dT%H:%M:%SZ}: database migration")
    for replica in fleet.replicas:
        shown = replica.wait_for(lambda replica=replica: replica.get("/api/about")["pause"])
        assert (shown["by"], shown["reason"]) == (change.by, "database migration")
        assert shown["until"] == f"{change.until:%Y-%m-%dT%H:%M:%S.%fZ}"
        assert "database migration" in replica.read("/")
    job = fleet.leader.remediate("Quick", "during the pause", "Waiting")
    message = fleet.leader.remediation(job)["message"]
    assert "database migration; run `openfero-gitops resume`" in message
    # Everything above happens during the pause, however slow the machine is.
    change = pause_for(timedelta(seconds=5))
    assert change.until is not None
    members = pause_members(fleet, kubectl)
    fleet.leader.wait_for(lambda: fleet.leader.remediation(job)["phase"] == "Succeeded")
    stored = kubectl.json("get", "job", job, "-n", fleet.namespace)
    admitted_at = stored["metadata"]["annotations"]["openfero.io/admitted-at"]
    late = datetime.fromisoformat(admitted_at) - change.until
    assert timedelta(0) <= late < timedelta(minutes=2)
    for replica in fleet.replicas:
        assert replica.get("/api/about")["pause"] is None
    assert pause_members(fleet, kubectl) == members

    def reasons() -> set[str]:
        events = kubectl.json("get", "events.events.k8s.io", "-n", fleet.namespace)["items"]
        return {e["reason"] for e in events if e["regarding"]["name"] == "openfero-control"}

    fleet.leader.wait_for(lambda: reasons() >= {"Paused", "Resumed"})


def test_sync_reports_the_commit_of_every_replica(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Replicas that would sync in an hour have the new commit when the command returns."""
    old = fleet.leader.get("/api/sync")["revision"]["commit"]
    fleet.repository.write("more.json", operario("More"))
    new = fleet.repository.commit("More")
    assert fleet.run("sync") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["REPLICA", "COMMIT", "SECONDS", "RESULT"]
    assert lines[1].startswith(f"{fleet.leader.name} (leader)  {new[:12]}  ")
    assert lines[1].endswith(f"updated from {old[:12]}")
    assert lines[2].endswith(f"updated from {old[:12]}")
    assert lines[3].startswith("2 replicas synced; took ")
    for replica in fleet.replicas:
        assert replica.get("/api/sync")["revision"]["commit"] == new


def test_sync_reports_a_refused_commit(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The commit is still the active one, and the exit code is 1."""
    active = fleet.leader.get("/api/sync")["revision"]["commit"]
    fleet.repository.write("openfero.yaml", "limitz: {}\n")
    fleet.repository.commit("A typo")
    assert fleet.run("sync", "--output", "json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert not printed["succeeded"]
    assert {replica["replica"] for replica in printed["replicas"]} == {"a", "b"}
    for replica in printed["replicas"]:
        assert replica["commit"] == active
        assert 'failed: openfero.yaml:1: openfero.yaml has no key "limitz"' in replica["error"]
    fleet.repository.write("openfero.yaml", ENVELOPE)
    fleet.repository.commit("Correct it")


def test_the_absence_of_the_watchdog_degrades_every_replica(fleet: Fleet, kubectl: Kubectl) -> None:
    """A delivery to one replica ends it on all of them, and on one that starts without Git."""
    for replica in fleet.replicas:
        message = replica.wait_for(lambda replica=replica: watchdog_message(replica))
        assert 'the watchdog alert "Watchdog" has never been delivered' in message
        assert "Degraded: watchdog" in replica.read("/")
        assert replica.get("/readyz")["status"] == "degraded"
    receiver, other = fleet.replicas
    began = time.time()
    status, answer = receiver.deliver(alert("Watchdog"))
    assert (status, answer["items"][0]["outcome"]) == (200, "no-match")
    for replica in fleet.replicas:
        replica.wait_for(lambda replica=replica: not watchdog_message(replica))
    assert delivered_at(other) == delivered_at(receiver)
    assert began - 1 <= delivered_at(other) <= time.time()
    member = control(fleet, kubectl)["data"]["watchdog"]
    assert member.endswith("Z Watchdog")

    away = fleet.repository.folder.rename(fleet.folder / "away")
    try:
        with fleet.replica("restarted") as restarted:
            assert restarted.get("/api/sync")["origin"] == "mirror"
            restarted.wait_for(lambda: delivered_at(restarted) > 0)
            assert delivered_at(restarted) == delivered_at(receiver)
            receiver.deliver(alert("Watchdog"))  # the start may have taken longer than `within`
            restarted.wait_for(lambda: not watchdog_message(restarted))
    finally:
        away.rename(fleet.repository.folder)


def test_sync_does_not_wait_for_replicas_that_are_gone(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their answers to earlier requests do not count; a dead leader is reported as such."""
    dead = fleet.leader
    other = next(replica for replica in fleet.replicas if replica is not dead)
    dead.kill()
    assert fleet.run("sync", "--timeout", "30") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split("  ")[0] == f"{dead.name} (leader)"
    assert "did not read the request within" in lines[1]
    assert lines[2].startswith(other.name)
    assert lines[3].startswith("1 of 2 replicas synced; took ")


def test_sync_without_a_controller_is_an_error(
    kubeconfig: Path, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says where no controller is."""
    where = ("--kubeconfig", str(kubeconfig), "--namespace", namespace)
    assert main(["sync", "--timeout", "1", *where]) == 2
    message = capsys.readouterr().err
    assert message == (
        "openfero-gitops: Sync requested, but no replica has read the request within 1 s. Is the "
        f'controller running in namespace "{namespace}"?\n'
    )


def pause_members(fleet: Fleet, kubectl: Kubectl) -> dict[str, str]:
    """The members of the ConfigMap without those that replicas write regularly."""
    data = control(fleet, kubectl)["data"]
    return {key: text for key, text in data.items() if not key.startswith("replica.")}


def control(fleet: Fleet, kubectl: Kubectl) -> Any:
    """The ConfigMap, in which nobody has to write anything for a pause to end."""
    return kubectl.json("get", "configmap", "openfero-control", "-n", fleet.namespace)


def watchdog_message(replica: Replica) -> str:
    """Why the watchdog's condition does not hold on a replica; empty if it does."""
    conditions = {c["name"]: c for c in replica.get("/readyz")["conditions"]}
    return str(conditions["watchdog"]["message"] or "")


def delivered_at(replica: Replica) -> float:
    """When the watchdog was last delivered, as a replica's metric shows it; 0 for never."""
    match = DELIVERED.search(replica.read("/metrics"))
    assert match is not None
    return float(match[1])
