from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from openfero_gitops.cluster.connections import Connections, HttpAnswer, encode_body
from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: What an operario or an alert may contain; also half of a surrogate pair.
_TEXTS = st.text(st.characters(exclude_categories=()))
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda values: st.lists(values) | st.dictionaries(_TEXTS, values),
    max_leaves=20,
)


@given(_VALUES)
def test_a_body_is_what_the_json_module_writes(value: object) -> None:
    """A body has the content that Python's own serializer gives it."""
    assert json.loads(encode_body(value)) == json.loads(json.dumps(value))


def test_a_body_that_is_not_json_is_invalid() -> None:
    """An object that JSON cannot represent is refused before it is sent."""
    endless: list[object] = []
    endless.append(endless)
    for body in (object(), endless):
        with pytest.raises(Invalid, match="cannot be serialized"):
            encode_body(body)


@pytest.fixture
async def served() -> AsyncIterator[tuple[Connections, list[asyncio.Task[None]]]]:
    """Start a server that answers each request with its target; list its connections."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                target = line.split()[1]
                sent = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
                sent += b"Connection: close\r\n" if target == b"/last" else b""
                sent += b"Content-Length: %d\r\n\r\n%b" % (len(target), target)
                if target == b"/twice":
                    sent += b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
                writer.write(sent)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connections = Connections(
        URL(f"http://127.0.0.1:{port}"),
        ssl.create_default_context(),
        server_hostname=None,
        connect_seconds=3,
        limit=2,
        large_answers=asyncio.Semaphore(1),
    )
    async with server:
        yield connections, tasks
        connections.close()
        await asyncio.gather(*tasks)


async def request(connections: Connections, target: str, **headers: str) -> str:
    """Send a request; return the body of its answer."""

    def read(answer: HttpAnswer) -> str:
        assert (answer.status, answer.first(b"content-length")) == (200, str(len(target)))
        assert answer.body is not None
        return answer.body.decode()

    return await connections.request("GET", target, headers, b"", read)


async def test_a_connection_is_used_again(
    served: tuple[Connections, list[asyncio.Task[None]]],
) -> None:
    """Requests one after the other share a connection, also after one whose answer was refused."""
    connections, accepted = served
    assert [await request(connections, f"/{n}") for n in range(3)] == ["/0", "/1", "/2"]

    def refuse(_: HttpAnswer) -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await connections.request("GET", "/3", {}, b"", refuse)
    assert await request(connections, "/4") == "/4"
    assert len(accepted) == 1


async def test_requests_at_once_have_their_own_connections(
    served: tuple[Connections, list[asyncio.Task[None]]],
) -> None:
    """Each request gets its own answer, over no more connections than allowed."""
    connections, accepted = served
    targets = [f"/{n}" for n in range(20)]
    assert await asyncio.gather(*(request(connections, t) for t in targets)) == targets
    assert len(accepted) == 2


@pytest.mark.parametrize("target", ["/last", "/twice"])
async def test_a_connection_is_not_used_again(
    served: tuple[Connections, list[asyncio.Task[None]]], target: str
) -> None:
    """A connection is closed if the server ends it, or sends what was not requested."""
    connections, accepted = served
    assert await request(connections, target) == target
    assert await request(connections, "/next") == "/next"
    assert len(accepted) == 2


async def test_a_header_cannot_contain_another(
    served: tuple[Connections, list[asyncio.Task[None]]],
) -> None:
    """A header with a line break is refused before anything is sent."""
    connections, accepted = served
    for value in ("a\r\nX: b", "a\nX: b", "a\rX: b"):
        with pytest.raises(ValueError, match="line break"):
            await request(connections, "/", Authorization=value)
    assert accepted == []
