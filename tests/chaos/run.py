"""One run: alerts are released slice by slice, into each slice falls a fault, then all settles."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from openfero_gitops.commands import operator
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Limits
from openfero_gitops.domain.errors import ApiError, UsageError
from tests.chaos import checker
from tests.chaos.attacker import Attack
from tests.chaos.faults import LEASE, bring_about, deal
from tests.chaos.senders import Post
from tests.chaos.stage import Stage
from tests.chaos.stories import LIMITS, tell
from tests.support import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.chaos.faults import Dealt
    from tests.chaos.recorder import Seen
    from tests.chaos.stage import Felled
    from tests.chaos.stories import Story
    from tests.support.history import Violation

# Seconds.
LONGEST_TO_DELIVER: Final = 1800.0
LONGEST_TO_SETTLE: Final = 1800.0
BETWEEN_SLICES: Final = 1.0


@dataclass
class Outcome:
    """What a run came to."""

    seed: int
    asked_for: int
    faults: int
    lease: float
    injected: Counter[str]
    violations: list[Violation]
    broken: dict[str, int]
    figures: dict[str, str]
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return not self.violations


async def run(
    seed: int,
    occurrences: int,
    faults: int,
    folder: Path,
    say: Callable[[str], None],
    lease: float = LEASE,
) -> Outcome:
    """Run it on real parts below `folder`; everything drawn is drawn from the seed."""
    began = time.monotonic()
    stories = tell(seed, occurrences)
    dealt = deal(seed, faults, lease)
    async with Stage(folder, lease) as stage:
        say(f"{len(stage.replicas)} replicas are up after {time.monotonic() - began:.0f} s")
        post = Post([replica.url for replica in stage.replicas.values()], seed)
        approving = asyncio.create_task(_approve(stage, stories), name="approve")
        attack = Attack(stage, stories, seed)
        attacking = asyncio.create_task(attack.run(), name="attack")
        try:
            await _play(stage, post, stories, dealt, say)
            await _settle(stage, say)
        finally:
            for task in (approving, attacking):
                task.cancel()
            ended = await asyncio.gather(approving, attacking, return_exceptions=True)
        history = checker.History(
            jobs=stage.recorder.jobs,
            control=stage.recorder.control,
            answered=post.answered,
            expected=frozenset(post.expected),
            limits=Limits(concurrent=LIMITS["concurrent"], per_minute=LIMITS["perMinute"]),
            forged=stage.recorder.forged,
            ended=time.time(),
        )
        violations = checker.judge(history)
        figures = _figures(stage, post, history) | {"attacks": str(attack)}
    return Outcome(
        seed=seed,
        asked_for=occurrences,
        faults=faults,
        lease=lease,
        injected=Counter(injection.fault.value for injection in dealt),
        violations=violations,
        broken=checker.count(violations),
        figures=figures,
        seconds=time.monotonic() - began,
        notes=[
            *post.unexpected,
            *attack.successes,
            *(repr(error) for error in ended if isinstance(error, Exception)),
        ],
    )


async def _play(
    stage: Stage,
    post: Post,
    stories: Sequence[Story],
    dealt: Sequence[Dealt],
    say: Callable[[str], None],
) -> None:
    """Release a slice of the stories, let a fault fall into it, and so on."""
    slices = [stories[i :: len(dealt) + 1] for i in range(len(dealt) + 1)]
    sending: set[asyncio.Task[None]] = set()
    for number, members in enumerate(slices):
        sending.add(asyncio.create_task(post.deliver(members), name=f"slice {number}"))
        if number < len(dealt):
            fault = dealt[number]
            await bring_about(stage, fault)
            say(
                f"{number + 1:>3}/{len(dealt)}  {fault.fault.value:<28} {fault.lasts:4.1f} s   "
                f"{_standing(stage, post)}"
            )
            await asyncio.sleep(BETWEEN_SLICES)
    _, late = await asyncio.wait(sending, timeout=LONGEST_TO_DELIVER)
    post.giving_up = bool(late)
    for task in sending:
        await task
    say(f"all is delivered: {_standing(stage, post)}")


async def _settle(stage: Stage, say: Callable[[str], None]) -> None:
    """Wait until nothing is left to be done, or the time for it is over."""
    deadline = time.monotonic() + LONGEST_TO_SETTLE
    printed_at = time.monotonic()
    calm_since: float | None = None
    while time.monotonic() < deadline:
        open_jobs = sum(map(_is_open, stage.recorder.latest.values()))
        if open_jobs:
            calm_since = None
        elif calm_since is None:
            calm_since = time.monotonic()
        elif time.monotonic() - calm_since > checker.CALM:
            return
        if time.monotonic() - printed_at > 15:
            printed_at = time.monotonic()
            say(f"settling: {open_jobs} Jobs are open")
        await asyncio.sleep(0.25)


def _is_open(job: dict) -> bool:  # type: ignore[type-arg]
    annotations = job["metadata"]["annotations"]
    if keys.DECISION in annotations or checker.has_ended(job):
        return False
    asks = '"approval":true' in annotations.get(keys.OPTIONS, "").replace(" ", "")
    return not asks or keys.APPROVED_BY in annotations


async def _approve(stage: Stage, stories: Sequence[Story]) -> None:
    """The human at the gate: approves some, each once it has waited a moment."""
    wanted = {story.labels["host"] for story in stories if story.approved}
    # (One that does not help runs twice, and then waits for a person.)
    asking = ('"alertname":"Asks"', '"alertname":"Stuck"')
    done: set[str] = set()
    while True:
        await asyncio.sleep(0.5)
        for key, job in list(stage.recorder.latest.items()):
            annotations = job["metadata"]["annotations"]
            if key in done or not any(name in annotations[keys.ALERT] for name in asking):
                continue
            if asking[1] in annotations[keys.ALERT] and annotations[keys.ATTEMPT] in ("1", "2"):
                continue
            if keys.APPROVED_BY in annotations or keys.DECISION in annotations:
                done.add(key)
            elif any(f'"host":"{host}"' in annotations[keys.ALERT] for host in wanted):
                try:
                    await operator.act_on_job(operator.APPROVE, key, stage.plane.kubeconfig, None)
                    done.add(key)
                except (ApiError, UsageError):
                    continue  # the next round tries again


def _standing(stage: Stage, post: Post) -> str:
    jobs = stage.recorder.latest.values()
    started = sum(keys.ADMITTED_AT in job["metadata"]["annotations"] for job in jobs)
    open_jobs = sum(map(_is_open, jobs))
    return f"{len(jobs)} Jobs, {started} started, {open_jobs} open; {post.codes['200']} times 200"


def _figures(stage: Stage, post: Post, history: checker.History) -> dict[str, str]:
    """What the table shows besides the promises."""
    jobs = list(stage.recorder.latest.values())
    reasons: Counter[str] = Counter()
    effects: Counter[str] = Counter()
    started = attempts = 0
    for job in jobs:
        annotations = job["metadata"]["annotations"]
        started += keys.ADMITTED_AT in annotations
        if keys.EFFECT in annotations:
            effects[annotations[keys.EFFECT]] += 1
        attempts += annotations.get(keys.ATTEMPT, "1") != "1"
        if annotations.get(keys.DECISION) == "refused":
            reasons[annotations.get(keys.REASON, "no reason")] += 1
    repeated = sum(number for code, number in post.codes.items() if code != "200")
    leaders = {
        job["metadata"]["annotations"][keys.TERM].rpartition("#")[0]
        for job in jobs
        if keys.TERM in job["metadata"]["annotations"]
    }
    figures = {
        "occurrences to be healed": str(len(history.expected)),
        "deliveries answered with 200": str(post.codes["200"]),
        "deliveries to be repeated (5xx, no answer)": str(repeated),
        "Jobs": str(len(jobs)),
        "of which started": str(started),
        "of which a further attempt": str(attempts),
        "effects settled": ", ".join(
            f"{number} {effect}" for effect, number in effects.most_common()
        ),
        "refused": ", ".join(f"{number} {reason}" for reason, number in reasons.most_common()),
        "states of Jobs read from etcd": str(len(history.jobs)),
        "most Jobs running at once": f"{_most_at_once(history.jobs)} of {LIMITS['concurrent']}",
        "terms in which something was decided": str(len(leaders)),
    }
    for how, title in (
        ("ended", "next admission after SIGTERM of the leader"),
        ("killed", "next admission after SIGKILL of the leader"),
        ("frozen", "next admission after SIGSTOP of the leader"),
        ("cut off", "next admission after the leader was cut off"),
    ):
        gaps = _gaps([leader for leader in stage.felled_leaders if leader.how == how], history.jobs)
        if gaps:
            figures[title] = (
                f"median {statistics.median(gaps):.1f} s, longest {max(gaps):.1f} s"
                f" (lease {stage.lease:.0f} s)"
            )
    return figures


def _most_at_once(jobs: Sequence[Seen]) -> int:
    """How many Jobs were unsuspended and not at their end, at most."""
    running: set[str] = set()
    most = 0
    for seen in jobs:
        job = seen.object
        if job is None or checker.has_ended(job) or job["spec"].get("suspend") is True:
            running.discard(seen.key)
        else:
            running.add(seen.key)
            most = max(most, len(running))
    return most


def _gaps(felled: Sequence[Felled], jobs: Sequence[Seen]) -> list[float]:
    """From each blow to the next admission by somebody else; for a Job made later, from then."""
    created: dict[str, float] = {}
    admissions: dict[str, tuple[float, str]] = {}
    for seen in jobs:
        if seen.object is None:
            continue
        annotations = seen.object["metadata"]["annotations"]
        created.setdefault(seen.key, seen.at)
        if keys.ADMITTED_AT in annotations:
            admissions.setdefault(seen.key, (seen.at, annotations[keys.ADMITTED_BY]))
    gaps = []
    for blow in felled:
        after = [
            (at, key) for key, (at, by) in admissions.items() if at > blow.at and by != blow.name
        ]
        if after:
            at, key = min(after)
            gaps.append(at - max(blow.at, created[key]))
    return gaps


def report(outcome: Outcome) -> str:
    """The tables, for people and for the page."""
    command = (
        f"make chaos SEED={outcome.seed} OCCURRENCES={outcome.asked_for} "
        f"FAULTS={outcome.faults} LEASE={outcome.lease:.0f}"
    )
    lines = [
        (
            f"{record.today()}, {record.machine()}; seed {outcome.seed}, "
            f"{outcome.seconds / 60:.1f} minutes. Again: `{command}`."
        ),
        "",
        record.table(["promise", "broken"], [[w, str(n)] for w, n in outcome.broken.items()]),
        "",
        record.table(
            ["fault", "times"], [[fault, str(n)] for fault, n in sorted(outcome.injected.items())]
        ),
        "",
        record.table(
            ["figure", ""], [[figure, value] for figure, value in outcome.figures.items()]
        ),
    ]
    return "\n".join(lines)
