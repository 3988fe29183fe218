"""The leader tries every operario in the cluster, because no repository has its policies.

It sends one request at a time and at most five a second: a thousand operarios take minutes, and
nothing waits for them. A result is kept by the digest of the Job, so that a commit tries only what
it changed. Results are saved in a ConfigMap, from which the other replicas and the next leader
load them. They change neither the catalog nor what may run.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from openfero_gitops.background import OnChange, wait_for_event
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.cluster_rule import ACCOUNT_MISSING, CLUSTER_RULES, NOT_ALLOWED
from openfero_gitops.domain.errors import ApiError, Throttled
from openfero_gitops.domain.problem import Severity
from openfero_gitops.dryrun import policy
from openfero_gitops.dryrun.requests import check_account, dry_run
from openfero_gitops.dryrun.trial import (
    CONFIG_MAP,
    DryRun,
    DryRuns,
    Remark,
    from_config_map,
    is_ours,
    problems,
    remark_of,
    to_config_map,
    trials,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.dryrun.requests import Cluster
    from openfero_gitops.dryrun.trial import Places, Trial
    from openfero_gitops.ports import ConfigMaps, Counts, RunningTerm

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_REQUEST_INTERVAL_SECONDS: Final = 0.2
_PASS_INTERVAL_SECONDS: Final = 60.0
#: Poll interval of replicas that do not lead.
_LOAD_INTERVAL_SECONDS: Final = 30.0
_BACKOFF: Final = Backoff(first_seconds=1.0, max_seconds=60.0)
#: After so many failures of one request, the next operario is tried.
_MAX_TRIES: Final = 3
# The cluster changes, too, so results expire.
_REMARKS_EXPIRE_AFTER: Final = timedelta(minutes=10)
_ACCEPTED_EXPIRES_AFTER: Final = timedelta(hours=6)
#: The most results that are lost when a leader dies.
_MAX_UNSAVED: Final = 50


class DryRunner:
    """Tries operarios while this replica leads; otherwise loads the results of the leader."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: ConfigMaps,
        syncer: Syncer,
        counts: Counts,
        now: Callable[[], datetime],
        jobs_namespace: str,
        namespaces: Sequence[str],
    ) -> None:
        """Take what is needed; nothing is started."""
        self._cluster = cluster
        self._store = store
        self._syncer = syncer
        self._counts = counts
        self._now = now
        self._jobs_namespace = jobs_namespace
        self._namespaces = tuple(namespaces)
        self._results = DryRuns()
        self._saved = DryRuns()
        self._loaded_version = ""  # the resourceVersion of the ConfigMap
        self._trials: tuple[Catalog, tuple[Trial, ...]] | None = None
        self._shown: tuple[Catalog, DryRuns, tuple[Problem, ...]] | None = None
        self._places: Places = {}
        self._leads = False
        # Namespaces whose policy this leader has probed: a saved result may be forged.
        self._probed: set[str] = set()
        self._failures = 0
        self._pause_seconds = 0.0
        self._request_error = OnChange(_log.info, "dry run request failed")
        self._catalog_changed = asyncio.Event()
        self._show_changed = asyncio.Event()
        syncer.on_change(self._catalog_changed.set)
        syncer.on_change(self._show_changed.set)

    def problems(self, catalog: Catalog) -> tuple[Problem, ...]:
        """Return the problems of a catalog's operarios, as far as this replica knows them."""
        shown = self._shown
        return shown[2] if shown is not None and shown[0] is catalog else ()

    def is_approval_verified(self, remediation: Remediation) -> bool:
        """Whether the cluster has kept people from approving under another name than their own."""
        probed = self._results.policies.get(remediation.key.namespace)
        return probed is not None and probed.verifies(remediation.received_at)

    @property
    def policy_advice(self) -> str:
        """What is missing to protect the Jobs; empty if nothing is, or nothing is known yet."""
        return policy.advice(self._results.policies)

    async def follow(self) -> None:
        """Load the leader's results until cancelled; does nothing while this replica leads."""
        while True:
            self._show_changed.clear()
            if not self._leads:
                await self._load()
                await self._show()
            await wait_for_event(self._show_changed, _LOAD_INTERVAL_SECONDS)

    async def run(self, term: RunningTerm) -> None:
        """Try new operarios, and those whose results expired, while the term lasts."""
        self._leads = True
        self._probed.clear()
        try:
            await self._load()
            while True:
                self._catalog_changed.clear()
                await self._show()
                await self._try_all(term)
                await self._show()
                await self._save(term)
                await wait_for_event(self._catalog_changed, _PASS_INTERVAL_SECONDS)
        finally:
            self._leads = False

    async def _try_all(self, term: RunningTerm) -> None:
        """Try everything that is due; a new catalog ends it."""
        try:
            version = await self._cluster.version()
        except ApiError as error:
            self._request_error.set(str(error))
            return
        if version != self._results.kubernetes:
            # Another API server has other fields and other policies.
            self._results = DryRuns(version, policies=self._results.policies)
        for namespace in self._namespaces:
            await self._probe_policy(namespace, term)
        if self._syncer.catalog is None:
            return
        unsaved = 0
        catalog_trials = await self._prepare() or ()
        for trial in catalog_trials:
            if self._catalog_changed.is_set():
                return
            result = self._results.operarios.get(trial.digest)
            if self._is_current(result) or self._is_forbidden(trial.namespace):
                continue
            await self._try(trial, term)
            unsaved += 1
            if unsaved >= _MAX_UNSAVED:
                unsaved = 0
                await self._show()
                await self._save(term)
        digests = {trial.digest for trial in catalog_trials}
        if not self._results.operarios.keys() <= digests:
            kept = {k: result for k, result in self._results.operarios.items() if k in digests}
            self._results = replace(self._results, operarios=kept)

    async def _try(self, trial: Trial, term: RunningTerm) -> None:
        catalog = self._syncer.catalog
        if catalog is None:
            return  # cannot happen: a catalog is only ever replaced
        remarks = await self._request(
            term, lambda: dry_run(self._cluster, trial, catalog, self._jobs_namespace)
        )
        if remarks is None:
            return
        if remarks and remarks[0].rule == NOT_ALLOWED.id:
            # Shown once for the namespace, not for every operario.
            self._set_namespace(trial.namespace, remarks)
            return
        self._counts.dry_run(_result_label(remarks))
        accounts = f"{trial.namespace}/serviceaccounts"
        if trial.account and not self._is_forbidden(accounts):
            missing = await self._request(term, lambda: check_account(self._cluster, trial))
            if missing is None:
                return
            if missing and missing[0].rule != ACCOUNT_MISSING.id:
                self._set_namespace(accounts, missing)
            else:
                remarks += missing
        before = self._results.operarios.get(trial.digest)
        if remarks and (before is None or before.remarks != remarks):
            _log.warning(
                "the cluster objects to an operario",
                operario=trial.operario.name,
                path=trial.operario.origin.path,
                messages=[remark.message for remark in remarks],
            )
        operarios = {**self._results.operarios, trial.digest: DryRun(self._now(), remarks)}
        self._results = replace(self._results, operarios=operarios)

    async def _probe_policy(self, namespace: str, term: RunningTerm) -> None:
        """Find out whether the chart's admission policy is active in a namespace."""
        before = self._results.policies.get(namespace)
        is_current = before is not None and abs(self._now() - before.at) < _REMARKS_EXPIRE_AFTER
        if is_current and namespace in self._probed:
            return

        async def send_probe() -> tuple[policy.Policy, tuple[Remark, ...]]:
            try:
                await self._cluster.dry_run(policy.probe(namespace))
            except ApiError as error:
                probed = policy.evaluate(error, before, self._now())
                if probed is None:
                    raise
                remark = remark_of(error)
                is_not_allowed = remark is not None and remark.rule == NOT_ALLOWED.id
                return probed, (remark,) if remark is not None and is_not_allowed else ()
            return policy.Policy(self._now(), 0), ()

        answer = await self._request(term, send_probe)
        if answer is None:
            return
        self._probed.add(namespace)
        probed, remarks = answer
        if before is None or before.version != probed.version:
            log = _log.info if probed.version else _log.warning
            log(
                "admission policy probed",
                namespace=namespace,
                version=probed.version,
                advice=policy.advice({namespace: probed}),
            )
        self._results = replace(
            self._results, policies={**self._results.policies, namespace: probed}
        )
        self._count_policies()
        self._set_namespace(namespace, remarks)

    def _count_policies(self) -> None:
        for namespace, probed in self._results.policies.items():
            if probed.version is not None:
                self._counts.policy(namespace, probed.version)

    def _set_namespace(self, namespace: str, remarks: tuple[Remark, ...]) -> None:
        before = self._results.namespaces.get(namespace)
        if remarks and (before is None or before.remarks != remarks):
            _log.warning("dry runs are not allowed", namespace=namespace, error=remarks[0].message)
        namespaces = {**self._results.namespaces, namespace: DryRun(self._now(), remarks)}
        self._results = replace(self._results, namespaces=namespaces)

    def _is_forbidden(self, namespace: str) -> bool:
        """Whether a permission was missing at the last request."""
        result = self._results.namespaces.get(namespace)
        return result is not None and bool(result.remarks) and self._is_current(result)

    def _is_current(
        self, result: DryRun | None, accepted_expires_after: timedelta = _ACCEPTED_EXPIRES_AFTER
    ) -> bool:
        if result is None:
            return False
        expires_after = _REMARKS_EXPIRE_AFTER if result.remarks else accepted_expires_after
        # The clock may have been set back.
        return abs(self._now() - result.at) < expires_after

    async def _request(self, term: RunningTerm, request: Callable[[], Awaitable[_T]]) -> _T | None:
        """Send a request, with a pause before it; None if there is no answer now.

        What gets no answer is still due at the next pass.
        """
        for _ in range(_MAX_TRIES):
            await asyncio.sleep(max(_REQUEST_INTERVAL_SECONDS, self._pause_seconds))
            if self._catalog_changed.is_set():
                return None
            term.check()
            try:
                answer = await request()
            except ApiError as error:
                self._counts.dry_run("failed")
                self._failures += 1
                retry_after = error.retry_after if isinstance(error, Throttled) else 0.0
                self._pause_seconds = _BACKOFF.delay(self._failures, retry_after=retry_after)
                self._request_error.set(str(error))
            else:
                self._failures = 0
                self._pause_seconds = 0.0
                self._request_error.clear()
                return answer
        return None

    async def _prepare(self) -> tuple[Trial, ...] | None:
        """Return the trials of the active catalog; None if there is no catalog."""
        catalog = self._syncer.catalog
        if catalog is None:
            return None
        if self._trials is None or self._trials[0] is not catalog:
            prepared = await asyncio.to_thread(trials, catalog, self._jobs_namespace, self._trials)
            self._trials = (catalog, prepared)
        return self._trials[1]

    async def _show(self) -> None:
        """Compute the problems: not when a page is requested, because it parses files."""
        catalog_trials = await self._prepare()
        if self._trials is None or catalog_trials is None:
            return
        catalog, results = self._trials[0], self._results
        if self._shown is not None and self._shown[0] is catalog and self._shown[1] is results:
            return
        shown, self._places = await asyncio.to_thread(
            problems, results, catalog_trials, catalog, self._places
        )
        self._shown = (catalog, results, shown)

    async def _load(self) -> None:
        try:
            config_map = await self._store.get(CONFIG_MAP)
        except ApiError as error:
            _log.info("dry run results could not be loaded", error=str(error))
            return
        version = config_map["metadata"]["resourceVersion"] if config_map else ""
        if config_map is None or version == self._loaded_version:
            return
        self._loaded_version = version
        results = from_config_map(config_map)
        if results is not None:
            # Only of namespaces that are still allowed.
            policies = {k: v for k, v in results.policies.items() if k in self._namespaces}
            self._results = self._saved = replace(results, policies=policies)
            self._count_policies()

    async def _save(self, term: RunningTerm) -> None:
        if self._results == self._saved:
            return
        results = self._results
        try:
            existing = await self._store.get(CONFIG_MAP)
            if existing is not None and not is_ours(existing):
                _log.warning("ConfigMap exists and belongs to somebody else", name=CONFIG_MAP)
                self._saved = results
                return
            await self._store.put(to_config_map(results, self._store.namespace), term.check)
        except ApiError as error:
            _log.info("dry run results could not be saved", error=str(error))
        else:
            self._saved = results


def _result_label(remarks: tuple[Remark, ...]) -> str:
    if not remarks:
        return "accepted"
    return "refused" if CLUSTER_RULES[remarks[0].rule].severity is Severity.ERROR else "warning"
