"""The calculation of what a fleet needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.bench.capacity import Capacity, Costs, Demand, main, need, recorded

if TYPE_CHECKING:
    from pathlib import Path

COSTS = Costs(leader_ms=2.0, requests=6, base_mib=100.0, job_kib=4.0, stored_kib=16.0)


def test_what_one_release_needs() -> None:
    """Processor time and requests count at peak, memory and etcd for the remembered Jobs."""
    needed = need(Demand(3600, peak=5, remember_hours=10), COSTS, Capacity())
    assert needed.alerts_per_second == 5
    assert needed.leader_cores == pytest.approx(0.01)
    assert needed.requests_per_second == 30
    assert needed.remembered == 36_000
    assert needed.memory_mib == pytest.approx(100 + 36_000 * 4 / 1024)
    assert needed.stored_mib == pytest.approx(36_000 * 16 / 1024)
    assert needed.releases == 1


@pytest.mark.parametrize(
    ("demand", "limit", "releases"),
    [
        (Demand(3_600_000, peak=1, remember_hours=0), "requests to the API server", 30),
        (Demand(100_000, peak=1, remember_hours=1), "remembered Jobs", 2),
    ],
)
def test_the_scarcest_resource_decides_how_many_releases_it_takes(
    demand: Demand, limit: str, releases: int
) -> None:
    """It is named, and each release gets no more of it than there is."""
    needed = need(demand, COSTS, Capacity())
    assert (needed.limit, needed.releases) == (limit, releases)


def test_recorded_figures_are_used(tmp_path: Path) -> None:
    """Those of the newest version count; without any, the defaults do."""
    assert recorded(tmp_path) == Costs()
    for version, value in (("0.9.0", 3.0), ("0.10.0", 2.0)):
        figure = {"name": "one by one: processor time of the leader", "value": value}
        content = {"benches": {"alerts": {"figures": [figure]}}}
        (tmp_path / f"{version}.json").write_text(json.dumps(content))
    assert recorded(tmp_path).leader_ms == 2.0


def test_the_calculation_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For one release in each cluster, and for one release that serves them all."""
    assert main(["--clusters", "10", "--alerts-per-hour", "100000"]) == 0
    printed = capsys.readouterr().out
    assert "each of 10 clusters" in printed
    assert "one release for all" in printed
