"""What lies between a replica and the API server: messages that are late, lost, or out of order.

A request that was sent is carried out when it arrives, whatever has become of its sender; so a
sender that hears nothing never knows.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter, defaultdict
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import (
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Throttled,
    Unavailable,
)
from tests.simulation.loop import context_of
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import datetime
    from random import Random

    from openfero_gitops.cluster.api import ObjectList, Resource, WatchEvent
    from openfero_gitops.cluster.clock import Clock
    from openfero_gitops.demo.cluster import MemoryCluster
    from tests.simulation.loop import Loop
    from tests.support.relay import Act, Request

#: Seconds after which nothing that was sent arrives any more: the connection is given up.
_LATEST: Final = 60.0
#: Seconds that a client waits beyond the end of a watch for a word.
_SILENCE: Final = 10.0
_NEXT: Final = 1e-6
_END: Final = object()
#: The request that the API server carries out, in the context in which it does.
CARRIED_OUT: ContextVar[Sent | None] = ContextVar("carried out", default=None)


@dataclass(slots=True)
class Server:
    """The API server's own state of health."""

    down: bool = False
    slow: float = 0.0  # seconds that a request may take longer
    throttles: float = 0.0  # so many of the requests are told to come later
    contended: float = 0.0  # so many of the creations conflict on a quota
    forbidden: set[str] = field(default_factory=set)  # namespaces


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, by whom and when it was sent."""

    wire: Wire
    request: Request


@dataclass(slots=True)
class Link:
    """The state of the way between one replica and the server."""

    latency: float = 0.004  # seconds at most, each way
    lost: float = 0.0  # so many of the messages
    cut: bool = False


class Network:
    """Everybody's way to the in-memory cluster."""

    def __init__(
        self, loop: Loop, cluster: MemoryCluster, true: Callable[[], datetime], rng: Random
    ) -> None:
        self._true = true
        self.server = Server()
        self.counts: Counter[str] = Counter()
        self._loop = loop
        self._cluster = cluster
        self._rng = rng
        self._outside = context_of("")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: dict[Wire, dict[Stream, None]] = {}

    def wire(self) -> Wire:
        """One more replica's way."""
        wire = Wire(self, self._cluster)
        self._streams[wire] = {}
        return wire

    def later(self, delay: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Do something out there, in so many seconds."""
        self._loop.call_later(delay, call, *arguments, context=self._outside)

    def out_there(self, work: Any) -> asyncio.Task[Any]:
        """Carry something out where no replica is."""
        task = self._loop.create_task(work, context=self._outside)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def send(self, wire: Wire, verb: str, namespace: str, act: Any, reply: Any) -> None:
        """Bring a request to the server, perhaps, and perhaps its answer back."""
        link, rng = wire.link, self._rng
        if wire.closed:
            reply.set_result(("", Unavailable("the connection is closed")))
            return
        if rng.random() < link.lost:
            self.counts["requests lost"] += 1
            return
        if link.cut:
            self.counts["requests held up"] += 1
            if rng.random() < 0.5:
                self._hold(wire, self._loop.time(), verb, namespace, act, reply)
            return
        delay = rng.random() * link.latency
        self.later(delay, self._arrive, wire, verb, namespace, act, reply)

    def delay(self, wire: Wire, seconds: float, *request: Any) -> None:
        """Bring a request to the server late, whatever becomes of the line meanwhile."""
        kind = "admissions" if wire.ambushed == keys.ADMITTED_AT else "effects"
        self.counts[f"{kind} under way for long"] += 1
        self.later(seconds, self._arrive, wire, *request)

    def _hold(self, wire: Wire, since: float, *request: Any) -> None:
        """Keep a request on its way until the line is mended, or for too long."""
        if self._loop.time() - since > _LATEST:
            return
        if wire.link.cut:
            self.later(1.0, self._hold, wire, since, *request)
        else:
            self._arrive(wire, *request)

    def _arrive(self, wire: Wire, verb: str, namespace: str, act: Any, reply: Any) -> None:
        server, rng = self.server, self._rng
        error: ApiError | None = None
        if server.down:
            self.counts["connections refused"] += 1
            error = Unavailable("connection refused")
        elif rng.random() < server.throttles:
            self.counts["429"] += 1
            error = Throttled("too many requests", rng.choice((0.1, 1.0, 5.0)))
        elif namespace in server.forbidden:
            self.counts["403"] += 1
            error = Forbidden(f"namespace {namespace} is forbidden")
        elif verb == "create" and rng.random() < server.contended:
            self.counts["quota conflicts"] += 1
            error = Conflict("Operation cannot be fulfilled on resourcequotas")
        if error is not None:
            self._back(wire, reply, error)
        elif server.slow:
            self.later(rng.random() * server.slow, self._act, wire, act, reply)
        else:
            self._act(wire, act, reply)

    def _act(self, wire: Wire, act: Any, reply: Any) -> None:
        async def carry_out() -> None:
            try:
                done = await act()
            except ApiError as error:
                done = error
            self._back(wire, reply, done)

        self.out_there(carry_out())

    def _back(self, wire: Wire, reply: Any, done: Any) -> None:
        link = wire.link
        if link.cut or self._rng.random() < link.lost:
            self.counts["answers lost"] += 1
            return
        date = "" if self.server.down else format_datetime(self._true(), usegmt=True)
        self.later(self._rng.random() * link.latency, self._answer, reply, (date, done))

    @staticmethod
    def _answer(reply: asyncio.Future[Any], answer: Any) -> None:
        if not reply.done():
            reply.set_result(answer)

    # Watches.

    def opened(self, wire: Wire, stream: Stream) -> None:
        """Begin to bring the events of a watch."""
        self._streams[wire][stream] = None
        stream.task = self.out_there(self._pump(wire, stream))

    async def _pump(self, wire: Wire, stream: Stream) -> None:
        arrives = 0.0
        end: Any = _END
        try:
            async for event in stream.events:
                while wire.link.cut:  # noqa: ASYNC110 - the line is looked at again each second
                    await asyncio.sleep(1.0)
                now = self._loop.time()
                # One connection keeps its order: what was sent later arrives later.
                arrives = max(arrives + _NEXT, now + self._rng.random() * wire.link.latency)
                if not stream.silent:
                    self.later(arrives - now, stream.queue.put_nowait, event)
        except ApiError as error:
            end = error
        finally:
            await stream.events.aclose()
            if not stream.silent:
                last = max(0.0, arrives + _NEXT - self._loop.time())
                self.later(last, stream.queue.put_nowait, end)

    def closed(self, wire: Wire, stream: Stream) -> None:
        """Nobody reads a watch any more."""
        self._streams[wire].pop(stream, None)
        if stream.task is not None:
            stream.task.cancel()

    def break_streams(self, wire: Wire | None = None) -> None:
        """Cut the watches of one replica, or all."""
        for each in [wire] if wire else self._streams:
            for stream in list(self._streams[each]):
                self.counts["watches broken"] += 1
                self.closed(each, stream)
                stream.queue.put_nowait(Unavailable("the connection was reset"))

    def silence_streams(self, wire: Wire) -> None:
        """Let the watches of one replica say nothing any more, not even their end."""
        for stream in self._streams[wire]:
            self.counts["watches silenced"] += 1
            stream.silent = True

    def expire(self) -> None:
        """Forget the history, and make everybody notice: 410."""
        self.counts["histories forgotten"] += 1
        for wire, streams in self._streams.items():
            for stream in list(streams):
                self.closed(wire, stream)
                stream.queue.put_nowait(Expired("too old resource version"))

    async def close(self) -> None:
        """End everything that is out there."""
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)


@dataclass(slots=True, eq=False)
class Stream:
    """A watch as its reader has it."""

    events: AsyncGenerator[WatchEvent, None]
    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    silent: bool = False
    task: asyncio.Task[Any] | None = None


class Wire(Relay):
    """An `ApiServer` over one replica's way to it."""

    def __init__(self, network: Network, cluster: MemoryCluster) -> None:
        super().__init__(cluster)
        self.link = Link()
        self.clock: Clock | None = None
        #: Told of the next patch that writes the annotation `ambushed`; answers with how long it is
        #: under way.
        self.ambush: Callable[[], float] | None = None
        self.ambushed = keys.ADMITTED_AT
        self.closed = False
        self._network = network
        #: By uid, when the replica was sent which version of a Job, both rising.
        self._heard: defaultdict[str, tuple[list[float], list[int]]] = defaultdict(lambda: ([], []))

    def known(self, uid: str, moment: float) -> int:
        """The version of a Job that the replica had heard of at a moment of the loop; 0: none."""
        moments, versions = self._heard[uid]
        count = bisect_right(moments, moment)
        return versions[count - 1] if count else 0

    async def send(self, request: Request, timeout: float, act: Act) -> Any:
        """Send a request over the network, and wait for its answer."""
        late = self._under_way(request) if request.verb == "patch" else 0.0

        async def carry_out() -> Any:
            CARRIED_OUT.set(Sent(self, request))
            return await act()

        done = await self._ask(request.verb, request.namespace, timeout, carry_out, late)
        if request.verb == "patch":
            self._hear(done)
        return done

    async def list(self, resource: Resource, namespace: str, **options: Any) -> ObjectList:
        """See `ApiServer`."""
        listed = await super().list(resource, namespace, **options)
        if resource == JOBS and keys.INCIDENT not in options.get("label_selector", ""):
            for item in listed.items:
                self._hear(item)
        return listed

    def _hear(self, job: Any) -> None:
        """A Job reached the replica, as an object or as what was read of one."""
        if isinstance(job, dict):
            uid = job["metadata"].get("uid", "")  # (a bookmark has none)
            version = job["metadata"]["resourceVersion"]
        else:
            uid, version = job.uid, job.resource_version
        moments, versions = self._heard[uid]
        if not versions or int(version) > versions[-1]:
            moments.append(asyncio.get_running_loop().time())
            versions.append(int(version))

    async def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        label_selector: str = "",
        timeout: float = 300.0,
        batch_seconds: Callable[[], float] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See `ApiServer`."""
        stream = Stream(
            self._api.watch(
                resource,
                namespace,
                resource_version=resource_version,
                label_selector=label_selector,
                timeout=timeout,
                batch_seconds=batch_seconds,
            )
        )

        async def begin() -> None:
            self._network.opened(self, stream)

        end = asyncio.get_running_loop().time() + timeout + _SILENCE
        try:
            await self._ask("watch", namespace, 30.0, begin)
            while True:
                try:
                    async with asyncio.timeout_at(end):
                        item = await stream.queue.get()
                except TimeoutError:
                    raise Unavailable("the watch hangs: neither news nor its end") from None
                if item is _END:
                    return
                if isinstance(item, ApiError):
                    raise item
                if resource == JOBS and item.object:
                    self._hear(item.object)
                yield item
        finally:
            self._network.closed(self, stream)

    def _under_way(self, request: Request) -> float:
        ambush = self.ambush
        if ambush is None or not request.sets(self.ambushed):
            return 0.0
        self.ambush = None
        return ambush()

    async def _ask(
        self, verb: str, namespace: str, timeout: float, act: Any, late: float = 0.0
    ) -> Any:
        reply = asyncio.get_running_loop().create_future()
        sent_at = asyncio.get_running_loop().time()
        if late:
            self._network.delay(self, late, verb, namespace, act, reply)
        else:
            self._network.send(self, verb, namespace, act, reply)
        try:
            async with asyncio.timeout(timeout):
                date, done = await reply
        except TimeoutError:
            raise Unavailable(f"no answer within {timeout:g} s") from None
        if self.clock is not None and date:
            self.clock.compare(sent_at, date)
        if isinstance(done, ApiError):
            raise done
        return done
