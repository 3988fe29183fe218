"""The table of values in the chart's README, from the comments of its values.yaml.

A value is described by the comment above it, in the format of helm-docs: a line that begins with
`# --`, lines that continue it, and optionally `# @default -- TEXT`, which replaces the default.
"""  # noqa: INP001 - imported by a script

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

from scripts.chart_readme import with_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIRST: Final = "# -- "
_DEFAULT: Final = "# @default -- "
_BEGIN: Final = "<!-- Generated from values.yaml by scripts/make_docs.py. -->\n"
_END: Final = "<!-- /values -->\n"


@dataclass(frozen=True)
class ChartValue:
    """A value of the chart: its path with dots, its default as text, and its description."""

    name: str
    default: str
    description: str


def described_values(text: str) -> Iterator[ChartValue]:
    """Yield each described value of a values.yaml, in its order.

    Raises:
        ValueError: a value has no description, and none of its parents has.
    """
    yield from _described(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "")


def _described(node: yaml.Node, lines: list[str], path: str) -> Iterator[ChartValue]:
    for key, value in node.value:
        name = f"{path}.{key.value}".lstrip(".")
        comment = _comment_above(lines, key.start_mark.line)
        if comment:
            default = "`" + _compact(value) + "`"
            texts = []
            for line in comment:
                if line.startswith(_DEFAULT):
                    default = line.removeprefix(_DEFAULT)
                else:
                    texts.append(line.removeprefix(_FIRST).removeprefix("#").strip())
            yield ChartValue(name, default, " ".join(texts))
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _described(value, lines, name)
        else:
            message = f"values.yaml: {name} has no description: write a comment `# -- TEXT` above"
            raise ValueError(message)


def _comment_above(lines: list[str], line: int) -> list[str]:
    """Return the lines of the description above a key; without any, none."""
    comment: list[str] = []
    for above in reversed(lines[:line]):
        if not above.lstrip().startswith("#"):
            break
        comment.insert(0, above.strip())
    for index, text in enumerate(comment):
        if text.startswith(_FIRST):
            return comment[index:]
    return []


def _compact(node: yaml.Node) -> str:
    return json.dumps(yaml.SafeLoader("").construct_object(node, deep=True), ensure_ascii=False)


def chart_readme(chart: Path) -> str:
    """Return the chart's README with the table of its values."""
    text = (chart / "README.md").read_text(encoding="utf-8")
    values = described_values((chart / "values.yaml").read_text(encoding="utf-8"))
    table = "| Value | Default | Description |\n|---|---|---|\n" + "".join(
        f"| `{value.name}` | {value.default} | {_cell(value.description)} |\n" for value in values
    )
    return with_table(text, _BEGIN, _END, table)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
