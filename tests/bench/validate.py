"""`validate` as users run it, compared with kubeconform and with plain parsing.

Every figure is of complete processes, from the shell to their exit; the other command runs in turn
with ours, so that a slow machine slows both. Time is compared on the clock and as processor time.

kubeconform validates Jobs against the same schema and does nothing else: no rule about what a
schema cannot express, no scripts, no options, no files that refer to each other.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from openfero_gitops.author.report import FORMATS
from tests.bench.figures import Figure, Measured
from tests.bench.git import Cost, bare_first, ran
from tests.support.fleet import Fleet, operarios
from tests.support.kubeconform import require_kubeconform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.support.kubeconform import Kubeconform

SMALL, LARGE = 50, 10_000
ROUNDS = {SMALL: 9, LARGE: 3}
MAX_RATIO = 4
# The minimum for any tool: start Python, load a parser, read and parse every file.
BARE = """\
import pathlib, sys, yaml
for file in pathlib.Path(sys.argv[1]).rglob("*.yaml"):
    list(yaml.load_all(file.read_bytes(), yaml.CSafeLoader))
"""


def main() -> Measured:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        figures = [*_starts(), *_small(folder / "small"), *_large(folder)]
    text = f"Ratios of whole processes; the goal is at most {MAX_RATIO}."
    rounds = {f"rounds of {files} files": count for files, count in ROUNDS.items()}
    return Measured(figures, text, parameters=rounds)


def _starts() -> Iterator[Figure]:
    """Measure what every command costs before it does anything."""
    ours, bare = _compared(
        ROUNDS[SMALL], lambda: _python("-m", "openfero_gitops", "--help"), lambda: _python("-c", "")
    )
    yield Figure.of("--help", [cost.cpu for cost in ours], "s of processor time")
    yield Figure.of("python without imports", [cost.cpu for cost in bare], "s of processor time")


def _small(folder: Path) -> Iterator[Figure]:
    _write(folder, operarios(SMALL))
    for form in FORMATS:
        ours, bare = _compared(
            ROUNDS[SMALL],
            lambda form=form: _validate(folder, "--format", form),
            lambda: _python("-c", BARE, folder),
        )
        yield _ratio(f"{SMALL} files, {form} / CSafeLoader: time", "wall", ours, bare)


def _large(folder: Path) -> Iterator[Figure]:
    files = operarios(LARGE)
    _write(folder / "large", files)
    kubeconform = require_kubeconform(folder)
    _require_verdicts(kubeconform, folder / "broken", files)
    ours, other = _compared(
        ROUNDS[LARGE],
        lambda: _validate(folder / "large"),
        lambda: _accepted(kubeconform, folder / "large"),
    )
    name = f"{LARGE} files"
    yield _ratio(f"{name} / kubeconform: time", "wall", ours, other, MAX_RATIO)
    yield _ratio(f"{name} / kubeconform: processor time", "cpu", ours, other, MAX_RATIO)
    yield Figure.of(f"{name}: processor time", [cost.cpu for cost in ours], "s")
    yield Figure.of(f"{name}, kubeconform: processor time", [cost.cpu for cost in other], "s")
    yield from _by_url(folder, files)


def _by_url(folder: Path, files: Mapping[str, bytes]) -> Iterator[Figure]:
    """Compare with git clone and a parser, for a repository that is not cloned yet."""
    fleet = Fleet(folder / "origin.git")
    fleet.commit(files)
    fleet.publish(fleet.write()[0])
    clone = folder / "clone"

    def bare() -> None:
        bare_first(fleet.url, clone)
        shutil.rmtree(clone)

    ours, plain = _compared(ROUNDS[LARGE], lambda: _validate(fleet.url), bare)
    name = f"{LARGE} files by URL / git clone, CSafeLoader"
    yield _ratio(f"{name}: time", "wall", ours, plain, MAX_RATIO)
    yield _ratio(f"{name}: processor time", "cpu", ours, plain, MAX_RATIO)


def _compared(
    rounds: int, ours: Callable[[], object], other: Callable[[], object]
) -> tuple[list[Cost], list[Cost]]:
    """Run two commands in turn; return what each run of them has cost."""
    costs = [(ran(ours), ran(other)) for _ in range(rounds)]
    return [cost for cost, _ in costs], [cost for _, cost in costs]


def _ratio(
    name: str, kind: str, ours: Sequence[Cost], other: Sequence[Cost], goal: float | None = None
) -> Figure:
    """Divide what our runs have cost by what the other command's have cost in the same round."""
    ratios = [
        getattr(cost, kind) / getattr(base, kind) for cost, base in zip(ours, other, strict=True)
    ]
    return Figure.of(name, ratios, goal=goal)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _validate(source: Path | str, *options: str) -> None:
    _python("-m", "openfero_gitops", "validate", source, *options)


def _python(*arguments: str | Path) -> None:
    argv = [sys.executable, *map(str, arguments)]
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)


def _accepted(kubeconform: Kubeconform, folder: Path) -> None:
    done = kubeconform.run(folder)
    assert f"Valid: {LARGE}, Invalid: 0, Errors: 0" in done.stdout, done.stdout + done.stderr


def _require_verdicts(kubeconform: Kubeconform, folder: Path, files: Mapping[str, bytes]) -> None:
    """Fail unless kubeconform uses the schema: it must reject a field that no Job has."""
    path, content = next(item for item in files.items() if b"kind: Job" in item[1])
    _write(folder, {path: content.replace(b"\nspec:\n", b"\nspec:\n  unknown: 1\n", 1)})
    done = kubeconform.run(folder)
    assert "Invalid: 1" in done.stdout, done.stdout + done.stderr
