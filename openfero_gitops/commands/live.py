"""The cluster of `validate --cluster`: its Job schema, and its verdict on every Job.

Each operario's Job is created with `dryRun=All`, by the code of the leader's dry runs. Nothing is
stored.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.validation.schema import bundle
from openfero_gitops.catalog.validation.schema import schemas as schemas_of
from openfero_gitops.cluster.jobs import JobStore
from openfero_gitops.commands.connection import api_client
from openfero_gitops.domain.errors import NotFound, UsageError
from openfero_gitops.domain.text import listed, plural
from openfero_gitops.dryrun.once import try_catalog
from openfero_gitops.dryrun.trial import problems, trials
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from openfero_gitops.catalog.validation.schema import Schemas
    from openfero_gitops.cluster.client import KubernetesApi
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.problem import Problem

    #: Called with the number of operarios that are finished, and of all.
    Progress = Callable[[int, int], None]

_MAX_NAMESPACES_SHOWN: Final = 5


class LiveCluster:
    """A cluster that validates Jobs."""

    def __init__(
        self,
        api: KubernetesApi,
        schemas: Schemas,
        version: str,
        say: Callable[[str], None],
        progress: Progress,
    ) -> None:
        """Use an open connection.

        Args:
            api: the connection.
            schemas: those that the API server publishes.
            version: of Kubernetes, as the API server reports it.
            say: called with a line about what is asked where.
            progress: called after each operario.
        """
        self.schemas = schemas
        self._api = api
        self._version = version
        self._say = say
        self._progress = progress

    async def judge(self, catalog: Catalog, jobs_namespace: str) -> tuple[Problem, ...]:
        """Create the Job of every enabled operario in a dry run; return what the cluster says.

        Raises:
            ApiError: the API server cannot be reached, or rejects the credentials.
        """
        to_try = trials(catalog, jobs_namespace)
        namespaces = sorted({trial.namespace for trial in to_try})
        where = f"cluster {self._api.description}, Kubernetes {self._version}"
        if not to_try:
            self._say(f"{where}: no dry runs, because there is no valid operario that is enabled")
            return ()
        noun = "namespace" if len(namespaces) == 1 else "namespaces"
        self._say(
            f"{where}: dry runs of {plural(len(to_try), 'operario')} in {noun} "
            f"{listed(namespaces, _MAX_NAMESPACES_SHOWN)}"
        )
        results = await try_catalog(
            JobStore(self._api, namespaces, observe),
            catalog,
            to_try,
            jobs_namespace,
            lambda finished: self._progress(finished, len(to_try)),
        )
        found, _ = problems(results, to_try, catalog, {})
        return found


@contextlib.asynccontextmanager
async def open_cluster(
    kubeconfig: Path | None,
    context: str | None,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda _, __: None,
) -> AsyncIterator[LiveCluster]:
    """Connect to a cluster and read its Job schema.

    Args:
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        context: of that kubeconfig; None means its current one.
        say: called with a line about what is asked where.
        progress: called after each operario that the cluster judged.

    Raises:
        UsageError: no cluster is configured, or its API server publishes no Job schema.
        ApiError: the API server cannot be reached, or refuses.
    """
    async with api_client(kubeconfig, context) as api:
        try:
            document = await api.published_schema("batch", "v1")
            version = await api.version()
            schemas = schemas_of(bundle(document), version)
        except NotFound as error:
            raise UsageError(
                f"{api.server} publishes no schema at /openapi/v3/apis/batch/v1, which needs "
                "Kubernetes 1.24 or later: use --kubernetes-version instead of --cluster"
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UsageError(f"the Job schema of {api.server} cannot be used: {error}") from error
        yield LiveCluster(api, schemas, version, say, progress)
