"""Effects across faults: settled once by the leader, and the same on every replica."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from openfero_gitops.domain import keys
from openfero_gitops.domain.timestamp import format_time
from tests.chaos.recorder import FLAGS, Recorder
from tests.cluster.controlplane import COMPONENTS
from tests.support.played import end_jobs
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster

NAMESPACE: Final = "default"
HOSTS: Final = 10
#: Long enough for what a test does until then, and for a lease to be taken over meanwhile.
HEALS_WITHIN_SECONDS: Final = 10
PATIENCE_SECONDS: Final = 240.0
JOBS_PATH: Final = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
EFFECT: Final = ("effect", "effectAt", "effectMessage")


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Give an API server whose Jobs end when a test ends them, and whose etcd keeps every state."""
    return private_control_plane(components=COMPONENTS[:2], flags={"kube-apiserver": FLAGS})


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, plane: ControlPlane
) -> Iterator[tuple[Replica, Replica]]:
    """Give two replicas."""
    folder = tmp_path_factory.mktemp("pair")
    repository = Repository(folder / "operarios")
    options = {
        "openfero.io/heals-within": f"{HEALS_WITHIN_SECONDS}s",
        "openfero.io/max-concurrent": "1000",
    }
    repository.write("openfero.yaml", "limits: {concurrent: 1000, perMinute: 1000}\n")
    for name in ("Killed", "Away"):
        repository.write(f"{name.lower()}.json", operario(name, annotations=options))
    repository.commit("Operarios")
    start = {
        "kubeconfig": plane.kubeconfig,
        "namespace": NAMESPACE,
        "repository": repository.url,
    }
    with Replica(folder, name="a", **start) as a, Replica(folder, name="b", **start) as b:
        a.wait_for(lambda: a.leads or b.leads)
        yield a, b


class Story:
    """Alerts of one name: half of the hosts are healed, the others' alerts keep firing."""

    def __init__(self, plane: ControlPlane, replica: Replica, name: str) -> None:
        self._plane, self._replica, self._name = plane, replica, name
        self._began = {"startsAt": format_time(datetime.now(UTC))}
        self.healed = [f"healed-{number}" for number in range(HOSTS)]
        self.useless = [f"useless-{number}" for number in range(HOSTS)]

    def run_jobs(self) -> None:
        """Deliver all alerts, let their Jobs run and succeed, and deliver which are resolved."""
        self.deliver(self.healed + self.useless)
        names = self._replica.wait_for(
            lambda: (
                [i["job"] for i in self.items(self._replica, "&phase=Running")]
                if len(self.items(self._replica, "&phase=Running")) == 2 * HOSTS
                else []
            ),
            PATIENCE_SECONDS,
        )
        asyncio.run(end_jobs(self._plane.kubeconfig, NAMESPACE, names))
        self.deliver(self.healed, "resolved", endsAt=format_time(datetime.now(UTC)))
        self.ended = time.monotonic()

    def deliver(self, hosts: list[str], status: str = "firing", **moments: str) -> None:
        """Deliver the alerts of some hosts."""
        moments = self._began | moments
        alerts = [alert(self._name, status, host=host) | moments for host in hosts]
        answer = self._replica.deliver(*alerts, status=status)
        assert answer[0] == 200, answer

    def items(self, replica: Replica, query: str = "") -> list[Any]:
        """Return the remediations in the order of their names."""
        items = replica.get(f"/api/remediations?alert={self._name}&limit=500{query}")["items"]
        return sorted(items, key=lambda item: item["job"])

    def wait_until_due(self) -> None:
        """Return when the last effect is due."""
        time.sleep(max(0.0, self.ended + HEALS_WITHIN_SECONDS + 2 - time.monotonic()))

    def wait_until_settled(self) -> None:
        """Return when every Job has its effect in the API server."""

        def look() -> bool:
            jobs = self._plane.request("GET", JOBS_PATH)[1]["items"]
            ours = [job for job in jobs if job["metadata"]["labels"][keys.ALERT] == self._name]
            return all(keys.EFFECT in job["metadata"]["annotations"] for job in ours)

        self._replica.wait_for(look, PATIENCE_SECONDS)

    def check(self, replicas: tuple[Replica, Replica], plane: ControlPlane) -> None:
        """Check that each effect is right, written once, and shown by both replicas."""
        wanted = dict.fromkeys(self.healed, "healed") | dict.fromkeys(self.useless, "not-healed")

        def shown(replica: Replica) -> list[tuple[str, ...]]:
            return [
                (item["job"], item["labels"]["host"], *(item[name] for name in EFFECT))
                for item in self.items(replica)
            ]

        written = self._written(plane)
        effects = replicas[0].wait_for(
            lambda: shown(replicas[0]) if shown(replicas[0]) == shown(replicas[1]) else []
        )
        assert {host: effect for _, host, effect, *_ in effects} == wanted
        assert {job: [(e, at, text)] for job, _, e, at, text in effects} == written

    def _written(self, plane: ControlPlane) -> dict[str, list[tuple[str, ...]]]:
        """Return every different effect that each Job ever had, by its name, as etcd has it."""
        written: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
        names = (keys.EFFECT, keys.EFFECT_AT, keys.EFFECT_MESSAGE)
        for seen in asyncio.run(_history(plane.etcd_url, 2 * HOSTS, self._name)):
            annotations = seen["metadata"]["annotations"]
            effect = tuple(annotations.get(name, "") for name in names)
            states = written[seen["metadata"]["name"]]
            if any(effect) and states[-1:] != [effect]:
                states.append(effect)
        return dict(written)


async def _history(etcd: str, count: int, name: str) -> list[dict[str, Any]]:
    """Return all states of the Jobs of an alert, when so many Jobs are settled."""
    recorder = Recorder(etcd)
    task = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(60):
            while True:
                states = [
                    seen.object
                    for seen in recorder.jobs
                    if seen.object is not None
                    and seen.object["metadata"]["labels"][keys.ALERT] == name
                ]
                settled = {
                    job["metadata"]["name"]
                    for job in states
                    if keys.EFFECT in job["metadata"]["annotations"]
                }
                if len(settled) == count:
                    return states
                await asyncio.sleep(0.1)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_the_next_leader_settles_what_a_killed_one_did_not(
    plane: ControlPlane, pair: tuple[Replica, Replica]
) -> None:
    """A leader that dies between the end of the Jobs and their effects leaves them to the next."""
    leader, other = pair if pair[0].leads else pair[::-1]
    story = Story(plane, other, "Killed")
    story.run_jobs()
    leader.kill()
    story.wait_until_due()
    story.deliver(story.useless)
    story.wait_until_settled()
    leader.process.end()
    leader.process.start()
    story.check(pair, plane)


def test_effects_that_are_due_while_the_api_server_is_away_are_settled_afterwards(
    plane: ControlPlane, pair: tuple[Replica, Replica]
) -> None:
    """Both replicas lose the lease and one gets it again: each effect is written once."""
    story = Story(plane, pair[0], "Away")
    story.run_jobs()
    plane.stop_component("kube-apiserver", signal.SIGKILL)
    story.wait_until_due()
    plane.start_component("kube-apiserver")
    for replica in pair:
        replica.process.wait_until_it_answers()
    pair[0].wait_for(lambda: pair[0].leads or pair[1].leads)
    story.deliver(story.useless)
    story.wait_until_settled()
    story.check(pair, plane)
