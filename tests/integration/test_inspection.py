"""`status`, `trace` and `logs` on a real API server, with the permissions of a user."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import yaml

from openfero_gitops.cli import main
from tests.support.chart import service_account_kubeconfig
from tests.support.kubelet_logs import KubeletLogs, kubelet_logs
from tests.support.paths import ROOT
from tests.support.replica import Replica, operario
from tests.support.repository import Repository
from tests.support.walk import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]

PATIENCE = 300.0
Command = Callable[..., tuple[int, str, str]]


def two_containers(name: str) -> str:
    """Return an operario with an init container, whose Jobs never end."""
    value = json.loads(operario(name, run_for="forever"))
    pod = value["spec"]["template"]["spec"]
    pod["initContainers"] = [{**pod["containers"][0], "name": "prepare"}]
    return json.dumps(value)


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path, shared_namespace: str
) -> Iterator[Replica]:
    """Start a replica; each test has an alert of its own."""
    folder = tmp_path_factory.mktemp("replica")
    repository = Repository(folder / "operarios")
    approval = {"openfero.io/approval": "required"}
    repository.write("risky.json", operario("Risky", annotations=approval))
    repository.write("quick.json", operario("Quick"))
    repository.write("slow.json", operario("Slow", run_for="forever"))
    repository.write("both.json", two_containers("Both"))
    exits = {"exit-code": "3", "message": "no disk"}
    repository.write("failing.json", operario("Failing", fail="true", **exits))
    repository.write("broken.yaml", "kind: Job\nmetadata: {name: openfero-a-firing}\nspec: [\n")
    repository.commit("Operarios")
    with Replica(
        folder,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
    ) as started:
        started.wait_for(lambda: started.leads)
        yield started


@pytest.fixture(scope="module")
def node(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeletLogs]:
    """Serve logs of the node."""
    with kubelet_logs(kubectl, tmp_path_factory.mktemp("kubelet")) as logs:
        yield logs


@pytest.fixture
def kubelet(node: KubeletLogs) -> KubeletLogs:
    """Serve logs of the node, none of which are of other tests."""
    node.clear()
    return node


@pytest.fixture
def command(
    replica: Replica,
    kubeconfig: Path,
    shared_namespace: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """Give a function that runs a command; it returns the exit code, stdout and stderr."""
    assert replica.leads
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)

    def run(*words: str, config: Path = kubeconfig) -> tuple[int, str, str]:
        name, *rest = words
        where = ("--kubeconfig", str(config), "--namespace", shared_namespace)
        code = main([name, *where, *rest])
        return code, *capsys.readouterr()

    return run


def test_status_shows_what_needs_a_person(
    replica: Replica, command: Command, shared_namespace: str
) -> None:
    """Leader, commit, quarantined file, waiting and failed Jobs, and exit code 1."""
    risky = replica.remediate("Risky", "status-1", "AwaitingApproval")
    failing = replica.remediate("Failing", "status-2", "Failed")
    here = ("--jobs-namespace", shared_namespace)
    code, text, _ = command("status", *here)
    assert code == 1
    commit = replica.get("/api/sync")["revision"]["commit"]
    lines = text.splitlines()
    assert lines[0].startswith("Leader     a, since 20")
    assert lines[1].startswith(f"Commit     {commit[:12]}, active for ")
    assert "Operarios  5 active, 1 file quarantined" in lines
    assert any(line.startswith("           broken.yaml: line ") for line in lines)
    assert f"openfero-gitops approve {shared_namespace}/{risky}" in text
    assert f"openfero-gitops trace {shared_namespace}/{failing}" in text
    code, text, _ = command("status", *here, "-o", "json")
    state = json.loads(text)
    assert code == 1
    assert state["revision"]["commit"] == commit
    assert state["quarantined"]["files"][0]["path"] == "broken.yaml"
    by_job = {action["job"]: action["topic"] for action in state["actions"]}
    assert (by_job[risky], by_job[failing]) == ("approval", "failed")
    assert by_job[None] == "quarantined"


def test_the_clock_of_the_user_does_not_matter(
    replica: Replica, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader leads, although its Lease expired long ago by the clock of this machine."""
    assert replica.leads
    ahead = datetime.now(UTC) + timedelta(hours=1)
    began = time.monotonic()
    monkeypatch.setattr(
        "openfero_gitops.commands.connection.now_here",
        lambda: ahead + timedelta(seconds=time.monotonic() - began),
    )
    _, text, errors = command("status")
    assert text.startswith("Leader     a, since 20")
    assert "no replica leads" not in text
    assert errors == ""


def test_status_says_where_no_controller_is(
    command: Command, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another namespace is an error that names the option."""
    assert command("status")[0] == 1
    capsys.readouterr()
    code = main(["status", "--kubeconfig", str(kubeconfig), "--namespace", "kube-system"])
    assert code == 2
    assert capsys.readouterr().err == (
        "openfero-gitops: no controller found in namespace 'kube-system': set --namespace to the "
        "namespace of the controller\n"
    )


def test_without_permission_commands_say_what_is_missing(
    replica: Replica,
    command: Command,
    kubeconfig: Path,
    kubectl: Kubectl,
    shared_namespace: str,
    tmp_path: Path,
) -> None:
    """A user who may only read Jobs can trace, but not see the state of the controller."""
    job = replica.remediate("Quick", "permission", "Succeeded")
    kubectl(
        "create", "role", "jobs-only", "--verb=get,list", "--resource=jobs",
        "-n", shared_namespace,
    )  # fmt: skip
    kubectl(
        "create", "rolebinding", "jobs-only", "--role=jobs-only", "-n", shared_namespace,
        f"--serviceaccount={shared_namespace}:default",
    )  # fmt: skip
    user = service_account_kubeconfig(kubeconfig, shared_namespace, tmp_path, account="default")
    code, text, error = command("status", config=user)
    assert (code, text) == (2, "")
    assert f"no permission to read the controller in namespace '{shared_namespace}'" in error
    code, text, error = command("trace", job, config=user)
    assert (code, error) == (0, "")
    assert "Phase      Succeeded" in text
    code, text, error = command("logs", job, config=user)
    assert (code, text) == (2, "")
    assert f"no permission to read the logs of Job {shared_namespace}/{job}" in error


def granted(kubectl: Kubectl, account: str, namespace: str, *roles: str) -> None:
    """Give a new ServiceAccount roles of the documentation, all in one namespace."""
    page = (ROOT / "docs/how-to/platform/permissions.md").read_text()
    kubectl("create", "serviceaccount", account, "-n", namespace)
    for block in blocks(page):
        if block.language != "yaml":
            continue
        for role in yaml.safe_load_all("\n".join(block.body)):
            if (name := role["metadata"]["name"]) not in roles:
                continue
            role["metadata"] = {"name": f"{account}-{name}"}
            kubectl.create(namespace, role)
            kubectl(
                "create", "rolebinding", f"{account}-{name}", f"--role={account}-{name}",
                f"--serviceaccount={namespace}:{account}", "-n", namespace,
            )  # fmt: skip


def test_the_roles_of_the_documentation_suffice(
    replica: Replica,
    command: Command,
    kubeconfig: Path,
    kubectl: Kubectl,
    kubelet: KubeletLogs,
    shared_namespace: str,
    tmp_path: Path,
) -> None:
    """A viewer sees everything and decides nothing; an approver approves; an operator pauses."""

    def user(account: str, *roles: str) -> Path:
        granted(kubectl, account, shared_namespace, *roles)
        return service_account_kubeconfig(kubeconfig, shared_namespace, tmp_path, account=account)

    kubelet.write("heal", b"hello\n")
    viewer = user("viewer", "openfero-viewer", "openfero-jobs-viewer")
    job = replica.remediate("Quick", "roles-1", "Succeeded")
    waiting = replica.remediate("Risky", "roles-2", "AwaitingApproval")
    code, text, error = command("status", "--jobs-namespace", shared_namespace, config=viewer)
    assert (code, error) == (1, "")
    assert "approval" in text
    # Without the option, the namespaces that the leader has recorded are listed.
    replica.wait_for(lambda: command("status", config=viewer)[::2] == (1, ""))
    _, text, error = command("trace", job, "-o", "json", config=viewer)
    members = json.loads(text)
    assert members["pods"]
    assert members["events"]
    assert "hello" in command("logs", job, config=viewer)[1]
    assert "no permission to patch Jobs" in command("approve", waiting, config=viewer)[2]
    assert "no permission" in command("pause", config=viewer)[2]
    approver = user("approver", "openfero-approver")
    assert command("approve", waiting, config=approver)[0] == 0
    operator = user("operator", "openfero-operator")
    assert command("pause", "--timeout", "120", config=operator)[0] == 0
    assert command("resume", "--timeout", "120", config=operator)[0] == 0
    assert command("sync", config=operator)[0] == 0


def test_trace_shows_a_failure_with_its_pod(
    replica: Replica, command: Command, shared_namespace: str
) -> None:
    """The alert, the commit, the container's exit code and message, and the order of events."""
    job = replica.remediate("Failing", "trace", "Failed")
    replica.wait_for(lambda: "no disk" in replica.remediation(job)["message"])
    code, text, _ = command("trace", f"job.batch/{job}")
    assert code == 0
    shown = replica.remediation(job)
    assert f"git show {shown['commit']}:failing.json" in text
    assert "heal exited with code 3 (Error): no disk" in text
    what = text[text.index("TIME ") :]
    steps = [
        "the alert started firing",
        "received by a: Job created",
        "admitted by a",
        "the Job failed after",
    ]
    assert [what.index(step) for step in steps] == sorted(what.index(step) for step in steps)
    code, text, _ = command("trace", job, "--output", "json")
    members = json.loads(text)
    assert code == 0
    assert members["namespace"] == shared_namespace
    assert members["pods"][0]["containers"][0]["exitCode"] == 3
    assert members["effect"] == "pending"
    assert members["admittedBy"] == "a"
    assert {event["reason"] for event in members["events"]} >= {"Admitted", "SuccessfulCreate"}


def test_trace_says_why_a_job_waits(
    replica: Replica, command: Command, shared_namespace: str
) -> None:
    """As the leader decides; without the controller's records it says which option is missing."""
    running = replica.remediate("Slow", "waiting", "Running")
    waiting = replica.remediate("Quick", "waiting", "Waiting")
    here = ("--controller-namespace", shared_namespace)
    _, text, _ = command("trace", waiting, *here)
    assert f"Phase      Waiting: target-busy: Job {shared_namespace}/{running}" in text
    _, text, _ = command("trace", waiting, *here, "-o", "json")
    assert json.loads(text)["reason"] == "target-busy"
    _, text, _ = command("trace", waiting, "--controller-namespace", "kube-system")
    assert "Phase      Waiting: to see why, set --controller-namespace" in text
    command("cancel", running)
    replica.wait_for(lambda: replica.remediation(waiting)["phase"] == "Succeeded", PATIENCE)


def test_a_reason_is_shown_by_trace(
    replica: Replica, command: Command, shared_namespace: str
) -> None:
    """Who approved and why; the cluster of the test has no policy, so that it is not verified."""
    approved = replica.remediate("Risky", "reason-1", "AwaitingApproval")
    code, text, _ = command("approve", approved, "--reason", " the disk\nis full ", "-o", "json")
    assert code == 0
    taken = json.loads(text)
    assert (taken["action"], taken["reason"]) == ("approved", "the disk is full")
    replica.wait_for(lambda: replica.remediation(approved)["phase"] == "Succeeded", PATIENCE)
    _, text, _ = command("trace", approved, "--controller-namespace", shared_namespace)
    name = taken["by"]
    assert (
        f"Approval   by {name} (name not verified: no admission policy checks it): the disk is full"
        in text
    )
    assert replica.remediation(approved)["approvalReason"] == "the disk is full"
    refused = replica.remediate("Risky", "reason-2", "AwaitingApproval")
    _, text, _ = command("refuse", refused, "--reason", "I do it by hand")
    assert text == f"Job {shared_namespace}/{refused} refused by {name}: I do it by hand\n"
    _, text, _ = command("trace", refused)
    assert f"Phase      Refused: refused-by-human: refused by {name}: I do it by hand" in text


def test_trace_of_a_job_that_does_not_exist(
    command: Command, kubectl: Kubectl, shared_namespace: str
) -> None:
    """A missing Job and one of somebody else are each reported on one line."""
    assert "not found" in command("trace", "nothing")[2]
    kubectl("create", "job", "theirs", "--image=registry.k8s.io/pause:3.10", "-n", shared_namespace)
    for name in ("trace", "logs"):
        code, text, error = command(name, "theirs")
        assert (code, text) == (2, "")
        assert error.endswith("is not managed by openfero-gitops\n")


def test_logs_are_those_of_all_containers(
    replica: Replica, command: Command, kubelet: KubeletLogs
) -> None:
    """With several containers each line has the name of its own; --container selects one."""
    job = replica.remediate("Both", "logs", "Running")
    kubelet.write("prepare", b"ready\n")
    kubelet.write("heal", b"one\n", b"two \xff\n", b"no line break")
    replica.wait_for(lambda: "container" in command("trace", job)[1], PATIENCE)
    code, text, error = command("logs", job)
    assert (code, error) == (0, "")
    assert text.splitlines() == [
        "[prepare] ready",
        "[heal] one",
        "[heal] two \ufffd",
        "[heal] no line break",
    ]
    assert command("logs", job, "--container", "heal")[1].splitlines()[0] == "one"
    code, text, error = command("logs", job, "-c", "other")
    assert (code, text) == (2, "")
    assert "has no container 'other'; it has prepare, heal" in error


def test_logs_can_be_followed_from_before_the_start(
    replica: Replica,
    command: Command,
    kubelet: KubeletLogs,
    kubeconfig: Path,
    shared_namespace: str,
) -> None:
    """--follow waits for the approval and the Pod, and ends with the container."""
    job = replica.remediate("Risky", "follow", "AwaitingApproval")
    code, text, error = command("logs", job)
    assert (code, text) == (2, "")
    assert "it has not started, its phase is AwaitingApproval; --follow waits for it" in error

    def approve_and_write() -> None:
        main(["approve", *words, job])
        replica.wait_for(lambda: kubelet.requests, PATIENCE)
        kubelet.write("heal", b"begun\n")
        kubelet.write("heal", b"done\n")
        kubelet.ended.set()

    words = ("--kubeconfig", str(kubeconfig), "--namespace", shared_namespace)
    thread = threading.Thread(target=approve_and_write)
    thread.start()
    code, text, _ = command("logs", "--follow", job)
    thread.join()
    assert code == 0
    assert text.splitlines()[-2:] == ["begun", "done"]


def test_logs_of_deleted_pods_are_gone(
    replica: Replica,
    command: Command,
    kubectl: Kubectl,
    shared_namespace: str,
) -> None:
    """The message says that they are gone, and what can still be seen."""
    job = replica.remediate("Quick", "deleted", "Succeeded")
    selector = f"batch.kubernetes.io/job-name={job}"
    kubectl("delete", "pods", "-l", selector, "-n", shared_namespace, "--wait=true")
    code, text, error = command("logs", job)
    assert (code, text) == (2, "")
    assert f"the Pods of Job {shared_namespace}/{job} were deleted, and their logs" in error
    assert "Pods       deleted" in command("trace", job)[1]
