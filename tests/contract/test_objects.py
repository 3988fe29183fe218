from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import (
    CONFIG_MAPS,
    EVENTS,
    JOBS,
    LEASES,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
)
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Invalid,
    NotFound,
    Unavailable,
)
from tests.contract.objects import config_map, event, having, job, lease, without

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer

TEMPLATE = ("spec", "template", "spec")


async def test_created_object_has_what_the_server_adds(api: ApiServer, ns: str) -> None:
    """A created object is returned with uid, version, time and namespace, and as it is stored."""
    before = datetime.now(UTC).replace(microsecond=0)
    created = await api.create(CONFIG_MAPS, ns, config_map("one", data={"a": "1"}))
    metadata = created.object["metadata"]
    assert metadata["namespace"] == ns
    assert metadata["uid"]
    assert int(metadata["resourceVersion"]) > 0
    assert datetime.fromisoformat(metadata["creationTimestamp"]) >= before
    assert metadata["creationTimestamp"].endswith("Z")
    assert created.object["data"] == {"a": "1"}
    assert created.warnings == ()
    assert await api.get(CONFIG_MAPS, ns, "one") == created.object


async def test_server_fields_are_dropped(api: ApiServer, ns: str) -> None:
    """Uid, creation time and status of a new object are set by the server only."""
    body = job("heal")
    body["status"] = {"active": 7}
    body["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}
    created = (await api.create(JOBS, ns, body)).object
    assert created["metadata"]["uid"] != "mine"
    assert not created["metadata"]["creationTimestamp"].startswith("2001")
    assert created["status"] == {}
    assert created["metadata"]["generation"] == 1


async def test_objects_are_copied(api: ApiServer, ns: str) -> None:
    """Changing an object that was sent or received changes nothing in the server."""
    body = config_map("one", data={"a": "1"})
    created = (await api.create(CONFIG_MAPS, ns, body)).object
    body["data"]["a"] = created["data"]["a"] = "changed"
    (await api.get(CONFIG_MAPS, ns, "one"))["data"]["a"] = "changed"
    (await api.list(CONFIG_MAPS, ns, label_selector="!x")).items[0].clear()
    assert (await api.get(CONFIG_MAPS, ns, "one"))["data"] == {"a": "1"}


async def test_generated_name(api: ApiServer, ns: str) -> None:
    """An object with generateName gets a unique name."""
    body: Object = {"metadata": {"generateName": "made-"}}
    names = {(await api.create(CONFIG_MAPS, ns, body)).object["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("made-") and len(name) == 10 for name in names)


async def test_taken_name(api: ApiServer, ns: str) -> None:
    """A second object with the same name is AlreadyExists, also in a dry run."""
    await api.create(JOBS, ns, job("heal"))
    with pytest.raises(AlreadyExists, match=r'jobs\.batch "heal" already exists'):
        await api.create(JOBS, ns, job("heal"))
    with pytest.raises(AlreadyExists):
        await api.create(JOBS, ns, job("heal"), dry_run=True)


async def test_one_of_many_creators_wins(api: ApiServer, ns: str) -> None:
    """Of twenty concurrent creates of one name one succeeds; the others are AlreadyExists."""
    answers = await asyncio.gather(
        *(api.create(JOBS, ns, job("heal")) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, AlreadyExists) for answer in answers) == 19


async def test_dry_run_stores_nothing(api: ApiServer, ns: str) -> None:
    """A dry run returns the object with its defaults and stores nothing."""
    shown = (await api.create(JOBS, ns, job("heal"), dry_run=True)).object
    assert shown["spec"]["completions"] == 1
    assert "resourceVersion" not in shown["metadata"]
    with pytest.raises(NotFound):
        await api.get(JOBS, ns, "heal")


async def test_dry_run_rejects_invalid_objects(api: ApiServer, ns: str) -> None:
    """A dry run rejects what a real create would reject."""
    with pytest.raises(Invalid):
        await api.create(JOBS, ns, without(job("heal"), *TEMPLATE), dry_run=True)


async def test_job_defaults(api: ApiServer, ns: str) -> None:
    """A stored Job has the server's defaults, its selector and the labels of its Pods."""
    body = job("heal")
    container = body["spec"]["template"]["spec"]["containers"][0]
    body["spec"]["template"]["spec"]["initContainers"] = [{"name": "first", "image": "busybox"}]
    spec = (await api.create(JOBS, ns, without(body, "spec", "backoffLimit"))).object["spec"]
    stored = await api.get(JOBS, ns, "heal")
    uid = stored["metadata"]["uid"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (1, 1, 6)
    assert (spec["completionMode"], spec["manualSelector"]) == ("NonIndexed", False)
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    generated = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "heal",
        "controller-uid": uid,
        "job-name": "heal",
    }
    assert spec["template"]["metadata"]["labels"] == generated
    assert stored["metadata"]["labels"] == generated
    pod = spec["template"]["spec"]
    assert {key: pod[key] for key in pod if not key.endswith("ontainers")} == {
        "restartPolicy": "Never",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    added = {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    assert pod["containers"] == [{**container, **added, "imagePullPolicy": "IfNotPresent"}]
    assert pod["initContainers"] == [
        {"name": "first", "image": "busybox", **added, "imagePullPolicy": "Always"}
    ]


async def test_labels_of_a_job(api: ApiServer, ns: str) -> None:
    """A Job with labels keeps exactly these; a Job without gets those of its Pods."""
    labelled, unlabelled = job("labelled"), job("unlabelled")
    labelled["metadata"]["labels"] = {"team": "shop"}
    for body in (labelled, unlabelled):
        body["spec"]["template"]["metadata"]["labels"] = {"app": "web"}
    first = (await api.create(JOBS, ns, labelled)).object
    second = (await api.create(JOBS, ns, unlabelled)).object
    assert first["metadata"]["labels"] == {"team": "shop"}
    assert second["metadata"]["labels"] == second["spec"]["template"]["metadata"]["labels"]
    assert second["metadata"]["labels"]["app"] == "web"
    assert len(second["metadata"]["labels"]) == 5


async def test_null_label_is_empty(api: ApiServer, ns: str) -> None:
    """A label or annotation that is null is stored as an empty string."""
    metadata = {"name": "one", "labels": {"a": None}, "annotations": {"b": None}}
    stored = (await api.create(CONFIG_MAPS, ns, {"metadata": metadata})).object["metadata"]
    assert (stored["labels"], stored["annotations"]) == ({"a": ""}, {"b": ""})


async def test_other_resources(api: ApiServer, ns: str) -> None:
    """Leases, Events and ServiceAccounts are stored and read unchanged."""
    spec = {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "renewTime": "2026-01-02T03:04:05.678901Z",
        "acquireTime": "2026-01-02T03:04:05.000000Z",
        "leaseTransitions": 0,
    }
    await api.create(LEASES, ns, lease("leader", **spec))
    assert (await api.get(LEASES, ns, "leader"))["spec"] == spec
    await api.create(EVENTS, ns, event("e", ns, note="heal was admitted"))
    assert (await api.get(EVENTS, ns, "e"))["note"] == "heal was admitted"
    await api.create(SERVICE_ACCOUNTS, ns, {"metadata": {"name": "robot"}})
    assert (await api.get(SERVICE_ACCOUNTS, ns, "robot"))["kind"] == "ServiceAccount"


LONG = "x" * 64
WRONG: dict[str, tuple[Resource, Object]] = {
    "no-name": (CONFIG_MAPS, {"metadata": {}}),
    "upper-case-name": (CONFIG_MAPS, config_map("Heal")),
    "name-with-a-space": (CONFIG_MAPS, config_map("a b")),
    "name-of-254": (CONFIG_MAPS, config_map("x" * 254)),
    "other-kind": (CONFIG_MAPS, job("heal")),
    "other-namespace": (CONFIG_MAPS, {"metadata": {"name": "one", "namespace": "elsewhere"}}),
    "label-value-with-a-space": (CONFIG_MAPS, config_map("one", {"a": "b c"})),
    "label-value-of-64": (CONFIG_MAPS, config_map("one", {"a": LONG})),
    "label-value-that-ends-with-a-dash": (CONFIG_MAPS, config_map("one", {"a": "b-"})),
    "label-key-with-a-space": (CONFIG_MAPS, config_map("one", {"a b": "c"})),
    "label-that-is-a-number": (CONFIG_MAPS, {"metadata": {"name": "a", "labels": {"a": 1}}}),
    "annotation-key-with-a-space": (
        CONFIG_MAPS,
        {"metadata": {"name": "a", "annotations": {"a b": "c"}}},
    ),
    "annotations-of-256-KiB": (
        CONFIG_MAPS,
        {"metadata": {"name": "a", "annotations": {"a": "x" * 262_144}}},
    ),
    "unqualified-finalizer": (CONFIG_MAPS, {"metadata": {"name": "a", "finalizers": ["mine"]}}),
    "data-key-with-a-space": (CONFIG_MAPS, config_map("one", data={"My Alert": "1"})),
    "data-that-is-a-number": (CONFIG_MAPS, config_map("one", data={"a": 1})),
    "data-over-1-MiB": (CONFIG_MAPS, config_map("one", data={"a": "x" * 1_048_577})),
    "job-without-spec": (JOBS, without(job("heal"), "spec")),
    "job-without-template": (JOBS, without(job("heal"), "spec", "template")),
    "job-without-containers": (JOBS, without(job("heal"), *TEMPLATE, "containers")),
    "job-with-no-containers": (JOBS, having(job("heal"), [], *TEMPLATE, "containers")),
    "job-without-image": (JOBS, having(job("heal"), [{"name": "a"}], *TEMPLATE, "containers")),
    "job-with-a-nameless-container": (
        JOBS,
        having(job("heal"), [{"image": "a"}], *TEMPLATE, "containers"),
    ),
    "job-with-two-containers-of-one-name": (
        JOBS,
        having(job("heal"), [{"name": "a", "image": "b"}] * 2, *TEMPLATE, "containers"),
    ),
    "job-with-a-bad-container-name": (
        JOBS,
        having(job("heal"), [{"name": "A_b", "image": "b"}], *TEMPLATE, "containers"),
    ),
    "job-with-a-bad-pull-policy": (
        JOBS,
        having(
            job("heal"),
            [{"name": "a", "image": "b", "imagePullPolicy": "Sometimes"}],
            *TEMPLATE,
            "containers",
        ),
    ),
    "job-with-a-bad-variable": (
        JOBS,
        having(
            job("heal"),
            [{"name": "a", "image": "b", "env": [{"name": "OPENFERO_é", "value": "c"}]}],
            *TEMPLATE,
            "containers",
        ),
    ),
    "job-with-a-variable-that-is-a-number": (
        JOBS,
        having(
            job("heal"),
            [{"name": "a", "image": "b", "env": [{"name": "A", "value": 1}]}],
            *TEMPLATE,
            "containers",
        ),
    ),
    "job-with-a-mount-of-nothing": (
        JOBS,
        having(
            job("heal"),
            [{"name": "a", "image": "b", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            *TEMPLATE,
            "containers",
        ),
    ),
    "job-without-restart-policy": (JOBS, without(job("heal"), *TEMPLATE, "restartPolicy")),
    "job-that-always-restarts": (JOBS, having(job("heal"), "Always", *TEMPLATE, "restartPolicy")),
    "job-with-negative-backoff": (JOBS, job("heal", backoffLimit=-1)),
    "job-with-negative-deadline": (JOBS, job("heal", activeDeadlineSeconds=-1)),
    "job-with-negative-ttl": (JOBS, job("heal", ttlSecondsAfterFinished=-1)),
    "job-with-a-deadline-that-is-text": (JOBS, job("heal", activeDeadlineSeconds="9")),
    "job-with-a-deadline-that-is-true": (JOBS, job("heal", activeDeadlineSeconds=True)),
    "job-suspended-by-text": (JOBS, job("heal", suspend="yes")),
    "job-suspended-by-a-number": (JOBS, job("heal", suspend=1)),
    "job-name-of-64": (JOBS, job(LONG)),
    "indexed-job-name-of-63": (JOBS, job(LONG[1:], completionMode="Indexed")),
    "job-with-a-bad-label-of-its-pods": (
        JOBS,
        having(job("heal"), {"labels": {"a": "b c"}}, "spec", "template", "metadata"),
    ),
    "lease-without-duration": (LEASES, lease("a", leaseDurationSeconds=0)),
    "lease-time-without-micros": (LEASES, lease("a", renewTime="2026-01-02T03:04:05Z")),
    "lease-time-with-millis": (LEASES, lease("a", renewTime="2026-01-02T03:04:05.123Z")),
    "event-without-time": (EVENTS, without(event("e", "x"), "eventTime")),
    "event-without-action": (EVENTS, without(event("e", "x"), "action")),
    "event-without-reason": (EVENTS, without(event("e", "x"), "reason")),
    "event-without-controller": (EVENTS, without(event("e", "x"), "reportingController")),
    "event-without-instance": (EVENTS, without(event("e", "x"), "reportingInstance")),
    "event-without-subject": (EVENTS, without(event("e", "x"), "regarding")),
    "event-of-an-unknown-type": (EVENTS, event("e", "x", type="Odd")),
    "event-with-a-long-note": (EVENTS, event("e", "x", note="x" * 1025)),
    "no-json": (CONFIG_MAPS, config_map("one", data={"a": object()})),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_invalid_objects_are_rejected(api: ApiServer, ns: str, wrong: str) -> None:
    """An invalid object is Invalid, with a one-line message, and is not stored."""
    resource, body = WRONG[wrong]
    with pytest.raises(Invalid) as refused:
        await api.create(resource, ns, body)
    assert "\n" not in str(refused.value)
    assert refused.value.answered
    kept = {item["metadata"]["name"] for item in (await api.list(resource, ns)).items}
    assert body["metadata"].get("name") not in kept


RIGHT: dict[str, tuple[Resource, Object]] = {
    "job-name-of-63": (JOBS, job("x" * 63)),
    "job-name-with-a-dot": (JOBS, job("heal.it")),
    "indexed-job-name-of-61": (JOBS, job("x" * 61, completionMode="Indexed", completions=2)),
    "job-with-deadline-0": (JOBS, job("heal", activeDeadlineSeconds=0)),
    "job-that-restarts-on-failure": (
        JOBS,
        having(job("heal"), "OnFailure", *TEMPLATE, "restartPolicy"),
    ),
    "variable-name-with-a-space": (
        JOBS,
        having(
            job("heal"),
            [{"name": "a", "image": "b", "env": [{"name": "a b", "value": "c"}]}],
            *TEMPLATE,
            "containers",
        ),
    ),
    "mount-of-a-volume": (
        JOBS,
        having(
            job("heal"),
            {
                "restartPolicy": "Never",
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [
                    {
                        "name": "a",
                        "image": "b@sha256:" + "0" * 64,
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    }
                ],
            },
            *TEMPLATE,
        ),
    ),
    "empty-label": (CONFIG_MAPS, config_map("one", {"a": ""})),
    "label-of-63": (CONFIG_MAPS, config_map("one", {"example.org/" + "k" * 63: "v" * 63})),
    "annotation-key-in-upper-case": (
        CONFIG_MAPS,
        {"metadata": {"name": "a", "annotations": {"Example.org/A": "c"}}},
    ),
    "data-key-with-everything": (CONFIG_MAPS, config_map("one", data={"-._aA0": "1"})),
    "name-with-dots": (CONFIG_MAPS, config_map("a.b-c.1")),
    "lease-without-holder": (LEASES, lease("a", holderIdentity="", leaseDurationSeconds=1)),
    "lease-time-with-offset": (LEASES, lease("a", renewTime="2026-01-02T03:04:05.000000+01:00")),
}


@pytest.mark.parametrize("right", RIGHT)
async def test_unusual_valid_objects_are_stored(api: ApiServer, ns: str, right: str) -> None:
    """An unusual but valid object is stored."""
    resource, body = RIGHT[right]
    await api.create(resource, ns, body)
    assert (await api.get(resource, ns, body["metadata"]["name"]))["kind"] == resource.kind


async def test_version_of_a_new_object(api: ApiServer, ns: str) -> None:
    """A new object with a resourceVersion is rejected."""
    with pytest.raises(Unavailable, match="resourceVersion should not be set"):
        await api.create(CONFIG_MAPS, ns, {"metadata": {"name": "one", "resourceVersion": "5"}})
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, ns, "one")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a%2fb"])
async def test_names_that_are_not_path_segments(api: ApiServer, ns: str, name: str) -> None:
    """A name that would change the URL's path is rejected without any effect."""
    await api.create(CONFIG_MAPS, ns, config_map("one"))
    body = {"metadata": {"name": name}}
    for call in (
        api.get(CONFIG_MAPS, ns, name),
        api.delete(CONFIG_MAPS, ns, name),
        api.patch(CONFIG_MAPS, ns, name, []),
        api.replace(CONFIG_MAPS, ns, body),
    ):
        with pytest.raises(Invalid):
            await call
    assert await api.get(CONFIG_MAPS, ns, "one")


async def test_missing_objects(api: ApiServer, ns: str) -> None:
    """Every verb on a missing object is NotFound."""
    for call in (
        api.get(JOBS, ns, "gone"),
        api.delete(JOBS, ns, "gone"),
        api.patch(JOBS, ns, "gone", []),
        api.replace(JOBS, ns, job("gone")),
    ):
        with pytest.raises(NotFound, match=r'jobs\.batch "gone" not found'):
            await call


async def test_replace(api: ApiServer, ns: str) -> None:
    """A replace stores the complete new object under the old uid and a later version."""
    old = (await api.create(CONFIG_MAPS, ns, config_map("one", {"a": "b"}, data={"x": "1"}))).object
    new = await api.replace(CONFIG_MAPS, ns, config_map("one", data={"y": "2"}))
    assert new["data"] == {"y": "2"}
    assert "labels" not in new["metadata"]
    assert new["metadata"]["uid"] == old["metadata"]["uid"]
    assert new["metadata"]["creationTimestamp"] == old["metadata"]["creationTimestamp"]
    assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
    assert await api.get(CONFIG_MAPS, ns, "one") == new


async def test_replace_at_a_version(api: ApiServer, ns: str) -> None:
    """A replace at the current version succeeds, at an older one it is a Conflict."""
    old = (await api.create(CONFIG_MAPS, ns, config_map("one", data={"a": "1"}))).object
    old["data"]["a"] = "2"
    await api.replace(CONFIG_MAPS, ns, old)
    old["data"]["a"] = "3"
    with pytest.raises(Conflict, match="the object has been modified"):
        await api.replace(CONFIG_MAPS, ns, old)
    assert (await api.get(CONFIG_MAPS, ns, "one"))["data"] == {"a": "2"}


async def test_one_of_many_writers_wins(api: ApiServer, ns: str) -> None:
    """Of twenty concurrent replaces at one version one succeeds."""
    created = (await api.create(LEASES, ns, lease("leader", holderIdentity="nobody"))).object
    answers = await asyncio.gather(
        *(
            api.replace(LEASES, ns, having(created, {"holderIdentity": f"r{n}"}, "spec"))
            for n in range(20)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Conflict) for answer in answers) == 19


async def test_replace_of_another_object(api: ApiServer, ns: str) -> None:
    """A replace with the uid of a recreated object's predecessor is a Conflict."""
    old = (await api.create(CONFIG_MAPS, ns, config_map("one"))).object
    await api.delete(CONFIG_MAPS, ns, "one")
    await api.create(CONFIG_MAPS, ns, config_map("one"))
    with pytest.raises(Conflict):
        await api.replace(CONFIG_MAPS, ns, without(old, "metadata", "resourceVersion"))


async def test_replace_without_a_change(api: ApiServer, ns: str) -> None:
    """A replace that changes nothing leaves the resourceVersion unchanged."""
    old = (await api.create(CONFIG_MAPS, ns, config_map("one", data={"a": "1"}))).object
    assert await api.replace(CONFIG_MAPS, ns, old) == old
    unchanged = await api.replace(CONFIG_MAPS, ns, config_map("one", data={"a": "1"}))
    assert unchanged["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]


async def test_replace_of_a_lease_needs_its_version(api: ApiServer, ns: str) -> None:
    """A Lease can be replaced only with its resourceVersion."""
    await api.create(LEASES, ns, lease("leader", holderIdentity="a"))
    with pytest.raises(Invalid, match="must be specified for an update"):
        await api.replace(LEASES, ns, lease("leader", holderIdentity="b"))


async def test_replace_of_a_deleted_lease(api: ApiServer, ns: str) -> None:
    """Replacing a deleted Lease creates it, unless the replace has its former uid."""
    old = (await api.create(LEASES, ns, lease("leader", holderIdentity="a"))).object
    await api.delete(LEASES, ns, "leader")
    with pytest.raises(Conflict):
        await api.replace(LEASES, ns, old)
    await api.replace(LEASES, ns, without(old, "metadata", "uid"))
    assert (await api.get(LEASES, ns, "leader"))["metadata"]["uid"] != old["metadata"]["uid"]


async def test_generation_counts_changes_of_the_spec(api: ApiServer, ns: str) -> None:
    """A Job's generation grows with its spec, not its labels; writes to status are ignored."""
    await api.create(JOBS, ns, job("heal"))
    labels = {"op": "add", "path": "/metadata/labels/a", "value": "b"}
    status = {"op": "add", "path": "/status/active", "value": 7}
    labelled = await api.patch(JOBS, ns, "heal", [labels, status])
    assert labelled["metadata"]["generation"] == 1
    assert labelled["status"].get("active") is None
    ttl = {"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": 9}
    assert (await api.patch(JOBS, ns, "heal", [ttl]))["metadata"]["generation"] == 2


IMMUTABLE = config_map("one", data={"a": "1"}, immutable=True)


@pytest.mark.parametrize(
    "changed",
    [
        having(IMMUTABLE, {"a": "2"}, "data"),
        having(IMMUTABLE, {"a": "1", "b": "2"}, "data"),
        without(IMMUTABLE, "data"),
        without(IMMUTABLE, "immutable"),
        IMMUTABLE | {"immutable": False},
    ],
)
async def test_immutable_config_map(api: ApiServer, ns: str, changed: Object) -> None:
    """An immutable ConfigMap's data cannot be changed, and it cannot be made mutable."""
    await api.create(CONFIG_MAPS, ns, IMMUTABLE)
    with pytest.raises(Invalid, match="field is immutable"):
        await api.replace(CONFIG_MAPS, ns, changed)
    assert (await api.get(CONFIG_MAPS, ns, "one"))["data"] == {"a": "1"}


async def test_labels_of_an_immutable_config_map(api: ApiServer, ns: str) -> None:
    """An immutable ConfigMap can be labelled and deleted."""
    await api.create(CONFIG_MAPS, ns, IMMUTABLE)
    await api.replace(CONFIG_MAPS, ns, having(IMMUTABLE, {"a": "b"}, "metadata", "labels"))
    await api.delete(CONFIG_MAPS, ns, "one")


async def test_delete(api: ApiServer, ns: str) -> None:
    """A deleted object is gone, and its name can be used again."""
    old = (await api.create(CONFIG_MAPS, ns, config_map("one"))).object
    await api.delete(CONFIG_MAPS, ns, "one")
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, ns, "one")
    new = (await api.create(CONFIG_MAPS, ns, config_map("one"))).object
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


async def test_delete_with_preconditions(api: ApiServer, ns: str) -> None:
    """A delete with a different uid or version is a Conflict and deletes nothing."""
    metadata = (await api.create(CONFIG_MAPS, ns, config_map("one"))).object["metadata"]
    uid, version = metadata["uid"], metadata["resourceVersion"]
    wrong: list[dict[str, Any]] = [
        {"uid": "other"},
        {"resource_version": "1"},
        {"uid": uid, "resource_version": "1"},
        {"uid": "other", "resource_version": version},
    ]
    for preconditions in wrong:
        with pytest.raises(Conflict):
            await api.delete(CONFIG_MAPS, ns, "one", **preconditions)
    await api.delete(CONFIG_MAPS, ns, "one", uid=uid, resource_version=version)


async def test_deleted_object_with_finalizers(api: ApiServer, ns: str) -> None:
    """A deleted object with a finalizer stays, and keeps its name, until that is removed."""
    body = config_map("one")
    body["metadata"]["finalizers"] = ["example.org/wait"]
    await api.create(CONFIG_MAPS, ns, body)
    await api.delete(CONFIG_MAPS, ns, "one")
    leaving = await api.get(CONFIG_MAPS, ns, "one")
    assert leaving["metadata"]["deletionTimestamp"]
    with pytest.raises(AlreadyExists, match="object is being deleted"):
        await api.create(CONFIG_MAPS, ns, config_map("one"))
    more = {"op": "add", "path": "/metadata/finalizers/-", "value": "example.org/more"}
    with pytest.raises(Invalid, match="finalizers"):
        await api.patch(CONFIG_MAPS, ns, "one", [more])
    await api.delete(CONFIG_MAPS, ns, "one")
    again = await api.get(CONFIG_MAPS, ns, "one")
    assert again["metadata"]["resourceVersion"] == leaving["metadata"]["resourceVersion"]
    await api.patch(CONFIG_MAPS, ns, "one", [{"op": "remove", "path": "/metadata/finalizers"}])
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, ns, "one")


async def test_namespaces_are_separate(api: ApiServer, ns: str) -> None:
    """An object is visible in its namespace only."""
    await api.create(CONFIG_MAPS, ns, config_map("only-here"))
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, "default", "only-here")
    others = (await api.list(CONFIG_MAPS, "default")).items
    assert "only-here" not in {item["metadata"]["name"] for item in others}


async def test_errors_are_marked_as_answered(api: ApiServer, ns: str) -> None:
    """An error response is marked as answered: the request was not carried out."""
    with pytest.raises(ApiError) as refused:
        await api.get(CONFIG_MAPS, ns, "gone")
    assert refused.value.answered
