"""The commands of an operario's author, run as a person runs them, on real Git repositories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cli import main
from tests.support.paths import FIXTURES, ROOT
from tests.support.replica import alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


EXAMPLE = ROOT / "operarios-example"
#: Seconds; starting takes one, on a busy machine many.
PATIENCE = 120
HEAVY = {"kubernetes", "aiohttp", "jinja2", "prometheus_client", "apscheduler"}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, as a program reads it."""
        return json.loads(self.out)


@pytest.fixture
def openfero(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Give a function that runs a command in this process; its log stays the test run's."""
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)

    def ran(*arguments: str | Path) -> Ran:
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return ran


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Give a repository with an operario for HostDown in its folder `ops`."""
    made = Repository(tmp_path / "repository")
    made.write("ops/hostdown.json", operario("HostDown"))
    made.commit("Heal hosts")
    return made


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """Give a file with a delivery about HostDown."""
    file = tmp_path / "alert.json"
    file.write_text(json.dumps(group(alert("HostDown", host="a"))))
    return file


def modules_of(*arguments: str | Path) -> set[str]:
    """Run a command in a process of its own, and return the packages that it loaded."""
    program = (
        "import json, sys\n"
        "from openfero_gitops.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        timeout=PATIENCE,
        check=True,
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


# explain


def test_explain_a_commit(
    repository: Repository, payload: Path, openfero: Callable[..., Ran]
) -> None:
    """An alert is explained at any ref, by path, and as the webhook would answer it."""
    before = repository.head
    repository.write("ops/hostdown.json", operario("HostUp"))
    repository.commit("Heal something else")
    arguments = ("explain", repository.url, "--path", "ops", "--alert", payload)

    then = openfero(*arguments, "--ref", before)
    now = openfero(*arguments)

    assert then.code == 0
    assert "openfero-hostdown-firing (ops/hostdown.json) matches and creates Job" in then.out
    assert now.code == 1
    assert "no Job: " in now.out
    [explained] = openfero(*arguments, "--format", "json").json["alerts"]
    assert (explained["alertname"], explained["outcome"], explained["reason"]) == (
        "HostDown",
        "no-match",
        "no-operario",
    )


def test_explain_the_starter_repository(openfero: Callable[..., Ran]) -> None:
    """Every sample of the example is answered, refused or left alone, as it says it is."""
    codes = {}
    for sample in sorted((EXAMPLE / "_alerts").glob("*.json")):
        ran = openfero("explain", EXAMPLE, "--alert", sample)
        codes[sample.stem] = ran.code
        assert ran.err == ""
    assert {name for name, code in codes.items() if code} == {"no-operario"}


def test_explain_a_folder_whose_command_uses_the_commit(
    tmp_path: Path, payload: Path, openfero: Callable[..., Ran]
) -> None:
    """A folder has no commit yet; a command that uses it is not refused for that."""
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["containers"][0]["args"] = ["$(OPENFERO_COMMIT)"]
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "hostdown.json").write_text(json.dumps(job))

    ran = openfero("explain", tmp_path / "ops", "--alert", payload, "--format", "json")

    assert [alert["outcome"] for alert in ran.json["alerts"]] == ["created"]


def test_explain_loads_no_client_of_kubernetes(repository: Repository, payload: Path) -> None:
    """Explaining starts at once: neither Kubernetes' client nor a server is loaded."""
    loaded = modules_of("explain", repository.url, "--path", "ops", "--alert", payload)
    assert {"kubernetes", "aiohttp", "jinja2", "prometheus_client", "apscheduler"}.isdisjoint(
        loaded
    )


# test


def test_the_starter_repository_has_a_case_for_every_operario(
    openfero: Callable[..., Ran],
) -> None:
    """The example's goldens are what its operarios create, and none is left out."""
    ran = openfero("test", EXAMPLE, "--require-cases")
    assert ran.code == 0, ran.out
    assert ran.out.endswith(" passed, 0 failed\n")


def test_goldens_are_written_and_then_hold(
    repository: Repository, openfero: Callable[..., Ran]
) -> None:
    """An alert becomes a case by `--update`; a change of the operario then fails it."""
    sample = json.dumps(alert("HostDown", host="a"))
    case = "ops/tests/openfero-hostdown-firing/down"
    repository.write(f"{case}/alert.json", sample)
    folder = repository.folder / "ops"

    missing = openfero("test", folder)
    updated = openfero("test", folder, "--update")
    again = openfero("test", folder, "--update")
    repository.commit("A case")
    at_commit = openfero("test", repository.url, "--path", "ops")

    assert missing.code == 1
    assert "the case has no job.yaml" in missing.out
    assert (updated.code, updated.out) == (
        0,
        f"wrote {case}/job.yaml\n1 case: 1 passed, 0 failed\n",
    )
    assert (again.code, again.out) == (0, "1 case: 1 passed, 0 failed\n")
    assert (at_commit.code, at_commit.out) == (0, again.out)

    job = json.loads(operario("HostDown"))
    job["spec"]["activeDeadlineSeconds"] = 77
    repository.write("ops/hostdown.json", json.dumps(job))
    repository.commit("Another deadline")
    for source in ((folder,), (repository.url, "--path", "ops")):
        changed = openfero("test", *source)
        assert changed.code == 1
        assert "+  activeDeadlineSeconds: 77\n" in changed.out
    assert openfero("test", folder, "--ref", "HEAD~1").code == 2
    assert openfero("test", folder, "--ref", at_commit_of(repository, "HEAD~1")).code == 0


def at_commit_of(repository: Repository, name: str) -> str:
    """Return the full id of a commit."""
    return repository.git("rev-parse", name)


def test_cases_are_no_operarios(repository: Repository, openfero: Callable[..., Ran]) -> None:
    """A Job in a golden is never taken for an operario, in a folder or in Git."""
    repository.write("ops/tests/x/y/job.yaml", operario("Other"))
    repository.commit("A golden that looks like an operario")
    for source in ((repository.folder / "ops",), (repository.url, "--path", "ops")):
        ran = openfero("validate", *source)
        assert (ran.code, ran.out) == (
            0,
            "1 valid operario, 0 errors, 0 warnings, 0 documents ignored\n",
        )


def test_a_repository_without_cases(repository: Repository, openfero: Callable[..., Ran]) -> None:
    """Where there is no folder `tests`, the operarios without a case are told, and that passes."""
    for source in ((repository.folder / "ops",), (repository.url, "--path", "ops")):
        ran = openfero("test", *source)
        assert ran.code == 0
        assert ran.out.endswith("0 cases: 0 passed, 0 failed; 1 operario without a case\n")
        assert openfero("test", *source, "--require-cases").code == 1


def test_goldens_are_written_into_a_folder_alone(
    repository: Repository, openfero: Callable[..., Ran]
) -> None:
    """A URL, a ref and a symlink are nothing to write into."""
    case = "ops/tests/openfero-hostdown-firing/down"
    repository.write(f"{case}/alert.json", json.dumps(alert("HostDown", host="a")))
    victim = repository.folder / "victim"
    victim.write_text("mine\n")
    repository.commit("A case")
    for arguments, message in (
        ((repository.url, "--path", "ops"), "is not a folder: --update needs one"),
        ((repository.folder / "ops", "--ref", "main"), "remove --ref"),
    ):
        ran = openfero("test", *arguments, "--update")
        assert ran.code == 2
        assert message in ran.err
    (repository.folder / case / "job.yaml").symlink_to(victim)
    ran = openfero("test", repository.folder / "ops", "--update")
    assert ran.code == 2
    assert "is a symlink" in ran.err
    assert victim.read_text() == "mine\n"


def test_test_loads_no_client_of_kubernetes(repository: Repository) -> None:
    """Testing starts at once: neither Kubernetes' client nor a server is loaded."""
    assert HEAVY.isdisjoint(modules_of("test", repository.url, "--path", "ops"))


# diff


@pytest.fixture
def pull_request(repository: Repository) -> Repository:
    """Give a repository whose branch `pr` has another image, and a comment more."""
    repository.write("ops/other.json", operario("Other"))
    repository.commit("Heal something else, too")
    repository.branch("pr")
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/new:2"
    repository.write("ops/hostdown.json", json.dumps(job))
    repository.write("ops/other.json", operario("Other") + "\n")
    repository.commit("A newer image")
    repository.switch("main")
    return repository


def test_diff_of_branches(pull_request: Repository, openfero: Callable[..., Ran]) -> None:
    """What a branch changes is told the same of a folder, a bare repository and a URL."""
    bare = pull_request.folder.parent / "bare.git"
    pull_request.git("clone", "--quiet", "--bare", str(pull_request.folder), str(bare))
    expected = None
    for source in (pull_request.folder, bare, pull_request.url):
        ran = openfero("diff", source, "main", "pr", "--path", "ops")
        assert ran.code == 0, ran.err
        assert ran.out.endswith("1 change in behavior\n")
        assert "image: " in ran.out
        assert "registry.example/new:2" in ran.out
        assert "other" not in ran.out
        assert expected in (None, ran.out)
        expected = ran.out
    inner = openfero("diff", pull_request.folder / "ops", "main", "pr")
    assert inner.out == expected


def test_diff_takes_what_git_takes_for_a_commit(
    pull_request: Repository, openfero: Callable[..., Ran]
) -> None:
    """In a folder a ref may be relative, short, a tag, HEAD, or of a detached checkout."""
    folder = pull_request.folder / "ops"
    pull_request.switch("pr")
    pull_request.tag("v1", "A release")
    detached = pull_request.commit_tree(pull_request.git("write-tree"), "A merge", "main", "pr")
    pull_request.git("checkout", "--quiet", detached)
    (folder / "hostdown.json").write_text("not committed")
    head = pull_request.git("rev-parse", "--short", "pr")
    for base, tip in (
        ("pr~1", "pr"),
        ("main", "HEAD"),
        ("main", "v1"),
        ("main", head),
        ("main", detached),
        ("refs/heads/main", "HEAD^2"),
    ):
        ran = openfero("diff", folder, base, tip)
        assert (ran.code, ran.out.splitlines()[-1]) == (0, "1 change in behavior"), (base, ran)


def test_diff_in_a_fresh_clone(
    pull_request: Repository, tmp_path: Path, openfero: Callable[..., Ran]
) -> None:
    """A branch that only the remote has is found by its own name."""
    clone = tmp_path / "clone"
    pull_request.git("clone", "--quiet", "--branch=pr", pull_request.url, str(clone))

    assert openfero("diff", clone / "ops", "main", "HEAD").out.endswith("1 change in behavior\n")


def test_a_shallow_clone(
    pull_request: Repository, tmp_path: Path, openfero: Callable[..., Ran]
) -> None:
    """A clone of the last commits, as pipelines make it, is read as far as it goes."""
    pull_request.switch("pr")
    pull_request.write("ops/hostdown.json", "{")
    pull_request.commit("A slip")
    clone = tmp_path / "clone"
    pull_request.git("clone", "--quiet", "--depth=2", pull_request.url, str(clone))

    ran = openfero("diff", clone / "ops", "HEAD~1", "HEAD")
    assert ran.code == 1, ran.err
    assert "still active: openfero-hostdown-firing of commit" in ran.out
    at_ref = openfero("validate", clone / "ops", "--ref", "pr")
    assert "2 valid operarios, 1 error" in at_ref.out
    deeper = openfero("diff", clone / "ops", "HEAD~2", "HEAD")
    assert (deeper.code, "git fetch --unshallow" in deeper.err) == (2, True)


def test_diff_since_the_branch_was_made(
    pull_request: Repository, openfero: Callable[..., Ran]
) -> None:
    """What happened on main meanwhile is not the branch's, with --merge-base."""
    pull_request.write("ops/third.json", operario("Third"))
    pull_request.commit("Meanwhile")
    for source in (pull_request.folder, pull_request.url):
        arguments = ("diff", source, "main", "pr", "--path", "ops")
        assert "openfero-third-firing: was removed" in openfero(*arguments).out
        ran = openfero(*arguments, "--merge-base")
        assert (ran.code, ran.out.splitlines()[-1]) == (0, "1 change in behavior")
    pull_request.git("checkout", "--quiet", "--orphan", "strange")
    pull_request.commit("Another history")
    ran = openfero("diff", pull_request.folder / "ops", "main", "strange", "--merge-base")
    assert ran.code == 2
    assert "have no common commit" in ran.err


def test_diff_of_a_folder_that_is_new(
    pull_request: Repository, openfero: Callable[..., Ran]
) -> None:
    """A folder that BASE does not have counts as empty; one that neither has is an error."""
    pull_request.write("clusters/rome/new.yaml", operario("New"))
    pull_request.commit("Another cluster")
    where = pull_request.folder
    compared = openfero("diff", where, "HEAD~1", "HEAD", "--path", "clusters/rome")
    assert compared.code == 0, compared.err
    assert "is new; it matches alert New (firing)" in compared.out
    missing = openfero("diff", where, "HEAD~1", "HEAD", "--path", "clusters/oslo")
    assert missing.code == 2
    assert "clusters/oslo does not exist in commit" in missing.err


def test_diff_of_text_alone(pull_request: Repository, openfero: Callable[..., Ran]) -> None:
    """A commit that changes comments and places is reported as no change in behavior."""
    pull_request.write("ops/moved/other.json", operario("Other") + "\n\n")
    pull_request.delete("ops/other.json")
    pull_request.commit("Move it")
    ran = openfero("diff", pull_request.folder / "ops", "HEAD~1", "HEAD")

    assert (ran.code, ran.out) == (0, "no change in behavior (2 files changed)\n")


def test_diff_as_a_comment(pull_request: Repository, openfero: Callable[..., Ran]) -> None:
    """The comment can be posted as it is, and found again by its first line."""
    ran = openfero("diff", pull_request.folder / "ops", "main", "pr", "--format", "markdown")

    assert ran.code == 0
    assert ran.out.startswith("<!-- openfero-gitops diff -->\n### Operarios: 1 change in")
    assert "| changes | <code>openfero-hostdown-firing</code> | container " in ran.out
    difference = openfero(
        "diff", pull_request.folder / "ops", "main", "pr", "--format", "json"
    ).json
    assert difference["base"] == pull_request.git("rev-parse", "main")
    assert [change["kind"] for change in difference["changes"]] == ["image"]


def test_diff_of_a_file_that_breaks(pull_request: Repository, openfero: Callable[..., Ran]) -> None:
    """A file that gets an error is told with the commit that stays in force, and is exit code 1."""
    good = pull_request.head
    pull_request.write("ops/hostdown.json", "{")
    pull_request.commit("A slip")
    ran = openfero("diff", pull_request.folder / "ops", "HEAD~1", "HEAD")

    assert ran.code == 1
    assert f"still active: openfero-hostdown-firing of commit {good[:12]}" in ran.out
    assert ran.out.splitlines()[0].startswith("breaks: ops/hostdown.json:1: ")


def test_diff_of_an_envelope_that_is_gone(
    pull_request: Repository, openfero: Callable[..., Ran]
) -> None:
    """A revision that the controller would refuse is told, and is exit code 1."""
    pull_request.write("ops/openfero.yaml", "limits: {concurrent: 3}\n")
    pull_request.commit("Limits")
    pull_request.delete("ops/openfero.yaml")
    pull_request.commit("No limits")
    ran = openfero("diff", pull_request.folder / "ops", "HEAD~1", "HEAD")

    assert ran.code == 1
    assert "the controller would reject this revision" in ran.out


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        (("main", "nowhere"), "has no commit 'nowhere'"),
        (("--", "--upload-pack=id", "main"), "has no commit '--upload-pack=id'"),
        (("main", "main:ops"), "has no commit 'main:ops'"),
        (("main", ""), "has no commit ''"),
    ],
)
def test_diff_without_such_a_commit(
    pull_request: Repository, openfero: Callable[..., Ran], refs: tuple[str, ...], message: str
) -> None:
    """A ref that names no commit is exit code 2, and told."""
    options = refs[:1] if refs[0] == "--" else ()
    ran = openfero("diff", *options, pull_request.folder / "ops", *refs[len(options) :])

    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_diff_outside_of_a_repository(tmp_path: Path, openfero: Callable[..., Ran]) -> None:
    """Commits are a repository's."""
    ran = openfero("diff", tmp_path, "a", "b")
    assert ran.code == 2
    assert "is not in a Git repository" in ran.err


def test_diff_loads_no_client_of_kubernetes(pull_request: Repository) -> None:
    """Comparing starts at once: neither Kubernetes' client nor a server is loaded."""
    assert HEAVY.isdisjoint(modules_of("diff", pull_request.folder / "ops", "main", "pr"))


# coverage

RULES = FIXTURES / "alert_rules"


def test_coverage_of_the_starter_repository(openfero: Callable[..., Ran]) -> None:
    """Rules of the kubernetes-mixin's shape: what the example answers, and what it does not."""
    ran = openfero("coverage", EXAMPLE, "--rules", RULES / "kubernetes.yaml", "--format", "json")
    answered = {alert["alertname"]: alert["covered"] for alert in ran.json["alerts"]}

    assert ran.code == 1
    assert answered["KubePodCrashLooping"] == "yes"
    assert answered["KubeQuotaFullyUsed"] == "some"
    assert answered["KubeHpaReplicasMismatch"] == "no"
    assert {operario["operario"] for operario in ran.json["unreachable"]} >= {
        "openfero-targetdown-firing"
    }


def test_coverage_at_a_commit(
    repository: Repository, tmp_path: Path, openfero: Callable[..., Ran]
) -> None:
    """Several rule files are taken, as a shell expands them; no gap is exit code 0."""
    repository.write("ops/diskfull.json", operario("DiskFull"))
    repository.commit("Disks, too")
    more = tmp_path / "more.yaml"
    more.write_text("groups: [{name: g, rules: [{alert: Watchdog}]}]\n")
    arguments = ("coverage", repository.url, "--path", "ops", "--rules", RULES / "plain.yaml", more)

    gap = openfero(*arguments)
    whole = openfero(*arguments, "--ignore", "Watchdog")

    assert gap.code == 1
    assert f"no operario: Watchdog ({more}:1)\n" in gap.out
    assert gap.out.endswith("2 of 3 alerting rules have an operario (66.6 %)\n")
    assert (whole.code, whole.out) == (
        0,
        "2 of 2 alerting rules have an operario (100 %); 1 rule ignored\n",
    )


def test_coverage_without_rules(
    repository: Repository, tmp_path: Path, openfero: Callable[..., Ran]
) -> None:
    """A file that is no rule file, or is not there, is exit code 2 and named."""
    folder = repository.folder / "ops"
    values = tmp_path / "values.yaml"
    values.write_text("image: x\n")
    for file, message in ((values, "values.yaml: no rules found"), ("none", "cannot read")):
        ran = openfero("coverage", folder, "--rules", file)
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err
    assert "Missing option '--rules'" in openfero("coverage", folder).err


def test_coverage_loads_no_client_of_kubernetes(repository: Repository) -> None:
    """Covering starts at once: neither Kubernetes' client nor a server is loaded."""
    folder = repository.folder / "ops"
    assert HEAVY.isdisjoint(modules_of("coverage", folder, "--rules", RULES / "plain.yaml"))
