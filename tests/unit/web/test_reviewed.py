from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import SourceError
from openfero_gitops.web import reviewed
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.reviewed import ReviewedReader, rights_of
from tests.support.copying import replace
from tests.support.drawn import OPEN, Element, Reader
from tests.support.pages import OLDER, with_history

if TYPE_CHECKING:
    import pytest

    from openfero_gitops.domain.catalog import Catalog

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
NAME = "openfero-kubepodcrashlooping-firing"
ROLES = b"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: restarter, namespace: shop}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: restarter, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: restarter}
subjects: [{kind: ServiceAccount, name: restarter, namespace: openfero-jobs}]
"""
CASES = {
    "crash/alert.json": b'{"labels": {"alertname": "KubePodCrashLooping", "pod": "web-1"}}',
    "crash/job.yaml": b"apiVersion: batch/v1\nkind: Job\n",
    "quiet/alert.json": b"not JSON",
    "quiet/job.yaml": b"",
    "odd/alert.json": b'{"labels": {"alertname": "KubePodCrashLooping", "pod": "--all"}}',
    "odd/job.yaml": b"kind: Job\nmetadata:\n  annotations:\n    openfero.io/decision: refused\n",
    "new/alert.json": b'{"alerts": [{"labels": {}}, {"labels": {}}]}',
}


class Repository:
    """A source of one commit with roles and golden cases; counts its readings."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.readings = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def snapshot(self, commit: str) -> Snapshot:
        """Return the roles."""
        self.readings += 1
        await self.may_answer.wait()
        if self.error:
            raise SourceError(self.error)
        revision = Revision("repository", "main", commit)
        return Snapshot(revision, "", (SourceFile("rbac.yaml", "", ROLES),))

    async def cases(self, snapshot: Snapshot) -> Snapshot:
        """Return the golden cases."""
        files = [SourceFile(f"tests/{NAME}/{path}", "", content) for path, content in CASES.items()]
        return Snapshot(snapshot.revision, "tests", tuple(files))


def active() -> Catalog:
    """Return the catalog of the sample state."""
    catalog = with_history(NOW).active
    assert catalog is not None
    return catalog


async def test_rights_are_those_of_the_roles_in_the_repository() -> None:
    """The rights of an operario's ServiceAccount are said in the words of diff."""
    found = await ReviewedReader(Repository()).read(active())
    tested, other = active().operarios
    assert rights_of(tested, found.grants).words == "delete, get pods in shop"
    assert rights_of(other, found.grants).words == ""
    assert rights_of(other, found.grants).account == "default"


async def test_cases_have_their_alert_and_what_they_expect() -> None:
    """Each case names the labels of its alert, and how many Jobs must be created."""
    found = await ReviewedReader(Repository()).read(active())
    assert found.cases is not None
    cases = {case.name: case for case in found.cases[NAME]}
    assert cases["crash"].labels == {"alertname": "KubePodCrashLooping", "pod": "web-1"}
    assert cases["crash"].path == f"tests/{NAME}/crash"
    assert {name: case.jobs for name, case in cases.items()} == {
        "crash": 1,
        "quiet": 0,
        "odd": 1,
        "new": None,
    }
    assert cases["quiet"].labels is None
    assert cases["new"].labels is None


async def test_a_commit_is_read_once() -> None:
    """Further pages of a commit read nothing; a new commit is read."""
    repository = Repository()
    reader = ReviewedReader(repository)
    await asyncio.gather(*(reader.read(active()) for _ in range(5)))
    assert repository.readings == 1
    changed = replace(active(), revision=replace(active().revision, commit=OLDER))
    await reader.read(changed)
    assert repository.readings == 2


async def test_a_reading_that_fails_is_repeated() -> None:
    """The reason is returned, and the next page tries again."""
    repository = Repository("the disk is full")
    reader = ReviewedReader(repository)
    assert (await reader.read(active())).missing == "the disk is full"
    repository.error = ""
    assert (await reader.read(active())).missing == ""


async def test_a_page_does_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Git is slow the page says so; the reading goes on for the next page."""
    monkeypatch.setattr(reviewed, "_WAIT_SECONDS", 0.01)
    repository = Repository()
    repository.may_answer.clear()
    reader = ReviewedReader(repository)
    assert "still being read from Git" in (await reader.read(active())).missing
    repository.may_answer.set()
    await asyncio.sleep(0.05)
    monkeypatch.undo()
    assert (await reader.read(active())).cases
    assert repository.readings == 1


async def test_a_folder_has_no_commit() -> None:
    """Without a commit nothing is read."""
    folder = replace(active(), revision=replace(active().revision, commit=""))
    assert (await ReviewedReader(Repository()).read(folder)).missing


async def page_of(repository: Repository) -> Element:
    """Draw the page of the sample operario with what a repository holds."""
    app = web.Application()
    reader = ReviewedReader(repository)
    add_pages(app, with_history(NOW), OPEN, now=lambda: NOW, reviewed=reader)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(f"/operarios/{NAME}")
        return Reader(await answer.text()).root


async def test_the_page_shows_rights_and_cases() -> None:
    """The page says what the ServiceAccount may do, and what each golden case expects."""
    main = (await page_of(Repository())).find("main").text
    assert "may delete, get pods in shop" in main
    assert f"crash expects 1 Job tests/{NAME}/crash alertname=KubePodCrashLooping" in main
    assert f"quiet expects no Job tests/{NAME}/quiet" in main
    assert "odd expects 1 Job, which is refused" in main
    assert "new expects nothing: job.yaml is missing" in main


async def test_the_page_says_why_they_are_not_known() -> None:
    """A page is shown although Git cannot be read, and says so."""
    main = (await page_of(Repository("the disk is full"))).find("main").text
    assert "In the cluster not known: the disk is full" in main
    assert "Golden cases Not known: the disk is full" in main
