"""The circuit breaker on a real API server: Jobs that end well while their alert keeps firing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.commands.operator import APPROVE, act_on_job
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]

#: An alert that is delivered a second after the end of its Job was not healed.
QUICK = {
    "openfero.io/heals-within": "1s",
    "openfero.io/rerun-after": "1s",
    "openfero.io/max-runs": "50",
    "openfero.io/cooldown": "0",
    "openfero.io/max-wait": "0",
}
PATIENCE_SECONDS = 180.0


def deliver_until_new(replica: Replica, name: str, host: str, known: set[str]) -> str:
    """Deliver an alert again and again until it has another Job, and return its name."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        status, answer = replica.deliver(alert(name, host=host))
        assert status == 200
        job: str = answer["items"][0]["job"]
        if job not in known:
            known.add(job)
            return job
        time.sleep(0.3)
    raise AssertionError(f"no further Job for {name} on {host}")


def run(replica: Replica, name: str, host: str, known: set[str]) -> dict[str, Any]:
    """Deliver an alert until another Job for it has run, and return the remediation."""
    job = deliver_until_new(replica, name, host, known)
    replica.wait_for(lambda: replica.remediation(job)["phase"] == "Succeeded")
    return replica.remediation(job)


def wait_for_reason(replica: Replica, job: str, phase: str) -> dict[str, Any]:
    """Wait until a Job waits, or was refused, because its operario does not help."""
    replica.wait_for(
        lambda: (
            (replica.remediation(job)["phase"], replica.remediation(job)["reason"])
            == (phase, "not-helping")
        )
    )
    return replica.remediation(job)


def test_what_does_not_help_waits_for_a_person_or_a_change(
    tmp_path: Path, kubeconfig: Path, namespace: str
) -> None:
    """Three Jobs in vain, and the next waits; an approval starts one, and a new commit all."""
    repository = Repository(tmp_path / "operarios")
    repository.write("vain.json", operario("Vain", annotations=QUICK))
    repository.write("other.json", operario("Other", annotations=QUICK))
    first_commit = repository.commit("Operarios")
    given: dict[str, Any] = {
        "kubeconfig": kubeconfig,
        "namespace": namespace,
        "repository": repository.url,
    }
    known: set[str] = set()
    with Replica(tmp_path, name="a", **given) as before:
        before.wait_for(lambda: before.leads)
        for _ in range(3):
            run(before, "Vain", "web-1", known)
        fourth = deliver_until_new(before, "Vain", "web-1", known)
        message = wait_for_reason(before, fourth, "Waiting")["message"]
        assert message.startswith("the last 3 Jobs of this operario for this target did not heal")
        assert "(stop-after-not-healed: 3). Latest: Job " in message
        # Another target, and another operario on this one, are not affected.
        before.remediate("Vain", "web-2", "Succeeded")
        before.remediate("Other", "web-1", "Succeeded")
        before.kill()
    with Replica(tmp_path, name="b", **given) as after:
        after.wait_for(lambda: after.leads)
        wait_for_reason(after, fourth, "Waiting")
        asyncio.run(act_on_job(APPROVE, fourth, kubeconfig, namespace))
        after.wait_for(lambda: after.remediation(fourth)["phase"] == "Succeeded")
        fifth = deliver_until_new(after, "Vain", "web-1", known)
        assert "the last 4 Jobs" in wait_for_reason(after, fifth, "Waiting")["message"]

        repository.write("vain.json", operario("Vain", annotations=QUICK, note="another way"))
        second_commit = repository.commit("Try another way")
        refused = wait_for_reason(after, fifth, "Refused")
        assert (
            "the next firing delivery of the alert creates a Job of the new" in (refused["message"])
        )
        sixth = run(after, "Vain", "web-1", known)
        assert (refused["commit"], sixth["commit"]) == (first_commit, second_commit)
