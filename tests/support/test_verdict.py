"""The judge reports each broken guarantee, and nothing else."""

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
from tests.support.history import Answered, Change, Pause
from tests.support.verdict import verdict

if TYPE_CHECKING:
    from datetime import datetime

    from tests.support.history import Violation


class Story:
    """A history of writes, each at a number of seconds after `NOW`."""

    def __init__(self, **options: Any) -> None:
        self.options = Options(**options)
        self.changes: list[Change] = []
        self._last: dict[str, dict[str, Any]] = {}

    def create(self, uid: str, at: float = 0.0, *, operario: str = "a", **alert: Any) -> None:
        """Create a suspended Job for an alert."""
        manifest = build.rendered(
            build.alert(**alert),
            build.operario(operario, options=self.options),
            delivered=build.delivery(received_at=NOW + seconds(at)),
        ).manifest
        job = build.stored(manifest, metadata={"uid": uid, "name": uid})
        self._record(at, "ADDED", uid, job)

    def write(
        self, uid: str, at: float, spec: Any = None, status: Any = None, **marks: str
    ) -> None:
        """Change annotations, spec and status of a Job; `_` in a name is `-`."""
        job = self._last[uid]
        annotations = {keys.PREFIX + key.replace("_", "-"): value for key, value in marks.items()}
        metadata = job["metadata"]
        metadata = {**metadata, "annotations": {**metadata["annotations"], **annotations}}
        changed = {"metadata": metadata, "spec": {**job["spec"], **(spec or {})}}
        self._record(at, "MODIFIED", uid, {**job, **changed, "status": status or job["status"]})

    def admit(self, uid: str, at: float, term: str = "r/1/t#1") -> None:
        """Admit a Job as a leader."""
        mark = format_time(NOW + seconds(at))
        self.write(uid, at, {"suspend": False}, {"active": 1}, admitted_at=mark, term=term)

    def end(self, uid: str, at: float, how: str = "Complete") -> None:
        """Finish a Job."""
        time = format_time(NOW + seconds(at))
        condition = {"type": how, "status": "True", "lastTransitionTime": time}
        self.write(uid, at, None, {"conditions": [condition]})

    def delete(self, uid: str, at: float) -> None:
        """Delete a Job."""
        self._record(at, "DELETED", uid, self._last[uid])

    def _record(self, at: float, kind: str, uid: str, job: dict[str, Any]) -> None:
        self._last[uid] = job
        self.changes.append(Change(NOW + seconds(at), kind, job))

    def rules(self, **given: Any) -> list[str]:
        """Return the broken rules."""
        return [violation.rule for violation in self.violations(**given)]

    def violations(self, **given: Any) -> list[Violation]:
        """Return the violations."""
        return verdict(self.changes, **given)


def about_pod(name: str) -> dict[str, Any]:
    """Return the labels of an alert for a Pod."""
    return {"labels": {"alertname": "PodCrashLooping", "pod": name}}


def after(seconds_later: float) -> datetime:
    """Return the time a number of seconds after `NOW`."""
    return NOW + seconds(seconds_later)


def answered(at: float, job: str | None, **given: Any) -> Answered:
    """Return the alert of `Story.create` as an answered delivery."""
    delivered = build.alert(**given)
    key = (build.JOBS_NAMESPACE, job) if job else None
    labels, status = delivered.labels, delivered.status.value
    return Answered(
        after(at - 1), after(at), labels, status, delivered.starts_at, delivered.ends_at, key
    )


def test_a_job_that_ran_once_breaks_no_rule() -> None:
    """A Job is created, admitted, finished and removed by its TTL without a violation."""
    story = Story()
    story.create("a")
    story.admit("a", 5)
    story.end("a", 10)
    story.delete("a", 10 + 86_400)

    assert story.violations(answers=[answered(3, "a")]) == []


def test_an_answer_names_an_existing_job() -> None:
    """An answer with a missing Job, a deleted Job, or the Job of another alert is a loss."""
    story = Story()
    story.create("a")
    assert story.rules(answers=[answered(3, "b")]) == ["lost"]
    assert story.rules(answers=[answered(3, "a", **about_pod("web-2"))]) == ["lost"]
    assert story.rules(answers=[answered(3, "a", starts_at=NOW)]) == ["lost"]
    story.delete("a", 10)
    assert story.rules(answers=[answered(10.5, "a")], forgotten=["a"]) == []
    assert story.rules(answers=[answered(20, "a")], forgotten=["a"]) == ["lost"]


def test_only_people_and_time_remove_jobs() -> None:
    """A Job that is removed too early is lost, unless a person deleted it."""
    story = Story()
    story.create("a")
    story.write("a", 1, decision="refused", reason="resolved", message="it was")
    story.delete("a", 3600)
    assert story.rules() == ["lost"]
    assert story.rules(forgotten=["a"]) == []
    assert story.rules(envelope=Envelope(remember=minutes(50))) == []


def test_one_occurrence_starts_once() -> None:
    """Two started Jobs of the same occurrence are a violation."""
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
    """No Job starts on a target while another runs there, or within the cooldown after its end."""
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
    """The cooldown does not count from the time of the Job's condition."""
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
    """Return the time a number of seconds after `NOW`, as text."""
    return format_time(after(seconds_later))


def crowd(count: int, apart: float, runs_for: float, **options: Any) -> Story:
    """Return a history of Jobs that are admitted in order."""
    story = Story(**options)
    for number in range(count):
        story.create(f"j{number}", **about_pod(f"web-{number}"))
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
    """Only one more Job than the limit is a violation."""
    for count, apart, runs_for, broken in ((6, 9, 20, 1), (5, 9, 18, 0)):
        story = crowd(count, apart, runs_for, **options)
        broken_rules = story.rules(envelope=Envelope(limits=Limits(**limits)))
        assert bool(broken_rules) == bool(broken)
        assert set(broken_rules) <= {"limit"}


def test_a_job_started_by_a_person_counts_after_the_hearsay_time() -> None:
    """A leader must count a Job that a person started, after the `hearsay` time."""
    one_at_a_time = Envelope(limits=Limits(concurrent=1))
    for at, rules in ((100, []), (200, ["limit"])):
        story = Story()
        story.create("a")
        story.create("b", **about_pod("web-2"))
        story.write("a", 1, {"suspend": False}, {"active": 1})
        story.admit("b", at)
        assert story.rules(envelope=one_at_a_time) == rules


def test_a_job_stopped_by_a_person_is_not_started_again() -> None:
    """The rule applies when a leader must know that the Job ran; its note is not an admission."""
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


def test_a_waiting_job_is_not_marked_as_started() -> None:
    """An admission mark without a start is a violation."""
    story = Story()
    story.create("a")
    story.write("a", 5, admitted_at=format_time(after(5)))
    assert story.rules() == ["final"]


def test_nothing_starts_while_paused() -> None:
    """The pause lasts from its acknowledgement until a request to resume."""
    story = Story()
    story.create("a")
    story.admit("a", 10)
    assert story.rules(pauses=[Pause(after(9))]) == ["paused"]
    assert story.rules(pauses=[Pause(after(9), after(10))]) == []
    assert story.rules(pauses=[Pause(after(11))]) == []


def test_no_forbidden_job_starts() -> None:
    """No Job starts without approval, in dry-run mode, or after its resolution or refusal."""
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
    """Neither the decision nor its reason changes, and a finished Job stays finished."""
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


def test_a_former_leader_never_writes_after_its_successor() -> None:
    """The terms on a Job only increase."""
    story = Story()
    story.create("a")
    story.write("a", 1, term="new/2/t#1")
    story.admit("a", 2, "old/1/t#9")
    assert story.rules() == ["two-leaders"]


def test_a_resolved_alert_is_written_on_its_jobs() -> None:
    """Before the 200, the resolution is written on each firing Job that it ends."""
    resolved = {"status": Status.RESOLVED, "starts_at": STARTS_AT, "ends_at": after(5)}
    story = Story()
    story.create("a")
    assert story.rules(answers=[answered(10, None, **resolved)]) == ["resolved"]
    story.write("a", 8, resolved_at=format_time(after(5)))
    assert story.rules(answers=[answered(10, None, **resolved)]) == []


def test_an_undo_job_waits_and_has_something_to_undo() -> None:
    """It is not admitted before its delay, nor if no firing Job started."""
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
