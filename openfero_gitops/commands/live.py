"""What `validate` asks of a cluster: how it describes a Job itself.

The only part of an author's commands that needs a Kubernetes client, and so a module of its own.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from openfero_gitops.catalog.validation.schema import bundle, schemas
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain.errors import NotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.catalog.validation.schema import Schemas


async def schemas_of_cluster(kubeconfig: Path | None, context: str | None) -> Schemas:
    """Read the schemas of the API server that a kubeconfig names.

    Args:
        kubeconfig: None looks at `$KUBECONFIG` and `~/.kube/config`.
        context: of that kubeconfig; None is its current one.

    Raises:
        UsageError: no cluster is configured, or it is none that describes its Jobs.
        ApiError: it cannot be reached, or refuses.
    """
    api = await KubernetesApi.connect(kubeconfig, context)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        try:
            return schemas(bundle(await api.published_schema("batch", "v1")))
        except NotFound as error:
            raise UsageError(
                f"{api.server} does not describe its Jobs at /openapi/v3/apis/batch/v1: is it "
                "Kubernetes 1.24 or later? Leave out --cluster, and name --kubernetes-version"
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UsageError(
                f"{api.server} describes no Job as Kubernetes does: {error}"
            ) from error
