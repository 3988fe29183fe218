"""The calculation of what a fleet needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.bench.capacity import (
    LEADER,
    Capacity,
    Costs,
    Demand,
    blocks,
    main,
    memory_figure,
    need,
    recorded,
)
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

COSTS = Costs(2.0, requests=6, base_mib=100.0, job_kib=4.0, stored_kib=16.0)


def test_what_one_release_needs() -> None:
    """Processor time and requests count at peak, memory and etcd for the remembered Jobs."""
    needed = need(Demand(3600, peak=5, remember_hours=10, operarios=0), COSTS, Capacity())
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


def test_memory_counts_operarios_and_remembered_jobs() -> None:
    """Each operario and each remembered Job adds to the memory of a replica."""
    demand = Demand(1024, remember_hours=1, operarios=512)
    costs = Costs(base_mib=100.0, operario_kib=10.0, job_kib=4.0)
    assert need(demand, costs, Capacity()).memory_mib == pytest.approx(100 + 5 + 4)


def _record(folder: Path, version: str, **benches: dict[str, float]) -> None:
    content = {
        "benches": {
            bench: {
                "figures": [{"name": name, "value": value} for name, value in values.items()],
            }
            for bench, values in benches.items()
        }
    }
    (folder / f"{version}.json").write_text(json.dumps(content))


def test_recorded_figures_are_used(tmp_path: Path) -> None:
    """Those of the newest version count; without any, the defaults do."""
    assert recorded(tmp_path) == Costs()
    _record(tmp_path, "0.9.0", alerts={LEADER: 3.0})
    _record(tmp_path, "0.10.0", alerts={LEADER: 2.0})
    _record(tmp_path, "0.11.0rc1", git={"sync": 1.0})
    costs = recorded(tmp_path)
    assert costs.leader_ms == 2.0
    assert costs.origins == {"leader_ms": "0.10.0"}


def test_memory_is_derived_from_the_recorded_cases(tmp_path: Path) -> None:
    """The growth from the smallest case to the others is what an operario and a Job need."""
    cases = {(10, 100): 101.1, (10, 10_000): 150.6, (10_000, 100): 201.0}
    _record(tmp_path, "1.0.0", growth={memory_figure(*case): mib for case, mib in cases.items()})
    costs = recorded(tmp_path)
    assert costs.base_mib == pytest.approx(100.5)
    assert costs.operario_kib == pytest.approx(0.01 * 1024)
    assert costs.job_kib == pytest.approx(0.005 * 1024)
    assert set(costs.origins) == {"base_mib", "operario_kib", "job_kib"}


def test_an_incomplete_record_leaves_the_estimates(tmp_path: Path) -> None:
    """Memory is derived only if all cases were measured."""
    _record(tmp_path, "1.0.0", growth={memory_figure(10, 100): 50.0})
    assert recorded(tmp_path) == Costs()


@pytest.mark.parametrize("block", ["memory", "capacity"])
def test_the_page_has_the_calculated_values(block: str) -> None:
    """The page about sizing has what the recorded figures give (`make bench` with --keep)."""
    page = (ROOT / "docs/explanation/sizing.md").read_text()
    text = blocks(recorded())[block]
    assert f"<!-- {block} -->\n{text}\n<!-- /{block} -->\n" in page


def test_the_calculation_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For one release in each cluster, and for one release that serves them all."""
    assert main(["--clusters", "10", "--alerts-per-hour", "100000"]) == 0
    printed = capsys.readouterr().out
    assert "each of 10 clusters" in printed
    assert "one release for all" in printed
    assert "200 requests a second" in printed
