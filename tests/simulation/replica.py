"""One replica as a process: the real workers, started, killed, frozen and thawed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.admission.admitter import Admitter
from openfero_gitops.admission.cleaner import Cleaner
from openfero_gitops.admission.live_index import LiveIndex
from openfero_gitops.admission.pause import Control
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.mirrorer import Mirrorer, load_mirror
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.clock import Clock
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.cluster.jobs import SELECTOR, JobStore
from openfero_gitops.cluster.lease import KubernetesLease
from openfero_gitops.cluster.listwatch import ListWatch, Pace
from openfero_gitops.delivery.submitter import Submitter
from openfero_gitops.domain.errors import ApiError, ClockWrong, SourceError
from openfero_gitops.domain.lease import LeaseDurations
from openfero_gitops.effects.settler import Settler
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.view import Observer, View
from openfero_gitops.leadership.elector import Elector, WorkStuck
from openfero_gitops.leadership.term import TermEnded
from tests.simulation.loop import context_of
from tests.support.workers import NAMESPACE, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from openfero_gitops.catalog.syncer import Source
    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.leadership.term import LeaseTerm
    from tests.simulation.loop import Loop
    from tests.simulation.network import Network

#: Seconds between two looks at Git.
_INTERVAL: Final = 60.0
#: Seconds that a process is given to end after SIGTERM.
_GRACE: Final = 30.0


class Replica:
    """The workers of one process, put together as the composition root does it.

    `true` is the time of the world; this process' own is off by `skew`. `began` is told of each
    term in which it leads.
    """

    def __init__(
        self,
        name: str,
        loop: Loop,
        network: Network,
        source: Source,
        true: Callable[[], datetime],
        namespaces: Sequence[str],
        rng: Random,
        began: Callable[[LeaseTerm], None],
    ) -> None:
        self.name = name
        self._began = began
        self.skew = timedelta(0)
        self.dead = False
        self.stopping = False
        self.leads = False
        self.wire = network.wire()
        self._loop = loop
        self._network = network
        self._true = true
        self.clock = self.wire.clock = Clock(self.wall, loop.time)
        self._context = context_of(name)
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._main: asyncio.Task[None] | None = None
        tally = Tally()
        jobs = JobStore(self.wire, namespaces, observe)
        self.config_maps = ConfigMapStore(self.wire, NAMESPACE)
        self.syncer = Syncer(
            source=source,
            scope=Scope(jobs_namespace=namespaces[0], allowed_namespaces=tuple(namespaces)),
            counts=_Nothing(),
            now=self.wall,
            clock=loop.time,
        )
        self.view = View()
        pace = Pace(clock=loop.time, jitter=rng.random)
        self.observer = Observer(
            ListWatch(self.wire, JOBS, namespaces, observe, SELECTOR, pace), self.view, namespaces
        )
        self.control = Control(self.config_maps, loop.time, pause_in_git=lambda: self.syncer.pause)
        self.submitter = Submitter(
            jobs=jobs,
            view=self.view,
            catalog=lambda: self.syncer.catalog,
            counts=tally,
            now=self.clock.now,
            identity=name,
            jobs_namespace=namespaces[0],
        )
        self.admitter = Admitter(
            jobs=jobs,
            view=self.view,
            index=LiveIndex(self.view),
            catalog=lambda: self.syncer.catalog,
            control=self.control,
            counts=tally,
            now=self.clock.now,
            identity=name,
            stopwatch=loop.time,
        )
        self.cleaner = Cleaner(
            jobs=jobs,
            view=self.view,
            catalog=lambda: self.syncer.catalog,
            counts=tally,
            now=self.clock.now,
        )
        self.settler = Settler(
            jobs=jobs,
            view=self.view,
            catalog=lambda: self.syncer.catalog,
            counts=tally,
            now=self.clock.now,
        )
        self.mirrorer = Mirrorer(self.config_maps, self.syncer)
        self.elector = Elector(
            KubernetesLease(self.wire, NAMESPACE),
            name,
            LeaseDurations(),
            self._lead,
            on_change=(self._told,),
            clock=loop.time,
            wall=self.wall,
            rng=Random(rng.random()),  # noqa: S311
        )

    def wall(self) -> datetime:
        """The time on this process' wall clock, right or wrong."""
        return self._true() + self.skew

    # A process.

    def start(self) -> None:
        """Start the process."""
        self._main = self._spawn(self._run())

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more. Requests that it sent stay in flight."""
        self.dead = True
        self._loop.freeze(self.name)
        self._network.break_streams(self.wire)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after a while."""
        self.stopping = True
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait({self._main}, timeout=_GRACE)
        self.kill()

    def deliver(self, group: AlertGroup) -> asyncio.Task[Answer]:
        """Take a delivery, in the process."""
        return self._spawn(self.submitter.deliver(group))

    async def bury(self) -> None:
        """End what is left of a process at the end of a simulation; it can do no harm."""
        self.wire.closed = True
        self._loop.thaw(self.name)
        while left := [task for task in self._tasks if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work, context=self._context)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    # What the composition root does.

    async def _run(self) -> None:
        parts: list[Any] = [
            self.observer.run(),
            self.control.run(),
            self._sync(),
            self._stand(),
        ]
        tasks = [self._spawn(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in reversed(tasks):
                task.cancel()
                await asyncio.wait({task})

    async def _stand(self) -> None:
        try:
            await self.elector.run()
        except WorkStuck:
            if not self.wire.closed:  # it is not buried already
                self.kill()

    async def _sync(self) -> None:
        try:
            loaded = await load_mirror(self.config_maps)
            if loaded is not None:
                await self.syncer.restore(*loaded)
        except (ApiError, SourceError):
            pass
        while True:
            await self.syncer.sync()
            await asyncio.sleep(_INTERVAL)

    async def _lead(self, term: LeaseTerm) -> None:
        try:
            self.clock.now()
            self._began(term)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.admitter.run(term))
                tasks.create_task(self.mirrorer.run(term))
                tasks.create_task(self.cleaner.run(term))
                tasks.create_task(self.settler.run(term))
        except* (TermEnded, ClockWrong):
            pass

    def _told(self, status: Any) -> None:
        self.leads = status.leader


class _Nothing:
    """Counts nothing."""

    def synced(self, status: Any) -> None:
        """See `Counts`."""
