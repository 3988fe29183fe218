"""The admitter, with leaders that change in the middle of a write."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from openfero_gitops.cluster.api import CONFIG_MAPS, JOBS
from openfero_gitops.demo.cluster import FOREVER, Durations, JobPlayer
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    Throttled,
    Unavailable,
)
from openfero_gitops.domain.operario import OnResolve, Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, JobKey, Phase
from openfero_gitops.leadership.term import LeaseTerm, TermEnded
from tests.support import build
from tests.support.copying import replace
from tests.support.depth import scaled
from tests.support.workers import (
    Replica,
    Trouble,
    World,
    in_background,
    in_virtual_time,
    new_term,
    none,
    pods_of,
    resolved,
    seconds_so_far,
    silence,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.domain.remediation import Remediation
    from tests.support.relay import Act, Request

OTHER = "other-jobs"
BOTH = (build.JOBS_NAMESPACE, OTHER)
ONE_AT_A_TIME = Envelope(limits=Limits(concurrent=1))


def forever() -> JobPlayer:
    """Make Jobs that run until something ends them."""
    return JobPlayer(Durations(run=FOREVER))


async def waiting(replica: Replica, count: int) -> list[JobKey]:
    """Deliver so many alerts, a second apart; return their Jobs in this order."""
    jobs = []
    for number in range(count):
        answer = await replica.deliver(pods_of(f"web-{number}"))
        assert answer.items[0].job is not None
        jobs.append(answer.items[0].job)
        await asyncio.sleep(1)
    return jobs


def is_admission(request: Request) -> bool:
    """Whether a request would start a Job."""
    return request.sets(keys.ADMITTED_AT)


def is_stamp(request: Request) -> bool:
    """Whether a request would only stamp a Job."""
    return (
        request.sets(keys.TERM) and sum(operation["op"] == "add" for operation in request.body) == 1
    )


def when(condition: Callable[[Request], bool], happens: Trouble, times: int = 1_000) -> Trouble:
    """Inject a fault into some requests, at most so many."""
    left = times

    async def trouble(request: Request, act: Act) -> Any:
        nonlocal left
        if left and condition(request):
            left -= 1
            return await happens(request, act)
        return await act()

    return trouble


def fails(error: ApiError, *, carried_out: bool = False) -> Trouble:
    """A request that fails, before or after it was carried out."""

    async def trouble(_: Request, act: Act) -> Any:
        if carried_out:
            await act()
        raise error

    return trouble


def first(happens: Callable[[Request], Awaitable[Any]]) -> Trouble:
    """Do something between a decision and its patch."""

    async def trouble(request: Request, act: Act) -> Any:
        await happens(request)
        return await act()

    return trouble


def decisions_in(log: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return decision, Job and reason of each decision that was logged."""
    return [
        (line["decision"], line["job"], line["reason"])
        for line in log
        if line["event"] == "decision" and line["decision"] != "created"
    ]


def key_of(request: Request) -> JobKey:
    """Return the Job that a request is about."""
    return JobKey(request.namespace, request.name)


class TestTakeOver:
    """The start of a term."""

    @in_virtual_time
    async def test_every_waiting_job_is_stamped_before_the_first_starts(self) -> None:
        """And no other Job is: what was decided is left as it is, and so is what runs.

        (But that somebody else started it is written on it.)
        """
        world = World(forever())
        replica = world.replica()
        async with world.playing(), replica.watching():
            keys_of_jobs = await waiting(replica, 6)
            running, refused, *left = keys_of_jobs
            await world.change(running, {"op": "replace", "path": "/spec/suspend", "value": False})
            await world.annotate(refused, keys.DECISION, "refused")
            await asyncio.sleep(1)
            replica.wire.requests.clear()
            async with replica.leading() as term:
                await until(lambda: len(world.starts()) == 5)
        writes = replica.wire.writes()
        stamps, admissions = writes[: len(left)], writes[len(left) :]
        (noted,) = [request for request in admissions if key_of(request) == running]
        assert not noted.sets(keys.TERM)
        admissions.remove(noted)
        assert all(is_stamp(request) for request in stamps)
        assert all(is_admission(request) for request in admissions)
        assert (
            {key_of(request) for request in stamps}
            == {key_of(request) for request in admissions}
            == set(left)
        )
        seen = {}
        for write in world.writes():
            if write.after is not None:
                annotations = write.after["metadata"]["annotations"]
                key = JobKey(write.namespace, write.after["metadata"]["name"])
                seen.setdefault(key, []).append(annotations.get(keys.TERM))
        for key in left:
            terms = list(dict.fromkeys(seen[key]))
            assert terms[0] is None
            assert len(terms) == len(set(terms)) == 3
            assert all(stamp.startswith(term.id) for stamp in terms[1:])
        assert set(seen[running]) == set(seen[refused]) == {None}

    @in_virtual_time
    async def test_an_admission_of_the_leader_before_fails_on_the_stamp(self) -> None:
        """However late it arrives: only the new leader's admission starts the Job."""
        world = World(forever())
        old, new = world.replica("old"), world.replica("new")
        on_its_way: list[Request] = []

        async def delayed(request: Request, _: Act) -> Any:
            on_its_way.append(request)
            await asyncio.Event().wait()

        old.wire.trouble = when(is_admission, delayed)
        new.paused = True
        async with world.playing(), old.watching(), new.watching():
            (job,) = await waiting(old, 1)
            async with old.leading():
                await until(lambda: on_its_way)
            async with new.leading():
                await asyncio.sleep(1)
                (late,) = on_its_way
                with pytest.raises(Invalid):
                    await world.cluster.patch(JOBS, late.namespace, late.name, late.body)
                assert world.starts() == []
                new.paused = False
                await until(world.starts, within=2)
        assert world.starts() == [job]
        assert (await world.job(job)).term == "new/1#2"

    @pytest.mark.parametrize("continues", [True, False])
    @in_virtual_time
    async def test_stamps_stay_valid_if_no_other_replica_led(
        self,
        continues: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """A leader that takes its own lease back continues; otherwise nothing would ever start."""
        world = World(forever())
        replica = world.replica()
        stuck = asyncio.Event()

        async def hangs(_: Request, __: Act) -> Any:
            stuck.set()
            await asyncio.Event().wait()

        async with replica.watching():
            jobs = await waiting(replica, 20)
            left = set(jobs[-2:])
            replica.wire.trouble = when(
                lambda request: is_stamp(request) and key_of(request) in left, hangs
            )
            async with replica.leading() as before:
                await stuck.wait()
                await asyncio.sleep(1)
            assert world.starts() == []
            replica.wire.trouble = none
            replica.wire.requests.clear()
            own = before.id if continues else ""
            later = asyncio.get_running_loop().time
            async with replica.leading(LeaseTerm("replica/2", later, float("inf"), own)):
                await until(lambda: len(world.starts()) == 5)
        stamps = {key_of(request) for request in replica.wire.writes() if is_stamp(request)}
        assert stamps == (left if continues else set(jobs))

    @in_virtual_time
    async def test_an_admission_cut_off_by_the_end_of_a_term_is_unconfirmed(self) -> None:
        """A leader that takes its own lease back must stamp the Job first."""
        world = World(forever())
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))
        on_its_way: list[Request] = []

        async def delayed(request: Request, _: Act) -> Any:
            on_its_way.append(request)
            await asyncio.Event().wait()

        async def arrives(_: Request) -> None:
            late = on_its_way.pop()
            await world.cluster.patch(JOBS, late.namespace, late.name, late.body)

        replica.wire.trouble = when(is_admission, delayed)
        async with replica.watching():
            jobs = await waiting(replica, 3)
            async with replica.leading() as before:
                await until(lambda: on_its_way)
        # Without a watch: it is the stamp that finds out.
        replica.wire.trouble = when(
            lambda request: is_stamp(request) and key_of(request) == jobs[0], first(arrives), 1
        )
        later = asyncio.get_running_loop().time
        async with replica.leading(LeaseTerm("replica/2", later, float("inf"), before.id)):
            await asyncio.sleep(300)
        assert not on_its_way, "the doubt was stamped"
        assert world.starts() == [jobs[0]]

    @in_virtual_time
    async def test_an_admission_before_the_stamp_is_counted(self) -> None:
        """It arrives between the new leader's list and its stamp: the Job is running."""
        world = World(forever())
        catalog = build.catalog(build.operario(), envelope=ONE_AT_A_TIME)
        old, new = world.replica("old", catalog=catalog), world.replica("new", catalog=catalog)
        on_its_way: list[Request] = []

        async def delayed(request: Request, _: Act) -> Any:
            on_its_way.append(request)
            await asyncio.Event().wait()

        async def arrives(_: Request) -> None:
            late = on_its_way.pop()
            await world.cluster.patch(JOBS, late.namespace, late.name, late.body)

        old.wire.trouble = when(is_admission, delayed)
        async with old.watching():
            jobs = await waiting(old, 3)
            async with old.leading():
                await until(lambda: on_its_way)
            # Without a watch: the new leader sees what it reads and writes itself.
            new.wire.trouble = when(
                lambda request: is_stamp(request) and key_of(request) == jobs[0], first(arrives), 1
            )
            async with new.leading():
                await asyncio.sleep(300)
        assert world.starts() == [jobs[0]]
        job = new.view.get(jobs[0])
        assert job is not None
        assert job.phase is Phase.RUNNING

    @in_virtual_time
    async def test_a_job_that_cannot_be_stamped_counts_as_running(self) -> None:
        """With a limit of one, nothing else starts before a stamp succeeds."""
        world = World(forever())
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))
        async with replica.watching():
            jobs = await waiting(replica, 2)
            replica.wire.trouble = when(
                lambda request: is_stamp(request) and key_of(request) == jobs[1],
                fails(Unavailable("no answer")),
            )
            async with replica.leading():
                await asyncio.sleep(60)
                assert world.starts() == []
                replica.wire.trouble = none
                await until(world.starts, within=2)
                await asyncio.sleep(60)
        assert world.starts() == [jobs[0]]

    @in_virtual_time
    async def test_a_stamp_without_an_answer_is_detected(self) -> None:
        """The Job has a stamp of this leader: it waits, and is admitted."""
        world = World(forever())
        replica = world.replica()
        replica.wire.trouble = when(is_stamp, fails(Unavailable("cut off"), carried_out=True), 1)
        async with replica.watching():
            jobs = await waiting(replica, 1)
            async with replica.leading():
                await until(world.starts, within=3)
        assert world.starts() == jobs

    @in_virtual_time
    async def test_without_a_list_nothing_starts(self) -> None:
        """A leader that cannot list the Jobs gives up, so that another one can try."""
        world = World(forever())
        replica = world.replica()
        async with replica.watching():
            await waiting(replica, 1)
            replica.wire.trouble = when(
                lambda request: request.verb == "list", fails(Unavailable("no answer"))
            )
            with pytest.raises(Unavailable):
                await replica.admitter.run(new_term("a"))
        assert replica.wire.writes()[1:] == []

    @in_virtual_time
    async def test_a_list_older_than_the_watch_starts_nothing_twice(self) -> None:
        """Events of the watch during the list are kept."""
        world = World()
        replica = world.replica()

        async def late(_: Request, act: Act) -> Any:
            answer = await act()
            await asyncio.sleep(10)
            return answer

        async with world.playing(), replica.watching():
            (job,) = await waiting(replica, 1)
            replica.wire.trouble = when(lambda request: request.verb == "list", late)
            async with in_background(replica.admitter.run(new_term("a"))):
                await asyncio.sleep(5)
                await world.cluster.delete(JOBS, job.namespace, job.name)
                await asyncio.sleep(60)
        assert len(replica.view) == 0
        assert world.starts() == []

    @in_virtual_time
    async def test_a_leader_that_has_just_started_does_not_list_twice_at_once(self) -> None:
        """It waits for the list of its view, and then lists once itself: stamps depend on that."""
        world = World(forever())
        other, replica = world.replica("other"), world.replica()
        async with other.watching():
            (job,) = await waiting(other, 1)
        in_flight: list[int] = []

        async def slow(_: Request, act: Act) -> Any:
            in_flight.append(in_flight[-1] + 1 if in_flight else 1)
            await asyncio.sleep(20)
            in_flight.append(in_flight[-1] - 1)
            return await act()

        replica.wire.trouble = when(lambda request: request.verb == "list", slow)
        async with in_background(replica.observer.run()):
            await until(lambda: in_flight)
            async with replica.leading():
                await until(world.starts, within=45)
        assert in_flight == [1, 0, 1, 0]
        assert world.starts() == [job]

    @pytest.mark.parametrize(
        ("happens", "within"), [(fails(Unavailable("no answer")), 1), (silence, 65)]
    )
    @in_virtual_time
    async def test_a_leader_does_not_depend_on_the_list_of_its_view(
        self, happens: Trouble, within: float
    ) -> None:
        """If that list fails or takes too long, the leader lists the Jobs itself."""
        world = World(forever())
        other, replica = world.replica("other"), world.replica()
        async with other.watching():
            (job,) = await waiting(other, 1)
        replica.wire.trouble = when(lambda request: request.verb == "list", happens, 1)
        async with in_background(replica.observer.run()):
            await until(lambda: replica.wire.requests)
            async with replica.leading():
                await until(world.starts, within=within)
        assert world.starts() == [job]

    @in_virtual_time
    async def test_a_leader_that_waits_for_its_view_can_hand_over(self) -> None:
        """It does not wait for the list, nor begin one, once its term is about to end."""
        replica = World().replica()
        term = new_term("a")
        replica.wire.trouble = when(lambda request: request.verb == "list", silence)
        async with in_background(replica.observer.run()):
            await until(lambda: replica.wire.requests)
            async with replica.leading(term):
                await asyncio.sleep(1)
                term.closing.set()
                await until(term.finished.is_set, within=1)
        assert not term.settled

    @in_virtual_time
    async def test_a_leader_does_not_wait_for_a_view_that_is_complete(self) -> None:
        """A watch that is opened again, with a list that hangs, does not delay the take-over."""
        world = World(forever())
        other, replica = world.replica("other"), world.replica()
        async with replica.watching():
            async with other.watching():
                (job,) = await waiting(other, 1)
            await until(lambda: job in replica.view)
        replica.wire.trouble = when(lambda request: request.verb == "list", silence, 1)
        replica.wire.requests.clear()
        async with in_background(replica.observer.run()):
            await until(lambda: replica.wire.requests)
            async with replica.leading():
                await until(world.starts, within=1)
        assert world.starts() == [job]


class TestHandingOver:
    """The end of a term, and the next one after a settled release."""

    @in_virtual_time
    async def test_after_a_settled_release_no_job_is_stamped(self) -> None:
        """The first write to a Job is its admission, and the next release is settled again."""
        world = World(forever())
        replica = world.replica()
        term = handed_over()
        async with replica.watching():
            jobs = await waiting(replica, 3)
            replica.paused = True
            async with replica.leading(term):
                await asyncio.sleep(10)
                assert replica.wire.writes()[3:] == []
                replica.paused = False
                await until(lambda: len(world.starts()) == 3)
                await close(term)
        assert not [request for request in replica.wire.writes() if is_stamp(request)]
        assert sorted(map(str, world.starts())) == sorted(map(str, jobs))
        assert term.settled

    @in_virtual_time
    async def test_a_closing_leader_waits_for_answers_and_sends_nothing_more(self) -> None:
        """Admissions in flight are finished; those that wait for a slot are not sent."""
        world = World(forever())
        many = build.operario(options=Options(max_concurrent=20))
        replica = world.replica(catalog=build.catalog(many))
        answer = asyncio.Event()

        async def late(_: Request, act: Act) -> Any:
            await answer.wait()
            return await act()

        async with replica.watching():
            await waiting(replica, 30)
            replica.wire.trouble = when(is_admission, late)
            async with replica.leading() as term:
                await until(lambda: any(map(is_admission, replica.wire.requests)))
                sent = len(replica.wire.writes())
                slots = replica.admitter.write_slots.current
                term.closing.set()
                await asyncio.sleep(2)
                assert not term.finished.is_set()
                answer.set()
                await until(term.finished.is_set, within=0.1)
                await asyncio.sleep(60)
        assert len(replica.wire.writes()) == sent
        assert len(world.starts()) == slots < 20
        assert term.settled

    @pytest.mark.parametrize("carried_out", [True, False])
    @in_virtual_time
    async def test_an_admission_without_an_answer_is_not_settled(
        self,
        carried_out: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """It may still arrive, so that the next leader must write stamps."""
        world = World(forever())
        replica = world.replica()
        replica.wire.trouble = when(
            is_admission, fails(Unavailable("cut off"), carried_out=carried_out)
        )
        async with replica.watching():
            await waiting(replica, 1)
            async with replica.leading() as term:
                await until(lambda: any(map(is_admission, replica.wire.requests)))
                await close(term)
        assert not term.settled

    @in_virtual_time
    async def test_an_admission_is_settled_by_a_stamp(self) -> None:
        """After a stamp nothing is unconfirmed."""
        world = World(forever())
        replica = world.replica()
        replica.wire.trouble = when(is_admission, fails(Unavailable("cut off")), 1)
        async with replica.watching():
            await waiting(replica, 1)
            async with replica.leading() as term:
                await until(world.starts)
                await close(term)
        assert term.settled

    @pytest.mark.parametrize("verb", ["list", "patch"])
    @pytest.mark.parametrize("was_handed_over", [True, False])
    @in_virtual_time
    async def test_a_take_over_that_was_not_completed_is_not_settled(
        self,
        verb: str,
        was_handed_over: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """Requests of an earlier leader may be in flight, unless its release was settled."""
        world = World(forever())
        replica = world.replica()
        answer, requested = asyncio.Event(), asyncio.Event()

        async def late(_: Request, act: Act) -> Any:
            requested.set()
            await answer.wait()
            return await act()

        async with replica.watching():
            await waiting(replica, 30)
            replica.paused = True
            replica.wire.trouble = when(lambda request: request.verb == verb, late)
            term = handed_over() if was_handed_over else new_term("a")
            async with replica.leading(term):
                await (
                    asyncio.sleep(5) if was_handed_over and verb == "patch" else requested.wait()
                )
                term.closing.set()
                await asyncio.sleep(1)
                answer.set()
                await until(term.finished.is_set, within=0.1)
        assert term.settled is was_handed_over
        stamps = [request for request in replica.wire.writes() if is_stamp(request)]
        assert len(stamps) == (8 if verb == "patch" and not was_handed_over else 0)

    @pytest.mark.parametrize("was_handed_over", [True, False])
    @in_virtual_time
    async def test_a_namespace_that_was_not_listed(
        self,
        was_handed_over: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """What is known of it is old: it is stamped, whatever the last leader said.

        Whether a Job there that nobody here knows of is being admitted by an earlier leader, only
        that word can tell.
        """
        world = World(forever())
        elsewhere = build.operario("elsewhere", alertname="Elsewhere", namespace=OTHER)
        replica = world.replica(catalog=build.catalog(build.operario(), elsewhere), namespaces=BOTH)
        replica.paused = True
        async with replica.watching():
            await waiting(replica, 1)
            await replica.deliver(build.alert(labels={"alertname": "Elsewhere", "pod": "db"}))
            replica.wire.trouble = when(
                lambda request: request.verb == "list" and request.namespace == OTHER,
                fails(Forbidden("no right in this namespace")),
            )
            term = handed_over() if was_handed_over else new_term("a")
            async with replica.leading(term):
                await asyncio.sleep(1)
                await close(term)
        stamps = [request.namespace for request in replica.wire.writes() if is_stamp(request)]
        assert sorted(stamps) == [*([] if was_handed_over else [build.JOBS_NAMESPACE]), OTHER]
        assert term.settled is was_handed_over

    @in_virtual_time
    async def test_a_leader_that_backs_off_stops_at_once(self) -> None:
        """Whatever its Retry-After is: nothing more is sent."""
        world = World(forever())
        replica = world.replica()
        replica.wire.trouble = when(is_admission, fails(Throttled("slow down", 20)))
        async with replica.watching():
            await waiting(replica, 1)
            async with replica.leading() as term:
                await until(lambda: any(map(is_admission, replica.wire.requests)))
                await asyncio.sleep(1)
                await close(term)
        assert term.settled

    @in_virtual_time
    async def test_unconfirmed_jobs_are_forgotten_after_another_leader(self) -> None:
        """The leader in between has stamped them."""
        world = World(forever())
        first, other = world.replica("first"), world.replica("other")
        async with first.watching(), other.watching():
            await waiting(first, 1)
            first.wire.trouble = when(is_admission, fails(Unavailable("cut off")))
            async with first.leading():
                await until(lambda: any(map(is_admission, first.wire.requests)))
            first.wire.trouble = none
            other.paused = True
            async with other.leading() as between:
                await asyncio.sleep(1)
                await close(between)
            assert between.settled
            first.wire.requests.clear()
            async with first.leading(handed_over()):
                await until(world.starts)
        assert not any(map(is_stamp, first.wire.requests))


def handed_over() -> LeaseTerm:
    """Make a term after a settled release."""
    clock = asyncio.get_running_loop().time
    return LeaseTerm("a/1", clock, float("inf"), handed_over=True)


async def close(term: LeaseTerm) -> None:
    """Let a leader finish that has nothing to wait for."""
    term.closing.set()
    await until(term.finished.is_set, within=0.1)


class TestUnconfirmed:
    """An admission of which it is unknown whether it was carried out."""

    @pytest.mark.parametrize("carried_out", [False, True], ids=["lost", "unheard"])
    @pytest.mark.parametrize("watched", [False, True], ids=["blind", "watching"])
    @in_virtual_time
    async def test_it_counts_as_running_and_happens_once(
        self, *, carried_out: bool, watched: bool
    ) -> None:
        """With a limit of one no other Job starts, and the Job itself starts exactly once."""
        world = World(forever())
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))
        with capture_logs() as log:
            async with replica.watching():
                jobs = await waiting(replica, 3)
                if watched:
                    await self.lose_one(replica, carried_out=carried_out)
            if not watched:
                await self.lose_one(replica, carried_out=carried_out)
        assert world.starts() == [jobs[0]]
        assert replica.tally.decisions == [Reason.ADMITTED]
        assert decisions_in(log) == [("admitted", str(jobs[0]), "admitted")]
        job = await world.job(jobs[0])
        assert job.admitted_at is not None
        assert [job.phase for job in await world.jobs()].count(Phase.WAITING) == 2

    async def lose_one(self, replica: Replica, *, carried_out: bool) -> None:
        """Lead for five minutes, with the first admission's answer lost."""
        error = Unavailable("cut off")
        replica.wire.trouble = when(is_admission, fails(error, carried_out=carried_out), 1)
        async with replica.leading():
            await asyncio.sleep(300)

    @in_virtual_time
    async def test_a_refusal_whose_answer_is_lost_is_logged(self) -> None:
        """Once, as soon as the Job shows it, with its reason and message."""
        world = World(forever())
        replica = world.replica()
        async with replica.watching():
            (job,) = await waiting(replica, 1)
            await asyncio.sleep(Options().max_wait.total_seconds())
            replica.wire.trouble = when(
                lambda request: request.sets(keys.DECISION),
                fails(Unavailable("cut off"), carried_out=True),
            )
            with capture_logs() as log:
                async with replica.leading():
                    await asyncio.sleep(60)
        assert world.starts() == []
        assert replica.tally.decisions == [Reason.MAX_WAIT]
        assert decisions_in(log) == [("refused", str(job), "max-wait")]
        assert "message" in next(line for line in log if line["event"] == "decision")

    @pytest.mark.parametrize("carried_out", [False, True], ids=["late", "unheard"])
    @in_virtual_time
    async def test_an_answer_that_is_lost_with_the_term_is_logged_in_the_next(
        self, *, carried_out: bool
    ) -> None:
        """If no other replica led in between: this one knows what it sent."""
        world = World(forever())
        replica = world.replica()

        async def hang(_: Request, act: Act) -> Any:
            if carried_out:
                await act()
            await asyncio.Event().wait()

        async with replica.watching():
            (job,) = await waiting(replica, 1)
            replica.wire.trouble = when(is_admission, hang)
            with capture_logs() as log:
                async with replica.leading() as before:
                    await until(lambda: any(map(is_admission, replica.wire.requests)))
                    await asyncio.sleep(1)
                replica.wire.trouble = none
                (late,) = filter(is_admission, replica.wire.requests)
                if not carried_out:
                    await world.cluster.patch(JOBS, late.namespace, late.name, late.body)
                assert decisions_in(log) == []
                clock = asyncio.get_running_loop().time
                async with replica.leading(LeaseTerm("replica/2", clock, float("inf"), before.id)):
                    await asyncio.sleep(10)
        assert world.starts() == [job]
        assert replica.tally.decisions == [Reason.ADMITTED]
        assert decisions_in(log) == [("admitted", str(job), "admitted")]

    @in_virtual_time
    async def test_nothing_else_starts_before_it_is_confirmed(self) -> None:
        """While stamps fail, too, it counts as running; when one succeeds, the Job starts."""
        world = World(forever())
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))
        async with replica.watching():
            jobs = await waiting(replica, 2)
            lost = fails(Unavailable("no answer"))
            async with replica.leading():
                replica.wire.trouble = when(is_admission, lost, 1)
                await until(lambda: any(map(is_admission, replica.wire.requests)))
                replica.wire.trouble = when(
                    lambda request: request.verb == "patch" and key_of(request) == jobs[0], lost
                )
                await asyncio.sleep(120)
                assert world.starts() == []
                replica.wire.trouble = none
                await asyncio.sleep(120)
        assert world.starts() == [jobs[0]]

    @in_virtual_time
    async def test_no_refusal_depends_on_it(self) -> None:
        """Another Job of the incident waits, and starts when the unconfirmed one is gone."""
        world = World(forever())
        replica = world.replica()
        async with replica.watching():
            (doubtful,) = await waiting(replica, 1)
            wobbled = pods_of("web-0", starts_at=build.STARTS_AT + timedelta(seconds=5))
            lost = fails(Unavailable("no answer"))
            async with replica.leading():
                replica.wire.trouble = when(is_admission, lost, 1)
                await until(lambda: any(map(is_admission, replica.wire.requests)))
                replica.wire.trouble = when(
                    lambda request: request.verb == "patch" and key_of(request) == doubtful, lost
                )
                (item,) = (await replica.deliver(wobbled)).items
                assert item.job is not None
                await asyncio.sleep(120)
                assert world.starts() == []
                assert (await world.job(item.job)).phase is Phase.WAITING
                await world.cluster.delete(JOBS, doubtful.namespace, doubtful.name)
                replica.wire.trouble = none
                await asyncio.sleep(120)
        assert world.starts() == [item.job]

    @in_virtual_time
    async def test_a_lost_permission_confirms_nothing(self) -> None:
        """An admission may still be in flight: the Job counts as running for that time."""
        world = World(forever())
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))
        async with replica.watching():
            jobs = await waiting(replica, 2)
            async with replica.leading():
                replica.wire.trouble = when(is_admission, fails(Unavailable("no answer")), 1)
                await until(lambda: any(map(is_admission, replica.wire.requests)))
                (lost,) = filter(is_admission, replica.wire.requests)
                replica.wire.trouble = when(
                    lambda request: request.verb == "patch" and key_of(request) == jobs[0],
                    fails(Forbidden("no right any more")),
                )
                await asyncio.sleep(60)
                assert world.starts() == []
                await world.cluster.patch(JOBS, lost.namespace, lost.name, lost.body)
                await asyncio.sleep(300)
        assert world.starts() == [jobs[0]]

    @in_virtual_time
    async def test_one_that_arrives_after_the_new_stamp_fails(self) -> None:
        """The request was late, not lost: it has no effect any more."""
        world = World(forever())
        replica = world.replica()
        late: list[asyncio.Task[Any]] = []

        async def slow(_: Request, act: Act) -> Any:
            async def arrive() -> Any:
                await asyncio.sleep(30)
                return await act()

            late.append(asyncio.create_task(arrive()))
            raise Unavailable("no answer")

        replica.wire.trouble = when(is_admission, slow, 1)
        async with replica.watching():
            jobs = await waiting(replica, 1)
            async with replica.leading():
                await asyncio.sleep(10)
                assert world.starts() == jobs
                await world.change(
                    jobs[0], {"op": "replace", "path": "/spec/suspend", "value": True}
                )
                with pytest.raises(Invalid):
                    await late[0]
                await asyncio.sleep(10)
        assert world.starts() == jobs
        assert (await world.job(jobs[0])).phase is Phase.HELD

    @in_virtual_time
    async def test_own_admissions_count_without_the_watch(self) -> None:
        """With a silent watch the limits hold, too."""
        world = World(forever())
        limits = Envelope(limits=Limits(concurrent=2))
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=limits))
        async with replica.watching():
            jobs = await waiting(replica, 5)
        async with replica.leading():
            await asyncio.sleep(300)
        assert world.starts() == jobs[:2]
        assert len([request for request in replica.wire.requests if is_admission(request)]) == 2


class TestTerm:
    """No write after the end of the term."""

    @pytest.mark.parametrize("kind", ["stamp", "admission"])
    @in_virtual_time
    async def test_a_term_that_ends_during_a_pass_stops_all_writes(self, kind: str) -> None:
        """Of fifty decisions the fifth is the last one that is sent."""
        world = World(forever())
        limits = Envelope(limits=Limits(concurrent=100))
        options = Options(max_concurrent=100, max_per_hour=100)
        catalog = build.catalog(build.operario(options=options), envelope=limits)
        replica = world.replica(catalog=catalog)
        term = new_term("a")
        ended: list[int] = []
        counted = is_stamp if kind == "stamp" else is_admission

        async def trouble(request: Request, act: Act) -> Any:
            if counted(request):
                ended.append(len(replica.wire.requests))
                if len(ended) == 5:
                    term.end()
            await asyncio.sleep(0.1)
            return await act()

        async with replica.watching():
            await replica.deliver(*(pods_of(f"web-{number}") for number in range(50)))
            replica.wire.trouble = trouble
            with pytest.raises(ExceptionGroup) as raised:
                await replica.admitter.run(term)
            assert raised.group_contains(TermEnded)
            after = replica.wire.requests[ended[4] :]
        assert len(ended) == 5
        assert not [request for request in after if request.writes]
        assert len(world.starts()) <= 5

    @in_virtual_time
    async def test_a_replica_that_slept_through_its_term_writes_nothing(self) -> None:
        """The answer to a read arrives when another replica leads."""
        world = World(forever())
        replica = world.replica()
        term = new_term("a", lasts=10)
        async with replica.watching():
            await waiting(replica, 3)
            replica.wire.requests.clear()

            async def slow(_: Request, act: Act) -> Any:
                await asyncio.sleep(20)
                return await act()

            replica.wire.trouble = when(lambda request: request.verb == "list", slow)
            with pytest.raises(ExceptionGroup) as raised:
                await replica.admitter.run(term)
            assert raised.group_contains(TermEnded)
        assert replica.wire.writes() == []

    @in_virtual_time
    async def test_a_cancellation_during_a_write_leaves_nothing_behind(self) -> None:
        """No task and no subscription; the next term starts with a list."""
        world = World(forever())
        replica = world.replica()
        async with replica.watching():
            jobs = await waiting(replica, 3)

            async def hangs(_: Request, __: Act) -> Any:
                await asyncio.Event().wait()

            replica.wire.trouble = when(is_admission, hangs)
            before = asyncio.all_tasks()
            async with replica.leading():
                await until(lambda: any(map(is_admission, replica.wire.requests)))
            assert asyncio.all_tasks() == before
            assert not replica.view._subscribers
            replica.wire.trouble = none
            async with replica.leading():
                await until(lambda: len(world.starts()) == 3)
        assert sorted(map(str, world.starts())) == sorted(map(str, jobs))


class TestRaces:
    """Changes by others between a decision and its patch."""

    @in_virtual_time
    async def test_a_deleted_job_is_forgotten(self) -> None:
        """It is removed from the view, and the next Job starts."""
        world = World(forever())
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))

        async def delete(request: Request) -> None:
            await world.cluster.delete(JOBS, request.namespace, request.name)

        async with replica.watching():
            jobs = await waiting(replica, 2)
            replica.wire.trouble = when(is_admission, first(delete), 1)
            async with replica.leading():
                await until(world.starts, within=1)
        assert world.starts() == [jobs[1]]
        assert [job.key for job in replica.view] == [jobs[1]]

    @in_virtual_time
    async def test_a_job_that_someone_else_starts_is_counted(self) -> None:
        """It counts as running, and records that no leader admitted it."""
        world = World(forever())
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))

        async def unsuspend(request: Request) -> None:
            start = {"op": "replace", "path": "/spec/suspend", "value": False}
            await world.change(key_of(request), start)

        async with replica.watching():
            jobs = await waiting(replica, 2)
        replica.wire.trouble = when(is_admission, first(unsuspend), 1)
        async with replica.leading():  # without a watch
            await asyncio.sleep(60)
        assert world.starts() == [jobs[0]]
        job = await world.job(jobs[0])
        assert job.phase is Phase.RUNNING
        assert job.started_by_other
        assert job.admitted_by == keys.SOMEBODY_ELSE

    @pytest.mark.parametrize("same_leader", [True, False])
    @in_virtual_time
    async def test_a_job_started_and_suspended_by_a_person_is_never_started(
        self,
        same_leader: bool,  # noqa: FBT001, pytest gives it by name
    ) -> None:
        """Although its Pods are gone, this leader and the next one know that it started."""
        world = World(forever())
        replica, successor = world.replica(), world.replica("replica-b")
        suspend = {"op": "replace", "path": "/spec/suspend", "value": True}
        async with world.playing(), replica.watching(), successor.watching():
            replica.paused = successor.paused = True
            (job,) = await waiting(replica, 1)
            async with replica.leading():
                await world.change(job, {**suspend, "value": False})
                await asyncio.sleep(5)
                await world.change(job, suspend)
                await asyncio.sleep(120)
                assert (await world.job(job)).active == 0
                replica.paused = successor.paused = not same_leader
                await asyncio.sleep(120)
            successor.paused = False
            async with successor.leading():
                await asyncio.sleep(120)
                assert (await successor.deliver(pods_of("web-0"))).items[0].job == job
        assert world.starts() == [job]
        current = await world.job(job)
        assert (current.phase, current.started) == (Phase.HELD, True)

    @in_virtual_time
    async def test_a_job_suspended_before_its_start_was_recorded_is_held(self) -> None:
        """A leader that saw it running records that on the suspended Job."""
        world = World(forever())
        replica = world.replica()
        suspend = {"op": "replace", "path": "/spec/suspend", "value": True}

        async def stop(request: Request) -> None:
            await world.change(key_of(request), suspend)

        async with world.playing(), replica.watching():
            (job,) = await waiting(replica, 1)
            await world.change(job, {**suspend, "value": False})
            await asyncio.sleep(1)
            replica.wire.trouble = when(is_admission, first(stop), 1)
            async with replica.leading():
                await asyncio.sleep(120)
        assert world.starts() == [job]
        assert (await world.job(job)).phase is Phase.HELD

    @in_virtual_time
    async def test_a_record_that_is_rejected_does_not_block_others(self) -> None:
        """If the Job may not be changed, it is retried later; the others start."""
        world = World(forever())
        replica = world.replica()
        async with world.playing(), replica.watching():
            job, *others = await waiting(replica, 3)
            await world.change(job, {"op": "replace", "path": "/spec/suspend", "value": False})
            await asyncio.sleep(1)
            replica.wire.trouble = when(
                lambda request: request.sets(keys.ADMITTED_BY) and key_of(request) == job,
                fails(Invalid("a policy")),
                2,
            )
            async with replica.leading():
                await until(lambda: len(world.starts()) == 3, within=5)
                assert not (await world.job(job)).admitted_by
                replica.wire.requests.clear()
                await asyncio.sleep(20)
                assert replica.wire.writes() == []
                await asyncio.sleep(60)
        assert set(world.starts()) == {job, *others}
        assert (await world.job(job)).admitted_by == keys.SOMEBODY_ELSE

    @pytest.mark.parametrize(
        ("annotation", "value", "phase"),
        [
            (keys.DECISION, "refused", Phase.REFUSED),
            (keys.DECISION, "cancelled", Phase.CANCELLED),
            (keys.RESOLVED_AT, "2026-11-21T03:05:00.000000Z", Phase.REFUSED),
        ],
    )
    @in_virtual_time
    async def test_a_job_that_is_decided_or_resolved_does_not_start(
        self, annotation: str, value: str, phase: Phase
    ) -> None:
        """A decision by hand or a resolved alert wins over an admission in flight."""
        world = World(forever())
        replica = world.replica()

        async def decide(request: Request) -> None:
            await world.annotate(key_of(request), annotation, value)

        async with replica.watching():
            (job,) = await waiting(replica, 1)
            replica.wire.trouble = when(is_admission, first(decide), 1)
            async with replica.leading():
                await asyncio.sleep(60)
        assert world.starts() == []
        assert (await world.job(job)).phase is phase

    @in_virtual_time
    async def test_a_revoked_approval_stops_the_start(self) -> None:
        """If it is approved again, it starts."""
        world = World(forever())
        options = Options(approval=True)
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        path = f"/metadata/annotations/{keys.pointer(keys.APPROVED_BY)}"

        async def take_back(request: Request) -> None:
            await world.change(key_of(request), {"op": "remove", "path": path})

        async with replica.watching():
            (job,) = await waiting(replica, 1)
            replica.wire.trouble = when(is_admission, first(take_back), 1)
            async with replica.leading():
                await asyncio.sleep(10)
                assert world.starts() == []
                await world.annotate(job, keys.APPROVED_BY, "ada")
                await asyncio.sleep(60)
                assert world.starts() == []
                await world.annotate(job, keys.APPROVED_BY, "ada")
                await until(world.starts, within=1)

    @in_virtual_time
    async def test_a_newer_stamp_is_not_overwritten(self) -> None:
        """The term changed after the decision: the Job is read again before the next decision."""
        world = World(forever())
        replica = world.replica()

        async def claim(request: Request) -> None:
            await world.annotate(key_of(request), keys.TERM, "somebody/2#1")

        async with replica.watching():
            (job,) = await waiting(replica, 1)
            replica.wire.trouble = when(is_admission, first(claim), 1)
            async with replica.leading():
                await until(world.starts, within=1)
        tested = [
            operation["value"]
            for request in replica.wire.requests
            if is_admission(request)
            for operation in request.body
            if operation["op"] == "test" and operation["path"].endswith("term")
        ]
        assert len(tested) == 2
        assert tested[1] == "somebody/2#1"
        assert (await world.job(job)).admitted_at is not None


class TestRights:
    """Jobs that the API server does not allow to change."""

    @pytest.mark.parametrize("verbs", [("patch",), ("patch", "list")], ids=["patch", "list"])
    @pytest.mark.parametrize("known_before", [True, False], ids=["takeover", "later"])
    @in_virtual_time
    async def test_a_forbidden_namespace_does_not_stop_the_others(
        self, verbs: tuple[str, ...], *, known_before: bool
    ) -> None:
        """Its Jobs are first in the queue and take no place; once allowed, they start."""
        world = World(JobPlayer(Durations(run=5)))
        elsewhere = build.operario(
            "elsewhere", alertname="Elsewhere", namespace=OTHER, options=Options(priority=9)
        )
        catalog = build.catalog(build.operario(), elsewhere, envelope=ONE_AT_A_TIME)
        replica = world.replica(catalog=catalog, namespaces=BOTH)
        blocked = [
            build.alert(labels={"alertname": "Elsewhere", "pod": f"db-{number}"})
            for number in range(10)
        ]
        forbidden = when(
            lambda request: request.namespace == OTHER and request.verb in verbs,
            fails(Forbidden("no right in this namespace")),
        )
        async with world.playing(), replica.watching():
            if known_before:
                await replica.deliver(*blocked)
                replica.wire.trouble = forbidden
            async with replica.leading():
                await asyncio.sleep(1)
                if not known_before:
                    replica.wire.trouble = forbidden
                    await replica.deliver(*blocked)
                jobs = await waiting(replica, 3)
                # (What the leader before may have sent there counts for as long as it could live.)
                await until(lambda: world.starts() == jobs, within=150 if known_before else 30)
                replica.wire.requests.clear()
                began = seconds_so_far()
                await asyncio.sleep(300)
                rate = len(replica.wire.writes()) / (seconds_so_far() - began)
                assert rate < 3
                replica.wire.trouble = none
                await until(lambda: len(world.starts()) > 3, within=31)

    @in_virtual_time
    async def test_nothing_is_decided_before_every_namespace_was_listed(self) -> None:
        """Jobs there count toward the limits: without a list the leader decides nothing."""
        world = World(JobPlayer(Durations(run=5)))
        before, after = (
            world.replica(name, catalog=build.catalog(build.operario()), namespaces=BOTH)
            for name in ("before", "after")
        )
        after.wire.trouble = when(
            lambda request: request.namespace == OTHER and request.verb == "list",
            fails(Forbidden("no right in this namespace")),
        )
        async with (
            world.playing(),
            before.watching(),
            in_background(after.observer.run()),
            after.leading(),
        ):
            [job] = await waiting(before, 1)
            await asyncio.sleep(300)
            assert world.starts() == []
            assert (await world.job(job)).decision is None
            after.wire.trouble = none
            await until(lambda: world.starts() == [job], within=60)

    @in_virtual_time
    async def test_a_rejected_change_does_not_stop_the_others(self) -> None:
        """A 422 that is not a failed test, for example of an admission policy."""
        world = World(JobPlayer(Durations(run=5)))
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=ONE_AT_A_TIME))
        async with world.playing(), replica.watching(), replica.leading():
            replica.wire.trouble = when(
                lambda request: is_admission(request) and "web-0" in names[request.name],
                fails(Invalid("denied by policy")),
            )
            names: dict[str, str] = {}
            for number in range(3):
                manifest = build.rendered(pods_of(f"web-{number}")).manifest
                names[manifest["metadata"]["name"]] = f"web-{number}"
            jobs = await waiting(replica, 3)
            await until(lambda: len(world.starts()) == 2, within=30)
            replica.wire.requests.clear()
            await asyncio.sleep(300)
            assert len(replica.wire.writes()) <= 11
        assert world.starts() == jobs[1:]


class TestPace:
    """How often requests are sent, and what starts another pass."""

    @pytest.mark.parametrize(
        "error",
        [Unavailable("no answer"), Throttled("slow down"), Conflict("busy")],
        ids=lambda error: type(error).__name__,
    )
    @in_virtual_time
    async def test_a_failing_api_server_gets_few_requests(self, error: ApiError) -> None:
        """With sixty waiting Jobs and constant changes there are a few dozen writes per second."""
        world = World(forever())
        limits = Envelope(limits=Limits(concurrent=1000, per_minute=1000))
        options = Options(max_concurrent=1000, max_per_hour=1000)
        catalog = build.catalog(build.operario(options=options), envelope=limits)
        replica = world.replica(catalog=catalog)
        replica.wire.trouble = when(lambda request: request.verb == "patch", fails(error))
        async with replica.watching():
            await replica.deliver(*(pods_of(f"web-{number}") for number in range(60)))
            job = next(iter(replica.view)).key
            replica.wire.requests.clear()
            async with replica.leading():
                for moment in range(100):
                    await world.annotate(job, "example.org/note", str(moment))
                    await asyncio.sleep(0.1)
                pressed = len(replica.wire.writes())
                replica.wire.trouble = none
                await until(lambda: len(world.starts()) == 60, within=10)
        assert 10 <= pressed <= 10 * 64

    @in_virtual_time
    async def test_a_slow_api_server_does_not_delay_the_next_pass(self) -> None:
        """Waiting for an answer does not delay the next pass."""
        world = World(forever())
        replica = world.replica()
        replica.admitter._stopwatch = seconds_so_far

        async def slow(_: Request, act: Act) -> Any:
            await asyncio.sleep(4)
            return await act()

        async with replica.watching():
            first_jobs = await waiting(replica, 1)
            replica.wire.trouble = when(is_admission, slow)
            async with replica.leading():
                await until(lambda: world.starts() == first_jobs)
                await replica.deliver(pods_of("web-late"))
                await until(lambda: len(world.starts()) == 2, within=6)

    @in_virtual_time
    async def test_retry_after_is_respected(self) -> None:
        """Nothing is written before Retry-After has passed."""
        world = World(forever())
        replica = world.replica()
        requested_at: list[float] = []

        async def throttles(_: Request, __: Act) -> Any:
            requested_at.append(seconds_so_far())
            raise Throttled("slow down", 7)

        async with replica.watching():
            await waiting(replica, 1)
            replica.wire.trouble = when(is_admission, throttles, 4)
            async with replica.leading():
                await until(world.starts)
        pauses = [later - before for before, later in pairwise(requested_at)]
        assert len(pauses) == 3
        assert all(pytest.approx(7, abs=0.5) == pause for pause in pauses)

    @in_virtual_time
    async def test_an_idle_leader_sends_no_requests(self) -> None:
        """Without waiting Jobs no request about Jobs is sent for an hour."""
        world = World()
        replica = world.replica()
        async with world.playing(), replica.watching(), replica.leading():
            await waiting(replica, 2)
            await asyncio.sleep(60)
            replica.wire.requests.clear()
            await asyncio.sleep(3600)
        assert replica.wire.writes() == []
        about_jobs = [request for request in replica.wire.requests if request.resource == JOBS]
        assert len(about_jobs) <= 2  # the watch is opened anew

    @in_virtual_time
    async def test_a_pause_stops_admission_and_its_end_is_noticed(self) -> None:
        """Without any Job event; running Jobs go on, and refusals are still written."""
        world = World()
        options = Options(cooldown=timedelta(0))
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        async with world.playing(), replica.watching(), replica.leading():
            replica.paused = True
            jobs = await waiting(replica, 2)
            await asyncio.sleep(600)
            assert world.starts() == []
            await replica.deliver(resolved(pods_of("web-0"), world.now()))
            await until(lambda: (job := replica.view.get(jobs[0])) and job.phase is Phase.REFUSED)
            replica.paused = False
            await until(world.starts, within=2)
        assert world.starts() == [jobs[1]]

    @in_virtual_time
    async def test_a_catalog_s_pause_and_arrival_are_noticed(self) -> None:
        """Without any Job event."""
        world = World()
        replica = world.replica()
        running = replica.catalog
        async with world.playing(), replica.watching(), replica.leading():
            replica.catalog = build.catalog(build.operario(), envelope=Envelope(paused=True))
            await waiting(replica, 1)
            await asyncio.sleep(60)
            assert world.starts() == []
            replica.catalog = None
            await asyncio.sleep(60)
            assert world.starts() == []
            replica.catalog = running
            await until(world.starts, within=2)

    @in_virtual_time
    async def test_the_clock_alone_ends_a_cooldown(self) -> None:
        """The next Job on the target starts when it has passed, without any event."""
        world = World()
        options = Options(cooldown=build.minutes(10))
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        async with world.playing(), replica.watching(), replica.leading():
            await waiting(replica, 1)
            await until(lambda: all(job.finished for job in replica.view))
            (done,) = replica.view
            assert done.finished_at is not None
            await asyncio.sleep(120)
            await replica.deliver(pods_of("web-0", starts_at=world.now()))
            due = done.finished_at + build.minutes(10)
            await asyncio.sleep((due - world.now()).total_seconds() - 0.05)
            assert len(world.starts()) == 1
            await until(lambda: len(world.starts()) == 2, within=0.2)

    @in_virtual_time
    async def test_the_clock_alone_ends_the_limit_per_minute(self) -> None:
        """With two per minute the third waits until the first start is a minute ago."""
        world = World()
        limits = Envelope(limits=Limits(per_minute=2))
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=limits))
        async with world.playing(), replica.watching(), replica.leading():
            await replica.deliver(*(pods_of(f"web-{number}") for number in range(5)))
            await asyncio.sleep(150)
            begun = sorted(job.admitted_at for job in replica.view if job.admitted_at)
        assert len(begun) == 5
        for earlier, later in zip(begun, begun[2:], strict=False):
            assert build.minutes(1) <= later - earlier <= build.minutes(1) + build.seconds(0.1)

    @in_virtual_time
    async def test_the_clock_alone_ends_a_resolve_delay(self) -> None:
        """A resolved alert's Job starts after resolve-delay, and after the firing Job has ended."""
        world = World()
        undo = build.operario(
            "undo", status=Status.RESOLVED, options=Options(resolve_delay=build.minutes(3))
        )
        options = Options(on_resolve=OnResolve.KEEP)
        replica = world.replica(catalog=build.catalog(build.operario(options=options), undo))
        async with world.playing(), replica.watching(), replica.leading():
            await waiting(replica, 1)
            await asyncio.sleep(60)
            received = world.now()
            await replica.deliver(resolved(pods_of("web-0"), received))
            await until(lambda: len(world.starts()) == 2, within=3600)
            due = received + build.minutes(3)
            assert due <= world.now() <= due + build.seconds(0.1)

    @in_virtual_time
    async def test_the_clock_alone_ends_max_wait(self) -> None:
        """Without an approval the Job is refused after max-wait, without any event."""
        world = World()
        options = Options(approval=True, max_wait=build.minutes(20))
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        async with replica.watching(), replica.leading():
            await replica.deliver(build.alert())
            await asyncio.sleep(20 * 60 - 0.05)
            assert [job.phase for job in replica.view] == [Phase.AWAITING_APPROVAL]
            await asyncio.sleep(0.2)
            assert [job.phase for job in replica.view] == [Phase.REFUSED]
        assert replica.tally.decisions == [Reason.MAX_WAIT]


class TestPause:
    """Acknowledging a pause."""

    @in_virtual_time
    async def test_nothing_starts_once_it_is_acknowledged(self) -> None:
        """Within seconds, also without events; after a resume it goes on."""
        world = World()
        replica = world.replica()
        async with world.playing(), replica.watching(), replica.leading():
            await asyncio.sleep(60)
            await world.switch("first", paused=True)
            await asyncio.sleep(6)
            assert await world.acknowledged() == "first"
            jobs = await waiting(replica, 2)
            await asyncio.sleep(60)
            assert world.starts() == []
            await world.switch("second", paused=False)
            await until(world.starts, within=2)
            assert await world.acknowledged() == "second"
        assert world.starts()[0] == jobs[0]

    @in_virtual_time
    async def test_it_is_not_acknowledged_while_an_admission_is_in_flight(self) -> None:
        """Earlier decisions are carried out before the acknowledgement."""
        world = World(forever())
        replica = world.replica()

        async def slow(_: Request, act: Act) -> Any:
            await asyncio.sleep(4)
            return await act()

        replica.wire.trouble = when(is_admission, slow)
        async with replica.watching(), in_background(replica.control.run()):
            jobs = await waiting(replica, 1)
            async with replica.leading():
                await until(lambda: any(map(is_admission, replica.wire.requests)))
                await world.switch("stop", paused=True)
                while not world.starts():
                    assert await world.acknowledged() == ""
                    await asyncio.sleep(0.1)
                await asyncio.sleep(6)
                assert await world.acknowledged() == "stop"
        assert world.starts() == jobs

    @pytest.mark.parametrize("when_lost", ["in this term", "in the term before"])
    @in_virtual_time
    async def test_it_is_not_acknowledged_while_an_admission_is_unconfirmed(
        self, when_lost: str
    ) -> None:
        """A stamp must succeed first."""
        world = World(forever())
        replica = world.replica()
        async with replica.watching():
            await waiting(replica, 2)
            if when_lost == "in this term":
                replica.wire.trouble = when(is_admission, fails(Unavailable("no answer")))
            else:
                replica.wire.trouble = when(is_stamp, fails(Unavailable("no answer")))
            async with replica.leading():
                await asyncio.sleep(1)
                replica.wire.trouble = when(is_stamp, fails(Unavailable("no answer")))
                await world.switch("stop", paused=True)
                await asyncio.sleep(60)
                assert await world.acknowledged() == ""
                replica.wire.trouble = none
                await asyncio.sleep(6)
                assert await world.acknowledged() == "stop"
        assert world.starts() == []

    @in_virtual_time
    async def test_a_new_leader_starts_nothing_before_it_has_read_it(self) -> None:
        """It knew of no pause when it last read the ConfigMap, and cannot read it now."""
        world = World(forever())
        replica = world.replica()
        async with replica.watching():
            assert not await replica.control.read_pause()
            await world.switch("stop", paused=True)
            await waiting(replica, 1)
            replica.wire.trouble = when(
                lambda request: request.resource == CONFIG_MAPS, fails(Unavailable("no answer"))
            )
            async with replica.leading():
                await asyncio.sleep(60)
                replica.wire.trouble = none
                await asyncio.sleep(60)
                assert await world.acknowledged() == "stop"
        assert world.starts() == []

    @pytest.mark.parametrize("error", [Forbidden("no right"), Unavailable("no answer")])
    @in_virtual_time
    async def test_a_failed_acknowledgement_is_retried_slowly(self, error: ApiError) -> None:
        """With constant changes there is at most one attempt per second, until one succeeds."""
        world = World()
        replica = world.replica()
        replica.wire.trouble = when(
            lambda request: request.resource == CONFIG_MAPS and request.writes, fails(error)
        )
        async with replica.watching(), replica.leading():
            (job,) = await waiting(replica, 1)
            await world.switch("stop", paused=True)
            for moment in range(200):
                await world.annotate(job, "example.org/note", str(moment))
                await asyncio.sleep(0.1)
            assert 10 <= len(replica.wire.writes(CONFIG_MAPS)) <= 21
            replica.wire.trouble = none
            await asyncio.sleep(6)
            assert await world.acknowledged() == "stop"

    @in_virtual_time
    async def test_it_is_not_acknowledged_after_the_term(self) -> None:
        """Another replica leads then, and may start Jobs."""
        world = World()
        replica = world.replica()
        term = new_term("a")

        async def ends(request: Request, act: Act) -> Any:
            if request.resource == CONFIG_MAPS and request.verb == "get":
                term.end()
            return await act()

        await world.switch("stop", paused=True)
        replica.wire.trouble = ends
        async with replica.watching():
            with pytest.raises(TermEnded):
                await replica.admitter.run(term)
        assert await world.acknowledged() == ""


class TestKueue:
    """Jobs that Kueue starts from a queue."""

    @in_virtual_time
    async def test_admission_hands_the_job_over_and_counts_it(self) -> None:
        """The queue label is added; the Job stays suspended and counts toward the limits."""
        world = World()
        queued = build.operario(labels={keys.KUEUE_QUEUE: "night"})
        replica = world.replica(catalog=build.catalog(queued, envelope=ONE_AT_A_TIME))
        async with world.playing(), replica.watching(), replica.leading():
            jobs = await waiting(replica, 2)
            await asyncio.sleep(60)
        handed, left = [await world.job(key) for key in jobs]
        job = await world.cluster.get(JOBS, jobs[0].namespace, jobs[0].name)
        assert (handed.phase, left.phase) == (Phase.QUEUED, Phase.WAITING)
        assert job["metadata"]["labels"][keys.KUEUE_QUEUE] == "night"
        assert world.starts() == []


class Storm:
    """Random alerts, faults and changes of leader, from one seed."""

    rules = (
        Options(max_concurrent=2, cooldown=build.seconds(20)),
        Options(max_concurrent=1, cooldown=timedelta(0), priority=1),
        Options(),
    )
    restart, drain, undo = (
        replace(options, target=("pod",), max_wait=build.minutes(20)) for options in rules
    )
    operarios = (
        build.operario("restart", options=restart),
        build.operario("drain", alertname="Drain", options=drain),
        build.operario("undo", status=Status.RESOLVED, options=undo),
    )
    concurrent = 3

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a story, not a secret
        self.world = World(Uneven())
        envelope = Envelope(limits=Limits(concurrent=self.concurrent))
        catalog = build.catalog(*self.operarios, envelope=envelope)
        moved = build.catalog(
            build.operario("restart", options=self.restart, namespace=OTHER),
            *self.operarios[1:],
            envelope=envelope,
        )
        self.replicas = [
            self.world.replica("a", catalog=catalog, namespaces=BOTH),
            self.world.replica("b", catalog=moved, namespaces=BOTH),
        ]
        self.late: set[asyncio.Task[Any]] = set()
        self.faults = self.rng.choice([0.0, 0.1, 0.4])
        for replica in self.replicas:
            replica.wire.trouble = self.trouble

    async def trouble(self, request: Request, act: Act) -> Any:
        """Answer, fail before or after the write, or answer after the timeout."""
        await asyncio.sleep(self.rng.choice([0, 0, 0.01, 0.5]))
        if request.verb in ("watch", "list") or self.rng.random() > self.faults:
            return await act()
        match self.rng.randrange(4):
            case 0:
                raise self.rng.choice([Throttled("slow"), Conflict("quota"), Forbidden("no")])
            case 1:
                raise Unavailable("lost")
            case 2:
                await act()
                raise Unavailable("unheard")
            case _:
                self.late.add(asyncio.create_task(self.arrive(act, self.rng.uniform(0, 20))))
                raise Unavailable("late")

    async def arrive(self, act: Act, after: float) -> None:
        """Carry out a request after its timeout."""
        await asyncio.sleep(after)
        with suppress(ApiError):
            await act()

    async def rage(self) -> None:
        """Ten minutes with faults, and then without faults until all Jobs have ended."""
        first, other = self.replicas
        async with self.world.playing(), first.watching(), other.watching():
            async with in_background(self.lead()):
                for number in range(self.rng.randrange(5, 25)):
                    await self.rng.choice(self.replicas).deliver(*self.alerts())
                    await asyncio.sleep(self.rng.choice([0, 0.1, 3, 25]))
                    if self.rng.random() < 0.3:
                        paused = self.rng.random() < 0.5
                        await self.world.switch(f"request {number}", paused=paused)
            await self.world.switch("at last", paused=False)
            self.faults = 0.0
            async with first.leading():
                await asyncio.sleep(40 * 60)
            if self.late:
                await asyncio.wait(self.late)

    async def lead(self) -> None:
        """Change the leader, also while writes are in flight."""
        while True:
            replica = self.rng.choice(self.replicas)
            async with replica.leading():
                await asyncio.sleep(self.rng.choice([0.02, 1, 10, 60]))

    def alerts(self) -> list[Any]:
        """Make a delivery of firing, repeated and resolved alerts about a few Pods."""
        alerts = []
        for _ in range(self.rng.randrange(1, 4)):
            name = self.rng.choice(["PodCrashLooping", "PodCrashLooping", "Drain"])
            alert = build.alert(
                labels={"alertname": name, "pod": f"web-{self.rng.randrange(5)}"},
                starts_at=build.NOW + timedelta(seconds=self.rng.choice([-30, -25, 100, 300])),
            )
            ends = self.rng.random() < 0.2
            alerts.append(resolved(alert, self.world.now()) if ends else alert)
        return alerts


class Uneven(JobPlayer):
    """Jobs that take between one second and minutes."""

    def run_for(self, pod: Object) -> float:
        """Seconds until this Pod ends by itself."""
        return 1.0 + sum(pod["metadata"]["name"].encode()) % 120


def is_running(job: Object | None) -> bool:
    """Whether a Job has Pods, or will have them at once."""
    if job is None or job["spec"]["suspend"]:
        return False
    conditions = job.get("status", {}).get("conditions", ())
    return not any(condition["type"] in ("Complete", "Failed") for condition in conditions)


class TestLimits:
    """What must always hold, with any faults."""

    @settings(max_examples=scaled(1))
    @given(seed=st.integers(0, 2**32))
    @in_virtual_time
    async def test_no_state_of_the_cluster_ever_breaks_a_limit(self, seed: int) -> None:
        """One Job per target, so many per operario and in all, each occurrence at most once.

        Every state that the cluster went through is checked, over lost, late and refused
        requests, two replicas at two commits, leaders that change in mid-write, and a person who
        pauses. In the end everything has run or been refused.
        """
        storm = Storm(seed)
        await storm.rage()
        max_concurrent = {
            operario.name: operario.options.max_concurrent for operario in storm.operarios
        }
        now: dict[JobKey, Object] = {}
        started: Counter[str] = Counter()
        is_paused = False  # that nothing starts
        for write in storm.world.cluster._store.since(1):
            job = write.after or write.before
            assert job is not None
            if write.resource == CONFIG_MAPS:
                request, acknowledged = (
                    job["data"].get(key) for key in ("request", "acknowledged")
                )
                is_paused = job["data"]["paused"] == "true" and request == acknowledged
            if write.resource != JOBS:
                continue
            key = JobKey(write.namespace, job["metadata"]["name"])
            if is_running(write.after) and key not in now:
                assert not is_paused
                now[key] = job
                started[job["metadata"]["labels"][keys.OCCURRENCE]] += 1
            elif not is_running(write.after):
                now.pop(key, None)
            annotations = [job["metadata"]["annotations"] for job in now.values()]
            assert len(annotations) <= Storm.concurrent
            assert max(Counter(job[keys.TARGET] for job in annotations).values(), default=0) <= 1
            for name, count in Counter(job[keys.OPERARIUS] for job in annotations).items():
                assert count <= max_concurrent[name]
        assert set(started.values()) <= {1}
        left: list[Remediation] = await storm.world.jobs(*BOTH)
        assert {job.phase for job in left} <= FINAL
