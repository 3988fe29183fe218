"""Lists what an operator should know first: the concerns at the top of the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Mode
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import plural
from openfero_gitops.jobs.workload import is_stuck
from openfero_gitops.web.formats import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from openfero_gitops.admission.not_helping import NotHelping
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.health import Condition
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.domain.sync import SyncStatus
    from openfero_gitops.effects.unresolved import Unresolved

#: The order of tones on the page.
_URGENCY: Final = ("bad", "ask", "warn")
#: Of one concern; its link leads to all.
MAX_ITEMS: Final = 10


@dataclass(frozen=True, slots=True)
class ConcerningJob:
    """A remediation that needs a person, since when, and why."""

    remediation: Remediation
    since: datetime | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Concern:
    """A line at the top of the page; `tone` is `bad`, `ask` or `warn`.

    `jobs` and `problems` are the first of those that it is about, and `total` counts all. `link` is
    the address of all of them, relative to `/`.
    """

    tone: str
    title: str
    detail: str = ""
    since: datetime | None = None
    link: str = ""
    jobs: tuple[ConcerningJob, ...] = ()
    problems: tuple[Problem, ...] = ()
    total: int = 0


def list_concerns(
    *,
    leader: str | None,
    conditions: Iterable[Condition],
    catalog: Catalog | None,
    sync: SyncStatus,
    remediations: Iterable[Remediation],
    not_helping: Mapping[JobKey, NotHelping],
    unresolved: Iterable[Unresolved],
    pause: Pause | None,
) -> list[Concern]:
    """List every concern, the most urgent first."""
    concerns = [
        *_concerns_of_health(leader, conditions, catalog, sync),
        *_concerns_of_failures(unresolved),
        *_concerns_of_remediations(remediations, not_helping),
        *_concerns_of_catalog(catalog, pause),
    ]
    return sorted(concerns, key=lambda concern: _URGENCY.index(concern.tone))


def _concerns_of_health(
    leader: str | None,
    conditions: Iterable[Condition],
    catalog: Catalog | None,
    sync: SyncStatus,
) -> Iterator[Concern]:
    """List what keeps the controller from working, or from newer operarios."""
    if catalog is None:
        yield Concern(
            "bad",
            "No active catalog: deliveries are answered with 503",
            sync.why_no_catalog,
            sync.failing_since,
        )
    for condition in conditions:
        if not condition.holds and not (catalog is None and condition.name == "catalog"):
            yield _concern_of_condition(condition)
    if not leader:
        yield Concern("bad", "No leader", "alerts still become Jobs, but no Job is started")
    if catalog is None:
        return
    refused = sync.refused
    active = short(catalog.revision.commit) or "the last catalog"
    if refused and sync.is_refused:
        title = f"Revision {short(refused.commit)} was refused; {active} stays active"
        yield Concern("warn", title, refused.reason, sync.failing_since)
    elif sync.error:
        title = f"The repository cannot be read; {active} stays active"
        yield Concern("warn", title, sync.error, sync.failing_since)
    elif sync.origin == "mirror":
        detail = "Git has not been read since this replica started"
        if refused:
            detail += f"; revision {short(refused.commit)} was refused: {refused.reason}"
        yield Concern("warn", "The active catalog comes from the mirror", detail)


def _concern_of_condition(condition: Condition) -> Concern:
    if condition.advice:
        return Concern("warn", condition.advice, condition.message)
    state = "Not ready" if condition.vital else "Degraded"
    return Concern("bad", f"{state}: {condition.name}", condition.message)


def _concerns_of_failures(unresolved: Iterable[Unresolved]) -> Iterator[Concern]:
    """List what failed or did not heal, while its alert fires."""
    by_failed: dict[bool, list[Unresolved]] = {True: [], False: []}
    for failure in unresolved:
        by_failed[failure.failed].append(failure)
    for failed, failures in by_failed.items():
        if not failures:
            continue
        failures.sort(key=lambda failure: failure.since, reverse=True)
        verb = "failed" if failed else "did not heal the alert"
        query = f"phase={Phase.FAILED.value}" if failed else f"effect={Effect.NOT_HEALED.value}"
        yield Concern(
            "bad",
            f"{plural(len(failures), 'remediation')} {verb}",
            since=failures[0].since,
            link=f"remediations?{query}",
            jobs=tuple(
                ConcerningJob(failure.remediation, failure.since, failure.message)
                for failure in failures[:MAX_ITEMS]
            ),
            total=len(failures),
        )


def _concerns_of_remediations(
    remediations: Iterable[Remediation], not_helping: Mapping[JobKey, NotHelping]
) -> Iterator[Concern]:
    """List what waits for a person and what is held."""
    by_phase: dict[Phase, list[Remediation]] = {}
    held_back: list[tuple[Remediation, NotHelping]] = []
    for remediation in remediations:
        if (state := not_helping.get(remediation.key)) is not None:
            held_back.append((remediation, state))
            continue
        by_phase.setdefault(remediation.phase, []).append(remediation)
    if unapproved := by_phase.get(Phase.AWAITING_APPROVAL):
        yield _concern_of_jobs(
            "ask",
            f"{plural(len(unapproved), 'remediation')} waiting for approval",
            [ConcerningJob(job, job.received_at) for job in unapproved],
            f"remediations?phase={Phase.AWAITING_APPROVAL.value}",
        )
    if held_back:
        held_back.sort(key=lambda pair: (pair[1].since, pair[0].order))
        oldest, state = held_back[0]
        approve = "approve it" if oldest.waiting else "approve the next Job for it"
        yield Concern(
            "ask",
            f"{plural(len(held_back), 'remediation')} not started because their operarios do not "
            "help"
            if len(held_back) > 1
            else "1 remediation not started because its operario does not help",
            f"{approve}, or change the operario",
            state.since,
            f"remediations?q={Reason.NOT_HELPING.value}",
            tuple(
                ConcerningJob(job, state.since, state.message)
                for job, state in held_back[:MAX_ITEMS]
            ),
            total=len(held_back),
        )
    if stuck := [job for job in by_phase.get(Phase.RUNNING, ()) if job.pod_waiting]:
        yield _concern_of_jobs(
            "warn",
            f"{plural(len(stuck), 'remediation')} running with a waiting Pod",
            [ConcerningJob(job, job.started_at, job.pod_waiting) for job in stuck],
            f"remediations?phase={Phase.RUNNING.value}",
        )
    if held := by_phase.get(Phase.HELD):
        yield replace(
            _concern_of_jobs(
                "warn",
                f"{plural(len(held), 'remediation')} held",
                [ConcerningJob(job, None) for job in held],
                f"remediations?phase={Phase.HELD.value}",
            ),
            detail="a started Job was suspended by someone else, and is not restarted: cancel it, "
            "or delete it so that the next delivery of its alert creates a new one",
        )
    if queued := [
        job for job in by_phase.get(Phase.QUEUED, ()) if is_stuck(job.reason, job.message)
    ]:
        yield _concern_of_jobs(
            "warn",
            f"{plural(len(queued), 'remediation')} not started by Kueue",
            [ConcerningJob(job, job.admitted_at, job.message) for job in queued],
            f"remediations?phase={Phase.QUEUED.value}",
        )


def _concern_of_jobs(tone: str, title: str, jobs: list[ConcerningJob], link: str) -> Concern:
    """Make a concern about Jobs, the oldest first."""
    jobs.sort(key=lambda job: job.remediation.order)
    first = tuple(jobs[:MAX_ITEMS])
    return Concern(tone, title, "", first[0].since, link, first, total=len(jobs))


def _concerns_of_catalog(catalog: Catalog | None, pause: Pause | None) -> Iterator[Concern]:
    """List what keeps operarios of the active catalog from running."""
    if pause is not None:
        yield Concern("warn", "Admission is paused: no Job starts", pause.message, pause.since)
    if catalog is None:
        return
    if catalog.envelope.mode is Mode.DRY_RUN:
        yield Concern(
            "warn",
            "Dry-run mode: Jobs are checked but do not run",
            "openfero.yaml sets mode: dry-run for every operario",
        )
    errors = [problem for problem in catalog.problems if problem.is_error]
    stale = sum(operario.origin.stale for operario in catalog.operarios)
    stale_text = f"{plural(stale, 'operario')} active in an older version" if stale else ""
    if errors:
        title = f"{plural(len(errors), 'error')} in the repository"
        yield Concern(
            "warn",
            title,
            stale_text,
            link="problems",
            problems=tuple(errors[:MAX_ITEMS]),
            total=len(errors),
        )
    elif stale_text:
        yield Concern("warn", stale_text, link="operarios")
