"""One trace from the delivery of an alert to its effect, over two replicas."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.demo.cluster.server import serve_cluster
from openfero_gitops.domain import keys
from tests.support.otlp import Collector, ReceivedSpan
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository
from tests.support.workers import in_background

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE = "traced"
#: The sender's, as in its header.
TRACE = "0af7651916cd43dd8448eb211c80319c"
SENDER = "b7ad6b7169203331"
STEPS = {"POST /alerts", "match", "submit", "render", "create", "admit", "run", "effect"}


@dataclass(frozen=True)
class Story:
    """What an alert left behind: its Job, the spans, and the log of each replica."""

    commit: str
    job: dict[str, Any]
    spans: list[ReceivedSpan]
    logs: dict[str, list[dict[str, Any]]]

    @property
    def traced(self) -> dict[str, ReceivedSpan]:
        """The spans of the alert's trace by name, in order of their start."""
        unmatched = "openfero.reason", "no-operario"
        return {
            span.name: span
            for span in self.spans
            if span.trace == TRACE and unmatched not in span.attributes.items()
        }


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Deliver an alert to a follower, and again until the leader has settled its effect."""
    return asyncio.run(_play(tmp_path_factory.mktemp("traces")))


async def _play(folder: Path) -> Story:
    repository = Repository(folder / "operarios")
    healing = {"openfero.io/heals-within": "1s"}
    repository.write("heal.yaml", operario("DiskFull", annotations=healing))
    commit = repository.commit("Heal full disks")
    cluster = MemoryCluster()
    with Collector() as collector:
        async with serve_cluster(cluster, folder, NAMESPACE) as kubeconfig:
            leader, follower = (
                Replica(
                    folder,
                    name=name,
                    kubeconfig=kubeconfig,
                    namespace=NAMESPACE,
                    repository=repository.url,
                    roles=False,  # the cluster in memory has no RBAC
                    environment={
                        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                        "OTEL_BSP_SCHEDULE_DELAY": "100",
                    },
                )
                for name in ("leader", "follower")
            )
            async with in_background(cluster.run()):
                await asyncio.to_thread(_remediate, leader, follower, collector)
                [job] = (await cluster.list(JOBS, NAMESPACE)).items
    logs = {
        name: [json.loads(line) for line in (folder / f"{name}.log").read_text().splitlines()]
        for name in ("leader", "follower")
    }
    return Story(commit, dict(job), collector.in_order(), logs)


def _remediate(leader: Replica, follower: Replica, collector: Collector) -> None:
    fired = alert("DiskFull", host="web-1")

    def has_effect() -> bool:
        """Repeat the alert, as Alertmanager does: it still fires, so it is not healed."""
        assert _deliver(follower, fired) == ["exists"]
        return "effect" in {span.name for span in collector.spans}

    with leader:
        leader.wait_for(lambda: leader.leads)
        with follower:
            header = f"00-{TRACE}-{SENDER}-01"
            outcomes = _deliver(follower, fired, alert("Unknown"), traceparent=header)
            assert outcomes == ["created", "no-match"]
            collector.wait_for("run")
            follower.wait_for(has_effect)


def _deliver(replica: Replica, *alerts: Any, **headers: str) -> list[str]:
    """Deliver alerts with further headers; return the outcomes."""
    body = json.dumps(group(*alerts)).encode()
    headers["Content-Type"] = "application/json"
    request = urllib.request.Request(replica.url + "/alerts", body, headers)
    with urllib.request.urlopen(request) as answer:
        return [item["outcome"] for item in json.load(answer)["items"]]


def test_the_sender_the_follower_and_the_leader_share_a_trace(story: Story) -> None:
    """The delivery continues the sender's trace, and the leader that of the Job's annotation."""
    traced = story.traced
    assert set(traced) == STEPS
    root, submit = traced["POST /alerts"], traced["submit"]
    later = dict.fromkeys(("render", "create", "admit", "run", "effect"), submit.id)
    assert {name: span.parent for name, span in traced.items()} == {
        "POST /alerts": SENDER,
        "match": root.id,
        "submit": root.id,
        **later,
    }
    annotations = story.job["metadata"]["annotations"]
    assert annotations[keys.TRACEPARENT] == f"00-{TRACE}-{submit.id}-01"
    replicas = {name: span.resource["service.instance.id"] for name, span in traced.items()}
    by_leader = dict.fromkeys(("admit", "run", "effect"), "leader")
    assert replicas == {**dict.fromkeys(STEPS, "follower"), **by_leader}


def test_the_steps_say_what_they_are_about(story: Story) -> None:
    """They have the alert, the operario, the commit, the Job and the result."""
    traced = story.traced
    about = {
        "openfero.alert": "DiskFull",
        "openfero.operario": "openfero-diskfull-firing",
        "openfero.commit": story.commit,
        "k8s.namespace.name": NAMESPACE,
        "k8s.job.name": story.job["metadata"]["name"],
    }
    created = {"openfero.status": "firing", "openfero.outcome": "created"}
    assert traced["submit"].attributes == {**about, **created}
    assert traced["admit"].attributes == {**about, "openfero.reason": "admitted"}
    assert traced["run"].attributes == {**about, "openfero.phase": "Succeeded"}
    assert traced["effect"].attributes == {**about, "openfero.effect": "not-healed"}
    assert traced["POST /alerts"].attributes["http.response.status_code"] == 200
    failed = {name for name, span in traced.items() if span.failure is not None}
    assert failed == {"effect"}


def test_the_steps_are_in_order(story: Story) -> None:
    """Each begins when it began, also those that the leader adds when they have ended."""
    assert list(story.traced) == [
        "POST /alerts",
        "match",
        "submit",
        "render",
        "create",
        "admit",
        "run",
        "effect",
    ]
    assert all(span.start <= span.end for span in story.spans)


def test_an_alert_that_nothing_matches(story: Story) -> None:
    """Its step says why."""
    reasons = {
        span.attributes["openfero.alert"]: span.attributes.get("openfero.reason")
        for span in story.spans
        if span.name == "match"
    }
    assert reasons == {"DiskFull": None, "Unknown": "no-operario"}


def test_a_repeated_delivery_refers_to_the_trace_of_the_job(story: Story) -> None:
    """It has a trace of its own, with a link."""
    repeated = [s for s in story.spans if s.attributes.get("openfero.outcome") == "exists"]
    assert {tuple(span.links) for span in repeated} == {(TRACE,)}
    assert TRACE not in {span.trace for span in repeated}


def test_the_log_leads_to_the_trace(story: Story) -> None:
    """The lines of the decisions and of the delivery have its id."""
    job = f"{NAMESPACE}/{story.job['metadata']['name']}"
    decided = {
        replica: [
            (line["decision"], line["job"], line["commit"], line["trace_id"])
            for line in log
            if line["event"] == "decision"
        ]
        for replica, log in story.logs.items()
    }
    assert decided == {
        "follower": [("created", job, story.commit, TRACE)],
        "leader": [("admitted", job, story.commit, TRACE)],
    }
    deliveries = [line for line in story.logs["follower"] if line["event"] == "delivery"]
    assert deliveries[0]["trace_id"] == TRACE
    assert len({line["trace_id"] for line in deliveries}) == len(deliveries)
