"""Tries every operario of a catalog once, for a person who waits for the result.

The leader does the same slowly and forever, see `runner`. Here a few requests run at a time. What
holds for a whole namespace (it does not exist, or the caller has no permission) is found out by the
first operario of it, and said once; so is a full quota. Where the chart's policy lets only the
controller create such Jobs, they are tried without the label by which the policy selects them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.cluster_rule import (
    ACCOUNT_MISSING,
    NO_ROOM,
    NOT_ALLOWED,
    UNDECIDED,
)
from openfero_gitops.domain.errors import ApiError, Throttled, Unauthorized, Unavailable
from openfero_gitops.domain.text import plural
from openfero_gitops.dryrun.policy import is_for_controller_only
from openfero_gitops.dryrun.requests import check_account, dry_run
from openfero_gitops.dryrun.trial import DryRun, DryRuns, Remark, is_about_namespace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.dryrun.requests import Cluster
    from openfero_gitops.dryrun.trial import Trial

_AT_A_TIME: Final = 8
_MAX_TRIES: Final = 3
_PAUSE_SECONDS: Final = 1.0
#: So many operarios in a row without an answer: the API server is gone.
_MAX_UNANSWERED: Final = 3


async def try_catalog(
    cluster: Cluster,
    catalog: Catalog,
    catalog_trials: Sequence[Trial],
    jobs_namespace: str,
    progress: Callable[[int], None] = lambda _: None,
) -> DryRuns:
    """Return what the cluster says about every operario.

    Args:
        cluster: where the Jobs are created with `dryRun=All`.
        catalog: whose operarios are tried.
        catalog_trials: of its operarios.
        jobs_namespace: for operarios that name no namespace.
        progress: called with the number of operarios that are finished.

    Raises:
        ApiError: the API server cannot be reached, or rejects the credentials.
    """
    attempt = _Attempt(cluster, catalog, jobs_namespace, progress)
    by_namespace: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in catalog_trials:
        by_namespace[trial.namespace].append(trial)
    try:
        async with asyncio.TaskGroup() as group:
            for namespace, of_namespace in by_namespace.items():
                group.create_task(attempt.try_namespace(namespace, of_namespace))
    except* ApiError as errors:
        raise _first(errors) from None
    return attempt.results


def _first(errors: BaseExceptionGroup[ApiError]) -> ApiError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, ApiError):
        raise TypeError
    return error


class _Attempt:
    """The requests of one attempt, and their results so far."""

    def __init__(
        self,
        cluster: Cluster,
        catalog: Catalog,
        jobs_namespace: str,
        progress: Callable[[int], None],
    ) -> None:
        self._cluster = cluster
        self._catalog = catalog
        self._jobs_namespace = jobs_namespace
        self._progress = progress
        self._gate = asyncio.Semaphore(_AT_A_TIME)
        self._at = datetime.now(UTC)
        self._finished = 0
        self._answered = False
        self._unanswered = 0
        # Namespaces in which only the controller may create Jobs with its label.
        self._controller_only: set[str] = set()
        self._operarios: dict[str, DryRun] = {}
        self._namespaces: dict[str, DryRun] = {}

    @property
    def results(self) -> DryRuns:
        """The results so far."""
        return DryRuns(operarios=self._operarios, namespaces=self._namespaces)

    async def try_namespace(self, namespace: str, trials: Sequence[Trial]) -> None:
        """Try the operarios of a namespace, unless the first one finds that it is useless."""
        remarks = await self._try(trials[0])
        if remarks and is_about_namespace(remarks[0]):
            untried = plural(len(trials), "operario")
            message = f"{remarks[0].message}; {untried} could not be tried"
            if remarks[0].rule == NO_ROOM.id and message.startswith("namespaces "):
                message += f": create namespace {namespace}, or use --jobs-namespace"
            self._keep_namespace(namespace, replace(remarks[0], message=message))
            self._finish(len(trials))
            return
        self._keep(trials[0], remarks)
        async with asyncio.TaskGroup() as group:
            for trial in trials[1:]:
                group.create_task(self._try_and_keep(trial))

    async def _try_and_keep(self, trial: Trial) -> None:
        self._keep(trial, await self._try(trial))

    async def _try(self, trial: Trial) -> tuple[Remark, ...]:
        async with self._gate:
            remarks = await self._dry_run(trial)
            if remarks and is_for_controller_only(remarks[0].message):
                self._controller_only.add(trial.namespace)
                remarks = await self._dry_run(trial)
            accounts = f"{trial.namespace}/serviceaccounts"
            useless = bool(remarks) and is_about_namespace(remarks[0])
            if not trial.account or useless or accounts in self._namespaces:
                return remarks
            missing = await self._request(lambda: check_account(self._cluster, trial))
        if missing and missing[0].rule == NOT_ALLOWED.id:
            self._keep_namespace(accounts, missing[0])
            missing = ()
        return remarks + tuple(remark for remark in missing if remark.rule == ACCOUNT_MISSING.id)

    async def _dry_run(self, trial: Trial) -> tuple[Remark, ...]:
        return await self._request(
            lambda: dry_run(
                self._cluster,
                trial,
                self._catalog,
                self._jobs_namespace,
                as_controller=trial.namespace not in self._controller_only,
            )
        )

    async def _request(
        self, request: Callable[[], Awaitable[tuple[Remark, ...]]]
    ) -> tuple[Remark, ...]:
        """Send a request until it has an answer, or is given up."""
        for tries in range(1, _MAX_TRIES + 1):
            try:
                remarks = await request()
            except Unauthorized:
                raise
            except ApiError as error:
                if tries < _MAX_TRIES and self._unanswered < _MAX_UNANSWERED:
                    seconds = error.retry_after if isinstance(error, Throttled) else _PAUSE_SECONDS
                    await asyncio.sleep(seconds)
                    continue
                return (self._given_up(error),)
            self._answered = True
            self._unanswered = 0
            return remarks
        raise AssertionError  # the last try returns

    def _given_up(self, error: ApiError) -> Remark:
        """Say that nothing was decided; raises the error if the API server is gone."""
        self._unanswered += isinstance(error, Unavailable)
        if not self._answered or self._unanswered > _MAX_UNANSWERED:
            raise error
        return Remark(UNDECIDED.id, str(error))

    def _keep(self, trial: Trial, remarks: tuple[Remark, ...]) -> None:
        if remarks and remarks[0].rule == NO_ROOM.id:
            # A quota limits the number of Jobs, so it says the same of every other.
            self._keep_namespace(trial.namespace, remarks[0])
            remarks = remarks[1:]
        self._operarios[trial.digest] = DryRun(self._at, remarks)
        self._finish(1)

    def _keep_namespace(self, namespace: str, remark: Remark) -> None:
        self._namespaces[namespace] = DryRun(self._at, (remark,))

    def _finish(self, operarios: int) -> None:
        self._finished += operarios
        self._progress(self._finished)
