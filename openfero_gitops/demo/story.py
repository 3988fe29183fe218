"""The demonstration: a real repository, the real controller, and alerts that come by HTTP.

Only the cluster is in memory, and says so; with a kubeconfig it is a real one. The story is the
same: a sync at a commit, an alert and its Job, a repetition that changes nothing, an alert that
is resolved, an alert that nobody has an operario for, and a reviewed change that the next Job
carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import git

from openfero_gitops.app import Controller
from openfero_gitops.cluster.api import SERVICE_ACCOUNTS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.demo.cluster import Durations, JobPlayer, MemoryCluster, Outcome
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.remediation import FINAL, JobKey, Phase
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.settings import load_settings
from openfero_gitops.sources.git.source import GitSettings, GitSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from openfero_gitops.cluster.api import ApiServer
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.server import Address

_PATIENCE: Final = 60.0
#: Seconds within which a signal that ended git's process has reached us, too.
_MOMENT: Final = 0.5
#: Seconds between two alerts while the pages are open.
_BEAT: Final = 8.0
#: Seconds that a played Job runs.
_RUN: Final = 1.5
_AUTHOR: Final = git.Actor("openfero-gitops demo", "demo@openfero-gitops.invalid")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where and how the story is played."""

    once: bool
    listen: str
    kubeconfig: Path | None
    namespace: str
    example: Path | None


async def play(
    stage: Stage,
    stop_on_signals: Callable[[asyncio.Event], None],
    say: Callable[[str], None],
) -> None:
    """Play the story once; without `once`, go on until told to stop.

    Raises:
        UsageError: the stage cannot be set.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    with tempfile.TemporaryDirectory(prefix="openfero-demo-") as folder:
        example = stage.example or _example()
        repository = _Repository(Path(folder) / "operarios", example)
        async with (
            _cluster(stage, example, say) as api,
            _source(repository, Path(folder)) as source,
        ):
            settings = load_settings(
                {
                    "repo": str(repository.folder),
                    "interval": "5s",
                    "listen": "127.0.0.1:0" if stage.once else stage.listen,
                    "namespace": stage.namespace,
                    "identity": "demo",
                    "cache_dir": folder,
                }
            )
            words = "a real cluster" if stage.kubeconfig else "an in-memory cluster (demo)"
            namespaces = settings.resolve_namespaces(stage.namespace)
            controller = Controller(settings, namespaces, api, source, words)
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
                    story = _Story(controller, repository, http, say)
                    if not stage.once:
                        say(f"pages: {url}/  (Ctrl-C ends it)")
                    await _unless_stopped(story.tell(), running, stop)
                    if not stage.once and not stop.is_set():
                        say(f"\nAlerts go on coming; look at {url}/ and end with Ctrl-C.")
                        await _unless_stopped(story.go_on(), running, stop)
            finally:
                stop.set()
                await running


async def _unless_stopped(story: Any, running: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Tell the story until it is told, or the controller has ended.

    Ctrl-C in a terminal ends git's processes, too: what fails of that is no failure.
    """
    telling = asyncio.ensure_future(story)
    await asyncio.wait({telling, running}, return_when=asyncio.FIRST_COMPLETED)
    if not telling.done():
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
        running.result()
    elif telling.exception() is not None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _MOMENT)
        if not stop.is_set():
            telling.result()


def _example() -> Path:
    """The starter repository: beside the package in a checkout, inside of it in a wheel."""
    package = Path(__file__).parents[1]
    for folder in (package / "example", package.parent / "operarios-example"):
        if folder.is_dir():
            return folder
    raise UsageError("the starter repository is not installed: name one with --example")


@contextlib.asynccontextmanager
async def _cluster(
    stage: Stage, example: Path, say: Callable[[str], None]
) -> AsyncIterator[ApiServer]:
    if stage.kubeconfig is not None:
        api = await KubernetesApi.connect(stage.kubeconfig)
        say(f"cluster: the real one at {api.server}, namespace {stage.namespace}")
        try:
            yield api
        finally:
            await api.close()
        return
    say("cluster: in memory; it plays Jobs through their phases, nothing is really repaired")
    cluster = MemoryCluster(player=JobPlayer(Durations(run=_RUN), _outcome))
    for account in await asyncio.to_thread(_accounts, example):
        body = {"metadata": {"name": account}}
        await cluster.create(SERVICE_ACCOUNTS, stage.namespace, body)
    playing = asyncio.create_task(cluster.run(), name="cluster in memory")
    try:
        yield cluster
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        await cluster.close()


def _accounts(example: Path) -> set[str]:
    """The ServiceAccounts that the example's Jobs run as."""
    named = re.compile(r"^ *serviceAccountName: *([a-z0-9-]+)", re.MULTILINE)
    return {name for file in example.rglob("*.yaml") for name in named.findall(file.read_text())}


def _outcome(job: dict[str, Any]) -> Outcome:
    """Let some remediations fail, so that the pages show what that looks like."""
    if keys.ALERT in job["metadata"].get("labels", {}) and "statefulset" in job["metadata"]["name"]:
        return Outcome(3, "the StatefulSet has a Pod that is Pending: a restart would not help")
    return Outcome()


@contextlib.asynccontextmanager
async def _source(repository: _Repository, folder: Path) -> AsyncIterator[GitSource]:
    source = GitSource(GitSettings(url=str(repository.folder), cache_dir=folder / "cache"))
    async with contextlib.aclosing(source):
        yield source


class _Repository:
    """A Git repository of its own, made of the starter's files."""

    def __init__(self, folder: Path, example: Path) -> None:
        """Copy and commit."""
        self.folder = folder
        shutil.copytree(example, folder)
        with git.Repo.init(folder, initial_branch="main") as repo:
            repo.git.add(all=True)
            repo.index.commit("Operarios for the cluster", author=_AUTHOR, committer=_AUTHOR)

    def head(self) -> str:
        """The newest commit."""
        with git.Repo(self.folder) as repo:
            return repo.head.commit.hexsha

    def review(self, path: str) -> str:
        """Commit a harmless change to one file, as a merged pull request would."""
        file = self.folder / path
        file.write_text(file.read_text() + "# Reviewed again.\n")
        with git.Repo(self.folder) as repo:
            repo.index.add([path])
            commit = repo.index.commit(f"Review {path}", author=_AUTHOR, committer=_AUTHOR)
            return commit.hexsha

    def describe(self, commit: str) -> str:
        """A commit as `git log --oneline` shows it."""
        with git.Repo(self.folder) as repo:
            return str(repo.git.log("-1", "--format=%h %s (%an)", commit))


class _Story:
    """The steps, each told as it happens."""

    def __init__(
        self,
        controller: Controller,
        repository: _Repository,
        http: aiohttp.ClientSession,
        say: Callable[[str], None],
    ) -> None:
        self._controller = controller
        self._repository = repository
        self._http = http
        self._say = say
        self._step = 0
        #: Tells apart the stories that one real cluster has seen.
        self._run = secrets.token_hex(2)

    async def tell(self) -> None:
        """Play every step once."""
        await self._sync()
        alert = _alert("KubePodCrashLooping", namespace="shop", pod=f"cart-{self._run}-x2x9q")
        job = await self._heal(alert)
        await self._repeat(alert)
        await self._resolve(alert)
        await self._nobody()
        await self._change(job)

    async def go_on(self) -> None:
        """Send alerts of every kind for as long as the pages are open."""
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
        number = 0
        while True:
            name, label = names[number % len(names)]
            number += 1
            labels = {"namespace": "shop", label: f"{label}-{self._run}-{number}"}
            alert = _alert(name, **labels)
            await self._deliver(alert)
            await asyncio.sleep(_BEAT)
            if number % 3 == 0:
                await self._deliver(_resolved(alert))

    async def _sync(self) -> None:
        await _until(lambda: self._controller.syncer.catalog, "the first sync")
        catalog = self._controller.syncer.catalog
        assert catalog is not None  # noqa: S101 - just waited for
        await _until(lambda: self._controller.view.complete, "the list of Jobs")
        await _until(lambda: self._controller.elector.status.leader, "leadership")
        self._title("Git is synced, this replica leads")
        self._fact("commit", self._repository.describe(catalog.revision.commit))
        errors = sum(problem.is_error for problem in catalog.problems)
        self._fact("catalog", f"{len(catalog.operarios)} operarios in force, {errors} errors")

    async def _heal(self, alert: dict[str, Any]) -> Remediation:
        self._title(f"{_name(alert)} fires")
        status, item = await self._deliver(alert)
        key = JobKey(item["namespace"], item["job"])
        self._fact("answer", f"HTTP {status}, {item['outcome']}: Job {key}")
        one = await self._seen(key)
        self._fact("operario", f"{one.operario} in {one.path}")
        self._fact("commit", f"{one.commit}")
        await self._follow(key)
        self._fact("proof", f"git show {one.commit[:12]}:{one.path}")
        return one

    async def _follow(self, key: JobKey) -> None:
        """Say each phase as it is reached."""
        phases: list[Phase] = []
        news = self._controller.view.subscribe()
        try:
            async with asyncio.timeout(_PATIENCE):
                while not phases or phases[-1] not in FINAL:
                    news.clear()
                    one = self._controller.view.get(key)
                    if one is not None and (not phases or phases[-1] is not one.phase):
                        phases.append(one.phase)
                        why = f" ({one.message})" if one.message else ""
                        self._fact("phase", f"{one.phase}{why}")
                        continue
                    await news.wait()
        except TimeoutError:
            raise UsageError(
                f"Job {key} did not end within {_PATIENCE:.0f} s: does the cluster run Pods, and "
                "are the operarios' ServiceAccounts installed?"
            ) from None
        finally:
            self._controller.view.unsubscribe(news)

    async def _repeat(self, alert: dict[str, Any]) -> None:
        self._title("Alertmanager delivers it again, as it does while an alert fires")
        before = len(self._controller.view)
        status, item = await self._deliver(alert)
        after = len(self._controller.view)
        self._fact("answer", f"HTTP {status}, {item['outcome']}: Job {item['job']}")
        self._fact("Jobs", f"{before} before, {after} after: nothing was healed twice")

    async def _resolve(self, alert: dict[str, Any]) -> None:
        self._title(f"{_name(alert)} is resolved")
        status, item = await self._deliver(_resolved(alert))
        self._fact("answer", f"HTTP {status}, {item['outcome']}: {item['message']}")
        recorded = [
            one
            for one in self._controller.view
            if one.resolved_at and one.labels == alert["labels"]
        ]
        for one in recorded:
            moment = format_time(one.resolved_at) if one.resolved_at else ""
            self._fact("recorded", f"resolved-at {moment} on Job {one.key.name}")

    async def _nobody(self) -> None:
        self._title("KubeAPIErrorBudgetBurn fires, and nobody has an operario for it")
        status, item = await self._deliver(_alert("KubeAPIErrorBudgetBurn", long="1h"))
        self._fact("answer", f"HTTP {status}, {item['outcome']}: {item['message']}")

    async def _change(self, before: Remediation) -> None:
        self._title("A pull request is merged; the next alert runs what was merged")
        commit = self._repository.review(before.path)
        await self._controller.syncer.sync()
        self._fact("commit", self._repository.describe(commit))
        alert = _alert("KubePodCrashLooping", namespace="shop", pod=f"pay-{self._run}-h7d4m")
        _, item = await self._deliver(alert)
        one = await self._seen(JobKey(item["namespace"], item["job"]))
        same = "as it must be" if one.commit == commit else "NOT the merged one"
        self._fact("Job", f"{one.key.name} carries {one.commit[:12]}, {same}")
        await self._follow(one.key)

    async def _deliver(self, alert: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """POST one alert as Alertmanager does."""
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

    async def _seen(self, key: JobKey) -> Remediation:
        await _until(lambda: self._controller.view.get(key), f"Job {key}")
        one = self._controller.view.get(key)
        assert one is not None  # noqa: S101 - just waited for
        return one

    def _title(self, text: str) -> None:
        self._step += 1
        self._say(f"\n{self._step}. {text}")

    def _fact(self, name: str, text: str) -> None:
        self._say(f"   {name:<9} {text}")


async def _until(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            while not condition():  # noqa: ASYNC110 - a condition over several parts
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise UsageError(f"{what} did not come within {_PATIENCE:.0f} s") from None


def _alert(name: str, **labels: str) -> dict[str, Any]:
    """An alert that fires now, as Alertmanager would describe it."""
    return {
        "status": "firing",
        "labels": {"alertname": name, "severity": "warning", **labels},
        "annotations": {"summary": f"{name}, told by the demo"},
        "startsAt": format_time(datetime.now(UTC) - timedelta(seconds=30)),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": secrets.token_hex(8),
    }


def _resolved(alert: dict[str, Any]) -> dict[str, Any]:
    return {**alert, "status": "resolved", "endsAt": format_time(datetime.now(UTC))}


def _name(alert: dict[str, Any]) -> str:
    return str(alert["labels"]["alertname"])
