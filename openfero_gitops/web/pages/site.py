"""Serves pages: what all of them have in common.

A page has a template and a function that computes the template's variables from the state of the
replica. It may have another that first waits for what only other servers know. Everything that a
page shows depends on its address, so that it can be shared, printed and read without JavaScript.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from aiohttp import web
from markupsafe import Markup, escape

from openfero_gitops.domain.duration import format_duration
from openfero_gitops.web.auth import ANYBODY
from openfero_gitops.web.errors import CLIENT_ERRORS, INTERNAL_ERROR, detail_of, log_internal_error
from openfero_gitops.web.formats import (
    ago,
    duration,
    http_link,
    rfc3339,
    short,
    visible,
    with_times,
)
from openfero_gitops.web.pages.attention import Attention, read_attention
from openfero_gitops.web.pages.phases import PHASES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from aiohttp.typedefs import Handler
    from jinja2 import Environment
    from multidict import MultiMapping

    from openfero_gitops.web.auth import Caller, Guard
    from openfero_gitops.web.bodies import BodyBudget
    from openfero_gitops.web.ports import ReplicaState
    from openfero_gitops.web.turns import Turns

_FOLDER: Final = Path(__file__).parent.parent
#: Larger pages are compressed in a thread.
_MAX_BYTES_COMPRESSED_INLINE: Final = 16 * 1024
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: The address of a static file changes with its content.
_ASSET_CACHING: Final = "public, max-age=31536000, immutable"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    # Without a referrer, the request of a form has no origin either, and would be refused.
    "Referrer-Policy": "same-origin",
}

#: Shown if the page about an error cannot be drawn.
_PLAIN_ERROR: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{reason} · openfero-gitops</title></head>
<body>
<h1>{reason} ({status})</h1>
<p>{detail}</p>
<p><a href="{base}">Overview</a></p>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a page, and the state at that time.

    Attributes:
        query: the parameters of the address.
        match: the variable parts of the path, decoded.
        state: of the replica.
        now: the time (UTC).
        base: the relative address of `/`, such as `../../`. Links are relative, for proxies that
            serve the pages under a path.
        attention: what needs a person, which every page shows.
        loaded: the result of the page's `load`; None if it has none.
        caller: who reads the page, as far as the authentication says.
    """

    query: MultiMapping[str]
    match: Mapping[str, str]
    state: ReplicaState
    now: datetime
    base: str
    attention: Attention
    loaded: Any = None
    caller: Caller = ANYBODY


@dataclass(frozen=True, slots=True)
class PageRoute:
    """A page.

    Attributes:
        path: of the page, with variable parts such as `{name}`.
        template: the name of its template, which extends `layout.html`.
        build: computes the variables of the template; fast, without I/O.
        load: first waits for what other servers know; limits its own time.
        title: of the page in the navigation; empty if it is not listed there.
        section: the path of the page that is marked in the navigation; empty for itself.
        still: whether the page stays as it is until it is loaded again.

    `build` and `load` may raise `web.HTTPException`, which is shown as a page.
    """

    path: str
    template: str
    build: Callable[[Visit], Mapping[str, Any]]
    load: Callable[[web.Request], Awaitable[Any]] | None = None
    title: str = ""
    section: str = ""
    still: bool = False

    @property
    def current(self) -> str:
        """The path that is marked in the navigation, as it is written there."""
        return (self.section or self.path).removeprefix("/")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who may read a page, and the path that its navigation marks; None for no path."""

    caller: Caller
    current: str | None


#: Of a request for a page: once the guard let it pass.
_VISITOR: Final = web.RequestKey("visitor", Visitor)


class PageMissing(web.HTTPNotFound):
    """There is nothing at an address; `links` (title, path) lead to what may be meant."""

    def __init__(self, text: str, links: Sequence[tuple[str, str]]) -> None:
        """Say what is missing."""
        super().__init__(text=text)
        self.links = links


class Site:
    """The pages of one application, and their static files."""

    def __init__(
        self,
        app: web.Application,
        state: ReplicaState,
        guard: Guard,
        turns: Turns,
        *,
        now: Callable[[], datetime],
        budget: BodyBudget,
    ) -> None:
        """Serve the static files; pages are added."""
        self.app = app
        #: For a page's `load`: the state of the replica, turns, the time, the memory for bodies.
        self.state = state
        self.turns = turns
        self.now = now
        self.budget = budget
        self._guard = guard
        #: Title and path (without the first slash) of the pages in the navigation.
        self._navigation: list[tuple[str, str]] = []
        self._contents = _read_assets()
        self._assets = {name: _asset_address(name, text) for name, text in self._contents.items()}
        app.router.add_get("/static/{name}", self._asset)
        # The innermost: requests that are refused before get no page.
        app.middlewares.append(self._draw_errors)

    def add(self, page: PageRoute) -> None:
        """Serve a page."""
        self.app.router.add_get(page.path, self.respond_with(page))

    def add_form(self, page: PageRoute) -> None:
        """Serve a page, and also the answer to the form on it."""
        handler = self.respond_with(page)
        self.app.router.add_get(page.path, handler)
        self.app.router.add_post(page.path, handler)

    def respond_with(self, page: PageRoute) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return the handler of a page, which is then listed in the navigation."""
        if page.title:
            self._navigation.append((page.title, page.path.removeprefix("/")))

        async def respond(request: web.Request) -> web.Response:
            caller = self._guard.check(request)
            request[_VISITOR] = Visitor(caller, page.current)
            loaded = await page.load(request) if page.load is not None else None
            async with self.turns.take(request):
                visit = self._visit(request, loaded, caller)
                variables = {"still": page.still, **page.build(visit)}
                text = await self._render(page.template, page.current, visit, variables)
            return _html(text, HTTPStatus.OK)

        return respond

    @web.middleware
    async def _draw_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Show browsers errors of pages, and addresses without a page, as a page."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            visitor = self._visitor(request)
            if error.status < HTTPStatus.BAD_REQUEST or visitor is None:
                raise
            links = error.links if isinstance(error, PageMissing) else ()
            detail = detail_of(error, request)
            return await self._draw_error(request, visitor, error.status, detail, links)
        except Exception as error:
            visitor = self._visitor(request)
            if visitor is None or request.transport is None or isinstance(error, CLIENT_ERRORS):
                raise
            log_internal_error(request)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return await self._draw_error(request, visitor, status, INTERNAL_ERROR)

    def _visitor(self, request: web.Request) -> Visitor | None:
        """Return who is shown a page about an error; None if the answer is for a program.

        Those who may not read pages learn nothing from an error.
        """
        if not _wants_html(request):
            return None
        missing = isinstance(request.match_info.http_exception, web.HTTPNotFound)
        if _VISITOR not in request and missing and request.method == "GET":
            try:
                return Visitor(self._guard.check(request), None)
            except web.HTTPException:
                return None
        return request.get(_VISITOR)

    async def _draw_error(
        self,
        request: web.Request,
        visitor: Visitor,
        status: int,
        detail: str,
        links: Sequence[tuple[str, str]] = (),
    ) -> web.Response:
        reason = HTTPStatus(status).phrase
        variables = {"status": status, "reason": reason, "detail": detail, "links": links}
        try:
            async with self.turns.take(request):
                visit = self._visit(request, None, visitor.caller)
                text = await self._render("error.html", visitor.current, visit, variables)
        except web.HTTPException:  # too many pages are drawn now
            text = _draw_plainly(request, status, reason, detail)
        except Exception:  # noqa: BLE001 - logged; what every page shows may be the cause
            log_internal_error(request)
            text = _draw_plainly(request, status, reason, detail)
        return _html(text, status)

    def _visit(self, request: web.Request, loaded: Any, caller: Caller) -> Visit:
        now = self.now()
        return Visit(
            query=request.query,
            match=request.match_info,
            state=self.state,
            now=now,
            base=_base_of(request),
            attention=read_attention(self.state),
            loaded=loaded,
            caller=caller,
        )

    async def _render(
        self, template: str, current: str | None, visit: Visit, variables: Mapping[str, Any]
    ) -> str:
        """Render in a thread, since a large page takes longer than the event loop may block."""
        common = {
            "now": visit.now,
            "base": visit.base,
            "assets": {n: visit.base.removeprefix("./") + a for n, a in self._assets.items()},
            "navigation": self._navigation,
            "current": current,
            "about": visit.attention.about,
            "concerns": visit.attention.concerns,
            "healthy": visit.attention.healthy,
            "page_counts": visit.attention.counts,
            "still": False,
        }
        return await asyncio.to_thread(_draw, template, common | dict(variables))

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        content = self._contents.get(name)
        if content is None:
            raise web.HTTPNotFound
        response = web.Response(
            body=content,
            headers={
                "Content-Type": _MEDIA_TYPES[Path(name).suffix],
                "Cache-Control": _ASSET_CACHING,
            },
        )
        response.enable_compression()
        return response


def _base_of(request: web.Request) -> str:
    return "../" * (request.rel_url.raw_path.count("/") - 1) or "./"


def _draw_plainly(request: web.Request, status: int, reason: str, detail: str) -> str:
    return _PLAIN_ERROR.format(
        status=status, reason=escape(reason), detail=escape(visible(detail)), base=_base_of(request)
    )


def _html(text: str, status: int) -> web.Response:
    response = web.Response(
        text=text,
        status=status,
        content_type="text/html",
        headers=_HEADERS,
        zlib_executor_size=_MAX_BYTES_COMPRESSED_INLINE,
    )
    response.enable_compression()
    return response


def _wants_html(request: web.Request) -> bool:
    return "text/html" in request.headers.get("Accept", "")


def _read_assets() -> dict[str, bytes]:
    """Read the static files. They are kept in memory, since they are small.

    All style sheets are served as one, in the order of their names after `base.css`.
    """
    folder = _FOLDER / "static"
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _MEDIA_TYPES]
    sheets = sorted(
        (folder / "styles").glob("*.css"), key=lambda path: (path.name != "base.css", path.name)
    )
    styles = b"\n".join(path.read_bytes() for path in sheets)
    return {path.name: path.read_bytes() for path in files} | {"style.css": styles}


def _draw(template: str, variables: Mapping[str, Any]) -> str:
    return _templates().get_template(template).render(variables)


@cache
def _templates() -> Environment:
    """Return the templates; each is compiled at the first request that needs it.

    The library is imported then, too.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

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
        ago=ago,
        duration=duration,
        written=format_duration,
        http_link=http_link,
        rfc3339=rfc3339,
        short=short,
        with_times=with_times,
    )
    templates.filters["urlencode"] = _quote
    templates.globals["phases"] = PHASES
    return templates


def _quote(value: str | Mapping[str, str]) -> str:
    """Quote a text for one segment or parameter of an address, or several parameters by name.

    (Lone surrogates, which have no UTF-8, become question marks.)
    """
    if isinstance(value, str):
        return quote(value, safe="", errors="replace")
    return urlencode(value, errors="replace")


def _make_visible(value: Any) -> Any:
    """Replace invisible characters in all template output."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset_address(name: str, content: bytes) -> str:
    """Build the address of a static file, relative to `/`.

    It holds a digest of the content, so that a page is never drawn with the style of another
    release.
    """
    return f"static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
