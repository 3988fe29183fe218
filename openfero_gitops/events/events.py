"""What is worth telling people, as Kubernetes Events (`events.k8s.io/v1`).

Events are for whoever looks at a Job with kubectl; nothing is decided by them, and losing one
loses nothing: what was decided stands on the Job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.event import Event, Subject
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from openfero_gitops.admission.decide import Wait
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.domain.sync import SyncStatus

#: What Kubernetes allows; a cut is marked.
_NOTE: Final = 1024
_WORD: Final = 128
_NAME: Final = 253
#: So many quarantined files are named of one sync.
_MOST_FILES: Final = 10
_SHORT: Final = 12

#: Refusals that say that something is not as it should be; the others are how it should go.
_ALARMING: Final = frozenset(
    {
        Reason.UNSAFE_VALUE.value,
        Reason.MISSING_VALUE.value,
        Reason.TOO_LARGE.value,
        Reason.MAX_WAIT.value,
    }
)
_OPEN: Final = (Phase.WAITING, Phase.AWAITING_APPROVAL)


def of_change(before: Remediation | None, after: Remediation) -> Iterator[Event]:
    """What is to be told of a remediation that changed, or that is new."""
    about = subject(after)
    was = before.phase if before else Phase.WAITING
    if after.approved_by and not (before and before.approved_by):
        yield Event(about, "Approved", "Approve", f"approved by {after.approved_by}")
    admitted = after.admitted_at is not None and not after.started_by_other
    if admitted and not (before and before.admitted_at):
        how = f"handed to Kueue, queue {after.queue}" if after.queue else "started"
        yield Event(about, "Admitted", "Admit", f"{how}: {_origin(after)}")
    if after.phase is Phase.FAILED and after.explained and not (before and before.explained):
        yield Event(about, "Failed", "Observe", after.message, warning=True)
    if after.phase is was:
        return
    match after.phase:
        case Phase.REFUSED:
            alarming = after.reason in _ALARMING
            yield Event(about, "Refused", "Refuse", _why(after), warning=alarming)
        case Phase.CANCELLED:
            yield Event(about, "Cancelled", "Cancel", _why(after))
        case Phase.HELD:
            said = "somebody suspended it after it had started: nothing restarts it"
            yield Event(about, "Held", "Observe", said, warning=True)
        case Phase.RUNNING if was is Phase.HELD:
            yield Event(about, "Resumed", "Observe", "somebody let it go on")
        case Phase.RUNNING if after.started_by_other:
            said = "somebody else than the controller started it: no limit was asked, it counts"
            yield Event(about, "StartedByOther", "Observe", said, warning=True)


def of_wait(one: Remediation, wait: Wait) -> Event:
    """What stands before a waiting remediation."""
    note = f"{wait.reason.value}: {wait.message or wait.reason.text}"
    if wait.until is not None:
        note += f", until {format_time(wait.until)[:19]}Z"
    if wait.reason is Reason.APPROVAL:
        note += f"; run `openfero-gitops approve {one.key}`"
    return Event(subject(one), "Waiting", "Wait", note, passing=True)


def of_loss(one: Remediation) -> Event | None:
    """What is to be told of a remediation whose Job is gone."""
    if one.phase not in _OPEN:
        return None
    said = "the Job was deleted before it started: its alert makes another when it comes again"
    return Event(subject(one), "Forgotten", "Observe", said, warning=True)


def of_leadership(
    before: Leadership, after: Leadership, lease: Subject, identity: str
) -> Event | None:
    """What is to be told of the lease, in the words that client-go uses."""
    if after.leader and not before.leader:
        return Event(lease, "LeaderElection", "Lead", f"{identity} became leader")
    if before.leader and not after.leader:
        why = f": {after.reason}" if after.reason else ""
        return Event(lease, "LeaderElection", "Lead", f"{identity} stopped leading{why}")
    return None


def of_sync(
    before: tuple[SyncStatus, Catalog | None],
    after: tuple[SyncStatus, Catalog | None],
    about: Subject,
) -> Iterator[Event]:
    """What is to be told of a sync: what came into force, what was refused, what is broken."""
    (was, old), (now, catalog) = before, after
    if now.refused is not None and now.refused != was.refused and now.error:
        commit = now.refused.commit[:_SHORT]
        note = f"revision {commit} is refused: {now.refused.reason}"
        yield Event(about, "RevisionRefused", "Sync", note, warning=True)
    elif now.error and now.error != was.error:
        yield Event(about, "SyncFailed", "Sync", now.error, warning=True)
    if catalog is None or catalog is old:
        return
    commit = catalog.revision.commit[:_SHORT] or "the folder"
    number = f"{len(catalog.operarios)} operarios"
    yield Event(about, "Synced", "Sync", f"{commit} is in force: {number}, from {now.origin}")
    told = _quarantined(old)
    fresh = {path: said for path, said in _quarantined(catalog).items() if told.get(path) != said}
    for path in sorted(fresh)[:_MOST_FILES]:
        yield Event(about, "Quarantined", "Sync", f"{path}{fresh[path]}", warning=True)
    if len(fresh) > _MOST_FILES:
        rest = f"and {len(fresh) - _MOST_FILES} more files with errors"
        yield Event(about, "Quarantined", "Sync", rest, warning=True)


def _quarantined(catalog: Catalog | None) -> dict[str, str]:
    """The first error of each file that has any, as it follows the path."""
    found: dict[str, str] = {}
    for problem in sorted(catalog.problems if catalog else ()):
        if problem.is_error:
            place = f":{problem.line}" if problem.line else ""
            found.setdefault(problem.path, f"{place}: {problem.message} ({problem.rule})")
    return found


def subject(one: Remediation) -> Subject:
    """A remediation's Job."""
    return Subject("batch/v1", "Job", one.key.namespace, one.key.name, one.uid)


def _origin(one: Remediation) -> str:
    return f"{one.operario} of commit {one.commit[:_SHORT]}" if one.commit else one.operario


def _why(one: Remediation) -> str:
    return f"{one.reason}: {one.message}" if one.message else one.reason


def manifest(event: Event, name: str, identity: str, now: datetime) -> dict[str, Any]:
    """The object to create; `name` tells it from every other event."""
    about = event.about
    regarding = {
        "apiVersion": about.api_version,
        "kind": about.kind,
        "namespace": about.namespace,
        "name": about.name,
    }
    if about.uid:
        regarding["uid"] = about.uid
    suffix = f".{name}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": about.name[: _NAME - len(suffix)].rstrip(".-") + suffix,
            "namespace": about.namespace,
        },
        "eventTime": format_time(now),
        "reportingController": f"{keys.PREFIX}{keys.MANAGER}",
        "reportingInstance": _cut(identity, _WORD),
        "action": event.action,
        "reason": event.reason,
        "regarding": regarding,
        "note": _cut(event.note, _NOTE),
        "type": "Warning" if event.warning else "Normal",
    }


def again(count: int, now: datetime) -> list[dict[str, Any]]:
    """The patch that says that the same happened again."""
    series = {"count": count, "lastObservedTime": format_time(now)}
    return [{"op": "add", "path": "/series", "value": series}]


def _cut(text: str, limit: int) -> str:
    """At most so many bytes (the limit is the API server's), a cut marked."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return raw[: limit - len("…".encode())].decode(errors="ignore") + "…"
