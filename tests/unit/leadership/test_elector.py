"""The elector against the in-memory cluster, in virtual time, with faults in between."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openfero_gitops.cluster.api import LEASES
from openfero_gitops.cluster.lease import KubernetesLease
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
    UsageError,
)
from openfero_gitops.domain.lease import LeaseDurations, LeaseRecord
from openfero_gitops.leadership.election import LeadershipReason
from openfero_gitops.leadership.elector import Elector, WorkStuck, boottime
from openfero_gitops.leadership.term import LeaseTerm, TermEnded
from tests.support.depth import scaled
from tests.support.relay import Act, Relay, Request
from tests.support.workers import in_virtual_time, until
from tests.support.workers import seconds_so_far as now

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
    )

    from openfero_gitops.cluster.api import Object, WatchEvent
    from openfero_gitops.domain.lease import Leadership

NAMESPACE = "healing"
NAME = "openfero-gitops"
DURATIONS = LeaseDurations(15, 10, 2)
EVERY_ERROR = [
    AlreadyExists("fault"),
    Conflict("fault"),
    Expired("fault"),
    Forbidden("fault"),
    Invalid("fault"),
    NotFound("fault"),
    Throttled("fault"),
    Unauthorized("fault"),
    Unavailable("fault"),
]
by_kind = pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)


class Lost:
    """A request that does not arrive."""


class Unheard:
    """A request that is carried out, and its answer lost."""


class Late:
    """A request that is carried out so many seconds later, whoever still waits."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


Fault = ApiError | Lost | Unheard | Late | None


class Network(Relay):
    """The in-memory cluster as one replica reaches it: `fault` chooses what happens to a request.

    `sent` has the time, verb and timeout of each request, `done` those that were carried out.
    """

    def __init__(self, api: MemoryCluster) -> None:
        super().__init__(api)
        self.sent: list[tuple[float, str, float]] = []
        self.done: list[tuple[float, str]] = []
        self.fault: Callable[[str], Fault] = lambda _: None
        self._late: set[asyncio.Task[Any]] = set()

    async def settle(self) -> None:
        """Wait for the requests that are still on their way."""
        if self._late:
            await asyncio.wait(self._late)

    async def send(self, request: Request, timeout: float, act: Act) -> Any:
        """Carry out a request, unless a fault befalls it."""
        verb = request.verb
        self.sent.append((now(), verb, timeout))
        fault = self.fault(verb)
        if isinstance(fault, ApiError):
            raise type(fault)(str(fault))
        if isinstance(fault, Late):
            task = asyncio.create_task(self._later(verb, act, fault.seconds), name="late")
            self._late.add(task)
            task.add_done_callback(self._arrived)
            done, _ = await asyncio.wait({task}, timeout=timeout)
            if not done:
                raise Unavailable("no answer in time")
            return task.result()
        if not isinstance(fault, Lost):
            answer = await act()
            if not isinstance(fault, Unheard):
                self.done.append((now(), verb))
                return answer
        await asyncio.sleep(timeout)
        raise Unavailable("no answer in time")

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        """Note how a late request ended, whether or not anybody still waits for it."""
        self._late.discard(task)
        if not task.cancelled():
            task.exception()

    async def _later(self, verb: str, act: Act, seconds: float) -> Any:
        await asyncio.sleep(seconds)
        answer = await act()
        self.done.append((now(), verb))
        return answer


class Replica:
    """An elector, and guarded work that notes when it believed what."""

    def __init__(
        self,
        api: MemoryCluster,
        identity: str,
        *,
        seed: int = 1,
        durations: LeaseDurations = DURATIONS,
    ) -> None:
        self.network = Network(api)
        self.wall = datetime(2026, 11, 21, tzinfo=UTC)
        self.wall_runs = True
        self.history: list[Leadership] = []
        self.terms: list[LeaseTerm] = []
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.held: list[tuple[float, float]] = []  # from when to when the term's check said yes
        self.crash_after = float("inf")
        self.return_after = float("inf")
        self.deaf = 0.0
        self.settles: bool | None = True  # how it leaves things when told to finish, None: never
        self.elector = Elector(
            KubernetesLease(self.network, NAMESPACE, NAME),  # type: ignore[arg-type]
            identity,
            durations,
            self._work,
            on_change=[self.history.append],
            clock=asyncio.get_running_loop().time,
            wall=lambda: self.wall + timedelta(seconds=now() if self.wall_runs else 0),
            rng=random.Random(seed),  # noqa: S311
        )

    async def _work(self, term: LeaseTerm) -> None:
        self.terms.append(term)
        self.begun.append(now())
        cancelled: float | None = None
        try:
            while cancelled is None or now() < cancelled + self.deaf:
                if term.holds() and not term.finished.is_set():
                    since = self.held.pop()[0] if len(self.held) == len(self.terms) else now()
                    self.held.append((since, now()))
                try:
                    await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    cancelled = now()
                if term.closing.is_set() and self.settles is not None:
                    term.finish(settled=self.settles)
                if now() > self.begun[-1] + self.return_after:
                    return
                if now() > self.begun[-1] + self.crash_after:
                    raise RuntimeError("the work crashes")
        finally:
            self.ended.append(now())

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[asyncio.Task[Any]]:
        """Run the elector, and stop it as SIGTERM would."""
        task = asyncio.create_task(self.elector.run(), name="elector")
        try:
            yield task
        finally:
            await stop(task)
            await self.network.settle()

    async def lead_once(self) -> None:
        """Stand until it leads, and stop."""
        async with self.standing():
            await until(lambda: self.terms)


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel an elector, once, and wait for its end."""
    if not task.cancelling():
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def lease_of(api: MemoryCluster) -> Any:
    """Return the Lease's spec."""
    return (await api.get(LEASES, NAMESPACE, NAME))["spec"]


class TestTerm:
    """What the guarded work is handed."""

    def test_check_refuses_from_the_deadline_on(self) -> None:
        """The deadline itself is too late, and a clock that went back changes nothing."""
        clock = iter([9.9, 9.9, 10.0, 5.0, 5.0])
        term = LeaseTerm("a/1", clock.__next__, 10.0)
        assert term.holds()
        assert term.remaining() == pytest.approx(0.1)
        with pytest.raises(TermEnded, match="a/1"):
            term.check()
        assert not term.holds()
        assert term.remaining() == 0

    def test_renewal_moves_the_deadline_forward_only(self) -> None:
        """A renewal that was begun earlier and answered later takes nothing away."""
        term = LeaseTerm("a/1", lambda: 5.0, 10.0)
        assert term.extend(12.0)
        assert term.extend(11.0)
        assert term.remaining() == 7.0

    def test_ended_term_is_not_revived(self) -> None:
        """A renewal that succeeds too late does not bring a term back."""
        clock = [0.0]
        term = LeaseTerm("a/1", lambda: clock[0], 10.0)
        clock[0] = 10.5
        assert not term.extend(19.0)
        assert not term.holds()

    def test_term_that_was_ended_early_stays_so(self) -> None:
        """Whatever its deadline, work that was told to stop writes nothing more."""
        term = LeaseTerm("a/1", lambda: 0.0, 10.0)
        term.end()
        assert not term.extend(20.0)
        with pytest.raises(TermEnded):
            term.check()

    def test_work_that_ends_unasked_or_too_late_hands_nothing_over(self) -> None:
        """Nothing is settled before the replica is to stop, nor after its term."""
        clock = [0.0]
        term = LeaseTerm("a/1", lambda: clock[0], 10.0)
        term.finish(settled=True)
        assert not term.settled
        term.closing.set()
        term.finish(settled=True)
        assert term.settled
        clock[0] = 11.0
        term.finish(settled=True)
        assert not term.settled

    def test_clock_counts_what_the_machine_slept(self) -> None:
        """The clock is CLOCK_BOOTTIME: it is never behind the monotonic one."""
        assert time.monotonic() <= boottime()


class TestLeading:
    """A replica alone."""

    @in_virtual_time
    async def test_fresh_cluster_is_led_at_once_and_kept(self) -> None:
        """The Lease is created, renewed every retry period, and shows who, since when."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        async with replica.standing():
            await asyncio.sleep(60)
            assert replica.begun == [0.0]
            assert not replica.ended
            spec = await lease_of(api)
            assert spec == {
                "holderIdentity": "a",
                "leaseDurationSeconds": 15,
                "acquireTime": "2026-11-21T00:00:00.000000Z",
                "renewTime": spec["renewTime"],
                "leaseTransitions": 0,
            }
            assert spec["renewTime"] >= "2026-11-21T00:00:58.000000Z"
            renewals = [at for at, verb, _ in replica.network.sent if verb == "replace"]
            assert renewals == pytest.approx(range(2, 61, 2))
            status = replica.elector.status
            assert (status.leader, status.holder) == (True, "a")
            assert status.since == replica.wall
            assert status.term == replica.terms[0].id == "a/0/2026-11-21T00:00:00.000000Z"

    @in_virtual_time
    async def test_each_leadership_has_an_id_of_its_own(self) -> None:
        """The same process that leads again does so under another term."""
        replica = Replica(MemoryCluster(), "a")
        replica.crash_after = 5
        async with replica.standing():
            await asyncio.sleep(120)
        ids = [term.id for term in replica.terms]
        assert len(ids) == len(set(ids)) > 3
        assert not any(term.holds() for term in replica.terms)

    @pytest.mark.parametrize("released", [True, False])
    @in_virtual_time
    async def test_a_term_knows_whether_somebody_led_since_the_last(
        self,
        released: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """It continues the own term before, run out or released, unless another came between."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)

        async def lose(replica: Replica) -> None:
            terms = len(replica.terms)
            replica.network.fault = lambda verb: Lost() if verb == "replace" else None
            await until(lambda: len(replica.ended) == terms, 60)
            if not released:
                await asyncio.sleep(DURATIONS.request_timeout + 1)
            replica.network.fault = lambda _: None

        async with a.standing():
            await until(lambda: len(a.terms) == 1)
            await lose(a)
            await until(lambda: len(a.terms) == 2)
            async with b.standing():
                await asyncio.sleep(60)
                assert not b.terms
                a.network.fault = lambda _: Lost()
                await until(lambda: b.terms)
                a.network.fault = lambda _: None
            await until(lambda: len(a.terms) == 3)
        first, second, third = a.terms
        assert (first.continues, second.continues, third.continues) == ("", first.id, "")
        assert b.terms[0].continues == ""

    @in_virtual_time
    async def test_a_lease_that_was_taken_unheard_continues_nothing(self) -> None:
        """Whom that acquisition followed is not known by who takes it back."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.standing():
            await until(lambda: len(a.terms) == 1)
            a.network.fault = lambda _: Lost()
            async with b.standing():
                await until(lambda: b.terms)
                await asyncio.sleep(30)
                a.network.fault = lambda verb: Unheard() if verb == "replace" else None
            await asyncio.sleep(5)
            a.network.fault = lambda _: None
            await until(lambda: len(a.terms) == 2)
        assert a.terms[1].continues not in {term.id for term in (*a.terms, *b.terms)}

    @in_virtual_time
    async def test_stopping_frees_the_lease_after_the_work_has_ended(self) -> None:
        """The next one takes it at once, and cannot have met the work."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.deaf = 3
        async with replica.standing() as task:
            await asyncio.sleep(30)
            task.cancel()
            await asyncio.sleep(2)
            assert not replica.terms[0].holds()
            assert not replica.elector.status.leader
            assert (await lease_of(api))["holderIdentity"] == "a"
        assert replica.ended == [pytest.approx(33, abs=0.2)]
        assert (await lease_of(api))["holderIdentity"] == ""
        assert replica.elector.status.holder == ""
        assert now() < 34

    @in_virtual_time
    async def test_stopping_waits_for_work_that_was_told_to_end_before(self) -> None:
        """SIGTERM while the work of an ended term takes its time does not leave it behind."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.deaf = 8
        async with replica.standing() as task:
            await asyncio.sleep(4.5)
            replica.network.fault = lambda _: Lost()
            await asyncio.sleep(12)
            assert not replica.terms[0].holds()
            replica.network.fault = lambda _: None
            task.cancel()
        assert replica.ended == [pytest.approx(4 + 10 + 8, abs=0.2)]
        assert now() == pytest.approx(22, abs=0.2)
        assert (await lease_of(api))["holderIdentity"] == ""

    @in_virtual_time
    async def test_stopping_without_a_cluster_does_not_hang(self) -> None:
        """Where the lease cannot be freed, it runs out; the process ends in a request's time."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.standing():
            await asyncio.sleep(30)
            replica.network.fault = lambda _: Lost()
            begun = now()
        assert now() - begun <= DURATIONS.request_timeout + 0.2
        assert len(replica.ended) == 1

    @in_virtual_time
    async def test_stopping_over_a_lost_answer_frees_the_lease_too(self) -> None:
        """A lease that was won without being told is not left behind."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.network.fault = lambda verb: Unheard() if verb == "create" else None
        async with replica.standing():
            await asyncio.sleep(1)
            assert (await lease_of(api))["holderIdentity"] == "a"
        assert (await lease_of(api))["holderIdentity"] == ""
        assert not replica.begun

    @in_virtual_time
    async def test_no_request_may_use_up_half_the_deadline(self) -> None:
        """Each has a timeout, so that another one fits in before the term ends."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.standing():
            await asyncio.sleep(20)
        assert all(
            0 < timeout < DURATIONS.renew_deadline / 2
            for _, verb, timeout in replica.network.sent
            if verb != "watch"
        )

    @in_virtual_time
    async def test_listener_that_fails_changes_nothing(self) -> None:
        """A page or a metric that breaks does not keep a replica from leading or stopping."""
        api = MemoryCluster()

        def fail(_: Leadership) -> None:
            raise ValueError("a page is broken")

        ended = []

        async def lead(term: LeaseTerm) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(term.id)

        elector = Elector(
            KubernetesLease(api, NAMESPACE, NAME), "a", DURATIONS, lead, on_change=[fail], clock=now
        )
        task = asyncio.create_task(elector.run())
        await asyncio.sleep(5)
        assert elector.status.leader
        await stop(task)
        assert len(ended) == 1
        assert (await lease_of(api))["holderIdentity"] == ""

    @in_virtual_time
    async def test_nobody_is_no_identity(self) -> None:
        """An empty name would be an empty holder."""
        with pytest.raises(UsageError, match="identity"):
            Replica(MemoryCluster(), "")


class TestHandingOver:
    """What the next leader is told of how the last one left things."""

    @in_virtual_time
    async def test_work_that_was_finished_is_handed_over_once(self) -> None:
        """The Lease says so until somebody takes it; who does is told, and nobody later."""
        api = MemoryCluster()
        a, b, c = (Replica(api, name, seed=seed) for seed, name in enumerate("abc"))
        await a.lead_once()
        assert marked(await api.get(LEASES, NAMESPACE, NAME))
        b.settles = False
        async with b.standing():
            await until(lambda: b.terms)
            assert not marked(await api.get(LEASES, NAMESPACE, NAME))
            await asyncio.sleep(10)
            assert not marked(await api.get(LEASES, NAMESPACE, NAME))
        await c.lead_once()
        assert [replica.terms[0].handed_over for replica in (a, b, c)] == [False, True, False]

    @pytest.mark.parametrize("settles", [True, False])
    @in_virtual_time
    async def test_finished_work_is_not_waited_for(
        self,
        settles: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """However it leaves things: the lease is free at once."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.settles = settles
        async with replica.standing():
            await asyncio.sleep(30)
        assert now() < 30.5
        assert bool(marked(await api.get(LEASES, NAMESPACE, NAME))) is settles

    @in_virtual_time
    async def test_work_that_does_not_finish_is_ended(self) -> None:
        """In the time of one request; the term holds and is renewed until then."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.settles = None
        async with replica.standing() as task:
            await asyncio.sleep(30.9)
            task.cancel()
            await asyncio.sleep(3.9)
            assert replica.terms[0].holds()
            assert replica.elector.status.leader
            renewed = max(at for at, verb in replica.network.done if verb == "replace")
            assert renewed > 31
        assert now() == pytest.approx(34.9, abs=0.2)
        assert not marked(await api.get(LEASES, NAMESPACE, NAME))

    @in_virtual_time
    async def test_a_second_cancellation_is_not_put_off(self) -> None:
        """Who insists is obeyed, and nothing is handed over."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.settles = None
        async with replica.standing() as task:
            await asyncio.sleep(30)
            task.cancel()
            await asyncio.sleep(1)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert now() == pytest.approx(31, abs=0.2)
        assert (await lease_of(api))["holderIdentity"] == ""
        assert not marked(await api.get(LEASES, NAMESPACE, NAME))

    @pytest.mark.parametrize("how", ["fails", "returns", "expires"])
    @in_virtual_time
    async def test_any_other_end_hands_nothing_over(self, how: str) -> None:
        """Work that failed, came to an end, or lost its term left what nobody knows."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.standing():
            await until(lambda: a.terms)
            match how:
                case "fails":
                    a.crash_after = 5
                case "returns":
                    a.return_after = 5
                case _:
                    a.network.fault = lambda _: Lost()
            async with b.standing():
                await until(lambda: b.terms)
                a.network.fault = lambda _: None
        assert [term.handed_over for term in (*a.terms, *b.terms)] == [False] * 2

    @in_virtual_time
    async def test_lease_taken_unheard_is_not_handed_over(self) -> None:
        """Who takes back what it took unheard reads a lease that says nothing any more."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        await a.lead_once()
        faults: list[Fault] = [Unheard()]
        b.network.fault = lambda verb: faults.pop() if verb == "replace" and faults else None
        await b.lead_once()
        assert not b.terms[0].handed_over

    @in_virtual_time
    async def test_a_release_that_is_late_is_as_true(self) -> None:
        """It arrives after its sender has gone, and before anybody has led."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.standing():
            await until(lambda: a.terms)
            await asyncio.sleep(0.5)
            a.network.fault = lambda verb: Late(8) if verb == "replace" else None
        await b.lead_once()
        assert b.terms[0].handed_over
        assert a.ended[0] < b.begun[0]

    @in_virtual_time
    async def test_a_release_that_is_too_late_changes_nothing(self) -> None:
        """Somebody took the lease that had run out: that one was told nothing."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.standing() as leading:
            await until(lambda: a.terms)
            async with b.standing():
                await asyncio.sleep(1)
                a.network.fault = lambda verb: Late(40) if verb == "replace" else None
                await stop(leading)
                await until(lambda: b.terms)
                await a.network.settle()
                assert b.terms[0].holds()
                assert (await lease_of(api))["holderIdentity"] == "b"
        assert not b.terms[0].handed_over

    @in_virtual_time
    async def test_stuck_work_hands_nothing_over(self) -> None:
        """The process has to end first, whatever the work had said."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.deaf = 1000
        task = asyncio.create_task(replica.elector.run())
        await asyncio.sleep(30)
        task.cancel()
        with pytest.raises(WorkStuck):
            await task
        replica.deaf = 0
        await until(lambda: replica.ended)
        assert (await lease_of(api))["holderIdentity"] == "a"
        assert not marked(await api.get(LEASES, NAMESPACE, NAME))

    @pytest.mark.parametrize("how", ["holder", "again"])
    @in_virtual_time
    async def test_a_word_that_others_keep_is_not_believed(self, how: str) -> None:
        """An older version, or another tool, takes and frees the lease and keeps annotations."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        await a.lead_once()
        stored = await api.get(LEASES, NAMESPACE, NAME)
        taken = dict(stored["spec"], holderIdentity="old", leaseDurationSeconds=3)
        taken |= {"leaseTransitions": stored["spec"]["leaseTransitions"] + 1}
        if how == "again":  # a person who counts nothing: the times are new all the same
            taken["leaseTransitions"] -= 1
        stored = await api.replace(LEASES, NAMESPACE, {**stored, "spec": taken})
        released = taken | {"holderIdentity": "", "acquireTime": "2026-11-21T00:00:09.000000Z"}
        stored = await api.replace(LEASES, NAMESPACE, {**stored, "spec": released})
        assert marked(stored)
        await b.lead_once()
        assert not b.terms[0].handed_over

    @in_virtual_time
    async def test_a_lease_that_is_restored_is_not_believed(self) -> None:
        """Another object of the same words: who knows what was led in between."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        await a.lead_once()
        stored = await api.get(LEASES, NAMESPACE, NAME)
        await api.delete(LEASES, NAMESPACE, NAME)
        for member in ("uid", "resourceVersion", "creationTimestamp"):
            del stored["metadata"][member]
        assert marked((await api.create(LEASES, NAMESPACE, stored)).object)
        await b.lead_once()
        assert not b.terms[0].handed_over


def marked(lease: Object) -> str:
    """What a Lease tells of how it was left."""
    return str((lease["metadata"].get("annotations") or {}).get("openfero.io/settled", ""))


class TestFaults:
    """What the API server may answer, or not."""

    @by_kind
    @in_virtual_time
    async def test_any_error_is_survived_while_standing(self, error: ApiError) -> None:
        """A replica goes on trying, every few seconds, and leads once it is let."""
        replica = Replica(MemoryCluster(), "a")
        replica.network.fault = lambda _: error
        async with replica.standing() as task:
            await asyncio.sleep(300)
            assert not task.done()
            assert not replica.begun
            assert len(replica.network.sent) < 300 / 0.05
            replica.network.fault = lambda _: None
            await asyncio.sleep(3)
            assert len(replica.begun) == 1

    @by_kind
    @in_virtual_time
    async def test_any_error_is_survived_while_leading(self, error: ApiError) -> None:
        """Shorter than the deadline it costs no term, longer it ends one, and only one."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.standing():
            await asyncio.sleep(20.5)
            replica.network.fault = lambda _: error
            await asyncio.sleep(7)
            replica.network.fault = lambda _: None
            await asyncio.sleep(30)
            assert len(replica.begun) == (2 if isinstance(error, NotFound) else 1)
            replica.network.fault = lambda _: error
            await asyncio.sleep(30)
            assert not replica.elector.status.leader
            assert len(replica.begun) == len(replica.ended)
            terms = len(replica.begun)
            replica.network.fault = lambda _: None
            await asyncio.sleep(5)
            assert len(replica.begun) == terms + 1

    @in_virtual_time
    async def test_only_writes_fail(self) -> None:
        """A lease that can be read and not be written is not led, and not asked for endlessly."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.standing():
            await asyncio.sleep(20)
            replica.network.fault = lambda verb: Conflict("fault") if verb == "replace" else None
            before = len(replica.network.sent)
            await asyncio.sleep(60)
            assert not replica.elector.status.leader
            assert len(replica.ended) == 1
            assert len(replica.network.sent) - before < 200

    @in_virtual_time
    async def test_work_stops_ten_seconds_after_the_start_of_the_last_renewal(self) -> None:
        """Not after its answer: the API server may have stored it at once and answered late."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.standing():
            await asyncio.sleep(20.5)
            replica.network.fault = lambda verb: Late(1.5) if verb == "replace" else None
            await asyncio.sleep(2)
            replica.network.fault = lambda _: Lost()
            started = [at for at, verb, _ in replica.network.sent if verb == "replace"][-1]
            await asyncio.sleep(12)
            assert replica.ended == [pytest.approx(started + DURATIONS.renew_deadline)]
            assert replica.history[-1].reason == LeadershipReason.EXPIRED
            assert not replica.terms[0].holds()

    @in_virtual_time
    async def test_term_counts_from_the_start_of_the_request_that_won_it(self) -> None:
        """A lease that was granted slowly is led for so much less."""
        replica = Replica(MemoryCluster(), "a")
        first: list[Fault] = [Late(3), None]
        replica.network.fault = lambda _: first.pop() if first else Lost()
        async with replica.standing():
            await asyncio.sleep(20)
            assert replica.begun == [pytest.approx(3)]
            assert replica.ended == [pytest.approx(10)]

    @in_virtual_time
    async def test_error_that_nobody_expected_stops_the_work(self) -> None:
        """A defect ends the elector, and never leaves work behind that nobody renews for."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        task = asyncio.create_task(replica.elector.run())
        await asyncio.sleep(5)

        def defect(verb: str) -> Fault:
            if verb == "replace" and not replica.ended:
                raise ZeroDivisionError
            return None

        replica.network.fault = defect
        with pytest.raises(ZeroDivisionError):
            await task
        assert replica.ended == [pytest.approx(6, abs=0.1)]
        assert (await lease_of(api))["holderIdentity"] == ""

    @in_virtual_time
    async def test_renewal_without_an_answer_is_recognised(self) -> None:
        """Renewed or not: the record still tells the term, which goes on."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.standing():
            await asyncio.sleep(20.5)
            replica.network.fault = lambda verb: Unheard() if verb == "replace" else None
            await asyncio.sleep(5)
            replica.network.fault = lambda _: None
            await asyncio.sleep(60)
            assert len(replica.terms) == 1
            assert not replica.ended

    @pytest.mark.parametrize("fault", [Unheard(), Late(6)], ids=["unheard", "late"])
    @in_virtual_time
    async def test_lease_won_without_an_answer_is_not_waited_for(self, fault: Fault) -> None:
        """What this process wrote itself holds it up for a few seconds, not for a lease."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        first = [fault]
        replica.network.fault = lambda verb: first.pop() if verb == "create" and first else None
        async with replica.standing():
            await asyncio.sleep(10)
            assert len(replica.begun) == 1
            assert (await lease_of(api))["holderIdentity"] == "a"

    @in_virtual_time
    async def test_memberays_how_long_to_wait(self) -> None:
        """Retry-After is kept to, as far as a lease duration."""
        replica = Replica(MemoryCluster(), "a")

        class Busy(Throttled):
            def __init__(self, message: str) -> None:
                super().__init__(message, retry_after=8)

        replica.network.fault = lambda _: Busy("later")
        async with replica.standing():
            await asyncio.sleep(25)
            replica.network.fault = lambda _: None
            assert [at for at, _, _ in replica.network.sent] == pytest.approx([0, 8, 16, 24])


class TestWork:
    """Guarded work that does not do as it should."""

    @pytest.mark.parametrize("how", ["crash_after", "return_after"])
    @in_virtual_time
    async def test_ended_work_frees_the_lease_and_rests_longer_each_time(self, how: str) -> None:
        """Nobody renews for dead work; another may lead; alone it tries again, ever more rarely."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        setattr(replica, how, 1)
        async with replica.standing():
            await asyncio.sleep(3)
            assert (await lease_of(api))["holderIdentity"] == ""
            await asyncio.sleep(1200)
            assert len(replica.begun) == len(replica.ended)
            rests = [
                begun - ended
                for ended, begun in zip(replica.ended, replica.begun[1:], strict=False)
            ]
            assert 4 / 1.3 < rests[0] < 4 * 1.3
            assert 8 / 1.3 < rests[1] < 8 * 1.3
            assert all(60 / 1.3 < rest < 60 * 1.3 + 3 for rest in rests[4:])
            assert replica.elector.status.reason == LeadershipReason.BACKING_OFF

    @in_virtual_time
    async def test_crash_after_a_long_term_rests_shortly(self) -> None:
        """One crash now and then is not a crash loop."""
        replica = Replica(MemoryCluster(), "a")
        replica.crash_after = 100
        async with replica.standing():
            await asyncio.sleep(400)
        rests = [b - e for e, b in zip(replica.ended, replica.begun[1:], strict=False)]
        assert len(rests) == 3
        assert all(rest < 6 for rest in rests)

    @in_virtual_time
    async def test_work_that_notices_its_end_first_has_not_failed(self) -> None:
        """TermEnded out of the work is how it should end: the replica stands again at once."""
        api = MemoryCluster()
        network = Network(api)
        begun: list[float] = []

        async def lead(term: LeaseTerm) -> None:
            begun.append(now())
            while True:
                term.check()
                await asyncio.sleep(0.001)

        elector = Elector(
            KubernetesLease(network, NAMESPACE, NAME),  # type: ignore[arg-type]
            "a",
            DURATIONS,
            lead,
            clock=now,
        )
        task = asyncio.create_task(elector.run())
        await asyncio.sleep(5)
        network.fault = lambda _: Lost()
        await asyncio.sleep(15)
        network.fault = lambda _: None
        await asyncio.sleep(10)
        await stop(task)
        assert len(begun) == 2
        assert begun[1] < 5 + 15 + 6

    @pytest.mark.parametrize("stopped_by", ["cancel", "crash of the network"])
    @in_virtual_time
    async def test_work_that_never_ends_is_never_let_go(self, stopped_by: str) -> None:
        """The elector gives up with `WorkStuck`, and does not free the lease over its head."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.deaf = 1000
        task = asyncio.create_task(replica.elector.run())
        await asyncio.sleep(20)
        if stopped_by == "cancel":
            task.cancel()
        else:
            replica.network.fault = lambda _: Lost()
        with pytest.raises(WorkStuck, match="must end"):
            await task
        assert now() <= 20 + DURATIONS.renew_deadline + DURATIONS.lease_duration
        assert (await lease_of(api))["holderIdentity"] == "a"
        assert not replica.terms[0].holds()
        await asyncio.sleep(1000)


class TestFollowing:
    """Several replicas."""

    @in_virtual_time
    async def test_follower_is_told_of_a_release_at_once(self) -> None:
        """It watches, so that no retry period passes between two leaders."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        leading = asyncio.create_task(leader.elector.run())
        await asyncio.sleep(1)
        async with follower.standing():
            await asyncio.sleep(30)
            assert follower.elector.status.holder == "a"
            await stop(leading)
            released = now()
            await asyncio.sleep(0.2)
            assert follower.elector.status.leader
            assert leader.ended[0] <= released < follower.begun[0]

    @in_virtual_time
    async def test_dead_leader_is_followed_when_its_lease_has_run_out(self) -> None:
        """Not earlier than 15 s after its last renewal, and hardly later."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        async with leader.standing():
            await asyncio.sleep(5.5)
            async with follower.standing():
                await asyncio.sleep(25)
                leader.network.fault = lambda _: Lost()
                renewed = [at for at, verb in leader.network.done if verb == "replace"][-1]
                await asyncio.sleep(20)
                assert follower.begun == [pytest.approx(renewed + 15, abs=0.2)]
                assert leader.ended[0] < follower.begun[0] - 4

    @pytest.mark.parametrize("fault", [Forbidden("fault"), Lost()], ids=["forbidden", "silent"])
    @in_virtual_time
    async def test_follower_without_a_watch_reads(self, fault: Fault) -> None:
        """A watch that is refused or says nothing costs a few seconds at most."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        follower.network.fault = lambda verb: fault if verb == "watch" else None
        async with leader.standing():
            await asyncio.sleep(1)
            async with follower.standing():
                await asyncio.sleep(52)
                assert not follower.begun
                reads = [at for at, verb, _ in follower.network.sent if verb == "get"]
                assert 15 < len(reads) < 40
                leader.crash_after = 0
                await asyncio.sleep(DURATIONS.retry_period * 1.5 + 0.5)
                assert follower.elector.status.leader

    @in_virtual_time
    async def test_watch_that_ends_at_once_is_not_begun_at_once(self) -> None:
        """An API server, or a proxy, that closes every watch is asked once in a while."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)

        async def nothing(*_: object, **__: object) -> AsyncGenerator[WatchEvent, None]:
            follower.network.sent.append((now(), "watch", 0))
            if now() < 0:
                yield None  # type: ignore[misc]

        follower.network.watch = nothing  # type: ignore[method-assign]
        async with leader.standing():
            await asyncio.sleep(1)
            async with follower.standing():
                await asyncio.sleep(60)
                assert 20 < len(follower.network.sent) < 100

    @in_virtual_time
    async def test_quiet_follower_reads_nothing(self) -> None:
        """While the watch tells of every renewal, nothing is read again."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        async with leader.standing():
            await asyncio.sleep(1)
            async with follower.standing():
                await asyncio.sleep(200)
                assert [verb for _, verb, _ in follower.network.sent] == ["get", "watch"]

    @in_virtual_time
    async def test_namesakes_are_two_even_in_the_same_microsecond(self) -> None:
        """One whose attempt was refused does not take the other's record for its own."""
        api = MemoryCluster()
        twins = [Replica(api, "a"), Replica(api, "a")]
        async with twins[0].standing(), twins[1].standing():
            await asyncio.sleep(60)
            assert sorted(len(twin.terms) for twin in twins) == [0, 1]

    @in_virtual_time
    async def test_wall_clocks_do_not_matter(self) -> None:
        """Hours forth and back, on either side: no term ends, and none begins early."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        async with leader.standing():
            await asyncio.sleep(1)
            async with follower.standing():
                for hours in (1, -2, 500, 0, -9000):
                    leader.wall += timedelta(hours=hours)
                    await asyncio.sleep(20)
                    follower.wall -= timedelta(hours=hours)
                    await asyncio.sleep(20)
                assert len(leader.terms) == 1
                assert not follower.terms
                leader.network.fault = lambda _: Lost()
                cut = now()
                await asyncio.sleep(16)
                assert 13 <= follower.begun[0] - cut <= 15.2

    @in_virtual_time
    async def test_wall_clock_that_stands_still_does_not_matter(self) -> None:
        """A renewal at the same time of day is a sign of life, also to one that only reads."""
        api = MemoryCluster()
        leader, watching, reading = (Replica(api, name, seed=ord(name)) for name in "abc")
        leader.wall_runs = False
        reading.network.fault = lambda verb: Forbidden("fault") if verb == "watch" else None
        async with leader.standing():
            await asyncio.sleep(1)
            async with watching.standing(), reading.standing():
                await asyncio.sleep(300)
                assert len(leader.terms) == 1
                assert not watching.terms
                assert not reading.terms

    @settings(max_examples=scaled(6))
    @given(st.integers(0, 2**32))
    @in_virtual_time
    async def test_never_two(self, seed: int) -> None:
        """Three replicas, any faults: no two terms hold at once, and in the end one leads.

        Requests are refused, lost, unheard or late by up to a minute; work crashes and ignores
        its end; wall clocks jump; replicas stop and come back.
        """
        rng = random.Random(seed)  # noqa: S311
        crowd = Crowd(rng, MemoryCluster())
        for _ in range(rng.randrange(10, 60)):
            await asyncio.sleep(rng.uniform(0, 12))
            await crowd.suffer()
        await crowd.recover()
        await asyncio.sleep(150)
        leaders = [replica for replica in crowd.tasks if replica.elector.status.leader]
        assert len(leaders) == 1
        await crowd.end()
        for replica in crowd.everyone:
            assert len(replica.begun) == len(replica.ended)
        held = sorted(span for replica in crowd.everyone for span in replica.held)
        for before, after in itertools.pairwise(held):
            assert before[1] < after[0], f"{before} and {after}"
        ids = [term.id for replica in crowd.everyone for term in replica.terms]
        assert len(ids) == len(set(ids))


class Crowd:
    """Three replicas to which things happen, drawn from a seed."""

    def __init__(self, rng: random.Random, api: MemoryCluster) -> None:
        self.everyone: list[Replica] = []
        self.tasks: dict[Replica, asyncio.Task[Any]] = {}
        self._rng = rng
        self._api = api
        for name in "abc":
            self._start(name)

    async def suffer(self) -> None:
        """Let something happen to one of them."""
        replica = self._rng.choice(list(self.tasks))
        match self._rng.randrange(7):
            case 0 | 1 | 2:
                replica.network.fault = misfortune(self._rng)
            case 3:
                replica.network.fault = lambda _: None
            case 4:
                replica.deaf = self._rng.choice([0.0, 0.0, 2.0, 12.0])
            case 5:
                replica.crash_after = self._rng.choice([float("inf"), 0.5, 30.0])
            case 6:
                replica.wall += timedelta(hours=self._rng.uniform(-5, 5))
                await stop(self.tasks.pop(replica))
                self._start(self._rng.choice("abcd"))

    async def recover(self) -> None:
        """Let all be well."""
        for replica in self.tasks:
            replica.network.fault = lambda _: None
            replica.crash_after = float("inf")

    async def end(self) -> None:
        """Stop all, and wait for what is still on its way."""
        for task in self.tasks.values():
            await stop(task)
        for replica in self.everyone:
            await replica.network.settle()

    def _start(self, name: str) -> None:
        replica = Replica(self._api, name, seed=self._rng.getrandbits(32))
        # No two real processes do anything in the same microsecond.
        replica.wall += timedelta(microseconds=self._rng.randrange(10**6))
        self.everyone.append(replica)
        self.tasks[replica] = asyncio.create_task(replica.elector.run(), name=f"elector {name}")


def misfortune(rng: random.Random) -> Callable[[str], Fault]:
    """Return what befalls the requests of a replica, drawn from a seed."""
    share = rng.choice([0.3, 0.7, 1.0])
    verbs = rng.choice([("get",), ("replace", "create"), ("get", "create", "replace", "watch")])

    def fault(verb: str) -> Fault:
        if verb not in verbs or rng.random() > share:
            return None
        return rng.choice(
            [*EVERY_ERROR, Lost(), Lost(), Unheard(), Unheard(), Late(rng.uniform(0, 60))]
        )

    return fault


class TestKubernetesLease:
    """The Lease as an object."""

    @in_virtual_time
    async def test_record_comes_back_as_it_was_written(self) -> None:
        """Times to the microsecond, in UTC; the version is the stored object's."""
        api = MemoryCluster()
        lease = KubernetesLease(api, NAMESPACE, NAME)
        moment = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)
        record = LeaseRecord("a", 15, moment, moment + timedelta(seconds=2), 7)
        assert await lease.read(timeout=1) is None
        created = await lease.create(record, timeout=1)
        assert created == record == await lease.read(timeout=1)
        stored = await api.get(LEASES, NAMESPACE, NAME)
        assert created.resource_version == stored["metadata"]["resourceVersion"]
        assert stored["spec"]["acquireTime"] == "2026-11-21T03:04:05.678901Z"
        assert stored["metadata"]["labels"] == {"openfero.io/managed-by": "openfero-gitops"}

    @in_virtual_time
    async def test_what_others_wrote_is_kept(self) -> None:
        """Labels, annotations and fields of the spec that are unknown here survive a write."""
        api = MemoryCluster()
        await api.create(
            LEASES,
            NAMESPACE,
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": NAME,
                    "namespace": NAMESPACE,
                    "labels": {"example.org/a": "b"},
                    "annotations": {"example.org/c": "d"},
                },
                "spec": {"strategy": "OldestEmulationVersion", "preferredHolder": "x"},
            },
        )
        lease = KubernetesLease(api, NAMESPACE, NAME)
        empty = await lease.read(timeout=1)
        assert empty == LeaseRecord("", 0, None, None, 0)
        moment = datetime(2026, 11, 21, tzinfo=UTC)
        record = LeaseRecord("a", 15, moment, moment, 1)
        await lease.replace(record, empty.resource_version, timeout=1)
        stored = await api.get(LEASES, NAMESPACE, NAME)
        assert stored["metadata"]["labels"]["example.org/a"] == "b"
        assert stored["metadata"]["annotations"] == {"example.org/c": "d"}
        assert stored["spec"]["preferredHolder"] == "x"
        assert stored["spec"]["holderIdentity"] == "a"

    @in_virtual_time
    async def test_only_what_was_read_is_replaced(self) -> None:
        """A version that is not the last one seen is a conflict before anything is sent."""
        lease = KubernetesLease(MemoryCluster(), NAMESPACE, NAME)
        moment = datetime(2026, 11, 21, tzinfo=UTC)
        record = LeaseRecord("a", 15, moment, moment, 1)
        with pytest.raises(Conflict, match="not read"):
            await lease.replace(record, "5", timeout=1)
        created = await lease.create(record, timeout=1)
        later = LeaseRecord("a", 15, moment, moment + timedelta(seconds=2), 1)
        await lease.replace(later, created.resource_version, timeout=1)
        with pytest.raises(Conflict):
            await lease.replace(record, created.resource_version, timeout=1)

    @in_virtual_time
    async def test_changes_tell_of_this_lease_alone(self) -> None:
        """Other leases of ours beside it are passed over; deleting is records as None."""
        api = MemoryCluster()
        lease, other = KubernetesLease(api, NAMESPACE, NAME), KubernetesLease(api, NAMESPACE, "b")
        moment = datetime(2026, 11, 21, tzinfo=UTC)
        record = LeaseRecord("a", 15, moment, moment, 1)
        created = await lease.create(record, timeout=1)
        records: list[LeaseRecord | None] = []

        async def listen() -> None:
            changes = lease.changes(created.resource_version, timeout=60)
            records.extend([record async for record in changes])

        listening = asyncio.create_task(listen())
        await asyncio.sleep(1)
        await other.create(record, timeout=1)
        later = LeaseRecord("a", 15, moment, moment + timedelta(seconds=2), 1)
        await lease.replace(later, created.resource_version, timeout=1)
        await api.delete(LEASES, NAMESPACE, NAME)
        await listening
        assert records == [later, None]
