"""Chaos itself: what is drawn is drawn again from its seed, and its checker can fail."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Limits
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.timestamp import format_time
from tests.chaos import checker
from tests.chaos.faults import Fault, deal
from tests.chaos.recorder import Seen
from tests.chaos.senders import Answered
from tests.chaos.stories import tell
from tests.support import attacks, build
from tests.support.build import NOW, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

BEGIN = NOW.timestamp()


def test_a_seed_tells_the_same_again() -> None:
    """Stories and faults depend on the seed alone, and another seed gives others."""
    assert tell(7, 300) == tell(7, 300)
    assert tell(7, 300) != tell(8, 300)
    assert deal(7, 30) == deal(7, 30)
    assert deal(7, 30) != deal(8, 30)


def test_every_fault_comes_before_one_comes_twice_more() -> None:
    """A run with as many faults as there are kinds meets each of them."""
    assert {injection.fault for injection in deal(3, len(Fault))} == {*Fault}


def test_stories_hold_as_many_occurrences_as_were_asked_for() -> None:
    """No two stories have the same labels, so that none is another's occurrence."""
    stories = tell(1, 500)
    labels = [tuple(sorted(story.labels.items())) for story in stories]
    assert len({*labels}) == len(labels)
    assert 500 <= sum(len(story.occurrences) for story in stories) < 510


class Past:
    """A history as etcd would tell it, written step by step."""

    def __init__(self) -> None:
        self.jobs: list[Seen] = []
        self.forged: list[Seen] = []
        self.control: list[Seen] = []
        self.answered: list[Answered] = []
        self.expected: set[checker.Alert] = set()
        self.ends = 100.0
        self._now: dict[str, dict[str, Any]] = {}

    def create(self, name: str, at: float, *, since: float = -30.0, **options: Any) -> None:
        """An alert of this name's own Pod is delivered, its Job stored, and that is answered."""
        pod = name.rstrip("'")
        alert = build.alert(
            labels={"alertname": "Down", "pod": pod}, starts_at=NOW + seconds(since)
        )
        manifest = build.rendered(
            alert,
            build.operario(options=Options(cooldown=seconds(0), **options)),
            delivered=build.delivery(received_at=NOW + seconds(at)),
        ).manifest
        created = (NOW + seconds(at)).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {"uid": f"uid-{name}", "name": name, "creationTimestamp": created}
        key = f"{build.JOBS_NAMESPACE}/{name}"
        self._now[name] = build.stored(manifest, metadata=metadata)
        self._write(name, at)
        starts = format_time(NOW + seconds(since))
        self.expected.add((tuple(sorted(alert.labels.items())), "firing", starts))
        self.answered.append(
            Answered(
                sent_at=BEGIN + at,
                at=BEGIN + at + 0.1,
                sender=0,
                labels=dict(alert.labels),
                status="firing",
                starts_at=starts,
                ends_at="0001-01-01T00:00:00Z",
                outcome="created",
                job=key,
            )
        )

    def admit(self, name: str, at: float) -> None:
        """The leader starts it."""
        marks = {keys.ADMITTED_AT: format_time(NOW + seconds(at)), keys.TERM: "ada/1/t#1"}
        self.change(name, at, suspend=False, **marks)

    def end(self, name: str, at: float) -> None:
        """It comes to its end."""
        time = format_time(NOW + seconds(at))
        condition = {"type": "Complete", "status": "True", "lastTransitionTime": time}
        self._now[name] = self._now[name] | {"status": {"conditions": [condition]}}
        self._write(name, at)

    def change(self, name: str, at: float, *, suspend: bool | None = None, **marks: str) -> None:
        """Annotations change, and whether it is suspended."""
        job = copy.deepcopy(self._now[name])
        job["metadata"]["annotations"] |= marks
        if suspend is not None:
            job["spec"]["suspend"] = suspend
        self._now[name] = job
        self._write(name, at)

    def settle(self, name: str, at: float, effect: str) -> None:
        """The leader settles its effect; before, the alert was delivered as firing."""
        if effect == "not-healed":
            self.change(name, at - 1, **{keys.STILL_FIRING_AT: format_time(NOW + seconds(at - 1))})
        moment = format_time(NOW + seconds(at - 1))
        marks = {keys.EFFECT: effect, keys.EFFECT_AT: moment, keys.EFFECT_MESSAGE: "as seen"}
        self.change(name, at, **marks)

    def pause(self, at: float, data: dict[str, str]) -> None:
        """The control is written."""
        stored = {"kind": "ConfigMap", "data": data}
        self.control.append(Seen(self._revision(), BEGIN + at, "ops/openfero-control", stored))

    def _write(self, name: str, at: float) -> None:
        key = f"{build.JOBS_NAMESPACE}/{name}"
        self.jobs.append(Seen(self._revision(), BEGIN + at, key, self._now[name]))

    def _revision(self) -> int:
        return len(self.jobs) + len(self.control) + 1

    def broken(self, **limits: int) -> dict[str, int]:
        """Which promises the checker finds broken, and how often."""
        history = checker.History(
            self.jobs,
            self.control,
            self.answered,
            frozenset(self.expected),
            replace(Limits(concurrent=2, per_minute=10), **limits),
            self.forged,
            ended=BEGIN + self.ends,
        )
        counts = checker.count(checker.judge(history))
        return {words: number for words, number in counts.items() if number}


def past() -> Past:
    """Two alerts are healed, one after the other; then admission is paused."""
    recorded = Past()
    recorded.create("a", 0)
    recorded.create("b", 0.5)
    recorded.admit("a", 1)
    recorded.admit("b", 2)
    recorded.end("a", 3)
    recorded.end("b", 4)
    recorded.pause(5, {"paused": "true", "request": "r1"})
    recorded.pause(6, {"paused": "true", "request": "r1", "acknowledged": "r1"})
    return recorded


def test_a_history_in_which_all_went_well_breaks_no_promise() -> None:
    """Neither limits that are just reached, nor a pause while nothing starts, are faults."""
    assert past().broken() == {}


def _lose(recorded: Past) -> None:
    recorded.jobs = [seen for seen in recorded.jobs if not seen.key.endswith("/b")]


def _forget_an_alert(recorded: Past) -> None:
    recorded.expected.add(((("alertname", "Down"), ("pod", "c")), "firing", "2026-11-21T03:00:00Z"))


def _answer_too_soon(recorded: Past) -> None:
    recorded.answered[1] = replace(recorded.answered[1], at=recorded.answered[1].at - 5)


def _double(recorded: Past) -> None:
    recorded.create("a'", 7)
    recorded.change("a'", 8, **{keys.DECISION: "refused", keys.REASON: "same-occurrence"})


def _start_again(recorded: Past) -> None:
    recorded.create("c", 6.1)
    recorded.change("c", 6.2, suspend=False)
    recorded.change("c", 6.3, suspend=True)
    recorded.change("c", 6.4, suspend=False)
    recorded.end("c", 6.5)


def _heal_twice(recorded: Past) -> None:
    recorded.control.clear()
    recorded.create("a'", 7, since=-20)
    recorded.admit("a'", 8)
    recorded.end("a'", 9)


def _start_while_paused(recorded: Past) -> None:
    recorded.create("c", 6.5)
    recorded.admit("c", 7)
    recorded.end("c", 8)


def _start_unasked(recorded: Past) -> None:
    recorded.control.clear()
    recorded.create("c", 6.5, approval=True)
    recorded.admit("c", 7)
    recorded.end("c", 8)


def _start_what_is_over(recorded: Past) -> None:
    recorded.control.clear()
    recorded.create("c", 6.5)
    recorded.change("c", 6.6, **{keys.RESOLVED_AT: format_time(NOW)})
    recorded.admit("c", 7)
    recorded.end("c", 8)
    recorded.settle("c", 9, "unknown")


def _start_what_is_forged(recorded: Past) -> None:
    job = attacks.forged_job(1, size=0)
    key = f"{build.JOBS_NAMESPACE}/forged-1"
    recorded.forged += [
        Seen(90, BEGIN, key, job),
        Seen(91, BEGIN, key, {**job, "spec": {"suspend": False}}),
    ]


def _leave(recorded: Past) -> None:
    recorded.create("c", 7)


def _settle_differently(recorded: Past) -> None:
    recorded.settle("a", 2000, "not-healed")
    recorded.settle("a", 2001, "healed")


def _settle_unseen(recorded: Past) -> None:
    recorded.settle("b", 2000, "healed")


def _settle_nothing(recorded: Past) -> None:
    recorded.ends = 1000.0
    recorded.change("b", 950, **{keys.STILL_FIRING_AT: format_time(NOW + seconds(950))})


def _start_what_does_not_help(recorded: Past) -> None:
    recorded.control.clear()
    stops: dict[str, Any] = {"stop_after_not_healed": 1}
    recorded.create("c", 7, **stops)
    recorded.admit("c", 8)
    recorded.end("c", 9)
    recorded.settle("c", 951, "not-healed")
    recorded.create("c'", 1400, since=1390, **stops)
    recorded.admit("c'", 1401)
    recorded.end("c'", 1402)


@pytest.mark.parametrize(
    ("doctor", "promise"),
    [
        (_lose, "Jobs lost"),
        (_forget_an_alert, "Jobs lost"),
        (_answer_too_soon, "Jobs lost"),
        (_double, "Jobs doubled"),
        (_start_again, "Jobs doubled"),
        (_heal_twice, "incidents healed twice"),
        (_start_while_paused, "started after a pause was acknowledged"),
        (_start_unasked, "started without approval"),
        (_start_what_is_over, "started after the alert was resolved"),
        (_leave, "left undecided at the end"),
        (_settle_differently, "effects wrong, or settled by two leaders differently"),
        (_settle_unseen, "effects wrong, or settled by two leaders differently"),
        (_settle_nothing, "effects not settled at the end"),
        (_start_what_does_not_help, "started again although it did not help"),
        (_start_what_is_forged, "forged Jobs started or changed"),
    ],
)
def test_a_doctored_history_is_found_out(doctor: Callable[[Past], None], promise: str) -> None:
    """Each promise that is broken by the change of one thing is named, and no other."""
    recorded = past()
    doctor(recorded)
    assert set(recorded.broken()) == {promise}


@pytest.mark.parametrize("limit", ["concurrent", "per_minute"])
def test_a_limit_that_was_one_lower_was_exceeded(limit: str) -> None:
    """What just fitted is one too many for a limit of one less."""
    assert set(past().broken(**{limit: 1})) == {"limit exceeded at any instant"}
