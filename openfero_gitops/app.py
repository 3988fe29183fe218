"""The composition root: every part is made here, started here, and stopped in reverse.

Nothing else knows which adapter stands behind a Protocol. `serve` and `demo` differ in what they
hand in: a real API server or the in-memory one, and where operarios come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops import __version__
from openfero_gitops.admission.admitter import Admitter
from openfero_gitops.admission.cleaner import Concluder
from openfero_gitops.admission.pause import Control
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.lag import Comparer
from openfero_gitops.catalog.mirrorer import Mirrorer, no_keys, recall
from openfero_gitops.catalog.schedule import Asked, Schedule, pause_before_sync
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.clock import Clock
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.cluster.events import EventStore
from openfero_gitops.cluster.jobs import SELECTOR, JobStore
from openfero_gitops.cluster.lease import KubernetesLease
from openfero_gitops.cluster.listwatch import ListWatch
from openfero_gitops.delivery.submitter import Submitter
from openfero_gitops.domain.errors import (
    ApiError,
    ClockWrong,
    Forbidden,
    Unauthorized,
    UsageError,
)
from openfero_gitops.domain.health import About
from openfero_gitops.domain.lease import Leadership, LeaseDurations
from openfero_gitops.domain.signature import Verify
from openfero_gitops.dryrun.runner import DryRunner
from openfero_gitops.events.announcer import Announcer
from openfero_gitops.events.events import of_leadership
from openfero_gitops.events.recorder import Post
from openfero_gitops.jobs.view import Observer, View
from openfero_gitops.leadership.elector import Elector, TermEnded, WorkStuck, boottime
from openfero_gitops.metrics import Metrics
from openfero_gitops.settings import Auth
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.state import State
from openfero_gitops.web.auth import Credentials, Guard, SecretLines
from openfero_gitops.web.hooks import PushHook
from openfero_gitops.web.server import Server, parse_address, tls_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path
    from typing import Any

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.leadership.elector import Term
    from openfero_gitops.ports import SourceWithHistory
    from openfero_gitops.settings import Settings
    from openfero_gitops.web.server import Address

_log = structlog.get_logger(__name__)

#: Seconds for the Events that are still to be written when a replica stops.
_LAST_EVENTS: Final = 1.0
#: Seconds before work beside admission that failed begins anew.
_REST: Final = 30.0
#: Exit code of a process that could not end its own work.
_STUCK: Final = 70
#: How long a replica may lag behind the leader, beyond the interval: a fetch may be slow.
_KEEPING_UP: Final = timedelta(minutes=1)
#: Characters of a key that marks the mirror.
_SHORTEST_KEY: Final = 16
#: Seconds between two tries to read the mirror at the start.
_RECALL_AGAIN: Final = 2.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Places:
    """Which namespaces a controller works in; `allowed` holds the jobs namespace first."""

    own: str
    jobs: str
    allowed: tuple[str, ...]


def places(settings: Settings, default_namespace: str) -> Places:
    """Fill in what the settings leave open."""
    own = settings.namespace or default_namespace
    jobs = settings.jobs_namespace or own
    return Places(own, jobs, tuple(dict.fromkeys((jobs, *settings.allowed_namespace))))


class Controller:
    """One replica."""

    def __init__(
        self,
        settings: Settings,
        where: Places,
        api: ApiServer,
        source: SourceWithHistory,
        cluster: str,
        *,
        lease_api: ApiServer | None = None,
        clock: Clock | None = None,
        wanted: asyncio.Event | None = None,
    ) -> None:
        """Put one replica together; nothing is started and nothing connected.

        `lease_api` has connections of its own for the lease, so that a renewal never queues
        behind a storm of Jobs. `clock` is the one that `api` compares with the API server's.
        Whoever sets `wanted` gets a sync.

        Raises:
            UsageError: a setting cannot work.
        """
        self._settings = settings
        self._where = where
        self._api = api
        self.clock = clock or Clock(_now, boottime)
        self.metrics = Metrics(__version__)
        self.view = View()
        jobs = JobStore(api, where.allowed)
        self._config_maps = ConfigMapStore(api, where.own)
        self.syncer = Syncer(
            source=source,
            scope=Scope(
                jobs_namespace=where.jobs,
                allowed_namespaces=where.allowed,
                kubernetes_version=settings.kubernetes_version,
            ),
            counts=self.metrics,
            now=_now,
            clock=time.monotonic,
            follow_rewrites=settings.follow_rewrites,
            signed=settings.verify is not Verify.NONE,
        )
        self.syncer.on_change(lambda: self.metrics.changed(self.syncer.status.story[0].changes))
        self.comparer = Comparer(
            store=self._config_maps,
            history=source,
            catalog=self._catalog,
            now=_now,
            patience=settings.interval + _KEEPING_UP,
        )
        self.observer = Observer(
            ListWatch(api, JOBS, where.allowed, SELECTOR), self.view, where.allowed
        )
        self.control = Control(
            self._config_maps,
            time.monotonic,
            pause_in_git=lambda: self.syncer.pause,
        )
        self.submitter = Submitter(
            jobs=jobs,
            view=self.view,
            catalog=self._catalog,
            counts=self.metrics,
            now=self.clock.now,
            identity=settings.identity,
            jobs_namespace=where.jobs,
        )
        self._admitter = Admitter(
            jobs=jobs,
            view=self.view,
            catalog=self._catalog,
            control=self.control,
            counts=self.metrics,
            now=self.clock.now,
            identity=settings.identity,
        )
        self._concluder = Concluder(
            jobs=jobs,
            view=self.view,
            catalog=self._catalog,
            counts=self.metrics,
            now=self.clock.now,
        )
        self._mirror_keys: Callable[[], Sequence[bytes]] = no_keys
        if settings.mirror_key_file is not None:
            self._mirror_keys = SecretLines(settings.mirror_key_file, _check_keys).now
        self._mirrorer = Mirrorer(self._config_maps, self.syncer, self._mirror_keys)
        self.dry_runner = DryRunner(
            cluster=jobs,
            store=self._config_maps,
            syncer=self.syncer,
            counts=self.metrics,
            now=_now,
            jobs_namespace=where.jobs,
            namespaces=where.allowed,
        )
        self._post = Post(
            events=EventStore(api), counts=self.metrics, identity=settings.identity, now=_now
        )
        self._announcer = Announcer(
            view=self.view,
            decided=lambda: self._admitter.last_look,
            syncer=self.syncer,
            store=self._config_maps,
            counts=self.metrics,
            tell=self._post.tell,
        )
        self._lease = KubernetesLease(lease_api or api, where.own)
        self._led = Leadership()
        self.elector = Elector(
            self._lease,
            settings.identity,
            LeaseDurations(
                settings.lease_duration.total_seconds(),
                settings.renew_deadline.total_seconds(),
                settings.retry_period.total_seconds(),
            ),
            self._lead,
            on_change=(self._tell_leadership,),
        )
        self._schedule = Schedule(self.syncer.sync, self._pause)
        self.control.on_sync(self._schedule.now)
        self.asked = Asked(
            sync=self._schedule.now,
            notice=self.control,
            identity=settings.identity,
            wanted=wanted or asyncio.Event(),
        )
        self.server = Server(
            state=State(
                About(
                    version=__version__,
                    identity=settings.identity,
                    namespace=where.own,
                    jobs_namespace=where.jobs,
                    allowed_namespaces=where.allowed,
                    cluster=cluster,
                ),
                syncer=self.syncer,
                comparer=self.comparer,
                elector=self.elector,
                observer=self.observer,
                view=self.view,
                control=self.control,
                cluster_findings=self.dry_runner,
                deliveries=self.submitter,
                clock=self.clock,
                now=_now,
            ),
            deliveries=self.submitter,
            exposition=self.metrics,
            webhook_guard=_guard(
                settings, settings.webhook_auth, settings.webhook_credentials_file
            ),
            web_guard=_guard(settings, settings.web_auth, settings.web_credentials_file),
            listen=parse_address(settings.listen, "--listen"),
            web_listen=parse_address(settings.web_listen, "--web-listen")
            if settings.web_listen
            else None,
            tls=tls_context(settings.tls_cert_file, settings.tls_key_file, settings.client_ca_file),
            push=PushHook(
                self.asked.ask,
                settings.ref,
                SecretLines(settings.hook_secret_file, lambda _: None)
                if settings.hook_secret_file
                else None,
            ),
        )

    def _pause(self) -> timedelta:
        chance = random.random()  # noqa: S311 - no secret
        return pause_before_sync(self._settings.interval, self.syncer.failures, chance)

    def _catalog(self) -> Catalog | None:
        return self.syncer.catalog

    def _tell_leadership(self, status: Leadership) -> None:
        self.metrics.leads(leading=status.leader)
        event = of_leadership(self._led, status, self._lease.subject, self._settings.identity)
        self._led = status
        if event is not None:
            self._post.tell(event)

    async def run(self, stop: asyncio.Event, started: Callable[[list[Address]], None]) -> None:
        """Serve until `stop` is set, then hand over.

        `started` is called once with the addresses that are listened on.

        Raises:
            UsageError: it cannot work as it was set up.
        """
        await self._preflight()
        recalled = await self._recall()
        async with contextlib.AsyncExitStack() as exits:
            await self.server.start()
            exits.push_async_callback(self.server.stop)
            started(self.server.bound)
            exits.callback(self._schedule.stop)
            tasks: set[asyncio.Task[Any]] = set()

            def begin(name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
                task = asyncio.create_task(work, name=name)
                exits.push_async_callback(_end, task)
                tasks.add(task)
                return task

            begin("begin to sync", self._begin_to_sync(recalled=recalled))
            begin("observe", self.observer.run())
            stopping = begin("stop", stop.wait())
            begin("control", self.control.run())
            begin("compare", _aside(self.comparer.run))
            begin("asked", _aside(self.asked.run))
            begin("dry runs of the leader", _aside(self.dry_runner.follow))
            exits.push_async_callback(self._post.flush, _LAST_EVENTS)
            begin("events", _aside(self._post.run))
            begin("first sync", self._first_sync())
            # Last started and first stopped: the lease is free before anything else ends.
            begin("lead", self._stand())
            while not stopping.done():
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopping}:
                    task.result()
                tasks -= done
            _log.info("stopping")

    async def _stand(self) -> None:
        try:
            await self.elector.run()
        except WorkStuck as error:
            # Nothing inside of this process can end that work, and it must not go on.
            _log.critical("ending the process", error=str(error))
            os._exit(_STUCK)

    async def _lead(self, term: Term) -> None:
        """Do the leader's work until the term ends, or must not go on in it."""
        try:
            self.clock.now()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._admitter.run(term), name="admit")
                tasks.create_task(_aside(lambda: self._mirrorer.run(term)), name="mirror")
                tasks.create_task(_aside(lambda: self._concluder.run(term)), name="conclude")
                tasks.create_task(_aside(lambda: self.dry_runner.run(term)), name="dry run")
                tasks.create_task(_aside(self._announcer.run), name="announce")
        except* TermEnded:
            _log.info("the term ended in mid-work", term=term.id)
        except* ClockWrong:
            _log.error("another must lead", term=term.id, error=self.clock.trouble)

    async def _preflight(self) -> None:
        """Find out what no waiting will mend: missing rights, wrong credentials."""
        for namespace in self._where.allowed:
            try:
                await self._api.list(
                    JOBS, namespace, label_selector=f"{SELECTOR},openfero.io/preflight"
                )
            except Forbidden as error:
                raise UsageError(
                    f"the controller may not list Jobs in namespace {namespace!r}: {error}: grant "
                    "its ServiceAccount get, list, watch, create, patch and delete on jobs there "
                    "(the chart does)"
                ) from error
            except Unauthorized as error:
                raise UsageError(
                    f"the API server does not accept the credentials of the kubeconfig: {error}"
                ) from error
            except ApiError as error:
                _log.warning("the API server does not answer yet", error=str(error))
                return

    async def _begin_to_sync(self, *, recalled: bool) -> None:
        """Fetch nothing before it is known what was in force, which a commit must continue."""
        while not recalled:
            await asyncio.sleep(_RECALL_AGAIN)
            recalled = await self._recall()
        self._schedule.start()

    async def _recall(self) -> bool:
        """Take over what the mirror remembers; False where it could not be asked."""
        try:
            await recall(self._config_maps, self.syncer, self._mirror_keys)
        except Forbidden as error:
            raise UsageError(
                f"the controller may not read ConfigMaps in namespace {self._where.own!r}: "
                f"{error}: grant its ServiceAccount get, list, create, update and delete on "
                "configmaps there (the chart does)"
            ) from error
        except ApiError as error:
            _log.warning("the mirror could not be read yet", error=str(error))
            return False
        return True

    async def _first_sync(self) -> None:
        """End at once where the repository is wrong and there is nothing to serve from."""
        await self.syncer.tried.wait()
        error = self.syncer.lasting_error
        if self.syncer.catalog is None and error is not None:
            raise UsageError(error)
        # A catalog has no reference cycles. Leaving it out of garbage collection saves pauses of
        # 0.2 s at ten thousand operarios.
        gc.freeze()


def git_source(settings: Settings) -> GitSource:
    """Make the source of the operarios.

    Raises:
        UsageError: the settings cannot work.
    """
    return GitSource(
        GitSettings(
            url=settings.repo,
            ref=settings.ref,
            path=settings.path,
            cache_dir=settings.cache_dir,
            timeout=settings.git_timeout.total_seconds(),
            access=GitAccess(
                credentials_file=settings.git_credentials_file,
                ssh_key_file=settings.git_ssh_key_file,
                known_hosts_file=settings.git_known_hosts_file,
                ca_file=settings.git_ca_file,
                proxy=settings.git_proxy,
                no_proxy=settings.git_no_proxy,
                pack_bytes=settings.git_max_size,
            ),
            trust=Trust(
                settings.verify, settings.allowed_signers_file, settings.openpgp_keyring_file
            ),
        )
    )


async def serve(
    settings: Settings,
    on_signals: Callable[[asyncio.Event, Callable[[], None]], None],
    started: Callable[[list[Address]], None],
) -> None:
    """Connect one replica to its cluster and its repository, and run it.

    `on_signals` is given what a signal may set to end it, and what one may call for a sync now.

    Raises:
        UsageError: it cannot work as it was set up.
    """
    stop = asyncio.Event()
    wanted = asyncio.Event()
    on_signals(stop, wanted.set)
    source = git_source(settings)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(source.aclose)
        clock = Clock(_now, boottime)
        api = await KubernetesApi.connect(settings.kubeconfig, clock=clock)
        exits.push_async_callback(api.close)
        lease_api = await KubernetesApi.connect(settings.kubeconfig, clock=clock)
        exits.push_async_callback(lease_api.close)
        where = places(settings, api.default_namespace)
        cluster = f"Kubernetes at {api.server}"
        controller = Controller(
            settings,
            where,
            api,
            source,
            cluster,
            lease_api=lease_api,
            clock=clock,
            wanted=wanted,
        )
        await controller.run(stop, started)


def _check_keys(lines: Sequence[str]) -> None:
    if not lines or min(map(len, lines)) < _SHORTEST_KEY:
        raise ValueError(f"a mirror's key has at least {_SHORTEST_KEY} characters")


def _guard(settings: Settings, auth: Auth, file: Path | None) -> Guard:
    credentials = None if auth is Auth.NONE or file is None else Credentials(auth.value, file)
    return Guard(credentials, certificate=settings.client_ca_file is not None)


async def _aside(work: Callable[[], Awaitable[None]]) -> None:
    """Do what is good to have: that it fails must not end a leadership, nor the replica."""
    while True:
        try:
            await work()
        except (TermEnded, ClockWrong):
            raise  # this replica must not lead
        except Exception:  # noqa: BLE001, whatever it is
            _log.exception("work beside admission failed; it begins anew")
            await asyncio.sleep(_REST)


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
