from __future__ import annotations

import gc
import hashlib
import resource
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog import files as reading
from openfero_gitops.catalog.build import Scope, broken_paths, build_catalog
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import (
    Catalog,
    Envelope,
    Revision,
    Snapshot,
    SourceFile,
)
from openfero_gitops.domain.errors import CatalogRefusal, UsageError
from openfero_gitops.domain.operario import Form, Origin
from openfero_gitops.domain.problem import Ignored, Problem, Severity
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = "1" * 40
BEFORE = "0" * 40
SCOPE = Scope("jobs", ("jobs", "payments"))


def job(
    name: str, *, image: str = "tools:1", extra: str = "", spec: str = "", pod: str = ""
) -> str:
    """Return a valid operario as YAML."""
    return (
        f"apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: openfero-{name}-firing\n{extra}"
        f"spec:\n{spec}  template:\n    spec:\n{pod}      restartPolicy: Never\n"
        f"      automountServiceAccountToken: false\n      containers:\n"
        f"        - name: a\n          image: {image}\n          resources:\n"
        "            limits: {memory: 1Mi}\n"
    )


BROKEN = job("a", spec="  backoffLimit: many\n")


def file(path: str, text: str | bytes, commit: str = NOW) -> SourceFile:
    """Return a file as Git would return it."""
    content = text.encode() if isinstance(text, str) else text
    blob = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return SourceFile(path, blob, content, commit, "Ada <ada@example.com>", "2026-11-21T10:00:00Z")


def snapshot(*files: SourceFile, root: str = "", problems: Sequence[Problem] = ()) -> Snapshot:
    """Return a snapshot of these files."""
    return Snapshot(Revision("repository", "main", NOW), root, files, tuple(problems))


def build(*files: SourceFile, scope: Scope = SCOPE, **older: list[SourceFile]) -> Catalog:
    """Build a catalog; `older` maps the stem of a root path to the file's older versions."""
    versions = {f"{stem}.yaml": files_of for stem, files_of in older.items()}
    return build_catalog(snapshot(*files), scope, versions)


def names(catalog: Catalog) -> list[str]:
    """Return the names of the active operarios."""
    return [operario.name.removeprefix("openfero-") for operario in catalog.operarios]


def rules(catalog: Catalog) -> list[tuple[str, str]]:
    """Return the path and rule of each problem."""
    return [(problem.path, problem.rule) for problem in catalog.problems]


def test_operarios_are_ordered_by_path_and_document() -> None:
    """Operarios are in the order of their paths and documents, each with its origin."""
    catalog = build(
        file("z.yaml", job("z")),
        file("b/two.yaml", "---\n" + job("b1") + "---\n" + job("b2")),
        file("a.yaml", job("a")),
        file("rbac.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x}\n---\n[]\n"),
    )
    assert names(catalog) == ["a-firing", "b1-firing", "b2-firing", "z-firing"]
    assert catalog.problems == ()
    assert catalog.ignored == (Ignored("rbac.yaml", "ServiceAccount"), Ignored("rbac.yaml", ""))
    first, _, third, _ = catalog.operarios
    assert (first.alertname, first.status, first.form) == ("a", Status.FIRING, Form.JOB)
    assert first.namespace is None
    assert third.origin == Origin(
        path="b/two.yaml",
        blob=file("", "---\n" + job("b1") + "---\n" + job("b2")).blob,
        commit=NOW,
        commit_author="Ada <ada@example.com>",
        commit_time="2026-11-21T10:00:00Z",
        document=1,
        stale=False,
    )
    assert [kept.path for kept in catalog.files] == ["a.yaml", "b/two.yaml", "z.yaml"]
    assert catalog.revision.commit == NOW
    assert not catalog.has_envelope
    assert catalog.envelope == Envelope()


def test_the_order_of_files_does_not_matter() -> None:
    """A catalog does not depend on the order in which files are listed."""
    files = [file("a.yaml", job("a")), file("b.yaml", job("a")), file("c.yaml", "a: [")]
    assert build(*files) == build(*reversed(files))


def test_a_name_belongs_to_the_first_path() -> None:
    """Of two operarios whose names differ in case at most, the later one is an error."""
    catalog = build(file("a.yaml", job("DISK")), file("b.yaml", job("disk") + "---\n" + job("c")))
    assert names(catalog) == ["DISK-firing", "c-firing"]
    (problem,) = catalog.problems
    assert (problem.path, problem.line, problem.rule) == ("b.yaml", 4, "duplicate-name")
    assert "in a.yaml" in problem.message
    assert broken_paths(catalog) == ("b.yaml",)


def test_a_broken_operario_still_owns_its_name() -> None:
    """A name stays with the first file even if that file has an error."""
    catalog = build(file("a.yaml", BROKEN), file("b.yaml", job("a")))
    assert names(catalog) == []
    assert rules(catalog) == [("a.yaml", "wrong-type"), ("b.yaml", "duplicate-name")]


def test_one_bad_operario_is_quarantined_alone() -> None:
    """The other documents of its file, and all other files, are active."""
    catalog = build(file("a.yaml", BROKEN + "---\n" + job("b")), file("c.yaml", job("c")))
    assert names(catalog) == ["b-firing", "c-firing"]
    assert rules(catalog) == [("a.yaml", "wrong-type")]
    assert [kept.path for kept in catalog.files] == ["a.yaml", "c.yaml"]


def test_a_syntax_error_quarantines_its_file() -> None:
    """No operario of a file with a syntax error is active; the problem has the file's commit."""
    catalog = build(file("a.yaml", job("a") + "---\na: [\n"), file("c.yaml", job("c")))
    assert names(catalog) == ["c-firing"]
    (problem,) = catalog.problems
    assert (problem.path, problem.rule, problem.commit) == ("a.yaml", "syntax", NOW)
    assert broken_paths(catalog) == ("a.yaml",)


def test_a_broken_file_is_replaced_by_its_newest_valid_version() -> None:
    """All operarios of a broken file come from its newest valid version."""
    catalog = build(
        file("a.yaml", job("a", image="new:2") + "---\n" + BROKEN.replace("-a-", "-b-")),
        a=[
            file("a.yaml", "a: [", "9" * 40),
            file("a.yaml", job("a", image="old:1") + "---\n" + job("b"), BEFORE),
            file("a.yaml", job("a", image="older:1"), "8" * 40),
        ],
    )
    assert names(catalog) == ["a-firing", "b-firing"]
    assert {operario.origin.commit for operario in catalog.operarios} == {BEFORE}
    assert all(operario.origin.stale for operario in catalog.operarios)
    assert "old:1" in str(catalog.operarios[0].job)
    assert rules(catalog) == [("a.yaml", "wrong-type")]
    assert [(kept.commit, kept.stale) for kept in catalog.files] == [(BEFORE, True)]
    assert broken_paths(catalog) == ("a.yaml",)


def test_without_a_valid_older_version_the_valid_documents_are_active() -> None:
    """If no older version is valid, the valid documents of the newest version are active."""
    catalog = build(
        file("a.yaml", BROKEN + "---\n" + job("b")), a=[file("a.yaml", BROKEN, BEFORE)] * 2
    )
    assert names(catalog) == ["b-firing"]
    assert not catalog.operarios[0].origin.stale


def test_an_older_version_must_be_valid_under_the_current_envelope() -> None:
    """An older version in a namespace that the envelope no longer allows is not used."""
    payments = job("a", extra="  namespace: payments\n")
    older = [file("a.yaml", payments, BEFORE), file("a.yaml", job("a", image="x:1"), "8" * 40)]
    envelope = file("openfero.yaml", "namespaces: [jobs]\n")
    assert build(file("a.yaml", BROKEN), a=older).operarios[0].origin.commit == BEFORE
    catalog = build(file("a.yaml", BROKEN), envelope, a=older)
    assert catalog.operarios[0].origin.commit == "8" * 40


def test_a_stale_version_cannot_use_the_name_of_a_current_one() -> None:
    """An operario that moved to another file is read there while its old file is broken."""
    catalog = build(
        file("a.yaml", "a: ["),
        file("b.yaml", job("moved")),
        a=[file("a.yaml", job("moved"), BEFORE), file("a.yaml", job("older"), "8" * 40)],
    )
    assert names(catalog) == ["older-firing", "moved-firing"]
    assert [operario.origin.stale for operario in catalog.operarios] == [True, False]


def test_two_stale_versions_do_not_share_a_name() -> None:
    """If two broken files once had the same name, the first path gets it."""
    catalog = build(
        file("a.yaml", "a: ["),
        file("b.yaml", "b: ["),
        a=[file("a.yaml", job("x"), BEFORE)],
        b=[file("b.yaml", job("x"), BEFORE), file("b.yaml", job("y"), BEFORE)],
    )
    assert names(catalog) == ["x-firing", "y-firing"]


def test_an_older_version_with_a_duplicate_name_is_skipped() -> None:
    """A version that has a name twice is not valid."""
    twice = job("x") + "---\n" + job("x")
    older = [file("a.yaml", twice, BEFORE), file("a.yaml", job("x"), "8" * 40)]
    assert build(file("a.yaml", "a: ["), a=older).operarios[0].origin.commit == "8" * 40


def test_a_duplicate_falls_back_to_its_earlier_name() -> None:
    """A file that duplicates a name is replaced by its last version with a unique name."""
    catalog = build(
        file("a.yaml", job("x")), file("b.yaml", job("x")), b=[file("b.yaml", job("y"), BEFORE)]
    )
    assert names(catalog) == ["x-firing", "y-firing"]
    assert rules(catalog) == [("b.yaml", "duplicate-name")]


def test_a_version_without_operarios_is_valid() -> None:
    """If the newest valid version has no operario, the file contributes none."""
    older = [file("a.yaml", "kind: Role\n", BEFORE), file("a.yaml", job("x"), "8" * 40)]
    catalog = build(file("a.yaml", BROKEN + "---\n" + job("b")), a=older)
    assert names(catalog) == []
    assert catalog.files == ()


def test_older_versions_of_a_valid_file_are_not_used() -> None:
    """A file without errors is active in its current version."""
    catalog = build(file("a.yaml", job("a")), a=[file("a.yaml", job("old"), BEFORE)])
    assert names(catalog) == ["a-firing"]


def test_a_file_that_could_not_be_read_keeps_its_older_version() -> None:
    """A file that is too large is replaced like a broken one; a removed file is not."""
    too_large = Problem("a.yaml", 0, 0, "", "file-too-large", Severity.ERROR, "too large", "", NOW)
    older = {"a.yaml": [file("a.yaml", job("a"), BEFORE)]}
    unread = snapshot(file("b.yaml", job("b")), problems=[too_large])
    assert broken_paths(build_catalog(unread, SCOPE)) == ("a.yaml",)
    catalog = build_catalog(unread, SCOPE, older)
    assert names(catalog) == ["a-firing", "b-firing"]
    assert too_large in catalog.problems
    removed = build_catalog(snapshot(file("b.yaml", job("b"))), SCOPE)
    assert names(removed) == ["b-firing"]
    assert broken_paths(removed) == ()


def test_a_mirrored_stale_file_is_still_stale() -> None:
    """A stale file from the mirror keeps its commit and its stale mark."""
    kept = replace(file("a.yaml", job("a"), BEFORE), stale=True)
    (operario,) = build(kept).operarios
    assert (operario.origin.commit, operario.origin.stale) == (BEFORE, True)


# Namespaces.

WRAPPED = (
    "apiVersion: openfero.io/v1alpha1\nkind: Operarius\nmetadata:\n  name: a\n  namespace: {}\n"
    "spec:\n  alertSelector: {{alertname: A, status: firing}}\n  jobTemplate:\n{}    spec:\n"
    "      template:\n        spec:\n          restartPolicy: Never\n"
    "          automountServiceAccountToken: false\n          containers:\n"
    "            - {{name: a, image: 'b:1', resources: {{limits: {{memory: 1Mi}}}}}}\n"
)


@pytest.mark.parametrize(
    ("text", "scope", "envelope", "namespace", "rule"),
    [
        (job("a"), SCOPE, "", None, None),
        (job("a", extra="  namespace: payments\n"), SCOPE, "", "payments", None),
        (job("a", extra="  namespace: jobs\n"), Scope("jobs", ()), "", "jobs", None),
        (job("a", extra="  namespace: other\n"), SCOPE, "", None, "namespace-not-allowed"),
        (job("a", extra="  namespace: other\n"), Scope(), "", "other", None),
        (job("a", extra="  namespace: No Name\n"), Scope(), "", None, "namespace-not-allowed"),
        (
            job("a", extra="  namespace: payments\n"),
            SCOPE,
            "namespaces: [jobs]",
            None,
            "namespace-not-allowed",
        ),
        (job("a"), SCOPE, "namespaces: [payments]", None, "namespace-not-allowed"),
        (job("a"), Scope(), "namespaces: [payments]", None, None),
        (WRAPPED.format("payments", ""), SCOPE, "", "payments", None),
        (WRAPPED.format("openfero", ""), SCOPE, "", None, "namespace-ignored"),
        (
            WRAPPED.format("openfero", "    metadata: {namespace: payments}\n"),
            SCOPE,
            "",
            "payments",
            None,
        ),
        (
            WRAPPED.format("payments", "    metadata: {namespace: other}\n"),
            SCOPE,
            "",
            None,
            "namespace-not-allowed",
        ),
    ],
)
def test_a_job_runs_only_in_an_allowed_namespace(
    text: str, scope: Scope, envelope: str, namespace: str | None, rule: str | None
) -> None:
    """The namespace is the Job's, else the wrapper's if allowed; a forbidden one is an error."""
    catalog = build(file("a.yaml", text), file("openfero.yaml", envelope), scope=scope)
    rule_ids = [problem.rule for problem in catalog.problems if problem.path == "a.yaml"]
    assert rule_ids == ([rule] if rule else [])
    if rule == "namespace-not-allowed":
        assert catalog.operarios == ()
    else:
        assert [operario.namespace for operario in catalog.operarios] == [namespace]


def test_a_forbidden_namespace_is_reported_at_its_line() -> None:
    """The problem has the line of the namespace and says who does not allow it."""
    (problem,) = build(file("a.yaml", job("a", extra="  namespace: other\n"))).problems
    assert (problem.line, problem.column, problem.pointer) == (5, 3, "/metadata/namespace")
    assert problem.message == "namespace other is not granted to the controller"


# Rules that depend on the repository and its envelope.


def test_a_ttl_is_compared_with_remember() -> None:
    """Only a TTL below the envelope's remember causes a warning."""
    short = file("a.yaml", job("a", spec="  ttlSecondsAfterFinished: 3600\n"))
    assert rules(build(short)) == [("a.yaml", "ttl-below-remember")]
    remember = file("openfero.yaml", "remember: 1h\n")
    assert [rule for path, rule in rules(build(short, remember)) if path == "a.yaml"] == []


def test_a_default_of_the_envelope_must_be_valid_for_the_job() -> None:
    """The podReplacementPolicy of the envelope can conflict with a Job's podFailurePolicy."""
    policy = (
        "  podFailurePolicy:\n    rules:\n"
        "      - {action: FailJob, onExitCodes: {operator: In, values: [42]}}\n"
    )
    envelope = file("openfero.yaml", "defaults: {podReplacementPolicy: TerminatingOrFailed}\n")
    with_policy = file("a.yaml", job("a", spec=policy))
    assert rules(build(with_policy)) == []
    assert rules(build(with_policy, envelope)) == [("a.yaml", "pod-failure-policy")]
    explicit = file("a.yaml", job("a", spec=policy + "  podReplacementPolicy: Failed\n"))
    assert rules(build(explicit, envelope)) == []


@pytest.mark.parametrize(
    ("pod", "pointers"),
    [
        ("      serviceAccountName: healer\n", []),
        ("      serviceAccount: healer\n", []),
        ("      serviceAccountName: default\n", []),
        ("      serviceAccountName: other\n", ["/spec/template/spec/serviceAccountName"]),
        ("      serviceAccount: other\n", ["/spec/template/spec/serviceAccount"]),
    ],
)
def test_a_missing_service_account_is_a_warning(pod: str, pointers: list[str]) -> None:
    """A Job whose ServiceAccount no file defines is active, with a warning."""
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: healer}\n"
    catalog = build(file("a.yaml", job("a", pod=pod)), file("b/rbac.yaml", account))
    assert [problem.pointer for problem in catalog.problems] == pointers
    assert names(catalog) == ["a-firing"]


# The envelope.


def refused(*files: SourceFile, previous: bool = False, **around: object) -> CatalogRefusal:
    """Build a catalog from files that must be refused, and return the refusal."""
    with pytest.raises(CatalogRefusal) as caught:
        build_catalog(
            snapshot(*files, **around),  # type: ignore[arg-type]
            SCOPE,
            previous_has_envelope=previous,
        )
    return caught.value


@pytest.mark.parametrize("root", ["", "ops/healing"])
def test_the_envelope_is_at_the_root_of_the_path(root: str) -> None:
    """An openfero.yaml at the root of the configured path is the envelope; any other is not."""
    at_root = f"{root}/openfero.yaml" if root else "openfero.yaml"
    catalog = build_catalog(
        snapshot(
            file(at_root, "paused: true\n"),
            file("elsewhere/openfero.yaml", "paused: false\n"),
            file("z.yaml", job("z")),
            root=root,
        ),
        SCOPE,
    )
    assert catalog.envelope.paused
    assert catalog.has_envelope
    assert catalog.root == root
    assert [kept.path for kept in catalog.files] == [at_root, "z.yaml"]
    assert catalog.ignored == (Ignored("elsewhere/openfero.yaml", ""),)


@pytest.mark.parametrize(
    ("text", "rule", "paused"),
    [
        ("limits: {concurent: 1}\n", "envelope-key", False),
        ("limits: {concurent: 1}\npaused: true\n", "envelope-key", True),
        ("paused: [\n", "syntax", False),
        ("limits: [\npaused: true\n", "syntax", True),
        ("paused: false\n---\npaused: true\n", "envelope-documents", True),
        ("a: 1\na: 2\n", "duplicate-key", False),
    ],
)
def test_a_broken_envelope_refuses_the_whole_revision(
    text: str, rule: str, *, paused: bool
) -> None:
    """A revision with an invalid envelope is refused, but its pause takes effect."""
    refusal = refused(file("openfero.yaml", text), file("a.yaml", job("a")))
    assert [problem.rule for problem in refusal.problems] == [rule]
    assert refusal.paused is paused
    assert str(refusal).startswith("openfero.yaml:")
    assert str(refusal).endswith("; the active catalog is kept")
    assert "\n" not in str(refusal)


def test_a_deleted_envelope_is_refused() -> None:
    """Deleting the envelope is refused; emptying it removes the limits."""
    refusal = refused(file("a.yaml", job("a")), previous=True)
    assert [problem.rule for problem in refusal.problems] == ["envelope-missing"]
    assert not refusal.paused
    assert "openfero.yaml was deleted" in str(refusal)
    emptied = snapshot(file("a.yaml", job("a")), file("openfero.yaml", ""))
    assert build_catalog(emptied, SCOPE, previous_has_envelope=True).envelope == Envelope()


@pytest.mark.parametrize("name", ["openfero.yml", "openfero.json", "OpenFero.yaml"])
def test_an_envelope_by_another_name_is_refused(name: str) -> None:
    """A misnamed envelope refuses the revision if there is no other, and its pause takes effect."""
    refusal = refused(file(name, '{"paused": true}'), file("a.yaml", job("a")), previous=True)
    assert [problem.rule for problem in refusal.problems] == ["envelope-name"]
    assert refusal.paused
    beside = build(file(name, "{}"), file("openfero.yaml", ""), file("a.yaml", job("a")))
    assert rules(beside) == [(name, "envelope-name")]
    assert broken_paths(beside) == ()


def test_an_envelope_that_could_not_be_read_is_refused() -> None:
    """An openfero.yaml that is a symlink or too large refuses the revision."""
    link = Problem("openfero.yaml", 0, 0, "", "symlink", Severity.ERROR, "not followed", "", NOW)
    refusal = refused(file("a.yaml", job("a")), problems=[link])
    assert refusal.problems == (link,)
    assert str(refusal).startswith("openfero.yaml: not followed")


def test_warnings_about_the_envelope_do_not_refuse_the_revision() -> None:
    """Warnings about the envelope are problems of the catalog."""
    catalog = build(file("openfero.yaml", "remember: 1h\nnamespaces: [jobs, other]\n"))
    assert rules(catalog) == [
        ("openfero.yaml", "short-remember"),
        ("openfero.yaml", "namespace-not-granted"),
    ]
    assert broken_paths(catalog) == ()


# The memo.


def test_only_a_changed_file_is_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memo, unchanged content is not parsed again for a new commit."""
    read: list[bytes] = []
    load = reading.load

    def counted(content: bytes, **options: Any) -> list[object]:
        read.append(content)
        return load(content, **options)

    monkeypatch.setattr(reading, "load", counted)
    memo = FileMemo("1.36")
    files = [file(f"{name}.yaml", job(name)) for name in "abc"] + [file("d.yaml", BROKEN)]
    first = build_catalog(snapshot(*files), SCOPE, memo=memo)
    assert len(read) == 4
    files[0] = file("a.yaml", job("a", image="tools:2"))
    later = [replace(unchanged, commit="2" * 40) for unchanged in files]
    second = build_catalog(snapshot(*later), SCOPE, memo=memo)
    assert read[4:] == [files[0].content]
    assert {operario.origin.commit for operario in second.operarios} == {"2" * 40}
    assert {problem.commit for problem in second.problems} == {"2" * 40}
    assert second == build_catalog(snapshot(*later), SCOPE)
    assert first != second


def text_for(chance: Random) -> str:
    """Return a file that shares names, alerts and ServiceAccounts with others, or is broken."""
    name, number = chance.choice("abcdef"), chance.randrange(3)
    priority = f'  annotations: {{openfero.io/priority: "{number}"}}\n'
    same = f"  annotations: {{openfero.io/alertname: A{number}}}\n"
    account = f"apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: x{number}}}\n"
    return chance.choice(
        [
            job(name, extra=priority),
            job(name, extra=same),
            job(name, image=f"tools:{number}"),
            job(name, pod=f"      serviceAccountName: x{number}\n"),
            job(name) + "---\n" + job(chance.choice("abcdef")) + "---\n" + account,
            job(name, spec="  backoffLimit: many\n"),
            account,
            "kind: Other\n",
            "a: [\n",
        ]
    )


def outcome(
    now: Snapshot, older: dict[str, list[SourceFile]], memo: FileMemo
) -> tuple[Catalog | None, object]:
    """Return the catalog and its index, or the reason for its refusal."""
    try:
        catalog = build_catalog(now, SCOPE, older, memo=memo)
    except CatalogRefusal as refusal:
        return None, (str(refusal), refusal.problems)
    return catalog, dict(catalog.by_alert)


@pytest.mark.parametrize("seed", range(2))
def test_a_catalog_does_not_depend_on_earlier_builds(seed: int) -> None:
    """After any sequence of edits, a used memo gives the same catalog as an empty one."""
    chance = Random(seed)  # noqa: S311 - the same history each time
    memo = FileMemo(SCOPE.kubernetes_version)
    files: dict[str, SourceFile] = {}
    envelopes = ["remember: 2h\n", "namespaces: [payments]\n", "pauzed: true\n", ""]
    refused = 0
    for _ in range(60):
        for _ in range(chance.choice([0, 1, 1, 1, 2, 12])):
            path = chance.choice(["a", "b", "c/d", "c/e", "f", "g", "h"]) + ".yaml"
            files.pop(path, None)
            if chance.random() < 0.8:
                files[path] = replace(file(path, text_for(chance)), commit="")
        for path in ("openfero.yaml", "c/openfero.yaml", "OpenFero.yml"):
            if chance.random() < 0.1 and not files.pop(path, None):
                files[path] = replace(file(path, chance.choice(envelopes)), commit="")
        root = chance.choice(["", "", "", "c"])
        selected = tuple(files[path] for path in sorted(files) if path.startswith(root))
        older = {"a.yaml": [file("a.yaml", text_for(chance), BEFORE)]}
        now = snapshot(*selected, root=root)
        for versions in ({}, older):
            built = outcome(now, versions, memo)
            assert built == outcome(now, versions, FileMemo(SCOPE.kubernetes_version))
            refused += built[0] is None
        if chance.random() < 0.7:
            memo.forget_unused()

    assert 0 < refused < 100


def test_equal_content_under_two_paths_keeps_two_paths() -> None:
    """Problems of equal content are reported for each path."""
    memo = FileMemo("1.36")
    files = [file("a.yaml", "a: ["), file("b.yaml", "a: [")]
    catalog = build_catalog(snapshot(*files), SCOPE, memo=memo)
    assert [problem.path for problem in catalog.problems] == ["a.yaml", "b.yaml"]
    as_json = [file("a.yaml", "{'a': 1}"), file("b.json", "{'a': 1}")]
    catalog = build_catalog(snapshot(*as_json), SCOPE, memo=memo)
    assert [problem.path for problem in catalog.problems] == ["b.json"]


def test_the_memo_is_bounded() -> None:
    """The memo keeps only the readings that the last build used."""
    memo = FileMemo("1.36")
    for number in range(10):
        files = [file(f"{name}.yaml", job(name, image=f"tools:{number}")) for name in "abcd"]
        catalog = build_catalog(snapshot(*files), SCOPE, memo=memo)
        memo.forget_unused()
        assert names(catalog) == ["a-firing", "b-firing", "c-firing", "d-firing"]
        assert len(memo._readings) == len(files)


def test_a_catalog_is_freed_with_its_last_reference() -> None:
    """Neither a catalog nor its parts contain reference cycles, which would slow down the GC."""
    memo = FileMemo("1.36")
    files = [file(f"{name}.yaml", job(name)) for name in "abc"]
    files += [file("d.yaml", BROKEN), file("e.yaml", "a: [")]
    older = {"d.yaml": [file("d.yaml", job("d"))], "e.yaml": [file("e.yaml", "a: {")]}
    build_catalog(snapshot(*files), SCOPE, older, memo=memo)
    gc.collect()
    gc.disable()
    try:
        for number in range(3):
            changed = [file(f"{name}.yaml", job(name, image=f"tools:{number}")) for name in "abc"]
            catalog = build_catalog(snapshot(*changed, *files[3:]), SCOPE, older, memo=memo)
            memo.forget_unused()
        assert names(catalog) == ["a-firing", "b-firing", "c-firing", "d-firing"]
        del catalog, changed, memo
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_an_unknown_kubernetes_version_is_a_usage_error() -> None:
    """A version without a schema is an error before any file is read."""
    with pytest.raises(UsageError, match=r"1\.99"):
        build(file("a.yaml", job("a")), scope=Scope(kubernetes_version="1.99"))


def test_a_large_repository_takes_seconds() -> None:
    """A large repository is parsed and validated within seconds, on one core."""
    files = [file(f"{number:05}.yaml", job(f"a{number}")) for number in range(500)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    catalog = build(*files)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    assert len(catalog.operarios) == 500
    assert taken < 10  # measured: about 0.3; the machine may be shared


EXAMPLE = ROOT / "operarios-example"


def test_the_example_repository_has_no_problem() -> None:
    """The starter repository has neither an error nor a warning."""
    files = [
        file(path.relative_to(EXAMPLE).as_posix(), path.read_bytes())
        for path in sorted(EXAMPLE.rglob("*.yaml"))
        if not {"tests", "_"} & set(path.relative_to(EXAMPLE).parts)
    ]
    catalog = build_catalog(snapshot(*files), Scope("openfero-jobs", ("openfero-jobs",)))
    assert catalog.problems == ()
    assert len(catalog.operarios) >= 10
    assert {operario.form for operario in catalog.operarios} == set(Form)
    assert catalog.has_envelope
