"""The models of a replica: its version and namespaces, the leader, and a pause of admission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.web.api.shape import Moment, Shape, Text

if TYPE_CHECKING:
    from openfero_gitops.domain.health import About
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause


class PauseShape(Shape):
    """Why no Job starts."""

    cause: PauseCause
    by: Text | None
    """Who paused admission, or what."""
    since: Moment | None
    until: Moment | None
    """When it ends by itself."""
    reason: Text | None
    """The reason that was given."""
    message: Text
    """The cause in words, and how to resume."""


class AboutShape(Shape):
    """This replica, and the leader. OpenFero's clients read version, commit and buildDate."""

    name: Text
    version: Text
    commit: Text
    """The commit that the controller was built from, or `unknown`."""
    build_date: Text
    """When the controller was built, or `unknown`."""
    identity: Text
    """Name of this replica."""
    namespace: Text
    """Namespace of the controller."""
    jobs_namespace: Text
    """Namespace of Jobs whose operario names none."""
    allowed_namespaces: list[Text]
    """Namespaces that Jobs may have."""
    cluster: Text
    leading: bool
    """Whether this replica leads."""
    leader: Text | None
    """Name of the replica that leads."""
    term: Text | None
    """This replica's term, if it leads."""
    pause: PauseShape | None
    """The pause of admission; null if there is none."""


def about_shape(value: About, leadership: Leadership, pause: Pause | None) -> AboutShape:
    """Convert version, name and namespaces of a replica, and which replica leads."""
    return AboutShape(
        name="openfero-gitops",
        version=value.version,
        commit=value.commit or "unknown",
        build_date=value.build_date or "unknown",
        identity=value.identity,
        namespace=value.namespace,
        jobs_namespace=value.jobs_namespace,
        allowed_namespaces=list(value.allowed_namespaces),
        cluster=value.cluster,
        leading=leadership.leader,
        leader=leadership.holder or None,
        term=leadership.term or None,
        pause=pause_shape(pause),
    )


def pause_shape(value: Pause | None) -> PauseShape | None:
    """Convert a pause of admission; None if there is none."""
    if value is None:
        return None
    return PauseShape(
        cause=value.cause,
        by=value.by or None,
        since=value.since,
        until=value.until,
        reason=value.reason or None,
        message=value.message,
    )
