"""Whether another version of the code creates the same Jobs for the same storm of alerts.

    TREE=/path/to/another/checkout make bench ARGS=same-jobs

A replica of each source tree gets the same deliveries: the sample alerts of the starter repository,
and groups of alerts with unusual labels, pairs of a replicated Prometheus, and resolutions. Nothing
is admitted, so that each Job stays as it was created. Jobs are compared field by field; only what
names the replica, the delivery or a moment may differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from openfero_gitops.jobs.compare import compare
from tests.bench.figures import Figure, Measured
from tests.cluster.controlplane import ControlPlane
from tests.support.attacks import Admin
from tests.support.fleet import EXAMPLE
from tests.support.paths import ROOT
from tests.support.replica import Replica, alert, groups, operario
from tests.support.repository import Repository
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TREE: Final = os.environ.get("TREE", "")
ALERTS: Final = int(os.environ.get("ALERTS", "1000"))
GROUP_SIZE: Final = 20
SHOWN: Final = 10
#: What differs between two deliveries of one alert.
OWN: Final = {
    keys.DELIVERY,
    keys.RECEIVED_AT,
    keys.RECEIVED_BY,
    keys.LAST_DELIVERED_AT,
    keys.TERM,
}
METADATA: Final = ("name", "labels", "annotations")
UNUSUAL: Final = ("", "$(TOKEN)", "{{ .Status }}", "--all", "über", 'quote"d', "a\nb", "x" * 300)


def storm() -> list[dict[str, Any]]:
    """Return the deliveries: firing ones first, then the resolution of every fourth alert."""
    samples = [json.loads(file.read_text()) for file in sorted(EXAMPLE.glob("_alerts/*.json"))]
    # An alert without a start is new at every delivery, and has another Job each time.
    samples = [
        sample
        for sample in samples
        if all(fired.get("startsAt") for fired in sample.get("alerts", [sample]))
    ]
    fired = [
        alert(
            f"Storm{number % 5}",
            host=f"host-{number}",
            unusual=UNUSUAL[number % len(UNUSUAL)],
            prometheus_replica=f"prometheus-{number % 2}",
        )
        for number in range(ALERTS)
    ]
    pairs = [
        {**sent, "labels": {**sent["labels"], "prometheus_replica": "prometheus-2"}}
        for sent in fired[::7]
    ]
    ended = {"status": "resolved", "endsAt": "2026-11-21T03:10:00Z"}
    resolved = [{**sent, **ended} for sent in fired[::4]]
    return [
        *samples,
        *groups(fired, GROUP_SIZE),
        *groups(pairs, GROUP_SIZE),
        *groups(resolved, GROUP_SIZE, status="resolved"),
    ]


def as_created(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same of a Job, whatever replica created it."""
    metadata = {member: job["metadata"].get(member) for member in METADATA}
    metadata["annotations"] = {
        name: value for name, value in metadata["annotations"].items() if name not in OWN
    }
    spec = dict(job["spec"])
    # The API server adds labels with the uid of the Job.
    for member in ("selector", "manualSelector"):
        spec.pop(member, None)
    template = dict(spec["template"])
    template["metadata"] = {
        name: value for name, value in template.get("metadata", {}).items() if name != "labels"
    }
    return {"metadata": metadata, "spec": {**spec, "template": template}}


def differences(
    ours: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Return what differs between the Jobs of two trees, a line for each field."""
    sides = [{job["metadata"]["name"]: as_created(job) for job in jobs} for jobs in (ours, others)]
    lines = []
    for name in sorted({*sides[0], *sides[1]}):
        for difference in compare(sides[1].get(name), sides[0].get(name)):
            field = "/".join(map(str, difference.pointer))
            lines.append(f"{name} /{field}: {difference.before!r} became {difference.after!r}")
    return lines


async def _jobs(folder: Path, plane: ControlPlane, name: str, tree: Path, url: str) -> list[Any]:
    """Deliver the storm to a replica of a tree, and return its Jobs."""
    replica = Replica(
        folder,
        name=name,
        kubeconfig=plane.kubeconfig,
        roles=False,
        namespace=name,
        repository=url,
        development=False,
        environment={"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"},
        interval="10m",
    )
    api = await KubernetesApi.connect(plane.kubeconfig)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        exits.push_async_callback(asyncio.to_thread, replica.process.end)
        await asyncio.to_thread(replica.process.start)
        for delivery in storm():
            # One after the other: a resolution follows its alert.
            statuses = await send([replica.url], [delivery], 1, until_taken=True)
            assert statuses == [200], statuses
        # Refusals of resolved alerts are written by the leader.
        await asyncio.to_thread(replica.wait_for, lambda: replica.leads)
        jobs: list[Any] = []
        while True:
            before, jobs = jobs, (await api.list(JOBS, name)).items
            if jobs and [job["metadata"]["resourceVersion"] for job in before] == [
                job["metadata"]["resourceVersion"] for job in jobs
            ]:
                return jobs
            await asyncio.sleep(3.0)


async def _compare(folder: Path, plane: ControlPlane) -> Measured:
    repository = Repository(folder / "operarios")
    shutil.copytree(EXAMPLE, repository.folder, dirs_exist_ok=True)
    repository.write("openfero.yaml", "paused: true\n")
    for number in range(4):  # none for Storm4
        repository.write(f"storm-{number}.json", operario(f"Storm{number}"))
    repository.commit("Operarios")
    async with Admin(plane.kubeconfig) as admin:
        for name in ("ours", "others"):
            await admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    ours = await _jobs(folder, plane, "ours", ROOT, repository.url)
    others = await _jobs(folder, plane, "others", Path(TREE), repository.url)
    lines = differences(ours, others)
    decisions = Counter(job["metadata"]["annotations"].get(keys.REASON, "waiting") for job in ours)
    counts = ", ".join(f"{count} {reason}" for reason, count in decisions.most_common())
    figures = [
        Figure("Jobs of this tree", len(ours)),
        Figure("Jobs of the other tree", len(others)),
        Figure("fields that differ", len(lines), goal=0),
    ]
    return Measured(figures, f"Decisions: {counts}.", "\n".join(lines[:SHOWN]))


def main() -> Measured:
    """Deliver the storm to both trees, and compare."""
    if not TREE:
        raise SystemExit("set TREE to another checkout, with which to compare")
    with tempfile.TemporaryDirectory(prefix="same-jobs-") as name:
        folder = Path(name)
        with ControlPlane(folder / "cluster", components=("etcd", "kube-apiserver")) as plane:
            return asyncio.run(_compare(folder, plane))
