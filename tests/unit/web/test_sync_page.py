from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.domain.sync import (
    BehaviorLine,
    BehaviorNote,
    Changes,
    LagState,
    RefusedRevision,
    ReplicaLag,
    SyncRecord,
)
from tests.support import pages
from tests.support.pages import COMMIT, OLDER, REPOSITORY, SIGNER
from tests.unit.web.test_pages import draw

if TYPE_CHECKING:
    from tests.support.pages import Showcase
    from tests.unit.web.test_pages import Element

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
REASON = "openfero.yaml:3:9: limits.concurrent must be a number"


def history(*entries: tuple[str, int]) -> RevisionHistory:
    """A record of commits, each active since a number of hours ago."""
    record = RevisionHistory()
    for commit, hours in entries:
        record = record.activate(commit, NOW - hours * HOUR, HOUR, "Ada <ada@example.com>", SIGNER)
    return record


def activation(before: str, after: str, *lines: BehaviorLine) -> SyncRecord:
    """A record of an activation by this process."""
    return SyncRecord(
        at=NOW - 9 * HOUR,
        until=NOW - 9 * HOUR,
        times=1,
        before=before,
        after=after,
        origin="git",
        changes=Changes(added=("a", "b")),
        steps={},
        behavior=BehaviorNote("2 changes in behavior", lines, more=4),
    )


def showing(*records: SyncRecord, **changes: object) -> Showcase:
    """A replica whose leader activated two revisions."""
    quiet = pages.quiet(NOW)
    synced = replace(quiet.synced, history=records)
    return replace(quiet, synced=synced, activations=history((OLDER, 30), (COMMIT, 9)), **changes)


def revisions(page: Element) -> list[Element]:
    """The revisions on the page."""
    return page.all("li", "revision")


async def test_revisions_say_when_they_were_active_and_who_made_them() -> None:
    """The newest comes first; its end is open."""
    page = await draw(showing(), "/sync")

    newest, oldest = revisions(page)
    assert newest.find("span", "badge").text == "active"
    assert "9h 0m ago 2026-11-20T18:04:05Z for 9h 0m" in newest.text
    assert "30h" not in oldest.text
    assert "for 21h 0m, until 9h 0m ago 2026-11-20T18:04:05Z" in oldest.text
    assert f"Author Ada <ada@example.com> signed by {SIGNER}" in oldest.text
    assert "Recorded by the leader since 1d 6h ago" in page.find("main").text


async def test_what_changed_is_in_the_words_of_diff() -> None:
    """The lines, their number, and the command that shows all."""
    line = BehaviorLine("allows more", "restart", "may now delete pods")
    page = await draw(showing(activation(OLDER, COMMIT, line)), "/sync")

    newest, oldest = revisions(page)
    assert newest.find("ul", "behavior").text == "allows more restart may now delete pods"
    assert "Added a, b" in newest.text
    assert "4 more changes; run the command under Compare." in newest.text
    assert f"openfero-gitops diff {REPOSITORY} {OLDER} {COMMIT}" in newest.text
    assert "openfero-gitops diff" not in oldest.text
    assert not oldest.all("ul", "behavior")


async def test_a_change_from_another_revision_is_not_shown() -> None:
    """This replica may have skipped a revision that was active on the leader."""
    page = await draw(showing(activation("3" * 40, COMMIT)), "/sync")

    assert "2 changes in behavior" not in page.find("main").text


async def test_without_a_record_the_activations_of_the_replica_are_shown() -> None:
    """The page says that they begin with its start."""
    state = replace(
        showing(activation(OLDER, COMMIT), activation("", OLDER)), activations=RevisionHistory()
    )
    page = await draw(state, "/sync")

    assert [row.find("h3").text.split()[0] for row in revisions(page)] == [COMMIT[:7], OLDER[:7]]
    assert "these are the revisions of this replica since its start" in page.find("main").text


async def test_a_link_leads_to_the_forge() -> None:
    """The commit of a known forge has an address there."""
    state = showing()
    revision = replace(state.synced.revision, repository="https://github.com/acme/ops.git")
    page = await draw(replace(state, synced=replace(state.synced, revision=revision)), "/sync")

    assert [
        row.find("a", rel="noreferrer noopener").attributes["href"] for row in revisions(page)
    ] == [f"https://github.com/acme/ops/commit/{commit}" for commit in (COMMIT, OLDER)]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (REASON, "Correct this in a new commit"),
        ("no connection", "until Git can be read again"),
        (None, "a later revision was activated"),
    ],
)
async def test_a_refused_revision_says_what_to_do(error: str | None, advice: str) -> None:
    """That depends on whether it is still the reason why syncs fail."""
    refused = RefusedRevision("b" * 40, REASON, "2026-11-21T02:00:00Z")
    state = showing()
    synced = replace(state.synced, refused=refused, error=error, failing_since=NOW)
    page = await draw(replace(state, synced=synced), "/sync")

    section = page.find("section", "refused").text
    assert REASON in section
    assert advice in section


async def test_failing_syncs_are_listed() -> None:
    """With the number of attempts and the error."""
    failed = SyncRecord(NOW - HOUR, NOW, 12, COMMIT, "", "git", Changes(), {}, "no connection")
    page = await draw(showing(failed), "/sync")

    [line] = page.find("ul", "lines").all("li")
    assert "12 times since 1h 0m ago 2026-11-21T02:04:05Z" in line.text
    assert line.text.endswith("no connection")


async def test_the_leader_is_compared() -> None:
    """A replica that is behind says so, and names the commit of the leader."""
    lag = ReplicaLag(LagState.BEHIND, "d" * 40, NOW - HOUR)
    page = await draw(showing(beside=lag), "/sync")

    assert "behind the leader since 1h 0m ago" in page.find("main").text
    assert "The leader has ddddddd" in page.find("main").text


async def test_many_revisions_have_pages() -> None:
    """Fifty a page; the last has the oldest."""
    record = history(*((f"{number:040x}", 200 - number) for number in range(120)))
    state = replace(showing(), activations=record)

    first = await draw(state, "/sync")
    last = await draw(state, "/sync?page=2")
    beyond = await draw(state, "/sync?page=9")

    assert len(revisions(first)) == 50
    assert first.find("a", rel="next").attributes["href"] == "./sync?page=1"
    assert len(revisions(last)) == 20
    assert not last.all("a", rel="next")
    assert "There is no such page." in beyond.find("main").text


async def test_without_a_catalog_the_page_says_why() -> None:
    """The error is beside the missing commit."""
    page = await draw(pages.broken(NOW), "/sync")

    assert "none git fetch" in page.find("main").text
    assert "No revision was activated yet." in page.find("main").text
