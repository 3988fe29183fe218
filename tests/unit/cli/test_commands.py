from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from asyncio.sslproto import SSLProtocol
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from openfero_gitops import __version__
from openfero_gitops.author.report import FORMATS
from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.cli import cli, main
from openfero_gitops.cli.options import MAX_REASON_CHARACTERS, one_line
from openfero_gitops.cli.serve import tune_interpreter
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.settings import describe
from tests.support.paths import ROOT
from tests.support.replica import alert, group, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable


EXAMPLE = ROOT / "operarios-example"
COMMANDS = tuple(sorted(cli.commands))
#: Seconds; starting takes one, on a busy machine several.
PATIENCE = 300

Ran = subprocess.CompletedProcess[str]


def argv(*arguments: str | Path) -> list[str]:
    """Make a command line in which Python's warnings are errors, ResourceWarning included."""
    words = [str(argument) for argument in arguments]
    return [sys.executable, "-W", "error", "-m", "openfero_gitops", *words]


def environment(**changes: str) -> dict[str, str]:
    """Make an environment without the settings of the user who runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **changes}


def run(*arguments: str | Path, **changes: str) -> Ran:
    """Run one command in a process of its own, and check that it prints no traceback."""
    ran = subprocess.run(
        argv(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(**changes),
        cwd=ROOT,
        timeout=PATIENCE,
        check=False,
    )
    out, err = ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")
    assert "Traceback" not in out + err, out + err
    return Ran(ran.args, ran.returncode, out, err)


@pytest.fixture
def run_in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Give a function that runs a command in this process, which is quicker.

    Where logs go is left as it is: this process is the test run's.
    """
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)
    for name in os.environ:
        if name.startswith("OPENFERO_GITOPS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENFERO_GITOPS_LOG_FORMAT", "console")  # as on a terminal

    def ran(*arguments: str | Path, stdin: str | bytes = "") -> Ran:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        words = [str(argument) for argument in arguments]
        code = main(words)
        return Ran(words, code, *capsys.readouterr())

    return ran


@pytest.fixture
def complaint(run_in_process: Callable[..., Ran]) -> Callable[..., str]:
    """Give a function that runs a command, and returns the one line it fails with."""

    def error_line(*arguments: str | Path) -> str:
        ran = run_in_process(*arguments)
        assert (ran.returncode, ran.stdout) == (2, "")
        (line,) = ran.stderr.splitlines()
        assert line.startswith("openfero-gitops: ")
        return line.removeprefix("openfero-gitops: ")

    return error_line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with one good operario."""
    (tmp_path / "operarios").mkdir()
    (tmp_path / "operarios" / "hostdown.json").write_text(operario("HostDown"))
    return tmp_path / "operarios"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """Give a file with a delivery of one alert, for which there is an operario."""
    file = tmp_path / "alert.json"
    file.write_text(json.dumps(group(alert("HostDown", host="a"))))
    return file


# Help and usage


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command prints its help and exits with 0."""
    assert main([*command.split(), flag]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("Usage: ")
    assert output.err == ""
    assert max(map(len, output.out.splitlines())) <= 100


@pytest.mark.parametrize(("terminal", "shown"), [(True, "\\x9b2J\tx\n"), (False, "\x9b2J\tx\n")])
def test_logs_cannot_control_a_terminal(
    terminal: bool,  # noqa: FBT001
    shown: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Control characters are escaped there; a pipe receives what the container wrote."""

    async def print_logs(*arguments: Any, **_: Any) -> None:
        arguments[3]("\x9b2J\tx")

    monkeypatch.setattr("openfero_gitops.commands.logs.print_logs", print_logs)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert main(["logs", "job-1"]) == 0
    assert capsys.readouterr().out == shown


def test_an_error_cannot_control_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a message quotes is escaped."""

    async def print_logs(*_: Any, **__: Any) -> None:
        raise UsageError("Job \x1b[2J\x9b2J not found")

    monkeypatch.setattr("openfero_gitops.commands.logs.print_logs", print_logs)
    assert main(["logs", "job-1"]) == 2
    assert capsys.readouterr().err == "openfero-gitops: Job \\x1b[2J\\x9b2J not found\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The first page lists all commands with one sentence each."""
    main(["--help"])
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert {"serve", "demo", "validate", "render"} <= set(COMMANDS)
    assert tuple(line.split()[0] for line in listed) == COMMANDS
    assert all(line.endswith((".", "...")) for line in listed)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_type_of_every_value(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No option shows TEXT or FLOAT: the help names the kind of value."""
    main([command, "--help"])
    options = capsys.readouterr().out.partition("Options:\n")[2]
    assert not re.search(
        r"^ +--[a-z-]+ (TEXT|FLOAT|INTEGER|PATH|DIRECTORY)\b", options, re.MULTILINE
    )


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """`serve --help` has each setting with its default."""
    main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for setting in describe():
        assert f"{setting.flag} " in text
        assert setting.description.split("(")[0].strip() in text
        if default := setting.default or setting.default_text:
            assert f"[default: {default}]" in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints name and version to standard output."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"openfero-gitops, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Usage: "),
        ("nonsense", "No such command 'nonsense'"),
        ("--nonsense", "No such option '--nonsense'"),
        ("validate", "Missing argument 'SOURCE'"),
        ("validate a b", "Got unexpected extra argument (b)"),
        ("validate . --nonsense", "No such option '--nonsense'"),
        ("validate . --format xml", "'xml' is not one of 'text', 'json'"),
        ("validate . --allowed-namespace A_B", "'A_B' is not a valid namespace name"),
        ("render .", "Missing option '--alert'"),
        ("render . --alert x --jobs-namespace A_B", "'A_B' is not a valid namespace name"),
        ("demo --kubeconfig /nowhere", "does not exist"),
        ("demo --example /nowhere", "does not exist"),
        ("demo now", "Got unexpected extra argument (now)"),
        ("serve --interval", "requires an argument"),
    ],
)
def test_wrong_usage(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error is reported on standard error with exit code 2."""
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_both_ways_to_start() -> None:
    """The installed command and `python -m` do the same, with the same exit code."""
    script = Path(sys.executable).parent / "openfero-gitops"
    for command in ([sys.executable, "-m", "openfero_gitops"], [str(script)]):
        if not Path(command[0]).exists():
            continue  # run from a checkout that was not installed
        for arguments, code in ((["--version"], 0), (["nonsense"], 2)):
            ran = subprocess.run(
                [*command, *arguments], cwd=ROOT, capture_output=True, timeout=60, check=False
            )
            assert ran.returncode == code


# validate


def test_validate_finds_nothing(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """A valid folder exits with 0 and prints a summary."""
    ran = run_in_process("validate", folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "1 valid operario, 0 errors, 0 warnings, 0 documents ignored\n"


def test_validate_the_starter_repository(run_in_process: Callable[..., Ran]) -> None:
    """The starter repository has no errors and no warnings."""
    ran = run_in_process("validate", EXAMPLE, "--strict")
    assert ran.returncode == 0, ran.stdout


def test_validate_finds_errors(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """Errors exit with 1; all of them are reported with path, line, column and rule."""
    (folder / "broken.yaml").write_text("a: [\n")
    (folder / "other.yaml").write_text(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: openfero-other-firing}\nspec: {}\n"
    )
    ran = run_in_process("validate", folder)
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"broken\.yaml:2:1: error: .+ \[syntax\]", lines[0])
    assert re.fullmatch(r"other\.yaml:4:1: error: .+ \[required-field\]", lines[1])
    assert lines[2] == "1 valid operario, 2 errors, 0 warnings, 0 documents ignored"


def test_validate_warnings(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """A warning exits with 0, and with --strict with 1; the output is the same, plus the reason."""
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["labels"] = {"app": "heal"}
    (folder / "hostdown.json").write_text(json.dumps(job))
    ran = run_in_process("validate", folder)
    assert ran.returncode == 0
    assert "warning: " in ran.stdout
    assert "1 valid operario, 0 errors, 1 warning" in ran.stdout
    strict = run_in_process("validate", folder, "--strict")
    expected = ran.stdout.rstrip("\n") + "; warnings count as errors (--strict)\n"
    assert (strict.returncode, strict.stdout) == (1, expected)


def test_validate_an_empty_folder(tmp_path: Path, run_in_process: Callable[..., Ran]) -> None:
    """A folder without operarios is a finding, with advice."""
    (tmp_path / "service.yaml").write_text("kind: Service\napiVersion: v1\n")
    ran = run_in_process("validate", tmp_path)
    assert ran.returncode == 1
    assert "0 valid operarios, 0 errors, 0 warnings, 1 document ignored" in ran.stdout
    assert "no operario found" in ran.stdout


def test_validate_as_json(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """The JSON has the documented members, and nothing else is on standard output."""
    (folder / "broken.yaml").write_text("a: [\n")
    (folder / "rbac.yaml").write_text("kind: Role\napiVersion: rbac.authorization.k8s.io/v1\n")
    ran = run_in_process("validate", folder, "--format", "json")
    assert ran.returncode == 1
    output = json.loads(ran.stdout)
    (problem,) = output.pop("problems")
    assert list(problem) == [
        "path", "line", "column", "pointer", "rule", "severity", "message", "suggestion", "commit",
    ]  # fmt: skip
    assert (problem["path"], problem["line"], problem["severity"]) == ("broken.yaml", 2, "error")
    assert problem["commit"] is None
    assert output == {"ignored": [{"path": "rbac.yaml", "kind": "Role", "reason": None}]}
    empty = run_in_process("validate", folder.parent, "--path", "none", "--format", "json")
    assert (empty.returncode, empty.stdout) == (2, "")


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_validate_in_every_format(
    folder: Path, form: str, run_in_process: Callable[..., Ran]
) -> None:
    """Whatever the format, the exit code is the same, and standard output is the report alone."""
    good = run_in_process("validate", folder, "--format", form)
    assert (good.returncode, good.stderr) == (0, "")
    (folder / "broken.yaml").write_text("a: [\n")
    bad = run_in_process("validate", folder, "--format", form)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "syntax" in bad.stdout
    assert "broken.yaml" in bad.stdout


@pytest.mark.parametrize("form", ["text", "json"])
def test_validate_a_broken_envelope(
    folder: Path, form: str, run_in_process: Callable[..., Ran]
) -> None:
    """Errors in openfero.yaml are reported together with the problems of other files."""
    (folder / "openfero.yaml").write_text("paused: perhaps\nlimits: {concurrent: many}\n")
    (folder / "broken.yaml").write_text("a: [\n")
    ran = run_in_process("validate", folder, "--format", form)
    assert ran.returncode == 1
    if form == "json":
        rules = [
            (problem["path"], problem["rule"]) for problem in json.loads(ran.stdout)["problems"]
        ]
        envelope = ("openfero.yaml", "envelope-value")
        assert rules == [("broken.yaml", "syntax"), envelope, envelope]
    else:
        assert "0 valid operarios, 3 errors" in ran.stdout
        assert "the controller would reject this revision" in ran.stdout
        assert "no operario found" not in ran.stdout


def test_a_broken_envelope_still_ignores(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """Beside an error in openfero.yaml, what it ignores is not reported."""
    (folder / "openfero.yaml").write_text('ignore: ["app/"]\nremeber: 1h\n')
    (folder / "app").mkdir()
    (folder / "app" / "x.yaml").write_text("a: {{ .Values.x }}\n")
    report = json.loads(run_in_process("validate", folder, "--format", "json").stdout)
    assert [problem["path"] for problem in report["problems"]] == ["openfero.yaml"]
    assert [ignored["path"] for ignored in report["ignored"]] == ["app/x.yaml"]


def test_validate_an_envelope_that_is_misnamed(
    folder: Path, run_in_process: Callable[..., Ran]
) -> None:
    """A file named almost like openfero.yaml is reported, and the others are read."""
    (folder / "openfero.yml").write_text("paused: true\n")
    ran = run_in_process("validate", folder)
    assert ran.returncode == 1
    assert "openfero.yml" in ran.stdout
    assert "[envelope-name]" in ran.stdout


def test_validate_a_git_url(tmp_path: Path, run_in_process: Callable[..., Ran]) -> None:
    """A branch, a tag or a commit of a repository is read, with the commit on every problem."""
    repository = Repository(tmp_path / "repository")
    repository.write("shop/hostdown.json", operario("HostDown"))
    good = repository.commit("Good")
    repository.write("shop/broken.yaml", "a: [\n")
    bad = repository.commit("Bad")
    for reference, code, commit in (
        ((), 1, bad),
        (("--ref", "main"), 1, bad),
        (("--ref", good), 0, None),
    ):
        ran = run_in_process(
            "validate", repository.url, "--path", "shop", "--format", "json", *reference
        )
        assert ran.returncode == code, ran
        problems = json.loads(ran.stdout)["problems"]
        assert [(problem["path"], problem["commit"]) for problem in problems] == (
            [("shop/broken.yaml", commit)] if commit else []
        )


def test_validate_for_another_kubernetes(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """A field that is newer than the given Kubernetes version is reported."""
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["hostnameOverride"] = "healer"
    (folder / "hostdown.json").write_text(json.dumps(job))
    assert run_in_process("validate", folder, "--strict").returncode == 0
    older = run_in_process("validate", folder, "--strict", "--kubernetes-version", "v1.33.2")
    assert older.returncode == 1
    assert "(Kubernetes has it since 1.34) [unknown-field]" in older.stdout
    assert f"[default: {DEFAULT}]" in run_in_process("validate", "--help").stdout


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("render", ("--alert", "-")),
        ("explain", ("--alert", "-")),
        ("test", ()),
        ("diff", ("HEAD", "HEAD")),
        ("coverage", ("--rules", "-")),
    ],
)
def test_every_reader_is_for_one_kubernetes(
    tmp_path: Path, command: str, options: tuple[str, ...], run_in_process: Callable[..., Ran]
) -> None:
    """An unsupported Kubernetes version exits with 2 in every command."""
    repository = Repository(tmp_path / "repository")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Heal hosts")
    data = {"render": json.dumps(group(alert("HostDown"))), "coverage": "groups: []"}
    data["explain"] = data["render"]
    arguments = (command, repository.folder, *options, "--kubernetes-version")
    ran = run_in_process(*arguments, "1.29", stdin=data.get(command, ""))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "use one of 1.30, " in ran.stderr


def test_a_field_that_came_later_is_not_rendered(
    folder: Path, payload: Path, run_in_process: Callable[..., Ran]
) -> None:
    """A field that the given Kubernetes version lacks is in neither the Job nor the case."""
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["hostnameOverride"] = "healer"
    (folder / "hostdown.json").write_text(json.dumps(job))
    older = ("--kubernetes-version", "1.33")
    arguments = ("render", folder, "--alert", payload)
    assert "hostnameOverride: healer" in run_in_process(*arguments).stdout
    assert "hostnameOverride" not in run_in_process(*arguments, *older).stdout
    case = folder / "tests" / "openfero-hostdown-firing" / "one"
    case.mkdir(parents=True)
    (case / "alert.json").write_bytes(payload.read_bytes())
    assert run_in_process("test", folder, "--update", *older).returncode == 0
    assert "hostnameOverride" not in (case / "job.yaml").read_text()
    assert run_in_process("test", folder, *older).returncode == 0
    assert run_in_process("test", folder).returncode == 1


def test_a_field_that_came_later_changes_nothing(
    tmp_path: Path, run_in_process: Callable[..., Ran]
) -> None:
    """`diff` ignores a field that the given Kubernetes version lacks."""
    repository = Repository(tmp_path / "repository")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Heal hosts")
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["hostnameOverride"] = "healer"
    repository.write("hostdown.json", json.dumps(job))
    repository.commit("Under another name")
    arguments = ("diff", repository.folder, "HEAD~1", "HEAD")
    assert "hostnameOverride" in run_in_process(*arguments).stdout
    assert (
        "hostnameOverride: "
        not in run_in_process(*arguments, "--kubernetes-version", "1.33").stdout
    )


def test_validate_narrows_the_namespaces(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """A namespace that is not allowed is an error, if allowed namespaces are given."""
    job = json.loads(operario("HostDown"))
    job["metadata"]["namespace"] = "shop"
    (folder / "hostdown.json").write_text(json.dumps(job))
    assert run_in_process("validate", folder).returncode == 0
    assert run_in_process("validate", folder, "--allowed-namespace", "shop").returncode == 0
    ran = run_in_process("validate", folder, "--allowed-namespace", "other")
    assert ran.returncode == 1
    assert "[namespace-not-allowed]" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "'/nowhere' is neither a folder nor a Git URL"),
        ([""], "is neither a folder nor a Git URL"),
        ([str(ROOT / "pyproject.toml")], "is neither a folder nor a Git URL"),
        ([str(EXAMPLE), "--path", "nowhere"], "nowhere"),
        ([str(EXAMPLE), "--path", "../.."], "leaves the repository"),
        ([str(EXAMPLE), "--path", "/etc"], "relative to the root"),
        (["ext::sh -c id"], "use https://host/path"),
        (["--", "--upload-pack=id"], "is neither a folder nor a Git URL"),
        (["https://user:s3cret@127.0.0.1:1/x.git"], "--git-credentials-file"),
        (["https://127.0.0.1:1/x.git"], "cannot connect"),
        ([str(EXAMPLE), "--kubernetes-version", "1.29"], "use one of 1.30, "),
    ],
)
def test_validate_what_cannot_be_read(
    arguments: list[str], message: str, complaint: Callable[..., str]
) -> None:
    """A source that cannot be read exits with 2 and one line that names it, without a password."""
    line = complaint("validate", *arguments)
    assert message in line
    assert "s3cret" not in line


def test_validate_a_ref_that_is_not_there(tmp_path: Path, complaint: Callable[..., str]) -> None:
    """A ref that does not exist, or is invalid, exits with 2 and is named."""
    repository = Repository(tmp_path / "repository")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Operarios")
    for source in (repository.url, repository.folder):
        assert "no-such-ref" in complaint("validate", source, "--ref", "no-such-ref")
        assert "'--upload-pack=id'" in complaint("validate", source, "--ref", "--upload-pack=id")


def test_validate_hostile_files(tmp_path: Path, run_in_process: Callable[..., Ran]) -> None:
    """Any file is reported with its path, in bounded time and without a traceback."""
    folder = tmp_path / "odd"
    folder.mkdir()
    head = "kind: Job\napiVersion: batch/v1\n"
    aliases = "".join(f"k{n}: &k{n} [{','.join([f'*k{n - 1}'] * 9)}]\n" for n in range(1, 12))
    contents: dict[str, str | bytes] = {
        "bomb.yaml": "k0: &k0 [x]\n" + aliases,
        "deep.yaml": "[" * 200_000,
        "deep.json": '{"a":' * 200_000,
        "large.yaml": "a: " + "x" * 600_000,
        "latin.yaml": b"a: \xe9\n",
        "null.yaml": b"a: \0\n",
        "open.yaml": "a: {",
        "number.json": "1" * 10_000,
        "kind.yaml": "kind: [Job]\n",
        "list.yaml": "- 1\n",
        "name.yaml": head + "metadata: {name: 7}\n",
        "spec.yaml": head + "metadata: {name: openfero-a-firing}\nspec: []\n",
        "metadata.yaml": head + "metadata: openfero-b-firing\n",
        "new\nline.yaml": head,
        "escape\x1b[31m.yaml": head,
        "empty.yaml": "",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.yaml")).write_text(head)
    os.mkfifo(folder / "pipe.yaml")
    (folder / "link.yaml").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to("loop")
    (folder / "sub" / ".git").mkdir(parents=True)
    began = time.monotonic()
    text = run("validate", folder)
    assert time.monotonic() - began < 120
    output = run_in_process("validate", folder, "--format", "json")
    assert (text.returncode, output.returncode) == (1, 1)
    report = json.loads(output.stdout)
    paths = {problem["path"] for problem in report["problems"]}
    assert {"bomb.yaml", "deep.yaml", "latin.yaml", "null.yaml"} <= paths
    # They are over the limit, and nothing in them looks like an operario.
    assert {"deep.json", "large.yaml"} <= {ignored["path"] for ignored in report["ignored"]}
    assert {"open.yaml", "spec.yaml", "pipe.yaml", "link.yaml"} <= paths
    assert "\x1b" not in text.stdout
    assert "root:" not in text.stdout + output.stdout


def test_validate_on_a_terminal_that_knows_few_letters(folder: Path) -> None:
    """A character that the terminal cannot show is printed as its code."""
    (folder / "ł-€.yaml").write_text("a: [\n")
    ran = run("validate", folder, PYTHONIOENCODING="latin-1")
    assert ran.returncode == 1
    assert ran.stdout.startswith("\\u0142-\\u20ac.yaml:2:1: error: ")


def test_validate_needs_little(folder: Path) -> None:
    """Neither the Kubernetes client nor a server is imported, and logs go to stderr."""
    program = (
        "import json, sys\n"
        "from openfero_gitops.cli import main\n"
        "code = main(['validate', sys.argv[1]])\n"
        "import structlog\n"
        "structlog.get_logger('test').warning('a warning')\n"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, folder],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=True,
    )
    summary, loaded = ran.stdout.splitlines()
    code, modules = json.loads(loaded)
    assert code == 0
    assert summary.startswith("1 valid operario")
    assert "a warning" in ran.stderr
    heavy = {"kubernetes", "aiohttp", "jinja2", "prometheus_client", "apscheduler"}
    heavy |= {"pydantic_settings", "jsonschema"}  # (a file with an error needs the last one)
    assert heavy.isdisjoint(modules)


# render


def test_render(folder: Path, payload: Path, run_in_process: Callable[..., Ran]) -> None:
    """Standard output is the Jobs as YAML, and nothing else."""
    ran = run_in_process("render", folder, "--alert", payload)
    assert (ran.returncode, ran.stderr) == (0, "")
    (job,) = yaml.safe_load_all(ran.stdout)
    assert (job["kind"], job["spec"]["suspend"]) == ("Job", True)
    assert job["metadata"]["name"].startswith("hostdown-firing-")
    assert job["metadata"]["namespace"] == "openfero-jobs"
    assert json.loads(job["metadata"]["annotations"]["openfero.io/alert"])["labels"]["host"] == "a"


def test_render_from_standard_input(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """A single alert from a pipe is rendered for another namespace."""
    ran = run_in_process(
        "render", folder, "--alert", "-", "--jobs-namespace", "shop",
        stdin='{"status": "firing", "labels": {"alertname": "HostDown"}}',
    )  # fmt: skip
    assert ran.returncode == 0
    assert yaml.safe_load(ran.stdout)["metadata"]["namespace"] == "shop"


def test_render_each_alert_of_a_group(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """Each alert gets its Job; the reason for none is on standard error."""
    body = group(
        alert("HostDown", host="a"),
        alert("HostDown", host="b"),
        alert("HostDown", "resolved", host="a"),
        alert("Other"),
    )
    ran = run_in_process("render", folder, "--alert", "-", stdin=json.dumps(body))
    assert ran.returncode == 0
    jobs = list(yaml.safe_load_all(ran.stdout))
    assert len({job["metadata"]["name"] for job in jobs}) == 2
    assert [line.partition(": ")[0] for line in ran.stderr.splitlines()] == [
        "HostDown (resolved)",
        "Other (firing)",
    ]
    assert "no-operario" in ran.stderr


def test_render_nothing(folder: Path, payload: Path, run_in_process: Callable[..., Ran]) -> None:
    """It is a finding if no alert gets a Job, or if there is no alert."""
    for body in (group(alert("Other")), group(), []):
        payload.write_text(json.dumps(body))
        ran = run_in_process("render", folder, "--alert", payload)
        assert (ran.returncode, ran.stdout) == (1, "")


def test_render_what_would_be_refused(
    folder: Path, payload: Path, run_in_process: Callable[..., Ran]
) -> None:
    """An unsafe value in a command renders a Job that is refused."""
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["/heal", "$(OPENFERO_HOST)"]
    (folder / "hostdown.json").write_text(json.dumps(job))
    payload.write_text(json.dumps(group(alert("HostDown", host="--all"))))
    ran = run_in_process("render", folder, "--alert", payload)
    assert ran.returncode == 0
    assert "HostDown (firing): would be refused: unsafe-value: " in ran.stderr
    annotations = yaml.safe_load(ran.stdout)["metadata"]["annotations"]
    assert annotations["openfero.io/decision"] == "refused"


def test_render_scripts_that_can_be_read(
    folder: Path, payload: Path, run_in_process: Callable[..., Ran]
) -> None:
    """Multi-line text stays on several lines and unchanged."""
    script = "set -e\necho «heal» 🔥\n"
    job = json.loads(operario("HostDown"))
    job["spec"]["template"]["spec"]["containers"][0]["args"] = [script, "on", "1e3", "null"]
    (folder / "hostdown.json").write_text(json.dumps(job))
    ran = run_in_process("render", folder, "--alert", payload)
    assert "- |\n" in ran.stdout
    assert re.search(r"^ +echo «heal» 🔥$", ran.stdout, re.MULTILINE)
    output = yaml.safe_load(ran.stdout)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert output == [script, "on", "1e3", "null"]


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "not JSON"),
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not a JSON object"),
        (b"7", "not a JSON object"),
        (b'{"alerts": 7}', "at /alerts"),
        (b'{"labels": {"a": 1}}', "at /labels/a"),
        (b'{"status": "firing", "labels": {}, "startsAt": "noon"}', 'at /startsAt: "noon"'),
    ],
)
def test_render_a_bad_payload(
    folder: Path, payload: Path, stdin: bytes, message: str, complaint: Callable[..., str]
) -> None:
    """An invalid payload exits with 2, and the member is named."""
    payload.write_bytes(stdin)
    assert message in complaint("render", folder, "--alert", payload)


def test_render_a_bad_payload_from_a_pipe(folder: Path, run_in_process: Callable[..., Ran]) -> None:
    """Standard input is read as bytes, so binary data is reported as an invalid payload."""
    ran = run_in_process("render", folder, "--alert", "-", stdin=b"\xff\xfe")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("openfero-gitops: stdin is not JSON")


def test_render_a_payload_that_cannot_be_read(folder: Path, complaint: Callable[..., str]) -> None:
    """A missing file, and a folder, exit with 2."""
    for file, why in (("/nowhere", "No such file"), ("/", "Is a directory")):
        assert f"cannot read {file}: {why}" in complaint("render", folder, "--alert", file)


def test_render_without_an_envelope_that_can_be_kept(
    folder: Path, payload: Path, run_in_process: Callable[..., Ran]
) -> None:
    """If openfero.yaml has errors, nothing is rendered, which is a finding."""
    (folder / "openfero.yaml").write_text("paused: perhaps\n")
    ran = run_in_process("render", folder, "--alert", payload)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "openfero.yaml:1" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


# serve and demo, as far as they come without a cluster


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--repo is required; set it or OPENFERO_GITOPS_REPO"),
        (["--repo="], "--repo is required"),
        (["--repo=/r", "--interval=5"], "--interval: '5' is not a duration"),
        (["--repo=/r", "--webhook-auth=digest"], "--webhook-auth: "),
        (["--repo=/r", "--webhook-auth=basic"], "requires --webhook-credentials-file"),
        (["--repo=/r", "--allowed-namespace=a", "--allowed-namespace=B"], "--allowed-namespace: "),
        (["--repo=/r", "--follow-rewrites=perhaps"], "--follow-rewrites: "),
        (["--repo=https://user:s3cret@example.com/x"], "--git-credentials-file"),
        (["--repo=/r", "--kubeconfig=/nowhere"], "/nowhere"),
    ],
)
def test_serve_that_cannot_work(
    flags: list[str], message: str, complaint: Callable[..., str]
) -> None:
    """An invalid setting exits with 2 and one line that names it, before anything starts."""
    line = complaint("serve", *flags)
    assert message in line
    assert "s3cret" not in line


def test_serve_reads_its_environment_and_its_file(
    tmp_path: Path, complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables and the file that --help names are read."""
    (tmp_path / "settings.yaml").write_text("repo: /r\ninterval: 60\n")
    monkeypatch.setenv("OPENFERO_GITOPS_CONFIG", str(tmp_path / "settings.yaml"))
    assert "--interval: '60'" in complaint("serve")
    monkeypatch.setenv("OPENFERO_GITOPS_INTERVAL", "1h")
    monkeypatch.setenv("OPENFERO_GITOPS_WEB_AUTH", "digest")
    assert "--web-auth: " in complaint("serve")
    assert "--interval: 'soon'" in complaint("serve", "--web-auth", "none", "--interval", "soon")


def test_a_switch_needs_no_value(complaint: Callable[..., str]) -> None:
    """A boolean setting needs no value."""
    assert "--web-auth: " in complaint(
        "serve", "--follow-rewrites", "--repo=/r", "--web-auth=digest"
    )


def test_serve_fails_as_a_process() -> None:
    """The process prints the one line to standard error, without a log line before it.

    In the JSON log, it is an event.
    """
    ran = run("serve", "--repo=/r", "--kubeconfig=/nowhere", "--log-format=console")
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("openfero-gitops: ")
    ran = run("serve", "--repo=/r", "--kubeconfig=/nowhere")
    assert (ran.returncode, ran.stdout) == (2, "")
    (logged,) = map(json.loads, ran.stderr.splitlines())
    assert f"openfero-gitops: {logged['error']}" == line


def test_demo_on_an_address_that_is_none(run_in_process: Callable[..., Ran]) -> None:
    """The address of `demo` is checked like that of `serve`."""
    ran = run_in_process("demo", "--listen", "nowhere")
    assert ran.returncode == 2
    assert "openfero-gitops: --listen: 'nowhere' is not an address" in ran.stderr


# Where output goes


def test_a_reader_that_goes_away(folder: Path) -> None:
    """If the reader of stdout is gone, there is no traceback, and the exit code is not 1."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as broken:
        ran = subprocess.run(
            argv("validate", folder),
            stdout=broken,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (2, b"")


def test_a_disk_that_is_full(folder: Path) -> None:
    """A full disk is reported on one line, with exit code 2."""
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            argv("validate", folder),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
    assert ran.returncode == 2
    assert ran.stderr.decode().splitlines() == [
        "openfero-gitops: [Errno 28] No space left on device"
    ]


def test_interrupted(folder: Path, waiting: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Ctrl-C ends a waiting command with one word and exit code 2."""
    child = waiting("render", folder, "--alert", "-")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (2, b"")
    assert b"Traceback" not in err
    assert err.split() == [b"interrupted"]


@pytest.fixture
def waiting() -> Any:
    """Give a function that starts a command which waits on its standard input."""
    children: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            argv(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        children.append(child)
        # It waits when its main thread sleeps in a read of a pipe.
        deadline = time.monotonic() + PATIENCE
        wchan = Path(f"/proc/{child.pid}/syscall")
        while not wchan.read_text().startswith("0 0x0 "):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate(timeout=PATIENCE)


def test_a_traceback_shows_no_variables() -> None:
    """A logged traceback has no values of variables, which may be secrets."""
    program = (
        "import structlog\n"
        "from openfero_gitops.cli.log import to_stderr\n"
        "for form in ('console', 'json'):\n"
        "    structlog.reset_defaults()\n"
        "    to_stderr(form)\n"
        "    password = 's3' + 'cret'\n"
        "    try:\n"
        "        raise ValueError('broken')\n"
        "    except ValueError:\n"
        "        structlog.get_logger().exception('a defect', part=form)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=True,
    )
    assert ran.stdout == ""
    assert ran.stderr.count("ValueError: broken") == 2
    assert "s3cret" not in ran.stderr
    last = json.loads(ran.stderr.splitlines()[-1])
    assert (last["event"], last["level"], last["part"]) == ("a defect", "error", "json")


# Shell completion


def complete(**changes: str) -> str:
    """Run the program as it is installed, as a shell does to complete a command line."""
    program = "import sys; sys.argv = ['openfero-gitops']; from openfero_gitops.cli import main"
    ran = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.exit(main())"],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    """The environment variable of the documentation prints a script for the shell."""
    assert "_OPENFERO_GITOPS_COMPLETE" in complete(_OPENFERO_GITOPS_COMPLETE=f"{shell}_source")


def test_a_shell_completes_commands_and_options() -> None:
    """The program answers the questions of its script."""
    asked = {"_OPENFERO_GITOPS_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert complete(**asked, COMP_WORDS="openfero-gitops ap") == "plain,approve\n"
    asked["COMP_CWORD"] = "2"
    assert complete(**asked, COMP_WORDS="openfero-gitops trace --ou") == "plain,--output\n"


# Reasons


@pytest.mark.parametrize("command", ["approve", "refuse", "cancel"])
def test_a_reason_is_not_empty(run_in_process: Callable[..., Ran], command: str) -> None:
    """A reason without text is a mistake, found before a request is sent."""
    ran = run_in_process(command, "job", "--reason", " \n ")
    assert ran.returncode == 2
    assert "Invalid value for '--reason': it is empty" in ran.stderr


def test_a_reason_is_one_printable_line_of_limited_length() -> None:
    """It is shown in terminals, on pages and in Events."""
    assert one_line(" the disk\n is\tfull\x1b ") == "the disk is full\\x1b"
    assert len(one_line("x" * 1000)) == MAX_REASON_CHARACTERS + 1


def test_the_format_of_the_output_has_the_same_names_in_each_command() -> None:
    """Those that operate a controller take `-o`, `--output` and `--format`."""
    names = {"-o", "--output", "--format"}
    operating = {
        name
        for name, command in cli.commands.items()
        if any(names <= set(option.opts) for option in command.params)
    }
    assert operating == {
        "approve", "audit", "cancel", "pause", "refuse", "resume", "stats", "status", "sync",
        "trace",
    }  # fmt: skip


def test_serving_reads_tls_in_buffers_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attribute with the size of asyncio's TLS reads exists, and is that of a TLS record."""
    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)
    thresholds = gc.get_threshold()
    try:
        tune_interpreter()
        assert SSLProtocol.max_size == 16 * 1024
        assert gc.get_threshold()[0] == 10_000
    finally:
        gc.set_threshold(*thresholds)
