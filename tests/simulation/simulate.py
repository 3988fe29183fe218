"""One seed: a cluster, three replicas, two Alertmanagers, people, and faults; and the verdict.

Everything is drawn from the seed, and nothing else is: the same seed plays the same story. The
judge hears of every write to the cluster as it happens, and the story ends with the first broken
promise. After the faults comes a time of rest, in which everything must be decided.
"""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import structlog

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.demo.cluster import Durations, JobPlayer, MemoryCluster, PodOutcome
from openfero_gitops.domain import keys
from openfero_gitops.domain.answer import Verdict
from openfero_gitops.domain.errors import SourceUnavailable
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome as Became
from openfero_gitops.jobs.observe import read_remediation
from tests.simulation.alertmanager import Alertmanager, Fire, fires_of
from tests.simulation.forger import Forger, is_forged
from tests.simulation.loop import PROCESS, Loop
from tests.simulation.network import CARRIED_OUT, Network
from tests.simulation.operarios import (
    NAMESPACES,
    changed,
    draw_envelope,
    draw_operarios,
    envelope_file,
    with_effects,
)
from tests.simulation.people import Kueue, People, pause_as_written
from tests.simulation.replica import Replica
from tests.support import build
from tests.support.history import Answered, Change
from tests.support.verdict import Judge
from tests.support.workers import Commits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.demo.cluster.store import Write
    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.leadership.term import LeaseTerm
    from tests.support.relay import Request

_REPLICAS: Final = 3
#: Seconds in which alerts fire, people act and faults happen.
_TROUBLE: Final = 150.0
#: Seconds after that in which all must have come to rest.
_REST: Final = 420.0
#: Seconds after faults in which somebody leads again and has heard of all.
_QUIET: Final = 60.0
#: Seconds in which a leader then notes what it sees.
_HEEDS: Final = 5.0
#: Seconds that a sender waits for an answer.
_PATIENCE: Final = 10.0
_HOUR: Final = timedelta(hours=1)
#: Of a story that went wrong: so many of the last lines are shown.
_LINES: Final = 120
#: Seconds before a write was sent in which the writer may have decided on it already.
_DECIDES: Final = 1.0
_SETTLES: Final = 2.0
#: Seconds in which a leader decides anew: with a slow API server, and after the faults.
_DECIDES_AGAIN: Final = (60.0, 15.0)
#: Seconds between two looks at what leaders make wait.
_LOOKS: Final = 2.0
#: Somebody forges Jobs in one seed of so many.
_FORGERS: Final = 6
#: In these seeds of each eight, alerts go on after the faults, until that second, and faults are
#: about effects, too.
_PERSISTENT: Final = (4, 6)
_PERSISTS_UNTIL: Final = 420.0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one seed: `wrong` is empty where every promise was kept."""

    seed: int
    wrong: list[str]
    counts: Counter[str]
    trace: list[str] = field(repr=False)

    def story(self) -> str:
        """What went wrong, how it came to that, and how to see it again."""
        last = self.trace[-_LINES:]
        return "\n".join(
            [
                f"seed {self.seed}:",
                *last,
                *self.wrong,
                f"again, from its beginning: python -m tests.simulation --seed {self.seed}",
            ]
        )


class _Failed(Exception):
    """The story ends here."""


def simulate(seed: int, *, tell: bool = False) -> Report:
    """Play one seed; `tell` keeps the story of one that ends well, too."""
    rng = Random(seed)  # noqa: S311
    numbers = Random(seed)  # noqa: S311
    loop = Loop()
    story = Story(seed, loop, rng)

    def numbered() -> uuid.UUID:
        return uuid.UUID(int=numbers.getrandbits(128), version=4)

    collects = gc.isenabled()
    gc.disable()
    try:
        with mock.patch("uuid.uuid4", numbered), story.listening():
            asyncio.set_event_loop(None)
            loop.run_until_complete(story.play())
    finally:
        loop.close()
        if collects:
            gc.enable()
    wrong = [str(violation) for violation in story.judge.violations] + story.wrong
    trace = story.told() if wrong or tell else []
    return Report(seed, wrong, story.count(), trace)


class Story:
    """The world of one seed."""

    def __init__(self, seed: int, loop: Loop, rng: Random) -> None:
        self.seed = seed
        self.loop = loop
        self.rng = rng
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.envelope = draw_envelope(rng)
        self.judge = Judge(self.envelope, slack=timedelta(seconds=1))
        self._over = False
        self._handed_over = -1  # the number of the last term that was
        self._moments: dict[int, float] = {}  # by version of the cluster
        self._notes: list[tuple[float, str, str]] = []
        self._failed = loop.create_future()
        self.commits = Commits()
        self.judge.commits = self.commits.history
        # Of numbers of their own, so that the other stories stay as they are.
        self._effects = Random(f"effects {seed}")  # noqa: S311
        self._operarios = with_effects(draw_operarios(rng), self._effects)
        self.commits.commit(self._operarios | {"openfero.yaml": envelope_file(self.envelope)})
        self._persistent = seed % 8 in _PERSISTENT
        self._calm = False  # the faults are over for long
        self._last_end = 0.0  # of the alerts that go on after the faults
        self._held: dict[str, None] = {}  # uids of Jobs that waited as not helping
        self.player = _Player(rng)
        self.cluster = MemoryCluster(player=self.player, clock=self.true, history=1_000_000)
        self.cluster._store.subscribe(self._written)
        self.network = Network(loop, self.cluster, self.true, Random(rng.random()))  # noqa: S311
        self.people = People(self.cluster, NAMESPACES, self.judge, Random(rng.random()))  # noqa: S311
        # Of numbers of its own, so that the stories of other seeds stay as they are.
        forges = Random(seed)  # noqa: S311
        self.forger = Forger(self.cluster, NAMESPACES, forges, self.true)
        self.kueue = Kueue(self.cluster, self.network, Random(rng.random()))  # noqa: S311
        self.cluster._store.subscribe(self.kueue.told)
        self.replicas: list[Replica] = []
        self._dead: list[Replica] = []
        self._starts = 0
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._alertmanagers: list[Alertmanager] = []

    def true(self) -> datetime:
        """The time of the world."""
        return build.NOW + timedelta(seconds=self.loop.time())

    # The story.

    async def play(self) -> None:
        """From the first alert to the last."""
        self.network.out_there(self.cluster.run())
        for _ in range(_REPLICAS):
            self._start_replica()
        self._plan_alerts()
        self._begin(self._look_at_held())
        for alertmanager in self._alertmanagers:
            self._begin(alertmanager.run())
        self._begin(self._act_as_people())
        if self.seed % _FORGERS == _FORGERS - 1:
            self._begin(self._forge(Random(self.seed)))  # noqa: S311
        self._plan_faults()
        try:
            await asyncio.wait({self._failed}, timeout=_TROUBLE)
            if not self._failed.done():
                await self._mend()
                await self._come_to_rest()
        except _Failed:
            pass
        finally:
            await self._end()

    async def _come_to_rest(self) -> None:
        end = max(self.loop.time(), self._last_end) + _REST
        while self.loop.time() < end:
            await asyncio.wait({self._failed}, timeout=10.0)
            if self._failed.done():
                return
            if self.loop.time() >= self._last_end and not self._unsettled():
                break
        self.wrong += self._unsettled()

    def _unsettled(self) -> list[str]:
        unfinished = [f"nothing was decided about {job}" for job in self.judge.waiting()]
        unfinished += [f"{job} was decided without a reason" for job in self.judge.unexplained()]
        unfinished += [f"effect: {line}" for line in self._unsettled_effects()]
        for alertmanager in self._alertmanagers:
            unfinished += [f"never taken: {fire}" for fire in alertmanager.untold()]
        leaders = [replica.name for replica in self.replicas if replica.leads]
        if len(leaders) != 1:
            unfinished.append(f"{leaders or 'nobody'} leads")
        true = self.judge.phases()
        for replica in self.replicas:
            seen = {str(remediation.key): remediation.phase.value for remediation in replica.view}
            if seen != true:
                differs = sorted(set(seen.items()) ^ set(true.items()))
                unfinished.append(f"{replica.name} sees another cluster: {differs}")
        return unfinished

    def _unsettled_effects(self) -> list[str]:
        """Effects that are not settled, and will be within a minute at most."""
        return self.judge.unsettled(self.true(), self.true() + timedelta(minutes=1))

    async def _end(self) -> None:
        """Leave nothing running."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._over = True
        for replica in [*self.replicas, *self._dead]:
            await replica.bury()
        await self.network.close()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.network.out_there(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.call_exception_handler({"message": "a part of the story", "exception": error})
            self.wrong.append(f"the simulation itself failed: {error!r}")
            self._fail()

    def _fail(self) -> None:
        if not self._failed.done():
            self._failed.set_result(None)

    # What is written to the cluster.

    def _written(self, write: Write) -> None:
        self._moments[write.version] = self.loop.time()
        if self._over or self._failed.done():
            return
        if write.resource == JOBS and is_forged(write.after or write.before or {}):
            self._judge_forged(write)
        elif write.resource == JOBS:
            kind = "MODIFIED" if write.before and write.after else "ADDED"
            job = write.after or write.before
            assert job is not None
            kind = kind if write.after else "DELETED"
            self.judge.change(Change(self.true(), kind, job, self._known_to_writer()))
            self._judge_handing_over(write)
        elif (paused := pause_as_written(write)) is not None:
            if paused:
                self.judge.paused(self.true())
            else:
                self.judge.resumed()
        if self.judge.violations:
            self._fail()

    def _known_to_writer(self) -> Callable[[str], int] | None:
        """What the replica had heard of each Job when it decided on the write; None: no replica."""
        sent = CARRIED_OUT.get()
        if sent is None:
            return None
        at = sent.request.at - self._takes(sent.request)
        for operation in sent.request.body if sent.request.sets(keys.ADMITTED_AT) else ():
            if operation["op"] == "add" and operation["path"].endswith(
                keys.pointer(keys.ADMITTED_AT)
            ):  # of many decisions at once, some are sent late
                decided = datetime.fromisoformat(operation["value"]) - build.NOW
                at = min(at, decided.total_seconds() - _DECIDES)
        return lambda uid: sent.wire.known(uid, at)

    def _takes(self, request: Request) -> float:
        """How many seconds before a write its replica decided on it, at most."""
        if request.sets(keys.EFFECT):
            return _SETTLES
        return _DECIDES_AGAIN[self._calm] if request.sets(keys.DECISION) else _DECIDES

    async def _look_at_held(self) -> None:
        """Let the judge look at what the leaders make wait because it does not help."""
        while True:
            await asyncio.sleep(_LOOKS)
            for replica in self.replicas:
                if not replica.leads or replica.dead or self.loop.is_frozen(replica.name):
                    continue
                for remediation, decision in replica.admitter.decisions:
                    if decision.reason is Reason.NOT_HELPING and remediation.waiting:
                        if remediation.uid not in self._held and self._effects.random() < 0.5:
                            self._begin(self._approve_held(remediation.uid))
                        self._held[remediation.uid] = None
                        self._judge_held(replica, remediation.uid)

    async def _approve_held(self, uid: str) -> None:
        await asyncio.sleep(self._effects.uniform(1, 20))
        await self.people.approve(uid)

    def _judge_held(self, replica: Replica, uid: str) -> None:
        at = self.loop.time() - _DECIDES_AGAIN[self._calm]
        self.judge.held(self.true(), uid, lambda other: replica.wire.known(other, at))
        if self.judge.violations:
            self._fail()

    def _judge_forged(self, write: Write) -> None:
        """The controller neither changes a Job that it did not create, nor deletes it."""
        if write.before is None:
            return
        before = write.before["metadata"]
        changed = write.after is not None and (
            write.after["metadata"]["annotations"] != before["annotations"]
        )
        deleted = write.after is None and before["uid"] not in self.forger.deleted
        if changed or deleted:
            self.wrong.append(f"forged: the controller changed {before['name']}, or deleted it")
            self._fail()

    def _judge_handing_over(self, write: Write) -> None:
        """Where a leader was told that nothing is under way, nothing earlier arrives any more."""
        was, becomes = (
            (job or {"metadata": {}})["metadata"].get("annotations", {}).get(keys.TERM, "")
            for job in (write.before, write.after)
        )
        if becomes not in ("", was) and _number(becomes) < self._handed_over:
            name = (write.after or {})["metadata"]["name"]
            self.wrong.append(f"under-way: {name} was written in {becomes}, which had settled all")
            self._fail()

    # Replicas.

    def _start_replica(self) -> Replica:
        self._starts += 1
        replica = Replica(
            f"replica-{self._starts}",
            self.loop,
            self.network,
            self.commits,
            self.true,
            NAMESPACES,
            Random(self.rng.random()),  # noqa: S311
            self._began,
        )
        self.replicas.append(replica)
        replica.start()
        return replica

    def _began(self, term: LeaseTerm) -> None:
        if term.handed_over:
            self.counts["terms handed over"] += 1
            self._handed_over = max(self._handed_over, _number(term.id))

    async def _deliver(self, group: AlertGroup) -> bool:
        """Send a group to a replica as a Service does; tell whether 200 came back."""
        self.counts["deliveries"] += 1
        sent_at = self.true()
        for alert in group.alerts:
            self.judge.sent(sent_at, alert.labels, alert.status.value)
        replica = self.rng.choice(self.replicas)
        await asyncio.sleep(self.rng.uniform(0.0, 0.01))
        if replica.dead:
            return False
        task = replica.deliver(group)
        task.add_done_callback(lambda done: self._note_answer(sent_at, replica, done))
        await asyncio.wait({task}, timeout=_PATIENCE)
        if not task.done() or task.cancelled() or self.rng.random() < 0.02:  # unheard
            self.counts["deliveries unanswered"] += 1
            return False
        return task.result().verdict is Verdict.ACCEPTED

    def _note_answer(self, sent_at: datetime, replica: Replica, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self._over:
            return
        answer = task.result()
        self.counts[f"answered {answer.verdict.value}"] += 1
        items = [f"{item.outcome} {item.reason or ''} {item.job or ''}" for item in answer.items]
        self.note(f"{replica.name} answers {answer.verdict.value}: {'; '.join(items)}")
        if answer.verdict is not Verdict.ACCEPTED:
            return
        for item in answer.items:
            alert = item.alert
            self.judge.answered(
                Answered(
                    sent_at,
                    self.true(),
                    alert.labels,
                    alert.status.value,
                    alert.starts_at,
                    alert.ends_at,
                    (item.job.namespace, item.job.name)
                    if item.job and item.outcome is not Became.NO_MATCH
                    else None,
                )
            )
        if self.judge.violations:
            self._fail()

    # What is planned.

    def _plan_alerts(self) -> None:
        rng = self.rng
        fires: tuple[list[Fire], list[Fire]] = ([], [])
        for name in ("Crash", "Disk", "Node", "Load", "Queue", "Dry"):
            for number in range(rng.choice((0, 1, 1, 2, 3))):
                labels = {"alertname": name, "pod": f"web-{number}", "node": f"n{number % 2}"}
                begins = rng.uniform(0, 100)
                while begins < _TROUBLE:
                    ends = begins + rng.choice((rng.uniform(5, 40), rng.uniform(30, 150)))
                    for mine in fires:
                        mine.extend(fires_of(labels, begins, ends, build.NOW, rng))
                    begins = ends + rng.uniform(10, 100)
        self._plan_persistent_alerts(fires)
        repeats = rng.choice((20.0, 45.0))
        self._alertmanagers = [
            Alertmanager(
                mine,
                self._deliver,
                build.NOW,
                self.loop.time,
                Random(rng.random()),  # noqa: S311
                repeats,
            )
            for mine in fires
        ]

    def _plan_persistent_alerts(self, fires: Sequence[list[Fire]]) -> None:
        """Alerts of a few targets that no Job heals: they go on, or come back again and again."""
        rng = self._effects
        if not self._persistent:
            return
        for name in ("Crash", "Node", "Load", "Dry"):
            if rng.random() < 0.5:
                continue
            labels = {"alertname": name, "pod": "web-9", "node": "n9"}
            begins = rng.uniform(0, 60)
            while begins < _PERSISTS_UNTIL:
                ends = begins + rng.choice((rng.uniform(20, 60), rng.uniform(60, 180)))
                for mine in fires:
                    mine.extend(fires_of(labels, begins, ends, build.NOW, rng))
                self._last_end = max(self._last_end, ends)
                begins = ends + rng.uniform(5, 60)

    async def _act_as_people(self) -> None:
        every = self.rng.choice((6.0, 12.0, 40.0))
        while self.loop.time() < _TROUBLE:
            await asyncio.sleep(self.rng.expovariate(1 / every))
            await self.people.act()

    async def _forge(self, rng: Random) -> None:
        while self.loop.time() < _TROUBLE:
            await asyncio.sleep(rng.expovariate(1 / 4.0))
            await self.forger.act()

    def _plan_faults(self) -> None:
        rng = self.rng
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._kill,
            self._kill_leader,
            self._terminate,
            self._terminate,
            self._freeze,
            self._freeze_leader,
            self._cut,
            self._lose,
            self._delay,
            self._break_watches,
            self._silence_watches,
            self._expire,
            self._server_down,
            self._server_slow,
            self._throttle,
            self._contend,
            self._forbid,
            self._git_down,
            self._commit,
            self._clock_jumps,
            self._clock_jumps,
            *[self._catch_admission] * 6,
            *[self._stop_over_admission] * 4,
        ]
        for _ in range(rng.randint(3, 14)):
            self._begin(self._at(rng.uniform(5, _TROUBLE - 10), rng.choice(kinds)))
        if self._persistent:
            self._plan_faults_of_effects(self._effects)

    def _plan_faults_of_effects(self, rng: Random) -> None:
        kinds = [self._change_operario, self._catch_effect, self._catch_effect]
        for _ in range(rng.randint(1, 4)):
            self._begin(self._at(rng.uniform(5, _TROUBLE - 10), rng.choice(kinds)))

    async def _at(self, moment: float, fault: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(moment - self.loop.time())
        name = fault.__name__.strip("_").replace("_", " ")
        self.counts[f"fault: {name}"] += 1
        await fault()

    # The faults.

    def _any(self) -> Replica:
        return self.rng.choice(self.replicas)

    def _leader(self) -> Replica:
        leaders = [replica for replica in self.replicas if replica.leads]
        return self.rng.choice(leaders or self.replicas)

    async def _replace(self, replica: Replica) -> None:
        if replica in self.replicas:
            self.replicas.remove(replica)
            self._dead.append(replica)
            self._start_replica()

    async def _kill(self, replica: Replica | None = None) -> None:
        replica = replica or self._any()
        self.note(f"{replica.name} is killed")
        replica.kill()
        await asyncio.sleep(self.rng.choice((0.5, self.rng.uniform(1, 30))))
        await self._replace(replica)

    async def _kill_leader(self) -> None:
        await self._kill(self._leader())

    async def _terminate(self, replica: Replica | None = None) -> None:
        replica = replica or self._leader()
        self.note(f"{replica.name} receives SIGTERM")
        match self.rng.choice(("freeze", "delay", "lose", "", "", "")):
            case "freeze":
                self._begin(self._freeze_soon(replica))
            case "delay":
                replica.wire.link.latency = self.rng.uniform(0.5, 7.0)
            case "lose":
                replica.wire.link.lost = self.rng.uniform(0.05, 0.5)
        await replica.stop()
        await self._replace(replica)

    async def _freeze_soon(self, replica: Replica) -> None:
        await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0, 0.05))))
        await self._freeze(replica)

    async def _freeze(self, replica: Replica | None = None) -> None:
        replica = replica or self._any()
        if replica.dead:
            return
        seconds = self.rng.choice((self.rng.uniform(1, 10), self.rng.uniform(10, 60)))
        self.note(f"{replica.name} is frozen for {seconds:.1f} s")
        self.loop.freeze(replica.name)
        await asyncio.sleep(seconds)
        if not replica.dead:
            self.note(f"{replica.name} thaws")
            self.loop.thaw(replica.name)

    async def _freeze_leader(self) -> None:
        await self._freeze(self._leader())

    async def _cut(self, replica: Replica | None = None) -> None:
        replica = replica or (self._leader() if self.rng.random() < 0.5 else self._any())
        seconds = self.rng.uniform(2, 50)
        self.note(f"{replica.name} is cut off for {seconds:.1f} s")
        replica.wire.link.cut = True
        await asyncio.sleep(seconds)
        replica.wire.link.cut = False

    async def _lose(self) -> None:
        replica = self._any()
        self.note(f"messages of {replica.name} are lost")
        replica.wire.link.lost = self.rng.uniform(0.05, 0.5)
        await asyncio.sleep(self.rng.uniform(5, 60))
        replica.wire.link.lost = 0.0

    async def _delay(self) -> None:
        replica = self._any()
        self.note(f"messages of {replica.name} are late")
        replica.wire.link.latency = self.rng.uniform(0.5, 7.0)
        await asyncio.sleep(self.rng.uniform(5, 60))
        replica.wire.link.latency = 0.004

    async def _break_watches(self) -> None:
        self.note("watches break")
        self.network.break_streams(self._any().wire)

    async def _silence_watches(self) -> None:
        replica = self._any()
        self.note(f"watches of {replica.name} say nothing any more")
        self.network.silence_streams(replica.wire)

    async def _expire(self) -> None:
        self.note("the history is forgotten")
        self.network.expire()

    async def _server_down(self) -> None:
        self.note("the API server is down")
        self.network.server.down = True
        self.network.break_streams()
        await asyncio.sleep(self.rng.uniform(1, 30))
        self.network.server.down = False

    async def _server_slow(self) -> None:
        self.note("the API server is slow")
        self.network.server.slow = self.rng.uniform(0.5, 12.0)
        await asyncio.sleep(self.rng.uniform(5, 40))
        self.network.server.slow = 0.0

    async def _throttle(self) -> None:
        self.note("the API server throttles")
        self.network.server.throttles = self.rng.uniform(0.2, 0.9)
        await asyncio.sleep(self.rng.uniform(5, 40))
        self.network.server.throttles = 0.0

    async def _contend(self) -> None:
        self.note("a quota is contended")
        self.network.server.contended = 0.5
        await asyncio.sleep(self.rng.uniform(5, 40))
        self.network.server.contended = 0.0

    async def _forbid(self) -> None:
        namespace = self.rng.choice(NAMESPACES)
        self.note(f"namespace {namespace} is forbidden")
        self.network.server.forbidden.add(namespace)
        await asyncio.sleep(self.rng.uniform(5, 60))
        self.network.server.forbidden.discard(namespace)

    async def _git_down(self) -> None:
        self.note("Git is gone")
        self.commits.trouble = _gone
        await asyncio.sleep(self.rng.uniform(5, 120))
        self.commits.trouble = _nothing

    async def _clock_jumps(self) -> None:
        replica = self._leader() if self.rng.random() < 0.5 else self._any()
        replica.skew = self.rng.choice((_HOUR, -_HOUR))
        self.note(f"the clock of {replica.name} jumps by {replica.skew}")
        await asyncio.sleep(self.rng.uniform(1, 120))
        replica.skew = timedelta(0)

    async def _is_caught(
        self, replica: Replica, longest: float, key: str = keys.ADMITTED_AT
    ) -> bool:
        """Whether it soon writes that annotation; that is then under way for so long at most."""
        sent = self.loop.create_future()

        def ambush() -> float:
            sent.set_result(None)
            return self.rng.choice((self.rng.uniform(0.1, 4.5), self.rng.uniform(5, longest)))

        replica.wire.ambush, replica.wire.ambushed = ambush, key
        await asyncio.wait({sent}, timeout=60.0)
        if not sent.done() or replica.dead:
            return False
        what = "an admission" if key == keys.ADMITTED_AT else "an effect"
        self.note(f"{what} of {replica.name} is under way for long")
        return True

    async def _stop_over_admission(self) -> None:
        """While its next admission is under way, or has no answer yet, the leader is to stop.

        With a pause the next one cannot take the same Job out of its way by admitting it itself.
        """
        replica = self._leader()
        if not await self._is_caught(replica, 15.0):
            return
        if self.rng.random() < 0.7:
            await self.people.pause()
        await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0.5, 6.0))))
        if not replica.dead and not replica.stopping:
            await self._terminate(replica)

    async def _catch_admission(self) -> None:
        """While its next admission is under way, something happens to the leader, or a pause."""
        replica = self._leader()
        if not await self._is_caught(replica, 55.0):
            return
        if self.rng.random() < 0.5:
            self._begin(self._pause_soon())
        alone = self._leave_alone
        await self.rng.choice((self._kill, self._freeze, self._cut, alone, alone))(replica)

    async def _catch_effect(self) -> None:
        """While an effect that the leader settled is under way, another leader settles it."""
        replica = self._leader()
        if await self._is_caught(replica, 40.0, keys.EFFECT):
            await self.rng.choice((self._kill, self._freeze, self._cut))(replica)

    async def _leave_alone(self, _: Replica) -> None:
        """Let it be."""

    async def _pause_soon(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 4))
        await self.people.pause()

    async def _commit(self) -> None:
        self.note("a commit")
        self.commits.commit({"readme.yaml": f"# {self.loop.time()}\n"})

    async def _change_operario(self) -> None:
        """Commit another version of one operario, which may help."""
        path = self.rng.choice(sorted(self._operarios))
        self.note(f"a commit that changes {path}")
        self._operarios[path] = changed(self._operarios[path])
        self.commits.commit({path: self._operarios[path]})

    async def _mend(self) -> None:
        """The faults are over."""
        self.note("the faults are over")
        for task in list(self._tasks):
            name = getattr(task.get_coro(), "__qualname__", "")
            if name.endswith(("_at", "_act_as_people", "_forge", "_pause_soon", "_freeze_soon")):
                task.cancel()
        server = self.network.server
        server.down, server.slow, server.throttles, server.contended = False, 0.0, 0.0, 0.0
        server.forbidden.clear()
        self.commits.trouble = _nothing
        for replica in list(self.replicas):
            replica.skew = timedelta(0)
            replica.wire.ambush = None
            link = replica.wire.link
            link.latency, link.lost, link.cut = 0.004, 0.0, False
            if replica.stopping and not replica.dead:
                replica.kill()
            if replica.dead:
                await self._replace(replica)
            else:
                self.loop.thaw(replica.name)
        await self._touch()
        await self.forger.clean_up()
        await self.people.resume()
        await self.people.release()

    async def _touch(self) -> None:
        """Start and suspend by hand what a pause keeps waiting, now that every leader listens."""
        await self.people.pause()
        await asyncio.sleep(_QUIET)
        self.judge.hearsay = timedelta(seconds=_HEEDS)
        self._calm = True
        await self.people.start_and_suspend(2 * _HEEDS)
        await asyncio.sleep(_QUIET)

    # What is told of it.

    def note(self, text: str, actor: str = "") -> None:
        """Write a line of the story."""
        self._notes.append((self.loop.time(), actor, text))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take what the workers log into the story."""
        processors = structlog.get_config()["processors"]
        before = list(processors)

        def hear(_: Any, __: str, event: Any) -> Any:
            self._notes.append((self.loop.time(), PROCESS.get(), event))  # type: ignore[arg-type]
            raise structlog.DropEvent

        try:
            processors[:] = [hear]
            yield
        finally:
            processors[:] = before

    def count(self) -> Counter[str]:
        """Everything that was counted."""
        counts = self.counts + self.network.counts
        counts.update({f"people: {word}": count for word, count in self.people.counts.items()})
        counts.update({f"forger: {word}": count for word, count in self.forger.counts.items()})
        for write in self.cluster._store.since(1):
            if write.resource == JOBS:
                counts["writes to Jobs"] += 1
                if write.before is None:
                    counts["Jobs"] += 1
        counts["replicas"] = self._starts
        counts["Jobs held as not helping"] = len(self._held)
        for effect in self.judge.effects():
            counts[f"effect: {effect}"] += 1
        for phase in self.judge.phases().values():
            counts[f"phase: {phase}"] += 1
        return counts

    def told(self) -> list[str]:
        """The story, line by line."""
        lines = [(at, f"{actor:12} {_words(text)}") for at, actor, text in self._notes]
        moments = self._moments
        lines += [(moments.get(write.version, 0.0), words) for write, words in self._changes()]
        return [f"{at:9.3f} {text}" for at, text in sorted(lines, key=lambda line: line[0])]

    def _changes(self) -> Iterator[tuple[Write, str]]:
        for write in self.cluster._store.since(1):
            if write.resource == JOBS:
                yield write, _difference(write)


def _number(term: str) -> int:
    """The how-manieth term of the lease it is."""
    return int(term.split("/")[1])


def _words(event: Any) -> str:
    if isinstance(event, str):
        return event
    event = dict(event)
    first = event.pop("event", "")
    return f"{first} {' '.join(f'{key}={value}' for key, value in event.items())}"


def _difference(write: Write) -> str:
    before, after = write.before, write.after
    present = after or before or {}
    name = present["metadata"]["name"]
    if after is None:
        return f"  {name} is deleted"
    was, now = (_flat(before) if before else {}), _flat(after)
    changes = [f"{key}={now[key]}" for key in now if was.get(key) != now[key]]
    changes += [f"{key} removed" for key in was if key not in now]
    return f"  {name} {read_remediation(after).phase}: {' '.join(changes)}"


_TOLD: Final = ("suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished")


def _flat(job: Object) -> dict[str, Any]:
    annotations = job["metadata"]["annotations"]
    values = {key.removeprefix("openfero.io/"): value for key, value in annotations.items()}
    for key in ("alert", "options", "commit", "blob", "commit-author"):
        values.pop(key, None)
    values |= {key: job["spec"].get(key) for key in _TOLD}
    status = job.get("status") or {}
    values |= {key: status.get(key) for key in ("active", "terminating", "startTime")}
    values["conditions"] = [
        condition["type"]
        for condition in status.get("conditions") or ()
        if condition["status"] == "True"
    ]
    return values


class _Player(JobPlayer):
    """Plays Pods that take a while, and some of which fail."""

    def __init__(self, rng: Random) -> None:
        super().__init__(Durations(), self._ends)
        self._rng = Random(rng.random())  # noqa: S311
        self._longest = rng.choice((3.0, 20.0, 40.0))
        self._known: dict[str, float] = {}

    def run_for(self, pod: Object) -> float:
        """Seconds until this Pod ends by itself."""
        return self._drawn(pod, "run", self._longest)

    def stop_for(self, pod: Object) -> float:
        """Seconds until this Pod is gone once it is deleted."""
        return self._drawn(pod, "stop", 5.0)

    def _drawn(self, pod: Object, step: str, longest: float) -> float:
        key = f"{pod['metadata']['uid']} {step}"
        if key not in self._known:
            self._known[key] = self._rng.choice((0.0, self._rng.uniform(0, longest)))
        return self._known[key]

    def _ends(self, _: Object) -> PodOutcome:
        return PodOutcome(1, "it did not help") if self._rng.random() < 0.2 else PodOutcome()


async def _gone(_: str) -> None:
    raise SourceUnavailable("Git is gone")


async def _nothing(_: str) -> None:
    """Git answers."""
