"""A difference as the comment on a pull request, in GitHub's and GitLab's Markdown.

Its reader decides by it, and its quotes are written by the one who is judged. So every character
of a quote that Markdown or HTML could obey is written as its number, inside of `<code>`, where
nobody is mentioned and nothing is linked; and a block is fenced by more backticks than are in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.diff.change import ChangeEffect, ChangeKind, Quote
from openfero_gitops.author.diff.plain import difference_lines, summary
from openfero_gitops.domain.text import labels, plural, printable

if TYPE_CHECKING:
    from openfero_gitops.author.diff.change import BehaviourChange, BehaviourDiff, Sentence, Winner

#: By which a later run finds its comment again.
MARKER: Final = "<!-- openfero-gitops diff -->"
_OBEYED: Final = re.compile(r"[^A-Za-z0-9 ,/=-]")
_LONGEST_QUOTE: Final = 200
_BACKTICKS: Final = re.compile("`+")
#: Characters: GitHub takes 65,536 in a comment, in which a reader gets lost long before.
_MOST: Final = 60_000
_MOST_OF_TABLE: Final = 20_000
_MOST_ROWS: Final = 100
_MOST_LINES: Final = 200


def as_markdown(difference: BehaviourDiff) -> str:
    """A summary, a table, and the lines to unfold."""
    between = (
        f"{_code(difference.base.commit[:12])} → {_code(difference.head.commit[:12])}, as the"
        " controller would run them; changes in text alone are left out."
    )
    text = "\n".join([MARKER, f"### Operarios: {summary(difference)}", "", between, "", ""])
    text += _table("| | operario | what |", [*map(_row, difference.changes)])
    text += _table("| alert | answered by | now by | |", [*map(_winner_row, difference.winners)])
    return text + _details(difference, _MOST - len(text))


def _table(head: str, rows: list[str]) -> str:
    """A table of as many rows as there is room for; nothing for none."""
    if not rows:
        return ""
    room = _MOST_OF_TABLE
    told = []
    for row in rows[:_MOST_ROWS]:
        room -= len(row)
        if room < 0:
            break
        told.append(row)
    columns = head.count("|") - 1
    if left := len(rows) - len(told):
        told.append("| " * (columns - 1) + f"| and {left} more |")
    return "\n".join([head, "|---" * columns + "|", *told]) + "\n\n"


def _row(change: BehaviourChange) -> str:
    word = change.effect.value
    if change.effect in (ChangeEffect.BREAKS, ChangeEffect.WIDENS):
        word = f"**{word}**"
    return f"| {word} | {_whose(change)} | {_sentence(change.sentence)} |"


def _winner_row(winner: Winner) -> str:
    alert = f"{_code(winner.alertname)} ({winner.status})"
    return f"| {alert} | {_name(winner.before)} | {_name(winner.after)} | {_where(winner)} |"


def _where(winner: Winner) -> str:
    if winner.always:
        return ""
    return f"for example with {_code(labels(winner.labels))}" if winner.labels else "without labels"


def _name(operario: str) -> str:
    return _code(operario) if operario else "nobody"


def _whose(change: BehaviourChange) -> str:
    if change.operario:
        return _code(change.operario)
    return _code("openfero.yaml") if change.kind is ChangeKind.ENVELOPE else ""


def _details(difference: BehaviourDiff, room: int) -> str:
    """The lines of each change that has some, as many as there is room for."""
    blocks = []
    left_out = 0
    for change in difference.changes:
        lines = difference_lines(change)
        if not lines:
            continue
        block = _block(change, lines)
        if len(block) > room:
            left_out += 1
            continue
        room -= len(block)
        blocks.append(block)
    if left_out:
        left = plural(left_out, "change")
        blocks.append(
            f"The lines of {left} are left out here; `openfero-gitops diff` shows them.\n"
        )
    return "\n".join(blocks)


def _block(change: BehaviourChange, lines: list[str]) -> str:
    shown = lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        shown.append(f" … {len(lines) - _MOST_LINES} lines more")
    body = "\n".join(shown)
    longest = max((len(run) for run in _BACKTICKS.findall(body)), default=0)
    fence = "`" * max(3, longest + 1)
    title = f"{_whose(change)} {_sentence(change.sentence)}"
    return f"<details><summary>{title}</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n"


def _sentence(sentence: Sentence) -> str:
    return "".join(_code(part) if isinstance(part, Quote) else _own(part) for part in sentence)


def _own(text: str) -> str:
    """Our own words, in which nothing is meant as Markdown either."""
    return re.sub(r"[|<>&*_`\[\]\\]", _number, text)


def _code(text: str) -> str:
    """A quote that can be nothing but text."""
    return f"<code>{_OBEYED.sub(_number, printable(text, _LONGEST_QUOTE))}</code>"


def _number(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"
