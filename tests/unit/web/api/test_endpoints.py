from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.matcher_parser import parse_matchers
from openfero_gitops.domain.operario import Form, Mode, OnResolve, Options
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.problem import Ignored, Problem, Severity
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.domain.sync import (
    Changes,
    LagState,
    RefusedRevision,
    ReplicaLag,
    SyncRecord,
    SyncStatus,
)
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.auth import Credentials, Guard
from openfero_gitops.web.turns import Turns
from tests.support import pages
from tests.support.copying import replace
from tests.support.pages import COMMIT, OLDER, REPOSITORY, catalog, operario, remediation
from tests.support.serving import OPEN, PROBLEM, problem, serving

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from aiohttp import web
    from aiohttp.test_utils import TestClient

    from openfero_gitops.domain.health import About

    Client = TestClient[web.Request, web.Application]

NOW = datetime(2026, 11, 21, 3, 4, 5, 678_901, tzinfo=UTC)
LISTS = ("/api/remediations", "/api/operarios", "/api/problems")
ENDPOINTS = (*LISTS, "/api/sync", "/api/about", "/api/jobs")


def api(
    state: pages.Showcase, guard: Guard = OPEN
) -> contextlib.AbstractAsyncContextManager[Client]:
    """Serve the API alone."""
    return serving(lambda app: add_api(app, state, guard, Turns(), now=lambda: datetime.now(UTC)))


async def get(client: Client, path: str, **query: Any) -> Any:
    """Read an answer, which must be 200 and JSON."""
    answer = await client.get(path, params=query)
    text = await answer.text()
    assert answer.status == 200, text
    assert answer.content_type == "application/json"
    return await answer.json()


async def jobs_of(client: Client, **query: Any) -> list[str]:
    """Name the Jobs on one page of remediations."""
    return [item["job"] for item in (await get(client, "/api/remediations", **query))["items"]]


def showing(*jobs: Any, **changes: Any) -> pages.Showcase:
    """Make a controller that knows some remediations."""
    return replace(pages.quiet(NOW), jobs=list(jobs), **changes)


# Shapes: other programs rest on them, member by member


async def test_the_shape_of_a_remediation() -> None:
    """Every member has its name, its place and its form; times are RFC 3339 in microseconds."""
    job = remediation(
        "HostDown",
        Phase.FAILED,
        NOW,
        key=JobKey("shop", "hostdown-firing-abc"),
        labels={"alertname": "HostDown", "host": "a"},
        reason="BackoffLimitExceeded",
        message="exit code 1",
        attempt=2,
        queue="healing",
        starts=3,
        approved_by="ada",
        approval_reason="looked at the disk",
        admitted_at=NOW + timedelta(seconds=1),
        finished_at=NOW + timedelta(seconds=2),
        resolved_at=NOW + timedelta(seconds=3),
    )
    async with api(showing(job, moment=NOW + timedelta(hours=1))) as client:
        body = await get(client, "/api/remediations")
    assert body == {
        "items": [
            {
                "job": "hostdown-firing-abc",
                "namespace": "shop",
                "phase": "Failed",
                "reason": "BackoffLimitExceeded",
                "message": "exit code 1",
                "operario": "openfero-hostdown-firing",
                "alert": "HostDown",
                "status": "firing",
                "fingerprint": "8f3c1d2e4b5a6978",
                "startsAt": "2026-11-21T03:03:34.678901Z",
                "receivedAt": "2026-11-21T03:04:05.678901Z",
                "admittedAt": "2026-11-21T03:04:06.678901Z",
                "finishedAt": "2026-11-21T03:04:07.678901Z",
                "resolvedAt": "2026-11-21T03:04:08.678901Z",
                "effect": "healed",
                "effectAt": "2026-11-21T03:04:08.678901Z",
                "effectMessage": "resolved 1s after the Job ended",
                "attempt": 2,
                "queue": "healing",
                "starts": 3,
                "approvedBy": "ada",
                "approvalVerified": False,
                "approvalReason": "looked at the disk",
                "repository": REPOSITORY,
                "ref": "main",
                "commit": COMMIT,
                "path": "hostdown/firing.yaml",
                "verifiedSigner": pages.SIGNER,
                "labels": {"alertname": "HostDown", "host": "a"},
            }
        ],
        "continue": None,
    }


async def test_an_approval_is_verified_where_the_cluster_sees_to_it() -> None:
    """If the cluster verifies the approver's name, the API reports it."""
    job = remediation("A", Phase.RUNNING, NOW, approved_by="ada")
    async with api(showing(job, approvals_verified=True)) as client:
        (body,) = (await get(client, "/api/remediations"))["items"]
    assert (body["approvedBy"], body["approvalVerified"]) == ("ada", True)


async def test_what_a_remediation_lacks_is_null() -> None:
    """A member without a value is present anyway."""
    job = remediation("A", Phase.REFUSED, NOW, fingerprint="", starts_at=None, admitted_at=None)
    job = replace(job, verified_signer="")
    async with api(showing(job)) as client:
        (body,) = (await get(client, "/api/remediations"))["items"]
    lacking = ["reason", "message", "fingerprint", "startsAt", "admittedAt", "resolvedAt"]
    lacking += ["verifiedSigner", "approvedBy", "approvalVerified", "approvalReason"]
    lacking += ["effect", "effectAt", "effectMessage", "queue"]
    assert [body[name] for name in lacking] == [None] * len(lacking)
    assert len(body) == 29


async def test_effects_are_filtered_as_they_are_now() -> None:
    """Settled or not; a remediation that never ran has no effect."""
    ended = NOW - timedelta(hours=2)
    settled = remediation("A", Phase.SUCCEEDED, ended, number="1", effect=Effect.NOT_HEALED)
    healed = remediation(
        "B", Phase.FAILED, ended, number="2", resolved_at=ended + timedelta(minutes=1)
    )
    pending = remediation("C", Phase.RUNNING, NOW, number="3")
    refused = remediation("D", Phase.REFUSED, ended, number="4")
    async with api(showing(settled, healed, pending, refused)) as client:
        chosen = {e.value: await jobs_of(client, effect=e.value) for e in Effect}
        both = await jobs_of(client, effect="healed") + await jobs_of(client, effect="pending")
        answer = await client.get("/api/remediations", params={"effect": "cured"})
        text = problem(await answer.text(), 400)["detail"]
    assert {name: [job[-1] for job in jobs] for name, jobs in chosen.items()} == {
        "pending": ["3"],
        "healed": ["2"],
        "not-healed": ["1"],
        "unknown": [],
    }
    assert len(both) == 2
    assert text == "unknown effect 'cured'; use pending, healed, not-healed, unknown"


async def test_a_waiting_remediation_says_what_it_waits_for() -> None:
    """A waiting remediation has the reason of the current decision, others the recorded one."""
    running = remediation("A", Phase.RUNNING, NOW, number="1", target="t")
    behind = remediation("A", Phase.WAITING, NOW, number="2", target="t", labels={"pod": "b"})
    refused = remediation("A", Phase.REFUSED, NOW, number="3", reason="same-incident")
    async with api(showing(running, behind, refused)) as client:
        body = {item["job"][-1]: item for item in (await get(client, "/api/remediations"))["items"]}
    assert (body["1"]["phase"], body["1"]["reason"]) == ("Running", None)
    assert body["2"]["phase"] == "Waiting"
    assert body["2"]["reason"] == "target-busy"
    assert body["2"]["message"]
    assert body["3"]["reason"] == "same-incident"


async def test_the_shape_of_an_operario() -> None:
    """An operario has its origin, and all options as an author writes them."""
    options = Options(
        matchers=parse_matchers('team="shop", pod=~"web-.+"'),
        priority=-3,
        enabled=False,
        mode=Mode.DRY_RUN,
        target=("namespace", "pod"),
        cooldown=timedelta(minutes=90),
        max_concurrent=0,
        max_per_hour=7,
        max_wait=timedelta(hours=6),
        rerun_after=timedelta(0),
        max_runs=9,
        approval=True,
        on_resolve=OnResolve.CANCEL_RUNNING,
        resolve_delay=timedelta(seconds=30),
    )
    shown = operario(
        "heal", "HostDown", Status.RESOLVED, form=Form.OPERARIUS, options=options, namespace="shop"
    )
    shown = replace(shown, spec_digest="abc", origin=replace(shown.origin, stale=True))
    state = replace(pages.quiet(NOW), active=catalog(shown, operario("b", "B"), operario("a", "A")))
    async with api(state) as client:
        body = await get(client, "/api/operarios")
    assert body["continue"] is None
    assert [item["name"] for item in body["items"]] == ["a", "b", "heal"]
    assert body["items"][2] == {
        "name": "heal",
        "alert": "HostDown",
        "status": "resolved",
        "form": "Operarius",
        "namespace": "shop",
        "path": "hostdown/resolved.yaml",
        "commit": COMMIT,
        "blob": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        "author": "Platform Team <platform@example.com>",
        "time": "2026-11-19T16:20:11+01:00",
        "verifiedSigner": pages.SIGNER,
        "stale": True,
        "specDigest": "abc",
        "options": {
            "matchers": ['team="shop"', 'pod=~"web-.+"'],
            "priority": -3,
            "enabled": False,
            "mode": "dry-run",
            "target": ["namespace", "pod"],
            "cooldown": "1h30m",
            "maxConcurrent": 0,
            "maxPerHour": 7,
            "maxWait": "6h",
            "rerunAfter": "0",
            "maxRuns": 9,
            "approval": "required",
            "healsWithin": "15m",
            "stopAfterNotHealed": 3,
            "onResolve": "cancel-running",
            "resolveDelay": "30s",
            "ownJobs": False,
        },
    }
    assert body["items"][0]["options"]["approval"] is None
    assert body["items"][0]["options"]["target"] is None
    assert body["items"][0]["namespace"] is None


async def test_the_shape_of_the_problems() -> None:
    """Problems are as in `validate`'s output, sorted by file; ignored documents are listed too."""
    worse = Problem("b.yaml", 3, 7, "/spec", "rule", Severity.ERROR, "wrong", "mend it", COMMIT)
    lesser = Problem("a.yaml", 0, 0, "", "other", Severity.WARNING, "odd")
    active = catalog(problems=(worse, lesser), ignored=(Ignored("rbac.yaml", "Role"),))
    async with api(replace(pages.quiet(NOW), active=active)) as client:
        body = await get(client, "/api/problems")
    assert body == {
        "items": [
            {
                "path": "a.yaml",
                "line": 0,
                "column": 0,
                "pointer": "",
                "rule": "other",
                "severity": "warning",
                "message": "odd",
                "suggestion": None,
                "commit": None,
            },
            {
                "path": "b.yaml",
                "line": 3,
                "column": 7,
                "pointer": "/spec",
                "rule": "rule",
                "severity": "error",
                "message": "wrong",
                "suggestion": "mend it",
                "commit": COMMIT,
            },
        ],
        "continue": None,
        "ignored": [{"path": "rbac.yaml", "kind": "Role", "reason": None}],
    }


async def test_the_shape_of_a_sync() -> None:
    """The status has the active commit, since when it is active, and the error of the last sync."""
    state = pages.busy(NOW)
    state.synced = replace(
        state.synced,
        active_since=NOW,
        last_attempt=NOW,
        last_success=NOW,
        seconds=0.41249,
        error="could not resolve host",
        failing_since=NOW,
        refused=RefusedRevision(OLDER, "bad signature", "2026-11-21T03:00:00Z"),
        operarios=6,
        problems=1,
        steps={"fetch": 0.31249, "judge": 0.1},
        history=(
            SyncRecord(
                at=NOW,
                until=NOW,
                times=3,
                before=OLDER,
                after=COMMIT,
                origin="git",
                changes=Changes(("a",), ("b",), (), ("c.yaml",), envelope=True),
                steps={"fetch": 0.31249},
            ),
        ),
    )
    state.beside = ReplicaLag(LagState.BEHIND, OLDER, NOW)
    async with api(state) as client:
        body = await get(client, "/api/sync")
    moment = "2026-11-21T03:04:05.678901Z"
    assert body == {
        "revision": {
            "repository": REPOSITORY,
            "ref": "main",
            "commit": COMMIT,
            "author": "Platform Team <platform@example.com>",
            "time": "2026-11-19T16:20:11+01:00",
            "verifiedSigner": pages.SIGNER,
        },
        "origin": "git",
        "activeSince": moment,
        "lastAttempt": moment,
        "lastSuccess": moment,
        "seconds": 0.412,
        "error": "could not resolve host",
        "failingSince": moment,
        "refused": {"commit": OLDER, "reason": "bad signature", "time": "2026-11-21T03:00:00Z"},
        "unusedMirror": None,
        "operarios": 6,
        "problems": 1,
        "steps": {"fetch": 0.312, "judge": 0.1},
        "comparedWithLeader": {"step": "behind", "leader": OLDER, "since": moment},
        "history": [
            {
                "at": moment,
                "until": moment,
                "times": 3,
                "from": OLDER,
                "to": COMMIT,
                "origin": "git",
                "added": {"count": 1, "names": ["a"]},
                "changed": {"count": 1, "names": ["b"]},
                "removed": {"count": 0, "names": []},
                "quarantined": {"count": 1, "names": ["c.yaml"]},
                "envelope": True,
                "steps": {"fetch": 0.312},
                "error": None,
            }
        ],
    }


async def test_the_shape_before_anything_is_in_force() -> None:
    """Before the first sync lists are empty, and unknown values are null."""
    state = replace(pages.broken(NOW), synced=SyncStatus(), jobs=[])
    async with api(state) as client:
        for path in LISTS:
            body = await get(client, path)
            assert (body["items"], body["continue"]) == ([], None)
        assert await get(client, "/api/jobs") == []
        sync = await get(client, "/api/sync")
        about = await get(client, "/api/about")
    assert {name for name, value in sync.items() if value is not None} == {
        "seconds",
        "operarios",
        "problems",
        "steps",
        "history",
    }
    assert (about["leading"], about["leader"], about["term"]) == (False, None, None)


async def test_the_shape_of_about() -> None:
    """A replica reports its name, namespaces, cluster, and the leader."""
    state = replace(pages.quiet(NOW), leader=Leadership(leader=True, holder="a", term="12"))
    async with api(state) as client:
        body = await get(client, "/api/about")
    about: About = state.about()
    assert body == {
        "name": "openfero-gitops",
        "version": "1.2.3",
        "commit": "unknown",
        "buildDate": "unknown",
        "identity": about.identity,
        "namespace": "openfero",
        "jobsNamespace": "openfero-jobs",
        "allowedNamespaces": ["openfero-jobs", "shop"],
        "cluster": "production-west",
        "leading": True,
        "leader": "a",
        "term": "12",
        "pause": None,
        "replicas": [],
        "settings": [],
    }


async def test_the_shape_of_a_pause() -> None:
    """Who paused admission, why, and until when."""
    until = NOW + timedelta(hours=2)
    pause = Pause(PauseCause.COMMAND, "ada paused admission", "ada", NOW, until, "migration")
    async with api(replace(pages.quiet(NOW), paused=pause)) as client:
        body = await get(client, "/api/about")
    assert body["pause"] == {
        "cause": "command",
        "by": "ada",
        "since": format_time(NOW),
        "until": format_time(until),
        "reason": "migration",
        "message": "ada paused admission",
    }


async def test_the_shape_of_openferos_jobs() -> None:
    """OpenFero's list of definitions keeps its form: an array, with the last run of each."""
    template = {"spec": {"containers": [{"image": "heal:1"}, {"image": "sidecar:1"}]}}
    body = {"spec": {"template": template}}
    active = catalog(
        operario("openfero-a-firing", "A", job=body, namespace="shop"),
        operario("openfero-b-firing", "B"),
    )
    jobs = [
        remediation("A", Phase.FAILED, NOW - timedelta(hours=1), started_at=NOW),
        remediation("A", Phase.SUCCEEDED, NOW, number="7", started_at=NOW),
        remediation("A", Phase.WAITING, NOW + timedelta(seconds=1)),
        remediation("Gone", Phase.SUCCEEDED, NOW),
    ]
    async with api(showing(*jobs, active=active)) as client:
        body = await get(client, "/api/jobs")
    assert body == [
        {
            "configMapName": "openfero-a-firing",
            "jobName": "A",
            "namespace": "shop",
            "image": "heal:1",
            "executionCount": 2,
            "lastExecutionTime": "2026-11-21T03:04:05.678901Z",
            "lastExecutedJobName": "a-firing-7",
            "status": "Successful",
            "startedAt": "2026-11-21T03:04:05.678901Z",
            "completedAt": "2026-11-21T03:04:49.678901Z",
        },
        {
            "configMapName": "openfero-b-firing",
            "jobName": "B",
            "namespace": "openfero-jobs",
            "image": "unknown",
            "executionCount": 0,
        },
    ]


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        (Phase.SUCCEEDED, "Successful"),
        (Phase.FAILED, "Failed"),
        (Phase.RUNNING, "Running"),
        (Phase.QUEUED, "Pending"),
        (Phase.HELD, "Pending"),
    ],
)
async def test_openferos_words_for_a_run(phase: Phase, status: str) -> None:
    """The status of the last run is one of OpenFero's four words."""
    active = catalog(operario("openfero-a-firing", "A"))
    async with api(showing(remediation("A", phase, NOW), active=active)) as client:
        (body,) = await get(client, "/api/jobs")
    assert body["status"] == status


# Filters


async def test_filters_narrow_the_list() -> None:
    """Filters select by value; all filters must match."""
    jobs = [
        remediation("A", Phase.RUNNING, NOW, number="1"),
        remediation("A", Phase.FAILED, NOW - timedelta(seconds=1), number="2", commit=OLDER),
        remediation("B", Phase.FAILED, NOW - timedelta(seconds=2), status=Status.RESOLVED),
        remediation("B", Phase.FAILED, NOW - timedelta(seconds=3), key=JobKey("shop", "b")),
    ]
    names = ["a-firing-1", "a-firing-2", jobs[2].key.name, "b"]
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [0, 1, 2, 3]),
        ({"phase": "Failed"}, [1, 2, 3]),
        ({"phase": ["Failed", "Running"]}, [0, 1, 2, 3]),
        ({"status": "resolved"}, [2]),
        ({"alert": "A"}, [0, 1]),
        ({"alert": "a"}, []),
        ({"operario": "openfero-b-firing"}, [3]),
        ({"namespace": "shop"}, [3]),
        ({"commit": OLDER}, [1]),
        ({"commit": OLDER[:10]}, []),
        ({"phase": "Failed", "alert": "A"}, [1]),
        ({"phase": "Running", "namespace": "shop"}, []),
    ]
    async with api(showing(*jobs)) as client:
        for query, expected in cases:
            assert await jobs_of(client, **query) == [names[at] for at in expected], query


def _name(item: dict[str, str]) -> str:
    """Name an operario, or the file and the rule of a problem."""
    return item["name"] if "name" in item else f"{item['path']} {item['rule']}"


async def test_filters_of_operarios_and_problems() -> None:
    """Each list has filters of whole values; all must match, and pages are of what matches."""
    older = operario("b", "B")
    older = replace(older, origin=replace(older.origin, commit=OLDER))
    found = [
        Problem(path, 1, 1, "", rule, severity, "wrong")
        for path, rule, severity in (
            ("a.yaml", "x", Severity.ERROR),
            ("a.yaml", "y", Severity.WARNING),
            ("b.yaml", "x", Severity.WARNING),
        )
    ]
    active = catalog(
        operario("a", "A"), older, operario("c", "A", Status.RESOLVED), problems=tuple(found)
    )
    cases: list[tuple[str, dict[str, Any], list[str]]] = [
        ("operarios", {"alert": "A"}, ["a", "c"]),
        ("operarios", {"alert": "A", "status": "firing"}, ["a"]),
        ("operarios", {"alert": ["A", "B"], "commit": OLDER}, ["b"]),
        ("operarios", {"path": "a/resolved.yaml"}, ["c"]),
        ("operarios", {"path": "a/"}, []),
        ("problems", {"severity": "warning"}, ["a.yaml y", "b.yaml x"]),
        ("problems", {"rule": "x", "path": "b.yaml"}, ["b.yaml x"]),
        ("problems", {"rule": ["x", "y"], "severity": "error"}, ["a.yaml x"]),
    ]
    async with api(replace(pages.quiet(NOW), active=active)) as client:
        for path, query, expected in cases:
            names: list[str] = []
            token = ""
            while token is not None:
                parameters = {"limit": "1", "continue": token, **query}
                answer = await client.get(f"/api/{path}", params=parameters)
                page = await answer.json()
                names += [_name(item) for item in page["items"]]
                token = page["continue"]
            assert names == expected, query


@pytest.mark.parametrize(
    ("path", "query", "detail"),
    [
        ("/api/remediations", "phase=failed", "unknown phase 'failed'; use Waiting, "),
        ("/api/remediations", "phase=Failed&phase=x", "unknown phase 'x'"),
        ("/api/remediations", "status=gone", "; use firing, resolved"),
        ("/api/remediations", "alertname=A", "unknown parameter 'alertname'; use alert, "),
        ("/api/remediations", "%ff=1", "unknown parameter"),
        ("/api/remediations", "x" * 5000, "unknown parameter 'xxx"),
        ("/api/operarios", "phase=Failed", "unknown parameter 'phase'; use alert, commit, "),
        ("/api/problems", "file=a", "unknown parameter 'file'"),
        ("/api/problems", "severity=fatal", "unknown severity 'fatal'; use error, warning"),
        ("/api/problems", "limit=1&limit=2", "limit is given 2 times; give it once"),
        *(
            (path, f"limit={limit}", "limit must be a number from 1 to 1000")
            for path in LISTS
            for limit in ("0", "-1", "1001", "", "x", "1.5", "%D9%A3", "9" * 5000)
        ),
        *(
            (path, f"continue={token}", "continue is not a token of this list")
            for path in LISTS
            for token in ("!!!!", "x", "AAAA", "%ff", "L2FwaSA%3D", "L2FwaS9wcm9ibGVtcw==")
        ),
    ],
)
async def test_wrong_parameters_are_named(path: str, query: str, detail: str) -> None:
    """A parameter that cannot mean anything is 400 and a problem, never an empty list."""
    async with api(pages.busy(NOW)) as client:
        answer = await client.get(f"{path}?{query}")
        assert (answer.status, answer.content_type) == (400, PROBLEM)
        body = problem(await answer.text(), 400)
    assert detail in body["detail"]
    assert len(body["detail"]) < 500


async def test_a_token_is_for_its_own_list() -> None:
    """A token is refused for another list, and if it was changed."""
    state = pages.busy(NOW)
    async with api(state) as client:
        token = (await get(client, "/api/operarios", limit="1"))["continue"]
        assert (await client.get("/api/operarios", params={"continue": token})).status == 200
        for path in ("/api/remediations", "/api/problems"):
            assert (await client.get(path, params={"continue": token})).status == 400
        for altered in (f"{token}!", f"{token[:4]}\n{token[4:]}", token[:-1], token[4:]):
            answer = await client.get("/api/operarios", params={"continue": altered})
            assert answer.status == 400


# Paging


async def test_newest_remediations_come_first() -> None:
    """Remediations are listed from the newest to the oldest, also within one second."""
    moments = [NOW.replace(microsecond=n) for n in (0, 500_000, 999_999)]
    jobs = [remediation("A", Phase.WAITING, m, number=str(n)) for n, m in enumerate(moments)]
    async with api(showing(*jobs)) as client:
        assert await jobs_of(client) == ["a-firing-2", "a-firing-1", "a-firing-0"]


async def test_pages_of_a_list_that_grows() -> None:
    """New remediations that arrive between two pages neither repeat nor hide an older one."""
    state = showing(
        *(
            remediation("A", Phase.WAITING, NOW + timedelta(seconds=n // 3), number=str(n))
            for n in range(25)
        )
    )
    before = {item.key.name for item in state.jobs}
    seen: list[str] = []
    query: dict[str, str] = {"limit": "4"}
    async with api(state) as client:
        for page in range(100):
            body = await get(client, "/api/remediations", **query)
            seen += [item["job"] for item in body["items"]]
            if body["continue"] is None:
                break
            assert len(body["items"]) == 4
            query["continue"] = body["continue"]
            state.jobs.insert(
                page, remediation("B", Phase.WAITING, NOW + timedelta(hours=1, seconds=page))
            )
    assert len(seen) == len(set(seen))
    assert set(seen) == before


async def test_a_page_after_one_that_is_gone() -> None:
    """A token still works when the remediation it names has been deleted."""
    state = showing(
        *(
            remediation("A", Phase.WAITING, NOW - timedelta(seconds=n), number=str(n))
            for n in range(3)
        )
    )
    async with api(state) as client:
        token = (await get(client, "/api/remediations", limit="2"))["continue"]
        del state.jobs[1]
        assert await jobs_of(client, **{"continue": token}) == ["a-firing-2"]


@pytest.mark.parametrize("path", LISTS)
async def test_pages_make_the_whole_list(path: str) -> None:
    """Page by page is the same as all at once, and the last page says that it is."""
    async with api(pages.busy(NOW)) as client:
        whole = (await get(client, path))["items"]
        assert len(whole) > 1
        pieces: list[Any] = []
        query = {"limit": "1"}
        for _ in whole:
            body = await get(client, path, **query)
            pieces += body["items"]
            query["continue"] = body["continue"] or ""
        assert body["continue"] is None
        assert pieces == whole


async def test_the_page_without_a_limit() -> None:
    """A page has at most 100 items by default, and at most 1000."""
    state = showing(
        *(
            remediation(
                "A", Phase.WAITING, NOW + timedelta(seconds=n), number=str(n), labels={"n": str(n)}
            )
            for n in range(1001)
        )
    )
    async with api(state) as client:
        first = await get(client, "/api/remediations")
        most = await get(client, "/api/remediations", limit="1000")
    assert (len(first["items"]), len(most["items"])) == (100, 1000)
    assert first["continue"]
    assert base64.urlsafe_b64decode(most["continue"])


# Who may, and what is not


async def test_nothing_is_shown_without_credentials(tmp_path: Path) -> None:
    """Every endpoint asks for the credentials."""
    file = tmp_path / "credentials"
    file.write_text("reader:secret\n")
    guard = Guard(Credentials("basic", file), certificate=False)
    right = {"Authorization": "Basic " + base64.b64encode(b"reader:secret").decode()}
    async with api(pages.busy(NOW), guard) as client:
        for path in ENDPOINTS:
            answer = await client.get(path)
            assert (answer.status, answer.content_type) == (401, PROBLEM)
            assert "KubePodCrashLooping" not in await answer.text()
            assert (await client.get(path, headers=right)).status == 200


async def test_the_api_only_reads() -> None:
    """No method changes anything; HEAD is a GET without a body."""
    async with api(pages.busy(NOW)) as client:
        for path in ENDPOINTS:
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                answer = await client.request(method, path)
                assert answer.status == 405
                problem(await answer.text(), 405)
            assert (await client.head(path)).status == 200


async def test_what_is_not_there_is_a_problem() -> None:
    """An unknown path is 404 and names it, in a bounded number of characters."""
    async with api(pages.quiet(NOW)) as client:
        answer = await client.get("/api/remediation")
        assert (answer.status, answer.content_type) == (404, PROBLEM)
        assert problem(await answer.text(), 404)["detail"] == ("there is no /api/remediation")
        answer = await client.get("/api/" + "x" * 4000)
        assert len(await answer.text()) < 500


async def test_hostile_values_are_json() -> None:
    """Any text of labels, paths and errors is returned unchanged, as JSON."""
    state = pages.hostile(NOW)
    state.jobs = [replace(state.jobs[0], path="latin-\udce9.yaml")]
    async with api(state) as client:
        (body,) = (await get(client, "/api/remediations"))["items"]
        assert body["labels"] == dict(state.jobs[0].labels)
        assert body["path"] == "latin-\udce9.yaml"
        for path in ENDPOINTS:
            await get(client, path)


async def test_the_shape_of_the_statistics_of_an_operario() -> None:
    """Runs and effects by commit; times are in seconds, the rate is from 0 to 1."""
    received = datetime.now(UTC) - timedelta(days=1)
    healed = remediation(
        "HostDown",
        Phase.SUCCEEDED,
        received,
        effect=Effect.HEALED,
        effect_at=received + timedelta(seconds=90),
        resolved_at=received + timedelta(seconds=90),
        spec_digest="d" * 64,
    )
    of_another = remediation("PodDown", Phase.SUCCEEDED, received)
    async with api(showing(healed, of_another)) as client:
        body = await get(client, "/api/operarios/openfero-hostdown-firing/stats")
    moment = format_time(received)
    stats = {
        "runs": 1,
        "succeeded": 1,
        "failed": 0,
        "healed": 1,
        "notHealed": 0,
        "unknown": 0,
        "pending": 0,
        "healRate": 1.0,
        "medianSecondsToHeal": 90.0,
        "medianSecondsToRun": 42.0,
        "dryRuns": {
            "wouldHaveRun": 0,
            "resolvedWithoutJob": 0,
            "notResolved": 0,
            "unknown": 0,
            "pending": 0,
            "medianSecondsToResolve": None,
        },
        "firstReceivedAt": moment,
        "lastReceivedAt": moment,
    }
    assert body == {
        "operario": "openfero-hostdown-firing",
        "since": moment,
        "total": stats,
        "commits": [{"commit": COMMIT, "specDigest": "d" * 64, **stats}],
    }


async def test_statistics_of_an_operario_that_never_ran_or_does_not_exist() -> None:
    """One of the catalog has empty statistics; an unknown name is 404, a parameter 400."""
    active = catalog(operario("openfero-hostdown-firing", "HostDown"))
    async with api(showing(active=active)) as client:
        body = await get(client, "/api/operarios/openfero-hostdown-firing/stats")
        assert body["total"] is None
        assert body["commits"] == []
        unknown = await client.get("/api/operarios/other/stats")
        assert unknown.status == 404
        assert unknown.content_type == PROBLEM
        wrong = await client.get("/api/operarios/openfero-hostdown-firing/stats?since=1h")
        assert wrong.status == 400
        assert "unknown parameter 'since'; this path takes no parameters" in await wrong.text()
