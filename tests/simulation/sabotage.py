"""Ways to break the controller, each of which the simulation must find out.

A checker that never fails proves nothing. Each of these takes away one thing that a promise rests
on, and names the rules of which one must then be found broken.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from msgspec import structs

from openfero_gitops.admission import breaker, decide
from openfero_gitops.admission import pause as control
from openfero_gitops.admission.admitter import Admitter
from openfero_gitops.admission.breaker import Breakers
from openfero_gitops.admission.pause import Control
from openfero_gitops.cluster import lease
from openfero_gitops.cluster.clock import Clock
from openfero_gitops.delivery import recording
from openfero_gitops.delivery.recording import IncidentRecorder
from openfero_gitops.delivery.submitter import Submitter
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.remediation import Phase, Remediation
from openfero_gitops.effects import assess
from openfero_gitops.jobs import observe, patches
from openfero_gitops.leadership.elector import Elector
from openfero_gitops.leadership.term import LeaseTerm
from tests.simulation.simulate import simulate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Patch = Callable[[], "AbstractContextManager[Any]"]


@dataclass(frozen=True, slots=True)
class Sabotage:
    """What is taken away, and which rules that breaks.

    `known` are seeds that showed it before (`python -m tests.simulation --sabotages` looks for
    them anew); after changes to the controller their stories are others.
    """

    name: str
    rules: frozenset[str]
    patches: tuple[Patch, ...]
    known_seeds: tuple[int, ...] = ()

    def exposing(self, seeds: Iterable[int]) -> Iterator[int]:
        """Yield those seeds in which one of the rules is found broken."""
        with ExitStack() as patches:
            for patch in self.patches:
                patches.enter_context(patch())
            for seed in seeds:
                violations = simulate(seed).wrong
                if any(rule in violation for violation in violations for rule in self.rules):
                    yield seed


def _replace(owner: Any, name: str, new: Any) -> Patch:
    return lambda: mock.patch.object(owner, name, new)


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing, and hold nothing against it."""


async def _never(*_: Any, **__: Any) -> None:
    """The same, to be awaited."""


async def _rest(*_: Any) -> None:
    """Renew nothing, and notice nothing."""
    await asyncio.sleep(100_000.0)


async def _forget_doubts(_: Admitter, state: Any) -> None:
    state.unconfirmed.clear()


async def _leave_at_once(_: Elector, term: LeaseTerm, *__: Any) -> None:
    term.closing.set()
    term.finish(settled=True)


def _finish_whatever_is_left(self: LeaseTerm, **_: Any) -> None:
    _finish(self, settled=True)


def _record_with_any_mark(stored: Any) -> Any:
    annotations = stored["metadata"].get("annotations") or {}
    return dataclasses.replace(_record(stored), settled=keys.SETTLED in annotations)


def _write_and_keep_the_mark(body: Any, record: Any) -> None:
    mark = (body["metadata"].get("annotations") or {}).get(keys.SETTLED)
    _write(body, record)
    if mark is not None:
        body["metadata"]["annotations"].setdefault(keys.SETTLED, mark)


_finish = LeaseTerm.finish
_record = lease._record
_write = lease._write
_read = Control._read
_carry_out = Admitter._carry_out
_assumed = Admitter._assumed
_check = Breakers.check
_assess = breaker.assess


async def _read_and_acknowledge(self: Control) -> None:
    await _read(self)
    await Control.acknowledge(self, _nothing)


async def _carry_out_and_forget(
    self: Admitter, state: Any, remediation: Any, decision: Any
) -> None:
    await _carry_out(self, state, remediation, decision)
    state.unconfirmed.pop(remediation.uid, None)


def _without_approval(remediation: Any, state: Any) -> Any:
    assumed = _assumed(remediation, state)
    if assumed.phase is not Phase.AWAITING_APPROVAL or remediation.uid in state.blocked:
        return assumed
    return structs.replace(assumed, phase=Phase.WAITING)


def _check_without_approval(self: Breakers, remediation: Remediation) -> Any:
    return _check(self, structs.replace(remediation, approved_by=None))


def _assess_what_is_settled(remediation: Remediation, *arguments: Any) -> Any:
    return _assess(remediation, *arguments) if remediation.effect is not None else None


async def _create_and_hope(self: Submitter, rendered: Any) -> None:
    """Whatever the API server said to it, it was created."""
    try:
        await self._jobs.create(rendered.manifest)
    except ApiError:
        return


SABOTAGES: Final = (
    Sabotage(
        "no stamp before the first admission",
        frozenset({"limit", "two-leaders", "target", "healed-twice", "final", "paused"}),
        (_replace(Admitter, "_confirm", _forget_doubts),),
        known_seeds=(7, 34),
    ),
    Sabotage(
        "an admission without an answer did not happen",
        frozenset({"limit", "target", "healed-twice", "paused"}),
        (_replace(Admitter, "_carry_out", _carry_out_and_forget),),
        known_seeds=(23,),
    ),
    Sabotage(
        "a leader that leaves while an admission is under way",
        frozenset({"under-way", "paused"}),
        (_replace(Elector, "_finish_work", _leave_at_once),),
        known_seeds=(3,),
    ),
    Sabotage(
        "a leader that leaves and forgets what has no answer",
        frozenset({"under-way", "paused"}),
        (_replace(LeaseTerm, "finish", _finish_whatever_is_left),),
        known_seeds=(23,),
    ),
    Sabotage(
        "a word of the last leader that outlasts the next",
        frozenset({"under-way", "paused"}),
        (
            _replace(lease, "_record", _record_with_any_mark),
            _replace(lease, "_write", _write_and_keep_the_mark),
        ),
        known_seeds=(3,),
    ),
    Sabotage(
        "a term that never ends",
        frozenset({"limit", "two-leaders", "target", "healed-twice", "paused", "leads"}),
        (
            _replace(LeaseTerm, "check", _nothing),
            _replace(LeaseTerm, "holds", lambda _: True),
            _replace(LeaseTerm, "remaining", lambda _: 1000.0),
            _replace(Elector, "_renew", _rest),
        ),
        known_seeds=(0,),
    ),
    Sabotage(
        "a pause acknowledged by its reader",
        frozenset({"paused"}),
        (
            _replace(Control, "_read", _read_and_acknowledge),
            _replace(control, "_MAX_AGE_SECONDS", 10.0),
        ),
        known_seeds=(23,),
    ),
    Sabotage(
        "no look at the incident",
        frozenset({"healed-twice"}),
        (_replace(decide, "same_incident", lambda *_: False),),
        known_seeds=(0,),
    ),
    Sabotage(
        "no cooldown",
        frozenset({"healed-twice"}),
        (_replace(decide, "_cooldown", _nothing),),
        known_seeds=(9,),
    ),
    Sabotage(
        "no target",
        frozenset({"target"}),
        (_replace(decide, "_busy_target", _nothing),),
        known_seeds=(33,),
    ),
    Sabotage(
        "no limits",
        frozenset({"limit"}),
        (_replace(decide, "_limit", _nothing),),
        known_seeds=(1,),
    ),
    Sabotage(
        "no wait for approval",
        frozenset({"approval"}),
        (_replace(Admitter, "_assumed", staticmethod(_without_approval)),),
        known_seeds=(0,),
    ),
    Sabotage(
        "a patch that tests nothing",
        frozenset({"final", "resolved", "two-leaders", "phase", "limit"}),
        (_replace(patches, "_still_waiting", lambda _: []),),
        known_seeds=(3, 7),
    ),
    Sabotage(
        "no note of what a person started",
        frozenset({"restarted"}),
        (_replace(Remediation, "has_unrecorded_start", property(_nothing)),),
        known_seeds=(26,),
    ),
    Sabotage(
        "no look at who created a Job",
        frozenset({"forged", "lost"}),
        (_replace(observe, "why_foreign", lambda *_: ""),),
        known_seeds=(5, 11),
    ),
    Sabotage(
        "200 without a Job",
        frozenset({"lost"}),
        (_replace(Submitter, "_create", _create_and_hope),),
        known_seeds=(2,),
    ),
    Sabotage(
        "a resolved alert that nobody writes down",
        frozenset({"resolved"}),
        (_replace(IncidentRecorder, "record_resolved", _never),),
        known_seeds=(0,),
    ),
    Sabotage(
        "no circuit breaker",
        frozenset({"not-helping"}),
        (_replace(Breakers, "check", _nothing),),
        known_seeds=(12,),
    ),
    Sabotage(
        "a circuit breaker that no approval closes",
        frozenset({"not-helping"}),
        (_replace(Breakers, "check", _check_without_approval),),
        known_seeds=(12,),
    ),
    Sabotage(
        "a circuit breaker that waits for effects to be settled",
        frozenset({"not-helping"}),
        (_replace(breaker, "assess", _assess_what_is_settled),),
        known_seeds=(30,),
    ),
    Sabotage(
        "an alert that still fires, which nobody writes down",
        frozenset({"effect"}),
        (_replace(recording, "is_still_firing", lambda *_: False),),
        known_seeds=(4,),
    ),
    Sabotage(
        "an alert that fires again, at which nobody looks",
        frozenset({"effect"}),
        (_replace(assess, "_first_refire", _nothing),),
        known_seeds=(12,),
    ),
    Sabotage(
        "a clock that is trusted whatever it says",
        # The first consequence ends the story: most often an effect recorded an hour too soon, or
        # too late.
        frozenset(
            {"limit", "healed-twice", "undoing", "nothing was decided", "effect", "resolved"}
        ),
        (_replace(Clock, "now", lambda self: self._wall()),),
        known_seeds=(71, 112),
    ),
)
