"""What the first answer of each page and of each list of the API costs, in a large cluster.

Every address is requested once, of a replica that has computed nothing yet, with 10,000
remediations, of which 500 are not over, 500 operarios, and 2,000 names of alerts without a Job,
each heard of ten targets. Processor time is that of the whole process, with the request and the
reading of the answer. Loading and compiling the templates is not counted: this happens once per
process.
"""

from __future__ import annotations

import asyncio
import gc
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from openfero_gitops.admission.live_index import LiveIndex
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.health import Condition
from openfero_gitops.domain.problem import Problem, Severity
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs.view import View
from openfero_gitops.state import State
from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.turns import Turns
from openfero_gitops.web.webhook import add_alerts_check
from tests.support import many, pages, record
from tests.support.copying import replace
from tests.support.measures import memory_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.delivery.unanswered import UnansweredRecord
    from openfero_gitops.domain.remediation import Remediation

REMEDIATIONS: Final = 10_000
OPERARIOS: Final = 500
ALERTS: Final = 2000
MAX_MILLISECONDS: Final = 300
_NOW: Final = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
_PROBLEMS: Final = 300
#: How the remediations are spread over phases: of 100, with those that are not over last.
_PHASES: Final = (
    *[Phase.SUCCEEDED] * 80,
    *[Phase.FAILED] * 8,
    *[Phase.REFUSED] * 7,
    Phase.RUNNING,
    Phase.QUEUED,
    Phase.WAITING,
    Phase.WAITING,
    Phase.AWAITING_APPROVAL,
)
_EFFECTS: Final = (Effect.HEALED, Effect.HEALED, Effect.HEALED, Effect.NOT_HEALED, None)


class CrowdedState(State):
    """The state of a replica that is ready, whatever its parts say."""

    def conditions(self) -> Sequence[Condition]:
        """Return that everything works."""
        return [Condition("catalog", holds=True), Condition("jobs", holds=True)]


def crowd(count: int = REMEDIATIONS) -> list[Remediation]:
    """Make remediations of two days, of many alerts and targets."""
    made = []
    for number in range(count):
        phase = _PHASES[number * 37 % len(_PHASES)]
        received = _NOW - timedelta(seconds=17 * number + 60)
        labels = {
            "alertname": f"Alert{number % OPERARIOS}",
            "severity": "warning",
            "namespace": f"team-{number % 40}",
            "pod": f"pod-{number % 3000}",
        }
        job = pages.remediation(
            f"Alert{number % OPERARIOS}", phase, received, labels=labels, number=str(number)
        )
        if phase is Phase.SUCCEEDED:
            job = replace(
                job,
                effect=_EFFECTS[number % len(_EFFECTS)],
                effect_at=received + timedelta(minutes=20),
                resolved_at=received + timedelta(minutes=3) if number % 5 != 3 else None,
            )
        if phase is Phase.FAILED and number % 3:
            job = replace(job, resolved_at=received + timedelta(minutes=30))
        made.append(job)
    return made


@cache
def _unanswered() -> UnansweredRecord:
    return many.unanswered(_NOW, ALERTS)


def crowded(jobs: Sequence[Remediation]) -> State:
    """Make the state of a replica that has these remediations, and has computed nothing yet."""
    view = View()
    for job in jobs:
        view._by_key[job.key] = job
        view._by_incident[job.incident][job.key] = None
    active = pages.catalog(
        *(pages.operario(f"openfero-alert{n}-firing", f"Alert{n}") for n in range(OPERARIOS)),
        problems=tuple(
            Problem(
                f"alert{n}/firing.yaml", 14, 7, "/spec", "quantity", Severity.ERROR, "'12x'", "", ""
            )
            for n in range(_PROBLEMS)
        ),
    )
    sample = pages.Showcase(_NOW, active, pages.synced(active, _NOW))
    part: Any = SimpleNamespace(
        catalog=active,
        status=sample.sync(),
        pause=None,
        lag=None,
        trouble="",
        replicas=(),
        history=RevisionHistory(),
        problems=lambda _: (),
        is_approval_verified=lambda _: False,
    )
    return CrowdedState(
        sample.about(),
        syncer=part,
        lag_monitor=part,
        next_sync=lambda: None,
        presence=part,
        elector=SimpleNamespace(status=sample.leadership()),  # type: ignore[arg-type]
        observer=part,
        view=view,
        index=LiveIndex(view),
        control=part,
        cluster_findings=part,
        deliveries=part,
        queue=SimpleNamespace(status=lambda _: None),  # type: ignore[arg-type]
        notifications=part,
        clock=part,
        watchdog=part,
        unanswered=_unanswered,
        stopping=lambda: False,
        now=lambda: _NOW,
    )


def addresses(jobs: Sequence[Remediation]) -> list[str]:
    """List the pages, and the lists of the API."""
    newest = jobs[0]
    return [
        *(f"/{address}" for address in pages.ADDRESSES),
        "/?by=target",
        "/remediations?q=pod-17",
        f"/remediations/{newest.key}",
        f"/operarios/{newest.operario}",
        "/alerts?q=pod-7&open=all",
        "/api/alerts",
        "/api/remediations",
        "/api/operarios",
        f"/api/operarios/{newest.operario}",
        "/api/problems",
        "/api/jobs",
        "/api/sync",
        "/api/about",
    ]


async def measure(jobs: Sequence[Remediation], address: str) -> tuple[int, int, float]:
    """Request an address of a new replica; return the status, the bytes and the seconds."""
    state, guard, turns = crowded(jobs), Guard(None, certificate=False), Turns()
    app = web.Application(middlewares=[problems])
    add_pages(app, state, guard, turns, lambda: _NOW)
    add_alerts_check(app, guard)
    add_api(app, state, guard, turns, now=lambda: _NOW)
    async with TestClient(TestServer(app)) as client:
        state.unanswered()
        await client.get("/static/none")
        gc.collect()
        began = time.process_time()
        answer = await client.get(address, headers={"Accept": "text/html"})
        body = await answer.read()
        seconds = time.process_time() - began
        answer.raise_for_status()
    return answer.status, len(body), seconds


async def table(jobs: Sequence[Remediation]) -> str:
    """Measure every address, with its memory in a second request."""
    rows = []
    for address in addresses(jobs):
        await measure(jobs[:20], address)  # compiles the templates
        status, size, seconds = await measure(jobs, address)
        with memory_cost() as cost:
            await measure(jobs, address)
        milliseconds = seconds * 1000
        verdict = "yes" if milliseconds < MAX_MILLISECONDS else "NO"
        rows.append(
            [
                address.replace(jobs[0].key.name, "NAME"),
                str(status),
                f"{size / 1024:,.0f}",
                f"{milliseconds:,.0f}",
                verdict,
                f"{cost.memory / 2**20:,.0f}",
            ]
        )
    header = ["address", "status", "KiB", "CPU ms", f"< {MAX_MILLISECONDS} ms", "MiB at most"]
    return record.table(header, rows)


def main() -> str:
    """Measure, and print the table."""
    text = (
        f"{REMEDIATIONS:,} remediations, {OPERARIOS} operarios, {ALERTS:,} alerts without a Job. "
        f"Processor time of the first answer.\n\n{asyncio.run(table(crowd()))}"
    )
    print(text)
    return text


if __name__ == "__main__":
    main()
