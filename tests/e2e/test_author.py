"""The commands of an operario's author, run as a person runs them, on real Git repositories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cli import main
from tests.support.replica import alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
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
    monkeypatch.setattr("openfero_gitops.cli._log_to_stderr", lambda *_: None)

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
    asked = ("explain", repository.url, "--path", "ops", "--alert", payload)

    then = openfero(*asked, "--ref", before)
    now = openfero(*asked)

    assert then.code == 0
    assert "openfero-hostdown-firing (ops/hostdown.json) answers with the Job" in then.out
    assert now.code == 1
    assert "no Job: " in now.out
    [told] = openfero(*asked, "--format", "json").json["alerts"]
    assert (told["alertname"], told["outcome"], told["reason"]) == (
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

    assert [one["outcome"] for one in ran.json["alerts"]] == ["created"]


def test_explain_loads_no_client_of_kubernetes(repository: Repository, payload: Path) -> None:
    """Explaining starts at once: neither Kubernetes' client nor a server is loaded."""
    loaded = modules_of("explain", repository.url, "--path", "ops", "--alert", payload)
    assert {"kubernetes", "aiohttp", "jinja2", "prometheus_client", "apscheduler"}.isdisjoint(
        loaded
    )
