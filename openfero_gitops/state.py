"""The controller as pages, API and probes see it.

`State` reads the parts that it is handed; every call is quick and does no I/O. Decisions are the
one costly answer, since deciding looks at every Job in one turn of the event loop. `Decided`
bounds their share of the time, however often pages are read and however fast Jobs change.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from openfero_gitops.admission.decide import decide
from openfero_gitops.domain.health import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.admission.pause import Control
    from openfero_gitops.catalog.lag import Comparer
    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Catalog, Envelope
    from openfero_gitops.domain.health import About
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.domain.sync import Standing, SyncStatus
    from openfero_gitops.jobs.view import Observer, View
    from openfero_gitops.leadership.elector import Elector

#: Seconds after which the clock alone may have changed what is shown.
_FRESH: Final = 1.0
#: Times as long as deciding took is its answer used, whatever changed.
_REST: Final = 9.0


class Decided:
    """The decisions on what is known, made anew when they may have changed."""

    def __init__(self, view: View, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the view, and a clock in seconds."""
        self._view = view
        self._clock = clock
        self._answer: Mapping[JobKey, Decision] = {}
        self._rests_on: tuple[int, Envelope | None, Pause | None] | None = None
        self._not_before = self._until = clock()

    def get(
        self, envelope: Envelope | None, pause: Pause | None, *, now: datetime
    ) -> Mapping[JobKey, Decision]:
        """What is decided on each waiting Job: as of now, or of a moment ago."""
        rests_on = (self._view.changes, envelope, pause)
        began = self._clock()
        stale = began >= self._until or rests_on != self._rests_on
        if stale and began >= self._not_before:
            decided = decide(self._view, envelope, pause=pause, now=now)
            self._answer = {remediation.key: decision for remediation, decision in decided}
            self._rests_on = rests_on
            ended = self._clock()
            self._not_before = ended + (ended - began) * _REST
            self._until = ended + _FRESH
        return self._answer


class ClusterFindings(Protocol):
    """What the cluster says of the catalog's operarios."""

    def problems(self, catalog: Catalog) -> tuple[Problem, ...]:
        """The problems found in the cluster; the same object until they change."""
        ...

    def is_approval_verified(self, remediation: Remediation, /) -> bool:
        """Whether an admission policy ties the approver's name to the requesting user."""
        ...


class Part(Protocol):
    """A part of the controller that can say why it does not work."""

    @property
    def trouble(self) -> str:
        """Why it does not work; empty if it does."""
        ...


class State:
    """One replica of the controller, as values."""

    def __init__(
        self,
        about: About,
        *,
        syncer: Syncer,
        comparer: Comparer,
        elector: Elector,
        observer: Observer,
        view: View,
        control: Control,
        cluster_findings: ClusterFindings,
        deliveries: Part,
        clock: Part,
        now: Callable[[], datetime],
    ) -> None:
        """Read these parts; `about` does not change while the replica runs."""
        self._about = about
        self._syncer = syncer
        self._comparer = comparer
        self._elector = elector
        self._observer = observer
        self._view = view
        self._control = control
        self._cluster_findings = cluster_findings
        self._deliveries = deliveries
        self._clock = clock
        self._now = now
        self._decided = Decided(view)
        self._shown: tuple[Catalog, tuple[Problem, ...], Catalog] | None = None

    def about(self) -> About:
        """What this replica is."""
        return self._about

    def catalog(self) -> Catalog | None:
        """The catalog in use, with the problems that the cluster reported added to its own."""
        catalog = self._syncer.catalog
        if catalog is None:
            return None
        reported = self._cluster_findings.problems(catalog)
        if self._shown is None or self._shown[0] is not catalog or self._shown[1] is not reported:
            problems = catalog.problems + reported
            shown = replace(catalog, problems=problems) if reported else catalog
            self._shown = (catalog, reported, shown)
        return self._shown[2]

    def sync(self) -> SyncStatus:
        """The status of the sync that produced the catalog."""
        return self._syncer.status

    def standing(self) -> Standing | None:
        """How this replica compares with the leader; None if unknown."""
        return self._comparer.standing

    def leadership(self) -> Leadership:
        """Who leads."""
        return self._elector.status

    def remediations(self) -> Iterable[Remediation]:
        """Every remediation known."""
        return self._view

    def is_approval_verified(self, one: Remediation) -> bool:
        """Whether an admission policy ties the approver's name to the requesting user."""
        return self._cluster_findings.is_approval_verified(one)

    def pause(self) -> Pause | None:
        """What pauses admission; None if nothing is known to."""
        return self._control.pause

    def decisions(self) -> Mapping[JobKey, Decision]:
        """The decision on each waiting Job, as a leader would make it now."""
        catalog = self.catalog()
        return self._decided.get(
            catalog.envelope if catalog else None,
            self._control.pause,
            now=self._now(),
        )

    def conditions(self) -> Sequence[Condition]:
        """What this replica needs to do its job, and whether it has it."""
        status = self._syncer.status
        catalog = self._syncer.catalog
        trouble = self._observer.trouble
        whole = self._view.whole
        return (
            Condition(
                "catalog",
                catalog is not None,
                "" if catalog else status.error or "the first sync has not ended",
            ),
            Condition(
                "jobs",
                whole and not trouble,
                "; ".join(f"{namespace}: {why}" for namespace, why in trouble.items())
                or ("" if whole else "the Jobs have not been listed yet"),
                # (Of several namespaces, those that are left are worked in.)
                vital=not whole or len(trouble) == len(self._about.allowed_namespaces),
            ),
            _free_of("deliveries", self._deliveries.trouble),
            _free_of("clock", self._clock.trouble),
            _free_of("control", self._control.trouble, vital=False),
            _free_of("in step", self._comparer.trouble, vital=False),
        )


def _free_of(name: str, trouble: str, *, vital: bool = True) -> Condition:
    return Condition(name, not trouble, trouble, vital=vital)
