"""Leadership on a real API server, between real processes that are killed, frozen or isolated.

Every process records each moment at which it believed that it leads, by a shared clock
(`tests/support/elector_process.py`). After each test these times must not overlap.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import pytest
import yaml

from openfero_gitops.domain import keys
from openfero_gitops.domain.lease import LeaseDurations
from openfero_gitops.domain.timestamp import parse_time
from tests.cluster.controlplane import LOOPBACK
from tests.support import elector_process
from tests.support.chart import controller_kubeconfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from tests.cluster.controlplane import ControlPlane
    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


LEASE, RENEW, RETRY = 3, 2.0, 0.5  # seconds, as configured for the processes
STALL = 8.0  # seconds for which a busy machine may keep a process from running
EARLY = 1.0  # seconds by which what is measured may seem to come too soon
START = 90.0  # seconds in which a process is up and has the lease
SCHEDULER = "kube-scheduler"

# Forks processes that have the modules already, which costs far less than starting Python.
FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["tests.support.elector_process"])

Entry = dict[str, Any]
T = TypeVar("T")


class Replica:
    """One process and its journal."""

    def __init__(self, process: BaseProcess, identity: str, journal: Path) -> None:
        self.identity = identity
        self._process = process
        self._journal = journal

    def signal(self, sent: signal.Signals) -> None:
        """Send a signal: SIGKILL is a crash, SIGSTOP a hang, SIGCONT its end."""
        assert self._process.pid
        os.kill(self._process.pid, sent)

    def wait(self) -> int | None:
        """Wait until the process ends, and return its exit code, or None if it still runs."""
        self._process.join(START)
        return self._process.exitcode

    def end(self) -> None:
        """End the process if it still runs, frozen or not."""
        if self._process.is_alive():
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)
            self.wait()
            self._process.kill()
            self.wait()

    def entries(self, event: str = "") -> list[Entry]:
        """Return the journal so far, or its entries of one event."""
        text = self._journal.read_text() if self._journal.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        lines: list[Entry] = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def times(self, event: str) -> list[float]:
        """Return the times of an event."""
        return [line["at"] for line in self.entries(event)]

    def first(self, event: str, *, after: float = 0, patience: float = START) -> float:
        """Wait for an event after a moment, and return its time."""
        return until(
            lambda: next((at for at in self.times(event) if at > after), None),
            f"{event!r} in {self.identity}",
            patience,
        )

    def terms(self) -> dict[str, tuple[float, float]]:
        """Return for each term the first and the last moment at which its check passed."""
        writes: dict[str, list[float]] = {}
        for line in self.entries("write"):
            writes.setdefault(line["term"], []).append(line["at"])
        return {term: (min(at), max(at)) for term, at in writes.items()}

    def status(self) -> Entry:
        """Return the latest status."""
        return self.entries("status")[-1]


class Replicas:
    """Starts and ends processes that share a lease."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str) -> None:
        self.all: list[Replica] = []
        self._folder = folder
        self._kubeconfig = controller_kubeconfig(
            kubeconfig, namespace, folder, jobs_namespaces=[namespace]
        )
        self._namespace = namespace

    def start(self, identity: str, *, deaf: float = 0.0, kubeconfig: Path | None = None) -> Replica:
        """Start a process whose work ignores its cancellation for `deaf` seconds."""
        journal = self._folder / f"{identity}-{len(self.all)}.jsonl"
        process = FORK_SERVER.Process(
            target=elector_process.main,
            kwargs={
                "kubeconfig": kubeconfig or self._kubeconfig,
                "namespace": self._namespace,
                "identity": identity,
                "durations": LeaseDurations(LEASE, RENEW, RETRY),
                "journal": journal,
                "deaf": deaf,
            },
            daemon=True,
        )
        process.start()
        replica = Replica(process, identity, journal)
        self.all.append(replica)
        return replica

    def pair(self, *, deaf: float = 0.0) -> tuple[Replica, Replica]:
        """Start two, and return the leader and the follower once both know the leader."""
        leader = self.start("alpha", deaf=deaf)
        leader.first("write")
        follower = self.start("beta", deaf=deaf)
        until(
            lambda: any(s["holder"] == "alpha" for s in follower.entries("status")),
            "a follower that knows its leader",
        )
        return leader, follower

    def end(self) -> None:
        """End all, and check that no two of them ever believed that they lead at once."""
        for replica in self.all:
            replica.end()
        held = sorted(
            (first, last, term)
            for replica in self.all
            for term, (first, last) in replica.terms().items()
        )
        for (_, last, before), (first, _, after) in itertools.pairwise(held):
            assert last < first, f"{before} and {after} overlapped by {last - first:.3f} s"


class Wire:
    """A loopback port that forwards to the API server, and can be interrupted.

    While it is cut, connections stay open, new ones are accepted, and no data is forwarded.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        self._thread(self._accept)

    def cut(self) -> None:
        """Stop forwarding."""
        self._whole.clear()

    def restore(self) -> None:
        """Forward the held data, and resume."""
        self._whole.set()

    def close(self) -> None:
        """Close every connection."""
        self._whole.set()
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _thread(self, run: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=run, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                self._thread(self._pass, near, far)
                self._thread(self._pass, far, near)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def namespace(kubectl: Kubectl, shared_namespace: str) -> Iterator[str]:
    """Yield the namespace that the tests share, and delete the Lease after the test."""
    yield shared_namespace
    kubectl("delete", "lease", "openfero-gitops", "-n", shared_namespace, "--ignore-not-found")


@pytest.fixture
def replicas(tmp_path: Path, kubeconfig: Path, namespace: str) -> Iterator[Replicas]:
    """Yield processes on the shared cluster, without a Lease yet."""
    with closing(Replicas(tmp_path, kubeconfig, namespace)) as started:
        yield started


@contextmanager
def closing(started: Replicas) -> Iterator[Replicas]:
    """End the processes, and check their journals."""
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
def wire(kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[tuple[Wire, Path]]:
    """Yield a wire to the shared API server, and the controller's kubeconfig that uses it."""
    controller = controller_kubeconfig(kubeconfig, namespace, tmp_path, jobs_namespaces=[namespace])
    config = yaml.safe_load(controller.read_text())
    cluster = config["clusters"][0]["cluster"]
    url = urlsplit(cluster["server"])
    assert url.hostname
    wire = Wire((url.hostname, url.port or 443))
    cluster["server"] = f"https://{LOOPBACK}:{wire.port}"
    cluster["tls-server-name"] = url.hostname
    through = tmp_path / "through-the-wire.kubeconfig"
    through.write_text(yaml.safe_dump(config))
    yield wire, through
    wire.close()


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Yield an API server to be broken; its kube-scheduler elects a leader as the processes do.

    Each test has a namespace of its own.
    """
    return private_control_plane(
        components=("etcd", "kube-apiserver"),
        flags={
            SCHEDULER: (
                "--leader-elect=true",
                "--leader-elect-resource-namespace=default",
                "--leader-elect-resource-name=openfero-gitops",
                f"--leader-elect-lease-duration={LEASE}s",
                f"--leader-elect-renew-deadline={RENEW}s",
                f"--leader-elect-retry-period={RETRY}s",
            )
        },
    )


def until(probe: Callable[[], T | None], description: str, patience: float = START) -> T:
    """Wait until a probe returns a true value."""
    deadline = time.monotonic() + patience
    while True:
        result = probe()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited {patience} s for {description}"
        time.sleep(0.02)


def measured(description: str, seconds: float) -> None:
    """Print a figure, for `pytest -s`."""
    print(f"\n{description}: {seconds:.3f} s", end=" ")


def lease_of(kubectl: Kubectl, namespace: str) -> Any:
    """Return the Lease."""
    return kubectl.json("get", "lease", "openfero-gitops", "-n", namespace)


def change(kubectl: Kubectl, namespace: str, patch: object) -> None:
    """Patch the Lease."""
    where = ("lease", "openfero-gitops", "-n", namespace, "--type=merge")
    kubectl("patch", *where, "-p", json.dumps(patch))


def foreign_lease(**spec: object) -> dict[str, Any]:
    """Return a Lease as another tool would write it, with its own metadata."""
    long_ago = "2001-01-01T00:00:00.000000Z"
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "openfero-gitops",
            "labels": {"example.org/team": "night-shift"},
            "annotations": {"example.org/note": "kept"},
        },
        "spec": {"holderIdentity": "somebody-else", "renewTime": long_ago, **spec},
    }


class TestTwoReplicas:
    """Test which replica leads, and the handover when it ends."""

    def test_one_leads_on_a_new_cluster_and_kubectl_shows_it(
        self, replicas: Replicas, kubectl: Kubectl, namespace: str
    ) -> None:
        """Of two that start together one leads, for longer than a lease, and the Lease names it."""
        alpha, beta = replicas.start("alpha"), replicas.start("beta")
        until(lambda: alpha.times("write") or beta.times("write"), "a leader")
        time.sleep(LEASE + 1)
        leader, follower = (alpha, beta) if alpha.times("write") else (beta, alpha)
        assert len(leader.terms()) == 1
        assert not follower.times("begin")
        assert follower.status()["holder"] == leader.identity
        lease = lease_of(kubectl, namespace)["spec"]
        assert lease["holderIdentity"] == leader.identity
        assert (lease["leaseDurationSeconds"], lease["leaseTransitions"]) == (LEASE, 0)
        renewed, acquired = (parse_time(lease[key]) for key in ("renewTime", "acquireTime"))
        assert renewed is not None
        assert acquired is not None
        assert timedelta(seconds=LEASE) < renewed - acquired < timedelta(minutes=1)
        assert abs(renewed - datetime.now(UTC)) < timedelta(seconds=RENEW + 1)
        assert leader.identity in kubectl("get", "lease", "-n", namespace)

    def test_killed_leader_is_followed_within_the_lease_and_three_seconds(
        self,
        replicas: Replicas,
    ) -> None:
        """After SIGKILL the lease has to expire."""
        leader, follower = replicas.pair()
        killed = time.monotonic()
        leader.signal(signal.SIGKILL)
        took = follower.first("write") - killed
        measured("failover", took)
        assert took < LEASE + 3 + STALL
        assert not follower.entries("begin")[0]["handed_over"]
        # Not earlier either: the last renewal was at most a retry period before.
        assert took > LEASE - RETRY - EARLY

    def test_terminated_leader_hands_over_within_two_seconds(
        self,
        replicas: Replicas,
        kubectl: Kubectl,
        namespace: str,
    ) -> None:
        """SIGTERM ends the work, then releases the lease, and the follower acquires it.

        The follower also learns that the former leader left no work unfinished.
        """
        leader, follower = replicas.pair()
        terminated_at = time.monotonic()
        leader.signal(signal.SIGTERM)
        took = follower.first("write") - terminated_at
        measured("failover", took)
        assert took < 2 + STALL
        assert leader.wait() == 0
        assert leader.times("end")[-1] < follower.times("begin")[0]
        assert follower.entries("begin")[0]["handed_over"]
        lease = lease_of(kubectl, namespace)
        assert lease["spec"]["leaseTransitions"] == 1
        assert keys.SETTLED not in lease["metadata"].get("annotations", {})
        follower.signal(signal.SIGTERM)
        assert follower.wait() == 0
        lease = lease_of(kubectl, namespace)
        assert keys.SETTLED in lease["metadata"]["annotations"]

    def test_terminated_follower_does_not_affect_the_leader(self, replicas: Replicas) -> None:
        """A follower that ends does not release the lease."""
        leader, follower = replicas.pair()
        follower.signal(signal.SIGTERM)
        assert follower.wait() == 0
        time.sleep(RENEW)
        assert len(leader.terms()) == 1
        assert leader.first("write", after=time.monotonic())

    def test_frozen_leader_writes_nothing_when_it_resumes(
        self,
        replicas: Replicas,
    ) -> None:
        """After SIGSTOP for longer than the lease the check fails, even for work that continues."""
        leader, follower = replicas.pair(deaf=0.5)
        stopped = time.monotonic()
        leader.signal(signal.SIGSTOP)
        measured("failover", follower.first("write") - stopped)
        time.sleep(1)
        thawed = time.monotonic()
        leader.signal(signal.SIGCONT)
        assert leader.first("end", after=thawed) < thawed + 0.5 + STALL
        assert len([at for at in leader.times("refused") if at > thawed]) > 10
        assert not [at for at in leader.times("write") if at > thawed]
        until(lambda: leader.status()["holder"] == "beta", "the thawed one to know its leader")
        assert not leader.status()["leader"]
        assert len(follower.terms()) == 1

    def test_isolated_leader_stops_before_another_leads(
        self,
        replicas: Replicas,
        wire: tuple[Wire, Path],
    ) -> None:
        """The work of an isolated leader has ended when the other acquires the lease."""
        connection, through = wire
        leader = replicas.start("alpha", kubeconfig=through)
        leader.first("write")
        follower = replicas.start("beta")
        until(lambda: follower.entries("status"), "a follower that knows its leader")
        cut = time.monotonic()
        connection.cut()
        ended = leader.first("end", after=cut)
        begun = follower.first("begin", after=cut)
        assert RENEW - RETRY - EARLY < ended - cut < RENEW + STALL
        assert ended < begun
        measured("stopped", ended - cut)
        measured("failover", follower.first("write") - cut)
        connection.restore()
        until(lambda: leader.status()["holder"] == "beta", "the isolated one to see the leader")
        assert len(leader.times("begin")) == 1

    def test_work_that_ignores_its_cancellation_delays_the_handover(
        self, replicas: Replicas
    ) -> None:
        """No other replica leads while the work still runs, and the work writes nothing more."""
        leader, follower = replicas.pair(deaf=1.5)
        terminated_at = time.monotonic()
        leader.signal(signal.SIGTERM)
        begun = follower.first("begin", after=terminated_at)
        ended = leader.times("end")[0]
        assert 1.5 <= ended - terminated_at < begun - terminated_at < 1.5 + 1 + STALL
        assert not [at for at in leader.times("write") if at > begun]

    def test_crashed_work_gives_the_lease_to_another(
        self, replicas: Replicas, kubectl: Kubectl, namespace: str
    ) -> None:
        """When the work crashes the lease is released; the replica is a candidate again later."""
        leader, follower = replicas.pair()
        leader.signal(signal.SIGUSR1)
        crashed = leader.first("end")
        assert follower.first("write") - crashed < 2 + STALL
        until(lambda: leader.status()["holder"] == "beta", "the crashed one to know its leader")
        assert lease_of(kubectl, namespace)["spec"]["holderIdentity"] == "beta"
        follower.signal(signal.SIGTERM)
        assert leader.first("begin", after=crashed)
        assert len({line["term"] for line in leader.entries("begin")}) == 2


class TestLease:
    """Test changes of the Lease by others."""

    def test_lease_of_another_tool_is_respected_and_its_fields_are_kept(
        self, replicas: Replicas, kubectl: Kubectl, namespace: str
    ) -> None:
        """However old its times are, its duration counts from when it was first seen."""
        held = foreign_lease(leaseDurationSeconds=4, leaseTransitions=41)
        kubectl.create(namespace, held)
        replica = replicas.start("alpha")
        replica.first("standing")
        # As long as the other tool renews it, it is respected. (kubectl may take a second.)
        for count in range(5):
            time.sleep(1)
            renewed = {"spec": {"renewTime": f"2001-01-01T00:00:0{count + 1}.000000Z"}}
            change(kubectl, namespace, renewed)
        silent = time.monotonic()
        assert not replica.times("begin")
        assert replica.status()["holder"] == "somebody-else"
        assert silent + 3 < replica.first("begin") < silent + 4 + RETRY * 1.5 + STALL
        lease = lease_of(kubectl, namespace)
        assert lease["metadata"]["labels"]["example.org/team"] == "night-shift"
        assert lease["metadata"]["annotations"]["example.org/note"] == "kept"
        assert lease["spec"]["leaseTransitions"] == 42

    def test_deleted_lease_starts_a_new_term(
        self, replicas: Replicas, kubectl: Kubectl, namespace: str
    ) -> None:
        """The leader stops and becomes a candidate; the follower does not lead in between."""
        leader, follower = replicas.pair()
        kubectl("delete", "lease", "openfero-gitops", "-n", namespace)
        deleted = time.monotonic()
        ended = leader.first("end", patience=RETRY + STALL + 1)
        begun = leader.first("begin", after=ended, patience=RETRY + STALL)
        assert begun - deleted < 2 * RETRY + STALL
        assert len({line["term"] for line in leader.entries("begin")}) == 2
        time.sleep(LEASE)
        assert not follower.times("begin")

    def test_lease_given_to_another_ends_the_term(
        self, replicas: Replicas, kubectl: Kubectl, namespace: str
    ) -> None:
        """A holder that was written with kubectl is respected."""
        replica = replicas.start("alpha")
        replica.first("write")
        patch = {"spec": {"holderIdentity": "a-person", "leaseDurationSeconds": 3600}}
        change(kubectl, namespace, patch)
        ended = replica.first("end", patience=RETRY + STALL + 1)
        time.sleep(LEASE + 1)
        assert not [at for at in replica.times("begin") if at > ended]
        assert replica.status()["holder"] == "a-person"
        assert lease_of(kubectl, namespace)["spec"]["holderIdentity"] == "a-person"

    def test_namesakes_do_not_lead_together(self, replicas: Replicas) -> None:
        """Two processes with the same identity, by mistake or after a restart, are distinct."""
        first = replicas.start("twin")
        first.first("write")
        second = replicas.start("twin")
        second.first("standing")
        time.sleep(LEASE + 1)
        assert not second.times("begin")
        killed = time.monotonic()
        first.signal(signal.SIGKILL)
        assert second.first("write") - killed < LEASE + 3 + STALL


class TestApiServer:
    """Test an API server that is unavailable for longer than the renew deadline."""

    @pytest.mark.parametrize(
        ("fault", "namespace"), [("frozen", "kube-system"), ("stopped", "kube-public")]
    )
    def test_leader_stops_in_time_and_a_replica_leads_afterwards(
        self, fault: str, namespace: str, tmp_path: Path, plane: ControlPlane
    ) -> None:
        """The work has ended by the renew deadline; no replica acts until the server is back."""
        with closing(Replicas(tmp_path, plane.kubeconfig, namespace)) as replicas:
            leader, follower = replicas.pair()
            down = time.monotonic()
            if fault == "frozen":
                plane.freeze("kube-apiserver")
            else:
                plane.stop_component("kube-apiserver", signal.SIGKILL)
            ended = leader.first("end", after=down)
            measured("stopped", ended - down)
            assert RENEW - RETRY - EARLY < ended - down < RENEW + STALL
            time.sleep(LEASE + 1)
            back = time.monotonic()
            if fault == "frozen":
                plane.thaw("kube-apiserver")
            else:
                plane.start_component("kube-apiserver")
            both = (leader, follower)
            until(lambda: any(r.times("write")[-1:] > [back] for r in both), "a new leader")
            again = min(at for r in both for at in r.times("write") if at > back)
            measured("leads again", again - back)
            assert not [at for r in both for at in r.times("write") if ended < at < back]
            time.sleep(RETRY * 2)
            assert sum(r.status()["leader"] for r in both) == 1


def test_client_go_alternates_with_us(tmp_path: Path, plane: ControlPlane) -> None:
    """The elector of kube-scheduler and ours interpret a Lease in the same way.

    It keeps the annotation that ours has set, which is ignored after its term.
    """
    plane.start_component(SCHEDULER)
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/openfero-gitops"

    def holder() -> str:
        return str(plane.request("GET", path)[1].get("spec", {}).get("holderIdentity", ""))

    until(holder, "kube-scheduler to lead")
    with closing(Replicas(tmp_path, plane.kubeconfig, "default")) as replicas:
        replica = replicas.start("alpha")
        replica.first("standing")
        time.sleep(LEASE + 1)
        assert not replica.times("begin")
        assert replica.status()["holder"] == holder() != "alpha"
        plane.stop_component(SCHEDULER)
        begun = replica.first("begin")
        plane.start_component(SCHEDULER)
        time.sleep(LEASE + 1)
        assert holder() == "alpha"
        assert len(replica.times("begin")) == 1
        began_waiting = time.monotonic()
        replica.signal(signal.SIGTERM)
        until(lambda: holder() not in ("", "alpha"), "kube-scheduler to lead again")
        assert replica.times("end")[0] > began_waiting > begun
        plane.stop_component(SCHEDULER)
        assert keys.SETTLED in plane.request("GET", path)[1]["metadata"]["annotations"]
        again = replicas.start("beta")
        again.first("begin")
        assert not again.entries("begin")[0]["handed_over"]
