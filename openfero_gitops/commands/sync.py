"""Sync every replica now, and report the result of each.

No list of the replicas exists. Each reads the ConfigMap `openfero-control` every few seconds, and
answers a request as soon as it has read it: those that have answered within `_DISCOVERY_SECONDS`
are waited for, and the leader in any case, whose name is in the Lease.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.lease import KubernetesLease
from openfero_gitops.commands.control import connect, write_request
from openfero_gitops.domain.control import NAME, read_members
from openfero_gitops.domain.errors import Forbidden, UsageError
from openfero_gitops.domain.sync_answer import read_answers
from openfero_gitops.domain.text import aligned, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from openfero_gitops.cluster.config_maps import ConfigMapStore
    from openfero_gitops.commands.control import UserSession
    from openfero_gitops.domain.sync_answer import SyncAnswer

_POLL_SECONDS: Final = 0.5
#: A replica reads requests every 5 s.
_DISCOVERY_SECONDS: Final = 8.0
_LEASE_SECONDS: Final = 10.0
#: A leader that has not renewed the lease for this many lease durations is gone.
_MAX_MISSED_RENEWALS: Final = 2
_COMMIT_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True)
class ReplicaSync:
    """The sync of one replica; `answer` is None if it did not even read the request."""

    replica: str
    leader: bool
    answer: SyncAnswer | None

    @property
    def succeeded(self) -> bool:
        """Whether the replica has the newest commit."""
        return self.answer is not None and self.answer.finished and not self.answer.error

    def result(self, waited_seconds: float) -> str:
        """What happened, in a few words."""
        answer = self.answer
        if answer is None:
            return f"did not read the request within {waited_seconds:.0f} s; is it running?"
        if not answer.finished:
            return f"still syncing after {waited_seconds:.0f} s; see /api/sync or its log"
        if answer.error:
            return f"failed: {answer.error}"
        if answer.before == answer.commit:
            return "unchanged"
        return f"updated from {_short(answer.before)}" if answer.before else "updated"


@dataclass(frozen=True, slots=True)
class SyncResults:
    """The syncs of all replicas, and how long the command waited for them."""

    replicas: Sequence[ReplicaSync]
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether every replica has the newest commit."""
        return all(replica.succeeded for replica in self.replicas)

    def __str__(self) -> str:
        """A table with a line for each replica, and a last line for all of them."""
        rows = [["REPLICA", "COMMIT", "SECONDS", "RESULT"]]
        for replica in self.replicas:
            answer = replica.answer if replica.answer and replica.answer.finished else None
            name = f"{replica.replica} (leader)" if replica.leader else replica.replica
            commit = (_short(answer.commit) if answer else "") or "-"
            seconds = f"{answer.seconds:.1f}" if answer else "-"
            rows.append([name, commit, seconds, replica.result(self.seconds)])
        lines = aligned(rows)
        synced = sum(replica.succeeded for replica in self.replicas)
        replicas = plural(len(self.replicas), "replica")
        count = replicas if synced == len(self.replicas) else f"{synced} of {replicas}"
        lines.append(f"{count} synced; took {self.seconds:.1f} s")
        return "\n".join(lines)

    def members(self) -> dict[str, Any]:
        """The members of the JSON to print."""
        return {
            "succeeded": self.succeeded,
            "seconds": round(self.seconds, 1),
            "replicas": [
                {
                    "replica": replica.replica,
                    "leader": replica.leader,
                    "succeeded": replica.succeeded,
                    "before": _finished(replica, "before") or None,
                    "commit": _finished(replica, "commit") or None,
                    "seconds": _finished(replica, "seconds"),
                    "error": None if replica.succeeded else replica.result(self.seconds),
                }
                for replica in self.replicas
            ],
        }


async def sync(
    kubeconfig: Path | None, namespace: str | None, timeout_seconds: float
) -> SyncResults:
    """Sync every replica as the current user, and wait for the results.

    Args:
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: the controller's own; None means the context's.
        timeout_seconds: how long to wait; replicas that have not reported then have failed.

    Raises:
        UsageError: RBAC forbids it, or no replica has read the request in time.
        ApiError: the API server does not answer.
    """
    async with connect(kubeconfig, namespace) as session:
        leader = await _read_leader(session)
        return await request_sync(session.store, session.username, leader, timeout_seconds)


async def request_sync(
    store: ConfigMapStore, username: str, leader: str, timeout_seconds: float
) -> SyncResults:
    """Write a request to sync, and wait for the answers.

    `leader` is the identity of the leader, empty if it is not known or there is none.
    """
    request = f"{uuid.uuid4().hex} {username}"
    began = _loop_time()
    await write_request(store, username, {"sync": request, "sync-request": request})
    # A later request of somebody else replaces this one; what answers it answers this one, too.
    requests = {request}
    answers: dict[str, SyncAnswer] = {}
    while True:
        control = await store.get(NAME)
        requests.add(read_members(control).get("sync-request", request))
        for answer in read_answers(control).values():
            if answer is None or answer.request not in requests:
                continue
            # A replica that has finished may already sync for a later request.
            if answer.replica not in answers or not answers[answer.replica].finished:
                answers[answer.replica] = answer
        seconds = _loop_time() - began
        report = _report(answers.values(), leader, seconds)
        settled = all(replica.answer and replica.answer.finished for replica in report.replicas)
        if answers and settled and seconds >= min(_DISCOVERY_SECONDS, timeout_seconds):
            return report
        if seconds >= timeout_seconds:
            break
        await asyncio.sleep(_POLL_SECONDS)
    if not answers:
        raise UsageError(
            f"Sync requested, but no replica has read the request within {timeout_seconds:.0f} s. "
            f'Is the controller running in namespace "{store.namespace}"?'
        )
    return report


def _report(answers: Iterable[SyncAnswer], leader: str, seconds: float) -> SyncResults:
    replicas = [ReplicaSync(answer.replica, answer.replica == leader, answer) for answer in answers]
    if leader and not any(replica.leader for replica in replicas):
        replicas.append(ReplicaSync(leader, leader=True, answer=None))
    return SyncResults(sorted(replicas, key=lambda r: (not r.leader, r.replica)), seconds)


async def _read_leader(session: UserSession) -> str:
    """Read who leads; empty if nobody does, or the user must not read the Lease."""
    lease = KubernetesLease(session.api, session.store.namespace)
    try:
        record = await lease.read(timeout=_LEASE_SECONDS)
    except Forbidden:
        return ""
    if record is None or record.renewed_at is None:
        return ""
    lasts = timedelta(seconds=_MAX_MISSED_RENEWALS * record.duration)
    return record.holder if session.now() - record.renewed_at <= lasts else ""


def _finished(replica: ReplicaSync, member: str) -> Any:
    answer = replica.answer
    return getattr(answer, member) if answer and answer.finished else None


def _short(commit: str) -> str:
    return commit[:_COMMIT_CHARACTERS]


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
