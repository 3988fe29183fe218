from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.admission.live_index import LiveIndex
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.health import Condition
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs.view import View
from openfero_gitops.live_metrics import LiveMetrics
from openfero_gitops.metrics import Metrics
from tests.support.build import NOW, catalog, minutes, operario, remediation
from tests.unit.test_metrics import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.domain.catalog import Catalog

WAITED = "openfero_gitops_waiting_max_wait_ratio"
STUCK = "openfero_gitops_stuck_in_queue"
IN_ROW = "openfero_gitops_not_healed_in_a_row"
CONDITION = "openfero_gitops_condition"


class Health:
    """A replica with an empty catalog, whose leadership and conditions a test sets."""

    def __init__(self) -> None:
        self.leads = True
        self.checked: list[Condition] = []
        self.active: Catalog | None = catalog()

    def conditions(self) -> Sequence[Condition]:
        """Return what the test has set."""
        return self.checked

    def leadership(self) -> Leadership:
        """Return whether the test lets it lead."""
        return Leadership(leader=self.leads)

    def catalog(self) -> Catalog | None:
        """Return a catalog."""
        return self.active


def exposed(health: Health, view: View, later: float = 0, stuck: int = 0) -> Metrics:
    """Return the metrics of a replica, some minutes after `NOW`."""
    metrics = Metrics("1")
    now = NOW + minutes(later)
    metrics.add(LiveMetrics(health, view, LiveIndex(view), lambda: now, lambda: stuck))
    return metrics


def test_a_condition_is_1_while_it_holds() -> None:
    """Each has a series, except those of parts that are not configured."""
    health = Health()
    health.checked = [
        Condition("catalog", holds=True),
        Condition("in step", holds=False, message="behind", vital=False),
        Condition("watchdog", holds=True, configured=False),
    ]
    metrics = exposed(health, View())
    assert value(metrics, CONDITION, condition="catalog") == 1
    assert value(metrics, CONDITION, condition="in step") == 0
    assert value(metrics, CONDITION, condition="watchdog") is None
    health.checked = [Condition("in step", holds=True)]
    assert value(metrics, CONDITION, condition="in step") == 1


def test_the_longest_wait_is_a_share_of_max_wait() -> None:
    """The stricter of the recorded and the active limit counts; Jobs without a limit do not.

    It is never negative: the clock of the replica that received a Job may be ahead.
    """
    view, health = View(), Health()
    assert value(exposed(health, view), WAITED) == 0
    for name, max_wait in (("a", 60), ("b", 0), ("c", 40)):
        options = Options(max_wait=minutes(max_wait))
        view.apply(remediation(name, phase=Phase.WAITING, options=options, received_at=NOW))
    assert value(exposed(health, view, 10), WAITED) == 0.25
    assert value(exposed(health, view, 50), WAITED) == 1
    assert value(exposed(health, view, -10), WAITED) == 0
    health.active = catalog(operario(options=Options(max_wait=minutes(20))))
    assert value(exposed(health, view, 10), WAITED) == 0.5


def test_operarios_that_do_not_help_are_counted_anew_when_jobs_change() -> None:
    """The count of an operario ends with a Job that heals."""
    view, health = View(), Health()
    name = remediation("a").operario
    health.active = catalog(operario(name))
    metrics = exposed(health, view)
    assert value(metrics, IN_ROW, operario=name) is None
    for number, job in enumerate("ab"):
        started_at = NOW + minutes(number)
        view.apply(remediation(job, started_at=started_at, effect=Effect.NOT_HEALED))
        assert value(metrics, IN_ROW, operario=name) == number + 1
    view.apply(remediation("c", started_at=NOW + minutes(9), effect=Effect.HEALED))
    assert value(metrics, IN_ROW, operario=name) is None


def test_an_operario_that_is_removed_or_disabled_is_not_counted() -> None:
    """As soon as the commit is active, without a change of any Job; without a catalog all count."""
    view, health = View(), Health()
    view.apply(remediation("a", started_at=NOW, effect=Effect.NOT_HEALED))
    name = remediation("a").operario
    metrics = exposed(health, view)
    enabled, disabled = (operario(name, options=Options(enabled=on)) for on in (True, False))
    for active, count in (
        (catalog(enabled), 1),
        (catalog(disabled), None),
        (catalog(enabled), 1),
        (catalog(), None),
        (None, 1),
    ):
        health.active = active
        assert value(metrics, IN_ROW, operario=name) == count


def test_only_the_leader_reports_on_jobs() -> None:
    """Every replica sees the same Jobs, so a second report would count them twice."""
    view, health = View(), Health()
    view.apply(remediation("a", phase=Phase.WAITING))
    health.leads = False
    health.checked = [Condition("catalog", holds=True)]
    assert value(exposed(Health(), view, stuck=2), STUCK) == 2
    metrics = exposed(health, view, stuck=2)
    assert value(metrics, STUCK) is None
    assert value(metrics, WAITED) is None
    assert value(metrics, IN_ROW) is None
    assert value(metrics, CONDITION, condition="catalog") == 1
