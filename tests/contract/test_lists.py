from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import (
    CONFIG_MAP_METADATA,
    CONFIG_MAPS,
    EVENTS,
    EVERYWHERE,
    JOB_STATES,
    JOBS,
)
from openfero_gitops.domain.errors import Invalid, NotFound
from tests.contract.objects import config_map, event, job

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer, Object


async def test_list(api: ApiServer, ns: str) -> None:
    """A list has the current state of each object, and a version that is at least as new."""
    made = [(await api.create(JOBS, ns, job(f"heal-{n}"))).object for n in range(3)]
    await api.delete(JOBS, ns, "heal-1")
    listing = await api.list(JOBS, ns)
    assert [item["metadata"]["name"] for item in listing.items] == ["heal-0", "heal-2"]
    assert {(item["apiVersion"], item["kind"]) for item in listing.items} == {("batch/v1", "Job")}
    assert listing.items[0]["metadata"]["uid"] == made[0]["metadata"]["uid"]
    latest = max(int(item["metadata"]["resourceVersion"]) for item in listing.items)
    assert int(listing.resource_version) >= latest


async def test_list_sees_the_last_write(api: ApiServer, ns: str) -> None:
    """A list right after a write always includes that write."""
    for n in range(20):
        await api.create(CONFIG_MAPS, ns, config_map(f"one-{n}", {"mine": "yes"}))
        assert len((await api.list(CONFIG_MAPS, ns, label_selector="mine=yes")).items) == n + 1


async def test_a_field_selector_selects_the_events_of_an_object(api: ApiServer, ns: str) -> None:
    """Of all Events those about one object are listed; the field must have exactly this value."""
    for uid in ("uid-a", "uid-b", "uid-a"):
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": ns, "name": "web", "uid": uid}
        name = f"e-{len((await api.list(EVENTS, ns)).items)}"
        await api.create(EVENTS, ns, event(name, ns, regarding=about))
    for uid, names in (("uid-a", ["e-0", "e-2"]), ("uid-b", ["e-1"]), ("uid", [])):
        listing = await api.list(EVENTS, ns, field_selector=f"regarding.uid={uid}")
        assert [item["metadata"]["name"] for item in listing.items] == names


async def test_empty_list(api: ApiServer, ns: str) -> None:
    """An empty list has a version to watch from."""
    listing = await api.list(JOBS, ns)
    assert listing.items == []
    assert int(listing.resource_version) > 0


async def test_list_of_all_namespaces(api: ApiServer, ns: str, other_ns: str) -> None:
    """A list across namespaces gives each object its namespace."""
    for place in (ns, other_ns):
        await api.create(JOBS, place, labelled(ns))
    listing = await api.list(JOBS, EVERYWHERE, label_selector=f"everywhere={ns}")
    assert {item["metadata"]["namespace"] for item in listing.items} == {ns, other_ns}
    assert {(item["apiVersion"], item["kind"]) for item in listing.items} == {("batch/v1", "Job")}
    with pytest.raises(NotFound):
        await api.get(JOBS, EVERYWHERE, "heal")


def labelled(value: str) -> dict[str, Any]:
    """Return a Job with a label."""
    body = job("heal")
    return {**body, "metadata": {"name": "heal", "labels": {"everywhere": value}}}


LABELS = {
    "web-firing": {"app": "web", "openfero.io/status": "firing"},
    "web-resolved": {"app": "web", "openfero.io/status": "resolved"},
    "db-firing": {"app": "db", "openfero.io/status": "firing", "team": ""},
    "bare": {"other": "x"},
}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("app=web", "web-firing web-resolved"),
        ("app==web", "web-firing web-resolved"),
        (" app = web ", "web-firing web-resolved"),
        ("app!=web", "bare db-firing"),
        ("app=web,openfero.io/status=firing", "web-firing"),
        ("app=web, openfero.io/status!=firing", "web-resolved"),
        ("app in (web,db)", "db-firing web-firing web-resolved"),
        ("app in ( db , none )", "db-firing"),
        ("app in(db)", "db-firing"),
        ("app notin (web)", "bare db-firing"),
        ("app notin (web,db),other", "bare"),
        ("app", "db-firing web-firing web-resolved"),
        ("!app", "bare"),
        ("! app", "bare"),
        ("app,!team", "web-firing web-resolved"),
        ("team=", "db-firing"),
        ("team in ()", "db-firing"),
        ("app=none", ""),
        ("app=web,app=db", ""),
    ],
)
async def test_selectors(api: ApiServer, ns: str, selector: str, selected: str) -> None:
    """Every operator of label selectors selects what Kubernetes documents."""
    for name, labels in LABELS.items():
        await api.create(CONFIG_MAPS, ns, config_map(name, labels))
    # The cluster itself puts an unlabelled ConfigMap into each namespace.
    listing = await api.list(CONFIG_MAPS, ns, label_selector=selector)
    names = {item["metadata"]["name"] for item in listing.items} & set(LABELS)
    assert " ".join(sorted(names)) == selected


@pytest.mark.parametrize(
    "selector", ["a in b", "a b", "=x", "a in (x", "é=1", "a=b c", ",", "a,,b", "a=2,", "a in"]
)
async def test_malformed_selectors(api: ApiServer, ns: str, selector: str) -> None:
    """A malformed selector is Invalid for list and watch."""
    with pytest.raises(Invalid):
        await api.list(CONFIG_MAPS, ns, label_selector=selector)
    watch = api.watch(CONFIG_MAPS, ns, resource_version="1", label_selector=selector, timeout=1)
    with pytest.raises(Invalid):
        await anext(watch)


async def test_many_objects(api: ApiServer, ns: str) -> None:
    """A list of 1,200 objects has each of them once, in order, from one consistent state."""
    left = iter(range(1200))

    async def create() -> None:
        for n in left:
            await api.create(CONFIG_MAPS, ns, config_map(f"n-{n:04}", {"mine": "yes"}))

    await asyncio.gather(*(create() for _ in range(32)))
    listing = await api.list(CONFIG_MAPS, ns, label_selector="mine=yes")
    assert [item["metadata"]["name"] for item in listing.items] == [
        f"n-{n:04}" for n in range(1200)
    ]
    assert int(listing.resource_version) >= max(
        int(item["metadata"]["resourceVersion"]) for item in listing.items
    )


async def test_reading_while_listing(api: ApiServer, ns: str) -> None:
    """A list contains what was made of each object, without those of which nothing was made."""
    for n in range(4):
        await api.create(CONFIG_MAPS, ns, config_map(f"n-{n}", {"mine": "yes"}, data={"n": str(n)}))

    def odd(item: Object) -> str | None:
        return str(item["data"]["n"]) if int(item["data"]["n"]) % 2 else None

    listing = await api.list(CONFIG_MAPS, ns, label_selector="mine=yes", read=odd)
    assert listing.items == ["1", "3"]
    assert int(listing.resource_version) > 0


async def test_some_objects(api: ApiServer, ns: str) -> None:
    """At most so many objects are read, whether or not something is kept of them."""
    for n in range(3):
        await api.create(CONFIG_MAPS, ns, config_map(f"n-{n}", {"mine": "yes"}))
    seen: list[str] = []

    def note(item: Object) -> None:
        seen.append(item["metadata"]["name"])

    selector = "mine=yes"
    listing = await api.list(CONFIG_MAPS, ns, label_selector=selector, read=note, max_objects=2)
    assert (listing.items, seen) == ([], ["n-0", "n-1"])


async def test_metadata_alone(api: ApiServer, ns: str) -> None:
    """A list of metadata has the metadata and the kind of each object, and nothing else."""
    body = config_map("one", {"mine": "yes"}, data={"large": "x" * 1000})
    created = (await api.create(CONFIG_MAPS, ns, body)).object
    (item,) = (await api.list(CONFIG_MAP_METADATA, ns, label_selector="mine=yes")).items
    assert item.keys() == {"apiVersion", "kind", "metadata"}
    assert (item["apiVersion"], item["kind"]) == ("v1", "ConfigMap")
    for member in ("name", "namespace", "uid", "resourceVersion", "labels"):
        assert item["metadata"][member] == created["metadata"][member]


async def test_job_states(api: ApiServer, ns: str) -> None:
    """What is not needed of a Job may be missing from every answer; the rest is unchanged."""
    body = job("heal", ttlSecondsAfterFinished=60)
    body["metadata"] |= {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    answers = [(await api.create(JOB_STATES, ns, body)).object]
    answers += (await api.list(JOB_STATES, ns)).items
    answers.append(await api.get(JOB_STATES, ns, "heal"))
    for answer in answers:
        metadata, spec = answer["metadata"], answer["spec"]
        assert (metadata["name"], metadata["namespace"]) == ("heal", ns)
        assert (metadata["labels"], metadata["annotations"]) == ({"a": "b"}, {"c": "d"})
        assert (spec["suspend"], spec["ttlSecondsAfterFinished"]) == (True, 60)
        assert metadata["uid"]
        assert metadata["resourceVersion"]


async def test_version(api: ApiServer) -> None:
    """A server reports its Kubernetes version in a comparable form."""
    assert re.fullmatch(r"v1\.[0-9]+\.[0-9]+\S*", await api.version())
