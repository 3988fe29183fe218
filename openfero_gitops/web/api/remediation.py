"""Serves everything about one remediation, and the log of its Pod."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

from aiohttp import web
from pydantic import Field

from openfero_gitops.background import wait_for_event
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.web.api.operation import Operation, Reply, Tag, serve
from openfero_gitops.web.api.parameters import (
    PathParameters,
    QueryParameters,
    read_path,
    read_query,
)
from openfero_gitops.web.api.remediation_detail_shape import RemediationDetailShape, detail_shape
from openfero_gitops.web.api.remediation_shape import remediation_shape
from openfero_gitops.web.api.route import Call, Route, add_route, problem_replies
from openfero_gitops.web.connections.acceptor import HttpConnection
from openfero_gitops.web.evidence import (
    TAIL_LINES,
    EvidenceReader,
    container_names,
    owned_pods,
    read_tail,
    trace_of,
    why_no_log,
)
from openfero_gitops.web.slots import NoSlotError, Slots

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.evidence import Evidence
    from openfero_gitops.web.ports import JobReader, ReplicaState
    from openfero_gitops.web.repository_links import RepositoryLinks
    from openfero_gitops.web.turns import Turns

#: Clients that follow a log at once; each keeps a connection to the API server.
MAX_FOLLOWERS: Final = 20
#: Then a client begins again, and its credentials are checked again.
_MAX_FOLLOW_SECONDS: Final = 1800.0
#: How long an answer waits for the first bytes, so that an error still has its own status.
_FIRST_SECONDS: Final = 1.0
_READ_SECONDS: Final = 3.0
#: Requests that read Pods and logs at once: each holds the Pods, and 64 KiB of a log.
_MAX_READ_AT_ONCE: Final = 8
_MAX_LINES: Final = 1000


class RemediationPath(PathParameters):
    """A Job."""

    namespace: Annotated[str, Field(max_length=253)]
    """Namespace of the Job."""
    name: Annotated[str, Field(max_length=253)]
    """Name of the Job."""


class LogQuery(QueryParameters):
    """Which part of a log."""

    container: Annotated[str, Field(max_length=253)] = ""
    """The container of the newest Pod; the last one that was started by default."""
    tail: Annotated[int, Field(ge=1, le=_MAX_LINES)] = TAIL_LINES
    """Begin so many lines before the end."""
    follow: bool = False
    """Continue until the container has ended."""


_LOG: Final = Operation(
    "GET",
    "/api/remediations/{namespace}/{name}/log",
    "Read or follow the log of a remediation",
    Tag.REMEDIATIONS,
    {
        200: Reply("The log.", str, "text/plain"),
        **problem_replies(400, 401, 403, 404, 409, 429, 500, 503),
    },
    "The end of the log of one container of the newest Pod: at most 64 KiB, unless it is followed. "
    "The answer is 403 if the controller may not read logs (logs.enabled in the Helm chart), 404 "
    "if there is no Pod, and 409 if the container has not started.",
    path_parameters=RemediationPath,
    query=LogQuery,
    head=False,
)


class LogFollowers:
    """The clients that follow logs."""

    def __init__(self, jobs: JobReader) -> None:
        """Read the logs with `jobs`."""
        self._jobs = jobs
        self._open: set[asyncio.Event] = set()
        self._closed = False

    def __len__(self) -> int:
        """The number of clients."""
        return len(self._open)

    async def close(self, _: web.Application | None = None) -> None:
        """End all answers; new ones are refused."""
        self._closed = True
        for stop in self._open:
            stop.set()

    async def respond(
        self, request: web.Request, namespace: str, pod: str, container: str, lines: int
    ) -> web.StreamResponse:
        """Answer with a log until it ends, or the client goes away."""
        if self._closed:
            raise web.HTTPServiceUnavailable(text="this replica is stopping; repeat the request")
        if len(self._open) >= MAX_FOLLOWERS:
            raise web.HTTPServiceUnavailable(
                text=f"{MAX_FOLLOWERS} logs are followed already, which is the limit; read the log "
                "without follow, or repeat the request later"
            )
        stop = asyncio.Event()
        self._open.add(stop)
        if isinstance(request.protocol, HttpConnection):
            request.protocol.begin_stream(stop.set)
        pieces = self._jobs.log(namespace, pod, container, follow=True, tail_lines=lines)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/plain; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        response.force_close()
        first = asyncio.create_task(anext(pieces, b""), name="begin to follow a log")
        copying: asyncio.Task[None] | None = None
        try:
            await asyncio.wait({first}, timeout=_FIRST_SECONDS)
            if first.done() and (error := first.exception()):
                raise _refusal(error, namespace) if isinstance(error, ApiError) else error
            await response.prepare(request)
            copying = asyncio.create_task(_copy(first, pieces, response), name="follow a log")
            copying.add_done_callback(lambda _: stop.set())
            await wait_for_event(stop, _MAX_FOLLOW_SECONDS)
            if copying.done():
                copying.result()
        except (ConnectionError, ApiError):
            pass  # the client or the API server disconnected
        finally:
            tasks = {task for task in (first, copying) if task is not None}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pieces.aclose()
            self._open.discard(stop)
        return response


async def _copy(
    first: asyncio.Task[bytes], pieces: AsyncGenerator[bytes], response: web.StreamResponse
) -> None:
    piece = await first
    while piece:
        await response.write(piece)
        piece = await anext(pieces, b"")


def add_remediation(
    app: web.Application,
    state: ReplicaState,
    guard: Guard,
    turns: Turns,
    *,
    now: Callable[[], datetime],
    evidence: EvidenceReader,
    links: RepositoryLinks,
) -> None:
    """Serve `/api/remediations/{namespace}/{name}` and its log."""

    async def load(call: Call[RemediationPath, QueryParameters]) -> Evidence:
        return await evidence.read(
            _find(state, call.path), lambda: call.request.transport is not None
        )

    def build(call: Call[RemediationPath, QueryParameters]) -> RemediationDetailShape:
        remediation = _find(state, call.path)
        read: Evidence = call.loaded
        base = remediation_shape(
            remediation,
            state.decisions().get(remediation.key),
            effect=state.effect(remediation),
            verified=state.is_approval_verified(remediation),
        )
        return detail_shape(
            base,
            trace_of(remediation, read, state, now()),
            read,
            incident=[
                other
                for other in state.remediations()
                if other.incident == remediation.incident and other.key != remediation.key
            ],
            commit_url=links.commit(remediation.repository, remediation.commit),
            file_url=links.file(remediation.repository, remediation.commit, remediation.path),
        )

    add_route(
        app,
        Route(
            "/api/remediations/{namespace}/{name}",
            "Read everything about one remediation",
            Tag.REMEDIATIONS,
            RemediationDetailShape,
            build,
            path_parameters=RemediationPath,
            errors=(404,),
            description="Job, Pods and Events are read from the API server, and the Job is "
            "compared with its commit; what could not be read in time is named in `missing`.",
            load=load,
        ),
        guard,
        turns,
    )
    slots = Slots(_MAX_READ_AT_ONCE)
    followers = LogFollowers(evidence.jobs)
    app.on_shutdown.append(followers.close)

    async def log(request: web.Request) -> web.StreamResponse:
        guard.check(request)
        path = read_path(RemediationPath, request.match_info)
        query = read_query(LogQuery, request.query)
        remediation = _find(state, path)
        try:
            async with slots.take(), asyncio.timeout(_READ_SECONDS):
                pods = owned_pods(await evidence.jobs.pods(remediation.key), remediation)
                pod, container = _choose(pods, query.container, remediation)
                if not query.follow:
                    text, _ = await read_tail(
                        evidence.jobs, path.namespace, pod, container, query.tail
                    )
                    return web.Response(text=text, headers={"Cache-Control": "no-store"})
        except NoSlotError as error:
            raise web.HTTPServiceUnavailable(
                text=f"{slots.count} logs are being read already; repeat the request later"
            ) from error
        except (ApiError, TimeoutError) as error:
            raise _refusal(error, path.namespace) from error
        return await followers.respond(request, path.namespace, pod, container, query.tail)

    serve(app, _LOG, log)


def _find(state: ReplicaState, path: RemediationPath) -> Remediation:
    remediation = state.remediation(JobKey(path.namespace, path.name))
    if remediation is None:
        raise web.HTTPNotFound(
            text=f"no remediation has the Job {path.namespace}/{path.name}; finished Jobs are "
            "deleted when their TTL expires"
        )
    return remediation


def _choose(pods: list[dict[str, Any]], wanted: str, remediation: Remediation) -> tuple[str, str]:
    """Choose the newest Pod, and the container that is wanted, or the last one."""
    names = container_names(pods[0]) if pods else []
    if not pods or not names:
        reason = "its Pods were deleted" if remediation.has_run else "it has not started"
        raise web.HTTPNotFound(text=f"Job {remediation.key} has no log: {reason}")
    if wanted and wanted not in names:
        raise web.HTTPNotFound(
            text=f"the Pod has no container {wanted[:100]!r}; it has {', '.join(names)}"
        )
    return str(pods[0]["metadata"]["name"]), wanted or names[-1]


def _refusal(error: ApiError | TimeoutError, namespace: str) -> web.HTTPException:
    text = why_no_log(error, namespace)
    match error:
        case Forbidden():
            return web.HTTPForbidden(text=text)
        case NotFound():
            return web.HTTPNotFound(text=text)
        case Invalid():
            return web.HTTPConflict(text=text)
    return web.HTTPServiceUnavailable(text=text)
