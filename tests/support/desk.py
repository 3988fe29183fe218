"""One replica of the controller at a time, on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.replica import Replica
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

#: Seconds in which a replica must lead.
_PATIENCE = 300.0


class Desk:
    """A repository, and replicas of the controller that lead one after the other."""

    def __init__(
        self,
        folder: Path,
        kubectl: Kubectl,
        controller: Path,
        namespace: str,
        jobs_namespace: str | None = None,
    ) -> None:
        """Start nothing; `controller` is the kubeconfig of the replicas."""
        self.folder = folder
        self.kubectl = kubectl
        self.namespace = jobs_namespace or namespace
        self.repository = Repository(folder / "operarios")
        self.replicas: list[Replica] = []
        self._controller = controller
        self._home = namespace

    def start(self) -> Replica:
        """Start a replica, and wait until it leads."""
        replica = Replica(
            self.folder,
            name=f"replica-{len(self.replicas)}",
            kubeconfig=self._controller,
            roles=False,
            namespace=self._home,
            jobs_namespace=self.namespace,
            repository=self.repository.url,
            development=not self.replicas,
        )
        self.replicas.append(replica)
        replica.process.start()
        replica.wait_for(lambda: replica.leads, _PATIENCE)
        return replica

    @property
    def leader(self) -> Replica:
        """The replica that leads."""
        return self.replicas[-1] if self.replicas else self.start()

    def crash(self) -> None:
        """Crash the leader; `start` starts the next one."""
        self.leader.kill()

    def close(self) -> None:
        """End the replicas."""
        for replica in self.replicas:
            replica.process.end()

    def job(self, name: str) -> dict[str, Any]:
        """Return a Job as kubectl shows it."""
        job: dict[str, Any] = self.kubectl.json("get", "job", name, "-n", self.namespace)
        return job
