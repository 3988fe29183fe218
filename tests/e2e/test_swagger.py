"""Swagger UI in a browser, behind a proxy that serves everything under a path."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from playwright.async_api import expect

from openfero_gitops.delivery.alertmanager import PayloadLimits
from openfero_gitops.metrics import Metrics
from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.errors import problems
from openfero_gitops.web.swagger import add_swagger
from openfero_gitops.web.turns import Turns
from openfero_gitops.web.webhook import Intake, add_webhook
from tests.support import pages
from tests.support.chromium import chromium
from tests.support.process import free_port
from tests.support.serving import OPEN, Inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import ConsoleMessage, Request

pytestmark = pytest.mark.browser

expect.set_options(timeout=60_000)  # a busy machine takes its time to draw

PHONE = {"width": 375, "height": 800}
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@contextlib.asynccontextmanager
async def _behind_proxy() -> AsyncIterator[str]:
    """Serve the API of the hostile sample state under a path; give its address."""
    now = datetime.now(UTC)
    inner = web.Application(middlewares=[problems])
    add_webhook(inner, Inbox(), Metrics("1.2.3"), OPEN, Intake(PayloadLimits()))
    add_api(inner, pages.hostile(now), OPEN, Turns(), now=lambda: now)
    add_swagger(inner, OPEN)
    app = web.Application()
    app.add_subapp("/heal", inner)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/heal/"
    await runner.cleanup()


async def test_the_api_is_shown_and_read_in_a_browser() -> None:
    """Swagger UI shows the operations and reads them, from this server alone; it sends no POST."""
    complaints: list[str] = []
    requests: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def requested(request: Request) -> None:
        if not request.url.startswith("data:"):
            requests.append(request.url)

    async with _behind_proxy() as origin, chromium() as browser:
        page = await browser.new_page(viewport=PHONE)
        page.set_default_timeout(60_000)
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", requested)
        response = await page.goto(f"{origin}swagger")
        assert response is not None
        policy = response.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        await expect(page.locator(".opblock-summary-path").first).to_be_visible()
        deliver = page.locator("#operations-deliveries-post-alerts")
        await deliver.locator(".opblock-summary-control").click()
        await expect(deliver.locator(".responses-table")).to_be_visible()
        await expect(deliver.get_by_role("button", name="Try it out")).to_have_count(0)
        listed = page.locator("#operations-remediations-get-api-remediations")
        await listed.locator(".opblock-summary-control").click()
        await listed.get_by_role("button", name="Try it out").click()
        await listed.get_by_role("button", name="Execute").click()
        answer = listed.locator(".live-responses-table")
        await expect(answer.locator("td.response-col_status").last).to_contain_text("200")
        await expect(answer).to_contain_text("<script>")
        assert await answer.locator("script, img, iframe").count() == 0
        needed, available = await page.evaluate(WIDTHS)
    assert complaints == []
    assert needed <= available
    assert [url for url in requests if not url.startswith(origin)] == []
    assert f"{origin}api/remediations?limit=100" in requests
