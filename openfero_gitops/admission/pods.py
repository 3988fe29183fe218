"""Records on a running Job why its Pod does not start.

Only the leader does. A Job whose Pods are ready is never looked at: the Job's status has their
number. Of the others a few are, again and again at growing intervals, so that ordinary Jobs cost no
request.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.waiting import has_started, is_pending, wait_of_events, wait_of_pod

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.jobs.waiting import PodWait
    from openfero_gitops.ports import Jobs, RunningTerm

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 5.0
#: A container usually runs so long after its Job was started.
_PATIENCE: Final = timedelta(seconds=10)
_FIRST_INTERVAL: Final = timedelta(seconds=10)
_MAX_INTERVAL: Final = timedelta(minutes=1)
#: Jobs that are looked at in one pass.
_MAX_JOBS: Final = 10


class PodStarts:
    """Looks at the Pods of Jobs that run without a ready one."""

    def __init__(self, *, jobs: Jobs, view: View, now: Callable[[], datetime]) -> None:
        """Take the dependencies; nothing is started."""
        self._jobs = jobs
        self._view = view
        self._now = now
        # When a Job is looked at next, and how long after the last time, by uid.
        self._next: dict[str, tuple[datetime, timedelta]] = {}
        self._forbidden = OnChange(_log.warning, "cannot find out why Pods do not start")

    async def run(self, term: RunningTerm) -> None:
        """Work until cancelled."""
        changes = -1
        running: list[Remediation] = []
        while True:
            now = self._now()
            if changes != self._view.changes:
                changes = self._view.changes
                running = [job for job in self._view if job.phase is Phase.RUNNING]
            jobs = {job.uid: job for job in running if may_wait(job, now)}
            self._next = {uid: due for uid, due in self._next.items() if uid in jobs}
            due = [job for uid, job in jobs.items() if uid not in self._next]
            due += [jobs[uid] for uid, (at, _) in self._next.items() if at <= now]
            for job in due[:_MAX_JOBS]:
                _, before = self._next.get(job.uid, (now, _FIRST_INTERVAL / 2))
                interval = min(before * 2, _MAX_INTERVAL)
                self._next[job.uid] = (now + interval, interval)
                await self._look_at(job, term)
            await asyncio.sleep(_POLL_SECONDS)

    async def _look_at(self, job: Remediation, term: RunningTerm) -> None:
        """Record why the Pod of a Job waits, or that it does not wait any more."""
        try:
            if job.pods_ready:
                wait, known = None, True
            else:
                wait, known = await self._find(job)
            if wait is not None and wait.replaces(job.pod_waiting):
                patch = patches.record_pod_waiting(job, str(wait))
            elif wait is None and known and job.pod_waiting:
                patch = patches.clear_pod_waiting(job)
            else:
                return
            term.check()
            self._view.apply(observe(await self._jobs.patch(job.key, patch)))
        except NotFound:
            self._view.remove(job.key, job.uid)
        except Invalid:
            pass  # it has just changed, and is looked at again
        except Forbidden as error:
            self._forbidden.set(str(error))
        except ApiError as error:
            _log.info("cannot read why a Pod does not start", job=str(job.key), error=str(error))
        else:
            if wait is not None:
                _log.warning("a Pod waits", job=str(job.key), reason=str(wait))

    async def _find(self, job: Remediation) -> tuple[PodWait | None, bool]:
        """Return why a Pod of the Job waits; and whether its Pods are known not to wait."""
        pods = sorted(
            filter(is_pending, await self._jobs.pods(job.key)),
            key=lambda pod: str(pod["metadata"].get("creationTimestamp")),
        )
        for pod in pods:
            if (wait := wait_of_pod(pod)) is not None:
                return wait, True
        if any(map(has_started, pods)):
            return None, True
        # Of these nothing but Events says why: a volume that cannot be mounted, a Pod that was
        # refused by a quota or lacks its ServiceAccount.
        about, uid = (
            (f"Pod {pods[0]['metadata']['name']}", pods[0]["metadata"].get("uid", ""))
            if pods
            else ("the Job has no Pod", job.uid)
        )
        events = await self._jobs.events(job.key.namespace, uid)
        return wait_of_events(about, events), False


def may_wait(job: Remediation, now: datetime) -> bool:
    """Whether a Pod of the Job may wait: then it is looked at."""
    if job.phase is not Phase.RUNNING or job.deleting:
        return False
    if job.pods_ready:
        return bool(job.pod_waiting)
    return job.started_at is not None and now - job.started_at >= _PATIENCE
