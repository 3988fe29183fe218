"""Failure messages, cancellations and deletions, with an API server that fails."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from openfero_gitops.cluster.api import JOBS, PODS
from openfero_gitops.demo.cluster import FOREVER, Durations, JobPlayer, PodOutcome
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.errors import Conflict, Forbidden, Throttled, Unavailable
from openfero_gitops.domain.operario import OnResolve, Options
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.leadership.term import TermEnded
from openfero_gitops.tracing import NO_TRACES
from tests.support import build
from tests.support.copying import replace
from tests.support.workers import (
    Replica,
    World,
    in_background,
    in_virtual_time,
    new_term,
    none,
    pods_of,
    resolved,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.leadership.term import LeaseTerm
    from tests.support.relay import Act, Request

DAY = 24 * 3600
#: Of a controller that remembers for an hour.
SHORT = build.catalog(build.operario(), envelope=Envelope(remember=timedelta(hours=1)))
REMEMBER = 3600


def fails(_: Object) -> PodOutcome:
    """Let the container of every Job fail with a message."""
    return PodOutcome(3, "the disk is full")


@asynccontextmanager
async def cleaning(replica: Replica, term: LeaseTerm | None = None) -> AsyncIterator[LeaseTerm]:
    """Run the cleaner and the cluster's controllers while the block runs."""
    term = term or new_term(replica.name)
    async with (
        replica.world.playing(),
        replica.watching(),
        in_background(replica.cleaner.run(term)),
    ):
        yield term


async def delivered(replica: Replica, *pods: str) -> list[JobKey]:
    """Deliver an alert about each of these Pods; return the Jobs."""
    answer = await replica.deliver(*(pods_of(pod) for pod in pods))
    return [item.job for item in answer.items if item.job is not None]


async def refuse(world: World, key: JobKey, decision: str = "refused") -> None:
    """Write a decision on a Job by hand."""
    await world.annotate(key, keys.DECISION, decision)


def requests_for_jobs(replica: Replica, verb: str) -> list[Request]:
    """Return the requests of one verb about Jobs."""
    return [
        request
        for request in replica.wire.requests
        if request.verb == verb and request.resource == JOBS
    ]


class TestCounting:
    """Counting Jobs that ended."""

    @in_virtual_time
    async def test_each_end_is_counted_once(self) -> None:
        """A success, a failure and a refusal; later writes are not counted."""
        world = World(JobPlayer(outcome=lambda job: PodOutcome("web-2" in str(job["metadata"]))))
        replica = world.replica()
        async with cleaning(replica), replica.leading():
            good, bad, left = await delivered(replica, "web-1", "web-2", "web-3")
            await world.annotate(left, keys.DECISION, "refused")
            await until(lambda: len(replica.tally.ends) == 3)
            for key in (good, bad, left):
                await world.annotate(key, "example.org/note", "seen")
            await asyncio.sleep(600)
        ends = {job.key: job.phase for job in replica.tally.ends}
        assert ends == {good: Phase.SUCCEEDED, bad: Phase.FAILED, left: Phase.REFUSED}
        assert len(replica.tally.ends) == 3

    @in_virtual_time
    async def test_ends_before_the_term_are_not_counted(self) -> None:
        """A new leader does not count old Jobs again."""
        world = World()
        replica = world.replica()
        async with world.playing(), replica.watching(), replica.leading():
            await delivered(replica, "web-1", "web-2")
            await until(lambda: all(job.finished for job in replica.view))
        async with cleaning(replica), replica.leading():
            await delivered(replica, "web-3")
            await asyncio.sleep(600)
        assert [job.labels["pod"] for job in replica.tally.ends] == ["web-3"]

    @in_virtual_time
    async def test_ends_before_the_first_list_are_not_counted(self) -> None:
        """A leader that has just started begins its term before it has listed the old Jobs."""
        world = World()
        replica, other = world.replica("a"), world.replica("b")
        async with world.playing(), replica.watching(), replica.leading():
            await delivered(replica, "web-1", "web-2")
            await until(lambda: all(job.finished for job in replica.view))
        await asyncio.sleep(600)
        async with in_background(other.cleaner.run(new_term(other.name))):
            await asyncio.sleep(1)
            async with world.playing(), other.watching(), other.leading():
                await delivered(other, "web-3")
                await asyncio.sleep(600)
        assert [job.labels["pod"] for job in other.tally.ends] == ["web-3"]

    @pytest.mark.parametrize("seconds", [0, -1])
    @in_virtual_time
    async def test_an_end_in_the_first_second_of_a_term_is_counted(self, seconds: int) -> None:
        """Kubernetes records it in whole seconds; one in the second before is not counted."""
        world = World()
        replica = world.replica()
        await asyncio.sleep(0.9)
        began = world.now().replace(microsecond=0)
        assert began != world.now()
        async with in_background(replica.cleaner.run(new_term(replica.name))):
            await asyncio.sleep(1)
            replica.view.apply(build.finished(ended=began + timedelta(seconds=seconds)))
            await asyncio.sleep(10)
        assert len(replica.tally.ends) == (seconds == 0)


class TestFailureMessages:
    """Failure messages, which are deleted with the Pods."""

    @in_virtual_time
    async def test_a_failure_message_is_recorded_once(self) -> None:
        """With condition, exit code and message."""
        world = World(JobPlayer(outcome=fails))
        replica, other = world.replica("a"), world.replica("b")
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(lambda: any(job.has_message for job in replica.view))
            await world.annotate(key, "example.org/note", "seen")
            await asyncio.sleep(600)
        async with cleaning(other):
            await asyncio.sleep(600)
        job = await world.job(key)
        assert job.phase is Phase.FAILED
        assert job.message == (
            "BackoffLimitExceeded: Job has reached the specified backoff limit; "
            "container heal exited with code 3 (Error): the disk is full"
        )
        assert (
            len([request for request in replica.wire.requests if request.sets(keys.MESSAGE)]) == 1
        )
        assert other.wire.writes() == []

    @in_virtual_time
    async def test_a_job_that_succeeded_has_no_failure_message(self) -> None:
        """Nor has a refused one."""
        world = World()
        replica = world.replica()
        async with cleaning(replica), replica.leading():
            await delivered(replica, "web-1")
            await asyncio.sleep(600)
        assert [job.phase for job in replica.view] == [Phase.SUCCEEDED]
        assert not [request for request in replica.wire.requests if request.sets(keys.MESSAGE)]
        assert not [request for request in replica.wire.requests if request.resource == PODS]

    @in_virtual_time
    async def test_a_lost_answer_causes_no_second_write(self) -> None:
        """A write without an answer is detected."""
        world = World(JobPlayer(outcome=fails))
        replica = world.replica()
        lost = 0

        async def trouble(request: Request, act: Act) -> Any:
            nonlocal lost
            done = await act()
            if request.sets(keys.MESSAGE):
                lost += 1
                raise Unavailable("cut off")
            return done

        replica.wire.trouble = trouble
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await asyncio.sleep(600)
        assert lost == 1
        assert (await world.job(key)).message.endswith("the disk is full")

    @pytest.mark.parametrize("resource", [PODS, JOBS], ids=["pods", "jobs"])
    @in_virtual_time
    async def test_a_failed_write_is_repeated_once_a_minute(self, resource: Any) -> None:
        """Even if Jobs change all the time."""
        world = World(JobPlayer(outcome=fails))
        replica = world.replica()

        async def trouble(request: Request, act: Act) -> Any:
            reads_pods = request.verb == "list" and request.resource == PODS
            if reads_pods if resource == PODS else request.sets(keys.MESSAGE):
                raise Forbidden("no right")
            return await act()

        replica.wire.trouble = trouble
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(lambda: len(replica.tally.ends) == 1)
            for moment in range(150):
                await world.annotate(key, "example.org/note", str(moment))
                await asyncio.sleep(4)
            tries = [request for request in replica.wire.requests if request.resource == PODS]
            assert 9 <= len(tries) <= 12
            replica.wire.trouble = none
            await asyncio.sleep(120)
        assert (await world.job(key)).message.endswith("the disk is full")

    @in_virtual_time
    async def test_what_another_leader_finished_is_forgotten(self) -> None:
        """A replica that leads again keeps no time for a Job on which nothing must be written."""
        world = World(JobPlayer(outcome=fails))
        replica, other = world.replica("a"), world.replica("b")

        async def trouble(request: Request, act: Act) -> Any:
            if request.sets(keys.MESSAGE):
                raise Forbidden("no right")
            return await act()

        replica.wire.trouble = trouble
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(lambda: len(replica.tally.ends) == 1)
            await asyncio.sleep(5)
        assert replica.cleaner._next_patch
        async with cleaning(other):
            await asyncio.sleep(5)
        assert (await world.job(key)).has_message
        async with replica.watching():
            await asyncio.sleep(5)
        async with cleaning(replica):
            await asyncio.sleep(5)
            assert not replica.cleaner._next_patch

    @in_virtual_time
    async def test_a_job_that_was_deleted_does_not_hold_up_others(self) -> None:
        """The next Job still gets its message."""
        world = World(JobPlayer(outcome=fails))
        replica = world.replica()
        gone: list[JobKey] = []

        async def trouble(request: Request, act: Act) -> Any:
            if request.sets(keys.MESSAGE) and not gone:
                gone.append(JobKey(request.namespace, request.name))
                await world.cluster.delete(JOBS, request.namespace, request.name)
            return await act()

        replica.wire.trouble = trouble
        async with cleaning(replica), replica.leading():
            await delivered(replica, "web-1", "web-2")
            await asyncio.sleep(600)
        (left,) = await world.jobs()
        assert left.key not in gone
        assert left.has_message
        assert gone[0] not in replica.view


class TestDeletion:
    """Deleting Jobs that Kubernetes never deletes."""

    @pytest.mark.parametrize("decision", ["refused", "cancelled"])
    @in_virtual_time
    async def test_a_refused_job_is_deleted_after_remember(self, decision: str) -> None:
        """Counted from its last delivery, and only in exactly the state that was judged."""
        world = World()
        replica = world.replica(catalog=SHORT)
        async with cleaning(replica):
            (key,) = await delivered(replica, "web-1")
            await refuse(world, key, decision)
            await asyncio.sleep(REMEMBER / 2)
            await replica.deliver(pods_of("web-1"))
            await asyncio.sleep(REMEMBER - 60)
            assert [job.key for job in await world.jobs()] == [key]
            judged = await world.job(key)
            await asyncio.sleep(180)
            assert await world.jobs() == []
            assert len(replica.view) == 0
        (delete,) = requests_for_jobs(replica, "delete")
        assert delete.body == (judged.uid, judged.resource_version)

    @in_virtual_time
    async def test_no_other_job_is_deleted(self) -> None:
        """Waiting, running, held and other people's Jobs are kept long after `remember`."""
        options = Options(max_wait=timedelta(0), approval=True)
        spec = {**build.job_spec(), "activeDeadlineSeconds": 30 * DAY}
        catalog = build.catalog(
            build.operario(spec=spec),
            build.operario("asks", alertname="Asks", options=options),
            envelope=SHORT.envelope,
        )
        world = World(JobPlayer(Durations(run=FOREVER)))
        replica = world.replica(catalog=catalog)
        asks = build.alert(labels={"alertname": "Asks"})
        foreign = build.rendered().manifest
        foreign["metadata"] |= {"name": "foreign", "labels": {"app": "theirs"}}
        foreign["metadata"]["annotations"] = {keys.DECISION: "refused"}
        async with cleaning(replica):
            await world.cluster.create(JOBS, build.JOBS_NAMESPACE, foreign)
            await replica.deliver(asks)
            running, held, overruled = await delivered(replica, "web-1", "web-2", "web-3")
            async with replica.leading():
                await until(lambda: len(world.starts()) == 3)
            suspend = {"op": "replace", "path": "/spec/suspend", "value": True}
            await world.change(held, suspend)
            # Somebody writes a decision on a Job that runs: its Pods continue.
            await refuse(world, overruled)
            await asyncio.sleep(4 * REMEMBER)
            phases = {job.key.name: job.phase for job in await world.jobs()}
        assert requests_for_jobs(replica, "delete") == []
        assert len(phases) == 5
        assert phases[running.name] is Phase.RUNNING
        assert phases[held.name] is Phase.HELD
        assert phases[overruled.name] is Phase.REFUSED

    @in_virtual_time
    async def test_a_started_job_without_pods_is_not_deleted(self) -> None:
        """The Job controller may create its Pods later."""
        world = World()
        replica = world.replica(catalog=SHORT)
        async with replica.watching(), in_background(replica.cleaner.run(new_term("a"))):
            (key,) = await delivered(replica, "web-1")
            await refuse(world, key)
            await world.change(key, {"op": "replace", "path": "/spec/suspend", "value": False})
            await asyncio.sleep(4 * REMEMBER)
            assert [job.key for job in await world.jobs()] == [key]

    @in_virtual_time
    async def test_a_finished_job_is_left_to_its_ttl(self) -> None:
        """Kubernetes deletes it; the cleaner does not do it earlier."""
        spec = {**build.job_spec(), "ttlSecondsAfterFinished": REMEMBER}
        short = build.catalog(build.operario(spec=spec), envelope=SHORT.envelope)
        world = World()
        replica = world.replica(catalog=short)
        async with cleaning(replica), replica.leading():
            await delivered(replica, "web-1")
            await asyncio.sleep(REMEMBER + 600)
            assert await world.jobs() == []
        assert requests_for_jobs(replica, "delete") == []

    @in_virtual_time
    async def test_without_a_catalog_nothing_is_deleted(self) -> None:
        """The value of `remember` is unknown then."""
        world = World()
        replica = world.replica(catalog=SHORT)
        async with cleaning(replica):
            (key,) = await delivered(replica, "web-1")
            await refuse(world, key)
            replica.catalog = None
            await asyncio.sleep(3 * REMEMBER)
            assert [job.key for job in await world.jobs()] == [key]

    @in_virtual_time
    async def test_a_job_that_changes_at_the_last_moment_is_kept(self) -> None:
        """A delivery or a start comes between the decision and the deletion."""
        world = World()
        replica = world.replica(catalog=SHORT)

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "delete":
                key = JobKey(request.namespace, request.name)
                await world.annotate(key, keys.LAST_DELIVERED_AT, "2027-01-01T00:00:00.000000Z")
            return await act()

        replica.wire.trouble = trouble
        async with cleaning(replica):
            (key,) = await delivered(replica, "web-1")
            await refuse(world, key)
            await asyncio.sleep(REMEMBER + 3600)
        assert [job.key for job in await world.jobs()] == [key]
        assert len(requests_for_jobs(replica, "delete")) == 1

    @in_virtual_time
    async def test_all_jobs_of_a_storm_are_deleted(self) -> None:
        """Hundreds, one after the other."""
        world = World()
        replica = world.replica(catalog=SHORT)
        pods = [f"web-{number}" for number in range(150)]
        async with cleaning(replica):
            for key in await delivered(replica, *pods):
                await refuse(world, key)
            await asyncio.sleep(REMEMBER + 600)
        assert await world.jobs() == []
        assert len(requests_for_jobs(replica, "delete")) == 150

    @in_virtual_time
    async def test_deletions_are_throttled(self) -> None:
        """At most ten per second, the oldest delivery first, in less than five minutes."""
        world = World()
        replica = world.replica()
        jobs = [
            replace(
                build.refused(f"job-{number}"),
                delivered_at=build.NOW - timedelta(days=2, seconds=number),
            )
            for number in range(2_000)
        ]
        replica.view.replace(build.JOBS_NAMESPACE, jobs, "7")

        async def trouble(request: Request, _: Act) -> Any:
            """Delete as the API server does, with an event of the watch."""
            key = JobKey(request.namespace, request.name)
            replica.view.remove(key, request.body[0])

        replica.wire.trouble = trouble
        term = new_term("a")
        async with in_background(replica.cleaner._clean(term)):
            await asyncio.sleep(300)
        deletes = requests_for_jobs(replica, "delete")
        assert [request.name for request in deletes] == [f"job-{n}" for n in reversed(range(2_000))]
        tens = [b.at - a.at for a, b in itertools.pairwise(deletes[::10])]
        assert min(tens) >= 0.99
        assert max(tens) <= 1.01
        assert len(replica.view) == 0

    @in_virtual_time
    async def test_a_held_job_is_deleted_late(self) -> None:
        """It is kept seven times as long, and forever while its alert is repeated."""
        world = World(JobPlayer(Durations(run=FOREVER)))
        replica = world.replica(catalog=SHORT)
        async with cleaning(replica):
            (key,) = await delivered(replica, "web-1")
            async with replica.leading():
                await until(world.starts)
            await world.change(key, {"op": "replace", "path": "/spec/suspend", "value": True})
            for _ in range(10):
                await asyncio.sleep(3000)
                await replica.deliver(pods_of("web-1"))
            assert (await world.job(key)).phase is Phase.HELD
            await asyncio.sleep(6.9 * 3600)
            assert (await world.job(key)).phase is Phase.HELD
            await asyncio.sleep(0.2 * 3600)
            assert await world.jobs() == []

    @pytest.mark.parametrize(
        "error",
        [Forbidden("no right"), Conflict("changed"), Throttled("slow"), Unavailable("gone")],
        ids=lambda error: type(error).__name__,
    )
    @in_virtual_time
    async def test_failed_deletions_are_repeated_once_a_minute(self, error: Exception) -> None:
        """Even if Jobs change all the time; they are repeated until they succeed."""
        world = World()
        replica = world.replica(catalog=SHORT)
        failing = True

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "delete" and failing:
                raise error
            return await act()

        replica.wire.trouble = trouble
        async with cleaning(replica):
            old, other = await delivered(replica, "web-1", "web-2")
            await refuse(world, old)
            await asyncio.sleep(REMEMBER + 60)
            replica.wire.requests.clear()
            for moment in range(150):
                await world.annotate(other, "example.org/note", str(moment))
                await asyncio.sleep(4)
            assert 7 <= len(requests_for_jobs(replica, "delete")) <= 11
            failing = False
            await asyncio.sleep(120)
        assert [job.key for job in await world.jobs()] == [other]


class TestTerm:
    """Only a leader writes."""

    @pytest.mark.parametrize("about", ["words", "cleaning"])
    @in_virtual_time
    async def test_after_the_term_nothing_is_written(self, about: str) -> None:
        """A leader that was frozen between reading and writing does not write."""
        world = World(JobPlayer(outcome=fails))
        replica = world.replica(catalog=SHORT)
        async with world.playing(), replica.watching():
            (key,) = await delivered(replica, "web-1")
            if about == "words":
                async with replica.leading():
                    await until(lambda: all(job.finished for job in replica.view))
            else:
                await refuse(world, key)
                await asyncio.sleep(REMEMBER + 60)
            replica.wire.requests.clear()
            term = new_term("a")

            async def trouble(request: Request, act: Act) -> Any:
                if request.resource == PODS:
                    term.end()
                return await act()

            replica.wire.trouble = trouble
            if about == "cleaning":
                term.end()
            with pytest.raises(TermEnded):
                await replica.cleaner.run(term)
        assert replica.wire.writes() == []


class TestCancelRunning:
    """Cancelling Jobs whose alert is resolved."""

    @in_virtual_time
    async def test_a_job_is_cancelled_with_cancel_running(self) -> None:
        """The Job ends with the reason; one with another option goes on."""
        world = World(JobPlayer(Durations(run=FOREVER)))
        asks = build.operario(options=Options(on_resolve=OnResolve.CANCEL_RUNNING))
        stopping = world.replica("a", catalog=build.catalog(asks))
        keeping = world.replica("b")
        async with cleaning(stopping), stopping.leading(), keeping.watching():
            (key,) = await delivered(stopping, "web-1")
            (other,) = await delivered(keeping, "web-2")
            await until(lambda: sum(running.occupying for running in stopping.view) == 2)
            ended = world.now()
            await stopping.deliver(*(resolved(pods_of(pod), ended) for pod in ("web-1", "web-2")))
            await until(lambda: any(running.finished for running in stopping.view))
            await asyncio.sleep(60)
        job = await world.job(key)
        assert (job.phase, job.reason) == (Phase.CANCELLED, "resolved")
        assert job.finished
        assert not job.active
        assert (await world.job(other)).phase is Phase.RUNNING

    @pytest.mark.parametrize(("code", "phase"), [(0, Phase.SUCCEEDED), (1, Phase.FAILED)])
    @in_virtual_time
    async def test_a_job_that_ends_at_the_last_moment_is_not_cancelled(
        self, code: int, phase: Phase
    ) -> None:
        """A Job that has completed or failed is not cancelled."""
        world = World(JobPlayer(Durations(run=30), lambda _: PodOutcome(code)))
        asks = build.operario(options=Options(on_resolve=OnResolve.CANCEL_RUNNING))
        replica = world.replica(catalog=build.catalog(asks))

        async def trouble(request: Request, act: Act) -> Any:
            if request.sets(keys.DECISION):
                await asyncio.sleep(4)
            return await act()

        replica.wire.trouble = trouble
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(world.starts)
            await asyncio.sleep(28)
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            await asyncio.sleep(600)
        job = await world.job(key)
        assert (job.phase, job.decision) == (phase, None)

    @in_virtual_time
    async def test_a_failed_cancellation_is_repeated_once_a_minute(self) -> None:
        """Even if Jobs change all the time; it is repeated until it succeeds, within the term."""
        world = World(JobPlayer(Durations(run=FOREVER)))
        asks = build.operario(options=Options(on_resolve=OnResolve.CANCEL_RUNNING))
        replica = world.replica(catalog=build.catalog(asks))

        async def trouble(request: Request, act: Act) -> Any:
            if request.sets(keys.DECISION):
                raise Forbidden("no right")
            return await act()

        replica.wire.trouble = trouble
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(world.starts)
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            for moment in range(100):
                await world.annotate(key, "example.org/note", str(moment))
                await asyncio.sleep(2)
            tries = [request for request in replica.wire.requests if request.sets(keys.DECISION)]
            assert 3 <= len(tries) <= 5
            replica.wire.trouble = none
            await asyncio.sleep(120)
        assert (await world.job(key)).phase is Phase.CANCELLED


class TestKueue:
    """Following Jobs that Kueue starts, stops and starts again."""

    queued = build.operario(labels={keys.KUEUE_QUEUE: "night"})

    @staticmethod
    async def suspend(world: World, key: JobKey, *, value: bool) -> None:
        """Stop or start a Job, as Kueue does."""
        change = {"op": "add", "path": "/spec/suspend", "value": value}
        await world.cluster.patch(JOBS, key.namespace, key.name, [change])

    @in_virtual_time
    async def test_each_start_is_recorded_within_a_moment(self) -> None:
        """Also starts that follow each other quickly; the last one with its end."""
        world = World(JobPlayer(Durations(run=FOREVER)))
        replica = world.replica(catalog=build.catalog(self.queued))
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(lambda: all(job.phase is Phase.QUEUED for job in replica.view))
            for start in range(1, 5):
                await self.suspend(world, key, value=False)
                await asyncio.sleep(5)
                job = await world.job(key)
                assert (job.starts, job.recorded_starts) == (start, start)
                await self.suspend(world, key, value=True)
                await asyncio.sleep(5)
        job = await world.job(key)
        assert (job.phase, job.starts) == (Phase.QUEUED, 4)
        assert "4 starts" in job.message
        counts = [request for request in replica.wire.requests if request.sets(keys.START_COUNT)]
        assert len(counts) == 4

    @in_virtual_time
    async def test_a_job_of_no_queue_is_not_written_to(self) -> None:
        """Nor is one that ends after its first start before it was looked at."""
        world = World()
        replica = world.replica()
        async with cleaning(replica), replica.leading():
            await delivered(replica, "web-1")
            await until(lambda: all(job.finished for job in replica.view))
            await asyncio.sleep(60)
        assert not any(request.sets(keys.START_COUNT) for request in replica.wire.requests)

    @in_virtual_time
    async def test_a_job_that_a_person_suspends_and_resumes_has_two_starts(self) -> None:
        """They are recorded from the moment when it is suspended."""
        world = World(JobPlayer(Durations(run=FOREVER)))
        replica = world.replica()
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(world.starts)
            await self.suspend(world, key, value=True)
            await asyncio.sleep(5)
            assert (await world.job(key)).recorded_starts == 1
            await self.suspend(world, key, value=False)
            await asyncio.sleep(5)
        job = await world.job(key)
        assert (job.phase, job.starts, job.recorded_starts) == (Phase.RUNNING, 2, 2)
        assert job.message.endswith("started 2 times")

    @pytest.mark.parametrize(
        ("on_resolve", "started", "phase"),
        [
            (OnResolve.CANCEL, False, Phase.CANCELLED),
            (OnResolve.CANCEL_RUNNING, False, Phase.CANCELLED),
            (OnResolve.KEEP, False, Phase.QUEUED),
            (OnResolve.CANCEL, True, Phase.QUEUED),
            (OnResolve.CANCEL_RUNNING, True, Phase.CANCELLED),
            (OnResolve.KEEP, True, Phase.QUEUED),
        ],
    )
    @in_virtual_time
    async def test_a_queued_job_of_a_resolved_alert(
        self, on_resolve: OnResolve, phase: Phase, *, started: bool
    ) -> None:
        """One that Kueue has not started waits; one that it has stopped must not end half-way."""
        world = World(JobPlayer(Durations(run=FOREVER)))
        options = Options(on_resolve=on_resolve)
        queued = build.operario(labels={keys.KUEUE_QUEUE: "night"}, options=options)
        past = Mock(spec_set=NO_TRACES.past)
        traces = Mock(wraps=NO_TRACES, past=past)
        replica = world.replica(catalog=build.catalog(queued), traces=traces)
        async with cleaning(replica), replica.leading():
            (key,) = await delivered(replica, "web-1")
            await until(lambda: all(job.phase is Phase.QUEUED for job in replica.view))
            if started:
                await self.suspend(world, key, value=False)
                await asyncio.sleep(5)
                await self.suspend(world, key, value=True)
                await asyncio.sleep(5)
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            await asyncio.sleep(120)
        job = await world.job(key)
        assert job.phase is phase
        if phase is Phase.CANCELLED:
            assert job.reason == "resolved"
            assert not job.occupying
            assert ("before Kueue started" in job.message) is not started
        # Its time in the queue is no run.
        traced = [call.args[0] for call in past.call_args_list]
        assert traced == (["run"] if started and phase is Phase.CANCELLED else [])
