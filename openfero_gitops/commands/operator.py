"""The human at the gate: approve, refuse and cancel one remediation; pause and resume them all.

Everything goes through Kubernetes: its RBAC says who may, and the Job says who did. The name
that is written is the one that the API server gives to whoever asks; nothing but a
ValidatingAdmissionPolicy keeps a person from writing another by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.pause import LABELS, STILL_PAUSED_BY, request_data
from openfero_gitops.admission.pause import NAME as CONTROL
from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, Invalid, NotFound, UsageError
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.remediation import Remediation


#: Seconds between two looks for the leader's acknowledgement.
_LOOK: Final = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person wants of a remediation: the phases in which it is possible, and the patch."""

    word: str
    phases: frozenset[Phase]
    patch: Callable[[Remediation, str], patches.Patch]


_WAITING = frozenset({Phase.WAITING, Phase.AWAITING_APPROVAL})

APPROVE = Verdict("approved", frozenset({Phase.AWAITING_APPROVAL}), patches.approve)
REFUSE = Verdict("refused", _WAITING, patches.refuse_by_hand)
CANCEL = Verdict(
    "cancelled", _WAITING | {Phase.RUNNING, Phase.QUEUED, Phase.HELD}, patches.cancel_by_hand
)


async def pass_verdict(
    verdict: Verdict, job: str, kubeconfig: Path | None, namespace: str | None
) -> str:
    """Write a verdict on a Job; the sentence to print.

    `job` is NAME or NAMESPACE/NAME; `namespace` is where a bare name is looked for, the
    context's where None.

    Raises:
        UsageError: there is no such remediation, it is past that verdict, or RBAC forbids it.
        ApiError: the API server did not do it.
    """
    api = await KubernetesApi.connect(kubeconfig)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        key = _key(job, namespace or api.default_namespace)
        who = await api.whoami()
        await write_verdict(api, verdict, key, who)
        return f"{key} {verdict.word} by {who}"


async def write_verdict(api: ApiServer, verdict: Verdict, key: JobKey, who: str) -> None:
    """Write it on one Job; again, where nothing but its Pods' counts changed in between.

    Raises:
        UsageError: there is no such remediation, it is past that verdict, or RBAC forbids it.
        ApiError: the API server did not do it.
    """
    one = await _read(api, key)
    while True:
        if one.phase not in verdict.phases:
            raise UsageError(f"Job {key} is {_state(one)}: it cannot be {verdict.word} any more")
        try:
            await api.patch(JOBS, key.namespace, key.name, verdict.patch(one, who))
        except Forbidden as error:
            raise UsageError(
                f"{who} may not patch Jobs in namespace {key.namespace!r}: {error}"
            ) from error
        except Invalid:
            was, one = one, await _read(api, key)
            if (was.uid, was.phase) == (one.uid, one.phase) and was != one:
                continue
            raise UsageError(
                f"Job {key} changed in this very moment and is {_state(one)}: look again"
            ) from None
        return


def _key(job: str, namespace: str) -> JobKey:
    """NAME or NAMESPACE/NAME, with or without kubectl's `job/` or `job.batch/` before the name."""
    for prefix in ("job/", "jobs/", "job.batch/"):
        job = job.removeprefix(prefix)
    before, slash, name = job.rpartition("/")
    if not name or (slash and not before) or "/" in before:
        raise UsageError(f"{job!r} is no Job: write NAME or NAMESPACE/NAME")
    return JobKey(before or namespace, name)


async def _read(api: ApiServer, key: JobKey) -> Remediation:
    try:
        job = await api.get(JOBS, key.namespace, key.name)
    except NotFound:
        raise UsageError(
            f"there is no Job {key}: write NAMESPACE/NAME, or name the namespace with --namespace"
        ) from None
    if (job["metadata"].get("labels") or {}).get(keys.MANAGED_BY) != keys.MANAGER:
        raise UsageError(f"Job {key} is none of openfero-gitops: it is left alone")
    return observe(job)


def _state(one: Remediation) -> str:
    reason = f" ({one.reason})" if one.reason else ""
    return f"{one.phase}{reason}"


async def pause(
    paused: bool,  # noqa: FBT001 - the two commands are one switch
    kubeconfig: Path | None,
    namespace: str | None,
    patience: float,
) -> str:
    """Pause admission, or let it go on, and wait until the leader says so; the sentence to print.

    `namespace` is the controller's own; `patience` is in seconds.

    Raises:
        UsageError: RBAC forbids it, or no leader acknowledged it in time.
        ApiError: the API server did not do it.
    """
    api = await KubernetesApi.connect(kubeconfig)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        store = ConfigMapStore(api, namespace or api.default_namespace)
        who = await api.whoami()
        return await write_pause(store, paused=paused, who=who, patience=patience)


async def write_pause(store: ConfigMapStore, *, paused: bool, who: str, patience: float) -> str:
    """Write it beside what others wrote there, and wait for the leader; the sentence to print.

    Raises:
        UsageError: RBAC forbids it, no leader acknowledged it in time, or somebody else wants the
            opposite.
        ApiError: the API server did not do it.
    """
    said = request_data(who, datetime.now(UTC), paused=paused)
    try:
        await store.merge(CONTROL, said, LABELS)
    except Forbidden as error:
        raise UsageError(
            f"{who} may not write ConfigMap {CONTROL} in namespace {store.namespace!r}: {error}"
        ) from error
    word = "paused" if paused else "resumed"
    try:
        async with asyncio.timeout(patience):
            while (  # noqa: ASYNC110 - no event tells
                found := await _acknowledged(store, said["paused"])
            ) is None:
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        raise UsageError(
            f"admission is to be {word}, but no leader acknowledged it within "
            f"{patience:.0f} s: does one run in namespace {store.namespace!r}? It will when "
            "it does"
        ) from None
    others = found.get(STILL_PAUSED_BY)
    if others and not paused:
        return f"the pause was ended by {who}, but admission stays paused: {others}"
    return f"admission {word} by {who}"


async def _acknowledged(store: ConfigMapStore, paused: str) -> dict[str, str] | None:
    """What stands there once a leader has acknowledged it; another's request for the same will do.

    Raises:
        UsageError: somebody else wants the opposite.
    """
    control = await store.get(CONTROL)
    data: dict[str, str] = (control or {}).get("data") or {}
    if data.get("paused") != paused:
        raise UsageError(f"somebody else wrote ConfigMap {CONTROL} in this very moment: look again")
    return data if data.get("acknowledged") == data.get("request") else None
