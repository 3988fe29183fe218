"""The view of all Jobs, told the truth late, twice, or in the wrong order."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, Unavailable
from openfero_gitops.domain.feed import Changed, Deleted, Failed, Listed
from openfero_gitops.domain.remediation import Foreign, JobKey, Phase
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.view import Observer, View
from tests.support import build
from tests.support.copying import replace
from tests.support.depth import scaled
from tests.support.workers import World, in_background, in_virtual_time, pods_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from openfero_gitops.domain.feed import FeedEvent
    from openfero_gitops.domain.remediation import Remediation
    from tests.support.relay import Act, Request

KEY = JobKey(build.JOBS_NAMESPACE, "job-1")


def at(version: int, uid: str = "one", **given: Any) -> Remediation:
    """Return the Job `KEY` at a resource version."""
    return build.remediation(resource_version=str(version), uid=uid, **given)


def listed(namespace: str, jobs: Sequence[dict[str, Any]], resource_version: str) -> Listed:
    """Return the event of a list of Jobs."""
    return Listed(namespace, [observe(job) for job in jobs], resource_version)


def changed(namespace: str, job: dict[str, Any]) -> Changed:
    """Return the event of a Job that was added or modified."""
    return Changed(namespace, observe(job))


def deleted(namespace: str, job: dict[str, Any]) -> Deleted:
    """Return the event of a Job that was deleted."""
    metadata = job["metadata"]
    key = JobKey(metadata["namespace"], metadata["name"])
    return Deleted(namespace, key, metadata["uid"], metadata["resourceVersion"])


def test_a_job_that_is_known_at_its_version_is_not_read_again() -> None:
    """Another version, or another Job of the name, is read."""
    job = build.stored()
    metadata = job["metadata"]
    view = View()
    view.apply(view.read(job))
    (current,) = view

    assert view.read(job) is current
    for member in ({"resourceVersion": "8"}, {"uid": "uid-2"}):
        other = {**job, "metadata": metadata | member}
        assert view.read(other) == observe(other)


class Script:
    """A feed that yields given events, and then waits."""

    def __init__(self, *news: FeedEvent) -> None:
        self._news = news

    async def follow(self) -> AsyncGenerator[FeedEvent]:
        """Yield the events."""
        for item in self._news:
            yield item
            await asyncio.sleep(0)
        await asyncio.Event().wait()


async def view_after(*news: FeedEvent, namespaces: Sequence[str] = (build.JOBS_NAMESPACE,)) -> View:
    """Return a view after these events."""
    view = View()
    async with in_background(Observer(Script(*news), view, namespaces).run()):
        await asyncio.sleep(1)
    return view


class TestOneJob:
    """The state of a Job never goes back."""

    def test_an_older_state_is_dropped(self) -> None:
        """The newer of two states is kept, whatever their order."""
        view = View()
        assert view.apply(at(9, term="new"))
        assert not view.apply(at(8, term="old"))
        assert not view.apply(at(9, term="the same version"))
        assert not view.apply(at(8, term="9 is less than 10, and so is 8"))
        assert view.apply(at(10, term="newest"))
        assert [remediation.term for remediation in view] == ["newest"]

    def test_a_new_job_replaces_a_deleted_one_of_its_name(self) -> None:
        """A Job that was deleted and created again is another Job."""
        view = View()
        view.apply(at(9, "one"))
        assert view.apply(at(12, "two"))
        assert [remediation.uid for remediation in view] == ["two"]
        assert [remediation.uid for remediation in view.of_incident(at(9).incident)] == ["two"]

    def test_late_events_of_the_old_job_do_not_change_the_new_one(self) -> None:
        """Events of a deleted Job are ignored."""
        view = View()
        view.apply(at(9, "one"))
        view.apply(at(12, "two", term="ours"))
        assert not view.apply(at(10, "one"))
        assert view.remove(KEY, "one", "11") is None
        assert [(remediation.uid, remediation.term) for remediation in view] == [("two", "ours")]

    def test_an_answer_after_the_deletion_restores_nothing(self) -> None:
        """The answer to a write may be read after the event of the deletion."""
        view = View()
        view.apply(at(9))
        assert view.remove(KEY, "one", "11") is not None
        assert not view.apply(at(10))
        assert len(view) == 0
        assert view.apply(at(12, "two"))

    def test_a_job_that_gets_its_label_back_is_in_the_view_again(self) -> None:
        """Removing the label and adding it again restores the same Job."""
        view = View()
        view.apply(at(9))
        view.remove(KEY, "one", "11")
        assert view.apply(at(12))
        assert KEY in view

    def test_a_change_of_incident_moves_the_job(self) -> None:
        """After the label is edited, the Job is found under the new incident only."""
        view = View()
        view.apply(at(9, incident="a"))
        view.apply(at(10, incident="b"))
        assert view.of_incident("a") == []
        assert [remediation.key for remediation in view.of_incident("b")] == [KEY]
        view.remove(KEY, "one")
        assert view.of_incident("a") == view.of_incident("b") == []

    def test_subscribers_are_notified_of_changes_only(self) -> None:
        """A known state notifies nobody."""
        view = View()
        news = view.subscribe()
        assert news.is_set()
        for change, tells in [
            (lambda: view.apply(at(9)), True),
            (lambda: view.apply(at(9)), False),
            (lambda: view.remove(KEY, "another"), False),
            (lambda: view.remove(KEY, "one"), True),
        ]:
            news.clear()
            change()
            assert news.is_set() is tells
        view.unsubscribe(news)
        news.clear()
        view.apply(at(12))
        assert not news.is_set()


class TestLists:
    """The list of a namespace."""

    def test_jobs_that_are_not_in_the_list_are_removed(self) -> None:
        """Other namespaces are not affected."""
        view = View()
        view.apply(at(5))
        elsewhere = build.remediation(namespace="other", resource_version="5")
        view.apply(elsewhere)
        view.replace(build.JOBS_NAMESPACE, [], "9")
        assert [remediation.key for remediation in view] == [elsewhere.key]

    def test_a_write_of_our_own_is_not_undone_by_an_older_list(self) -> None:
        """Jobs that were created or admitted after the list are kept."""
        view = View()
        view.apply(at(12, term="admitted"))
        view.apply(build.remediation("job-2", resource_version="13"))
        view.replace(build.JOBS_NAMESPACE, [at(8, term="waiting")], "11")
        assert {remediation.key.name: remediation.term for remediation in view} == {
            "job-1": "admitted",
            "job-2": None,
        }

    def test_a_list_from_before_a_deletion_restores_nothing(self) -> None:
        """A list may be older than the events that its watch has delivered."""
        view = View()
        view.apply(at(5))
        view.remove(KEY, "one", "12")
        view.replace(build.JOBS_NAMESPACE, [at(5)], "11")
        assert len(view) == 0

    def test_an_answer_from_before_a_list_without_the_job_restores_nothing(self) -> None:
        """A late answer does not add a Job that the list does not have."""
        view = View()
        view.apply(at(5))
        view.replace(build.JOBS_NAMESPACE, [], "11")
        assert not view.apply(at(7))
        assert len(view) == 0

    def test_it_is_complete_when_every_namespace_was_listed(self) -> None:
        """Without namespaces it is never complete."""
        view = View()
        assert not view.complete
        view.expect(["jobs", "other"])
        view.replace("jobs", [], "1")
        assert not view.complete
        view.replace("other", [], "1")
        assert view.complete

    @settings(max_examples=scaled(10))
    @given(seed=st.integers(0, 2**32))
    def test_any_order_of_events_ends_in_the_same_view(self, seed: int) -> None:
        """The last write of each Job is the result, whatever the order.

        Three names live through creations, changes and deletions. The watch delivers each state,
        and some arrive earlier or later as the answer to a write.
        """
        rng = random.Random(seed)  # noqa: S311
        stored: dict[str, Remediation] = {}
        watched: list[tuple[str, Remediation, str]] = []
        for version in range(2, 40):
            name = rng.choice("abc")
            existing = stored.pop(name, None)
            if existing is not None and rng.random() < 0.3:
                watched.append(("gone", existing, str(version)))
                continue
            uid = existing.uid if existing else f"{name}-{version}"
            remediation = build.remediation(name, uid=uid, resource_version=str(version))
            watched.append(("changed", remediation, str(version)))
            stored[name] = remediation
        answers = [
            remediation
            for kind, remediation, _ in watched
            if kind == "changed" and rng.random() < 0.5
        ]
        rng.shuffle(answers)
        view = View()
        for kind, remediation, version in watched:
            while answers and rng.random() < 0.3:
                view.apply(answers.pop())
            if kind == "gone":
                view.remove(remediation.key, remediation.uid, version)
            else:
                view.apply(remediation)
        for remediation in answers:
            view.apply(remediation)
        assert {remediation.key.name: remediation for remediation in view} == stored
        assert {
            remediation.key for remediation in view.of_incident(build.remediation().incident)
        } == {remediation.key for remediation in stored.values()}


class TestFeed:
    """Events of the feed update the view."""

    @in_virtual_time
    async def test_events_update_the_view(self) -> None:
        """A list, a change, a deletion and a new Job follow each other."""
        job = build.stored(metadata={"resourceVersion": "5"})
        name = job["metadata"]["name"]
        admitted = build.stored(
            annotations={keys.ADMITTED_AT: "2026-11-21T03:04:09.000000Z"},
            spec={"suspend": False},
            metadata={"resourceVersion": "7"},
        )
        view = await view_after(listed("jobs", [job], "6"), changed("jobs", admitted))
        assert [(remediation.key.name, remediation.phase) for remediation in view] == [
            (name, Phase.RUNNING)
        ]
        view = await view_after(listed("jobs", [job], "6"), deleted("jobs", admitted))
        assert len(view) == 0
        assert view.complete

    @in_virtual_time
    async def test_a_deletion_is_remembered_by_its_version(self) -> None:
        """An answer from before the deletion, read after it, is ignored."""
        job = build.stored(metadata={"resourceVersion": "5"})
        last = build.stored(metadata={"resourceVersion": "9"})
        view = await view_after(listed("jobs", [job], "6"), deleted("jobs", last))
        late = replace(observe(job), resource_version="8")
        assert not view.apply(late)
        assert len(view) == 0

    @in_virtual_time
    async def test_an_error_is_reported_while_it_lasts_and_logged_when_it_changes(self) -> None:
        """This is per namespace; the next list ends it, and the Jobs are kept."""
        job = build.stored()
        news: asyncio.Queue[FeedEvent] = asyncio.Queue()

        class Live:
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                while True:
                    yield await news.get()

        view = View()
        observer = Observer(Live(), view, ["jobs", "other"])
        with capture_logs() as logs:
            async with in_background(observer.run()):
                for item in (
                    listed("jobs", [job], "6"),
                    Failed("jobs", Unavailable("no connection")),
                    Failed("jobs", Unavailable("still none")),
                    Failed("other", Forbidden("no right")),
                ):
                    news.put_nowait(item)
                await asyncio.sleep(1)
                assert observer.trouble == {"jobs": "still none", "other": "no right"}
                assert len(view) == 1
                assert not view.complete
                news.put_nowait(listed("jobs", [job], "8"))
                await asyncio.sleep(1)
                assert observer.trouble == {"other": "no right"}
        assert [(entry["log_level"], entry["namespace"]) for entry in logs] == [
            ("warning", "jobs"),
            ("warning", "jobs"),
            ("warning", "other"),
            ("info", "jobs"),
        ]

    @in_virtual_time
    async def test_an_unexpected_error_of_the_feed_is_raised(self) -> None:
        """An error that is not one of the API server's ends the observer."""

        class Broken:
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                yield listed("jobs", [], "1")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await Observer(Broken(), View(), ["jobs"]).run()

    @in_virtual_time
    async def test_a_stalled_watch_is_recognized(self) -> None:
        """If no event of an own write arrives, an error is reported and Jobs are listed again."""
        job = build.stored()
        lists = 0

        class Silent:
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                nonlocal lists
                lists += 1
                if lists == 2:
                    await asyncio.sleep(100)  # the list fails as well, for a while
                yield listed("jobs", [job], "8" if lists == 1 else "12")
                await asyncio.Event().wait()

        view = View()
        observer = Observer(Silent(), view, ["jobs"])
        async with in_background(observer.run()):
            await asyncio.sleep(3600)
            assert (lists, observer.trouble) == (1, {})  # nothing is known that was not told
            view.apply(replace(observe(job), resource_version="12"))
            await asyncio.sleep(30)
            assert lists == 2
            assert "stalled" in observer.trouble["jobs"]
            await asyncio.sleep(3600)
            assert (lists, observer.trouble) == (2, {})

    @in_virtual_time
    async def test_a_slow_watch_is_not_stalled(self) -> None:
        """While events arrive, the missing one may still come."""
        jobs = [build.stored(metadata={"resourceVersion": str(9 + n)}) for n in range(60)]
        lists = 0

        class Late:
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                nonlocal lists
                lists += 1
                yield listed("jobs", [jobs[0]], "9")
                for job in jobs[1:]:
                    await asyncio.sleep(10)
                    yield changed("jobs", job)
                await asyncio.Event().wait()

        view = View()
        observer = Observer(Late(), view, ["jobs"])
        async with in_background(observer.run()):
            await asyncio.sleep(1)
            view.apply(replace(observe(jobs[0]), resource_version="60"))
            await asyncio.sleep(3600)
        assert (lists, observer.trouble) == (1, {})

    @in_virtual_time
    async def test_a_watch_that_breaks_repeatedly_ends_in_the_current_state(self) -> None:
        """Changes during the outages are in the view afterwards."""
        world = World()
        replica = world.replica()
        sender = world.replica("sender")
        broken = False

        async def trouble(_: Request, act: Act) -> Any:
            if broken:
                raise Unavailable("no connection")
            return await act()

        replica.wire.trouble = trouble
        async with sender.watching(), world.playing(), replica.watching(), sender.leading():
            for round_ in range(6):
                broken = round_ % 2 == 0
                if broken:
                    world.cluster.compact()
                await sender.deliver(*(pods_of(f"web-{round_}-{number}") for number in range(3)))
                jobs = await world.jobs()
                if broken:
                    gone = jobs[0].key
                    await world.cluster.delete(JOBS, gone.namespace, gone.name)
                await asyncio.sleep(900)
            broken = False
            await until(lambda: not replica.observer.trouble, within=60)
            await asyncio.sleep(1)
            stored = {remediation.key: remediation for remediation in await world.jobs()}
        assert {remediation.key: remediation for remediation in replica.view} == stored
        assert len(stored) == 15


class TestForeign:
    """Jobs of others that carry the controller's label are kept apart."""

    @in_virtual_time
    async def test_it_is_no_remediation_and_is_logged_once(self) -> None:
        """A list, changes and a deletion; one that was ours becomes foreign, and ours again."""
        namespace = build.JOBS_NAMESPACE
        forged, edited = job("forged", 40), job("edited", 42)
        forged["metadata"]["name"] = "forged"
        edited["metadata"]["annotations"][keys.ATTEMPT] = "2"
        seen: list[tuple[set[str], list[str]]] = []
        view = View()

        class Feed(Script):
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                for event in (
                    listed(namespace, [forged, job("edited", 41), job("web-1", 39)], "41"),
                    changed(namespace, edited),
                    changed(namespace, {**forged, "metadata": forged["metadata"] | LATER}),
                    changed(namespace, job("edited", 44)),
                    deleted(namespace, {**forged, "metadata": forged["metadata"] | GONE}),
                    changed(namespace, {**forged, "metadata": forged["metadata"] | LATER}),
                ):
                    yield event
                    pods = {remediation.labels["pod"] for remediation in view}
                    seen.append((pods, [foreign.uid for foreign in view.foreign]))
                await asyncio.Event().wait()

        with capture_logs() as logs:
            async with in_background(Observer(Feed(), view, [namespace]).run()):
                await asyncio.sleep(1)
        assert seen == [
            ({"edited", "web-1"}, ["forged"]),
            ({"web-1"}, ["forged", "edited"]),
            ({"web-1"}, ["edited", "forged"]),
            ({"edited", "web-1"}, ["forged"]),
            ({"edited", "web-1"}, []),
            ({"edited", "web-1"}, []),
        ]
        assert [entry["job"] for entry in logs] == ["jobs/forged", edited_key(edited)]
        assert view.of_incident(forged["metadata"]["labels"][keys.INCIDENT]) == []

    def test_their_number_does_not_decide_about_the_memory(self) -> None:
        """A thousand are remembered; a list of the namespace forgets those that are gone."""
        view = View()
        jobs = [Foreign(JobKey("jobs", f"j{n}"), f"u{n}", str(n + 1), "why") for n in range(1500)]
        with capture_logs() as logs:
            for foreign in jobs:
                view.apply(foreign)
        assert len(view.foreign) == len(logs) == 1000
        assert not view.remove(jobs[1200].key, "u1200", "2000")
        view.replace("jobs", jobs[1400:], "2001")
        assert {foreign.uid for foreign in view.foreign} == {f"u{n}" for n in range(1400, 1500)}
        view.reset("jobs")
        assert view.foreign == []


LATER = {"resourceVersion": "43"}
GONE = {"resourceVersion": "45"}


def edited_key(stored: dict[str, Any]) -> str:
    """Return NAMESPACE/NAME of a Job."""
    return f"{stored['metadata']['namespace']}/{stored['metadata']['name']}"


class TestRestored:
    """After a restore from a backup, resource versions start from an earlier one."""

    @in_virtual_time
    async def test_its_jobs_are_accepted_as_they_are(self) -> None:
        """Jobs created after the backup are removed; other changes are undone."""
        namespace = build.JOBS_NAMESPACE
        view = await view_after(
            listed(namespace, [job("old", 40), job("gone", 41), job("other", 42)], "50"),
            changed(namespace, job("ghost", 60)),
            changed(namespace, job("old", 61)),
            deleted(namespace, job("gone", 62)),
            Failed(namespace, Unavailable("too large resource version")),
            listed(namespace, [job("old", 40), job("gone", 41), job("other", 42)], "45"),
            changed(namespace, job("new", 46)),
        )
        assert {job.labels["pod"]: job.resource_version for job in view} == {
            "old": "40",
            "gone": "41",
            "other": "42",
            "new": "46",
        }
        assert view.newest(namespace) == 46

    @in_virtual_time
    async def test_it_is_logged_once_and_other_namespaces_are_kept(self) -> None:
        """A watch that counts from the earlier version is not considered stalled."""
        namespace, other = build.JOBS_NAMESPACE, "other"
        elsewhere = job("elsewhere", 70)
        elsewhere["metadata"]["namespace"] = other
        script = Script(
            listed(namespace, [job("old", 40)], "50"),
            listed(other, [elsewhere], "70"),
            listed(namespace, [], "30"),
            listed(namespace, [job("new", 31)], "32"),
        )
        view = View()
        with capture_logs() as logs:
            async with in_background(Observer(script, view, [namespace, other]).run()):
                await asyncio.sleep(100)
        assert {remediation.labels["pod"] for remediation in view} == {"elsewhere", "new"}
        assert len(logs) == 1
        assert "a restore of etcd" in logs[0]["event"]

    @in_virtual_time
    async def test_a_list_that_only_missed_our_last_write_undoes_nothing(self) -> None:
        """A state newer than every event is an own write, not a leftover."""
        namespace = build.JOBS_NAMESPACE
        view = View()

        class Feed(Script):
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                yield listed(namespace, [job("job-1", 40)], "50")
                view.apply(replace(observe(job("job-1", 60)), term="ours"))
                yield listed(namespace, [job("job-1", 40)], "55")
                await asyncio.Event().wait()

        async with in_background(Observer(Feed(), view, [namespace]).run()):
            await asyncio.sleep(1)
        assert [(remediation.resource_version, remediation.term) for remediation in view] == [
            ("60", "ours")
        ]


def job(pod: str, version: int) -> dict[str, Any]:
    """Return the Job of an alert about a Pod as the API server returns it, at a version."""
    metadata = {"uid": pod, "resourceVersion": str(version)}
    return build.stored(build.rendered(pods_of(pod)).manifest, metadata=metadata)
