"""Which Events are written, with what text, and how an API server that fails is handled."""

from __future__ import annotations

import asyncio
import gc
import re
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.admission.breaker import Breakers
from openfero_gitops.admission.decide import Wait
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import EVENTS, JOBS
from openfero_gitops.cluster.events import EventStore
from openfero_gitops.demo.cluster import FOREVER, Durations, JobPlayer
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, Throttled, Unavailable
from openfero_gitops.domain.event import Event, ObjectReference
from openfero_gitops.domain.help import link
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.events import events
from openfero_gitops.events.announcer import Announcer
from openfero_gitops.events.recorder import Recorder
from tests.support import build
from tests.support.copying import replace
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
    """A leader that writes Events, over a connection of its own."""

    def __init__(self, world: World | None = None, **given: Any) -> None:
        self.world = world or World()
        self.replica: Replica = self.world.replica(**given)
        self.source = Commits()
        self.results: list[str] = []
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
            control=self.replica.control,
            syncer=self.syncer,
            store=self.replica.config_maps,
            counts=self,
            record=self.recorder.record,
            now=self.world.now,
        )

    def synced(self, status: SyncStatus) -> None:
        """Ignore a sync."""

    def event_recorded(self, result: str) -> None:
        """Count an Event that was sent or lost."""
        self.results.append(result)

    def waiting(self, reasons: Mapping[Reason, int]) -> None:
        """Record how many remediations wait."""
        self.waits.append(dict(reasons))

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """Run the leader's workers and the cluster's controllers while the block runs."""
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
        """Return all Events in order."""
        events = [
            event
            for namespace in namespaces or (build.JOBS_NAMESPACE,)
            for event in (await self.world.cluster.list(EVENTS, namespace)).items
        ]
        return sorted(events, key=lambda event: str(event["eventTime"]))

    async def lines(self, *namespaces: str) -> list[str]:
        """Return type, reason and the first word of the note of each Event."""
        return [
            f"{event['type']} {event['reason']} {event['note'].split(':')[0]}"
            for event in await self.stored(*namespaces)
        ]


def event(number: int = 0, **given: Any) -> Event:
    """Make an event about a Job of its own."""
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


def in_memory(note: str) -> list[Event]:
    """Return the events with a note that are in memory."""
    events = (value for value in gc.get_objects() if isinstance(value, Event))
    return [event for event in events if event.note == note]


class TestRemediationEvents:
    """The Events of one remediation."""

    @in_virtual_time
    async def test_the_events_of_a_job_are_written_once_and_in_order(self) -> None:
        """Why it waits, who approved it, and from which revision it started."""
        options = Options(approval=True)
        desk = Desk(catalog=build.catalog(build.operario(options=options)))
        async with desk.leading():
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
    async def test_a_job_that_starts_before_the_jobs_are_listed_is_reported(self) -> None:
        """The first alert may arrive at the moment when a replica begins to lead."""
        desk = Desk()
        async with (
            in_background(desk.announcer.run()),
            in_background(desk.recorder.run()),
            desk.world.playing(),
            desk.replica.watching(),
            desk.replica.leading(),
        ):
            await desk.replica.deliver(pods_of("web-1"))
            await asyncio.sleep(60)
        assert await desk.lines() == ["Normal Admitted started"]

    @in_virtual_time
    async def test_each_reason_of_a_wait_is_reported(self) -> None:
        """A busy target and then a cooldown are reported once each, with the end of the wait."""
        desk = Desk()
        async with desk.leading():
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
    async def test_a_refusal_has_its_reason(self, reason: Reason, kind: str) -> None:
        """Also if it was refused at creation; a refusal that needs attention is a Warning."""
        spec = build.job_spec(command=["heal", "{{ .Alert.Labels.pod }}"])
        desk = Desk(catalog=build.catalog(build.operario(spec=spec)))
        desk.replica.paused = True
        async with desk.leading():
            alert = pods_of("--all" if reason is Reason.UNSAFE_VALUE else "web-1")
            await desk.replica.deliver(alert)
            await asyncio.sleep(5)
            await desk.replica.deliver(resolved(alert, desk.world.now()))
            await asyncio.sleep(60)
        assert f"{kind} Refused {reason.value}" in await desk.lines()

    @pytest.mark.parametrize(
        ("effect", "expected"),
        [
            (Effect.HEALED, "Normal Healed"),
            (Effect.NOT_HEALED, "Warning NotHealed"),
            (Effect.UNKNOWN, "Normal EffectUnknown"),
        ],
    )
    def test_a_settled_effect_is_reported(self, effect: Effect, expected: str) -> None:
        """Once, with its message; that of a dry run is no Warning."""
        before = build.finished()
        after = replace(before, effect=effect, effect_message="after 4m")
        (event,) = events.of_change(before, after)
        assert f"{'Warning' if event.warning else 'Normal'} {event.reason}" == expected
        assert event.note == "after 4m"
        assert list(events.of_change(after, after)) == []
        dry = build.refused(reason=Reason.DRY_RUN.value)
        (event,) = events.of_change(dry, replace(dry, effect=effect, effect_message="x"))
        assert not event.warning

    @in_virtual_time
    async def test_changes_made_by_people_are_reported(self) -> None:
        """Cancelling, suspending, resuming and starting a Job, and deleting a waiting one."""
        desk = Desk(World(JobPlayer(Durations(run=FOREVER))))
        async with desk.leading():
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
    async def test_a_new_leader_does_not_report_old_jobs_again(self) -> None:
        """The state at the start of a term is not reported again."""
        world = World()
        first, second = Desk(world), Desk(world, name="replica-b")
        async with first.leading():
            await first.replica.deliver(pods_of("web-1"), pods_of("web-2"))
            await asyncio.sleep(60)
        before = len(await first.stored())
        async with second.leading():
            await asyncio.sleep(60)
            assert len(await first.stored()) == before
            await second.replica.deliver(pods_of("web-3"))
            await asyncio.sleep(60)
        assert len(await first.stored()) == before + 1

    @in_virtual_time
    async def test_waiting_jobs_are_counted_by_reason(self) -> None:
        """On the leader only."""
        limits = Envelope(limits=Limits(concurrent=0))
        desk = Desk(catalog=build.catalog(build.operario(), envelope=limits))
        async with desk.leading():
            await desk.replica.deliver(*(pods_of(f"web-{n}") for n in range(7)))
            await asyncio.sleep(10)
            assert desk.waits[-1] == {Reason.LIMIT_CONCURRENT: 7}
        assert desk.waits[-1] == {}

    @in_virtual_time
    async def test_a_foreign_job_is_reported_once(self) -> None:
        """Also one that was ours; of very many at once ten are reported."""
        desk = Desk()
        desk.replica.paused = True
        async with desk.leading():
            answer = await desk.replica.deliver(pods_of("web-1"))
            (edited,) = [item.job for item in answer.items if item.job]
            await asyncio.sleep(5)
            await desk.world.annotate(edited, keys.TARGET, '{"pod":"db-1"}')
            await asyncio.sleep(5)
            for number in range(30):
                manifest = build.rendered().manifest
                manifest["metadata"]["name"] = f"forged-{number}"
                await desk.world.cluster.create(JOBS, build.JOBS_NAMESPACE, manifest)
            await asyncio.sleep(60)
            await desk.world.annotate(edited, keys.DELIVERY, "{}")
            await asyncio.sleep(5)
        stored = [event for event in await desk.stored() if event["reason"] != "Waiting"]
        assert {(event["type"], event["reason"]) for event in stored} == {("Warning", "Foreign")}
        assert len(stored) == 11
        assert stored[0]["regarding"]["name"] == edited.name
        assert stored[0]["note"] == (
            "not created by this controller, and ignored: its annotation openfero.io/target does "
            "not belong to its recorded alert. "
            f"See {link('foreign-jobs')}"
        )

    def test_a_failure_message_is_reported_once(self) -> None:
        """Once they are recorded; Kubernetes itself reports the condition."""
        running = build.running()
        failed = replace(running, phase=Phase.FAILED, message="exit code 3: no")
        assert list(events.of_change(running, failed)) == []
        explained = replace(failed, has_message=True)
        (event,) = events.of_change(failed, explained)
        assert (event.reason, event.note, event.warning) == ("Failed", "exit code 3: no", True)
        assert list(events.of_change(explained, replace(explained, resource_version="9"))) == []
        (at_once,) = events.of_change(running, explained)
        assert at_once == event


class TestKueue:
    """Jobs that Kueue stops and starts again."""

    queued = build.remediation("job-1", phase=Phase.QUEUED, queue="night", admitted_at=build.NOW)
    running = replace(queued, phase=Phase.RUNNING, suspended=False, starts=1)

    def test_an_eviction_and_a_second_start_are_reported(self) -> None:
        """As warnings, since the commands run again; a first start is as expected."""
        assert list(events.of_change(self.queued, self.running)) == []
        evicted = replace(self.queued, starts=1)
        (event,) = events.of_change(self.running, evicted)
        assert (event.reason, event.warning) == ("Evicted", True)
        assert "back in Kueue queue night" in event.note
        again = replace(self.running, starts=2)
        (event,) = events.of_change(evicted, again)
        assert (event.reason, event.warning) == ("StartedAgain", True)
        assert "(start 2)" in event.note

    def test_a_second_start_is_reported_if_the_eviction_was_not_seen(self) -> None:
        """Both may happen between two looks at the Job, which may also have ended."""
        for phase in (Phase.RUNNING, Phase.SUCCEEDED):
            again = replace(self.running, phase=phase, starts=2)
            assert [e.reason for e in events.of_change(self.running, again)] == ["StartedAgain"]
        first_look = events.of_change(None, replace(self.running, starts=2))
        assert [event.reason for event in first_look] == ["Admitted"]

    def test_the_loss_of_a_queued_job_is_reported(self) -> None:
        """The next notification of its alert creates another one."""
        loss = events.of_loss(self.queued)
        assert loss is not None
        assert "in a Kueue queue" in loss.note


class TestControllerEvents:
    """The Events of the controller itself."""

    def test_leadership_is_reported_as_client_go_does(self) -> None:
        """On the Lease, when the leader changes, not at each renewal."""
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
    async def test_syncs_are_reported_on_the_catalog(self) -> None:
        """Active revisions, files with errors, refused revisions and failed syncs, once."""
        desk = Desk()
        desk.source.commit({"disk.yaml": operario_file("disk")})
        async with desk.leading():
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
    async def test_pauses_are_reported_on_the_control_config_map(self) -> None:
        """Who paused admission, until when and why; who resumed it, or that the pause has ended."""
        desk = Desk()
        world = desk.world
        await world.switch("before the term", paused=True)
        async with desk.leading():
            await asyncio.sleep(10)
            until = world.now() + timedelta(minutes=1)
            await world.switch("first", paused=True, until=until, reason="migration")
            await asyncio.sleep(80)
            await world.switch("second", paused=True)
            await asyncio.sleep(10)
            await world.switch("third", paused=False)
            await asyncio.sleep(10)
            desk.replica.paused = True
            await asyncio.sleep(10)
            desk.replica.paused = False
            await asyncio.sleep(10)
            stored = await desk.stored(desk.replica.config_maps.namespace)
        assert {event["regarding"]["name"] for event in stored} == {"openfero-control"}
        assert all(event["regarding"]["uid"] for event in stored)
        notes = [f"{event['reason']}: {event['note']}" for event in stored]
        assert notes[0].startswith("Paused: ada paused admission at 2026-11-21T03:04:16Z until ")
        assert "until 2026-11-21T03:05:16Z: migration; run" in notes[0]
        assert notes[1] == "Resumed: the pause by ada has ended"
        assert notes[2].startswith("Paused: ada paused admission at 2026-11-21T03:05:36Z; run")
        assert notes[3:] == [
            "Resumed: ada resumed admission",
            "Paused: the test paused admission",
            "Resumed: the test no longer pauses admission",
        ]

    @in_virtual_time
    async def test_many_broken_files_are_few_events(self) -> None:
        """Ten files are named, the others are counted."""
        desk = Desk()
        desk.source.commit({f"op{n:03}.yaml": "kind: Job\nspec: {\n" for n in range(100)})
        async with desk.leading():
            await desk.syncer.sync()
            await asyncio.sleep(30)
        stored = [
            event for event in await desk.stored("controller") if event["reason"] == "Quarantined"
        ]
        assert len(stored) == 11
        assert stored[-1]["note"] == f"90 more files with errors. See {link('quarantined')}"


class TestRecorder:
    """Writing Events to the API server."""

    @asynccontextmanager
    async def writing(self, desk: Desk) -> AsyncIterator[Recorder]:
        """Write Events while the block runs."""
        async with in_background(desk.recorder.run()):
            yield desk.recorder

    @in_virtual_time
    async def test_a_repetition_is_counted_on_the_event(self) -> None:
        """Later, or after the Event has expired, a new one is created."""
        desk = Desk()
        async with self.writing(desk) as recorder:
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
    async def test_written_events_are_remembered_for_a_while(self) -> None:
        """A storm leaves a bounded number of them, and none after some minutes."""
        desk = Desk()
        async with self.writing(desk) as recorder:
            for number in range(1500):
                recorder.record(event(number, note="a storm"))
            await asyncio.sleep(120)
            assert desk.results.count("sent") == 1500
            assert len(in_memory("a storm")) <= 1024
            await asyncio.sleep(360)
            recorder.record(event(note="a storm"))
            await asyncio.sleep(1)
            assert in_memory("a storm") == [event(note="a storm")]

    @in_virtual_time
    async def test_a_storm_is_throttled_and_bounded(self) -> None:
        """At most twenty per second; lost Events are counted, and recording one never waits."""
        desk = Desk()
        async with self.writing(desk) as recorder:
            for number in range(2500):
                recorder.record(event(number))
            await asyncio.sleep(120)
        moments = [request.at for request in desk.replica.wire.requests]
        assert len(moments) == 2000
        assert (
            max(sum(at <= moment < at + 0.99 for moment in moments) for at in moments[::50]) <= 20
        )
        assert desk.results.count("lost") == 500
        assert desk.results.count("sent") == 2000

    @in_virtual_time
    async def test_a_transient_event_is_replaced(self) -> None:
        """Of a Job that has started meanwhile no Waiting Event is written."""
        desk = Desk()
        for number in range(10):
            desk.recorder.record(event(number, reason="Waiting", note="cooldown", transient=True))
            desk.recorder.record(
                event(number, reason="Waiting", note="target-busy", transient=True)
            )
            if number % 2:
                desk.recorder.record(event(number))
        async with self.writing(desk):
            await asyncio.sleep(10)
        notes = [event["note"] for event in await desk.stored()]
        assert sorted(notes) == ["started"] * 5 + ["target-busy"] * 5

    @pytest.mark.parametrize("error", [Unavailable("gone"), Throttled("slow", 30.0)])
    @in_virtual_time
    async def test_the_recorder_backs_off_from_an_api_server_that_fails(
        self, error: ApiError
    ) -> None:
        """The intervals grow; after it has recovered no Event is lost."""
        desk = Desk()

        async def trouble(_: Request, __: Act) -> Any:
            raise error

        desk.replica.wire.trouble = trouble
        async with self.writing(desk) as recorder:
            for number in range(50):
                recorder.record(event(number))
            await asyncio.sleep(600)
            assert len(desk.replica.wire.requests) <= 20
            desk.replica.wire.trouble = none
            await asyncio.sleep(70)
        assert len(await desk.stored()) == 50
        assert desk.results == ["sent"] * 50

    @pytest.mark.parametrize("error", [Forbidden("no right"), Invalid("no event")])
    @in_virtual_time
    async def test_a_rejected_event_is_lost(self, error: ApiError) -> None:
        """It is not sent again, and does not hold up others."""
        desk = Desk()

        async def trouble(request: Request, act: Act) -> Any:
            if "job-3" in request.name:
                raise error
            return await act()

        desk.replica.wire.trouble = trouble
        async with self.writing(desk) as recorder:
            for number in range(5):
                recorder.record(event(number))
            await asyncio.sleep(10)
        assert len(await desk.stored()) == 4
        assert desk.results.count("lost") == 1

    @in_virtual_time
    async def test_events_do_not_hold_up_admission(self) -> None:
        """Jobs start as usual while no Event can be written."""
        desk = Desk()

        async def trouble(request: Request, act: Act) -> Any:
            if request.resource == EVENTS:
                await asyncio.Event().wait()
            return await act()

        desk.replica.wire.trouble = trouble
        async with desk.leading():
            began = seconds_so_far()
            await desk.replica.deliver(*(pods_of(f"web-{n}") for n in range(5)))
            await until(lambda: len(desk.replica.tally.decisions) == 5)
            assert seconds_so_far() - began < 1.0

    @in_virtual_time
    async def test_flush_writes_the_last_events_in_bounded_time(self) -> None:
        """An API server that does not answer delays the end by at most a second."""
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

    def test_long_texts_are_cut(self) -> None:
        """Notes, instances and names are cut at the API server's limits, between characters."""
        long = event(note="ü" * 2000, about=replace(event().about, name="n" * 253))
        made = events.manifest(long, "0123456789abcdef", "i" * 500, build.NOW)
        assert len(made["note"].encode()) <= 1024
        assert made["note"].endswith("ü…")
        assert len(made["metadata"]["name"]) == 253
        assert made["metadata"]["name"].endswith(".0123456789abcdef")
        assert len(made["reportingInstance"].encode()) <= 128

    def test_every_reason_is_documented(self) -> None:
        """docs/reference/events.md lists each reason in the code."""
        root = ROOT
        code = (root / "openfero_gitops" / "events" / "events.py").read_text()
        reasons = set(re.findall(r'Event\(\w+(?:\(remediation\))?, "(\w+)"', code))
        page = (root / "docs/reference/events.md").read_text()
        assert len(reasons) >= 14
        assert reasons == set(re.findall(r"^\|[^|]*\| `(\w+)` \|", page, re.MULTILINE))

    def test_a_pause_is_not_named_twice(self) -> None:
        """The message of a pause has its end already."""
        until = build.NOW + timedelta(hours=2)
        message = "ada paused admission until noon"
        pause = Pause(PauseCause.COMMAND, message, "ada", build.NOW, until)
        event = events.of_wait(build.remediation(), Wait(Reason.PAUSED, until, pause.message))
        assert event.note == "paused: ada paused admission until noon"

    def test_a_wait_because_the_operario_does_not_help(self) -> None:
        """It is a Warning, and says once what to run."""
        options = Options(stop_after_not_healed=1)
        job = build.remediation("next", options=options)
        effect = {"effect": Effect.NOT_HEALED, "effect_message": "fired again 4m after"}
        ran = build.finished("first", ended=build.NOW - timedelta(hours=1), **effect)
        started_on = {(ran.operario, ran.target): [ran]}
        breakers = Breakers(build.NOW, {ran.incident: [ran]}, started_on)
        breaker = breakers.check(job)
        assert breaker is not None
        event = events.of_wait(job, Wait(Reason.NOT_HELPING, message=breaker.message))
        assert event.warning
        assert event.note == (
            "not-helping: the last Job of this operario for this target did not heal the alert "
            "(stop-after-not-healed: 1). Latest: Job jobs/first, fired again 4m after; "
            "run `openfero-gitops approve jobs/next`"
        )

    def test_a_wait_without_a_message(self) -> None:
        """The note has the text of the reason then."""
        job = build.remediation()
        event = events.of_wait(job, Wait(Reason.PAUSED))
        assert event.note == "paused: admission is paused"
        assert event.about == events.reference(job)
