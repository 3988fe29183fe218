from __future__ import annotations

import contextlib
import hashlib
import signal
from typing import TYPE_CHECKING, Final

import pytest

from openfero_gitops.catalog import build as build_module
from openfero_gitops.catalog import effort as effort_module
from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.effort import (
    MAX_FILE_PROBLEMS,
    MAX_FILE_STEPS,
    Interrupted,
    Watch,
)
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.domain.catalog import Catalog, Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import CatalogRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES: Final = 256 * 1024
# Processor time for one file: about ten times what the worst takes. Quadratic work takes minutes.
MAX_SECONDS: Final = 10.0
HEAD: Final = "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: openfero-x-firing\n"
ANNOTATED: Final = f"{HEAD}  annotations:\n"
SPEC: Final = "spec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers:\n"
CONTAINER: Final = f"{SPEC}      - name: a\n        image: b:1\n"
SHELL: Final = f"{HEAD}{CONTAINER}        command: [sh, -c]\n"


def filled(before: str, line: Callable[[int], str], after: str = "") -> str:
    """Return a file of the largest size that is read."""
    lines = [before]
    size = len(before) + len(after)
    for number in range(MAX_BYTES):
        lines.append(line(number))
        size += len(lines[-1])
        if size > MAX_BYTES:
            lines.pop()
            break
    return "".join((*lines, after))


def wrapped(job: str) -> str:
    """Return a ConfigMap that contains a Job."""
    text = "".join(f"    {line}\n" for line in job.splitlines())
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: openfero-x-firing}\n"
    return f"{head}data:\n  x: |\n{text}"


def volumes_and_mounts() -> str:
    """Return a Job with thousands of mounts, none of which names one of thousands of volumes."""
    name = "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxy"
    volumes = "".join(f"      - {{name: {name}{i:06d}, emptyDir: {{}}}}\n" for i in range(1200))
    return filled(
        f"{HEAD}{CONTAINER}        volumeMounts:\n",
        lambda i: f"        - {{name: {name[::-1]}{i:06d}, mountPath: /{i:x}}}\n",
        f"      volumes:\n{volumes}",
    )


HOSTILE: Final[dict[str, Callable[[], str]]] = {
    "empty containers": lambda: filled(HEAD + SPEC, lambda _: "      - {}\n"),
    "containers of wrong types": lambda: filled(
        HEAD + SPEC, lambda _: "      - {name: 1, image: 1}\n"
    ),
    "annotations of wrong types": lambda: filled(
        ANNOTATED, lambda i: f"    a{i:x}: 1\n", CONTAINER
    ),
    "unknown options": lambda: filled(
        ANNOTATED, lambda i: f"    openfero.io/a{i:x}: x\n", CONTAINER
    ),
    "invalid labels": lambda: filled(
        f"{HEAD}  labels:\n", lambda i: f"    a{i:x}: '-'\n", CONTAINER
    ),
    "reserved labels": lambda: filled(
        f"{HEAD}  labels:\n", lambda i: f"    openfero.io/a{i:x}: a\n", CONTAINER
    ),
    "unknown fields": lambda: filled(
        HEAD + SPEC, lambda _: "      - {labels: 1, image: b, completions: 1, requests: 1}\n"
    ),
    "unknown fields in a ConfigMap": lambda: wrapped(
        HEAD + SPEC + "".join(f"      - {{x{i:x}: 1}}\n" for i in range(10_000))
    ),
    "placeholders in images": lambda: filled(
        HEAD + SPEC, lambda _: "      - {name: a, image: '{{}}', imagePullPolicy: '{{'}\n"
    ),
    "mounts without a volume": volumes_and_mounts,
    "policies without a container": lambda: filled(
        f"{HEAD}spec:\n  podFailurePolicy:\n    rules:\n",
        lambda i: (
            f"    - {{action: FailJob, onExitCodes: {{containerName: c{i:x}, values: []}}}}\n"
        ),
        SPEC.removeprefix("spec:\n")
        + "".join(f"      - {{name: d{i:x}, image: b}}\n" for i in range(1500)),
    ),
    "invalid operators": lambda: filled(
        f"{HEAD}{CONTAINER}      affinity:\n        nodeAffinity:\n"
        "          requiredDuringSchedulingIgnoredDuringExecution:\n"
        "            nodeSelectorTerms:\n            - matchExpressions:\n",
        lambda _: "              - {key: '-', operator: x}\n",
    ),
    "requests of a Pod": lambda: filled(
        HEAD
        + SPEC
        + "".join("      - {name: a, image: b}\n" for _ in range(2000))
        + "      resources:\n        requests:\n",
        lambda i: f"          cpu{i:x}: 1\n",
    ),
    "quoted variables of a shell": lambda: (
        f"{SHELL}        args: ['$OPENFERO_X " + '"$a"' * 65_000 + "']\n"
    ),
    "unquoted variables of a shell": lambda: (
        f"{SHELL}        args: ['$OPENFERO_X " + "$a" * 130_000 + "']\n"
    ),
    "here-documents of a shell": lambda: (
        f'{SHELL}        args: ["$OPENFERO_X '
        + " ".join(f"<<a{i:x}" for i in range(25_000))
        + '\\n"]\n'
    ),
    "spaces in a matcher": lambda: (
        f"{ANNOTATED}    openfero.io/matchers: 'a={' ' * 250_000}x'\n{CONTAINER}"
    ),
    "regular expressions": lambda: filled(
        f"{ANNOTATED}    openfero.io/matchers: '",
        lambda i: f'a=~"((a{{100}}){{10}})?[b-y]{{900}}x{i:x}",',
        f"a=b'\n{CONTAINER}",
    ),
    "directives": lambda: filled("", lambda i: f"%TAG !a{i:x}! x\r", "---\r- x\r"),
    "documents with one name": lambda: "".join(
        f"---\n{HEAD}{CONTAINER}x: 1\n" for _ in range(1000)
    ),
}


def source_file(path: str, text: str) -> SourceFile:
    """Return a file of the current revision."""
    content = text.encode()
    return SourceFile(path, hashlib.sha1(content, usedforsecurity=False).hexdigest(), content)


def built(*files: SourceFile, watch: Watch | None = None, memo: FileMemo | None = None) -> Catalog:
    """Return the catalog of these files."""
    snapshot = Snapshot(Revision("repository", "main", "1" * 40), "", files)
    return build_catalog(snapshot, Scope("jobs", ("jobs",)), memo=memo, watch=watch)


@contextlib.contextmanager
def limited_processor_time(seconds: float) -> Iterator[None]:
    """Fail when a block takes more processor time, even inside of one long call."""

    def fail(_signal: int, _frame: object) -> None:
        raise AssertionError(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, fail)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_takes_seconds_at_most(kind: str) -> None:
    """No file takes more than linear time, and at most 100 of its problems are listed."""
    text = HOSTILE[kind]()
    assert len(text.encode()) <= MAX_BYTES
    with limited_processor_time(MAX_SECONDS):
        catalog = built(
            source_file("a.yaml", text),
            source_file("b.yaml", HEAD.replace("-x-", "-y-") + CONTAINER),
        )
    assert 0 < len(catalog.problems) <= MAX_FILE_PROBLEMS + 5
    assert catalog.operarios
    for problem in catalog.problems:
        assert len(problem.message) + len(problem.suggestion) < 1000


def test_a_hostile_envelope_takes_seconds_at_most() -> None:
    """The problems of openfero.yaml are limited, too."""
    text = filled("", lambda i: f"{'perMinute' * 5}{i:x}: 1\n")
    with limited_processor_time(MAX_SECONDS), pytest.raises(CatalogRefusal) as refused:
        built(source_file("openfero.yaml", text))
    assert len(refused.value.problems) == MAX_FILE_PROBLEMS + 1
    assert refused.value.problems[0].rule == "more-problems"


# The problems of a file.


def test_errors_are_listed_before_warnings() -> None:
    """Of many problems, no error is hidden behind warnings, and the rest is counted."""
    fields = "".join(f"x{i}: 1\n" for i in range(300))
    text = HEAD + CONTAINER + fields + "        workingDir: 1\n"
    text = HEAD + SPEC + "      - {name: a, image: 'b:1', workingDir: 1}\n" + fields
    catalog = built(source_file("a.yaml", text))
    assert catalog.operarios == ()
    rules = [problem.rule for problem in catalog.problems]
    assert len(rules) == MAX_FILE_PROBLEMS + 1
    assert rules.count("wrong-type") == rules.count("more-problems") == 1
    [rest] = [problem for problem in catalog.problems if problem.rule == "more-problems"]
    assert rest.message == "the file has at least 203 more problems, not listed here"
    assert rest.path == "a.yaml"
    assert not rest.is_error


def test_warnings_alone_never_quarantine_a_file() -> None:
    """A file with hundreds of warnings is still used."""
    fields = "".join(f"x{i}: 1\n" for i in range(300))
    catalog = built(source_file("a.yaml", HEAD + CONTAINER + fields))
    assert [operario.name for operario in catalog.operarios] == ["openfero-x-firing"]
    assert len(catalog.problems) == MAX_FILE_PROBLEMS + 1


def test_an_error_behind_many_warnings_quarantines_its_document_alone() -> None:
    """A document is judged to its end, however many problems the documents before it have."""
    good = "---\n" + (HEAD + CONTAINER).replace("-x-", "-good-") + "a: 1\n" * 0
    noisy = "".join(
        "---\n" + (HEAD + CONTAINER).replace("-x-", f"-n{i}-") + "u: 1\nv: 1\n" for i in range(150)
    )
    bad = "---\n" + HEAD.replace("-x-", "-bad-") + SPEC + "      - {name: a, image: ' b'}\n"
    catalog = built(source_file("a.yaml", noisy + bad + good))
    names = {operario.name for operario in catalog.operarios}
    assert len(names) == 151
    assert "openfero-bad-firing" not in names
    assert "no-image" in {problem.rule for problem in catalog.problems}


def test_errors_that_are_only_counted_quarantine_their_document() -> None:
    """A document is invalid although a hundred errors are listed before its own."""
    bad = "".join(
        "---\n" + HEAD.replace("-x-", f"-b{i}-") + SPEC + "      - {name: a, image: ' b'}\n"
        for i in range(150)
    )
    good = "---\n" + HEAD + CONTAINER
    catalog = built(source_file("a.yaml", bad + good))
    assert [operario.name for operario in catalog.operarios] == ["openfero-x-firing"]
    assert sum(problem.rule == "no-image" for problem in catalog.problems) == MAX_FILE_PROBLEMS


def test_of_many_wrong_values_only_the_metadata_remain() -> None:
    """With more errors than are listed, a Job's body is not checked, but its name is known."""
    text = HEAD + SPEC + "      - {name: 1}\n" * 300
    catalog = built(source_file("a.yaml", text))
    rules = {problem.rule for problem in catalog.problems}
    assert rules == {"wrong-type", "more-problems"}
    text = ANNOTATED + "".join(f"    a{i}: 1\n" for i in range(300)) + CONTAINER
    assert {problem.rule for problem in built(source_file("a.yaml", text)).problems} == rules


# The limit of a file.


def test_the_limit_does_not_depend_on_the_machine() -> None:
    """A slow replica counts the same steps as a fast one."""
    file = source_file("a.yaml", HOSTILE["unknown fields"]())
    ticks = iter(range(10**9))
    slow = Watch(lambda: next(ticks) * 1e-3)
    readings = [FileMemo("1.36").read(file, watch) for watch in (Watch(), slow)]
    assert readings[0] == readings[1]
    assert 1000 < readings[0].steps <= MAX_FILE_STEPS + 1000


def test_processor_time_is_the_last_resort() -> None:
    """A file that takes much more time than its steps is quarantined, and the others are not."""
    seconds = [0.0]

    def later() -> float:
        seconds[0] += 15
        return seconds[0]

    two = f"{HEAD}{CONTAINER}---\n{HEAD}{CONTAINER}".replace("x-firing", "y-firing", 1)
    watch = Watch(later)
    catalog = built(
        source_file("a.yaml", two), source_file("b.yaml", HEAD + CONTAINER), watch=watch
    )
    [problem] = [problem for problem in catalog.problems if problem.is_error]
    assert (problem.path, problem.rule) == ("a.yaml", "too-complex")
    assert problem.message == "checking the file takes more than 20 s"
    assert [operario.origin.path for operario in catalog.operarios] == ["b.yaml"]


def test_a_wrapped_job_cannot_hide_that_its_file_is_too_complex() -> None:
    """The limit is the file's, also where it is reached inside the text of a ConfigMap."""
    lists = "a: &a [" + "x," * 300 + "]\nb: [" + "*a," * 300 + "]\n"
    [problem] = built(source_file("a.yaml", "---\n".join([wrapped(lists)] * 6))).problems
    assert (problem.rule, problem.pointer) == ("too-complex", "")


@pytest.mark.parametrize("stops_after", [0, 1, 5])
def test_a_build_ends_as_soon_as_its_result_is_not_wanted(stops_after: int) -> None:
    """The check between files, documents and steps ends a build at once."""
    checks = []

    def is_stopped() -> bool:
        checks.append(None)
        return len(checks) > stops_after

    files = [source_file(f"{i}.yaml", f"---\n{HEAD}{CONTAINER}" * 2) for i in range(100)]
    with pytest.raises(Interrupted):
        built(*files, watch=Watch(is_stopped=is_stopped))
    assert len(checks) == stops_after + 1


# The budgets of a revision.


def test_a_revision_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of all files together are limited, whether they were read before or not."""
    monkeypatch.setattr(build_module, "MAX_STEPS", 500)
    memo = FileMemo("1.36")
    files = [source_file(f"{i}.yaml", f"{HEAD}{CONTAINER}# {i}\n") for i in range(100)]
    for _ in range(2):
        with pytest.raises(CatalogRefusal, match="more than 500 steps to check"):
            built(*files, memo=memo)
    assert built(*files[:2], memo=memo).operarios


def test_a_refused_revision_still_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision over its budget that sets `paused: true` pauses admission."""
    monkeypatch.setattr(build_module, "MAX_STEPS", 1)
    with pytest.raises(CatalogRefusal) as refused:
        built(source_file("a.yaml", HEAD + CONTAINER), source_file("openfero.yaml", "paused: true"))
    assert refused.value.paused


def test_small_files_that_expand_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases count for a revision as what they expand to."""
    monkeypatch.setattr(build_module, "MAX_CHARACTERS", 1_000_000)
    aliases = ", ".join(["*a"] * 500)
    text = (
        HEAD
        + SPEC
        + f"      - {{name: a, image: 'b:1', args: &b [&a {'x' * 100}, {aliases}], command: *b}}\n"
    )
    files = [source_file(f"{i}.yaml", text.replace("-x-", f"-x{i}-")) for i in range(20)]
    assert len(text) * len(files) < 100_000
    with pytest.raises(CatalogRefusal, match="operarios of more than 1000000 characters"):
        built(*files)
    assert len(built(*files[:5]).operarios) == 5


def test_regular_expressions_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression of thirty characters counts as what it takes when it is compiled."""
    monkeypatch.setattr(build_module, "MAX_CHARACTERS", 500_000)
    text = f"""{ANNOTATED}    openfero.io/matchers: 'a=~"(([a-y]{{100}}){{9}})?"'\n{CONTAINER}"""
    files = [source_file(f"{i}.yaml", text.replace("-x-", f"-x{i}-")) for i in range(100)]
    assert sum(len(file.content) for file in files) < 50_000
    with pytest.raises(CatalogRefusal, match="operarios of more than 500000 characters"):
        built(*files)
    assert len(built(*files[:5]).operarios) == 5


def test_many_matchers_of_one_operario_are_an_error() -> None:
    """An operario is matched with every alert, so it has at most a hundred matchers."""
    for count, rules in ((100, set()), (101, {"option-value"})):
        matchers = ",".join(f'a{i}="b"' for i in range(count))
        text = f"{ANNOTATED}    openfero.io/matchers: '{matchers}'\n{CONTAINER}"
        problems = built(source_file("a.yaml", text)).problems
        assert {problem.rule for problem in problems if problem.is_error} == rules


def test_the_problems_of_many_files_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the budget one problem of each file is kept, and no error becomes invisible."""
    monkeypatch.setattr(build_module, "MAX_PROBLEMS", 150)
    text = HEAD + SPEC + "      - {name: a, image: ' b', x: 1}\n" * 30
    files = [source_file(f"{i}.yaml", f"{text}# {i}\n") for i in range(50)]
    memo = FileMemo("1.36")
    catalog = built(*files, memo=memo)
    assert len(catalog.problems) < 150 + 101 + 2 * len(files)
    errors = {problem.path for problem in catalog.problems if problem.is_error}
    assert errors == {file.path for file in files}
    # A later revision with fewer problems lists them all, as on a replica that starts with it.
    assert built(*files[40:42], memo=memo) == built(*files[40:42])


def test_documents_that_are_no_operarios_do_not_fill_the_memory() -> None:
    """Of a thousand other documents in a file, only the first kinds are listed."""
    catalog = built(source_file("a.yaml", "---\nkind: A\n" * 1000))
    assert len(catalog.ignored) == MAX_FILE_PROBLEMS
    assert effort_module.MAX_FILE_PROBLEMS == MAX_FILE_PROBLEMS
