"""Notices what changes in a replica, and publishes it as events.

Jobs announce their changes; everything else is read once a second, which is cheaper than a listener
for each. Changes that follow each other closely become one event. While nobody follows the events,
nothing is observed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from openfero_gitops.background import wait_for_event
from openfero_gitops.web.stream.changes import Observation, list_changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.delivery.unanswered import UnansweredRecord
    from openfero_gitops.domain.effect import Effect
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.changes import JobChanges
    from openfero_gitops.web.ports import ReplicaState
    from openfero_gitops.web.stream.models import EventBody

#: Between two observations while nothing is announced.
_OBSERVE_SECONDS: Final = 1.0
#: Between two observations while Jobs change.
_MIN_INTERVAL_SECONDS: Final = 0.5


class ObservedJobs(Protocol):
    """The remediations of all Jobs."""

    def record_changes(self) -> JobChanges:
        """Record which of them change from now on."""
        ...

    def end_record(self, record: JobChanges) -> None:
        """Record no changes any more."""
        ...

    def subscribe(self) -> asyncio.Event:
        """Return an event that is set at every change; the subscriber clears it."""
        ...

    def unsubscribe(self, event: asyncio.Event) -> None:
        """End a subscription."""
        ...


class EventPublisher:
    """Publishes what changes in a replica."""

    def __init__(
        self,
        *,
        jobs: ObservedJobs,
        state: ReplicaState,
        alerts: Callable[[], UnansweredRecord | None],
        publish: Callable[[list[EventBody]], None],
        is_followed: Callable[[], bool],
        interval_seconds: float = _MIN_INTERVAL_SECONDS,
    ) -> None:
        """Observe the Jobs, the state and the alerts without a Job, once it is started.

        `alerts` returns None as long as they have not been read.
        """
        self._jobs = jobs
        self._state = state
        self._alerts = alerts
        self._publish = publish
        self._is_followed = is_followed
        self._interval_seconds = interval_seconds
        self._started = asyncio.Event()
        self._job_changes: JobChanges | None = None
        self._last = Observation()

    def start(self) -> None:
        """Publish what changes from now on, as long as events are followed."""
        self._stop()
        self._job_changes = self._jobs.record_changes()
        self._last = self._observe()
        self._started.set()

    def _stop(self) -> None:
        if self._job_changes is not None:
            self._jobs.end_record(self._job_changes)
            self._job_changes = None

    async def run(self) -> None:
        """Publish changes until cancelled."""
        changed = self._jobs.subscribe()
        try:
            while True:
                if not self._is_followed():
                    self._stop()
                    self._started.clear()
                    await self._started.wait()
                announced = await wait_for_event(changed, _OBSERVE_SECONDS)
                changed.clear()
                self.publish_changes()
                if announced:
                    await asyncio.sleep(self._interval_seconds)
        finally:
            self._jobs.unsubscribe(changed)

    def publish_changes(self) -> None:
        """Publish what has changed since the last time."""
        if self._job_changes is None:
            return
        before, self._last = self._last, self._observe()
        jobs = self._job_changes.take()
        if changes := list_changes(before, self._last, jobs, self._effect):
            self._publish(changes)

    def _observe(self) -> Observation:
        return Observation(
            sync=self._state.sync(),
            leadership=self._state.leadership(),
            pause=self._state.pause(),
            conditions=self._state.conditions(),
            alerts=self._alerts(),
        )

    def _effect(self, remediation: Remediation) -> Effect | None:
        assessment = self._state.effect(remediation)
        return assessment.effect if assessment else None
