"""What an API server has about the sample remediations of `pages`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.audit.verify import Proof, Verification
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError, NotFound
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import canonical_json
from openfero_gitops.domain.timestamp import format_seconds
from openfero_gitops.jobs.compare import FieldDifference
from openfero_gitops.web.evidence import EvidenceReader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from datetime import datetime

    from openfero_gitops.domain.remediation import JobKey, Remediation
    from tests.support.pages import Showcase

    Object = dict[str, Any]

_POD_PHASES: Final = {Phase.FAILED: "Failed"}
SCRIPT_LINES = 'set -eu\npod=$OPENFERO_POD\nkubectl -n shop delete pod "$pod"\n'


@dataclass
class SampleReader:
    """A `JobReader` of sample objects; `failure` is raised by every method, `log_failure` by logs.

    `text` surrounds what a person or a program outside wrote.
    """

    shown: Showcase
    text: str = ""
    log_text: str = 'checking pod cart-0\npod "cart-0" deleted\nwaiting for the new Pod …\nready\n'
    failure: ApiError | None = None
    log_failure: ApiError | None = None
    container: str = "heal"
    verification: Verification = field(default_factory=lambda: Verification(Proof.VERIFIED))

    async def manifest(self, key: JobKey) -> Object:
        """Return a Job."""
        return self._job(self._find(key))

    async def pods(self, key: JobKey) -> list[Object]:
        """Return a Pod if the Job has started, and one of somebody else."""
        remediation = self._find(key)
        if not remediation.started_at:
            return []
        own = self._pod(remediation, remediation.uid)
        return [
            own,
            {**own, "metadata": {**own["metadata"], "name": "other", "ownerReferences": []}},
        ]

    async def events(self, namespace: str, uid: str) -> list[Object]:
        """Return Events about the Job."""
        self._fail()
        remediation = next((r for r in self.shown.jobs if r.uid == uid), None)
        if remediation is None:
            return []
        at = remediation.received_at + timedelta(seconds=1)
        about = {"kind": "Job", "name": remediation.key.name, "namespace": namespace}
        by = remediation.approved_by
        approved = [_event(about, at, "Approved", f"approved by {by}", ours=True)] if by else []
        return [
            *approved,
            _event(about, at, "Waiting", f"target-busy: another Job runs{self.text}", ours=True),
            _event(about, at + timedelta(seconds=2), "SuccessfulCreate", f"Created pod{self.text}"),
        ]

    async def log(
        self, namespace: str, pod: str, container: str, **options: Any
    ) -> AsyncGenerator[bytes]:
        """Yield the log in two pieces."""
        del namespace, pod, container
        self._fail()
        if self.log_failure:
            raise self.log_failure
        content = self.log_text.encode()
        lines = content.splitlines(keepends=True)[-options["tail_lines"] :]
        content = b"".join(lines)[: options.get("limit_bytes")]
        yield content[: len(content) // 2]
        yield content[len(content) // 2 :]

    async def verify(self, job: Mapping[str, Any]) -> Verification:
        """Return the verification that was set."""
        del job
        return self.verification

    def _fail(self) -> None:
        if self.failure:
            raise self.failure

    def _find(self, key: JobKey) -> Remediation:
        self._fail()
        remediation = self.shown.remediation(key)
        if remediation is None:
            raise NotFound(f'jobs.batch "{key.name}" not found')
        return remediation

    def _job(self, remediation: Remediation) -> Object:
        text = self.text
        alert = {
            "status": remediation.status.value,
            "labels": dict(remediation.labels),
            "annotations": {
                "summary": f"Pod crashes again and again{text}",
                "description": f"Pod shop/cart-0 restarted 5 times within 10 minutes.{text}",
                "runbook_url": f"https://runbooks.example.com/alerts/{remediation.alertname}{text}",
                "dashboard": f"javascript:alert(1){text}",
                **({text: text} if text else {}),
            },
            "generatorURL": "https://prometheus.example.com/graph?g0.expr=rate%28x%5B5m%5D%29+%3E+0",
            "fingerprint": remediation.fingerprint,
        }
        annotations = {
            keys.ALERT: canonical_json(alert),
            keys.COMMIT: remediation.commit,
            keys.COMMIT_AUTHOR: f"Ada Lovelace <ada@example.com>{text}",
            keys.COMMIT_TIME: "2026-11-19T16:20:11+01:00",
            keys.PATH: remediation.path,
            keys.RECEIVED_BY: f"openfero-gitops-7d9c5b-x2x4p{text}",
            keys.REPOSITORY: remediation.repository,
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": remediation.key.name,
                "namespace": remediation.key.namespace,
                "uid": remediation.uid,
                "resourceVersion": "1",
                "annotations": annotations,
                "labels": {keys.MANAGED_BY: keys.MANAGER},
                "managedFields": [{"manager": "openfero-gitops"}],
            },
            "spec": {
                "suspend": remediation.suspended,
                "backoffLimit": 0,
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "serviceAccountName": "operario-crash",
                        "containers": [
                            {
                                "name": self.container,
                                "image": "registry.example.com/kubectl:1.36@sha256:" + "0" * 64,
                                "command": ["sh", "-c", SCRIPT_LINES + text],
                                "env": [{"name": "OPENFERO_POD", "value": f"cart-0{text}"}],
                            }
                        ],
                    }
                },
            },
        }

    def _pod(self, remediation: Remediation, uid: str) -> Object:
        state: Object = {"running": {"startedAt": _seconds(remediation.started_at)}}
        if remediation.finished_at:
            failed = remediation.phase == "Failed"
            state = {
                "terminated": {
                    "exitCode": 1 if failed else 0,
                    "reason": "Error" if failed else "Completed",
                    "message": f"Error from server (Forbidden){self.text}" if failed else "",
                    "startedAt": _seconds(remediation.started_at),
                    "finishedAt": _seconds(remediation.finished_at),
                }
            }
        return {
            "metadata": {
                "name": f"{remediation.key.name}-x7k2p",
                "namespace": remediation.key.namespace,
                "uid": f"pod-{uid}",
                "creationTimestamp": _seconds(remediation.started_at),
                "ownerReferences": [{"kind": "Job", "uid": uid}],
            },
            "status": {
                "phase": _POD_PHASES.get(remediation.phase, "Succeeded")
                if remediation.finished_at
                else "Running",
                "containerStatuses": [{"name": self.container, "state": state}],
            },
        }


def sample(shown: Showcase, **changes: Any) -> EvidenceReader:
    """Return a reader of sample evidence."""
    reader = SampleReader(shown, **changes)
    return EvidenceReader(reader, reader.verify)


def different() -> Verification:
    """Return a verification with a difference, and a change that anybody may make."""
    image = ("spec", "template", "spec", "containers", 0, "image")
    return Verification(
        Proof.DIFFERS,
        "1 field differs from crash/firing.yaml at commit 4f1c9a2e7b5d",
        (FieldDifference(image, "registry.example.com/kubectl:1.36", "evil.example/x"),),
        (FieldDifference(("spec", "parallelism"), None, 2),),
    )


def _seconds(moment: datetime | None) -> str | None:
    return format_seconds(moment) if moment else None


def _event(about: Object, at: datetime, reason: str, note: str, *, ours: bool = False) -> Object:
    return {
        "metadata": {"creationTimestamp": format_seconds(at)},
        "eventTime": format_seconds(at),
        "regarding": about,
        "reason": reason,
        "note": note,
        "type": "Normal",
        "reportingController": "openfero.io/openfero-gitops" if ours else "job-controller",
    }
