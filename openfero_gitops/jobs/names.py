"""Names and label values that Kubernetes accepts, from text that it may not accept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.memo import cache_short_texts
from openfero_gitops.domain.remediation import JobKey

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import Occurrence
    from openfero_gitops.domain.operario import Operario

_SLUG_CHARACTERS: Final = 35
_DIGEST_CHARACTERS: Final = 16
_LABEL_CHARACTERS: Final = 63
_LABEL: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?")


def job_key(occurrence: Occurrence, operario: Operario, jobs_namespace: str) -> JobKey:
    """Return the place of an occurrence's Job."""
    return JobKey(operario.namespace or jobs_namespace, job_name(occurrence))


def job_name(occurrence: Occurrence) -> str:
    """Return the name of an occurrence's Job: equal on every replica, at most 52 characters.

    It does not depend on the operario: replicas that have different commits must collide, so that
    only one of them creates a Job.
    """
    status = occurrence.status.value
    alert = _slug(occurrence.labels.get("alertname", ""))[: _SLUG_CHARACTERS - 1 - len(status)]
    return f"{alert.strip('-') or 'alert'}-{status}-{occurrence.digest[:_DIGEST_CHARACTERS]}"


def label_value(text: str) -> str:
    """Return the text if it is a valid label value, else the text with invalid parts replaced."""
    if len(text) <= _LABEL_CHARACTERS and _LABEL.fullmatch(text):
        return text
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_LABEL_CHARACTERS].strip("._-")


# Alerts have few names.
@cache_short_texts(max_entries=1024, max_characters=256)
def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
