"""Names the recorded sample of alerts without a Job in an address, and writes it as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from openfero_gitops.delivery.unanswered import most_recent
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.text import without_surrogates
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.web.alert_groups import time_of

if TYPE_CHECKING:
    from openfero_gitops.delivery.unanswered import AlertKind, Sample, UnansweredRecord


def sample_name(kind: AlertKind) -> str:
    """Name the sample of a kind: `ALERTNAME/STATUS/REASON`, without what an address cannot have."""
    return without_surrogates("/".join(kind))


def find_sample(record: UnansweredRecord, name: str) -> tuple[AlertKind, Sample] | None:
    """Find a sample by its name, of which the reason may be left out; the last one heard wins."""
    for kind, unanswered in most_recent(record):
        whole = sample_name(kind)
        # (The name of an alert may have slashes; a reason has none.)
        if name in (whole, whole.rpartition("/")[0]):
            return kind, unanswered.sample
    return None


def explain_reason(kind: AlertKind, sample: Sample) -> str:
    """Say why alerts of a kind have no Job."""
    reason = next((reason.text for reason in Reason if reason.value == kind.reason), kind.reason)
    return sample.message or reason


def write_sample(kind: AlertKind, sample: Sample) -> str:
    """Write a sample as an alert in JSON, as Alertmanager sends it."""
    start = time_of(sample.start)
    alert = {
        "status": kind.status or "firing",
        "labels": dict(sample.labels),
        "annotations": dict(sample.annotations),
        **({"startsAt": format_time(start)} if start else {}),
    }
    return json.dumps(alert, indent=2, ensure_ascii=False)
