"""Errors as browsers see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.pages import add_pages
from tests.support.pages import busy

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Defect(Exception):
    """What no handler expects."""


async def get(
    path: str, headers: Mapping[str, str], broken: str = "", guard: Guard | None = None
) -> tuple[int, str, str]:
    """Return status, type and text of an answer of a replica with a broken part."""
    state = busy(NOW)

    def fail() -> None:
        raise Defect

    if broken:
        setattr(state, broken, fail)
    app = web.Application(middlewares=[problems])
    add_pages(app, state, guard or Guard(None, certificate=False), now=lambda: NOW)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(path, headers=headers)
        return answer.status, answer.content_type, await answer.text()


@pytest.mark.parametrize(
    ("path", "broken", "status", "detail"),
    [
        ("/nothing/here", "", 404, "there is no /nothing/here"),
        ("/%3Cb%3E", "", 404, "there is no /&lt;b&gt;"),
        ("/operarios/absent", "", 404, "absent"),
        ("/sync", "revisions", 500, "internal error; see the controller"),
        ("/sync", "about", 500, "internal error; see the controller"),
        ("/nothing/here", "about", 404, "there is no /nothing/here"),
    ],
)
async def test_browsers_get_a_page(path: str, broken: str, status: int, detail: str) -> None:
    """It says what happened and has a way back, even if what all pages show is broken."""
    code, kind, text = await get(path, BROWSER, broken)
    assert (code, kind) == (status, "text/html")
    assert detail in text
    back = "../" if path.count("/") == 2 else "./"
    assert f'<a href="{back}">Overview</a>' in text
    assert ("<nav" in text) is (broken != "about")
    assert ("aria-current" in text) is (broken != "about" and not detail.startswith("there is no"))


@pytest.mark.parametrize(
    ("path", "broken", "status"), [("/nothing", "", 404), ("/sync", "revisions", 500)]
)
async def test_programs_get_a_problem(path: str, broken: str, status: int) -> None:
    """A client that does not ask for HTML gets a problem document."""
    assert (await get(path, {"Accept": "*/*"}, broken))[:2] == (status, "application/problem+json")


async def test_strangers_learn_nothing() -> None:
    """Without credentials, no page is drawn around an error."""
    for path in ("/nothing", "/sync"):
        status, kind, _ = await get(path, BROWSER, "revisions", Guard(None, certificate=True))
        assert (status, kind) == (404 if path == "/nothing" else 401, "application/problem+json")
