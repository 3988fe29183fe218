"""Simulates Jobs: does what the Job controller, the kubelet and the garbage collector would do.

It makes one write at a time, as the real ones do, so that a watch shows every intermediate state.
A Job is processed again when it or one of its Pods has changed, and when its next deadline has
come; what to do follows from the objects alone. The clock is a parameter: in a test, hours can
pass at once.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import JOBS, PODS
from openfero_gitops.demo.cluster import pods
from openfero_gitops.demo.cluster.player import FOREVER, PodOutcome
from openfero_gitops.demo.cluster.store import copied

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.demo.cluster.player import JobPlayer
    from openfero_gitops.demo.cluster.store import Store, Write

_TERMINATED: Final = 143  # exit code: 128 + SIGTERM
_MAX_RETRY_SECONDS: Final = 600.0  # as in the Job controller


class JobController:
    """Processes every Job of a store; `step` is one step of it.

    A Job is not processed while it is being deleted, nor if `spec.managedBy` names another
    controller. The Pods of an Indexed Job have no index.
    """

    def __init__(self, store: Store, player: JobPlayer, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._player = player
        self._clock = clock
        self._changed: dict[tuple[str, str], None] = {}  # Jobs by namespace and name, in order
        self._alarms: list[tuple[datetime, tuple[str, str]]] = []  # a heap of times and Jobs
        self._scheduled: set[tuple[datetime, tuple[str, str]]] = set()  # the same as a set
        self._pods: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._since: dict[tuple[str, str], datetime] = {}  # when an event of a uid happened
        store.subscribe(self._on_write)

    @property
    def due(self) -> datetime | None:
        """When the next step is due; None: after the next write."""
        if self._changed:
            return self._clock()
        return self._alarms[0][0] if self._alarms else None

    def step(self) -> bool:
        """Process one Job that has changed or is due; False if there is none."""
        now = self._clock()
        while self._alarms and self._alarms[0][0] <= now:
            alarm = heapq.heappop(self._alarms)
            self._scheduled.discard(alarm)
            self._changed[alarm[1]] = None
        if not self._changed:
            return False
        key = next(iter(self._changed))
        del self._changed[key]
        self._process(key, now)
        return True

    def _on_write(self, write: Write) -> None:
        item = write.after or write.before or {}
        metadata = item["metadata"]
        if write.resource == JOBS:
            self._changed[write.namespace, metadata["name"]] = None
            if write.after is None:
                self._since.pop((metadata["uid"], "failed"), None)
        elif write.resource == PODS and (owner := pods.owner_of(item)) is not None:
            key = write.namespace, owner["name"]
            self._changed[key] = None
            if write.after is not None:
                self._pods[key].add(metadata["name"])
                return
            self._pods[key].discard(metadata["name"])
            for event in ("started", "stopping"):
                self._since.pop((metadata["uid"], event), None)

    def _process(self, key: tuple[str, str], now: datetime) -> None:
        namespace, name = key
        job = self._store.get(JOBS, namespace, name)
        for pod_name in sorted(self._pods[key]):
            pod = self._store.get(PODS, namespace, pod_name)
            if pod is not None and self._advance_pod(pod, job, now):
                return  # this write puts the Job into self._changed again
        if job is None:
            if not self._pods[key]:
                del self._pods[key]
            return
        manager = job["spec"].get("managedBy") or "kubernetes.io/job-controller"
        if manager == "kubernetes.io/job-controller" and not job["metadata"].get(
            "deletionTimestamp"
        ):
            self._advance_job(job, now)

    # Pods

    def _advance_pod(self, pod: Object, job: Object | None, now: datetime) -> bool:
        """Act as the kubelet and the garbage collector; True if there was something to do."""
        owner, phase = pods.owner_of(pod), pod["status"]["phase"]
        deleting = bool(pod["metadata"].get("deletionTimestamp"))
        if job is None or owner is None or owner["uid"] != job["metadata"]["uid"]:
            if not deleting or pods.TRACKED in pods.finalizers(pod):
                self._put(pods.deleted(pods.counted(pod), now))
                return True
        elif phase == "Pending" and not deleting:
            self._put(pods.started(pod, now))
            return True
        elif phase == "Running" and not deleting:
            if self._has_passed(pod, "started", self._player.run_for(pod), now):
                self._put(pods.ended(pod, self._player.outcome(job), now))
                return True
            return False
        return deleting and self._stop(pod, now)

    def _stop(self, pod: Object, now: datetime) -> bool:
        if pod["status"]["phase"] not in pods.ENDED:
            if not self._has_passed(pod, "stopping", self._player.stop_for(pod), now):
                return False
            self._put(pods.ended(pod, PodOutcome(_TERMINATED), now))
        elif pods.finalizers(pod):
            return False  # the Job controller must count it first
        else:
            self._store.drop(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        return True

    def _has_passed(self, pod: Object, event: str, seconds: float, now: datetime) -> bool:
        """Whether this time has passed since an event; if not, process the Job again then."""
        since = self._since.setdefault((pod["metadata"]["uid"], event), now)
        if seconds == FOREVER:
            return False
        key = pod["metadata"]["namespace"], (pods.owner_of(pod) or {})["name"]
        return self._is_due(key, since + timedelta(seconds=seconds), now)

    def _is_due(self, key: tuple[str, str], moment: datetime, now: datetime) -> bool:
        """Whether a time has come; if not, process the Job again then."""
        if moment <= now:
            return True
        if (moment, key) not in self._scheduled:
            self._scheduled.add((moment, key))
            heapq.heappush(self._alarms, (moment, key))
        return False

    def _put(self, pod: Object) -> None:
        self._store.put(PODS, pod["metadata"]["namespace"], pod)

    # Jobs

    def _advance_job(self, job: Object, now: datetime) -> None:
        """Advance a Job by one step; its write causes the next one."""
        ended = finished_at(job)
        if ended is not None:
            self._expire(job, ended, now)
            return
        status = copied(job.get("status") or {})
        self._count(job, status, now)
        self._decide(job, status, now)
        self._write_status(job, status)

    def _decide(self, job: Object, status: Object, now: datetime) -> None:
        own = self._pods_of(job)
        if ending := _condition(status, "FailureTarget", "SuccessCriteriaMet"):
            self._conclude(ending, status, own, now)
        elif job["spec"]["suspend"]:
            self._suspend(status, own, now)
        elif failure := self._failure(job, status, now):
            _set(status, "FailureTarget", *failure, now)
        elif status.get("succeeded", 0) >= _completions(job):
            condition = ("CompletionsReached", "Reached expected number of succeeded pods")
            _set(status, "SuccessCriteriaMet", *condition, now)
        else:
            self._create_pods(job, status, own, now)

    def _pods_of(self, job: Object) -> list[Object]:
        metadata = job["metadata"]
        key = _key(job)
        named = (self._store.get(PODS, key[0], name) for name in sorted(self._pods[key]))
        existing = [pod for pod in named if pod is not None]
        return [pod for pod in existing if (pods.owner_of(pod) or {})["uid"] == metadata["uid"]]

    def _count(self, job: Object, status: Object, now: datetime) -> None:
        """Count each Pod that has ended, once: its finalizer says that it was not counted yet."""
        replaced_at_once = job["spec"].get("podReplacementPolicy") == "TerminatingOrFailed"
        for pod in self._pods_of(job):
            phase = pod["status"]["phase"]
            ended = phase in pods.ENDED or (replaced_at_once and pods.is_stopping(pod))
            if not ended or pods.TRACKED not in pods.finalizers(pod):
                continue
            kind = "succeeded" if phase == "Succeeded" else "failed"
            status[kind] = status.get(kind, 0) + 1
            if kind == "failed":
                self._since[job["metadata"]["uid"], "failed"] = now
            self._put(pods.counted(pod))

    def _suspend(self, status: Object, own: list[Object], now: datetime) -> None:
        for pod in filter(pods.is_active, own):
            self._put(pods.deleted(pods.counted(pod), now))
        status.pop("startTime", None)
        _set(status, "Suspended", "JobSuspended", "Job suspended", now)

    def _create_pods(self, job: Object, status: Object, own: list[Object], now: datetime) -> None:
        """Create the missing Pods, and schedule the deadline."""
        if _condition(status, "Suspended"):
            _set(status, "Suspended", "JobResumed", "Job resumed", now, holds=False)
        started = _moment(status.setdefault("startTime", pods.format_seconds(now)))
        limit = job["spec"].get("activeDeadlineSeconds")
        if limit is not None:
            self._is_due(_key(job), started + timedelta(seconds=limit), now)
        for _ in range(self._missing_pods(job, status, own, now)):
            self._put(pods.new_pod(job, now))

    def _failure(self, job: Object, status: Object, now: datetime) -> tuple[str, str] | None:
        spec = job["spec"]
        if status.get("failed", 0) > spec["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        started, limit = status.get("startTime"), spec.get("activeDeadlineSeconds")
        if started and limit is not None and _moment(started) + timedelta(seconds=limit) <= now:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        return None

    def _missing_pods(self, job: Object, status: Object, own: list[Object], now: datetime) -> int:
        """Return how many Pods to create now."""
        spec, failures = job["spec"], status.get("failed", 0)
        if failures:
            last = self._since.get((job["metadata"]["uid"], "failed"), now)
            wait = min(self._player.durations.retry * 2 ** (failures - 1), _MAX_RETRY_SECONDS)
            if not self._is_due(_key(job), last + timedelta(seconds=wait), now):
                return 0
        remaining = _completions(job) - status.get("succeeded", 0)
        missing: int = min(spec.get("parallelism", 1), remaining) - sum(map(pods.is_active, own))
        if spec.get("podReplacementPolicy") == "Failed":
            missing -= sum(map(pods.is_stopping, own))
        return missing

    def _conclude(self, ending: Object, status: Object, own: list[Object], now: datetime) -> None:
        """Delete running Pods; set the final condition once the last Pod has ended."""
        for pod in filter(pods.is_active, own):
            self._put(pods.deleted(pod, now))
        if any(pods.is_active(pod) or pods.is_stopping(pod) for pod in own):
            return
        failed = ending["type"] == "FailureTarget"
        condition = ending["reason"], ending["message"]
        _set(status, "Failed" if failed else "Complete", *condition, now)
        if not failed:
            status["completionTime"] = pods.format_seconds(now)

    def _expire(self, job: Object, ended: datetime, now: datetime) -> None:
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is not None and self._is_due(_key(job), ended + timedelta(seconds=seconds), now):
            self._store.drop(JOBS, *_key(job))

    def _write_status(self, job: Object, status: Object) -> None:
        """Write the status if it has changed."""
        own = self._pods_of(job)
        active = [pod for pod in own if pods.is_active(pod)]
        status.pop("active", None)
        if active:
            status["active"] = len(active)
        status["ready"] = sum(pod["status"]["phase"] == "Running" for pod in active)
        status["terminating"] = sum(map(pods.is_stopping, own))
        status["uncountedTerminatedPods"] = {}
        if status != job.get("status"):
            self._store.put(JOBS, job["metadata"]["namespace"], {**job, "status": status})


def finished_at(job: Object) -> datetime | None:
    """Return when a Job became Complete or Failed."""
    status = job.get("status") or {}
    ended = _condition(status, "Complete", "Failed")
    return _moment(ended["lastTransitionTime"]) if ended else None


def _condition(status: Object, *kinds: str) -> Object | None:
    """Return a true condition of one of these types."""
    for condition in status.get("conditions", ()):
        if condition["type"] in kinds and condition["status"] == "True":
            result: Object = condition
            return result
    return None


def _set(
    status: Object, kind: str, reason: str, message: str, now: datetime, *, holds: bool = True
) -> None:
    conditions = status.setdefault("conditions", [])
    condition = {"type": kind, "status": str(holds), "reason": reason, "message": message}
    for index, current in enumerate(conditions):
        if current["type"] == kind:
            if current["status"] != condition["status"]:
                conditions[index] = condition | _both_times(now)
            return
    conditions.append(condition | _both_times(now))


def _both_times(now: datetime) -> Object:
    return {
        "lastProbeTime": pods.format_seconds(now),
        "lastTransitionTime": pods.format_seconds(now),
    }


def _key(job: Object) -> tuple[str, str]:
    return job["metadata"]["namespace"], job["metadata"]["name"]


def _completions(job: Object) -> int:
    # Without the field, the Job is a work queue, which one success completes.
    count: int = job["spec"].get("completions") or 1
    return count


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
