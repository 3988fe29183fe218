"""The report of the leader's last sync, a member of the mirror's head.

It is for people who can read the API server, but reach no replica. No decision depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_seconds, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.sync import SyncStatus

_MAX_FILES: Final = 20
_MAX_PATH_CHARACTERS: Final = 400
_MAX_MESSAGE_CHARACTERS: Final = 500
_MAX_COUNT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A file with errors, and the first of them."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The state of the leader's catalog, recorded for people who read it without a replica.

    Attributes:
        error: why the last sync failed; empty if it succeeded.
        failing_since: when the first of the current failures was (UTC).
        operarios: how many the active catalog has.
        quarantined_files: how many files have errors.
        quarantined: the first of these files.
        kubernetes_version: against which files are validated, such as `1.36`; empty if not known.
        jobs_namespace: where Jobs go that name no namespace; empty if not known.
        allowed_namespaces: where the controller may create Jobs; None if not known.
    """

    error: str = ""
    failing_since: datetime | None = None
    operarios: int = 0
    quarantined_files: int = 0
    quarantined: tuple[QuarantinedFile, ...] = ()
    kubernetes_version: str = ""
    jobs_namespace: str = ""
    allowed_namespaces: tuple[str, ...] | None = None


def sync_report(
    status: SyncStatus,
    catalog: Catalog,
    *,
    kubernetes_version: str = "",
    jobs_namespace: str = "",
    allowed_namespaces: tuple[str, ...] | None = None,
) -> SyncReport:
    """Return the report on a catalog that was read from Git, and on what else it depends."""
    first_errors: dict[str, str] = {}
    for problem in sorted(problem for problem in catalog.problems if problem.is_error):
        line = f"line {problem.line}: " if problem.line else ""
        first_errors.setdefault(problem.path, f"{line}{problem.message}")
    return SyncReport(
        error=printable(status.error or "", _MAX_MESSAGE_CHARACTERS),
        failing_since=status.failing_since,
        operarios=len(catalog.operarios),
        quarantined_files=len(first_errors),
        quarantined=tuple(
            QuarantinedFile(
                printable(path, _MAX_PATH_CHARACTERS), printable(message, _MAX_MESSAGE_CHARACTERS)
            )
            for path, message in list(first_errors.items())[:_MAX_FILES]
        ),
        kubernetes_version=kubernetes_version,
        jobs_namespace=jobs_namespace,
        allowed_namespaces=allowed_namespaces,
    )


def report_members(report: SyncReport) -> dict[str, Any]:
    """Write a report as JSON."""
    since = report.failing_since
    return {
        "error": report.error or None,
        "failingSince": format_seconds(since) if since else None,
        "operarios": report.operarios,
        "quarantinedFiles": report.quarantined_files,
        "quarantined": [
            {"path": file.path, "message": file.message} for file in report.quarantined
        ],
        "kubernetesVersion": report.kubernetes_version or None,
        "jobsNamespace": report.jobs_namespace or None,
        "allowedNamespaces": None
        if report.allowed_namespaces is None
        else list(report.allowed_namespaces),
    }


def read_report(members: Mapping[str, Any]) -> SyncReport:
    """Read `report_members`; what is missing or damaged is treated as absent."""
    files, allowed = members.get("quarantined"), members.get("allowedNamespaces")
    quarantined = tuple(
        QuarantinedFile(_text(file, "path"), _text(file, "message"))
        for file in (files if isinstance(files, list) else [])[:_MAX_FILES]
        if isinstance(file, dict)
    )
    return SyncReport(
        error=_text(members, "error"),
        failing_since=parse_time(_text(members, "failingSince")),
        operarios=_count(members, "operarios"),
        quarantined_files=max(_count(members, "quarantinedFiles"), len(quarantined)),
        quarantined=quarantined,
        kubernetes_version=_text(members, "kubernetesVersion"),
        jobs_namespace=_text(members, "jobsNamespace"),
        allowed_namespaces=tuple(text for text in allowed if isinstance(text, str))
        if isinstance(allowed, list)
        else None,
    )


def _text(members: Mapping[str, Any], name: str) -> str:
    text = members.get(name)
    return printable(text, _MAX_MESSAGE_CHARACTERS) if isinstance(text, str) else ""


def _count(members: Mapping[str, Any], name: str) -> int:
    count = members.get(name)
    return min(max(count, 0), _MAX_COUNT) if type(count) is int else 0
