"""Somebody who may create Jobs, and forges such as look like the controller's.

All carry its label and contradict themselves in one way. They run at once, and each is after one
thing: the name of an alert's Job, its incident, its target, or the future.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.jobs.names import job_name
from openfero_gitops.jobs.observe import read_remediation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from random import Random

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.demo.cluster import MemoryCluster

#: By which the judge, and nobody else, knows them.
_MARK: Final = "example.org/forged"
_MAX_DAYS_AHEAD: Final = 300


def is_forged(job: Object) -> bool:
    """Whether a Job is one of these."""
    return _MARK in (job["metadata"].get("annotations") or {})


class Forger:
    """What they do, at random; they talk to the API server themselves."""

    def __init__(
        self,
        cluster: MemoryCluster,
        namespaces: Sequence[str],
        rng: Random,
        now: Callable[[], datetime],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.deleted: set[str] = set()
        self._cluster = cluster
        self._namespaces = namespaces
        self._rng = rng
        self._now = now

    async def act(self) -> None:
        """Forge one Job from one that is there, or delete all that were forged."""
        jobs = [job for job in await self._jobs() if not is_forged(job)]
        if self._rng.random() < 0.3 or not jobs:
            await self.clean_up()
            return
        forged = copy.deepcopy(self._rng.choice(jobs))
        for generated in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"):
            forged["metadata"].pop(generated, None)
        for generated in ("finalizers", "generation"):
            forged["metadata"].pop(generated, None)
        forged.pop("status", None)
        for generated in ("selector", "activeDeadlineSeconds"):
            forged["spec"].pop(generated, None)
        forged["spec"]["template"].pop("metadata", None)
        forged["spec"]["suspend"] = False
        now = format_time(self._now())
        forged["metadata"]["annotations"] |= {_MARK: "", keys.ADMITTED_AT: now}
        forge = self._rng.choice((self._copy, self._squat, self._come_from_the_future))
        forge(forged)
        self.counts[f"{forge.__name__.strip('_')}"] += 1
        with suppress(ApiError):
            await self._cluster.create(JOBS, forged["metadata"]["namespace"], forged)

    async def clean_up(self) -> None:
        """Delete what was forged."""
        for job in await self._jobs():
            if is_forged(job):
                metadata = job["metadata"]
                self.deleted.add(metadata["uid"])
                with suppress(ApiError):
                    await self._cluster.delete(JOBS, metadata["namespace"], metadata["name"])

    async def _jobs(self) -> list[dict[str, Any]]:
        return [
            job
            for namespace in self._namespaces
            for job in (await self._cluster.list(JOBS, namespace)).items
        ]

    def _copy(self, job: Object) -> None:
        """Copy all but the name."""
        job["metadata"]["name"] = f"forged-{self._rng.getrandbits(40)}"

    def _squat(self, job: Object) -> None:
        """Take the name of the next attempt, and the target of another alert."""
        self._next_attempt(job)
        job["metadata"]["annotations"][keys.TARGET] = json.dumps({"pod": "web-0", "x": "y"})

    def _come_from_the_future(self, job: Object) -> None:
        """Be consistent, apart from when the alert was received."""
        self._next_attempt(job)
        ahead = timedelta(days=self._rng.uniform(1, _MAX_DAYS_AHEAD))
        job["metadata"]["annotations"][keys.RECEIVED_AT] = format_time(self._now() + ahead)

    @staticmethod
    def _next_attempt(job: Object) -> None:
        given = read_remediation(job)
        attempt = given.attempt + 1
        occurrence = Occurrence(given.labels, given.status, given.starts_at, attempt)
        job["metadata"]["name"] = job_name(occurrence)
        job["metadata"]["labels"][keys.OCCURRENCE] = occurrence.digest
        job["metadata"]["annotations"][keys.ATTEMPT] = str(attempt)
