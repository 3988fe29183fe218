"""A Job whose Pod cannot start says why, while it runs and after its end, on a real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

NOWHERE = {"nodeSelector": {"openfero.io/no-such-node": "true"}}
IMAGE_MESSAGE = 'Back-off pulling image "registry.example.com/heal:1": not found'
SECRET_MESSAGE = 'secret "token" not found'
MOUNT_NOTE = 'MountVolume.SetUp failed for volume "tls": secret "tls" not found'


def with_pod(name: str, **pod: Any) -> str:
    """Return an operario whose Pod has these fields."""
    job = json.loads(operario(name))
    job["spec"]["template"]["spec"].update(pod)
    return json.dumps(job)


def waiting(kubectl: Kubectl, namespace: str, job: str, reason: str, message: str) -> None:
    """Write the status that a kubelet writes for a container that waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    container = {
        "name": "heal",
        "image": "i",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    patch = json.dumps({"status": {"containerStatuses": [container]}})
    kubectl(
        *("patch", "pod", pod_of(kubectl, namespace, job), "-n", namespace),
        *("--subresource=status", "--type=merge", f"--patch={patch}"),
    )


def pod_of(kubectl: Kubectl, namespace: str, job: str) -> str:
    """Return the name of the Job's Pod; empty if it has none yet."""
    selector = f"batch.kubernetes.io/job-name={job}"
    pods = kubectl.json("get", "pods", "-n", namespace, "-l", selector)["items"]
    return str(pods[0]["metadata"]["name"]) if pods else ""


def test_a_pod_that_cannot_start_says_why(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """An image, a Secret, a volume, a node or an account that is missing is the Job's message.

    It is an Event of the Job, too, and is kept when the Job exceeds its deadline and its Pod is
    gone. It disappears when the container starts.
    """
    repository = Repository(tmp_path / "operarios")
    # No kubelet has these Pods, so that the test writes what one would.
    repository.write("image.json", with_pod("NoImage", **NOWHERE))
    repository.write("secret.json", with_pod("NoSecret", **NOWHERE))
    repository.write("volume.json", with_pod("NoVolume", schedulerName="no-such-scheduler"))
    repository.write("node.json", with_pod("NoNode", **NOWHERE))
    repository.write("account.json", with_pod("NoAccount", serviceAccountName="no-such-account"))
    repository.commit("Operarios")
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=kubeconfig,
        namespace=namespace,
        repository=repository.url,
    ) as replica:
        names = ["NoImage", "NoSecret", "NoVolume", "NoNode", "NoAccount"]
        status, answer = replica.deliver(*(alert(name, host=name) for name in names))
        assert status == 200
        image, secret, volume, node, account = (item["job"] for item in answer["items"])
        for job in (image, secret, volume, node):
            replica.wait_for(lambda job=job: pod_of(kubectl, namespace, job))
        waiting(kubectl, namespace, image, "ImagePullBackOff", IMAGE_MESSAGE)
        waiting(kubectl, namespace, secret, "CreateContainerConfigError", SECRET_MESSAGE)
        mount_event(kubectl, namespace, pod_of(kubectl, namespace, volume))

        def shows(job: str, reason: str, message: str) -> Callable[[], bool]:
            def shown() -> bool:
                remediation = replica.remediation(job)
                return (
                    remediation["phase"] == "Running"
                    and remediation["reason"] == reason
                    and message in remediation["message"]
                )

            return shown

        for job, reason, message in (
            (image, "ImagePullBackOff", IMAGE_MESSAGE),
            (secret, "CreateContainerConfigError", SECRET_MESSAGE),
            (volume, "FailedMount", MOUNT_NOTE),
            (node, "Unschedulable", "node"),
            (account, "FailedCreate", "no-such-account"),
        ):
            replica.wait_for(shows(job, reason, message))
        replica.wait_for(
            lambda: any(
                event["reason"] == "PodWaiting" and IMAGE_MESSAGE in event["note"]
                for event in kubectl.json(
                    *("get", "events.events.k8s.io", "-n", namespace),
                    *("--field-selector", f"regarding.name={image}"),
                )["items"]
            )
        )

        running = json.dumps(
            {
                "status": {
                    "phase": "Running",
                    "containerStatuses": [
                        {
                            "name": "heal",
                            "image": "i",
                            "imageID": "",
                            "ready": True,
                            "restartCount": 0,
                            "state": {"running": {"startedAt": "2026-11-21T03:00:00Z"}},
                        }
                    ],
                }
            }
        )
        kubectl(
            *("patch", "pod", pod_of(kubectl, namespace, secret), "-n", namespace),
            *("--subresource=status", "--type=merge", f"--patch={running}"),
        )
        replica.wait_for(lambda: not replica.remediation(secret)["reason"])

        exceeded = json.dumps({"spec": {"activeDeadlineSeconds": 1}})
        kubectl("patch", "job", image, "-n", namespace, "--type=merge", f"--patch={exceeded}")
        replica.wait_for(lambda: replica.remediation(image)["phase"] == "Failed")
        replica.wait_for(lambda: IMAGE_MESSAGE in replica.remediation(image)["message"])
        assert replica.remediation(image)["reason"] == "DeadlineExceeded"
        kubectl("delete", "pods", "--all", "-n", namespace, "--force", "--grace-period=0")


def mount_event(kubectl: Kubectl, namespace: str, pod: str) -> None:
    """Create the Event of a kubelet that cannot mount a volume."""
    uid = kubectl.json("get", "pod", pod, "-n", namespace)["metadata"]["uid"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{pod}.mount", "namespace": namespace},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": uid},
        "reason": "FailedMount",
        "message": MOUNT_NOTE,
        "type": "Warning",
        "source": {"component": "kubelet"},
        "firstTimestamp": "2026-11-21T03:00:00Z",
        "lastTimestamp": "2026-11-21T03:05:00Z",
        "count": 3,
    }
    kubectl("create", "-f", "-", stdin=json.dumps(event))
