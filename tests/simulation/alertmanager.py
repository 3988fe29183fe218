"""A Prometheus pair and its two Alertmanagers, as field experience has them.

Each delivers at least once, to whatever replica answers: both tell of the same problem, with
startsAt as their own Prometheus saw it or as the other's did; a Prometheus that goes silent gives
a false `resolved` and then a new startsAt; what fires is told again and again; what was answered
with anything but 200 is tried again, at first at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.alert import Alert, AlertGroup, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime
    from random import Random

_GROUP_INTERVAL: Final = 15.0  # seconds, as all here
_RETRIES_FOR: Final = 10.0
_Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Fire:
    """A time in which a problem is seen: from when, until when, and the start that is delivered."""

    labels: Mapping[str, str]
    begins: float
    ends: float
    starts_at: datetime
    earlier: datetime  # what the other member of the pair says
    delivered_starts_at: datetime | None = (
        None  # the startsAt of the last delivery that was answered 200
    )
    over: bool = False  # its end was told, or need not be
    silent: bool = False  # its end is never told

    def alert(self, status: Status, starts_at: datetime, ends_at: datetime | None) -> Alert:
        """It as a delivery tells it."""
        return Alert(status, self.labels, {}, starts_at, ends_at, "", "")


def fires_of(
    labels: Mapping[str, str], begins: float, ends: float, epoch: datetime, rng: Random
) -> list[Fire]:
    """How one Alertmanager sees one problem that lasts from then till then."""
    seen = begins + rng.choice((0.0, rng.uniform(0, 5), rng.uniform(0, 30)))
    cuts = [seen]
    if rng.random() < 0.2:  # a false `resolved`
        cuts.append(rng.uniform(seen, max(seen, ends)))
    fires = []
    for index, begin in enumerate(cuts):
        end = cuts[index + 1] if index + 1 < len(cuts) else max(ends, begin + 1)
        first = begin + (rng.uniform(0, 10) if index else 0.0)
        starts_at = epoch + timedelta(seconds=first)
        wobble = timedelta(seconds=rng.choice((0.0, 0.0, rng.uniform(0, 20))))
        fire = Fire(labels, first, max(end, first + 1), starts_at, starts_at - wobble)
        fire.silent = rng.random() < 0.1
        fires.append(fire)
    return fires


@dataclass(slots=True)
class Alertmanager:
    """One of the two. `deliver` sends a group and tells whether the answer was 200."""

    fires: Sequence[Fire]
    deliver: Callable[[AlertGroup], Awaitable[bool]]
    epoch: datetime
    now: Callable[[], float]
    rng: Random
    repeat_interval: float
    _last: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Flush group after group until cancelled."""
        names = sorted({fire.labels["alertname"] for fire in self.fires})
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(self._group(name))

    async def _group(self, name: str) -> None:
        mine = [fire for fire in self.fires if fire.labels["alertname"] == name]
        await asyncio.sleep(self.rng.uniform(0, _GROUP_INTERVAL))
        while True:
            began = self.now()
            taken = await self._flush(name, mine)
            while not taken and self.now() - began < _RETRIES_FOR:
                await asyncio.sleep(self.rng.uniform(0.5, 3.0))
                taken = await self._flush(name, mine)
            await asyncio.sleep(_GROUP_INTERVAL * self.rng.uniform(0.8, 1.2))

    async def _flush(self, name: str, fires: Sequence[Fire]) -> bool:
        """Send what there is to tell, if there is; False where it has to be sent again."""
        now, rng = self.now(), self.rng
        firing: list[tuple[Fire, datetime]] = []
        ended: list[tuple[Fire, datetime]] = []
        for fire in fires:
            if fire.begins <= now < fire.ends:
                starts_at = fire.earlier if rng.random() < 0.3 else fire.starts_at
                firing.append((fire, starts_at))
            elif fire.ends <= now and not fire.over:
                if fire.delivered_starts_at is None or fire.silent:
                    fire.over = True
                else:
                    ended.append((fire, fire.delivered_starts_at))
        news = bool(ended) or any(fire.delivered_starts_at is None for fire, _ in firing)
        due = now - self._last.get(name, -1e9) >= self.repeat_interval
        if not (news or (firing and due)):
            return True
        alerts = [fire.alert(Status.FIRING, starts_at, None) for fire, starts_at in firing]
        for fire, starts_at in ended:
            ends_at = self.epoch + timedelta(seconds=fire.ends)
            alerts.append(fire.alert(Status.RESOLVED, starts_at, ends_at))
        rng.shuffle(alerts)
        status = Status.FIRING if firing else Status.RESOLVED
        group = AlertGroup(status, f'{{}}:{{alertname="{name}"}}', 0, tuple(alerts))
        if not await self.deliver(group):
            return False
        self._last[name] = now
        for fire, starts_at in firing:
            fire.delivered_starts_at = starts_at
        for fire, _ in ended:
            fire.over = True
        return True

    def untold(self) -> list[str]:
        """What should have been told by now and was not."""
        now = self.now() - 4 * _GROUP_INTERVAL
        return [
            f"{dict(fire.labels)} {fire.begins:.0f}-{fire.ends:.0f} s"
            for fire in self.fires
            if (fire.begins <= now < fire.ends and fire.delivered_starts_at is None)
            or (fire.ends <= now and not fire.over)
        ]
