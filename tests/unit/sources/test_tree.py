from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.catalog import Revision, blob_id, may_hold_operario
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.domain.problem import Severity
from openfero_gitops.sources.tree import (
    Budgets,
    Entry,
    Kind,
    Selection,
    assemble,
    normalise,
    printable_name,
    select,
)

REVISION = Revision("repository", "main", "1" * 40)
SMALL = Budgets(file_bytes=10, path_bytes=40, depth=3, files=5, total_bytes=25, entries=9)
ERROR, WARNING = Severity.ERROR, Severity.WARNING


def files(*names: str | bytes, size: int = 1) -> list[Entry]:
    """Entries of regular files."""
    return [
        Entry(name if isinstance(name, bytes) else name.encode(), Kind.FILE, size, "b")
        for name in names
    ]


def choose(entries: list[Entry], root: str = "", budgets: Budgets | None = None) -> Selection:
    """Select with what most tests have in common."""
    return select(
        entries, root=root, budgets=budgets or Budgets(), where="folder x", commit="c0ffee"
    )


def paths(selection: Selection) -> list[str]:
    """Return the paths that would be read."""
    return [file.path for file in selection.wanted]


def rules(selection: Selection) -> list[tuple[str, str, Severity]]:
    """Return the problems."""
    return [(problem.path, problem.rule, problem.severity) for problem in selection.problems]


def test_yaml_and_json_files_are_read_in_the_order_of_their_paths() -> None:
    """Of all files those that may hold operarios are read, sorted by path."""
    selection = choose(files("b.yaml", "z/c.yml", "a.json", "README.md", "yaml", "x.yaml.bak"))

    assert paths(selection) == ["a.json", "b.yaml", "z/c.yml"]
    assert selection.problems == ()


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.yaml",
        "_draft.yaml",
        ".github/workflow.yaml",
        "_old/a.yaml",
        "tests/a.yaml",
        "deep/tests/case/a.yaml",
        "../a.yaml",
        ".git/a.yaml",
    ],
)
def test_hidden_names_and_tests_are_passed_over(name: str) -> None:
    """What starts with a dot or an underscore, or lies in a folder named tests, is not read."""
    selection = choose(files(name, "kept.yaml"))

    assert paths(selection) == ["kept.yaml"]
    assert selection.problems == ()


def test_a_file_named_tests_is_a_file() -> None:
    """Only folders named tests are passed over."""
    assert paths(choose(files("tests.yaml", "a/tests.json"))) == ["a/tests.json", "tests.yaml"]


def test_names_above_the_configured_path_hide_nothing() -> None:
    """A configured path may itself be below a hidden or a tests folder."""
    selection = choose(files(".ops/tests/a.yaml", ".ops/tests/_b.yaml"), root=".ops/tests")

    assert paths(selection) == [".ops/tests/a.yaml"]


def test_a_symlink_in_place_of_an_operario_is_an_error_and_any_other_a_warning() -> None:
    """Symlinks are reported and never read."""
    selection = choose(
        [
            Entry(b"a.yaml", Kind.LINK),
            Entry(b"shared", Kind.LINK),
            Entry(b"tests", Kind.LINK),
            Entry(b".dot", Kind.LINK),
        ]
    )

    assert paths(selection) == []
    assert rules(selection) == [("a.yaml", "symlink", ERROR), ("shared", "linked-folder", WARNING)]


def test_a_submodule_is_a_warning() -> None:
    """A submodule is reported, and nothing in it is read."""
    assert rules(choose([Entry(b"lib", Kind.SUBMODULE)])) == [("lib", "submodule", WARNING)]


def test_a_pipe_is_an_error_where_a_file_was_expected() -> None:
    """A device, socket or pipe is reported if it is named like an operario."""
    selection = choose([Entry(b"a.yaml", Kind.OTHER), Entry(b"socket", Kind.OTHER)])

    assert rules(selection) == [("a.yaml", "not-a-file", ERROR)]


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (Entry(b"a.yaml", Kind.FILE, 11), "file-too-large"),
        (Entry(b"a" * 36 + b".yaml", Kind.FILE, 1), "path-too-long"),
        (Entry(b"1/2/3/4/a.yaml", Kind.FILE, 1), "path-too-deep"),
        (Entry(b"\xff.yaml", Kind.FILE, 1), "path-not-utf-8"),
        (Entry(b"a\nb.yaml", Kind.FILE, 1), "path-not-printable"),
        (Entry("a\u202elmay.yaml".encode(), Kind.FILE, 1), "path-not-printable"),
        (Entry("a\u2028.yaml".encode(), Kind.FILE, 1), "path-not-printable"),
    ],
)
def test_a_file_over_a_budget_is_left_out_alone(entry: Entry, rule: str) -> None:
    """One file that is too large, too deep or badly named does not touch the others."""
    selection = choose([entry, *files("fine.yaml")], budgets=SMALL)

    assert paths(selection) == ["fine.yaml"]
    [problem] = selection.problems
    assert (problem.rule, problem.severity, problem.commit) == (rule, ERROR, "c0ffee")
    assert problem.suggestion


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"a.yaml", Kind.FILE, 10),
        Entry(b"a" * 35 + b".yaml", Kind.FILE, 1),
        Entry(b"1/2/3/a.yaml", Kind.FILE, 1),
    ],
)
def test_a_file_exactly_within_a_budget_is_read(entry: Entry) -> None:
    """A budget is an inclusive limit."""
    selection = choose([entry], budgets=SMALL)

    assert paths(selection) == [entry.name.decode()]
    assert selection.problems == ()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (files(*(f"{n}.yaml" for n in range(6))), "more than 5 YAML and JSON files"),
        (files(*(f"{n}.yaml" for n in range(3)), size=9), "27 bytes in total, more than 25"),
        (files(*(f"{n}.txt" for n in range(10))), "more than 9 entries"),
        ([Entry(b"%d" % n, Kind.LINK) for n in range(6)], "more than 5 YAML and JSON files"),
    ],
)
def test_a_repository_over_a_budget_is_refused_whole(entries: list[Entry], message: str) -> None:
    """A repository over a budget is refused, and the text says what to do."""
    with pytest.raises(SourceError, match=rf"folder x: .*{message}.*set --path"):
        choose(entries, budgets=SMALL)


def test_paths_that_differ_in_case_alone_are_reported() -> None:
    """Both files are read, and the second gets a warning."""
    selection = choose(files("Disk.yaml", "disk.yaml", "other.yaml"))

    assert paths(selection) == ["Disk.yaml", "disk.yaml", "other.yaml"]
    assert rules(selection) == [("disk.yaml", "case-twins", WARNING)]


def test_an_lfs_pointer_is_no_content() -> None:
    """A Git LFS pointer is reported and not read."""
    selection = choose(files("a.yaml", "b.yaml"))
    revision = Revision("r", "main", "c0ffee", "Ada <a@b>", "2026-01-01T00:00:00.000000Z")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"

    snapshot = assemble(revision, "", selection, {"a.yaml": pointer, "b.yaml": b"b"})

    [file] = snapshot.files
    assert (file.path, file.content) == ("b.yaml", b"b")
    assert snapshot.revision is revision
    assert [(problem.path, problem.rule, problem.severity) for problem in snapshot.problems] == [
        ("a.yaml", "lfs-pointer", ERROR)
    ]


@pytest.mark.parametrize("content", [b"", b"a: 1\n", bytes(range(256)) * 100])
def test_a_blob_has_the_id_that_git_gives_it(content: bytes) -> None:
    """Blob ids of a folder are those that a commit of it would have."""
    hashed = subprocess.run(
        ["git", "hash-object", "--stdin"],
        input=content,
        capture_output=True,
        timeout=120,
        check=True,
    )

    assert blob_id(content) == hashed.stdout.decode().strip()


@pytest.mark.parametrize(
    ("path", "normal"),
    [(".", ""), ("", ""), ("./", ""), ("a", "a"), ("./a//b/", "a/b"), ("a/./b", "a/b")],
)
def test_a_path_has_one_form(path: str, normal: str) -> None:
    """Different spellings of a path have one canonical form."""
    assert normalise(path) == normal


@pytest.mark.parametrize("path", ["/a", "..", "a/../b", "a\nb", "a\x00"])
def test_a_path_that_cannot_work_is_refused_in_one_line(path: str) -> None:
    """A path stays inside the repository and can be printed."""
    with pytest.raises(UsageError) as refused:
        normalise(path)

    assert "\n" not in str(refused.value)


@given(st.binary(max_size=2000))
def test_any_name_can_be_shown(name: bytes) -> None:
    """Any bytes become one printable line of limited length."""
    text = printable_name(name)

    assert len(text) <= 513
    assert not any(ord(character) < 32 or 126 < ord(character) < 160 for character in text)
    assert text.encode("utf-8").decode("utf-8") == text


@given(
    st.lists(
        st.builds(
            Entry,
            st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=5).map(b"/".join),
            st.sampled_from(Kind),
            st.integers(0, 20),
            st.just("b"),
        ),
        max_size=20,
    )
)
def test_no_name_gets_past_the_rules(entries: list[Entry]) -> None:
    """Of any entries, only small printable files with visible names are ever wanted."""
    try:
        selection = choose(entries, budgets=SMALL)
    except SourceError:
        return

    for file in selection.wanted:
        assert file.size <= SMALL.file_bytes
        assert file.path.endswith((".yaml", ".yml", ".json"))
        assert not any(part.startswith((".", "_")) for part in file.path.split("/"))
        assert "\n" not in file.path
    assert len(selection.wanted) + len(selection.problems) <= 2 * SMALL.files


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.YAML", ".YAML"),
        ("a.Yml", ".Yml"),
        ("a.JSON", ".JSON"),
        ("a.yaml.bak", ".yaml.bak"),
        ("a.yml~", ".yml~"),
        ("b.yml.j2", ".yml.j2"),
        ("a.yaml.disabled", ".yaml.disabled"),
        ("a.yaml ", ".yaml "),
    ],
)
def test_a_name_that_is_nearly_that_of_an_operario_is_listed(name: str, suffix: str) -> None:
    """Its author may expect it to be read; the reason says which names are."""
    selection = select([Entry(name.encode(), Kind.FILE)], root="", budgets=Budgets(), where="x")
    assert (selection.wanted, selection.problems) == ((), ())
    (entry,) = selection.ignored
    assert (entry.path, entry.kind) == (name, "")
    assert entry.reason == f"its name ends with {suffix}: only .yaml, .yml and .json are read"
    assert assemble(REVISION, "", selection, {}).ignored == (entry,)


@pytest.mark.parametrize("name", ["a.txt", "yaml", "a.jsonc", "a.yamlx", "README.md", ".a.YAML"])
def test_other_names_are_not_listed(name: str) -> None:
    """Nobody expects them to be read."""
    selection = select([Entry(name.encode(), Kind.FILE)], root="", budgets=Budgets(), where="x")
    assert selection.ignored == ()


def test_large_files_are_searched_within_a_budget() -> None:
    """The smallest come first; a file without a size was not fetched."""
    budgets = Budgets(file_bytes=10, searched_bytes=100, total_bytes=150)
    sizes = {"a": 90, "b": 11, "c": 101, "d": 60, "e": None, "f": 10}
    entries = [Entry(f"{name}.json".encode(), Kind.FILE, size) for name, size in sizes.items()]
    selection = select(entries, root="", budgets=budgets, where="x")
    assert [file.path for file in selection.large] == ["b.json", "d.json"]
    assert [p.path for p in selection.problems] == [f"{name}.json" for name in "abcde"]
    snapshot = assemble(REVISION, "", selection, {"f.json": b"{}"}, unrelated=["b.json"])
    assert [p.path for p in snapshot.problems] == [f"{name}.json" for name in "acde"]
    assert [entry.path for entry in snapshot.ignored] == ["b.json"]


@pytest.mark.parametrize(
    ("content", "may"),
    [
        (b"metadata: {name: openfero-disk-firing}", True),
        (b"metadata: {name: OpenFero-Disk-firing}", True),
        (b"annotations: {openfero.io/alertname: Disk}", True),
        (b"labels: {openfero/job-disabled: x}", True),
        (b'{"expr": "openfero_jobs_created_total"}', False),
        (b'{"panels": []}', False),
    ],
)
def test_a_large_file_may_hold_an_operario(content: bytes, may: bool) -> None:  # noqa: FBT001
    """Every operario has the prefix in its name, its kind or an annotation."""
    assert may_hold_operario(content) is may
