"""A replica of the controller as a real process, and deliveries to it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from tests.support.chart import controller_kubeconfig
from tests.support.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Until an answer; a busy machine may be slow, and nothing here is about speed.
PATIENCE_SECONDS = 60
#: Nothing but the API server limits how fast Jobs are admitted: `openfero.yaml`, and options.
UNLIMITED_ENVELOPE = "limits: {concurrent: 100000, perMinute: 100000}\n"
UNLIMITED = {
    "openfero.io/max-concurrent": "100000",
    "openfero.io/max-per-hour": "1000000",
}
ROOT_ENVIRONMENT = {"PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE"}


class Replica:
    """`openfero-gitops serve` on a loopback port, with a short lease.

    As a context manager it starts, waits until it is ready, and is handed over at the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        kubeconfig: Path,
        namespace: str,
        repository: str,
        ready: bool = True,
        development: bool = True,
        roles: bool = True,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "openfero_gitops"),
        **flags: str,
    ) -> None:
        """Choose its port and flags.

        `ready` waits for its readiness, not only for its port; `development` turns Python's
        warnings into errors, at a price in speed; `environment` is set besides this process's own.
        `roles` creates the Roles of the chart and runs it with them alone; the kubeconfig is an
        administrator's then. Else it has the rights of the kubeconfig.
        `program` are the arguments of Python before the controller's.
        """
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if roles:
            jobs = [
                flags.get("jobs_namespace", namespace),
                *flags.get("allowed_namespace", "").split(),
            ]
            kubeconfig = controller_kubeconfig(kubeconfig, namespace, folder, jobs_namespaces=jobs)
        given = {
            "repo": repository,
            "kubeconfig": str(kubeconfig),
            "namespace": namespace,
            "interval": "1s",
            "listen": f"127.0.0.1:{self.port}",
            "identity": name,
            "cache-dir": str(folder / f"cache-{name}"),
            "lease-duration": "6s",
            "renew-deadline": "4s",
            "retry-period": "500ms",
            "log-format": "json",
            "shutdown-delay": "0",
            **{flag.replace("_", "-"): value for flag, value in flags.items()},
        }
        # A forgotten await or an open file of the process under test is an error, too.
        strict = ("-X", "dev", "-W", "error") if development else ()
        argv = [sys.executable, *strict, *program, "serve"]
        for flag, value in given.items():
            argv += [f"--{flag}", value]
        self.process = Process(
            argv,
            log=folder / f"{name}.log",
            url=self.url + ("/readyz" if ready else "/livez"),
            env={
                **{k: v for k, v in os.environ.items() if k in ROOT_ENVIRONMENT},
                "MALLOC_ARENA_MAX": "2",  # these two as in the image
                "MALLOC_MMAP_THRESHOLD_": "131072",
                **(environment or {}),
            },
            patience=180,
        )

    def __enter__(self) -> Self:
        """Start it."""
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the replica."""
        self.process.end()

    def kill(self) -> None:
        """Crash it."""
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def get(self, path: str) -> Any:
        """Return a JSON response of the replica."""
        return json.loads(self.read(path))

    def read(self, path: str) -> str:
        """Return a response of the replica as text."""
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE_SECONDS) as answer:
            return str(answer.read().decode())

    def deliver(
        self, *alerts: Mapping[str, Any], token: str = "", **members: Any
    ) -> tuple[int, Any]:
        """POST a delivery; the HTTP status and the answer."""
        body = json.dumps(group(*alerts, **members)).encode()
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + "/alerts", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def wait_for(self, look: Callable[[], Any], patience: float = 180.0) -> Any:
        """Return the first truthy answer."""
        deadline = time.monotonic() + patience
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: still {seen!r} after {patience} s")
            time.sleep(0.1)
        return seen

    def remediation(self, job: str) -> dict[str, Any]:
        """Return one remediation as the API shows it; with an empty phase if it is not listed."""
        items = self.get("/api/remediations")["items"]
        absent = {"phase": "", "reason": "", "message": ""}
        return next((item for item in items if item["job"] == job), absent)

    def remediate(self, name: str, host: str, phase: str) -> str:
        """Deliver an alert, wait until its Job reaches a phase, and return the Job's name."""
        status, answer = self.deliver(alert(name, host=host))
        assert status == 200
        job: str = answer["items"][0]["job"]
        self.wait_for(lambda: self.remediation(job)["phase"] == phase, 300)
        return job

    @property
    def leads(self) -> bool:
        """Whether the replica reports that it is the leader."""
        return bool(self.get("/api/about")["leading"])


def alert(name: str, status: str = "firing", **labels: str) -> dict[str, Any]:
    """An alert that began at a fixed moment; override members with `|`."""
    return {
        "status": status,
        "labels": {"alertname": name, **labels},
        "annotations": {},
        "startsAt": "2026-11-21T03:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else "2026-11-21T03:10:00Z",
        "generatorURL": "",
        "fingerprint": "0123456789abcdef",
    }


def group(*alerts: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """Return a delivery of alerts as Alertmanager would send it."""
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "openfero",
        "alerts": list(alerts),
        **members,
    }


def groups(alerts: Sequence[Mapping[str, Any]], size: int, **members: Any) -> list[dict[str, Any]]:
    """Return deliveries of at most `size` alerts each."""
    return [
        group(*alerts[start : start + size], **members) for start in range(0, len(alerts), size)
    ]


def operario(
    alertname: str,
    *,
    status: str = "firing",
    annotations: Mapping[str, str] | None = None,
    **pod: str,
) -> str:
    """A small operario as YAML (JSON is YAML); `pod` are annotations for kwok's stages."""
    return json.dumps(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": f"openfero-{alertname.lower()}-{status}",
                "annotations": {
                    "openfero.io/alertname": alertname,
                    "openfero.io/status": status,
                    **(annotations or {}),
                },
            },
            "spec": {
                "template": {
                    "metadata": {
                        "annotations": {
                            f"kwok.openfero.io/{key.replace('_', '-')}": value
                            for key, value in pod.items()
                        }
                    },
                    "spec": {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": False,
                        "containers": [
                            {
                                "name": "heal",
                                "image": "registry.k8s.io/pause:3.10",
                                "command": ["/heal", "$(OPENFERO_STATUS)"],
                                "resources": {
                                    "requests": {"cpu": "10m", "memory": "16Mi"},
                                    "limits": {"cpu": "100m", "memory": "64Mi"},
                                },
                            }
                        ],
                    },
                }
            },
        },
        indent=2,
    )
