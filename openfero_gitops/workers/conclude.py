"""What finished Jobs leave behind: counts, a failed container's last words, and their end.

The leader's work. Pods go before their Job does, so what they said is written on the Job.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.errors import ApiError, NotFound
from openfero_gitops.domain.operario import OnResolve
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.pipeline import patches
from openfero_gitops.pipeline.lastwords import last_words
from openfero_gitops.pipeline.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.workers.admit import Term
    from openfero_gitops.workers.observe import View

_log = structlog.get_logger(__name__)

_LOOK_AGAIN: Final = 60.0
_GATHER: Final = 0.2
_DELETES_A_LOOK: Final = 100


class Jobs(Protocol):
    """Jobs and their Pods."""

    async def pods(self, key: JobKey) -> list[dict[str, Any]]:
        """The Pods of one Job; raises ApiError."""
        ...

    async def patch(self, key: JobKey, patch: patches.Patch) -> dict[str, Any]:
        """Change one Job; raises ApiError."""
        ...

    async def delete(self, key: JobKey, uid: str, resource_version: str) -> None:
        """Delete one Job in exactly this state; raises ApiError."""
        ...


class Counts(Protocol):
    """What is counted about ends."""

    def ended(self, remediation: Remediation) -> None:
        """A remediation reached a phase that it never leaves."""
        ...


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
        self._later: dict[str, datetime] = {}  # by uid: what was tried is not tried again before

    async def run(self, term: Term) -> None:
        """Follow until cancelled."""
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
                    if one.phase is Phase.FAILED and not one.explained and self._is_due(one):
                        await self._explain(one, term)
                    if _outlived_its_alert(one) and self._is_due(one):
                        await self._stop(one, term)
                await self._clean(term)
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

    def _is_due(self, one: Remediation) -> bool:
        """Whether to work on a Job now: there is news all the time, and not all work succeeds."""
        now = self._now()
        if self._later.get(one.uid, now) > now:
            return False
        self._later[one.uid] = now + timedelta(seconds=_LOOK_AGAIN)
        return True

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
        except ApiError as error:
            _log.info("a Job was not cancelled", job=str(one.key), error=str(error))
        else:
            self._view.apply(observe(changed))
            _log.info("cancelled", job=str(one.key), reason=Reason.RESOLVED.value)

    async def _clean(self, term: Term) -> None:
        """Delete refused Jobs that nobody has delivered for as long as is remembered.

        Kubernetes' own clean-up passes suspended Jobs by.
        """
        catalog = self._catalog()
        if catalog is None:
            return
        before = self._now() - catalog.envelope.remember
        old = [
            one
            for one in self._view
            if one.phase in FINAL
            and one.suspended
            and not one.finished
            and not one.active
            and one.delivered_at < before
        ]
        for one in itertools.islice(filter(self._is_due, old), _DELETES_A_LOOK):
            term.check()
            try:
                await self._jobs.delete(one.key, one.uid, one.resource_version)
            except NotFound:
                self._view.remove(one.key, one.uid)
            except ApiError as error:
                _log.info("an old Job was not removed", job=str(one.key), error=str(error))


def _outlived_its_alert(one: Remediation) -> bool:
    """Whether a Job still works on what is resolved, and should not."""
    return (
        one.status is Status.FIRING
        and one.resolved_at is not None
        and one.options.on_resolve is OnResolve.CANCEL_RUNNING
        and one.decision is None
        and one.occupying
    )
