"""The pages: one look at what is in force, what ran, and what is wrong.

The address carries the filter (`?phase=Failed&q=cart`), so that it can be sent to a colleague,
works without JavaScript, and reaches past the rows that are shown.
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
from openfero_gitops.web.overview import PHASES, Query, ago, duration, look, rfc3339, short

if TYPE_CHECKING:
    from collections.abc import Callable

    from multidict import MultiMapping

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.state import State

_HERE: Final = Path(__file__).parent
#: Bytes; what is larger is compressed in a thread.
_COMPRESSED_ASIDE: Final = 16 * 1024
#: Controls, halves of characters, and what turns the direction of the text after it: nobody sees
#: them, and a path or a label that holds one reads as another. (What joins emoji is not among
#: them, nor are tabs and new lines.)
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _utc_now() -> datetime:
    return datetime.now(UTC)


def add_pages(
    app: web.Application, state: State, guard: Guard, now: Callable[[], datetime] = _utc_now
) -> None:
    """Serve `/` and what it is drawn with."""
    page = _template()
    assets = {name: _address(name) for name in ("style.css", "page.js", "icon.svg")}

    async def index(request: web.Request) -> web.Response:
        guard.check(request)
        seen = look(state, _read_query(request.query), now())
        text = await asyncio.to_thread(page.render, seen, assets=assets)
        response = web.Response(
            text=text,
            content_type="text/html",
            headers=_HEADERS,
            zlib_executor_size=_COMPRESSED_ASIDE,
        )
        response.enable_compression()
        return response

    app.router.add_get("/", index)
    app.router.add_static("/static", _HERE / "static")


def _read_query(given: MultiMapping[str]) -> Query:
    """Read `phase` (in any case; it may repeat) and `q`; raise 400 for an unknown phase."""
    known = {phase.value.lower(): phase for phase in PHASES}
    names = [name.lower() for name in given.getall("phase", []) if name]
    for name in names:
        if name not in known:
            raise web.HTTPBadRequest(
                text=f"phase {name!r} does not exist: there are {', '.join(PHASES)}"
            )
    return Query(tuple(known[name] for name in names), given.get("q", "").strip())


@cache
def _template() -> Template:
    """The page; compiled once, it holds no state."""
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        ago=ago, duration=duration, written=format_duration, rfc3339=rfc3339, short=short
    )
    return templates.get_template("index.html")


def _visible(value: Any) -> Any:
    r"""Write what nobody would see as its code, `\u202e`: whatever a template puts out."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def _address(name: str) -> str:
    """Where a static file is found.

    Relative, for a proxy that serves the pages under a path; versioned by content, so that a
    page of one release is never drawn with the style of another.
    """
    content = (_HERE / "static" / name).read_bytes()
    return f"static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
