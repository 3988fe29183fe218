"""What every page keeps to, in a browser: accessible, self-contained, readable anywhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from openfero_gitops.domain.dns import is_dns_subdomain
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.webhook import add_alerts_check
from tests.support import pages
from tests.support.chromium import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, Page

    from tests.support.pages import Showcase

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 375, "height": 812}
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}
#: The rules that depend on colors.
COLORS = {
    "runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
    "resultTypes": ["violations"],
}
AXE = Axe()
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
#: What is wider than the part of the page that it is in, so that a reader must scroll sideways.
CUT_OFF = """() => [document.documentElement, ...document.querySelectorAll("main .scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth)
  .map((box) => `${box.tagName} ${box.className}: ${box.scrollWidth} > ${box.clientWidth}`)"""
#: Words as a reader sees them, without those that depend on the time or the script.
WORDS = """() => {
  const copy = document.querySelector("main").cloneNode(true);
  for (const part of copy.querySelectorAll("time, .age, .tick, .follow, .printed")) part.remove();
  return copy.textContent.replace(/\\s+/g, " ").trim();
}"""


class Served:
    """The pages of a sample state on loopback."""

    def __init__(self, state: Showcase, url: str) -> None:
        self.state = state
        self.url = url

    def address(self, name: str) -> str:
        """The address of a page; `JOB` stands for one that failed, `OPERARIO` for its operario."""
        failed = next(job for job in self.state.jobs if job.phase is Phase.FAILED)
        # (A name of hostile text is not in any address.)
        operario = failed.operario if is_dns_subdomain(failed.operario) else pages.HOSTILE
        return self.url + name.replace("JOB", str(failed.key)).replace("OPERARIO", operario)


async def _serve(state: Showcase) -> AsyncIterator[Served]:
    app = web.Application(middlewares=[problems])
    guard = Guard(None, certificate=False)
    add_pages(app, state, guard)
    add_alerts_check(app, guard)  # serves the page of alerts
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield Served(state, f"http://127.0.0.1:{runner.addresses[0][1]}/")
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def busy() -> AsyncIterator[Served]:
    """Serve the busy sample state."""
    async for served in _serve(pages.busy(datetime.now(UTC))):
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hostile() -> AsyncIterator[Served]:
    """Serve the sample state in which all text is hostile."""
    async for served in _serve(pages.hostile(datetime.now(UTC))):
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start Debian's Chromium."""
    async with chromium() as browser:
        yield browser


class Visitor:
    """A page of the browser, and what it complained of or asked of others."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        page.on("console", lambda m: self._heard(m.type, f"{m.text} ({m.location})"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._asked(request.url, url))

    def _heard(self, kind: str, text: str) -> None:
        # (These tests serve the pages alone, without the API and its stream.)
        if kind in ("error", "warning") and "api/events" not in text:
            self.complaints.append(text)

    def _asked(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:")):
            self.elsewhere.append(url)


async def _open(context: BrowserContext, served: Served, name: str) -> Visitor:
    context.set_default_timeout(60_000)
    visitor = Visitor(await context.new_page(), served.url)
    answer = await visitor.page.goto(served.address(name))
    assert answer is not None
    assert answer.status == 200
    return visitor


async def _violations(page: Page, options: dict[str, Any] = RULES) -> list[str]:
    found: dict[str, Any] = (await AXE.run(page, options=options)).response
    return [
        f"{v['id']}: {v['help']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for v in found["violations"]
        for node in v["nodes"][:3]
    ]


async def _violations_in_both_schemes(page: Page) -> list[str]:
    """Check all in one scheme, and in the other one what depends on it."""
    found = await _violations(page)
    await page.emulate_media(color_scheme="dark")
    return found + await _violations(page, COLORS)


EVERY = pytest.mark.parametrize("name", [*pages.ADDRESSES, *pages.VARIABLE_ADDRESSES])


@EVERY
async def test_desktop(browser: Browser, busy: Served, name: str) -> None:
    """In light and dark, each page is accessible, and it complains of and asks others nothing."""
    context = await browser.new_context(
        viewport=DESKTOP, color_scheme="light", reduced_motion="reduce"
    )
    visitor = await _open(context, busy, name)
    page = visitor.page
    await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width in (DESKTOP["width"], 1000):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate(CUT_OFF) == []
    assert await _violations_in_both_schemes(page) == []
    assert (visitor.complaints, visitor.elsewhere) == ([], [])
    await context.close()


@EVERY
async def test_phone_and_hostile(browser: Browser, hostile: Served, name: str) -> None:
    """With hostile text everywhere, each page is text, accessible, and as wide as a phone."""
    context = await browser.new_context(
        viewport=PHONE, color_scheme="light", reduced_motion="reduce", has_touch=True
    )
    visitor = await _open(context, hostile, name)
    page = visitor.page
    await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    width, screen = await page.evaluate(WIDTHS)
    assert width <= screen == PHONE["width"]
    assert await page.title() != "taken"
    assert (
        await page.locator("main script, main img, main [style], main [onmouseover]").count() == 0
    )
    assert await _violations_in_both_schemes(page) == []
    assert (visitor.complaints, visitor.elsewhere) == ([], [])
    await context.close()


@EVERY
async def test_without_a_script(browser: Browser, busy: Served, name: str) -> None:
    """Without JavaScript each page has the same words, and no control that does nothing."""
    scripted = await browser.new_context(viewport=DESKTOP)
    words = await (await _open(scripted, busy, name)).page.evaluate(WORDS)
    plain = await browser.new_context(viewport=DESKTOP, java_script_enabled=False)
    page = (await _open(plain, busy, name)).page
    assert await page.evaluate(WORDS) == words
    for button in await page.get_by_role("button").all():
        assert await button.get_attribute("type") == "submit"
    await scripted.close()
    await plain.close()


async def test_theme(browser: Browser, busy: Served) -> None:
    """The reader's choice of light or dark is kept, on every page, without a flash."""
    context = await browser.new_context(viewport=DESKTOP, color_scheme="light")
    page = (await _open(context, busy, "")).page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(ground)
    switch = page.get_by_role("button", name="Theme")
    await expect(switch).to_have_text("Theme: auto")
    await switch.click()
    await expect(switch).to_have_text("Theme: light")
    await switch.click()
    await expect(switch).to_have_text("Theme: dark")
    dark = await page.evaluate(ground)
    assert dark != light
    await page.goto(busy.address("remediations"), wait_until="commit")
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert await page.evaluate(ground) == dark
    await switch.click()
    await expect(switch).to_have_text("Theme: auto")
    assert await page.evaluate(ground) == light
    await context.close()


async def test_times_are_in_the_zone_of_the_reader(browser: Browser, busy: Served) -> None:
    """A time is shown in the reader's zone; pointing at it shows the exact instant in UTC."""
    context = await browser.new_context(viewport=DESKTOP, timezone_id="Asia/Kolkata")
    page = (await _open(context, busy, "")).page
    time = page.locator("main time").first
    instant = datetime.fromisoformat(await time.get_attribute("datetime") or "")
    shown = datetime.fromisoformat(f"{await time.text_content()}+05:30")
    assert shown == instant
    assert (await time.get_attribute("title")) == f"{instant:%Y-%m-%d %H:%M:%S} UTC"
    await expect(page.locator("#zone")).to_have_text(re.compile("Asia/(Kolkata|Calcutta)"))
    tick = page.locator(".tick").first
    hour = datetime.fromisoformat(await tick.get_attribute("data-clock") or "")
    assert (await tick.text_content() or "").endswith(":30")
    assert hour.minute == 0
    await context.close()


async def test_the_key_for_search(browser: Browser, busy: Served) -> None:
    """The key / leads to the search field, unless the reader switched that off."""
    context = await browser.new_context(viewport=DESKTOP)
    page = (await _open(context, busy, "remediations")).page
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await expect(page.get_by_role("searchbox")).to_have_value("")
    await page.get_by_role("button", name="Press / to search").click()
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).not_to_be_focused()
    await context.close()


async def test_the_icon_shows_how_it_is(browser: Browser, busy: Served) -> None:
    """The icon of the tab changes with what needs a person."""
    context = await browser.new_context(viewport=DESKTOP)
    page = (await _open(context, busy, "")).page
    icon = page.locator('link[rel="icon"]')
    await expect(icon).to_have_attribute("href", re.compile("icon-bad.svg"))
    await expect(page).to_have_title(re.compile("^5 need attention"))
    await context.close()
