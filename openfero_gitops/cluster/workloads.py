"""Kueue's Workloads, of which only the states are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from openfero_gitops.cluster.api import Resource
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openfero_gitops.cluster.api import ApiServer, Object

_T = TypeVar("_T")

#: Kueue's versions of its API, the newest first; Kueue before 0.15 has only the last one.
_VERSIONS: Final = ("v1beta2", "v1beta1")
#: A URL with so many uids of 36 characters is still accepted by all servers.
_MAX_UIDS_PER_REQUEST: Final = 80
#: Anybody who can create Workloads can give them the label of a Job.
_MAX_WORKLOADS: Final = 400


class WorkloadStore(Generic[_T]):
    """Reads the Workloads of Jobs."""

    def __init__(
        self,
        api: ApiServer,
        read: Callable[[Object], tuple[str, _T] | None],
    ) -> None:
        """Use this API; `read` returns the uid of a Workload's Job, and what is kept of it."""
        self._api = api
        self._read = read
        #: The version that was served last.
        self._version = _VERSIONS[0]

    async def of_jobs(self, namespace: str, uids: Sequence[str]) -> dict[str, _T]:
        """Read the Workloads of these Jobs, by the uid of the Job.

        Raises:
            ApiError: NotFound if the cluster does not have Kueue's API.
        """
        found: dict[str, _T] = {}
        for start in range(0, len(uids), _MAX_UIDS_PER_REQUEST):
            some = uids[start : start + _MAX_UIDS_PER_REQUEST]
            found.update(await self._list(namespace, f"{keys.KUEUE_JOB_UID} in ({','.join(some)})"))
        return {uid: value for uid, value in found.items() if uid in uids}

    async def _list(self, namespace: str, selector: str) -> list[tuple[str, _T]]:
        # Kueue may have been upgraded since, or moved back: the version that it had comes first.
        versions = sorted(_VERSIONS, key=lambda version: version != self._version)
        for version in versions:
            workloads = Resource(
                "kueue.x-k8s.io",
                version,
                "workloads",
                "Workload",
                unread={"metadata": frozenset({"managedFields"}), "spec": None},
            )
            try:
                listed = await self._api.list(
                    workloads,
                    namespace,
                    label_selector=selector,
                    read=self._read,
                    max_objects=_MAX_WORKLOADS,
                )
            except NotFound as error:
                if version != versions[-1]:
                    continue
                raise NotFound(
                    "the API server does not serve workloads.kueue.x-k8s.io: Kueue is not installed"
                ) from error
            self._version = version
            return listed.items
        return []
