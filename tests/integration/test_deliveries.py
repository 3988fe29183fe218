"""Deliveries as people's senders really make them, up to the Jobs in a real API server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain import keys
from tests.support.optional import require_alertmanager
from tests.support.process import Process, free_port
from tests.support.replica import PATIENCE_SECONDS, Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Give a repository with operarios for the alerts `Disk` and `Dots`."""
    made = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    made.write("disk.json", operario("Disk"))
    dots = operario("Dots").replace("$(OPENFERO_STATUS)", "$(OPENFERO_SERVICE_NAME)")
    made.write("dots.json", dots)
    made.commit("Operarios")
    return made


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    shared_namespace: str,
    repository: Repository,
) -> Iterator[Replica]:
    """Give a leading replica with one replica label besides the well-known ones."""
    folder = tmp_path_factory.mktemp("deliveries")
    with Replica(
        folder,
        name="deliveries",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        development=False,
        replica_label="cluster-member",
    ) as started:
        started.wait_for(lambda: started.leads)
        yield started


@pytest.fixture
def alertmanager(tmp_path: Path, replica: Replica) -> Iterator[str]:
    """Give the address of an Alertmanager that delivers to the replica, without waiting."""
    config = tmp_path / "alertmanager.yml"
    route = {"receiver": "openfero", "group_by": ["alertname"], "group_wait": "1s"}
    webhook = {"url": f"{replica.url}/alerts/", "send_resolved": True}
    receiver = {"name": "openfero", "webhook_configs": [webhook]}
    config.write_text(json.dumps({"route": route, "receivers": [receiver]}))
    port = free_port()
    process = Process(
        [
            str(require_alertmanager()),
            f"--config.file={config}",
            f"--storage.path={tmp_path / 'alertmanager'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--cluster.listen-address=",
        ],
        log=tmp_path / "alertmanager.log",
        url=f"http://{LOOPBACK}:{port}/-/ready",
    )
    with process:
        yield f"http://{LOOPBACK}:{port}"


def post(url: str, body: Any) -> None:
    """POST JSON; raises an error unless the answer is 2xx."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS):
        pass


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command of openfero-gitops."""
    argv = [sys.executable, "-m", "openfero_gitops", *map(str, arguments)]
    return subprocess.run(argv, input=stdin, capture_output=True, check=False)


def remediations(replica: Replica, pod: str) -> list[dict[str, Any]]:
    """Return the remediations of a Pod's alerts."""
    items = replica.get("/api/remediations")["items"]
    return [item for item in items if item["labels"].get("pod") == pod]


def outcomes(answer: Any) -> list[tuple[str, str | None]]:
    """Return the outcome and the reason of each alert of an answer."""
    return [(item["outcome"], item["reason"]) for item in answer["items"]]


@pytest.mark.alertmanager
def test_what_amtool_and_the_api_print_is_explained(
    tmp_path: Path, replica: Replica, alertmanager: str
) -> None:
    """The alerts that fire now can be tried on operarios, silenced ones too."""
    folder = tmp_path / "operarios"
    folder.mkdir()
    (folder / "disk.json").write_text(operario("Printed"))
    labels = {"alertname": "Printed", "pod": "api-0"}
    post(f"{alertmanager}/api/v2/alerts", [{"labels": labels}])
    now = datetime.now(UTC)
    silence = {
        "matchers": [{"name": "pod", "value": "api-0", "isRegex": False}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "test",
        "comment": "test",
    }

    def printed(state: str) -> list[bytes]:
        """Return the alerts as three tools print them, once all of them are in this state."""
        amtool = [shutil.which("amtool") or "amtool", f"--alertmanager.url={alertmanager}"]
        argv = [*amtool, "alert", "query", "--silenced", "--active", "-o", "json"]
        amtool_output = subprocess.run(argv, capture_output=True, check=True).stdout
        pages = [f"{alertmanager}/api/v2/{path}" for path in ("alerts", "alerts/groups")]
        outputs = [amtool_output]
        for page in pages:
            with urllib.request.urlopen(page, timeout=PATIENCE_SECONDS) as answer:
                outputs.append(answer.read())
        return outputs if all(state.encode() in output for output in outputs) else []

    for state in ("active", "suppressed"):
        if state == "suppressed":
            post(f"{alertmanager}/api/v2/silences", silence)
        for output in replica.wait_for(partial(printed, state)):
            explained = run("explain", folder, "--alert", "-", stdin=output)
            assert explained.returncode == 0, explained.stderr
            assert b'Printed (firing) pod="api-0"' in explained.stdout
            rendered = run("render", folder, "--alert", "-", stdin=output)
            assert rendered.returncode == 0, rendered.stderr
            assert rendered.stdout.count(b"kind: Job") == 1


class TestBadNeighbours:
    """One alert of a group cannot be read."""

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"labels": {"alertname": "Disk", "code": 500}}, "/labels/code: must be a string"),
            ({"status": "suppressed"}, 'the status must be "firing" or "resolved", not "suppr'),
            ({"labels": None}, ": labels must be an object"),
            ({"startsAt": 1764324000}, "/startsAt: must be a string"),
            ({"annotations": {"value": 1.5}}, "/annotations/value: must be a string"),
        ],
    )
    def test_the_others_have_their_jobs(
        self, replica: Replica, wrong: dict[str, Any], message: str
    ) -> None:
        """422 names the member; the log has it once, however often it is repeated."""
        good = alert("Disk", pod=f"good-{''.join(filter(str.isalpha, message))[:20]}")
        before = replica.process.output.count("an alert cannot be read")
        for outcome in ("created", "exists", "exists"):
            status, answer = replica.deliver(good, alert("Disk", pod="bad") | wrong)
            assert status == 422
            assert [item["outcome"] for item in answer["items"]] == [outcome, "invalid"]
            assert message in answer["items"][1]["message"]
            assert answer["items"][1]["message"].startswith("/alerts/1")
        assert replica.process.output.count("an alert cannot be read") - before == 1

    def test_null_means_absent(self, replica: Replica) -> None:
        """Members that may be absent may be null."""
        nulls = dict.fromkeys(("annotations", "endsAt", "generatorURL", "fingerprint"))
        status, answer = replica.deliver(alert("Disk", pod="nulls") | nulls, groupLabels=None)
        assert status == 200
        assert outcomes(answer) == [("created", None)]


class TestReplicaLabels:
    """The members of a Prometheus pair send the same alerts."""

    @pytest.mark.alertmanager
    @pytest.mark.parametrize("apart", [0, 20])
    def test_a_pair_behind_alertmanager_is_healed_once(
        self, replica: Replica, alertmanager: str, apart: int
    ) -> None:
        """Prometheus does not drop the label, and the members saw the problem at two moments."""
        pod = f"api-{apart}"
        start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=60)
        alerts = [
            {
                "labels": {
                    "alertname": "Disk",
                    "namespace": "web",
                    "pod": pod,
                    "prometheus": "monitoring/k8s",
                    "prometheus_replica": f"prometheus-k8s-{member}",
                },
                "startsAt": (start + timedelta(seconds=member * apart)).isoformat(),
            }
            for member in (0, 1)
        ]
        post(f"{alertmanager}/api/v2/alerts", alerts)
        replica.wait_for(lambda: remediations(replica, pod))
        delivered = '"alerts": 2, "seconds":'
        replica.wait_for(
            lambda: [line for line in replica.process.output.splitlines() if delivered in line]
        )
        (item,) = replica.wait_for(
            lambda: [item for item in remediations(replica, pod) if item["phase"] == "Running"]
        )
        assert [other["job"] for other in remediations(replica, pod)] == [item["job"]]
        assert item["startsAt"].startswith(start.isoformat()[:19])

    @pytest.mark.parametrize(
        "label",
        [
            "prometheus_replica",
            "__replica__",
            "thanos_ruler_replica",
            "rule_replica",
            "cluster-member",
        ],
    )
    def test_one_job_for_both_members(self, replica: Replica, kubectl: Kubectl, label: str) -> None:
        """In one delivery and in two, the Job, its incident and its target are the same."""
        pair = [
            alert("Disk", pod=f"pair-{len(label)}", **{label: f"prometheus-k8s-{member}"})
            for member in (0, 1)
        ]
        status, answer = replica.deliver(*pair)
        assert status == 200
        assert outcomes(answer) == [("created", None), ("exists", None)]
        for one in pair:
            assert outcomes(replica.deliver(one)[1]) == [("exists", None)]
        item = answer["items"][0]
        assert answer["items"][1]["job"] == item["job"]
        job = kubectl.json("get", "job", item["job"], "-n", item["namespace"])
        annotations = job["metadata"]["annotations"]
        assert json.loads(annotations[keys.TARGET]) == {"pod": f"pair-{len(label)}"}
        assert label in json.loads(annotations[keys.ALERT])["labels"]
        environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
        variable = f"OPENFERO_{label.upper().replace('-', '_')}"
        assert {"name": variable, "value": "prometheus-k8s-0"} in environment

    def test_the_audit_needs_no_setting(
        self, replica: Replica, kubeconfig: Path, shared_namespace: str, repository: Repository
    ) -> None:
        """What was left out is read from the Job, so that it is verified in a year, too."""
        sent = alert("Disk", pod="audited") | {"labels": {"alertname": "Disk", "pod": "audited"}}
        sent["labels"]["cluster-member"] = sent["labels"]["rule_replica"] = "a"
        (item,) = replica.deliver(sent)[1]["items"]
        audited = run(
            "audit", "--verify", "--repo", repository.url, "--kubeconfig", kubeconfig,
            "--namespace", shared_namespace, "--format", "json",
        )  # fmt: skip
        assert audited.returncode == 0, audited.stdout + audited.stderr
        jobs = {entry["job"]: entry for entry in json.loads(audited.stdout)["items"]}
        assert jobs[item["job"]]["proof"] in ("verified", "not-known")

    def test_the_later_member_goes_on_firing(self, replica: Replica) -> None:
        """The one that fired first is resolved; the Job of the pair stays the only one."""
        first = alert("Disk", pod="later", prometheus_replica="a")
        first["startsAt"] = datetime.now(UTC).isoformat()
        assert outcomes(replica.deliver(first)[1]) == [("created", None)]
        begins = datetime.now(UTC) + timedelta(seconds=62)  # a minute counts as the same moment
        second = alert("Disk", pod="later", prometheus_replica="b")
        second["startsAt"] = begins.isoformat()
        ends = begins + timedelta(seconds=10)
        gone = first | {"status": "resolved", "endsAt": ends.isoformat()}
        time.sleep(4)
        still = [("no-match", "still-firing"), ("exists", None)]
        assert outcomes(replica.deliver(gone, second)[1]) == still
        assert outcomes(replica.deliver(second)[1]) == [("exists", None)]
        assert len(remediations(replica, "later")) == 1

    def test_a_member_that_still_fires_alone_is_healed(self, replica: Replica) -> None:
        """The other was resolved in a delivery of its own, before the Job had started."""
        busy = alert("Disk", pod="alone", severity="page")  # the target of the pair's Job, too
        pair = [alert("Disk", pod="alone", prometheus_replica=member) for member in "ab"]
        replica.deliver(busy)
        replica.wait_for(lambda: remediations(replica, "alone")[0]["phase"] == "Running")
        now = datetime.now(UTC).replace(microsecond=0)
        for one in pair:
            one["startsAt"] = (now - timedelta(seconds=200)).isoformat()
            _, answer = replica.deliver(one)
        job = answer["items"][0]["job"]
        gone = {"status": "resolved", "endsAt": (now - timedelta(seconds=100)).isoformat()}
        replica.deliver(pair[0] | gone)
        _, answer = replica.deliver(pair[1])
        assert outcomes(answer) == [("created", None)]
        assert answer["items"][0]["job"] != job
        assert outcomes(replica.deliver(pair[1])[1]) == [("exists", None)]
        replica.wait_for(lambda: replica.remediation(job)["phase"] == "Refused")
        assert replica.remediation(answer["items"][0]["job"])["phase"] == "Waiting"

    def test_other_labels_still_make_two_jobs(self, replica: Replica) -> None:
        """Alerts that differ in anything else are two alerts."""
        pair = [alert("Disk", pod="two", replica=str(member)) for member in (0, 1)]
        _, answer = replica.deliver(*pair)
        assert outcomes(answer) == [("created", None)] * 2
        assert answer["items"][0]["job"] != answer["items"][1]["job"]


class TestDottedLabels:
    """Labels as OpenTelemetry names them."""

    def test_a_command_uses_a_dotted_label(self, replica: Replica, kubectl: Kubectl) -> None:
        """`service.name` is the variable OPENFERO_SERVICE_NAME, also in a command."""
        _, answer = replica.deliver(alert("Dots", **{"service.name": "api", "k8s.io/a": "b"}))
        (item,) = answer["items"]
        assert item["outcome"] == "created"
        job = kubectl.json("get", "job", item["job"], "-n", item["namespace"])
        environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "OPENFERO_SERVICE_NAME", "value": "api"} in environment
        assert {"name": "OPENFERO_K8S_IO_A", "value": "b"} in environment

    def test_a_name_that_two_labels_share_is_explained(self, replica: Replica) -> None:
        """The Job is refused, and the message says that there are two."""
        labels = {"service.name": "api", "service-name": "other"}
        _, answer = replica.deliver(alert("Dots", **labels))
        (item,) = answer["items"]
        assert (item["outcome"], item["reason"]) == ("refused", "missing-value")
        assert "2 labels that would have this name: service-name, service.name" in item["message"]


def test_a_delivery_to_a_wrong_path_can_be_found(replica: Replica) -> None:
    """The log and the metrics name the path, and the answer the right one."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(f"{replica.url}/api/v2/alerts", [])
    with refused.value as answer:
        assert answer.code == 404
        assert "deliveries to /alerts" in json.load(answer)["detail"]
    metric = 'openfero_gitops_requests_refused_total{code="404",path="/api/v2/alerts"} 1.0'
    assert metric in replica.read("/metrics")
    replica.wait_for(lambda: '"path": "/api/v2/alerts"' in replica.process.output)
