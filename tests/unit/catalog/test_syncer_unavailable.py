"""A history that cannot be read for now: the answer is asked for later, not guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.domain.errors import SourceUnavailable
from tests.support import build
from tests.support.workers import Commits, in_virtual_time, operario_file, seconds_so_far

if TYPE_CHECKING:
    from openfero_gitops.domain.sync import SyncStatus

SCOPE = Scope(jobs_namespace=build.JOBS_NAMESPACE, allowed_namespaces=(build.JOBS_NAMESPACE,))


class Unread:
    """Counts nothing."""

    def synced(self, status: SyncStatus) -> None:
        """Ignore a sync."""


class Limited(Commits):
    """A source whose server limits the requests of one operation, from the `allowed`-th on."""

    def __init__(self, operation: str, allowed: int = 0) -> None:
        super().__init__()
        self.operation, self.allowed = operation, allowed
        self.limited = False

    async def _access(self, operation: str) -> None:
        await super()._access(operation)
        if self.limited and operation == self.operation:
            self.allowed -= 1
            if self.allowed < 0:
                raise SourceUnavailable("the server limits requests", retry_after=77)


def syncer_of(source: Commits) -> Syncer:
    """Return a syncer of a source."""
    return Syncer(
        source=source, scope=SCOPE, counts=Unread(), now=lambda: build.NOW, clock=seconds_so_far
    )


@pytest.mark.parametrize("operation", ["ancestors", "snapshot"])
def test_the_history_of_a_refused_commit_is_read_later(operation: str) -> None:
    """The time that the server asks for is kept, and the refusal is reported."""

    @in_virtual_time
    async def run() -> None:
        source = Limited(operation)
        source.commit({"disk.yaml": operario_file("disk")})
        source.commit({"openfero.yaml": "limits: {concurrent: none}\n"})
        source.limited = True
        syncer = syncer_of(source)
        await syncer.sync()
        assert syncer.catalog is None
        assert syncer.status.refused is not None
        assert syncer.block_seconds == 77
        source.limited = False
        await syncer.sync()
        assert syncer.catalog is not None

    run()


@pytest.mark.parametrize("allowed", [0, 1], ids=["continues", "moved back"])
def test_whether_a_branch_was_rewritten_is_asked_again(allowed: int) -> None:
    """A commit is not refused for a history that the server did not send."""

    @in_virtual_time
    async def run() -> None:
        source = Limited("is_ancestor", allowed)
        source.commit({"disk.yaml": operario_file("disk")})
        source.commit({"disk.yaml": operario_file("disk"), "node.yaml": operario_file("node")})
        syncer = syncer_of(source)
        await syncer.sync()
        source.history.pop()
        source.limited = True
        await syncer.sync()
        assert syncer.status.refused is None
        assert syncer.block_seconds == 77

    run()
