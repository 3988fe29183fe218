"""The effect does not depend on the order in which facts arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.delivery.pairs import is_resolved_by
from openfero_gitops.demo.cluster.jsonpatch import apply_patch
from openfero_gitops.domain.effect import FINAL_EFFECTS, Effect
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.effects.assess import Assessment, assess, is_still_firing
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import read_remediation
from tests.support.build import NOW, STARTS_AT, finished, minutes, remediation, seconds, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime, timedelta

    from openfero_gitops.domain.remediation import Remediation

#: The Job starts at NOW and ends two minutes later, so that it must have healed by the 17th.
END = NOW + minutes(2)
DEADLINE = END + minutes(15)
LAST = NOW + minutes(16 * 60)

Job = dict[str, Any]
Fact = tuple[str, "Callable[[Job, list[Remediation]], Job]"]


def ended() -> Fact:
    """The Job controller reports that the Job has completed."""

    def apply(job: Job, _: list[Remediation]) -> Job:
        condition = {"type": "Complete", "status": "True", "lastTransitionTime": format_time(END)}
        status = {
            "startTime": format_time(NOW),
            "completionTime": format_time(END),
            "conditions": [condition],
        }
        return {**job, "status": status}

    return "ended", apply


def fired(moment: datetime, starts_at: datetime) -> Fact:
    """A firing delivery: what it says is recorded as `delivery` does it."""

    def apply(job: Job, _: list[Remediation]) -> Job:
        observed = read_remediation(job)
        if is_still_firing(observed, starts_at, moment):
            return apply_patch(job, patches.still_firing(observed, moment))
        return job

    return "fired", apply


def was_resolved(moment: datetime) -> Fact:
    """A resolved delivery."""

    def apply(job: Job, _: list[Remediation]) -> Job:
        observed = read_remediation(job)
        if observed.resolved_at is None and is_resolved_by(observed, moment):
            return apply_patch(job, patches.resolve(observed, moment))
        return job

    return "resolved", apply


def another(job: Remediation) -> Fact:
    """Another Job of the same labels appears."""

    def apply(own: Job, others: list[Remediation]) -> Job:
        others.append(job)
        return own

    return "another", apply


def after(bound: timedelta = LAST - NOW) -> st.SearchStrategy[datetime]:
    """A moment after the start of the Job."""
    return st.integers(1, int(bound.total_seconds())).map(lambda count: NOW + seconds(count))


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """What happens to the alert of a Job, at any time after its start."""
    facts = [ended()]
    if draw(st.booleans()):
        facts.append(was_resolved(draw(after(minutes(60)) | after())))
    wobble = st.integers(-30, 60).map(lambda count: STARTS_AT + seconds(count))
    moments = st.lists(after(minutes(60)) | after(), max_size=3)
    facts += [fired(moment, draw(wobble)) for moment in draw(moments)]
    for number in range(draw(st.integers(0, 2))):
        moment = draw(after(minutes(60)) | after())
        started = draw(st.booleans())
        starts_at = draw(st.sampled_from((moment, STARTS_AT)))
        facts.append(
            another(
                finished(
                    f"job-{number + 2}",
                    began=moment,
                    ended=moment + minutes(1),
                    starts_at=starts_at,
                    received_at=moment,
                )
                if started
                else remediation(f"job-{number + 2}", starts_at=starts_at, received_at=moment)
            )
        )
    return facts


def result(facts: Iterable[Fact], at: datetime) -> Assessment:
    """Let the facts arrive in this order, and assess the Job."""
    job = stored(annotations={"openfero.io/admitted-at": format_time(NOW)}, spec={"suspend": False})
    others: list[Remediation] = []
    for _, apply in facts:
        job = apply(job, others)
    observed = read_remediation(job)
    assessment = assess(observed, [observed, *others], at)
    assert assessment is not None
    return assessment


@given(data=st.data(), facts=histories())
def test_any_order_of_the_facts_gives_the_same_effect(
    data: st.DataObject, facts: list[Fact]
) -> None:
    """Deliveries, the end of the Job and other Jobs may be heard of in any order.

    The end of a Job is heard before a delivery that comes heals-within later.
    """
    shuffled = data.draw(st.permutations(facts))
    names = [name for name, _ in shuffled]
    end = names.index("ended")
    first_fired = names.index("fired") if "fired" in names else len(names)
    if end > first_fired:
        shuffled.insert(first_fired, shuffled.pop(end))
    for at in (END, DEADLINE, DEADLINE + minutes(60), LAST, LAST + minutes(24 * 60)):
        assert result(shuffled, at).effect is result(facts, at).effect


@given(facts=histories())
def test_an_effect_that_is_final_stays_as_it_is(facts: list[Fact]) -> None:
    """Time alone never changes healed or not-healed, and at last every effect is known."""
    moments = (
        END,
        DEADLINE,
        DEADLINE + minutes(30),
        LAST,
        LAST + minutes(60),
        LAST + minutes(9999),
    )
    effects = [result(facts, at).effect for at in moments]
    known = [effect for effect in effects if effect in FINAL_EFFECTS]
    assert len(set(known)) <= 1
    assert effects[len(effects) - len(known) :] == known or Effect.UNKNOWN in effects
    assert effects[-1] is not Effect.PENDING
