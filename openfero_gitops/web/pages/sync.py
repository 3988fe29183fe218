"""The page `/sync`: which revisions were active, what they changed, and why others were refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.sync import LagState
from openfero_gitops.web.activations import list_activations, own_activations
from openfero_gitops.web.pages.shell_commands import diff_command
from openfero_gitops.web.pages.site import PageRoute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from openfero_gitops.catalog.revisions import RevisionHistory
    from openfero_gitops.domain.sync import (
        BehaviorNote,
        Changes,
        ReplicaLag,
        SyncRecord,
        SyncStatus,
    )
    from openfero_gitops.web.pages.site import Site, Visit
    from openfero_gitops.web.repository_links import RepositoryLinks

_ROWS_PER_PAGE: Final = 50
_MAX_PAGE_DIGITS: Final = 3
_MAX_NAMES: Final = 12
_LAG_TEXTS: Final = {
    LagState.SAME: ("ok", "ok", "same commit as the leader"),
    LagState.AHEAD: ("idle", "wait", "ahead of the leader"),
    LagState.BEHIND: ("warn", "warn", "behind the leader"),
    LagState.APART: ("bad", "fail", "on another history than the leader"),
}


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """A revision that was active.

    `until` is None for the one that is active now. `changes` and `behavior` are known for those
    that this process activated. `command` compares it with the one before.
    """

    commit: str
    link: str
    since: datetime
    until: datetime | None
    lasted: timedelta
    author: str
    signer: str
    changes: Changes | None
    names: tuple[tuple[str, str], ...]
    behavior: BehaviorNote | None
    command: str


@dataclass(frozen=True, slots=True)
class FailedSync:
    """Consecutive syncs that failed with one error."""

    record: SyncRecord
    link: str


def add(site: Site, links: RepositoryLinks) -> None:
    """Serve the page."""
    site.add(PageRoute("/sync", "sync.html", partial(build_sync, links=links), title="Sync"))


def build_sync(visit: Visit, links: RepositoryLinks) -> Mapping[str, Any]:
    """Compute the variables of the template."""
    sync, history = visit.state.sync(), visit.state.revisions()
    repository = sync.revision.repository if sync.revision else ""
    catalog = visit.state.catalog()
    rows = list_revisions(sync, history, visit.now, links, catalog.root if catalog else "")
    page = _page(visit.query.get("page", ""))
    shown = rows[page * _ROWS_PER_PAGE : (page + 1) * _ROWS_PER_PAGE]
    return {
        "sync": sync,
        "commit_link": links.commit(repository, sync.revision.commit) if sync.revision else "",
        "next_sync": visit.state.next_sync(),
        "lag": _lag(visit.state.lag(), repository, links),
        "refused_link": links.commit(repository, sync.refused.commit) if sync.refused else "",
        "revisions": shown,
        "total": len(rows),
        "page": page,
        "has_older": len(rows) > (page + 1) * _ROWS_PER_PAGE,
        "recorded_since": history.activations[0].since if history.activations else None,
        "failed": [
            FailedSync(record, links.commit(repository, record.after))
            for record in sync.history
            if record.error is not None
        ],
    }


def _page(text: str) -> int:
    """Read the number of a page; the first one if it is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_PAGE_DIGITS
    return int(text) if is_number else 0


def _lag(
    lag: ReplicaLag | None, repository: str, links: RepositoryLinks
) -> Mapping[str, Any] | None:
    if lag is None:
        return None
    tone, icon, text = _LAG_TEXTS[lag.state]
    link = "" if lag.elsewhere else links.commit(repository, lag.leader)
    return {"tone": tone, "icon": icon, "text": text, "value": lag, "link": link}


def list_revisions(
    sync: SyncStatus,
    history: RevisionHistory,
    now: datetime,
    links: RepositoryLinks,
    root: str = "",
) -> list[RevisionRow]:
    """List the revisions that were active, as `list_activations` does, newest first.

    `root` is the path of the operarios in the repository.
    """
    own = {record.after: record for record in own_activations(sync)}
    entries = list_activations(sync, history)
    repository = sync.revision.repository if sync.revision else ""
    rows = []
    for index, entry in enumerate(entries):
        commit, since = entry.commit, entry.since
        until = entries[index + 1].since if index + 1 < len(entries) else None
        before = entries[index - 1].commit if index else ""
        record = own.get(commit)
        if record is not None and record.before not in ("", before):
            record = None  # it came after another revision here than on the leader
        active = sync.revision if sync.revision and sync.revision.commit == commit else None
        rows.append(
            RevisionRow(
                commit=commit,
                link=links.commit(repository, commit),
                since=since,
                until=until,
                lasted=(until or now) - since,
                author=entry.author or (active.author if active else ""),
                signer=entry.signer or (active.verified_signer if active else ""),
                changes=record.changes if record else None,
                names=_names(record.changes) if record else (),
                behavior=record.behavior if record else None,
                command=diff_command(repository, root, before, commit),
            )
        )
    rows.reverse()
    return rows


def _names(changes: Changes) -> tuple[tuple[str, str], ...]:
    """Name what was added, changed, removed or quarantined."""
    groups: Sequence[tuple[str, Sequence[str]]] = (
        ("Added", changes.added),
        ("Changed", changes.changed),
        ("Removed", changes.removed),
        ("Quarantined", changes.quarantined),
    )
    return tuple((verb, _listed(names)) for verb, names in groups if names)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
