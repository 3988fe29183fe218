from __future__ import annotations

import time
from dataclasses import replace

import pytest

from openfero_gitops.author.diff.fields import envelope_changes
from openfero_gitops.catalog.build import Scope, broken_paths, build_catalog
from openfero_gitops.catalog.ignore import select_considered
from openfero_gitops.domain.catalog import Catalog, Envelope, Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.domain.problem import Ignored, Problem
from openfero_gitops.domain.rule import FILE_TOO_LARGE, SUBMODULE, Rule

SCOPE = Scope("jobs", ("jobs",))
REVISION = Revision("repository", "main", "1" * 40)
TAGGED = "theme: !ENV [X, material]\nemoji: !!python/name:material.emoji\n"
COMMENTED = '{\n  // comment\n  "compilerOptions": {},\n}\n'
TEMPLATE = "{{- if .Values.enabled }}\napiVersion: batch/v1\nkind: Job\n{{- end }}\n"
CHART = "apiVersion: v2\nname: x\nversion: 0.1.0\n"


def job(name: str, labels: str = "") -> str:
    """Return a valid operario."""
    return (
        f"apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: openfero-{name}-firing\n{labels}"
        "spec:\n  template:\n    spec:\n      restartPolicy: Never\n"
        "      automountServiceAccountToken: false\n      containers:\n        - name: a\n"
        "          image: tools:1\n          resources: {limits: {memory: 1Mi}}\n"
    )


def snapshot_of(files: dict[str, str], root: str = "", *problems: Problem) -> Snapshot:
    """Return a snapshot of files by path."""
    sources = (SourceFile(path, "", text.encode()) for path, text in files.items())
    return Snapshot(REVISION, root, tuple(sources), problems)


def problem(path: str, rule: Rule = FILE_TOO_LARGE) -> Problem:
    """Return a problem that a source reports."""
    return Problem(path, 0, 0, "", rule.id, rule.severity, "message")


def catalog_of(files: dict[str, str], root: str = "", *problems: Problem) -> Catalog:
    """Return the catalog of files by path."""
    return build_catalog(snapshot_of(files, root, *problems), SCOPE)


def reasons(catalog: Catalog) -> dict[str, str]:
    """Return the reasons of what is ignored, by path."""
    return {entry.path: entry.reason for entry in catalog.ignored if entry.reason}


def test_a_mixed_repository_is_read_without_errors() -> None:
    """A chart is ignored by itself, and other programs' files by patterns."""
    files = {
        "a.yaml": job("a"),
        "chart/Chart.yaml": CHART,
        "chart/templates/job.yaml": TEMPLATE,
        "chart/charts/inner/Chart.yaml": CHART,
        "chart/values.yaml": "image: x\n",
        "mkdocs.yml": TAGGED,
        "web/tsconfig.json": COMMENTED,
    }
    before = catalog_of(files)
    assert [(p.path, p.rule) for p in before.problems] == [
        ("mkdocs.yml", "custom-tag"),
        ("web/tsconfig.json", "syntax"),
    ]
    # The way out is said where somebody looks for it.
    assert all("list it under ignore in openfero.yaml" in p.suggestion for p in before.problems)
    files["openfero.yaml"] = "ignore: [mkdocs.yml, '**/tsconfig.json']\n"
    catalog = catalog_of(files)
    assert catalog.problems == ()
    assert [operario.name for operario in catalog.operarios] == ["openfero-a-firing"]
    assert reasons(catalog) == {
        "chart/": "part of a Helm chart (Chart.yaml)",
        "mkdocs.yml": 'matches "mkdocs.yml" of ignore in openfero.yaml',
        "web/tsconfig.json": 'matches "**/tsconfig.json" of ignore in openfero.yaml',
    }


@pytest.mark.parametrize(
    ("patterns", "ignored"),
    [
        ("[docs/]", {"docs/a.yaml", "docs/deep/b.yaml", "x/docs/a.yaml"}),
        ("[/docs/]", {"docs/a.yaml", "docs/deep/b.yaml"}),
        ("['docs/**/b.yaml']", {"docs/deep/b.yaml"}),
        ("['*.json']", {"d.json", "x/e.json"}),
        ("['?.json', '!d.json']", {"x/e.json"}),
        ("['*', '!/a.yaml', '!/openfero.yaml']", None),
        ("['[d-e].json']", {"d.json", "x/e.json"}),
        ("[]", set()),
    ],
)
def test_patterns_are_those_of_gitignore(patterns: str, ignored: set[str] | None) -> None:
    """They are relative to the folder of `openfero.yaml`."""
    paths = ["a.yaml", "docs/a.yaml", "docs/deep/b.yaml", "x/docs/a.yaml", "d.json", "x/e.json"]
    expected = {*paths} - {"a.yaml"} if ignored is None else ignored
    # The configured path is not the root of the repository.
    files = {f"ops/{path}": "a: [\n" for path in paths if path != "a.yaml"}
    files |= {"ops/a.yaml": job("a"), "ops/openfero.yaml": f"ignore: {patterns}\n"}
    catalog = catalog_of(files, "ops")
    broken = {found.path.removeprefix("ops/") for found in catalog.problems}
    assert broken == {*paths} - {"a.yaml"} - expected
    assert {path.removeprefix("ops/") for path in reasons(catalog)} == expected
    assert len(catalog.operarios) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("docs/", 'not "docs/"'),
        ("[1]", "a list of patterns as in .gitignore"),
        ("[openfero.yaml]", 'they ignore openfero.yaml itself; add "!/openfero.yaml" at the end'),
        ("['*.yaml']", "they ignore openfero.yaml itself"),
        ("['*']", "they ignore openfero.yaml itself"),
        ("['**/openfero.y?ml']", "they ignore openfero.yaml itself"),
        ("['# docs']", '"# docs" matches no path'),
        ("['']", '"" matches no path'),
        ("['[a']", '"[a" matches no path'),
        ("['!']", '"!" matches no path'),
        ("['\\']", "matches no path"),
        (f"[{'a' * 300}]", "has more than 256 characters"),
        ('["a\\nb"]', "contains a character that cannot be printed"),
        (f"[{','.join(['a'] * 101)}]", "there are 101, more than 100"),
    ],
)
def test_patterns_that_cannot_be_used_refuse_the_revision(value: str, words: str) -> None:
    """The message says which pattern it is, and why."""
    with pytest.raises(CatalogRefusal) as refused:
        catalog_of({"a.yaml": job("a"), "openfero.yaml": f"ignore: {value}\n"})
    (found,) = [p for p in refused.value.problems if p.is_error]
    assert (found.rule, found.pointer) == ("envelope-value", "/ignore")
    assert words in found.message


def test_an_ignored_file_is_not_broken() -> None:
    """No earlier version of it is looked for, and its operario is gone."""
    files = {"a.yaml": "a: [\n", "openfero.yaml": "ignore: []\n"}
    assert broken_paths(catalog_of(files)) == ("a.yaml",)
    files["openfero.yaml"] = "ignore: [a.yaml]\n"
    assert broken_paths(catalog_of(files)) == ()


def test_ignored_paths_have_no_problems_of_the_source() -> None:
    """Large files, symlinks and submodules below a pattern are not reported."""
    problems = [problem("docs/big.json"), problem("vendor", SUBMODULE), problem("chart/big.yaml")]
    files = {"a.yaml": job("a"), "chart/Chart.yaml": CHART}
    assert len(catalog_of(files, "", *problems).problems) == 2
    files["openfero.yaml"] = "ignore: [docs/, vendor/]\n"
    catalog = catalog_of(files, "", *problems)
    assert catalog.problems == ()
    assert {*reasons(catalog)} == {"docs/big.json", "vendor/", "chart/"}


def test_what_a_source_ignores_is_listed_once() -> None:
    """A large file below a pattern has the pattern as its reason, one in a chart is part of it."""
    entries = [Ignored(path, "", "too large") for path in ("a.json", "chart/b.json", "c.json")]
    snapshot = snapshot_of({"chart/Chart.yaml": CHART, "openfero.yaml": "ignore: [a.json]\n"})
    catalog = build_catalog(replace(snapshot, ignored=tuple(entries)), SCOPE)
    assert reasons(catalog) == {
        "a.json": 'matches "a.json" of ignore in openfero.yaml',
        "chart/": "part of a Helm chart (Chart.yaml)",
        "c.json": "too large",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a\n" * 100_001, "the file has more than 100000 values, and no operario in it"),
        ("---\na: 1\n" * 1_001, "the file has more than 1000 documents, and no operario in it"),
        (f"a: {'x' * 600_000}\n", "bytes; at most 524288 are allowed, and no operario in it"),
    ],
)
def test_what_is_too_large_to_be_parsed_is_ignored_without_an_operario(
    text: str, reason: str
) -> None:
    """With an operario in it, it is an error."""
    catalog = catalog_of({"a.yaml": text})
    assert catalog.problems == ()
    assert reasons(catalog)["a.yaml"].endswith(reason)
    (found,) = catalog_of({"a.yaml": f"# openfero-a-firing\n{text}"}).problems
    assert found.rule in {"file-too-large", "too-many-documents"}


@pytest.mark.parametrize("name", ["openfero.YAML", "OpenFero.Yml", "openfero.JSON"])
def test_an_envelope_with_another_suffix_is_not_ignored(name: str) -> None:
    """Its author believes in its limits."""
    entry = Ignored(name, "", "its name ends with .YAML")
    with pytest.raises(CatalogRefusal) as refused:
        build_catalog(replace(snapshot_of({"a.yaml": job("a")}), ignored=(entry,)), SCOPE)
    assert [(p.path, p.rule) for p in refused.value.problems] == [(name, "envelope-name")]
    both = snapshot_of({"a.yaml": job("a"), "openfero.yaml": ""})
    problems = build_catalog(replace(both, ignored=(entry,)), SCOPE).problems
    assert [(p.path, p.rule) for p in problems] == [(name, "envelope-name")]


def test_a_chart_at_the_configured_path_hides_its_own_folders_only() -> None:
    """The operarios beside it are read."""
    files = {
        "x/Chart.yaml": CHART,
        "x/values.yaml": "a: 1\n",
        "x/templates/job.yaml": TEMPLATE,
        "x/charts/b/templates/job.yaml": TEMPLATE,
        "x/operarios/a.yaml": job("a"),
    }
    catalog = catalog_of(files, "x")
    assert catalog.problems == ()
    assert len(catalog.operarios) == 1
    assert {*reasons(catalog)} == {"x/templates/", "x/charts/"}


@pytest.mark.parametrize("name", ["chart.yaml", "Chart.yml", "Chart.yaml.bak", "MyChart.yaml"])
def test_only_a_chart_file_makes_a_chart(name: str) -> None:
    """Helm knows no other name."""
    catalog = catalog_of({f"c/{name}": CHART, "c/a.yaml": job("a")})
    assert len(catalog.operarios) == 1


def test_hostile_patterns_take_linear_time() -> None:
    """A pattern with many wildcards cannot delay a sync."""
    pattern = "*a" * 120 + "b"
    began = time.process_time()
    files = {"openfero.yaml": f"ignore: ['{pattern}']\n"}
    files |= {f"{'a' * 200}/{'a' * 200}{number}.yaml": "a: 1\n" for number in range(300)}
    assert reasons(catalog_of(files)) == {}
    assert time.process_time() - began < 10


def test_what_diff_reads_is_what_the_catalog_reads() -> None:
    """Ignored files are left out of a snapshot, and the change of patterns is a change."""
    snapshot = snapshot_of({"a.yaml": job("a"), "docs/role.yaml": "kind: Role\n"})
    considered, ignored = select_considered(snapshot, Envelope(ignore=("docs/",)))
    assert [file.path for file in considered.files] == ["a.yaml"]
    assert [entry.path for entry in ignored] == ["docs/role.yaml"]
    assert select_considered(snapshot, Envelope()) == (snapshot, ())
    before = Envelope()
    (change,) = envelope_changes(before, replace(before, ignore=("docs/",)))
    assert [str(part) for part in change.sentence] == ["ignore: now ", "docs/"]


DISABLED = "  labels: {openfero/job-disabled: %s}\n"


def config_map(labels: str = "") -> str:
    """Return an operario as a ConfigMap."""
    text = job("disk").replace("\n", "\n    ")
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: openfero-Disk-firing\n{labels}"
        f"data:\n  Disk: |\n    {text}\n"
    )


def operarius(labels: str = "", spec: str = "") -> str:
    """Return an operario as an Operarius."""
    text = job("disk").partition("spec:\n")[2].replace("\n", "\n      ")
    return (
        f"apiVersion: openfero.io/v1alpha1\nkind: Operarius\nmetadata:\n  name: disk\n{labels}"
        f"spec:\n{spec}  alertSelector: {{alertname: Disk, status: firing}}\n"
        f"  jobTemplate:\n    spec:\n      {text}\n"
    )


@pytest.mark.parametrize("text", [job("disk", DISABLED), config_map(DISABLED), operarius(DISABLED)])
@pytest.mark.parametrize("value", ['"true"', "true", '"True"', "yes", '"yes"', '"1"', "1", "ja"])
def test_a_definition_that_openfero_disables_is_disabled(text: str, value: str) -> None:
    """The label counts with any value, in all three forms, and the catalog says so."""
    catalog = catalog_of({"a.yaml": text.replace("%s", value)})
    assert catalog.problems == ()
    (operario,) = catalog.operarios
    assert not operario.options.enabled
    (entry,) = catalog.ignored
    assert entry.path == "a.yaml"
    assert entry.kind in ("Job", "ConfigMap", "Operarius")
    assert entry.reason.startswith('disabled by the label openfero/job-disabled: "')


def test_false_disables_too_and_the_reason_says_so() -> None:
    """OpenFero does not read the value; an empty one disables nothing."""
    catalog = catalog_of({"a.yaml": job("a", DISABLED.replace("%s", '"false"'))})
    assert not catalog.operarios[0].options.enabled
    assert catalog.ignored[0].reason.endswith('"false", which disables it with any value')
    catalog = catalog_of({"a.yaml": job("a", DISABLED.replace("%s", '""'))})
    assert catalog.operarios[0].options.enabled
    assert catalog.ignored == ()


def test_a_disabled_definition_with_an_error_does_not_bring_its_past_back() -> None:
    """It is ignored, so that no earlier version, which was not disabled, is used."""
    broken = job("a", DISABLED.replace("%s", '"true"')).replace("Never", "Always")
    older = {"a.yaml": [SourceFile("a.yaml", "", job("a").encode(), "0" * 40)]}
    catalog = build_catalog(snapshot_of({"a.yaml": broken}), SCOPE, older)
    assert (catalog.problems, catalog.operarios) == ((), ())
    assert [entry.kind for entry in catalog.ignored] == ["Job"]


@pytest.mark.parametrize(
    "text",
    [
        job("a", '  annotations: {openfero.io/enabled: "false"}\n'),
        operarius(spec="  enabled: false\n"),
    ],
)
def test_an_operario_that_is_not_enabled_is_listed(text: str) -> None:
    """It is in the catalog, but nothing starts it."""
    catalog = catalog_of({"a.yaml": text})
    assert [operario.options.enabled for operario in catalog.operarios] == [False]
    assert catalog.ignored[0].reason == "disabled (enabled: false)"
