"""SARIF 2.1.0 for code scanning.

Paths are relative to the root of the repository. The fingerprint of a result contains its JSON
pointer and not its line, so that it stays the same when lines are added above.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from openfero_gitops import __version__
from openfero_gitops.author.report.findings import advice
from openfero_gitops.domain.cluster_rule import CLUSTER_RULES
from openfero_gitops.domain.rule import RULES
from openfero_gitops.domain.text import pretty_json

if TYPE_CHECKING:
    from openfero_gitops.author.report.findings import Findings
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.rule import Rule

SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_ROOT: Final = "%SRCROOT%"
_FINGERPRINT: Final = "openferoProblem/v1"


def sarif(findings: Findings) -> str:
    """One run with all rules, and a result for each problem.

    Rules that only a cluster can find violated are listed if a problem has one.
    """
    by_id = {**CLUSTER_RULES, **RULES}
    rules = sorted(RULES.keys() | {problem.rule for problem in findings.problems})
    index = {name: number for number, name in enumerate(rules)}
    seen: Counter[str] = Counter()
    run = {
        "tool": {
            "driver": {
                "name": "openfero-gitops",
                "version": __version__,
                "rules": [_rule(by_id[name]) for name in rules],
            }
        },
        "automationDetails": {"id": "openfero-gitops/validate/"},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The root of the repository."}}},
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {"level": "error", "message": {"text": findings.complaint}}
                ]
                if findings.complaint
                else [],
            }
        ],
        "results": [
            _result(problem, index[problem.rule], findings, seen) for problem in findings.problems
        ],
    }
    return pretty_json({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.id.split("-")),
        "shortDescription": {"text": rule.text},
        "fullDescription": {"text": f"{rule.text} {rule.why}"},
        "help": {
            "text": f"{rule.text} {rule.why}",
            "markdown": f"**{rule.text}**\n\n{rule.why}\n\n"
            f"{_documentation(rule)} of openfero-gitops.",
        },
        "defaultConfiguration": {"level": rule.severity.value},
        "properties": {
            "precision": "very-high",
            "problem.severity": rule.severity.value,
            "tags": ["kubernetes", "openfero"],
        },
    }


def _documentation(rule: Rule) -> str:
    if rule.id in CLUSTER_RULES:
        return "See `docs/reference/dry-run.md`"
    return f"A bad and a good example: `docs/reference/rules.md#{rule.id}`"


def _result(problem: Problem, index: int, findings: Findings, seen: Counter[str]) -> dict[str, Any]:
    place: dict[str, Any] = {
        "artifactLocation": {"uri": quote(problem.path, safe="/~"), "uriBaseId": _ROOT}
    }
    if problem.line:
        place["region"] = {"startLine": problem.line, "startColumn": problem.column}
    location: dict[str, Any] = {"physicalLocation": place}
    if problem.pointer:
        location["logicalLocations"] = [{"fullyQualifiedName": problem.pointer, "kind": "value"}]
    identity = f"{problem.path}\n{problem.pointer}\n{problem.rule}"
    seen[identity] += 1
    digest = hashlib.sha256(f"{identity}\n{seen[identity]}".encode()).hexdigest()
    return {
        "ruleId": problem.rule,
        "ruleIndex": index,
        "level": "error" if findings.fails(problem) else "warning",
        "message": {"text": advice(problem)},
        "locations": [location],
        "partialFingerprints": {_FINGERPRINT: digest[:32]},
    }
