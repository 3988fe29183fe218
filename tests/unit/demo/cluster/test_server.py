"""The in-memory cluster over HTTP, as commands use it."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml

from openfero_gitops.cluster.api import CONFIG_MAPS, EVERYWHERE, JOBS, PODS, Change
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.demo.cluster.server import USER, serve_cluster
from openfero_gitops.domain.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unauthorized,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAMESPACE = "openfero-demo"


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[KubernetesApi]:
    """Serve a cluster, and connect to it with the kubeconfig that is written."""
    async with serve_cluster(MemoryCluster(), folder, NAMESPACE) as kubeconfig:
        api = await KubernetesApi.connect(kubeconfig)
        try:
            yield api
        finally:
            await api.close()


async def test_objects_are_written_and_read(tmp_path: Path) -> None:
    """Objects are created, read, listed, replaced, patched and deleted as in the cluster."""
    async with served(tmp_path) as api:
        assert api.default_namespace == NAMESPACE
        assert await api.whoami() == USER
        assert await api.version() == "v1.36.0+memory"
        body = {"metadata": {"name": "a", "labels": {"mine": "yes"}}, "data": {"n": "1"}}
        await api.create(CONFIG_MAPS, NAMESPACE, body, dry_run=True)
        created = (await api.create(CONFIG_MAPS, NAMESPACE, body)).object
        assert await api.get(CONFIG_MAPS, NAMESPACE, "a") == created
        listed = await api.list(CONFIG_MAPS, EVERYWHERE, label_selector="mine=yes")
        assert [item["metadata"]["name"] for item in listed.items] == ["a"]
        await api.replace(CONFIG_MAPS, NAMESPACE, {**created, "data": {"n": "2"}})
        patch = [{"op": "add", "path": "/data/n", "value": "3"}]
        assert (await api.patch(CONFIG_MAPS, NAMESPACE, "a", patch))["data"] == {"n": "3"}
        await api.delete(CONFIG_MAPS, NAMESPACE, "a", uid=created["metadata"]["uid"])
        assert (await api.list(CONFIG_MAPS, NAMESPACE)).items == []


async def test_errors_are_those_of_the_cluster(tmp_path: Path) -> None:
    """Each error reaches the client as the error that the cluster raised."""
    body = {"metadata": {"name": "a"}}
    async with served(tmp_path) as api:
        created = (await api.create(CONFIG_MAPS, NAMESPACE, body)).object
        with pytest.raises(AlreadyExists):
            await api.create(CONFIG_MAPS, NAMESPACE, body)
        with pytest.raises(NotFound, match='"b" not found'):
            await api.get(CONFIG_MAPS, NAMESPACE, "b")
        with pytest.raises(Conflict):
            await api.delete(CONFIG_MAPS, NAMESPACE, "a", uid="another")
        failing = [{"op": "test", "path": "/data", "value": {"n": "1"}}]
        with pytest.raises(Invalid):
            await api.patch(CONFIG_MAPS, NAMESPACE, "a", failing)
        with pytest.raises(NotFound, match="the demo's API server does not support GET /openapi"):
            await api.published_schema("batch", "v1")
        assert created == await api.get(CONFIG_MAPS, NAMESPACE, "a")


async def test_changes_are_watched(tmp_path: Path) -> None:
    """A watch delivers the changes after a version."""
    async with served(tmp_path) as api:
        since = (await api.list(CONFIG_MAPS, NAMESPACE)).resource_version
        watch = api.watch(CONFIG_MAPS, NAMESPACE, resource_version=since)
        async with asyncio.timeout(30), aclosing(watch) as events:
            assert (await anext(events)).change is Change.BOOKMARK
            await api.create(CONFIG_MAPS, NAMESPACE, {"metadata": {"name": "a"}})
            event = await anext(events)
    assert (event.change, event.object["metadata"]["name"]) == (Change.ADDED, "a")


async def test_access_requires_the_token(tmp_path: Path) -> None:
    """The kubeconfig is private, and requests without its token are refused."""
    async with serve_cluster(MemoryCluster(), tmp_path, NAMESPACE) as kubeconfig:
        assert kubeconfig.stat().st_mode & 0o777 == 0o600
        content = kubeconfig.read_text()
        server = yaml.safe_load(content)["clusters"][0]["cluster"]["server"]
        assert server.startswith("http://127.0.0.1:")
        async with aiohttp.ClientSession() as http:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                async with http.get(f"{server}/api/v1/pods", headers=headers) as answer:
                    assert answer.status == 401
        other = tmp_path / "other"
        token = yaml.safe_load(content)["users"][0]["user"]["token"]
        other.write_text(content.replace(token, "wrong"))
        api = await KubernetesApi.connect(other)
        with pytest.raises(Unauthorized):
            await api.list(PODS, NAMESPACE)
        await api.close()


def job(**changes: Any) -> dict[str, Any]:
    """Return a waiting Job of the controller."""
    metadata: dict[str, Any] = {
        "name": "a",
        "labels": {"openfero.io/managed-by": "openfero-gitops"},
        "annotations": {"openfero.io/operario": "o"},
    }
    container = {"name": "c", "image": "i"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"metadata": metadata, "spec": {"suspend": True, "template": template, **changes}}


async def test_users_decide_about_jobs_in_their_own_name_only(tmp_path: Path) -> None:
    """What the chart's policy refuses, the demo refuses, too; the controller is not asked."""
    cluster = MemoryCluster()
    await cluster.create(JOBS, NAMESPACE, job())
    async with serve_cluster(cluster, tmp_path, NAMESPACE, for_users=True) as kubeconfig:
        api = await KubernetesApi.connect(kubeconfig)

        async def write(path: str, value: object) -> None:
            await api.patch(JOBS, NAMESPACE, "a", [{"op": "add", "path": path, "value": value}])

        annotation = "/metadata/annotations/openfero.io~1"
        for path, value, why in [
            ("/spec/suspend", False, "only the controller starts"),
            (f"{annotation}approved-by", "bob", f"the requesting user, {USER}"),
            (f"{annotation}message", "refused by bob", "must name the requesting user"),
            (f"{annotation}admitted-by", USER, "only the controller starts"),
            ("/metadata/labels", {}, "only the controller starts"),
        ]:
            with pytest.raises(Forbidden, match=why):
                await write(path, value)
        with pytest.raises(Forbidden, match="only the controller creates Jobs with its label"):
            await api.create(JOBS, NAMESPACE, job())
        started = job(suspend=False)
        with pytest.raises(Forbidden, match="only the controller starts"):
            await api.replace(JOBS, NAMESPACE, started)
        with pytest.raises(Invalid, match="JSON Patch only"):
            await api.patch(JOBS, NAMESPACE, "a", {"spec": {"suspend": False}})  # type: ignore[arg-type]
        await write(f"{annotation}approved-by", USER)
        await write("/spec/activeDeadlineSeconds", 0)
        other = job()
        other["metadata"] = {"name": "other"}
        await api.create(JOBS, NAMESPACE, other)
        await api.close()
    stored = await cluster.get(JOBS, NAMESPACE, "a")
    assert stored["metadata"]["annotations"]["openfero.io/approved-by"] == USER
    assert stored["spec"]["suspend"] is True
