"""Jobs that run in no container: what Job controller, kubelet and garbage collector would do.

One write at a time, as the real ones write, so that a watch shows every state between. Each Job
that was changed, or whose Pods were, is looked at anew, and again when its next moment has come;
what is to be done follows from the objects alone. The clock is a parameter: with one that a test
moves, hours pass at once.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import JOBS, PODS
from openfero_gitops.demo.cluster import pods
from openfero_gitops.demo.cluster.player import FOREVER, Outcome
from openfero_gitops.demo.cluster.store import copied

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.demo.cluster.player import JobPlayer
    from openfero_gitops.demo.cluster.store import Store, Write

_TERMINATED: Final = 143  # exit code: 128 and SIGTERM
_LONGEST_RETRY: Final = 600.0  # seconds, as the Job controller waits at most


class JobController:
    """Drives every Job of a store; `step` does one piece of it.

    A Job is not driven while it is being deleted, nor where `spec.managedBy` names another
    controller. Of an Indexed Job the Pods have no index.
    """

    def __init__(self, store: Store, player: JobPlayer, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._player = player
        self._clock = clock
        self._changed: dict[tuple[str, str], None] = {}  # Jobs by namespace and name, in order
        self._alarms: list[tuple[datetime, tuple[str, str]]] = []  # a heap
        self._awaited: set[tuple[datetime, tuple[str, str]]] = set()  # the same, to look into
        self._pods: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._since: dict[tuple[str, str], datetime] = {}  # what of a uid happened when, exactly
        store.subscribe(self._told)

    @property
    def due(self) -> datetime | None:
        """When the next step is to be made; None: after the next write."""
        if self._changed:
            return self._clock()
        return self._alarms[0][0] if self._alarms else None

    def step(self) -> bool:
        """Look at one Job that was changed or whose time has come; False: there is none."""
        now = self._clock()
        while self._alarms and self._alarms[0][0] <= now:
            alarm = heapq.heappop(self._alarms)
            self._awaited.discard(alarm)
            self._changed[alarm[1]] = None
        if not self._changed:
            return False
        key = next(iter(self._changed))
        del self._changed[key]
        self._look_at(key, now)
        return True

    def _told(self, write: Write) -> None:
        known = write.after or write.before or {}
        metadata = known["metadata"]
        if write.resource == JOBS:
            self._changed[write.namespace, metadata["name"]] = None
            if write.after is None:
                self._since.pop((metadata["uid"], "failed"), None)
        elif write.resource == PODS and (owner := pods.owner_of(known)) is not None:
            key = write.namespace, owner["name"]
            self._changed[key] = None
            if write.after is not None:
                self._pods[key].add(metadata["name"])
                return
            self._pods[key].discard(metadata["name"])
            for event in ("started", "stopping"):
                self._since.pop((metadata["uid"], event), None)

    def _look_at(self, key: tuple[str, str], now: datetime) -> None:
        namespace, name = key
        job = self._store.get(JOBS, namespace, name)
        for pod_name in sorted(self._pods[key]):
            pod = self._store.get(PODS, namespace, pod_name)
            if pod is not None and self._play(pod, job, now):
                return  # its write makes this Job one that was changed
        if job is None:
            if not self._pods[key]:
                del self._pods[key]
            return
        manager = job["spec"].get("managedBy") or "kubernetes.io/job-controller"
        if manager == "kubernetes.io/job-controller" and not job["metadata"].get(
            "deletionTimestamp"
        ):
            self._drive(job, now)

    # The Pods.

    def _play(self, pod: Object, job: Object | None, now: datetime) -> bool:
        """Do what a kubelet and the garbage collector would; True: there was something to do."""
        owner, phase = pods.owner_of(pod), pod["status"]["phase"]
        leaving = bool(pod["metadata"].get("deletionTimestamp"))
        if job is None or owner is None or owner["uid"] != job["metadata"]["uid"]:
            if not leaving or pods.TRACKED in pods.finalizers(pod):
                self._put(pods.deleted(pods.counted(pod), now))
                return True
        elif phase == "Pending" and not leaving:
            self._put(pods.started(pod, now))
            return True
        elif phase == "Running" and not leaving:
            if self._passed(pod, "started", self._player.run_for(pod), now):
                self._put(pods.ended(pod, self._player.outcome(job), now))
                return True
            return False
        return leaving and self._stop(pod, now)

    def _stop(self, pod: Object, now: datetime) -> bool:
        if pod["status"]["phase"] not in pods.ENDED:
            if not self._passed(pod, "stopping", self._player.stop_for(pod), now):
                return False
            self._put(pods.ended(pod, Outcome(_TERMINATED), now))
        elif pods.finalizers(pod):
            return False  # the Job controller has to count it first
        else:
            self._store.drop(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        return True

    def _passed(self, pod: Object, event: str, seconds: float, now: datetime) -> bool:
        """Tell whether so much time has passed since; if not, look again then."""
        since = self._since.setdefault((pod["metadata"]["uid"], event), now)
        if seconds == FOREVER:
            return False
        key = pod["metadata"]["namespace"], (pods.owner_of(pod) or {})["name"]
        return self._come(key, since + timedelta(seconds=seconds), now)

    def _come(self, key: tuple[str, str], moment: datetime, now: datetime) -> bool:
        """Tell whether a moment has come; if not, look at that Job again then."""
        if moment <= now:
            return True
        if (moment, key) not in self._awaited:
            self._awaited.add((moment, key))
            heapq.heappush(self._alarms, (moment, key))
        return False

    def _put(self, pod: Object) -> None:
        self._store.put(PODS, pod["metadata"]["namespace"], pod)

    # The Job.

    def _drive(self, job: Object, now: datetime) -> None:
        """Bring a Job one step on; further ones follow from what was written."""
        ended = finished_at(job)
        if ended is not None:
            self._expire(job, ended, now)
            return
        status = copied(job.get("status") or {})
        self._count(job, status, now)
        self._decide(job, status, now)
        self._report(job, status)

    def _decide(self, job: Object, status: Object, now: datetime) -> None:
        mine = self._pods_of(job)
        if ending := _condition(status, "FailureTarget", "SuccessCriteriaMet"):
            self._conclude(ending, status, mine, now)
        elif job["spec"]["suspend"]:
            self._suspend(status, mine, now)
        elif failure := self._failure(job, status, now):
            _set(status, "FailureTarget", *failure, now)
        elif status.get("succeeded", 0) >= _completions(job):
            said = ("CompletionsReached", "Reached expected number of succeeded pods")
            _set(status, "SuccessCriteriaMet", *said, now)
        else:
            self._run(job, status, mine, now)

    def _pods_of(self, job: Object) -> list[Object]:
        metadata = job["metadata"]
        key = _key(job)
        known = (self._store.get(PODS, key[0], name) for name in sorted(self._pods[key]))
        found = [pod for pod in known if pod is not None]
        return [pod for pod in found if (pods.owner_of(pod) or {})["uid"] == metadata["uid"]]

    def _count(self, job: Object, status: Object, now: datetime) -> None:
        """Count every Pod that has ended, once: the finalizer says that it is still to count."""
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

    def _suspend(self, status: Object, mine: list[Object], now: datetime) -> None:
        for pod in filter(pods.is_active, mine):
            self._put(pods.deleted(pods.counted(pod), now))
        status.pop("startTime", None)
        _set(status, "Suspended", "JobSuspended", "Job suspended", now)

    def _run(self, job: Object, status: Object, mine: list[Object], now: datetime) -> None:
        """Start what is to run, and come back when the deadline has passed."""
        if _condition(status, "Suspended"):
            _set(status, "Suspended", "JobResumed", "Job resumed", now, holds=False)
        started = _moment(status.setdefault("startTime", pods.written(now)))
        limit = job["spec"].get("activeDeadlineSeconds")
        if limit is not None:
            self._come(_key(job), started + timedelta(seconds=limit), now)
        for _ in range(self._wanted(job, status, mine, now)):
            self._put(pods.made_for(job, now))

    def _failure(self, job: Object, status: Object, now: datetime) -> tuple[str, str] | None:
        spec = job["spec"]
        if status.get("failed", 0) > spec["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        started, limit = status.get("startTime"), spec.get("activeDeadlineSeconds")
        if started and limit is not None and _moment(started) + timedelta(seconds=limit) <= now:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        return None

    def _wanted(self, job: Object, status: Object, mine: list[Object], now: datetime) -> int:
        """How many Pods are to be started now."""
        spec, failures = job["spec"], status.get("failed", 0)
        if failures:
            last = self._since.get((job["metadata"]["uid"], "failed"), now)
            wait = min(self._player.durations.retry * 2 ** (failures - 1), _LONGEST_RETRY)
            if not self._come(_key(job), last + timedelta(seconds=wait), now):
                return 0
        lacking = _completions(job) - status.get("succeeded", 0)
        wanted: int = min(spec.get("parallelism", 1), lacking) - sum(map(pods.is_active, mine))
        if spec.get("podReplacementPolicy") == "Failed":
            wanted -= sum(map(pods.is_stopping, mine))
        return wanted

    def _conclude(self, ending: Object, status: Object, mine: list[Object], now: datetime) -> None:
        """Stop what still runs; give the last condition once the last Pod has ended."""
        for pod in filter(pods.is_active, mine):
            self._put(pods.deleted(pod, now))
        if any(pods.is_active(pod) or pods.is_stopping(pod) for pod in mine):
            return
        failed = ending["type"] == "FailureTarget"
        said = ending["reason"], ending["message"]
        _set(status, "Failed" if failed else "Complete", *said, now)
        if not failed:
            status["completionTime"] = pods.written(now)

    def _expire(self, job: Object, ended: datetime, now: datetime) -> None:
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is not None and self._come(_key(job), ended + timedelta(seconds=seconds), now):
            self._store.drop(JOBS, *_key(job))

    def _report(self, job: Object, status: Object) -> None:
        """Write the status, if it says something new."""
        mine = self._pods_of(job)
        active = [pod for pod in mine if pods.is_active(pod)]
        status.pop("active", None)
        if active:
            status["active"] = len(active)
        status["ready"] = sum(pod["status"]["phase"] == "Running" for pod in active)
        status["terminating"] = sum(map(pods.is_stopping, mine))
        status["uncountedTerminatedPods"] = {}
        if status != job.get("status"):
            self._store.put(JOBS, job["metadata"]["namespace"], {**job, "status": status})


def finished_at(job: Object) -> datetime | None:
    """When a Job became Complete or Failed."""
    status = job.get("status") or {}
    ended = _condition(status, "Complete", "Failed")
    return _moment(ended["lastTransitionTime"]) if ended else None


def _condition(status: Object, *kinds: str) -> Object | None:
    """A condition of one of these kinds that holds."""
    for condition in status.get("conditions", ()):
        if condition["type"] in kinds and condition["status"] == "True":
            found: Object = condition
            return found
    return None


def _set(
    status: Object, kind: str, reason: str, message: str, now: datetime, *, holds: bool = True
) -> None:
    conditions = status.setdefault("conditions", [])
    said = {"type": kind, "status": str(holds), "reason": reason, "message": message}
    for index, condition in enumerate(conditions):
        if condition["type"] == kind:
            if condition["status"] != said["status"]:
                conditions[index] = said | _both_times(now)
            return
    conditions.append(said | _both_times(now))


def _both_times(now: datetime) -> Object:
    return {"lastProbeTime": pods.written(now), "lastTransitionTime": pods.written(now)}


def _key(job: Object) -> tuple[str, str]:
    return job["metadata"]["namespace"], job["metadata"]["name"]


def _completions(job: Object) -> int:
    # Without the number it is a work queue: one success ends it.
    found: int = job["spec"].get("completions") or 1
    return found


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
