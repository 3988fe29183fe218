from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from openfero_gitops.domain import keys
from openfero_gitops.jobs.managed_fields import annotation_written_at


def written(manager: str, time: str, *annotations: str) -> dict[str, Any]:
    """Return what the API server records of a client that wrote annotations."""
    owned = {f"f:{key}": {} for key in annotations}
    fields = {"f:metadata": {"f:annotations": owned}}
    return {"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields}


def job(*entries: Any) -> dict[str, Any]:
    """Return a Job with managed fields."""
    return {"metadata": {"name": "a", "managedFields": list(entries)}}


def test_the_time_is_that_of_the_client_that_wrote_the_annotation() -> None:
    """Not that of another client, which may have written later."""
    approval = written("openfero-gitops-cli", "2026-12-01T03:04:05Z", keys.APPROVED_BY)
    admission = written("openfero-gitops", "2026-12-01T03:04:09Z", keys.ADMITTED_AT)
    status = {"manager": "kube-controller-manager", "time": "2026-12-01T03:04:10Z"}
    found = annotation_written_at(job(admission, status, approval), keys.APPROVED_BY)
    assert found == datetime(2026, 12, 1, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "managed",
    [
        None,
        "text",
        [],
        [None, 7, "text", {}],
        [{"fieldsV1": None, "time": "2026-12-01T03:04:05Z"}],
        [{"fieldsV1": {"f:metadata": []}}],
        [written("other", "2026-12-01T03:04:05Z", keys.ADMITTED_AT)],
        [written("cli", "yesterday", keys.APPROVED_BY)],
    ],
)
def test_what_was_not_recorded_is_not_known(managed: Any) -> None:
    """Also if somebody removed or damaged the record."""
    damaged = {"metadata": {"name": "a", "managedFields": managed}}
    assert annotation_written_at(damaged, keys.APPROVED_BY) is None
