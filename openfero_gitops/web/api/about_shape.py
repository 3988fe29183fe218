"""The models of a replica: its version and namespaces, the leader, and a pause of admission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.domain.setting import SettingOrigin
from openfero_gitops.web.api.shape import Moment, Shape, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.domain.health import About
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.replica import ReplicaReport


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


class ReplicaShape(Shape):
    """A replica, as it last reported itself."""

    replica: Text
    version: Text
    commit: Text | None
    """Its active commit; null if it has no catalog."""
    started_at: Moment
    at: Moment
    """When it reported; it does every five minutes."""


class SettingShape(Shape):
    """A setting of this replica."""

    flag: Text
    variable: Text
    """The environment variable that sets it, too."""
    value: Text | None
    """Its value, which is no secret; null if it has none."""
    origin: SettingOrigin
    """Where the value comes from."""


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
    replicas: list[ReplicaShape]
    """All replicas that reported themselves in the last hour."""
    settings: list[SettingShape]
    """The settings of this replica."""


def about_shape(
    value: About,
    leadership: Leadership,
    pause: Pause | None,
    replicas: Iterable[ReplicaReport] = (),
) -> AboutShape:
    """Convert what a replica is, its settings, which replicas there are, and which leads."""
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
        replicas=[
            ReplicaShape(
                replica=report.replica,
                version=report.version,
                commit=report.commit or None,
                started_at=report.started_at,
                at=report.at,
            )
            for report in replicas
        ],
        settings=[
            SettingShape(
                flag=setting.flag,
                variable=setting.variable,
                value=setting.value or None,
                origin=setting.origin,
            )
            for setting in value.settings
        ],
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
