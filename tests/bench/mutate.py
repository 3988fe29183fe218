"""`make mutate`: make small mistakes one by one in a copy, and check that a test notices.

A seeded sample of places in the pure modules is changed: a comparison, a boolean operator, a
number, a `not`, a returned truth value. For each the module's tests run until the first failure.
A change that no test notices survives. It is either a missing test or explained in
docs/project/mutation.md by its line's text; the list of known survivors is read from there.

    make mutate COUNT=60 SEED=1
"""

from __future__ import annotations

import argparse
import ast
import copy
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


MAX_RUN_SECONDS: Final = 600  # seconds: a change may cause an endless loop
COPIED: Final = ("openfero_gitops", "tests", "operarios-example", "pyproject.toml", "docs")
#: Modules whose defects would be severe, and the tests that cover them.
SAMPLE: Final = {
    "delivery/attempt.py": ("delivery/test_attempt.py",),
    "catalog/validation/checks/network.py": (
        "catalog/validation/test_validate.py",
        "catalog/validation/test_rules.py",
    ),
    "catalog/validation/checks/resources.py": (
        "catalog/validation/test_validate.py",
        "catalog/validation/test_rules.py",
    ),
    "catalog/validation/checks/scheduling.py": (
        "catalog/validation/test_validate.py",
        "catalog/validation/test_rules.py",
    ),
    "catalog/validation/checks/system.py": (
        "catalog/validation/test_validate.py",
        "catalog/validation/test_rules.py",
    ),
    "admission/decide.py": ("admission/test_decide.py",),
    "catalog/yaml/document.py": ("catalog/yaml/test_document.py",),
    "jobs/environment.py": ("jobs/test_environment.py",),
    "delivery/match.py": ("delivery/test_match.py",),
    "domain/matcher_parser.py": ("domain/test_matcher_parser.py",),
    "jobs/observe.py": ("jobs/test_observe.py",),
    "catalog/options.py": ("catalog/test_options.py",),
    "jobs/patches.py": ("jobs/test_patches.py",),
    "delivery/alertmanager.py": ("delivery/test_alertmanager.py",),
    "jobs/render.py": ("jobs/test_render.py",),
    "jobs/template.py": ("jobs/test_template.py",),
}
_COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Change:
    """One change: its place, the original line, the edit, and the changed module."""

    module: str
    number: int
    line: str
    edit: str
    source: str

    def __str__(self) -> str:
        """Return a place that editors recognise, and the change."""
        return f"openfero_gitops/{self.module}:{self.number}: {self.edit}: {self.line}"


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield each possible replacement of a node, with a description."""
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in _COMPARED:
            variant = copy.deepcopy(node)
            variant.ops[0] = _COMPARED[type(operator)]()
            yield f"{ast.unparse(node)} -> {ast.unparse(variant)}", variant
        case ast.BoolOp():
            variant = copy.deepcopy(node)
            variant.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"{ast.unparse(node)} -> {ast.unparse(variant)}", variant
        case ast.UnaryOp(op=ast.Not()):
            yield f"{ast.unparse(node)} -> {ast.unparse(node.operand)}", node.operand
        case ast.Constant(value=bool(value)):
            yield f"{value} -> {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield f"{value} -> {value + 1}", ast.Constant(value + 1)
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            variant = copy.deepcopy(node)
            variant.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield f"{ast.unparse(node)} -> {ast.unparse(variant)}", variant
        case _:
            return


class _Swap(ast.NodeTransformer):
    """Replaces one node by another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)


def changes(module: str, text: str) -> Iterator[Change]:
    """Yield every supported change of a module's functions, except in annotations."""
    lines = text.splitlines()
    for index, place in enumerate(_places(ast.parse(text))):
        for edit, _ in _variants(place):
            tree = ast.parse(text)
            node = _places(tree)[index]
            ((_, new),) = _variants(node)
            number = getattr(place, "lineno", 0)
            changed = ast.unparse(ast.fix_missing_locations(_Swap(node, new).visit(tree)))
            yield Change(module, number, lines[number - 1].strip(), edit, changed)


def _places(tree: ast.Module) -> list[ast.AST]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = [node for function in functions for line in function.body for node in ast.walk(line)]
    return [node for node in dict.fromkeys(nodes) if any(True for _ in _variants(node))]


def chosen(seed: int, count: int) -> list[Change]:
    """Return a random sample of all changes."""
    every = [
        change
        for module in sorted(SAMPLE)
        for change in changes(module, (ROOT / "openfero_gitops" / module).read_text())
    ]
    draw = random.Random(seed)  # noqa: S311 (the same sample again)
    return draw.sample(every, min(count, len(every)))


def explained() -> set[str]:
    """Return the lines of the survivors that docs/project/mutation.md explains."""
    page = (ROOT / "docs/project/mutation.md").read_text()
    return set(re.findall(r"^\| `(.+?)` \|", page, flags=re.MULTILINE))


def survives(change: Change, folder: Path) -> bool:
    """Whether the module's tests pass with the change in the copy."""
    file = folder / "openfero_gitops" / change.module
    before = file.read_text()
    file.write_text(change.source)
    tests = [f"tests/unit/{name}" for name in SAMPLE[change.module]]
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=MAX_RUN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    finally:
        file.write_text(before)
    return done.returncode == 0


def main() -> int:
    """Run a sample; return 1 if an unexplained change survives."""
    parser = argparse.ArgumentParser(prog="make mutate")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    explanations = explained()
    left = 0
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder = Path(name)
        for part in COPIED:
            copying = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copying(ROOT / part, folder / part)
        sample = chosen(arguments.seed, arguments.count)
        print(f"mutate: {len(sample)} changes, SEED={arguments.seed}", flush=True)
        for number, change in enumerate(sample, start=1):
            if survives(change, folder):
                explanation = "explained" if change.line in explanations else "SURVIVES"
                left += change.line not in explanations
                print(f"{number:>4} {explanation} {change}", flush=True)
        print(f"{left} survive without an explanation")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
