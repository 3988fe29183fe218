"""People are notified through real Alertmanagers, whatever happens to the controller."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.notification import NotificationKind
from tests.support.alertmanagers import (
    Inbox,
    cluster,
    configure,
    example_config,
    inbox,
    open_alerts,
    send,
    silent_server,
)
from tests.support.paths import ROOT
from tests.support.process import free_port
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.alertmanager,
    pytest.mark.usefixtures("kwok"),
]

REMEDIATING = "OpenFeroRemediating"
#: In which a page must be sent after a remediation failed or the controller died.
WITHIN_SECONDS = 60.0
#: Of the routes in this test, and of the example: shorter here, so that the test is.
GROUP_INTERVAL_SECONDS = 2
EXAMPLE_GROUP_INTERVAL_SECONDS = 20
#: Shorter than in production: how long a page is held back after a success. heals-within must be
#: longer, as by default; meanwhile Prometheus sends a resolved alert again and again.
SHORTENED = """
from datetime import timedelta
from openfero_gitops.notifications import alerts
alerts.MAX_REMEDIATING_AFTER_SUCCESS = timedelta(seconds=10)
"""
HELPED = {"alertname": "KubeQuotaFullyUsed", "namespace": "lab"}


@pytest.fixture(scope="module")
def people() -> Iterator[Inbox]:
    """Give what people were sent."""
    with inbox() as received:
        yield received


@pytest.fixture(scope="module")
def broken() -> Iterator[list[str]]:
    """Give the addresses of an Alertmanager that is absent, and of one that never answers."""
    with silent_server() as silent:
        yield [f"http://127.0.0.1:{free_port()}", silent]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for all processes."""
    return tmp_path_factory.mktemp("notifications")


def configuration(people: Inbox, *webhooks: str) -> dict[str, Any]:
    """Return the example configuration with shorter intervals.

    The alerts of the controller are sent back to the controller, too, which the example avoids.
    """
    config = example_config()
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    del receivers["notifications"]["slack_configs"]
    receivers["notifications"]["webhook_configs"] = [{"url": people.url}]
    receivers["openfero-gitops"]["webhook_configs"] = [
        {"url": url, "send_resolved": True} for url in webhooks
    ]
    routes = config["route"]["routes"]
    back = {"receiver": "openfero-gitops", "continue": True, "group_wait": "1s"}
    routes.insert(0, {"matchers": ['alertname =~ "OpenFero.+"'], **back})
    for route in routes:
        route["group_interval"] = f"{GROUP_INTERVAL_SECONDS}s"
    routes[-1]["group_wait"] = "10s"
    return config


@pytest.fixture(scope="module")
def alertmanagers(folder: Path, people: Inbox) -> Iterator[list[str]]:
    """Give two clustered Alertmanagers, which do not know the controller yet."""
    with cluster(folder, configuration(people)) as urls:
        yield urls


@pytest.fixture(scope="module")
def pair(
    folder: Path,
    kubeconfig: Path,
    shared_namespace: str,
    alertmanagers: list[str],
    broken: list[str],
    people: Inbox,
) -> Iterator[tuple[Replica, Replica]]:
    """Give two replicas that notify four Alertmanagers, of which two do not work."""
    repository = Repository(folder / "operarios")
    for name, options, pod in (
        ("Approve", {"openfero.io/approval": "required"}, {}),
        ("Fails", {}, {"fail": "true", "exit_code": "3", "message": "no disk"}),
        ("Helps", {}, {}),
        (
            "Useless",
            {
                "openfero.io/heals-within": "1s",
                "openfero.io/stop-after-not-healed": "1",
                "openfero.io/cooldown": "0",
            },
            {},
        ),
        # Those that the example holds back.
        ("KubePodNotReady", {}, {"run_for": "15s", "fail": "true"}),
        ("KubeHpaMaxedOut", {}, {"run_for": "forever"}),
        (HELPED["alertname"], {"openfero.io/heals-within": "30s"}, {"run_for": "3s"}),
        *((kind.value, {}, {}) for kind in NotificationKind),
    ):
        repository.write(f"{name.lower()}.json", operario(name, annotations=options, **pod))
    repository.commit("Operarios")
    shortened = folder / "shortened"
    shortened.mkdir()
    (shortened / "sitecustomize.py").write_text(SHORTENED)
    path = os.pathsep.join((str(shortened), str(ROOT)))
    a, b = (
        Replica(
            folder,
            name=name,
            kubeconfig=kubeconfig,
            namespace=shared_namespace,
            repository=repository.url,
            alertmanager_url=",".join([*alertmanagers, *broken]),
            external_url="https://openfero.example.com/heal/",
            environment={"PYTHONPATH": path},
        )
        for name in "ab"
    )
    with a, b:
        webhooks = [f"{replica.url}/alerts" for replica in (a, b)]
        configure(folder, configuration(people, *webhooks), alertmanagers)
        eventually(lambda: a.leads or b.leads)
        yield a, b


@pytest.fixture(scope="module", autouse=True)
def helped(alertmanagers: list[str], pair: tuple[Replica, Replica]) -> Iterator[None]:
    """Let an alert be resolved while its Job runs; the other tests run at the same time."""
    over = threading.Event()

    def play_prometheus() -> None:
        began = datetime.now(UTC)
        send(alertmanagers, began, **HELPED)
        running = HELPED | {"alertname": REMEDIATING}
        pair[0].wait_for(lambda: everywhere(alertmanagers, **running))
        resolved = datetime.now(UTC)
        with contextlib.suppress(OSError):  # at the end of the tests no replica answers
            while effect_on(pair[1], HELPED["alertname"]) in ("", "pending"):
                send(alertmanagers, began, resolved, **HELPED)
                if over.wait(1):
                    return

    thread = threading.Thread(target=play_prometheus)
    thread.start()
    yield
    over.set()
    thread.join()


def eventually(look: Callable[[], Any], patience: float = 180.0) -> Any:
    """Return the first truthy answer; fail with the last one."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"still {seen!r} after {patience} s"
        time.sleep(0.1)
    return seen


def everywhere(urls: list[str], **labels: str) -> list[dict[str, Any]]:
    """Return the alert with these labels of each Alertmanager, if all of them have one."""
    alerts = [open_alerts(url, **labels) for url in urls]
    return [found[0] for found in alerts] if all(alerts) else []


def nowhere(urls: list[str], **labels: str) -> bool:
    """Whether no Alertmanager has an open alert with these labels."""
    return not any(open_alerts(url, **labels) for url in urls)


def effect_on(replica: Replica, alertname: str) -> str:
    """Return the effect that a replica shows for an alert; empty without any."""
    [item] = replica.get(f"/api/remediations?alert={alertname}")["items"] or [{}]
    return str(item.get("effect") or "")


def act_on(command: str, job: str, kubeconfig: Path) -> None:
    """Do what a person does about a Job."""
    argv = [sys.executable, "-m", "openfero_gitops", command, job, "--kubeconfig", kubeconfig]
    subprocess.run(argv, check=True, capture_output=True)


def leader_of(pair: tuple[Replica, Replica]) -> Replica:
    """Return the replica that leads."""
    return pair[0] if pair[0].leads else pair[1]


def test_what_waits_for_approval_is_open_until_a_person_decides(
    alertmanagers: list[str], pair: tuple[Replica, Replica], kubeconfig: Path
) -> None:
    """The alert has the labels of the remediated one, a link, and the command to act."""
    fired = alert("Approve", host="db-1", severity="critical", prometheus_replica="p-0")
    _, answer = pair[0].deliver(fired)
    key = f"{answer['items'][0]['namespace']}/{answer['items'][0]['job']}"
    label = {"alertname": "OpenFeroApprovalNeeded", "host": "db-1"}

    for found in eventually(lambda: everywhere(alertmanagers, **label)):
        link = f"https://openfero.example.com/heal/remediations/{key}"
        assert found["labels"] == {
            **label,
            "openfero": "true",
            "operario": "openfero-approve-firing",
            "remediated_alertname": "Approve",
            "severity": "critical",
        }
        assert found["annotations"]["command"] == f"openfero-gitops approve {key}"
        assert found["annotations"]["remediation_url"] == found["generatorURL"] == link
    act_on("refuse", key, kubeconfig)
    eventually(lambda: nowhere(alertmanagers, **label))


def test_a_failure_is_open_until_its_alert_is_resolved(
    alertmanagers: list[str], pair: tuple[Replica, Replica]
) -> None:
    """The alert says why the Job failed."""
    label = {"alertname": "OpenFeroRemediationFailed", "host": "db-2"}
    pair[1].deliver(alert("Fails", host="db-2"))

    def is_explained() -> Any:
        # (The cause is recorded a moment after the Job failed.)
        found = everywhere(alertmanagers, **label)
        return found if "no disk" in str(found) else []

    [found, *_] = eventually(is_explained)
    assert found["annotations"]["command"].startswith("openfero-gitops trace ")
    pair[1].deliver(alert("Fails", "resolved", host="db-2"))
    eventually(lambda: nowhere(alertmanagers, **label))


def test_an_alert_that_fires_again_was_not_healed(
    alertmanagers: list[str], pair: tuple[Replica, Replica]
) -> None:
    """The alert lasts until the one that fired again is resolved."""
    label = {"alertname": "OpenFeroNotHealed", "host": "db-3"}

    def fire(status: str = "firing") -> None:
        now = datetime.now(UTC)
        times = {"startsAt": now.isoformat()}
        if status == "resolved":
            times["endsAt"] = now.isoformat()
        pair[0].deliver(alert("Helps", status, host="db-3") | times)

    fire()
    eventually(lambda: everywhere(alertmanagers, alertname=REMEDIATING, host="db-3"))
    eventually(lambda: pair[0].get("/api/remediations?alert=Helps&phase=Succeeded")["items"])
    assert everywhere(alertmanagers, alertname=REMEDIATING, host="db-3")
    fire("resolved")
    eventually(lambda: nowhere(alertmanagers, alertname=REMEDIATING, host="db-3"))
    fire()
    [found, _] = eventually(lambda: everywhere(alertmanagers, **label))
    assert "fired again" in found["annotations"]["description"]
    fire("resolved")
    eventually(lambda: nowhere(alertmanagers, **label))


def test_what_does_not_help_is_not_started_again(
    alertmanagers: list[str], pair: tuple[Replica, Replica], kubeconfig: Path
) -> None:
    """People are notified of the effect, and of the next Job until a person approves it."""

    def job(phase: str) -> str:
        items = pair[0].get(f"/api/remediations?alert=Useless&phase={phase}")["items"]
        return f"{items[0]['namespace']}/{items[0]['job']}" if items else ""

    def fire(status: str = "firing", **times: str) -> None:
        pair[0].deliver(alert("Useless", status, host="db-4") | times)

    first = datetime.now(UTC).isoformat()
    fire(startsAt=first)
    eventually(lambda: job("Succeeded"))
    label = {"host": "db-4", "operario": "openfero-useless-firing"}

    def is_reported() -> Any:
        fire(startsAt=first)
        return everywhere(alertmanagers, alertname="OpenFeroNotHealed", **label)

    [found, _] = eventually(is_reported)
    assert "still firing" in found["annotations"]["description"]
    resolved = datetime.now(UTC).isoformat()
    fire("resolved", startsAt=first, endsAt=resolved)
    eventually(lambda: nowhere(alertmanagers, alertname="OpenFeroNotHealed", **label))
    fire(startsAt=datetime.now(UTC).isoformat())
    name = {"alertname": "OpenFeroNotHelping"}
    [found, _] = eventually(lambda: everywhere(alertmanagers, **name, **label))
    assert found["annotations"]["command"] == f"openfero-gitops approve {job('Waiting')}"
    act_on("approve", job("Waiting"), kubeconfig)
    eventually(lambda: nowhere(alertmanagers, **name, **label))


def test_an_alertmanager_that_does_not_work_is_named(
    pair: tuple[Replica, Replica], broken: list[str]
) -> None:
    """Deliveries and admission go on, as in the tests before, and the replica stays ready."""
    leader = leader_of(pair)

    def message() -> str:
        [condition] = [
            condition
            for condition in leader.get("/readyz")["conditions"]
            if condition["name"] == "alertmanager"
        ]
        return str(condition["message"])

    absent, silent = (f"{url}: " for url in broken)
    eventually(lambda: f"{absent}Connection refused" in message())
    eventually(lambda: f"{silent}no answer within 5 s" in message())
    assert leader.get("/readyz")["status"] == "degraded"
    metrics = leader.read("/metrics")
    failed = f'requests_total{{alertmanager="{broken[0]}",result="failed"}}'
    assert failed in metrics


def test_alerts_of_our_own_start_no_job(
    kubectl: Kubectl, shared_namespace: str, pair: tuple[Replica, Replica]
) -> None:
    """They were delivered back to the controller, which has operarios for them."""
    counted = 'openfero_gitops_alerts_total{outcome="no-match",reason="own-alert"}'
    eventually(lambda: any(counted in replica.read("/metrics") for replica in pair))
    jobs = kubectl.json("get", "jobs", "-n", shared_namespace)["items"]
    assert jobs
    assert not [job for job in jobs if "openfero" in job["metadata"]["name"]]


def test_what_helped_while_the_page_was_held_back_is_healed(
    people: Inbox, pair: tuple[Replica, Replica]
) -> None:
    """The controller hears that the alert is resolved once nothing mutes that, and nobody else."""
    eventually(lambda: effect_on(pair[1], HELPED["alertname"]) == "healed")
    assert not people.pages(**HELPED)


def test_a_page_is_held_back_while_a_remediation_runs(
    alertmanagers: list[str], people: Inbox, pair: tuple[Replica, Replica]
) -> None:
    """It is sent within a minute of the failure, and of the moment when the controller dies.

    A change of the leader before is not visible. The last test of the file: no replica is left.
    """
    failing = {"alertname": "KubePodNotReady", "namespace": "shop", "pod": "web-1"}
    endless = {"alertname": "KubeHpaMaxedOut", "namespace": "bank"}
    for labels in (failing, endless):
        send(alertmanagers, datetime.now(UTC), **labels, severity="critical")
    sent = time.monotonic()
    running = {"alertname": REMEDIATING, "namespace": "bank"}
    eventually(lambda: everywhere(alertmanagers, **running))
    begun = {found["startsAt"] for found in everywhere(alertmanagers, **running)}

    eventually(
        lambda: everywhere(alertmanagers, alertname="OpenFeroRemediationFailed", pod="web-1")
    )
    [item] = pair[0].get("/api/remediations?alert=KubePodNotReady")["items"]
    finished_at = datetime.fromisoformat(item["finishedAt"])
    failed = time.monotonic() - (datetime.now(UTC) - finished_at).total_seconds()
    [paged] = eventually(lambda: people.pages(**failing))
    spare = WITHIN_SECONDS + GROUP_INTERVAL_SECONDS - EXAMPLE_GROUP_INTERVAL_SECONDS
    assert 0 < paged - failed < spare
    assert paged - sent > 10 + GROUP_INTERVAL_SECONDS
    assert not people.pages(**endless)

    leader = leader_of(pair)
    leader.kill()
    [other] = [replica for replica in pair if replica is not leader]
    eventually(lambda: everywhere(alertmanagers, **running) and other.leads)
    taken = time.monotonic()
    while time.monotonic() < taken + 5:
        assert {found["startsAt"] for found in everywhere(alertmanagers, **running)} == begun
        time.sleep(0.5)
    assert not people.pages(**endless)

    other.process.signal(signal.SIGKILL)
    killed = time.monotonic()
    [paged] = eventually(lambda: people.pages(**endless))
    assert paged - killed < spare
    assert nowhere(alertmanagers, **running)
    latest = datetime.now(UTC) + timedelta(minutes=4)
    for found in everywhere(alertmanagers, openfero="true"):
        assert datetime.fromisoformat(found["endsAt"]) < latest
