"""Attacks on one real replica: what they cost it, and what the attacker gains.

Each attack meets a replica of its own, with the chart's settings and lease, under a memory limit,
beside a real API server. Meanwhile another process asks for /livez a hundred times a second, and a
patient sender delivers a real alert, again where it is answered with 503 or not at all.

    TREE=/path/to/another/checkout make bench ARGS=attacks    measures that code
    ATTACKS='of 2 MiB;slow heads' make bench ARGS=attacks     runs those with these words
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import tempfile
import time
import urllib.error
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from tests.cluster.controlplane import COMPONENTS, ControlPlane
from tests.support import attacks as hostile
from tests.support import record
from tests.support.attacks import MIB, Admin, Attacker
from tests.support.measures import peak_mib, processor_seconds, resident_mib
from tests.support.memory_limit import MemoryLimit, memory_limit
from tests.support.prober import probing
from tests.support.process import ProcessError
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LIMIT: Final = 1400 * MIB
#: A real alert that has no answer by then counts as lost.
MAX_ANSWER_SECONDS: Final = 240.0
HOLD_SECONDS: Final = 25.0
RESTART_SECONDS: Final = 20.0
TOKEN: Final = "a-token-that-only-alertmanager-has"
SECRET: Final = b"hook-secret"
NAMESPACE: Final = "default"

Attack = "Callable[[Scene], Awaitable[object]]"


@dataclass
class Scene:
    """The replica under attack, and the two attackers: one has the token of Alertmanager."""

    replica: Replica
    admin: Admin
    sender: Attacker = field(init=False)
    stranger: Attacker = field(init=False)
    note: str = ""

    def __post_init__(self) -> None:
        """Make the attackers."""
        self.sender = Attacker(self.replica.url, TOKEN)
        self.stranger = Attacker(self.replica.url)


def _post(make: Callable[[], Any], times: int = 1, *, token: bool = True) -> Attack:
    """Send a body `times` times at once, with the token or without."""

    async def attack(scene: Scene) -> None:
        attacker = scene.sender if token else scene.stranger
        await asyncio.gather(*(attacker.post(make()) for _ in range(times)))

    return attack


def _hold(kind: Callable[[Attacker], Any], count: int, seconds: float = HOLD_SECONDS) -> Attack:
    """Keep slow connections open."""

    async def attack(scene: Scene) -> None:
        async with scene.sender.hold(kind, count) as counts:
            await asyncio.sleep(seconds)
        scene.note = f"closed {sum(counts.values())} times"

    return attack


async def _endless(scene: Scene) -> None:
    """Ten deliveries in chunks without end, for at most a minute."""
    await asyncio.gather(*(scene.sender.post(hostile.endless(), patience=60) for _ in range(10)))


async def _slow_bodies(scene: Scene) -> None:
    await _hold(hostile.slow_body, 200)(scene)


def _hook(*, signed: bool) -> Attack:
    """Four push hooks of 24 MB at once."""
    body = json.dumps(
        {"ref": "refs/heads/other", "commits": [{"message": "x" * 1000}] * 24_000}
    ).encode()
    signature = hmac.new(SECRET, body, hashlib.sha256).hexdigest() if signed else "0" * 64

    async def attack(scene: Scene) -> None:
        pieces = hostile.Body("hook", len(body), body, b"", b"")
        headers = {"X_Hub_Signature_256": f"sha256={signature}", "X_GitHub_Event": "push"}
        await asyncio.gather(
            *(scene.stranger.post(pieces, "/hooks/git", **headers) for _ in range(4))
        )

    return attack


async def _jobs(scene: Scene, *, count: int = 200) -> None:
    """Forge Jobs of 0.9 MB while it runs, and let it list them again after a restart."""
    path = hostile.jobs_path(NAMESPACE)
    await scene.admin.create_all(path, map(hostile.forged_job, range(count)))
    await asyncio.sleep(5)
    await _restart(scene)


async def _config_maps(scene: Scene, *, count: int = 300) -> None:
    """Forge parts of the mirror of 1 MB, and let it start again and lead."""
    path = hostile.config_maps_path(NAMESPACE)
    await scene.admin.create_all(path, map(hostile.forged_config_map, range(count)))
    await _restart(scene)


async def _restart(scene: Scene) -> None:
    """Start the replica anew with what is there, and give it time to lead."""
    try:
        await asyncio.to_thread(scene.replica.process.end)
        await asyncio.to_thread(scene.replica.process.start)
        await asyncio.sleep(12)
    except ProcessError as error:
        scene.note = f"does not start: {str(error).splitlines()[0][-60:]}"


async def _many_alerts(scene: Scene) -> None:
    """10,000 alerts of an operario in one body."""
    await scene.sender.post(hostile.many_alerts(10_000, "Real"))


async def _inventive(scene: Scene) -> None:
    """20,000 alerts, all different, in groups of a hundred, sixteen at a time."""
    groups = iter(range(200))

    async def send() -> None:
        for number in groups:
            await scene.sender.post(hostile.many_alerts(100, "Real", number * 100))

    await asyncio.gather(*(send() for _ in range(16)))


async def _flood(scene: Scene) -> None:
    """A hundred hostile bodies of five kinds at once."""
    bodies = [
        make(size)
        for make in (hostile.ones, hostile.empty_objects, hostile.unknown_members)
        for size in (MIB, 7 * MIB)
    ] + [hostile.one_label(7 * MIB), hostile.nested(MIB)]
    await asyncio.gather(*(scene.sender.post(bodies[n % len(bodies)]) for n in range(100)))


ATTACKS: Final[dict[str, Attack]] = {
    "nothing, for comparison": lambda _: asyncio.sleep(3),
    "[1,1,...] of 0.5 MiB": _post(lambda: hostile.ones(MIB // 2)),
    "[1,1,...] of 2 MiB": _post(lambda: hostile.ones(2 * MIB)),
    "[1,1,...] of 8 MiB": _post(lambda: hostile.ones(8 * MIB)),
    "[{},{},...] of 2 MiB": _post(lambda: hostile.empty_objects(2 * MIB)),
    "[{},{},...] of 16 MiB": _post(lambda: hostile.empty_objects(16 * MIB)),
    "8 MiB of unknown members": _post(lambda: hostile.unknown_members(8 * MIB - 1024)),
    "one label of 8 MiB": _post(lambda: hostile.one_label(8 * MIB - 1024)),
    "an alert of 500,000 labels": _post(lambda: hostile.many_labels(500_000)),
    "100 hostile bodies at once": _flood,
    "100 bodies of 16 MiB without token": _post(
        lambda: hostile.empty_objects(16 * MIB), 100, token=False
    ),
    "10 bodies without end, in chunks": _endless,
    "500 slow heads": _hold(hostile.slow_head, 500),
    "200 slow bodies": _slow_bodies,
    "50 readers that do not read": _hold(hostile.slow_reader, 50, 2 * HOLD_SECONDS),
    "4 push hooks of 24 MB, unsigned": _hook(signed=False),
    "4 push hooks of 24 MB, signed": _hook(signed=True),
    "200 forged Jobs of 0.9 MB": _jobs,
    "300 forged ConfigMaps of 1 MB": _config_maps,
    "10,000 alerts in one body": _many_alerts,
    "20,000 invented alerts": _inventive,
}
_HEADER: Final = (
    "attack",
    "memory, MiB",
    "processor, s",
    "silence, s",
    "lease",
    "real alert after, s",
    "answers",
)


async def _deliver_patiently(replica: Replica) -> float | None:
    """Deliver a real alert as Alertmanager does; seconds until its 200, None without one.

    It gives up when the replica has ended, unless it is started again within 20 s.
    """
    body = group(alert("Real", host=f"host-{time.time_ns()}"))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    began = time.monotonic()
    pause = 0.5
    ended_at: float | None = None
    timeout = aiohttp.ClientTimeout(10)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as http:
        while time.monotonic() - began < MAX_ANSWER_SECONDS:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with http.post(replica.url + "/alerts", json=body) as answer:
                    await answer.read()
                    if answer.status == 200:
                        return time.monotonic() - began
            ended = replica.process.returncode is not None
            ended_at = (ended_at or time.monotonic()) if ended else None
            if ended_at is not None and time.monotonic() - ended_at > RESTART_SECONDS:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, 4)
    return None


def _memory(pid: int) -> dict[str, float]:
    """Return resident memory and its peak in MiB; empty if the process is gone."""
    try:
        return {"now": resident_mib(pid), "peak": peak_mib(pid)}
    except (OSError, KeyError):  # a zombie has no memory
        return {}


def _reset_peak(pid: int) -> None:
    """Let the peak of the resident memory start again from what it is now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def _lease(admin: Admin) -> tuple[str, str, int]:
    spec = (await admin.request("GET", hostile.lease_path(NAMESPACE)))[1].get("spec") or {}
    return spec.get("holderIdentity"), spec.get("acquireTime"), spec.get("leaseTransitions", 0)


async def _carry_out(name: str, scene: Scene) -> None:
    await ATTACKS[name](scene)


async def measure(name: str, replica: Replica, admin: Admin, limit: MemoryLimit) -> list[str]:
    """Carry out one attack and return its row."""
    await asyncio.to_thread(replica.wait_for, lambda: replica.leads)
    pid = replica.process.pid
    _reset_peak(pid)
    idle, processor, lease = _memory(pid), processor_seconds(pid), await _lease(admin)
    restarts = "forged" in name
    scene = Scene(replica, admin)
    with probing(replica.url) as silence:
        attack = asyncio.create_task(_carry_out(name, scene))
        await asyncio.sleep(0.3)
        took = await _deliver_patiently(replica)
        await attack
        await asyncio.sleep(1)
    pid = replica.process.pid
    now = _memory(pid)
    alive = replica.process.returncode is None and bool(now)
    after = await _lease(admin)
    answers = scene.sender.answers + scene.stranger.answers
    counted = ", ".join(f"{count} x {answer}" for answer, count in answers.most_common(5))
    used = processor_seconds(pid) - (0 if restarts else processor)
    lease_state = "held" if after == lease else "lost"
    return [
        name,
        f"{now['peak'] - idle['now']:.0f}" if alive else f"killed at {limit.limit // MIB}",
        f"{used:.1f}" if alive else "",
        "restarted" if restarts and alive else f"{silence.seconds:.2f}",
        "restarted" if restarts and alive else lease_state if alive else "lost",
        "none" if took is None else f"{took:.1f}",
        "; ".join(filter(None, (counted, scene.note))),
    ]


def _replica(folder: Path, plane: ControlPlane, repository: Repository, tree: str) -> Replica:
    """Return a replica with the chart's settings, from another source tree if one is given."""
    folder.mkdir()
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "secret").write_bytes(SECRET + b"\n")
    environment = {"PYTHONPATH": tree, "PYTHONSAFEPATH": "1"} if tree else {}
    return Replica(
        folder,
        name="attacked",
        kubeconfig=plane.kubeconfig,
        roles=False,
        namespace=NAMESPACE,
        repository=repository.url,
        development=False,
        environment=environment,
        interval="1m",
        webhook_auth="bearer",
        webhook_credentials_file=str(folder / "token"),
        hook_secret_file=str(folder / "secret"),
        lease_duration="15s",
        renew_deadline="10s",
        retry_period="2s",
    )


async def _clean(admin: Admin, plane: ControlPlane) -> None:
    """Delete what the attack left in the API server, and make it forget it."""
    for path in (hostile.jobs_path(NAMESPACE), hostile.config_maps_path(NAMESPACE)):
        await admin.request("DELETE", path, propagationPolicy="Background")
    await admin.request("DELETE", hostile.lease_path(NAMESPACE))
    del plane


async def _run(names: Iterable[str], tree: str, folder: Path) -> str:
    plane = ControlPlane(folder / "cluster", components=COMPONENTS[:2])
    rows: list[list[str]] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(plane)
        repository = Repository(folder / "operarios")
        repository.write("real.json", operario("Real"))
        repository.commit("Operarios")
        for number, name in enumerate(names):
            with memory_limit(LIMIT, "attacks") as limit:
                replica = _replica(folder / str(number), plane, repository, tree)
                replica.process.argv = limit.wrap(replica.process.argv)
                async with Admin(plane.kubeconfig) as admin:
                    await asyncio.to_thread(replica.process.start)
                    try:
                        rows.append(await measure(name, replica, admin, limit))
                    except (OSError, ProcessError, urllib.error.URLError) as error:
                        rows.append([name, f"not measured: {error!r}"[:200], *[""] * 5])
                    finally:
                        await asyncio.to_thread(replica.process.end)
                    await _clean(admin, plane)
            print(" | ".join(rows[-1]), flush=True)
    text = record.table(list(_HEADER), rows)
    return f"{record.today()}, {record.machine()}; limit {LIMIT // MIB} MiB.\n\n{text}"


def main() -> str:
    """Run the attacks that are chosen, or all, and return their table."""
    chosen = [name.strip() for name in os.environ.get("ATTACKS", "").split(";") if name.strip()]
    names = [name for name in ATTACKS if not chosen or any(part in name for part in chosen)]
    if not names:
        raise SystemExit(
            f"no attack is called {' or '.join(chosen)}; there are: {'; '.join(ATTACKS)}"
        )
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        text = asyncio.run(_run(names, os.environ.get("TREE", ""), Path(folder)))
    print(text)
    return text
