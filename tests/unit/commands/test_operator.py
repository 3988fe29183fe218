"""Actions on a Job that changes at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.commands.operator import APPROVE, CANCEL, REFUSE, apply_action
from openfero_gitops.demo.cluster import FOREVER, Durations, JobPlayer
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, UsageError
from openfero_gitops.domain.remediation import JobKey, Phase
from tests.support import build
from tests.support.workers import (
    World,
    in_virtual_time,
    pods_of,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.relay import Act, Request


async def cancelled(while_it_is_said: Callable[[World, JobKey], Awaitable[Any]]) -> Phase:
    """Cancel a running Job to which something happens once between read and patch."""
    world = World(JobPlayer(Durations(run=FOREVER)))
    replica, person = world.replica(), world.replica("person")
    remaining = [1]

    async def trouble(request: Request, act: Act) -> Any:
        if request.verb == "patch" and remaining:
            remaining.clear()
            await while_it_is_said(world, key)
        return await act()

    person.wire.trouble = trouble
    async with world.playing(), replica.watching(), replica.leading():
        answer = await replica.deliver(pods_of("web-1"))
        assert answer.items[0].job is not None
        key = answer.items[0].job
        await until(world.starts)
        await apply_action(person.wire, CANCEL, key, "ada")
    return (await world.job(key)).phase


@in_virtual_time
async def test_cancel_retries_after_an_unrelated_change() -> None:
    """A change that does not affect the phase is no reason to give up."""

    async def counts(world: World, key: JobKey) -> None:
        await world.annotate(key, "example.org/note", "1")

    assert await cancelled(counts) is Phase.CANCELLED


@in_virtual_time
async def test_cancel_reports_a_job_that_left_its_phase() -> None:
    """A Job that left its phase cannot be cancelled, and the message says why."""

    async def goes(world: World, key: JobKey) -> None:
        await world.change(key, {"op": "replace", "path": "/spec/suspend", "value": True})

    with pytest.raises(UsageError, match="changed at the same time, its phase is now Held"):
        await cancelled(goes)


@in_virtual_time
async def test_a_job_is_approved_once() -> None:
    """Whether Git requires it is not known here; the second approver is told of the first."""
    world = World()
    replica = world.replica()
    async with replica.watching():
        key = (await replica.deliver(pods_of("web-1"))).items[0].job
        assert key is not None
        await apply_action(world.cluster, APPROVE, key, "ada")
        with pytest.raises(UsageError, match="is already approved, by ada"):
            await apply_action(world.cluster, APPROVE, key, "eve")
    assert (await world.job(key)).approved_by == "ada"


@in_virtual_time
async def test_an_annotation_reaches_the_terminal_escaped() -> None:
    """Users who may write annotations must not control the terminals of operators."""
    world = World()
    replica = world.replica()
    async with replica.watching():
        key = (await replica.deliver(pods_of("web-1"))).items[0].job
        assert key is not None
        await apply_action(world.cluster, APPROVE, key, "eve\x1b[2J\n")
        with pytest.raises(UsageError, match=r"already approved, by eve\\x1b\[2J\\n$"):
            await apply_action(world.cluster, APPROVE, key, "ada")
        await apply_action(world.cluster, REFUSE, key, "ada")
        await world.annotate(key, keys.REASON, "\x1b[2J")
        with pytest.raises(UsageError, match=r"its phase is Refused \(\\x1b\[2J\)$"):
            await apply_action(world.cluster, APPROVE, key, "ada")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("ValidatingAdmissionPolicy 'p' denied request: no", "an admission policy of the cluster"),
        ('User "ada" cannot patch resource "jobs"', "ada has no permission to patch Jobs"),
    ],
)
@in_virtual_time
async def test_a_policy_is_told_from_a_missing_permission(message: str, why: str) -> None:
    """Both are 403, and who grants permissions is not who changes policies."""
    world = World()
    replica, person = world.replica(), world.replica("person")

    async def trouble(request: Request, act: Act) -> Any:
        if request.verb == "patch":
            raise Forbidden(message)
        return await act()

    person.wire.trouble = trouble
    async with replica.watching():
        key = (await replica.deliver(pods_of("web-1"))).items[0].job
        assert key is not None
        with pytest.raises(UsageError) as refused:
            await apply_action(person.wire, APPROVE, key, "ada")
    assert f"Job {key} was not approved: {why}" in str(refused.value)
    assert str(refused.value).endswith(message)


@in_virtual_time
async def test_a_foreign_job_is_not_changed() -> None:
    """The message says what is wrong with it."""
    world = World()
    manifest = build.rendered().manifest
    manifest["metadata"]["name"] = "forged"
    await world.cluster.create(JOBS, build.JOBS_NAMESPACE, manifest)
    key = JobKey(build.JOBS_NAMESPACE, "forged")
    with pytest.raises(UsageError, match="not created by openfero-gitops"):
        await apply_action(world.cluster, APPROVE, key, "ada")
