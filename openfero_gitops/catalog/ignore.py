"""Which files of a snapshot are not read: Helm charts, and what `openfero.yaml` ignores.

Repositories hold more than operarios. A file that is ignored has no problems, and its documents
are not listed; that it is ignored is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError

from openfero_gitops.domain.problem import Ignored
from openfero_gitops.domain.text import is_printable, shown

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Envelope, Snapshot

MAX_PATTERNS: Final = 100
MAX_PATTERN_CHARACTERS: Final = 256
_CHART: Final = "Chart.yaml"
#: Folders of a chart whose files are not YAML, or not of this repository. A chart in the configured
#: path itself hides only these: the operarios may be beside it.
_FOLDERS_OF_A_CHART: Final = ("charts", "crds", "templates")


class Ignoring:
    """Tells which paths of a snapshot are ignored, and why."""

    def __init__(self, snapshot: Snapshot, patterns: tuple[str, ...]) -> None:
        """Find the charts of a snapshot, and compile patterns that were validated."""
        self._prefix = f"{snapshot.root}/" if snapshot.root else ""
        self._patterns = patterns
        self._charts: set[str] = set()
        for file in snapshot.files:
            folder, _, name = file.path.rpartition("/")
            if name != _CHART:
                continue
            if folder == snapshot.root:
                self._charts.update(self._prefix + inner for inner in _FOLDERS_OF_A_CHART)
            else:
                self._charts.add(folder)

    def chart(self, path: str) -> str:
        """Return the folder of the outermost chart that contains a path; empty if there is none."""
        if not self._charts:
            return ""
        end = path.find("/", len(self._prefix))
        while end >= 0:
            if path[:end] in self._charts:
                return path[:end]
            end = path.find("/", end + 1)
        return ""

    def pattern(self, path: str) -> str:
        """Return the pattern of `openfero.yaml` that ignores a path; empty if none does."""
        if not self._patterns:
            return ""
        index = _compiled(self._patterns).check_file(path.removeprefix(self._prefix))
        return self._patterns[index.index] if index.include and index.index is not None else ""


def select_considered(
    snapshot: Snapshot, envelope: Envelope
) -> tuple[Snapshot, tuple[Ignored, ...]]:
    """Split a snapshot into the files and problems that count, and what is ignored of it.

    A chart is listed once, by its folder.
    """
    ignoring = Ignoring(snapshot, envelope.ignore)
    ignored: dict[Ignored, None] = {}
    files = []
    for file in snapshot.files:
        if why := _why(file.path, ignoring):
            ignored[why] = None
        else:
            files.append(file)
    problems = []
    for problem in snapshot.problems:
        # Some are about folders: a submodule, a symlink.
        if why := _why(problem.path, ignoring) or _why(f"{problem.path}/", ignoring):
            ignored[why] = None
        else:
            problems.append(problem)
    others = []
    for entry in snapshot.ignored:
        if why := _why(entry.path, ignoring):
            ignored[why] = None
        else:
            others.append(entry)
    if not ignored:
        return snapshot, ()
    considered = replace(
        snapshot, files=tuple(files), problems=tuple(problems), ignored=tuple(others)
    )
    return considered, tuple(ignored)


def _why(path: str, ignoring: Ignoring) -> Ignored | None:
    if chart := ignoring.chart(path):
        return Ignored(f"{chart}/", "", f"part of a Helm chart ({_CHART})")
    if pattern := ignoring.pattern(path):
        return Ignored(path, "", f"matches {shown(pattern)} of ignore in openfero.yaml")
    return None


@lru_cache(maxsize=8)
def _compiled(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    # RE2 takes linear time for any pattern. Python's regular expressions do not.
    return GitIgnoreSpec.from_lines(patterns, backend="re2")


def check_patterns(patterns: tuple[str, ...], own_name: str) -> str:
    """Why patterns cannot be used, as a clause; empty if they can.

    Args:
        patterns: in the syntax of `.gitignore`.
        own_name: the file with the patterns, which they must not ignore.
    """
    if len(patterns) > MAX_PATTERNS:
        return f"there are {len(patterns)}, more than {MAX_PATTERNS}"
    for pattern in patterns:
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            return f"{shown(pattern)} has more than {MAX_PATTERN_CHARACTERS} characters"
        if not is_printable(pattern):
            return f"{shown(pattern)} contains a character that cannot be printed"
        try:
            compiled = _compiled((pattern,)).patterns
        except (GitIgnorePatternError, ValueError):
            compiled = ()
        if not any(part.include is not None for part in compiled):
            return f"{shown(pattern)} matches no path"
    if patterns and _compiled(patterns).match_file(own_name):
        return f'they ignore {own_name} itself; add "!/{own_name}" at the end'
    return ""
