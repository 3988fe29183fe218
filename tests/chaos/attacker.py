"""An attacker among the senders: whatever else goes wrong, this goes on beside it.

Hostile bodies and slow connections come from the network. Forged Jobs, parts of the mirror and its
head are written with more rights than an attacker should have. The Lease is written without the
right to, which must fail. What is drawn is drawn from the seed; the attacker has no promise to
keep, so an API server or a replica that is down is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from openfero_gitops.catalog.mirror import HEAD, write_mirror
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile, blob_id
from tests.support import attacks
from tests.support.attacks import Admin, Attacker
from tests.support.replica import operario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.chaos.stage import Stage
    from tests.chaos.stories import Story

# Seconds.
BETWEEN_ATTACKS: Final = (0.5, 2.0)
PATIENCE: Final = 5.0
SLOW_CONNECTIONS: Final = 30  # to each replica
MOST_OBJECTS: Final = 200  # of each kind: their names are used again
_KIB: Final = 1024


@dataclass
class Attack:
    """The attacker of one run, and what came of it."""

    stage: Stage
    stories: Sequence[Story]
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    successes: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Attack until cancelled."""
        chance = random.Random(f"attacks {self.seed}")  # noqa: S311 - to be drawn again
        async with contextlib.AsyncExitStack() as stack:
            for replica in self.stage.replicas.values():
                attacker = Attacker(replica.url)
                await stack.enter_async_context(attacker.hold(attacks.slow_head, SLOW_CONNECTIONS))
            admin = await stack.enter_async_context(Admin(self.stage.plane.kubeconfig))
            while True:
                await asyncio.sleep(chance.uniform(*BETWEEN_ATTACKS))
                attack = chance.choice(_ATTACKS)
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
                    async with asyncio.timeout(2 * PATIENCE):
                        await attack(self, admin, chance)

    async def post_hostile_bodies(self, admin: Admin, chance: random.Random) -> None:
        """Send bodies that cost much and hold no alert, to any replica."""
        del admin
        replica = self.stage.replicas[chance.choice(sorted(self.stage.replicas))]
        attacker = Attacker(replica.url)
        size = chance.choice([64, 512, 2048]) * _KIB
        make = chance.choice([attacks.ones, attacks.empty_objects, attacks.nested])
        answers = await asyncio.gather(
            *(attacker.post(make(size), patience=PATIENCE) for _ in range(3))
        )
        self.counts["hostile bodies"] += len(answers)
        self.successes += [f"a hostile body was answered with {a}" for a in answers if a == "200"]

    async def forge_jobs(self, admin: Admin, chance: random.Random) -> None:
        """Create a Job that claims to heal an incident of a story, delivered in the future."""
        story = chance.choice(self.stories)
        number = self.counts["forged Jobs"] % MOST_OBJECTS
        job = attacks.forged_job(number, size=100_000)
        job["metadata"]["labels"][keys.INCIDENT] = incident_digest(story.labels, Status.FIRING)
        job["metadata"]["annotations"][keys.ALERT] = json.dumps({"labels": story.labels})
        await admin.request("POST", attacks.jobs_path(self.stage.namespace), job)
        self.counts["forged Jobs"] += 1

    async def forge_config_maps(self, admin: Admin, chance: random.Random) -> None:
        """Create a ConfigMap that claims to be a part of the mirror."""
        del chance
        number = self.counts["forged ConfigMaps"] % MOST_OBJECTS
        forged = attacks.forged_config_map(number, size=100_000)
        await admin.request("POST", attacks.config_maps_path(self.stage.namespace), forged)
        self.counts["forged ConfigMaps"] += 1

    async def forge_mirror(self, admin: Admin, chance: random.Random) -> None:
        """Write a whole mirror with right digests, of another repository's content."""
        del chance
        content = operario("Plain").replace("/heal", "/evil").encode()
        url = self.stage.repository.url
        revision = Revision(url, "HEAD", "e" * 40, "Mallory <m@example.com>")
        file = SourceFile("plain-firing.json", blob_id(content), content)
        mirror = write_mirror(Snapshot(revision, "", (file,)), self.stage.namespace)
        path = attacks.config_maps_path(self.stage.namespace)
        for shard in mirror.shards:
            await admin.request("POST", path, shard)
        status, stored = await admin.request("GET", f"{path}/{HEAD}")
        if status == 200:
            version = stored["metadata"]["resourceVersion"]
            mirror.head["metadata"]["resourceVersion"] = version
            await admin.request("PUT", f"{path}/{HEAD}", mirror.head)
            self.counts["forged mirrors"] += 1

    async def scribble_on_the_lease(self, admin: Admin, chance: random.Random) -> None:
        """Write the Lease as a ServiceAccount of the Jobs' namespace, which has no right to."""
        del chance
        account = f"/api/v1/namespaces/{self.stage.namespace}/serviceaccounts/default/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        status, answer = await admin.request("POST", account, request)
        if status != 201:
            return
        path = attacks.lease_path(self.stage.namespace)
        patch = [{"op": "add", "path": "/spec/holderIdentity", "value": "mallory"}]
        token = answer["status"]["token"]
        status, _ = await admin.request("PATCH", path, patch, token=token)
        if status == 403:
            self.counts["writes of the Lease that were refused"] += 1
        elif status < 400:
            self.successes.append(f"the Lease was written by somebody else ({status})")

    def __str__(self) -> str:
        """Say what was done, for the table."""
        return ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))


_ATTACKS: Final[tuple[Callable[[Attack, Admin, random.Random], Awaitable[Any]], ...]] = (
    Attack.post_hostile_bodies,
    Attack.forge_jobs,
    Attack.forge_config_maps,
    Attack.forge_mirror,
    Attack.scribble_on_the_lease,
)
