from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import controlplane
from tests.cluster.controlplane import ControlPlane, ControlPlaneError, command_of
from tests.support.cluster import require_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

ONLY_API_SERVER = ("etcd", "kube-apiserver")
RUNS = "jsonpath={.status.ready}=1"


def job(name: str, *, suspend: bool = False, **played: str) -> dict[str, Any]:
    """Return a Job; `played` are kwok's annotations (stages.yaml), with `_` for `-`."""
    annotations = {f"kwok.openfero.io/{key.replace('_', '-')}": played[key] for key in played}
    container = {"name": "main", "image": "example.org/none:1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "suspend": suspend,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    }


def pods_of(kubectl: Kubectl, namespace: str, name: str) -> list[dict[str, Any]]:
    """Return the Pods of a Job."""
    selector = f"batch.kubernetes.io/job-name={name}"
    items: list[dict[str, Any]] = kubectl.json("get", "pods", "-n", namespace, "-l", selector)[
        "items"
    ]
    return items


@pytest.fixture
def namespace(shared_namespace: str) -> str:
    """Give the namespace that the tests share; each has Jobs of its own."""
    return shared_namespace


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Start an API server to be broken; each test repairs what it breaks."""
    return private_control_plane(components=ONLY_API_SERVER)


@pytest.mark.usefixtures("kwok")
class TestPlayedPods:
    """Test the Pod simulation of kwok with tests/cluster/stages.yaml."""

    def test_unsuspended_job_completes(self, kubectl: Kubectl, namespace: str) -> None:
        """A suspended Job has no Pod, and completes after it is unsuspended."""
        kubectl.create(namespace, job("waiting", suspend=True))
        kubectl.wait(namespace, "job/waiting", "condition=Suspended")
        assert pods_of(kubectl, namespace, "waiting") == []
        kubectl("patch", "job", "waiting", "-n", namespace, "-p", '{"spec": {"suspend": false}}')
        kubectl.wait(namespace, "job/waiting", "condition=Complete")
        [pod] = pods_of(kubectl, namespace, "waiting")
        assert pod["status"]["phase"] == "Succeeded"

    def test_failing_job_fails_with_exit_code_and_message(
        self, kubectl: Kubectl, namespace: str
    ) -> None:
        """A Pod configured to fail has the configured exit code and message; its Job fails."""
        message = 'disk "a": {full}'
        kubectl.create(namespace, job("failing", fail="true", exit_code="3", message=message))
        kubectl.wait(namespace, "job/failing", "condition=Failed")
        [pod] = pods_of(kubectl, namespace, "failing")
        ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["message"]) == (3, message)

    def test_job_runs_forever(self, kubectl: Kubectl, namespace: str) -> None:
        """A Pod configured to run forever outlives a later one that runs for 3 s."""
        kubectl.create(namespace, job("forever", run_for="forever"))
        kubectl.wait(namespace, "job/forever", RUNS)
        kubectl.create(namespace, job("short", run_for="3s"))
        kubectl.wait(namespace, "job/short", "condition=Complete")
        status = kubectl.json("get", "job", "forever", "-n", namespace)["status"]
        assert (status["active"], status.get("conditions")) == (1, None)

    def test_running_job_past_its_deadline_fails(self, kubectl: Kubectl, namespace: str) -> None:
        """Setting a deadline of 0 on a running Job makes its Pod and then the Job fail."""
        kubectl.create(namespace, job("late", run_for="forever", stop_for="1s"))
        kubectl.wait(namespace, "job/late", RUNS)
        patch = '{"spec": {"activeDeadlineSeconds": 0}}'
        kubectl("patch", "job", "late", "-n", namespace, "-p", patch)
        kubectl.wait(namespace, "job/late", "condition=FailureTarget")
        kubectl.wait(namespace, "job/late", "condition=Failed")
        failed = kubectl.json("get", "job", "late", "-n", namespace)["status"]["conditions"]
        assert {each["reason"] for each in failed} == {"DeadlineExceeded"}

    def test_suspending_a_running_job_ends_its_pod(self, kubectl: Kubectl, namespace: str) -> None:
        """The Pod of a running Job that is suspended is terminated, then deleted."""
        kubectl.create(namespace, job("suspended", run_for="forever", stop_for="4s"))
        kubectl.wait(namespace, "job/suspended", RUNS)
        kubectl("patch", "job", "suspended", "-n", namespace, "-p", '{"spec": {"suspend": true}}')
        kubectl.wait(namespace, "job/suspended", "jsonpath={.status.terminating}=1")
        [pod] = pods_of(kubectl, namespace, "suspended")
        kubectl.wait(namespace, f"pod/{pod['metadata']['name']}", "delete")
        kubectl.wait(namespace, "job/suspended", "jsonpath={.status.terminating}=0")


class TestFaults:
    """Test faults of control planes."""

    @pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
    def test_restarted_api_server_keeps_data(
        self, plane: ControlPlane, sent: signal.Signals
    ) -> None:
        """An API server that was stopped or crashed restarts at its address with its data."""
        path = "/apis/batch/v1/namespaces/default/jobs"
        name = sent.name.lower()
        assert plane.request("POST", path, job(name, suspend=True))[0] == 201
        url = plane.url
        plane.stop_component("kube-apiserver", sent)
        assert plane.status() == {"etcd": "runs", "kube-apiserver": "down"}
        with pytest.raises(ConnectionRefusedError):
            plane.request("GET", path)
        plane.start_component("kube-apiserver")
        code, restored = plane.request("GET", f"{path}/{name}")
        assert (plane.url, code, restored["metadata"]["name"]) == (url, 200, name)

    def test_frozen_api_server_is_silent_until_thawed(self, plane: ControlPlane) -> None:
        """A frozen API server does not respond, and resumes when it is thawed."""
        plane.freeze("kube-apiserver")
        assert plane.status() == {"etcd": "runs", "kube-apiserver": "frozen"}
        with pytest.raises(TimeoutError):
            plane.request("GET", "/readyz", patience=0.5)
        plane.thaw("kube-apiserver")
        assert plane.request("GET", "/readyz") == (200, "ok")

    def test_component_that_cannot_start_is_reported(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """A component that exits at once is reported with the end of its log; no other is left."""
        require_binaries(request.config)
        flags = {"kube-apiserver": ["--authorization-mode=Oracle"]}
        plane = ControlPlane(tmp_path / "plane", components=ONLY_API_SERVER, flags=flags)
        with pytest.raises(ControlPlaneError, match=r"Oracle.* is not a valid mode"):
            plane.start()
        assert plane.status() == {"etcd": "down", "kube-apiserver": "down"}

    def test_control_plane_ends_with_the_process_that_started_it(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """Components do not outlive a killed parent process."""
        require_binaries(request.config)
        program = (
            "import sys, time; from tests.cluster.controlplane import ControlPlane;"
            "ControlPlane(sys.argv[1], components=['etcd']).start(); print('up', flush=True);"
            "time.sleep(60)"
        )
        directory = tmp_path / "plane"
        command = [sys.executable, "-c", program, str(directory)]
        root = Path(controlplane.__file__).parents[2]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"up\n"
            etcd = json.loads((directory / "pids.json").read_text())["processes"]["etcd"]
            assert command_of(etcd["pid"]) == etcd["argv"]
            owner.kill()
        deadline = time.monotonic() + 60
        while command_of(etcd["pid"]) == etcd["argv"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


class TestCommand:
    """Test `make cluster` and `make cluster-down`."""

    @pytest.fixture
    def run(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> Iterator[Callable[[str], tuple[int, str]]]:
        """Return a function that runs a command and returns its exit code and output."""
        require_binaries(request.config)
        directory = tmp_path / ".cluster"

        def run(command: str) -> tuple[int, str]:
            argv = [sys.executable, controlplane.__file__, *command.split(), f"--dir={directory}"]
            done = subprocess.run(
                argv,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
            return done.returncode, done.stdout

        yield run
        run("down")

    def test_up_and_down_can_be_repeated(
        self, run: Callable[[str], tuple[int, str]], tmp_path: Path
    ) -> None:
        """`up` keeps a healthy control plane or repairs a broken one; `down` removes all."""
        kubeconfig = tmp_path / ".cluster" / "kubeconfig"
        code, output = run("up --no-kwok")
        assert (code, f"KUBECONFIG={kubeconfig} " in output) == (0, True), output
        assert kubeconfig.stat().st_mode & 0o777 == 0o600
        assert run("status")[0] == 0
        code, output = run("up --no-kwok")
        assert (code, "it runs already" in output) == (0, True), output

        plane = ControlPlane(kubeconfig.parent)
        api_server = json.loads((kubeconfig.parent / "pids.json").read_text())["processes"]
        plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": "kept"}})
        os.kill(api_server["kube-apiserver"]["pid"], signal.SIGKILL)
        code, output = run("status")
        assert (code, "kube-apiserver           down" in output) == (1, True), output
        code, output = run("up --no-kwok")
        assert (code, "kube-apiserver (down)" in output) == (0, True), output
        assert ControlPlane(kubeconfig.parent).request("GET", "/api/v1/namespaces/kept")[0] == 200

        code, output = run("down")
        assert (code, "kube-apiserver" in output) == (0, True), output
        assert not kubeconfig.parent.exists()
        assert run("status")[0] == 1
        code, output = run("down")
        assert (code, "nothing runs" in output) == (0, True), output

    def test_foreign_folder_is_not_touched(
        self, run: Callable[[str], tuple[int, str]], tmp_path: Path
    ) -> None:
        """Neither `up` nor `down` touches a folder that was not created by a control plane."""
        precious = tmp_path / ".cluster" / "data" / "precious"
        precious.mkdir(parents=True)
        code, output = run("up")
        assert (code, "holds something else" in output) == (2, True), output
        assert run("down")[0] == 0
        assert precious.is_dir()
