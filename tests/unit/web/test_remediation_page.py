"""The page of one remediation."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from openfero_gitops.audit.verify import Proof, Verification
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.formats import http_link
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.repository_links import RepositoryLinks
from tests.support.copying import replace
from tests.support.drawn import Reader
from tests.support.evidence import different, sample
from tests.support.pages import ATTRIBUTE, COMMIT, OVERRIDE, SCRIPT, busy, hostile, quiet

if TYPE_CHECKING:
    from tests.support.pages import Showcase

from aiohttp import web

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


async def draw(state: Showcase, phase: Phase, **changes: Any) -> str:
    """Return the page of the first remediation in a phase."""
    remediation = next(job for job in state.jobs if job.phase is phase)
    status, text = await get(state, f"/remediations/{remediation.key}", **changes)
    assert status == 200
    return text


async def get(
    state: Showcase, path: str, *, unread: bool = False, links: str = "", **changes: Any
) -> tuple[int, str]:
    """Request a page; `unread` leaves out the API server."""
    app = web.Application(middlewares=[problems])
    add_pages(
        app,
        state,
        Guard(None, certificate=False),
        now=lambda: NOW,
        evidence=None if unread else sample(state, **changes),
        links=RepositoryLinks(state.jobs[0].repository if state.jobs else "", links, links),
    )
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(path, headers={"Accept": "text/html"})
        return answer.status, await answer.text()


def words(page: str) -> str:
    """Return the text of a page, with single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


async def test_a_failed_remediation() -> None:
    """The page says what happened, from which commit, how it ended, and whether it is verified."""
    text = words(await draw(busy(NOW), Phase.FAILED))
    for part in (
        "Job has reached the specified backoff limit",
        "received by openfero-gitops-7d9c5b-x2x4p: Job created",
        "admitted by the leader, after waiting 2s",
        "exited with code 1",
        "Ada Lovelace <ada@example.com>",
        COMMIT,
        "effect: not-healed",
        f"equal those derived from commit {COMMIT}, file kubepodcrashlooping/firing.yaml",
        "waiting for the new Pod …",
        "exit code 1",
    ):
        assert part in text, part
    assert "could not be read" not in text


async def test_a_commit_without_a_verified_signature() -> None:
    """The page does not claim that no signature was required: the Job does not record that."""
    state = busy(NOW)
    state.jobs = [replace(job, verified_signer="") for job in state.jobs]
    assert "Signed by not verified" in words(await draw(state, Phase.FAILED))


async def test_commands() -> None:
    """A remediation that waits for approval has the commands to approve and to refuse."""
    page = await draw(busy(NOW), Phase.AWAITING_APPROVAL)
    assert '<details class="act" data-key="commands" open>' in page
    text = words(page)
    assert "openfero-gitops approve openfero-jobs/" in text
    assert "openfero-gitops refuse openfero-jobs/" in text
    assert "The Job has not started, so it has no Pods." in text


async def test_a_job_in_a_kueue_queue_does_not_run() -> None:
    """It has no log and no Pods, unless it has run before; the page says how long it waits."""
    queued = {"phase": Phase.QUEUED, "queue": "healing", "suspended": True, "finished": False}
    times = {"admitted_at": NOW - timedelta(seconds=20), "started": True, "finished_at": None}
    state = busy(NOW)
    job = next(job for job in state.jobs if job.phase is Phase.RUNNING)
    state.jobs = [replace(job, **queued, **times, starts=0, started_at=None)]
    text = words(await draw(state, Phase.QUEUED))
    assert "Kueue queue healing , 20s so far" in text
    assert "Ran did not run" in text
    assert "The Job has not started, so it has no Pods." in text
    assert "kubectl -n openfero-jobs logs" not in text
    assert " Log " not in text
    state.jobs = [replace(job, **queued, **times, starts=1)]
    assert "Ran was stopped" in words(await draw(state, Phase.QUEUED))


@pytest.mark.parametrize(
    ("verification", "parts"),
    [
        (
            different(),
            (
                "Differs",
                "/spec/template/spec/containers/0/image",
                '"evil.example/x"',
                "parallelism",
            ),
        ),
        (Verification(Proof.UNPROVABLE, "no data"), ("Cannot be verified", "no data")),
        (Verification(Proof.NOT_KNOWN, "since when"), ("may not have been active", "since when")),
    ],
)
async def test_verification(verification: Verification, parts: tuple[str, ...]) -> None:
    """Each answer of the verification is shown, with every difference."""
    text = words(await draw(busy(NOW), Phase.FAILED, verification=verification))
    for part in (*parts, "run openfero-gitops audit --verify with a clone that you trust"):
        assert part in text, part


async def test_who_approved() -> None:
    """The page says who approved, why, and whether the cluster verified the name."""
    state = busy(NOW)
    state.jobs = [
        replace(job, approved_by="ada@example.com", approval_reason="checked the volume")
        for job in state.jobs
    ]
    text = words(await draw(state, Phase.RUNNING))
    assert "approved by ada@example.com (unverified: the cluster does not check this name)" in text
    assert "checked the volume" in text
    state.approvals_verified = True
    text = words(await draw(state, Phase.RUNNING))
    assert "approved by ada@example.com (verified by the cluster's admission policy)" in text
    assert "Waiting: target-busy" in text
    assert "Approved: " not in text  # the Event says the same


@pytest.mark.parametrize("options", [{"failure": Unavailable("no response")}, {"unread": True}])
async def test_without_the_api_server(options: dict[str, Any]) -> None:
    """The page shows what the replica knows if the API server does not answer."""
    text = words(await draw(busy(NOW), Phase.FAILED, **options))
    assert "Job has reached the specified backoff limit" in text
    assert COMMIT in text
    assert "Not verified" in text
    assert "Some of this page could not be read" in text
    assert "The Pods were not read: " in text
    assert "The log was not read, because the Pods were not read." in text
    assert "No Pods of this Job exist now" not in text


async def test_an_unknown_job() -> None:
    """The page of an unknown Job says why it may be gone and what to do."""
    status, page = await get(quiet(NOW), "/remediations/openfero-jobs/gone")
    assert status == 404
    text = words(page)
    assert "deleted when their TTL expires" in text
    assert "run openfero-gitops audit" in text


async def test_links() -> None:
    """Links lead to the forge, the runbook and Prometheus; no other scheme becomes a link."""
    state = busy(NOW)
    page = await draw(state, Phase.FAILED, links="https://git.example.com/{commit}/{path}")
    addresses = re.findall(r'href="(https?:[^"]*)"([^>]*)', page)
    assert {address for address, _ in addresses} == {
        f"https://git.example.com/{COMMIT}/",
        f"https://git.example.com/{COMMIT}/kubepodcrashlooping/firing.yaml",
        "https://prometheus.example.com/graph?g0.expr=rate%28x%5B5m%5D%29+%3E+0",
        "https://runbooks.example.com/alerts/KubePodCrashLooping",
    }
    assert all('rel="noreferrer noopener"' in rest for _, rest in addresses)
    assert "javascript:" in page
    assert 'href="javascript:' not in page


async def test_hostile_text() -> None:
    """Text from outside is shown as text: no element, no attribute, no invisible character."""
    text = SCRIPT + ATTRIBUTE + OVERRIDE + "\x00\x1b[31m"
    page = await draw(
        hostile(NOW), Phase.FAILED, text=text, log_text=f"{text}\n", container=ATTRIBUTE
    )
    elements = list(Reader(page).root.walk())
    names = {name for element in elements for name in element.attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    scripts = [element.attributes["src"] for element in elements if element.tag == "script"]
    assert all(address.startswith("../../static/") for address in scripts)
    assert not [element for element in elements if element.attributes.get("src") == "x"]
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "\x1b" not in page
    assert "\\u202e" in page


async def test_related_remediations() -> None:
    """Other remediations of the incident and of the target are linked."""
    page = await draw(busy(NOW), Phase.RUNNING)
    assert "Same target" in page
    assert re.search(r'href="\.\./\.\./remediations/openfero-jobs/kubepodcrash[^"]*"', page)


@pytest.mark.parametrize(
    ("text", "is_link"),
    [
        ("https://a.example/x?y=z#f", True),
        ("http://[::1]:9090/graph?g0.expr=up%20%3D%3D%200", True),
        ("javascript:alert(1)", False),
        ("https://user:secret@a.example/", False),
        ("https://a.example/\u202egpj.exe", False),
        ("https://a.example/a b", False),
        ("//a.example/", False),
        ("https://", False),
        ("https://[", False),
        ("https://a.example/" + "x" * 5000, False),
        ("data:text/html,x", False),
        ("see https://a.example", False),
    ],
)
def test_http_link(text: str, *, is_link: bool) -> None:
    """Only plain addresses of http and https become links."""
    assert http_link(text) == (text if is_link else "")
