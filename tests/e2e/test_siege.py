"""A replica in 512 MiB of memory, under every attack at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from openfero_gitops.domain import keys
from tests.cluster.controlplane import COMPONENTS
from tests.support import attacks
from tests.support.attacks import MIB, Admin, Attacker
from tests.support.memory_limit import memory_limit
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.controlplane import ControlPlane

NAMESPACE = "default"
TOKEN = "a-token"
LIMIT = 512 * MIB
HOSTILE_BODIES = 100
SLOW_CONNECTIONS = 500
FORGED_JOBS = 200
FORGED_CONFIG_MAPS = 300
REAL_GROUPS = 20
GROUP_SIZE = 5
#: Seconds; a busy machine needs more than the fraction of it that an idle one does.
PATIENCE = 240


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Give an API server without controllers, so that an admitted Job stays as the leader left it.

    Its cache is small, since hundreds of megabytes are stored in it.
    """
    return private_control_plane(components=COMPONENTS[:2])


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Give a repository whose limits let every real alert's Job start."""
    made = Repository(tmp_path / "operarios")
    made.write("openfero.yaml", "limits: {concurrent: 1000, perMinute: 1000}\n")
    options = {"openfero.io/max-concurrent": "1000", "openfero.io/max-per-hour": "1000"}
    made.write("real.json", operario("Real", annotations=options))
    made.commit("Operarios")
    return made


@pytest.fixture
def replica(tmp_path: Path, plane: ControlPlane, repository: Repository) -> Iterator[Replica]:
    """Give a leader with the chart's settings, under the chart's memory limit."""
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    besieged = Replica(
        tmp_path,
        name="besieged",
        kubeconfig=plane.kubeconfig,
        namespace=NAMESPACE,
        repository=repository.url,
        development=False,
        webhook_auth="bearer",
        webhook_credentials_file=str(token),
        lease_duration="15s",
        renew_deadline="10s",
        retry_period="2s",
        interval="1m",
    )
    with memory_limit(LIMIT, "siege") as limit:
        besieged.process.argv = limit.wrap(besieged.process.argv)
        with besieged:
            besieged.wait_for(lambda: besieged.leads)
            yield besieged
            peak = limit.peak()
            print(f"limit {limit}; peak {peak and peak // MIB} MiB")


async def deliver_patiently(replica: Replica, number: int) -> None:
    """Deliver a group until it is answered with 200; after a 503 or no answer, again."""
    alerts = [alert("Real", host=f"host-{number}-{member}") for member in range(GROUP_SIZE)]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    pause = 0.25
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10), headers=headers) as http,
        asyncio.timeout(PATIENCE),
    ):
        while True:
            assert replica.process.returncode is None, "the replica was killed"
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with http.post(f"{replica.url}/alerts", json=group(*alerts)) as answer:
                    text = await answer.text()
                    assert answer.status in (200, 503), text
                    if answer.status == 200:
                        return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 4.0)


async def lay_siege(replica: Replica, admin: Admin) -> Attacker:
    """Attack with bodies, connections and forged objects at once, while real alerts arrive."""
    # Each attacker has an address of its own: what one does must not cost the others' attempts.
    slow = Attacker(replica.url, TOKEN, source="127.0.0.2")
    sender = Attacker(replica.url, TOKEN, source="127.0.0.3")
    stranger = Attacker(replica.url, source="127.0.0.4")
    bodies = [
        attacks.ones(MIB // 2),
        attacks.ones(8 * MIB - 1024),
        attacks.empty_objects(4 * MIB),
        attacks.unknown_members(8 * MIB - 1024),
        attacks.one_label(8 * MIB - 1024),
        attacks.nested(MIB),
        attacks.empty_objects(16 * MIB),
    ]

    async def forge() -> None:
        jobs, config_maps = attacks.jobs_path(NAMESPACE), attacks.config_maps_path(NAMESPACE)
        statuses = await admin.create_all(jobs, map(attacks.forged_job, range(FORGED_JOBS)))
        assert statuses[201] == FORGED_JOBS, statuses
        statuses = await admin.create_all(
            config_maps, map(attacks.forged_config_map, range(FORGED_CONFIG_MAPS))
        )
        assert statuses[201] == FORGED_CONFIG_MAPS, statuses

    async def send_real() -> None:
        for number in range(REAL_GROUPS):
            await deliver_patiently(replica, number)
            await asyncio.sleep(0.5)

    async def send_hostile() -> None:
        await asyncio.gather(
            *(sender.post(bodies[n % len(bodies)], patience=60) for n in range(HOSTILE_BODIES)),
            *(stranger.post(bodies[n % len(bodies)], patience=60) for n in range(20)),
            *(sender.post(attacks.endless(), patience=20) for _ in range(5)),
        )

    async with (
        slow.hold(attacks.slow_head, SLOW_CONNECTIONS * 4 // 5),
        slow.hold(attacks.slow_body, SLOW_CONNECTIONS // 5),
    ):
        await asyncio.gather(forge(), send_real(), send_hostile())
    return sender


async def lease(admin: Admin) -> tuple[str, str, int]:
    """Return the holder, when it took the lease, and how often the lease changed hands."""
    status, stored = await admin.request("GET", attacks.lease_path(NAMESPACE))
    assert status == 200
    spec = stored["spec"]
    return spec["holderIdentity"], spec["acquireTime"], spec["leaseTransitions"]


async def real_jobs(admin: Admin) -> list[dict[str, Any]]:
    """Return the Jobs of the real alerts, read page by page."""
    jobs: list[dict[str, Any]] = []
    page = ""
    while True:
        _, listed = await admin.request(
            "GET",
            attacks.jobs_path(NAMESPACE),
            limit="20",
            **({"continue": page} if page else {}),
        )
        jobs += [job for job in listed["items"] if "forged" not in job["metadata"]["name"]]
        page = listed["metadata"].get("continue", "")
        if not page:
            return jobs


@pytest.mark.cluster
async def test_a_besieged_replica_keeps_its_lease_and_heals(
    plane: ControlPlane, replica: Replica
) -> None:
    """In 512 MiB, under all attacks at once, it leads on, and every real alert's Job is started."""
    async with Admin(plane.kubeconfig) as admin:
        held = await lease(admin)
        began = time.monotonic()
        attacker = await lay_siege(replica, admin)
        print(f"{time.monotonic() - began:.0f} s; {dict(attacker.answers)}")
        assert replica.process.returncode is None, replica.process.output[-2000:]
        deadline = time.monotonic() + PATIENCE
        while True:
            jobs = await real_jobs(admin)
            started = [job for job in jobs if keys.ADMITTED_AT in job["metadata"]["annotations"]]
            if len(started) == REAL_GROUPS * GROUP_SIZE or time.monotonic() > deadline:
                break
            await asyncio.sleep(1)
        assert await lease(admin) == held, replica.process.output[-2000:]
    hosts = {
        json.loads(job["metadata"]["annotations"][keys.ALERT])["labels"]["host"] for job in jobs
    }
    assert len(jobs) == len(hosts) == REAL_GROUPS * GROUP_SIZE
    assert len(started) == len(jobs)
    # (200: one of the bodies has no alert, and a member that is skipped.)
    expected = {"200", "400", "413", "422", "503", "closed", "no answer"} | RESETS
    assert set(attacker.answers) <= expected
    assert replica.process.returncode is None
    conditions = (await asyncio.to_thread(replica.get, "/readyz"))["conditions"]
    failing = {condition["name"]: condition["message"] for condition in conditions}
    assert "forged-" in failing["foreign jobs"]


#: The server may close a connection whose body it does not want to read.
RESETS = {"ConnectionResetError", "BrokenPipeError"}
