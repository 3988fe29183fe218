"""The blocks of measurements in docs/."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.bench.__main__ import MEASURES
from tests.bench.capacity import Costs, blocks
from tests.support.record import PAGES, keep

if TYPE_CHECKING:
    from pathlib import Path

#: Of docs/explanation/reliability.md, written by `make chaos` and `make soak`.
OTHERS = {"chaos-1", "chaos-2", "soak"}


def test_a_block_is_replaced(tmp_path: Path) -> None:
    """Only the text of the block changes, in the page that has it."""
    pages = [tmp_path / "one.md", tmp_path / "two.md"]
    pages[0].write_text("Nothing.\n")
    pages[1].write_text("Before.\n<!-- x -->\nold\n<!-- /x -->\nAfter.\n")
    keep("x", "new \\1\n", pages)
    assert pages[0].read_text() == "Nothing.\n"
    assert pages[1].read_text() == "Before.\n<!-- x -->\nnew \\1\n<!-- /x -->\nAfter.\n"


def test_a_block_that_no_page_has_is_an_error(tmp_path: Path) -> None:
    """A measurement is not lost without a word."""
    page = tmp_path / "page.md"
    page.write_text("<!-- x -->\n<!-- /x -->\n")
    with pytest.raises(LookupError, match="y"):
        keep("y", "new", [page])


def test_every_block_has_text_and_is_written_by_a_command() -> None:
    """Each block of the pages is named once, is not empty, and has a bench or another writer."""
    names = []
    for page in PAGES:
        for name, text in re.findall(
            r"^<!-- ([\w-]+) -->\n(.*?)^<!-- /\1 -->\n", page.read_text(), re.DOTALL | re.MULTILINE
        ):
            assert text.strip(), name
            names.append(name)
    assert len(names) == len({*names})
    assert {*names} <= {*MEASURES, *blocks(Costs()), *OTHERS}
    assert "admission" in names
