"""Reads what the API server and Git have about one remediation, in limited time.

A page is shown with what could be read; what could not is said with the reason. Only Pods that
the Job owns are read: anybody who can create Pods can give them the label of a Job.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from openfero_gitops.admission.decide import Wait
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound, SourceError
from openfero_gitops.inspection.trace import newest, trace
from openfero_gitops.web.slots import NoSlotError, Slots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from openfero_gitops.audit.verify import Verification
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.inspection.trace import Trace
    from openfero_gitops.web.ports import JobReader, ReplicaState

    Object = dict[str, Any]
    Verify = Callable[[Object], Awaitable[Verification]]

_READ_SECONDS: Final = 3.0
#: Of everything, once there is a slot, for which a request waits for 1 s. Pages wait for 8 s.
_TOTAL_SECONDS: Final = 4.0
#: Remediations that are read at once.
_AT_ONCE: Final = 4
#: The newest Pods whose Events are read, and the containers of the newest whose logs are.
_MAX_PODS_WITH_EVENTS: Final = 3
_MAX_CONTAINERS: Final = 8
TAIL_LINES: Final = 200
TAIL_BYTES: Final = 64 * 1024
#: Of a log that is read to find its end. Where the last lines are longer, fewer are read.
_READ_BYTES: Final = 512 * 1024
_FEWER_LINES: Final = (TAIL_LINES, 20, 2, 1)
_COLORS: Final = re.compile("\x1b\\[[0-9;]*m")
_NO_LOG_RIGHT: Final = (
    "the controller may not read the logs of Pods in namespace {}. To show them here, set "
    "logs.enabled=true in the values of the Helm chart"
)

_NO_ANSWER: Final = "the API server did not answer in time"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """The end of a container's log.

    `cut` says that there is more before it. `missing` says why there is none.
    """

    pod: str
    container: str
    text: str = ""
    cut: bool = False
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was read about a remediation; `missing` says what could not be, and why.

    `job` is None if it was not read, or was replaced. `unread_pods` says why Pods, and with them
    logs, were not read. `verification` is None if it could not be computed; `unverified` then says
    why.
    """

    job: Object | None = None
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    unread_pods: str = ""
    logs: Sequence[ContainerLog] = ()
    verification: Verification | None = None
    unverified: str = ""
    missing: tuple[str, ...] = ()


def nothing_read(reason: str) -> Evidence:
    """Return what there is if the API server was not read at all."""
    return Evidence(
        unread_pods=reason,
        unverified=reason,
        missing=(f"the Job, its Pods and its Events: {reason}",),
    )


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Reading:
    """A read for all who want it; `wanted` has a function for each, false once the client left."""

    task: asyncio.Task[Evidence]
    wanted: list[Callable[[], bool]]


class EvidenceReader:
    """Reads the evidence about remediations; requests for the same one share a read."""

    def __init__(self, jobs: JobReader, verify: Verify | None = None) -> None:
        """Read from the API server; `verify` compares a Job with Git."""
        self.jobs = jobs
        self._verify = verify
        self._slots = Slots(_AT_ONCE)
        self._readings: dict[tuple[JobKey, str], _Reading] = {}

    async def read(
        self, remediation: Remediation, is_wanted: Callable[[], bool] = _always
    ) -> Evidence:
        """Read everything about a remediation, within 5 s; nothing if it is not wanted any more."""
        key = (remediation.key, remediation.uid)
        reading = self._readings.get(key)
        if reading is None:
            wanted: list[Callable[[], bool]] = []
            task = asyncio.create_task(
                self._read_in_slot(remediation, wanted), name="read the evidence of a remediation"
            )
            reading = self._readings[key] = _Reading(task, wanted)
        reading.wanted.append(is_wanted)
        try:
            # A request that is cancelled does not end what others wait for.
            return await asyncio.shield(reading.task)
        finally:
            reading.wanted.remove(is_wanted)
            if not reading.wanted:
                del self._readings[key]
                reading.task.cancel()
                await asyncio.wait({reading.task})

    async def _read_in_slot(
        self, remediation: Remediation, wanted: Sequence[Callable[[], bool]]
    ) -> Evidence:
        try:
            async with self._slots.take():
                if not any(is_wanted() for is_wanted in wanted):
                    return nothing_read("the client disconnected")
                deadline = asyncio.get_running_loop().time() + _TOTAL_SECONDS
                return await self._read(remediation, deadline)
        except NoSlotError:
            return nothing_read(
                f"{self._slots.count} other remediations are being read from the API server; "
                "try again in a few seconds"
            )

    async def _read(self, remediation: Remediation, deadline: float) -> Evidence:
        key, uid = remediation.key, remediation.uid
        missing: list[str] = []
        (job, no_job), (pods, no_pods), (events, no_events) = await asyncio.gather(
            _result(self.jobs.manifest(key)),
            _result(self.jobs.pods(key)),
            _result(self.jobs.events(key.namespace, uid)),
        )
        reasons = {"the Job": no_job, "its Pods": no_pods, "its Events": no_events}
        missing += [f"{what}: {reason}" for what, reason in reasons.items() if reason]
        if job is not None and job["metadata"].get("uid") != uid:
            job = None
            missing.append("the Job was deleted, and another one has its name")
        owned = owned_pods(pods or (), remediation)
        proof: list[str] = []
        of_pods, logs, verification = await asyncio.gather(
            self._pod_events(owned[:_MAX_PODS_WITH_EVENTS], missing, deadline),
            self._logs(owned[0], deadline) if owned else _nothing(),
            self._verification(job, proof, deadline),
        )
        return Evidence(
            job=job,
            pods=owned,
            events=[*(events or ()), *of_pods],
            unread_pods=no_pods,
            logs=logs,
            verification=verification,
            unverified="; ".join(proof),
            missing=tuple(dict.fromkeys(missing)),
        )

    async def _pod_events(
        self, pods: Sequence[Object], missing: list[str], deadline: float
    ) -> list[Object]:
        results = await asyncio.gather(
            *(
                _result(
                    self.jobs.events(pod["metadata"]["namespace"], pod["metadata"]["uid"]), deadline
                )
                for pod in pods
            )
        )
        missing += [f"the Events of its Pods: {reason}" for _, reason in results if reason]
        return [event for events, _ in results for event in events or ()]

    async def _logs(self, pod: Object, deadline: float) -> list[ContainerLog]:
        names = container_names(pod)[:_MAX_CONTAINERS]
        return await asyncio.gather(*(self._log(pod, name, deadline) for name in names))

    async def _log(self, pod: Object, container: str, deadline: float) -> ContainerLog:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            async with asyncio.timeout_at(deadline):
                text, cut = await read_tail(self.jobs, namespace, name, container)
        except (ApiError, TimeoutError) as error:
            return ContainerLog(name, container, missing=why_no_log(error, namespace))
        return ContainerLog(name, container, text, cut)

    async def _verification(
        self, job: Object | None, missing: list[str], deadline: float
    ) -> Verification | None:
        if job is None or self._verify is None:
            missing.append("the Job could not be read")
            return None
        try:
            async with asyncio.timeout_at(deadline):
                return await self._verify(job)
        except TimeoutError:
            missing.append(f"it takes longer than {_TOTAL_SECONDS:g} s")
        except (ApiError, SourceError) as error:
            missing.append(str(error))
        return None


async def read_tail(
    jobs: JobReader, namespace: str, pod: str, container: str, lines: int = TAIL_LINES
) -> tuple[str, bool]:
    """Read the last lines of a log, 64 KiB at most; and whether there is more before them."""
    for count in (lines, *(fewer for fewer in _FEWER_LINES if fewer < lines)):
        pieces = jobs.log(
            namespace,
            pod,
            container,
            follow=False,
            tail_lines=count,
            limit_bytes=_READ_BYTES,
        )
        end, size, ends_of_lines = bytearray(), 0, 0
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                size += len(piece)
                ends_of_lines += piece.count(b"\n")
                end += piece
                del end[:-TAIL_BYTES]
        if size < _READ_BYTES:
            break
    cut = size > TAIL_BYTES or size >= _READ_BYTES or ends_of_lines >= count
    return without_colors(end.decode(errors="replace")), cut


def without_colors(text: str) -> str:
    """Remove the colors that programs write for terminals; other control characters stay."""
    return _COLORS.sub("", text).replace("\r\n", "\n")


def why_no_log(error: ApiError | TimeoutError, namespace: str) -> str:
    """Say why a log cannot be read, and what to do."""
    match error:
        case Forbidden():
            return _NO_LOG_RIGHT.format(namespace)
        case NotFound():
            return "the Pod was deleted, and its log with it"
        case Invalid():
            return f"no log yet: {error}"
        case TimeoutError():
            return _NO_ANSWER
    return str(error)


def container_names(pod: Object) -> list[str]:
    """The names of a Pod's containers, in the order of their start."""
    status = pod.get("status") or {}
    return [
        str(container["name"])
        for kind in ("initContainerStatuses", "containerStatuses")
        for container in status.get(kind) or ()
    ]


def owned_pods(pods: Sequence[Object], remediation: Remediation) -> list[Object]:
    """The Pods that the Job owns, the newest first."""
    return newest([pod for pod in pods if _is_owned(pod, remediation.uid)])


def _is_owned(pod: Object, uid: str) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == uid for owner in owners)


async def _result(reading: Awaitable[_T], deadline: float | None = None) -> tuple[_T | None, str]:
    """Return what is read before the deadline, or else None and the reason."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + _READ_SECONDS
    try:
        async with asyncio.timeout_at(limit if deadline is None else min(limit, deadline)):
            return await reading, ""
    except NotFound:
        return None, "not found: it has just been deleted"
    except TimeoutError:
        return None, _NO_ANSWER
    except ApiError as error:
        return None, str(error)


async def _nothing() -> list[ContainerLog]:
    return []


def trace_of(
    remediation: Remediation, evidence: Evidence, state: ReplicaState, now: datetime
) -> Trace:
    """Collect what is known of a remediation, from this replica and from what was read."""
    decision = state.decisions().get(remediation.key)
    return trace(
        remediation,
        evidence.job or {"metadata": {}},
        incident=[r for r in state.remediations() if r.incident == remediation.incident],
        pods=evidence.pods,
        events=evidence.events,
        approval_verified=state.is_approval_verified(remediation),
        now=now,
        wait=decision if isinstance(decision, Wait) and remediation.waiting else None,
    )
