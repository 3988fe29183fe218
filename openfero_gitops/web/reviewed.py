"""Reads what the repository holds beside the operarios: roles, and golden cases.

Neither is part of the catalog, since no decision depends on it. It is read from Git at the commit
of the catalog, when somebody first asks, and kept until the commit changes.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.golden import find_cases
from openfero_gitops.catalog.rights import (
    Grants,
    account_of,
    includes_secrets,
    read_grants,
    rights_text,
)
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import OpenFeroError
from openfero_gitops.domain.sentence import sentence_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.author.golden import GoldenCase
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.web.ports import ReviewedSource

#: A page does not wait longer; the reading goes on for the next one.
_WAIT_SECONDS: Final = 3.0
_MAX_CASES: Final = 2000
_MAX_ALERT_BYTES: Final = 64 * 1024
_MAX_LABELS: Final = 12
_JOB: Final = b"kind: Job"
_REFUSED: Final = f"{keys.DECISION}: refused".encode()


@dataclass(frozen=True, slots=True)
class ShownCase:
    """A golden case: its folder, the labels of its alert, and how many Jobs it expects.

    `labels` are None if the alert cannot be read, or if there are several. `jobs` is None if no
    expectation is written; `refused` of them are never started, for the reason that they record.
    """

    name: str
    path: str
    labels: Mapping[str, str] | None
    jobs: int | None
    refused: int = 0


@dataclass(frozen=True, slots=True)
class ReviewedFiles:
    """What one commit holds beside the operarios.

    `missing` says why it could not be read; empty if it could.
    """

    grants: Grants = field(default_factory=lambda: Grants({}))
    cases: Mapping[str, tuple[ShownCase, ...]] | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the ServiceAccount of an operario may do, in words; empty if no role is bound to it."""

    account: str
    words: str


def rights_of(operario: Operario, grants: Grants) -> Rights:
    """Put in words what the roles in the repository let an operario's Pods do."""
    rights, _ = grants.of(operario)
    words = sentence_text(rights_text(rights)) if rights else ""
    if rights and includes_secrets(rights):
        words += "; this includes Secrets"
    return Rights(account_of(operario), words)


class ReviewedReader:
    """Reads each commit once, in limited time."""

    def __init__(self, source: ReviewedSource) -> None:
        """Read from a source; nothing is read yet."""
        self._source = source
        self._reading: tuple[str, asyncio.Task[ReviewedFiles]] | None = None

    async def read(self, catalog: Catalog) -> ReviewedFiles:
        """Return what is beside the operarios of a catalog, or why it is not known."""
        commit = catalog.revision.commit
        if not commit:
            return ReviewedFiles(missing="the operarios are not from a commit")
        if self._reading is None or self._reading[0] != commit or _has_failed(self._reading[1]):
            task = asyncio.create_task(self._read(catalog), name="read the reviewed files")
            self._reading = commit, task
        task = self._reading[1]
        done, _ = await asyncio.wait({task}, timeout=_WAIT_SECONDS)
        if not done:
            return ReviewedFiles(missing="it is still being read from Git; load this page again")
        return task.result()

    async def _read(self, catalog: Catalog) -> ReviewedFiles:
        try:
            snapshot = await self._source.snapshot(catalog.revision.commit)
            (grants,) = await asyncio.to_thread(read_grants, snapshot.files)
            tests = await self._source.cases(snapshot)
        except OpenFeroError as error:
            return ReviewedFiles(missing=str(error))
        cases, _ = await asyncio.to_thread(find_cases, tests, catalog)
        return ReviewedFiles(grants, _by_operario(cases[:_MAX_CASES]))


def _has_failed(task: asyncio.Task[ReviewedFiles]) -> bool:
    """Whether a reading is over and has to be repeated."""
    return task.done() and (
        task.cancelled() or task.exception() is not None or bool(task.result().missing)
    )


def _by_operario(cases: list[GoldenCase]) -> dict[str, tuple[ShownCase, ...]]:
    by_operario: dict[str, list[ShownCase]] = defaultdict(list)
    for case in cases:
        by_operario[case.operario].append(
            ShownCase(
                case.name,
                case.path,
                _labels(case.alert.content) if case.alert else None,
                _count(_JOB, case.job.content) if case.job else None,
                _count(_REFUSED, case.job.content) if case.job else 0,
            )
        )
    return {name: tuple(shown) for name, shown in by_operario.items()}


def _labels(content: bytes) -> dict[str, str] | None:
    """The labels of the only alert in a file; None if that cannot be said."""
    if len(content) > _MAX_ALERT_BYTES:
        return None
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    alerts = value.get("alerts", [value]) if isinstance(value, dict) else value
    if not isinstance(alerts, list) or len(alerts) != 1 or not isinstance(alerts[0], dict):
        return None
    labels = alerts[0].get("labels")
    if not isinstance(labels, dict):
        return None
    return {str(name): str(text)[:200] for name, text in list(labels.items())[:_MAX_LABELS]}


def _count(line: bytes, content: bytes) -> int:
    """How often a line is in a golden file, which the command `test --update` writes."""
    return sum(other.strip() == line for other in content.splitlines())
