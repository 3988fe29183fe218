"""The page of one operario."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Options, Origin
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.assess import Assessment
from openfero_gitops.web.operario_facts import Run, near_names, read_facts
from openfero_gitops.web.pages.operario import mark_runs
from tests.support import pages
from tests.support.copying import replace
from tests.support.drawn import Element, application, draw
from tests.support.pages import (
    ATTRIBUTE,
    COMMIT,
    FILE,
    OLDER,
    SCRIPT,
    catalog,
    operario,
    remediation,
    synced,
    with_history,
)

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
NAME = "openfero-kubepodcrashlooping-firing"


def section(page: Element, title: str) -> Element:
    """Find a section by its title."""
    (part,) = [s for s in page.all("section", "panel") if s.all("h2")[0].text.startswith(title)]
    return part


async def page_of(state: pages.Showcase, name: str = NAME) -> Element:
    """Draw the page of an operario."""
    return await draw(state, f"/operarios/{name}")


async def test_alert_and_file_are_said_in_words() -> None:
    """The page says which alerts are answered, from which file, and who signed it."""
    text = section(await page_of(with_history(NOW)), "Alert and file").text
    assert (
        "Alert KubePodCrashLooping firing whose label severity is critical and namespace "
        "does not match kube-.*"
    ) in text
    assert "in the jobs namespace, openfero-jobs" in text
    assert f"{COMMIT[:7]} by Platform Team" in text
    assert "signature verified: ada@git.example" in text


async def test_limits_show_how_full_they_are_and_which_targets_wait() -> None:
    """Running, started and waiting Jobs are counted, and each target says why it would wait."""
    part = section(await page_of(with_history(NOW)), "Limits now")
    assert "1 of 3 (max-concurrent)" in part.text
    assert "2 of 30 started (max-per-hour)" in part.text
    assert "1 for target-busy" in part.text
    stopped, *_, busy = part.find("ul", "targets").all("li")
    assert stopped.text.startswith("namespace=shop pod=cart-0 circuit breaker open the last 4 Jobs")
    assert busy.text == "namespace=shop pod=cart-9 busy KubePodCrashLooping firing"


async def test_the_last_runs_lead_to_their_remediations() -> None:
    """Fifty runs are drawn, the oldest first, each a link that says what became of it."""
    part = section(await page_of(with_history(NOW)), "Last runs")
    assert part.find("h2").text == "Last runs 50 of 61"
    links = part.find("ol", "runs").all("a")
    assert len(links) == 50
    assert links[-1].attributes["href"].startswith("../remediations/openfero-jobs/kubepod")
    assert links[-1].text.endswith("Running, effect pending")
    assert "Succeeded, effect healed, ran for " in part.text
    (changed,) = part.all("li", "changed")
    assert changed.text.endswith("the operario was changed before")


async def test_the_commit_that_made_it_worse_is_marked() -> None:
    """Of two commits, the newer one has a mark with the figures before and since."""
    page = await page_of(with_history(NOW))
    newer, older = section(page, "Effect by commit").find("tbody").all("tr")
    assert newer.attributes["class"] == "worse"
    assert "heals fewer alerts 3 of 20 healed since, 35 of 40 before" in newer.text
    assert f"{OLDER[:7]}" in older.text
    assert "heals fewer alerts" not in older.text
    assert page.find(href="#commits").text == "heals fewer alerts since a change"


async def test_other_operarios_for_the_alert_are_listed_in_their_order() -> None:
    """The page says which operario is tried first, and under which conditions."""
    part = section(await page_of(with_history(NOW)), "Operarios for this alert")
    first, second = part.find("ol").all("li")
    assert first.text.startswith(f"{NAME} (this one) priority 5: if label severity is critical")
    assert second.text == "restart-slowly priority 0: always"


async def test_the_file_is_shown_with_its_problems() -> None:
    """Each line of the file is shown, and a problem stands below its line."""
    part = section(await page_of(with_history(NOW)), "File at 4f1c9a2")
    lines = part.find("div", "code").all("li")
    assert len(lines) == FILE.count("\n")
    (noted,) = part.all("li", "noted")
    assert noted.attributes["id"] == "L11"
    assert "labels: {team: shop} warning field 'labels' does not exist here" in noted.text
    assert part.all("span", "key")[0].text == "apiVersion"


async def test_a_file_that_is_shown_in_part_says_so() -> None:
    """A file whose long line is cut cannot hide what follows: the page says what is not shown."""
    state = pages.busy(NOW)
    assert state.active is not None
    name, path = state.active.operarios[0].name, state.active.operarios[0].origin.path
    content = b"a: 1\nb: " + b"x" * 60_000 + b"\nprivileged: true\n"
    files = (pages.SourceFile(path, "", content),)
    state.active = replace(state.active, files=files)
    page = await page_of(state, name)
    texts = [rest.text for rest in page.all("p", "rest")]
    assert "Line 2 is too long: only its beginning is shown." in texts
    assert "1 more line is not shown." in texts


async def test_all_options_are_explained() -> None:
    """Options that differ from their default come first; the others say what the default is."""
    rows = section(await page_of(with_history(NOW)), "Options").find("dl").all("div")
    assert [row.find("dt").text.split()[0] for row in rows[:3]] == [
        "matchers",
        "priority",
        "max-concurrent",
    ]
    (cooldown,) = [row for row in rows if row.find("dt").text.startswith("cooldown")]
    assert cooldown.text.startswith("cooldown 10m default The time after the end of a Job")
    assert len(rows) == 17


async def test_powers_are_said_in_the_words_of_diff() -> None:
    """What the Pods may do is listed, what is sensitive first."""
    part = section(await page_of(with_history(NOW)), "What its Pods may do")
    assert "ServiceAccount restarter" in part.text
    first, *others = part.find("ul").all("li")
    assert first.text == "sensitive reads Secret credentials"
    assert "container heal may run as root" in [item.text for item in others]


async def test_a_removed_operario_keeps_its_statistics() -> None:
    """An operario without a file is said to be inactive, and its runs are still shown."""
    page = await page_of(with_history(NOW), "removed-operario")
    assert "This operario is not in the active catalog." in page.find("main").text
    assert section(page, "Effect by commit").find("tbody").text
    assert not [s for s in page.all("section") if "Options" in s.text]


async def test_an_unknown_name_offers_similar_ones() -> None:
    """A name that does not exist is 404, with links to names that are meant perhaps."""
    async with application(with_history(NOW)) as client:
        answer = await client.get(
            "/operarios/openfero-kubepodcrashloping-firing", headers={"Accept": "text/html"}
        )
        text = await answer.text()
    assert answer.status == 404
    assert f'href="../operarios/{NAME}"' in text
    assert near_names(with_history(NOW), "RESTART")[0] == "restart-slowly"
    assert near_names(with_history(NOW), "x" * 5000) == []


async def test_a_stale_operario_shows_the_file_that_is_active() -> None:
    """The errors of the newest version are not put at lines of the older one."""
    state = with_history(NOW)
    assert state.active is not None
    (tested, *others) = state.active.operarios
    stale = replace(tested, origin=replace(tested.origin, commit=OLDER, stale=True))
    active = replace(state.active, operarios=(stale, *others))
    page = await page_of(replace(state, active=active))
    assert "The newest version of its file has errors." in page.find("main").text
    part = section(page, f"File at {OLDER[:7]}")
    assert not part.all("li", "noted")


async def test_an_operario_that_never_ran() -> None:
    """Without Jobs the page says so, and a file that is not in memory is shown by a command."""
    page = await page_of(pages.quiet(NOW))
    assert "No Job of this operario has run" in section(page, "Last runs").text
    assert "explain" in section(page, "Last runs").find("a").attributes["href"]
    assert "git show 4f1c9a2" in section(page, "File at").text
    assert "No target is busy" in section(page, "Limits now").text


async def test_switched_off_operarios_say_so() -> None:
    """Disabled, dry-run and approval are badges next to the name."""
    options = Options(enabled=False, approval=True)
    active = catalog(operario("a", "A", options=options))
    page = await page_of(replace(pages.quiet(NOW), active=active), "a")
    assert page.find("p", "verdicts").text == "disabled approval required"


async def test_hostile_texts_are_text() -> None:
    """Markup in alert names, labels, files and messages is shown as text."""
    origin = Origin("a.yaml", "", COMMIT, ATTRIBUTE)
    active = catalog(
        operario("a", SCRIPT, origin=origin, namespace=ATTRIBUTE, options=Options(target=(SCRIPT,)))
    )
    active = replace(active, files=(pages.SourceFile("a.yaml", "", SCRIPT.encode()),))
    job = remediation(SCRIPT, Phase.FAILED, NOW, operario="a", target=f'{{"{ATTRIBUTE[2:9]}":"x"}}')
    state = replace(pages.quiet(NOW), active=active, synced=synced(active, NOW), jobs=[job])
    page = await page_of(state, "a")
    main = page.find("main")
    assert not main.all("script")
    assert not main.all("img")
    assert main.text.count("<script>") >= 2


@pytest.mark.parametrize(
    ("phase", "effect", "expected"),
    [
        (Phase.SUCCEEDED, Effect.HEALED, ("ok", "ok")),
        (Phase.SUCCEEDED, Effect.NOT_HEALED, ("bad", "fail")),
        (Phase.FAILED, Effect.PENDING, ("bad", "fail")),
        (Phase.SUCCEEDED, Effect.UNKNOWN, ("idle", "wait")),
        (Phase.RUNNING, None, ("run", "run")),
        (Phase.CANCELLED, None, ("idle", "cancel")),
    ],
)
def test_a_run_is_drawn_by_its_effect(
    phase: Phase, effect: Effect | None, expected: tuple[str, str]
) -> None:
    """The effect decides about tone and sign; without one, the phase does."""
    run = Run(remediation("A", phase, NOW), Assessment(effect, NOW, "") if effect else None)
    (mark,) = mark_runs([run])
    assert (mark.tone, mark.icon) == expected


def test_the_height_of_a_run_is_its_duration() -> None:
    """The longest run has the highest bar, and one that has not ended the lowest."""
    runs = [
        Run(remediation("A", Phase.SUCCEEDED, NOW, finished_at=NOW + timedelta(seconds=n)), None)
        for n in (1000, 10)
    ]
    runs.append(Run(remediation("A", Phase.RUNNING, NOW), None))
    running, short, long = (mark.height for mark in mark_runs(runs))
    assert (running, long) == (4, 34)
    assert running < short < long
    assert mark_runs([]) == []


def test_facts_of_nothing() -> None:
    """There are no facts of a name that is neither active nor on a Job."""
    assert read_facts(pages.broken(NOW), "nothing", NOW) is None


def test_a_job_that_kueue_never_started_is_no_run() -> None:
    """It is one as soon as Kueue has started it, also if Kueue has stopped it again."""
    queued = remediation("TargetDown", Phase.QUEUED, NOW, queue="heal")
    started = remediation("TargetDown", Phase.QUEUED, NOW, queue="heal", starts=1, number="2")
    state = pages.quiet(NOW)
    state.jobs = [queued, started]
    facts = read_facts(state, queued.operario, NOW)
    assert facts is not None
    assert [run.remediation for run in facts.runs] == [started]
