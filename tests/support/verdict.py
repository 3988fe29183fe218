"""Checks the controller's guarantees in the history of the cluster's Jobs, with pure functions.

It reads what was written, as a watch tells it, and trusts no replica's opinion. The simulation
and the tests with real processes share it.

A promise is judged at each admission: nothing else that the controller does makes a Job start, so
that a limit which holds at each of them holds at every instant. What people do meanwhile (start a
suspended Job, stop one, delete one) the leader cannot foresee: it counts against an admission
only after `hearsay`, the time in which news of it must have reached every leader, and been noted
on the Job. What was stopped sooner again, and left nothing on it, is as if it had not been.

Effects are judged when they are settled, and runs that did not heal at each admission, by what the
writer must have known: what it was sent, where the history says that, else what is older than
`hearsay`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.catalog import Envelope
from tests.support.effects import (
    FINAL,
    HEALED,
    NOT_HEALED,
    PENDING,
    UNKNOWN,
    grace,
    possible_effects,
)
from tests.support.history import (
    Answered,
    Change,
    JobState,
    Pause,
    Violation,
    has_effect,
    parse_moment,
    read_state,
    starts_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_WOBBLE: Final = timedelta(seconds=60)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_NONE: Final = timedelta(0)
_FINAL: Final = frozenset({"Cancelled", "Refused", "Succeeded", "Failed"})
_WRITTEN_ONCE: Final = (
    "occurrence",
    "incident",
    "operario",
    "target",
    "starts_at",
    "received_at",
    "options",
)


def verdict(
    changes: Iterable[Change],
    answers: Iterable[Answered] = (),
    pauses: Iterable[Pause] = (),
    envelope: Envelope = Envelope(),  # noqa: B008 (frozen)
    *,
    forgotten: Iterable[str] = (),
    hearsay: timedelta = timedelta(minutes=3),
    slack: timedelta = _NONE,
) -> list[Violation]:
    """Judge a complete history; `forgotten` are the uids of Jobs that people deleted."""
    judge = Judge(envelope, hearsay=hearsay, slack=slack)
    judge.forgotten.update(forgotten)
    events: list[tuple[datetime, int, Any]] = [(item.moment, 1, item) for item in changes]
    events += [(item.answered, 2, item) for item in answers]
    for pause in pauses:
        events.append((pause.acknowledged, 3, True))
        if pause.resumed is not None:
            events.append((pause.resumed, 0, False))
    for moment, _, event in sorted(events, key=lambda item: item[:2]):
        match event:
            case Change():
                judge.change(event)
            case Answered():
                judge.answered(event)
            case True:
                judge.paused(moment)
            case _:
                judge.resumed()
    return judge.violations


@dataclass(slots=True)
class Judge:
    """Judges a history event by event, and adds to `violations`.

    `slack` is by how much the moments of two changes may lie closer together, or further apart,
    than they were: for a reader that hears of them late.
    """

    envelope: Envelope
    hearsay: timedelta = timedelta(minutes=3)
    slack: timedelta = _NONE
    violations: list[Violation] = field(default_factory=list)
    #: Uids of the Jobs that people deleted, which are added before the deletion is read.
    forgotten: set[str] = field(default_factory=set)
    #: All commits in order, with the text of each file by path; None if nobody records them.
    commits: Sequence[tuple[str, Mapping[str, str]]] | None = None
    _jobs: dict[str, JobState] = field(default_factory=dict)  # by uid, those that are there
    _gone: dict[tuple[str, str], JobState] = field(default_factory=dict)  # the last one of a name
    _incidents: defaultdict[str, dict[str, JobState]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _targets: defaultdict[str, dict[str, JobState]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _by_key: dict[tuple[str, str], JobState] = field(default_factory=dict)
    _occupying: dict[str, JobState] = field(default_factory=dict)
    _starts: list[JobState] = field(default_factory=list)  # of the last hour
    _paused: datetime | None = None
    #: By uid, the states of each Job that ever was; and those lists again by incident and target.
    _states: dict[str, list[JobState]] = field(default_factory=dict)
    _related: defaultdict[tuple[str, str], list[list[JobState]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _fired: defaultdict[tuple[tuple[str, str], ...], list[datetime]] = field(
        default_factory=lambda: defaultdict(list)
    )  # by labels, when the alert was sent as firing

    # What happened.

    def paused(self, moment: datetime) -> None:
        """Record an acknowledged pause."""
        self._paused = moment

    def resumed(self) -> None:
        """Record a request to resume."""
        self._paused = None

    def change(self, change: Change) -> None:
        """Process a change of a Job."""
        moment, job = change.moment, change.job
        uid = job["metadata"]["uid"]
        previous = self._jobs.get(uid)
        if change.kind == "DELETED":
            self._delete(moment, previous)
            return
        now = read_state(job, previous)
        now.seen = moment
        if previous is None:
            now.created = moment
            if now.admitted_at is not None:  # as seen by who began to look late
                now.admitted = moment
            elif not now.suspended:
                now.by_hand, now.touched = moment, True
        else:
            self._compare(moment, previous, now)
        self._file(now)
        if previous is not None:
            self._note_start(change, previous, now)
        now.starts = starts_of(previous, now)
        if now.occupying:
            self._occupying[uid] = now
        else:
            self._occupying.pop(uid, None)
        if previous is None:
            states = self._states[uid] = [now]
            for key in (("incident", now.incident), ("target", now.target)):
                self._related[key].append(states)
        elif _is_news(previous, now):
            self._states[uid].append(now)
        self._judge_effect(change, previous, now)
        self._judge_refusal(change, previous, now)

    def _note_start(self, change: Change, previous: JobState, now: JobState) -> None:
        """A Job may have been started, or stopped, and a start may have been noted on it."""
        moment = change.moment
        marked = previous.admitted_at is None and now.admitted_at is not None
        if marked and _started_by(previous, now):
            now.admitted = moment
            self._judge_admission(moment, previous, now)
            self._judge_breaker(change, previous, now)
            self._starts.append(now)
        elif not previous.occupying and now.occupying:
            # Nobody but a person starts what is not being admitted.
            now.by_hand, now.touched = moment, True
        elif (
            now.by_hand is not None
            and now.by_hand + self.hearsay > moment
            and not now.occupying
            and now.finished_at is None
            and now.admitted_at is None
        ):
            now.by_hand = None  # stopped again before every leader had to know
        if marked and now.admitted is None:
            if not now.touched:
                self._report(
                    moment, "final", f"{now.name} is recorded as started, but did not start"
                )
            now.by_hand = now.by_hand or moment

    def answered(self, delivered: Answered) -> None:
        """A delivery was answered with 200: what it told is in the cluster."""
        if delivered.job is not None:
            job = self._by_key.get(delivered.job)
            if job is None:
                job = self._gone.get(delivered.job)
                if job is not None and job.gone is not None and job.gone < delivered.sent:
                    job = None
            if job is None:
                self._report(
                    delivered.answered,
                    "lost",
                    f"{_path(delivered.job)} was answered and is not there",
                )
            elif (job.status, dict(job.labels)) != (delivered.status, dict(delivered.labels)) or (
                delivered.starts_at is not None and job.starts_at != delivered.starts_at
            ):
                self._report(
                    delivered.answered, "lost", f"{job.name} was answered for another alert"
                )
        if delivered.status == "resolved":
            self._judge_resolved(delivered)
        else:
            self._judge_still_firing(delivered)

    def sent(self, moment: datetime, labels: Mapping[str, str], status: str) -> None:
        """An alert was sent, whatever became of it."""
        if status == "firing":
            self._fired[tuple(sorted(labels.items()))].append(moment)

    def waiting(self) -> list[str]:
        """Jobs about which nothing has been decided, one line each."""
        return [f"{job.name} {job.phase}" for job in self._jobs.values() if job.waiting]

    def unexplained(self) -> list[str]:
        """Jobs that were decided without a word on why, or by nobody who leads."""
        return [
            job.name for job in self._jobs.values() if job.decision is not None and not job.reason
        ]

    def unsettled(self, *moments: datetime) -> list[str]:
        """Effects that can be nothing else at one of these moments, and are not settled so.

        They are settled once late deliveries had time to arrive.
        """
        lines = []
        for job in self._jobs.values():
            if not has_effect(job) or job.effect in FINAL or job.reason == "dry-run":
                continue
            others = [state.run for state in self._latest_of_incident(job)]
            for now in moments:
                known = now - grace(job.run)
                possible = possible_effects(job.run, others, known, self.slack)
                if len(possible) == 1 and not possible & {PENDING, job.effect}:
                    lines.append(f"the effect of {job.name} is {job.effect}, not {min(possible)}")
                    break
        return lines

    def effects(self) -> list[str]:
        """The settled effect of each Job that ever was."""
        last = (states[-1] for states in self._states.values())
        kinds = (("dry run " if job.dry_run else "") + (job.effect or "") for job in last)
        return [kind for kind in kinds if kind and not kind.endswith(" ")]

    def held(self, moment: datetime, uid: str, known: Callable[[str], int] | None) -> None:
        """A leader makes a Job wait as one that does not help."""
        job = self._jobs.get(uid)
        if job is None:
            return
        change = Change(moment, "MODIFIED", {}, known)
        if all(state.approved for state in self._known_states(uid, change)):
            self._report(moment, "not-helping", f"{job.name} is held, and was approved")
        limit = job.options.stop_after_not_healed
        count = max(self._not_healed(job, change).values(), default=0)
        if limit is None or count < limit:
            words = f"{job.name} is held after {count} runs that did not heal, limit {limit}"
            self._report(moment, "not-helping", words)

    def _not_healed(self, job: JobState, change: Change) -> Counter[str]:
        """How many runs of each version of a Job's operario may not have healed its target."""
        return Counter(
            states[-1].digest
            for states in self._related["target", job.target]
            if states[-1].operario == job.operario
            and NOT_HEALED in self._possible(states[-1].uid, change, waiting=job)
        )

    def _judge_refusal(self, change: Change, previous: JobState | None, now: JobState) -> None:
        """What does not help is refused only to make room for another version of the operario."""
        is_refused = now.decision == "refused" and now.reason == "not-helping"
        if not is_refused or (previous is not None and previous.decision is not None):
            return
        if all(state.approved for state in self._known_states(now.uid, change)):
            words = f"{now.name} is refused, and was approved"
            self._report(change.moment, "not-helping", words)
        limit, count = now.options.stop_after_not_healed, self._not_healed(now, change)[now.digest]
        if limit is None or count < limit:
            words = f"{now.name} is refused after {count} runs of its version that did not heal"
            self._report(change.moment, "not-helping", f"{words}, limit {limit}")
        if self.commits is not None and not _has_newer_version(now, self.commits):
            words = f"{now.name} is refused, and no later commit has another version"
            self._report(change.moment, "not-helping", words)

    def phases(self) -> dict[str, str]:
        """The phase of each Job that is there, by NAMESPACE/NAME."""
        return {job.name: job.phase for job in self._jobs.values()}

    # What must be so.

    def _report(self, moment: datetime, rule: str, words: str) -> None:
        self.violations.append(Violation(moment, rule, words))

    def _delete(self, moment: datetime, previous: JobState | None) -> None:
        if previous is None:
            return
        gone = replace(previous, gone=moment, seen=moment)
        del self._jobs[previous.uid]
        self._occupying.pop(previous.uid, None)
        self._by_key.pop(previous.key, None)
        self._incidents[previous.incident].pop(previous.uid, None)
        self._targets[previous.target].pop(previous.uid, None)
        self._gone[previous.key] = gone
        self._states[previous.uid].append(gone)
        remember = self.envelope.remember - self.slack
        if previous.uid in self.forgotten:
            return
        if previous.finished_at is not None and previous.ttl is not None:
            expired = previous.finished_at + timedelta(seconds=previous.ttl)
            if expired <= moment + self.slack and previous.ttl >= remember.total_seconds():
                return
        if previous.decision is not None and previous.delivered_at + remember <= moment:
            return
        self._report(
            moment, "lost", f"{previous.name} ({previous.phase}) was deleted by nobody who may"
        )

    def _compare(self, moment: datetime, previous: JobState, now: JobState) -> None:
        """Hold a Job's new state against the one before."""
        was, becomes = (previous.decision, previous.reason), (now.decision, now.reason)
        decided, admitted = previous.decision is not None, previous.admitted_at is not None
        admits = not admitted and now.admitted_at is not None
        broken = (
            ("final", decided and was != becomes, f"was {was} and is {becomes}"),
            ("final", decided and admits, f"was {previous.decision} and is admitted"),
            ("final", admitted and previous.admitted_at != now.admitted_at, "was admitted twice"),
            ("final", _rewritten(previous, now), "is another than it was created"),
            ("phase", _returned(previous, now), f"was {previous.phase} and is {now.phase}"),
            (
                "two-leaders",
                _overtaken(previous, now),
                f"was {previous.term}'s and is {now.term}'s",
            ),
        )
        for rule, holds, words in broken:
            if holds:
                self._report(moment, rule, f"{now.name} {words}")

    def _judge_admission(self, moment: datetime, previous: JobState, now: JobState) -> None:
        name = now.name
        if self._paused is not None and moment > self._paused + self.slack:
            words = f"{name} was admitted, the pause acknowledged at {self._paused:%H:%M:%S.%f}"
            self._report(moment, "paused", words)
        if self.envelope.paused:
            self._report(moment, "paused", f"{name} was admitted while openfero.yaml says paused")
        if now.options.approval and not previous.approved:
            self._report(moment, "approval", f"{name} was admitted and nobody approved it")
        if now.options.dry_run:
            self._report(moment, "dry-run", f"{name} was admitted in mode dry-run")
        if previous.by_hand is not None and self._news(previous, moment):
            words = f"{name} was admitted, a person started it at {previous.by_hand:%H:%M:%S.%f}"
            self._report(moment, "restarted", words)
        if previous.leaving:
            self._report(moment, "final", f"{name} was admitted while it is being deleted")
        if now.status == "firing" and now.resolved_at is not None and not now.options.keeps:
            self._report(moment, "resolved", f"{name} was admitted after its alert was resolved")
        self._judge_doubles(moment, now)
        self._judge_cooldown(moment, now)
        self._judge_limits(moment, now)
        if now.status == "resolved":
            self._judge_undoing(moment, now)

    def _news(self, earlier: JobState, moment: datetime) -> bool:
        """Whether a leader must know that a Job was started."""
        if earlier.admitted is not None and earlier.by_hand is None:
            return True
        return earlier.by_hand is not None and earlier.by_hand + self.hearsay <= moment

    def _judge_doubles(self, moment: datetime, now: JobState) -> None:
        for earlier in self._incidents[now.incident].values():
            if earlier.uid == now.uid or not (
                earlier.admitted is not None or (earlier.started and self._news(earlier, moment))
            ):
                continue
            if earlier.occurrence == now.occurrence:
                self._report(moment, "doubled", f"{now.name} and {earlier.name} are one occurrence")
            if (
                earlier.attempt == now.attempt
                and now.starts_at is not None
                and earlier.starts_at is not None
                and now.starts_at <= earlier.received_at + _WOBBLE
                and not (earlier.resolved_at is not None and now.starts_at > earlier.resolved_at)
            ):
                words = f"{now.name} started, and {earlier.name} healed this incident"
                self._report(moment, "healed-twice", words)

    def _judge_cooldown(self, moment: datetime, now: JobState) -> None:
        for earlier in self._targets[now.target].values():
            if earlier.uid == now.uid or not earlier.started:
                continue
            if earlier.occupying and self._news(earlier, moment):
                words = f"{now.name} started while {earlier.name} works on {now.target}"
                self._report(moment, "target", words)
            if (
                earlier.operario == now.operario
                and earlier.finished_at is not None
                and earlier.finished_at + now.options.cooldown > moment + self.slack
                and self._news(earlier, moment)
            ):
                words = (
                    f"{now.name} started {(moment - earlier.finished_at).total_seconds():.3f} s"
                    f" after {earlier.name} ended, within the cooldown"
                )
                self._report(moment, "healed-twice", words)

    def _judge_limits(self, moment: datetime, now: JobState) -> None:
        running = [
            job for job in self._occupying.values() if job.uid == now.uid or self._news(job, moment)
        ]
        if now.uid not in self._occupying:
            running.append(now)
        self._limit(moment, now, "concurrent", len(running), self.envelope.limits.concurrent)
        mine = sum(job.operario == now.operario for job in running)
        self._limit(moment, now, "max-concurrent", mine, now.options.max_concurrent)
        past = [job for job in self._starts if job.admitted and job.admitted > moment - _HOUR]
        self._starts = past
        # (Deleting a Job means to forget it.)
        existing = [self._jobs[job.uid] for job in past if job.uid in self._jobs]
        minute = sum(_since(job, moment) < _MINUTE - self.slack for job in existing) + 1
        self._limit(moment, now, "perMinute", minute, self.envelope.limits.per_minute)
        hour = 1 + sum(
            job.operario == now.operario and _since(job, moment) < _HOUR - self.slack
            for job in existing
        )
        self._limit(moment, now, "max-per-hour", hour, now.options.max_per_hour)

    def _limit(self, moment: datetime, now: JobState, name: str, count: int, limit: int) -> None:
        if count > limit:
            self._report(moment, "limit", f"{now.name} is number {count}, and {name} is {limit}")

    def _judge_breaker(self, change: Change, previous: JobState, now: JobState) -> None:
        """No further start after so many runs on a target that did not heal it."""
        limit = now.options.stop_after_not_healed
        if limit is None or now.status != "firing" or previous.approved:
            return
        runs = [
            states[-1]
            for states in self._related["target", now.target]
            if states[-1].operario == now.operario
            and states[-1].uid != now.uid
            and states[-1].status == "firing"
            and states[-1].starts
        ]
        names: list[str] = []
        for run in sorted(runs, key=lambda run: max(run.starts), reverse=True):
            possible = self._possible(run.uid, change, waiting=now)
            if possible <= {PENDING, UNKNOWN}:
                continue
            if HEALED in possible or run.digest != now.digest or run.gone is not None:
                return
            if possible == {NOT_HEALED}:
                names.append(run.name)
            if len(names) == limit:
                words = f"{now.name} was admitted, and {', '.join(names)} did not heal {now.target}"
                self._report(change.moment, "not-helping", words)
                return

    def _judge_effect(self, change: Change, previous: JobState | None, now: JobState) -> None:
        """A settled effect must be right, and stay."""
        moment = change.moment
        was = (previous.effect, previous.effect_at, previous.effect_message) if previous else None
        becomes = (now.effect, now.effect_at, now.effect_message)
        still = previous.still_firing_at if previous else None
        if now.still_firing_at != still:
            self._judge_still_firing_mark(moment, still, now)
        if becomes == (was or (None, None, None)):
            return
        if previous is None or (previous.effect in FINAL) or now.effect is None:
            words = f"the effect of {now.name} was {was and was[0]} and is {now.effect}"
            self._report(moment, "effect", f"{words}: {now.effect_message}")
            return
        if now.reason == "dry-run" and now.starts:
            return  # nothing may show any more that a person started it
        possible = self._possible(now.uid, change, settling=True)
        if not has_effect(now) or now.effect not in possible or now.effect == PENDING:
            words = f"the effect of {now.name} is settled as {now.effect}, "
            words += f"and can be {sorted(possible)}: {now.effect_message}"
            self._report(moment, "effect", words)
        if now.effect_at is None or now.effect_at > moment + self.slack or not now.effect_message:
            self._report(moment, "effect", f"{now.name} is settled as of {now.effect_at}")

    def _judge_still_firing_mark(
        self, moment: datetime, was: datetime | None, now: JobState
    ) -> None:
        """That an alert still fires is recorded once, and only if it was delivered so late."""
        mark, deadline = now.still_firing_at, now.run.deadline
        if was is not None or mark is None:
            words = f"{now.name} was still firing at {was}, now at {mark}"
            self._report(moment, "effect", words)
        elif now.reason != "dry-run" and (deadline is None or mark < deadline - self.slack):
            # (Nothing shows that a person started a refused Job, once it is suspended again.)
            words = f"{now.name} is marked as still firing at {mark}, too soon ({deadline})"
            self._report(moment, "effect", words)
        elif self._fired and not any(
            sent <= mark + self.slack and sent + self.hearsay >= mark
            for sent in self._fired[now.labels]
        ):
            self._report(moment, "effect", f"{now.name}: nobody said that it fires at {mark}")

    def _judge_still_firing(self, delivered: Answered) -> None:
        """What still fires long after it should have healed is written on its Jobs."""
        labels = tuple(sorted(delivered.labels.items()))
        for job in self._jobs.values():
            deadline = job.run.deadline
            if (
                has_effect(job)
                and job.labels == labels
                and job.effect not in FINAL
                and job.resolved_at is None
                and job.still_firing_at is None
                and deadline is not None
                and delivered.sent > deadline + self.hearsay
                and delivered.sent > job.seen + self.hearsay
                and not _is_later_alert(delivered, job)
            ):
                words = f"{job.name} was not told that its alert still fires"
                self._report(delivered.answered, "effect", words)

    # What a writer knew.

    def _known_states(self, uid: str, change: Change) -> list[JobState]:
        """The states of a Job of which the writer may have known the last; at least one."""
        states = self._states[uid]
        known = 0
        for number, state in enumerate(states):
            if (
                state.version <= change.known(uid)
                if change.known is not None and state.gone is None
                else state.seen + self.hearsay <= change.moment
            ):
                known = number
        return states[known:]

    def _possible(
        self,
        uid: str,
        change: Change,
        *,
        settling: bool = False,
        waiting: JobState | None = None,
    ) -> frozenset[str]:
        """Every effect that a Job can have, for the writer of a change.

        With `settling` the last state is what the change made of it, which does not count. With
        `waiting`, the Job about whose start it is, the other Jobs of the incident show that the
        alert still fired when they were delivered.
        """
        states = self._known_states(uid, change)
        if settling:
            states = states[:-1] or states
        others = [
            self._known_states(other.uid, change)
            for other in self._latest_of_incident(states[-1], gone=True)
        ]
        oldest = [
            known[0].run
            for known in others
            if (waiting is not None and known[0].uid == waiting.uid)
            or (self._must_know(known[0], change) and known[-1].gone is None)
        ]
        newest = [known[-1].run for known in others]
        return frozenset().union(
            *(
                possible_effects(
                    state.run, known, change.moment, self.slack, deliveries=waiting is not None
                )
                for state in states
                for known in (oldest, newest)
            )
        )

    def _must_know(self, state: JobState, change: Change) -> bool:
        """Whether the writer must have known that a Job exists."""
        if change.known is not None:
            return change.known(state.uid) >= state.version
        return state.created + self.hearsay <= change.moment

    def _latest_of_incident(self, job: JobState, *, gone: bool = False) -> Iterator[JobState]:
        """The other Jobs of the same labels, as they are, or were last."""
        for states in self._related["incident", job.incident]:
            last = states[-1]
            if last.uid != job.uid and last.status == "firing" and (gone or last.gone is None):
                yield last

    def _judge_undoing(self, moment: datetime, now: JobState) -> None:
        if moment + self.slack < now.received_at + now.options.resolve_delay:
            self._report(moment, "undoing", f"{now.name} did not wait for its resolve-delay")
        fired = [
            job
            for jobs in (self._jobs.values(), self._gone.values())
            for job in jobs
            if job.status == "firing" and job.labels == now.labels and job.started
        ]
        if not fired:
            self._report(moment, "undoing", f"{now.name} started, and there is nothing to undo")

    def _judge_resolved(self, delivered: Answered) -> None:
        """Before its 200 a resolved alert is written on every Job that it ends."""
        ends = delivered.ends_at or delivered.sent
        labels = tuple(sorted(delivered.labels.items()))
        for job in self._jobs.values():
            if (
                job.status == "firing"
                and job.labels == labels
                and job.created <= delivered.sent
                and (job.starts_at is None or job.starts_at <= ends)
                and job.resolved_at is None
            ):
                self._report(
                    delivered.answered, "resolved", f"{job.name} was not told that it is over"
                )

    def _file(self, now: JobState) -> None:
        self._jobs[now.uid] = self._by_key[now.key] = now
        self._incidents[now.incident][now.uid] = now
        self._targets[now.target][now.uid] = now


def _started_by(previous: JobState, now: JobState) -> bool:
    """Whether one write started a Job, or handed it to Kueue."""
    return (previous.suspended and not now.suspended) or (now.queued and not previous.queued)


def _has_newer_version(job: JobState, commits: Sequence[tuple[str, Mapping[str, str]]]) -> bool:
    """Whether a commit after that of a Job has another text of its operario's file."""
    numbers = [number for number, (commit, _) in enumerate(commits) if commit == job.commit]
    if not numbers:
        return False
    number = numbers[0]
    text = commits[number][1].get(job.path)
    return any(files.get(job.path, text) != text for _, files in commits[number:])


def _rewritten(previous: JobState, now: JobState) -> bool:
    """Whether what is written once has changed."""
    resolved = previous.resolved_at is not None and now.resolved_at != previous.resolved_at
    return resolved or any(
        getattr(previous, field) != getattr(now, field) for field in _WRITTEN_ONCE
    )


def _returned(previous: JobState, now: JobState) -> bool:
    """Whether a Job left a phase that none leaves, or waits again after it was admitted."""
    if previous.phase in _FINAL:
        return now.phase != previous.phase
    return now.waiting and previous.admitted_at is not None


def _is_news(previous: JobState, now: JobState) -> bool:
    """Whether a change of a Job can change an effect, or a start that depends on one."""
    return any(
        getattr(previous, field) != getattr(now, field)
        for field in (
            "starts",
            "finished_at",
            "decision",
            "resolved_at",
            "still_firing_at",
            "effect",
            "approved",
        )
    )


def _is_later_alert(delivered: Answered, job: JobState) -> bool:
    """Whether a delivery is of an alert that began later, and has a Job of its own."""
    if delivered.starts_at is None or job.starts_at is None:
        return False
    return delivered.starts_at > job.received_at + _WOBBLE


def _overtaken(previous: JobState, now: JobState) -> bool:
    """Whether the write of a leader counted after one of its successor."""
    if previous.term is None or previous.term == now.term:
        return False
    return now.term is None or _term_number(now.term) < _term_number(previous.term)


def _since(job: JobState, moment: datetime) -> timedelta:
    """How long ago a Job was admitted.

    That is when it was written; but of one that Kueue starts nothing on it tells this, nor of one
    that was suspended again, so that the leaders after can only go by when it was sent.
    """
    sent = parse_moment(job.admitted_at) if job.queued or job.suspended else None
    return moment - (sent or job.admitted or moment)


def _term_number(term: str) -> int:
    """Which leadership in order a stamp belongs to: `IDENTITY/NUMBER/TIME#COUNT`."""
    number = term.rpartition("#")[0].rsplit("/", 2)[-2:]
    return int(number[0]) if len(number) == 2 and number[0].isdecimal() else 0


def _path(key: tuple[str, str]) -> str:
    return "/".join(key)
