from __future__ import annotations

import gc
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.api.operation import OPERATIONS
from openfero_gitops.web.turns import Turns
from tests.support.many import many
from tests.support.measures import unit_seconds
from tests.support.serving import OPEN, serving

if TYPE_CHECKING:
    from tests.support.pages import Showcase

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
#: Of `unit_seconds`: 0.3 s on a machine of 2026.
MAX_UNITS = 10
MAX_BYTES = 1024 * 1024


async def answer_cold(state: Showcase, path: str) -> tuple[float, bytes]:
    """Ask an application that has answered nothing yet; return the processor's time, too."""
    async with serving(lambda app: add_api(app, state, OPEN, Turns(), now=lambda: NOW)) as client:
        gc.collect()  # what a test before left behind is not this answer's
        began = time.process_time()
        answer = await client.get(path)
        body = await answer.read()
        seconds = time.process_time() - began
    assert answer.status == 200
    return seconds, body


async def test_first_pages_of_a_large_state() -> None:
    """With 10,000 remediations and 500 operarios, no first page takes 300 ms or 1 MiB.

    Each is measured in an application that has answered nothing else.
    """
    state = many(NOW)
    state.decisions()  # a replica knows its decisions, and the Jobs of incidents,
    state.effect(state.jobs[0])  # before it is asked
    app = web.Application()
    add_api(app, state, OPEN, Turns(), now=lambda: NOW)
    paths = [o.path for o in app[OPERATIONS] if "{" not in o.path and o.method == "GET"]
    assert len(paths) > 6
    max_seconds = MAX_UNITS * unit_seconds()
    for path in [*paths, f"/api/operarios/{state.jobs[0].operario}/stats"]:
        seconds, body = await answer_cold(state, path)
        if seconds >= max_seconds:  # once more, because the machine may be busy
            seconds, _ = await answer_cold(state, path)
        assert seconds < max_seconds, path
        assert len(body) < MAX_BYTES, path
