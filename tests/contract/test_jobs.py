from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import JOBS, PODS
from openfero_gitops.domain.errors import NotFound
from tests.contract.objects import job

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.cluster.api import ApiServer, Object


@pytest.fixture(autouse=True)
def _played(server: str, request: pytest.FixtureRequest) -> None:
    """Require a controller that simulates Pods."""
    if server == "kubernetes":
        request.getfixturevalue("kwok")


def condition(current: Object, kind: str) -> Object:
    """Return a condition that is True, or an empty object."""
    for each in current["status"].get("conditions", ()):
        if each["type"] == kind and each["status"] == "True":
            held: Object = each
            return held
    return {}


async def until(
    api: ApiServer,
    ns: str,
    name: str,
    fits: Callable[[Object], Any],
    *,
    after: Object | None = None,
    patience: float = 120,
) -> Object:
    """Wait until a Job satisfies a predicate.

    No state after a given one is missed, however short it was.
    """
    async with asyncio.timeout(patience):
        while True:
            current = after or await api.get(JOBS, ns, name)
            if fits(current):
                return current
            after = None
            since = current["metadata"]["resourceVersion"]
            watch = api.watch(JOBS, ns, resource_version=since, timeout=patience)
            async with aclosing(watch) as events:
                async for each in events:
                    if each.object["metadata"].get("name") == name and fits(each.object):
                        return each.object


async def suspend(api: ApiServer, ns: str, name: str, *, value: bool) -> None:
    """Set `spec.suspend`."""
    await api.patch(JOBS, ns, name, [{"op": "replace", "path": "/spec/suspend", "value": value}])


async def pods_of(api: ApiServer, ns: str, name: str) -> list[Object]:
    """Return the Pods of a Job, even if the Job was deleted."""
    pods = await api.list(PODS, ns, label_selector=f"batch.kubernetes.io/job-name={name}")
    return pods.items


async def until_gone(api: ApiServer, ns: str, name: str) -> None:
    """Wait until a Job has no Pods."""
    async with asyncio.timeout(120):
        while await pods_of(api, ns, name):  # noqa: ASYNC110, no event reports it
            await asyncio.sleep(0.05)


async def until_deleted(api: ApiServer, ns: str, name: str) -> None:
    """Wait until a Job does not exist."""
    async with asyncio.timeout(120):
        with contextlib.suppress(NotFound):
            while await api.get(JOBS, ns, name):  # noqa: ASYNC110, no event reports it
                await asyncio.sleep(0.05)


async def test_suspended_job(api: ApiServer, ns: str) -> None:
    """A suspended Job gets its condition immediately, which makes the created version stale."""
    made = (await api.create(JOBS, ns, job("heal"))).object
    suspended = await until(api, ns, "heal", lambda each: condition(each, "Suspended"))
    held = condition(suspended, "Suspended")
    assert (held["reason"], held["message"]) == ("JobSuspended", "Job suspended")
    assert suspended["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert "startTime" not in suspended["status"]
    assert await pods_of(api, ns, "heal") == []


async def test_unsuspended_job_completes(api: ApiServer, ns: str) -> None:
    """A Job that is unsuspended starts, runs one Pod and completes."""
    await api.create(JOBS, ns, job("heal", {"run-for": "300ms"}))
    made = await until(api, ns, "heal", lambda each: condition(each, "Suspended"))
    await suspend(api, ns, "heal", value=False)
    running = await until(
        api, ns, "heal", lambda each: each["status"].get("active") == 1, after=made
    )
    assert running["status"]["startTime"]
    assert condition(running, "Suspended") == {}
    done = await until(api, ns, "heal", lambda each: condition(each, "Complete"))
    status = done["status"]
    assert (status["succeeded"], status.get("failed"), status.get("active")) == (1, None, None)
    assert status["completionTime"] >= status["startTime"]
    assert condition(done, "SuccessCriteriaMet")["reason"] == "CompletionsReached"
    (pod,) = await pods_of(api, ns, "heal")
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == done["metadata"]["uid"]
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")


async def test_failing_job_fails(api: ApiServer, ns: str) -> None:
    """A Job whose Pod fails has the condition Failed, and its Pod has the exit code and message."""
    played = {"run-for": "200ms", "fail": "true", "exit-code": "3", "message": "no disk"}
    await api.create(JOBS, ns, job("heal", played, suspend=False))
    done = await until(api, ns, "heal", lambda each: condition(each, "Failed"))
    held = condition(done, "Failed")
    assert held["reason"] == "BackoffLimitExceeded"
    assert held["message"] == "Job has reached the specified backoff limit"
    assert held["lastTransitionTime"]
    assert (done["status"]["failed"], done["status"].get("succeeded")) == (1, None)
    assert "completionTime" not in done["status"]
    (pod,) = await pods_of(api, ns, "heal")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, "no disk")


async def test_suspended_again(api: ApiServer, ns: str) -> None:
    """Suspending a running Job deletes its Pod without counting a failure, and resets startTime."""
    await api.create(JOBS, ns, job("heal", {"run-for": "forever"}, suspend=False))
    first = await until(api, ns, "heal", lambda each: each["status"].get("ready") == 1)
    await asyncio.sleep(1.1)  # timestamps have a resolution of one second
    await suspend(api, ns, "heal", value=True)
    held = await until(
        api,
        ns,
        "heal",
        lambda each: condition(each, "Suspended") and not each["status"].get("terminating"),
    )
    assert "startTime" not in held["status"]
    assert held["status"].get("active") is None
    assert held["status"].get("failed") is None
    await suspend(api, ns, "heal", value=False)
    again = await until(api, ns, "heal", lambda each: each["status"].get("ready") == 1)
    assert again["status"]["startTime"] > first["status"]["startTime"]


async def test_pod_that_stops_slowly(api: ApiServer, ns: str) -> None:
    """While the Pod of a suspended Job stops, it is counted as terminating; then it is deleted."""
    played = {"run-for": "forever", "stop-for": "2s"}
    await api.create(JOBS, ns, job("heal", played, suspend=False))
    ready = await until(api, ns, "heal", lambda each: each["status"].get("ready") == 1)
    await suspend(api, ns, "heal", value=True)
    await until(api, ns, "heal", lambda each: each["status"].get("terminating") == 1, after=ready)
    await until(api, ns, "heal", lambda each: not each["status"].get("terminating"))
    await until_gone(api, ns, "heal")


async def test_deadline(api: ApiServer, ns: str) -> None:
    """A running Job whose deadline is set to 0 fails with DeadlineExceeded and loses its Pod."""
    await api.create(JOBS, ns, job("heal", {"run-for": "forever"}, suspend=False))
    await until(api, ns, "heal", lambda each: each["status"].get("ready") == 1)
    deadline = {"op": "add", "path": "/spec/activeDeadlineSeconds", "value": 0}
    await api.patch(JOBS, ns, "heal", [deadline])
    done = await until(api, ns, "heal", lambda each: condition(each, "Failed"))
    assert condition(done, "Failed")["reason"] == "DeadlineExceeded"
    assert condition(done, "Failed")["message"] == "Job was active longer than specified deadline"
    assert done["status"]["failed"] == 1
    await until_gone(api, ns, "heal")


async def test_exceeded_deadline(api: ApiServer, ns: str) -> None:
    """A Job that runs longer than its deadline fails."""
    body = job("heal", {"run-for": "forever"}, suspend=False, activeDeadlineSeconds=1)
    await api.create(JOBS, ns, body)
    done = await until(api, ns, "heal", lambda each: condition(each, "Failed"))
    assert condition(done, "Failed")["reason"] == "DeadlineExceeded"


async def test_finished_job_expires(api: ApiServer, ns: str) -> None:
    """A finished Job is deleted with its Pods after its TTL; raising the TTL postpones that."""
    played = {"run-for": "100ms"}
    await api.create(JOBS, ns, job("soon", played, suspend=False, ttlSecondsAfterFinished=1))
    await api.create(JOBS, ns, job("later", played, suspend=False, ttlSecondsAfterFinished=4))
    await until(api, ns, "later", lambda each: condition(each, "Complete"))
    raised = {"op": "replace", "path": "/spec/ttlSecondsAfterFinished", "value": 600}
    await api.patch(JOBS, ns, "later", [raised])
    await asyncio.sleep(4)
    await until_deleted(api, ns, "soon")
    await until_gone(api, ns, "soon")
    assert condition(await api.get(JOBS, ns, "later"), "Complete")


async def test_suspended_job_never_expires(api: ApiServer, ns: str) -> None:
    """A TTL has no effect on a Job that has not run."""
    await api.create(JOBS, ns, job("heal", ttlSecondsAfterFinished=0))
    await until(api, ns, "heal", lambda each: condition(each, "Suspended"))
    await asyncio.sleep(1.5)
    assert await api.get(JOBS, ns, "heal")


async def test_deleting_a_job_deletes_its_pods(api: ApiServer, ns: str) -> None:
    """A running Job is deleted immediately, and its Pod soon afterwards."""
    await api.create(JOBS, ns, job("heal", {"run-for": "forever"}, suspend=False))
    await until(api, ns, "heal", lambda each: each["status"].get("ready") == 1)
    await api.delete(JOBS, ns, "heal")
    with pytest.raises(NotFound):
        await api.get(JOBS, ns, "heal")
    await until_gone(api, ns, "heal")


async def test_job_managed_by_another_controller(api: ApiServer, ns: str) -> None:
    """A Job that is managed by another controller is ignored."""
    await api.create(JOBS, ns, job("heal", managedBy="example.org/other"))
    await api.create(JOBS, ns, job("ours"))
    await until(api, ns, "ours", lambda each: condition(each, "Suspended"))
    assert (await api.get(JOBS, ns, "heal"))["status"] == {}
