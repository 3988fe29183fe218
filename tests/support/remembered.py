"""Jobs of the last day, written straight into etcd: tens of thousands within seconds.

They are as the API server returns Jobs that were admitted, ran and succeeded an hour or more ago.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from openfero_gitops.domain import keys
from openfero_gitops.domain.timestamp import format_seconds, format_time
from tests.support.build import alert, delivery, operario, rendered, stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from openfero_gitops.domain.operario import Operario
    from tests.cluster.controlplane import ControlPlane

_DAY_SECONDS: Final = 86_400
_FIRST_SECONDS: Final = 3_600
#: Operations of a transaction of etcd, at most.
_AT_ONCE: Final = 128
_OPERARIOS: Final = 100


def remembered_jobs(count: int, namespace: str, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield finished Jobs of a hundred operarios and as many targets, of the day before `now`."""
    operarios = [_operario(number) for number in range(min(count, _OPERARIOS))]
    for number in range(count):
        age_seconds = _FIRST_SECONDS + number * (_DAY_SECONDS - 2 * _FIRST_SECONDS) // count
        yield _job(number, operarios[number % len(operarios)], namespace, age_seconds, now)


def _operario(number: int) -> Operario:
    return operario(f"openfero-remembered{number}-firing", alertname=f"Remembered{number}")


def _job(
    number: int, by: Operario, namespace: str, age_seconds: float, now: datetime
) -> dict[str, Any]:
    received = now - timedelta(seconds=age_seconds)
    labels = {
        "alertname": by.alertname,
        "namespace": "shop",
        "pod": f"web-{number}",
        "severity": "critical",
        "cluster": "eu-1",
    }
    fired = alert(labels=labels, starts_at=received - timedelta(seconds=30))
    manifest = rendered(fired, by, delivered=delivery(id=f"{number:032x}", received_at=received))
    ended = format_seconds(received + timedelta(seconds=20))
    complete = {"status": "True", "lastProbeTime": ended, "lastTransitionTime": ended}
    return stored(
        manifest.manifest,
        metadata={
            "namespace": namespace,
            "uid": str(UUID(int=number + 1)),
            "creationTimestamp": format_seconds(received),
            "resourceVersion": str(number + 1),
        },
        annotations={
            keys.TERM: "replica-a/1#1",
            keys.ADMITTED_AT: format_time(received),
            keys.ADMITTED_BY: "replica-a",
            keys.EFFECT: "unknown",
            keys.EFFECT_AT: format_time(received),
            keys.EFFECT_MESSAGE: "the alert was neither resolved nor delivered again",
        },
        spec={"suspend": False},
        status={
            "succeeded": 1,
            "startTime": format_seconds(received),
            "completionTime": ended,
            "conditions": [
                {"type": "SuccessCriteriaMet", **complete},
                {"type": "Complete", **complete},
            ],
        },
    )


def write_to_etcd(plane: ControlPlane, jobs: Iterable[dict[str, Any]]) -> None:
    """Store Jobs as if the API server had; it notices at once, and adds the defaults itself."""
    operations: list[dict[str, Any]] = []
    for job in jobs:
        metadata = {name: of for name, of in job["metadata"].items() if name != "resourceVersion"}
        key = f"/registry/jobs/{metadata['namespace']}/{metadata['name']}"
        value = json.dumps({**job, "metadata": metadata})
        operations.append({"requestPut": {"key": _base64(key), "value": _base64(value)}})
        if len(operations) == _AT_ONCE:
            _commit(plane, operations)
            operations = []
    if operations:
        _commit(plane, operations)


def _commit(plane: ControlPlane, operations: list[dict[str, Any]]) -> None:
    body = json.dumps({"success": operations}).encode()
    request = urllib.request.Request(f"{plane.etcd_url}/v3/kv/txn", body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["succeeded"]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
