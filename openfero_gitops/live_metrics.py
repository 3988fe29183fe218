"""The metrics that are computed when they are read, from the state of a replica.

The alerts of the Helm chart depend on them: they show what is wrong now, also after a restart.
Counters cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.effects.row import not_healed_in_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.admission.live_index import LiveIndex
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.health import Condition
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.jobs.view import View

_CONDITION: Final = "openfero_gitops_condition"
_WAITED: Final = "openfero_gitops_waiting_max_wait_ratio"
_STUCK: Final = "openfero_gitops_stuck_in_queue"
_IN_ROW: Final = "openfero_gitops_not_healed_in_a_row"


def live_families() -> Iterator[GaugeMetricFamily]:
    """Yield the metrics without values: conditions, what waits, and runs in a row."""
    yield GaugeMetricFamily(
        _CONDITION,
        "1 for a condition of this replica that holds, else 0; as in /readyz, without parts "
        "that are not configured",
        labels=["condition"],
    )
    yield GaugeMetricFamily(
        _WAITED,
        "Largest share of its max-wait that a Job has waited, on the leader: 0 to 1, "
        "and 0 if none waits",
    )
    yield GaugeMetricFamily(
        _STUCK,
        "Jobs that Kueue starts only after somebody has changed something, on the leader",
    )
    yield GaugeMetricFamily(
        _IN_ROW,
        "Latest runs of an enabled operario that did not heal their alerts, back to the first "
        "that did, on the leader",
        labels=["operario"],
    )


class ReplicaHealth(Protocol):
    """What is known about a replica besides its Jobs."""

    def conditions(self) -> Sequence[Condition]:
        """Check what this replica needs to work."""
        ...

    def leadership(self) -> Leadership:
        """Return which replica leads."""
        ...

    def catalog(self) -> Catalog | None:
        """Return the active catalog."""
        ...


class LiveMetrics(Collector):
    """Collects these metrics; those about Jobs on the leader only, so that sums are right."""

    def __init__(
        self,
        state: ReplicaHealth,
        view: View,
        index: LiveIndex,
        now: Callable[[], datetime],
        stuck_in_queue: Callable[[], int],
    ) -> None:
        """Take what they are read from; nothing is read yet."""
        self._stuck_in_queue = stuck_in_queue
        self._state = state
        self._view = view
        self._index = index
        self._now = now
        # What the runs in a row were counted of.
        self._changes = -1
        self._catalog: Catalog | None = None
        self._in_row: Mapping[str, int] = {}

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name the metrics; without this, the registry would collect them at once."""
        return live_families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Compute the metrics."""
        conditions, waited, stuck, in_row = live_families()
        for condition in self._state.conditions():
            if condition.configured:
                conditions.add_metric([condition.name], condition.holds)
        if self._state.leadership().leader:
            waited.add_metric([], self._waited_share())
            stuck.add_metric([], self._stuck_in_queue())
            for operario, count in self._count_in_row().items():
                in_row.add_metric([operario], count)
        yield from (conditions, waited, stuck, in_row)

    def _waited_share(self) -> float:
        now = self._now()
        waiting = with_requirements(self._index.get().waiting.values(), self._state.catalog())
        shares = (
            (now - job.received_at) / job.options.max_wait
            for job in waiting
            if job.options.max_wait
        )
        # (The clock of the replica that received a Job may be ahead.)
        return min(max([0.0, *shares]), 1.0)

    def _count_in_row(self) -> Mapping[str, int]:
        catalog = self._state.catalog()
        if self._changes != self._view.changes or self._catalog is not catalog:
            self._changes, self._catalog = self._view.changes, catalog
            self._in_row = not_healed_in_row(self._view)
            if catalog is not None:  # one that was removed or disabled needs no attention any more
                self._in_row = {
                    operario.name: self._in_row[operario.name]
                    for operario in catalog.operarios
                    if operario.options.enabled and operario.name in self._in_row
                }
        return self._in_row
