"""What forges and bots read in this repository: workflows, forms, locks, updates."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from markdown_it import MarkdownIt

from tests.support.actionlint import ACTIONLINT
from tests.support.amtool import AMTOOL
from tests.support.kubeconform import KUBECONFORM
from tests.support.kueue import KUEUE
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

GITHUB = ROOT / ".github"
STARTER = ROOT / "operarios-example"
WORKFLOWS = [*GITHUB.glob("workflows/*.yml"), *STARTER.glob(".github/workflows/*.yaml")]
ACTIONS = [ROOT / "action.yml", *GITHUB.glob("actions/*/action.yml")]
PAGES = sorted(
    str(file.relative_to(ROOT)) for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
)
USED_ACTION = re.compile(r"uses: ([\w-]+/[^@\s]+)@(\S+)(?: # (\S+))?$", re.MULTILINE)
#: The options that Renovate accepts in the header of a lock file.
REPEATABLE = {
    "--allow-unsafe",
    "--constraint",
    "--extra",
    "--generate-hashes",
    "--no-emit-index-url",
    "--output-file",
}


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-actions", "action.yml"),
        ("github-actions", ".github/actions/*/action.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-workflows", "operarios-example/.github/workflows/*.yaml"),
        ("gitlab-ci", "operarios-example/.gitlab-ci.yml"),
        ("renovate", ".github/renovate.json"),
    ],
)
def test_a_file_has_the_form_that_its_reader_expects(schema: str, pattern: str) -> None:
    """GitHub, GitLab and Renovate ignore a file with another form, often without a message."""
    files = [str(file) for file in ROOT.glob(pattern)]
    assert files
    ran = CliRunner().invoke(check_jsonschema, ["--builtin-schema", f"vendor.{schema}", *files])
    assert ran.exit_code == 0, ran.output


def test_an_action_of_others_is_pinned_by_one_digest() -> None:
    """A comment names the version of each digest, so that a person and Renovate can compare it."""
    digests = defaultdict(set)
    for file in [*WORKFLOWS, *ACTIONS]:
        for name, digest, version in USED_ACTION.findall(file.read_text()):
            if name == "OpenFero/openfero-gitops":
                continue
            repository = "/".join(name.split("/")[:2])
            assert re.fullmatch(r"[0-9a-f]{40}", digest), f"{file.name}: {name}"
            assert re.fullmatch(r"v\d+\.\d+\.\d+", version), f"{file.name}: {name}"
            digests[repository].add((digest, version))
    assert "actions/checkout" in digests
    assert [name for name, found in digests.items() if len(found) > 1] == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_has_no_permission_that_a_job_does_not_name(file: Path) -> None:
    """Each job names its permissions and its longest duration; a workflow gives none."""
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "permissions" in job
        assert job.get("timeout-minutes") or "uses" in job


def test_workflows_run_targets_that_exist() -> None:
    """Each `make TARGET` of a workflow is a target of the Makefile."""
    text = "".join(file.read_text() for file in WORKFLOWS)
    targets = {*re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    run = {*re.findall(r"^.*?(?:run: |  |&& )make ([a-z-]+)(?!\w)", text, re.MULTILINE)}
    assert {"test-deep", "chaos", "soak", "audit"} <= run
    assert run <= targets


def test_the_wheel_is_tested_with_the_build_backend_of_the_image() -> None:
    """Both lock files have one version of it."""
    files = [ROOT / "requirements" / name for name in ("build.txt", "dev.txt")]
    versions = {re.findall(r"^hatchling==\S+", file.read_text(), re.MULTILINE)[0] for file in files}
    assert len(versions) == 1


def test_the_organization_is_spelled_as_github_spells_it() -> None:
    """A certificate of cosign has GitHub's spelling, and is compared with upper and lower case."""
    texts = [
        file.read_text()
        for pattern in ("*.*", "docs/**/*.md", "charts/*/*.*", "operarios-example/**/*.*")
        for file in ROOT.glob(pattern)
        if file.is_file()
    ]
    spelled = re.findall(
        r"(?:github\.com/|--repo |uses: )(openfero)\b", "\n".join(texts), re.IGNORECASE
    )
    assert len(spelled) > 20
    assert {*spelled} == {"OpenFero"}


@pytest.mark.parametrize("name", sorted(file.name for file in ROOT.glob("requirements/*.txt")))
def test_renovate_can_update_a_lock_file(name: str) -> None:
    """A lock file starts with the command that wrote it, in options that Renovate repeats."""
    head = (ROOT / "requirements" / name).read_text().split("==")[0]
    [command] = re.findall(r"^#    pip-compile (.+)$", head, re.MULTILINE)
    *options, source = command.split()
    assert (ROOT / source).exists()
    assert f"--output-file=requirements/{name}" in options
    assert {option.partition("=")[0] for option in options} <= REPEATABLE


def test_renovate_finds_the_go_programs_of_the_tests() -> None:
    """The pattern for Renovate matches the module and version of each program."""
    [manager] = json.loads((GITHUB / "renovate.json").read_text())["customManagers"]
    [pattern] = manager["matchStrings"]
    pattern = pattern.replace("(?<", "(?P<")  # as Python spells the name of a group
    found = {
        (match["depName"], match["currentValue"])
        for file in ROOT.glob("tests/support/*.py")
        for match in re.finditer(pattern, file.read_text())
    }
    tools = (ACTIONLINT, AMTOOL, KUBECONFORM, KUEUE)
    assert {(tool.module, tool.version) for tool in tools} <= found


@pytest.mark.parametrize("name", PAGES)
def test_a_link_of_a_page_leads_to_a_file(name: str) -> None:
    """A link without a host names a file of the repository, and a fragment one of its headings."""
    page = ROOT / name
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        for child in token.children or []:
            target = str(child.attrs.get("href") or child.attrs.get("src") or "")
            path, _, fragment = target.partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            if fragment and file.suffix == ".md":
                assert fragment in headings(file), target


@cache
def headings(page: Path) -> set[str]:
    """Return the fragments that GitHub makes of the headings of a page."""
    tokens = MarkdownIt().parse(page.read_text())
    texts = [
        "".join(child.content for child in text.children or [])
        for start, text in pairwise(tokens)
        if start.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}
