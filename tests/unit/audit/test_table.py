"""The formats of `audit`."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

from openfero_gitops.audit.table import (
    AuditEntry,
    as_csv,
    as_json,
    as_json_lines,
    as_table,
    summary,
)
from openfero_gitops.audit.verify import Proof, Verification
from openfero_gitops.domain import keys
from openfero_gitops.domain.effect import Effect
from openfero_gitops.effects.assess import Assessment
from openfero_gitops.jobs.compare import FieldDifference
from openfero_gitops.jobs.observe import read_remediation
from tests.support.build import NOW, alert, rendered, stored
from tests.support.paths import ROOT


def entry(verification: Verification | None = None, **labels: str) -> AuditEntry:
    """A remediation of an alert with these labels."""
    received = alert(labels={"alertname": "PodCrashLooping", "pod": "web-1", **labels})
    job = stored(rendered(received).manifest, annotations={keys.ADMITTED_BY: "replica-a"})
    return AuditEntry(read_remediation(job), job, verification=verification)


def test_a_table_has_a_line_for_each_and_a_summary() -> None:
    """Columns are aligned with their headings; PROOF is shown only with --verify."""
    lines = as_table([entry(), entry()]).splitlines()
    head = "RECEIVED PHASE EFFECT ALERT OPERARIO COMMIT JOB REASON"
    assert lines[0].split() == head.split()
    assert lines[1].index("111111111111") == lines[0].index("COMMIT")
    assert lines[-1] == "2 remediations"
    assert as_table([]) == "0 remediations"


def test_differences_stand_below_their_remediation() -> None:
    """Differences are listed below their remediation."""
    difference = FieldDifference(("spec", "x"), "a", None)
    verification = Verification(
        Proof.DIFFERS, "1 field differs", (difference,), (FieldDifference(("y",), None, 2),)
    )
    lines = as_table([entry(verification), entry(Verification(Proof.VERIFIED))]).splitlines()
    assert lines[1].endswith("differs")
    assert lines[2:5] == [
        "    1 field differs",
        '    /spec/x: nothing instead of "a"',
        "    allowed change: /y: 2 instead of nothing",
    ]
    assert lines[-1] == "2 remediations, 1 verified, 1 differs"
    assert not entry(verification).proven
    assert entry().proven


def test_an_alert_cannot_command_a_terminal() -> None:
    """Control characters of labels are escaped, on one line."""
    text = as_table([entry(alertname="A\x1b[2J\nB")])
    assert "A\\x1b[2J\\nB (firing)" in text
    assert len(text.splitlines()) == 3


def test_csv_has_no_formula() -> None:
    """A cell that a spreadsheet would read as a formula is marked as text."""
    text = as_csv([entry(Verification(Proof.UNPROVABLE, "-1"), alertname='=HYPERLINK("x")')])
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["alert"] == '\'=HYPERLINK("x")'
    assert row["proofMessage"] == "'-1"
    assert row["commit"] == "1" * 40
    assert row["admittedBy"] == "replica-a"


def test_json_adds_what_an_auditor_asks_for() -> None:
    """The JSON adds the people, the blob and the proof to a remediation's own members."""
    shape: dict[int, dict[str, Any]] = {0: {"job": "j"}, 1: {"job": "k"}}
    difference = FieldDifference(("spec", "x"), "a", None)
    first, second = json.loads(
        as_json([entry(Verification(Proof.DIFFERS, "m", (difference,))), entry()], shape)
    )["items"]
    assert (first["job"], first["blob"], first["admittedBy"]) == ("j", "2" * 40, "replica-a")
    assert first["differences"] == [{"pointer": "/spec/x", "wanted": '"a"', "found": None}]
    assert (first["proof"], first["proofMessage"], first["approvedBy"]) == ("differs", "m", None)
    assert "proof" not in second


def test_json_lines_have_the_same_members() -> None:
    """For logs: one line for each remediation."""
    shape: dict[int, dict[str, Any]] = {0: {"job": "j"}, 1: {"job": "k\n"}}
    entries = [entry(Verification(Proof.VERIFIED)), entry()]
    lines = as_json_lines(entries, shape).split("\n")
    assert list(map(json.loads, lines)) == json.loads(as_json(entries, shape))["items"]


def test_a_summary_counts_in_words() -> None:
    """The summary uses the singular for one remediation."""
    assert summary([entry()]) == "1 remediation"


def test_a_foreign_job_is_marked_in_every_format() -> None:
    """Without --verify, too: it carries the controller's label, but is none of its Jobs."""
    job = stored(metadata={"name": "forged"})
    forged = AuditEntry(read_remediation(job), job)
    why = "its name does not belong to its recorded alert"

    lines = as_table([entry(), forged]).splitlines()
    assert lines[3] == f"    the controller did not create this Job: {why}"
    assert len(lines) == 5
    first, second = json.loads(as_json([entry(), forged], {0: {}, 1: {}}))["items"]
    assert (first["foreign"], second["foreign"]) == (None, why)
    rows = list(csv.DictReader(io.StringIO(as_csv([entry(), forged]))))
    assert [row["foreign"] for row in rows] == ["", why]


def test_every_format_has_the_effect() -> None:
    """The table its word, CSV also the time and why; nothing if a remediation has none."""
    effect = Assessment(Effect.NOT_HEALED, NOW, "still firing 16m after the Job ended")
    entries = [replace(entry(), effect=effect), entry()]
    lines = as_table(entries).splitlines()
    assert [line.split()[2] for line in lines[:3]] == ["EFFECT", "not-healed", "-"]
    rows = list(csv.DictReader(io.StringIO(as_csv(entries))))
    assert [(row["effect"], row["effectAt"], row["effectMessage"]) for row in rows] == [
        ("not-healed", "2026-11-21T03:04:05.678901Z", "still firing 16m after the Job ended"),
        ("", "", ""),
    ]


def test_what_is_not_known_is_no_finding() -> None:
    """It has a word of its own, and does not count as a problem."""
    unknown = entry(Verification(Proof.NOT_KNOWN, "it is not known whether"))
    assert unknown.proven
    lines = as_table([unknown]).splitlines()
    assert lines[1].endswith("not-known")
    assert lines[2:] == ["    it is not known whether", "1 remediation, 1 not-known"]


def test_the_documentation_has_every_proof_with_its_exit_code() -> None:
    """In the order of the summary."""
    page = (ROOT / "docs/how-to/auditors/prove-a-run.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| .* \| ([01]) \|$", page, re.MULTILINE)
    codes = [str(int(not entry(Verification(proof)).proven)) for proof in Proof]
    assert rows == list(zip(Proof, codes, strict=True))
