from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from openfero_gitops.web.auth import Credentials, Guard
from openfero_gitops.web.swagger import add_swagger
from tests.support.serving import OPEN, PROBLEM, serving

if TYPE_CHECKING:
    from pathlib import Path


async def test_only_the_needed_files_are_served() -> None:
    """The page and its files are there, and nothing else of the package or around it."""
    async with serving(lambda app: add_swagger(app, OPEN)) as client:
        page = await (await client.get("/swagger/")).text()
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "initializer.js"):
            assert f'"{name}"' in page
            assert (await client.get(f"/swagger/{name}")).status == 200
        for name in ("index.html", "swagger-ui-bundle.js.map", "oauth2-redirect.html", "..%2Fapi"):
            answer = await client.get(f"/swagger/{name}")
            assert (answer.status, answer.content_type) == (404, PROBLEM)


async def test_a_browser_that_has_a_file_does_not_load_it_again() -> None:
    """A file is sent compressed once; with its ETag, the answer is 304 without a body."""
    async with serving(lambda app: add_swagger(app, OPEN)) as client:
        first = await client.get("/swagger/swagger-ui-bundle.js")
        assert first.headers["Content-Encoding"] == "gzip"
        assert int(first.headers["Content-Length"]) < 600_000
        again = await client.get(
            "/swagger/swagger-ui-bundle.js", headers={"If-None-Match": first.headers["ETag"]}
        )
        assert (again.status, await again.read()) == (304, b"")
        plain = await client.get("/swagger/swagger-ui.css", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers


async def test_swagger_needs_the_credentials_of_the_pages(tmp_path: Path) -> None:
    """Without credentials, each of its paths is 401."""
    file = tmp_path / "credentials"
    file.write_text("reader:secret\n")
    guard = Guard(Credentials("basic", file), certificate=False)
    right = {"Authorization": "Basic " + base64.b64encode(b"reader:secret").decode()}
    async with serving(lambda app: add_swagger(app, guard)) as client:
        for path in ("/swagger", "/swagger/", "/swagger/swagger-ui.css"):
            assert (await client.get(path)).status == 401
            assert (await client.get(path, headers=right)).status == 200
