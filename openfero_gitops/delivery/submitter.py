"""A delivery to Jobs: match, render, and create, each alert for itself.

The answer is 200 only when every matched alert has its Job in the API server; nothing is kept
here between deliveries. Alertmanager repeats what was answered with 503, and the names are
deterministic, so repeating is always safe.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.delivery.attempt import (
    asks_for_another,
    runs_so_far,
    stands_for,
    to_be_kept,
)
from openfero_gitops.delivery.match import NoMatch, match
from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.answer import Answer, Item, Verdict
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    ClockWrong,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.render import Delivery, Rendered, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from openfero_gitops.domain.alert import Alert, AlertGroup
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Counts, Jobs

_log = structlog.get_logger(__name__)

_REMEMBERED_COMPLAINTS: Final = 1000
#: Seconds for which an API server that did not take a Job is not expected to take the next.
_TROUBLED: Final = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How much work may be under way, and how long a sender waits (seconds)."""

    deadline: float = 8.5
    deliveries: int = 256
    requests: int = 32


class Submitter:
    """Turns deliveries into Jobs, a bounded number at once."""

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
        patience: Patience | None = None,
    ) -> None:
        """Take what is needed; nothing is started."""
        self._jobs = jobs
        self._view = view
        self._catalog = catalog
        self._counts = counts
        self._now = now
        self._identity = identity
        self._jobs_namespace = jobs_namespace
        self._patience = patience or Patience()
        self._under_way = 0
        self._requests = asyncio.Semaphore(self._patience.requests)
        self._complained: dict[tuple[str, str], None] = {}
        self._trouble: tuple[str, float] = ("", 0.0)  # and until when, by the loop's time

    @property
    def trouble(self) -> str:
        """Why the next delivery will most likely be answered with 503; empty where it will not."""
        if self._under_way >= self._patience.deliveries:
            return f"{self._under_way} deliveries are under way: no more are taken"
        words, until = self._trouble
        return words if asyncio.get_running_loop().time() < until else ""

    async def deliver(self, group: AlertGroup) -> Answer:
        """Take one delivery; never raises for what the API server does."""
        if self._under_way >= self._patience.deliveries:
            answer = _all(group, Reason.BUSY)
        elif (catalog := self._catalog()) is None:
            answer = _all(group, Reason.NO_CATALOG)
        elif not self._view.whole:
            answer = _all(group, Reason.API_UNAVAILABLE)
        else:
            self._under_way += 1
            try:
                answer = await self._take(group, catalog)
            except ClockWrong:
                answer = _all(group, Reason.CLOCK_WRONG)
            finally:
                self._under_way -= 1
        self._counts.delivered(answer, group.truncated_alerts)
        return answer

    async def _take(self, group: AlertGroup, catalog: Catalog) -> Answer:
        delivery = Delivery(
            id=uuid.uuid4().hex,
            group_key=group.group_key,
            group_status=group.status,
            received_at=self._now(),
            received_by=self._identity,
        )
        # One delivery may name an alert twice; it is still one alert.
        distinct = list(dict.fromkeys(map(_Same, group.alerts)))
        firing = [same for same in distinct if same.alert.status is Status.FIRING]
        resolved = [same for same in distinct if same.alert.status is Status.RESOLVED]
        unanswered = {
            same: _failed(same.alert, Reason.API_UNAVAILABLE, "no answer in time")
            for same in distinct
        }
        items = dict(unanswered)

        async def one(same: _Same) -> None:
            items[same] = await self._submit(same.alert, catalog, delivery)

        async def record(tasks: asyncio.TaskGroup) -> None:
            """Resolved alerts are written down first, which holds up no alert that fires."""
            try:
                await self._record_resolved([same.alert for same in resolved], delivery)
            except ApiError as error:
                _log.warning("a resolved alert could not be recorded", error=str(error))
                self._note_trouble(error)
                for same in resolved:
                    items[same] = _failed(same.alert, _reason_of(error), str(error))
            else:
                for same in resolved:
                    tasks.create_task(one(same), name="submit")

        try:
            async with asyncio.timeout(self._patience.deadline):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(record(tasks), name="record")
                    for same in firing:
                        tasks.create_task(one(same), name="submit")
                await self._keep_alive(distinct, catalog, delivery)
        except TimeoutError:
            _log.warning("a delivery was cut off by its deadline", alerts=len(group.alerts))
            if any(items[same] is none for same, none in unanswered.items()):
                self._note_trouble(Unavailable("no answer in time"))
        return Answer(tuple(items[_Same(alert)] for alert in group.alerts))

    async def _submit(self, alert: Alert, catalog: Catalog, delivery: Delivery) -> Item:
        found = match(alert, catalog, self._view)
        if isinstance(found, NoMatch):
            return Item(alert, Outcome.NO_MATCH, found.reason, found.reason.text)
        operario = found.operario
        attempt = self._newest_attempt(alert)
        while True:
            # (A large group is rendered a few alerts at a time: other work has its turns between.)
            async with self._requests:
                rendered = render(
                    alert,
                    operario,
                    catalog.envelope,
                    catalog.revision,
                    delivery,
                    jobs_namespace=self._jobs_namespace,
                    attempt=attempt,
                )
                try:
                    there = await self._create(rendered)
                except _Forgotten:
                    attempt = self._newest_attempt(alert)
                    continue
                except ApiError as error:
                    self._note_trouble(error)
                    return self._complain(alert, operario, rendered, error)
            self._trouble = ("", 0.0)
            if there is None:
                outcome = Outcome.CREATED if rendered.refusal is None else Outcome.REFUSED
                return Item(
                    alert,
                    outcome,
                    rendered.refusal,
                    rendered.message,
                    operario.name,
                    rendered.key,
                )
            if not self._asks_for_another(there, delivery.received_at):
                return Item(
                    alert, Outcome.EXISTS, operario=there.operario or operario.name, job=there.key
                )
            attempt = there.attempt + 1

    def _newest_attempt(self, alert: Alert) -> int:
        """The attempt at which to begin: nothing is owed to those before, there or long gone.

        What the view does not know yet is found by going on from there.
        """
        incident = self._view.of_incident(incident_digest(alert.labels, alert.status))
        return max((one.attempt for one in _same_start(alert.starts_at, incident)), default=1)

    def _asks_for_another(self, there: Remediation, now: datetime) -> bool:
        incident = self._view.of_incident(there.incident)
        attempts: dict[int, Remediation] = {}
        for one in _same_start(there.starts_at, incident):
            if one.attempt not in attempts or one.key.namespace == there.key.namespace:
                attempts[one.attempt] = one
        attempts[there.attempt] = there
        healing = {
            number: stands_for(one, incident)
            for number, one in attempts.items()
            if number <= there.attempt
        }
        return asks_for_another(healing[there.attempt], runs_so_far(healing.values()), now)

    async def _create(self, rendered: Rendered) -> Remediation | None:
        """Create the Job: None when it is new, else the one that was there for this occurrence."""
        if (known := self._view.get(rendered.key)) is not None:
            # A repetition, most likely: asking first saves the API server a refused write.
            try:
                return await self._there(rendered)
            except NotFound as error:
                self._view.remove(known.key, known.uid)
                if rendered.occurrence.attempt > 1:
                    raise _Forgotten from error
        try:
            job = await self._jobs.create(rendered.manifest)
        except AlreadyExists:
            try:
                return await self._there(rendered)
            except NotFound as error:
                raise NameTaken(f"Job {rendered.key} is being deleted") from error
        self._view.apply(observe(job))
        return None

    async def _there(self, rendered: Rendered) -> Remediation:
        """Read the Job that has the name, and make sure that it is this occurrence's."""
        there = observe(await self._jobs.get(rendered.key))
        if there.deleting or there.occurrence != rendered.occurrence.digest:
            whose = "is being deleted" if there.deleting else "was made for something else"
            raise NameTaken(f"Job {rendered.key} {whose}")
        self._view.apply(there)
        return there

    def _note_trouble(self, error: ApiError) -> None:
        """Take note of what befalls the next delivery, too, whatever it is about."""
        if isinstance(error, Throttled | Unauthorized | Unavailable):
            lasts = max(_TROUBLED, error.retry_after if isinstance(error, Throttled) else 0.0)
            what = "throttles" if isinstance(error, Throttled) else "does not take Jobs"
            until = asyncio.get_running_loop().time() + lasts
            self._trouble = (f"the API server {what}: {error}", until)

    def _complain(
        self, alert: Alert, operario: Operario, rendered: Rendered, error: ApiError
    ) -> Item:
        reason = _reason_of(error)
        final = isinstance(error, Invalid)
        complaint = (operario.name, operario.spec_digest) if final else ("", reason.value)
        if complaint not in self._complained or not final:
            # Alertmanager repeats a refused Job at every group_interval: once is enough.
            _log.warning(
                "a Job was not created",
                alert=alert.name,
                operario=operario.name,
                job=str(rendered.key),
                reason=reason.value,
                error=str(error),
            )
        self._complained[complaint] = None
        if len(self._complained) > _REMEMBERED_COMPLAINTS:
            del self._complained[next(iter(self._complained))]
        return Item(
            alert,
            Outcome.ERROR,
            reason,
            str(error),
            operario.name,
            rendered.key,
            Verdict.UNPROCESSABLE if final else Verdict.REPEAT,
        )

    async def _record_resolved(self, alerts: Iterable[Alert], delivery: Delivery) -> None:
        """Write down on every remembered firing Job of resolved alerts that they were resolved."""
        resolved: dict[str, datetime] = {}
        for alert in alerts:
            incident = incident_digest(alert.labels, Status.FIRING)
            moment = alert.ends_at or delivery.received_at
            resolved[incident] = max(moment, resolved.get(incident, moment))
        if not resolved:
            return
        jobs = await self._jobs.of_incidents(list(resolved))

        async def record(one: Remediation, moment: datetime) -> None:
            async with self._requests:
                try:
                    self._view.apply(
                        observe(await self._jobs.patch(one.key, patches.resolve(one, moment)))
                    )
                except NotFound:
                    return  # forgotten in the meantime
                except Invalid:
                    await self._confirm_resolved(one)

        due = []
        for one in map(observe, jobs):
            moment = resolved[one.incident]
            if one.resolved_at is None and (one.starts_at is None or one.starts_at <= moment):
                due.append(record(one, moment))
        for result in await asyncio.gather(*due, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _confirm_resolved(self, one: Remediation) -> None:
        """A patch whose test failed was too late; anything else is an error."""
        try:
            now = observe(await self._jobs.get(one.key))
        except NotFound:
            return
        if now.uid == one.uid and now.resolved_at is None:
            raise Conflict(f"Job {one.key} did not take its resolved-at")

    async def _keep_alive(
        self, alerts: Iterable[_Same], catalog: Catalog, delivery: Delivery
    ) -> None:
        """Let remembering slide: a repeated alert keeps its Job, and its incident's Jobs."""
        remember = catalog.envelope.remember
        due = {
            one.key: one
            for same in alerts
            for one in to_be_kept(
                self._view.of_incident(incident_digest(same.alert.labels, same.alert.status))
            )
            if delivery.received_at - one.delivered_at > remember / 10
        }

        async def keep(one: Remediation) -> None:
            ttl = remember
            if one.finished_at is not None:
                ttl += delivery.received_at - one.finished_at
            seconds = max(one.ttl_seconds or 0, -(-ttl // timedelta(seconds=1)))
            try:
                async with self._requests:
                    changed = await self._jobs.patch(
                        one.key, patches.keep_alive(one, delivery.received_at, seconds)
                    )
                self._view.apply(observe(changed))
            except ApiError as error:
                # Nothing is lost: the next delivery tries again, long before the end.
                _log.info("a Job was not kept alive", job=str(one.key), error=str(error))

        async with asyncio.TaskGroup() as tasks:
            for one in due.values():
                tasks.create_task(keep(one), name="keep alive")


class _Forgotten(Exception):
    """A later attempt is gone, which only the view still knew."""


class NameTaken(Conflict):
    """The name belongs to a Job that is ending, or to somebody else."""


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """An alert, equal to another that makes the same occurrence."""

    alert: Alert

    def _key(self) -> tuple[object, ...]:
        alert = self.alert
        return (alert.status, alert.starts_at, tuple(sorted(alert.labels.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _same_start(
    starts_at: datetime | None, incident: Iterable[Remediation]
) -> Iterator[Remediation]:
    """The attempts of one occurrence; an alert that names no start has none but this delivery's."""
    return (one for one in incident if starts_at is not None and one.starts_at == starts_at)


def _reason_of(error: ApiError) -> Reason:
    match error:
        case Invalid():
            return Reason.API_REFUSED
        case NameTaken():
            return Reason.NAME_TAKEN
        case Forbidden():
            return Reason.API_FORBIDDEN
        case Conflict():
            return Reason.API_CONFLICT
        case _:
            return Reason.API_UNAVAILABLE


def _failed(alert: Alert, reason: Reason, message: str) -> Item:
    return Item(alert, Outcome.ERROR, reason, message, verdict=Verdict.REPEAT)


def _all(group: AlertGroup, reason: Reason) -> Answer:
    return Answer(tuple(_failed(alert, reason, reason.text) for alert in group.alerts))
