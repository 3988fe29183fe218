from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from openfero_gitops.author.golden import CaseReport, run_cases
from openfero_gitops.author.report.cases import as_junit, as_text
from openfero_gitops.author.report.findings import EMPTY
from openfero_gitops.domain.catalog import Snapshot, SourceFile
from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.operario import Options
from tests.support.build import COMMIT, REVISION, catalog, job_spec, operario

if TYPE_CHECKING:
    from openfero_gitops.domain.operario import Operario

ALERT = json.dumps(
    {
        "status": "firing",
        "labels": {"alertname": "PodCrashLooping", "pod": "web-1"},
        "startsAt": "2026-11-21T03:04:05Z",
    }
)
CASE = "tests/restart-pod/crash"


def run_on(files: dict[str, str | bytes], *operarios: Operario) -> CaseReport:
    """Run cases, given by path, on a catalog with `restart-pod` by default."""
    sources = tuple(
        SourceFile(path, "", text.encode() if isinstance(text, str) else text, COMMIT)
        for path, text in sorted(files.items())
    )
    snapshot = Snapshot(REVISION, "tests", sources)
    return run_cases(snapshot, catalog(*(operarios or (operario(),))), jobs_namespace="jobs")


def golden(*operarios: Operario, alert: str = ALERT) -> str:
    """Return what `--update` writes for an alert."""
    [result] = run_on({f"{CASE}/alert.json": alert}, *operarios).results
    assert result.created is not None
    return result.created


def test_a_case_that_holds_what_would_be_created_passes() -> None:
    """What `--update` writes passes the next time."""
    report = run_on({f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": golden()})

    assert report.passed
    assert as_text(report) == "1 case: 1 passed, 0 failed"


def test_what_comes_from_commit_or_clock_is_a_name() -> None:
    """Provenance is replaced by `<name>`; what a Job does is written out."""
    [job] = yaml.safe_load_all(golden())
    annotations = job["metadata"]["annotations"]

    for name in ("commit", "path", "blob", "repository", "received-at", "received-by"):
        assert annotations[f"openfero.io/{name}"] == f"<{name}>"
    assert annotations["openfero.io/operarius"] == "restart-pod"
    environment = {
        variable["name"]: variable["value"]
        for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert environment["OPENFERO_COMMIT"] == "<commit>"
    assert environment["OPENFERO_POD"] == "web-1"
    assert COMMIT not in golden()


def test_moving_a_file_changes_no_golden() -> None:
    """A change of path, commit or author changes no case."""
    before = operario()
    moved = replace(
        before, origin=replace(before.origin, path="elsewhere.yaml", commit="3" * 40, blob="4" * 40)
    )

    assert run_on({f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": golden(before)}, moved).passed


def test_provenance_that_a_newer_version_writes_is_not_compared() -> None:
    """A case of an older release, with fewer annotations of provenance, still passes."""
    [job] = yaml.safe_load_all(golden())
    del job["metadata"]["annotations"]["openfero.io/received-by"]
    older = yaml.safe_dump(job)

    assert run_on({f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": older}).passed


def test_an_alert_without_a_start_has_no_name_of_its_own() -> None:
    """Without startsAt, each delivery is another occurrence, which the case replaces by a name."""
    payload = json.dumps({"status": "firing", "labels": {"alertname": "PodCrashLooping"}})
    [job] = yaml.safe_load_all(golden(alert=payload))

    assert job["metadata"]["name"] == "podcrashlooping-firing-<occurrence>"
    assert job["metadata"]["labels"]["openfero.io/occurrence"] == "<occurrence>"


def test_a_difference_is_shown_line_by_line() -> None:
    """The difference from job.yaml is a unified diff."""
    changed = operario(spec=job_spec(image="registry.example/heal:2"))
    report = run_on({f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": golden()}, changed)
    text = as_text(report)

    assert not report.passed
    assert "FAILED restart-pod/crash" in text
    assert f"  --- {CASE}/job.yaml\n  +++ what would be created\n" in text
    assert "-        image: registry.example/heal:1\n" in text
    assert "+        image: registry.example/heal:2\n" in text
    assert text.endswith("1 case: 0 passed, 1 failed")


def test_order_comments_and_layout_do_not_count() -> None:
    """The order of keys in job.yaml is not compared."""
    [job] = yaml.safe_load_all(golden())
    written = "# by hand\n" + yaml.safe_dump(job, sort_keys=True, default_flow_style=True)

    assert run_on({f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": written}).passed


@pytest.mark.parametrize("empty", ["", "# nothing\n", "---\n"])
def test_an_empty_golden_allows_no_job(empty: str) -> None:
    """An empty job.yaml passes where no Job is created, and fails where one is."""
    files = {f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": empty}
    shop = Matcher("namespace", Operator.EQUAL, "shop")

    assert run_on(files, operario(options=Options(matchers=(shop,)))).passed
    assert "+kind: Job" in as_text(run_on(files))


def test_truth_is_not_one() -> None:
    """Values that are equal in Python but not in Kubernetes are different."""
    changed_operario = operario(spec=job_spec(stdin=True))
    wrong = golden(changed_operario).replace("stdin: true", "stdin: 1")

    assert not run_on(
        {f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": wrong}, changed_operario
    ).passed


def test_a_group_of_alerts_has_a_job_each() -> None:
    """Each alert of a payload creates a Job; the same alert twice creates one."""
    alerts = [
        {"labels": {"alertname": "PodCrashLooping", "pod": pod}, "startsAt": "2026-11-21T03:04:05Z"}
        for pod in ("web-1", "web-2", "web-1")
    ]
    payload = json.dumps({"status": "firing", "alerts": alerts})

    assert len(list(yaml.safe_load_all(golden(alert=payload)))) == 2


@pytest.mark.parametrize(
    ("alert", "place", "message"),
    [
        ('{\n  "status": "firing",\n  "labels": {"a" 1}\n}', (3, 18), "invalid JSON"),
        ("", (1, 1), "it is empty"),
        ('{\n"status": "firing",\n"labels": {\n  "alertname": 7}}', (4, 3), "/labels/alertname"),
        ('{"alerts": [\n {"labels": {}, "status": "up"}]}', (2, 17), 'not "up"'),
        ("7", (1, 1), "not a JSON object"),
        ('[{"labels": {"a": 1}, "status": {"state": "active"}}]', (1, 14), "at /0/labels/a"),
    ],
)
def test_a_bad_alert_is_a_finding_at_its_line(
    alert: str, place: tuple[int, int], message: str
) -> None:
    """An invalid alert.json fails its case, with line and column."""
    [result] = run_on({f"{CASE}/alert.json": alert, f"{CASE}/job.yaml": ""}).results
    [problem] = result.problems

    assert (problem.path, problem.line, problem.column) == (f"{CASE}/alert.json", *place)
    assert problem.rule == "case-alert"
    assert message in problem.message
    assert problem.commit == COMMIT


def test_an_alert_that_is_no_text_is_a_finding() -> None:
    """Invalid UTF-8 fails only its own case."""
    report = run_on({f"{CASE}/alert.json": b"\xff\xfe", f"{CASE}/job.yaml": ""})

    assert report.results[0].problems[0].path == f"{CASE}/alert.json"


def test_a_golden_that_is_no_yaml_is_a_finding() -> None:
    """A job.yaml that cannot be read is reported with its line."""
    [result] = run_on({f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": "a: b\nc: [\n"}).results

    assert (result.problems[0].rule, result.problems[0].line) == ("golden-unreadable", 3)


@pytest.mark.parametrize("file", ["alert.json", "job.yaml"])
def test_half_a_case_is_a_finding(file: str) -> None:
    """A missing alert.json or job.yaml is reported."""
    missing = {"alert.json": "job.yaml", "job.yaml": "alert.json"}[file]
    report = run_on({f"{CASE}/{file}": ALERT})

    assert not report.passed
    assert f"{CASE}/{missing}: error: the case has no {missing}" in as_text(report)


def test_cases_of_an_operario_that_is_not_there_are_a_finding() -> None:
    """A folder that is not named after a valid operario is reported with a suggestion."""
    report = run_on({"tests/restart-pods/crash/alert.json": ALERT})

    assert not report.passed
    assert (
        "tests/restart-pods/crash: error: there is no valid operario restart-pods"
        " (did you mean restart-pod?) [case-operario]"
    ) in as_text(report)
    assert as_text(report).endswith(
        "0 cases: 0 passed, 0 failed; 1 other error; 1 operario without a case"
    )


@pytest.mark.parametrize(
    "path", ["tests/alert.json", "tests/restart-pod/job.yaml", "tests/a/b/c/alert.json"]
)
def test_a_case_at_the_wrong_depth_is_a_finding(path: str) -> None:
    """A file that belongs to no case is reported, since it would test nothing."""
    report = run_on({path: ALERT})

    assert [problem.rule for problem in report.problems] == ["case-place"]
    assert not report.passed


def test_other_files_beside_cases_are_nobodys_business() -> None:
    """Files with other names are ignored."""
    assert run_on({f"{CASE}/notes.yaml": "a: [", "tests/readme.json": "{"}).passed


def test_operarios_without_a_case_are_noted() -> None:
    """An operario without a case is a note, or an error with --require-cases."""
    files = {f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": golden()}
    report = run_on(files, operario(), operario("other", alertname="Other"))

    assert report.untested == ("other",)
    assert "note: other has no case: add tests/other/<case>/alert.json" in as_text(report)
    assert "error: other has no case" in as_text(report, require_cases=True)


def test_without_operarios_nothing_passes() -> None:
    """A wrong path is a failure, with advice."""
    report = run_cases(Snapshot(REVISION, "tests", ()), catalog(), jobs_namespace="jobs")

    assert not report.passed
    assert as_text(report) == f"0 cases: 0 passed, 0 failed\n{EMPTY}"


def test_a_match_by_another_operario_is_noted() -> None:
    """An alert that matches another operario is noted."""
    winner = operario("winner", options=Options(priority=1))
    report = run_on({f"{CASE}/alert.json": ALERT}, operario(), winner)

    assert "note: restart-pod/crash: its alert matches winner" in as_text(report)


def test_a_refused_job_is_a_golden_too() -> None:
    """A case may expect that a hostile value is refused."""
    changed_operario = operario(spec=job_spec(command=["heal", "{{ .Labels.pod }}"]))
    hostile = ALERT.replace("web-1", "--all")
    written = golden(changed_operario, alert=hostile)

    [job] = yaml.safe_load_all(written)
    assert job["metadata"]["annotations"]["openfero.io/decision"] == "refused"
    assert run_on(
        {f"{CASE}/alert.json": hostile, f"{CASE}/job.yaml": written}, changed_operario
    ).passed


def test_a_golden_cannot_write_on_the_terminal() -> None:
    """Control characters in a case are escaped."""
    text = as_text(run_on({f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": 'a: "\u202e\\e[2J"'}))

    assert not set("\x1b\u202e") & set(text)


# As test results.


def results(report: CaseReport, *, require_cases: bool = False) -> dict[str, ET.Element]:
    """The test cases of a report by name, among which one fails exactly where the command does."""
    root = ET.fromstring(as_junit(report, require_cases=require_cases))  # noqa: S314 - it is ours
    (suite,) = root
    cases = {case.attrib["name"]: case for case in suite.iter("testcase")}
    failed = [case for case in cases.values() if case.find("failure") is not None]
    assert root.attrib["tests"] == str(len(cases))
    assert root.attrib["failures"] == str(len(failed))
    assert bool(failed) is not (report.passed and not (require_cases and report.untested))
    message = suite.findtext("system-out") or ""
    assert message.splitlines()[-1] in as_text(report).splitlines()
    return cases


def test_each_case_is_a_test_result() -> None:
    """A case that differs fails with the difference, at its job.yaml."""
    files = {
        f"{CASE}/alert.json": ALERT,
        f"{CASE}/job.yaml": golden(),
        "tests/restart-pod/none/alert.json": ALERT,
        "tests/restart-pod/none/job.yaml": "",
    }
    report = run_on(files)
    cases = results(report)

    assert list(cases) == ["restart-pod/crash", "restart-pod/none"]
    assert list(cases["restart-pod/crash"]) == []
    (failure,) = cases["restart-pod/none"]
    assert cases["restart-pod/none"].attrib["file"] == "tests/restart-pod/none/job.yaml"
    assert failure.text == report.results[1].difference
    assert "+kind: Job" in (failure.text or "")


def test_a_case_that_cannot_be_read_is_a_failed_result() -> None:
    """The failure has the problem with file and line; notes are the output."""
    winner = operario("winner", options=Options(priority=1))
    files = {f"{CASE}/alert.json": ALERT, f"{CASE}/job.yaml": "a: b\nc: [\n"}
    case = results(run_on(files, operario(), winner))["restart-pod/crash"]

    assert (case.attrib["file"], case.attrib["line"]) == (f"{CASE}/job.yaml", "3")
    assert "[golden-unreadable]" in (case.findtext("failure") or "")
    assert case.findtext("system-out") == ("note: restart-pod/crash: its alert matches winner")


def test_what_belongs_to_no_case_is_a_failed_result() -> None:
    """Cases without an operario, missing required cases and a repository without operarios fail."""
    gone = run_on({"tests/restart-pods/crash/alert.json": ALERT})
    assert "[case-operario]" in (
        results(gone)["tests/restart-pods/crash"].findtext("failure") or ""
    )

    untested = run_on({})
    assert results(untested) == {}
    failure = results(untested, require_cases=True)["restart-pod"].findtext("failure") or ""
    assert failure.startswith("restart-pod has no case: add tests/")

    nobody = run_cases(Snapshot(REVISION, "tests", ()), catalog(), jobs_namespace="jobs")
    assert results(nobody)["the repository"].findtext("failure") == EMPTY
