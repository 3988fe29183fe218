"""What finished Jobs leave behind: counts, a failed container's last words, and their end.

The leader's work. Pods go before their Job does, so what they said is written on the Job.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.admission.expiry import expired
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.errors import (
    ApiError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.operario import OnResolve
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.failure import last_words
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Counts, Jobs, Term

_log = structlog.get_logger(__name__)

_LOOK_AGAIN: Final = 60.0
_GATHER: Final = 0.2
#: Seconds between two deletes: ten thousand Jobs go in a quarter of an hour, and not in a burst.
_PACE: Final = 0.1
#: Seconds to rest when the API server has trouble; it doubles up to the longest.
_FIRST_REST: Final = 1.0
_LONGEST_REST: Final = 10.0


class Concluder:
    """Follows Jobs to their end, and removes those that Kubernetes never would."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        view: View,
        catalog: Callable[[], Catalog | None],
        counts: Counts,
        now: Callable[[], datetime],
    ) -> None:
        """Take what is needed; nothing is started."""
        self._jobs = jobs
        self._view = view
        self._catalog = catalog
        self._counts = counts
        self._now = now
        # By uid: what was tried is not tried again before.
        self._later: dict[str, datetime] = {}
        self._deleted: dict[str, datetime] = {}

    async def run(self, term: Term) -> None:
        """Follow and clean until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(term), name="follow")
                tasks.create_task(self._clean(term), name="clean")
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _follow(self, term: Term) -> None:
        news = self._view.subscribe()
        # What ended before this term was counted in another's.
        ended = {one.uid for one in self._view if one.phase in FINAL}
        try:
            while True:
                news.clear()
                for one in self._view:
                    if one.phase in FINAL and one.uid not in ended:
                        ended.add(one.uid)
                        self._counts.ended(one)
                        _log.info(
                            "ended", job=str(one.key), phase=one.phase.value, operario=one.operario
                        )
                    if one.phase is Phase.FAILED and not one.explained and self._due(one):
                        await self._explain(one, term)
                    if _outlived_its_alert(one) and self._due(one):
                        await self._stop(one, term)
                known = {one.uid for one in self._view}
                ended &= known
                self._later = {uid: at for uid, at in self._later.items() if uid in known}
                try:
                    async with asyncio.timeout(_LOOK_AGAIN):
                        await news.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_GATHER)
        finally:
            self._view.unsubscribe(news)

    def _due(self, one: Remediation) -> bool:
        """Whether to work on a Job now: there is news all the time, and not all work succeeds."""
        return _is_due(self._later, one, self._now())

    async def _explain(self, one: Remediation, term: Term) -> None:
        try:
            message = last_words(one, await self._jobs.pods(one.key))
            term.check()
            changed = await self._jobs.patch(one.key, patches.explain(one, message))
        except NotFound:
            self._view.remove(one.key, one.uid)
        except ApiError as error:
            _log.info("a failure could not be explained", job=str(one.key), error=str(error))
        else:
            self._view.apply(observe(changed))

    async def _stop(self, one: Remediation, term: Term) -> None:
        """End what runs for an alert that is resolved, where its operario asks for that."""
        term.check()
        try:
            changed = await self._jobs.patch(one.key, patches.cancel_resolved(one))
        except NotFound:
            self._view.remove(one.key, one.uid)
        except Invalid:
            del self._later[one.uid]  # it changed in this very moment, and news of that comes
        except ApiError as error:
            _log.info("a Job was not cancelled", job=str(one.key), error=str(error))
        else:
            self._view.apply(observe(changed))
            _log.info("cancelled", job=str(one.key), reason=Reason.RESOLVED.value)

    async def _clean(self, term: Term) -> None:
        """Delete what Kubernetes would keep for ever, one Job after the other."""
        rest = 0.0
        while True:
            catalog = self._catalog()
            old = expired(self._view, catalog.envelope, self._now()) if catalog else []
            self._deleted = {
                one.uid: self._deleted[one.uid] for one, _ in old if one.uid in self._deleted
            }
            removed = 0
            for one, why in old:
                if not self._is_as_judged(one) or not _is_due(self._deleted, one, self._now()):
                    continue
                term.check()
                try:
                    await self._jobs.delete(one.key, one.uid, one.resource_version)
                except NotFound:
                    self._view.remove(one.key, one.uid)
                except ApiError as error:
                    _log.info("an old Job was not removed", job=str(one.key), error=str(error))
                    rest = _longer(rest, error)
                else:
                    rest = 0.0
                    removed += 1
                    _log.debug("an old Job was removed", job=str(one.key), why=why.value)
                await asyncio.sleep(max(_PACE, rest))
            if removed:
                _log.info("old Jobs were removed", jobs=removed)
            await asyncio.sleep(_LOOK_AGAIN)

    def _is_as_judged(self, one: Remediation) -> bool:
        """Whether nothing has changed since it was looked at, which may be minutes ago."""
        now = self._view.get(one.key)
        return now is not None and (now.uid, now.resource_version) == (
            one.uid,
            one.resource_version,
        )


def _is_due(later: dict[str, datetime], one: Remediation, now: datetime) -> bool:
    if later.get(one.uid, now) > now:
        return False
    later[one.uid] = now + timedelta(seconds=_LOOK_AGAIN)
    return True


def _longer(rest: float, error: ApiError) -> float:
    """How long to rest after an error; what concerns one Job alone holds up no other."""
    match error:
        case Throttled():
            return max(error.retry_after, min(max(_FIRST_REST, rest * 2), _LONGEST_REST))
        case Unavailable() | Unauthorized():
            return min(max(_FIRST_REST, rest * 2), _LONGEST_REST)
        case _:
            return 0.0


def _outlived_its_alert(one: Remediation) -> bool:
    """Whether a Job still works on what is resolved, and should not."""
    return (
        one.status is Status.FIRING
        and one.resolved_at is not None
        and one.options.on_resolve is OnResolve.CANCEL_RUNNING
        and one.decision is None
        and one.occupying
    )
