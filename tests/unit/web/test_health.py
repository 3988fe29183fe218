from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain.health import Condition
from openfero_gitops.domain.help import link
from openfero_gitops.metrics import Metrics
from openfero_gitops.web.health import add_health
from tests.support import pages
from tests.support.serving import problem, serving

if TYPE_CHECKING:
    import contextlib

    from aiohttp import web
    from aiohttp.test_utils import TestClient

    Client = TestClient[web.Request, web.Application]

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
LIVENESS = ("/livez", "/healthz", "/startupz")
READINESS = ("/readyz", "/readiness")


def health(state: pages.Showcase) -> contextlib.AbstractAsyncContextManager[Client]:
    """Serve probes and metrics alone."""
    return serving(lambda app: add_health(app, state, Metrics("1.2.3")))


@pytest.mark.parametrize("path", [*LIVENESS, *READINESS])
async def test_a_replica_that_can_work(path: str) -> None:
    """Every probe, OpenFero's names included, answers 200 and JSON."""
    async with health(pages.quiet(NOW)) as client:
        answer = await client.get(path)
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert (await answer.json())["status"] == "ok"
        assert (await client.head(path)).status == 200


@pytest.mark.parametrize("path", LIVENESS)
async def test_a_replica_that_lacks_something_lives(path: str) -> None:
    """Without Git and the API server the replica is alive, because a restart would not help."""
    async with health(pages.broken(NOW)) as client:
        assert (await client.get(path)).status == 200


@pytest.mark.parametrize("path", READINESS)
async def test_a_replica_that_lacks_something_is_not_ready(path: str) -> None:
    """503 lists all conditions, with a message for each that fails."""
    conditions = [
        Condition("catalog", holds=False, message="the first sync has not ended"),
        Condition("jobs", holds=True),
    ]
    async with health(replace(pages.quiet(NOW), needs=conditions)) as client:
        answer = await client.get(path)
        assert answer.status == 503
        assert await answer.json() == {
            "status": "not ready",
            "conditions": [
                {
                    "name": "catalog",
                    "holds": False,
                    "message": "the first sync has not ended",
                    "help": link("catalog"),
                },
                {"name": "jobs", "holds": True, "message": None, "help": None},
            ],
        }


@pytest.mark.parametrize("path", READINESS)
async def test_what_is_not_vital_degrades(path: str) -> None:
    """If only a part does not work, the status is 200 with a message."""
    conditions = [
        Condition("jobs", holds=False, message="shop: no right", vital=False),
        Condition("catalog", holds=True),
    ]
    async with health(replace(pages.quiet(NOW), needs=conditions)) as client:
        answer = await client.get(path)
        assert answer.status == 200
        body = await answer.json()
        assert body["status"] == "degraded"
        assert body["conditions"][0]["message"] == "shop: no right"


async def test_an_advice_does_not_degrade() -> None:
    """What would only make the replica safer is listed, and the status is ok."""
    missing = Condition(
        "job policy", holds=False, message="install it", vital=False, advice="Safer"
    )
    async with health(replace(pages.quiet(NOW), needs=[missing])) as client:
        answer = await client.get("/readyz")
        assert answer.status == 200
        body = await answer.json()
        assert body["status"] == "ok"
        assert body["conditions"][0]["message"] == "install it"


async def test_readiness_follows_the_conditions() -> None:
    """The next probe reflects a condition that has changed."""
    state = pages.quiet(NOW)
    async with health(state) as client:
        for holds, status in ((False, 503), (True, 200), (False, 503)):
            state.needs = [Condition("catalog", holds=holds)]
            assert (await client.get("/readyz")).status == status


async def test_metrics_are_prometheus_text() -> None:
    """Metrics have the content type that Prometheus knows, with version and charset."""
    async with health(pages.quiet(NOW)) as client:
        answer = await client.get("/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'openfero_gitops_build_info{version="1.2.3"} 1.0' in await answer.text()


@pytest.mark.parametrize("path", [*LIVENESS, *READINESS, "/metrics"])
async def test_probes_only_read(path: str) -> None:
    """Nothing can be sent to them."""
    async with health(pages.quiet(NOW)) as client:
        answer = await client.post(path)
        assert answer.status == 405
        problem(await answer.text(), 405)
