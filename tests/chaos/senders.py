"""Two senders that deliver every alert at least once, as the members of an Alertmanager pair do.

What is answered with 5xx, or not at all, is sent again after a pause that doubles, to whichever
replica the next connection meets. Nothing else is: a wrong 200 would be believed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from openfero_gitops.domain.timestamp import format_time
from tests.chaos.stories import SENDERS, as_sent
from tests.support.replica import group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.checker import Alert
    from tests.chaos.stories import Story

# Seconds.
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 4.0
PATIENCE: Final = 10.0
GROUP_INTERVAL: Final = (0.3, 2.0)
#: Stories that make one group.
LARGEST_GROUP: Final = 25
IN_FLIGHT: Final = 12


@dataclass(frozen=True, slots=True)
class Answered:
    """An alert that was asked to be healed, and answered with 200, by the wall clock."""

    sent_at: float
    at: float
    sender: int
    labels: dict[str, str]
    status: str
    starts_at: str
    ends_at: str
    outcome: str
    job: str  # NAMESPACE/NAME, or nothing


@dataclass
class Post:
    """Both senders: what they sent, and what they were told."""

    urls: Sequence[str]
    seed: int
    answered: list[Answered] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    expected: set[Alert] = field(default_factory=set)
    giving_up: bool = False

    async def deliver(self, stories: Sequence[Story]) -> None:
        """Deliver these stories to their end, in groups."""
        base = time.time()

        def moment(offset: float) -> str:
            return format_time(datetime.fromtimestamp(base + offset, UTC))

        for story in stories:
            labels = tuple(sorted(story.labels.items()))
            self.expected |= {
                (labels, status, moment(since)) for status, since in story.occurrences
            }
        async with asyncio.TaskGroup() as tasks:
            for sender in range(SENDERS):
                gate = asyncio.Semaphore(IN_FLIGHT)
                chance = random.Random(f"{self.seed} {sender} {stories[0].labels}")  # noqa: S311
                for members in _groups(stories, chance):
                    tasks.create_task(
                        self._tell(sender, members, moment, gate, random.Random(chance.random()))  # noqa: S311
                    )

    async def _tell(
        self,
        sender: int,
        members: Sequence[Story],
        moment: Any,
        gate: asyncio.Semaphore,
        chance: random.Random,
    ) -> None:
        """One group of one sender: round by round, as the state of its alerts changes."""
        rounds = max(len(story.scripts[sender]) for story in members)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
            for number in range(rounds):
                if number:
                    await asyncio.sleep(chance.uniform(*GROUP_INTERVAL))
                alerts = [
                    as_sent(story, script[min(number, len(script) - 1)], moment)
                    for story in members
                    for script in (story.scripts[sender],)
                ]
                fires = any(alert["status"] == "firing" for alert in alerts)
                body = group(*alerts, status="firing" if fires else "resolved")
                async with gate:
                    await self._until_taken(sender, http, body, chance)

    async def _until_taken(
        self, sender: int, http: aiohttp.ClientSession, body: Any, chance: random.Random
    ) -> None:
        pause = FIRST_PAUSE
        while not self.giving_up:
            url = chance.choice(self.urls)
            sent_at = time.time()
            try:
                async with http.post(url + "/alerts", json=body) as answer:
                    response = await answer.json(content_type=None)
                    code = answer.status
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                self.codes[type(error).__name__] += 1
                code, response = 0, None
            else:
                self.codes[str(code)] += 1
            if code == 200:
                self._believe(sender, sent_at, body, response)
                return
            if code and code < 500:
                self.unexpected.append(f"a delivery was answered with {code}: {response}")
                return
            await asyncio.sleep(pause * chance.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _believe(self, sender: int, sent_at: float, body: Any, response: Any) -> None:
        at = time.time()
        for alert, item in zip(body["alerts"], response["items"], strict=True):
            job = f"{item['namespace']}/{item['job']}" if item.get("job") else ""
            self.answered.append(
                Answered(
                    sent_at,
                    at,
                    sender,
                    alert["labels"],
                    alert["status"],
                    alert["startsAt"],
                    alert["endsAt"],
                    item["outcome"],
                    job,
                )
            )


def _groups(stories: Sequence[Story], chance: random.Random) -> list[list[Story]]:
    """Stories of one alert name, in groups of any size."""
    groups: list[list[Story]] = []
    by_name = sorted(stories, key=lambda story: story.name)
    for _, same in groupby(by_name, key=lambda story: story.name):
        left = list(same)
        while left:
            size = min(len(left), chance.choice([1, 1, 2, 5, LARGEST_GROUP]))
            groups.append(left[:size])
            left = left[size:]
    return groups
