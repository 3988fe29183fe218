"""The demonstration: a Git repository, the real controller, and alerts that arrive over HTTP.

Only the cluster is simulated in memory, unless a kubeconfig names a real one. The steps: a sync; an
alert and its Job; a repeated delivery that changes nothing; a resolved alert, which is healed; an
alert that stays although its Jobs succeed, so that a person must approve the next one; an alert
without an operario; a merged change that the next Job uses; and what the commands print.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import re
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from openfero_gitops.app import Controller
from openfero_gitops.background import wait_for_event
from openfero_gitops.cluster.api import SERVICE_ACCOUNTS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.commands.operator import APPROVE, act_on_job
from openfero_gitops.commands.stats import StatsFilter, stats_of
from openfero_gitops.commands.status import status_of
from openfero_gitops.commands.trace import trace_of
from openfero_gitops.demo.cluster import Durations, JobPlayer, MemoryCluster, PodOutcome
from openfero_gitops.demo.cluster.server import serve_cluster
from openfero_gitops.demo.repository import DemoRepository
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, JobKey, Phase
from openfero_gitops.domain.text import plural
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.dryrun.trial import EXAMPLE, example_alert
from openfero_gitops.effects.assess import assess
from openfero_gitops.importing.differences import label_names
from openfero_gitops.inspection import status_text, trace_text
from openfero_gitops.inspection.stats_text import stats_table
from openfero_gitops.settings import load_settings
from openfero_gitops.settings_in_use import list_settings
from openfero_gitops.sources.git.source import GitSettings, GitSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.web.server import Address

_STEP_TIMEOUT_SECONDS: Final = 60.0
#: Ctrl-C also ends git's processes, perhaps before it reaches this process.
_SIGNAL_SECONDS: Final = 0.5
_ALERT_INTERVAL_SECONDS: Final = 8.0  # between two alerts while the pages are open
_REPEAT_SECONDS: Final = 0.5  # between two deliveries of an alert that still fires
_POLL_SECONDS: Final = 0.05
_STATS_PERIOD: Final = timedelta(minutes=10)  # a real cluster may have seen an earlier run
_JOB_SECONDS: Final = 1.5  # that a simulated Job runs


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of the command."""

    once: bool
    listen: str
    kubeconfig: Path | None
    namespace: str
    example: Path | None


async def run_demo(
    options: DemoOptions,
    stop_on_signals: Callable[[asyncio.Event], None],
    say: Callable[[str], None],
) -> None:
    """Run the steps once; without `once`, continue with more alerts until stopped.

    The steps are about operarios of the starter repository. With operarios of the user, the pages
    are served, and the user sends the alerts.

    Raises:
        UsageError: the options cannot be used.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    with tempfile.TemporaryDirectory(prefix="openfero-demo-") as folder:
        example = options.example or _example()
        repository = DemoRepository(Path(folder) / "operarios", example)
        plays = options.once or options.example is None
        if plays and not repository.is_starter:
            raise UsageError(
                f"{example} does not contain the operarios that the demonstration is about; leave "
                "out --once to serve the pages, and send alerts yourself"
            )
        async with (
            _cluster(options, example, Path(folder), say) as (api, kubeconfig),
            _source(repository, Path(folder)) as source,
        ):
            say(f"Git:     {repository.folder}, a temporary repository of operarios")
            say("         (an operario is a Job and its alert). Commit there to change them.")
            if plays:
                say("         Some have short times here, so their effects are known in seconds.")
            given = {
                "repo": str(repository.folder),
                "interval": "5s",
                "listen": "127.0.0.1:0" if options.once else options.listen,
                "namespace": options.namespace,
                "identity": "demo",
                "cache_dir": folder,
                "shutdown_delay": "0",
            }
            settings = load_settings(given)
            listed = list_settings(settings, given)
            cluster = "a real cluster" if options.kubeconfig else "an in-memory cluster (demo)"
            namespaces = settings.resolve_namespaces(options.namespace)
            controller = Controller(
                settings, namespaces, api, source, cluster, listed_settings=listed
            )
            listening: asyncio.Future[list[Address]] = asyncio.get_running_loop().create_future()
            running = asyncio.create_task(
                controller.run(stop, listening.set_result), name="controller"
            )
            try:
                waiting: set[asyncio.Future[Any]] = {running, listening}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
                    return
                url = f"http://127.0.0.1:{listening.result()[0].port}"
                async with aiohttp.ClientSession(url) as http:
                    cluster_access = _ClusterAccess(api, kubeconfig, options.namespace)
                    demo = _Demo(controller, repository, http, cluster_access, say)
                    if not options.once:
                        say(f"Web pages: {url}/ (stop with Ctrl-C)")
                        say(f"Commands:  export KUBECONFIG={kubeconfig}")
                        say(f"           openfero-gitops status --namespace {options.namespace}")
                    if not plays:
                        await _unless_stopped(demo.wait_for_alerts(url), running, stop)
                        return
                    await _unless_stopped(demo.run_steps(), running, stop)
                    if not options.once and not stop.is_set():
                        say(f"\nMore alerts follow every few seconds: {url}/ (stop with Ctrl-C)")
                        await _unless_stopped(demo.send_alerts(), running, stop)
            finally:
                stop.set()
                await running


async def _unless_stopped(
    steps: Coroutine[Any, Any, None], running: asyncio.Task[None], stop: asyncio.Event
) -> None:
    """Run the steps to their end, or until the controller has ended."""
    task = asyncio.ensure_future(steps)
    await asyncio.wait({task, running}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        running.result()
    elif task.exception() is not None and not await wait_for_event(stop, _SIGNAL_SECONDS):
        task.result()  # not caused by Ctrl-C, which also ends git's processes


def _example() -> Path:
    """Return the example repository: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    for folder in (package / "example", package.parent / "operarios-example"):
        if folder.is_dir():
            return folder
    raise UsageError("the example repository is not installed; set --example to a folder")


@contextlib.asynccontextmanager
async def _cluster(
    options: DemoOptions, example: Path, folder: Path, say: Callable[[str], None]
) -> AsyncIterator[tuple[ApiServer, Path]]:
    """Open the cluster, and yield it with a kubeconfig that reaches it."""
    if options.kubeconfig is not None:
        api = await KubernetesApi.connect(options.kubeconfig)
        say(f"Cluster: {api.server}, namespace {options.namespace}")
        try:
            yield api, options.kubeconfig
        finally:
            await api.close()
        return
    say("Cluster: simulated in memory. Jobs change their phase, but no container runs.")
    cluster = MemoryCluster(player=JobPlayer(Durations(run=_JOB_SECONDS), _outcome))
    for account in await asyncio.to_thread(_accounts, example):
        body = {"metadata": {"name": account}}
        await cluster.create(SERVICE_ACCOUNTS, options.namespace, body)
    task = asyncio.create_task(cluster.run(), name="in-memory cluster")
    try:
        async with serve_cluster(cluster, folder, options.namespace, for_users=True) as kubeconfig:
            yield cluster, kubeconfig
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await cluster.close()


def _accounts(example: Path) -> set[str]:
    """Return the ServiceAccounts that the Jobs of the example use."""
    pattern = re.compile(r"^ *serviceAccountName: *([a-z0-9-]+)", re.MULTILINE)
    return {name for file in example.rglob("*.yaml") for name in pattern.findall(file.read_text())}


def _outcome(job: dict[str, Any]) -> PodOutcome:
    """Let some Jobs fail, so that the pages show a failure."""
    if keys.ALERT in job["metadata"].get("labels", {}) and "statefulset" in job["metadata"]["name"]:
        return PodOutcome(3, "a Pod of the StatefulSet is Pending: a restart does not help")
    return PodOutcome()


@contextlib.asynccontextmanager
async def _source(repository: DemoRepository, folder: Path) -> AsyncIterator[GitSource]:
    source = GitSource(GitSettings(url=str(repository.folder), cache_dir=folder / "cache"))
    async with contextlib.aclosing(source):
        yield source


@dataclass(frozen=True, slots=True)
class _ClusterAccess:
    """How the commands of the story reach the cluster, and the controller's namespace."""

    api: ApiServer
    kubeconfig: Path
    namespace: str


class _Demo:
    """The steps, which print what happens."""

    def __init__(
        self,
        controller: Controller,
        repository: DemoRepository,
        http: aiohttp.ClientSession,
        cluster: _ClusterAccess,
        say: Callable[[str], None],
    ) -> None:
        self._controller = controller
        self._repository = repository
        self._http = http
        self._cluster = cluster
        self._say = say
        self._step = 0
        #: Part of every alert's labels, since a real cluster may have seen an earlier run.
        self._run_id = secrets.token_hex(2)

    async def run_steps(self) -> None:
        """Run every step once."""
        await self._start()
        alert = self._crash_loop("grafana")
        helpful = await self._fire(alert)
        await self._repeat(alert)
        await self._resolve(alert)
        stopped = await self._run_without_helping()
        await self._show_status()
        await self._approve(stopped)
        await self._fire_without_operario()
        await self._merge(helpful)
        await self._show_effects(helpful.key)

    def _crash_loop(self, container: str) -> dict[str, Any]:
        return _alert(
            "KubePodCrashLooping",
            namespace="monitoring",
            pod=f"{container}-{self._run_id}-x2x9q",
            container=container,
        )

    async def wait_for_alerts(self, url: str) -> None:
        """Say how to send an alert of one of the operarios, until cancelled."""
        await self._start()
        catalog = self._controller.syncer.catalog
        operarios = catalog.operarios if catalog else ()
        firing = [operario for operario in operarios if operario.status is Status.FIRING]
        alert = _alert_for(firing[0]) if firing else _alert("NAME")
        self._title(f"Send an alert, as Alertmanager does, for example {_name(alert)}")
        # Without an end of its own, the alert is resolved when it is delivered.
        for sent in (alert, {**alert, "status": "resolved"}):
            file = self._repository.folder.parent / f"{sent['status']}.json"
            delivery = {"version": "4", "status": sent["status"], "alerts": [sent]}
            await asyncio.to_thread(file.write_text, json.dumps(delivery, indent=2) + "\n")
            self._fact(
                sent["status"],
                f"curl -H 'Content-Type: application/json' -d @{file} {url}/alerts",
            )
        self._fact("", "Change the labels in the files as you need them, the same in both.")
        self._fact("", "To let it fire again, change startsAt, too: else it is the same alert.")
        self._fact("", "The effect is known after heals-within: make it short to see it.")
        await asyncio.Event().wait()

    async def send_alerts(self) -> None:
        """Send alerts of all kinds until cancelled."""
        names = [
            ("KubePodCrashLooping", "pod"),
            ("KubeDeploymentReplicasMismatch", "deployment"),
            ("KubeNodeNotReady", "node"),
            ("KubeStatefulSetReplicasMismatch", "statefulset"),
            ("KubeQuotaAlmostFull", "resourcequota"),
            ("KubePersistentVolumeFillingUp", "persistentvolumeclaim"),
            ("KubeJobNotCompleted", "job_name"),
            ("KubeAPIErrorBudgetBurn", "long"),
        ]
        for number, (name, label) in enumerate(itertools.cycle(names), start=1):
            labels = {"namespace": "shop", label: f"{label}-{self._run_id}-{number}"}
            alert = _alert(name, **labels)
            await self._deliver(alert)
            await asyncio.sleep(_ALERT_INTERVAL_SECONDS)
            if number % 3 == 0:
                await self._deliver(_resolved(alert))

    async def _start(self) -> None:
        # A real cluster may have the mirror of an earlier run, of another repository.
        await _until(self._is_synced, "the first sync")
        catalog = self._controller.syncer.catalog
        assert catalog is not None  # noqa: S101 - just waited for
        await _until(lambda: self._controller.view.complete, "the list of Jobs")
        await _until(lambda: self._controller.elector.status.leader, "leadership")
        self._title("The controller has loaded the operarios from Git and is the leader")
        self._fact("commit", self._repository.describe(catalog.revision.commit))
        errors = sum(problem.is_error for problem in catalog.problems)
        count = plural(len(catalog.operarios), "operario")
        self._fact("catalog", f"{count}, {errors} errors")

    def _is_synced(self) -> bool:
        catalog = self._controller.syncer.catalog
        return catalog is not None and catalog.revision.commit == self._repository.head

    async def _fire(self, alert: dict[str, Any]) -> Remediation:
        self._title(f"The alert {_name(alert)} fires, and Alertmanager sends it")
        status, item = await self._deliver(alert)
        key = JobKey(item["namespace"], item["job"])
        self._fact("response", f"HTTP {status}, {item['outcome']}: Job {key}")
        remediation = await self._remediation(key)
        self._fact("operario", f"{remediation.operario}, defined in {remediation.path}")
        self._fact("commit", f"{remediation.commit}")
        await self._print_phases(key)
        source = f"{remediation.commit[:12]}:{remediation.path}"
        self._fact("audit", f"git show {source}")
        self._fact("", "prints the operario from which this Job was made")
        return remediation

    async def _print_phases(self, key: JobKey) -> None:
        """Print each phase of a Job as it is reached."""
        phases: list[Phase] = []
        changed = self._controller.view.subscribe()
        try:
            async with asyncio.timeout(_STEP_TIMEOUT_SECONDS):
                while not phases or phases[-1] not in FINAL:
                    changed.clear()
                    remediation = self._controller.view.get(key)
                    if remediation and (not phases or phases[-1] is not remediation.phase):
                        phases.append(remediation.phase)
                        message = f" ({remediation.message})" if remediation.message else ""
                        self._fact("phase", f"{remediation.phase}{message}")
                        continue
                    await changed.wait()
        except TimeoutError:
            raise UsageError(
                f"Job {key} did not finish within {_STEP_TIMEOUT_SECONDS:.0f} s; check that the"
                " cluster runs Pods and that the ServiceAccounts of the example exist"
            ) from None
        finally:
            self._controller.view.unsubscribe(changed)

    async def _repeat(self, alert: dict[str, Any]) -> None:
        self._title("Alertmanager sends the same alert again, as it does while an alert fires")
        before = len(self._controller.view)
        status, item = await self._deliver(alert)
        after = len(self._controller.view)
        self._fact("response", f"HTTP {status}, {item['outcome']}: Job {item['job']}")
        self._fact("Jobs", f"{before} before, {after} after: an incident gets one Job")

    async def _resolve(self, alert: dict[str, Any]) -> None:
        self._title(f"The alert {_name(alert)} is resolved")
        status, item = await self._deliver(_resolved(alert))
        self._fact("response", f"HTTP {status}, {item['outcome']}: {item['message']}")
        for remediation in self._controller.view:
            if remediation.resolved_at and remediation.labels == alert["labels"]:
                moment = format_time(remediation.resolved_at)
                self._fact("Job", f"{remediation.key.name} now records: resolved at {moment}")

    async def _run_without_helping(self) -> JobKey:
        """Repeat an alert until the Job for it waits for a person; return that Job."""
        alert = _alert(
            "KubeDeploymentReplicasMismatch", namespace="shop", deployment=f"cart-{self._run_id}"
        )
        self._title(f"The alert {_name(alert)} fires. Its Jobs succeed, but it still fires")
        before: JobKey | None = None
        for number in itertools.count(1):
            key = await self._next_job(alert, before)
            if before is not None:
                await self._print_effect(before)
            self._fact(f"Job {number}", str(key))
            if before is None:
                await self._print_limits(key)
            if await self._is_stopped(key):
                break
            await self._print_phases(key)
            before = key
        return key

    async def _print_limits(self, key: JobKey) -> None:
        remediation = await self._remediation(key)
        heals_within = format_duration(remediation.options.heals_within)
        stop_after = remediation.options.stop_after_not_healed
        self._fact("operario", remediation.operario)
        self._fact("options", f"heals-within: {heals_within}, stop-after-not-healed: {stop_after}")

    async def _next_job(self, alert: dict[str, Any], before: JobKey | None) -> JobKey:
        """Deliver an alert until it has another Job than before."""
        try:
            async with asyncio.timeout(_STEP_TIMEOUT_SECONDS):
                while True:
                    _, item = await self._deliver(alert)
                    key = JobKey(item["namespace"], item["job"])
                    if key != before:
                        return key
                    await asyncio.sleep(_REPEAT_SECONDS)
        except TimeoutError:
            raise UsageError(f"no other Job was created for {_name(alert)}; see the log") from None

    async def _is_stopped(self, key: JobKey) -> bool:
        """Wait until a Job starts, or print why it waits for a person."""
        stopped: dict[str, Any] = {}

        async def is_decided() -> bool:
            shown = await self._shown(key)
            if shown.get("reason") == Reason.NOT_HELPING.value:
                stopped.update(shown)
            return bool(stopped) or shown.get("phase") not in (None, Phase.WAITING.value)

        await _until(is_decided, f"a decision on Job {key}")
        if stopped:
            self._fact("phase", f"{stopped['phase']}, {stopped['reason']}: {stopped['message']}")
        return bool(stopped)

    async def _shown(self, key: JobKey) -> dict[str, Any]:
        """What the API shows of a Job; empty if it does not know it yet."""
        query = {"namespace": key.namespace, "limit": "1000"}
        async with self._http.get("/api/remediations", params=query) as response:
            items: list[dict[str, Any]] = (await response.json())["items"]
        return next((item for item in items if item["job"] == key.name), {})

    async def _print_effect(self, key: JobKey) -> None:
        """Wait until the effect of a Job is known, and print it."""
        await _until(lambda: self._known_effect(key), f"the effect of Job {key}")
        assessment = self._known_effect(key)
        assert assessment is not None  # noqa: S101 - just waited for
        self._fact("effect", f"{assessment.effect}: {assessment.message}")

    def _known_effect(self, key: JobKey) -> Assessment | None:
        """Return the effect of a Job, None while it is pending."""
        view = self._controller.view
        remediation = view.get(key)
        if remediation is None:
            return None
        incident = view.incident_of(remediation)
        assessment = assess(remediation, incident, datetime.now(UTC))
        if assessment is None or assessment.effect is Effect.PENDING:
            return None
        return assessment

    async def _approve(self, key: JobKey) -> None:
        self._title("A person approves one more run")
        self._fact("command", f"openfero-gitops approve {key}")
        done = await act_on_job(APPROVE, str(key), self._cluster.kubeconfig, None)
        self._fact("", str(done))
        await self._print_phases(key)

    async def _fire_without_operario(self) -> None:
        self._title("The alert KubeAPIErrorBudgetBurn fires, for which there is no operario")
        status, item = await self._deliver(_alert("KubeAPIErrorBudgetBurn", long="1h"))
        self._fact("response", f"HTTP {status}, {item['outcome']}: {item['message']}")

    async def _merge(self, before: Remediation) -> None:
        self._title("A change of the operario is merged, and the next alert uses it")
        commit = self._repository.merge_change(before.path)
        await self._controller.syncer.sync()
        self._fact("commit", self._repository.describe(commit))
        alert = self._crash_loop("loki")
        _, item = await self._deliver(alert)
        remediation = await self._remediation(JobKey(item["namespace"], item["job"]))
        verdict = "the merged commit" if remediation.commit == commit else "NOT the merged commit"
        name = remediation.key.name
        self._fact("Job", f"{name} was made from {remediation.commit[:12]}, {verdict}")
        await self._print_phases(remediation.key)

    async def _show_effects(self, helpful: JobKey) -> None:
        self._title("Did it help? By now the effect of the first Job is known")
        await self._print_effect(helpful)
        cluster = self._cluster
        trace = await trace_of(cluster.api, helpful, cluster.namespace)
        self._command(f"trace {helpful}", trace_text.as_text(trace))
        selection = StatsFilter((helpful.namespace,), since=_STATS_PERIOD)
        report = await stats_of(cluster.api, selection)
        self._command(f"stats --since {format_duration(_STATS_PERIOD)}", stats_table(report))

    async def _show_status(self) -> None:
        namespace = self._cluster.namespace
        self._command("status", status_text.as_text(await status_of(self._cluster.api, namespace)))

    def _command(self, arguments: str, output: str) -> None:
        """Print a command, and what it prints."""
        self._say(f"\n   $ openfero-gitops {arguments}")
        for line in output.splitlines():
            self._say(f"   {line}".rstrip())

    async def _deliver(self, alert: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Send an alert as Alertmanager does."""
        payload = {
            "version": "4",
            "groupKey": f'{{}}:{{alertname="{_name(alert)}"}}',
            "status": alert["status"],
            "receiver": "openfero-gitops",
            "truncatedAlerts": 0,
            "alerts": [alert],
        }
        async with self._http.post("/alerts", json=payload) as response:
            answer = await response.json()
            return response.status, answer["items"][0]

    async def _remediation(self, key: JobKey) -> Remediation:
        await _until(lambda: self._controller.view.get(key), f"Job {key}")
        remediation = self._controller.view.get(key)
        assert remediation is not None  # noqa: S101 - just waited for
        return remediation

    def _title(self, text: str) -> None:
        self._step += 1
        self._say(f"\n{self._step}. {text}")

    def _fact(self, name: str, text: str) -> None:
        self._say(f"   {name:<9} {text}")


async def _until(condition: Callable[[], object], subject: str) -> None:
    """Wait until a condition holds, which may be a coroutine function."""
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_SECONDS):
            while True:
                holds = condition()
                if inspect.isawaitable(holds):
                    holds = await holds
                if holds:
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise UsageError(
            f"waited {_STEP_TIMEOUT_SECONDS:.0f} s in vain for {subject}; see the log"
        ) from None


def _alert(name: str, **labels: str) -> dict[str, Any]:
    """Return an alert that is firing, in the format of Alertmanager's webhook."""
    return {
        "status": "firing",
        "labels": {"alertname": name, "severity": "warning", **labels},
        "annotations": {"summary": f"{name}, sent by the demo"},
        "startsAt": format_time(datetime.now(UTC) - timedelta(seconds=30)),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": secrets.token_hex(8),
    }


def _alert_for(operario: Operario) -> dict[str, Any]:
    """Return an alert with the labels that an operario needs."""
    example = example_alert(operario)
    labels = dict.fromkeys((*operario.options.target, *label_names(operario.job)), EXAMPLE)
    alert = _alert(operario.alertname)
    alert["labels"] |= labels | dict(example.labels)
    alert["annotations"] |= dict(example.annotations)
    return alert


def _resolved(alert: dict[str, Any]) -> dict[str, Any]:
    return {**alert, "status": "resolved", "endsAt": format_time(datetime.now(UTC))}


def _name(alert: dict[str, Any]) -> str:
    return str(alert["labels"]["alertname"])
