"""Find the Job that a user names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, NotFound, UsageError
from openfero_gitops.domain.remediation import Foreign, JobKey, Remediation
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer, Object


class NotOurs(UsageError):
    """The Job exists, but the controller did not create it."""


def job_key(job: str, namespace: str) -> JobKey:
    """Parse NAME or NAMESPACE/NAME, with or without kubectl's prefix `job/` or `job.batch/`.

    Raises:
        UsageError: it is neither.
    """
    for prefix in ("job/", "jobs/", "job.batch/"):
        job = job.removeprefix(prefix)
    before, slash, name = job.rpartition("/")
    if not name or (slash and not before) or "/" in before:
        raise UsageError(f"{job!r} does not name a Job: write NAME or NAMESPACE/NAME")
    return JobKey(before or namespace, name)


async def read_job(api: ApiServer, key: JobKey) -> tuple[Remediation, Object]:
    """Read a remediation, and its Job.

    Raises:
        NotOurs: the controller did not create the Job.
        UsageError: the Job does not exist, or RBAC forbids to read it.
        ApiError: the API server did not answer.
    """
    try:
        job = await api.get(JOBS, key.namespace, key.name)
    except NotFound:
        raise UsageError(f"Job {key} not found: write NAMESPACE/NAME, or set --namespace") from None
    except Forbidden as error:
        raise UsageError(
            f"no permission to read Jobs in namespace {key.namespace!r}: {error}"
        ) from error
    if (job["metadata"].get("labels") or {}).get(keys.MANAGED_BY) != keys.MANAGER:
        raise NotOurs(f"Job {key} is not managed by openfero-gitops")
    remediation = observe(job)
    if isinstance(remediation, Foreign):
        raise NotOurs(
            f"Job {key} was not created by openfero-gitops, although it carries the label "
            f"{keys.MANAGED_BY}: {remediation.why}"
        )
    return remediation, job
