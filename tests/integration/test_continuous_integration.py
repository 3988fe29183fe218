"""Continuous integration of an operario repository: the action, the GitLab job, the hooks.

Their files are read like their runners do, and each script runs in a real shell on a real
repository.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from openfero_gitops import __version__
from openfero_gitops.author.report import FORMATS
from openfero_gitops.catalog.validation.schema import versions
from openfero_gitops.cli import main
from tests.support.paths import ROOT
from tests.support.repository import Repository

EXAMPLE = ROOT / "operarios-example"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
GITLAB = yaml.safe_load((EXAMPLE / ".gitlab-ci.yml").read_text())["operarios"]
WORKFLOW = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "operarios.yaml").read_text())
OPERARIO = "nodes/kubenodenotready/firing.yaml"
#: The operarios that are enough for most tests, and their cases.
PARTS = [
    f"{folder}/*{name}*/**/*.*"
    for name in ("kubenodenotready", "kubepersistentvolumefillingup")
    for folder in ("nodes", "storage", "tests")
]
PATIENCE = 600  # seconds


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """Return a folder with the command `openfero-gitops` of this checkout."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "openfero-gitops"
    python = f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)}"
    file.write_text(f'#!/bin/sh\n{python} -m openfero_gitops "$@"\n')
    file.chmod(0o755)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with four operarios of the starter, and a branch for changing one.

    (With all of them many processes would take twice as long.)
    """
    repository = Repository(tmp_path / "origin")
    for name in ("openfero.yaml", *PARTS):
        for file in EXAMPLE.glob(name):
            repository.write(str(file.relative_to(EXAMPLE)), file.read_bytes())
    repository.commit("Start")
    repository.git("checkout", "--quiet", "-b", "change")
    return repository


def change(repository: Repository, old: str, new: str) -> None:
    """Replace a text in one operario, and commit."""
    text = (repository.folder / OPERARIO).read_text()
    assert old in text
    repository.write(OPERARIO, text.replace(old, new))
    repository.commit("Change")


@dataclass
class Shell:
    """Runs scripts like a runner, in one checkout."""

    folder: Path
    command: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *shell: str, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, and check that it prints no traceback."""
        file = self.command.parent / "script"
        file.write_text(script)
        ran = subprocess.run(
            [*shell, str(file)],
            cwd=self.folder,
            env={
                "PATH": f"{self.command}:{os.environ['PATH']}",
                "HOME": str(self.command.parent),
                "LC_ALL": "C.UTF-8",
                **self.variables,
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in ran.stdout + ran.stderr, ran.stderr
        return ran


# The action on GitHub


@dataclass
class Runner(Shell):
    """A GitHub runner with a checkout: the values of `${{ … }}`, and the files of its steps."""

    values: dict[str, str] = field(default_factory=dict)

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a step of the action like the runner's `shell: bash`."""
        (step,) = (step for step in ACTION["runs"]["steps"] if step["name"] == name)
        assert step["shell"] == "bash"
        variables = {key: self.evaluated(value) for key, value in step.get("env", {}).items()}
        bash = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
        return self.run(*bash, script=step["run"], **variables)

    def evaluated(self, text: str) -> str:
        """Replace the expressions in a text; an unknown expression is an error."""
        defaults = {
            f"inputs.{name}": definition["default"] for name, definition in ACTION["inputs"].items()
        }
        expressions = defaults | self.values
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda expression: expressions[expression[1]], text)

    @property
    def outputs(self) -> dict[str, str]:
        """Return the outputs of the steps."""
        lines = Path(self.variables["GITHUB_OUTPUT"]).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def summary(self) -> str:
        """Return the summary of the run."""
        return Path(self.variables["GITHUB_STEP_SUMMARY"]).read_text()


def runner(tmp_path: Path, command: Path, folder: Path, **values: str) -> Runner:
    """Create a runner; `values` are expressions, with `__` for their dots and `_` for dashes."""
    temp = tmp_path / "runner"
    temp.mkdir(exist_ok=True)
    files = {
        name: str(temp / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")
    }
    for file in files.values():
        Path(file).write_text("")
    return Runner(folder, command, {"RUNNER_TEMP": str(temp), **files}, values)


def checkout(repository: Repository, folder: Path, *options: str) -> Path:
    """Clone what GitHub checks out for a pull request: the change, merged into its base."""
    repository.git("checkout", "--quiet", "-B", "merged", "main")
    repository.git("merge", "--quiet", "--no-ff", "--no-edit", "change")
    subprocess.run(
        ["git", "clone", "--quiet", "--branch", "merged", *options, repository.url, str(folder)],
        check=True,
        timeout=PATIENCE,
    )
    return folder


def test_the_action_finds_nothing_in_the_starter(tmp_path: Path, command: Path) -> None:
    """A valid repository passes, and code scanning gets an empty report."""
    starter = Repository(tmp_path / "origin")
    shutil.copytree(EXAMPLE, starter.folder, dirs_exist_ok=True)
    starter.commit("Start")
    github = runner(tmp_path, command, starter.folder)
    github.values |= {"inputs.strict": "true", "inputs.kubernetes-version": "1.30"}
    ran = github.step("Validate")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "::" not in ran.stdout
    (run,) = json.loads(Path(github.outputs["sarif"]).read_text())["runs"]
    assert run["results"] == []


def test_the_action_annotates_what_it_finds(
    tmp_path: Path, command: Path, repository: Repository
) -> None:
    """An error fails the step, with an annotation of its line and a code scanning result."""
    change(repository, "restartPolicy: Never", "restartPolicy: Always")
    github = runner(tmp_path, command, repository.folder)
    ran = github.step("Validate")
    assert ran.returncode == 1
    (annotation,) = (line for line in ran.stdout.splitlines() if line.startswith("::"))
    assert annotation.startswith(f"::error file={OPERARIO},title=restart-policy,line=")
    (run,) = json.loads(Path(github.outputs["sarif"]).read_text())["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["restart-policy"]


def test_the_action_passes_its_inputs_to_the_command(
    tmp_path: Path, command: Path, repository: Repository
) -> None:
    """strict, path and kubernetes-version are passed on, and a value is never run as a script."""
    change(
        repository, "restartPolicy: Never", "restartPolicy: Never\n      hostnameOverride: healer"
    )
    github = runner(tmp_path, command, repository.folder)
    github.values |= {"inputs.kubernetes-version": "1.30"}
    assert github.step("Validate").returncode == 0
    github.values |= {"inputs.strict": "true"}
    assert github.step("Validate").returncode == 1
    github.values |= {"inputs.path": "storage"}
    assert github.step("Validate").returncode == 0
    github.values |= {"inputs.path": f"storage; touch {tmp_path}/ran; $(touch {tmp_path}/ran)"}
    assert github.step("Validate").returncode != 0
    assert not (tmp_path / "ran").exists()


def test_the_action_uses_one_kubernetes_version(
    tmp_path: Path, command: Path, repository: Repository
) -> None:
    """Test and Compare use the validated version: a later field is ignored in them."""
    change(
        repository, "restartPolicy: Never", "restartPolicy: Never\n      hostnameOverride: healer"
    )
    github = runner(tmp_path, command, repository.folder)
    github.values |= {
        "github.event.pull_request.base.sha": repository.git("rev-parse", "main"),
        "github.event.pull_request.head.sha": repository.head,
    }
    assert github.step("Test").returncode == 1
    assert github.step("Compare").returncode == 0
    assert "hostnameOverride" in github.summary
    github = runner(tmp_path, command, repository.folder, **github.values)
    github.values |= {"inputs.kubernetes-version": "1.30"}
    assert github.step("Test").returncode == 0
    assert github.step("Compare").returncode == 0
    assert "changes what happens" not in github.summary


def test_the_action_stops_on_usage_errors(
    tmp_path: Path, command: Path, repository: Repository
) -> None:
    """A usage error is not a finding: the step ends with 2, without a report."""
    github = runner(tmp_path, command, repository.folder)
    github.values |= {"inputs.kubernetes-version": "1.29"}
    ran = github.step("Validate")
    assert ran.returncode != 0
    assert "use one of 1.30" in ran.stderr
    assert github.outputs == {}


def test_the_action_runs_the_cases(tmp_path: Path, command: Path, repository: Repository) -> None:
    """A changed Job fails its case, and the output cannot contain runner commands."""
    github = runner(tmp_path, command, repository.folder)
    github.values |= {"inputs.require-cases": "true"}
    assert github.step("Test").returncode == 0
    change(repository, "restartPolicy: Never", "restartPolicy: OnFailure")
    ran = github.step("Test")
    assert ran.returncode == 1
    first, *lines, last = ran.stdout.splitlines()
    assert re.fullmatch(r"::stop-commands::[0-9a-f]{32}", first)
    assert last == f"::{first.rpartition(':')[2]}::"
    assert any("restartPolicy: OnFailure" in line for line in lines)


@pytest.mark.parametrize("options", [[], ["--depth=1"]], ids=["whole", "shallow"])
def test_the_action_reports_changes(
    tmp_path: Path, command: Path, repository: Repository, options: list[str]
) -> None:
    """The summary shows only the change's own effect, also in a shallow checkout."""
    change(repository, "image: ", "image: mirror.example/")
    event = {"base": repository.git("rev-parse", "main"), "head": repository.head}
    # Meanwhile another change is merged.
    repository.git("checkout", "--quiet", "main")
    repository.write("openfero.yaml", "limits: {concurrent: 7}\n")
    repository.commit("Fewer at a time")
    github = runner(tmp_path, command, checkout(repository, tmp_path / "checkout", *options))
    github.values |= {f"github.event.pull_request.{name}.sha": sha for name, sha in event.items()}
    ran = github.step("Compare")
    assert ran.returncode == 0, ran
    assert "mirror.example/" in html.unescape(github.summary)
    assert "concurrent" not in github.summary
    # The starter's workflow finds its earlier comment by this first line.
    assert github.summary.splitlines()[0] == "<!-- openfero-gitops diff -->"
    assert Path(github.outputs["diff"]).read_text() == github.summary


def test_the_action_provides_its_own_checkout(
    tmp_path: Path, command: Path, repository: Repository
) -> None:
    """Later steps use this checkout's command, whatever files a pull request contains."""
    github = runner(tmp_path, command, repository.folder)
    github.values |= {"github.action_path": str(ROOT)}
    python = tmp_path / "runner" / "openfero-gitops" / "python" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    for name in ("openfero_gitops/__main__.py", "openfero_gitops/__init__.py", "click.py"):
        repository.write(name, f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")

    assert github.step("Provide openfero-gitops").returncode == 0
    path = Path(github.variables["GITHUB_PATH"]).read_text().strip()
    ran = github.run("sh", script="openfero-gitops --version", PATH=f"{path}:{os.environ['PATH']}")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"openfero-gitops, version {__version__}\n"
    assert not (tmp_path / "ran").exists()


def test_the_action_is_valid_for_github() -> None:
    """Every step has a shell, no script contains an expression, and every output has its step."""
    assert ACTION["runs"]["using"] == "composite"
    ids = set()
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]
        ids.add(step.get("id"))
    for output in ACTION["outputs"].values():
        reference = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.\w+ \}\}", output["value"])
        assert reference is not None
        assert reference[1] in ids
    install = ACTION["runs"]["steps"][0]["run"]
    assert shlex.split(install).count("install") == install.count("--require-hashes") == 1
    for file in re.findall(r'"\$ACTION/([^"]+)"', install):
        assert (ROOT / file).is_file()


# GitLab


@pytest.mark.parametrize(
    ("shell", "right"),
    [(("sh", "-e"), True), (("bash", "-eo", "pipefail"), False)],
    ids=["right", "wrong"],
)
def test_the_gitlab_job(
    command: Path,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    shell: tuple[str, ...],
    *,
    right: bool,
) -> None:
    """A merge request gets a test report and a diff, and fails on errors."""
    base = repository.head
    change(repository, "image: ", "image: mirror.example/")
    if right:
        monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)
        assert main(["test", str(repository.folder), "--update"]) == 0
        repository.commit("The cases")
    else:
        change(repository, "restartPolicy: Never", "restartPolicy: Always")
    variables = {name: str(value) for name, value in GITLAB["variables"].items()}
    shell_runner = Shell(repository.folder, command, variables)
    script = "\n".join(GITLAB["script"])

    ran = shell_runner.run(*shell, script=script, CI_MERGE_REQUEST_DIFF_BASE_SHA=base)

    assert ran.returncode == (0 if right else 1), ran
    reports = [
        ET.fromstring((repository.folder / file).read_text())  # noqa: S314 - it is ours
        for file in GITLAB["artifacts"]["reports"]["junit"]
    ]
    assert [report.attrib["name"].split()[-1] for report in reports] == ["validate", "test"]
    assert [report.attrib["failures"] for report in reports] == (
        ["0", "0"] if right else ["1", "1"]
    )
    (diff,) = GITLAB["artifacts"]["paths"]
    assert "mirror.example/" in html.unescape((repository.folder / diff).read_text())
    if right:
        assert "mirror.example/" in ran.stdout
        # On a branch the same commands run, but the one that needs a base.
        ran = shell_runner.run(*shell, script=f"alias openfero-gitops=echo\n{script}")
        assert (ran.returncode, ran.stdout.splitlines()) == (
            0,
            ["validate . --path . --strict", "test . --path . --require-cases"],
        )
    else:
        assert f"{OPERARIO}:" in ran.stdout
        assert "[restart-policy]" in ran.stdout


# pre-commit


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_the_hooks(command: Path, repository: Repository, hook: dict[str, Any]) -> None:
    """A hook reads the complete repository, passes it, and rejects a commit that breaks it."""
    assert hook["language"] == "python"
    assert (hook["pass_filenames"], hook["always_run"]) == (False, True)
    script = shlex.join([*shlex.split(hook["entry"]), *hook["args"]])
    shell_runner = Shell(repository.folder, command)
    # (As git runs it, with the repository in environment variables.)
    git = {"GIT_DIR": ".git", "GIT_INDEX_FILE": ".git/index"}
    assert shell_runner.run("sh", script=script, **git).returncode == 0
    change(repository, "restartPolicy: Never", "restartPolicy: Always")
    assert shell_runner.run("sh", script=script, **git).returncode == 1


# Files that users copy


def test_the_starter_uses_existing_names() -> None:
    """The starter's files name this version, and existing hooks, inputs and outputs."""
    config = yaml.safe_load((EXAMPLE / ".pre-commit-config.yaml").read_text())
    (source,) = config["repos"]
    assert source["rev"] == f"v{__version__}"
    assert {hook["id"] for hook in source["hooks"]} == {hook["id"] for hook in HOOKS}

    values = yaml.safe_load((ROOT / "charts" / "openfero-gitops" / "values.yaml").read_text())
    assert GITLAB["image"]["name"] == f"{values['image']['repository']}:{__version__}"

    steps = WORKFLOW["jobs"]["check"]["steps"]
    (step,) = (step for step in steps if step.get("id") == "operarios")
    name = source["repo"].removeprefix("https://github.com/")
    assert step["uses"] == f"{name}@v{__version__}"
    assert step["with"].keys() <= ACTION["inputs"].keys()
    used = set(re.findall(r"steps\.operarios\.outputs\.(\w+)", json.dumps(steps)))
    assert used == ACTION["outputs"].keys()


def test_the_documentation_is_complete() -> None:
    """Formats, versions, inputs and outputs are all documented, under their names."""
    page = (ROOT / "docs/how-to/authors/pull-request-checks.md").read_text()
    for form in FORMATS:
        assert f"| `{form}` |" in page
    for name in (*ACTION["inputs"], *ACTION["outputs"]):
        assert f"`{name}`" in page
    supported = f"{versions()[0]} to {versions()[-1]}"
    for file in ("docs/how-to/authors/pull-request-checks.md", "README.md", "CHANGELOG.md"):
        assert supported in (ROOT / file).read_text()
