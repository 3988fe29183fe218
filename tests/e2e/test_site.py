"""The documentation site in a real browser."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

from tests.support.chromium import chromium
from tests.support.site import build_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.async_api import Page

ADDRESS = "https://openfero.github.io/openfero-gitops/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once; a broken link or a page without a place in it fails here."""
    return build_site(tmp_path_factory.mktemp("site"))


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that logs nothing."""

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Names(HTMLParser):
    """The addresses that a page names, by what it does with them, and its ids."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the attributes of an element."""
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "data"):
                self.loaded.append(value or "")


def test_every_link_leads_to_a_heading_that_exists(site: Path) -> None:
    """A link inside the site names a page, and a fragment an element of it; nothing else is loaded.

    Sphinx checks the links of Markdown; this finds those of raw HTML, too.
    """
    pages = {str(file.relative_to(site)): Names(file.read_text()) for file in site.rglob("*.html")}
    assert len(pages) > 20
    broken = []
    for name, page in pages.items():
        for link in page.links:
            address, fragment = urldefrag(urljoin(name, link))
            if urlsplit(address).scheme:
                continue
            target = pages.get(unquote(address))
            exists = target or (site / unquote(address)).is_file()
            if not exists or (target and fragment and unquote(fragment) not in target.ids):
                broken.append(f"{name}: {link}")
        broken += [
            f"{name} loads {url}"
            for url in page.loaded
            if urlsplit(url).netloc and url != f"{ADDRESS}{name}"  # which is only named
        ]
    assert broken == []


async def test_the_site_in_a_browser(site: Path) -> None:
    """Search finds a reason, the dark mode is kept, and no request goes to another origin."""
    requests: list[str] = []
    errors: list[str] = []
    with served(site) as base:
        async with chromium() as browser:
            page = await browser.new_page()
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda said: errors.extend([said.text] * (said.type == "error")))
            await page.goto(base)
            await _search(page, "same-incident")
            # The results appear one after the other.
            await page.locator("#search-results li a", has_text="Reasons").first.wait_for()
            for _ in range(3):
                if await _theme(page) == "dark":
                    break
                await page.locator("button.theme-toggle:visible").first.click()
            assert await _theme(page) == "dark"
            await page.goto(f"{base}reference/reasons.html")
            assert await _theme(page) == "dark"
    assert {urlsplit(url).netloc for url in requests} == {urlsplit(base).netloc}
    assert errors == []


async def _search(page: Page, text: str) -> None:
    await page.locator(".sidebar-search").fill(text)
    await page.keyboard.press("Enter")


async def _theme(page: Page) -> str:
    return str(await page.evaluate("document.body.dataset.theme"))
