"""Test data of each rule: a file or a path that violates it, and one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.domain.rule import RULES
from openfero_gitops.sources.tree import Budgets, Entry, Kind, Wanted, assemble, select
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from openfero_gitops.domain.problem import Problem


BAD = FIXTURES / "rules" / "bad"
GOOD = FIXTURES / "rules" / "good"
#: Examples for docs/reference/rules.md that cannot be shown as a file.
IN_WORDS = yaml.safe_load((FIXTURES / "rules" / "in_words.yaml").read_text("utf-8"))
SCOPE = Scope("jobs", ("jobs",))
REVISION = Revision("repository", "main", "commit")
# Contents that are too large for a fixture file: bad, good.
MADE = {
    "file-too-large": (b"openfero-" + b"#" * (512 * 1024), b"openfero-" + b"#" * (512 * 1024 - 9)),
    "too-complex": (
        b"kind: Job\napiVersion: batch/v1\nmetadata: {name: openfero-a-firing}\nspec:\n"
        b"  template: {spec: {containers: [" + b"{name: a}," * 20_000 + b"]}}\n",
        b"kind: Service\nitems: [" + b"{name: a}," * 20_000 + b"]\n",
    ),
    "too-many-documents": (
        b"---\n" * 1000 + b"--- {} # <- here openfero-\n",
        b"---\n" * 999 + b"--- {} # openfero-\n",
    ),
}
# Rules about what is not in a file are tested with the catalog.
ABSENT = {"envelope-missing", "more-problems"}
OF_THE_ENVELOPE = {"short-remember", "namespace-not-granted"}
# Entries of a repository before anything is parsed: bad, good.
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PATHS: dict[str, tuple[list[Entry], list[Entry]]] = {
    "path-too-long": ([Entry(b"a" * 4092 + b".yaml", Kind.FILE)], [Entry(b"a.yaml", Kind.FILE)]),
    "path-too-deep": (
        [Entry(b"a/" * 33 + b"a.yaml", Kind.FILE)],
        [Entry(b"a/" * 32 + b"a.yaml", Kind.FILE)],
    ),
    "path-not-utf-8": (
        [Entry("caf\xe9.yaml".encode("latin-1"), Kind.FILE)],
        [Entry("caf\xe9.yaml".encode(), Kind.FILE)],
    ),
    "path-not-printable": (
        [Entry("a\u202e.yaml".encode(), Kind.FILE)],
        [Entry("\u00e5.yaml".encode(), Kind.FILE)],
    ),
    "not-a-file": ([Entry(b"a.yaml", Kind.OTHER)], [Entry(b"a.yaml", Kind.FILE)]),
    "symlink": ([Entry(b"a.yaml", Kind.LINK)], [Entry(b"a.yaml", Kind.FILE)]),
    "linked-folder": ([Entry(b"shared", Kind.LINK)], [Entry(b"shared/a.yaml", Kind.FILE)]),
    "submodule": ([Entry(b"shared", Kind.SUBMODULE)], [Entry(b"shared/a.yaml", Kind.FILE)]),
    "case-twins": (
        [Entry(b"disk.yaml", Kind.FILE), Entry(b"Disk.yaml", Kind.FILE)],
        [Entry(b"disk.yaml", Kind.FILE), Entry(b"disks.yaml", Kind.FILE)],
    ),
    "lfs-pointer": ([Entry(b"lfs.yaml", Kind.FILE)], [Entry(b"a.yaml", Kind.FILE)]),
}
IN_A_FILE = sorted(RULES.keys() - ABSENT - PATHS.keys())


def problems_of(content: bytes, path: str, scope: Scope = SCOPE) -> tuple[Problem, ...]:
    """Return all problems of a repository with a single file."""
    snapshot = Snapshot(REVISION, "", (SourceFile(path, "", content, "commit"),))
    try:
        return build_catalog(snapshot, scope).problems
    except CatalogRefusal as refusal:
        return refusal.problems


def problems_of_paths(entries: list[Entry]) -> tuple[Problem, ...]:
    """All problems of the entries of a repository."""
    chosen = select(entries, root="", budgets=Budgets(), where="repository", commit="commit")

    def content(file: Wanted) -> bytes:
        return POINTER if file.path == "lfs.yaml" else b""

    return assemble(
        REVISION, "", chosen, {file.path: content(file) for file in chosen.wanted}
    ).problems


def path_of(rule: str, *, fixed: bool = False) -> str:
    """The path of a rule's fixture in its repository."""
    if rule == "envelope-name":
        return "openfero.yaml" if fixed else "openfero.yml"
    is_envelope = rule.startswith("envelope-") or rule in OF_THE_ENVELOPE
    return "openfero.yaml" if is_envelope else "disks/full.yaml"
