"""Debian's Chromium, controlled by Playwright."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from playwright.async_api import async_playwright

from tests.support.optional import require_chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

#: As root there is no sandbox; nothing may call its maker.
_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    """Start the browser, with further flags."""
    executable = require_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=[*_FLAGS, *flags]
        )
        yield browser
        await browser.close()
