"""The leader tries every operario in the cluster, which knows what no repository can.

One request at a time and a few a second: a repository of a thousand operarios takes minutes, and
nothing waits for it. What was said is kept by the digest of the Job that was tried, so that a
commit tries only what it changed. It is written to a ConfigMap, from which the other replicas
and the next leader know it. Nothing here changes the catalog, nor what may run.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from openfero_gitops.domain import keys
from openfero_gitops.domain.dryrun import DryRuns, Remark, Tried
from openfero_gitops.domain.errors import ApiError, Throttled
from openfero_gitops.domain.problem import Severity
from openfero_gitops.dryrun.trial import (
    ACCOUNT_MISSING,
    CONFIG_MAP,
    NOT_ALLOWED,
    RULES,
    account_missing,
    approval_probe,
    is_forgery_refused,
    manifest,
    problems,
    read,
    trials,
    understood,
    warned,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.dryrun.trial import Places, Trial
    from openfero_gitops.ports import ConfigMaps, Counts, RunningTerm

_log = structlog.get_logger(__name__)

# Seconds.
_PACE: Final = 0.2  # between two trials
_LOOK_AGAIN: Final = 60.0
_READ_AGAIN: Final = 30.0  # by replicas that do not lead
_FIRST_REST: Final = 1.0  # after a failure; the next one is twice as long
_LONGEST_REST: Final = 60.0
#: So often is one thing asked for before another has its turn.
_TRIES: Final = 3
#: A cluster changes, too: so old may an answer be that found something, and one that did not.
_FOUND: Final = timedelta(minutes=10)
_CLEAN: Final = timedelta(hours=6)
#: So many trials may be lost when a leader dies.
_UNWRITTEN: Final = 50


class Cluster(Protocol):
    """Where operarios are tried."""

    async def version(self) -> str:
        """Which Kubernetes it is; raises ApiError."""
        ...

    async def dry_run(self, manifest: dict[str, Any]) -> Sequence[str]:
        """What the API server warns of when it would take a Job; raises ApiError."""
        ...

    async def has_account(self, namespace: str, name: str) -> bool:
        """Whether there is such a ServiceAccount; raises ApiError."""
        ...


class DryRunner:
    """Tries operarios for as long as it leads, and knows what was said when it does not."""

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
        self._known = DryRuns()
        self._written = DryRuns()
        self._trials: tuple[Catalog, tuple[Trial, ...]] | None = None
        self._shown: tuple[Catalog, DryRuns, tuple[Problem, ...]] | None = None
        self._places: Places = {}
        self._version = ""  # of the ConfigMap as it was read
        self._leads = False
        self._rest = 0.0
        self._trouble = ""
        self._swapped = asyncio.Event()
        self._to_show = asyncio.Event()
        syncer.on_change(self._swapped.set)
        syncer.on_change(self._to_show.set)

    def problems(self, catalog: Catalog) -> tuple[Problem, ...]:
        """What the cluster said of the operarios of a catalog, as far as it is known here."""
        shown = self._shown
        return shown[2] if shown is not None and shown[0] is catalog else ()

    def is_approval_verified(self, one: Remediation) -> bool:
        """Whether nobody could have written another name than their own as the approver."""
        since = self._known.approvals.get(one.key.namespace)
        return since is not None and one.received_at >= since

    async def follow(self) -> None:
        """Know what the leader wrote down, until cancelled; the leader itself knows better."""
        while True:
            self._to_show.clear()
            if not self._leads:
                await self._load()
                await self._show()
            try:
                async with asyncio.timeout(_READ_AGAIN):
                    await self._to_show.wait()
            except TimeoutError:
                continue

    async def run(self, term: RunningTerm) -> None:
        """Try what is new or old for as long as the term lasts."""
        self._leads = True
        try:
            await self._load()
            while True:
                self._swapped.clear()
                await self._show()
                await self._pass(term)
                await self._show()
                await self._save(term)
                try:
                    async with asyncio.timeout(_LOOK_AGAIN):
                        await self._swapped.wait()
                except TimeoutError:
                    continue
        finally:
            self._leads = False

    async def _pass(self, term: RunningTerm) -> None:
        """Try everything that is due, one after the other; a new catalog ends it."""
        if await self._prepare() is None:
            return
        try:
            version = await self._cluster.version()
        except ApiError as error:
            _log.info("operarios cannot be tried yet", error=str(error))
            return
        if version != self._known.kubernetes:
            # Another API server knows other fields, and other policies.
            self._known = DryRuns(version, approvals=self._known.approvals)
        for namespace in self._namespaces:
            await self._probe(namespace, term)
        unwritten = 0
        found = await self._prepare() or ()
        for trial in found:
            if self._swapped.is_set():
                return
            known = self._known.operarios.get(trial.digest)
            if self._is_fresh(known) or self._is_barred(trial.namespace):
                continue
            await self._try(trial, term)
            unwritten += 1
            if unwritten >= _UNWRITTEN:
                unwritten = 0
                await self._show()
                await self._save(term)
        digests = {trial.digest for trial in found}
        if not self._known.operarios.keys() <= digests:
            kept = {k: tried for k, tried in self._known.operarios.items() if k in digests}
            self._known = replace(self._known, operarios=kept)

    async def _try(self, trial: Trial, term: RunningTerm) -> None:
        remarks = await self._ask(term, lambda: self._said(trial))
        if remarks is None:
            return
        if remarks and remarks[0].rule == NOT_ALLOWED.id:
            # It is said once for the namespace, not for every operario.
            self._note_namespace(trial.namespace, remarks)
            return
        self._counts.tried(_result(remarks))
        accounts = f"{trial.namespace}/serviceaccounts"
        if trial.account and not self._is_barred(accounts):
            missing = await self._ask(term, lambda: self._missing(trial))
            if missing is None:
                return
            if missing and missing[0].rule != ACCOUNT_MISSING.id:
                self._note_namespace(accounts, missing)
            else:
                remarks += missing
        before = self._known.operarios.get(trial.digest)
        if remarks and (before is None or before.remarks != remarks):
            _log.warning(
                "the cluster objects to an operario",
                operario=trial.operario.name,
                path=trial.operario.origin.path,
                said=[remark.message for remark in remarks],
            )
        tried = {**self._known.operarios, trial.digest: Tried(self._now(), remarks)}
        self._known = replace(self._known, operarios=tried)

    async def _said(self, trial: Trial) -> tuple[Remark, ...]:
        """What the API server says of a Job; raises ApiError where that says nothing."""
        catalog = self._syncer.catalog
        if catalog is None:
            return ()  # it never goes once it was there
        job = manifest(trial.operario, catalog, self._jobs_namespace)
        try:
            return warned(await self._cluster.dry_run(job))
        except ApiError as error:
            if (no := understood(error)) is None:
                raise
            return (no,)

    async def _missing(self, trial: Trial) -> tuple[Remark, ...]:
        """What is to be said of a Job's ServiceAccount; raises ApiError."""
        try:
            there = await self._cluster.has_account(trial.namespace, trial.account)
        except ApiError as error:
            if (no := understood(error)) is None:
                raise
            return (no,)
        return () if there else (account_missing(trial),)

    async def _probe(self, namespace: str, term: RunningTerm) -> None:
        """Find out whether the cluster lets anybody claim to have approved a Job."""
        if self._is_fresh(self._known.namespaces.get(namespace), _FOUND):
            return

        async def ask() -> tuple[bool, tuple[Remark, ...]]:
            try:
                await self._cluster.dry_run(approval_probe(namespace))
            except ApiError as error:
                if is_forgery_refused(error):
                    return True, ()
                no = understood(error)
                if no is None:
                    raise
                return False, (no,) if no.rule == NOT_ALLOWED.id else ()
            return False, ()

        answer = await self._ask(term, ask)
        if answer is None:
            return
        refused, remarks = answer
        approvals = {k: v for k, v in self._known.approvals.items() if k != namespace}
        if refused:
            approvals[namespace] = self._known.approvals.get(namespace, self._now())
        self._known = replace(self._known, approvals=approvals)
        self._note_namespace(namespace, remarks)

    def _note_namespace(self, namespace: str, remarks: tuple[Remark, ...]) -> None:
        before = self._known.namespaces.get(namespace)
        if remarks and (before is None or before.remarks != remarks):
            _log.warning("operarios cannot be tried", namespace=namespace, error=remarks[0].message)
        noted = {**self._known.namespaces, namespace: Tried(self._now(), remarks)}
        self._known = replace(self._known, namespaces=noted)

    def _is_barred(self, what: str) -> bool:
        """Whether the right to something was missing a moment ago."""
        tried = self._known.namespaces.get(what)
        return tried is not None and bool(tried.remarks) and self._is_fresh(tried)

    def _is_fresh(self, tried: Tried | None, clean: timedelta = _CLEAN) -> bool:
        if tried is None:
            return False
        # (A clock that was set back makes nothing fresh for ever.)
        return abs(self._now() - tried.at) < (_FOUND if tried.remarks else clean)

    async def _ask(self, term: RunningTerm, request: Callable[[], Any]) -> Any:
        """Ask, once a moment and less often where that fails; None: there is no answer now.

        Whatever is due is still due then: it is asked for again at the next look.
        """
        for _ in range(_TRIES):
            await asyncio.sleep(max(_PACE, self._rest))
            if self._swapped.is_set():
                return None
            term.check()
            try:
                answer = await request()
            except ApiError as error:
                self._counts.tried("failed")
                self._rest = min(max(_FIRST_REST, self._rest * 2), _LONGEST_REST)
                if isinstance(error, Throttled):
                    self._rest = max(self._rest, error.retry_after)
                if self._trouble != str(error):
                    self._trouble = str(error)
                    _log.info("an operario could not be tried yet", error=str(error))
            else:
                self._rest = 0.0
                self._trouble = ""
                return answer
        return None

    async def _prepare(self) -> tuple[Trial, ...] | None:
        """The trials of the catalog in force; None where there is no catalog."""
        catalog = self._syncer.catalog
        if catalog is None:
            return None
        if self._trials is None or self._trials[0] is not catalog:
            made = await asyncio.to_thread(trials, catalog, self._jobs_namespace, self._trials)
            self._trials = (catalog, made)
        return self._trials[1]

    async def _show(self) -> None:
        """Work out the problems: not where pages are drawn, since it reads files."""
        found = await self._prepare()
        if self._trials is None or found is None:
            return
        catalog, known = self._trials[0], self._known
        if self._shown is not None and self._shown[0] is catalog and self._shown[1] is known:
            return
        told, self._places = await asyncio.to_thread(problems, known, found, catalog, self._places)
        self._shown = (catalog, known, told)

    async def _load(self) -> None:
        try:
            config_map = await self._store.get(CONFIG_MAP)
        except ApiError as error:
            _log.info("what the last leader tried cannot be read", error=str(error))
            return
        version = config_map["metadata"]["resourceVersion"] if config_map else ""
        if config_map is None or version == self._version:
            return
        self._version = version
        known = read(config_map)
        if known is not None:
            self._known = self._written = known

    async def _save(self, term: RunningTerm) -> None:
        """Write down what is known; it is only lost for a while where that fails."""
        if self._known == self._written:
            return
        known = self._known
        try:
            there = await self._store.get(CONFIG_MAP)
            if there is not None and not _is_ours(there):
                _log.warning("a ConfigMap of somebody else is in the way", name=CONFIG_MAP)
                self._written = known
                return
            await self._store.put(write(known, self._store.namespace), term.check)
        except ApiError as error:
            _log.info("what was tried could not be written down", error=str(error))
        else:
            self._written = known


def _is_ours(config_map: Mapping[str, Any]) -> bool:
    labels = config_map["metadata"].get("labels") or {}
    return bool(labels.get(keys.MANAGED_BY) == keys.MANAGER)


def _result(remarks: tuple[Remark, ...]) -> str:
    if not remarks:
        return "accepted"
    return "refused" if RULES[remarks[0].rule].severity is Severity.ERROR else "warning"
