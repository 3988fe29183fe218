"""Pages of other sites in a real browser, which can reach the controller."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.chromium import chromium
from tests.support.process import free_port
from tests.support.replica import alert, group
from tests.support.serving import Inbox, local_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

#: Resolves to loopback, as every name can that an attacker owns.
EVIL = "evil.example"
FLAGS = [
    f"--host-resolver-rules=MAP {EVIL} 127.0.0.1",
    # Recent browsers protect loopback themselves; others do not.
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
]
DELIVERY = json.dumps(group(alert("HostDown")))
#: What a page can send without asking first.
SEND = """async ([url, body]) => {
  const sent = [
    fetch(`${url}alerts`, {method: "POST", mode: "no-cors", body}),
    fetch(`${url}alert`, {method: "POST", mode: "no-cors", body: new Blob([body])}),
    fetch(`${url}alerts`, {method: "POST", headers: {"Content-Type": "application/json"}, body}),
  ];
  await Promise.allSettled(sent);
  navigator.sendBeacon(`${url}alerts`, body);
}"""
SEND_BY_FORM = """([url, body]) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-forms allow-scripts";
  frame.srcdoc = `<form method="post" enctype="text/plain" action="${url}alerts">
    <input name='${body.slice(0, -1)},"x":"' value='"}'></form>
    <script>document.forms[0].submit()</script>`;
  let loads = 0;
  frame.onload = () => { loads += 1; if (loads === 2) done(); };
  document.body.append(frame);
  setTimeout(done, 3000);
})"""
READ = """async (url) => {
  const answer = await fetch(url);
  return [answer.status, await answer.text()];
}"""
LOADS = """(url) => new Promise((done) => {
  const image = new Image();
  image.onload = () => done(true);
  image.onerror = () => done(false);
  image.src = url;
})"""


@pytest_asyncio.fixture(loop_scope="module")
async def inbox() -> Inbox:
    """Give what receives deliveries."""
    return Inbox()


@pytest_asyncio.fixture(loop_scope="module")
async def url(inbox: Inbox) -> AsyncIterator[str]:
    """Run the controller's server on loopback, without authentication; give its address."""
    server = local_server(deliveries=inbox)
    await server.start()
    yield f"http://127.0.0.1:{server.bound[0].port}/"
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start Debian's Chromium."""
    async with chromium(*FLAGS) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def evil(browser: Browser, url: str) -> AsyncIterator[Page]:
    """Open a page of another site, which has a link to the controller."""

    async def show(_: web.Request) -> web.Response:
        text = f'<title>evil</title><a href="{url}">Who is on call?</a>'
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    context = await browser.new_context()
    context.set_default_timeout(60_000)
    page = await context.new_page()
    await page.goto(f"http://{EVIL}:{port}/")
    yield page
    await context.close()
    await runner.cleanup()


async def test_a_page_of_another_site_cannot_send_alerts(
    evil: Page, url: str, inbox: Inbox
) -> None:
    """Neither scripts nor forms of a page that somebody reads make the controller act."""
    await evil.evaluate(SEND, [url, DELIVERY])
    await evil.evaluate(SEND_BY_FORM, [url, DELIVERY])
    assert inbox.groups == []


async def test_a_page_of_another_site_cannot_embed_anything(evil: Page, url: str) -> None:
    """Images and frames of the controller do not load in a page of another site."""
    assert not await evil.evaluate(LOADS, f"{url}static/icon.svg")
    await evil.evaluate("(url) => document.body.append(Object.assign("
                        "document.createElement('iframe'), {src: url}))", url)  # fmt: skip
    frame = await (await evil.wait_for_selector("iframe")).content_frame()
    assert frame is not None
    await frame.wait_for_load_state()
    assert "KubePodCrashLooping" not in await frame.content()


async def test_a_link_leads_to_the_page(evil: Page, url: str) -> None:
    """Who follows a link, for example from a chat, sees the page with its style and script."""
    await evil.get_by_role("link").click()
    await evil.wait_for_url(url)
    assert await evil.locator(".lanes rect.bar").count() == 11
    assert await evil.evaluate("getComputedStyle(document.body).margin") == "0px"


async def test_a_name_that_is_made_to_resolve_to_loopback(
    browser: Browser, url: str, inbox: Inbox
) -> None:
    """A page whose name resolves to loopback reads nothing and sends nothing (DNS rebinding)."""
    page = await browser.new_page()
    rebound = url.replace("127.0.0.1", EVIL)

    async def show(route: Route) -> None:
        await route.fulfill(body="<title>evil</title>", content_type="text/html")

    await page.route(rebound, show)
    await page.goto(rebound)
    await page.unroute(rebound)
    for path in ("", "api/remediations", "metrics"):
        status, text = await page.evaluate(READ, f"{rebound}{path}")
        assert status == 403
        assert "KubePodCrashLooping" not in text
    await page.evaluate(SEND, [rebound, DELIVERY])
    assert inbox.groups == []
    await page.goto(url)
    assert await page.locator(".lanes rect.bar").count() == 11
    await page.close()
