"""Which changes are reported as Kubernetes Events (`events.k8s.io/v1`), and their texts.

Events are for people who look at a Job with kubectl. No decision depends on them, and nothing is
lost with one: each decision is recorded on its Job.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import help as help_page
from openfero_gitops.domain import keys
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.event import Event, ObjectReference
from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import plural
from openfero_gitops.domain.timestamp import format_seconds, format_time
from openfero_gitops.effects.assess import is_dry_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from openfero_gitops.admission.decide import Wait
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import Foreign, Remediation
    from openfero_gitops.domain.sync import SyncStatus

# Limits of the API server; a cut is marked.
_MAX_NOTE_BYTES: Final = 1024
_MAX_INSTANCE_BYTES: Final = 128
_MAX_NAME_CHARACTERS: Final = 253
#: Quarantined files that get an Event of their own per sync.
_MAX_FILES: Final = 10
_COMMIT_CHARACTERS: Final = 12

#: Refusals that somebody should look into; the others are part of normal operation.
_WARNING_REASONS: Final = frozenset(
    {
        Reason.UNSAFE_VALUE.value,
        Reason.MISSING_VALUE.value,
        Reason.TOO_LARGE.value,
        Reason.MAX_WAIT.value,
    }
)
_OPEN: Final = (Phase.WAITING, Phase.AWAITING_APPROVAL)


def of_change(before: Remediation | None, after: Remediation) -> Iterator[Event]:
    """The events of a remediation that changed, or that is new."""
    about = reference(after)
    phase_before = before.phase if before else Phase.WAITING
    if after.approved_by and not (before and before.approved_by):
        given = f": {after.approval_reason}" if after.approval_reason else ""
        yield Event(about, "Approved", "Approve", f"approved by {after.approved_by}{given}")
    admitted = after.admitted_at is not None and not after.started_by_other
    if admitted and not (before and before.admitted_at):
        how = f"passed to Kueue queue {after.queue}" if after.queue else "started"
        yield Event(about, "Admitted", "Admit", f"{how}: {_origin(after)}")
    yield from _of_pods(before, after)
    if after.phase is Phase.FAILED and after.has_message and not (before and before.has_message):
        yield Event(about, "Failed", "Observe", after.message, warning=True)
    if before is not None and after.starts > max(before.starts, 1):
        note = f"the Job was started again (start {after.starts}); all its commands run again"
        yield Event(about, "StartedAgain", "Observe", note, warning=True)
    if after.phase is not phase_before:
        yield from _of_new_phase(phase_before, after)
    if after.effect is not (before.effect if before else None):
        yield from _of_effect(after)


def _of_new_phase(phase_before: Phase, after: Remediation) -> Iterator[Event]:
    about = reference(after)
    match after.phase:
        case Phase.REFUSED:
            warning = after.reason in _WARNING_REASONS
            topic = help_page.REASON_TOPICS.get(after.reason, "")
            note = _reason_and_message(after)
            yield Event(about, "Refused", "Refuse", note, warning=warning, topic=topic)
        case Phase.CANCELLED:
            yield Event(about, "Cancelled", "Cancel", _reason_and_message(after))
        case Phase.QUEUED if phase_before is Phase.RUNNING:
            note = (
                f"the running Job was stopped and is back in Kueue queue {after.queue}; its "
                "commands may have run in part"
            )
            yield Event(about, "Evicted", "Observe", note, warning=True)
        case Phase.HELD:
            note = "somebody suspended the running Job; the controller does not resume it"
            yield Event(about, "Held", "Observe", note, warning=True)
        case Phase.RUNNING if phase_before is Phase.HELD:
            yield Event(about, "Resumed", "Observe", "somebody resumed the suspended Job")
        case Phase.RUNNING if after.started_by_other:
            note = (
                "somebody else started the Job; no limit was checked, but the Job counts toward "
                "all limits"
            )
            yield Event(about, "StartedByOther", "Observe", note, warning=True)


def _of_effect(after: Remediation) -> Iterator[Event]:
    """The event of an effect that was settled; a dry run that would not have helped is normal."""
    about, note = reference(after), after.effect_message
    match after.effect:
        case Effect.HEALED:
            yield Event(about, "Healed", "Settle", note)
        case Effect.NOT_HEALED:
            yield Event(about, "NotHealed", "Settle", note, warning=not is_dry_run(after))
        case Effect.UNKNOWN:
            yield Event(about, "EffectUnknown", "Settle", note)


def _of_pods(before: Remediation | None, after: Remediation) -> Iterator[Event]:
    """The event of a running Job whose Pod waits, for another reason than before."""
    known = before.pod_waiting if before else ""
    if after.phase is Phase.RUNNING and after.pod_waiting not in ("", known):
        about = reference(after)
        yield Event(about, "PodWaiting", "Observe", after.pod_waiting, warning=True)


def of_wait(remediation: Remediation, wait: Wait) -> Event:
    """The event of a remediation that waits."""
    note = f"{wait.reason.value}: {wait.message or wait.reason.text}"
    # The message of a pause has its end already; that of a breaker is only possible.
    if wait.until is not None and wait.reason not in (Reason.PAUSED, Reason.NOT_HELPING):
        note += f", until {format_seconds(wait.until)}"
    if wait.reason in (Reason.APPROVAL, Reason.NOT_HELPING):
        note += f"; run `openfero-gitops approve {remediation.key}`"
    warning = wait.reason is Reason.NOT_HELPING
    return Event(reference(remediation), "Waiting", "Wait", note, warning=warning, transient=True)


def of_foreign(foreign: Foreign) -> Event:
    """The event of a Job that carries the controller's label but was not created by it."""
    key = foreign.key
    about = ObjectReference("batch/v1", "Job", key.namespace, key.name, foreign.uid)
    note = f"not created by this controller, and ignored: {foreign.why}"
    return Event(about, "Foreign", "Observe", note, warning=True)


def of_loss(remediation: Remediation) -> Event | None:
    """The event of a remediation whose Job is gone."""
    if remediation.phase is Phase.QUEUED:
        note = (
            "the Job was deleted while it was in a Kueue queue; the next notification of its alert "
            "creates one"
        )
        return Event(reference(remediation), "Forgotten", "Observe", note, warning=True)
    if remediation.phase not in _OPEN:
        return None
    note = "the Job was deleted before it started; the next notification of its alert creates one"
    return Event(reference(remediation), "Forgotten", "Observe", note, warning=True)


def of_leadership(
    before: Leadership, after: Leadership, lease: ObjectReference, identity: str
) -> Event | None:
    """The event of a change of the leader, worded as client-go does."""
    if after.leader and not before.leader:
        return Event(lease, "LeaderElection", "Lead", f"{identity} became leader")
    if before.leader and not after.leader:
        reason = f": {after.reason}" if after.reason else ""
        return Event(lease, "LeaderElection", "Lead", f"{identity} stopped leading{reason}")
    return None


def of_refused_delivery(cause: str, about: ObjectReference) -> Event:
    """The event of a delivery that exceeds a limit; Alertmanager does not retry it.

    It does not name the sender, so that all such deliveries are counted on one Event.
    """
    note = (
        f"{cause}: a delivery was refused and its alerts have no Jobs; set max_alerts for the "
        "receiver in Alertmanager, or raise --max-alerts and --max-delivery-size; the log names "
        "the sender"
    )
    return Event(about, "DeliveryRefused", "Deliver", note, warning=True)


def of_sync(
    before: tuple[SyncStatus, Catalog | None],
    after: tuple[SyncStatus, Catalog | None],
    about: ObjectReference,
) -> Iterator[Event]:
    """The events of a sync: an active revision, a refused one, files with errors."""
    (old_status, old_catalog), (status, catalog) = before, after
    if status.refused is not None and status.refused != old_status.refused and status.error:
        commit = status.refused.commit[:_COMMIT_CHARACTERS]
        note = f"revision {commit} was refused: {status.refused.reason}"
        yield Event(about, "RevisionRefused", "Sync", note, warning=True)
    elif status.error and status.error != old_status.error:
        yield Event(about, "SyncFailed", "Sync", status.error, warning=True)
    if catalog is None or catalog is old_catalog:
        return
    commit = catalog.revision.commit[:_COMMIT_CHARACTERS]
    revision = f"revision {commit}" if commit else "the folder"
    operarios = plural(len(catalog.operarios), "operario")
    note = f"{revision} is active: {operarios}, from {status.origin}"
    yield Event(about, "Synced", "Sync", note)
    old_errors, errors = _first_errors(old_catalog), _first_errors(catalog)
    paths = [path for path in sorted(errors) if old_errors.get(path) != errors[path]]
    for path in paths[:_MAX_FILES]:
        yield Event(about, "Quarantined", "Sync", f"{path}{errors[path]}", warning=True)
    if len(paths) > _MAX_FILES:
        note = f"{plural(len(paths) - _MAX_FILES, 'more file')} with errors"
        yield Event(about, "Quarantined", "Sync", note, warning=True)


def _first_errors(catalog: Catalog | None) -> dict[str, str]:
    """The first error of each file that has one, by path, as the text after the path."""
    errors: dict[str, str] = {}
    for problem in sorted(catalog.problems if catalog else ()):
        if problem.is_error:
            line = f":{problem.line}" if problem.line else ""
            errors.setdefault(problem.path, f"{line}: {problem.message} ({problem.rule})")
    return errors


def of_pause(
    before: Pause | None, after: Pause | None, author: str, about: ObjectReference, now: datetime
) -> Event | None:
    """The event of a pause that began, changed or ended; `author` ended it, if it was a person."""
    if after is not None:
        # The message of a pause in Git names the commit, which may change while it lasts.
        if before is not None and _without_message(before) == _without_message(after):
            return None
        return Event(about, "Paused", "Pause", after.message)
    if before is None:
        return None
    if before.cause is not PauseCause.COMMAND:
        note = f"{before.by} no longer pauses admission"
    elif before.is_over(now):
        note = f"the pause by {before.by} has ended"
    else:
        note = f"{author} resumed admission"
    return Event(about, "Resumed", "Resume", note)


def _without_message(pause: Pause) -> Pause:
    return dataclasses.replace(pause, message="")


def reference(remediation: Remediation) -> ObjectReference:
    """The reference to a remediation's Job."""
    key = remediation.key
    return ObjectReference("batch/v1", "Job", key.namespace, key.name, remediation.uid)


def _origin(remediation: Remediation) -> str:
    commit = remediation.commit[:_COMMIT_CHARACTERS]
    return f"operario {remediation.operario}" + (f" at revision {commit}" if commit else "")


def _reason_and_message(remediation: Remediation) -> str:
    if not remediation.message:
        return remediation.reason
    return f"{remediation.reason}: {remediation.message}"


def manifest(event: Event, name: str, identity: str, now: datetime) -> dict[str, Any]:
    """The Event object to create; no two events have the same `name`."""
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
            "name": about.name[: _MAX_NAME_CHARACTERS - len(suffix)].rstrip(".-") + suffix,
            "namespace": about.namespace,
        },
        "eventTime": format_time(now),
        "reportingController": f"{keys.PREFIX}{keys.MANAGER}",
        "reportingInstance": _cut(identity, _MAX_INSTANCE_BYTES),
        "action": event.action,
        "reason": event.reason,
        "regarding": regarding,
        "note": _cut(_note(event), _MAX_NOTE_BYTES),
        "type": "Warning" if event.warning else "Normal",
    }


def series(count: int, now: datetime) -> dict[str, Any]:
    """The member of an Event that counts how often it happened."""
    return {"count": count, "lastObservedTime": format_time(now)}


def _note(event: Event) -> str:
    topic = event.topic or help_page.EVENT_TOPICS.get(event.reason, "")
    return help_page.with_link(event.note, topic if event.warning else "", _MAX_NOTE_BYTES)


def _cut(text: str, max_bytes: int) -> str:
    raw = text.encode()
    if len(raw) <= max_bytes:
        return text
    return raw[: max_bytes - len("…".encode())].decode(errors="ignore") + "…"
