"""Workers under test with an in-memory cluster, failing connections, and virtual time."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import selectors
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from openfero_gitops.admission.admitter import Admitter
from openfero_gitops.admission.cleaner import Cleaner
from openfero_gitops.admission.live_index import LiveIndex
from openfero_gitops.admission.pause import Control
from openfero_gitops.cluster.api import CONFIG_MAPS, JOBS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.cluster.jobs import SELECTOR, JobStore
from openfero_gitops.cluster.listwatch import ListWatch, Pace
from openfero_gitops.delivery.submitter import Submitter
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import AlertGroup, Status
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.control import NAME as CONTROL
from openfero_gitops.domain.control import write_pause
from openfero_gitops.domain.errors import Conflict, SourceError, Unavailable
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.domain.pause import Pause, PauseCause, pause_in_git
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.effects.settler import Settler
from openfero_gitops.jobs.observe import observe, read_remediation
from openfero_gitops.jobs.view import Observer, View
from openfero_gitops.leadership.term import LeaseTerm
from openfero_gitops.tracing import NO_TRACES
from tests.support import build
from tests.support.relay import Act, Relay, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence

    from openfero_gitops.cluster.api import Operation, Resource
    from openfero_gitops.delivery.submitter import DeliveryLimits
    from openfero_gitops.demo.cluster import JobPlayer
    from openfero_gitops.demo.cluster.store import Write
    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.effect import Effect
    from openfero_gitops.domain.reason import Reason
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.ports import Traces

#: The controller's own.
NAMESPACE = "controller"
#: Real seconds that a test in virtual time may take.
_BOUND = 600.0
#: Real seconds after which a thread is taken to hang, far more than any of them needs.
_STUCK_SECONDS = 120.0
#: Of every commit.
_AUTHOR = "Ada <ada@git.example>"
_TIME = "2026-11-21T03:00:00Z"


class _Leap(selectors.DefaultSelector):
    """Waits for threads alone: where a loop would wait, its time moves on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0
        self.end = time.monotonic() + _BOUND

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready; with nothing to wait for either, the test hangs."""
        assert time.monotonic() < self.end, "the test takes too long"
        if timeout is None or (self.threads and timeout > 0):
            ready = super().select(_STUCK_SECONDS)
            assert ready, "everything waits for something that never comes"
            return ready
        ready = super().select(0) if len(self._fd_to_key) > 1 else []  # more than the self-pipe
        if not ready:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes no time."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        """Seconds since the loop began."""
        return self._leap.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Run a function in a thread, without an advance of virtual time."""
        future = super().run_in_executor(executor, func, *args)
        self._leap.threads += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: object) -> None:
        self._leap.threads -= 1


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a loop of its own, and see that it leaves no task behind."""

    async def watched(*arguments: Any, **named: Any) -> None:
        with capture_logs():  # which would fill the output
            await test(*arguments, **named)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(watched(*arguments, **named))

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


def seconds_so_far() -> float:
    """How long the loop has run."""
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], object], within: float = 60.0) -> None:
    """Wait until a condition is true, in the time of the loop.

    It is looked at every 0.01 s at first, and every 0.05 s when it has not come true soon.
    """
    async with asyncio.timeout(within):
        interval = 0.01
        while not condition():
            await asyncio.sleep(interval)
            interval = min(interval * 1.02, 0.05)


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a coroutine during the block; if it fails, the test fails."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})  # and not `await task`: its cancellation is not our own
        if not task.cancelled():
            task.result()


Trouble = Callable[[Request, Act], Awaitable[Any]]


async def none(_: Request, act: Act) -> Any:
    """Cause no failure."""
    return await act()


async def silence(*_: object) -> Any:
    """Accept a request and never answer."""
    await asyncio.Event().wait()


class Wire(Relay):
    """The connection of one replica to the in-memory cluster: `trouble` carries out each request.

    It may raise, wait, do something else first, or lose the answer of a request that was done.
    """

    def __init__(self, api: MemoryCluster) -> None:
        super().__init__(api)
        self.requests: list[Request] = []
        self.trouble: Trouble = none

    def writes(self, resource: Resource = JOBS) -> list[Request]:
        """Return the writes to a resource."""
        return [
            request for request in self.requests if request.writes and request.resource == resource
        ]

    async def send(self, request: Request, timeout: float, act: Act) -> Any:
        """Carry out a request within its timeout."""
        self.requests.append(request)
        try:
            async with asyncio.timeout(timeout):
                return await self.trouble(request, act)
        except TimeoutError as error:
            raise Unavailable(f"no answer within {timeout:g} s") from error


class Tally:
    """Records what the workers report."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.truncated = 0
        self.decisions: list[Reason] = []
        self.ends: list[Remediation] = []
        self.effects: list[tuple[JobKey, Effect, bool]] = []

    def delivered(self, answer: Answer, truncated: int) -> None:
        """Record an answered delivery."""
        self.answers.append(answer)
        self.truncated += truncated

    def decided(self, reason: Reason) -> None:
        """Record an applied decision."""
        self.decisions.append(reason)

    def ended(self, remediation: Remediation) -> None:
        """Record a finished remediation."""
        self.ends.append(remediation)

    def settled(self, remediation: Remediation, *, is_active: bool) -> None:
        """Record an effect, and whether its operario is in the active catalog."""
        assert remediation.effect is not None
        self.effects.append((remediation.key, remediation.effect, is_active))


class World:
    """One cluster and one clock, which begins at `build.NOW`."""

    def __init__(self, player: JobPlayer | None = None) -> None:
        self.cluster = MemoryCluster(player=player, clock=self.now, history=1_000_000)

    def now(self) -> datetime:
        """The wall clock's time."""
        return build.NOW + timedelta(seconds=seconds_so_far())

    def playing(self) -> Any:
        """Let Job controller and kubelet work for as long as the block lasts."""
        return in_background(self.cluster.run())

    def replica(self, name: str = "replica-a", **given: Any) -> Replica:
        """One more replica that works on this cluster."""
        return Replica(self, name, **given)

    async def job(self, key: JobKey) -> Remediation:
        """Return the current state of a Job, whoever created it."""
        return read_remediation(await self.cluster.get(JOBS, key.namespace, key.name))

    async def jobs(self, *namespaces: str) -> list[Remediation]:
        """Return every Job, whoever created it."""
        jobs = [
            job
            for namespace in namespaces or (build.JOBS_NAMESPACE,)
            for job in (await self.cluster.list(JOBS, namespace)).items
        ]
        return [read_remediation(job) for job in jobs]

    async def change(self, key: JobKey, *operations: Operation) -> None:
        """Patch a Job as a user does."""
        await self.cluster.patch(JOBS, key.namespace, key.name, operations)

    async def annotate(self, key: JobKey, annotation: str, value: str) -> None:
        """Write an annotation as a user does."""
        path = f"/metadata/annotations/{keys.pointer(annotation)}"
        await self.change(key, {"op": "add", "path": path, "value": value})

    async def switch(
        self, request: str, *, paused: bool, until: datetime | None = None, reason: str = ""
    ) -> None:
        """Pause or resume as a user does, with an id for the request."""
        data = write_pause("ada", self.now(), paused=paused, until=until, reason=reason)
        data["request"] = request
        metadata = {"name": CONTROL, "namespace": NAMESPACE}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        while True:
            with suppress(Conflict):  # the leader acknowledged another in this very moment
                await ConfigMapStore(self.cluster, NAMESPACE).put(body, lambda: None)
                return

    async def acknowledged(self) -> str:
        """The request that the leader has acknowledged."""
        config_map = await self.cluster.get(CONFIG_MAPS, NAMESPACE, CONTROL)
        return str(config_map["data"].get("acknowledged", ""))

    def writes(self, resource: Resource = JOBS) -> Iterator[Write]:
        """Every write to the cluster since the beginning."""
        return (write for write in self.cluster._store.since(1) if write.resource == resource)

    def starts(self) -> list[JobKey]:
        """Every time a Job was unsuspended, in order."""
        starts = []
        for write in self.writes():
            was = write.before is None or write.before["spec"]["suspend"]
            if write.after is not None and was and not write.after["spec"]["suspend"]:
                starts.append(JobKey(write.namespace, write.after["metadata"]["name"]))
        return starts


class Replica:
    """The workers of one replica, put together as the composition root does it."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        catalog: Catalog | None = None,
        namespaces: Sequence[str] = (build.JOBS_NAMESPACE,),
        limits: DeliveryLimits | None = None,
        replica_labels: frozenset[str] = REPLICA_LABELS,
        traces: Traces = NO_TRACES,
    ) -> None:
        self.world = world
        self.name = name
        self.catalog: Catalog | None = catalog or build.catalog(build.operario())
        self.paused = False
        self.wire = Wire(world.cluster)
        self.jobs = JobStore(self.wire, namespaces, observe)
        self.config_maps = ConfigMapStore(self.wire, NAMESPACE)
        self.control = Control(
            self.config_maps, seconds_so_far, pause_in_git=self._pause, now=world.now
        )
        self.tally = Tally()
        self.view = View(replica_labels)
        pace = Pace(watch_seconds=3600.0, clock=seconds_so_far)
        feed = ListWatch(self.wire, JOBS, namespaces, observe, SELECTOR, pace)
        self.observer = Observer(feed, self.view, namespaces)
        self.submitter = Submitter(
            jobs=self.jobs,
            view=self.view,
            catalog=lambda: self.catalog,
            counts=self.tally,
            now=world.now,
            identity=name,
            jobs_namespace=namespaces[0],
            limits=limits,
            replica_labels=replica_labels,
        )
        self.admitter = Admitter(
            jobs=self.jobs,
            view=self.view,
            index=LiveIndex(self.view),
            catalog=lambda: self.catalog,
            control=self.control,
            counts=self.tally,
            now=world.now,
            identity=name,
            traces=traces,
        )
        self.cleaner = Cleaner(
            jobs=self.jobs,
            view=self.view,
            catalog=lambda: self.catalog,
            counts=self.tally,
            now=world.now,
            traces=traces,
        )
        self.settler = Settler(
            jobs=self.jobs,
            view=self.view,
            catalog=lambda: self.catalog,
            counts=self.tally,
            now=world.now,
        )

    def _pause(self) -> Pause | None:
        if self.paused:
            return Pause(PauseCause.REFUSED_REVISION, "the test paused admission", "the test")
        return pause_in_git(self.catalog, None)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Replica]:
        """Keep the view true for as long as the block lasts."""
        async with in_background(self.observer.run()):
            await until(lambda: self.view.complete)
            yield self

    @asynccontextmanager
    async def leading(self, term: LeaseTerm | None = None) -> AsyncIterator[LeaseTerm]:
        """Admit for as long as the block lasts."""
        term = term or new_term(self.name)
        async with in_background(self.admitter.run(term)):
            yield term

    async def deliver(self, *alerts: Alert, truncated: int = 0) -> Answer:
        """Take a delivery of these alerts."""
        fires = any(alert.status is Status.FIRING for alert in alerts)
        status = Status.FIRING if fires else Status.RESOLVED
        return await self.submitter.deliver(AlertGroup(status, "group", truncated, alerts))


def new_term(name: str, lasts: float = float("inf")) -> LeaseTerm:
    """Return a term that starts now and lasts a number of seconds."""
    loop = asyncio.get_running_loop()
    return LeaseTerm(f"{name}/1", loop.time, loop.time() + lasts)


def pods_of(labels: str = "web-1", **given: Any) -> Alert:
    """An alert about another Pod."""
    return build.alert(
        labels={"alertname": "PodCrashLooping", "pod": labels, "severity": "page"}, **given
    )


def resolved(alert: Alert, ends_at: datetime) -> Alert:
    """Return the same alert as resolved."""
    values = {
        "labels": alert.labels,
        "annotations": alert.annotations,
        "starts_at": alert.starts_at,
        "fingerprint": alert.fingerprint,
    }
    return build.alert(**values, status=Status.RESOLVED, ends_at=ends_at)


class Commits:
    """A source of operarios whose history a test writes; `trouble` runs before each operation.

    (Git itself is tested with the sources that read it.) Files lie below `root`.
    """

    def __init__(
        self, root: str = "", repository: str = "https://git.example/ops", ref: str = "main"
    ) -> None:
        self.root = root
        self.repository = repository
        self.ref = ref
        self.history: list[tuple[str, dict[str, str]]] = []
        self.requests: list[str] = []
        self.trouble: Callable[[str], Awaitable[None]] = _nothing

    @property
    def head(self) -> str:
        """The newest commit."""
        return self.history[-1][0]

    def commit(self, files: Mapping[str, str | None]) -> str:
        """Change these files, remove those that are None, and return the commit."""
        tree = {**self.history[-1][1]} if self.history else {}
        for name, text in files.items():
            path = self._path(name)
            tree.pop(path, None)
            if text is not None:
                tree[path] = text
        sha = hashlib.sha1(repr((len(self.history), tree)).encode()).hexdigest()  # noqa: S324
        self.history.append((sha, tree))
        return sha

    def rewrite(self, files: Mapping[str, str | None]) -> str:
        """Replace the history with another commit."""
        self.history = [("f" * 40, self.history[-1][1])]
        return self.commit(files)

    async def fetch(self) -> Snapshot:
        """See `Source`."""
        await self._access("fetch")
        return self._snapshot(*self.history[-1])

    async def versions(self, path: str, commit: str, limit: int = 100) -> list[SourceFile]:
        """See `Source`."""
        await self._access("versions")
        index = [sha for sha, _ in self.history].index(commit)
        seen = {self.history[index][1].get(path)}
        versions = []
        for sha, tree in reversed(self.history[max(0, index - limit) : index]):
            text = tree.get(path)
            if text not in seen and text is not None:
                versions.append(self._file(path, text, sha, stale=True))
            seen.add(text)
        return versions

    async def existed(self, path: str, commit: str, limit: int = 100) -> bool:
        """See `Source`."""
        return bool(await self.versions(path, commit, limit))

    async def snapshot(self, commit: str) -> Snapshot:
        """See `Source`."""
        await self._access("snapshot")
        return self._snapshot(commit, dict(self.history)[commit])

    async def cases(self, snapshot: Snapshot) -> Snapshot:
        """See `Source`; there are none."""
        await self._access("cases")
        return Snapshot(snapshot.revision, f"{snapshot.root}/tests".strip("/"), ())

    async def ancestors(self, commit: str, limit: int = 100) -> list[str]:
        """See `Source`."""
        await self._access("ancestors")
        commits = [sha for sha, _ in self.history]
        return commits[: commits.index(commit)][::-1][:limit]

    async def is_ancestor(self, older: str, newer: str, *, deepen: bool = True) -> bool:  # noqa: ARG002
        """See `Source`."""
        await self._access("is_ancestor")
        commits = [sha for sha, _ in self.history]
        if newer not in commits:
            raise SourceError(f"commit {newer} is not in the cache")
        return older in commits and commits.index(older) <= commits.index(newer)

    def _snapshot(self, sha: str, tree: Mapping[str, str]) -> Snapshot:
        files = tuple(self._file(path, text, sha) for path, text in sorted(tree.items()))
        revision = Revision(self.repository, self.ref, sha, _AUTHOR, _TIME)
        return Snapshot(revision, self.root, files)

    async def _access(self, operation: str) -> None:
        self.requests.append(operation)
        await self.trouble(operation)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if self.root else name

    def _file(self, path: str, text: str, sha: str, *, stale: bool = False) -> SourceFile:
        content = text.encode()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324
        return SourceFile(path, blob, content, sha, _AUTHOR, _TIME, stale)


async def _nothing(_: str) -> None:
    """Cause no failure."""


def operario_file(name: str, command: str = "true", more: str = "") -> str:
    """Return the YAML of a minimal Job for an alert of this name."""
    return f"""apiVersion: batch/v1
kind: Job
metadata:
  name: openfero-{name}-firing
spec:
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: heal
          image: registry.example/heal:1
          command: ["{command}"]
{more}"""
