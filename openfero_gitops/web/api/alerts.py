"""Serves `/api/alerts`: the alerts that came, in the shape that OpenFero's client reads.

OpenFero lists the last alerts, each with the Job that it created. Here an item is a remediation,
or all alerts of one name, status and reason that got no Job, with the last of them as the alert.
OpenFero's members are `alert`, `status`, `timestamp` and `jobInfo`; the others are added.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from openfero_gitops.delivery.unanswered import most_recent
from openfero_gitops.domain.alert import Status
from openfero_gitops.web.alert_groups import time_of
from openfero_gitops.web.api.openfero_shape import UNKNOWN_IMAGE, first_image
from openfero_gitops.web.api.operation import Tag
from openfero_gitops.web.api.paging import take_page
from openfero_gitops.web.api.parameters import PagingQuery, PathParameters
from openfero_gitops.web.api.remediations import arrival
from openfero_gitops.web.api.route import AnyRoute, Call, Route
from openfero_gitops.web.api.shape import OMITTED, Moment, PlainPage, Shape, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from openfero_gitops.delivery.unanswered import AlertKind, Unanswered
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.ports import ReplicaState


class AlertQuery(PagingQuery):
    """What to search, and how much to list."""

    q: str = ""
    """Only alerts with this text, whatever its case, in the value of a label or annotation, in the
    status, the reason, or the name, operario or image of the Job."""


class AlertShape(Shape):
    """An alert."""

    labels: dict[Text, Text]
    annotations: dict[Text, Text]
    starts_at: Annotated[Moment | None, OMITTED] = None
    ends_at: Annotated[Moment | None, OMITTED] = None


class AlertJobShape(Shape):
    """The Job of an alert; `configMapName` is the name of the operario.

    `image` is that of the operario's first container in the active catalog, or `unknown`.
    """

    config_map_name: Text
    job_name: Text
    namespace: Text
    image: Text
    phase: Text
    effect: Annotated[Text | None, OMITTED] = None


class AlertEntryShape(Shape):
    """A remediation, or the alerts of one name, status and reason that got no Job."""

    alert: AlertShape
    status: Literal["firing", "resolved"]
    """An alert that cannot be read counts as firing."""
    timestamp: Moment
    """When it was last heard; of a remediation, when its Job was created."""
    job_info: Annotated[AlertJobShape | None, OMITTED] = None
    count: int
    """Alerts that this item stands for: those of the last 24 hours."""
    count_is_minimum: bool
    """Whether there were more, which are not recorded."""
    first_heard_at: Moment
    last_heard_at: Moment
    outcome: Text | None
    """Why there is no Job: `no-match`, `invalid` or `error`; null if there is one."""
    reason: Text | None
    message: Text | None


@dataclass(frozen=True, slots=True)
class _Entry:
    position: str  # unique, and newer ones sort after older ones
    texts: Callable[[], Iterable[str]]
    shape: Callable[[], AlertEntryShape]


def routes(state: ReplicaState, now: Callable[[], datetime]) -> list[AnyRoute]:
    """Return `/api/alerts`."""

    def build(call: Call[PathParameters, AlertQuery]) -> PlainPage[AlertEntryShape]:
        catalog = state.catalog()
        images = {o.name: first_image(o) for o in catalog.operarios} if catalog else {}
        entries = [
            _of_job(job, images.get(job.operario, UNKNOWN_IMAGE)) for job in state.remediations()
        ]
        moment = now()
        entries += [
            _of_kind(kind, alerts, moment) for kind, alerts in most_recent(state.unanswered())
        ]
        if wanted := call.query.q.casefold():
            entries = [
                entry
                for entry in entries
                if any(wanted in text.casefold() for text in entry.texts())
            ]
        page, following = take_page(entries, lambda entry: entry.position, call, descending=True)
        return PlainPage((entry.shape() for entry in page), following)

    return [
        Route(
            "/api/alerts",
            "List alerts, newest first",
            Tag.OPENFERO,
            list[AlertEntryShape],
            build,
            query=AlertQuery,
            description=(
                "Alerts with a Job, and for 24 hours those without one. OpenFero's client reads "
                "`alert`, `status`, `timestamp` and `jobInfo`. The header Link has the next page."
            ),
        )
    ]


def _of_job(job: Remediation, image: str) -> _Entry:
    def texts() -> Iterable[str]:
        yield from job.labels.values()
        yield from (job.alertname, job.status, job.reason, job.operario, job.key.name, image)

    def shape() -> AlertEntryShape:
        return AlertEntryShape(
            alert=AlertShape(
                labels=dict(job.labels),
                annotations={},
                starts_at=job.starts_at,
                ends_at=job.resolved_at,
            ),
            status=job.status.value,
            timestamp=job.received_at,
            job_info=AlertJobShape(
                config_map_name=job.operario,
                job_name=job.key.name,
                namespace=job.key.namespace,
                image=image,
                phase=job.phase.value,
                effect=job.effect.value if job.effect else None,
            ),
            count=1,
            count_is_minimum=False,
            first_heard_at=job.received_at,
            last_heard_at=max(job.received_at, job.delivered_at),
            outcome=None,
            reason=job.reason or None,
            message=job.message or None,
        )

    return _Entry(arrival(job), texts, shape)


def _of_kind(kind: AlertKind, alerts: Unanswered, now: datetime) -> _Entry:
    sample = alerts.sample
    last = time_of(alerts.last) or now
    status: Literal["firing", "resolved"] = (
        "resolved" if kind.status == Status.RESOLVED else "firing"
    )

    def texts() -> Iterable[str]:
        yield from kind
        yield from (*sample.labels.values(), *sample.annotations.values())

    def shape() -> AlertEntryShape:
        return AlertEntryShape(
            alert=AlertShape(
                labels=dict(sample.labels),
                annotations=dict(sample.annotations),
                starts_at=time_of(sample.start),
                ends_at=time_of(sample.end),
            ),
            status=status,
            timestamp=last,
            count=len(alerts.occurrences),
            count_is_minimum=not alerts.is_complete(now),
            first_heard_at=time_of(alerts.first) or last,
            last_heard_at=last,
            outcome=sample.outcome,
            reason=kind.reason or None,
            message=sample.message or None,
        )

    # (A name can be long, and no valid Unicode.)
    digest = hashlib.blake2b(repr(kind).encode(), digest_size=8).hexdigest()
    return _Entry(f"{last.isoformat(timespec='microseconds')} {digest}", texts, shape)
