"""Names and label values that Kubernetes accepts, made from whatever text an alert brings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import Occurrence

_SLUG_LENGTH: Final = 35
_DIGEST_LENGTH: Final = 16
_LABEL_LENGTH: Final = 63
_LABEL: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?")


def job_name(occurrence: Occurrence) -> str:
    """The one name that every replica gives to an occurrence's Job; at most 52 characters.

    The operario is not part of it: replicas that have reached different commits must collide.
    """
    status = occurrence.status.value
    alert = _slug(occurrence.labels.get("alertname", ""))[: _SLUG_LENGTH - 1 - len(status)]
    return f"{alert.strip('-') or 'alert'}-{status}-{occurrence.digest[:_DIGEST_LENGTH]}"


def label_value(text: str) -> str:
    """The text itself where it is a valid label value, else the nearest one."""
    if len(text) <= _LABEL_LENGTH and _LABEL.fullmatch(text):
        return text
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_LABEL_LENGTH].strip("._-")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
