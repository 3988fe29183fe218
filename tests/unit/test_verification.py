"""Verification of single Jobs against the repository that the controller follows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openfero_gitops.audit.verify import Proof
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.catalog.mirrorer import no_keys
from openfero_gitops.domain import keys
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.jobs.render import render
from openfero_gitops.verification import JobVerifier
from tests.support import build
from tests.support.build import JOBS_NAMESPACE, NOW, stored
from tests.support.workers import Commits

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Catalog

SCOPE = Scope(JOBS_NAMESPACE, (JOBS_NAMESPACE,), "1.36")
FILE = """
apiVersion: batch/v1
kind: Job
metadata:
  name: heal
  annotations: {{openfero.io/alertname: PodCrashLooping, openfero.io/status: firing}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: heal, image: "registry.example/heal:{version}"}}
"""


class NoRecord:
    """A cluster without the record of active commits."""

    namespace = "openfero"

    async def get(self, name: str) -> None:
        """Find nothing."""


class Repository:
    """Two commits, of which the newer one is active, and a verifier."""

    def __init__(self) -> None:
        self.source = Commits()
        self.older = self.source.commit({"heal.yaml": FILE.format(version="1")})
        self.newer = self.source.commit({"heal.yaml": FILE.format(version="2")})
        self.active: Catalog | None = None
        self.verifier = JobVerifier(
            self.source,
            SCOPE,
            active=lambda: self.active,
            signed=False,
            store=NoRecord(),  # type: ignore[arg-type]
            mirror_keys=no_keys,
            now=lambda: NOW + timedelta(hours=1),
        )

    async def job(self, commit: str) -> dict[str, Any]:
        """Activate the newer commit, and render a Job from a commit."""
        self.active = await self.catalog(self.newer)
        catalog = await self.catalog(commit)
        rendered = render(
            build.alert(),
            catalog.operarios[0],
            catalog.envelope,
            catalog.revision,
            build.delivery(),
            jobs_namespace=JOBS_NAMESPACE,
            replica_labels=REPLICA_LABELS,
        )
        return stored(rendered.manifest)

    async def catalog(self, commit: str) -> Catalog:
        """Return the catalog of a commit."""
        snapshot = await self.source.snapshot(commit)
        return await load_catalog(snapshot, SCOPE, FileMemo("1.36"), self.source.versions)


async def test_job_of_the_active_commit() -> None:
    """It is compared with the active catalog, without reading Git."""
    repository = Repository()
    job = await repository.job(repository.newer)
    repository.source.requests.clear()
    found = await repository.verifier.verify(job)
    assert found.proof is Proof.NOT_KNOWN
    assert "it is not known whether commit" in found.message
    assert repository.source.requests == []


async def test_job_of_an_older_commit() -> None:
    """It is compared with the catalog of its own commit, and a change of the Job is found."""
    repository = Repository()
    job = await repository.job(repository.older)
    assert (await repository.verifier.verify(job)).proof is Proof.NOT_KNOWN
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "registry.example/heal:2"
    job["metadata"]["resourceVersion"] = "8"
    found = await repository.verifier.verify(job)
    assert found.proof is Proof.DIFFERS
    assert [difference.pointer[-1] for difference in found.differences] == ["image"]


async def test_results_are_kept_by_version() -> None:
    """A version of a Job is verified once, as long as the active commit is the same."""
    repository = Repository()
    job = await repository.job(repository.older)
    first = await repository.verifier.verify(job)
    repository.source.requests.clear()
    assert await repository.verifier.verify(job) is first
    assert repository.source.requests == []


async def test_job_of_a_foreign_commit() -> None:
    """A commit that is not in the followed history is not trusted."""
    repository = Repository()
    job = await repository.job(repository.newer)
    job["metadata"]["annotations"][keys.REVISION] = "e" * 40
    found = await repository.verifier.verify(job)
    assert found.proof is Proof.DIFFERS
    assert "is not part of the reviewed history" in found.message


async def test_without_an_active_catalog() -> None:
    """Without an active catalog nothing can be proven."""
    repository = Repository()
    job = await repository.job(repository.newer)
    repository.active = None
    assert (await repository.verifier.verify(job)).proof is Proof.UNPROVABLE
