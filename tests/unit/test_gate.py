"""A person's word against a Job that changes while it is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.adapters.memory import FOREVER, Durations, JobPlayer
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.gate import CANCEL, write_verdict
from tests.support.workers import Act, Request, World, in_virtual_time, pods_of, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openfero_gitops.domain.remediation import JobKey


async def cancelled(while_it_is_said: Callable[[World, JobKey], Awaitable[Any]]) -> Phase:
    """Cancel a running Job to which something happens between look and patch, once."""
    world = World(JobPlayer(Durations(run=FOREVER)))
    replica, person = world.replica(), world.replica("person")
    left = [1]

    async def trouble(request: Request, act: Act) -> Any:
        if request.verb == "patch" and left:
            left.clear()
            await while_it_is_said(world, key)
        return await act()

    person.wire.trouble = trouble
    async with world.playing(), replica.watching(), replica.leading():
        answer = await replica.deliver(pods_of("web-1"))
        assert answer.items[0].job is not None
        key = answer.items[0].job
        await until(world.starts)
        await write_verdict(person.wire, CANCEL, key, "ada")
    return (await world.job(key)).phase


@in_virtual_time
async def test_a_job_that_only_counts_its_pods_is_cancelled_all_the_same() -> None:
    """What changed is nothing that the person looked at."""

    async def counts(world: World, key: JobKey) -> None:
        await world.annotate(key, "example.org/note", "1")

    assert await cancelled(counts) is Phase.CANCELLED


@in_virtual_time
async def test_a_job_that_went_in_this_very_moment_is_told_of() -> None:
    """There is nothing to cancel any more, and the person hears why."""

    async def goes(world: World, key: JobKey) -> None:
        await world.change(key, {"op": "replace", "path": "/spec/suspend", "value": True})

    with pytest.raises(UsageError, match="changed in this very moment and is Held"):
        await cancelled(goes)
