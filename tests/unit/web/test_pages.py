from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits, Revision
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.health import Condition
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.operario import Mode, Options, Origin
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.sync import RefusedRevision
from openfero_gitops.web.auth import Credentials, Guard
from tests.support import pages
from tests.support.copying import replace
from tests.support.drawn import Element, Reader, application, draw
from tests.support.pages import COMMIT, OLDER, Showcase, catalog, operario, remediation, synced

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


def showing(*jobs: object, **changes: object) -> Showcase:
    """Make a healthy replica with these remediations."""
    return replace(pages.quiet(NOW), jobs=list(jobs), **changes)  # type: ignore[arg-type]


def row_of(page: Element, css: str = "remediation") -> Element:
    """Find the only remediation of a page."""
    return page.find("tbody", css)


ALL = {"busy": pages.busy, "quiet": pages.quiet, "broken": pages.broken, "hostile": pages.hostile}


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def state(request: pytest.FixtureRequest) -> Showcase:
    """Each of the sample states."""
    made: Showcase = request.param(NOW)
    return made


# What every page keeps to


async def test_nothing_inline(state: Showcase) -> None:
    """No page has inline scripts, styles or event handlers."""
    page = await draw(state)
    scripts = page.all("script")
    assert [element.attributes["src"].partition("?")[0] for element in scripts] == [
        "static/theme.js",
        "static/page.js",
    ]
    assert not any(element.children for element in scripts)
    assert not page.all("style")
    for element in page.walk():
        assert "style" not in element.attributes
        assert not [name for name in element.attributes if name.startswith("on")]
    assert [element.attributes["src"].partition("?")[0] for element in page.all("img")] == [
        "static/icon.svg"
    ]


async def test_nothing_from_elsewhere(state: Showcase) -> None:
    """All addresses are relative, so that a proxy can serve the page under a path."""
    page = await draw(state)
    addresses = [
        value
        for element in page.walk()
        for name, value in element.attributes.items()
        if name in ("href", "src", "action")
    ]
    assert len(addresses) > 20
    for address in addresses:
        assert re.match(r"(#|\./|static/|api/)", address), address


async def test_ids_are_unique(state: Showcase) -> None:
    """Ids are unique, because the script finds elements by id."""
    page = await draw(state)
    ids = [element.attributes["id"] for element in page.walk() if "id" in element.attributes]
    assert len(ids) == len(set(ids))


async def test_tables_have_captions_and_headers(state: Showcase) -> None:
    """Each table has a caption, and each column and row a header."""
    page = await draw(state)
    for table in page.all("table"):
        assert table.find("caption").text
        columns = table.find("thead").all("th", scope="col")
        assert len(columns) == 5
        for row in table.all("tr"):
            if row.all("td") and "more-row" not in row.attributes.get("class", ""):
                assert len(row.all("th", scope="row")) == 1
                assert len(row.all("td")) == 4
                assert all("data-label" in cell.attributes for cell in row.all("td"))


async def test_landmarks(state: Showcase) -> None:
    """A page has one of each landmark, and each of its sections has a name."""
    page = await draw(state)
    for tag in ("header", "main", "footer", "h1"):
        page.find(tag)
    ids = {element.attributes["id"] for element in page.walk() if "id" in element.attributes}
    for section in page.find("main").all("section"):
        if name := section.attributes.get("aria-labelledby"):
            assert name in ids
    assert (
        len([element for element in page.all("section") if "aria-labelledby" in element.attributes])
        >= 6
    )
    for element in page.all("use"):
        assert element.attributes["href"][1:] in ids


async def test_every_page_counts_the_same() -> None:
    """The numbers in the navigation do not depend on the page that shows them."""
    state = pages.busy(NOW)
    shown = {(await draw(state, f"/{address}")).find("nav", "sections").text
             for address in pages.ADDRESSES}  # fmt: skip
    [text] = shown
    assert re.search(r"Remediations [1-9]", text)
    assert re.search(r"Problems [1-9]", text)


async def test_headers() -> None:
    """Headers allow only own files, and forbid framing."""
    async with application(pages.busy(NOW)) as client:
        answer = await client.get("/")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "Content-Encoding" in answer.headers


async def test_static_files() -> None:
    """Static files are served with their type, under an address with a digest of the content."""
    async with application(pages.quiet(NOW)) as client:
        page = Reader(await (await client.get("/")).text()).root
        assets = {
            page.find("link", rel="stylesheet").attributes["href"]: "text/css",
            page.all("script")[0].attributes["src"]: "javascript",
            page.all("script")[1].attributes["src"]: "javascript",
            page.find("link", rel="icon").attributes["href"]: "image/svg+xml",
        }
        for address, content_type in assets.items():
            assert re.fullmatch(r"static/[a-z-]+\.[a-z]+\?v=[0-9a-f]{12}", address)
            answer = await client.get(f"/{address}")
            assert answer.status == 200
            assert content_type in answer.content_type
            assert "immutable" in answer.headers["Cache-Control"]
        assert (await client.get("/static/../pages.py")).status == 404
        assert (await client.get("/static/")).status in (403, 404)


async def test_only_reads() -> None:
    """Only GET is allowed, and there are no forms."""
    async with application(pages.busy(NOW)) as client:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await client.request(method, "/")).status == 405
    assert not (await draw(pages.busy(NOW))).all("form")


async def test_guarded(tmp_path: Path) -> None:
    """Without credentials the page is not served."""
    file = tmp_path / "credentials"
    file.write_text("reader:secret\n")
    guard = Guard(Credentials("basic", file), certificate=False)
    async with application(pages.busy(NOW), guard) as client:
        answer = await client.get("/")
        assert answer.status == 401
        assert "Basic" in answer.headers["WWW-Authenticate"]
        assert "KubePodCrashLooping" not in await answer.text()


# Values from outside


async def test_hostile_values_are_text() -> None:
    """Markup in labels, names, paths and errors is shown as text."""
    own = len((await draw(pages.quiet(NOW))).all("script"))
    for address in ("/", "/remediations"):
        page = await draw(pages.hostile(NOW), address)
        assert len(page.all("script")) == own
        assert page.find("main").all("a", "name")[0].find("bdi").text == pages.SCRIPT[:120]
        assert pages.ATTRIBUTE in page.text


async def test_unseen_characters_are_written_out() -> None:
    """Invisible characters and direction marks are shown as codes."""
    labels = {"alertname": "A", "null": "a\x00b", "lines": "a\n\tb"}
    job = remediation("A", Phase.RUNNING, NOW, labels=labels, operario="latin-\udce9")
    text = row_of(await draw(showing(job), "/remediations")).text
    assert r"a\u0000b" in text
    assert r"latin-\udce9" in text
    assert "a b" in text
    job = replace(job, operario=pages.OVERRIDE)
    page = await draw(showing(job), "/remediations")
    assert r"abc\u202egpj.exe\u2066" in page.text
    assert "\u202e" not in page.text


# Remediations


@pytest.mark.parametrize("phase", Phase)
async def test_every_phase(phase: Phase) -> None:
    """Each phase has a word, an icon, a color, a meaning and a count."""
    page = await draw(showing(remediation("A", phase, NOW)), "/remediations")
    badge = row_of(page).find("td", "phase").find("span", "badge")
    assert badge.text == phase.value
    assert badge.attributes["title"]
    assert badge.find("use").attributes["href"].startswith("#icon-")
    (tone,) = set(badge.attributes["class"].split()) - {"badge"}
    assert tone in ("ok", "bad", "warn", "ask", "run", "idle")
    chips = {element.text for element in page.find("nav", "chips").all("a")}
    assert f"{phase.value} 1" in chips
    assert len(chips) == 1 + len(Phase)


async def test_phases_differ_in_more_than_colour() -> None:
    """No two phases have the same icon."""
    page = await draw(pages.busy(NOW), "/remediations")
    icons = [
        element.find("use").attributes["href"] for element in page.find("nav", "chips").all("a")[1:]
    ]
    assert len(set(icons)) == len(Phase)


async def test_where_it_came_from() -> None:
    """A remediation shows its operario and its commit (short and full)."""
    row = row_of(
        await draw(showing(remediation("KubePodCrashLooping", Phase.RUNNING, NOW)), "/remediations")
    )
    origin = row.find("td", "from")
    assert "openfero-kubepodcrashlooping-firing" in origin.text
    assert origin.find("span", "sha").find("code").text == COMMIT[:7]
    assert origin.find("span", "sha").find("code").attributes["title"] == COMMIT
    assert origin.find("button", "copy").attributes["data-copy"] == COMMIT


async def test_a_folder_has_no_commit() -> None:
    """An operario from a folder is shown without a commit."""
    page = await draw(showing(remediation("A", Phase.RUNNING, NOW, commit="")), "/remediations")
    assert "no commit (folder)" in row_of(page).find("td", "from").text


async def test_target() -> None:
    """A row shows the target; a damaged target is omitted."""
    page = await draw(showing(remediation("A", Phase.RUNNING, NOW)), "/remediations")
    assert row_of(page).find("div", "target").text == "namespace=shop pod=cart-0"
    page = await draw(
        showing(remediation("A", Phase.RUNNING, NOW, target="damaged")), "/remediations"
    )
    assert not row_of(page).all("div", "target")


async def test_waits_for_a_busy_target() -> None:
    """A Job that waits for a busy target names the other Job."""
    first = remediation("A", Phase.RUNNING, NOW - timedelta(minutes=1))
    second = remediation("A", Phase.WAITING, NOW, labels={"alertname": "A", "b": "c"})
    page = await draw(showing(first, replace(second, target=first.target)), "/remediations")
    why = page.find("tbody", "idle").find("td", "why")
    assert why.find("code", "reason").text == "target-busy"
    assert f"{first.key} is running on the same target" in why.text


async def test_waits_for_the_clock() -> None:
    """A Job that waits for its cooldown shows when that ends."""
    before = remediation("A", Phase.FAILED, NOW - timedelta(minutes=4))
    late = remediation("A", Phase.WAITING, NOW, attempt=2)
    page = await draw(showing(before, late), "/remediations")
    until = page.find("tbody", "idle").find("td", "why").find("span", "until")
    # It ended 44 s after it came, and the cooldown is ten minutes.
    assert until.find("time").attributes["datetime"] == "2026-11-21T03:10:49Z"
    assert until.find("span", "age").text == "in 6m 44s"


async def test_waits_for_a_person() -> None:
    """A Job that waits for approval shows the commands to decide on it, and is a concern."""
    job = remediation(
        "A", Phase.AWAITING_APPROVAL, NOW - timedelta(minutes=17), options=Options(approval=True)
    )
    page = await draw(showing(job), "/remediations")
    assert row_of(page).find("code", "reason").text == "approval"
    page = await draw(showing(job))
    concern = page.find("li", "concern")
    assert concern.find("span", "command").text == f"openfero-gitops approve {job.key}"
    assert concern.find("a", "name").attributes["href"] == f"./remediations/{job.key}"
    assert "1 remediation waiting for approval" in concern.text
    assert "17m ago" in concern.text
    assert (
        concern.find("strong").find("a").attributes["href"]
        == "./remediations?phase=AwaitingApproval"
    )


async def test_a_job_whose_operario_does_not_help_waits_for_a_person() -> None:
    """The page says what did not help, and shows the commands to decide on the Job."""
    began = NOW - timedelta(hours=2)
    ran = replace(
        remediation("A", Phase.SUCCEEDED, began),
        spec_digest="1",
        effect=Effect.NOT_HEALED,
        effect_message="still firing 16m after the Job ended",
    )
    options = Options(stop_after_not_healed=1)
    job = replace(
        remediation("A", Phase.WAITING, NOW - timedelta(minutes=17), options=options),
        spec_digest="1",
    )
    page = await draw(showing(ran, job), "/remediations")
    row = page.find("tbody", "idle")
    assert row.find("code", "reason").text == "not-helping"
    assert "still firing 16m after the Job ended" in row.find("td", "why").text
    page = await draw(showing(ran, job))
    (not_healed, concern) = page.all("li", "concern")
    assert "1 remediation did not heal the alert" in not_healed.text
    assert "1 remediation not started because its operario does not help" in concern.text
    assert "approve it, or change the operario" in concern.text
    assert concern.find("span", "command").text == f"openfero-gitops approve {job.key}"
    assert concern.find("strong").find("a").attributes["href"] == "./remediations?q=not-helping"


async def test_what_does_not_help_is_a_concern_whatever_keeps_its_job_from_starting() -> None:
    """During a pause, too, and until the next attempt if the Job waited too long."""
    began = NOW - timedelta(hours=2)
    ran = [
        replace(
            remediation("A", Phase.SUCCEEDED, began - timedelta(minutes=number)),
            spec_digest="1",
            effect=Effect.NOT_HEALED,
            effect_message="still firing 16m after the Job ended",
        )
        for number in range(2)
    ]
    options = Options(stop_after_not_healed=2)
    job = replace(remediation("A", Phase.WAITING, NOW, options=options), spec_digest="1")
    refused = replace(job, phase=Phase.REFUSED, reason="max-wait", suspended=True)
    active = catalog(operario("openfero-a-firing", "A", spec_digest="1", options=options))
    pause = Pause(PauseCause.COMMAND, "ada paused admission", "ada")
    for state, words in (
        (replace(showing(*ran, job), paused=pause), "approve it, or change"),
        (showing(*ran, refused, active=active), "approve the next Job for it, or change"),
    ):
        page = await draw(state)
        texts = [concern.text for concern in page.all("li", "concern")]
        assert any("1 remediation did not heal the alert" in text for text in texts)
        [text] = [text for text in texts if "1 remediation not started because" in text]
        assert words in text
        page = await draw(state, "/remediations?q=not-helping")
        assert [body.attributes["id"] for body in page.all("tbody")] == [str(job.key)]


async def test_waits_for_a_limit() -> None:
    """A Job that waits for a limit names the limit."""
    envelope = Envelope(limits=Limits(concurrent=1))
    active = catalog(envelope=envelope)
    labels = {"alertname": "B", "node": "worker-1"}
    page = await draw(
        showing(
            remediation("A", Phase.RUNNING, NOW - timedelta(minutes=1)),
            remediation("B", Phase.WAITING, NOW, labels=labels),
            active=active,
        )
    )
    assert "Waiting B firing node=worker-1" in page.find("ul", "current").text
    assert "1 of 1" in page.find("section", "status").text


async def test_about_to_be_decided() -> None:
    """A Job that can start is about to start; a Job that must not start is about to be refused."""
    page = await draw(showing(remediation("A", Phase.WAITING, NOW)), "/remediations")
    assert "The leader is about to start it" in row_of(page).text
    page = await draw(
        showing(remediation("A", Phase.WAITING, NOW - timedelta(hours=2))), "/remediations"
    )
    assert "The leader is about to refuse it" in row_of(page).text
    assert row_of(page).find("code", "reason").text == "max-wait"


async def test_why_it_failed() -> None:
    """A failed remediation shows its condition, the exit code and the termination message."""
    message = "BackoffLimitExceeded: limit reached; container a exited with code 3 (Error): no disk"
    job = remediation(
        "A",
        Phase.FAILED,
        NOW - timedelta(minutes=2),
        reason="BackoffLimitExceeded",
        message=message,
    )
    why = row_of(await draw(showing(job), "/remediations"), "bad").find("td", "why")
    assert why.find("code", "reason").text == "BackoffLimitExceeded"
    assert why.text.count("BackoffLimitExceeded") == 1
    assert "limit reached; container a exited with code 3 (Error): no disk" in why.text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Effect pending: waiting until"),
        ({"resolved_at": NOW - timedelta(minutes=40)}, "Healed: resolved 19m after the Job ended"),
        (
            {"effect": Effect.NOT_HEALED, "effect_message": "still firing 16m after the Job ended"},
            "Not healed: still firing 16m after the Job ended",
        ),
    ],
)
async def test_whether_it_helped(changes: dict[str, Any], text: str) -> None:
    """A remediation that ended shows its effect and why, one that runs does not."""
    received = NOW - timedelta(minutes=10 if not changes else 60)
    changes = {"finished_at": received + timedelta(minutes=1), **changes}
    options = Options(heals_within=timedelta(minutes=20))
    job = remediation("A", Phase.SUCCEEDED, received, options=options, **changes)
    assert text in row_of(await draw(showing(job), "/remediations")).find("td", "why").text
    running = remediation("A", Phase.RUNNING, received)
    assert (
        "Effect" not in row_of(await draw(showing(running), "/remediations")).find("td", "why").text
    )


async def test_why_it_was_refused() -> None:
    """A refused remediation shows its reason, and the reason's text if it has no message."""
    job = remediation("A", Phase.REFUSED, NOW, reason="unsafe-value", decision="refused")
    why = row_of(await draw(showing(job), "/remediations")).find("td", "why")
    meaning = Reason.UNSAFE_VALUE.text
    assert why.text == f"unsafe-value {meaning[0].upper()}{meaning[1:]}"
    job = replace(job, message="pod is '--all'")
    why = row_of(await draw(showing(job), "/remediations")).find("td", "why")
    assert why.text == "unsafe-value pod is '--all'"
    assert why.find("code", "reason").attributes["title"] == meaning


async def test_circumstances() -> None:
    """Queued and held Jobs, Jobs started by others and Jobs being deleted say so."""
    for job, words in (
        (remediation("A", Phase.QUEUED, NOW, queue="heal"), "Waits for Kueue, in queue heal"),
        (remediation("A", Phase.SUCCEEDED, NOW, starts=2), "Started 2 times: it was stopped"),
        (remediation("A", Phase.HELD, NOW), "Someone suspended it after it started"),
        (remediation("A", Phase.RUNNING, NOW, admitted_at=None), "Started by someone else"),
        (remediation("A", Phase.FAILED, NOW, deleting=True), "It is being deleted"),
    ):
        assert words in row_of(await draw(showing(job), "/remediations")).find("td", "why").text


@pytest.mark.parametrize("verified", [False, True])
async def test_who_approved_it(*, verified: bool) -> None:
    """The approver is shown, and whether the cluster verified the name."""
    job = remediation("A", Phase.RUNNING, NOW, approved_by="ada")
    page = await draw(replace(showing(job), approvals_verified=verified), "/remediations")
    text = row_of(page).find("td", "why").text
    assert "Approved by ada" in text
    assert ("unverified" in text) is not verified


async def test_an_alert_without_a_name() -> None:
    """An alert without a name and labels is shown."""
    job = remediation("", Phase.REFUSED, NOW, labels={"a": "b"})
    text = row_of(await draw(showing(replace(job, labels={})), "/remediations")).text
    assert "(alert without a name)" in text


# The filter


async def test_filter_by_phase() -> None:
    """The address selects one or more phases, ignoring case, and marks their links."""
    page = await draw(pages.busy(NOW), "/remediations?phase=failed")
    assert len(page.all("tbody", "remediation")) == 1
    assert page.find("nav", "chips").find("a", **{"aria-current": "true"}).text == "Failed 1"
    assert "Waiting 2" in page.find("nav", "chips").text
    page = await draw(pages.busy(NOW), "/remediations?phase=Failed&phase=Held")
    assert len(page.all("tbody", "remediation")) == 2


async def test_filter_by_words() -> None:
    """All words must occur in the texts of a remediation, operario or problem."""
    for words, count in (
        ("checkout-5", 2),
        ("pod=checkout-5 failed", 1),
        ("TARGETDOWN", 2),
        ("code+1+(Error)", 1),
        ("target-busy", 1),
        ("nobody+has+this", 0),
        (OLDER, 1),
    ):
        page = await draw(pages.busy(NOW), f"/remediations?q={words}")
        assert len(page.all("tbody", "remediation")) == count, words
    page = await draw(pages.busy(NOW), "/remediations?q=kubejobfailed")
    assert page.find("input", id="q").attributes["value"] == "kubejobfailed"


async def test_broken_query() -> None:
    """A query that is not UTF-8 matches nothing."""
    page = await draw(pages.busy(NOW), "/remediations?q=%ff%ed%a0%80")
    assert not page.all("tbody", "remediation")


# Empty states


async def test_no_alert_yet() -> None:
    """Without remediations the page explains how to configure Alertmanager."""
    page = await draw(pages.quiet(NOW))
    section = page.find("section", "day")
    assert "No remediations yet" in section.text
    assert "sends to /alerts" in section.text
    assert "openfero-gitops explain SOURCE --alert FILE" in section.text
    assert page.find("h2", id="state").text == "Healthy. No action needed."
    assert not page.all("li", "concern")


async def test_nothing_under_way() -> None:
    """If no Job is waiting or running, the page reports it."""
    page = await draw(showing(remediation("A", Phase.SUCCEEDED, NOW - timedelta(hours=1))))
    assert "No Jobs are running or waiting." in page.text
    assert page.find("section", "day").find("h2").text == "Last 24 hours 1"


# The last day, and what runs


async def test_current_jobs() -> None:
    """What runs comes before what waits, each with what it waits for and until when."""
    page = await draw(pages.busy(NOW))
    items = [item.text for item in page.find("ul", "current").find_items()]
    assert [text.split()[0] for text in items] == [
        *("Running", "Held", "Queued", "AwaitingApproval", "Waiting", "Waiting")
    ]
    assert "until in" in items[4]


async def test_many_current_jobs() -> None:
    """Of many, the first ten are listed, with a link to all."""
    many = [
        remediation(f"A{n}", Phase.RUNNING, NOW - timedelta(minutes=n), labels={"n": str(n)})
        for n in range(12)
    ]
    page = await draw(showing(*many))
    assert len(page.find("ul", "current").find_items()) == 10
    assert "2 more: all remediations" in page.text


async def test_bars_link_to_their_remediations() -> None:
    """A bar of the timeline leads to its remediation, and the table has the same in words."""
    job = remediation("A", Phase.FAILED, NOW - timedelta(hours=1))
    day = (await draw(showing(job))).find("section", "day")
    (bar,) = [a for a in day.find("div", "lanes").all("a") if a.all("rect", "failed")]
    assert bar.attributes["href"] == f"./remediations/{job.key}"
    assert "A: failed" in bar.find("title").text
    (row,) = day.find("tbody").all("tr")
    assert row.find("a", "name").attributes["href"] == f"./remediations/{job.key}"
    assert row.find("span", "result").text == "failed"


async def test_rows_of_the_timeline() -> None:
    """The address says whether rows are alerts or targets."""
    day = (await draw(pages.busy(NOW), "/?by=target")).find("section", "day")
    names = [row.text for row in day.all("span", "lane-name")]
    assert "namespace=shop, pod=checkout-5 2" in names
    assert day.find("a", **{"aria-current": "true"}).text == "By target"
    async with application(pages.busy(NOW)) as client:
        answer = await client.get("/?by=colour")
        assert answer.status == 400
        assert "use alert or target" in (await answer.json())["detail"]


async def test_ten_items_of_a_concern() -> None:
    """Of many failures the newest ten are listed, with a link to all."""
    many = [
        remediation(f"A{n}", Phase.FAILED, NOW - timedelta(minutes=n), labels={"n": str(n)})
        for n in range(12)
    ]
    concern = (await draw(showing(*many))).find("li", "concern")
    names = [item.find("bdi").text for item in concern.all("a", "name")]
    assert names == [f"A{n}" for n in range(10)]
    link = concern.find("p", "all").find("a")
    assert (link.text, link.attributes["href"]) == ("All 12", "./remediations?phase=Failed")


# The state of the controller


async def test_healthy() -> None:
    """A healthy controller shows leader, conditions, revision, its author and its age."""
    page = await draw(pages.quiet(NOW))
    text = page.find("section", "status").text
    assert f"Leader {pages.REPLICA} (this replica)" in text
    assert f"Commit {COMMIT[:7]} on main by Platform Team" in text
    assert f"Signed by {pages.SIGNER} verified" in text
    assert "Active since 9h 12m ago 2026-11-20T17:52:05Z" in text
    assert "Last sync 20s ago" in text
    assert "State active" in text
    badges = [element.text for element in page.find("ul", "conditions").all("span", "badge")]
    assert badges == ["catalog active", "Jobs watched"]


async def test_an_advice_is_a_concern_of_a_healthy_controller() -> None:
    """It has its own headline, and says what to do."""
    quiet = pages.quiet(NOW)
    missing = Condition(
        "job policy", holds=False, message="install it", vital=False, advice="Safer"
    )
    page = await draw(replace(quiet, needs=[*quiet.needs, missing]))
    assert page.find("h2", id="state").text == "Healthy, but 1 item needs attention"
    [concern] = page.all("li", "concern")
    assert concern.text == "Safer install it"
    badges = page.find("ul", "conditions").all("span", "warn")
    assert [badge.text for badge in badges] == ["Jobs not protected"]


async def test_broken() -> None:
    """Without catalog, leader or API server the page reports it first, with the reason."""
    page = await draw(pages.broken(NOW))
    assert page.find("h2", id="state").text == "Not healthy"
    concerns = [element.text for element in page.all("li", "concern")]
    assert concerns == [
        (
            "No active catalog: deliveries are answered with 503 3m 0s ago 2026-11-21T03:01:05Z "
            f"git fetch {pages.REPOSITORY}: authentication failed"
        ),
        "Not ready: jobs openfero-jobs: connection refused",
        "No leader alerts still become Jobs, but no Job is started",
    ]
    assert page.all("title")[0].text == "not healthy · openfero-gitops · production-west"
    assert "no success yet" in page.find("section", "status").text


async def test_before_the_first_sync() -> None:
    """Before the end of the first sync the page reports that it is running."""
    fresh = replace(pages.broken(NOW), synced=type(pages.quiet(NOW).synced)(), jobs=[])
    text = (await draw(fresh)).text
    assert "the first sync has not finished yet" in text
    assert "Last sync none yet" in text


async def test_another_leads() -> None:
    """A replica that is not the leader shows the leader and itself."""
    page = await draw(showing(leader=Leadership(holder="openfero-gitops-other")))
    text = page.find("section", "status").text
    assert "Leader openfero-gitops-other This replica" in text
    assert page.find("h2", id="state").text.startswith("Healthy")


async def test_sync_fails() -> None:
    """A failing sync shows the error, since when, and the active commit."""
    concern = [
        element.text
        for element in (await draw(pages.busy(NOW))).all("li", "concern")
        if "The repository cannot" in element.text
    ]
    assert len(concern) == 1
    assert f"The repository cannot be read; {COMMIT[:7]} stays active" in concern[0]
    assert "21m ago 2026-11-21T02:43:05Z" in concern[0]
    assert "could not resolve host git.example.com" in concern[0]


async def test_revision_refused() -> None:
    """A refused revision is shown with the reason and the active commit."""
    status = replace(
        pages.quiet(NOW).synced,
        error="openfero.yaml: unknown key 'pause'",
        failing_since=NOW - timedelta(minutes=2),
        refused=RefusedRevision(
            OLDER, "openfero.yaml: unknown key 'pause'", "2026-11-21T03:02:05Z"
        ),
    )
    page = await draw(showing(synced=status))
    concern = page.find("li", "concern").text
    assert f"Revision {OLDER[:7]} was refused; {COMMIT[:7]} stays active" in concern
    assert "unknown key 'pause'" in concern
    # Once a newer revision is active, the refused one is history: told, but no concern.
    page = await draw(showing(synced=replace(status, error=None, failing_since=None)))
    assert not page.all("li", "concern")
    assert f"Refused {OLDER[:7]}" in page.find("section", "status").text


async def test_from_the_mirror() -> None:
    """A catalog that came from the mirror is labelled."""
    status = replace(pages.quiet(NOW).synced, origin="mirror", last_success=None)
    page = await draw(showing(synced=status))
    assert "comes from the mirror" in page.find("li", "concern").text
    badges = [element.text for element in page.find("section", "status").all("span", "badge")]
    assert "from the mirror" in badges


async def test_paused_by_the_envelope() -> None:
    """A pause in Git is shown with its commit and the way to resume."""
    shown = showing(
        remediation("A", Phase.WAITING, NOW), active=catalog(envelope=Envelope(paused=True))
    )
    page = await draw(shown)
    assert "openfero.yaml sets paused: true" in page.find("li", "concern").text
    assert "paused by openfero.yaml" in page.find("section", "status").text


async def test_paused_by_a_person() -> None:
    """A pause by command is shown with the person and the way to resume, also if no Job waits."""
    message = "ada paused admission; run `openfero-gitops resume` to resume"
    page = await draw(showing(paused=Pause(PauseCause.COMMAND, message, "ada", NOW)))
    assert message in page.find("li", "concern").text
    assert "paused by ada" in page.find("section", "status").text


async def test_a_pause_with_an_end_and_a_reason() -> None:
    """Both are shown beside the person, and the end as a time that the browser shows as such."""
    until = NOW + timedelta(hours=2)
    pause = Pause(PauseCause.COMMAND, "ada paused admission", "ada", NOW, until, "migration")
    page = await draw(showing(paused=pause))
    status = page.find("section", "status").text
    assert "paused by ada" in status
    assert "ends in 2h 0m 2026-11-21T05:04:05Z" in " ".join(status.split())
    assert "migration" in status


async def test_paused_by_a_refused_revision() -> None:
    """A pause of a revision that was refused is shown as such."""
    refused = RefusedRevision(
        OLDER, "openfero.yaml: unknown key", "2026-11-21T03:02:05Z", paused=True
    )
    status = replace(pages.quiet(NOW).synced, error=refused.reason, refused=refused)
    page = await draw(showing(remediation("A", Phase.WAITING, NOW), synced=status))
    concerns = " ".join(element.text for element in page.all("li", "concern"))
    assert f"revision {OLDER[:12]} was refused, but its openfero.yaml sets paused" in concerns
    assert f"paused by refused revision {OLDER[:12]}" in page.find("main").text


async def test_paused_since_nobody_knows() -> None:
    """If it is unknown whether admission is paused, nobody is named; the cause is shown."""
    unknown = Pause(PauseCause.UNKNOWN, "cannot read ConfigMap openfero-control: Forbidden")
    page = await draw(showing(remediation("A", Phase.WAITING, NOW), paused=unknown))
    assert "paused by" not in page.find("section", "status").text
    assert unknown.message in " ".join(element.text for element in page.all("li", "concern"))


async def test_dry_run() -> None:
    """In dry-run mode the page says that no Job runs."""
    page = await draw(showing(active=catalog(envelope=Envelope(mode=Mode.DRY_RUN))))
    assert "Dry-run mode: Jobs are checked but do not run" in page.find("li", "concern").text
    assert "State dry-run" in page.find("section", "status").text


async def test_failures_are_said_first() -> None:
    """A failure is a concern until its alert is resolved, for a day at most; then it is counted."""
    page = await draw(showing(remediation("A", Phase.FAILED, NOW - timedelta(hours=23))))
    assert "1 remediation failed" in page.find("li", "concern").text
    assert page.all("title")[0].text.startswith("1 needs attention")
    for failed in (
        remediation("A", Phase.FAILED, NOW - timedelta(hours=25)),
        remediation("A", Phase.FAILED, NOW - timedelta(minutes=5), resolved_at=NOW),
    ):
        assert not (await draw(showing(failed))).all("li", "concern")
        page = await draw(showing(failed), "/remediations")
        assert "Failed 1" in page.find("nav", "chips").text


async def test_remediations_that_did_not_heal_are_a_concern() -> None:
    """The text says how many, and the words are those of the newest effect."""
    page = await draw(
        showing(
            remediation(
                "A",
                Phase.SUCCEEDED,
                NOW - timedelta(minutes=50),
                effect=Effect.NOT_HEALED,
                effect_at=NOW - timedelta(minutes=30),
                effect_message="still firing 19m after the Job ended",
            )
        )
    )
    concern = page.find("li", "concern")
    assert "1 remediation did not heal the alert" in concern.text
    assert "still firing 19m after the Job ended" in concern.text


async def test_a_queue_that_starts_nothing_is_a_concern() -> None:
    """With Kueue's words about the oldest Job; quota that is in use is no concern."""
    message = "LocalQueue heal doesn't exist"
    stuck = [
        remediation(name, Phase.QUEUED, NOW, queue="heal", reason=reason, message=message)
        for name, reason in (("A", "Inadmissible"), ("B", "Deactivated"), ("C", "Pending"))
    ]
    (concern,) = (await draw(showing(*stuck))).all("li", "concern")
    assert "2 remediations not started by Kueue" in concern.text
    assert message in concern.text
    assert not (await draw(showing(stuck[2]))).all("li", "concern")


async def test_urgent_concerns_come_first() -> None:
    """Failures come before approvals, and these before warnings."""
    tones = [
        element.attributes["class"].split()[1]
        for element in (await draw(pages.busy(NOW))).all("li", "concern")
    ]
    assert tones == ["bad", "ask", "warn", "warn", "warn"]


# The active catalog


async def test_stale_without_an_error() -> None:
    """A stale operario is a concern even without an error."""
    origin = Origin("a.yaml", "", OLDER, stale=True)
    active = catalog(operario("a", "A", origin=origin))
    page = await draw(showing(active=active))
    assert "1 operario active in an older version" in page.find("li", "concern").text


async def test_a_folder() -> None:
    """A catalog that was read from a folder is shown without a commit."""
    active = catalog(operario("a", "A"), revision=Revision("/srv/operarios", "", ""))
    page = await draw(showing(active=active, synced=synced(active, NOW)))
    assert "no commit (folder)" in page.find("section", "status").text


async def test_the_envelope() -> None:
    """The page shows the limits, and the file that sets them or that they are defaults."""
    envelope = Envelope(limits=Limits(7, 9), namespaces=("shop",), remember=timedelta(days=2))
    page = await draw(showing(active=catalog(envelope=envelope, root="production")))
    text = page.find("section", "status").text
    assert "0 of 7" in text
    assert "at most 9 per minute" in text
    assert "Jobs kept for 2d" in text
    assert "Namespaces shop" in text
    assert "production/openfero.yaml" in text
    page = await draw(showing(active=catalog(has_envelope=False)))
    assert "defaults (no openfero.yaml)" in page.find("section", "status").text


# Times, and the way to act


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s ago"),
        (59, "59s ago"),
        (61, "1m 1s ago"),
        (599, "9m 59s ago"),
        (600, "10m ago"),
        (3599, "59m ago"),
        (3600, "1h 0m ago"),
        (86_399, "23h 59m ago"),
        (90_000, "1d 1h ago"),
        (-90, "in 1m 30s"),
    ],
)
async def test_ages(seconds: int, words: str) -> None:
    """Ages use the two largest units, in the past or future."""
    job = remediation("A", Phase.RUNNING, NOW - timedelta(seconds=seconds))
    received = row_of(await draw(showing(job), "/remediations")).find("td", "received")
    assert received.find("span", "age").text == words


async def test_times() -> None:
    """All times are RFC 3339 in UTC."""
    page = await draw(pages.busy(NOW))
    times = page.all("time")
    assert len(times) > 20
    for element in times:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", element.attributes["datetime"])
        assert element.text == element.attributes["datetime"]
    # The commit's own time is written with its author's offset.
    assert "2026-11-19T15:20:11Z" in {element.text for element in times}


async def test_how_to_act() -> None:
    """The footer lists the commands, and says that the page is read-only."""
    footer = (await draw(pages.quiet(NOW))).find("footer")
    assert "This page is read-only." in footer.text
    for command in ("approve JOB", "refuse JOB", "cancel JOB", "pause", "audit --verify"):
        assert f"openfero-gitops {command}" in footer.text


async def test_works_without_a_script() -> None:
    """Without JavaScript the page reloads itself."""
    head = (await draw(pages.quiet(NOW))).find("noscript")
    assert head.find("meta").attributes == {"http-equiv": "refresh", "content": "30"}


async def test_resolved_is_told() -> None:
    """A remediation shows whether its alert is firing or resolved."""
    job = remediation("A", Phase.SUCCEEDED, NOW, status=Status.RESOLVED)
    assert (
        row_of(await draw(showing(job), "/remediations")).find("span", "status").text == "resolved"
    )


async def test_not_ready_names_the_condition() -> None:
    """Each failing condition is a concern with its message."""
    needs = [Condition("catalog", holds=True), Condition("jobs", holds=False, message="no answer")]
    page = await draw(showing(needs=needs))
    assert page.find("li", "concern").text == "Not ready: jobs no answer"
    badges = [element.text for element in page.find("ul", "conditions").all("span", "badge")]
    assert badges == ["catalog active", "Jobs not watched"]
