"""The view of all Jobs, told the truth late, twice, or in the wrong order."""

from __future__ import annotations

import asyncio
import dataclasses
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
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.view import Observer, View
from tests.support import build
from tests.support.depth import scaled
from tests.support.workers import World, in_background, in_virtual_time, pods_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from openfero_gitops.domain.feed import FeedEvent
    from openfero_gitops.domain.remediation import Remediation
    from tests.support.relay import Act, Request

KEY = JobKey(build.JOBS_NAMESPACE, "job-1")


def at(version: int, uid: str = "one", **given: Any) -> Remediation:
    """The Job `KEY` as it was at a version."""
    return build.remediation(resource_version=str(version), uid=uid, **given)


class Script:
    """A feed that tells what a test wrote for it, and then stays silent."""

    def __init__(self, *news: FeedEvent) -> None:
        self._news = news

    async def follow(self) -> AsyncGenerator[FeedEvent]:
        """Tell it."""
        for item in self._news:
            yield item
            await asyncio.sleep(0)
        await asyncio.Event().wait()


async def view_after(*news: FeedEvent, namespaces: Sequence[str] = (build.JOBS_NAMESPACE,)) -> View:
    """A view that was told this."""
    view = View()
    async with in_background(Observer(Script(*news), view, namespaces).run()):
        await asyncio.sleep(1)
    return view


class TestOneJob:
    """What is known of a Job never goes back."""

    def test_an_older_state_is_dropped(self) -> None:
        """Of two states the later counts, in whatever order they are told."""
        view = View()
        assert view.apply(at(9, term="new"))
        assert not view.apply(at(8, term="old"))
        assert not view.apply(at(9, term="the same version"))
        assert not view.apply(at(8, term="9 is less than 10, and so is 8"))
        assert view.apply(at(10, term="newest"))
        assert [remediation.term for remediation in view] == ["newest"]

    def test_a_namesake_replaces_the_job_that_was(self) -> None:
        """A Job that was deleted and made again is another one."""
        view = View()
        view.apply(at(9, "one"))
        assert view.apply(at(12, "two"))
        assert [remediation.uid for remediation in view] == ["two"]
        assert [remediation.uid for remediation in view.of_incident(at(9).incident)] == ["two"]

    def test_late_news_of_the_old_job_do_not_hide_its_namesake(self) -> None:
        """What the watch still tells of a Job that is gone changes nothing about the new one."""
        view = View()
        view.apply(at(9, "one"))
        view.apply(at(12, "two", term="ours"))
        assert not view.apply(at(10, "one"))
        assert view.remove(KEY, "one", "11") is None
        assert [(remediation.uid, remediation.term) for remediation in view] == [("two", "ours")]

    def test_an_answer_that_the_deletion_has_overtaken_brings_nothing_back(self) -> None:
        """A write's answer that is read after the watch told of the end leaves no ghost."""
        view = View()
        view.apply(at(9))
        assert view.remove(KEY, "one", "11") is not None
        assert not view.apply(at(10))
        assert len(view) == 0
        assert view.apply(at(12, "two"))

    def test_a_job_that_left_the_selection_can_come_back(self) -> None:
        """Who takes our label off and puts it on again has the same Job there again."""
        view = View()
        view.apply(at(9))
        view.remove(KEY, "one", "11")
        assert view.apply(at(12))
        assert KEY in view

    def test_a_change_of_incident_moves_the_job(self) -> None:
        """Where somebody edits the label, it is found under the new one alone, and can go."""
        view = View()
        view.apply(at(9, incident="a"))
        view.apply(at(10, incident="b"))
        assert view.of_incident("a") == []
        assert [remediation.key for remediation in view.of_incident("b")] == [KEY]
        view.remove(KEY, "one")
        assert view.of_incident("a") == view.of_incident("b") == []

    def test_subscribers_are_told_of_changes_alone(self) -> None:
        """What was known already wakes nobody."""
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
    """A list of a whole namespace."""

    def test_what_is_not_in_it_is_gone(self) -> None:
        """In its own namespace, that is."""
        view = View()
        view.apply(at(5))
        elsewhere = build.remediation(namespace="other", resource_version="5")
        view.apply(elsewhere)
        view.replace(build.JOBS_NAMESPACE, [], "9")
        assert [remediation.key for remediation in view] == [elsewhere.key]

    def test_a_write_of_our_own_is_not_undone_by_an_older_list(self) -> None:
        """What was created or admitted after the list was made stays as it is."""
        view = View()
        view.apply(at(12, term="admitted"))
        view.apply(build.remediation("job-2", resource_version="13"))
        view.replace(build.JOBS_NAMESPACE, [at(8, term="waiting")], "11")
        assert {remediation.key.name: remediation.term for remediation in view} == {
            "job-1": "admitted",
            "job-2": None,
        }

    def test_a_list_from_before_a_deletion_brings_nothing_back(self) -> None:
        """A new leader's list may be older than what its watch has told meanwhile."""
        view = View()
        view.apply(at(5))
        view.remove(KEY, "one", "12")
        view.replace(build.JOBS_NAMESPACE, [at(5)], "11")
        assert len(view) == 0

    def test_an_answer_from_before_a_list_without_the_job_brings_nothing_back(self) -> None:
        """What the list no longer holds is gone, whatever a late answer says."""
        view = View()
        view.apply(at(5))
        view.replace(build.JOBS_NAMESPACE, [], "11")
        assert not view.apply(at(7))
        assert len(view) == 0

    def test_it_is_whole_when_every_namespace_was_listed(self) -> None:
        """Not before, and not when nothing was expected at all."""
        view = View()
        assert not view.complete
        view.expect(["jobs", "other"])
        view.replace("jobs", [], "1")
        assert not view.complete
        view.replace("other", [], "1")
        assert view.complete

    @settings(max_examples=scaled(20))
    @given(seed=st.integers(0, 2**32))
    def test_any_order_of_the_news_ends_in_the_same_view(self, seed: int) -> None:
        """Answers come at any time, the watch in its order, and the end is what was written last.

        Three names live through creations, changes and deletions; each state is told by the
        watch, and some by the answer to a write, earlier or later than the watch does.
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
    """From the feed to the view."""

    @in_virtual_time
    async def test_news_are_taken_in(self) -> None:
        """A list, a change, a deletion and a new Job are told, one after the other."""
        job = build.stored(metadata={"resourceVersion": "5"})
        name = job["metadata"]["name"]
        admitted = build.stored(
            annotations={keys.ADMITTED_AT: "2026-11-21T03:04:09.000000Z"},
            spec={"suspend": False},
            metadata={"resourceVersion": "7"},
        )
        view = await view_after(Listed("jobs", [job], "6"), Changed("jobs", admitted))
        assert [(remediation.key.name, remediation.phase) for remediation in view] == [
            (name, Phase.RUNNING)
        ]
        view = await view_after(Listed("jobs", [job], "6"), Deleted("jobs", admitted))
        assert len(view) == 0
        assert view.complete

    @in_virtual_time
    async def test_a_deletion_is_remembered_by_its_version(self) -> None:
        """An answer from before the deletion, read after it, is known to be old."""
        job = build.stored(metadata={"resourceVersion": "5"})
        last = build.stored(metadata={"resourceVersion": "9"})
        view = await view_after(Listed("jobs", [job], "6"), Deleted("jobs", last))
        late = dataclasses.replace(observe(job), resource_version="8")
        assert not view.apply(late)
        assert len(view) == 0

    @in_virtual_time
    async def test_an_error_is_reported_while_it_lasts_and_logged_when_it_changes(self) -> None:
        """Each namespace for itself; the next list ends it, and what was known is kept."""
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
                    Listed("jobs", [job], "6"),
                    Failed("jobs", Unavailable("no connection")),
                    Failed("jobs", Unavailable("still none")),
                    Failed("other", Forbidden("no right")),
                ):
                    news.put_nowait(item)
                await asyncio.sleep(1)
                assert observer.trouble == {"jobs": "still none", "other": "no right"}
                assert len(view) == 1
                assert not view.complete
                news.put_nowait(Listed("jobs", [job], "8"))
                await asyncio.sleep(1)
                assert observer.trouble == {"other": "no right"}
        assert [(entry["log_level"], entry["namespace"]) for entry in logs] == [
            ("warning", "jobs"),
            ("warning", "jobs"),
            ("warning", "other"),
            ("info", "jobs"),
        ]

    @in_virtual_time
    async def test_a_feed_that_dies_is_not_hidden(self) -> None:
        """An error that is none of the API server's ends the observer, for its owner to see."""

        class Broken:
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                yield Listed("jobs", [], "1")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await Observer(Broken(), View(), ["jobs"]).run()

    @in_virtual_time
    async def test_a_silent_watch_is_found_out_by_what_is_known(self) -> None:
        """A write of our own of which no news comes: it is said, and all is listed again."""
        job = build.stored()
        lists = 0

        class Silent:
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                nonlocal lists
                lists += 1
                if lists == 2:
                    await asyncio.sleep(100)  # the list fails as well, for a while
                yield Listed("jobs", [job], "8" if lists == 1 else "12")
                await asyncio.Event().wait()

        view = View()
        observer = Observer(Silent(), view, ["jobs"])
        async with in_background(observer.run()):
            await asyncio.sleep(3600)
            assert (lists, observer.trouble) == (1, {})  # nothing is known that was not told
            view.apply(dataclasses.replace(observe(job), resource_version="12"))
            await asyncio.sleep(30)
            assert lists == 2
            assert "stalled" in observer.trouble["jobs"]
            await asyncio.sleep(3600)
            assert (lists, observer.trouble) == (2, {})

    @in_virtual_time
    async def test_a_watch_that_is_only_late_is_waited_for(self) -> None:
        """As long as something is told, what is missing may still come."""
        jobs = [build.stored(metadata={"resourceVersion": str(9 + n)}) for n in range(60)]
        lists = 0

        class Late:
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                nonlocal lists
                lists += 1
                yield Listed("jobs", [jobs[0]], "9")
                for job in jobs[1:]:
                    await asyncio.sleep(10)
                    yield Changed("jobs", job)
                await asyncio.Event().wait()

        view = View()
        observer = Observer(Late(), view, ["jobs"])
        async with in_background(observer.run()):
            await asyncio.sleep(1)
            view.apply(dataclasses.replace(observe(jobs[0]), resource_version="60"))
            await asyncio.sleep(3600)
        assert (lists, observer.trouble) == (1, {})

    @in_virtual_time
    async def test_a_watch_that_breaks_again_and_again_ends_in_the_truth(self) -> None:
        """Whatever happened while nobody looked is known when the API server is back."""
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


class TestRestored:
    """An API server whose etcd was restored from a backup counts from an earlier version again."""

    @in_virtual_time
    async def test_its_jobs_are_taken_as_they_are(self) -> None:
        """What was made since is a ghost; what was changed or deleted since is as it was."""
        namespace = build.JOBS_NAMESPACE
        view = await view_after(
            Listed(namespace, [job("old", 40), job("gone", 41), job("other", 42)], "50"),
            Changed(namespace, job("ghost", 60)),
            Changed(namespace, job("old", 61)),
            Deleted(namespace, job("gone", 62)),
            Failed(namespace, Unavailable("too large resource version")),
            Listed(namespace, [job("old", 40), job("gone", 41), job("other", 42)], "45"),
            Changed(namespace, job("new", 46)),
        )
        assert {remediation.key.name: remediation.resource_version for remediation in view} == {
            "old": "40",
            "gone": "41",
            "other": "42",
            "new": "46",
        }
        assert view.newest(namespace) == 46

    @in_virtual_time
    async def test_it_is_told_once_and_other_namespaces_stay(self) -> None:
        """Nor is a watch that counts from there considered stalled."""
        namespace, other = build.JOBS_NAMESPACE, "other"
        elsewhere = job("elsewhere", 70)
        elsewhere["metadata"]["namespace"] = other
        script = Script(
            Listed(namespace, [job("old", 40)], "50"),
            Listed(other, [elsewhere], "70"),
            Listed(namespace, [], "30"),
            Listed(namespace, [job("new", 31)], "32"),
        )
        view = View()
        with capture_logs() as logs:
            async with in_background(Observer(script, view, [namespace, other]).run()):
                await asyncio.sleep(100)
        assert {remediation.key.name for remediation in view} == {"elsewhere", "new"}
        assert len(logs) == 1
        assert "a restore of etcd" in logs[0]["event"]

    @in_virtual_time
    async def test_a_list_that_only_missed_our_last_write_undoes_nothing(self) -> None:
        """What is newer than all that the feed told is a write of our own, and no ghost."""
        namespace = build.JOBS_NAMESPACE
        view = View()

        class Feed(Script):
            async def follow(self) -> AsyncGenerator[FeedEvent]:
                yield Listed(namespace, [job("job-1", 40)], "50")
                view.apply(at(60, job("job-1", 60)["metadata"]["uid"], term="ours"))
                yield Listed(namespace, [job("job-1", 40)], "55")
                await asyncio.Event().wait()

        async with in_background(Observer(Feed(), view, [namespace]).run()):
            await asyncio.sleep(1)
        assert [(remediation.resource_version, remediation.term) for remediation in view] == [
            ("60", "ours")
        ]


def job(name: str, version: int) -> dict[str, Any]:
    """A Job as the API server shows it, at a version."""
    metadata = {"name": name, "uid": name, "resourceVersion": str(version)}
    return build.stored(metadata=metadata)
