"""What can go wrong, dealt from a seed, and how it is brought about on the real parts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from openfero_gitops.commands.control import pause, resume
from openfero_gitops.domain.errors import ApiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.chaos.stage import Stage


class Fault(StrEnum):
    """Kinds of faults."""

    LEADER_KILLED = "leader killed"
    LEADER_FROZEN = "leader frozen"
    LEADER_CUT_OFF = "leader cut off"
    LEADER_UNHEARD = "answers to the leader lost"
    LEADER_ENDED = "leader ended by SIGTERM"
    FOLLOWER_KILLED = "follower killed"
    FOLLOWER_FROZEN = "follower frozen"
    FOLLOWER_CUT_OFF = "follower cut off"
    API_KILLED = "API server killed"
    API_RESTARTED = "API server restarted"
    API_FROZEN = "API server frozen"
    ETCD_KILLED = "etcd killed"
    GIT_GONE = "Git remote gone"
    PAUSED = "paused and resumed"
    PAUSED_AND_LEADER_KILLED = "paused, leader killed, resumed"


#: So long a lease lasts in these runs, in seconds, unless the machine is too busy for that.
LEASE: Final = 4.0


@dataclass(frozen=True, slots=True)
class Dealt:
    """One fault: after so many seconds, for so many."""

    fault: Fault
    after: float
    lasts: float


def deal(seed: int, count: int, lease: float = LEASE) -> list[Dealt]:
    """Deal faults as from a deck, so that every kind comes before one comes twice more."""
    chance = random.Random(f"faults {seed}")  # noqa: S311 - to be drawn again
    dealt: list[Dealt] = []
    deck: list[Fault] = []
    for _ in range(count):
        if not deck:
            deck = [*Fault]
            chance.shuffle(deck)
        # Longer than the lease, so that another must lead; what holds up all of them, shorter too.
        lasts = lease + chance.uniform(0.5, 3.0)
        dealt.append(Dealt(deck.pop(), chance.uniform(0.3, 3.0), round(lasts, 2)))
    return dealt


async def bring_about(stage: Stage, dealt: Dealt) -> None:
    """Inject the fault, wait, and end it."""
    await asyncio.sleep(dealt.after)
    await _HOW[dealt.fault](stage, dealt.lasts)


async def _killed(stage: Stage, name: str, lasts: float) -> None:
    await asyncio.to_thread(stage.replicas[name].kill)
    await asyncio.sleep(lasts)
    await stage.start_replica(name)


async def _frozen(stage: Stage, name: str, lasts: float) -> None:
    replica = stage.replicas[name]
    replica.process.signal(signal.SIGSTOP)
    await asyncio.sleep(lasts)
    replica.process.signal(signal.SIGCONT)


async def _cut_off(stage: Stage, name: str, lasts: float, *, requests: bool = True) -> None:
    stage.wires[name].cut(requests=requests)
    await asyncio.sleep(lasts)
    stage.wires[name].restore()


async def _leader_killed(stage: Stage, lasts: float) -> None:
    await _killed(stage, await stage.felled("killed"), lasts)


async def _leader_frozen(stage: Stage, lasts: float) -> None:
    await _frozen(stage, await stage.felled("frozen"), lasts)


async def _leader_cut_off(stage: Stage, lasts: float) -> None:
    await _cut_off(stage, await stage.felled("cut off"), lasts)


async def _leader_unheard(stage: Stage, lasts: float) -> None:
    await _cut_off(stage, await stage.leader(), lasts, requests=False)


async def _leader_ended(stage: Stage, lasts: float) -> None:
    name = await stage.felled("ended")
    await asyncio.to_thread(stage.replicas[name].process.end)
    await asyncio.sleep(lasts / 4)
    await stage.start_replica(name)


async def _follower_killed(stage: Stage, lasts: float) -> None:
    await _killed(stage, await stage.follower(), lasts)


async def _follower_frozen(stage: Stage, lasts: float) -> None:
    await _frozen(stage, await stage.follower(), lasts)


async def _follower_cut_off(stage: Stage, lasts: float) -> None:
    await _cut_off(stage, await stage.follower(), lasts)


async def _api_killed(stage: Stage, lasts: float) -> None:
    await _down(stage, "kube-apiserver", signal.SIGKILL, lasts)


async def _api_restarted(stage: Stage, lasts: float) -> None:
    await _down(stage, "kube-apiserver", signal.SIGTERM, lasts / 4)


async def _etcd_killed(stage: Stage, lasts: float) -> None:
    await _down(stage, "etcd", signal.SIGKILL, lasts / 2)


async def _down(stage: Stage, component: str, sent: signal.Signals, lasts: float) -> None:
    await asyncio.to_thread(stage.plane.stop_component, component, sent)
    await asyncio.sleep(lasts)
    await asyncio.to_thread(stage.plane.start_component, component)


async def _api_frozen(stage: Stage, lasts: float) -> None:
    stage.plane.freeze("kube-apiserver")
    await asyncio.sleep(lasts)
    stage.plane.thaw("kube-apiserver")


async def _git_gone(stage: Stage, lasts: float) -> None:
    folder = stage.repository.folder
    gone = folder.with_name("gone")
    folder.rename(gone)
    await asyncio.sleep(lasts)
    gone.rename(folder)
    await asyncio.to_thread(stage.repository.commit, "Nothing but a new commit")


async def _paused(stage: Stage, lasts: float) -> None:
    async with _pause(stage):
        await asyncio.sleep(lasts)


async def _paused_and_killed(stage: Stage, lasts: float) -> None:
    async with _pause(stage):
        await _killed(stage, await stage.leader(), lasts)


@contextlib.asynccontextmanager
async def _pause(stage: Stage):  # type: ignore[no-untyped-def] # noqa: ANN202
    await say_until_heard(stage, paused=True)
    try:
        yield
    finally:
        await say_until_heard(stage, paused=False)


async def say_until_heard(stage: Stage, *, paused: bool) -> None:
    """Pause or resume, as a person would: again, if it was not acknowledged."""
    deadline = time.monotonic() + 120
    while True:
        try:
            await (pause if paused else resume)(stage.plane.kubeconfig, stage.namespace, 15)
        except (ApiError, UsageError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            return


_HOW: Final[dict[Fault, Callable[[Stage, float], Awaitable[None]]]] = {
    Fault.LEADER_KILLED: _leader_killed,
    Fault.LEADER_FROZEN: _leader_frozen,
    Fault.LEADER_CUT_OFF: _leader_cut_off,
    Fault.LEADER_UNHEARD: _leader_unheard,
    Fault.LEADER_ENDED: _leader_ended,
    Fault.FOLLOWER_KILLED: _follower_killed,
    Fault.FOLLOWER_FROZEN: _follower_frozen,
    Fault.FOLLOWER_CUT_OFF: _follower_cut_off,
    Fault.API_KILLED: _api_killed,
    Fault.API_RESTARTED: _api_restarted,
    Fault.API_FROZEN: _api_frozen,
    Fault.ETCD_KILLED: _etcd_killed,
    Fault.GIT_GONE: _git_gone,
    Fault.PAUSED: _paused,
    Fault.PAUSED_AND_LEADER_KILLED: _paused_and_killed,
}
