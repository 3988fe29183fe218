from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime

from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.turns import Turns
from tests.support import pages
from tests.support.paths import ROOT
from tests.support.serving import OPEN, serving


async def test_all_requests_get_the_same_document() -> None:
    """The document is made once, also if its first readers come at the same time."""
    now = datetime.now(UTC)
    async with serving(
        lambda app: add_api(app, pages.busy(now), OPEN, Turns(), now=lambda: now)
    ) as client:
        answers = await asyncio.gather(*[client.get("/openapi.json") for _ in range(3)])
        documents = [await answer.json() for answer in answers]
    assert {answer.status for answer in answers} == {200}
    assert documents == [documents[0]] * 3
    assert "/api/remediations" in documents[0]["paths"]


def test_a_replica_starts_without_the_library_of_the_document() -> None:
    """The library is imported when the document is made."""
    program = "import sys, openfero_gitops.app\nassert 'openapi_pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=90)
