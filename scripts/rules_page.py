"""Make `docs/rules.md`: every rule, why it is there, and a bad and a good example of it.

The examples are the tests' own: a file with the defect and the same file without it, of which
the page shows where they differ, and what that stands in.
"""  # noqa: INP001 - a script's part

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog import build as catalog  # noqa: F401 - declares every rule
from openfero_gitops.catalog.validation.rationale import WHY
from openfero_gitops.domain.problem import Severity
from openfero_gitops.domain.rule import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openfero_gitops.domain.rule import Rule

RULES_FIXTURES: Final = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "rules"
BAD: Final = RULES_FIXTURES / "bad"
GOOD: Final = RULES_FIXTURES / "good"
MARK: Final = " # <- here"
TAB: Final = "→"
WHOLE: Final = 6  # lines; an example of so few is shown as it is

PAGE: Final = """\
# What `validate` finds

<!-- Made by scripts/make_docs.py from the rules and their tests' fixtures: change those. -->

`openfero-gitops validate` and the controller apply the same rules. A breach of a rule that is an
**error** keeps the operario out of force: its newest version without an error stays, or there is
none. A **warning** is told, and the operario runs; with `--strict`, `validate` fails for it, too.

Each finding ends in its rule, `[restart-policy]`. Examples show what differs and what it stands
in; the rest of the file is left out. What a cluster has to add when the leader tries an operario
there is in [dry-run.md](dry-run.md).

"""

#: The rules about two lines of one name.
OF_TWO_LINES: Final = {
    "duplicate-in-pod",
    "duplicate-key",
    "duplicate-name",
    "requests-over-limits",
}
#: Examples that are no text: bad, good.
IN_WORDS: Final = {
    "file-too-large": ("a generated file of 600 KiB", "what a person wrote, a few KiB"),
    "too-many-documents": ("1,001 documents in a file", "a file for each operario"),
    "envelope-name": ("`openfero.yml`", "`openfero.yaml`"),
    "envelope-missing": (
        "`git rm openfero.yaml`",
        "an empty `openfero.yaml`, if its limits are no longer wanted",
    ),
    "path-too-long": ("folders nested and named without end", "`disks/full.yaml`"),
    "path-too-deep": ("`a/b/c/…/full.yaml`, 33 folders deep", "`disks/full.yaml`"),
    "path-not-utf-8": (r"`caf\xe9.yaml`, in Latin-1", "`café.yaml`, in UTF-8"),
    "path-not-printable": (r"`full\u202elmay.yaml`, which reorders its name", "`full.yaml`"),
    "not-a-file": ("`mkfifo full.yaml`", "a file `full.yaml`"),
    "symlink": ("`full.yaml -> ../common/full.yaml`", "a file `full.yaml`"),
    "linked-folder": ("`disks -> ../common`", "a folder `disks` with files in it"),
    "submodule": ("`git submodule add … shared`", "the files themselves, in `shared`"),
    "case-twins": (
        "`disks/full.yaml` and `disks/Full.yaml`",
        "`disks/full.yaml` and `disks/fuller.yaml`",
    ),
    "lfs-pointer": ("`git lfs track '*.yaml'`", "YAML in Git itself"),
}


def rules_page() -> str:
    """Make the page: a table of all rules, then a section for each."""
    rules = [RULES[name] for name in sorted(RULES)]
    table = "".join(
        f"| [`{rule.id}`](#{rule.id}) | {rule.severity} | {_cell(rule.text)} |\n" for rule in rules
    )
    return f"{PAGE}| rule | | what is right |\n|---|---|---|\n{table}\n" + "\n".join(
        map(_section, rules)
    )


def _section(rule: Rule) -> str:
    word = "An error" if rule.severity is Severity.ERROR else "A warning"
    begin = f"## {rule.id}\n\n{rule.text} {WHY[rule.id]} *{word}.*\n\n"
    if rule.id in IN_WORDS:
        bad, good = IN_WORDS[rule.id]
        return f"{begin}Bad: {bad}. Good: {good}.\n"
    caption, wrong = _read(BAD / f"{rule.id}.yaml")
    _, right = _read(GOOD / f"{rule.id}.yaml")
    marked = [number for number, line in enumerate(wrong) if MARK in line]
    wrong = [line.replace(f"{MARK}:", "  #").replace(MARK, "") for line in wrong]
    if rule.id in OF_TWO_LINES:
        named = wrong[marked[0]]
        bad = _excerpt(wrong, right, _namesakes(wrong, named))
        good = _excerpt(right, wrong, _namesakes(right, named))
    else:
        bad, good = _excerpt(wrong, right, marked), _excerpt(right, wrong, ())
    return f"{begin}{caption}\n\n```yaml\n{bad}\n```\n\nGood:\n\n```yaml\n{good}\n```\n"


def _read(file: Path) -> tuple[str, list[str]]:
    """What a fixture says of itself in its first line, and the lines of its YAML."""
    lines = file.read_bytes().decode("utf-8", "backslashreplace").replace("\t", TAB).splitlines()
    if lines[0].startswith("# "):
        return f"Bad: {lines[0][2].lower()}{lines[0][3:]}", lines[1:]
    return "", lines


def _excerpt(lines: Sequence[str], other: Sequence[str], marked: Iterable[int]) -> str:
    """The lines that differ from another text, or are marked, and what they stand in."""
    if len(lines) <= WHOLE:
        return "\n".join(lines)
    chosen = set(marked)
    for kind, begin, end, there, _ in difflib.SequenceMatcher(None, lines, other).get_opcodes():
        if kind != "equal":
            chosen |= set(range(begin, end)) or _around(lines, begin, _depth(other[there]))
    kept = set(chosen)
    for number in chosen:
        block = _block(lines, number)
        kept |= set(block) if len(block) <= WHOLE else set()
    for number in sorted(kept):
        kept |= set(_above(lines, number))
    shown = sorted(kept)
    return "\n".join(
        lines[number]
        + ("" if _depth(lines[after]) > _depth(lines[number]) else _rest(lines[number]))
        for number, after in zip(shown, [*shown[1:], shown[0]], strict=True)
    )


def _rest(line: str) -> str:
    """What stands for the members of something of which none is shown."""
    return " …" if line.endswith(":") else ""


def _namesakes(lines: Sequence[str], named: str) -> set[int]:
    """The lines that stand as deep as another, for a key of the same name."""
    key = named.partition(":")[0]
    return {number for number, line in enumerate(lines) if line.partition(":")[0] == key}


def _around(lines: Sequence[str], gap: int, depth: int) -> set[int]:
    """Of the lines before and after a gap, one that stands as deep as what is missing in it."""
    near = [number for number in (gap - 1, gap) if 0 <= number < len(lines)]
    level = [number for number in near if _depth(lines[number]) == depth]
    return set((level or near)[:1])


def _above(lines: Sequence[str], number: int) -> Iterable[int]:
    """The lines that open what a line stands in, up to its document's beginning."""
    depth = _depth(lines[number])
    for above in range(number - 1, -1, -1):
        if lines[above] == "---":
            yield above
            return
        if _depth(lines[above]) < depth:
            depth = _depth(lines[above])
            yield above


def _block(lines: Sequence[str], number: int) -> range:
    """A line's siblings, itself among them, with all that is in them."""
    depth = _depth(lines[number])

    def inside(at: int) -> bool:
        return lines[at] != "---" and _depth(lines[at]) >= depth

    first = last = number
    while first > 0 and inside(first - 1):
        first -= 1
    while last + 1 < len(lines) and inside(last + 1):
        last += 1
    return range(first, last + 1)


def _depth(line: str) -> int:
    """How far a line is indented; an item of a list stands deeper than what opens the list."""
    return len(line) - len(line.lstrip(f" {TAB}"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
