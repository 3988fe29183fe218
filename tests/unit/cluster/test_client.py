from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.cluster import client
from openfero_gitops.cluster.api import JOBS, Change
from openfero_gitops.cluster.client import STREAMED_BYTES, KubernetesApi, encode_body
from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from pathlib import Path

_KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{server}"}}}}]
users: [{{name: test, user: {{}}}}]
"""

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
    body = encode_body(value)
    assert isinstance(body, bytes)
    assert json.loads(body) == json.loads(json.dumps(value))


def test_a_large_body_is_sent_in_pieces() -> None:
    """A large body becomes a file, which does not block the event loop."""
    assert isinstance(encode_body("x" * STREAMED_BYTES), BytesIO)


def test_a_body_that_is_not_json_is_invalid() -> None:
    """An object that JSON cannot represent is refused before it is sent."""
    endless: list[object] = []
    endless.append(endless)
    for body in (object(), endless):
        with pytest.raises(Invalid, match="cannot be serialized"):
            encode_body(body)


async def test_events_that_follow_closely_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first event, those that arrive within the batch time need one read, not many."""
    monkeypatch.setattr(client, "WATCH_BATCH_SECONDS", 0.5)
    reads = 0
    read_chunk = KubernetesApi._chunk

    async def counted(*arguments: Any) -> bytes:
        nonlocal reads
        reads += 1
        return await read_chunk(*arguments)

    monkeypatch.setattr(KubernetesApi, "_chunk", counted)
    first_was_read = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for version in range(1, 31):
            metadata = {"name": "x", "namespace": "default", "resourceVersion": str(version)}
            event = {"type": "MODIFIED", "object": {"metadata": metadata}}
            await response.write(json.dumps(event).encode() + b"\n")
            if version == 1:
                await first_was_read.wait()
            await asyncio.sleep(0)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", events)
    async with TestServer(app) as server:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(_KUBECONFIG.format(server=server.make_url("/")))
        api = await KubernetesApi.connect(kubeconfig)
        versions = []
        async with aclosing(api.watch(JOBS, "default", resource_version="1")) as watch:
            async for event in watch:
                versions.append(int(event.object["metadata"]["resourceVersion"]))
                if event.change is Change.MODIFIED:
                    first_was_read.set()
        await api.close()
    assert versions == [1, *range(1, 31)]
    assert reads < len(versions) / 2
