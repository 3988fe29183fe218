"""What happens to the world that is watched: alerts, as a Prometheus pair and two senders see it.

Everything is drawn from a seed. A story is one label set and what either sender comes to say of
it, round by round. Times are seconds from when the story is released.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.timestamp import format_time
from tests.support.replica import operario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.repository import Repository

SENDERS: Final = 2

#: Storm limits: below what the machine could start, so that they bind.
LIMITS: Final = {"concurrent": 40, "perMinute": 900}

_WIDE: Final = {"cooldown": "0", "max-concurrent": "100", "max-per-hour": "1000000"}
#: Per alert name: the options of its operario, and annotations for how its Pods are played.
OPERARIOS: Final[dict[str, tuple[dict[str, str], dict[str, str]]]] = {
    "Plain": (_WIDE, {}),
    "Urgent": ({**_WIDE, "priority": "10"}, {}),
    "Narrow": ({**_WIDE, "max-concurrent": "3"}, {}),
    "Cool": ({**_WIDE, "cooldown": "3s", "target": "host"}, {}),
    "Undo": (_WIDE, {}),
    "Asks": ({**_WIDE, "approval": "required"}, {}),
    "Again": ({**_WIDE, "rerun-after": "1s", "max-runs": "2"}, {}),
    "Heals": ({**_WIDE, "priority": "5", "heals-within": "8s"}, {}),
    "Stuck": (
        {
            **_WIDE,
            "heals-within": "1s",
            "stop-after-not-healed": "2",
            "rerun-after": "1s",
            "max-runs": "4",
            "max-wait": "10s",
            "priority": "5",
        },
        {},
    ),
    "Fails": (_WIDE, {"fail": "true"}),
    "Stops": ({**_WIDE, "on-resolve": "cancel-running"}, {"run_for": "6s"}),
    "Hourly": ({**_WIDE, "max-per-hour": "20", "max-wait": "10s"}, {}),
}
#: Alert names that have an operario for `resolved`, too.
UNDONE: Final = ("Undo",)


#: Instead of a time: when the notice is sent first.
NOW: Final = math.inf


@dataclass(frozen=True, slots=True)
class Notice:
    """What a sender says of an alert: its state, since when, and until when."""

    status: str
    starts: float
    ends: float | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """One label set and what each sender says of it, in rounds; `approved` if a human will."""

    labels: dict[str, str]
    scripts: tuple[tuple[Notice, ...], ...]
    approved: bool = False

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]

    @property
    def occurrences(self) -> set[tuple[str, float]]:
        """What must become a Job: every state and start that some operario answers."""
        return {
            (notice.status, notice.starts)
            for script in self.scripts
            for notice in script
            if notice.status == "firing" or self.name in UNDONE
        }


def firing(starts: float) -> Notice:
    """It fires since then."""
    return Notice("firing", starts)


def resolved(starts: float, ends: float) -> Notice:
    """It fired since then, and is over."""
    return Notice("resolved", starts, ends)


@dataclass
class _Teller:
    """Makes label sets that no other story has."""

    chance: random.Random
    number: int = 0
    hosts: list[str] = field(default_factory=list)

    def labels(self, name: str, **more: str) -> dict[str, str]:
        self.number += 1
        return {"alertname": name, "host": f"h{self.number}", "severity": "page", **more}

    def start(self) -> float:
        return -round(self.chance.uniform(30, 50), 3)

    def both(self, *script: Notice) -> tuple[tuple[Notice, ...], ...]:
        return (script,) * SENDERS


def _plain(t: _Teller) -> Iterator[Story]:
    """It fires, and goes on firing."""
    name = t.chance.choice(["Plain", "Plain", "Plain", "Urgent", "Narrow", "Fails"])
    yield Story(t.labels(name), t.both(*[firing(t.start())] * t.chance.choice([1, 2])))


def _wobble(t: _Teller) -> Iterator[Story]:
    """The members of a Prometheus pair saw it at different times, and take turns to be heard."""
    late, early = firing(-5.0 - t.chance.random()), firing(t.start())
    yield Story(t.labels("Plain"), ((late, early, late), (early, early)))


def _resolved(t: _Teller) -> Iterator[Story]:
    """It fires and is over; what was done is undone."""
    name = t.chance.choice(["Plain", "Undo", "Undo", "Stops"])
    s = t.start()
    yield Story(t.labels(name), t.both(firing(s), resolved(s, -2.0)))


def _flicker(t: _Teller) -> Iterator[Story]:
    """Prometheus falls silent: a false `resolved`, and the problem again with another start."""
    s = t.start()
    again = firing(-4.0 - t.chance.random())
    deliveries = (firing(s), resolved(s, -10.0), again)
    # One sender may miss that the alert was resolved.
    heard = t.chance.choice([deliveries, (firing(s), again)])
    yield Story(t.labels(t.chance.choice(["Plain", "Undo"])), (deliveries, heard))


def _asks(t: _Teller) -> Iterator[Story]:
    """A human must approve; not all are approved."""
    script = t.both(*[firing(t.start())] * 2)
    yield Story(t.labels("Asks"), script, approved=t.chance.random() < 0.6)


def _again(t: _Teller) -> Iterator[Story]:
    """It goes on firing after its Job has ended."""
    yield Story(t.labels("Again"), t.both(*[firing(t.start())] * 4))


def _heals(t: _Teller) -> Iterator[Story]:
    """It fires for many rounds, and is over while its Job runs, or soon after."""
    s = t.start()
    rounds = t.chance.randint(6, 18)
    yield Story(t.labels("Heals"), t.both(*[firing(s)] * rounds, resolved(s, NOW)))


def _stuck(t: _Teller) -> Iterator[Story]:
    """It goes on firing, whatever its Jobs do."""
    approved = t.chance.random() < 0.5
    yield Story(t.labels("Stuck"), t.both(*[firing(t.start())] * 25), approved=approved)


def _same_target(t: _Teller) -> Iterator[Story]:
    """Several alerts tell of one host."""
    host = f"shared-{t.number}"
    for name in t.chance.choice([("Cool", "Cool"), ("Cool", "Plain"), ("Plain", "Urgent")]):
        pod = f"p{t.number}" if name == "Cool" else ""
        more = {"pod": pod} if pod else {}
        yield Story(t.labels(name, **more) | {"host": host}, t.both(firing(t.start())))


def _hourly(t: _Teller) -> Iterator[Story]:
    """More than an hour has room for: they wait too long, and are delivered again."""
    yield Story(t.labels("Hourly"), t.both(*[firing(t.start())] * 3))


_KINDS: Final[dict[Callable[[_Teller], Iterator[Story]], int]] = {
    _plain: 40,
    _wobble: 12,
    _resolved: 14,
    _flicker: 10,
    _asks: 4,
    _again: 5,
    _heals: 14,
    _stuck: 7,
    _same_target: 12,
    _hourly: 3,
}


def tell(seed: int, occurrences: int) -> list[Story]:
    """Tell stories of at least so many occurrences."""
    teller = _Teller(random.Random(seed))  # noqa: S311 - to be drawn again
    stories: list[Story] = []
    planned = 0
    while planned < occurrences:
        kind = teller.chance.choices([*_KINDS], [*_KINDS.values()])[0]
        for story in kind(teller):
            stories.append(story)
            planned += len(story.occurrences)
    return stories


def write_operarios(repository: Repository) -> None:
    """Write the repository that all replicas follow."""
    limits = ", ".join(f"{key}: {value}" for key, value in LIMITS.items())
    repository.write("openfero.yaml", f"limits: {{{limits}}}\n")
    for name, (options, pod) in OPERARIOS.items():
        annotations = {f"openfero.io/{key}": value for key, value in options.items()}
        for status in ("firing", "resolved") if name in UNDONE else ("firing",):
            more = {"openfero.io/resolve-delay": "1s"} if status == "resolved" else {}
            repository.write(
                f"{name.lower()}-{status}.json",
                operario(name, status=status, annotations=annotations | more, **pod),
            )


def as_sent(story: Story, notice: Notice, base: Callable[[float], str]) -> dict[str, Any]:
    """An alert as Alertmanager writes it; `base` makes a time of seconds from the release."""
    ends = "0001-01-01T00:00:00Z"
    if notice.ends is not None:
        now = format_time(datetime.fromtimestamp(time.time(), UTC))
        ends = now if notice.ends == NOW else base(notice.ends)
    return {
        "status": notice.status,
        "labels": story.labels,
        "annotations": {"summary": f"{story.name} of {story.labels['host']}"},
        "startsAt": base(notice.starts),
        "endsAt": ends,
        "generatorURL": "",
        "fingerprint": "0123456789abcdef",
    }
