"""What people are told, and an API server that does not want to hear it."""

from __future__ import annotations

import asyncio
import gc
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.admission.decide import Wait
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import EVENTS, JOBS
from openfero_gitops.cluster.events import EventStore
from openfero_gitops.demo.cluster import FOREVER, Durations, JobPlayer
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, Throttled, Unavailable
from openfero_gitops.domain.event import Event, ObjectReference
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.events import events
from openfero_gitops.events.announcer import Announcer
from openfero_gitops.events.recorder import Recorder
from tests.support import build
from tests.support.paths import ROOT
from tests.support.workers import (
    Commits,
    Replica,
    World,
    in_background,
    in_virtual_time,
    none,
    operario_file,
    pods_of,
    resolved,
    seconds_so_far,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.domain.sync import SyncStatus
    from tests.support.relay import Act, Request

LEASE = ObjectReference("coordination.k8s.io/v1", "Lease", "controller", "openfero-gitops", "u1d")


class Desk:
    """A leader that tells, over a wire of its own."""

    def __init__(self, world: World | None = None, **given: Any) -> None:
        self.world = world or World()
        self.replica: Replica = self.world.replica(**given)
        self.source = Commits()
        self.told_results: list[str] = []
        self.waits: list[dict[Reason, int]] = []
        self.syncer = Syncer(
            source=self.source,
            scope=Scope(),
            counts=self,
            now=self.world.now,
            clock=seconds_so_far,
        )
        self.recorder = Recorder(
            events=EventStore(self.replica.wire),
            counts=self,
            identity="replica-a",
            now=self.world.now,
        )
        self.announcer = Announcer(
            view=self.replica.view,
            decisions=lambda: self.replica.admitter.decisions,
            syncer=self.syncer,
            store=self.replica.config_maps,
            counts=self,
            record=self.recorder.record,
        )

    def synced(self, status: SyncStatus) -> None:
        """A sync ended: nothing is counted."""

    def event_recorded(self, result: str) -> None:
        """An Event was sent, or lost."""
        self.told_results.append(result)

    def waiting(self, reasons: Mapping[Reason, int]) -> None:
        """So many wait."""
        self.waits.append(dict(reasons))

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Admit, conclude, play and tell for as long as the block lasts."""
        async with (
            self.world.playing(),
            self.replica.watching(),
            self.replica.leading() as term,
            in_background(self.replica.cleaner.run(term)),
            in_background(self.announcer.run()),
            in_background(self.recorder.run()),
        ):
            await asyncio.sleep(1)
            yield

    async def stored(self, *namespaces: str) -> list[Object]:
        """Every Event there is, in order."""
        events = [
            event
            for namespace in namespaces or (build.JOBS_NAMESPACE,)
            for event in (await self.world.cluster.list(EVENTS, namespace)).items
        ]
        return sorted(events, key=lambda event: str(event["eventTime"]))

    async def lines(self, *namespaces: str) -> list[str]:
        """Type, reason and the first word of each Event's note."""
        return [
            f"{event['type']} {event['reason']} {event['note'].split(':')[0]}"
            for event in await self.stored(*namespaces)
        ]


def event(number: int = 0, **given: Any) -> Event:
    """One event about a Job of its own."""
    about = ObjectReference(
        "batch/v1", "Job", build.JOBS_NAMESPACE, f"job-{number}", f"uid-{number}"
    )
    values: dict[str, Any] = {
        "about": about,
        "reason": "Admitted",
        "action": "Admit",
        "note": "started",
    }
    return Event(**values | given)


def remembered(note: str) -> list[Event]:
    """Every event of a note that this process holds; those of other tests may be held, too."""
    events = (value for value in gc.get_objects() if isinstance(value, Event))
    return [event for event in events if event.note == note]


class TestTurns:
    """What is told of one remediation."""

    @in_virtual_time
    async def test_a_job_s_story_is_told_in_order_and_once(self) -> None:
        """That it waits and why, that it started, by which commit; not again at each look."""
        options = Options(approval=True)
        desk = Desk(catalog=build.catalog(build.operario(options=options)))
        async with desk.telling():
            answer = await desk.replica.deliver(pods_of("web-1"))
            key = answer.items[0].job
            assert key is not None
            await asyncio.sleep(600)
            await desk.world.annotate(key, keys.APPROVED_BY, "ada")
            await asyncio.sleep(600)
        stored = await desk.stored()
        assert [(event["reason"], event["note"]) for event in stored] == [
            (
                "Waiting",
                (
                    "approval: the Job must be approved before it starts; "
                    f"run `openfero-gitops approve {key}`"
                ),
            ),
            ("Approved", "approved by ada"),
            ("Admitted", f"started: operario restart-pod at revision {build.COMMIT[:12]}"),
        ]
        job = await desk.world.cluster.get(JOBS, key.namespace, key.name)
        for event in stored:
            assert event["regarding"] == {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "namespace": key.namespace,
                "name": key.name,
                "uid": job["metadata"]["uid"],
            }
            assert event["reportingInstance"] == "replica-a"

    @in_virtual_time
    async def test_a_new_reason_to_wait_is_told_anew(self) -> None:
        """Each once: first the target is busy, then it cools down; the clock's end is said."""
        desk = Desk()
        async with desk.telling():
            await desk.replica.deliver(pods_of("web-1"))
            await asyncio.sleep(1)
            again = replace(pods_of("web-1"), starts_at=desk.world.now() + build.minutes(5))
            await desk.replica.deliver(again)
            await asyncio.sleep(900)
        assert await desk.lines() == [
            "Normal Admitted started",
            "Normal Waiting cooldown",
            "Normal Admitted started",
        ]
        (waiting,) = [event for event in await desk.stored() if event["reason"] == "Waiting"]
        assert waiting["note"].endswith("Z")

    @pytest.mark.parametrize(
        ("reason", "kind"), [(Reason.RESOLVED, "Normal"), (Reason.UNSAFE_VALUE, "Warning")]
    )
    @in_virtual_time
    async def test_a_refusal_says_why(self, reason: Reason, kind: str) -> None:
        """One that was refused at its creation is told, too; what needs a person is a warning."""
        spec = build.job_spec(command=["heal", "{{ .Alert.Labels.pod }}"])
        desk = Desk(catalog=build.catalog(build.operario(spec=spec)))
        desk.replica.paused = True
        async with desk.telling():
            alert = pods_of("--all" if reason is Reason.UNSAFE_VALUE else "web-1")
            await desk.replica.deliver(alert)
            await asyncio.sleep(5)
            await desk.replica.deliver(resolved(alert, desk.world.now()))
            await asyncio.sleep(60)
        assert f"{kind} Refused {reason.value}" in await desk.lines()

    @in_virtual_time
    async def test_what_a_person_does_is_told(self) -> None:
        """Cancelling, suspending, letting go on, starting by hand, deleting what waits."""
        desk = Desk(World(JobPlayer(Durations(run=FOREVER))))
        async with desk.telling():
            answer = await desk.replica.deliver(*(pods_of(f"web-{n}") for n in range(2)))
            held, cancelled = [item.job for item in answer.items if item.job]
            suspend = {"op": "replace", "path": "/spec/suspend", "value": True}
            await until(lambda: len(desk.replica.tally.decisions) == 2)
            await asyncio.sleep(1)
            await desk.world.change(held, suspend)
            await asyncio.sleep(2)
            await desk.world.change(held, {**suspend, "value": False})
            await desk.world.annotate(cancelled, keys.REASON, "cancelled-by-human")
            await desk.world.annotate(cancelled, keys.DECISION, "cancelled")
            desk.replica.paused = True
            await asyncio.sleep(10)
            answer = await desk.replica.deliver(*(pods_of(f"db-{n}") for n in range(2)))
            started, deleted = [item.job for item in answer.items if item.job]
            await asyncio.sleep(5)
            await desk.world.change(started, {**suspend, "value": False})
            await desk.world.cluster.delete(JOBS, deleted.namespace, deleted.name)
            await asyncio.sleep(10)
        reasons = {(event["regarding"]["name"], event["reason"]) for event in await desk.stored()}
        assert {
            (held.name, "Held"),
            (held.name, "Resumed"),
            (cancelled.name, "Cancelled"),
            (started.name, "StartedByOther"),
            (deleted.name, "Forgotten"),
        } <= reasons

    @in_virtual_time
    async def test_a_new_leader_does_not_tell_a_day_s_jobs_again(self) -> None:
        """What was so when its term began was told before; what waits is told anew."""
        world = World()
        first, second = Desk(world), Desk(world, name="replica-b")
        async with first.telling():
            await first.replica.deliver(pods_of("web-1"), pods_of("web-2"))
            await asyncio.sleep(60)
        before = len(await first.stored())
        async with second.telling():
            await asyncio.sleep(60)
            assert len(await first.stored()) == before
            await second.replica.deliver(pods_of("web-3"))
            await asyncio.sleep(60)
        assert len(await first.stored()) == before + 1

    @in_virtual_time
    async def test_what_waits_is_counted_by_reason(self) -> None:
        """As the leader sees it; who does not lead counts nothing."""
        limits = Envelope(limits=Limits(concurrent=0))
        desk = Desk(catalog=build.catalog(build.operario(), envelope=limits))
        async with desk.telling():
            await desk.replica.deliver(*(pods_of(f"web-{n}") for n in range(7)))
            await asyncio.sleep(10)
            assert desk.waits[-1] == {Reason.LIMIT_CONCURRENT: 7}
        assert desk.waits[-1] == {}

    def test_a_failed_job_s_last_words_are_told_once(self) -> None:
        """When they are known; the condition itself Kubernetes tells."""
        running = build.running()
        failed = replace(running, phase=Phase.FAILED, message="exit code 3: no")
        assert list(events.of_change(running, failed)) == []
        explained = replace(failed, has_message=True)
        (event,) = events.of_change(failed, explained)
        assert (event.reason, event.note, event.warning) == ("Failed", "exit code 3: no", True)
        assert list(events.of_change(explained, replace(explained, resource_version="9"))) == []
        (at_once,) = events.of_change(running, explained)
        assert at_once == event


class TestController:
    """What is told of the controller itself."""

    def test_leadership_is_told_as_client_go_tells_it(self) -> None:
        """On the Lease, when it changes; not at each renewal."""
        follower, leader = Leadership(holder="b"), Leadership(leader=True, holder="a")
        event = events.of_leadership(follower, leader, LEASE, "a")
        assert event is not None
        assert (event.about, event.reason, event.note) == (
            LEASE,
            "LeaderElection",
            "a became leader",
        )
        assert events.of_leadership(leader, replace(leader, reason="x"), LEASE, "a") is None
        assert events.of_leadership(follower, Leadership(holder="c"), LEASE, "a") is None
        gone = events.of_leadership(leader, replace(follower, reason="stopping"), LEASE, "a")
        assert gone is not None
        assert gone.note == "a stopped leading: stopping"

    @in_virtual_time
    async def test_syncs_are_told_on_the_catalog(self) -> None:
        """What came into force, what is broken, what was refused and what failed; each once."""
        desk = Desk()
        desk.source.commit({"disk.yaml": operario_file("disk")})
        async with desk.telling():
            await desk.syncer.sync()
            await asyncio.sleep(10)
            desk.source.commit({"disk.yaml": "kind: Job\nspec: {\n"})
            await desk.syncer.sync()
            await asyncio.sleep(10)
            desk.source.commit({"openfero.yaml": "limit: 3\n"})
            for _ in range(5):
                await desk.syncer.sync()
                await asyncio.sleep(10)
        lines = [line.split()[:2] for line in await desk.lines("controller")]
        assert lines == [
            ["Normal", "Synced"],
            ["Normal", "Synced"],
            ["Warning", "Quarantined"],
            ["Warning", "RevisionRefused"],
        ]
        stored = await desk.stored("controller")
        assert {event["regarding"]["name"] for event in stored} == {"openfero-catalog"}
        assert stored[2]["note"].startswith("disk.yaml:")
        assert desk.source.head[:12] in stored[3]["note"]

    @in_virtual_time
    async def test_many_broken_files_are_few_events(self) -> None:
        """Ten are named, the rest is a number."""
        desk = Desk()
        desk.source.commit({f"op{n:03}.yaml": "kind: Job\nspec: {\n" for n in range(100)})
        async with desk.telling():
            await desk.syncer.sync()
            await asyncio.sleep(30)
        stored = [
            event for event in await desk.stored("controller") if event["reason"] == "Quarantined"
        ]
        assert len(stored) == 11
        assert stored[-1]["note"] == "90 more files with errors"


class TestRecorder:
    """The way to the API server."""

    @asynccontextmanager
    async def sending(self, desk: Desk) -> AsyncIterator[Recorder]:
        """Send for as long as the block lasts."""
        async with in_background(desk.recorder.run()):
            yield desk.recorder

    @in_virtual_time
    async def test_the_same_within_minutes_is_counted_on_one_event(self) -> None:
        """As a series; much later, or once the Event has expired, it is a new one."""
        desk = Desk()
        async with self.sending(desk) as recorder:
            for _ in range(4):
                recorder.record(event())
                await asyncio.sleep(60)
            (stored,) = await desk.stored()
            assert stored["series"]["count"] == 4
            name = stored["metadata"]["name"]
            await desk.world.cluster.delete(EVENTS, build.JOBS_NAMESPACE, name)
            recorder.record(event())
            await asyncio.sleep(700)
            recorder.record(event())
            await asyncio.sleep(1)
        assert len(await desk.stored()) == 2

    @in_virtual_time
    async def test_what_was_sent_is_remembered_for_as_long_as_it_may_come_again(self) -> None:
        """A storm leaves a bounded number, and minutes later nothing."""
        desk = Desk()
        async with self.sending(desk) as recorder:
            for number in range(1500):
                recorder.record(event(number, note="a storm"))
            await asyncio.sleep(120)
            assert desk.told_results.count("sent") == 1500
            assert len(remembered("a storm")) <= 1024
            await asyncio.sleep(360)
            recorder.record(event(note="a storm"))
            await asyncio.sleep(1)
            assert remembered("a storm") == [event(note="a storm")]

    @in_virtual_time
    async def test_a_storm_is_sent_little_by_little_and_no_more_than_fits(self) -> None:
        """Twenty a second at most; what is lost is counted, and telling never waits."""
        desk = Desk()
        async with self.sending(desk) as recorder:
            for number in range(2500):
                recorder.record(event(number))
            await asyncio.sleep(120)
        moments = [request.at for request in desk.replica.wire.asked]
        assert len(moments) == 2000
        assert (
            max(sum(at <= moment < at + 0.99 for moment in moments) for at in moments[::50]) <= 20
        )
        assert desk.told_results.count("lost") == 500
        assert desk.told_results.count("sent") == 2000

    @in_virtual_time
    async def test_what_passes_gives_way_to_what_came_of_it(self) -> None:
        """That a Job waits is not told any more when it has started meanwhile."""
        desk = Desk()
        for number in range(10):
            desk.recorder.record(event(number, reason="Waiting", note="cooldown", transient=True))
            desk.recorder.record(
                event(number, reason="Waiting", note="target-busy", transient=True)
            )
            if number % 2:
                desk.recorder.record(event(number))
        async with self.sending(desk):
            await asyncio.sleep(10)
        notes = [event["note"] for event in await desk.stored()]
        assert sorted(notes) == ["started"] * 5 + ["target-busy"] * 5

    @pytest.mark.parametrize("error", [Unavailable("gone"), Throttled("slow", 30.0)])
    @in_virtual_time
    async def test_an_api_server_in_trouble_is_given_time(self, error: ApiError) -> None:
        """It is asked less and less often; when it is well again, nothing was lost."""
        desk = Desk()

        async def trouble(_: Request, __: Act) -> Any:
            raise error

        desk.replica.wire.trouble = trouble
        async with self.sending(desk) as recorder:
            for number in range(50):
                recorder.record(event(number))
            await asyncio.sleep(600)
            assert len(desk.replica.wire.asked) <= 20
            desk.replica.wire.trouble = none
            await asyncio.sleep(70)
        assert len(await desk.stored()) == 50
        assert desk.told_results == ["sent"] * 50

    @pytest.mark.parametrize("error", [Forbidden("no right"), Invalid("no event")])
    @in_virtual_time
    async def test_what_the_api_server_does_not_want_is_lost(self, error: ApiError) -> None:
        """Neither is it sent again, nor does it keep others from being sent."""
        desk = Desk()

        async def trouble(request: Request, act: Act) -> Any:
            if "job-3" in request.name:
                raise error
            return await act()

        desk.replica.wire.trouble = trouble
        async with self.sending(desk) as recorder:
            for number in range(5):
                recorder.record(event(number))
            await asyncio.sleep(10)
        assert len(await desk.stored()) == 4
        assert desk.told_results.count("lost") == 1

    @in_virtual_time
    async def test_events_in_trouble_do_not_hold_up_admission(self) -> None:
        """Jobs start as ever while no Event can be written."""
        desk = Desk()

        async def trouble(request: Request, act: Act) -> Any:
            if request.resource == EVENTS:
                await asyncio.Event().wait()
            return await act()

        desk.replica.wire.trouble = trouble
        async with desk.telling():
            began = seconds_so_far()
            await desk.replica.deliver(*(pods_of(f"web-{n}") for n in range(5)))
            await until(lambda: len(desk.replica.tally.decisions) == 5)
            assert seconds_so_far() - began < 1.0

    @in_virtual_time
    async def test_the_last_events_are_sent_before_the_end_within_bounds(self) -> None:
        """A replica that stops says so; an API server that is silent does not keep it."""
        desk = Desk()
        desk.recorder.record(event())
        await desk.recorder.flush(1.0)
        assert len(await desk.stored()) == 1

        async def trouble(_: Request, __: Act) -> Any:
            await asyncio.Event().wait()

        desk.replica.wire.trouble = trouble
        desk.recorder.record(event(1))
        began = seconds_so_far()
        await desk.recorder.flush(1.0)
        assert seconds_so_far() - began <= 1.0

    def test_an_event_fits_whatever_it_says(self) -> None:
        """Notes, instances and names are cut at the API server's limits, between characters."""
        long = event(note="ü" * 2000, about=replace(event().about, name="n" * 253))
        made = events.manifest(long, "0123456789abcdef", "i" * 500, build.NOW)
        assert len(made["note"].encode()) <= 1024
        assert made["note"].endswith("ü…")
        assert len(made["metadata"]["name"]) == 253
        assert made["metadata"]["name"].endswith(".0123456789abcdef")
        assert len(made["reportingInstance"].encode()) <= 128

    def test_every_reason_is_explained(self) -> None:
        """docs/events.md has each reason that the code tells."""
        root = ROOT
        code = (root / "openfero_gitops" / "events" / "events.py").read_text()
        reasons = set(re.findall(r'Event\(\w+(?:\(remediation\))?, "(\w+)"', code))
        page = (root / "docs" / "events.md").read_text()
        assert len(reasons) >= 14
        assert reasons == set(re.findall(r"^\|[^|]*\| `(\w+)` \|", page, re.MULTILINE))

    def test_a_wait_without_a_message_has_its_reason_s_sentence(self) -> None:
        """Nobody has to look up a word."""
        job = build.remediation()
        event = events.of_wait(job, Wait(Reason.PAUSED))
        assert event.note == "paused: admission is paused"
        assert event.about == events.reference(job)
