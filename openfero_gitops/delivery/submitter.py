"""Creates the Jobs for a delivery: match, render and create, each alert independently.

The answer is 200 only if every matched alert has its Job in the API server; nothing is kept here
between deliveries. Alertmanager repeats what was answered with 503. Repeating is always safe,
because an occurrence's Job has the same name on every replica.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.background import OnceEach, OnChange, in_turns, together
from openfero_gitops.concurrency import AdaptiveSlots
from openfero_gitops.delivery import reporting
from openfero_gitops.delivery.answers import (
    NameTaken,
    all_failed,
    answer_of,
    failed,
    of_other_member,
    reason_of,
    unmatched,
)
from openfero_gitops.delivery.attempt import (
    healing_job,
    is_next_attempt_due,
    runs_so_far,
    same_start,
)
from openfero_gitops.delivery.match import NoMatch, match
from openfero_gitops.delivery.pairs import (
    Identity,
    common_identity,
    earlier_starts,
    identity_of,
    known_start,
    start_of,
    still_firing,
    with_status,
)
from openfero_gitops.delivery.recording import IncidentRecorder
from openfero_gitops.delivery.unread import UnreadLog
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence, Status
from openfero_gitops.domain.answer import Answer, Item, Verdict
from openfero_gitops.domain.concurrency import ConcurrencyLimit
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    ClockWrong,
    Conflict,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.labels import REPLICA_LABELS, replica_labels_in
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Foreign, Outcome
from openfero_gitops.jobs.foreign import remember_identity
from openfero_gitops.jobs.names import job_key
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.render import Delivery, Rendered, render
from openfero_gitops.tracing import NO_TRACES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.alert import Alert, AlertGroup
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Counts, Jobs, Span, Traces

_log = structlog.get_logger(__name__)

#: After an API error, deliveries count as likely to fail for this long.
_API_ERROR_SECONDS: Final = 10.0
#: So many Jobs of one namespace are read with one request: fewer cost less one by one, and more
#: would be an answer of more than 256 KiB, of which the client holds only two at a time.
_MIN_JOBS_TO_LIST: Final = 5
_MAX_JOBS_TO_LIST: Final = 32
#: Lists of one delivery in flight; each also takes a slot.
_LISTS_AT_ONCE: Final = 8
#: Requests in flight for deliveries. With 64, two replicas stay below the 200 writes that an API
#: server processes at once by default, and connections of the client (`MAX_CONNECTIONS`) are left
#: for watches and the lease. With four, one slow request does not delay all other alerts.
_REQUESTS: Final = ConcurrencyLimit(minimum=4, maximum=64, limit=32)


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """How many deliveries, requests and waiting Jobs there may be, and how long a sender waits."""

    deadline_seconds: float = 8.5
    deliveries: int = 256
    requests: ConcurrencyLimit = _REQUESTS
    waiting: int = 10_000


@dataclass(frozen=True, slots=True)
class _Progress:
    """A delivery in progress: what it is about, and the items of its answer so far."""

    catalog: Catalog
    delivery: Delivery
    alerts: Mapping[Identity, Alert]
    occurrences: Mapping[Identity, Occurrence]
    earlier: Mapping[Identity, datetime]
    items: dict[Identity, Item]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Alerts that have one Job, with their operarios: both members of a pair may have sent it.

    `common` is what is equal for them.
    """

    common: Identity
    members: dict[Identity, Operario]

    @property
    def first(self) -> Identity:
        """The one that starts first: it counts, as when Alertmanager merges equal alerts."""
        return min(self.members, key=start_of)


class Submitter:
    """Creates the Jobs for deliveries."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        view: View,
        catalog: Callable[[], Catalog | None],
        counts: Counts,
        now: Callable[[], datetime],
        identity: str,
        jobs_namespace: str,
        limits: DeliveryLimits | None = None,
        replica_labels: frozenset[str] = REPLICA_LABELS,
        received: Callable[[Sequence[Alert]], None] = lambda _: None,
        answered: Callable[[Answer], None] = lambda _: None,
        traces: Traces = NO_TRACES,
    ) -> None:
        """Take what is needed; nothing is started.

        `received` is called with each delivery, and `answered` with the answer to it.
        """
        self._jobs = jobs
        self._view = view
        self._catalog = catalog
        self._counts = counts
        self._received = received
        self._answered = answered
        self._now = now
        self._identity = identity
        self._jobs_namespace = jobs_namespace
        self._limits = limits or DeliveryLimits()
        self._replica_labels = replica_labels
        self._traces = traces
        self._deliveries = 0
        self.requests = AdaptiveSlots(self._limits.requests)
        self._recorder = IncidentRecorder(jobs, view, self.requests, replica_labels)
        self._unread = UnreadLog()
        #: Operarios whose Jobs the API server called invalid: name and digest.
        self._invalid = OnceEach()
        #: Jobs whose creation has no answer yet; two deliveries may create the same one.
        self._creating: list[JobKey] = []
        self._backlog = OnChange(_log.warning, "no more Jobs are created")
        self._api_error = ("", 0.0)  # and until when it counts, by the event loop's clock

    @property
    def trouble(self) -> str:
        """Why the next delivery will probably be answered with 503; empty if it will not."""
        if self._deliveries >= self._limits.deliveries:
            return f"{self._deliveries} deliveries are in progress; no more are accepted"
        message, until = self._api_error
        return message if asyncio.get_running_loop().time() < until else ""

    @property
    def backlog(self) -> str:
        """Why no further Jobs are created until others have started; empty if they are."""
        # The event of a Job may arrive before the answer to its creation: it must not count twice.
        creating = {key for key in self._creating if key not in self._view}
        waiting, limit = self._view.waiting + len(creating), self._limits.waiting
        if waiting < limit:
            return ""
        return (
            f"{waiting} Jobs are waiting, and --max-waiting is {limit}: alerts "
            "without a Job are answered with 503; find out what the Jobs wait for, or raise the "
            "limit"
        )

    async def deliver(self, group: AlertGroup) -> Answer:
        """Process one delivery; errors of the API server are part of the answer."""
        self._received(group.alerts)
        self._unread.log(group)
        if self._deliveries >= self._limits.deliveries:
            answer = all_failed(group, Reason.BUSY)
        elif (catalog := self._catalog()) is None:
            answer = all_failed(group, Reason.NO_CATALOG)
        elif not self._view.complete:
            answer = all_failed(group, Reason.API_UNAVAILABLE)
        else:
            self._deliveries += 1
            try:
                answer = await self._process(group, catalog)
            except ClockWrong:
                answer = all_failed(group, Reason.CLOCK_WRONG)
            finally:
                self._deliveries -= 1
        self._counts.delivered(answer, group.truncated_alerts)
        self._answered(answer)
        return answer

    async def _process(self, group: AlertGroup, catalog: Catalog) -> Answer:
        delivery = Delivery(
            id=uuid.uuid4().hex,
            group_key=group.group_key,
            group_status=group.status,
            received_at=self._now(),
            received_by=self._identity,
        )
        alerts: dict[Identity, Alert] = {}
        async for alert in in_turns(group.alerts):
            # One that is listed twice is submitted once.
            alerts.setdefault(identity_of(alert), alert)
        expected_items = len(alerts)
        dropped = {key: alerts.pop(key) for key in still_firing(alerts, self._replica_labels)}
        occurrences = {
            key: Occurrence.of(
                alert, delivery.id, 1, replica_labels_in(alert.labels, self._replica_labels)
            )
            async for key, alert in in_turns(alerts.items())
        }
        items = {key: unmatched(dropped[key], Reason.STILL_FIRING) for key in dropped}
        earlier = earlier_starts(alerts.values(), dropped.values(), self._replica_labels)
        progress = _Progress(catalog, delivery, alerts, occurrences, earlier, items)

        firing = with_status(alerts, Status.FIRING)
        resolved = with_status(alerts, Status.RESOLVED)

        async def process_resolved() -> None:
            """Record that alerts were resolved, then submit them; firing alerts do not wait."""
            try:
                await self._recorder.record_resolved(resolved.values(), delivery.received_at)
            except ApiError as error:
                _log.warning("a resolved alert could not be recorded", error=str(error))
                self._note_api_error(error)
                for identity, alert in resolved.items():
                    items[identity] = failed(alert, reason_of(error), str(error))
            else:
                await self._submit_all(resolved, progress)

        works = [process_resolved()] if resolved else []
        works += [self._submit_all(firing, progress)] if firing else []
        try:
            async with asyncio.timeout(self._limits.deadline_seconds):
                await together(works, "process alerts")
                own = {identity: item.job for identity, item in items.items()}
                await self._recorder.record_delivered(
                    alerts, occurrences, own, catalog.envelope.remember, delivery.received_at
                )
        except TimeoutError:
            _log.warning("a delivery exceeded its deadline", alerts=len(group.alerts))
            if len(items) < expected_items:
                self._note_api_error(Unavailable("no answer in time"))
        return answer_of(group, items)

    async def _submit_all(self, alerts: Mapping[Identity, Alert], progress: _Progress) -> None:
        """Submit alerts, not more at once than requests are allowed; add their items.

        Those that have no Job are first. However slow the API server is, each repetition of a group
        that is too large for the time of a delivery then creates more Jobs.
        """
        pairs: dict[Identity, _Pair] = {}
        async for identity, alert in in_turns(alerts.items()):
            with self._traces.step("match", reporting.alert_attributes(alert)) as step:
                matched = match(alert, progress.catalog, self._view)
                step.set(reporting.match_attributes(matched))
            if isinstance(matched, NoMatch):
                progress.items[identity] = unmatched(alert, matched.reason)
            else:
                common = common_identity(identity, alert, self._replica_labels)
                pairs.setdefault(common, _Pair(common, {})).members[identity] = matched.operario
        missing: list[_Pair] = []
        stored: defaultdict[str, list[tuple[_Pair, str]]] = defaultdict(list)
        async for each in in_turns(pairs.values()):
            _, first, operario = self._first_of(each, progress)
            occurrence, key = self._at_attempt(first, self._newest_attempt(first), operario)
            if key in self._view:
                stored[key.namespace].append((each, occurrence.digest))
            else:
                missing.append(each)
        few = [
            each for jobs in stored.values() if len(jobs) < _MIN_JOBS_TO_LIST for each, _ in jobs
        ]
        await self._submit_together([*missing, *few], progress, {})
        lists = (
            (namespace, jobs[start : start + _MAX_JOBS_TO_LIST])
            for namespace, jobs in stored.items()
            if len(jobs) >= _MIN_JOBS_TO_LIST
            for start in range(0, len(jobs), _MAX_JOBS_TO_LIST)
        )

        async def list_and_submit() -> None:
            for namespace, jobs in lists:
                listed = await self._list(namespace, [digest for _, digest in jobs])
                await self._submit_together([each for each, _ in jobs], progress, listed)

        if len(few) < sum(map(len, stored.values())):
            await together((list_and_submit() for _ in range(_LISTS_AT_ONCE)), "list Jobs")

    async def _submit_together(
        self,
        pairs: Sequence[_Pair],
        progress: _Progress,
        listed: Mapping[JobKey, Remediation],
    ) -> None:
        pending = iter(pairs)

        async def work() -> None:
            for each in pending:
                await self._submit_members(each, progress, listed)

        workers = min(len(pairs), self.requests.maximum)
        await together((work() for _ in range(workers)), "submit")

    def _first_of(self, pair: _Pair, progress: _Progress) -> tuple[Alert, Occurrence, Operario]:
        """Return the alert that the Job is for, with the occurrence of its first attempt."""
        first = pair.first
        alert, occurrence = progress.alerts[first], progress.occurrences[first]
        earlier = progress.earlier.get(pair.common)
        start = self._start_of_pair(alert, occurrence, earlier, progress.delivery)
        if start != alert.starts_at:
            alert = replace(alert, starts_at=start)
            occurrence = replace(occurrence, starts_at=start)
        return alert, occurrence, pair.members[first]

    async def _submit_members(
        self, pair: _Pair, progress: _Progress, listed: Mapping[JobKey, Remediation]
    ) -> None:
        """Submit the alerts of a pair, which have one Job; add their items."""
        alert, occurrence, operario = self._first_of(pair, progress)
        with self._traces.step("submit", reporting.alert_attributes(alert)) as step:
            item = await self._submit(alert, occurrence, operario, progress, listed)
            self._report(item, operario, step)
        delivered = progress.alerts[pair.first]
        for identity in pair.members:
            if identity != pair.first:
                progress.items[identity] = of_other_member(item, progress.alerts[identity])
        progress.items[pair.first] = item if alert is delivered else replace(item, alert=delivered)

    def _report(self, item: Item, operario: Operario, step: Span) -> None:
        """Log and trace what became of an alert."""
        step.set(reporting.result_attributes(item, operario))
        if item.outcome is Outcome.ERROR:
            step.fail(item.message)
        elif item.outcome is Outcome.EXISTS and item.job is not None:
            job = self._view.get(item.job)
            step.link(job.traceparent if job is not None else "")
        # Alertmanager repeats an invalid Job at every group_interval; one line is enough.
        if item.verdict is not Verdict.UNPROCESSABLE or self._invalid.is_first(
            (operario.name, operario.spec_digest)
        ):
            reporting.log_result(item, operario, self._traces.traceparent)

    async def _list(
        self, namespace: str, occurrences: Sequence[str]
    ) -> Mapping[JobKey, Remediation]:
        """List the Jobs of occurrences. If that fails there are none: they are read one by one."""
        try:
            async with self.requests.take() as slot:
                slot.measured = False  # a list takes longer than a create
                jobs = await self._jobs.of_occurrences(namespace, occurrences)
        except ApiError as error:
            _log.warning("the Jobs of a delivery cannot be listed", error=str(error))
            self._note_api_error(error)
            return {}
        for job in jobs:
            self._view.apply(job)
        return {job.key: job for job in jobs if not job.deleting}

    async def _submit(
        self,
        alert: Alert,
        first: Occurrence,
        operario: Operario,
        progress: _Progress,
        listed: Mapping[JobKey, Remediation],
    ) -> Item:
        """Submit an alert; `first` is the occurrence of its first attempt.

        Jobs that are `listed` need not be read.
        """
        catalog, delivery = progress.catalog, progress.delivery
        if traceparent := self._traces.traceparent:
            delivery = replace(delivery, traceparent=traceparent)
        attempt = self._newest_attempt(first)
        while True:
            occurrence, key = self._at_attempt(first, attempt, operario)
            # Rendering is inside, so that a large group does not block the event loop.
            try:
                async with self.requests.take() as slot:
                    existing = await self._find(key, occurrence, listed)
                    slot.measured = False  # a read takes less time than a create
                    if existing is None and self.backlog:
                        self._backlog.set(self.backlog)
                        # Another replica may have created it.
                        existing = await self._find_created(key, occurrence)
                        if existing is None:
                            return self._not_accepted(alert, operario, key)
                    elif existing is None:
                        self._backlog.clear()
                        with self._traces.step("render"):
                            rendered = render(
                                alert,
                                operario,
                                catalog.envelope,
                                catalog.revision,
                                delivery,
                                jobs_namespace=self._jobs_namespace,
                                attempt=attempt,
                                replica_labels=self._replica_labels,
                                occurrence=occurrence,
                            )
                        slot.measured = True
                        with self._traces.step("create"):
                            existing = await self._create(rendered)
            except _AttemptDeleted:
                attempt = self._newest_attempt(first)
                continue
            except ApiError as error:
                self._note_api_error(error)
                return self._not_created(alert, operario, key, error)
            self._api_error = ("", 0.0)
            if existing is None:
                return Item(
                    alert,
                    Outcome.CREATED if rendered.refusal is None else Outcome.REFUSED,
                    rendered.refusal,
                    rendered.message,
                    operario.name,
                    key,
                )
            if not self._is_next_attempt_due(existing, delivery.received_at):
                name = existing.operario or operario.name
                return Item(alert, Outcome.EXISTS, operario=name, job=key)
            attempt = existing.attempt + 1

    def _start_of_pair(
        self, alert: Alert, occurrence: Occurrence, earlier: datetime | None, delivery: Delivery
    ) -> datetime | None:
        """Return the start of an alert, or that under which a pair has the Job of a firing alert.

        `earlier` is the start of another member, if that is resolved and began before this one.
        """
        if (
            alert.status is not Status.FIRING
            or alert.starts_at is None
            or self._replica_labels.isdisjoint(alert.labels)
        ):
            return alert.starts_at
        jobs = self._view.of_incident(occurrence.incident)
        return known_start(earlier or alert.starts_at, jobs, delivery.received_at)

    def _at_attempt(
        self, first: Occurrence, attempt: int, operario: Operario
    ) -> tuple[Occurrence, JobKey]:
        """Return an attempt of an occurrence, and the key of its Job."""
        occurrence = first if attempt == 1 else replace(first, attempt=attempt)
        return occurrence, job_key(occurrence, operario, self._jobs_namespace)

    def _newest_attempt(self, occurrence: Occurrence) -> int:
        """Return the attempt to begin with: earlier ones are over, whether or not they exist.

        Newer attempts that the view does not have yet are found from there.
        """
        incident = self._view.of_incident(occurrence.incident)
        return max((job.attempt for job in same_start(occurrence.starts_at, incident)), default=1)

    def _is_next_attempt_due(self, latest: Remediation, now: datetime) -> bool:
        incident = self._view.of_incident(latest.incident)
        attempts: dict[int, Remediation] = {}
        for job in same_start(latest.starts_at, incident):
            if job.attempt not in attempts or job.key.namespace == latest.key.namespace:
                attempts[job.attempt] = job
        attempts[latest.attempt] = latest
        healing = {
            number: healing_job(job, incident)
            for number, job in attempts.items()
            if number <= latest.attempt
        }
        return is_next_attempt_due(healing[latest.attempt], runs_so_far(healing.values()), now)

    async def _find(
        self, key: JobKey, occurrence: Occurrence, listed: Mapping[JobKey, Remediation]
    ) -> Remediation | None:
        """Return the occurrence's Job if it is listed, or read it if the view has it.

        Most deliveries are repetitions.
        """
        if key in listed and listed[key].occurrence == occurrence.digest:
            return listed[key]
        job = self._view.get(key)
        if job is None:
            return None
        try:
            return await self._read(key, occurrence)
        except NotFound as error:
            self._view.remove(key, job.uid)
            if occurrence.attempt > 1:
                raise _AttemptDeleted from error
            return None

    async def _find_created(self, key: JobKey, occurrence: Occurrence) -> Remediation | None:
        try:
            return await self._read(key, occurrence)
        except NotFound:
            return None

    def _not_accepted(self, alert: Alert, operario: Operario, key: JobKey) -> Item:
        reason = Reason.TOO_MANY_WAITING
        return Item(
            alert, Outcome.ERROR, reason, reason.text, operario.name, key, verdict=Verdict.REPEAT
        )

    async def _create(self, rendered: Rendered) -> Remediation | None:
        """Create a Job; return the occurrence's Job if there is one already, else None."""
        self._creating.append(rendered.key)
        try:
            return await self._create_or_read(rendered)
        finally:
            self._creating.remove(rendered.key)

    async def _create_or_read(self, rendered: Rendered) -> Remediation | None:
        try:
            job = await self._jobs.create(rendered.manifest)
        except AlreadyExists:
            try:
                return await self._read(rendered.key, rendered.occurrence)
            except NotFound as error:
                raise NameTaken(f"Job {rendered.key} is being deleted") from error
        text = rendered.manifest["metadata"]["annotations"][keys.ALERT]
        remember_identity(text, rendered.occurrence, rendered.key.name, rendered.replica_labels)
        created = observe(job)
        self._view.apply(created)
        if isinstance(created, Foreign):  # it would never start, so that 200 would lose the alert
            raise Conflict(f"Job {created.key} was changed at its creation: {created.why}")
        return None

    async def _read(self, key: JobKey, occurrence: Occurrence) -> Remediation:
        """Read the Job of a name; raises NameTaken unless it is this occurrence's."""
        job = observe(await self._jobs.get(key))
        if isinstance(job, Foreign):
            self._view.apply(job)
            raise NameTaken(
                f"Job {key} has the name of this alert's Job, but was not created by "
                f"openfero-gitops: {job.why}; delete it, so that the alert gets its Job"
            )
        if job.deleting:
            raise NameTaken(f"Job {key} is being deleted")
        if job.occurrence != occurrence.digest:
            raise NameTaken(f"Job {key} exists and belongs to another alert")
        self._view.apply(job)
        return job

    def _note_api_error(self, error: ApiError) -> None:
        """Remember an error that the next delivery will probably have too."""
        if isinstance(error, Throttled | Unauthorized | Unavailable):
            seconds = _API_ERROR_SECONDS
            problem = "does not accept Jobs"
            if isinstance(error, Throttled):
                seconds = max(seconds, error.retry_after)
                problem = "throttles requests"
            until = asyncio.get_running_loop().time() + seconds
            self._api_error = (f"the API server {problem}: {error}", until)

    @staticmethod
    def _not_created(alert: Alert, operario: Operario, key: JobKey, error: ApiError) -> Item:
        verdict = Verdict.UNPROCESSABLE if isinstance(error, Invalid) else Verdict.REPEAT
        reason = reason_of(error)
        return Item(alert, Outcome.ERROR, reason, str(error), operario.name, key, verdict)


class _AttemptDeleted(Exception):
    """An attempt after the first was deleted, and only the view still had it."""
