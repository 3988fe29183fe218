"""When an annotation of a Job was written last, as the API server recorded it.

The API server keeps in `metadata.managedFields` which client wrote which fields, and when that
client last wrote (Kubernetes documentation, "Server-Side Apply", field management). The controller
and the commands are different clients there, so the time of an approval stays when the controller
writes to the Job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


def annotation_written_at(job: Mapping[str, Any], key: str) -> datetime | None:
    """Return when the client that wrote an annotation last wrote to the Job; None if unknown.

    It is the time of the annotation, unless the same client wrote something else later.
    """
    entries = job["metadata"].get("managedFields")
    for entry in entries if isinstance(entries, list) else ():
        try:
            owned = entry["fieldsV1"]["f:metadata"]["f:annotations"]
            if f"f:{key}" in owned:
                return parse_time(entry["time"])
        except (KeyError, TypeError):
            continue  # of a client that wrote no annotation
    return None
