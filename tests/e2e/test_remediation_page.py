"""The page of one remediation in a browser: on paper, with hostile text, and with its log."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.evidence import EvidenceReader
from tests.support.chromium import chromium
from tests.support.evidence import SampleReader, different
from tests.support.pages import ATTRIBUTE, OVERRIDE, SCRIPT, busy, hostile
from tests.support.serving import local_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from playwright.async_api import Browser, Page

# One browser for all: its loop is the module's.
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
HOSTILE = SCRIPT + ATTRIBUTE + OVERRIDE + "\x00\x1b[31m"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start Debian's Chromium."""
    async with chromium() as browser:
        yield browser


@asynccontextmanager
async def opened(
    browser: Browser, reader: SampleReader, phase: Phase, **options: Any
) -> AsyncIterator[Page]:
    """Open the page of the first remediation in a phase; fail if it reports an error.

    The page is not given anything of another origin.
    """
    state = reader.shown
    key = next(job.key for job in state.jobs if job.phase is phase)
    server = local_server(state=state, evidence=EvidenceReader(reader, reader.verify))
    await server.start()
    origin = f"http://127.0.0.1:{server.bound[0].port}"
    problems: list[str] = []
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(origin) else problems.append(request.url),
    )
    try:
        await page.goto(f"{origin}/remediations/{key}")
        yield page
    finally:
        await context.close()
        await server.stop()
    assert problems == []


async def test_it_prints_on_two_pages(browser: Browser) -> None:
    """On A4 it has two pages, whose last line says where and when it was printed."""
    async with opened(browser, SampleReader(busy(datetime.now(UTC))), Phase.FAILED) as page:
        document = await page.pdf(format="A4")
        assert len(re.findall(rb"/Type /Page\b", document)) == 2
        await page.emulate_media(media="print")
        await expect(page.locator(".printed")).to_contain_text(page.url)
        await expect(page.locator(".printed")).to_contain_text("Printed 20")
        await expect(page.locator("header.bar")).to_be_hidden()
        await expect(page.locator("#verification")).to_contain_text("Verified")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_accessible(browser: Browser, scheme: str) -> None:
    """The tool axe finds nothing, with the Job and the commands opened and differences shown."""
    reader = SampleReader(busy(datetime.now(UTC)), verification=different())
    async with opened(browser, reader, Phase.FAILED, color_scheme=scheme) as page:
        for summary in await page.locator("main details > summary").all():
            await summary.click()
        results = await Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


async def test_hostile_text_on_a_phone(browser: Browser) -> None:
    """Hostile text is text, and the page is not wider than a phone."""
    reader = SampleReader(
        hostile(datetime.now(UTC)),
        text=HOSTILE,
        log_text=f"{HOSTILE}\n" + "y" * 100_000,
        container=ATTRIBUTE,
    )
    phone = {"width": 375, "height": 800}
    async with opened(browser, reader, Phase.FAILED, viewport=phone) as page:
        await page.locator("details[data-key=job] > summary").click()
        scrolled, width = await page.evaluate(WIDTHS)
        assert scrolled == width
        assert "taken" not in (await page.title()).replace(SCRIPT[:60], "")
        await expect(page.locator("h1")).to_contain_text("<script>")


async def test_without_javascript(browser: Browser) -> None:
    """Everything is readable without JavaScript; the log has a link to read it again."""
    reader = SampleReader(busy(datetime.now(UTC)))
    async with opened(browser, reader, Phase.FAILED, java_script_enabled=False) as page:
        await expect(page.locator(".log pre")).to_contain_text("waiting for the new Pod")
        await expect(page.get_by_role("link", name="Refresh")).to_be_visible()
        await expect(page.locator(".follow")).to_be_hidden()


class Writing(SampleReader):
    """A container whose lines a test writes."""

    def __init__(self) -> None:
        super().__init__(busy(datetime.now(UTC)))
        self.pieces = asyncio.Queue[bytes]()

    async def log(self, *given: Any, **options: Any) -> AsyncGenerator[bytes]:
        """Yield what is written while it is followed."""
        if not options["follow"]:
            async for piece in super().log(*given, **options):
                yield piece
            return
        while piece := await self.pieces.get():
            yield piece


async def test_a_log_is_followed(browser: Browser) -> None:
    """New lines appear as they are written, stay while the page refreshes, and end with the log."""
    reader = Writing()
    async with opened(browser, reader, Phase.RUNNING) as page:
        log = page.locator(".log pre")
        await expect(log).to_contain_text("checking pod")
        await page.get_by_role("button", name="Follow").click()
        reader.pieces.put_nowait(b"first\n\x1b[31m<b>red</b>\x1b[0m \x00")
        await expect(log).to_have_text("first\n<b>red</b> \\u0000")
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        reader.pieces.put_nowait(b"second\n")
        await expect(log).to_contain_text("second")
        reader.pieces.put_nowait(b"")
        await expect(log).to_contain_text("(end of the log)")
        await expect(page.get_by_role("button", name="Follow")).to_be_visible()
