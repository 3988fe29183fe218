#!/usr/bin/env python3
"""A real node for tests: kubelet, containerd and kube-proxy, with a control plane of its own.

    python3 tests/cluster/node.py [--dir .node] up
    python3 tests/cluster/node.py [--dir .node] run COMMAND...
    python3 tests/cluster/node.py [--dir .node] down

Everything runs in network, mount and PID namespaces of its own, so it meets no port, firewall
rule or mount of the machine. Its first process ends everything: SIGKILL to it ends containers too.
Needs root, and the programs in `PROGRAMS`. Linux and the standard library only.

Pods have addresses and reach Services and the node. Nothing enforces NetworkPolicies, and no image
is ever pulled: there is `TOOLS_IMAGE`, and `import_images` brings others. Pods ask the node for
names; `tests.support.names` answers.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
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

from tests.cluster.cgroups import enable_controllers, remove_groups
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
from tests.support.tools_image import static_busybox, write_tools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

HERE = Path(__file__).resolve().parent
DEFAULT_DIRECTORY = HERE.parents[1] / ".node"
NODE = "node"
ADDRESS = "172.30.0.1"
PODS = "10.244.0.0/24"
#: Busybox and kubectl. The sandbox of each Pod is a container of it, too.
TOOLS_IMAGE = "localhost/tools:1"
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
#: The node has folders of its own there, which hide those of the machine.
_HIDDEN = ("/run", "/var/lib", "/var/log")
_SOCKET = "/run/containerd/containerd.sock"
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def lacking() -> str:
    """Return how to get what this machine lacks for a node; empty: nothing."""
    if os.geteuid() != 0:
        return "run as root"
    packages = {package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if not (CNI_PLUGINS / "ptp").exists():
        packages.add("containernetworking-plugins")
    if static_busybox() is None:
        packages.add("busybox-static")
    if packages:
        return f"apt-get install {' '.join(sorted(packages))}"
    return lacking_privileges()


def lacking_privileges() -> str:
    """Return how root gets what it lacks for namespaces and mounts; empty: nothing."""
    tried = ["unshare", "--mount", "--net", "--pid", "--fork", "true"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        return "run in a privileged container (docker run --privileged), or on a machine"
    return ""


class Node:
    """A node and its control plane in one directory.

    As a context manager it starts, ends and removes everything.

    Args:
        directory: where everything lies: `kubeconfig`, `logs/`, the images. On a disk: a tmpfs
            keeps every image, and each container's copy of it, in memory.
        detached: it outlives this process. Otherwise it ends with it, even if that is killed.
    """

    def __init__(self, directory: Path | str, *, detached: bool = False) -> None:
        self.directory = Path(directory).resolve()
        self.kubeconfig = self.directory / "plane" / "kubeconfig"
        self.logs = self.directory / "logs"
        self._first = self.directory / "first.pid"
        self._claim = self.directory / "node"  # in each folder that may be deleted
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
        for path, hidden in itertools.product((self.directory, HERE, binaries()), _HIDDEN):
            if path.is_relative_to(hidden):
                raise ControlPlaneError(f"{path} is not seen by a node: it has its own {hidden}")
        self._remove()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._claim.touch()
        self.logs.mkdir()
        enable_controllers()
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
            self._import_tools()
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
        remove_groups()
        self._remove()

    def _remove(self) -> None:
        """Remove the directory.

        Raises:
            ControlPlaneError: it holds something else than a node.
        """
        if not self.directory.exists():
            return
        if not self._claim.exists() and any(self.directory.iterdir()):
            raise ControlPlaneError(f"{self.directory} holds something else: name another folder")
        # The claim goes last: what an interrupted removal leaves can be removed later.
        for entry in self.directory.iterdir():
            if entry != self._claim and entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
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

    def tag_image(self, name: str, other: str) -> None:
        """Give an image another name, too.

        Raises:
            ControlPlaneError: there is no such image.
        """
        command = self.command("ctr", "-a", _SOCKET, "-n", "k8s.io", "images", "tag", name, other)
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if ran.returncode:
            raise ControlPlaneError(f"{name} has no other name: {ran.stderr.strip()}")

    def _import_tools(self) -> None:
        """Import the image without which no Pod starts."""
        busybox = static_busybox()
        assert busybox is not None
        archive = self.directory / "tools.tar"
        write_tools(archive, busybox, binaries() / "kubectl", [TOOLS_IMAGE])
        self.import_images(archive)
        archive.unlink()

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
    """What the first process of the namespaces does.

    Args:
        directory: that of the node.
        detached: it goes on when the process that started it is gone.
    """

    def __init__(self, directory: Path, *, detached: bool) -> None:
        self.directory = directory
        self._watched = [] if detached else [sys.stdin]
        self._deadline = time.monotonic() + PATIENCE
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

    def wait(self) -> None:
        """Adopt orphans, and return when the process that started this one is gone."""
        (self.directory / "ready").touch()
        while not self._is_left(0.5):
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass

    def _mount(self) -> None:
        """Give the parts folders of their own where their paths cannot be configured."""
        _run("mount", "--make-rshared", "/")
        for folder in _HIDDEN:
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
  sandbox_image = "{TOOLS_IMAGE}"
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
        """Wait a moment for a program that still has to run.

        Raises:
            ControlPlaneError: it has ended, it takes too long, or nobody waits for it.
        """
        if self._programs[name].poll() is not None:
            log = self.directory / "logs" / f"{name}.log"
            raise ControlPlaneError(f"{name} ended; the end of {log}:\n{tail(log)}")
        if self._is_left(0.1):
            raise ControlPlaneError("the process that started this node is gone")
        if time.monotonic() > self._deadline:
            raise ControlPlaneError(f"not ready within {PATIENCE} s: {name}")

    def _is_left(self, seconds: float) -> bool:
        """Wait a moment; return whether the process that started this one is gone."""
        return bool(select.select(self._watched, [], [], seconds)[0])

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
    parts = _Inside(directory, detached=detached)
    parts.start()
    parts.wait()
    return 0


def up(directory: Path) -> int:
    """Start a node that outlives this process."""
    node = Node(directory, detached=True)
    if not node.pid:
        node.start()
    command = f"{__file__} --dir {directory}"
    print(f"it runs: {command} run kubectl get nodes")
    print(f"images: {TOOLS_IMAGE}, and what {command} import ARCHIVE brings (of make image)")
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
