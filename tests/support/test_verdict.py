"""The judgement of a history: what it must find, and what it must let pass."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.operario import Mode, Options
from openfero_gitops.domain.timestamp import format_time
from tests.support import build
from tests.support.build import NOW, STARTS_AT, minutes, seconds
from tests.support.verdict import Answered, Change, Pause, verdict

if TYPE_CHECKING:
    from datetime import datetime

    from tests.support.verdict import Violation


class Story:
    """A history as it is told: each step is one write, at so many seconds after `NOW`."""

    def __init__(self, **options: Any) -> None:
        self.options = Options(**options)
        self.changes: list[Change] = []
        self._last: dict[str, dict[str, Any]] = {}

    def create(self, uid: str, at: float = 0.0, *, operario: str = "a", **alert: Any) -> None:
        """A Job of an alert is created, suspended."""
        manifest = build.rendered(
            build.alert(**alert),
            build.operario(operario, options=self.options),
            delivered=build.delivery(received_at=NOW + seconds(at)),
        ).manifest
        job = build.stored(manifest, metadata={"uid": uid, "name": uid})
        self._tell(at, "ADDED", uid, job)

    def write(
        self, uid: str, at: float, spec: Any = None, status: Any = None, **marks: str
    ) -> None:
        """Annotations, spec and status of it change; a name's `_` stands for `-`."""
        job = self._last[uid]
        annotations = {keys.PREFIX + key.replace("_", "-"): value for key, value in marks.items()}
        metadata = job["metadata"]
        metadata = {**metadata, "annotations": {**metadata["annotations"], **annotations}}
        changed = {"metadata": metadata, "spec": {**job["spec"], **(spec or {})}}
        self._tell(at, "MODIFIED", uid, {**job, **changed, "status": status or job["status"]})

    def admit(self, uid: str, at: float, term: str = "r/1/t#1") -> None:
        """A leader starts it."""
        mark = format_time(NOW + seconds(at))
        self.write(uid, at, {"suspend": False}, {"active": 1}, admitted_at=mark, term=term)

    def end(self, uid: str, at: float, how: str = "Complete") -> None:
        """It comes to its end."""
        time = format_time(NOW + seconds(at))
        condition = {"type": how, "status": "True", "lastTransitionTime": time}
        self.write(uid, at, None, {"conditions": [condition]})

    def delete(self, uid: str, at: float) -> None:
        """It goes."""
        self._tell(at, "DELETED", uid, self._last[uid])

    def _tell(self, at: float, kind: str, uid: str, job: dict[str, Any]) -> None:
        self._last[uid] = job
        self.changes.append(Change(NOW + seconds(at), kind, job))

    def rules(self, **given: Any) -> list[str]:
        """The rules that were broken."""
        return [one.rule for one in self.violations(**given)]

    def violations(self, **given: Any) -> list[Violation]:
        """The same, in words."""
        return verdict(self.changes, **given)


def other(name: str) -> dict[str, Any]:
    """An alert about something else."""
    return {"labels": {"alertname": "PodCrashLooping", "pod": name}}


def after(seconds_later: float) -> datetime:
    """So many seconds after `NOW`."""
    return NOW + seconds(seconds_later)


def answered(at: float, job: str | None, **given: Any) -> Answered:
    """The alert of `Story.create`, answered."""
    one = build.alert(**given)
    key = (build.JOBS_NAMESPACE, job) if job else None
    labels, status = one.labels, one.status.value
    return Answered(after(at - 1), after(at), labels, status, one.starts_at, one.ends_at, key)


def test_a_job_that_ran_once_breaks_no_promise() -> None:
    """Created, admitted, ended, answered for, and removed by its TTL."""
    story = Story()
    story.create("a")
    story.admit("a", 5)
    story.end("a", 10)
    story.delete("a", 10 + 86_400)

    assert story.violations(answers=[answered(3, "a")]) == []


def test_an_answer_names_a_job_that_is_there() -> None:
    """A name that never was, one that had gone before, and one of another alert are losses."""
    story = Story()
    story.create("a")
    assert story.rules(answers=[answered(3, "b")]) == ["lost"]
    assert story.rules(answers=[answered(3, "a", **other("web-2"))]) == ["lost"]
    assert story.rules(answers=[answered(3, "a", starts_at=NOW)]) == ["lost"]
    story.delete("a", 10)
    assert story.rules(answers=[answered(10.5, "a")], forgotten=["a"]) == []
    assert story.rules(answers=[answered(20, "a")], forgotten=["a"]) == ["lost"]


def test_only_people_and_time_remove_jobs() -> None:
    """Whatever goes before it may be forgotten is lost, unless a person deleted it."""
    story = Story()
    story.create("a")
    story.write("a", 1, decision="refused", reason="resolved", message="it was")
    story.delete("a", 3600)
    assert story.rules() == ["lost"]
    assert story.rules(forgotten=["a"]) == []
    assert story.rules(envelope=Envelope(remember=minutes(50))) == []


def test_one_occurrence_starts_once() -> None:
    """Two Jobs of one occurrence that both start are doubled."""
    story = Story(cooldown=timedelta(0))
    story.create("a")
    story.create("b")
    story.admit("a", 1)
    story.end("a", 2)
    story.admit("b", 3)

    assert story.rules() == ["doubled", "healed-twice"]


@pytest.mark.parametrize(
    ("later", "resolved", "rules"),
    [
        (60, None, ["healed-twice"]),
        (60.000001, None, []),
        (-300, None, ["healed-twice"]),
        (30, 29, []),
        (29, 29, ["healed-twice"]),
    ],
)
def test_one_incident_is_healed_once(
    later: float, resolved: float | None, rules: list[str]
) -> None:
    """A startsAt up to a minute after the delivery is the same incident, unless it was resolved."""
    story = Story(cooldown=timedelta(0))
    story.create("a")
    story.admit("a", 1)
    story.end("a", 2)
    if resolved is not None:
        story.write("a", 3, resolved_at=format_time(after(resolved)))
    story.create("b", 90, starts_at=after(later))
    story.admit("b", 91)

    assert story.rules() == rules


def test_the_cooldown_and_the_target_are_kept() -> None:
    """From the end of the last one, on the same target; while one works nothing else does."""
    story = Story()
    story.create("a")
    story.create("b", starts_at=after(300))
    story.admit("a", 1)
    story.admit("b", 2)
    assert story.rules() == ["target"]

    story = Story()
    story.create("a")
    story.create("b", starts_at=after(300))
    story.admit("a", 1)
    story.end("a", 100)
    story.admit("b", 699.9)
    assert story.rules() == ["healed-twice"]


def test_the_cooldown_counts_from_when_the_job_completed() -> None:
    """Not from when its controller came round to writing the condition."""
    story = Story()
    story.create("a")
    story.create("b", starts_at=after(300))
    story.admit("a", 1)
    condition = {"type": "Complete", "status": "True", "lastTransitionTime": at_second(102)}
    status = {"conditions": [condition], "completionTime": at_second(100)}
    story.write("a", 102, None, status)
    story.admit("b", 700)
    assert story.rules() == []


def at_second(seconds_later: float) -> str:
    """So many seconds after `NOW`, as it is written."""
    return format_time(after(seconds_later))


def crowd(count: int, apart: float, runs_for: float, **options: Any) -> Story:
    """So many Jobs, admitted one after the other."""
    story = Story(**options)
    for number in range(count):
        story.create(f"j{number}", **other(f"web-{number}"))
    steps = [(number * apart, number) for number in range(count)]
    steps += [(number * apart + runs_for, ~number) for number in range(count)]
    for at, number in sorted(steps):
        if number < 0:
            story.end(f"j{~number}", at)
        else:
            story.admit(f"j{number}", at)
    return story


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({"concurrent": 2}, {}),
        ({"per_minute": 5}, {}),
        ({}, {"max_concurrent": 2}),
        ({}, {"max_per_hour": 5}),
    ],
)
def test_a_limit_is_never_exceeded(limits: dict[str, int], options: dict[str, int]) -> None:
    """One more than may is one too many, and exactly as many as may are not."""
    for count, apart, runs_for, broken in ((6, 9, 20, 1), (5, 9, 18, 0)):
        story = crowd(count, apart, runs_for, **options)
        found = story.rules(envelope=Envelope(limits=Limits(**limits)))
        assert bool(found) == bool(broken)
        assert set(found) <= {"limit"}


def test_what_a_person_started_counts_when_the_news_is_old() -> None:
    """A leader cannot foresee it; but it must know of it in the end."""
    one_at_a_time = Envelope(limits=Limits(concurrent=1))
    for at, rules in ((100, []), (200, ["limit"])):
        story = Story()
        story.create("a")
        story.create("b", **other("web-2"))
        story.write("a", 1, {"suspend": False}, {"active": 1})
        story.admit("b", at)
        assert story.rules(envelope=one_at_a_time) == rules


def test_what_a_person_stopped_again_is_not_started_a_second_time() -> None:
    """Once a leader must have known that it ran; that it noted this is no admission."""
    for stops, rules in ((100, []), (200, ["restarted"])):
        story = Story()
        story.create("a")
        story.write("a", 1, {"suspend": False}, {"active": 1})
        story.write("a", stops, {"suspend": True}, {"active": 0})
        story.admit("a", stops + 400)
        assert story.rules() == rules
    for stops in (None, 3):
        story = Story()
        story.create("a")
        story.write("a", 1, {"suspend": False}, {"active": 1})
        if stops:
            story.write("a", stops, {"suspend": True}, {"active": 0})
        story.write("a", 5, admitted_at=format_time(after(5)))
        assert story.rules() == []
        story.write("a", 400, {"suspend": True}, {"active": 0})
        story.admit("a", 500)
        assert story.rules() == ["final"]


def test_what_nobody_started_is_not_noted_as_started() -> None:
    """A Job that waits goes on waiting."""
    story = Story()
    story.create("a")
    story.write("a", 5, admitted_at=format_time(after(5)))
    assert story.rules() == ["final"]


def test_nothing_starts_while_paused() -> None:
    """From the acknowledgement until somebody asks to resume."""
    story = Story()
    story.create("a")
    story.admit("a", 10)
    assert story.rules(pauses=[Pause(after(9))]) == ["paused"]
    assert story.rules(pauses=[Pause(after(9), after(10))]) == []
    assert story.rules(pauses=[Pause(after(11))]) == []


def test_nothing_starts_that_must_not() -> None:
    """Without approval, in mode dry-run, after its alert was resolved, after it was refused."""
    story = Story(approval=True)
    story.create("a")
    story.admit("a", 1)
    assert story.rules() == ["approval"]

    story = Story(mode=Mode.DRY_RUN)
    story.create("a")
    story.admit("a", 1)
    assert story.rules() == ["dry-run"]

    story = Story()
    story.create("a")
    story.write("a", 1, resolved_at=format_time(NOW))
    story.admit("a", 2)
    assert story.rules() == ["resolved"]

    story = Story()
    story.create("a")
    story.write("a", 1, decision="refused", reason="max-wait")
    story.admit("a", 2)
    assert story.rules() == ["final"]


def test_a_decision_is_final() -> None:
    """Neither its word nor its reason changes, and an end stays the end."""
    story = Story()
    story.create("a")
    story.write("a", 1, decision="refused", reason="max-wait")
    story.write("a", 2, reason="resolved")
    assert story.rules() == ["final"]

    story = Story()
    story.create("a")
    story.admit("a", 1)
    story.end("a", 2, "Failed")
    story.write("a", 3, decision="cancelled", reason="resolved")
    assert story.rules() == ["phase"]

    story = Story()
    story.create("a")
    story.admit("a", 1)
    story.write("a", 2, admitted_at=format_time(after(2)))
    assert story.rules() == ["final"]


def test_a_leader_before_never_writes_after_its_successor() -> None:
    """Each Job's stamps go one way."""
    story = Story()
    story.create("a")
    story.write("a", 1, term="new/2/t#1")
    story.admit("a", 2, "old/1/t#9")
    assert story.rules() == ["two-leaders"]


def test_a_resolved_alert_is_written_on_its_jobs() -> None:
    """On each firing Job that it ends, before its 200."""
    resolved = {"status": Status.RESOLVED, "starts_at": STARTS_AT, "ends_at": after(5)}
    story = Story()
    story.create("a")
    assert story.rules(answers=[answered(10, None, **resolved)]) == ["resolved"]
    story.write("a", 8, resolved_at=format_time(after(5)))
    assert story.rules(answers=[answered(10, None, **resolved)]) == []


def test_an_undoing_waits_and_has_something_to_undo() -> None:
    """It is not admitted before its delay, nor where no firing Job started."""
    story = Story()
    story.create("a")
    story.create("undo", 1, operario="u", status=Status.RESOLVED, ends_at=NOW)
    story.admit("undo", 30)
    assert story.rules() == ["undoing", "undoing"]

    story = Story()
    story.create("a")
    story.create("undo", 1, operario="u", status=Status.RESOLVED, ends_at=NOW)
    story.admit("a", 2)
    story.end("a", 3)
    story.admit("undo", 61)
    assert story.rules() == []
