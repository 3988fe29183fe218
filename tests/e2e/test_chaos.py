"""The short form of `make chaos`, with a seed whose faults are the hardest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.chaos.faults import Fault
from tests.chaos.run import report, run
from tests.support.cluster import require_binaries

if TYPE_CHECKING:
    from pathlib import Path

SEED = 1915
OCCURRENCES = 60


@pytest.mark.cluster
def test_every_promise_is_kept_under_chaos(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under four faults nothing is lost, doubled or out of bounds."""
    require_binaries(request.config)
    outcome = asyncio.run(run(SEED, OCCURRENCES, 4, tmp_path, print))
    output = "\n".join([capsys.readouterr().out, report(outcome), *map(str, outcome.violations)])
    assert outcome.kept, output
    assert not outcome.notes, output
    assert set(outcome.injected) == {
        Fault.LEADER_FROZEN,
        Fault.LEADER_UNHEARD,
        Fault.API_KILLED,
        Fault.PAUSED_AND_LEADER_KILLED,
    }
    assert int(outcome.figures["of which started"]) > 25, output
