"""`make screenshots`: draw the pictures of the pages in `docs/img`.

The state, the clock and the zone are fixed, so that a picture changes visibly only if a page does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from aiohttp import web

from openfero_gitops.catalog.revisions import Activation, RevisionHistory
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.sync import Changes, SyncRecord
from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.webhook import add_alerts_check
from tests.support import pages
from tests.support.chromium import chromium
from tests.support.evidence import sample
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser

    from tests.support.pages import Showcase

FOLDER: Final = ROOT / "docs" / "img"
_NOW: Final = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
_DESKTOP: Final = (1280, 780)
_PHONE: Final = (375, 812)


@dataclass(frozen=True)
class Picture:
    """One picture: its file, the page, how it is drawn, and which part of it (a CSS selector)."""

    file: str
    address: str
    scheme: str = "light"
    size: tuple[int, int] = _DESKTOP
    part: str = ""


PICTURES: Final = (
    Picture("overview.png", ""),
    Picture("timeline.png", "", part=".day"),
    Picture("overview-dark.png", "", "dark"),
    Picture("overview-phone.png", "", size=_PHONE),
    Picture("alerts.png", "alerts"),
    Picture("remediations.png", "remediations"),
    Picture("remediation.png", "remediations/JOB"),
    Picture("operarios.png", "operarios"),
    Picture("operario.png", "operarios/OPERARIO"),
    Picture("sync.png", "sync"),
    Picture("explain.png", "explain"),
)


def day(moment: datetime) -> Showcase:
    """Make the busy replica with the remediations of a day before."""
    state = pages.busy(moment)
    looks = (
        (Phase.SUCCEEDED, Effect.HEALED),
        (Phase.SUCCEEDED, Effect.HEALED),
        (Phase.SUCCEEDED, Effect.NOT_HEALED),
        (Phase.SUCCEEDED, Effect.HEALED),
        (Phase.REFUSED, None),
        (Phase.FAILED, None),
        (Phase.SUCCEEDED, Effect.UNKNOWN),
    )
    names = ("KubePodCrashLooping", "TargetDown", "KubeNodeNotReady", "HostOutOfDiskSpace")
    for number in range(46):
        received = moment - timedelta(minutes=80 + 29 * number)
        phase, effect = looks[number * 5 % len(looks)]
        labels = {"alertname": names[number * 7 % 4], "node": f"worker-{number % 9}"}
        finished = received + timedelta(minutes=3 + number * 11 % 23)
        state.jobs.append(
            pages.remediation(
                labels["alertname"],
                phase,
                received,
                labels=labels,
                number=f"d{number}",
                finished_at=finished if phase is not Phase.REFUSED else None,
                resolved_at=finished,
                effect=effect,
                effect_at=finished,
                effect_message="firing again 9m after it was resolved" if effect else "",
                commit=pages.OLDER if number > 20 else pages.COMMIT,
                admitted_by="openfero-gitops-7d9c5b-q8k2m" if number > 33 else pages.REPLICA,
                reason="same-incident" if phase is Phase.REFUSED else "",
            )
        )
    changed = moment - timedelta(hours=11, minutes=20)
    record = SyncRecord(
        changed,
        changed,
        1,
        pages.OLDER,
        pages.COMMIT,
        "git",
        Changes(changed=("openfero-kubepodcrashlooping-firing",)),
        {"fetch": 0.3},
    )
    state.synced = replace(state.synced, history=(record,), active_since=changed)
    state.activations = RevisionHistory(
        (
            Activation(pages.OLDER, changed - timedelta(days=3, hours=2), "Platform Team"),
            Activation(pages.COMMIT, changed),
        )
    )
    return state


async def draw(browser: Browser, state: Showcase, url: str, picture: Picture) -> Path:
    """Draw one picture."""
    failed = next(job for job in state.jobs if job.phase is Phase.FAILED)
    width, height = picture.size
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if picture.scheme == "dark" else "light",
        reduced_motion="reduce",
        timezone_id="UTC",
    )
    page = await context.new_page()
    await page.clock.set_fixed_time(state.moment)
    address = picture.address.replace("JOB", str(failed.key)).replace("OPERARIO", failed.operario)
    await page.goto(url + address)
    await page.wait_for_function("document.documentElement.classList.contains('js')")
    file = FOLDER / picture.file
    if picture.part:
        await page.locator(picture.part).screenshot(path=file, animations="disabled")
    else:
        await page.screenshot(path=file, animations="disabled")
    await context.close()
    return file


async def draw_all() -> None:
    """Draw every picture, and print how large each is."""
    await asyncio.to_thread(FOLDER.mkdir, parents=True, exist_ok=True)
    state = day(_NOW)
    app = web.Application(middlewares=[problems])
    guard = Guard(None, certificate=False)
    add_pages(app, state, guard, now=lambda: state.moment, evidence=sample(state))
    add_alerts_check(app, guard)  # serves the page of alerts
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with chromium() as browser:
        for picture in PICTURES:
            file = await draw(browser, state, url, picture)
            size = (await asyncio.to_thread(file.stat)).st_size
            print(f"{file.relative_to(ROOT)}: {size / 1000:.0f} kB")
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(draw_all())
