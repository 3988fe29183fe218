"""What `status` reads from the API server, and what it says if something is missing there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.mirror import (
    HEAD,
    head_report,
    with_history,
    with_report,
    write_mirror,
)
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.cluster.api import CONFIG_MAPS, JOBS, LEASES
from openfero_gitops.cluster.lease import KubernetesLease
from openfero_gitops.commands.status import status_of
from openfero_gitops.commands.trace import trace_of
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain import control, keys
from openfero_gitops.domain.catalog import Catalog, Revision, Snapshot, SourceFile, blob_id
from openfero_gitops.domain.errors import (
    ApiError,
    Forbidden,
    NotFound,
    Throttled,
    Unavailable,
    UsageError,
)
from openfero_gitops.domain.lease import LeaseRecord
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.domain.sync import SyncStatus
from openfero_gitops.domain.sync_report import sync_report
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.inspection import trace_text
from openfero_gitops.inspection.status import Topic
from openfero_gitops.inspection.status_text import as_members, as_text
from tests.support import build
from tests.support.workers import NAMESPACE, Wire, operario_file
from tests.support.workloads import WORKLOADS, workload

if TYPE_CHECKING:
    from tests.support.relay import Act, Request


def snapshot(**files: str) -> Snapshot:
    """Return the files of a commit (`disk` is disk.yaml)."""
    sources = tuple(
        SourceFile(f"{name}.yaml", blob_id(text.encode()), text.encode())
        for name, text in files.items()
    )
    return Snapshot(Revision("https://git.example/ops", "main", "1" * 40), "", sources)


async def mirrored(cluster: MemoryCluster, scope: Scope | None = None, **files: str) -> Catalog:
    """Write what a leader writes: the Lease and the mirror; return its catalog."""
    scope = scope or Scope()
    now = datetime.now(UTC)
    lease = KubernetesLease(cluster, NAMESPACE)
    await lease.create(LeaseRecord("replica-a", 15, now, now, 0), timeout=1)
    given = snapshot(**files)
    catalog = build_catalog(given, scope)
    kept = Snapshot(catalog.revision, catalog.root, catalog.files)
    mirror = write_mirror(kept, NAMESPACE)
    report = sync_report(
        SyncStatus(),
        catalog,
        kubernetes_version=scope.kubernetes_version,
        jobs_namespace=scope.jobs_namespace,
        allowed_namespaces=scope.allowed_namespaces,
    )
    head = with_report(mirror.head, NAMESPACE, report)
    history = RevisionHistory().activate("1" * 40, now - timedelta(hours=1), timedelta(0))
    head = with_history(head, NAMESPACE, history)
    for config_map in (*mirror.shards, head):
        await cluster.create(CONFIG_MAPS, NAMESPACE, config_map)
    return catalog


async def pause(cluster: MemoryCluster, **members: Any) -> None:
    """Write a request to pause."""
    data = control.write_pause("ada", datetime.now(UTC), paused=True, **members)
    await cluster.create(CONFIG_MAPS, NAMESPACE, {"metadata": {"name": control.NAME}, "data": data})


async def test_a_namespace_without_controller_is_an_error() -> None:
    """The message names the option that may be missing."""
    with pytest.raises(UsageError, match="no controller found in namespace 'other': set --names"):
        await status_of(MemoryCluster(), "other")


async def test_the_mirror_says_how_the_commit_is() -> None:
    """The commit, since when it is active, and the files that have errors."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"), bad="kind: Job\nspec: [\n")
    text = as_text(await status_of(cluster, NAMESPACE))
    assert "Leader     replica-a, since" in text
    assert "Commit     111111111111, active for 1h" in text
    assert "Operarios  1 active, 1 file quarantined\n           bad.yaml: line " in text


async def test_a_pause_has_its_end_and_its_reason() -> None:
    """One that is over is not shown any more."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"))
    end = datetime.now(UTC) + timedelta(hours=1)
    await pause(cluster, until=end, reason="maintenance")
    status = await status_of(cluster, NAMESPACE)
    assert status.records.pause is not None
    assert (status.records.pause.until, status.records.pause.reason) == (end, "maintenance")
    assert status.actions == ()
    other = MemoryCluster()
    await mirrored(other, disk=operario_file("disk"))
    await pause(other, until=datetime.now(UTC) - timedelta(hours=1))
    assert (await status_of(other, NAMESPACE)).records.pause is None


async def test_the_repository_may_pause_admission() -> None:
    """`openfero.yaml` of the mirror counts, also if no Job waits."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"), openfero="paused: true\n")
    text = as_text(await status_of(cluster, NAMESPACE))
    assert "Admission  paused: openfero.yaml sets paused: true at commit 111111111111" in text


async def test_the_limits_of_the_repository_count() -> None:
    """A waiting Job has the reason that the leader would give."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"), openfero="limits: {concurrent: 0}\n")
    await cluster.create(JOBS, build.JOBS_NAMESPACE, build.rendered().manifest)
    status = await status_of(cluster, NAMESPACE, [build.JOBS_NAMESPACE])
    assert sum(status.waiting.values()) == 1
    assert "unknown" not in status.waiting


async def test_files_are_judged_with_the_settings_of_the_controller() -> None:
    """An operario that only the controller's version of Kubernetes accepts is not missing."""
    cluster = MemoryCluster()
    policy = "      securityContext: {seLinuxChangePolicy: MountOption}\n"
    scope = Scope("jobs", ("jobs",), "1.37")
    catalog = await mirrored(cluster, scope, disk=operario_file("disk", more=policy))
    operario = catalog.by_alert["disk"][0]
    job = build.rendered(build.alert(labels={"alertname": "disk"}), operario)
    await cluster.create(JOBS, "jobs", job.manifest)
    status = await status_of(cluster, NAMESPACE)
    assert status.actions == ()
    assert sum(status.waiting.values()) == 1


async def test_trace_and_status_agree_that_a_removed_operario_needs_approval() -> None:
    """Git requires it, although the Job records no approval."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"))
    job = build.rendered()
    await cluster.create(JOBS, build.JOBS_NAMESPACE, job.manifest)
    key = JobKey(build.JOBS_NAMESPACE, job.manifest["metadata"]["name"])
    (action,) = (await status_of(cluster, NAMESPACE)).actions
    assert action.topic is Topic.APPROVAL
    text = trace_text.as_text(await trace_of(cluster, key, NAMESPACE))
    assert f"required; run openfero-gitops approve {key}" in text
    assert "the active catalog has no operario" in text.splitlines()[1]


def forbidding(cluster: MemoryCluster, kind: Any, name: str = "") -> Wire:
    """Return a connection of a user who may not read a kind, or only one object of it."""
    wire = Wire(cluster)

    async def trouble(request: Request, act: Act) -> Any:
        if request.resource == kind and name in request.name:
            raise Forbidden("no")
        return await act()

    wire.trouble = trouble
    return wire


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("ready", "Waiting: all checks passed; no leader has started it yet"),
        (
            "too old",
            "Waiting: the leader is about to refuse it: the Job waited longer than max-wait",
        ),
        ("absent", "Waiting: to see why, set --controller-namespace to the controller's namespace"),
        ("never synced", "Waiting: no commit has become active yet: see the log of the controller"),
        ("damaged", "Waiting: the mirror"),
        ("no shards", "Waiting: the reason cannot be read: no"),
        (
            "no permission",
            "Waiting: the reason cannot be read: no; check --controller-namespace",
        ),
    ],
)
async def test_trace_says_what_is_known_of_a_job_that_no_check_holds_up(
    state: str, phase: str
) -> None:
    """Only if no controller is found, the option is missing that names its namespace."""
    cluster = MemoryCluster()
    catalog = await mirrored(
        cluster if state != "absent" else MemoryCluster(), disk=operario_file("disk")
    )
    operario = catalog.by_alert["disk"][0]
    job = build.rendered(build.alert(labels={"alertname": "disk"}), operario).manifest
    await cluster.create(JOBS, build.JOBS_NAMESPACE, job)
    shards = [
        item["metadata"]["name"]
        for item in (await cluster.list(CONFIG_MAPS, NAMESPACE)).items
        if item["metadata"]["name"] != HEAD
    ]
    api: Any = cluster
    match state:
        case "never synced":
            await cluster.delete(CONFIG_MAPS, NAMESPACE, HEAD)
        case "damaged":
            await cluster.delete(CONFIG_MAPS, NAMESPACE, shards[0])
        case "no shards":
            api = forbidding(cluster, CONFIG_MAPS, name=shards[0])
        case "no permission":
            api = forbidding(cluster, LEASES)
    key = JobKey(build.JOBS_NAMESPACE, job["metadata"]["name"])
    now = build.NOW + timedelta(days=9 if state == "too old" else 0)
    text = trace_text.as_text(await trace_of(api, key, NAMESPACE, lambda: now))
    assert text.splitlines()[1].startswith(f"Phase      {phase}")


@pytest.mark.parametrize(
    ("reason", "error", "phase", "topics"),
    [
        ("Inadmissible", None, "Queued: Inadmissible: full", [Topic.STUCK_IN_QUEUE]),
        ("Pending", None, "Queued: Pending: full", []),
        ("", None, "Queued: NoWorkload: Kueue has not created a Workload", [Topic.STUCK_IN_QUEUE]),
        ("", Forbidden("no"), "Queued: the reason cannot be read: no", []),
        ("", Unavailable("no answer"), "Queued: the reason cannot be read: no answer", []),
        ("", Throttled("slow down"), "Queued: the reason cannot be read: slow down", []),
        ("", NotFound("no Kueue"), "Queued: the reason cannot be read: ", []),
    ],
)
async def test_a_queued_job_has_the_reason_of_its_workload(
    reason: str, error: ApiError | None, phase: str, topics: list[Topic]
) -> None:
    """`status` lists what Kueue does not start; like `trace`, it says if that cannot be read."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"))
    annotations = {keys.ADMITTED_AT: format_time(build.NOW), keys.QUEUE: "healing"}
    job = build.stored(
        annotations=annotations,
        labels={keys.KUEUE_QUEUE: "healing"},
        metadata={"resourceVersion": ""},
    )
    name = job["metadata"]["name"]
    await cluster.create(JOBS, build.JOBS_NAMESPACE, job)
    stored = await cluster.get(JOBS, build.JOBS_NAMESPACE, name)
    if reason:
        waiting = workload(stored["metadata"]["uid"], reason=reason)
        await cluster.create(WORKLOADS, build.JOBS_NAMESPACE, waiting)
    wire = Wire(cluster)

    async def fail(request: Request, act: Act) -> Any:
        if error and request.resource is not None and request.resource.plural == "workloads":
            raise error
        return await act()

    wire.trouble = fail
    text = trace_text.as_text(await trace_of(wire, JobKey(build.JOBS_NAMESPACE, name), NAMESPACE))
    assert text.splitlines()[1].startswith(f"Phase        {phase}")
    status = await status_of(wire, NAMESPACE)
    assert [action.topic for action in status.actions] == topics
    assert "1 in a Kueue queue" in as_text(status)
    shown = f"the reasons of Jobs in a Kueue queue cannot be read: {status.records.queue_error}"
    assert (shown in as_text(status)) == bool(error)
    assert bool(as_members(status)["queueError"]) == bool(error)
    if error and not isinstance(error, NotFound):  # its message says that Kueue is missing
        assert status.records.queue_error == str(error)


async def test_a_version_that_only_the_controller_knows_is_no_error() -> None:
    """The controller may be newer than the command."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"))
    head = await cluster.get(CONFIG_MAPS, NAMESPACE, HEAD)
    newer = replace(head_report(head), kubernetes_version="9.99")
    await cluster.replace(CONFIG_MAPS, NAMESPACE, with_report(head, NAMESPACE, newer))
    assert (await status_of(cluster, NAMESPACE)).actions == ()


@pytest.mark.parametrize("damage", ["head", "shard"])
async def test_a_damaged_mirror_needs_a_person(damage: str) -> None:
    """The rest is shown nevertheless."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"))
    stored = (await cluster.list(CONFIG_MAPS, NAMESPACE)).items
    name = next(
        item["metadata"]["name"]
        for item in stored
        if (item["metadata"]["name"] == HEAD) is (damage == "head")
    )
    if damage == "head":
        change = [{"op": "add", "path": "/data/format", "value": "99"}]
        await cluster.patch(CONFIG_MAPS, NAMESPACE, name, change)
    else:
        await cluster.delete(CONFIG_MAPS, NAMESPACE, name)
    status = await status_of(cluster, NAMESPACE)
    assert [action.topic.value for action in status.actions] == ["catalog"]
    assert status.leader is not None


async def test_a_controller_that_never_synced_needs_a_person() -> None:
    """It has a leader, but no commit."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"))
    await cluster.delete(CONFIG_MAPS, NAMESPACE, HEAD)
    status = await status_of(cluster, NAMESPACE)
    assert [action.topic.value for action in status.actions] == ["catalog"]
    assert "Commit     none" in as_text(status)


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (LEASES, "no permission to read the controller in namespace"),
        (CONFIG_MAPS, "no permission to read the controller in namespace"),
        (JOBS, "no permission to list Jobs in all namespaces: no; use --jobs-namespace"),
    ],
)
async def test_a_missing_permission_is_named(resource: Any, message: str) -> None:
    """The message says what was forbidden, and which option helps."""
    cluster = MemoryCluster()
    await mirrored(cluster, disk=operario_file("disk"))
    with pytest.raises(UsageError, match=message):
        await status_of(forbidding(cluster, resource), NAMESPACE)
