"""The list of remediations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from multidict import MultiDict

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.web.pages.remediations import Filter, choose, cursor_of, cut, read_filter
from tests.support.copying import replace
from tests.support.pages import OLDER, busy, quiet, remediation

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


def names(wanted: Filter) -> list[str]:
    """Return the alerts that a filter selects in the busy sample state."""
    state = busy(NOW)
    return [r.alertname for r in choose(state.jobs, wanted, state, NOW)]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Filter(), 11),
        (Filter(operario="openfero-kubenodenotready-firing"), 1),
        (Filter(alert="kubejobfailed"), 1),
        (Filter(target="pod=checkout"), 2),
        (Filter(namespace="shop"), 0),
        (Filter(commit=OLDER[:7]), 1),
        (Filter(since="10m"), 5),
        (Filter(q="cart-0 RUNNING"), 1),
        (Filter(effects=(Effect.NOT_HEALED,)), 1),
        (Filter(phases=(Phase.FAILED,)), 11),
    ],
)
def test_filters(wanted: Filter, count: int) -> None:
    """Each filter selects what it names; phases are left to the chips, which count all of them."""
    assert len(names(wanted)) == count


def test_address_and_filter_are_inverse() -> None:
    """The address of a filter is read as the same filter."""
    wanted = Filter(
        (Phase.FAILED, Phase.HELD), (Effect.HEALED,), "o", "a", "t=1&x", "n", "c", "1h", "q q"
    )
    assert read_filter(MultiDict(wanted.pairs)) == wanted
    assert wanted.with_phase(None).startswith("remediations?effect=healed&operario=o&")
    assert Filter().address() == "remediations"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("phase", "Broken", "unknown phase 'Broken'; use Waiting, AwaitingApproval, "),
        ("effect", "good", "unknown effect 'good'; use pending, healed, "),
        ("since", "soon", "since: "),
        ("colour", "red", "unknown parameter 'colour'"),
    ],
)
def test_bad_values(name: str, value: str, message: str) -> None:
    """A value that would have no effect is refused with what to write."""
    with pytest.raises(web.HTTPBadRequest) as error:
        read_filter(MultiDict({name: value}))
    assert message in str(error.value.text)


def many(count: int) -> list[Remediation]:
    """Make remediations, newest first; pairs of them came at the same moment."""
    return [
        remediation("A", Phase.SUCCEEDED, NOW - timedelta(seconds=n // 2), number=f"{count - n:04}")
        for n in range(count)
    ]


def test_pages_do_not_shift() -> None:
    """Walking to older pages shows every row once, while new ones arrive; back, too."""
    rows = many(130)
    newest = many(7)
    first = cut(rows)
    assert first.newer is None
    assert first.older is not None
    later = [replace(r, key=JobKey("new", r.key.name), received_at=NOW) for r in newest] + rows
    second = cut(later, before=first.older)
    assert second.older is not None
    third = cut(later, before=second.older)
    assert third.older is None
    seen = [r.key for part in (first, second, third) for r in part.rows]
    assert seen == [r.key for r in rows]
    assert third.newer
    assert [r.key for r in cut(later, after=third.newer).rows] == [r.key for r in second.rows]


def test_cursor_of_a_deleted_row() -> None:
    """A cursor works although its row is gone, and beyond the end there are no rows."""
    rows = many(60)
    gone = cursor_of(rows[49])
    assert cut([*rows[:49], *rows[50:]], before=gone).rows[0] == rows[50]
    assert cut(rows, before="0").rows == []
    assert cut(rows, before="0").newer == ""


def test_first_page_has_no_cursor() -> None:
    """From the second page, the newer one is the first page, which shows what has arrived."""
    rows = many(60)
    older = cut(rows).older
    assert older
    assert cut(rows, before=older).newer == ""


def test_nothing() -> None:
    """Without remediations there is one empty page."""
    state = quiet(NOW)
    part = cut(choose(state.jobs, Filter(q="x"), state, NOW))
    assert (part.rows, part.newer, part.older) == ([], None, None)
