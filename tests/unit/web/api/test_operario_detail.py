from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.turns import Turns
from tests.support import pages
from tests.support.pages import COMMIT, FILE
from tests.support.serving import OPEN, serving

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
NAME = "openfero-kubepodcrashlooping-firing"


async def get(path: str) -> tuple[int, Any]:
    """Read an answer of the API about a state with a history."""
    state = pages.with_history(NOW)
    async with serving(lambda app: add_api(app, state, OPEN, Turns(), now=lambda: NOW)) as client:
        answer = await client.get(path)
        return answer.status, await answer.json()


async def test_one_operario_has_the_members_of_the_list_and_more() -> None:
    """The answer holds the list's item, the file, limits, runs, statistics and problems."""
    _, listed = await get("/api/operarios")
    status, detail = await get(f"/api/operarios/{NAME}")
    (item,) = [item for item in listed["items"] if item["name"] == NAME]
    assert status == 200
    assert item.items() <= detail.items()
    assert detail["text"] == FILE
    assert detail["candidates"] == [NAME, "restart-slowly"]
    assert [problem["rule"] for problem in detail["problems"]] == ["unknown-field"]
    assert (detail["limits"]["running"], detail["limits"]["waiting"]) == (1, 1)
    stopped = detail["limits"]["targets"][0]
    assert stopped["target"] == {"namespace": "shop", "pod": "cart-0"}
    assert stopped["notHelping"].startswith("the last 4 Jobs of this operario")
    assert len(detail["runs"]) == 50
    assert detail["runs"][0]["phase"] == "Running"
    assert detail["stats"]["commits"][0]["medianSecondsToRun"] == 202.0
    assert detail["regressions"] == [
        {
            "commit": COMMIT,
            "healed": 3,
            "decided": 20,
            "healedBefore": 35,
            "decidedBefore": 40,
        }
    ]


@pytest.mark.parametrize("name", ["unknown", "removed-operario"])
async def test_an_operario_that_is_not_active_is_not_found(name: str) -> None:
    """Of an operario outside of the active catalog there are statistics at most."""
    status, problem = await get(f"/api/operarios/{name}")
    assert (status, problem["status"]) == (404, 404)
    status, _ = await get(f"/api/operarios/{name}/stats")
    assert status == (200 if name == "removed-operario" else 404)
