"""Effects that the leader settles, with an API server that fails and a second leader."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, Throttled, Unavailable
from openfero_gitops.domain.operario import Mode, Options
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.effects import settler
from openfero_gitops.effects.assess import assess
from openfero_gitops.leadership.term import TermEnded
from tests.support import build
from tests.support.copying import replace
from tests.support.workers import (
    Replica,
    World,
    in_background,
    in_virtual_time,
    new_term,
    pods_of,
    resolved,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.leadership.term import LeaseTerm
    from tests.support.relay import Act, Request

#: heals-within of the operario, in seconds.
WITHIN = Options().heals_within.total_seconds()
#: Seconds in which a delivery may come late.
GRACE = 300
HOUR = 3600


@asynccontextmanager
async def settling(replica: Replica, term: LeaseTerm | None = None) -> AsyncIterator[LeaseTerm]:
    """Run the settler while the block runs."""
    term = term or new_term(replica.name)
    async with in_background(replica.settler.run(term)):
        yield term


@asynccontextmanager
async def leading(replica: Replica) -> AsyncIterator[None]:
    """Let a leader settle effects while the block runs; it admits in `ran`, to be quick."""
    async with replica.watching(), settling(replica):
        yield


async def ran(replica: Replica, *pods: str) -> list[JobKey]:
    """Deliver an alert about each of these Pods, and wait until their Jobs have ended."""
    async with replica.world.playing(), replica.leading():
        answer = await replica.deliver(*(pods_of(pod) for pod in pods))
        jobs = [item.job for item in answer.items if item.job is not None]
        await until(lambda: all(_is_finished(replica, key) for key in jobs), within=600)
    return jobs


def _is_finished(replica: Replica, key: JobKey) -> bool:
    job = replica.view.get(key)
    return job is not None and job.finished


def settled_by(replica: Replica) -> list[Request]:
    """Return the requests that write an effect."""
    return [request for request in replica.wire.requests if request.sets(keys.EFFECT)]


def fail_settling(
    error: ApiError, *, times: int = 1_000_000, only: str = "", carried_out: bool = False
) -> Any:
    """Fail the writes of effects, of all Jobs or of one."""
    left = times

    async def trouble(request: Request, act: Act) -> Any:
        nonlocal left
        if not request.sets(keys.EFFECT) or not left or only not in request.name:
            return await act()
        left -= 1
        if carried_out:
            await act()
        raise error

    return trouble


class TestEffects:
    """When each effect is settled."""

    @in_virtual_time
    async def test_a_resolved_alert_that_stays_resolved_is_healed(self) -> None:
        """It is known heals-within after that, shown, and settled when no news can come late.

        It is settled as of the resolution, and counted.
        """
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            ends = world.now() + build.minutes(2)
            await asyncio.sleep(180)
            await replica.deliver(resolved(pods_of("web-1"), ends))
            await asyncio.sleep(WITHIN + GRACE - 65)
            early = await world.job(key)
            shown = assess(early, [early], world.now())
            await asyncio.sleep(10)
            job = await world.job(key)
        assert early.effect is None
        assert shown is not None
        assert shown.effect is Effect.HEALED
        assert (job.effect, job.effect_at) == (Effect.HEALED, ends)
        assert job.effect_message == "resolved 2m after the Job ended"
        assert replica.tally.effects == [(key, Effect.HEALED, True)]

    @in_virtual_time
    async def test_an_alert_that_still_fires_is_not_healed(self) -> None:
        """The first delivery after heals-within is recorded, and the effect settled soon after."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            await asyncio.sleep(WITHIN - 60)
            await replica.deliver(pods_of("web-1"))
            await asyncio.sleep(120)
            early = await world.job(key)
            moment = world.now()
            await replica.deliver(pods_of("web-1"))
            await asyncio.sleep(GRACE - 5)
            known = await world.job(key)
            await asyncio.sleep(10)
            settled = await world.job(key)
            for _ in range(2):
                await replica.deliver(pods_of("web-1"))
                await asyncio.sleep(300)
            job = await world.job(key)
            writes = [request for request in replica.wire.requests if request.name == key.name]
        assert (early.effect, early.still_firing_at) == (None, None)
        assert (known.effect, known.still_firing_at) == (None, moment)
        assert settled.effect is Effect.NOT_HEALED
        assert (job.effect, job.still_firing_at) == (Effect.NOT_HEALED, moment)
        assert job.effect_message == "still firing 16m after the Job ended"
        assert sum(request.sets(keys.STILL_FIRING_AT) for request in writes) == 1
        assert sum(request.sets(keys.EFFECT) for request in writes) == 1

    @in_virtual_time
    async def test_the_other_member_of_a_pair_shows_that_the_alert_still_fires(self) -> None:
        """It began long after the delivery that made the Job, but has no other Job."""
        world = World()
        replica = world.replica()
        first, second = (
            replace(pods_of("web-1"), labels=pods_of("web-1").labels | {"prometheus_replica": name})
            for name in "ab"
        )
        async with leading(replica):
            async with world.playing(), replica.leading():
                answer = await replica.deliver(first)
                key = answer.items[0].job
                assert key is not None
                await until(lambda: _is_finished(replica, key), within=600)
            await asyncio.sleep(300)
            second = replace(second, starts_at=world.now())
            await replica.deliver(first, second)
            await asyncio.sleep(WITHIN)
            answer = await replica.deliver(second)
            job = await world.job(key)
        assert answer.items[0].job == key
        assert job.still_firing_at == world.now()

    @in_virtual_time
    async def test_an_alert_that_fires_again_is_not_healed(self) -> None:
        """A new start within heals-within after the end is the first Job's failure."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            ends = world.now()
            await replica.deliver(resolved(pods_of("web-1"), ends))
            await asyncio.sleep(240)
            await replica.deliver(pods_of("web-1", starts_at=ends + build.minutes(4)))
            await asyncio.sleep(10)
            job = await world.job(key)
        assert job.effect is Effect.NOT_HEALED
        assert job.effect_message == "fired again 4m after it was resolved"

    @in_virtual_time
    async def test_a_resolution_that_comes_late_still_decides(self) -> None:
        """The alert was resolved in time, but a firing delivery was heard before that."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            ends = world.now() + build.minutes(1)
            await asyncio.sleep(WITHIN + 5)
            await replica.deliver(pods_of("web-1"))
            await asyncio.sleep(GRACE - 30)
            early = await world.job(key)
            await replica.deliver(resolved(pods_of("web-1"), ends))
            await asyncio.sleep(120)
            job = await world.job(key)
        assert early.still_firing_at is not None
        assert early.effect is None
        assert job.effect is Effect.HEALED

    @in_virtual_time
    async def test_the_effect_of_a_short_heals_within_is_settled_soon(self) -> None:
        """Late deliveries have a third of it."""
        world = World()
        short = build.operario(options=Options(heals_within=timedelta(seconds=9)))
        replica = world.replica(catalog=build.catalog(short))
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            await asyncio.sleep(30)
            await replica.deliver(pods_of("web-1"))
            await asyncio.sleep(2)
            early = await world.job(key)
            await asyncio.sleep(4)
            job = await world.job(key)
        assert (early.effect, job.effect) == (None, Effect.NOT_HEALED)

    @in_virtual_time
    async def test_without_news_the_effect_is_unknown_until_there_is_news(self) -> None:
        """A silenced alert is unknown after six hours; its late end decides, and it is final."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            await asyncio.sleep(WITHIN + 6 * HOUR - 10)
            early = await world.job(key)
            await asyncio.sleep(20)
            unknown = await world.job(key)
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            await asyncio.sleep(5)
            job = await world.job(key)
            await asyncio.sleep(2 * HOUR)
            writes = len(settled_by(replica))
        assert (early.effect, unknown.effect) == (None, Effect.UNKNOWN)
        assert job.effect is Effect.NOT_HEALED
        assert job.effect_message.startswith("resolved only 6h")
        assert writes == 2
        effects = [effect for _, effect, _ in replica.tally.effects]
        assert effects == [Effect.UNKNOWN, Effect.NOT_HEALED]

    @in_virtual_time
    async def test_a_dry_run_is_settled_but_not_counted(self) -> None:
        """It says what happened without a remediation, and does not change the success rate."""
        world = World()
        dry = build.operario(options=Options(mode=Mode.DRY_RUN))
        replica = world.replica(catalog=build.catalog(dry))
        async with leading(replica):
            async with replica.leading():
                (item,) = (await replica.deliver(pods_of("web-1"))).items
                await asyncio.sleep(120)
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            await asyncio.sleep(WITHIN + GRACE + 10)
            assert item.job is not None
            job = await world.job(item.job)
        assert job.effect is Effect.HEALED
        assert job.effect_message == "would have run; resolved without us after 2m"
        assert replica.tally.effects == []
        assert world.starts() == []

    @in_virtual_time
    async def test_the_job_of_a_removed_operario_is_settled(self) -> None:
        """Deliveries and time decide as before; it is counted as one of a removed operario."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            first, second = await ran(replica, "web-1", "web-2")
            replica.catalog = build.catalog(build.operario("another", alertname="Other"))
            await asyncio.sleep(WITHIN + 60)
            answer = await replica.deliver(
                pods_of("web-1"), resolved(pods_of("web-2"), world.now() - build.minutes(5))
            )
            await asyncio.sleep(WITHIN + GRACE)
        assert {item.outcome.value for item in answer.items} == {"no-match"}
        assert sorted(replica.tally.effects, key=lambda entry: entry[1]) == [
            (second, Effect.HEALED, False),
            (first, Effect.NOT_HEALED, False),
        ]

    @in_virtual_time
    async def test_a_job_that_never_started_has_no_effect(self) -> None:
        """Refused Jobs and those of resolved alerts are left as they are."""
        world = World()
        undo = build.operario("undo", status=build.Status.RESOLVED)
        replica = world.replica(catalog=build.catalog(build.operario(), undo))
        async with leading(replica):
            await ran(replica, "web-1")
            await replica.deliver(pods_of("web-2"))
            ends = world.now()
            await replica.deliver(
                resolved(pods_of("web-1"), ends), resolved(pods_of("web-2"), ends)
            )
            async with replica.leading():
                await asyncio.sleep(120)
            await asyncio.sleep(7 * HOUR)
            jobs = await world.jobs()
        effects = {(job.labels["pod"], job.status.value): job.effect for job in jobs}
        assert effects == {
            ("web-1", "firing"): Effect.HEALED,
            ("web-1", "resolved"): None,
            ("web-2", "firing"): None,
            ("web-2", "resolved"): None,
        }


class TestFaults:
    """An API server that does not accept effects."""

    @pytest.mark.parametrize("error", [Unavailable("cut off"), Throttled("later", 20.0)])
    @in_virtual_time
    async def test_effects_that_are_due_are_settled_when_the_api_server_is_back(
        self, error: ApiError
    ) -> None:
        """Meanwhile requests are few, however many effects are due."""
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(options=_UNLIMITED)))
        pods = [f"web-{number}" for number in range(50)]
        async with leading(replica):
            await ran(replica, *pods)
            replica.wire.trouble = fail_settling(error)
            await replica.deliver(*(resolved(pods_of(pod), world.now()) for pod in pods))
            await asyncio.sleep(WITHIN + HOUR)
            tried = len(settled_by(replica))
            assert {job.effect for job in await world.jobs()} == {None}
            replica.wire.trouble = fail_settling(error, times=0)
            await asyncio.sleep(60)
            jobs = await world.jobs()
        assert 30 < tried < 200
        assert {job.effect for job in jobs} == {Effect.HEALED}
        assert len(settled_by(replica)) == tried + len(pods)
        assert len(replica.tally.effects) == len(pods)

    @pytest.mark.parametrize("error", [Forbidden("a policy"), Invalid("too many annotations")])
    @in_virtual_time
    async def test_a_job_that_must_not_change_does_not_hold_up_others(
        self, error: ApiError
    ) -> None:
        """It is tried again at growing intervals, also if the Job changes all the time."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            blocked, other = await ran(replica, "web-1", "web-2")
            replica.wire.trouble = fail_settling(error, only=blocked.name)
            ends = world.now()
            await replica.deliver(
                resolved(pods_of("web-1"), ends), resolved(pods_of("web-2"), ends)
            )
            await asyncio.sleep(WITHIN + GRACE + 10)
            settled = (await world.job(other)).effect
            for number in range(60):
                await world.annotate(blocked, "example.org/note", str(number))
                await asyncio.sleep(60)
            tried = sum(request.name == blocked.name for request in settled_by(replica))
            replica.wire.trouble = fail_settling(error, times=0)
            await asyncio.sleep(900)
            job = await world.job(blocked)
        assert settled is Effect.HEALED
        assert 3 < tried < 10
        assert job.effect is Effect.HEALED

    @pytest.mark.parametrize(
        ("annotation", "text", "effect"),
        [
            (keys.RESOLVED_AT, "2026-11-21T03:06:00Z", Effect.HEALED),
            (keys.RESOLVED_AT, "yesterday", Effect.HEALED),
            (keys.STILL_FIRING_AT, "2026-11-21T04:30:00+01:00", Effect.NOT_HEALED),
            (keys.EFFECT, "maybe", Effect.UNKNOWN),
        ],
    )
    @in_virtual_time
    async def test_annotations_in_another_form_do_not_prevent_it(
        self, annotation: str, text: str, effect: Effect
    ) -> None:
        """People may have written them by hand; then they are tested as they are written."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            await world.annotate(key, annotation, text)
            await asyncio.sleep(7 * HOUR)
            job = await world.job(key)
        assert job.effect is effect
        assert len(settled_by(replica)) == 2

    @in_virtual_time
    async def test_an_effect_whose_answer_was_lost_is_counted_once(self) -> None:
        """The second attempt finds it recorded, and changes nothing."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            replica.wire.trouble = fail_settling(Unavailable("lost"), times=1, carried_out=True)
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            await asyncio.sleep(WITHIN + GRACE + 60)
        effects = [
            write for write in world.writes() if _effect(write.after) != _effect(write.before)
        ]
        assert len(effects) == 1
        assert replica.tally.effects == [(key, Effect.HEALED, True)]

    @in_virtual_time
    async def test_a_job_that_was_deleted_needs_no_effect(self) -> None:
        """It is gone from the view, too."""
        world = World()
        replica = world.replica()
        async with leading(replica):
            (key,) = await ran(replica, "web-1")

            async def trouble(request: Request, act: Act) -> Any:
                if request.sets(keys.EFFECT):
                    await world.cluster.delete(JOBS, key.namespace, key.name)
                return await act()

            replica.wire.trouble = trouble
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            await asyncio.sleep(WITHIN + GRACE + 60)
        assert len(settled_by(replica)) == 1
        assert replica.tally.effects == []
        assert len(replica.view) == 0


class TestLeaders:
    """Leaders that change, and two at once."""

    @in_virtual_time
    async def test_the_next_leader_settles_the_rest_and_counts_nothing_twice(self) -> None:
        """What was due while nobody led is settled at once, from what is recorded on the Jobs."""
        world = World()
        first = world.replica("a")
        async with leading(first):
            healed, still_firing = await ran(first, "web-1", "web-2")
            await first.deliver(resolved(pods_of("web-1"), world.now()))
            await asyncio.sleep(WITHIN + GRACE + 60)
            await first.deliver(pods_of("web-2"))
        await asyncio.sleep(HOUR)
        second = world.replica("b")
        async with leading(second):
            await asyncio.sleep(10)
        assert first.tally.effects == [(healed, Effect.HEALED, True)]
        assert second.tally.effects == [(still_firing, Effect.NOT_HEALED, True)]

    @in_virtual_time
    async def test_two_leaders_never_settle_a_job_differently(self) -> None:
        """One that is late, and does not know the last news, changes nothing any more."""
        world = World()
        late, leader = world.replica("late"), world.replica("leader")
        async with leader.watching():
            (key,) = await ran(leader, "web-1")
            await leader.deliver(resolved(pods_of("web-1"), world.now()))
            async with late.watching():
                pass  # from here on its view is stale
            await asyncio.sleep(60)
            await leader.deliver(pods_of("web-1", starts_at=world.now()))
            async with settling(leader):
                await asyncio.sleep(10)
                async with settling(late):
                    await asyncio.sleep(WITHIN * 2)
            job = await world.job(key)
        assert (await world.job(key)).effect is Effect.NOT_HEALED
        assert len(settled_by(late)) == 1
        assert late.view.get(key) == job
        effects = [
            write for write in world.writes() if _effect(write.after) != _effect(write.before)
        ]
        assert len([write for write in effects if write.after["metadata"]["name"] == key.name]) == 1

    @pytest.mark.parametrize("status", ["firing", "resolved"])
    @in_virtual_time
    async def test_a_leader_whose_watch_lags_settles_nothing_against_news(
        self, status: str
    ) -> None:
        """Its write fails, and it decides anew by what is recorded."""
        world = World()
        late, other = world.replica("late"), world.replica("other")
        async with other.watching():
            (key,) = await ran(other, "web-1")
            ends = world.now()
            await asyncio.sleep(WITHIN + 60)
            if status == "resolved":
                await other.deliver(pods_of("web-1"))
                await asyncio.sleep(5)
            async with late.watching():
                pass  # from here on its view is stale
            if status == "resolved":
                await other.deliver(resolved(pods_of("web-1"), ends))
                effect = Effect.HEALED
            else:
                await other.deliver(pods_of("web-1"))
                effect = Effect.NOT_HEALED
            await asyncio.sleep(6 * HOUR)
            async with settling(late):
                await asyncio.sleep(10)
            job = await world.job(key)
        assert job.effect is effect
        assert len(settled_by(late)) == 2
        assert late.tally.effects == [(key, effect, True)]

    @in_virtual_time
    async def test_nothing_is_written_after_the_end_of_the_term(self) -> None:
        """The term is checked before each write."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            await ran(replica, "web-1")
            await replica.deliver(resolved(pods_of("web-1"), world.now()))
            with pytest.raises(TermEnded):
                await replica.settler.run(new_term("a", WITHIN))
        assert settled_by(replica) == []


class TestCost:
    """What effects cost."""

    @in_virtual_time
    async def test_each_job_is_written_a_few_times(self) -> None:
        """Beyond its creation and admission: one write per fact, however often alerts come."""
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(options=_UNLIMITED)))
        pods = [f"web-{number}" for number in range(20)]
        async with leading(replica):
            jobs = await ran(replica, *pods)
            replica.wire.requests.clear()
            for _ in range(12):
                await asyncio.sleep(120)
                await replica.deliver(*(pods_of(pod) for pod in pods))
            ends = world.now()
            for _ in range(3):
                await replica.deliver(*(resolved(pods_of(pod), ends) for pod in pods))
                await asyncio.sleep(120)
            await asyncio.sleep(8 * HOUR)
        for key in jobs:
            names = [request.name for request in replica.wire.writes()]
            assert names.count(key.name) == 3  # still firing, its effect, resolved

    @in_virtual_time
    async def test_what_is_recorded_together_is_one_write(self) -> None:
        """That the alert still fires, and that the Job is kept for it."""
        world = World()
        envelope = Envelope(remember=timedelta(hours=1))
        replica = world.replica(catalog=build.catalog(build.operario(), envelope=envelope))
        async with leading(replica):
            (key,) = await ran(replica, "web-1")
            await asyncio.sleep(WITHIN + 60)
            await replica.deliver(pods_of("web-1"))
            await asyncio.sleep(5)
            job = await world.job(key)
        patches = [r for r in replica.wire.requests if r.sets(keys.STILL_FIRING_AT)]
        assert len(patches) == 1
        assert patches[0].sets(keys.LAST_DELIVERED_AT)
        assert job.still_firing_at == job.delivered_at

    @in_virtual_time
    async def test_settled_jobs_are_not_assessed_again(self, monkeypatch: Any) -> None:
        """Of thousands of Jobs, only those whose incident has changed, or that are due."""
        assessed: list[Remediation] = []

        def count(job: Remediation, *given: Any) -> Any:
            assessed.append(job)
            return assess(job, *given)

        monkeypatch.setattr(settler, "assess", count)
        world = World()
        replica = world.replica()
        jobs = [_remembered(number, settled=number % 50 != 0) for number in range(2_000)]
        replica.view.replace(build.JOBS_NAMESPACE, jobs, "7")
        async with settling(replica):
            await asyncio.sleep(30)
            first = len(assessed)
            for number in range(100, 110):
                replica.view.apply(_remembered(number, settled=True, version="9"))
                await asyncio.sleep(5)
            second = len(assessed) - first
            replica.view.apply(_remembered(200, settled=False, version="9"))
            await asyncio.sleep(10 * 60)
        assert first == 40
        assert second == 0
        assert len(assessed) == 41


_UNLIMITED = Options(max_concurrent=1000, max_per_hour=1000, cooldown=timedelta(0))


def _effect(job: Any) -> Any:
    return ((job or {}).get("metadata", {}).get("annotations") or {}).get(keys.EFFECT)


_FINISHED = build.finished()


def _remembered(number: int, *, settled: bool, version: str = "7") -> Remediation:
    """A Job that ended a moment ago, of an incident of its own."""
    job = replace(
        _FINISHED,
        key=JobKey(build.JOBS_NAMESPACE, f"job-{number}"),
        uid=f"uid-{number}",
        resource_version=version,
        incident=f"incident-{number}",
    )
    return replace(job, effect=Effect.HEALED, effect_at=build.NOW) if settled else job
