"""The pages that list operarios and problems."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from multidict import MultiDict

from openfero_gitops.domain.catalog import Catalog, Envelope
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Options, Origin
from openfero_gitops.domain.problem import Problem, Severity
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.pages.listing import Paging, contains_words, read_page
from openfero_gitops.web.pages.operarios import (
    OperarioFilter,
    choose,
    index_records,
    read_filter,
)
from openfero_gitops.web.pages.problems import ProblemFilter
from openfero_gitops.web.pages.problems import read_filter as read_problem_filter
from tests.support import pages
from tests.support.drawn import application, draw
from tests.support.pages import COMMIT, OLDER, catalog, operario, remediation, synced

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


def names(wanted: OperarioFilter) -> list[str]:
    """Return the operarios that a filter selects from three, in its order."""
    active = catalog(
        operario("c", "Down", options=Options(approval=True)),
        operario("a", "Up"),
        operario("b", "Down"),
    )
    jobs = [
        remediation("Up", Phase.SUCCEEDED, NOW - timedelta(hours=n), operario="a", effect=effect)
        for n, effect in enumerate((Effect.HEALED, Effect.NOT_HEALED), start=5)
    ]
    jobs.append(
        remediation("Down", Phase.FAILED, NOW, operario="b", effect=Effect.NOT_HEALED, number="1")
    )
    rows = choose(active, index_records(jobs), wanted)
    return [row.operario.name for row in rows]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (OperarioFilter(), ["a", "b", "c"]),
        (OperarioFilter(sort="last"), ["b", "a", "c"]),
        (OperarioFilter(sort="healed"), ["b", "a", "c"]),
        (OperarioFilter("DOWN firing"), ["b", "c"]),
        (OperarioFilter("approval=required"), ["c"]),
        (OperarioFilter("nothing"), []),
    ],
)
def test_operarios_are_searched_and_sorted(wanted: OperarioFilter, expected: list[str]) -> None:
    """Words select operarios; those that ran last, or that heal least, can come first."""
    assert names(wanted) == expected


def test_addresses_and_filters_are_inverse() -> None:
    """The address of a filter is read as the same filter; defaults are left out."""
    wanted = OperarioFilter("a&b", "last")
    assert wanted.address(3) == "operarios?q=a%26b&sort=last&page=3"
    assert read_filter(MultiDict({"q": "a&b", "sort": "last"})) == wanted
    assert OperarioFilter().address() == "operarios"
    problems = ProblemFilter("error", "quantity", "a/b.yaml", "x")
    assert problems.address() == "problems?severity=error&rule=quantity&path=a%2Fb.yaml&q=x"


@pytest.mark.parametrize("page", ["0", "-1", "x", "1.5", "²", "9999999"])
def test_a_page_must_be_a_number_from_1(page: str) -> None:
    """Anything else is refused with what is allowed."""
    with pytest.raises(web.HTTPBadRequest) as error:
        read_page(MultiDict({"page": page}))
    assert error.value.text == "page must be a number from 1"


def test_unknown_values_are_refused() -> None:
    """An order or a severity that does not exist is refused with those that do."""
    with pytest.raises(web.HTTPBadRequest) as error:
        read_filter(MultiDict({"sort": "size"}))
    assert error.value.text == "unknown sort 'size'; use name, last, healed"
    with pytest.raises(web.HTTPBadRequest) as error:
        read_problem_filter(MultiDict({"severity": "bad"}))
    assert error.value.text == "unknown severity 'bad'; use error, warning"


def test_pages_cover_the_list_once() -> None:
    """The pages of a list hold each row once; a page beyond the end leads back."""
    rows = list(range(250))
    parts = [Paging(250, 100, page).cut(rows) for page in (1, 2, 3)]
    assert [row for part in parts for row in part] == rows
    assert [Paging(250, 100, page).next for page in (1, 2, 3)] == [2, 3, None]
    assert Paging(250, 100).previous is None
    assert Paging(250, 100, 9).previous == 3
    assert Paging(250, 100, 9).cut(rows) == []
    assert Paging(0, 100).pages == 1


def test_words_are_found_in_any_text() -> None:
    """Each word must occur somewhere, in whatever case."""
    assert contains_words("b A", ("xa", "B"))
    assert not contains_words("a c", ("xa", "B"))


async def test_a_row_of_the_list() -> None:
    """A row names operario, alert, options, the latest run, and how many runs healed."""
    page = await draw(pages.busy(NOW), "/operarios?q=KubePersistentVolume")
    row = page.find("tr", id="operario:openfero-kubepersistentvolumefillingup-firing")
    assert "KubePersistentVolumeFillingUp firing" in row.text
    assert "AwaitingApproval 17m ago" in row.text
    assert "never ran" in row.text
    assert [option.text for option in row.all("li")] == [
        "approval required",
        "max-wait 6h",
        "priority 10",
    ]
    (link,) = row.all("a")
    assert link.attributes["href"] == ("./operarios/openfero-kubepersistentvolumefillingup-firing")
    assert row.all("wbr")


async def test_the_heal_rate_of_a_row() -> None:
    """The effects of all runs are counted."""
    jobs = [
        remediation("A", Phase.SUCCEEDED, NOW - timedelta(minutes=n), operario="a", effect=effect)
        for n, effect in enumerate([Effect.HEALED] * 3 + [Effect.NOT_HEALED, Effect.UNKNOWN])
    ]
    active = catalog(operario("a", "A"))
    page = await draw(replace(pages.quiet(NOW), active=active, jobs=jobs), "/operarios")
    row = page.find("tr", id="operario:a")
    assert "3 of 4 healed" in row.text
    assert row.find("svg", "share").attributes["aria-label"] == "75% healed"


async def test_a_long_list_has_pages() -> None:
    """The second page of 150 operarios shows the last 50, and leads back."""
    active = catalog(*(operario(f"o-{n:03}", "A") for n in range(150)))
    page = await draw(replace(pages.quiet(NOW), active=active), "/operarios?page=2&q=o-")
    assert len(page.find("table").all("tr")) == 51
    pager = page.find("nav", "pager")
    assert pager.text == "101 to 150 of 150 Previous"
    assert pager.find("a").attributes["href"] == "./operarios?q=o-"


@pytest.mark.parametrize("path", ["/operarios", "/problems"])
async def test_empty_lists_say_what_to_do(path: str) -> None:
    """Without a catalog, and when nothing matches, the page says why and links further."""
    page = await draw(pages.broken(NOW), path)
    assert "authentication failed" in page.find("main").text
    assert page.find("div", "empty").find("a").attributes["href"] == "./sync"
    page = await draw(pages.busy(NOW), f"{path}?q=zzz")
    assert page.find("div", "empty").find("a").attributes["href"] == f".{path}"
    async with application(pages.busy(NOW)) as client:
        assert (await client.get(f"{path}?page=no")).status == 400


async def test_a_catalog_without_operarios() -> None:
    """The page says what an operario is, and where it must be."""
    active = Catalog(catalog().revision, Envelope(), (), root="ops/heal")
    page = await draw(replace(pages.quiet(NOW), active=active), "/operarios")
    assert "under ops/heal" in page.find("div", "empty").text


async def test_a_row_of_the_problems() -> None:
    """A row names place, message, suggestion and rule, and the version that is active."""
    page = await draw(pages.busy(NOW), "/problems?severity=error")
    (row,) = page.find("tbody").all("tr")
    assert "jobs/kubejobfailed/firing.yaml:14:7" in row.text
    assert "'12x' is not a quantity" in row.text
    assert "write 12 or 12m" in row.text
    assert f"older version, from {OLDER[:7]}" in row.text
    assert row.find(href="#rule-quantity").text == "quantity"
    assert page.find("div", id="rule-quantity").text.startswith("quantity error ")
    assert [
        chip.text for chip in page.find("nav", **{"aria-label": "Filter by severity"}).all("a")
    ] == [
        "All 2",
        "Errors 1",
        "Warnings 1",
    ]


async def test_a_problem_found_in_the_cluster() -> None:
    """A problem that a dry run found is marked, and its rule is explained, too."""
    origin = Origin("a.yaml", "", COMMIT)
    problem = Problem("a.yaml", 3, 1, "/spec", "dry-run-refused", Severity.ERROR, "no quota")
    active = catalog(operario("a", "A", origin=origin), problems=(problem,))
    state = replace(pages.quiet(NOW), active=active, synced=synced(active, NOW))
    page = await draw(state, "/problems?rule=dry-run-refused")
    (row,) = page.find("tbody").all("tr")
    assert "found by a dry run in the cluster" in row.text
    assert f"of {COMMIT[:7]}" in row.text
    assert page.all("div", id="rule-dry-run-refused")
    assert row.find("a", "name").attributes["href"] == "./operarios/a"


async def test_ignored_documents_are_listed() -> None:
    """What is no operario is counted and listed below the problems."""
    page = await draw(pages.busy(NOW), "/problems")
    ignored = page.find("details", "ignored")
    assert ignored.find("summary").text == "3 documents are ignored"
    assert "kustomization.yaml Kustomization" in ignored.text


@pytest.mark.parametrize("path", ["/operarios", "/problems"])
async def test_hostile_texts_are_text(path: str) -> None:
    """Markup in names, options, paths and messages is shown as text."""
    page = await draw(pages.hostile(NOW), path)
    main = page.find("main")
    assert not main.all("script")
    assert not main.all("img")
    assert "<script>" in main.text
