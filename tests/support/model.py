"""A model of admission: the rules of the design, as plainly as possible.

It shares no code with what it specifies. A `Run` is a remediation as these rules see it; `refusals`
and `holds` name every rule that prevents its start. If both are empty, it starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
#: Refusals after which the next delivery of a firing alert is another attempt.
REPEATED = ("max-wait", "not-helping")


@dataclass(eq=False)
class Run:
    """A Job: its purpose and its state."""

    name: str
    operario: str
    labels: tuple[tuple[str, str], ...]
    status: str  # firing, resolved
    starts: datetime | None  # when the alert says it began
    attempt: int
    received: datetime
    target: str
    options: Options
    state: str = "waiting"  # running, queued, held, succeeded, failed, refused, cancelled
    reason: str = ""
    pods: bool = False  # some of its Pods exist
    unwritten: bool = False  # it was refused in this very look
    approved: bool = False
    resolved: datetime | None = None
    started: datetime | None = None
    began: datetime | None = None  # when Kubernetes started it, which Kueue may do later
    ended: datetime | None = None
    version: int = 0  # of the operario
    heard: datetime | None = None  # when its alert was still firing, though it should have healed
    effect: str = ""  # as settled

    @property
    def busy(self) -> bool:
        """Whether it counts against the limits, and works on its target."""
        return self.state in ("running", "queued") or self.pods

    @property
    def waits(self) -> bool:
        """Whether a decision is pending."""
        return self.state == "waiting"

    @property
    def open(self) -> bool:
        """It works on its target, or nobody has written yet that it will not."""
        return self.waits or self.busy or self.unwritten

    @property
    def place(self) -> tuple[datetime, str]:
        """Its place in the queue, among those of its priority."""
        return (self.received, self.name)


@dataclass(frozen=True)
class Options:
    """The options of the operario."""

    priority: int = 0
    cooldown: timedelta = timedelta(minutes=10)
    max_concurrent: int = 5
    max_per_hour: int = 30
    max_wait: timedelta = HOUR
    rerun_after: timedelta = timedelta(0)
    max_runs: int = 3
    approval: bool = False
    on_resolve: str = "cancel"
    resolve_delay: timedelta = MINUTE
    dry_run: bool = False
    heals_within: timedelta = 15 * MINUTE
    stop_after: int | None = 3


@dataclass
class Rules:
    """All runs, and the rules over them."""

    concurrent: int = 20
    per_minute: int = 60
    paused: bool = False
    catalog: bool = True
    versions: dict[str, int] = field(default_factory=dict)  # by operario, as in Git
    runs: list[Run] = field(default_factory=list)

    # Invariants 2 and 3: once for each occurrence, once for each incident.

    def goes_before(self, rival: Run, candidate: Run) -> bool:
        """It has started, or waits in front."""
        return rival.started is not None or (rival.waits and rival.place < candidate.place)

    def same_incident(self, candidate: Run, rival: Run) -> bool:
        """Whether an alert only wobbles: not later than a minute after the rival's delivery."""
        if candidate.starts is None or rival.starts is None:
            return False
        if rival.resolved is not None and candidate.starts > rival.resolved:
            return False
        return candidate.starts <= rival.received + MINUTE

    def doubles(self, candidate: Run) -> set[str]:
        """Return the rules by which another run has the same purpose."""
        reasons = set()
        for rival in self.runs:
            if rival is candidate or (rival.labels, rival.status) != (
                candidate.labels,
                candidate.status,
            ):
                continue
            if rival.attempt != candidate.attempt:
                continue
            before = self.goes_before(rival, candidate)
            refused = rival.state in ("refused", "cancelled")
            for_good = refused and rival.reason not in (
                "same-occurrence",
                *REPEATED,
            )
            if (
                candidate.starts is not None
                and rival.starts == candidate.starts
                and (before or for_good)
            ):
                reasons.add("same-occurrence")
            if before and self.same_incident(candidate, rival):
                reasons.add("same-incident")
        return reasons

    # What is never started.

    def refusals(self, candidate: Run, now: datetime) -> set[str]:
        """Return the rules by which it must never start."""
        reasons = self.doubles(candidate)
        if candidate.status == "firing":
            if candidate.resolved is not None and candidate.options.on_resolve != "keep":
                reasons.add("resolved")
        else:
            reasons |= self.needless(candidate)
        if candidate.options.max_wait and now > candidate.received + candidate.options.max_wait:
            reasons.add("max-wait")
        if candidate.options.dry_run:
            reasons.add("dry-run")
        outdated = candidate.version != self.versions.get(candidate.operario, 0)
        if self.catalog and outdated and self.in_vain(candidate, now):
            reasons.add("not-helping")
        return reasons

    def fires(self, candidate: Run) -> list[Run]:
        """The firing runs that a resolved candidate would undo."""
        return [
            run for run in self.runs if run.labels == candidate.labels and run.status == "firing"
        ]

    def needless(self, candidate: Run) -> set[str]:
        """Why a resolved candidate must not run: it fires again, or nothing was done since."""
        reasons = set()
        for fire in self.fires(candidate):
            wobble = fire.reason in ("same-incident", "same-occurrence")
            later = candidate.starts and fire.starts and fire.starts > candidate.starts
            if later and fire.resolved is None and not wobble:
                reasons.add("firing-again")
        if not any(fire.open for fire in self.fires(candidate)):
            undone = [
                run.started
                for run in self.runs
                if (run.labels, run.status, run.state)
                == (candidate.labels, "resolved", "succeeded")
                and run.started is not None
            ]
            done = [fire.started for fire in self.fires(candidate) if fire.started is not None]
            if not done or (undone and max(done) <= max(undone)):
                reasons.add("nothing-to-undo")
        return reasons

    # What did not help.

    def effect(self, run: Run, now: datetime) -> str:
        """Whether a run healed its alert; empty while that is not known, or never will be."""
        if run.effect or run.status != "firing" or run.began is None or run.ended is None:
            return run.effect
        fires = [fire for fire in self.fires(run) if fire is not run]
        again = [
            fire.starts
            for fire in fires
            if fire.starts and run.starts and fire.starts > run.began
            if not self.same_incident(fire, run)
        ]
        # Another run was needed, for the same alert.
        needed = [
            fire.began
            for fire in fires
            if fire.began and fire.began > run.ended
            if fire.starts == run.starts or self.same_incident(fire, run)
        ]
        within = run.options.heals_within
        due = run.ended + within
        if run.resolved is not None and run.resolved < run.began:
            return ""  # by itself
        if run.resolved is None or any(start <= run.resolved for start in again):
            heard = run.heard or any(
                self.still_firing(run, fire.starts, fire.received) for fire in fires
            )
            late = now > due and any(start <= due for start in needed)
            return "not-healed" if heard or late or any(t <= due + within for t in again) else ""
        resolved = run.resolved
        if resolved > due or any(start <= resolved for start in needed):
            return "not-healed"
        if any(start <= resolved + within for start in again):
            return "not-healed"
        return "healed" if now >= resolved + within else ""

    def still_firing(self, run: Run, starts: datetime | None, delivered: datetime) -> bool:
        """Whether the delivery of an alert shows that a run for it did not heal.

        A dry run is seen as one that did nothing, at once.
        """
        dry = run.began is None and (run.state, run.reason) == ("refused", "dry-run")
        ended = run.received if dry else run.ended
        if run.status != "firing" or ended is None or (run.began is None and not dry):
            return False
        if run.heard or run.resolved or run.effect:
            return False
        same = starts is None or run.starts is None or starts <= run.received + MINUTE
        return same and delivered > ended + run.options.heals_within

    def in_vain(self, candidate: Run, now: datetime) -> bool:
        """Whether the last runs on the target did not heal, and nobody and nothing changed that."""
        most = candidate.options.stop_after
        if most is None or candidate.approved or candidate.status != "firing":
            return False
        effects = [
            (self.effect(run, now), run.version)
            for run in sorted(self.runs, key=lambda run: (run.began or now, run.place))
            if (run.operario, run.target) == (candidate.operario, candidate.target)
            if run.began is not None and self.effect(run, now)
        ]
        versions = (candidate.version, self.versions.get(candidate.operario, 0))
        return any(effects[-most:] == [("not-healed", version)] * most for version in versions)

    # What is not started yet.

    def holds(self, candidate: Run, now: datetime) -> set[str]:
        """Return the rules by which it must not start now."""
        reasons = set()
        if not self.catalog:
            return {"no-catalog"}
        if self.paused:
            reasons.add("paused")
        if candidate.options.approval and not candidate.approved:
            reasons.add("approval")
        if self.in_vain(candidate, now):
            reasons.add("not-helping")
        if candidate.status == "resolved":
            if now < candidate.received + candidate.options.resolve_delay:
                reasons.add("resolve-delay")
            if any(fire.open for fire in self.fires(candidate)):
                reasons.add("firing-runs")
        busy = [run for run in self.runs if run.busy]
        mine = [run for run in self.runs if run.operario == candidate.operario]
        if any(run.target == candidate.target for run in busy):
            reasons.add("target-busy")
        if any(cools(run, candidate, now) for run in mine):
            reasons.add("cooldown")
        limits = {
            "max-concurrent": (sum(run.busy for run in mine), candidate.options.max_concurrent),
            "limit-concurrent": (len(busy), self.concurrent),
            "max-per-hour": (
                sum(lately(run, HOUR, now) for run in mine),
                candidate.options.max_per_hour,
            ),
            "limit-per-minute": (
                sum(lately(run, MINUTE, now) for run in self.runs),
                self.per_minute,
            ),
        }
        return reasons | {limit for limit, (count, most) in limits.items() if count >= most}

    # What an alert that is delivered again is owed.

    def next_attempt(
        self, labels: tuple[tuple[str, str], ...], starts: datetime, now: datetime
    ) -> int | None:
        """The number of the attempt that a firing delivery begins; None where none is owed."""
        attempt = 1
        ran = 0
        while True:
            same = [
                run
                for run in self.runs
                if (run.labels, run.status, run.attempt) == (labels, "firing", attempt)
            ]
            own = [run for run in same if run.starts == starts]
            if not own:
                return attempt
            last = own[0]
            if last.reason in ("same-incident", "same-occurrence"):
                # Another heals in its place.
                others = [
                    run
                    for run in same
                    if run.reason not in ("same-incident", "same-occurrence")
                    and (run.starts == starts or self.same_incident(last, run))
                ]
                last = max(
                    others,
                    key=lambda run: (
                        run.state in ("waiting", "running", "queued", "held"),
                        run.started is not None,
                        run.place,
                    ),
                    default=last,
                )
            ran += last.started is not None
            again = last.options.rerun_after
            waited = last.state == "refused" and last.reason in REPEATED
            reruns = (
                last.state in ("succeeded", "failed")
                and last.ended is not None
                and last.resolved is None
                and again > timedelta(0)
                and now >= last.ended + again
                and ran < last.options.max_runs
            )
            if not (waited or reruns):
                return None
            attempt += 1


def cools(run: Run, candidate: Run, now: datetime) -> bool:
    """Whether a run ended too short a time ago for another on its target."""
    if run.target != candidate.target or run.started is None or run.ended is None:
        return False
    return now < run.ended + candidate.options.cooldown


def lately(run: Run, window: timedelta, now: datetime) -> bool:
    """Whether it started within so much time."""
    return run.started is not None and run.started > now - window
