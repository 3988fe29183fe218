"""The generated tables in the chart's README."""  # noqa: INP001 - imported by a script

from __future__ import annotations

import re


def with_table(readme: str, begin: str, end: str, table: str) -> str:
    """Return the README with a table between two lines.

    Raises:
        ValueError: the lines are not there, or there more than once.
    """
    written, count = re.subn(
        f"{re.escape(begin)}.*{re.escape(end)}",
        lambda _: f"{begin}\n{table}\n{end}",
        readme,
        flags=re.DOTALL,
    )
    if count != 1:
        message = f"README.md of the chart must have one table between {begin!r} and {end!r}"
        raise ValueError(message)
    return written
