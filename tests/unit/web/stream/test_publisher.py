from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from openfero_gitops.delivery.unanswered import EMPTY
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs.view import View
from openfero_gitops.web.stream.models import LeadershipChanged, RemediationChanged, Reset
from openfero_gitops.web.stream.publisher import EventPublisher
from tests.support import build, pages
from tests.support.copying import replace
from tests.support.workers import in_background, in_virtual_time, until

if TYPE_CHECKING:
    from openfero_gitops.web.stream.models import EventBody

NOW = datetime(2026, 11, 30, 3, 4, 5, tzinfo=UTC)


class Stage:
    """A publisher over a real view, and what it has published."""

    def __init__(self) -> None:
        """Start with one remediation."""
        self.view = View()
        self.state = pages.quiet(NOW)
        self.alerts = EMPTY
        self.job = build.remediation(resource_version="1")
        self.view.apply(self.job)
        self.rounds: list[list[EventBody]] = []
        self.followed = True
        self.publisher = EventPublisher(
            jobs=self.view,
            state=self.state,
            alerts=lambda: self.alerts,
            publish=self.rounds.append,
            is_followed=lambda: self.followed,
        )
        self.publisher.start()

    def change(self, version: int, phase: Phase) -> None:
        """Let the Job change its phase."""
        self.job = replace(
            self.job, resource_version=str(version), phase=phase, message=f"of version {version}"
        )
        self.view.apply(self.job)

    @property
    def phases(self) -> list[Phase]:
        """The phases that were published."""
        bodies = [body for bodies in self.rounds for body in bodies]
        return [body.phase for body in bodies if isinstance(body, RemediationChanged)]


def test_what_was_there_before_is_not_published() -> None:
    """The first observation is where it starts from; nothing is published without a change."""
    stage = Stage()
    stage.publisher.publish_changes()
    assert stage.rounds == []


def test_a_change_of_a_job_is_published_once() -> None:
    """A Job that changes is published with its effect, and then not again."""
    stage = Stage()
    stage.change(2, Phase.SUCCEEDED)
    stage.publisher.publish_changes()
    stage.publisher.publish_changes()
    ((event,),) = stage.rounds
    assert isinstance(event, RemediationChanged)
    assert (event.job, event.phase) == (stage.job.key.name, Phase.SUCCEEDED)
    assert event.effect in (None, *Effect)


@in_virtual_time
async def test_a_job_that_changes_often_is_published_at_most_twice_a_second() -> None:
    """The first change is published at once; those that follow within half a second are one."""
    stage = Stage()
    async with in_background(stage.publisher.run()):
        await asyncio.sleep(5)
        stage.change(2, Phase.RUNNING)
        await asyncio.sleep(0.01)
        assert stage.phases == [Phase.RUNNING]
        for version in range(3, 303):
            stage.change(version, Phase.RUNNING)
            await asyncio.sleep(0.01)
        stage.change(303, Phase.FAILED)
        await until(lambda: stage.phases[-1] is Phase.FAILED, 1)
        assert 6 <= len(stage.phases) <= 9


@in_virtual_time
async def test_a_new_leader_is_published_within_a_second_or_two() -> None:
    """What does not announce its changes is noticed soon."""
    stage = Stage()
    async with in_background(stage.publisher.run()):
        stage.state.leader = Leadership(holder="another")
        await asyncio.sleep(2)
        assert stage.rounds == [[LeadershipChanged(holder="another", leader=False)]]


@in_virtual_time
async def test_nothing_is_recorded_while_nobody_follows() -> None:
    """Changes are published from the start on; earlier ones, which nobody followed, are not."""
    stage = Stage()
    stage.followed = False
    async with in_background(stage.publisher.run()):
        await asyncio.sleep(2)
        stage.change(2, Phase.RUNNING)
        await asyncio.sleep(2)
        assert stage.phases == []
        stage.publisher.start()
        stage.followed = True
        stage.change(3, Phase.SUCCEEDED)
        await until(lambda: stage.phases == [Phase.SUCCEEDED], 2)


def test_a_list_of_many_jobs_is_one_event() -> None:
    """When a replica has listed its Jobs, clients read the lists again."""
    stage = Stage()
    for number in range(1000):
        stage.view.apply(
            replace(
                stage.job,
                key=replace(stage.job.key, name=f"job-{number}"),
                uid=str(number),
                resource_version=str(number + 10),
            )
        )
    stage.publisher.publish_changes()
    ((event,),) = stage.rounds
    assert isinstance(event, Reset)
