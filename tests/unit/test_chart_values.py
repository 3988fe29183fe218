from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.chart_values import ChartValue, chart_readme, described_values

if TYPE_CHECKING:
    from pathlib import Path

VALUES = """\
# A comment about the file.

# -- the name
name: ""
group:
  # A note for those who read the file.
  # -- how many: `1` or
  # more
  count: 2
  # -- a list
  # @default -- see values.yaml
  items: [a, b]
# -- a|b
more: {}
"""


def test_each_value_has_its_default_and_its_description() -> None:
    """A description may have several lines, and replace the default."""
    assert list(described_values(VALUES)) == [
        ChartValue("name", '`""`', "the name"),
        ChartValue("group.count", "`2`", "how many: `1` or more"),
        ChartValue("group.items", "see values.yaml", "a list"),
        ChartValue("more", "`{}`", "a|b"),
    ]


def test_a_value_without_a_description_is_an_error() -> None:
    """It is named, so that it can be found."""
    with pytest.raises(ValueError, match=r"group\.b has no description"):
        list(described_values("group:\n  # -- a\n  a: 1\n\n  b: 2\n"))


def test_only_the_table_of_the_readme_is_replaced(tmp_path: Path) -> None:
    """What is before and after it stays, and without a place for it there is an error."""
    (tmp_path / "values.yaml").write_text(VALUES)
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n\n<!-- Generated from values.yaml by scripts/make_docs.py. -->\n"
        "old\n<!-- /values -->\nafter\n"
    )
    written = chart_readme(tmp_path)
    assert written.startswith("before\n")
    assert written.endswith("\n<!-- /values -->\nafter\n")
    assert "old" not in written
    assert "| `more` | `{}` | a\\|b |\n" in written
    readme.write_text(written)
    assert chart_readme(tmp_path) == written
    readme.write_text("nothing\n")
    with pytest.raises(ValueError, match="one table"):
        chart_readme(tmp_path)
