"""`make mutate`: small mistakes, made one by one in a copy, and whether a test notices.

A seeded sample of places in the pure modules is changed: a comparison, a boolean operator, a
number, a `not`, a returned truth. For each the tests of that module are run until the first fails.
A change that no test notices survives, and is either a missing test or explained in
docs/mutation.md, by its line's text, which is where the list of those that are known is read.

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


PATIENCE: Final = 600  # seconds: a change may make something endless
COPIED: Final = ("openfero_gitops", "tests", "operarios-example", "pyproject.toml", "docs")
#: Modules whose mistakes would be grave, and the tests that are there for them.
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
    """One change: where, the line as it was, what was done to it, and the module with it."""

    module: str
    number: int
    line: str
    what: str
    source: str

    def __str__(self) -> str:
        """A place that an editor finds, and the change."""
        return f"openfero_gitops/{self.module}:{self.number}: {self.what}: {self.line}"


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What could be written instead of a node, with words for it."""
    match node:
        case ast.Compare(ops=[operator, *_]) if type(operator) in _COMPARED:
            other = copy.deepcopy(node)
            other.ops[0] = _COMPARED[type(operator)]()
            yield f"{ast.unparse(node)} -> {ast.unparse(other)}", other
        case ast.BoolOp():
            other = copy.deepcopy(node)
            other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"{ast.unparse(node)} -> {ast.unparse(other)}", other
        case ast.UnaryOp(op=ast.Not()):
            yield f"{ast.unparse(node)} -> {ast.unparse(node.operand)}", node.operand
        case ast.Constant(value=bool(value)):
            yield f"{value} -> {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield f"{value} -> {value + 1}", ast.Constant(value + 1)
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            other = copy.deepcopy(node)
            other.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield f"{ast.unparse(node)} -> {ast.unparse(other)}", other
        case _:
            return


class _Swap(ast.NodeTransformer):
    """Put another node in the place of one."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)


def changes(module: str, text: str) -> Iterator[Change]:
    """Every change of a module's functions that is known how to make; not of its annotations."""
    lines = text.splitlines()
    for index, place in enumerate(_places(ast.parse(text))):
        for what, _ in _variants(place):
            tree = ast.parse(text)
            node = _places(tree)[index]
            ((_, new),) = _variants(node)
            number = getattr(place, "lineno", 0)
            changed = ast.unparse(ast.fix_missing_locations(_Swap(node, new).visit(tree)))
            yield Change(module, number, lines[number - 1].strip(), what, changed)


def _places(tree: ast.Module) -> list[ast.AST]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = [node for one in functions for line in one.body for node in ast.walk(line)]
    return [node for node in dict.fromkeys(nodes) if any(True for _ in _variants(node))]


def chosen(seed: int, count: int) -> list[Change]:
    """So many of all changes."""
    every = [
        change
        for module in sorted(SAMPLE)
        for change in changes(module, (ROOT / "openfero_gitops" / module).read_text())
    ]
    draw = random.Random(seed)  # noqa: S311 (the same sample again)
    return draw.sample(every, min(count, len(every)))


def explained() -> set[str]:
    """The lines of the survivors that docs/mutation.md explains."""
    page = (ROOT / "docs" / "mutation.md").read_text()
    return set(re.findall(r"^\| `(.+?)` \|", page, flags=re.MULTILINE))


def survives(change: Change, folder: Path) -> bool:
    """Whether the tests of the module pass with the change in the copy."""
    file = folder / "openfero_gitops" / change.module
    before = file.read_text()
    file.write_text(change.source)
    tests = [f"tests/unit/{name}" for name in SAMPLE[change.module]]
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    finally:
        file.write_text(before)
    return done.returncode == 0


def main() -> int:
    """Run a sample; 1 where a change survives that is not explained."""
    parser = argparse.ArgumentParser(prog="make mutate")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    known = explained()
    left = 0
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder = Path(name)
        for part in COPIED:
            copying = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copying(ROOT / part, folder / part)
        sample = chosen(given.seed, given.count)
        print(f"mutate: {len(sample)} changes, SEED={given.seed}", flush=True)
        for number, change in enumerate(sample, start=1):
            if survives(change, folder):
                explanation = "explained" if change.line in known else "SURVIVES"
                left += change.line not in known
                print(f"{number:>4} {explanation} {change}", flush=True)
        print(f"{left} survive without an explanation")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
