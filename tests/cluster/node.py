#!/usr/bin/env python3
"""A real node for tests: kubelet, containerd and kube-proxy, with a control plane of its own.

    python3 tests/cluster/node.py [--dir .node] up
    python3 tests/cluster/node.py [--dir .node] run COMMAND...
    python3 tests/cluster/node.py [--dir .node] down

Everything runs in network, mount and PID namespaces of its own, so it meets no port, firewall
rule or mount of the machine. Its first process ends everything: SIGKILL to it ends containers too.
Needs root, and the programs in `PROGRAMS`. Linux and the standard library only.

Pods have addresses and reach Services and the node. Nothing enforces NetworkPolicies, and no image
is ever pulled: `import_images` brings them. Pods ask the node for names; `tests.support.names`
answers.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.cluster.controlplane import (
    COMPONENTS,
    LOOPBACK,
    PATIENCE,
    ControlPlane,
    ControlPlaneError,
    binaries,
    free_port,
    tail,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / ".node"
NODE = "node"
ADDRESS = "172.30.0.1"
PODS = "10.244.0.0/24"
SANDBOX_IMAGE = "localhost/pause:1"
CNI_PLUGINS = Path("/usr/lib/cni")
#: Each program, and the Debian package that has it.
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
_SOCKET = "/run/containerd/containerd.sock"
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def lacking() -> str:
    """Return how to get what this machine lacks for a node; empty: nothing."""
    if os.geteuid() != 0:
        return "run as root"
    packages = {package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if not (CNI_PLUGINS / "ptp").exists():
        packages.add("containernetworking-plugins")
    return f"apt-get install {' '.join(sorted(packages))}" if packages else ""


class Node:
    """A node and its control plane in one directory.

    As a context manager it starts, ends and removes everything.

    Args:
        directory: where everything lies: `kubeconfig`, `logs/`, the images. Not on tmpfs.
        detached: it outlives this process. Otherwise it ends with it, even if that is killed.
    """

    def __init__(self, directory: Path | str, *, detached: bool = False) -> None:
        self.directory = Path(directory).resolve()
        self.kubeconfig = self.directory / "plane" / "kubeconfig"
        self.logs = self.directory / "logs"
        self._first = self.directory / "first.pid"
        self._detached = detached
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and remove its data."""
        self.stop()

    @property
    def pid(self) -> int:
        """The first process of the namespaces, as this process sees it; 0: nothing runs."""
        try:
            pid = int(self._first.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if str(self.directory).encode() in command else 0

    def start(self) -> None:
        """Start everything and wait until the node is ready.

        Raises:
            ControlPlaneError: something is missing, or does not start.
        """
        if need := lacking():
            raise ControlPlaneError(f"a node cannot run here: {need}")
        if self.pid:
            raise ControlPlaneError(f"a node runs in {self.directory} already")
        binaries()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.logs.mkdir(parents=True)
        inside = [sys.executable, __file__, "--dir", self.directory]
        inside.append("inside-detached" if self._detached else "inside")
        separate = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        log = self.logs / "node.log"
        with log.open("wb") as output:
            self._keeper = subprocess.Popen(
                ["unshare", *separate, *map(str, inside)],
                stdin=subprocess.DEVNULL if self._detached else subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything and remove its data; nothing to end is fine."""
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)
        if self._keeper is not None:
            if self._keeper.stdin is not None:
                self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper = None
        while self.pid:
            time.sleep(0.05)
        # Groups of containers that were killed: those that are empty can be removed.
        for hierarchy in Path("/sys/fs/cgroup").glob("*/k8s.io"):
            for group in sorted(hierarchy.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    group.rmdir()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Let this thread, and the processes and threads that it starts, use the node's network."""
        with (
            Path("/proc/thread-self/ns/net").open() as own,
            Path(f"/proc/{self.pid}/ns/net").open() as entered,
        ):
            _enter_network(entered.fileno())
            try:
                yield
            finally:
                _enter_network(own.fileno())

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line that runs a command in all namespaces of the node.

        Raises:
            ControlPlaneError: nothing runs.
        """
        if not self.pid:
            raise ControlPlaneError(f"no node runs in {self.directory}: run make node")
        entering = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--"]
        return [*entering, *map(str, words)]

    def import_images(self, archive: Path) -> None:
        """Import the images of an archive, as `docker save` or `buildah push` writes it.

        Raises:
            ControlPlaneError: containerd refuses it.
        """
        options = [f"--snapshotter={_snapshotter(self.directory)}", archive]
        command = self.command("ctr", "-a", _SOCKET, "-n", "k8s.io", "images", "import", *options)
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if ran.returncode:
            raise ControlPlaneError(f"{archive} was not imported: {ran.stderr.strip()}")

    def _wait_until_ready(self, log: Path) -> None:
        """Wait for what the first process writes when the node is ready."""
        assert self._keeper is not None
        deadline = time.monotonic() + PATIENCE
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children")
        while not (self.directory / "ready").exists():
            if self._keeper.poll() is not None:
                raise ControlPlaneError(f"the node ended; the end of {log}:\n{tail(log)}")
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"the node is not ready; the end of {log}:\n{tail(log)}")
            if not self._first.exists() and (pid := children.read_text().strip()):
                self._first.write_text(pid)
            time.sleep(0.05)


class _Inside:
    """What the first process of the namespaces does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._binaries = binaries()
        self._kubeconfig = directory / "plane" / "kubeconfig"
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all parts, and wait until the node is ready."""
        self._mount()
        self._connect()
        plane = ControlPlane(
            self._kubeconfig.parent,
            components=[name for name in COMPONENTS if name != "kwok"],
            flags={
                "kube-apiserver": [
                    "--bind-address=0.0.0.0",
                    f"--advertise-address={ADDRESS}",
                    # Pods reach it through the Service `kubernetes`.
                    "--endpoint-reconciler-type=lease",
                    # For logs and exec: nothing resolves the node's name.
                    "--kubelet-preferred-address-types=InternalIP",
                ]
            },
            detached=True,  # it ends with this process, as everything here
        )
        plane.start()
        self._start("containerd", f"--config={self._write_containerd()}")
        while not Path(_SOCKET).exists():
            self._check("containerd")
        self._start(
            "kubelet",
            f"--config={self._write_kubelet()}",
            f"--kubeconfig={self._kubeconfig}",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
            f"--cert-dir={self.directory}/kubelet/pki",
        )
        self._start(
            "kube-proxy",
            f"--kubeconfig={self._kubeconfig}",
            f"--hostname-override={NODE}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
            f"--bind-address={ADDRESS}",
            "--conntrack-max-per-core=0",
            f"--healthz-bind-address={LOOPBACK}:{free_port()}",
            f"--metrics-bind-address={LOOPBACK}:{free_port()}",
        )
        while not self._is_ready(plane):
            self._check("kubelet")
            self._check("kube-proxy")

    def wait(self, *, detached: bool) -> None:
        """Adopt orphans, and return when the process that started this one is gone."""
        (self.directory / "ready").touch()
        while True:
            watched = [] if detached else [sys.stdin]
            if select.select(watched, [], [], 0.5)[0]:
                return
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass

    def _mount(self) -> None:
        """Give the parts folders of their own where their paths cannot be configured."""
        _run("mount", "--make-rshared", "/")
        for folder in ("/run", "/var/lib", "/var/log"):
            _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        kubelet = Path("/var/lib/kubelet")
        for folder in (kubelet, self.directory / "kubelet"):
            Path(folder).mkdir()
        # Volumes lie on the disk. The path of the sockets stays short.
        _run("mount", "--bind", str(self.directory / "kubelet"), str(kubelet))
        _run("mount", "--make-rshared", str(kubelet))

    def _connect(self) -> None:
        """Give the node an address, and a default route, for which kubelet and kube-proxy look."""
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "node0", "type", "bridge")
        _run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node0")
        _run("ip", "link", "set", "node0", "up")
        _run("ip", "route", "add", "default", "dev", "node0")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _write_containerd(self) -> Path:
        """Write containerd's configuration, and that of the Pods' network."""
        network = {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": PODS}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": "/run/cni",
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        folder = self.directory / "cni"
        folder.mkdir()
        (folder / "pods.conflist").write_text(json.dumps(network))
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        path = self.directory / "containerd.toml"
        path.write_text(
            f"""\
version = 2
root = "{self.directory}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{_SOCKET}"
[{cri}]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
[{cri}.cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{folder}"
[{cri}.containerd]
  snapshotter = "{_snapshotter(self.directory)}"
  default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
        )
        return path

    def _write_kubelet(self) -> Path:
        """Write the kubelet's configuration."""
        resolve = self.directory / "resolv.conf"
        resolve.touch()
        configuration: dict[str, Any] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": free_port(),
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{_SOCKET}",
            # Without systemd, and with either version of cgroups.
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolve),
            "podLogsDir": str(self.directory / "pods"),
            # The disk is the machine's: nothing here may be evicted for what others store.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi"},
        }
        path = self.directory / "kubelet.json"
        path.write_text(json.dumps(configuration))
        return path

    def _start(self, name: str, *arguments: str) -> None:
        program = self._binaries / name
        environment = os.environ | {"PATH": f"{self._binaries}:{os.environ['PATH']}"}
        with (self.directory / "logs" / f"{name}.log").open("wb") as log:
            self._programs[name] = subprocess.Popen(
                [str(program) if program.exists() else name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
            )

    def _check(self, name: str) -> None:
        """Wait a moment for a program that still has to run."""
        if self._programs[name].poll() is not None:
            log = self.directory / "logs" / f"{name}.log"
            raise ControlPlaneError(f"{name} ended; the end of {log}:\n{tail(log)}")
        time.sleep(0.1)

    @staticmethod
    def _is_ready(plane: ControlPlane) -> bool:
        status, node = plane.request("GET", f"/api/v1/nodes/{NODE}")
        if status != 200 or node["spec"].get("taints"):
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ControlPlaneError(f"{' '.join(command)}: {ran.stderr.strip()}")


def _enter_network(descriptor: int) -> None:
    """Let this thread use another network namespace (`os.setns` is new in Python 3.12)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _NEW_NETWORK):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _snapshotter(directory: Path) -> str:
    """Return the snapshotter that works in a folder: an overlay cannot lie on an overlay."""
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", directory],
        capture_output=True,
        text=True,
        check=True,
    )
    return "native" if kind.stdout.strip() in ("overlayfs", "tmpfs") else "overlayfs"


def inside(directory: Path, *, detached: bool) -> int:
    """Be the first process of the namespaces."""
    parts = _Inside(directory)
    parts.start()
    parts.wait(detached=detached)
    return 0


def up(directory: Path) -> int:
    """Start a node that outlives this process."""
    node = Node(directory, detached=True)
    if not node.pid:
        node.start()
    print(f"it runs: {__file__} --dir {directory} run kubectl get nodes")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 2 it cannot, or that of `run`'s command."""
    parser = argparse.ArgumentParser(description="A real node in namespaces of its own.")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIRECTORY, help="where it lies")
    actions = ("up", "down", "run", "import", "inside", "inside-detached")
    parser.add_argument("action", choices=actions, help="the last two are used by `up`")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="run: a command; import: archives")
    arguments = parser.parse_args(argv)
    directory = arguments.dir.resolve()
    node = Node(directory)
    try:
        if arguments.action.startswith("inside"):
            return inside(directory, detached=arguments.action == "inside-detached")
        if arguments.action == "up":
            return up(directory)
        if arguments.action == "down":
            node.stop()
        elif arguments.action == "import":
            for archive in arguments.words:
                node.import_images(Path(archive).resolve())
        else:
            path = f"{binaries()}:{os.environ['PATH']}"
            environment = os.environ | {"KUBECONFIG": str(node.kubeconfig), "PATH": path}
            command = node.command(*arguments.words)
            return subprocess.run(command, env=environment, check=False).returncode
    except ControlPlaneError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
