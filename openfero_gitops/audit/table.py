"""Remediations for an auditor: a table, JSON, or CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.audit.verify import NOT_CREATED, Proof
from openfero_gitops.domain import keys
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.domain.text import aligned, canonical_json, plural, pretty_json, printable
from openfero_gitops.domain.timestamp import format_seconds, format_time
from openfero_gitops.jobs.managed_fields import annotation_written_at
from openfero_gitops.jobs.observe import find_contradiction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.audit.verify import Verification
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.jobs.compare import FieldDifference

_COMMIT_CHARACTERS: Final = 12
_MAX_CELL_CHARACTERS: Final = 4096
#: First characters that make a spreadsheet read a cell as a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A remediation, its Job, its effect, and the result of verifying it.

    `effect` is None if it has none, and `verification` without `--verify`. `approval_verified` says
    whether the API server checked the approver's name; None if that is not known.
    """

    remediation: Remediation
    job: Mapping[str, Any]
    effect: Assessment | None = None
    verification: Verification | None = None
    approval_verified: bool | None = None

    @property
    def proven(self) -> bool:
        """False if verification found a problem; what is not known is none."""
        proofs = (Proof.VERIFIED, Proof.NOT_KNOWN)
        return self.verification is None or self.verification.proof in proofs

    @property
    def foreign(self) -> str:
        """Why the controller cannot have created the Job; empty if it can have."""
        return find_contradiction(self.job)

    @property
    def approved_at(self) -> datetime | None:
        """When the Job was approved, as far as the API server recorded it; else None."""
        if not self.remediation.approved_by:
            return None
        return annotation_written_at(self.job, keys.APPROVED_BY)

    def annotation(self, key: str) -> str:
        """An annotation of the Job; empty if it is absent."""
        return str((self.job["metadata"].get("annotations") or {}).get(key) or "")


def as_table(entries: Sequence[AuditEntry]) -> str:
    """One line per remediation with its differences below, then a summary."""
    verified = any(entry.verification for entry in entries)
    head = ("RECEIVED", "PHASE", "EFFECT", "ALERT", "OPERARIO", "COMMIT", "JOB", "REASON")
    rows: list[tuple[str, ...]] = [(*head, "PROOF") if verified else head]
    for entry in entries:
        remediation = entry.remediation
        row = (
            format_seconds(remediation.received_at),
            remediation.phase.value,
            entry.effect.effect.value if entry.effect else "-",
            f"{remediation.alertname} ({remediation.status})",
            remediation.operario,
            remediation.commit[:_COMMIT_CHARACTERS],
            str(remediation.key),
            remediation.reason or "-",
        )
        rows.append((*row, entry.verification.proof.value) if entry.verification else row)
    lines = aligned([tuple(_cell(cell) for cell in row) for row in rows])
    table = [lines[0]]
    for entry, line in zip(entries, lines[1:], strict=True):
        table.append(line)
        if entry.verification is not None:
            table += (f"    {_cell(detail)}" for detail in _details(entry.verification))
        elif entry.foreign:
            table.append(f"    {NOT_CREATED}: {entry.foreign}")
    return "\n".join([*(table if entries else ()), summary(entries)])


def _cell(text: str) -> str:
    return printable(text, _MAX_CELL_CHARACTERS)


def _details(verification: Verification) -> Iterator[str]:
    if verification.message:
        yield verification.message
    for difference in verification.differences:
        yield _difference_text(difference)
    for difference in verification.changed:
        yield f"allowed change: {_difference_text(difference)}"


def _difference_text(difference: FieldDifference) -> str:
    actual = _json(difference.after) or "nothing"
    wanted = _json(difference.before) or "nothing"
    return f"{format_pointer(difference.pointer)}: {actual} instead of {wanted}"


def summary(entries: Sequence[AuditEntry]) -> str:
    """How many remediations there are, and how many of each proof."""
    proofs = Counter(entry.verification.proof for entry in entries if entry.verification)
    counts = (f"{proofs[proof]} {proof}" for proof in Proof if proofs[proof])
    return ", ".join([plural(len(entries), "remediation"), *counts])


def as_json(entries: Sequence[AuditEntry], shape: Mapping[int, dict[str, Any]]) -> str:
    """A list `items`; `shape` has the public members of each remediation, by index."""
    return pretty_json({"items": _items(entries, shape)})


def as_json_lines(entries: Sequence[AuditEntry], shape: Mapping[int, dict[str, Any]]) -> str:
    """One line per remediation with the same members, for logs."""
    return "\n".join(map(canonical_json, _items(entries, shape)))


def _items(
    entries: Sequence[AuditEntry], shape: Mapping[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    items = []
    for index, entry in enumerate(entries):
        item = {
            **shape[index],
            "revision": entry.annotation(keys.REVISION) or None,
            "blob": entry.annotation(keys.BLOB) or None,
            "commitAuthor": entry.annotation(keys.COMMIT_AUTHOR) or None,
            "commitTime": entry.annotation(keys.COMMIT_TIME) or None,
            "specDigest": entry.annotation(keys.SPEC_DIGEST) or None,
            "receivedBy": entry.annotation(keys.RECEIVED_BY) or None,
            "admittedBy": entry.annotation(keys.ADMITTED_BY) or None,
            "approvedBy": entry.annotation(keys.APPROVED_BY) or None,
            "approvedAt": _time(entry.approved_at) or None,
            "approvalReason": entry.annotation(keys.APPROVAL_REASON) or None,
            "foreign": entry.foreign or None,
        }
        if verification := entry.verification:
            item["proof"] = verification.proof.value
            item["proofMessage"] = verification.message or None
            item["differences"] = list(map(_difference_members, verification.differences))
            item["changed"] = list(map(_difference_members, verification.changed))
        items.append(item)
    return items


def _difference_members(difference: FieldDifference) -> dict[str, str | None]:
    return {
        "pointer": format_pointer(difference.pointer),
        "wanted": _json(difference.before) or None,
        "found": _json(difference.after) or None,
    }


def _json(value: Any) -> str:
    return "" if value is None else canonical_json(value)


def as_csv(entries: Sequence[AuditEntry]) -> str:
    """One row per remediation, with a heading; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = (
        "receivedAt namespace job phase reason alert status operario repository ref commit path "
        "blob commitAuthor admittedAt admittedBy approvedBy approvedAt approvalVerified "
        "approvalReason finishedAt resolvedAt effect effectAt effectMessage proof proofMessage "
        "foreign"
    )
    writer.writerow(head.split())
    for entry in entries:
        remediation = entry.remediation
        row = (
            format_time(remediation.received_at),
            remediation.key.namespace,
            remediation.key.name,
            remediation.phase.value,
            remediation.reason,
            remediation.alertname,
            remediation.status.value,
            remediation.operario,
            remediation.repository,
            remediation.ref,
            remediation.commit,
            remediation.path,
            entry.annotation(keys.BLOB),
            entry.annotation(keys.COMMIT_AUTHOR),
            _time(remediation.admitted_at),
            entry.annotation(keys.ADMITTED_BY),
            entry.annotation(keys.APPROVED_BY),
            _time(entry.approved_at),
            _known(entry.approval_verified) if remediation.approved_by else "",
            entry.annotation(keys.APPROVAL_REASON),
            _time(remediation.finished_at),
            _time(remediation.resolved_at),
            entry.effect.effect.value if entry.effect else "",
            _time(entry.effect.at) if entry.effect else "",
            entry.effect.message if entry.effect else "",
            entry.verification.proof.value if entry.verification else "",
            entry.verification.message if entry.verification else "",
            entry.foreign,
        )
        writer.writerow(["'" + cell if cell.startswith(_FORMULA) else cell for cell in row])
    return text.getvalue().rstrip("\n")


def _known(value: bool | None) -> str:  # noqa: FBT001 - the value of a cell
    return "" if value is None else str(value).lower()


def _time(value: datetime | None) -> str:
    return format_time(value) if value else ""
