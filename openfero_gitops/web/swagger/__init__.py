"""Serves Swagger UI at `/swagger/`, which shows the OpenAPI document and sends its GET requests.

The files come from a package; only those that are needed are served, and nothing else is loaded.
Swagger UI sets styles inline, so that this one page has a looser Content-Security-Policy. It shows
no data of alerts but what the reader requests with it.

The package has Swagger UI 5.31.0 with DOMPurify 3.2.6. According to later advisories, some HTML
passes that (GHSA-v2wj-7wpq-c8vv, GHSA-v8jm-5vwx-cfxm, GHSA-39q2-94rc-95cp). No HTML reaches it
here: the only document is this server's own, whose texts are constants of the source. The address
cannot name another, answers are shown as text, and the policy allows no inline script.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import swagger_ui_bundle
from aiohttp import ETag, web

from openfero_gitops.web.api.route import accepts_gzip

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from openfero_gitops.web.auth import Guard

_OWN: Final = Path(__file__).parent
_HTML: Final = "text/html; charset=utf-8"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' "
    "data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
#: Browsers ask whether they have the newest, which the ETag answers: the addresses stay the same.
_CACHING: Final = "private, no-cache"


@dataclass(frozen=True, slots=True)
class _File:
    source: Traversable
    media_type: str


@dataclass(frozen=True, slots=True)
class _Content:
    body: bytes
    compressed: bytes
    digest: str


def _files() -> dict[str, _File]:
    bundle = swagger_ui_bundle.swagger_ui_path
    return {
        "": _File(_OWN / "index.html", _HTML),
        "initializer.js": _File(_OWN / "initializer.js", _SCRIPT),
        "swagger-ui-bundle.js": _File(bundle / "swagger-ui-bundle.js", _SCRIPT),
        "swagger-ui.css": _File(bundle / "swagger-ui.css", "text/css; charset=utf-8"),
        "favicon-32x32.png": _File(bundle / "favicon-32x32.png", "image/png"),
    }


def add_swagger(app: web.Application, guard: Guard) -> None:
    """Serve Swagger UI, and redirect to it from the path without the slash."""
    files = _files()

    @cache
    def read(name: str) -> _Content:
        """Read and compress a file; it is kept, because compressing takes a tenth of a second."""
        body = files[name].source.read_bytes()
        return _Content(body, gzip.compress(body), hashlib.sha256(body).hexdigest()[:24])

    async def respond(request: web.Request) -> web.Response:
        guard.check(request)
        name = request.match_info.get("name", "")
        if name not in files:
            raise web.HTTPNotFound
        content = await asyncio.to_thread(read, name)
        headers = {
            "Content-Type": files[name].media_type,
            "Content-Security-Policy": _POLICY,
            "Cache-Control": _CACHING,
            "Vary": "Accept-Encoding",
        }
        if any(tag.value == content.digest for tag in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        elif accepts_gzip(request):
            headers["Content-Encoding"] = "gzip"
            response = web.Response(body=content.compressed, headers=headers)
        else:
            response = web.Response(body=content.body, headers=headers)
        response.etag = ETag(content.digest, is_weak=True)
        return response

    async def redirect(request: web.Request) -> web.Response:
        guard.check(request)
        # Relative, for proxies that serve the pages under a path.
        raise web.HTTPMovedPermanently("swagger/")

    app.router.add_get("/swagger", redirect)
    app.router.add_get("/swagger/", respond)
    app.router.add_get("/swagger/{name}", respond)
