"""Remediations as an auditor reads them: a table, JSON, or CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.audit.verify import Proof
from openfero_gitops.domain import keys
from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_seconds, format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openfero_gitops.audit.verify import FieldDifference, Verification
    from openfero_gitops.domain.remediation import Remediation

_COMMIT: Final = 12
_MAX_CELL_CHARACTERS: Final = 4096
#: What a spreadsheet would take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A remediation, its Job, and what could be proven of it; None where that was not asked."""

    remediation: Remediation
    job: Mapping[str, Any]
    verdict: Verification | None = None

    @property
    def proven(self) -> bool:
        """Whether nothing speaks against it."""
        return self.verdict is None or self.verdict.proof is Proof.VERIFIED

    def annotation(self, key: str) -> str:
        """An annotation of the Job, empty where it is absent."""
        return str((self.job["metadata"].get("annotations") or {}).get(key) or "")


def as_table(entries: Sequence[AuditEntry]) -> str:
    """A line for each, differences below it, and a summary."""
    verified = any(entry.verdict for entry in entries)
    head = ("RECEIVED", "PHASE", "ALERT", "OPERARIO", "COMMIT", "JOB", "REASON")
    rows: list[tuple[str, ...]] = [(*head, "PROOF") if verified else head]
    for entry in entries:
        one = entry.remediation
        row = (
            format_seconds(one.received_at),
            one.phase.value,
            f"{one.alertname} ({one.status})",
            one.operario,
            one.commit[:_COMMIT],
            str(one.key),
            one.reason or "-",
        )
        rows.append((*row, entry.verdict.proof.value) if entry.verdict else row)
    rows = [tuple(printable(cell, _MAX_CELL_CHARACTERS) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    table = [lines[0]]
    for entry, line in zip(entries, lines[1:], strict=True):
        table.append(line)
        if entry.verdict is not None:
            table += _explained(entry.verdict)
    return "\n".join([*(table if entries else ()), summary(entries)])


def _explained(verdict: Verification) -> list[str]:
    lines = [f"    {printable(verdict.message, _MAX_CELL_CHARACTERS)}"] if verdict.message else []
    lines += [f"    {printable(str(one), _MAX_CELL_CHARACTERS)}" for one in verdict.differences]
    lines += [
        f"    changed since, as anybody may: {printable(str(one), _MAX_CELL_CHARACTERS)}"
        for one in verdict.changed
    ]
    return lines


def summary(entries: Sequence[AuditEntry]) -> str:
    """How many there are, and how many are proven."""
    count = f"{len(entries)} remediation" + ("" if len(entries) == 1 else "s")
    proofs = Counter(entry.verdict.proof for entry in entries if entry.verdict)
    return ", ".join([count, *(f"{proofs[proof]} {proof}" for proof in Proof if proofs[proof])])


def as_json(entries: Sequence[AuditEntry], shape: Mapping[int, dict[str, Any]]) -> str:
    """A list `items`; `shape` has each remediation's public members by its index."""
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
        }
        if entry.verdict is not None:
            item["proof"] = entry.verdict.proof.value
            item["proofMessage"] = entry.verdict.message or None
            item["differences"] = [_difference(one) for one in entry.verdict.differences]
            item["changed"] = [_difference(one) for one in entry.verdict.changed]
        items.append(item)
    return json.dumps({"items": items}, indent=2, ensure_ascii=False)


def _difference(one: FieldDifference) -> dict[str, str | None]:
    return {"pointer": one.pointer, "wanted": one.wanted or None, "found": one.found or None}


def as_csv(entries: Sequence[AuditEntry]) -> str:
    """One row for each, with a heading; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = (
        "receivedAt namespace job phase reason alert status operario repository ref commit path "
        "blob commitAuthor admittedAt admittedBy approvedBy finishedAt proof proofMessage"
    )
    writer.writerow(head.split())
    for entry in entries:
        one = entry.remediation
        row = (
            format_time(one.received_at),
            one.key.namespace,
            one.key.name,
            one.phase.value,
            one.reason,
            one.alertname,
            one.status.value,
            one.operario,
            one.repository,
            one.ref,
            one.commit,
            one.path,
            entry.annotation(keys.BLOB),
            entry.annotation(keys.COMMIT_AUTHOR),
            format_time(one.admitted_at) if one.admitted_at else "",
            entry.annotation(keys.ADMITTED_BY),
            entry.annotation(keys.APPROVED_BY),
            format_time(one.finished_at) if one.finished_at else "",
            entry.verdict.proof.value if entry.verdict else "",
            entry.verdict.message if entry.verdict else "",
        )
        writer.writerow(["'" + cell if cell.startswith(_FORMULA) else cell for cell in row])
    return text.getvalue().rstrip("\n")
