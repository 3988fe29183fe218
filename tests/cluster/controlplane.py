#!/usr/bin/env python3
"""A real Kubernetes control plane on loopback, without containers or root, for tests.

    python3 tests/cluster/controlplane.py up [--dir .cluster] [--no-kwok]
    python3 tests/cluster/controlplane.py status
    python3 tests/cluster/controlplane.py down

etcd, kube-apiserver, kube-controller-manager and kube-scheduler run as plain
processes; kwok plays one node and its Pods as `stages.yaml` says. They are built
by the script `build` beside this file. Everything a control plane owns lies in its
directory: `kubeconfig`, `pids.json`, `logs/`, `pki/`, `data/`.

`ControlPlane` is the same for tests that want one of their own to break: it stops,
restarts and freezes single components, on ports that stay. Linux and the standard
library only, since `up` has to run with whatever python3 is there.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import functools
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

HERE = Path(__file__).resolve().parent
DEFAULT_DIRECTORY = HERE.parents[1] / ".cluster"
LOOPBACK = "127.0.0.1"
NODE = "kwok-node"
UNLIMITED_MEGABYTES = 1_000_000  # of the audit log, which would be rotated at 100 otherwise
PATIENCE = 300  # seconds until a component that does not answer is given up

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

FOR_CLOUDS = (
    "node-ipam-controller",
    "node-route-controller",
    "service-lb-controller",
    "cloud-node-lifecycle-controller",
)

# Who the components are to the API server: user names as kubeadm gives them, so that
# audit and managedFields read as elsewhere, with every right, which saves the
# per-controller ServiceAccounts at start.
USERS = {
    "admin": "admin",
    "kube-controller-manager": "system:kube-controller-manager",
    "kube-scheduler": "system:kube-scheduler",
    "kwok": "kwok",
}

OPENSSL_CONFIG = f"""\
[req]
distinguished_name = name
prompt = no
[name]
CN = openfero-gitops test cluster
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:{LOOPBACK}, IP:10.0.0.1, DNS:localhost, DNS:kubernetes.default.svc
"""

NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config openssl.cnf"
BY_AUTHORITY = "-CA ca.crt -CAkey ca.key -set_serial 2 -extfile openssl.cnf -extensions server"
OPENSSL_COMMANDS = (
    f"req -x509 {NEW_KEY} -days 3650 -extensions authority -keyout ca.key -out ca.crt",
    f"req {NEW_KEY} -subj /CN=kube-apiserver -keyout server.key -out server.csr",
    f"x509 -req -days 3650 -in server.csr {BY_AUTHORITY} -out server.crt",
    "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out accounts.key",
    "pkey -in accounts.key -pubout -out accounts.pub",
)

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
- name: openfero-test
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {user}
  user:
    token: {token}
contexts:
- name: openfero-test
  context:
    cluster: openfero-test
    user: {user}
current-context: openfero-test
"""


class ControlPlaneError(RuntimeError):
    """A control plane that cannot be built or does not come up; says why in its text."""


@functools.cache
def binaries() -> Path:
    """Return the folder of the built commands, building them first where it is needed.

    The first build takes minutes, with progress on stderr.

    Raises:
        ControlPlaneError: Go is missing, or the build failed.
    """
    built = subprocess.run([HERE / "build"], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        raise ControlPlaneError("tests/cluster/build failed, see above")
    return Path(built.stdout.strip())


WORKERS = 16
#: Browsers refuse to open it (the WHATWG's list of bad ports has no other that can be chosen here).
BAD_PORT = 10_080
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a loopback TCP port that is free now, and stays so across a restart.

    It lies below the range of ephemeral ports: else, while a server is stopped, some
    client on this machine (the one that reconnects to it, even) could get its port. The
    processes of one test run choose among different ports, since seconds may pass until a
    server listens on its.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    end = ephemeral if ephemeral > 30_000 else 65_536
    ports = range(10_000 + worker % WORKERS, end, WORKERS)
    for port in random.sample(ports, 1000):
        if port != BAD_PORT and port not in _handed_out and port_is_free(port):
            _handed_out.add(port)
            return port
    raise ControlPlaneError(f"1000 of the ports {ports.start} to {ports.stop - 1} are taken")


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, indented; of a missing one, that it is missing."""
    if not log.exists():
        return f"    (no {log})"
    kept = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line[:400]}" for line in kept)


def command_of(pid: int) -> list[str]:
    """Return the argv of a process; empty when it is gone, or a zombie."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode(errors="replace").split("\0")[:-1]


def is_frozen(pid: int) -> bool:
    """Tell whether a process is stopped by SIGSTOP; one that is gone is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "T"


class ControlPlane:
    """One control plane in one directory; what runs is recorded there, in `pids.json`.

    Args:
        directory: where it lives; made by `start`, 0700.
        components: which of `COMPONENTS` to run; without it those that were started there,
            or all. An API server for itself is `COMPONENTS[:2]`: half the memory.
        flags: more flags for a component; a flag that is given twice counts as the last.
        programs: other programs than the built ones, by component.
        detached: it outlives this process. Else it ends with it, even with a killed one.
        say: called with a line of progress.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        components: Sequence[str] | None = None,
        flags: Mapping[str, Sequence[str]] | None = None,
        programs: Mapping[str, Path] | None = None,
        detached: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = Path(directory).resolve()
        self.kubeconfig = self.directory / "kubeconfig"
        self.logs = self.directory / "logs"
        self.audit_log = self.logs / "audit.jsonl"
        self._data = self.directory / "data"
        self._pki = self.directory / "pki"
        self._record = self.directory / "pids.json"
        self._flags = dict(flags or {})
        self._programs = dict(programs or {})
        self._detached = detached
        self._say = say
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        recorded = json.loads(self._record.read_text()) if self._record.exists() else {}
        wanted = components or recorded.get("components", COMPONENTS)
        self.components = tuple(name for name in COMPONENTS if name in wanted)
        self._ports: dict[str, int] = recorded.get("ports", {})
        self._processes: dict[str, dict[str, Any]] = recorded.get("processes", {})

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and remove its data."""
        self.stop()
        self.remove()

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{LOOPBACK}:{self._ports['kube-apiserver']}"

    @property
    def etcd_url(self) -> str:
        """Where etcd answers, with all that the API server has stored."""
        return f"http://{LOOPBACK}:{self._ports['etcd']}"

    def start(self) -> None:
        """Start every component and wait until a Job could run; keep the data that is there.

        Raises:
            ControlPlaneError: one of them did not come up, and all of them are ended again;
                or it runs already, or the directory holds something else.
        """
        folder = binaries()
        self._claim_directory()
        self._write_identities()
        if not self._detached:
            self._guard = subprocess.Popen(
                [sys.executable, __file__, "guard", "--dir", self.directory],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            self._start_in_order(folder)
            self._wait_until_settled()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> list[str]:
        """End every recorded process, the last started first; return the names of those ended."""
        ended = [name for name in reversed(COMPONENTS) if self.stop_component(name)]
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
        return ended

    def remove(self) -> None:
        """Remove what `start` made, and the directory if nothing else is there."""
        if not self._record.exists():
            return
        for folder in (self._data, self._pki, self.logs, self.directory / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.kubeconfig, self._record):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    def status(self) -> dict[str, str]:
        """Return what each component does: `runs`, `frozen`, `silent` (no answer) or `down`."""
        return {name: self._state(name) for name in self.components}

    def healthy(self) -> bool:
        """Tell whether everything runs, and a Job would."""
        states = self.status().values()
        return all(state == "runs" for state in states) and self._unsettled() is None

    def start_component(self, name: str) -> None:
        """Start one component again, on the ports it had, and wait until it answers."""
        if not self._alive(name):
            self._spawn(name, binaries())
        self._wait_until_healthy(name)

    def stop_component(
        self, name: str, sent: signal.Signals = signal.SIGTERM, *, patience: float = 10
    ) -> bool:
        """End one component; return whether it was there to be ended.

        A frozen one is ended too. One that ignores SIGTERM is killed after `patience` seconds.
        """
        if not self._alive(name):
            return False
        pid = self._processes[name]["pid"]
        deadline = time.monotonic() + patience
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
            os.kill(pid, signal.SIGCONT)
            while self._alive(name):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)
        del self._processes[name]
        self._children.pop(name, None)
        self._save()
        return True

    def freeze(self, name: str) -> None:
        """Stop one component in its tracks: its connections stay open and nothing answers."""
        self._signal(name, signal.SIGSTOP)
        # A busy machine takes its time to stop every thread of it.
        deadline = time.monotonic() + 10
        while not is_frozen(self._processes[name]["pid"]) and time.monotonic() < deadline:
            time.sleep(0.01)

    def thaw(self, name: str) -> None:
        """Let a frozen component go on."""
        self._signal(name, signal.SIGCONT)

    def request(
        self, method: str, path: str, body: object = None, *, patience: float = 60
    ) -> tuple[int, Any]:
        """Ask the API server as admin; return HTTP status and decoded answer.

        Raises:
            OSError: no answer within `patience` seconds.
            http.client.HTTPException: an answer that is not HTTP.
        """
        token = (self._pki / "admin.token").read_text()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self._ask(
            "kube-apiserver", method, path, body=body, headers=headers, patience=patience
        )

    def _claim_directory(self) -> None:
        """Make the folders, and write the ports down; those of a former start, where still free."""
        if any(map(self._alive, COMPONENTS)):
            raise ControlPlaneError(f"a control plane runs in {self.directory} already")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._record.exists() and any(self.directory.iterdir()):
            raise ControlPlaneError(f"{self.directory} holds something else: name another folder")
        if not self._ports or not all(map(port_is_free, self._ports.values())):
            self._ports = {name: free_port() for name in PORTS}
        self._save()
        for folder in (self._data, self._pki, self.logs):
            folder.mkdir(exist_ok=True)

    def _start_in_order(self, folder: Path) -> None:
        """Start etcd, then the API server, then together those who only ask it."""
        first = [name for name in self.components if name in ("etcd", "kube-apiserver")]
        for name in first:
            self._spawn(name, folder)
            self._wait_until_healthy(name)
        if "kwok" in self.components:
            self._create_node()
        others = [name for name in self.components if name not in first]
        for name in others:
            self._spawn(name, folder)
        for name in others:
            self._wait_until_healthy(name)

    def _signal(self, name: str, sent: signal.Signals) -> None:
        if not self._alive(name):
            raise ControlPlaneError(f"{name} does not run")
        os.kill(self._processes[name]["pid"], sent)

    def _alive(self, name: str) -> bool:
        """Tell whether the recorded process is there and still the command that was started."""
        if name in self._children:
            return self._children[name].poll() is None
        process = self._processes.get(name)
        return process is not None and command_of(process["pid"]) == process["argv"]

    def _state(self, name: str) -> str:
        if not self._alive(name):
            return "down"
        if is_frozen(self._processes[name]["pid"]):
            return "frozen"
        return "runs" if self._answers(name) else "silent"

    def _answers(self, name: str) -> bool:
        if name == "kwok":
            return True  # it serves nothing; that its node is Ready shows that it works
        try:
            if name == "kube-apiserver":
                return self.request("GET", "/readyz", patience=2)[0] == http.HTTPStatus.OK
            path = "/health" if name == "etcd" else "/healthz"
            return self._ask(name, "GET", path)[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def _ask(
        self,
        name: str,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 2,
    ) -> tuple[int, Any]:
        connection: http.client.HTTPConnection
        if name == "etcd":
            connection = http.client.HTTPConnection(LOOPBACK, self._ports[name], timeout=patience)
        else:
            trust = ssl.create_default_context(cafile=self._pki / "ca.crt")
            connection = http.client.HTTPSConnection(
                LOOPBACK, self._ports[name], timeout=patience, context=trust
            )
        with contextlib.closing(connection):
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
        with contextlib.suppress(json.JSONDecodeError):
            return answer.status, json.loads(text)
        return answer.status, text

    def _spawn(self, name: str, folder: Path) -> None:
        program = self._programs.get(name, folder / name)
        argv = [str(program), *self._arguments(name), *self._flags.get(name, ())]
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        self._children[name] = child
        self._processes[name] = {"pid": child.pid, "argv": argv}
        self._save()

    def _wait_until_healthy(self, name: str) -> None:
        started = time.monotonic()
        while not self._answers(name):
            if not self._alive(name):
                raise ControlPlaneError(self._failure(f"{name} ended", name))
            if time.monotonic() - started > PATIENCE:
                raise ControlPlaneError(self._failure(f"{name} does not answer", name))
            time.sleep(0.05)
        self._say(f"{name} runs ({time.monotonic() - started:.1f} s)")

    def _wait_until_settled(self) -> None:
        started = time.monotonic()
        while (lacking := self._unsettled()) is not None:
            kind, name = lacking
            if not self._alive(name):
                raise ControlPlaneError(self._failure(f"{name} ended", name))
            if time.monotonic() - started > PATIENCE:
                raise ControlPlaneError(self._failure(f"there is no {kind}", name))
            time.sleep(0.05)

    def _unsettled(self) -> tuple[str, str] | None:
        """Return what a Job would still lack to run, and the component that owes it."""
        try:
            return self._lacking()
        except (OSError, http.client.HTTPException):
            return "answer", "kube-apiserver"

    def _lacking(self) -> tuple[str, str] | None:
        if "kube-controller-manager" in self.components:
            path = "/api/v1/namespaces/default/serviceaccounts/default"
            if self.request("GET", path)[0] != http.HTTPStatus.OK:
                return "default ServiceAccount", "kube-controller-manager"
        if "kwok" in self.components:
            _, node = self.request("GET", f"/api/v1/nodes/{NODE}")
            conditions = node.get("status", {}).get("conditions", [])
            if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                return "Ready node", "kwok"
            if "kube-controller-manager" in self.components and node["spec"].get("taints"):
                return "node without taints", "kube-controller-manager"
        return None

    def _failure(self, sentence: str, name: str) -> str:
        log = self.logs / f"{name}.log"
        return f"{sentence}; the end of {log}:\n{tail(log)}"

    def _create_node(self) -> None:
        labels = {"type": "kwok", "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
        metadata = {"name": NODE, "labels": labels}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        status, answer = self.request("POST", "/api/v1/nodes", node)
        if status not in (http.HTTPStatus.CREATED, http.HTTPStatus.CONFLICT):
            raise ControlPlaneError(f"the node cannot be created: {answer}")

    def _save(self) -> None:
        """Write pids.json as a whole, so that no reader sees half of it."""
        record = {
            "components": self.components,
            "ports": self._ports,
            "processes": self._processes,
        }
        partial = self._record.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=2) + "\n")
        partial.replace(self._record)

    def _write_identities(self) -> None:
        """Make keys, certificates and tokens once, and a kubeconfig for everyone who needs it."""
        if not (self._pki / "tokens.csv").exists():
            self._make_certificates()
            rows = []
            for name, user in USERS.items():
                token = secrets.token_hex(16)
                write_private(self._pki / f"{name}.token", token)
                rows.append(f'{token},{user},{name},"system:masters"\n')
            write_private(self._pki / "tokens.csv", "".join(rows))
        authority = base64.b64encode((self._pki / "ca.crt").read_bytes()).decode()
        for name in USERS:
            token = (self._pki / f"{name}.token").read_text()
            text = KUBECONFIG.format(server=self.url, authority=authority, user=name, token=token)
            write_private(self._kubeconfig_of(name), text)

    def _make_certificates(self) -> None:
        if shutil.which("openssl") is None:
            raise ControlPlaneError("the certificates are made with openssl: install openssl")
        (self._pki / "openssl.cnf").write_text(OPENSSL_CONFIG)
        for command in OPENSSL_COMMANDS:
            made = subprocess.run(
                ["openssl", *command.split()],
                cwd=self._pki,
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode:
                raise ControlPlaneError(f"openssl {command} failed:\n{made.stderr}")

    def _kubeconfig_of(self, name: str) -> Path:
        return self.kubeconfig if name == "admin" else self._pki / f"{name}.kubeconfig"

    def _arguments(self, name: str) -> list[str]:
        """Return the flags of a component; everything listens on loopback."""
        port = self._ports.get(name)
        pki = self._pki
        served = [
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--tls-cert-file={pki}/server.crt",
            f"--tls-private-key-file={pki}/server.key",
        ]
        client = f"http://{LOOPBACK}:{self._ports['etcd']}"
        peer = f"http://{LOOPBACK}:{self._ports['etcd-peer']}"
        # client-go's own 20 requests a second would make a storm of Jobs crawl.
        asking = [
            f"--kubeconfig={self._kubeconfig_of(name)}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--leader-elect=false",
        ]
        return {
            "etcd": [
                "--name=test",
                f"--data-dir={self._data}/etcd",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=test={peer}",
                "--quota-backend-bytes=8589934592",
                "--log-level=warn",
                "--unsafe-no-fsync",
            ],
            "kube-apiserver": [
                *served,
                f"--advertise-address={LOOPBACK}",
                f"--etcd-servers={client}",
                f"--token-auth-file={pki}/tokens.csv",
                "--authorization-mode=RBAC",
                "--allow-privileged",  # as everywhere: else it refuses what clusters take
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki}/accounts.pub",
                f"--service-account-signing-key-file={pki}/accounts.key",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--endpoint-reconciler-type=none",
                # Every request of a ServiceAccount, and which Role allowed it.
                f"--audit-policy-file={HERE / 'audit-policy.yaml'}",
                f"--audit-log-path={self.audit_log}",
                f"--audit-log-maxsize={UNLIMITED_MEGABYTES}",
                "--max-requests-inflight=3000",
                "--max-mutating-requests-inflight=1500",
                # Otherwise SIGTERM waits a minute for the watches of connected clients.
                "--shutdown-watch-termination-grace-period=1s",
            ],
            "kube-controller-manager": [
                *served,
                *asking,
                # Without a cloud these have nothing to do; without node-lifecycle
                # a node would keep its not-ready taint.
                f"--controllers=*,-{',-'.join(FOR_CLOUDS)}",
                # Without it Pods wait for the ConfigMap kube-root-ca.crt.
                f"--root-ca-file={pki}/ca.crt",
                f"--service-account-private-key-file={pki}/accounts.key",
                "--concurrent-job-syncs=20",
                # A test may freeze the API server for a while; the node stays.
                "--node-monitor-grace-period=5m",
            ],
            "kube-scheduler": [*served, *asking],
            "kwok": [
                f"--kubeconfig={self._kubeconfig_of(name)}",
                f"--config={HERE / 'stages.yaml'}",
            ],
        }[name]


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whatever the umask says."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Let a second `up` or `down` of the same directory wait for the first.

    The lock is on the folder around it, which stays when the directory goes.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def up(directory: Path, components: Sequence[str]) -> int:
    """Bring a control plane up that outlives this process; 0 when it runs."""
    began = time.monotonic()
    plane = ControlPlane(directory, components=components, detached=True, say=print)
    how_to_stop = "make cluster-down"
    if directory != DEFAULT_DIRECTORY:
        how_to_stop = f"python3 {Path(__file__).resolve()} down --dir {directory}"
    where = f"KUBECONFIG={plane.kubeconfig}    stop it with: {how_to_stop}"
    states = plane.status()
    if plane.kubeconfig.exists() and set(states.values()) == {"runs"} and plane.healthy():
        print(f"it runs already: {where}")
        return 0
    if set(states.values()) != {"down"}:
        ill = ", ".join(f"{name} ({state})" for name, state in states.items() if state != "runs")
        print(f"half of it is down, {ill or 'the node is not Ready'}: restarting")
        plane.stop()
    plane.start()
    print(f"up in {time.monotonic() - began:.1f} s: {where}")
    return 0


def down(directory: Path) -> int:
    """End a control plane and remove its data; 0 also when there is none."""
    plane = ControlPlane(directory)
    ended = plane.stop()
    plane.remove()
    print(f"stopped {', '.join(ended)}" if ended else f"nothing runs in {directory}")
    return 0


def status(directory: Path) -> int:
    """Print what each component does; 0 when all of it runs, else 1."""
    plane = ControlPlane(directory)
    states = plane.status()
    for name, state in states.items():
        print(f"{name:<24} {state}")
    if set(states.values()) == {"down"}:
        return 1
    print(f"KUBECONFIG={plane.kubeconfig}")
    return 0 if set(states.values()) == {"runs"} else 1


def guard(directory: Path) -> int:
    """Wait until the process that holds the other end of stdin is gone, then end what it left."""
    sys.stdin.buffer.read()
    ControlPlane(directory).stop()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 it does not run, 2 it cannot."""
    parser = argparse.ArgumentParser(description="A real Kubernetes control plane on loopback.")
    parser.add_argument("command", choices=("up", "down", "status", "guard"))
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIRECTORY, help="where it lives")
    parser.add_argument("--no-kwok", action="store_true", help="up: no node, Pods stay Pending")
    arguments = parser.parse_args(argv)
    directory = arguments.dir.resolve()
    components = [c for c in COMPONENTS if c != "kwok" or not arguments.no_kwok]
    try:
        if arguments.command == "guard":
            return guard(directory)
        if arguments.command == "status":
            return status(directory)
        with one_at_a_time(directory):
            return up(directory, components) if arguments.command == "up" else down(directory)
    except ControlPlaneError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
