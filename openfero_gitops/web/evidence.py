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

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from openfero_gitops.audit.verify import Verification
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.inspection.trace import Trace
    from openfero_gitops.web.ports import JobReader, ReplicaState

    Object = dict[str, Any]
    Verify = Callable[[Object], Awaitable[Verification]]

_READ_SECONDS: Final = 3.0
_VERIFY_SECONDS: Final = 5.0
#: Remediations that are read at once; further requests wait.
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

    `job` is None if it was not read, or was replaced. `verification` is None if it could not be
    computed; `unverified` then says why.
    """

    job: Object | None = None
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    logs: Sequence[ContainerLog] = ()
    verification: Verification | None = None
    unverified: str = ""
    missing: tuple[str, ...] = ()


class EvidenceReader:
    """Reads the evidence about remediations."""

    def __init__(self, jobs: JobReader, verify: Verify | None = None) -> None:
        """Read from the API server; `verify` compares a Job with Git."""
        self.jobs = jobs
        self._verify = verify
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def read(self, remediation: Remediation) -> Evidence:
        """Read everything about a remediation, within 6 s once it is its turn."""
        async with self._slots:
            return await self._read(remediation)

    async def _read(self, remediation: Remediation) -> Evidence:
        key, uid = remediation.key, remediation.uid
        missing: list[str] = []
        job, pods, events = await asyncio.gather(
            _or_missing("the Job", self.jobs.manifest(key), missing),
            _or_missing("its Pods", self.jobs.pods(key), missing),
            _or_missing("its Events", self.jobs.events(key.namespace, uid), missing),
        )
        if job is not None and job["metadata"].get("uid") != uid:
            job = None
            missing.append("the Job was deleted, and another one has its name")
        owned = owned_pods(pods or (), remediation)
        proof: list[str] = []
        of_pods, logs, verification = await asyncio.gather(
            self._pod_events(owned[:_MAX_PODS_WITH_EVENTS], missing),
            self._logs(owned[0]) if owned else _nothing(),
            self._verification(job, proof),
        )
        return Evidence(
            job=job,
            pods=owned,
            events=[*(events or ()), *of_pods],
            logs=logs,
            verification=verification,
            unverified="; ".join(proof),
            missing=tuple(dict.fromkeys(missing)),
        )

    async def _pod_events(self, pods: Sequence[Object], missing: list[str]) -> list[Object]:
        lists = await asyncio.gather(
            *(
                _or_missing(
                    "the Events of its Pods",
                    self.jobs.events(pod["metadata"]["namespace"], pod["metadata"]["uid"]),
                    missing,
                )
                for pod in pods
            )
        )
        return [event for events in lists for event in events or ()]

    async def _logs(self, pod: Object) -> list[ContainerLog]:
        names = container_names(pod)[:_MAX_CONTAINERS]
        return await asyncio.gather(*(self._log(pod, name) for name in names))

    async def _log(self, pod: Object, container: str) -> ContainerLog:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            async with asyncio.timeout(_READ_SECONDS):
                text, cut = await read_tail(self.jobs, namespace, name, container)
        except (ApiError, TimeoutError) as error:
            return ContainerLog(name, container, missing=why_no_log(error, namespace))
        return ContainerLog(name, container, text, cut)

    async def _verification(self, job: Object | None, missing: list[str]) -> Verification | None:
        if job is None or self._verify is None:
            missing.append("the Job could not be read")
            return None
        try:
            async with asyncio.timeout(_VERIFY_SECONDS):
                return await self._verify(job)
        except TimeoutError:
            missing.append(f"it takes longer than {_VERIFY_SECONDS:g} s")
        except (ApiError, SourceError) as error:
            missing.append(str(error))
        return None


async def read_tail(
    jobs: JobReader, namespace: str, pod: str, container: str, lines: int = TAIL_LINES
) -> tuple[str, bool]:
    """Read the last lines of a log, 64 KiB at most; and whether there is more before them."""
    content, complete = b"", False
    for count in (lines, *(fewer for fewer in _FEWER_LINES if fewer < lines)):
        pieces = jobs.log(
            namespace,
            pod,
            container,
            follow=False,
            tail_lines=count,
            limit_bytes=_READ_BYTES,
        )
        async with contextlib.aclosing(pieces):
            content = b"".join([piece async for piece in pieces])
        complete = len(content) < _READ_BYTES
        if complete:
            break
    cut = len(content) > TAIL_BYTES or not complete or content.count(b"\n") >= count
    return without_colors(content[-TAIL_BYTES:].decode(errors="replace")), cut


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
            return f"the API server did not answer within {_READ_SECONDS:g} s"
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


async def _or_missing(what: str, reading: Awaitable[_T], missing: list[str]) -> _T | None:
    try:
        async with asyncio.timeout(_READ_SECONDS):
            return await reading
    except NotFound:
        missing.append(f"{what} was not found: it has just been deleted")
    except TimeoutError:
        missing.append(f"{what}: the API server did not answer within {_READ_SECONDS:g} s")
    except ApiError as error:
        missing.append(f"{what}: {error}")
    return None


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
