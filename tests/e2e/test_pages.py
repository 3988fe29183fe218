"""The page in a browser, whose clock the tests control."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page, expect

from openfero_gitops.delivery.unanswered import EMPTY
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.stream.history import EventHistory
from openfero_gitops.web.stream.models import AlertHeard, Reset
from openfero_gitops.web.stream.route import add_events
from openfero_gitops.web.stream.streams import EventStreams
from openfero_gitops.web.webhook import add_alerts_check
from tests.support import pages
from tests.support.chromium import chromium
from tests.support.copying import replace
from tests.support.pages import COMMIT, Showcase, remediation
from tests.support.process import free_port
from tests.support.workers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Route

# One browser for all: its loop is the module's.
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
ROWS = "tbody.remediation"
FAILED = "tbody.remediation.bad"

# The lowest contrast of any text with what it stands on, and where that is.
CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = { ratio: 21, text: "" };
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    const text = node.data.trim();
    if (!text || !element.checkVisibility()) continue;
    const colors = [numbers(getComputedStyle(element).color), ground(element)];
    const [hi, lo] = colors.map(light).sort((x, y) => y - x);
    const ratio = (hi + 0.05) / (lo + 0.05);
    count += 1;
    if (ratio < worst.ratio) worst = { ratio, text, class: element.className };
  }
  return { ...worst, count };
}"""
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"

expect.set_options(timeout=60_000)


class Site:
    """Serves the page of a sample state on loopback; can be stopped and restarted."""

    def __init__(self, shown: Showcase) -> None:
        self.shown = shown
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.list = f"{self.url}remediations"
        self.requests = 0
        self.starts = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""

        @web.middleware
        async def count(request: web.Request, handler: Any) -> web.StreamResponse:
            self.requests += not request.path.startswith(("/static/", "/api/"))
            response: web.StreamResponse = await handler(request)
            return response

        self.streams = EventStreams(EventHistory(f"start{self.starts}"))
        self.starts += 1
        app = web.Application(middlewares=[count, problems])
        add_events(app, self.streams, Guard(None, certificate=False))
        add_pages(app, self.shown, Guard(None, certificate=False))
        add_alerts_check(app, Guard(None, certificate=False))
        # (The controller's own server notices by itself that a stream's client has left.)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Stop listening; can be called more than once."""
        if self._runner is not None:
            self.streams.close()
            await self._runner.cleanup()
            self._runner = None


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    """Serve the busy sample state."""
    site = Site(pages.busy(datetime.now(UTC)))
    await site.start()
    yield site
    await site.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start Debian's Chromium."""
    async with chromium() as browser:
        yield browser


class Reader:
    """A page in the browser, and the browser's errors and warnings."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def is_fresh(self) -> None:
        """Wait until the page shows an answer that is a few seconds old."""
        await expect(self.page.locator("#seen .age")).to_have_text(re.compile("^[0-5]s ago$"))

    async def later(self, seconds: float) -> None:
        """Advance the page's clock."""
        await self.page.clock.fast_forward(int(seconds * 1000))


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser) -> AsyncIterator[Callable[..., Awaitable[Reader]]]:
    """Return a function that opens an address, with options of the browser context."""
    contexts: list[BrowserContext] = []

    async def visit(url: str, **options: Any) -> Reader:
        options.setdefault("viewport", DESKTOP)
        context = await browser.new_context(**options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        reader = Reader(await context.new_page())
        if options.get("java_script_enabled", True):
            await reader.page.clock.install()
        await reader.page.goto(url)
        return reader

    yield visit
    for context in contexts:
        await context.close()


async def test_the_browser_has_nothing_to_complain_of(
    visit: Callable[..., Awaitable[Reader]],
) -> None:
    """The browser reports no error or violation, even for hostile values."""
    for make in (pages.busy, pages.quiet, pages.broken, pages.hostile):
        site = Site(make(datetime.now(UTC)))
        await site.start()
        reader = await visit(site.url)
        page = reader.page
        await expect(page.locator("#live")).to_have_text("Live")
        for summary in await page.locator("main summary").all():
            if await summary.is_visible():
                await summary.click()
        requests = site.requests
        await reader.later(6)
        await expect(page.locator("#seen .age")).to_have_text(re.compile("^[0-5]s ago$"))
        assert site.requests > requests
        assert not await page.evaluate("document.title.includes('taken')")
        assert reader.complaints == []
        await site.stop()


async def test_filters_by_phase(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """A phase link filters without a reload and changes the address; Back undoes it."""
    page = (await visit(site.list)).page
    await page.evaluate("window.same = true")
    await expect(page.locator(ROWS)).to_have_count(11)
    await page.get_by_role("link", name="Failed 1", exact=True).click()
    await expect(page.locator(ROWS)).to_have_count(1)
    await expect(page).to_have_url(f"{site.list}?phase=Failed")
    await expect(page.locator(".chips [aria-current]")).to_have_text("Failed 1")
    await page.go_back()
    await expect(page.locator(ROWS)).to_have_count(11)
    assert await page.evaluate("window.same")


async def test_filters_by_words(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """Typed text filters all tables and is part of the address."""
    reader = await visit(site.list)
    page = reader.page
    await page.get_by_role("searchbox", name="Search").fill("targetdown")
    await reader.later(1)
    await expect(page.locator(ROWS)).to_have_count(2)
    await expect(page).to_have_url(f"{site.list}?q=targetdown")
    await expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    await page.get_by_role("link", name="Held 1", exact=True).click()
    await expect(page.locator(ROWS)).to_have_count(1)
    other = (await visit(page.url)).page
    await expect(other.locator(ROWS)).to_have_count(1)
    await expect(other.get_by_role("searchbox", name="Search")).to_have_value("targetdown")
    await other.get_by_role("searchbox", name="Search").fill("nothing of the kind")
    await other.keyboard.press("Enter")
    await other.get_by_role("link", name="Show all").click()
    await expect(other.locator(ROWS)).to_have_count(11)
    await expect(other.get_by_role("searchbox", name="Search")).to_have_value("")


async def test_refreshes(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """A new remediation appears by itself, and the reader's place is kept.

    What is open, the filter, the focus, what is selected and the scroll position stay.
    """
    reader = await visit(f"{site.list}?q=kubepodcrashlooping")
    page = reader.page
    await expect(page.locator(ROWS)).to_have_count(5)
    filters = page.locator("details.more-filters")
    await filters.locator("summary").click()
    failed = page.locator(FAILED)
    code = failed.locator(".sha code").first
    await code.select_text()
    selected = await page.evaluate("getSelection().toString()")
    await failed.evaluate("e => e.scrollIntoView()")
    where = await failed.evaluate("e => e.getBoundingClientRect().top")
    await failed.locator("a.name").focus()
    site.shown.jobs.append(
        remediation("KubePodCrashLooping", Phase.RUNNING, datetime.now(UTC), number="new")
    )
    await reader.later(6)
    await expect(page.locator(ROWS)).to_have_count(6)
    await expect(page.locator(ROWS).first).to_contain_text("Running")
    await expect(page.get_by_role("link", name="Running 2", exact=True)).to_be_visible()
    await expect(filters).to_have_attribute("open", "")
    await expect(failed.locator("a.name")).to_be_focused()
    assert await page.evaluate("getSelection().toString()") == selected != ""
    assert abs(await failed.evaluate("e => e.getBoundingClientRect().top") - where) < 2
    await expect(page.get_by_role("searchbox")).to_have_value("kubepodcrashlooping")
    assert reader.complaints == []


async def test_refreshes_what_changed(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """A remediation that ends leaves the list of what runs, and changes its bar."""
    reader = await visit(site.url)
    page = reader.page
    at = next(n for n, job in enumerate(site.shown.jobs) if job.phase is Phase.RUNNING)
    job = site.shown.jobs[at]
    running = page.locator(".current .badge.run")
    await expect(running).to_have_count(1)
    await expect(page.locator(".lanes rect.bar.running")).to_have_count(1)
    site.shown.jobs[at] = replace(
        job, phase=Phase.SUCCEEDED, finished=True, finished_at=datetime.now(UTC), active=0
    )
    await reader.later(6)
    await expect(running).to_have_count(0)
    await expect(page.locator(".lanes rect.bar.running")).to_have_count(0)
    await expect(page.locator(f'.lanes a[href$="{job.key.name}"] rect.done')).to_have_count(1)


async def test_a_change_is_seen_at_once(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """A change is visible within two seconds of its event, without a reload."""
    reader = await visit(site.list)
    page = reader.page
    await until(lambda: len(site.streams))
    await page.evaluate("window.same = true")
    site.shown.jobs.clear()
    site.streams.publish([Reset(reason="test")])
    await expect(page.locator(ROWS)).to_have_count(0, timeout=2000)
    assert await page.evaluate("window.same")
    assert reader.complaints == []


async def test_an_alert_without_a_job_is_seen_at_once(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """It appears on the page of alerts within two seconds of its event; what is open stays open."""
    site.shown.alerts = EMPTY
    reader = await visit(f"{site.url}alerts")
    page = reader.page
    groups = page.locator(".alert-group")
    opened = groups.filter(has_text="KubeNodeNotReady")
    await opened.locator("summary").first.click()
    new = groups.filter(has_text="HighLatency")
    await expect(new).to_have_count(0)
    await until(lambda: len(site.streams))
    site.shown.alerts = pages.unanswered(site.shown.moment)
    heard = AlertHeard(
        alert="HighLatency", status="firing", reason="no-operario", heard_at=site.shown.moment
    )
    site.streams.publish([heard])
    await expect(new.locator(".badge")).to_have_text("no Job", timeout=2000)
    await expect(opened).to_have_attribute("open", "")
    assert reader.complaints == []


async def test_searching_begins_at_the_first_page(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """What is typed on a further page of a list is searched in the whole list."""
    reader = await visit(f"{site.url}alerts?state=firing&page=2")
    await reader.page.get_by_role("searchbox").fill("HighLatency")
    await reader.later(1)
    await expect(reader.page.locator(".alert-group")).to_have_count(1)
    await expect(reader.page).to_have_url(f"{site.url}alerts?state=firing&q=HighLatency")


async def test_opening_and_closing_all_alerts(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """The links open and close all groups, also those that the reader opened or closed."""
    page = (await visit(f"{site.url}alerts")).page
    groups, opened = page.locator(".alert-group"), page.locator(".alert-group[open]")
    count = await groups.count()
    assert count > 2
    await groups.nth(1).locator("summary").first.click()
    await expect(opened).to_have_count(1)
    await page.get_by_role("link", name="Open all").click()
    await expect(opened).to_have_count(count)
    await groups.nth(0).locator("summary").first.click()
    await expect(opened).to_have_count(count - 1)
    await page.get_by_role("link", name="Close all").click()
    await expect(opened).to_have_count(0)
    await page.go_back()
    await expect(opened).to_have_count(count)


async def test_what_is_open_moves_with_its_group(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """When the order of a list changes, the same groups are open, and what was closed is closed."""
    reader = await visit(f"{site.url}alerts?open=all")
    page = reader.page
    names = "list => list.map((group) => group.querySelector('.alert-name').textContent)"
    groups, closed = page.locator(".alert-group"), page.locator(".alert-group:not([open])")
    before = await groups.evaluate_all(names)
    await groups.nth(0).locator("summary").first.click()
    await groups.nth(2).locator("summary").first.click()
    now, answered = datetime.now(UTC), {job.alertname for job in site.shown.jobs}
    moved = next(name for name in reversed(before) if name in answered)
    site.shown.jobs = [
        replace(job, resolved_at=now) if job.alertname == moved else job for job in site.shown.jobs
    ]
    await until(lambda: len(site.streams))
    site.streams.publish([Reset(reason="test")])
    await expect(groups.first).to_contain_text(moved)
    assert moved != before[0]
    after = await groups.evaluate_all(names)
    assert sorted(after) == sorted(before)
    assert set(await closed.evaluate_all(names)) == {before[0], before[2]}
    assert reader.complaints == []


async def test_many_events_cause_few_requests(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """While events arrive all the time the page is fetched about once a second; else rarely."""
    reader = await visit(site.list)
    await until(lambda: len(site.streams))
    await reader.later(6)
    await reader.is_fresh()
    await reader.later(20)
    assert site.requests == 2
    began = time.monotonic()
    for _ in range(30):
        site.streams.publish([Reset(reason="test")])
        await reader.page.wait_for_timeout(50)
    await until(lambda: site.requests >= 3)
    assert site.requests <= 4 + time.monotonic() - began
    requests = site.requests
    await reader.later(31)
    await until(lambda: site.requests > requests)


async def test_without_events_the_page_is_fetched_regularly(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """If the event stream is refused, as by a proxy, the page is fetched every few seconds."""
    site.streams.close()
    reader = await visit(site.list)
    page = reader.page
    for requests in (2, 3, 4):
        await reader.is_fresh()
        await reader.later(6)
        await until(lambda requests=requests: site.requests >= requests)  # type: ignore[misc]
    await expect(page.locator("#live")).to_have_text("Live")


async def test_what_was_open_stays_open(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """What the reader opened is still open after a refresh, and with other rows."""
    reader = await visit(site.url)
    page = reader.page
    await page.locator(".as-table > summary").click()
    await page.get_by_role("link", name="By target", exact=True).click()
    await expect(page).to_have_url(f"{site.url}?by=target")
    await expect(page.locator(".lane-name").get_by_text("pod=cart-0")).to_be_visible()
    await expect(page.locator(".as-table table")).to_be_visible()


async def test_a_long_value_opens(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """A value that is cut can be seen whole, and a refresh does not cut it again."""
    job = next(job for job in site.shown.jobs if job.phase is Phase.FAILED)
    site.shown.jobs[:] = [replace(job, message=pages.LONG)]
    reader = await visit(site.list)
    page = reader.page
    whole = page.locator(f"{FAILED} .why .whole")
    await expect(whole).to_be_hidden()
    await page.get_by_text("all 10,007 characters").click()
    await expect(whole).to_be_visible()
    requests = site.requests
    await reader.later(6)
    await expect(page.locator("#seen .age")).to_have_text(re.compile("^[0-5]s ago$"))
    assert site.requests > requests
    await expect(whole).to_be_visible()
    await page.locator(f"{FAILED} .why").get_by_text("less").click()
    await expect(whole).to_be_hidden()


async def test_ages_grow(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """Ages are updated between refreshes, by the controller's clock."""
    reader = await visit(site.list)
    page = reader.page
    await page.get_by_role("button", name="Auto-refresh").click()
    age = page.locator(f"{FAILED} .received .age")
    before = await age.text_content()
    requests = site.requests
    await reader.later(3600)
    await expect(age).to_have_text(re.compile("^1h 9m ago$"))
    assert before is not None
    assert before.startswith("9m")
    assert site.requests == requests


async def test_auto_refresh_can_be_switched_off(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """Auto-refresh can be turned off and on."""
    reader = await visit(site.url)
    page = reader.page
    button = page.get_by_role("button", name="Auto-refresh")
    await expect(button).to_have_attribute("aria-pressed", "true")
    await button.click()
    await expect(page.locator("#live")).to_have_text("Not refreshed")
    requests = site.requests
    await reader.later(60)
    assert site.requests == requests
    await button.click()
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.locator("#seen .age")).to_have_text(re.compile("^[0-5]s ago$"))
    assert site.requests > requests


async def test_a_hidden_tab_does_not_ask(
    site: Site, visit: Callable[..., Awaitable[Reader]]
) -> None:
    """A hidden tab neither refreshes nor listens; a visible one refreshes immediately."""
    reader = await visit(site.list)
    page = reader.page
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await until(lambda: len(site.streams))
    await page.evaluate(hide, True)  # noqa: FBT003 - what the page is told
    await until(lambda: not len(site.streams))
    requests = site.requests
    await reader.later(60)
    assert site.requests == requests
    site.shown.jobs.clear()
    await page.evaluate(hide, False)  # noqa: FBT003 - the same
    await expect(page.locator(ROWS)).to_have_count(0)
    await until(lambda: len(site.streams))


async def test_the_controller_is_gone(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """If the controller is unreachable, the page says since when, and keeps its content."""
    reader = await visit(site.list)
    page = reader.page
    gone = page.get_by_role("alert")
    await expect(gone).to_be_hidden()
    await site.stop()
    await reader.later(6)
    await expect(gone).to_contain_text(
        re.compile(r"The controller cannot be reached .*First failure: \ds ago")
    )
    await expect(gone).to_contain_text("This page shows the state at 20")
    await expect(page.locator("#live")).to_have_text("Unreachable")
    await expect(page).to_have_title(re.compile("^unreachable · "))
    await expect(page.locator(ROWS)).to_have_count(11)
    await reader.later(120)
    await expect(gone).to_contain_text("First failure: 2m")
    await site.start()
    await reader.later(6)
    await expect(gone).to_be_hidden()
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page).to_have_title(re.compile("^5 need attention"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 502, "body": "<p>bad gateway"}, "HTTP 502"),
        ({"status": 200, "content_type": "text/html", "body": "<p>log in"}, "the response is not"),
    ],
)
async def test_something_else_answers(
    site: Site, visit: Callable[..., Awaitable[Reader]], answer: dict[str, Any], words: str
) -> None:
    """A proxy's error or login page is not taken for the controller."""
    reader = await visit(site.list)
    await reader.page.route(site.list, lambda route: route.fulfill(**answer))
    await reader.later(6)
    await expect(reader.page.get_by_role("alert")).to_contain_text(words)
    await expect(reader.page.locator(ROWS)).to_have_count(11)


async def test_no_answer_in_time(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """A controller that does not answer in time is shown as unreachable."""
    reader = await visit(site.url)
    requests: list[Route] = []

    async def never(route: Route) -> None:
        requests.append(route)

    await reader.page.route(site.url, never)
    await reader.later(6)
    while not requests:
        await reader.page.wait_for_timeout(20)
    await reader.later(9)
    await expect(reader.page.get_by_role("alert")).to_contain_text("no response within 8 s")


async def test_another_release(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """The page is reloaded if another release answers, because its style may differ."""
    reader = await visit(site.list)
    page = reader.page
    await page.evaluate("window.same = true")
    await page.evaluate("document.documentElement.dataset.assets = 'of an older release'")
    async with page.expect_navigation():
        await reader.later(6)
    assert not await page.evaluate("window.same")
    await expect(page.locator(ROWS)).to_have_count(11)


async def test_copies(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """Copy buttons copy the full commit or the command, also without a clipboard API."""
    reader = await visit(site.list, permissions=["clipboard-read", "clipboard-write"])
    page = reader.page
    read = "navigator.clipboard.readText()"
    # The text is shown for a second only, which a busy machine can miss.
    await page.evaluate(
        """() => {
            const live = document.querySelector("#live");
            window.texts = [];
            new MutationObserver(() => window.texts.push(live.textContent)).observe(live, {
                childList: true, characterData: true, subtree: true,
            });
        }"""
    )
    copied = "() => window.texts.includes('Copied')"
    await page.locator(f"{FAILED} .from .copy").first.click()
    await page.wait_for_function(copied)
    assert await page.evaluate(read) == COMMIT
    await reader.later(2)
    await expect(page.locator("#live")).to_have_text("Live")
    await page.evaluate(
        "() => { window.texts = []; navigator.clipboard.writeText = () => Promise.reject('no'); }"
    )
    await page.locator(f"{FAILED} .from .copy").first.click()
    await page.wait_for_function(copied)
    assert await page.evaluate(read) == COMMIT


async def test_without_a_script(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """Without JavaScript the page can be read and filtered, and shows no buttons."""
    page = (await visit(site.list, java_script_enabled=False)).page
    await expect(page.locator(ROWS)).to_have_count(11)
    await expect(page.locator("#refresh")).to_be_hidden()
    await expect(page.locator(".copy").first).to_be_hidden()
    await page.get_by_role("searchbox").fill("targetdown")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.locator(ROWS)).to_have_count(2)
    await page.get_by_role("link", name="Held 1", exact=True).click()
    await expect(page.locator(ROWS)).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast(site: Site, visit: Callable[..., Awaitable[Reader]], scheme: str) -> None:
    """In both schemes every text has a contrast of at least 4.5 to 1, and dark is dark."""
    reader = await visit(site.url, color_scheme=scheme, reduced_motion="reduce")
    page = reader.page
    await page.locator(".as-table > summary").click()
    await page.locator(".health > summary").click()
    await site.stop()
    await reader.later(6)
    await expect(page.get_by_role("alert")).to_be_visible()
    worst = await page.evaluate(CONTRAST)
    assert worst["count"] > 200
    assert worst["ratio"] >= 4.5, worst
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)))
    assert brightness < 100 if scheme == "dark" else brightness > 600


@pytest.mark.parametrize("make", [pages.busy, pages.broken, pages.hostile])
async def test_a_phone(
    visit: Callable[..., Awaitable[Reader]], make: Callable[[datetime], Showcase]
) -> None:
    """On a phone nothing is wider than the screen, with everything opened, even if hostile."""
    site = Site(make(datetime.now(UTC)))
    await site.start()
    page = (await visit(site.url, viewport=PHONE, has_touch=True)).page
    for summary in await page.locator("main summary").all():
        if await summary.is_visible():
            await summary.click()
    width, screen = await page.evaluate(WIDTHS)
    assert width <= screen == PHONE["width"]
    await site.stop()


@pytest.mark.parametrize("width", [320, 601, 768, 901, 1024, 1201, 1920])
async def test_widths(site: Site, visit: Callable[..., Awaitable[Reader]], width: int) -> None:
    """At no width does the page scroll sideways."""
    page = (await visit(site.url, viewport={"width": width, "height": 800})).page
    await page.locator(".as-table > summary").click()
    await page.locator(".health > summary").click()
    scrolled, screen = await page.evaluate(WIDTHS)
    assert scrolled <= screen


async def test_keyboard(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """The first link skips the header, and the focus is always visible."""
    page = (await visit(site.url)).page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    outlined = """() => {
      const style = getComputedStyle(document.activeElement);
      return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    }"""
    stops = set()
    while await page.evaluate("document.activeElement !== document.body"):
        assert await page.evaluate(outlined)
        stops.add(await page.evaluate("document.activeElement.tagName"))
        await page.keyboard.press("Tab")
    assert {"A", "BUTTON", "SUMMARY"} <= stops


async def test_less_motion(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """Animations are off if the reader prefers reduced motion."""
    moving = "getComputedStyle(document.querySelector('.badge.run .icon')).animationName"
    page = (await visit(site.url, reduced_motion="no-preference")).page
    assert await page.evaluate(moving) == "breathe"
    page = (await visit(site.url, reduced_motion="reduce")).page
    assert await page.evaluate(moving) == "none"


async def test_a_clock_that_is_wrong(site: Site, visit: Callable[..., Awaitable[Reader]]) -> None:
    """Ages use the controller's clock, even if the reader's is wrong."""
    reader = await visit(site.list)
    page = reader.page
    await page.clock.set_system_time(datetime.now(UTC) + timedelta(days=400))
    await page.reload()
    assert await page.evaluate("Date.now()") > (datetime.now(UTC).timestamp() + 86_400) * 1000
    await reader.later(2)
    await expect(page.locator(f"{FAILED} .received .age")).to_have_text(re.compile("^9m"))
