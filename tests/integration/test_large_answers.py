"""Answers of an API server that are larger than anybody needs."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientConnectionResetError, web

from openfero_gitops.cluster.answers import MAX_ANSWER_BYTES, MAX_PAGE_BYTES
from openfero_gitops.cluster.api import CONFIG_MAPS, JOB_STATES
from openfero_gitops.domain.errors import Forbidden, Unavailable
from tests.integration.odd_server import odd_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openfero_gitops.cluster.api import Object

MIB = 2**20


def large_job(name: str, size: int = 900_000) -> Object:
    """Return a Job as a server lists it, with a Pod template of so many bytes."""
    return {
        "metadata": {"name": name, "namespace": "shop", "managedFields": [{"manager": "x" * 1000}]},
        "spec": {"suspend": True, "template": {"spec": {"nodeName": "x" * size}}},
    }


def name_of(item: Object) -> str:
    """Return an object's name."""
    return str(item["metadata"]["name"])


@contextmanager
def at_most(mebibytes: float) -> Iterator[None]:
    """Fail a block that allocates more memory than this at one time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * MIB, f"{peak / MIB:.0f} MiB"


def listing(count: int, make: Callable[[int], Object]) -> Callable[[web.Request], Any]:
    """Return a handler that lists so many objects, page by page, as slowly as they are read."""

    async def answer(request: web.Request) -> web.StreamResponse:
        start = int(request.query.get("continue") or 0)
        end = min(count, start + int(request.query["limit"]))
        following = str(end) if end < count else ""
        response = web.StreamResponse()
        await response.prepare(request)
        metadata = json.dumps({"resourceVersion": "9", "continue": following})
        try:
            await response.write(b'{"metadata":' + metadata.encode() + b',"items":[')
            for n in range(start, end):
                separator = b"," if n > start else b""
                await response.write(separator + json.dumps(make(n)).encode())
            await response.write(b"]}")
        except ClientConnectionResetError:  # the client has read enough
            pass
        return response

    return answer


def endless(text: bytes, code: int = 200) -> Callable[[web.Request], Any]:
    """Return a handler whose answer does not end."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=code)
        await response.prepare(request)
        try:
            await response.write(text)
            while True:
                await response.write(b"x" * 65536)
        except ClientConnectionResetError:
            return response

    return answer


async def test_a_page_with_too_many_bytes_is_read_in_smaller_ones(tmp_path: Path) -> None:
    """200 Jobs of 0.9 MB each are listed completely, in the memory of one page."""
    handler = listing(200, lambda n: large_job(f"n-{n:03}"))
    async with odd_api(tmp_path, handler) as (api, odd):
        with at_most(MAX_PAGE_BYTES * 3 / MIB):
            jobs = await api.list(JOB_STATES, "shop", read=name_of, timeout=300)
        limits = [int(request.query["limit"]) for request in odd.requests]
    assert jobs.items == [f"n-{n:03}" for n in range(200)]
    assert jobs.resource_version == "9"
    assert limits[:3] == [500, 62, 7]
    assert max(limits[3:]) <= 14


async def test_small_objects_after_large_ones_come_in_large_pages_again(tmp_path: Path) -> None:
    """A page grows again where objects are small."""
    handler = listing(3000, lambda n: large_job(f"n-{n}", 900_000 if n < 20 else 100))
    async with odd_api(tmp_path, handler) as (api, odd):
        jobs = await api.list(JOB_STATES, "shop", read=name_of, timeout=300)
        limits = [int(request.query["limit"]) for request in odd.requests]
    assert jobs.items == [f"n-{n}" for n in range(3000)]
    assert limits[-1] == 500


@pytest.mark.parametrize(
    "filler",
    [
        pytest.param(b"{},", id="empty objects"),
        pytest.param(b'{"name":"a"},', id="small objects"),
        pytest.param(b"[[[[]]]],", id="nested lists"),
        pytest.param(b'"",', id="empty strings"),
    ],
)
async def test_what_is_not_needed_of_an_object_is_not_built(tmp_path: Path, filler: bytes) -> None:
    """A Pod template that becomes 25 times as large in memory as it is in JSON costs its text."""
    content = filler * (7 * MIB // len(filler))
    text = (
        b'{"metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"a"},'
        b'"spec":{"suspend":true,"template":{"a":[' + content[:-1] + b"]}}}]}"
    )

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=text, content_type="application/json")

    async with odd_api(tmp_path, answer) as (api, _):
        with at_most(3 * len(text) / MIB):
            (job,) = (await api.list(JOB_STATES, "shop")).items
    assert job["spec"] == {"suspend": True}


async def test_other_tasks_run_while_a_page_is_read(tmp_path: Path) -> None:
    """Reading a page of many or of large objects does not block the event loop."""
    pauses = 0

    async def count() -> None:
        nonlocal pauses
        while True:
            await asyncio.sleep(0)
            pauses += 1

    seen: list[int] = []

    def note(_: Object) -> None:
        seen.append(pauses)

    handler = listing(306, lambda n: large_job(f"n-{n}", 900_000 if n < 6 else 100))
    async with odd_api(tmp_path, handler) as (api, _):
        counting = asyncio.create_task(count())
        try:
            await api.list(JOB_STATES, "shop", read=note)
        finally:
            counting.cancel()
    assert len(set(seen[:6])) >= 5
    assert len(set(seen[6:])) >= 6


@pytest.mark.parametrize("begin", [b"", b'{"metadata":{"name":"'])
async def test_an_endless_answer(tmp_path: Path, begin: bytes) -> None:
    """An answer that does not end is given up, long before the memory is full."""
    async with odd_api(tmp_path, endless(begin)) as (api, _):
        with at_most(MAX_ANSWER_BYTES * 3 / MIB), pytest.raises(Unavailable, match="16 MiB"):
            await api.get(CONFIG_MAPS, "shop", "a", timeout=120)
        with at_most(MAX_ANSWER_BYTES * 3 / MIB), pytest.raises(Unavailable, match="16 MiB"):
            await api.list(CONFIG_MAPS, "shop", timeout=120)


async def test_an_endless_error(tmp_path: Path) -> None:
    """An error whose body does not end is the error that its status says."""
    async with odd_api(tmp_path, endless(b'{"kind":"Status","message":"', 403)) as (api, _):
        with at_most(5), pytest.raises(Forbidden, match=r"^HTTP 403"):
            await api.get(CONFIG_MAPS, "shop", "a", timeout=60)


async def test_an_endless_event(tmp_path: Path) -> None:
    """An event of a watch that does not end is given up."""
    start = b'{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"8","name":"'
    async with odd_api(tmp_path, endless(start)) as (api, _):
        watch = api.watch(CONFIG_MAPS, "shop", resource_version="7", timeout=120)
        async with aclosing(watch) as events:
            await anext(events)
            with at_most(MAX_ANSWER_BYTES * 3 / MIB), pytest.raises(Unavailable, match="16 MiB"):
                await anext(events)


async def test_a_compressed_answer_is_counted_as_it_is_read(tmp_path: Path) -> None:
    """A small answer that unpacks to a gigabyte is given up like a large one."""
    chunk = gzip.compress(b"x" * MIB)

    async def answer(_: web.Request) -> web.Response:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=chunk * 1024, headers=headers)

    async with odd_api(tmp_path, answer) as (api, _):
        with at_most(MAX_ANSWER_BYTES * 4 / MIB), pytest.raises(Unavailable):
            await api.get(CONFIG_MAPS, "shop", "a", timeout=120)


async def test_few_large_answers_are_held_at_once(tmp_path: Path) -> None:
    """Thirty requests with large answers at once need the memory of a few, and all succeed."""
    text = json.dumps({"metadata": {"name": "a"}, "data": {"a": "x" * 6 * MIB}}).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(text), MIB):
            await response.write(text[start : start + MIB])
        return response

    async with odd_api(tmp_path, answer) as (api, _):

        async def size() -> int:
            config_map = await api.get(CONFIG_MAPS, "shop", "a", timeout=120)
            return len(config_map["data"]["a"])

        with at_most(130):  # with what the server of the test holds; all at once would be 360
            sizes = await asyncio.gather(*(size() for _ in range(30)))
    assert sizes == [6 * MIB] * 30


async def test_a_cancelled_list_ends_at_once(tmp_path: Path) -> None:
    """A list of very many pages, or one without end, does not delay the end of a replica."""
    many = listing(1_000_000, lambda n: large_job(f"n-{n}", 100_000))
    loop = asyncio.get_running_loop()
    for handler in (many, endless(b'{"items":['), many):
        async with odd_api(tmp_path, handler) as (api, odd):
            lists = [
                asyncio.create_task(api.list(JOB_STATES, "shop", read=name_of, timeout=300))
                for _ in range(4)
            ]
            while len(odd.requests) < 4:  # noqa: ASYNC110 - the server tells no event
                await asyncio.sleep(0.01)
            began = loop.time()
            for task in lists:
                task.cancel()
            await asyncio.gather(*lists, return_exceptions=True)
            assert loop.time() - began < 60
            odd.answer = listing(3, lambda n: large_job(f"n-{n}"))
            after = await api.list(JOB_STATES, "shop", read=name_of)
            assert len(after.items) == 3
