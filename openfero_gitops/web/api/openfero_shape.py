"""The model of OpenFero's `/api/jobs`, which its clients read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.api.shape import OMITTED, Moment, Shape, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation

_RunStatus = Literal["Pending", "Running", "Successful", "Failed"]

#: OpenFero's status of a started Job, by phase.
_STATUS: Final[dict[Phase, _RunStatus]] = {
    Phase.SUCCEEDED: "Successful",
    Phase.FAILED: "Failed",
    Phase.CANCELLED: "Failed",
    Phase.QUEUED: "Pending",
    Phase.HELD: "Pending",
}


UNKNOWN_IMAGE: Final = "unknown"


class OpenferoJobShape(Shape):
    """An operario, as OpenFero lists it. What is said of its last run is left out without one."""

    config_map_name: Text
    """Name of the operario."""
    job_name: Text
    """Name of the alert that it answers."""
    namespace: Text
    image: Text
    """The image of the first container, or `unknown`."""
    execution_count: int
    """Jobs that started and still exist."""
    last_execution_time: Annotated[Moment | None, OMITTED] = None
    last_executed_job_name: Annotated[Text | None, OMITTED] = None
    status: Annotated[_RunStatus | None, OMITTED] = None
    started_at: Annotated[Moment | None, OMITTED] = None
    completed_at: Annotated[Moment | None, OMITTED] = None


def first_image(value: Operario) -> str:
    """Return the image of an operario's first container, or what OpenFero says if there is none."""
    containers = value.job.get("spec", {}).get("template", {}).get("spec", {}).get("containers")
    return containers[0].get("image", UNKNOWN_IMAGE) if containers else UNKNOWN_IMAGE


def openfero_job_shape(
    value: Operario, namespace: str, runs: Sequence[Remediation]
) -> OpenferoJobShape:
    """Convert an operario to an item of OpenFero's `/api/jobs`; `runs` are its started Jobs.

    The count covers Jobs that still exist, while OpenFero counts since the definition was created.
    """
    last = runs[-1] if runs else None
    return OpenferoJobShape(
        config_map_name=value.name,
        job_name=value.alertname,
        namespace=namespace,
        image=first_image(value),
        execution_count=len(runs),
        last_execution_time=(last.started_at or last.received_at) if last else None,
        last_executed_job_name=last.key.name if last else None,
        status=_STATUS.get(last.phase, "Running") if last else None,
        started_at=last.started_at if last else None,
        completed_at=last.finished_at if last else None,
    )
