from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import CONFIG_MAPS, EVENTS, JOBS, Object, Operation
from openfero_gitops.domain.errors import Conflict, Invalid
from tests.contract.objects import config_map, event, job

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer

ADMITTED = "/metadata/annotations/openfero.io~1admitted-at"


def op(name: str, path: str, value: Any = None) -> Operation:
    """Return an operation of a JSON Patch."""
    return {"op": name, "path": path, "value": value}


@pytest.fixture
async def created_job(api: ApiServer, ns: str) -> Object:
    """Create a Job with an annotation and a finalizer."""
    body = job("heal")
    body["metadata"] |= {
        "annotations": {"openfero.io/term": "a/1"},
        "finalizers": ["example.org/a", "example.org/b"],
    }
    return (await api.create(JOBS, ns, body)).object


@pytest.fixture
async def patched(api: ApiServer, ns: str, created_job: Object) -> Any:
    """Return a function that patches that Job."""

    async def patch(*operations: Operation) -> Object:
        return await api.patch(JOBS, ns, created_job["metadata"]["name"], operations)

    return patch


async def test_admission(patched: Any) -> None:
    """The patch that admits a Job passes its tests and unsuspends and marks the Job at once."""
    admission = [
        op("test", "/spec/suspend", True),  # noqa: FBT003
        op("test", "/metadata/annotations/openfero.io~1term", "a/1"),
        op("test", ADMITTED, None),
        op("add", ADMITTED, "2026-01-02T03:04:05Z"),
        op("replace", "/spec/suspend", False),  # noqa: FBT003
    ]
    admitted = await patched(*admission)
    assert admitted["spec"]["suspend"] is False
    assert admitted["metadata"]["annotations"] == {
        "openfero.io/term": "a/1",
        "openfero.io/admitted-at": "2026-01-02T03:04:05Z",
    }
    with pytest.raises(Invalid):
        await patched(*admission)


@pytest.mark.parametrize(
    "test",
    [
        op("test", "/spec/suspend", False),  # noqa: FBT003
        op("test", "/spec/suspend", 1),
        op("test", "/spec/suspend", "true"),
        op("test", "/spec/backoffLimit", 0.0),
        op("test", "/spec/backoffLimit", "0"),
        op("test", "/spec/selector", {}),
        op("test", "/metadata/uid", "other"),
        op("test", "/metadata/resourceVersion", "1"),
        op("test", "/metadata/annotations/openfero.io~1term", None),
        op("test", "/metadata/annotations/openfero.io~1term", "a/2"),
        op("test", ADMITTED, ""),
        op("test", "/metadata/absent/openfero.io~1term", None),
        op("test", "/metadata/finalizers/0", "example.org/b"),
        op("test", "/metadata/finalizers/2", None),
        op("test", "/metadata/finalizers", ["example.org/b", "example.org/a"]),
    ],
    ids=repr,
)
async def test_failed_test_changes_nothing(
    api: ApiServer, ns: str, patched: Any, test: Operation
) -> None:
    """A failing test at any position makes the patch Invalid, and nothing is changed."""
    for operations in (
        [test, op("add", ADMITTED, "now")],
        [op("add", ADMITTED, "now"), test],
    ):
        with pytest.raises(Invalid):
            await patched(*operations)
    assert (
        "openfero.io/admitted-at"
        not in (await api.get(JOBS, ns, "heal"))["metadata"]["annotations"]
    )


async def test_passing_tests(created_job: Object, patched: Any) -> None:
    """Equal values of every type pass, as do null for an absent member, and the uid."""
    await patched(
        op("test", "/metadata/uid", created_job["metadata"]["uid"]),
        op("test", ADMITTED, None),
        {"op": "test", "path": ADMITTED},
        op("test", "/metadata/absent", None),
        op("test", "/spec/backoffLimit", 0),
        op("test", "/spec/selector", created_job["spec"]["selector"]),
        op("test", "/metadata/finalizers", ["example.org/a", "example.org/b"]),
        op("test", "/metadata/finalizers/1", "example.org/b"),
    )


async def test_operations_are_applied_in_order(patched: Any) -> None:
    """Operations are applied in order."""
    await patched(op("add", ADMITTED, "now"), op("test", ADMITTED, "now"))


async def test_add_replace_remove(patched: Any) -> None:
    """Members are added, replaced and removed; adding an existing member replaces it."""
    term = "/metadata/annotations/openfero.io~1term"
    assert (await patched(op("add", term, "a/2")))["metadata"]["annotations"] == {
        "openfero.io/term": "a/2"
    }
    assert (await patched(op("replace", term, "a/3")))["metadata"]["annotations"] == {
        "openfero.io/term": "a/3"
    }
    assert "annotations" not in (await patched(op("remove", term)))["metadata"]


async def test_replace_adds(patched: Any) -> None:
    """Replacing an absent member adds it, contrary to RFC 6902."""
    replaced = await patched(op("replace", ADMITTED, "now"))
    assert replaced["metadata"]["annotations"]["openfero.io/admitted-at"] == "now"


@pytest.mark.parametrize(
    ("operation", "finalizers"),
    [
        (op("add", "/metadata/finalizers/-", "example.org/c"), "abc"),
        (op("add", "/metadata/finalizers/0", "example.org/c"), "cab"),
        (op("add", "/metadata/finalizers/2", "example.org/c"), "abc"),
        (op("replace", "/metadata/finalizers/1", "example.org/c"), "ac"),
        (op("remove", "/metadata/finalizers/0"), "b"),
    ],
)
async def test_arrays(patched: Any, operation: Operation, finalizers: str) -> None:
    """Items are inserted before an index or at the end, replaced and removed."""
    stored = (await patched(operation))["metadata"]["finalizers"]
    assert "".join(each[-1] for each in stored) == finalizers


@pytest.mark.parametrize(
    "operation",
    [
        op("remove", "/metadata/annotations/absent"),
        op("replace", "/metadata/absent/member", "a"),
        op("add", "/metadata/absent/member", "a"),
        op("add", "/metadata/finalizers/3", "example.org/c"),
        op("add", "/metadata/finalizers/x", "example.org/c"),
        op("replace", "/metadata/finalizers/2", "example.org/c"),
        op("remove", "/metadata/finalizers/2"),
        op("add", "/metadata/name/deeper", "a"),
        op("frobnicate", "/metadata/annotations/a", "b"),
        {"path": "/metadata/annotations/a", "value": "b"},
        op("remove", ""),
    ],
    ids=repr,
)
async def test_impossible_operations(patched: Any, operation: Operation) -> None:
    """An operation that is malformed, or whose path does not exist, is Invalid."""
    with pytest.raises(Invalid):
        await patched(operation)


@pytest.mark.parametrize(
    "operation",
    [
        op("add", "/metadata/labels/a~1b", "b c"),
        op("add", "/metadata/annotations/a~01", "b"),
        op("replace", "/metadata/name", "other"),
        op("remove", "/metadata/name"),
        op("replace", "/metadata/uid", "other"),
        op("replace", "/kind", "Pod"),
        op("replace", "/spec/backoffLimit", -1),
        op("replace", "/spec/backoffLimit", "1"),
        op("replace", "/spec/completions", 2),
        op("replace", "/spec/template/spec/containers/0/image", "other"),
        op("add", "/spec/template/spec/containers/0/env", [{"name": "A", "value": "b"}]),
        op("add", "/spec/template/spec/serviceAccountName", "robot"),
        op("remove", "/spec/template/spec/containers"),
    ],
    ids=repr,
)
async def test_invalid_results_are_rejected(
    api: ApiServer, ns: str, patched: Any, operation: Operation
) -> None:
    """A patch whose result would be rejected is Invalid and changes nothing."""
    before = (await api.get(JOBS, ns, "heal"))["spec"]
    with pytest.raises(Invalid):
        await patched(operation)
    assert (await api.get(JOBS, ns, "heal"))["spec"] == before


@pytest.mark.parametrize(
    "operation",
    [
        op("add", "/spec/template/metadata/annotations", {"a": "b"}),
        op("add", "/spec/template/metadata/labels/a", "b"),
        op("add", "/spec/template/spec/nodeSelector", {"a": "b"}),
        op("add", "/spec/template/spec/tolerations", [{"key": "a", "operator": "Exists"}]),
        op("add", "/spec/template/spec/containers/0/resources", {"limits": {"cpu": "500m"}}),
        op("replace", "/spec/parallelism", 2),
        op("replace", "/spec/backoffLimit", 2),
        op("add", "/spec/activeDeadlineSeconds", 0),
        op("add", "/spec/ttlSecondsAfterFinished", 9),
        op("add", "/metadata/labels", {"kueue.x-k8s.io/queue-name": "q"}),
    ],
    ids=repr,
)
async def test_mutable_fields_of_a_suspended_job(patched: Any, operation: Operation) -> None:
    """Scheduling, resources, labels and limits of a suspended Job can be changed."""
    value: Any = await patched(operation)
    for part in operation["path"][1:].split("/"):
        value = value[int(part) if part.isdecimal() else part.replace("~1", "/")]
    assert value == operation["value"]


async def test_template_of_a_running_job_is_immutable(api: ApiServer, ns: str) -> None:
    """The template of a Job that is not suspended is immutable."""
    await api.create(JOBS, ns, job("runs", {"run-for": "forever"}, suspend=False))
    change = op("add", "/spec/template/metadata/annotations/a", "b")
    with pytest.raises(Invalid, match="immutable"):
        await api.patch(JOBS, ns, "runs", [change])


async def test_removed_suspend_is_false(patched: Any) -> None:
    """A removed field returns to its default."""
    assert (await patched(op("remove", "/spec/suspend")))["spec"]["suspend"] is False


async def test_stale_version_in_a_patch(patched: Any) -> None:
    """A patch that sets a different resourceVersion is a Conflict."""
    with pytest.raises(Conflict):
        await patched(op("replace", "/metadata/resourceVersion", "1"))


async def test_empty_patch(api: ApiServer, ns: str) -> None:
    """A patch that changes nothing leaves the resourceVersion unchanged."""
    created = (await api.create(CONFIG_MAPS, ns, config_map("one", {"a": "b"}))).object
    for operations in ([], [op("add", "/metadata/labels/a", "b")]):
        assert await api.patch(CONFIG_MAPS, ns, "one", operations) == created


async def test_series_of_an_event(api: ApiServer, ns: str) -> None:
    """A repeated occurrence is counted on the existing Event."""
    await api.create(EVENTS, ns, event("again", ns))
    series = {"count": 2, "lastObservedTime": "2026-01-02T03:05:06.000000Z"}
    patched = await api.patch(
        EVENTS, ns, "again", [{"op": "add", "path": "/series", "value": series}]
    )
    assert patched["series"] == series
    assert patched["reason"] == "Admitted"


async def test_patch_can_test_the_resource_version(api: ApiServer, ns: str, patched: Any) -> None:
    """A test of resourceVersion passes as long as the object is unchanged, and fails afterwards."""
    for _ in range(20):  # the Job controller may write to a new Job in between
        settled = (await api.get(JOBS, ns, "heal"))["metadata"]
        test = op("test", "/metadata/resourceVersion", settled["resourceVersion"])
        with contextlib.suppress(Invalid):
            changed = await patched(test, op("add", ADMITTED, "now"))
            break
    assert changed["metadata"]["uid"] == settled["uid"]
    with pytest.raises(Invalid):
        await patched(test, op("add", ADMITTED, "then"))
