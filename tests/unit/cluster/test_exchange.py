"""Blocks of requests: their time, and the errors that they raise."""

from __future__ import annotations

import gc
import weakref

import pytest

from openfero_gitops.cluster.exchange import Exchange, Peer
from openfero_gitops.domain.errors import Unavailable


class Body:
    """What a caller holds during a request."""


async def failing_request(bodies: list[weakref.ref[Body]]) -> None:
    """Fail as when a connection breaks."""
    body = Body()
    bodies.append(weakref.ref(body))
    async with Exchange(Peer("the server", 3.0), 10.0):
        raise ConnectionResetError


async def test_a_failure_keeps_nothing_in_memory() -> None:
    """What the callers hold is freed with the error, without waiting for the garbage collector."""
    bodies: list[weakref.ref[Body]] = []
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(Unavailable, match="the server: ConnectionResetError"):
                await failing_request(bodies)
        kept = [body for body in bodies if body() is not None]
    finally:
        gc.enable()
    assert len(bodies) == 3
    assert not kept
