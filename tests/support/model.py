"""What admission must do, told once more and as plainly as can be: the rules of the design alone.

It shares no code with what it specifies. A `Run` is a remediation as these rules see it; `refusals`
and `holds` name every rule that speaks against starting it. Where both are empty, it starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@dataclass(eq=False)
class Run:
    """One Job: what it is for, and what has become of it."""

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
    pods: bool = False  # any of it are there
    unwritten: bool = False  # it was refused in this very look
    approved: bool = False
    resolved: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def busy(self) -> bool:
        """It takes room, and works on its target."""
        return self.state in ("running", "queued") or self.pods

    @property
    def waits(self) -> bool:
        """It has to be decided about."""
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
    """What the operario says."""

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


@dataclass
class Rules:
    """Every run that is there, and the rules over them."""

    concurrent: int = 20
    per_minute: int = 60
    paused: bool = False
    catalog: bool = True
    runs: list[Run] = field(default_factory=list)

    # Invariants 2 and 3: once for each occurrence, once for each incident.

    def goes_before(self, other: Run, one: Run) -> bool:
        """It has started, or waits in front."""
        return other.started is not None or (other.waits and other.place < one.place)

    def one_incident(self, one: Run, other: Run) -> bool:
        """Whether an alert only wobbles: not later than a minute after the other's delivery."""
        if one.starts is None or other.starts is None:
            return False
        if other.resolved is not None and one.starts > other.resolved:
            return False
        return one.starts <= other.received + MINUTE

    def doubles(self, one: Run) -> set[str]:
        """Whether another run is there for the same."""
        found = set()
        for other in self.runs:
            if other is one or (other.labels, other.status) != (one.labels, one.status):
                continue
            if other.attempt != one.attempt:
                continue
            before = self.goes_before(other, one)
            refused = other.state in ("refused", "cancelled")
            for_good = refused and other.reason not in ("same-occurrence", "max-wait")
            if one.starts is not None and other.starts == one.starts and (before or for_good):
                found.add("same-occurrence")
            if before and self.one_incident(one, other):
                found.add("same-incident")
        return found

    # What is never started.

    def refusals(self, one: Run, now: datetime) -> set[str]:
        """Why it must never start."""
        found = self.doubles(one)
        if one.status == "firing":
            if one.resolved is not None and one.options.on_resolve != "keep":
                found.add("resolved")
        else:
            found |= self.needless(one)
        if one.options.max_wait and now > one.received + one.options.max_wait:
            found.add("max-wait")
        if one.options.dry_run:
            found.add("dry-run")
        return found

    def fires(self, one: Run) -> list[Run]:
        """The firing runs that a resolved one would undo."""
        return [run for run in self.runs if run.labels == one.labels and run.status == "firing"]

    def needless(self, one: Run) -> set[str]:
        """Why a resolved one must not run: it fires again, or nothing was done since."""
        found = set()
        for fire in self.fires(one):
            wobble = fire.reason in ("same-incident", "same-occurrence")
            later = one.starts and fire.starts and fire.starts > one.starts
            if later and fire.resolved is None and not wobble:
                found.add("firing-again")
        if not any(fire.open for fire in self.fires(one)):
            undone = [
                run.started
                for run in self.runs
                if (run.labels, run.status, run.state) == (one.labels, "resolved", "succeeded")
                and run.started is not None
            ]
            done = [fire.started for fire in self.fires(one) if fire.started is not None]
            if not done or (undone and max(done) <= max(undone)):
                found.add("nothing-to-undo")
        return found

    # What is not started yet.

    def holds(self, one: Run, now: datetime) -> set[str]:
        """Why it must not start now."""
        found = set()
        if not self.catalog:
            return {"no-catalog"}
        if self.paused:
            found.add("paused")
        if one.options.approval and not one.approved:
            found.add("approval")
        if one.status == "resolved":
            if now < one.received + one.options.resolve_delay:
                found.add("resolve-delay")
            if any(fire.open for fire in self.fires(one)):
                found.add("firing-runs")
        busy = [run for run in self.runs if run.busy]
        mine = [run for run in self.runs if run.operario == one.operario]
        if any(run.target == one.target for run in busy):
            found.add("target-busy")
        if any(cools(run, one, now) for run in mine):
            found.add("cooldown")
        limits = {
            "max-concurrent": (sum(run.busy for run in mine), one.options.max_concurrent),
            "limit-concurrent": (len(busy), self.concurrent),
            "max-per-hour": (sum(lately(run, HOUR, now) for run in mine), one.options.max_per_hour),
            "limit-per-minute": (
                sum(lately(run, MINUTE, now) for run in self.runs),
                self.per_minute,
            ),
        }
        return found | {limit for limit, (there, most) in limits.items() if there >= most}

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
                    and (run.starts == starts or self.one_incident(last, run))
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
            waited = (last.state, last.reason) == ("refused", "max-wait")
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


def cools(run: Run, one: Run, now: datetime) -> bool:
    """Whether a run ended too short a time ago for another on its target."""
    if run.target != one.target or run.started is None or run.ended is None:
        return False
    return now < run.ended + one.options.cooldown


def lately(run: Run, window: timedelta, now: datetime) -> bool:
    """Whether it started within so much time."""
    return run.started is not None and run.started > now - window
