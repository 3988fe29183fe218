"""The history as etcd has it: every state of every Job, and of the control, in one order.

A watch through the API server may skip states when it begins anew, and an API server that was
restarted keeps nothing of what was before. etcd keeps every revision until it is compacted, which
the API server is told not to ask for, and objects as JSON. So the recorder reads there, over
etcd's own restarts, and misses nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from openfero_gitops.domain import keys
from openfero_gitops.domain.control import NAME as CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the API server must be told.
FLAGS: Final = ("--storage-media-type=application/json", "--etcd-compaction-interval=0")
_JOBS: Final = "/registry/jobs/"
_CONTROL: Final = "/registry/configmaps/"
#: The names of the Jobs that `tests.support.attacks.forged_job` makes begin with this.
FORGED: Final = "forged-"
_PAUSE: Final = 0.1  # seconds before a watch that broke begins again


@dataclass(frozen=True, slots=True)
class Seen:
    """One revision of one object; `object` is None where it was deleted."""

    revision: int
    at: float  # wall clock, when it was read: no earlier than it happened
    key: str  # NAMESPACE/NAME
    object: dict[str, Any] | None


@dataclass
class Recorder:
    """Follows Jobs of ours and the control from the beginning of an etcd on."""

    etcd: str
    jobs: list[Seen] = field(default_factory=list)
    forged: list[Seen] = field(default_factory=list)  # the attacker's Jobs
    control: list[Seen] = field(default_factory=list)
    latest: dict[str, dict[str, Any]] = field(default_factory=dict)  # Jobs as they are now
    breaks: int = 0
    heard: list[Callable[[Seen], None]] = field(default_factory=list)

    async def run(self) -> None:
        """Record until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(_JOBS, self._job))
            tasks.create_task(self._follow(_CONTROL, self._controlled))

    async def _follow(self, prefix: str, take: Callable[[Seen], None]) -> None:
        following = 1
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=2**24) as http:
            while True:
                try:
                    following = await self._watch(http, prefix, following, take)
                except (aiohttp.ClientError, OSError, TimeoutError, _Broken) as error:
                    following = getattr(error, "following", following)
                    self.breaks += 1
                await asyncio.sleep(_PAUSE)

    async def _watch(
        self, http: aiohttp.ClientSession, prefix: str, following: int, take: Callable[[Seen], None]
    ) -> int:
        request = {
            "create_request": {
                "key": _encoded(prefix),
                "range_end": _encoded(prefix[:-1] + chr(ord(prefix[-1]) + 1)),
                "start_revision": str(following),
            }
        }
        async with http.post(f"{self.etcd}/v3/watch", json=request) as answer:
            rest = b""
            try:
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        for seen in _read(line, prefix):
                            # (Several objects of one transaction share a revision.)
                            take(seen)
                            following = max(following, seen.revision + 1)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _Broken(following) from error
        return following

    def _job(self, seen: Seen) -> None:
        if f"/{FORGED}" in seen.key:
            self.forged.append(seen)
            return
        job = seen.object
        if job is None:
            if self.latest.pop(seen.key, None) is None:
                return
        elif (job["metadata"].get("labels") or {}).get(keys.MANAGED_BY) != keys.MANAGER:
            return
        else:
            self.latest[seen.key] = job
        self.jobs.append(seen)
        for tell in self.heard:
            tell(seen)

    def _controlled(self, seen: Seen) -> None:
        if seen.key.endswith(f"/{CONTROL}"):
            self.control.append(seen)


class _Broken(Exception):
    """A watch that broke, and the revision that follows what was read."""

    def __init__(self, following: int) -> None:
        super().__init__(following)
        self.following = following


def _read(line: bytes, prefix: str) -> list[Seen]:
    """Read one line of the stream."""
    if not line.strip():
        return []
    result = json.loads(line).get("result") or {}
    if result.get("canceled"):
        raise ConnectionError(f"etcd ended the watch: {result}")
    records = []
    for event in result.get("events") or ():
        pair = event["kv"]
        key = base64.b64decode(pair["key"]).decode().removeprefix(prefix)
        revision = int(pair["mod_revision"])
        stored = None
        if event.get("type", "PUT") == "PUT":
            stored = _slim(json.loads(base64.b64decode(pair["value"])), str(revision))
        records.append(Seen(revision, time.time(), key, stored))
    return records


def _slim(stored: dict[str, Any], version: str) -> dict[str, Any]:
    """Leave out what is long and tells nothing of when what ran."""
    stored["metadata"].pop("managedFields", None)
    stored["metadata"]["resourceVersion"] = version
    for texts in (stored["metadata"].get("annotations"), stored["metadata"].get("labels")):
        for name, text in (texts or {}).items():
            texts[name] = sys.intern(text)  # the same in each of a Job's states
    if "spec" in stored:
        stored["spec"].pop("template", None)
        stored["spec"].pop("selector", None)
    return stored


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
