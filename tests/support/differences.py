"""The intended differences between our verdicts and an API server's, from the page about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.dry_run import Answer
    from tests.support.mutated_jobs import Verdict

PAGE: Final = ROOT / "docs/reference/verdicts.md"
_ROW: Final = re.compile(r"\| `(?P<pattern>.+)` \| (?P<why>.+) \|")
_INDEX: Final = re.compile(r"/[0-9]+(?=/|$)")
REFUSED_HERE, REFUSED_THERE = "## Refused here", "## Refused there"
OLDER_REFUSED_HERE = "## Refused here, accepted by older versions"
OLDER_REFUSED_THERE = "## Refused by older versions only"
DROPPED_THERE = "## Dropped there"


@dataclass(frozen=True)
class Difference:
    """One row of the page: its subject and its reason."""

    pattern: re.Pattern[str]
    why: str


def listed(*titles: str) -> list[Difference]:
    """Return the rows of some sections of the page."""
    rows = []
    for title in titles:
        section = PAGE.read_text().partition(f"{title}\n")[2].partition("\n## ")[0]
        matches = [match for line in section.splitlines() if (match := _ROW.fullmatch(line))]
        # (In a Markdown table a bar is written `\|`.)
        rows += [
            Difference(re.compile(row["pattern"].replace(r"\|", "|")), row["why"])
            for row in matches
        ]
    return rows


def unlisted(
    causes: Iterable[str], among: Iterable[Difference], used: set[Difference] | None = None
) -> list[str]:
    """Return the causes that no row covers, and add the rows that cover one to `used`."""
    rows = list(among)
    uncovered = []
    for cause in causes:
        covering = [row for row in rows if row.pattern.match(cause)]
        if not covering:
            uncovered.append(cause)
        if used is not None:
            used.update(covering)
    return uncovered


class Comparison:
    """Compares verdicts with answers, except for the differences that are listed."""

    def __init__(self, *, older: bool) -> None:
        """Read the page; some differences concern only older versions."""
        here = [REFUSED_HERE, *([OLDER_REFUSED_HERE] * older)]
        there = [REFUSED_THERE, *([OLDER_REFUSED_THERE] * older)]
        self._here = listed(*here)
        self._there = listed(*there)
        self._dropped = listed(DROPPED_THERE)
        self._used: set[Difference] = set()
        assert self._here
        assert self._there

    def disagreements(self, verdict: Verdict, answer: Answer) -> list[str]:
        """Return what one side finds and the other does not."""
        if verdict.manifest is None and not verdict.errors:
            return []  # not an operario
        if answer.causes:
            return [] if verdict.errors else unlisted(answer.causes, self._there, self._used)
        if verdict.errors:
            return unlisted(verdict.errors, self._here, self._used)
        silent = [
            _INDEX.sub("/*", pointer)
            for pointer in answer.dropped
            if not any(
                _contains(warned, pointer) or _contains(pointer, warned)
                for warned in verdict.ignored
            )
        ]
        return [f"dropped: {pointer}" for pointer in unlisted(silent, self._dropped, self._used)]

    def unused(self, *titles: str) -> list[str]:
        """Return the patterns of rows that covered nothing."""
        return [row.pattern.pattern for row in listed(*titles) if row not in self._used]


def _contains(outer: str, inner: str) -> bool:
    return f"{inner}/".startswith(f"{outer}/")
