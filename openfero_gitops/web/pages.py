"""Serves the page: the active catalog, what ran, and what is wrong.

The address holds the filter (`?phase=Failed&q=cart`). So it can be shared, works without
JavaScript, and reaches rows beyond those that a table shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from openfero_gitops.domain.duration import format_duration
from openfero_gitops.web.formats import ago, duration, rfc3339, short
from openfero_gitops.web.overview import PHASES, PageQuery, build_overview

if TYPE_CHECKING:
    from collections.abc import Callable

    from multidict import MultiMapping

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import ReplicaState

_FOLDER: Final = Path(__file__).parent
#: Larger pages are compressed in a thread.
_MAX_BYTES_COMPRESSED_INLINE: Final = 16 * 1024
#: Invisible characters that can make a path or a label look like another one: controls, surrogates
#: and marks of text direction. (Emoji joiners, tabs and newlines are harmless.)
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: The static files, with their media types. They are kept in memory, since they are small.
_ASSETS: Final = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
#: The address of a static file changes with its content.
_ASSET_CACHING: Final = "public, max-age=31536000, immutable"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}


def _utc_now() -> datetime:
    return datetime.now(UTC)


def add_pages(
    app: web.Application, state: ReplicaState, guard: Guard, now: Callable[[], datetime] = _utc_now
) -> None:
    """Serve `/` and its static files."""
    page = _template()
    contents = {name: (_FOLDER / "static" / name).read_bytes() for name in _ASSETS}
    assets = {name: _asset_address(name, content) for name, content in contents.items()}

    async def index(request: web.Request) -> web.Response:
        guard.check(request)
        overview = build_overview(state, _read_query(request.query), now())
        text = await asyncio.to_thread(page.render, overview, assets=assets)
        response = web.Response(
            text=text,
            content_type="text/html",
            headers=_HEADERS,
            zlib_executor_size=_MAX_BYTES_COMPRESSED_INLINE,
        )
        response.enable_compression()
        return response

    async def asset(request: web.Request) -> web.Response:
        content = contents.get(request.match_info["name"])
        if content is None:
            raise web.HTTPNotFound
        response = web.Response(
            body=content,
            headers={
                "Content-Type": _ASSETS[request.match_info["name"]],
                "Cache-Control": _ASSET_CACHING,
            },
        )
        response.enable_compression()
        return response

    app.router.add_get("/", index)
    app.router.add_get("/static/{name}", asset)


def _read_query(parameters: MultiMapping[str]) -> PageQuery:
    """Read `phase` (ignoring case, repeatable) and `q`; raise 400 for an unknown phase."""
    phases = {phase.value.lower(): phase for phase in PHASES}
    names = [name.lower() for name in parameters.getall("phase", []) if name]
    for name in names:
        if name not in phases:
            raise web.HTTPBadRequest(text=f"unknown phase {name!r}; use {', '.join(PHASES)}")
    return PageQuery(tuple(phases[name] for name in names), parameters.get("q", "").strip())


@cache
def _template() -> Template:
    """Compile the page's template, once per process."""
    templates = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        finalize=_make_visible,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        ago=ago, duration=duration, written=format_duration, rfc3339=rfc3339, short=short
    )
    return templates.get_template("index.html")


def _make_visible(value: Any) -> Any:
    r"""Replace invisible characters by their code, such as `\u202e`, in all template output."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)


def _asset_address(name: str, content: bytes) -> str:
    """Build the address of a static file.

    It is relative, for proxies that serve the page under a path. It holds a digest of the content,
    so that a page is never drawn with the style of another release.
    """
    return f"static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
