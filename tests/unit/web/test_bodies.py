"""The budget of memory that all requests share."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.delivery.alertmanager import PayloadLimits, read_delivery
from openfero_gitops.domain.errors import Overloaded
from openfero_gitops.web.bodies import SMALL_BYTES, BodyBudget, Reservation
from openfero_gitops.web.webhook import Intake
from tests.support.paths import ROOT

BUDGET = 16 * SMALL_BYTES


def test_what_does_not_fit_is_refused_and_released() -> None:
    """A refused request keeps what it had until it ends; then others can have it."""
    budget = BodyBudget(BUDGET)
    with Reservation(budget) as first:
        first.add(BUDGET // 2)
        with Reservation(budget) as second:
            second.add(BUDGET // 8)
            with pytest.raises(Overloaded, match="repeat the request later"):
                second.add(BUDGET // 2)
            assert budget.used == BUDGET // 2 + BUDGET // 8
        assert budget.used == BUDGET // 2
    assert budget.used == 0
    with Reservation(budget) as third:
        third.add(BUDGET * 3 // 4)


def test_large_requests_leave_room_for_small_ones() -> None:
    """A quarter of the budget is for requests that need little."""
    budget = BodyBudget(BUDGET)
    with contextlib.ExitStack() as requests:
        for _ in range(3):
            requests.enter_context(Reservation(budget)).add(BUDGET // 4)
        with pytest.raises(Overloaded):
            requests.enter_context(Reservation(budget)).add(SMALL_BYTES + 1)
        for _ in range(4):
            requests.enter_context(Reservation(budget)).add(SMALL_BYTES)
        with pytest.raises(Overloaded):
            requests.enter_context(Reservation(budget)).add(1)
    assert budget.used == 0


def test_a_request_that_was_answered_reserves_nothing() -> None:
    """A thread that still parses its body is stopped, and does not use up the budget."""
    budget = BodyBudget(BUDGET)
    with Reservation(budget) as request:
        request.add(10)
    with pytest.raises(Overloaded):
        request.add(10)
    assert budget.used == 0


@pytest.mark.parametrize("limits", [PayloadLimits(), PayloadLimits(size=2**20, alerts=2048)])
def test_the_largest_delivery_fits_in_the_budget(limits: PayloadLimits) -> None:
    """With as many alerts, labels and bytes as are allowed at once, it is not answered with 503."""
    labels = ",".join(f'"{number}":""' for number in range(limits.size // 32 // limits.alerts))
    alert = f'{{"status":"firing","labels":{{{labels}}}}}'
    body = f'{{"alerts":[{",".join([alert] * limits.alerts)}]}}'.ljust(limits.size).encode()
    with Reservation(Intake(limits).budget) as reservation:
        reservation.add(len(body))
        assert len(read_delivery(body, limits, reservation.add).alerts) == limits.alerts
        assert reservation.size > 4 * limits.size


def test_nothing_else_reads_a_body() -> None:
    """The ways of aiohttp to read a body count nothing and share no budget."""
    ways = re.compile(r"request\.(read|text|json|post|multipart)\(|request\.content\b")
    web = ROOT / "openfero_gitops" / "web"
    readers = {
        file.relative_to(web).as_posix()
        for file in web.rglob("*.py")
        if ways.search(file.read_text())
    }
    assert readers == {"bodies.py"}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2 * SMALL_BYTES))))
def test_the_budget_is_never_exceeded(steps: list[tuple[int, int]]) -> None:
    """Whatever requests reserve in any order, the sum is right, and never too large."""
    budget = BodyBudget(BUDGET)
    requests = [Reservation(budget) for _ in range(6)]
    for number, size in steps:
        with contextlib.suppress(Overloaded):
            requests[number].add(size)
        sizes = [request.size for request in requests]
        assert budget.used == sum(sizes) <= BUDGET
        assert sum(size for size in sizes if size > SMALL_BYTES) <= BUDGET * 3 // 4
    for request in requests:
        with request:
            pass
    assert budget.used == 0
