"""Recording of measurements in pages of docs/, each kind in a separate block."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PAGES = tuple(
    ROOT / "docs" / name for name in ("explanation/reliability.md", "explanation/sizing.md")
)


def machine() -> str:
    """Describe the hardware of the measurement, without the name of the machine."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores, {pages * size / 2**30:.0f} GiB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}"
    )


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def today() -> str:
    """Return the current date in UTC."""
    return now().strftime("%Y-%m-%d")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table that reads well as text and as Markdown; all but the first column to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), "| " + " | ".join(rule) + " |", *map(line, rows)])


def keep(block: str, text: str, pages: Iterable[Path] = PAGES) -> None:
    """Replace the text of a block in the page that has it."""
    pattern = re.compile(rf"(<!-- {block} -->\n).*?(<!-- /{block} -->\n)", re.DOTALL)
    for page in pages:
        before = page.read_text()
        after, count = pattern.subn(lambda match: f"{match[1]}{text.rstrip()}\n{match[2]}", before)
        if count == 1:
            page.write_text(after)
            return
    raise LookupError(f"no page of docs/ has one block {block}")
