"""Print the logs of the containers of a remediation, as the current user.

Logs exist as long as their Pod. Only the newest Pod's logs are printed: a Job creates another Pod
only after one has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.answers import MAX_ANSWER_BYTES, Lines, TooLongError
from openfero_gitops.cluster.api import PODS
from openfero_gitops.cluster.jobs import JobStore
from openfero_gitops.commands.connection import api_client
from openfero_gitops.commands.jobs import job_key, read_job
from openfero_gitops.domain.errors import Forbidden, Invalid, NotFound, UsageError
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.domain.text import listed, printable
from openfero_gitops.inspection.trace import newest
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
    from pathlib import Path

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.cluster.client import KubernetesApi
    from openfero_gitops.domain.remediation import JobKey, Remediation

_POLL_SECONDS: Final = 1.0
_ENDED: Final = ("Succeeded", "Failed")


class NotStarted(UsageError):
    """A container has no logs, because it has not started."""


async def print_logs(
    job: str,
    kubeconfig: Path | None,
    namespace: str | None,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    container: str | None = None,
    follow: bool = False,
) -> None:
    """Print the logs of the newest Pod of a Job, line by line.

    Args:
        job: NAME or NAMESPACE/NAME.
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: of a plain NAME; None means the context's.
        say: prints a line. With several containers, it begins with the name of its container.
        warn: prints why a container has no logs; if none of them has, that is an error.
        container: only this one; None means all, init containers first.
        follow: continue until the containers have ended, and wait for them to start.

    Raises:
        UsageError: there is no such remediation or container, it has not started, its Pods are
            gone, or RBAC forbids to read the logs.
        ApiError: the API server did not answer.
    """
    async with api_client(kubeconfig) as api:
        key = job_key(job, namespace or api.default_namespace)
        await write_logs(api, key, say, warn, container=container, follow=follow)


async def write_logs(
    api: KubernetesApi,
    key: JobKey,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    container: str | None = None,
    follow: bool = False,
) -> None:
    """Print the logs of the newest Pod of a Job; see `print_logs`."""
    try:
        pod = await _find_pod(api, key, wait=follow)
        names = list(_containers(pod, container))
        await _print_all(api, pod, names, say, warn, follow=follow)
    except Forbidden as error:
        raise UsageError(f"no permission to read the logs of Job {key}: {error}") from error


async def _print_all(
    api: KubernetesApi,
    pod: Object,
    names: list[str],
    say: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    follow: bool,
) -> None:
    """Print the logs of some containers: at once if they are followed, else one after the other."""

    async def copy(name: str) -> NotStarted | None:
        prefix = f"[{name}] " if len(names) > 1 else ""
        try:
            async for line in _lines(api, pod, name, follow=follow):
                # A carriage return would let the container write over its name.
                say(prefix + line.replace("\r", "\\r") if prefix else line)
        except NotStarted as error:
            return error
        return None

    if follow:
        errors = await _gather(copy, names)
    else:
        errors = [await copy(name) for name in names]
    not_started = [error for error in errors if error is not None]
    if len(not_started) == len(names):
        raise not_started[0]
    for error in not_started:
        warn(str(error))


async def _gather(
    copy: Callable[[str], Coroutine[Any, Any, NotStarted | None]], names: list[str]
) -> list[NotStarted | None]:
    """Copy logs at once; the first other error ends all."""
    tasks = [asyncio.create_task(copy(name), name=f"logs of {name}") for name in names]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _lines(api: KubernetesApi, pod: Object, container: str, *, follow: bool) -> Any:
    """Yield the lines of a container; wait until it has started, if it is followed."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    while True:
        try:
            async for line in _split(api.pod_log(namespace, name, container, follow=follow)):
                yield line
        except Invalid as error:
            # The container has not started: Kubernetes says what it waits for.
            if not follow or await _has_ended(api, namespace, name):
                raise NotStarted(f"no logs of Pod {namespace}/{name}: {error}") from None
            await asyncio.sleep(_POLL_SECONDS)
        except NotFound:
            raise UsageError(f"Pod {namespace}/{name} was deleted, and its logs with it") from None
        else:
            return


async def _split(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[str]:
    """Yield the lines of a log; bytes that are not UTF-8 are replaced."""
    lines = Lines()
    async with contextlib.aclosing(chunks):
        try:
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    yield line.decode(errors="replace")
        except TooLongError:
            limit = f"{MAX_ANSWER_BYTES >> 20} MiB"
            raise UsageError(f"a line of the log exceeds {limit}; read it with kubectl") from None
    if lines.rest:
        yield lines.rest.decode(errors="replace")


async def _has_ended(api: KubernetesApi, namespace: str, name: str) -> bool:
    pod = await api.get(PODS, namespace, name)
    return (pod.get("status") or {}).get("phase") in _ENDED


async def _find_pod(api: KubernetesApi, key: JobKey, *, wait: bool) -> Object:
    """Return the newest Pod of a Job; with `wait`, also of a Job that has not started yet."""
    store = JobStore(api, (key.namespace,), observe)
    while True:
        remediation, _ = await read_job(api, key)
        if pods := newest(await store.pods(key)):
            return await api.get(PODS, key.namespace, pods[0]["metadata"]["name"])
        if not wait or remediation.phase in FINAL or remediation.finished:
            raise UsageError(_why_no_pod(remediation))
        await asyncio.sleep(_POLL_SECONDS)


def _why_no_pod(remediation: Remediation) -> str:
    key = remediation.key
    reason = f" ({printable(remediation.reason)})" if remediation.reason else ""
    if not remediation.has_run:
        text = f"Job {key} has no logs: it has not started, its phase is {remediation.phase}"
        hint = "" if remediation.phase in FINAL else "; --follow waits for it"
        return f"{text}{reason}{hint}"
    if remediation.phase in (Phase.RUNNING, Phase.QUEUED, Phase.HELD):
        return f"Job {key} has no Pod at the moment, its phase is {remediation.phase}{reason}"
    return (
        f"the Pods of Job {key} were deleted, and their logs with them; run openfero-gitops trace "
        f"{key} to see what is recorded"
    )


def _containers(pod: Object, only: str | None) -> Iterator[str]:
    """Yield the names of the containers whose logs are wanted, in the order of their start."""
    spec = pod.get("spec") or {}
    names = [
        container["name"]
        for kind in ("initContainers", "containers")
        for container in spec.get(kind) or ()
    ]
    if only is None:
        yield from names
    elif only in names:
        yield only
    else:
        raise UsageError(
            f"Pod {pod['metadata']['name']} has no container {only!r}; it has {listed(names)}"
        )
