from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from aiohttp import web
from pydantic import Field

from openfero_gitops.web.api.operation import Tag
from openfero_gitops.web.api.paging import take_page
from openfero_gitops.web.api.parameters import PagingQuery, PathParameters
from openfero_gitops.web.api.route import AnyRoute, Call, Route, add_route
from openfero_gitops.web.api.shape import ListShape, Shape, Text
from openfero_gitops.web.turns import Turns
from tests.support.serving import OPEN, problem, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class WordShape(Shape):
    """A word."""

    word: Text


class WordListShape(ListShape[WordShape]):
    """Words."""


class WordPath(PathParameters):
    """A shelf."""

    shelf: Annotated[str, Field(max_length=5)]


def words(*values: str, load: Callable[[Any], Awaitable[Any]] | None = None) -> AnyRoute:
    """Make a list of words, and of what `load` loads."""

    def build(call: Call[WordPath, PagingQuery]) -> WordListShape:
        listed = [*values, *(call.loaded or ())]
        page, following = take_page(listed, lambda word: word, call)
        return WordListShape(items=[WordShape(word=w) for w in page], continue_=following)

    return Route(
        "/api/{shelf}/words",
        "List words",
        Tag.CONTROLLER,
        WordListShape,
        build,
        path_parameters=WordPath,
        query=PagingQuery,
        errors=(404,),
        load=load,
    )


def serve(route: AnyRoute, turns: Turns | None = None) -> Any:
    """Serve one route."""
    return serving(lambda app: add_route(app, route, OPEN, turns or Turns()))


async def test_an_answer_that_the_client_has_is_not_sent_again() -> None:
    """With the ETag of an answer, or any, the next is 304 without a body until it changes."""
    route = words("a", "b")
    async with serve(route) as client:
        first = await client.get("/api/x/words")
        tag = first.headers["ETag"]
        assert tag.startswith('W/"')
        for known in (tag, f'"other", {tag}', "*"):
            again = await client.get("/api/x/words", headers={"If-None-Match": known})
            assert (again.status, await again.read()) == (304, b"")
            assert again.headers["ETag"] == tag
        other = await client.get("/api/x/words?limit=1", headers={"If-None-Match": tag})
        assert other.status == 200
        assert other.headers["ETag"] != tag


async def test_large_answers_are_compressed_for_clients_that_can_read_that() -> None:
    """A large answer is sent with gzip if the client accepts it, a small one as it is."""
    route = words(*(f"word{number:03d}" for number in range(200)))
    async with serve(route) as client:
        large = await client.get("/api/x/words", headers={"Accept-Encoding": "deflate, gzip"})
        assert large.headers["Content-Encoding"] == "gzip"
        assert large.headers["Vary"] == "Accept-Encoding"
        assert len((await large.json())["items"]) == 100
        plain = await client.get("/api/x/words", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        assert plain.headers["ETag"] == large.headers["ETag"]
        assert int(large.headers["Content-Length"]) < len(gzip.compress(await plain.read())) + 99
        small = await client.get("/api/x/words?limit=1", headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in small.headers


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip;q=0", False),
        ("GZIP ; q=0.000, br", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("notgzip", False),
        ("", False),
        ("gzip;q=0.001", True),
        ("br, *;q=0.5", True),
        ("*;q=0, gzip", True),
        ("x-gzip", True),
    ],
)
async def test_a_client_can_refuse_gzip(accepted: str, *, compressed: bool) -> None:
    """Weights in Accept-Encoding count: one of 0 refuses, and * is everything not named."""
    route = words(*(f"word{number:03d}" for number in range(200)))
    async with serve(route) as client:
        answer = await client.get("/api/x/words", headers={"Accept-Encoding": accepted})
        assert ("Content-Encoding" in answer.headers) == compressed


async def test_a_page_links_to_the_next_one() -> None:
    """The Link header leads to the next page, with the same parameters; the last has none."""
    async with serve(words("a", "b", "c")) as client:
        first = await client.get("/api/x/words?limit=2")
        address = first.links["next"]["url"]
        assert address.path == "/api/x/words"
        assert address.query["limit"] == "2"
        last = await client.get(f"{address.path}?{address.raw_query_string}")
        assert (await last.json())["items"] == [{"word": "c"}]
        assert "next" not in last.links


async def test_head_has_the_headers_of_get() -> None:
    """HEAD is a GET without a body."""
    async with serve(words("a")) as client:
        got = await client.get("/api/x/words")
        head = await client.head("/api/x/words")
        assert (head.status, await head.read()) == (200, b"")
        for name in ("ETag", "Content-Type", "Content-Length"):
            assert head.headers[name] == got.headers[name]


async def test_what_other_servers_know_is_loaded_before_the_turn() -> None:
    """While a request loads, others are answered; then it is answered with what it loaded."""
    loading, loaded = asyncio.Event(), asyncio.Event()

    async def load(call: Call[WordPath, PagingQuery]) -> list[str]:
        if call.path.shelf == "slow":
            loading.set()
            await loaded.wait()
        return [call.path.shelf]

    async with serve(words(load=load), Turns(1)) as client:
        slow = asyncio.create_task(client.get("/api/slow/words"))
        await loading.wait()
        quick = await client.get("/api/fast/words")
        assert (await quick.json())["items"] == [{"word": "fast"}]
        loaded.set()
        assert (await (await slow).json())["items"] == [{"word": "slow"}]


async def test_nothing_has_such_a_name() -> None:
    """A part of the path that cannot be a name is 404, like a name that nothing has."""
    async with serve(words("a")) as client:
        answer = await client.get("/api/toolong/words")
        assert problem(await answer.text(), 404)["detail"] == "there is no /api/toolong/words"


async def test_an_error_of_an_endpoint_is_a_problem() -> None:
    """What `build` raises is answered as a problem document, with its text."""

    def build(_: Call[WordPath, PagingQuery]) -> WordShape:
        raise web.HTTPNotFound(text="there is no such word; see /api/x/words")

    route = Route(
        "/api/{shelf}/word",
        "Show a word",
        Tag.CONTROLLER,
        WordShape,
        build,
        path_parameters=WordPath,
        errors=(404,),
    )
    async with serve(route) as client:
        answer = await client.get("/api/x/word")
        detail = problem(await answer.text(), 404)["detail"]
        assert detail == "there is no such word; see /api/x/words"


async def test_any_text_is_serialised() -> None:
    """Lone surrogates, which are no UTF-8, become JSON escapes."""
    async with serve(words("\udce9", "ok")) as client:
        answer = await client.get("/api/x/words")
        items = json.loads(await answer.read())["items"]
        assert {item["word"] for item in items} == {"\udce9", "ok"}
        token = (await (await client.get("/api/x/words?limit=1")).json())["continue"]
        rest = await client.get("/api/x/words", params={"continue": token})
        assert (await rest.json())["items"] == [{"word": "\udce9"}]
