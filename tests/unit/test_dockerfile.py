from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import openfero_gitops
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


PINNED_BASE = re.compile(r"docker\.io/library/python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}")
BUILD_TOOLS = re.compile(r"\b(build-essential|gcc|g\+\+|make|cargo|rustc|golang|\S+-dev)\b")


@dataclass(slots=True)
class Stage:
    """One stage of a Dockerfile: its base image and (instruction, argument) pairs in order."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def arguments(self, instruction: str) -> list[str]:
        """Return the arguments of every such instruction."""
        return [argument for name, argument in self.instructions if name == instruction]


def read_stages(text: str) -> list[Stage]:
    """Split a Dockerfile at each FROM; comments go and continued lines are joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: list[Stage] = []
    first = Stage(base="")  # arguments above the first stage are those of the FROM lines
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        instruction, _, argument = line.partition(" ")
        if instruction == "FROM":
            stages.append(Stage(base=argument.split()[0]))
        else:
            (stages or [first])[-1].instructions.append((instruction, argument.strip()))
    return [first, *stages]


def commands(stage: Stage) -> Iterator[list[str]]:
    """Yield the argv of each command that the stage runs."""
    for run in stage.arguments("RUN"):
        for command in re.sub(r"--mount=\S+", "", run).split("&&"):
            yield shlex.split(command)


STAGES = read_stages((ROOT / "Dockerfile").read_text())
GLOBAL, BUILD, FINAL = STAGES


def test_every_stage_starts_from_one_base_pinned_by_digest() -> None:
    """Every stage starts from the build argument BASE, a Python image named by its digest."""
    assert {BUILD.base, FINAL.base} == {"${BASE}"}
    [argument] = GLOBAL.arguments("ARG")
    name, _, default = argument.partition("=")
    assert name == "BASE"
    assert PINNED_BASE.fullmatch(default)


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    """The last USER is a number with a name, so that runAsNonRoot is checked without the image."""
    user = FINAL.arguments("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    entries = [argv[1] for argv in commands(FINAL) if argv[-1] == "/etc/passwd"]
    assert entries == [f"openfero:x:{user}::/nonexistent:/usr/sbin/nologin"]


def test_nothing_is_installed_that_is_not_locked_by_its_hash() -> None:
    """Each pip command takes hash-locked wheels, or nothing but the project itself."""
    pips = [argv for stage in STAGES for argv in commands(stage) if argv[0].endswith("pip")]
    installs = [argv for argv in pips if "install" in argv]
    locked = [argv for argv in installs if "--require-hashes" in argv]
    assert len(locked) == 2
    assert all(argv[argv.index("--only-binary") + 1] == ":all:" for argv in locked)
    files = [f"requirements/{name}.txt" for name in ("build", "otel")]
    assert [argv[-2:] for argv in locked] == [["-r", file] for file in files]
    assert all("--no-compile" in argv for argv in installs if files[0] not in argv)
    for argv in pips:
        if argv not in locked and "uninstall" not in argv:
            assert "--no-deps" in argv
            assert {"--no-index", "--no-build-isolation"} & {*argv}


def test_the_final_stage_has_no_build_tools() -> None:
    """The final stage installs neither compiler nor headers, drops pip, and copies one venv."""
    [install] = [argv for argv in commands(FINAL) if argv[:2] == ["apt-get", "install"]]
    assert "--no-install-recommends" in install
    packages = [word for word in install[2:] if not word.startswith("--")]
    assert packages == ["ca-certificates", "git", "gpg", "libnss-wrapper", "openssh-client", "tini"]
    assert not BUILD_TOOLS.search(" ".join(FINAL.arguments("RUN")))
    assert "python3 -m pip uninstall --yes" in " ".join(FINAL.arguments("RUN")[0].split())
    assert FINAL.arguments("COPY") == ["--from=build /opt/openfero-gitops /opt/openfero-gitops"]
    assert not any(stage.arguments("ADD") for stage in STAGES)


def test_the_image_serves_by_default_under_a_process_that_reaps() -> None:
    """Without arguments the image runs `openfero-gitops serve`, as a child of tini."""
    assert json.loads(FINAL.arguments("ENTRYPOINT")[-1]) == ["tini", "--", "openfero-gitops"]
    assert json.loads(FINAL.arguments("CMD")[-1]) == ["serve"]


def test_the_image_makes_glibc_return_freed_memory() -> None:
    """Two variables keep glibc's arenas few, and blocks from 128 KiB out of them."""
    environment = " ".join(FINAL.arguments("ENV")).split()
    assert {"MALLOC_ARENA_MAX=2", "MALLOC_MMAP_THRESHOLD_=131072"} <= {*environment}


def test_the_label_names_the_version_of_the_package() -> None:
    """The image's version, unless a build says otherwise, is the package's."""
    assert f"VERSION={openfero_gitops.__version__}" in FINAL.arguments("ARG")
    assert 'image.version="${VERSION}"' in FINAL.arguments("LABEL")[0]


def test_the_build_is_sent_what_it_copies_and_nothing_else() -> None:
    """`.dockerignore` refuses everything but the sources that a COPY names."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    allowed = {rule[1:].rstrip("/") for rule in rules if rule.startswith("!")}
    copied = {source for argument in BUILD.arguments("COPY") for source in argument.split()[:-1]}
    assert copied == allowed
    refused = [rule for rule in rules[1:] if not rule.startswith("!")]
    assert any(fnmatch("openfero_gitops/__pycache__/", rule) for rule in refused)
