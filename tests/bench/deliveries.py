"""Deliveries to Jobs, compared with raw creates of the same Jobs into the same API server.

Each of three rounds has raw creates and deliveries in turn, so that a slow machine slows both;
the median of the rounds is printed. The API server runs without controllers: the benchmark measures
the path from an alert to a stored Job.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from openfero_gitops.commands.author import CatalogSource, read_catalog
from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.domain.alert import Status
from openfero_gitops.jobs.render import Delivery, render
from tests.cluster.controlplane import ControlPlane
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository

ALERTS = 1000
ROUNDS = 3


@dataclass
class Run:
    """One pass: Jobs stored per second, and the response times in milliseconds."""

    rate: float
    times: list[float]

    def quantile(self, share: float) -> float:
        """Return the response time that this share of the responses kept within."""
        return sorted(self.times)[min(len(self.times) - 1, int(share * len(self.times)))]


async def _drive(requests: list[Any], in_flight: int, jobs: int) -> Run:
    """Run the requests, so many at a time."""
    gate = asyncio.Semaphore(in_flight)
    times: list[float] = []

    async def timed(request: Any) -> None:
        async with gate:
            began = time.perf_counter()
            await request()
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(timed(request) for request in requests))
    return Run(jobs / (time.perf_counter() - began), times)


async def _raw(plane: ControlPlane, namespace: str, manifests: list[Any], in_flight: int) -> Run:
    """Create the same Jobs directly in the API server."""
    config = yaml.safe_load(plane.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=_ca(cluster))
    headers = {
        "Authorization": f"Bearer {config['users'][0]['user']['token']}",
        "Content-Type": "application/json",
    }
    url = f"{cluster['server']}/apis/batch/v1/namespaces/{namespace}/jobs"
    bodies = [json.dumps(manifest) for manifest in manifests]
    connector = aiohttp.TCPConnector(ssl=context, limit=in_flight)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:

        def create(body: str) -> Any:
            async def send() -> None:
                async with http.post(url, data=body) as answer:
                    await answer.read()
                    assert answer.status == 201, await answer.text()

            return send

        return await _drive([create(body) for body in bodies], in_flight, len(bodies))


def _ca(cluster: dict[str, Any]) -> str:
    import base64  # noqa: PLC0415

    if "certificate-authority-data" in cluster:
        return base64.b64decode(cluster["certificate-authority-data"]).decode()
    return Path(cluster["certificate-authority"]).read_text()


async def _delivered(url: str, groups: list[Any], in_flight: int) -> Run:
    """Send the groups to a replica."""
    bodies = [json.dumps(body) for body in groups]
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(
        connector=connector, headers={"Content-Type": "application/json"}
    ) as http:

        def deliver(body: str) -> Any:
            async def send() -> None:
                async with http.post(url + "/alerts", data=body) as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()

            return send

        return await _drive([deliver(body) for body in bodies], in_flight, ALERTS)


def _manifests(repository: Repository, namespace: str, mark: str) -> list[Any]:
    """Return the Jobs that the deliveries would create."""
    catalog = asyncio.run(read_catalog(CatalogSource(str(repository.folder))))
    delivery = Delivery("bench", "{}:{}", Status.FIRING, datetime.now(UTC), "bench")
    manifests = []
    for fired in read_payload(json.dumps(group(*_alerts(mark)))).alerts:
        outcome = match(fired, catalog, ())
        assert isinstance(outcome, Match)
        rendered = render(
            fired,
            outcome.operario,
            catalog.envelope,
            catalog.revision,
            delivery,
            jobs_namespace=namespace,
        )
        manifests.append(rendered.manifest)
    return manifests


def _alerts(mark: str) -> list[dict[str, Any]]:
    return [alert("Storm", host=f"{mark}-{number}") for number in range(ALERTS)]


def main() -> None:
    """Run the benchmark and print its table."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        plane = ControlPlane(folder / "cluster", components=("etcd", "kube-apiserver"))
        stack.callback(plane.remove)
        stack.callback(plane.stop)
        plane.start()
        repository = Repository(folder / "operarios")
        repository.write("storm.json", operario("Storm"))
        repository.commit("Operarios")
        replica = stack.enter_context(
            Replica(
                folder,
                name="bench",
                kubeconfig=plane.kubeconfig,
                namespace="default",
                repository=repository.url,
                development=False,
                max_waiting="100000",  # no leader admits them
            )
        )
        print(f"deliveries: {ALERTS} alerts, median of {ROUNDS} rounds; answer times in ms")
        print(f"{'in flight':>9} {'sent as':>12} {'Jobs/s':>7} {'/ raw':>6} {'p50':>6} {'p99':>6}")
        for in_flight in (16, 64):
            runs: dict[str, list[Run]] = {"raw creates": [], "groups of 1": [], "of 100": []}
            for number in range(ROUNDS):
                mark = f"{in_flight}-{number}"
                raw = _manifests(repository, "default", f"raw-{mark}")
                runs["raw creates"].append(asyncio.run(_raw(plane, "default", raw, in_flight)))
                for name, size in (("groups of 1", 1), ("of 100", 100)):
                    alerts = _alerts(f"{size}-{mark}")
                    groups = [group(*alerts[i : i + size]) for i in range(0, ALERTS, size)]
                    runs[name].append(asyncio.run(_delivered(replica.url, groups, in_flight)))
            base = statistics.median(run.rate for run in runs["raw creates"])
            for name, passes in runs.items():
                rate = statistics.median(run.rate for run in passes)
                p50 = statistics.median(run.quantile(0.5) for run in passes)
                p99 = statistics.median(run.quantile(0.99) for run in passes)
                print(
                    f"{in_flight:>9} {name:>12} {rate:>7.0f} {rate / base:>6.2f} "
                    f"{p50:>6.0f} {p99:>6.0f}"
                )
