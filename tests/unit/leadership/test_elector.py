"""The elector with the in-memory cluster, in virtual time, with faults injected."""

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


class AnswerLost:
    """A request that is carried out, but its answer is lost."""


class Late:
    """A request that is carried out so many seconds later."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


Fault = ApiError | Lost | AnswerLost | Late | None


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
        """Wait for the requests that are in flight."""
        if self._late:
            await asyncio.wait(self._late)

    async def send(self, request: Request, timeout: float, act: Act) -> Any:
        """Carry out a request, or inject its fault."""
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
            if not isinstance(fault, AnswerLost):
                self.done.append((now(), verb))
                return answer
        await asyncio.sleep(timeout)
        raise Unavailable("no answer in time")

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        """Retrieve the result of a late request."""
        self._late.discard(task)
        if not task.cancelled():
            task.exception()

    async def _later(self, verb: str, act: Act, seconds: float) -> Any:
        await asyncio.sleep(seconds)
        answer = await act()
        self.done.append((now(), verb))
        return answer


class Replica:
    """An elector, with work that records when its term held."""

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
        self.ignores_cancel_for = 0.0
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
            while cancelled is None or now() < cancelled + self.ignores_cancel_for:
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
    async def running(self) -> AsyncIterator[asyncio.Task[Any]]:
        """Run the elector, and stop it as SIGTERM would."""
        task = asyncio.create_task(self.elector.run(), name="elector")
        try:
            yield task
        finally:
            await stop(task)
            await self.network.settle()

    async def lead_once(self) -> None:
        """Run until it leads, and stop."""
        async with self.running():
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
    """The term that is passed to the work."""

    def test_check_raises_from_the_deadline_on(self) -> None:
        """The deadline itself is too late, and a clock that goes back changes nothing."""
        clock = iter([9.9, 9.9, 10.0, 5.0, 5.0])
        term = LeaseTerm("a/1", clock.__next__, 10.0)
        assert term.holds()
        assert term.remaining() == pytest.approx(0.1)
        with pytest.raises(TermEnded, match="a/1"):
            term.check()
        assert not term.holds()
        assert term.remaining() == 0

    def test_renewal_moves_the_deadline_forward_only(self) -> None:
        """An earlier renewal with a later answer does not shorten the term."""
        term = LeaseTerm("a/1", lambda: 5.0, 10.0)
        assert term.extend(12.0)
        assert term.extend(11.0)
        assert term.remaining() == 7.0

    def test_an_ended_term_stays_ended(self) -> None:
        """A renewal that succeeds too late does not restart a term."""
        clock = [0.0]
        term = LeaseTerm("a/1", lambda: clock[0], 10.0)
        clock[0] = 10.5
        assert not term.extend(19.0)
        assert not term.holds()

    def test_a_term_can_be_ended_early(self) -> None:
        """Whatever its deadline is."""
        term = LeaseTerm("a/1", lambda: 0.0, 10.0)
        term.end()
        assert not term.extend(20.0)
        with pytest.raises(TermEnded):
            term.check()

    def test_finish_only_counts_while_closing(self) -> None:
        """Only while the replica stops and its term holds."""
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

    def test_the_clock_includes_sleep(self) -> None:
        """It is CLOCK_BOOTTIME, which is never behind the monotonic clock."""
        assert time.monotonic() <= boottime()


class TestLeading:
    """A single replica."""

    @in_virtual_time
    async def test_a_single_replica_leads_at_once_and_renews(self) -> None:
        """The Lease is created, renewed every retry period, and shows holder and times."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        async with replica.running():
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
    async def test_each_term_has_its_own_id(self) -> None:
        """A process that leads again has another term."""
        replica = Replica(MemoryCluster(), "a")
        replica.crash_after = 5
        async with replica.running():
            await asyncio.sleep(120)
        ids = [term.id for term in replica.terms]
        assert len(ids) == len(set(ids)) > 3
        assert not any(term.holds() for term in replica.terms)

    @pytest.mark.parametrize("released", [True, False])
    @in_virtual_time
    async def test_a_term_knows_whether_another_replica_led_since_the_last(
        self,
        released: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """It continues the own last term, expired or released, unless another replica led."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)

        async def lose(replica: Replica) -> None:
            terms = len(replica.terms)
            replica.network.fault = lambda verb: Lost() if verb == "replace" else None
            await until(lambda: len(replica.ended) == terms, 60)
            if not released:
                await asyncio.sleep(DURATIONS.request_timeout + 1)
            replica.network.fault = lambda _: None

        async with a.running():
            await until(lambda: len(a.terms) == 1)
            await lose(a)
            await until(lambda: len(a.terms) == 2)
            async with b.running():
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
    async def test_a_lease_taken_without_an_answer_continues_no_term(self) -> None:
        """It is unknown which term that acquisition followed."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.running():
            await until(lambda: len(a.terms) == 1)
            a.network.fault = lambda _: Lost()
            async with b.running():
                await until(lambda: b.terms)
                await asyncio.sleep(30)
                a.network.fault = lambda verb: AnswerLost() if verb == "replace" else None
            await asyncio.sleep(5)
            a.network.fault = lambda _: None
            await until(lambda: len(a.terms) == 2)
        assert a.terms[1].continues not in {term.id for term in (*a.terms, *b.terms)}

    @in_virtual_time
    async def test_the_lease_is_released_after_the_work_has_ended(self) -> None:
        """The next replica takes it at once, after the work has ended."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.ignores_cancel_for = 3
        async with replica.running() as task:
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
    async def test_stopping_waits_for_cancelled_work(self) -> None:
        """SIGTERM while the work of an ended term is still running waits for it."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.ignores_cancel_for = 8
        async with replica.running() as task:
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
        """If the lease cannot be released, it expires; the process ends within a request's time."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.running():
            await asyncio.sleep(30)
            replica.network.fault = lambda _: Lost()
            begun = now()
        assert now() - begun <= DURATIONS.request_timeout + 0.2
        assert len(replica.ended) == 1

    @in_virtual_time
    async def test_a_lease_taken_without_an_answer_is_released(self) -> None:
        """A lease that was taken without an answer is released."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.network.fault = lambda verb: AnswerLost() if verb == "create" else None
        async with replica.running():
            await asyncio.sleep(1)
            assert (await lease_of(api))["holderIdentity"] == "a"
        assert (await lease_of(api))["holderIdentity"] == ""
        assert not replica.begun

    @in_virtual_time
    async def test_a_request_takes_less_than_half_the_deadline(self) -> None:
        """Each has a timeout, so that another one is possible before the term ends."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.running():
            await asyncio.sleep(20)
        assert all(
            0 < timeout < DURATIONS.renew_deadline / 2
            for _, verb, timeout in replica.network.sent
            if verb != "watch"
        )

    @in_virtual_time
    async def test_a_listener_that_fails_is_ignored(self) -> None:
        """A listener that raises does not affect leading or stopping."""
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
    async def test_an_empty_identity_is_rejected(self) -> None:
        """An empty name would be an empty holder, which means free."""
        with pytest.raises(UsageError, match="identity"):
            Replica(MemoryCluster(), "")


class TestHandingOver:
    """Whether admissions are settled when another replica takes over."""

    @in_virtual_time
    async def test_a_settled_release_is_handed_over_once(self) -> None:
        """The Lease records it until it is taken; only the next leader learns it."""
        api = MemoryCluster()
        a, b, c = (Replica(api, name, seed=seed) for seed, name in enumerate("abc"))
        await a.lead_once()
        assert marked(await api.get(LEASES, NAMESPACE, NAME))
        b.settles = False
        async with b.running():
            await until(lambda: b.terms)
            assert not marked(await api.get(LEASES, NAMESPACE, NAME))
            await asyncio.sleep(10)
            assert not marked(await api.get(LEASES, NAMESPACE, NAME))
        await c.lead_once()
        assert [replica.terms[0].handed_over for replica in (a, b, c)] == [False, True, False]

    @pytest.mark.parametrize("settles", [True, False])
    @in_virtual_time
    async def test_stopping_does_not_wait_for_finished_work(
        self,
        settles: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """The lease is free at once, settled or not."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.settles = settles
        async with replica.running():
            await asyncio.sleep(30)
        assert now() < 30.5
        assert bool(marked(await api.get(LEASES, NAMESPACE, NAME))) is settles

    @in_virtual_time
    async def test_work_that_does_not_finish_is_cancelled(self) -> None:
        """After the time of one request; the term is renewed until then."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.settles = None
        async with replica.running() as task:
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
    async def test_a_second_cancellation_takes_effect_at_once(self) -> None:
        """The work is cancelled at once, and nothing is handed over."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.settles = None
        async with replica.running() as task:
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
        """Work that failed, returned or lost its term may have left requests in flight."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.running():
            await until(lambda: a.terms)
            match how:
                case "fails":
                    a.crash_after = 5
                case "returns":
                    a.return_after = 5
                case _:
                    a.network.fault = lambda _: Lost()
            async with b.running():
                await until(lambda: b.terms)
                a.network.fault = lambda _: None
        assert [term.handed_over for term in (*a.terms, *b.terms)] == [False] * 2

    @in_virtual_time
    async def test_a_lease_taken_without_an_answer_is_not_handed_over(self) -> None:
        """A replica that takes it again reads a lease without the mark."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        await a.lead_once()
        faults: list[Fault] = [AnswerLost()]
        b.network.fault = lambda verb: faults.pop() if verb == "replace" and faults else None
        await b.lead_once()
        assert not b.terms[0].handed_over

    @in_virtual_time
    async def test_a_late_release_is_still_true(self) -> None:
        """It arrives after its sender has ended, and before another replica led."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.running():
            await until(lambda: a.terms)
            await asyncio.sleep(0.5)
            a.network.fault = lambda verb: Late(8) if verb == "replace" else None
        await b.lead_once()
        assert b.terms[0].handed_over
        assert a.ended[0] < b.begun[0]

    @in_virtual_time
    async def test_a_release_after_the_lease_was_taken_has_no_effect(self) -> None:
        """Another replica has taken the expired lease, without the mark."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        async with a.running() as leading:
            await until(lambda: a.terms)
            async with b.running():
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
        """The process must end first, even if the work had finished."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.ignores_cancel_for = 1000
        task = asyncio.create_task(replica.elector.run())
        await asyncio.sleep(30)
        task.cancel()
        with pytest.raises(WorkStuck):
            await task
        replica.ignores_cancel_for = 0
        await until(lambda: replica.ended)
        assert (await lease_of(api))["holderIdentity"] == "a"
        assert not marked(await api.get(LEASES, NAMESPACE, NAME))

    @pytest.mark.parametrize("how", ["holder", "again"])
    @in_virtual_time
    async def test_a_mark_that_other_tools_keep_is_ignored(self, how: str) -> None:
        """An older version or another tool takes and releases the lease and keeps annotations."""
        api = MemoryCluster()
        a, b = Replica(api, "a"), Replica(api, "b", seed=2)
        await a.lead_once()
        stored = await api.get(LEASES, NAMESPACE, NAME)
        taken = dict(stored["spec"], holderIdentity="old", leaseDurationSeconds=3)
        taken |= {"leaseTransitions": stored["spec"]["leaseTransitions"] + 1}
        if how == "again":  # a change by hand without new counts: the times are new anyway
            taken["leaseTransitions"] -= 1
        stored = await api.replace(LEASES, NAMESPACE, {**stored, "spec": taken})
        released = taken | {"holderIdentity": "", "acquireTime": "2026-11-21T00:00:09.000000Z"}
        stored = await api.replace(LEASES, NAMESPACE, {**stored, "spec": released})
        assert marked(stored)
        await b.lead_once()
        assert not b.terms[0].handed_over

    @in_virtual_time
    async def test_the_mark_of_a_restored_lease_is_ignored(self) -> None:
        """It is another object: another replica may have led in between."""
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
    """Return the mark of a settled release on a Lease."""
    return str((lease["metadata"].get("annotations") or {}).get("openfero.io/settled", ""))


class TestFaults:
    """Errors and lost answers of the API server."""

    @by_kind
    @in_virtual_time
    async def test_any_error_while_waiting_is_retried(self, error: ApiError) -> None:
        """The replica retries every few seconds, and leads when it succeeds."""
        replica = Replica(MemoryCluster(), "a")
        replica.network.fault = lambda _: error
        async with replica.running() as task:
            await asyncio.sleep(300)
            assert not task.done()
            assert not replica.begun
            assert len(replica.network.sent) < 300 / 0.05
            replica.network.fault = lambda _: None
            await asyncio.sleep(3)
            assert len(replica.begun) == 1

    @by_kind
    @in_virtual_time
    async def test_any_error_while_leading_is_retried(self, error: ApiError) -> None:
        """Errors shorter than the deadline end no term, longer ones end one."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.running():
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
        """A lease that can only be read is not taken, and writes are retried slowly."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.running():
            await asyncio.sleep(20)
            replica.network.fault = lambda verb: Conflict("fault") if verb == "replace" else None
            before = len(replica.network.sent)
            await asyncio.sleep(60)
            assert not replica.elector.status.leader
            assert len(replica.ended) == 1
            assert len(replica.network.sent) - before < 200

    @in_virtual_time
    async def test_the_deadline_counts_from_the_start_of_the_last_renewal(self) -> None:
        """Not after its answer: the API server may have stored it long before."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.running():
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
    async def test_the_term_counts_from_the_start_of_its_acquisition(self) -> None:
        """A slow answer shortens the term."""
        replica = Replica(MemoryCluster(), "a")
        first: list[Fault] = [Late(3), None]
        replica.network.fault = lambda _: first.pop() if first else Lost()
        async with replica.running():
            await asyncio.sleep(20)
            assert replica.begun == [pytest.approx(3)]
            assert replica.ended == [pytest.approx(10)]

    @in_virtual_time
    async def test_an_unexpected_error_stops_the_work(self) -> None:
        """The elector ends, and so does the work."""
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
    async def test_a_renewal_without_an_answer_is_recognized(self) -> None:
        """Whether it was stored or not, the record is of the same term, which goes on."""
        replica = Replica(MemoryCluster(), "a")
        async with replica.running():
            await asyncio.sleep(20.5)
            replica.network.fault = lambda verb: AnswerLost() if verb == "replace" else None
            await asyncio.sleep(5)
            replica.network.fault = lambda _: None
            await asyncio.sleep(60)
            assert len(replica.terms) == 1
            assert not replica.ended

    @pytest.mark.parametrize("fault", [AnswerLost(), Late(6)], ids=["unheard", "late"])
    @in_virtual_time
    async def test_a_lease_taken_without_an_answer_need_not_expire(self, fault: Fault) -> None:
        """The own record delays this process by seconds, not by a lease duration."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        first = [fault]
        replica.network.fault = lambda verb: first.pop() if verb == "create" and first else None
        async with replica.running():
            await asyncio.sleep(10)
            assert len(replica.begun) == 1
            assert (await lease_of(api))["holderIdentity"] == "a"

    @in_virtual_time
    async def test_retry_after_is_respected(self) -> None:
        """Retry-After is respected, up to a lease duration."""
        replica = Replica(MemoryCluster(), "a")

        class Busy(Throttled):
            def __init__(self, message: str) -> None:
                super().__init__(message, retry_after=8)

        replica.network.fault = lambda _: Busy("later")
        async with replica.running():
            await asyncio.sleep(25)
            replica.network.fault = lambda _: None
            assert [at for at, _, _ in replica.network.sent] == pytest.approx([0, 8, 16, 24])


class TestWork:
    """Work that fails, returns or does not end."""

    @pytest.mark.parametrize("how", ["crash_after", "return_after"])
    @in_virtual_time
    async def test_work_that_ends_releases_the_lease_and_backs_off(self, how: str) -> None:
        """Another replica may lead; a single one retries with a growing delay."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        setattr(replica, how, 1)
        async with replica.running():
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
    async def test_a_crash_after_a_long_term_resets_the_back_off(self) -> None:
        """A rare crash is not a crash loop."""
        replica = Replica(MemoryCluster(), "a")
        replica.crash_after = 100
        async with replica.running():
            await asyncio.sleep(400)
        rests = [b - e for e, b in zip(replica.ended, replica.begun[1:], strict=False)]
        assert len(rests) == 3
        assert all(rest < 6 for rest in rests)

    @in_virtual_time
    async def test_work_that_raises_term_ended_has_not_failed(self) -> None:
        """TermEnded from the work is expected: the replica tries to lead again at once."""
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
    async def test_work_that_never_ends_keeps_the_lease(self, stopped_by: str) -> None:
        """The elector raises `WorkStuck`, and does not release the lease."""
        api = MemoryCluster()
        replica = Replica(api, "a")
        replica.ignores_cancel_for = 1000
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
    async def test_a_follower_sees_a_release_at_once(self) -> None:
        """It watches, so that it need not wait for a retry period."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        leading = asyncio.create_task(leader.elector.run())
        await asyncio.sleep(1)
        async with follower.running():
            await asyncio.sleep(30)
            assert follower.elector.status.holder == "a"
            await stop(leading)
            released = now()
            await asyncio.sleep(0.2)
            assert follower.elector.status.leader
            assert leader.ended[0] <= released < follower.begun[0]

    @in_virtual_time
    async def test_a_dead_leader_is_replaced_when_its_lease_has_expired(self) -> None:
        """15 s after its last renewal, not earlier and hardly later."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        async with leader.running():
            await asyncio.sleep(5.5)
            async with follower.running():
                await asyncio.sleep(25)
                leader.network.fault = lambda _: Lost()
                renewed = [at for at, verb in leader.network.done if verb == "replace"][-1]
                await asyncio.sleep(20)
                assert follower.begun == [pytest.approx(renewed + 15, abs=0.2)]
                assert leader.ended[0] < follower.begun[0] - 4

    @pytest.mark.parametrize("missing", ["get", "create", "replace"])
    @in_virtual_time
    async def test_a_missing_permission_is_reported_until_it_is_granted(self, missing: str) -> None:
        """Without it the replica does not lead, and says why."""
        api = MemoryCluster()
        if missing == "replace":
            async with Replica(api, "before").running():
                await asyncio.sleep(1)
        replica = Replica(api, "a")
        replica.network.fault = lambda verb: Forbidden("fault") if verb == missing else None
        async with replica.running():
            await asyncio.sleep(10)
            assert not replica.begun
            assert "fault" in replica.elector.trouble
            replica.network.fault = lambda _: None
            await asyncio.sleep(10)
            assert replica.elector.status.leader
            assert replica.elector.trouble == ""

    @pytest.mark.parametrize("fault", [Forbidden("fault"), Lost()], ids=["forbidden", "silent"])
    @in_virtual_time
    async def test_a_follower_without_a_watch_reads(self, fault: Fault) -> None:
        """A watch that is rejected or silent costs a few seconds at most."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        follower.network.fault = lambda verb: fault if verb == "watch" else None
        async with leader.running():
            await asyncio.sleep(1)
            async with follower.running():
                await asyncio.sleep(52)
                assert not follower.begun
                reads = [at for at, verb, _ in follower.network.sent if verb == "get"]
                assert 15 < len(reads) < 40
                leader.crash_after = 0
                await asyncio.sleep(DURATIONS.retry_period * 1.5 + 0.5)
                assert follower.elector.status.leader

    @in_virtual_time
    async def test_a_watch_that_ends_at_once_is_not_restarted_at_once(self) -> None:
        """An API server or a proxy that closes every watch gets few requests."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)

        async def nothing(*_: object, **__: object) -> AsyncGenerator[WatchEvent, None]:
            follower.network.sent.append((now(), "watch", 0))
            if now() < 0:
                yield None  # type: ignore[misc]

        follower.network.watch = nothing  # type: ignore[method-assign]
        async with leader.running():
            await asyncio.sleep(1)
            async with follower.running():
                await asyncio.sleep(60)
                assert 20 < len(follower.network.sent) < 100

    @in_virtual_time
    async def test_a_follower_with_a_watch_does_not_read(self) -> None:
        """While the watch shows each renewal, the lease is not read."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        async with leader.running():
            await asyncio.sleep(1)
            async with follower.running():
                await asyncio.sleep(200)
                assert [verb for _, verb, _ in follower.network.sent] == ["get", "watch"]

    @in_virtual_time
    async def test_replicas_of_the_same_name_do_not_lead_together(self) -> None:
        """A replica whose attempt was rejected does not take the other's record for its own."""
        api = MemoryCluster()
        twins = [Replica(api, "a"), Replica(api, "a")]
        async with twins[0].running(), twins[1].running():
            await asyncio.sleep(60)
            assert sorted(len(twin.terms) for twin in twins) == [0, 1]

    @in_virtual_time
    async def test_wall_clocks_do_not_matter(self) -> None:
        """Changes by hours on either side end no term, and start none early."""
        api = MemoryCluster()
        leader, follower = Replica(api, "a"), Replica(api, "b", seed=2)
        async with leader.running():
            await asyncio.sleep(1)
            async with follower.running():
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
        """A renewal at the same time of day is detected, also without a watch."""
        api = MemoryCluster()
        leader, watching, reading = (Replica(api, name, seed=ord(name)) for name in "abc")
        leader.wall_runs = False
        reading.network.fault = lambda verb: Forbidden("fault") if verb == "watch" else None
        async with leader.running():
            await asyncio.sleep(1)
            async with watching.running(), reading.running():
                await asyncio.sleep(300)
                assert len(leader.terms) == 1
                assert not watching.terms
                assert not reading.terms

    @settings(max_examples=scaled(3))
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
            await crowd.inject()
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
    """Three replicas with random faults, from a seed."""

    def __init__(self, rng: random.Random, api: MemoryCluster) -> None:
        self.everyone: list[Replica] = []
        self.tasks: dict[Replica, asyncio.Task[Any]] = {}
        self._rng = rng
        self._api = api
        for name in "abc":
            self._start(name)

    async def inject(self) -> None:
        """Inject a fault into one of them."""
        replica = self._rng.choice(list(self.tasks))
        match self._rng.randrange(7):
            case 0 | 1 | 2:
                replica.network.fault = random_fault(self._rng)
            case 3:
                replica.network.fault = lambda _: None
            case 4:
                replica.ignores_cancel_for = self._rng.choice([0.0, 0.0, 2.0, 12.0])
            case 5:
                replica.crash_after = self._rng.choice([float("inf"), 0.5, 30.0])
            case 6:
                replica.wall += timedelta(hours=self._rng.uniform(-5, 5))
                await stop(self.tasks.pop(replica))
                self._start(self._rng.choice("abcd"))

    async def recover(self) -> None:
        """Remove all faults."""
        for replica in self.tasks:
            replica.network.fault = lambda _: None
            replica.crash_after = float("inf")

    async def end(self) -> None:
        """Stop all, and wait for requests in flight."""
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


def random_fault(rng: random.Random) -> Callable[[str], Fault]:
    """Return random faults for the requests of a replica."""
    share = rng.choice([0.3, 0.7, 1.0])
    verbs = rng.choice([("get",), ("replace", "create"), ("get", "create", "replace", "watch")])

    def fault(verb: str) -> Fault:
        if verb not in verbs or rng.random() > share:
            return None
        return rng.choice(
            [*EVERY_ERROR, Lost(), Lost(), AnswerLost(), AnswerLost(), Late(rng.uniform(0, 60))]
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
    async def test_unknown_fields_are_kept(self) -> None:
        """Unknown labels, annotations and fields of the spec are kept by a write."""
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
        """A version that was not read last is a conflict before anything is sent."""
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
    async def test_changes_are_of_this_lease_only(self) -> None:
        """Other leases are ignored; a deletion is reported as None."""
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
