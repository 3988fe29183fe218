"""The chart installed on a real node: containers run, an alert is healed, and nothing is lost.

`pytest -n 0 -s` shows the transcript with its figures. The times of Alertmanager and of the rule
are shorter than those that people use, and so is `heals-within` of the operario.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.async_api import expect

from openfero_gitops.domain import keys
from tests.cluster.controlplane import LOOPBACK, binaries
from tests.cluster.node import ADDRESS, Node
from tests.support.chart import NAME, RELEASE, helm
from tests.support.chromium import chromium
from tests.support.cluster import Kubectl, KubectlError
from tests.support.crashes import ContainerRestarts
from tests.support.git_servers import http_server
from tests.support.image import require_image
from tests.support.installation import (
    IMAGE,
    IMAGES,
    JOBS,
    LAST_WORDS,
    NAMESPACE,
    PATIENCE,
    PROBE,
    PROBED,
    Installation,
    Transcript,
    example,
    fragile_deployment,
    wait_for,
)
from tests.support.monitoring import alertmanager_pair, alerts_of, prometheus
from tests.support.names import name_server
from tests.support.process import Process, free_port
from tests.support.replica import alert, group
from tests.support.sending import Deliveries
from tests.support.tools_image import static_busybox, write_tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.alertmanager,
    pytest.mark.prometheus,
    pytest.mark.xdist_group("node"),
]

CRASH_LOOPING = "KubePodCrashLooping"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"

RULE: dict[str, Any] = {
    "alert": CRASH_LOOPING,
    "expr": "kube_pod_container_status_restarts_total >= 2",
    "labels": {"severity": "warning"},
    "annotations": {"summary": "Pod is crash looping."},
}

#: Prints memory in MiB, and processor time in thousandths, of the child of process 1.
IDLE = """
import pathlib, re, time
process = pathlib.Path("/proc", pathlib.Path("/proc/1/task/1/children").read_text().split()[0])
def ticks():
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
before = ticks()
time.sleep(10)
memory = int(re.search(r"VmRSS:\\s+(\\d+)", (process / "status").read_text())[1])
print(memory // 1024, ticks() - before)
"""


@pytest.fixture(scope="module")
def image_archive() -> Path:
    """Build the image, unless it is there.

    To be requested before `real_node`: nothing can be downloaded in the node's network.
    """
    [archive] = require_image().glob("*-image.tar")
    return archive


@pytest.fixture(scope="module")
def installation(
    image_archive: Path, real_node: Node, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Install the chart into namespaces that admit restricted Pods only."""
    folder = tmp_path_factory.mktemp("installation")
    transcript = Transcript()
    kubectl = Kubectl(binaries() / "kubectl", real_node.kubeconfig)
    busybox = static_busybox()
    assert busybox is not None
    write_tools(folder / "tools.tar", busybox, binaries() / "kubectl", IMAGES)
    for each in (folder / "tools.tar", image_archive):
        real_node.import_images(each)
    size = image_archive.stat().st_size >> 20
    transcript.say(f"images imported; the controller's has {size} MiB")
    for name in (NAMESPACE, "monitoring", PROBED):
        kubectl("create", "namespace", name)
        kubectl("label", "namespace", name, RESTRICTED)
    repository = example(folder / "operarios")
    with http_server(folder, address=ADDRESS) as server:
        values = {
            "repository": {"url": server.url("operarios/.git")},
            "image": IMAGE,
        }
        installed = Installation(real_node, kubectl, repository, values, transcript)
        transcript.say("helm install")
        installed.helm("install")
        kubectl("label", "namespace", JOBS, RESTRICTED)
        kubectl("apply", "-k", str(repository.folder))
        kubectl("apply", "-f", str(repository.folder / "probe" / "rbac.yaml"))
        yield installed


def test_two_replicas_are_ready(installation: Installation) -> None:
    """With nothing but a repository and an image, two replicas are ready, and one of them leads."""
    pods = installation.replicas()
    assert len(pods) == 2
    for pod in pods:
        status = pod["status"]
        assert status["containerStatuses"][0]["restartCount"] == 0
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True"
        seconds = moment(ready["lastTransitionTime"]) - moment(status["startTime"])
        installation.transcript.say(
            f"{pod['metadata']['name']} ready {seconds.seconds} s after it was scheduled"
        )
    names = [pod["metadata"]["name"] for pod in pods]
    assert wait_for(installation.leader, "a leader") in names
    for name in names:
        idle = ("exec", "-n", NAMESPACE, name, "--", "python", "-c", IDLE)
        memory, processor = installation.kubectl(*idle).split()
        installation.transcript.say(f"{name} idle: {memory} MiB, {processor} m CPU")


def test_helm_test_passes(installation: Installation, tmp_path: Path) -> None:
    """A Pod finds the Service by its name, and its delivery is accepted; no Job comes of it."""
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    address = urlsplit(installation.url).hostname
    (hosts / NAME).write_text(f"{address} {NAME}.{NAMESPACE}.svc.cluster.local\n")
    with name_server(tmp_path, hosts):
        said = helm(
            *("test", RELEASE, "--logs", f"--timeout={PATIENCE - 60}s"),
            kubeconfig=installation.node.kubeconfig,
            namespace=NAMESPACE,
        )
    assert "ok: a delivery with the credentials of the Secret is accepted" in said
    installation.transcript.say("helm test passed")
    assert not installation.jobs("OpenFeroRemediating")


def test_a_crash_looping_pod_is_healed(installation: Installation, tmp_path: Path) -> None:
    """Prometheus sees it, Alertmanager calls, a container of the operario repairs it: `healed`."""
    say, kubectl = installation.transcript.say, installation.kubectl
    kubectl.create("monitoring", fragile_deployment())
    kubectl("rollout", "status", "deployment/checkout", "-n", "monitoring", "--timeout=180s")
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(kubectl_proxy(installation.node, tmp_path))
        exporter = stack.enter_context(ContainerRestarts(api, "monitoring"))
        alertmanagers = stack.enter_context(
            alertmanager_pair(tmp_path, documented_configuration(installation, tmp_path))
        )
        stack.enter_context(prometheus(tmp_path, [RULE], alertmanagers, exporter.address))
        [broken] = monitored(kubectl)
        with contextlib.suppress(KubectlError):  # the container may end before `kill` does
            kubectl("exec", "-n", "monitoring", broken, "--", "kill", "-USR1", "1")
        say(f"{broken} was made to crash")
        [job] = wait_for(lambda: installation.jobs(CRASH_LOOPING), "a Job")
        started = time.monotonic()
        name = job["metadata"]["name"]
        say(f"the alert fired, and Job {name} exists")
        kubectl.wait(JOBS, f"job/{name}", "condition=complete", patience=PATIENCE)
        say(f"Job complete {time.monotonic() - started:.1f} s after it was created")
        kubectl("rollout", "status", "deployment/checkout", "-n", "monitoring", "--timeout=180s")
        assert broken not in monitored(kubectl)
        began = moment(annotation(installation, name, keys.STARTS_AT))
        seconds = (datetime.now(UTC) - began).total_seconds()
        say(f"repaired {seconds:.1f} s after the alert began: the Deployment has another Pod")
        for alertmanager in alertmanagers:
            wait_for(lambda at=alertmanager: not alerts_of(at, CRASH_LOOPING), "no alert")
        wait_for(lambda: annotation(installation, name, keys.RESOLVED_AT), "a resolved delivery")
        say("the alert is resolved")
        installation.helm("upgrade", logs={"enabled": True})
        say("helm upgrade with logs.enabled")
        with forwarded_pages(installation, tmp_path) as pages:
            asyncio.run(see_log(f"{pages}/remediations/{JOBS}/{name}"))
        say("Chromium shows the log of the Job's containers")
        wait_for(lambda: annotation(installation, name, keys.EFFECT), "an effect")
    assert annotation(installation, name, keys.EFFECT) == "healed"
    say("effect: healed")
    assert [job["metadata"]["name"] for job in installation.jobs(CRASH_LOOPING)] == [name]


@contextlib.contextmanager
def kubectl_proxy(node: Node, folder: Path) -> Iterator[str]:
    """Run `kubectl proxy`, and return the address where the API server then needs no token."""
    port = free_port()
    argv = [binaries() / "kubectl", f"--kubeconfig={node.kubeconfig}", "proxy", f"--port={port}"]
    with Process(argv, log=folder / "proxy.log", port=port):
        yield f"http://{LOOPBACK}:{port}"


def test_nothing_is_lost_or_healed_twice_while_replicas_change(installation: Installation) -> None:
    """The leader is deleted, the release upgraded, a replica evicted: each alert is healed once.

    No delivery is lost: what is answered with 503, Alertmanager repeats. The PodDisruptionBudget
    keeps one of two replicas.
    """
    say, kubectl = installation.transcript.say, installation.kubectl
    url, token = installation.url, installation.token
    with (
        Deliveries(url, token, PROBE, 4) as matched,
        Deliveries(url, token, "Unmatched", 0.2) as unmatched,
    ):
        leader = installation.leader()
        kubectl("delete", "pod", leader, "-n", NAMESPACE, "--wait=false")
        began = time.monotonic()
        wait_for(lambda: installation.leader() not in ("", leader), "another leader", 0.05)
        say(f"leader deleted, the next one leads {time.monotonic() - began:.1f} s later")
        installation.settle()
        installation.helm("upgrade", replicaCount=2, podAnnotations={"rolled": "once"})
        say("helm upgrade: new Pods")
        installation.settle()
        first, second = (pod["metadata"]["name"] for pod in installation.replicas())
        evict(kubectl, first)
        with pytest.raises(KubectlError, match="disruption budget"):
            evict(kubectl, second)
        say(f"{first} evicted, {second} kept by the PodDisruptionBudget")
        installation.settle()
    say(f"deliveries of alerts with an operario: {dict(matched.answers)}")
    say(f"deliveries of others: {dict(unmatched.answers)}")
    for deliveries in (matched, unmatched):
        assert set(deliveries.answers) <= {"200", "503"}
        assert deliveries.answers["200"] == len(deliveries.ids)
    healed = {f"healed-{number}" for number in matched.ids}
    wait_for(lambda: healed <= set(traces(kubectl)), "all are healed")
    jobs = wait_for(lambda: all_ended(installation.jobs(PROBE)), "all Jobs ended")
    assert len(jobs) == len(healed)
    assert all(job["status"].get("succeeded") == 1 for job in jobs)
    assert not any(job["status"].get("failed") for job in jobs)
    say(f"{len(healed)} alerts, {len(jobs)} Jobs, each of which succeeded once")


def test_audit_verifies_each_job(installation: Installation) -> None:
    """`audit --verify`, run outside of the cluster, renders each Job again from its commit."""
    cluster = ("--kubeconfig", installation.node.kubeconfig, "--namespace", JOBS)
    prove = ("--verify", "--repo", installation.repository.folder)
    active = ("--controller-namespace", NAMESPACE)  # which records the active commits
    audit = [sys.executable, "-m", "openfero_gitops", "audit", *cluster, *prove, *active]
    done = subprocess.run(audit, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(installation.jobs(CRASH_LOOPING) + installation.jobs(PROBE))
    said = done.stdout.splitlines()[-1]
    assert said == f"{count} remediations, {count} verified"
    installation.transcript.say(f"audit --verify: {said}")


def test_an_uninstalled_release_leaves_its_record(installation: Installation) -> None:
    """Jobs stay, and what the README names; installed again over them, nothing is healed twice."""
    say, kubectl = installation.transcript.say, installation.kubectl
    kept = group(alert(PROBE, id="kept") | {"startsAt": datetime.now(UTC).isoformat()})
    assert installation.deliver(kept) == "created"
    jobs = wait_for(lambda: all_ended(installation.jobs(PROBE)), "the Job ended")
    before = {job["metadata"]["uid"] for job in jobs}
    jobs_namespace = f"namespace/{JOBS}"
    assert {each.partition(".")[0] for each in cluster_wide(kubectl)} == {
        jobs_namespace,
        "validatingadmissionpolicy",
        "validatingadmissionpolicybinding",
    }
    helm(
        *("uninstall", RELEASE, "--wait", f"--timeout={PATIENCE}s"),
        kubeconfig=installation.node.kubeconfig,
        namespace=NAMESPACE,
    )
    wait_for(lambda: not installation.replicas(), "no Pod")
    left = remaining(kubectl, NAMESPACE)
    say(f"helm uninstall leaves {', '.join(left)}")
    documented = {"lease.coordination.k8s.io/openfero-gitops", "configmap/openfero-control"}
    labelled = kubectl(
        *("get", "configmaps", "-n", NAMESPACE, "-o", "name"),
        *("-l", "openfero.io/mirror"),
    )
    labelled += kubectl(
        *("get", "configmaps", "-n", NAMESPACE, "-o", "name"), *("-l", "openfero.io/alerts")
    )
    documented |= {"configmap/openfero-dry-runs", f"pod/{NAME}-test", *labelled.split()}
    assert set(left) <= documented
    assert cluster_wide(kubectl) == [jobs_namespace]
    mine = applied(installation)
    others = [each for each in remaining(kubectl, JOBS) if each not in mine]
    assert {each.partition("/")[0] for each in others} <= {"job.batch", "pod"}
    assert {job["metadata"]["uid"] for job in installation.jobs(PROBE)} == before
    installation.helm("install")
    assert installation.deliver(kept) == "exists"
    assert {job["metadata"]["uid"] for job in installation.jobs(PROBE)} == before
    say(f"installed again over {len(before)} Jobs: the alert is not healed twice")


async def see_log(page_url: str) -> None:
    """Read the log on the page of a remediation in a browser."""
    async with chromium() as browser:
        page = await browser.new_page()
        await page.goto(page_url)
        words = page.locator(".log pre").filter(has_text=LAST_WORDS).first
        await expect(words).to_be_visible(timeout=120_000)


@contextlib.contextmanager
def forwarded_pages(installation: Installation, folder: Path) -> Iterator[str]:
    """Forward a port to the pages, as the chart's notes say, and return their address."""
    port = free_port()
    kubectl = [binaries() / "kubectl", f"--kubeconfig={installation.node.kubeconfig}"]
    argv = [*kubectl, "-n", NAMESPACE, "port-forward", f"deployment/{NAME}", f"{port}:8081"]
    with Process(argv, log=folder / "forward.log", port=port):
        yield f"http://{LOOPBACK}:{port}"


def evict(kubectl: Kubectl, pod: str) -> None:
    """Evict a replica, as `kubectl drain` does.

    Raises:
        KubectlError: the PodDisruptionBudget does not allow it.
    """
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


def traces(kubectl: Kubectl) -> list[str]:
    """Return the names of what Jobs of the probe have created."""
    return [each.removeprefix("configmap/") for each in remaining(kubectl, PROBED)]


def all_ended(jobs: list[Any]) -> list[Any]:
    """Return the Jobs if all of them have ended."""

    def has_ended(job: Any) -> bool:
        conditions = job["status"].get("conditions", ())
        return any(
            c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions
        )

    return jobs if all(map(has_ended, jobs)) else []


def remaining(kubectl: Kubectl, namespace: str) -> list[str]:
    """Return what a namespace holds, without what Kubernetes itself puts there."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    listed = ",".join(kind for kind in kinds if not kind.startswith("events"))
    names = kubectl("get", listed, "-n", namespace, "-o", "name", "--ignore-not-found").split()
    return [
        name
        for name in names
        if name not in ("configmap/kube-root-ca.crt", "serviceaccount/default")
    ]


def cluster_wide(kubectl: Kubectl) -> list[str]:
    """Return what the release has outside of namespaces."""
    kinds = kubectl("api-resources", "--namespaced=false", "--verbs=list", "-o", "name").split()
    ours = f"app.kubernetes.io/instance={RELEASE}"
    return kubectl("get", ",".join(kinds), "-l", ours, "-o", "name").split()


def applied(installation: Installation) -> list[str]:
    """Return the names of what the repository has for people to apply."""
    folder = installation.repository.folder
    files = (("-k", folder), ("-f", folder / "probe" / "rbac.yaml"))
    named = ("apply", "--dry-run=client", "-o", "name")
    lines = [installation.kubectl(*named, flag, str(path)) for flag, path in files]
    return "".join(lines).split()


def documented_configuration(installation: Installation, folder: Path) -> dict[str, Any]:
    """Return the configuration that the chart's notes show for Alertmanager, with shorter times."""
    release = ("get", "notes", RELEASE)
    notes = helm(*release, kubeconfig=installation.node.kubeconfig, namespace=NAMESPACE)
    shown = notes[notes.index("     route:") :].splitlines(keepends=True)
    block = "".join(itertools.takewhile(lambda line: line.startswith("     "), shown))
    config: dict[str, Any] = yaml.safe_load(textwrap.dedent(block))
    config["route"] |= {"receiver": "people", "group_interval": "1s"}
    config["receivers"].append({"name": "people"})
    [webhook] = config["receivers"][0]["webhook_configs"]
    # Nothing resolves names here.
    service = f"http://{NAME}.{NAMESPACE}.svc:8080"
    assert webhook["url"] == f"{service}/alerts"
    webhook["url"] = webhook["url"].replace(service, installation.url)
    token = folder / "token"
    token.write_text(installation.token)
    webhook["http_config"]["authorization"]["credentials_file"] = str(token)
    return config


def monitored(kubectl: Kubectl) -> list[str]:
    """Return the names of the Pods of the Deployment."""
    pods = kubectl.json("get", "pods", "-n", "monitoring", "-l", "app=checkout")["items"]
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def annotation(installation: Installation, job: str, key: str) -> str:
    """Return an annotation of a Job; empty: it has none."""
    observed = installation.kubectl.json("get", "job", job, "-n", JOBS)
    value: str = observed["metadata"]["annotations"].get(key, "")
    return value


def moment(text: str) -> datetime:
    """Read one of the API server's times."""
    return datetime.fromisoformat(text)
