"""Deliveries to Jobs, with an API server that refuses, forgets to answer, or says nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.delivery import submitter as submit
from openfero_gitops.delivery.alertmanager import read_delivery, read_payload
from openfero_gitops.delivery.submitter import DeliveryLimits
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.answer import Verdict
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.concurrency import ConcurrencyLimit
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    ClockWrong,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.operario import OnResolve, Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey, Outcome, Phase
from openfero_gitops.jobs import environment, foreign
from openfero_gitops.jobs.render import render
from tests.support import build
from tests.support.workers import (
    Replica,
    Trouble,
    World,
    in_background,
    in_virtual_time,
    pods_of,
    resolved,
    seconds_so_far,
    silence,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.answer import Answer
    from tests.support.relay import Act, Request

REMEMBER = Envelope().remember
OTHER_NAMESPACE = "other-jobs"
RECORDED = '"description":"a text'
WIRE_ALERT = {
    "status": "firing",
    "labels": {"alertname": "PodCrashLooping", "pod": "web-1"},
    "annotations": {"description": "a text"},
    "startsAt": "2026-11-21T03:03:35.678901Z",
}


def fail_requests(
    error: ApiError,
    *,
    verb: str = "create",
    carried_out: bool = False,
    times: int = 1_000,
    only: Callable[[Request], bool] = lambda _: True,
) -> Trouble:
    """Fail a number of requests, before or after they are carried out."""
    left = times

    async def trouble(request: Request, act: Act) -> Any:
        nonlocal left
        if request.verb != verb or request.resource != JOBS or not left or not only(request):
            return await act()
        left -= 1
        if carried_out:
            await act()
        raise error

    return trouble


class InFlight:
    """Makes each request take a moment, and counts how many are in flight."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0

    async def __call__(self, _: Request, act: Act) -> Any:
        """Carry a request out."""
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0.01)
        self._now -= 1
        return await act()


def outcomes(answer: Answer) -> list[tuple[Outcome, Reason | None]]:
    """Return the outcome and reason of each alert."""
    return [(item.outcome, item.reason) for item in answer.items]


def patches_of(replica: Replica, key: str) -> list[Request]:
    """Return the patch requests that set an annotation."""
    return [request for request in replica.wire.requests if request.sets(key)]


class TestDurability:
    """What an answer guarantees."""

    @in_virtual_time
    async def test_a_200_means_that_every_job_is_stored(self) -> None:
        """After 200, each matched alert of a delivery has its own suspended Job."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            answer = await replica.deliver(pods_of("web-1"), pods_of("web-2"), truncated=3)
        stored = {job.key: job for job in await world.jobs()}
        assert answer.verdict is Verdict.ACCEPTED
        assert outcomes(answer) == [(Outcome.CREATED, None)] * 2
        assert {item.job for item in answer.items} == set(stored)
        assert all(job.waiting and job.term is None for job in stored.values())
        assert {job.labels["pod"] for job in stored.values()} == {"web-1", "web-2"}
        assert replica.tally.truncated == 3

    @pytest.mark.parametrize(
        ("error", "reason", "verdict"),
        [
            (Conflict("resourcequotas"), Reason.API_CONFLICT, Verdict.REPEAT),
            (Expired("gone"), Reason.API_UNAVAILABLE, Verdict.REPEAT),
            (Forbidden("quota"), Reason.API_FORBIDDEN, Verdict.REPEAT),
            (Invalid("spec"), Reason.API_REFUSED, Verdict.UNPROCESSABLE),
            (NotFound("namespace"), Reason.API_UNAVAILABLE, Verdict.REPEAT),
            (Throttled("slow down"), Reason.API_UNAVAILABLE, Verdict.REPEAT),
            (Unauthorized("token"), Reason.API_UNAVAILABLE, Verdict.REPEAT),
            (Unavailable("no answer"), Reason.API_UNAVAILABLE, Verdict.REPEAT),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, ApiError) else None,
    )
    @in_virtual_time
    async def test_each_failure_has_its_verdict(
        self, error: ApiError, reason: Reason, verdict: Verdict
    ) -> None:
        """Every error is to be repeated, unless the Job itself is invalid."""
        world = World()
        replica = world.replica()
        replica.wire.trouble = fail_requests(error)
        async with replica.watching():
            answer = await replica.deliver(build.alert())
        (item,) = answer.items
        assert (item.outcome, item.reason, answer.verdict) == (Outcome.ERROR, reason, verdict)
        assert item.job is not None
        assert item.job.name.startswith("podcrashlooping-firing-")
        assert str(error) in item.message
        assert await world.jobs() == []

    @in_virtual_time
    async def test_503_takes_precedence_over_422(self) -> None:
        """An invalid Job, a failed create and a stored Job are answered with 503."""
        world = World()
        replica = world.replica()

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "create":
                pod = request.body["metadata"]["annotations"][keys.TARGET]
                if "web-1" in pod:
                    raise Invalid("wrong")
                if "web-2" in pod:
                    raise Throttled("later")
            return await act()

        replica.wire.trouble = trouble
        async with replica.watching():
            answer = await replica.deliver(*(pods_of(f"web-{number}") for number in (1, 2, 3)))
        assert answer.verdict is Verdict.REPEAT
        assert [item.verdict for item in answer.items] == [
            Verdict.UNPROCESSABLE,
            Verdict.REPEAT,
            Verdict.ACCEPTED,
        ]
        assert [job.labels["pod"] for job in await world.jobs()] == ["web-3"]

    @in_virtual_time
    async def test_an_invalid_job_is_logged_once(self) -> None:
        """Repetitions of a delivery that was answered with 422 are not logged."""
        replica = World().replica()
        replica.wire.trouble = fail_requests(Invalid("spec.template: wrong"))
        async with replica.watching():
            with capture_logs() as logs:
                for _ in range(3):
                    assert (await replica.deliver(build.alert())).verdict is Verdict.UNPROCESSABLE
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert [entry["message"] for entry in warnings] == ["spec.template: wrong"]

    @in_virtual_time
    async def test_a_lost_answer_creates_no_second_job(self) -> None:
        """A create without an answer is 503; the repetition finds the Job."""
        world = World()
        replica = world.replica()
        replica.wire.trouble = fail_requests(Unavailable("cut off"), carried_out=True, times=1)
        async with replica.watching():
            first = await replica.deliver(build.alert())
            second = await replica.deliver(build.alert())
        assert (first.verdict, second.verdict) == (Verdict.REPEAT, Verdict.ACCEPTED)
        assert outcomes(second) == [(Outcome.EXISTS, None)]
        assert [job.key for job in await world.jobs()] == [second.items[0].job]

    @in_virtual_time
    async def test_an_occurrence_delivered_twenty_times_at_once_is_one_job(self) -> None:
        """One of several concurrent deliveries creates the Job; all are answered with 200."""
        world = World()
        replica_a, replica_b = world.replica("a"), world.replica("b")
        async with replica_a.watching(), replica_b.watching():
            answers = await asyncio.gather(
                *(
                    replica.deliver(build.alert())
                    for replica in (replica_a, replica_b)
                    for _ in range(10)
                )
            )
        results = [answer.items[0].outcome for answer in answers]
        assert {answer.verdict for answer in answers} == {Verdict.ACCEPTED}
        assert results.count(Outcome.CREATED) == 1
        assert results.count(Outcome.EXISTS) == 19
        assert len(await world.jobs()) == 1

    @in_virtual_time
    async def test_an_alert_listed_twice_is_one_job(self) -> None:
        """Both entries get the same answer, and one create is sent."""
        replica = World().replica()
        async with replica.watching():
            answer = await replica.deliver(build.alert(), pods_of("web-2"), build.alert())
        assert [item.outcome for item in answer.items] == [Outcome.CREATED] * 3
        assert answer.items[0].job == answer.items[2].job != answer.items[1].job
        assert len([request for request in replica.wire.requests if request.verb == "create"]) == 2

    @in_virtual_time
    async def test_an_alert_without_a_start_is_new_at_each_delivery(self) -> None:
        """An alert without startsAt gets a new Job at each delivery."""
        world = World()
        replica = world.replica()
        by_hand = build.alert(starts_at=None)
        async with replica.watching():
            for _ in range(2):
                answer = await replica.deliver(by_hand, by_hand)
                assert [item.outcome for item in answer.items] == [Outcome.CREATED] * 2
        assert len(await world.jobs()) == 2

    @in_virtual_time
    async def test_an_alert_without_an_operario_is_accepted(self) -> None:
        """It is answered with 200 and a reason, and no request is sent."""
        replica = World().replica()
        async with replica.watching():
            replica.wire.requests.clear()
            answer = await replica.deliver(build.alert(labels={"alertname": "Other"}))
        assert answer.verdict is Verdict.ACCEPTED
        assert outcomes(answer) == [(Outcome.NO_MATCH, Reason.NO_OPERARIO)]
        assert replica.wire.requests == []

    @in_virtual_time
    async def test_an_alert_that_cannot_be_rendered_is_a_refused_job(self) -> None:
        """A value that is not safe in a command gives a refused Job and 200."""
        spec = build.job_spec(args=["--pod={{ .Alert.Labels.pod }}"])
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(spec=spec)))
        async with replica.watching(), replica.leading():
            answer = await replica.deliver(pods_of("$(reboot)"))
            await asyncio.sleep(60)
            again = await replica.deliver(pods_of("$(reboot)"))
        (job,) = await world.jobs()
        assert (answer.verdict, again.verdict) == (Verdict.ACCEPTED, Verdict.ACCEPTED)
        assert outcomes(answer) == [(Outcome.REFUSED, Reason.UNSAFE_VALUE)]
        assert outcomes(again) == [(Outcome.EXISTS, None)]
        assert (job.phase, job.reason) == (Phase.REFUSED, Reason.UNSAFE_VALUE)
        assert world.starts() == []


class TestNames:
    """A Job's name that is in use."""

    @in_virtual_time
    async def test_a_job_that_is_being_deleted_is_not_reused(self) -> None:
        """The answer is 503 until the old Job is gone; then a new one is created."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            key = (await replica.deliver(build.alert())).items[0].job
            assert key is not None
            kept = {"op": "add", "path": "/metadata/finalizers", "value": ["example.org/keep"]}
            await world.change(key, kept)
            await world.cluster.delete(JOBS, key.namespace, key.name)
            during = await replica.deliver(build.alert())
            await world.change(key, {"op": "remove", "path": "/metadata/finalizers"})
            after = await replica.deliver(build.alert())
        assert during.verdict is Verdict.REPEAT
        assert outcomes(during) == [(Outcome.ERROR, Reason.NAME_TAKEN)]
        assert outcomes(after) == [(Outcome.CREATED, None)]

    @in_virtual_time
    async def test_a_job_of_another_occurrence_is_not_reused(self) -> None:
        """Another Job with the occurrence's name is not changed; the answer is 503."""
        world = World()
        replica = world.replica()
        manifest = build.rendered().manifest
        manifest["metadata"]["labels"][keys.OCCURRENCE] = "a" * 52
        strange = (await world.cluster.create(JOBS, build.JOBS_NAMESPACE, manifest)).object
        answer: Answer | None = None
        async with replica.watching():
            for _ in range(2):  # not known to the view at first, then known
                answer = await replica.deliver(build.alert())
                assert answer.verdict is Verdict.REPEAT
                assert outcomes(answer) == [(Outcome.ERROR, Reason.NAME_TAKEN)]
        name = strange["metadata"]["name"]
        assert await world.cluster.get(JOBS, build.JOBS_NAMESPACE, name) == strange

    @in_virtual_time
    async def test_a_job_that_is_changed_at_its_creation_is_503(self) -> None:
        """As by a mutating webhook: it would never start, so that 200 would lose the alert."""
        world = World()
        replica = world.replica()

        async def mutate(request: Request, act: Act) -> Any:
            if request.verb == "create":
                request.body["metadata"]["annotations"][keys.TARGET] = '{"pod":"db-1"}'
            return await act()

        replica.wire.trouble = mutate
        async with replica.watching():
            answers = [await replica.deliver(build.alert()) for _ in range(2)]
        assert [answer.verdict for answer in answers] == [Verdict.REPEAT] * 2
        assert [outcomes(answer)[0][1] for answer in answers] == [
            Reason.API_CONFLICT,
            Reason.NAME_TAKEN,
        ]
        assert "was changed at its creation" in answers[0].items[0].message
        assert "delete it, so that the alert gets its Job" in answers[1].items[0].message

    @in_virtual_time
    async def test_a_resolved_alert_is_recorded_on_no_foreign_job(self) -> None:
        """The alert is answered with 200, and the forged Job stays as it is."""
        world = World()
        replica = world.replica()
        manifest = build.rendered().manifest
        manifest["metadata"]["name"] = "forged"
        forged = (await world.cluster.create(JOBS, build.JOBS_NAMESPACE, manifest)).object
        async with replica.watching():
            answer = await replica.deliver(resolved(build.alert(), world.now()))
        assert answer.verdict is Verdict.ACCEPTED
        assert await world.cluster.get(JOBS, build.JOBS_NAMESPACE, "forged") == forged

    @in_virtual_time
    async def test_a_job_that_is_deleted_while_it_is_read_is_503(self) -> None:
        """AlreadyExists followed by NotFound means that the Job is being deleted."""
        world = World()
        replica = world.replica()
        replica.wire.trouble = fail_requests(AlreadyExists("it is there"), times=1)
        async with replica.watching():
            answer = await replica.deliver(build.alert())
            again = await replica.deliver(build.alert())
        assert outcomes(answer) == [(Outcome.ERROR, Reason.NAME_TAKEN)]
        assert answer.verdict is Verdict.REPEAT
        assert outcomes(again) == [(Outcome.CREATED, None)]

    @in_virtual_time
    async def test_a_deleted_job_that_the_view_still_has_is_created_again(self) -> None:
        """Deleting a Job takes effect before the watch reports it."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            key = (await replica.deliver(build.alert())).items[0].job
            assert key is not None
        await world.cluster.delete(JOBS, key.namespace, key.name)
        assert key in replica.view
        answer = await replica.deliver(build.alert())
        assert outcomes(answer) == [(Outcome.CREATED, None)]


class TestJson:
    """How often an alert is serialized and parsed."""

    @in_virtual_time
    async def test_an_alert_is_serialized_once_on_its_way_to_a_job(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A Job's record is serialized and parsed once; a repeated delivery does neither."""
        counts = Counter[str]()
        serialize, parse = environment.canonical_bytes, foreign.json_object

        def count_serialized(value: Any) -> bytes:
            counts["record serialized"] += 1
            return serialize(value)

        def count_parsed(text: str) -> dict[str, Any]:
            counts["record parsed"] += RECORDED in text
            return parse(text)

        body = json.dumps({"status": "firing", "alerts": [WIRE_ALERT]})
        replica = World().replica()
        async with replica.watching():
            monkeypatch.setattr(environment, "canonical_bytes", count_serialized)
            monkeypatch.setattr(foreign, "json_object", count_parsed)
            answer = await replica.submitter.deliver(read_payload(body))
            assert outcomes(answer) == [(Outcome.CREATED, None)]
            assert counts == {"record serialized": 1, "record parsed": 1}
            counts.clear()
            answer = await replica.submitter.deliver(read_payload(body))
            assert outcomes(answer) == [(Outcome.EXISTS, None)]
            assert not +counts


class TestInvalid:
    """Alerts that cannot be read, among others."""

    @staticmethod
    def group(*alerts: Any) -> AlertGroup:
        """Read a delivery of these alerts."""
        return read_delivery(json.dumps({"status": "firing", "alerts": alerts}))

    @in_virtual_time
    async def test_the_others_have_their_jobs(self) -> None:
        """An invalid alert is answered in its place with 422, and named once in the log."""
        wrong = WIRE_ALERT | {"labels": {"alertname": "PodCrashLooping", "pod": 1}}
        late = WIRE_ALERT | {"startsAt": "noon"}
        group = self.group(wrong, WIRE_ALERT, late)
        replica = World().replica()
        with capture_logs() as log:
            async with replica.watching():
                answer = await replica.submitter.deliver(group)
                again = await replica.submitter.deliver(group)
        assert answer.verdict is Verdict.UNPROCESSABLE
        assert outcomes(answer) == [
            (Outcome.INVALID, Reason.INVALID_ALERT),
            (Outcome.CREATED, None),
            (Outcome.INVALID, Reason.INVALID_ALERT),
        ]
        assert [item.alert.name for item in answer.items] == ["PodCrashLooping"] * 3
        assert answer.items[0].message == "/alerts/0/labels/pod: must be a string"
        assert answer.items[2].message.startswith('/alerts/2/startsAt: "noon" is not')
        assert [item.outcome for item in again.items][1] is Outcome.EXISTS
        (line,) = (line for line in log if line["log_level"] == "warning")
        assert (line["alert"], line["member"]) == ("PodCrashLooping", "/alerts/0/labels/pod")

    @in_virtual_time
    async def test_members_of_the_group_that_are_not_needed(self) -> None:
        """One with a wrong type costs no alert its Job, and is named once in the log."""
        group = read_delivery(
            json.dumps({"alerts": [WIRE_ALERT], "groupKey": 7, "truncatedAlerts": "3"})
        )
        replica = World().replica()
        with capture_logs() as log:
            async with replica.watching():
                answer = await replica.submitter.deliver(group)
                await replica.submitter.deliver(group)
        assert answer.verdict is Verdict.ACCEPTED
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        assert [line["error"] for line in log if line["log_level"] == "warning"] == [
            "groupKey must be a string",
            "truncatedAlerts must be an integer",
        ]

    @in_virtual_time
    async def test_what_must_be_repeated_wins(self) -> None:
        """503 if another alert of the delivery could not be stored, or nothing can be."""
        replica = World().replica()
        replica.wire.trouble = fail_requests(Unavailable("no answer"), times=1)
        group = self.group(WIRE_ALERT, WIRE_ALERT | {"status": "on"})
        async with replica.watching():
            failed_once = await replica.submitter.deliver(group)
            replica.catalog = None
            all_others = await replica.submitter.deliver(group)
        for answer in (failed_once, all_others):
            assert answer.verdict is Verdict.REPEAT
            assert [item.outcome for item in answer.items] == [Outcome.ERROR, Outcome.INVALID]


class TestLimits:
    """How many deliveries are accepted, and how long a sender waits."""

    @in_virtual_time
    async def test_an_api_server_that_does_not_answer_is_503_in_time(self) -> None:
        """The answer reports what was stored by then; the rest is to be repeated."""
        world = World()
        replica = world.replica()

        async def trouble(request: Request, act: Act) -> Any:
            if (
                request.verb == "create"
                and "web-2" in request.body["metadata"]["annotations"][keys.TARGET]
            ):
                return await silence()
            return await act()

        replica.wire.trouble = trouble
        async with replica.watching():
            began = seconds_so_far()
            tasks = asyncio.all_tasks()
            answer = await replica.deliver(pods_of("web-1"), pods_of("web-2"))
            assert seconds_so_far() - began < 9
            assert asyncio.all_tasks() == tasks
        assert answer.verdict is Verdict.REPEAT
        assert outcomes(answer) == [
            (Outcome.CREATED, None),
            (Outcome.ERROR, Reason.API_UNAVAILABLE),
        ]

    @pytest.mark.parametrize("verb", ["list", "patch"])
    @in_virtual_time
    async def test_a_resolved_alert_is_answered_in_time(self, verb: str) -> None:
        """If nothing can be read or recorded, 503 is sent in time and no task is left."""
        world = World()
        both = (build.JOBS_NAMESPACE, OTHER_NAMESPACE)
        replica = world.replica(namespaces=both)
        async with replica.watching():
            await replica.deliver(build.alert())

            async def trouble(request: Request, act: Act) -> Any:
                return await (silence() if request.verb == verb else act())

            replica.wire.trouble = trouble
            began = seconds_so_far()
            tasks = asyncio.all_tasks()
            answer = await replica.deliver(resolved(build.alert(), world.now()))
            assert seconds_so_far() - began < 9
            assert asyncio.all_tasks() == tasks
        assert answer.verdict is Verdict.REPEAT

    @in_virtual_time
    async def test_no_request_continues_after_the_answer(self) -> None:
        """One namespace fails at once while the list of another is in progress."""
        world = World()
        replica = world.replica(namespaces=(build.JOBS_NAMESPACE, OTHER_NAMESPACE))

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "list" and request.namespace == OTHER_NAMESPACE:
                raise Forbidden("not in this namespace")
            await asyncio.sleep(3)
            return await act()

        async with replica.watching():
            await replica.deliver(build.alert())
            replica.wire.trouble = trouble
            tasks = asyncio.all_tasks()
            answer = await replica.deliver(resolved(build.alert(), world.now()))
            assert asyncio.all_tasks() == tasks
        assert answer.verdict is Verdict.REPEAT
        assert outcomes(answer) == [(Outcome.ERROR, Reason.API_FORBIDDEN)]

    @in_virtual_time
    async def test_a_failed_extension_of_the_expiry_is_still_200(self) -> None:
        """The next delivery tries again; the Job exists."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            await replica.deliver(build.alert())
            await asyncio.sleep(REMEMBER.total_seconds() / 9)
            replica.wire.trouble = fail_requests(Unavailable("no"), verb="patch")
            failing = await replica.deliver(build.alert())

            async def trouble(request: Request, act: Act) -> Any:
                return await (silence() if request.verb == "patch" else act())

            replica.wire.trouble = trouble
            began = seconds_so_far()
            silent = await replica.deliver(build.alert())
            assert seconds_so_far() - began < 9
            assert replica.submitter.trouble == "", "the next delivery does not depend on it"
        assert (failing.verdict, silent.verdict) == (Verdict.ACCEPTED, Verdict.ACCEPTED)

    @in_virtual_time
    async def test_a_large_group_does_not_block_the_event_loop(self, monkeypatch: Any) -> None:
        """At most as many alerts are rendered at a time as requests are allowed."""
        turn, rendered = 0, Counter[int]()

        async def count_turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        def counted(*given: Any, **named: Any) -> Any:
            rendered[turn] += 1
            return render(*given, **named)

        async def answers_later(_: Request, act: Act) -> Any:
            await asyncio.sleep(0)
            return await act()

        monkeypatch.setattr(submit, "render", counted)
        replica = World().replica(limits=DeliveryLimits(requests=ConcurrencyLimit.fixed(4)))
        async with replica.watching(), in_background(count_turns()):
            replica.wire.trouble = answers_later
            await replica.deliver(*(pods_of(f"web-{number}") for number in range(100)))
        assert rendered.total() == 100
        assert max(rendered.values()) <= 4

    @in_virtual_time
    async def test_too_many_concurrent_deliveries_are_503(self) -> None:
        """The delivery over the limit is answered at once; the next one is accepted."""
        world = World()
        replica = world.replica(limits=DeliveryLimits(deadline_seconds=2, deliveries=1))
        async with replica.watching():
            replica.wire.trouble = silence
            async with in_background(replica.deliver(pods_of("web-1"))) as first:
                await asyncio.sleep(1)
                began = seconds_so_far()
                busy = await replica.deliver(pods_of("web-2"))
                assert seconds_so_far() == began
                assert (await first).verdict is Verdict.REPEAT
            replica.wire.trouble = fail_requests(Unavailable("no"), times=0)
            after = await replica.deliver(pods_of("web-2"))
        assert outcomes(busy) == [(Outcome.ERROR, Reason.BUSY)]
        assert busy.verdict is Verdict.REPEAT
        assert after.verdict is Verdict.ACCEPTED

    @in_virtual_time
    async def test_waiting_jobs_are_limited(self) -> None:
        """At the limit, new alerts are answered with 503 until Jobs have started or ended."""
        world = World()
        replica = world.replica(limits=DeliveryLimits(waiting=3))
        async with replica.watching():
            answer = await replica.deliver(*(pods_of(f"web-{n}") for n in range(5)))
            created = sorted(str(item.job) for item in answer.items if item.outcome == "created")
            assert len(created) == 3
            full = (Outcome.ERROR, Reason.TOO_MANY_WAITING)
            assert Counter(outcomes(answer)) == {(Outcome.CREATED, None): 3, full: 2}
            assert answer.verdict is Verdict.REPEAT
            assert len(await world.jobs()) == 3
            assert "3 Jobs are waiting, and --max-waiting is 3" in replica.submitter.backlog
            assert not replica.submitter.trouble
            for job in (await world.jobs())[:2]:
                await world.cluster.delete(JOBS, job.key.namespace, job.key.name)
            await asyncio.sleep(1)
            assert not replica.submitter.backlog
            again = await replica.deliver(*(pods_of(f"web-{n}") for n in range(3, 5)))
            assert again.verdict is Verdict.ACCEPTED

    @in_virtual_time
    async def test_alerts_that_have_a_job_are_accepted_at_the_limit(self) -> None:
        """A repeated alert is answered with 200, also if another replica created its Job."""
        world = World()
        limited, other = world.replica(limits=DeliveryLimits(waiting=2)), world.replica()
        async with limited.watching():
            assert (await limited.deliver(pods_of("a"), pods_of("b"))).verdict is Verdict.ACCEPTED
            async with other.watching():
                await other.deliver(pods_of("c"))
            for _ in range(2):
                answer = await limited.deliver(pods_of("a"), pods_of("b"), pods_of("c"))
                assert outcomes(answer) == [(Outcome.EXISTS, None)] * 3
                assert answer.verdict is Verdict.ACCEPTED

    @in_virtual_time
    async def test_a_resolution_is_recorded_at_the_limit(self) -> None:
        """Resolved alerts end waiting Jobs, so the limit does not keep them out."""
        world = World()
        replica = world.replica(limits=DeliveryLimits(waiting=1))
        async with replica.watching():
            await replica.deliver(pods_of("a"))
            assert replica.submitter.backlog
            answer = await replica.deliver(resolved(pods_of("a"), world.now()))
            assert answer.verdict is Verdict.ACCEPTED
        (job,) = await world.jobs()
        assert job.resolved_at is not None

    @in_virtual_time
    async def test_creations_without_an_answer_count_as_waiting(self) -> None:
        """A burst does not exceed the limit while the API server is slow."""
        world = World()
        replica = world.replica(limits=DeliveryLimits(waiting=3))

        async def slow(request: Request, act: Act) -> Any:
            if request.verb == "create":
                await asyncio.sleep(2)
            return await act()

        async with replica.watching():
            replica.wire.trouble = slow
            answer = await replica.deliver(*(pods_of(f"web-{n}") for n in range(20)))
        assert sum(item.outcome is Outcome.CREATED for item in answer.items) == 3
        assert len(await world.jobs()) == 3

    @in_virtual_time
    async def test_a_job_that_the_watch_shows_before_its_answer_counts_once(self) -> None:
        """No alert is refused below the limit, whichever comes first: the event or the answer."""
        world = World()
        replica = world.replica(limits=DeliveryLimits(waiting=4))

        async def answer_late(request: Request, act: Act) -> Any:
            answer = await act()
            if request.verb == "create":
                await asyncio.sleep(5)
            return answer

        async with replica.watching():
            replica.wire.trouble = answer_late
            first = asyncio.create_task(replica.deliver(*(pods_of(f"a-{n}") for n in range(2))))
            await asyncio.sleep(1)
            assert replica.view.waiting == 2
            second = await replica.deliver(*(pods_of(f"b-{n}") for n in range(3)))
            assert (await first).verdict is Verdict.ACCEPTED
        full = (Outcome.ERROR, Reason.TOO_MANY_WAITING)
        assert Counter(outcomes(second)) == {(Outcome.CREATED, None): 2, full: 1}
        assert len(await world.jobs()) == 4

    @in_virtual_time
    async def test_concurrent_requests_are_limited(self) -> None:
        """An alert storm sends a limited number of requests at a time."""
        world = World()
        replica = world.replica(limits=DeliveryLimits(requests=ConcurrencyLimit.fixed(4)))
        requests = InFlight()
        async with replica.watching():
            replica.wire.trouble = requests
            answer = await replica.deliver(*(pods_of(f"web-{number}") for number in range(40)))
        assert answer.verdict is Verdict.ACCEPTED
        assert requests.most == 4

    @pytest.mark.parametrize(
        ("error", "text", "lasts"),
        [
            (Throttled("slow down", 3), "the API server throttles requests: slow down", 10),
            (Throttled("slow down", 40), "the API server throttles requests: slow down", 40),
            (Unavailable("no answer"), "the API server does not accept Jobs: no answer", 10),
            (Unauthorized("token"), "the API server does not accept Jobs: token", 10),
            (Forbidden("quota"), "", 0),
            (Invalid("spec"), "", 0),
        ],
    )
    @in_virtual_time
    async def test_an_error_that_the_next_delivery_would_have_is_reported(
        self, error: ApiError, text: str, lasts: float
    ) -> None:
        """It lasts for a while, or until a Job is created; errors of one Job do not count."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            assert replica.submitter.trouble == ""
            replica.wire.trouble = fail_requests(error, times=2)
            await replica.deliver(pods_of("web-1"))
            assert replica.submitter.trouble == text
            await asyncio.sleep(lasts)
            assert replica.submitter.trouble == ""
            await replica.deliver(pods_of("web-1"))
            assert replica.submitter.trouble == text
            await replica.deliver(pods_of("web-1"))
            assert replica.submitter.trouble == ""

    @in_virtual_time
    async def test_a_wrong_clock_accepts_nothing(self) -> None:
        """Other replicas would rely on the times that it writes."""
        world = World()
        replica = world.replica()

        def now() -> Any:
            raise ClockWrong("an hour ahead")

        replica.submitter._now = now
        async with replica.watching():
            answer = await replica.deliver(pods_of("web-1"))
        assert (answer.verdict, outcomes(answer)) == (
            Verdict.REPEAT,
            [(Outcome.ERROR, Reason.CLOCK_WRONG)],
        )
        assert await world.jobs() == []

    @in_virtual_time
    async def test_without_a_catalog_nothing_is_accepted(self) -> None:
        """A replica that has not synced does not know the operarios."""
        replica = World().replica()
        replica.catalog = None
        async with replica.watching():
            answer = await replica.deliver(build.alert(), pods_of("web-2"))
        assert answer.verdict is Verdict.REPEAT
        assert outcomes(answer) == [(Outcome.ERROR, Reason.NO_CATALOG)] * 2

    @in_virtual_time
    async def test_before_the_jobs_are_listed_nothing_is_accepted(self) -> None:
        """All namespaces must be listed, because an alert could be about a Job in any."""
        world = World()
        replica = world.replica(namespaces=(build.JOBS_NAMESPACE, OTHER_NAMESPACE))

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "list" and request.namespace == OTHER_NAMESPACE:
                raise Unavailable("not yet")
            return await act()

        replica.wire.trouble = trouble
        async with in_background(replica.observer.run()):
            await asyncio.sleep(10)
            answer = await replica.deliver(build.alert())
        assert answer.verdict is Verdict.REPEAT
        assert outcomes(answer) == [(Outcome.ERROR, Reason.API_UNAVAILABLE)]


class TestLargeGroups:
    """Groups with more alerts than fit into the time of one delivery."""

    @in_virtual_time
    async def test_each_repetition_creates_more_jobs(self) -> None:
        """A group is accepted in the end, however slow the API server is."""
        world = World()
        requests = ConcurrencyLimit.fixed(1)
        replica = world.replica(limits=DeliveryLimits(deadline_seconds=2, requests=requests))
        pods = [pods_of(f"web-{number}") for number in range(20)]

        async def slow(_: Request, act: Act) -> Any:
            await asyncio.sleep(0.2)
            return await act()

        stored = [0]
        async with replica.watching():
            replica.wire.trouble = slow
            while (await replica.deliver(*pods)).verdict is Verdict.REPEAT:
                stored.append(len(await world.jobs()))
                assert stored[-1] > stored[-2], f"repetitions do not progress: {stored}"
        assert len(await world.jobs()) == len(pods)

    @pytest.mark.parametrize("trouble", ["slow", "without lists", "lists without an answer"])
    @in_virtual_time
    async def test_alerts_that_fire_again_are_not_last(self, trouble: str) -> None:
        """They have Jobs of earlier occurrences, and get theirs however the API server fails."""
        world = World()
        requests = ConcurrencyLimit.fixed(1)
        replica = world.replica(limits=DeliveryLimits(deadline_seconds=2, requests=requests))
        pods = [pods_of(f"web-{number}") for number in range(20)]
        again = [replace(pod, starts_at=build.NOW + timedelta(seconds=1)) for pod in pods]

        async def answer_slowly(request: Request, act: Act) -> Any:
            await asyncio.sleep(0.2)
            if request.verb == "list" and trouble == "without lists":
                raise Throttled("slow down")
            if request.verb == "list" and trouble == "lists without an answer":
                await asyncio.sleep(3600)
            return await act()

        async with replica.watching():
            await replica.deliver(*pods)
            replica.wire.trouble = answer_slowly
            stored = [len(pods)]
            while stored[-1] < 2 * len(pods):
                await replica.deliver(*again)
                stored.append(len(await world.jobs()))
                assert stored[-1] > stored[-2], f"repetitions do not progress: {stored}"

    @in_virtual_time
    async def test_lists_wait_for_their_turn_too(self) -> None:
        """However many deliveries there are, the requests in flight are limited."""
        replica = World().replica(limits=DeliveryLimits(requests=ConcurrencyLimit.fixed(4)))
        groups = [[pods_of(f"web-{group}-{number}") for number in range(5)] for group in range(10)]
        requests = InFlight()
        async with replica.watching():
            for group in groups:
                await replica.deliver(*group)
            replica.wire.trouble = requests
            await asyncio.gather(*(replica.deliver(*group) for group in groups))
        assert requests.most == 4

    @in_virtual_time
    async def test_the_jobs_of_a_repetition_are_read_with_few_lists(self) -> None:
        """A delivery that was accepted before does not cost a request for each alert."""
        replica = World().replica()
        pods = [pods_of(f"web-{number}") for number in range(80)]
        async with replica.watching():
            await replica.deliver(*pods)
            before = len(replica.wire.requests)
            answer = await replica.deliver(*pods)
        requests = [request.verb for request in replica.wire.requests[before:]]
        assert outcomes(answer) == [(Outcome.EXISTS, None)] * 80
        assert requests == ["list"] * 3

    @in_virtual_time
    async def test_a_job_that_the_list_lacks_is_created_again(self) -> None:
        """A Job that was deleted without notice is not believed to exist."""
        world = World()
        replica = world.replica()
        pods = [pods_of(f"web-{number}") for number in range(10)]
        async with replica.watching():
            first = await replica.deliver(*pods)
        deleted = first.items[3].job
        assert deleted is not None
        await world.cluster.delete(JOBS, deleted.namespace, deleted.name)
        answer = await replica.deliver(*pods)
        assert Counter(item.outcome for item in answer.items) == {
            Outcome.EXISTS: 9,
            Outcome.CREATED: 1,
        }
        assert answer.items[3].outcome is Outcome.CREATED

    @pytest.mark.parametrize("error", [Forbidden("list"), Unavailable("no answer")])
    @in_virtual_time
    async def test_without_a_list_each_job_is_read(self, error: ApiError) -> None:
        """A list that fails costs no alert its answer."""
        replica = World().replica()
        pods = [pods_of(f"web-{number}") for number in range(10)]
        async with replica.watching():
            await replica.deliver(*pods)
            replica.wire.trouble = fail_requests(error, verb="list")
            before = len(replica.wire.requests)
            answer = await replica.deliver(*pods)
        assert outcomes(answer) == [(Outcome.EXISTS, None)] * 10
        requests = [request.verb for request in replica.wire.requests[before:]]
        assert requests == ["list"] + ["get"] * 10


class TestResolved:
    """How resolved alerts are recorded."""

    @in_virtual_time
    async def test_it_is_recorded_before_the_answer(self) -> None:
        """Every firing Job that started by then has the time; a later one does not."""
        world = World()
        replica = world.replica()
        ends = build.NOW + build.minutes(5)
        starts = [build.STARTS_AT, build.NOW + build.minutes(5), build.NOW + build.minutes(6)]
        async with replica.watching():
            for start in starts:
                await replica.deliver(build.alert(starts_at=start))
            await replica.deliver(build.alert(starts_at=None), pods_of("web-2"))
            answer = await replica.deliver(resolved(build.alert(), ends))
            seen = {job.key: job.resolved_at for job in replica.view}
        resolved_at = {
            job.starts_at: job.resolved_at
            for job in await world.jobs()
            if job.labels["pod"] == "web-1"
        }
        assert answer.verdict is Verdict.ACCEPTED
        assert resolved_at == {starts[0]: ends, starts[1]: ends, starts[2]: None, None: ends}
        assert {job.resolved_at for job in await world.jobs() if job.labels["pod"] == "web-2"} == {
            None
        }
        assert seen == {job.key: job.resolved_at for job in await world.jobs()}

    @in_virtual_time
    async def test_jobs_that_the_view_does_not_know_are_recorded_too(self) -> None:
        """Jobs that another replica just created are read from the API server."""
        world = World()
        both = (build.JOBS_NAMESPACE, OTHER_NAMESPACE)
        elsewhere = world.replica("a", namespaces=(OTHER_NAMESPACE,))
        blind = world.replica("b", namespaces=both)
        async with elsewhere.watching():
            async with blind.watching():
                pass
            many = [pods_of(f"web-{number}") for number in range(200)]
            await elsewhere.deliver(*many)
            answer = await blind.deliver(*(resolved(alert, world.now()) for alert in many))
        assert answer.verdict is Verdict.ACCEPTED
        jobs = await world.jobs(OTHER_NAMESPACE)
        assert len(jobs) == 200
        assert all(job.resolved_at is not None for job in jobs)

    @in_virtual_time
    async def test_the_first_record_is_kept(self) -> None:
        """A repetition with another end changes nothing, even if the view lacks the first."""
        world = World()
        replica_a, replica_b = world.replica("a"), world.replica("b")
        first, later = build.NOW + build.minutes(1), build.NOW + build.minutes(2)
        async with replica_a.watching(), replica_b.watching():
            await replica_a.deliver(build.alert())

            async def overtaken(request: Request, act: Act) -> Any:
                if request.sets(keys.RESOLVED_AT):
                    await replica_a.deliver(resolved(build.alert(), first))
                return await act()

            replica_b.wire.trouble = overtaken
            racing = await replica_b.deliver(resolved(build.alert(), later))
            again = await replica_b.deliver(resolved(build.alert(), later))
        (job,) = await world.jobs()
        assert (racing.verdict, again.verdict) == (Verdict.ACCEPTED, Verdict.ACCEPTED)
        assert job.resolved_at == first
        assert len(patches_of(replica_b, keys.RESOLVED_AT)) == 1

    @pytest.mark.parametrize(
        "error",
        [Unavailable("cut off"), Conflict("quota"), Forbidden("no"), Throttled("later")],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("carried_out", [False, True], ids=["lost", "unheard"])
    @in_virtual_time
    async def test_what_could_not_be_recorded_is_to_be_repeated(
        self,
        error: ApiError,
        carried_out: bool,  # noqa: FBT001 - a parameter of the test
    ) -> None:
        """A record that nobody confirmed is 503; the repetition writes it once."""
        world = World()
        replica = world.replica()
        ends = build.NOW + build.minutes(1)
        async with replica.watching():
            await replica.deliver(build.alert())
            replica.wire.trouble = fail_requests(
                error, verb="patch", carried_out=carried_out, times=1
            )
            first = await replica.deliver(resolved(build.alert(), ends))
            second = await replica.deliver(resolved(build.alert(), ends + build.minutes(1)))
        (job,) = await world.jobs()
        assert (first.verdict, second.verdict) == (Verdict.REPEAT, Verdict.ACCEPTED)
        assert job.resolved_at == (ends if carried_out else ends + build.minutes(1))

    @in_virtual_time
    async def test_an_invalid_record_is_503(self) -> None:
        """A 422 that was not a failed test leaves nothing recorded."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            await replica.deliver(build.alert())
            replica.wire.trouble = fail_requests(Invalid("too many annotations"), verb="patch")
            answer = await replica.deliver(resolved(build.alert(), world.now()))
        assert answer.verdict is Verdict.REPEAT
        assert outcomes(answer) == [(Outcome.ERROR, Reason.API_CONFLICT)]

    @in_virtual_time
    async def test_an_alert_without_ends_at_ended_when_it_was_delivered(self) -> None:
        """The time of the delivery is recorded."""
        world = World()
        replica = world.replica()
        ended = build.alert(status=Status.RESOLVED, ends_at=None)
        async with replica.watching():
            await replica.deliver(build.alert())
            await asyncio.sleep(60)
            moment = world.now()
            await replica.deliver(ended)
        (job,) = await world.jobs()
        assert job.resolved_at == moment

    @in_virtual_time
    async def test_a_job_that_was_deleted_meanwhile_needs_no_record(self) -> None:
        """A deleted Job does not prevent the records of others."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            key = (await replica.deliver(build.alert())).items[0].job
            await replica.deliver(pods_of("web-2"))

            async def trouble(request: Request, act: Act) -> Any:
                if request.sets(keys.RESOLVED_AT) and request.name == key.name:
                    await world.cluster.delete(JOBS, key.namespace, key.name)
                return await act()

            replica.wire.trouble = trouble
            ends = world.now()
            answer = await replica.deliver(
                resolved(build.alert(), ends), resolved(pods_of("web-2"), ends)
            )
        assert answer.verdict is Verdict.ACCEPTED
        assert [job.resolved_at for job in await world.jobs()] == [ends]

    @pytest.mark.parametrize("verb", ["list", "patch"])
    @in_virtual_time
    async def test_a_failed_record_does_not_delay_firing_alerts(self, verb: str) -> None:
        """The firing alert of the group gets its Job, although the answer is 503."""
        world = World()
        undo = build.operario("undo", status=Status.RESOLVED)
        replica = world.replica(catalog=build.catalog(build.operario(), undo))
        async with replica.watching():
            await replica.deliver(pods_of("web-1"))
            replica.wire.trouble = fail_requests(Forbidden("not in this namespace"), verb=verb)
            answer = await replica.deliver(
                resolved(pods_of("web-1"), world.now()), pods_of("web-2")
            )
        assert answer.verdict is Verdict.REPEAT
        assert outcomes(answer) == [
            (Outcome.ERROR, Reason.API_FORBIDDEN),
            (Outcome.CREATED, None),
        ]

    @in_virtual_time
    async def test_the_job_for_a_resolved_alert_is_created_after_the_record(self) -> None:
        """It never exists beside a firing Job that is not marked as resolved."""
        undo = build.operario("undo", status=Status.RESOLVED)
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(), undo))
        async with replica.watching():
            await replica.deliver(build.alert())
            answer = await replica.deliver(resolved(build.alert(), world.now()))
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        order = [
            request.verb
            for request in replica.wire.requests
            if request.sets(keys.RESOLVED_AT) or request.verb == "create"
        ]
        assert order == ["create", "patch", "create"]


class TestExpiry:
    """Repeated deliveries extend the expiry of their Jobs."""

    @in_virtual_time
    async def test_the_expiry_is_extended_once_in_a_tenth_of_remember(self) -> None:
        """A day of deliveries every 15 minutes makes 9 writes, not 96."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            for _ in range(4 * 24):
                await replica.deliver(build.alert())
                await asyncio.sleep(15 * 60)
            kept = patches_of(replica, keys.LAST_DELIVERED_AT)
        (job,) = await world.jobs()
        assert len(kept) == 9
        assert all(
            later.at - earlier.at > REMEMBER.total_seconds() / 10
            for earlier, later in itertools.pairwise(kept)
        )
        assert job.delivered_at == build.NOW + timedelta(seconds=kept[-1].at)

    @in_virtual_time
    async def test_a_finished_job_exists_while_its_alert_is_delivered(self) -> None:
        """Its TTL is extended, so that the alert does not run again."""
        remember = timedelta(hours=2)
        spec = {**build.job_spec(), "ttlSecondsAfterFinished": remember.seconds}
        envelope = Envelope(remember=remember)
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(spec=spec), envelope=envelope))
        async with world.playing(), replica.watching():
            async with replica.leading():
                await replica.deliver(build.alert())
                await until(lambda: all(job.finished for job in replica.view))
            for _ in range(18):
                await asyncio.sleep(1200)
                answer = await replica.deliver(build.alert())
                assert outcomes(answer) == [(Outcome.EXISTS, None)]
            last = seconds_so_far()
            (job,) = await world.jobs()
            assert job.finished_at is not None
            ends = job.finished_at + timedelta(seconds=job.ttl_seconds or 0)
            assert world.now() + remember * 0.9 < ends <= world.now() + remember + build.seconds(2)
            await asyncio.sleep(remember.seconds + 60)
            assert await world.jobs() == []
        assert last < seconds_so_far()
        assert len(world.starts()) == 1

    @in_virtual_time
    async def test_a_longer_ttl_is_kept(self) -> None:
        """An operario's TTL that exceeds `remember` is never shortened."""
        week = 7 * 24 * 3600
        spec = {**build.job_spec(), "ttlSecondsAfterFinished": week}
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(spec=spec)))
        async with world.playing(), replica.watching():
            async with replica.leading():
                await replica.deliver(build.alert())
                await until(lambda: all(job.finished for job in replica.view))
            await asyncio.sleep(4 * 3600)
            await replica.deliver(build.alert())
        (job,) = await world.jobs()
        assert len(patches_of(replica, keys.LAST_DELIVERED_AT)) == 1
        assert job.ttl_seconds == week

    @in_virtual_time
    async def test_every_job_of_the_incident_is_kept_once(self) -> None:
        """Two startsAt of one incident keep both Jobs, with one write for each."""
        world = World()
        replica = world.replica()
        wobbled = build.alert(starts_at=build.STARTS_AT + build.seconds(5))
        async with replica.watching():
            await replica.deliver(build.alert(), wobbled)
            await asyncio.sleep(3 * 3600)
            await replica.deliver(build.alert(), wobbled)
            kept = patches_of(replica, keys.LAST_DELIVERED_AT)
        assert sorted(request.name for request in kept) == sorted(
            job.key.name for job in await world.jobs()
        )
        assert len(kept) == 2

    @in_virtual_time
    async def test_a_large_group_is_kept_within_the_time_of_a_delivery(self) -> None:
        """The writes are concurrent, up to the limit."""
        replica = World().replica(limits=DeliveryLimits(requests=ConcurrencyLimit.fixed(10)))
        group = [pods_of(f"web-{number}") for number in range(60)]

        async def slow(request: Request, act: Act) -> Any:
            if request.verb == "patch":
                await asyncio.sleep(1)
            return await act()

        async with replica.watching():
            await replica.deliver(*group)
            await asyncio.sleep(3 * 3600)
            replica.wire.trouble = slow
            answer = await replica.deliver(*group)
        assert answer.verdict is Verdict.ACCEPTED
        assert min(job.delivered_at for job in replica.view) > build.NOW + timedelta(hours=3)
        assert replica.submitter.trouble == ""

    @in_virtual_time
    async def test_of_attempts_that_waited_too_long_the_newest_is_kept(self) -> None:
        """Earlier attempts may expire, and are not created again after that."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            late = [await waited_too_long(world, replica) for _ in range(3)]
            newest = (await replica.deliver(build.alert())).items[0].job
            await asyncio.sleep(3 * 3600)
            again = await replica.deliver(build.alert())
            kept = patches_of(replica, keys.LAST_DELIVERED_AT)
            for key in late:
                await world.cluster.delete(JOBS, key.namespace, key.name)
            await asyncio.sleep(60)
            later = await replica.deliver(build.alert())
        assert newest is not None
        assert [request.name for request in kept] == [newest.name]
        assert [each.items[0].job for each in (again, later)] == [newest, newest]
        assert [job.key for job in await world.jobs()] == [newest]


async def waited_too_long(world: World, replica: Replica) -> JobKey:
    """Deliver an alert whose Job is then refused for max-wait."""
    (item,) = (await replica.deliver(build.alert())).items
    assert item.outcome is Outcome.CREATED
    assert item.job is not None
    await world.annotate(item.job, keys.REASON, Reason.MAX_WAIT.value)
    await world.annotate(item.job, keys.DECISION, "refused")
    await asyncio.sleep(900)
    return item.job


class TestAttempts:
    """When a delivery begins another attempt."""

    @in_virtual_time
    async def test_attempts_that_waited_too_long_continue_without_end(self) -> None:
        """After days of waiting, an alert still gets a new Job."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            for _ in range(40):
                replica.wire.requests.clear()
                await waited_too_long(world, replica)
                verbs = [
                    request.verb
                    for request in replica.wire.requests
                    if request.verb in ("get", "create")
                ]
                assert verbs in (["create"], ["get", "create"])
            async with world.playing(), replica.leading():
                answer = await replica.deliver(build.alert())
                await asyncio.sleep(60)
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        assert max(job.attempt for job in await world.jobs()) == 41
        assert world.starts() == [answer.items[0].job]

    @in_virtual_time
    async def test_deleted_attempts_that_the_view_still_has_begin_again(self) -> None:
        """Deleting all Jobs of an alert takes effect before the watch reports it."""
        world = World()
        replica = world.replica()
        async with replica.watching():
            gone = [await waited_too_long(world, replica) for _ in range(3)]
        for key in gone:
            await world.cluster.delete(JOBS, key.namespace, key.name)
        answer = await replica.deliver(build.alert())
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        assert [job.attempt for job in await world.jobs()] == [1]

    @in_virtual_time
    async def test_attempts_that_the_view_does_not_know_yet_are_found(self) -> None:
        """The next attempt follows the last one that another replica created."""
        world = World()
        replica_a, replica_b = world.replica("a"), world.replica("b")
        async with replica_b.watching():
            await waited_too_long(world, replica_b)
            async with replica_a.watching():
                pass  # and hears of nothing from here on
            await waited_too_long(world, replica_b)
            await waited_too_long(world, replica_b)
            answer = await replica_a.deliver(build.alert())
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        assert sorted(job.attempt for job in await world.jobs()) == [1, 2, 3, 4]

    @in_virtual_time
    async def test_after_max_wait_the_next_delivery_tries_again(self) -> None:
        """A Job that waited too long stays refused; its firing alert gets another."""
        world = World()
        options = Options(max_wait=build.minutes(5))
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        replica.paused = True
        async with replica.watching(), replica.leading():
            await replica.deliver(build.alert())
            await asyncio.sleep(301)
            (first,) = await world.jobs()
            assert (first.phase, first.reason) == (Phase.REFUSED, Reason.MAX_WAIT)
            answer = await replica.deliver(build.alert())
            again = await replica.deliver(build.alert())
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        assert outcomes(again) == [(Outcome.EXISTS, None)]
        assert answer.items[0].job == again.items[0].job
        assert sorted(job.attempt for job in await world.jobs()) == [1, 2]

    @in_virtual_time
    async def test_rerun_after_repeats_up_to_max_runs(self) -> None:
        """An alert that continues to fire is healed again after the pause, up to the maximum."""
        options = Options(rerun_after=build.minutes(20), max_runs=3, cooldown=timedelta(0))
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        created = []
        async with world.playing(), replica.watching(), replica.leading():
            for _ in range(12):
                answer = await replica.deliver(build.alert())
                if answer.items[0].outcome is Outcome.CREATED:
                    created.append(seconds_so_far())
                await asyncio.sleep(600)
        assert [job.attempt for job in sorted(await world.jobs(), key=lambda job: job.attempt)] == [
            1,
            2,
            3,
        ]
        assert all(later - earlier >= 1200 for earlier, later in itertools.pairwise(created))
        assert len(world.starts()) == 3

    @in_virtual_time
    async def test_a_duplicate_gets_the_attempts_of_the_job_that_heals(self) -> None:
        """If only the startsAt of the duplicate is still delivered, the rerun happens."""
        options = Options(rerun_after=build.minutes(20), cooldown=timedelta(0))
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        wobbled = build.alert(starts_at=build.STARTS_AT + build.seconds(5))
        async with world.playing(), replica.watching(), replica.leading():
            await replica.deliver(build.alert())
            await asyncio.sleep(30)
            await replica.deliver(wobbled)
            await asyncio.sleep(30)
            phases = {job.starts_at: (job.phase, job.reason) for job in replica.view}
            early = await replica.deliver(wobbled)
            await asyncio.sleep(1200)
            answer = await replica.deliver(wobbled)
            await asyncio.sleep(30)
        assert phases[wobbled.starts_at] == (Phase.REFUSED, Reason.SAME_INCIDENT)
        assert outcomes(early) == [(Outcome.EXISTS, None)]
        assert outcomes(answer) == [(Outcome.CREATED, None)]
        assert len(world.starts()) == 2

    @in_virtual_time
    async def test_a_resolved_alert_is_not_run_again(self) -> None:
        """Neither is a firing one that was resolved before a late repetition."""
        options = Options(rerun_after=build.minutes(1), on_resolve=OnResolve.KEEP)
        world = World()
        replica = world.replica(catalog=build.catalog(build.operario(options=options)))
        async with world.playing(), replica.watching(), replica.leading():
            await replica.deliver(build.alert())
            await asyncio.sleep(30)
            await replica.deliver(resolved(build.alert(), world.now()))
            await asyncio.sleep(600)
            answer = await replica.deliver(build.alert())
        assert outcomes(answer) == [(Outcome.EXISTS, None)]


class TestOwnJobs:
    """Alerts about the controller's own Jobs."""

    @pytest.mark.parametrize("label", ["job_name", "pod"])
    @in_virtual_time
    async def test_an_alert_about_our_own_job_is_ignored(self, label: str) -> None:
        """A Job does not heal a failed Job, unless the operario has own-jobs."""
        asks = Options(own_jobs=True)
        catalog = build.catalog(
            build.operario(), build.operario("watch-jobs", alertname="KubeJobFailed")
        )
        world = World()
        replica = world.replica(catalog=catalog)
        async with replica.watching():
            key = (await replica.deliver(build.alert())).items[0].job
            assert isinstance(key, JobKey)
            name = key.name if label == "job_name" else f"{key.name}-x7k2p"
            about = build.alert(
                labels={"alertname": "KubeJobFailed", "namespace": key.namespace, label: name}
            )
            left_alone = await replica.deliver(about)
            replica.catalog = build.catalog(
                build.operario("watch-jobs", alertname="KubeJobFailed", options=asks)
            )
            asked_for = await replica.deliver(about)
        assert outcomes(left_alone) == [(Outcome.NO_MATCH, Reason.OWN_JOB)]
        assert outcomes(asked_for) == [(Outcome.CREATED, None)]


class TestTwoCommits:
    """Replicas that have different commits."""

    @in_virtual_time
    async def test_one_occurrence_in_two_namespaces_runs_once(self) -> None:
        """If a commit moves an operario, both Jobs are created and one is admitted."""
        world = World()
        both = (build.JOBS_NAMESPACE, OTHER_NAMESPACE)
        older = world.replica("a", namespaces=both)
        newer = world.replica(
            "b",
            namespaces=both,
            catalog=build.catalog(build.operario(namespace=OTHER_NAMESPACE)),
        )
        async with world.playing(), older.watching(), newer.watching(), older.leading():
            answers = await asyncio.gather(
                older.deliver(build.alert()), newer.deliver(build.alert())
            )
            await asyncio.sleep(60)
            phases = sorted(job.phase for job in await world.jobs(*both))
            reasons = {job.reason for job in older.view if job.phase is Phase.REFUSED}
        assert [answer.verdict for answer in answers] == [Verdict.ACCEPTED] * 2
        assert [answer.items[0].outcome for answer in answers] == [Outcome.CREATED] * 2
        assert answers[0].items[0].job != answers[1].items[0].job
        assert phases == [Phase.REFUSED, Phase.SUCCEEDED]
        assert reasons == {Reason.SAME_OCCURRENCE}
        assert len(world.starts()) == 1
