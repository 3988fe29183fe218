"""The changes as a comment for a pull request, in the Markdown of GitHub and GitLab.

The author of the pull request controls the quotes, so they must not change how the comment is
rendered. Every special character of a quote becomes a numeric character reference inside
`<code>`, where neither mentions nor links work, and a code block has a longer fence than any run
of backticks in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.diff.change import ChangeEffect, ChangeKind
from openfero_gitops.author.diff.plain import difference_lines, summary
from openfero_gitops.domain.sentence import Quote
from openfero_gitops.domain.text import labels, plural, printable

if TYPE_CHECKING:
    from openfero_gitops.author.diff.change import BehaviorChange, BehaviorDiff, Winner
    from openfero_gitops.domain.sentence import Sentence

#: A later run finds its comment by this text.
MARKER: Final = "<!-- openfero-gitops diff -->"
_SPECIAL: Final = re.compile(r"[^A-Za-z0-9 ,/=-]")
_MAX_QUOTE_CHARACTERS: Final = 200
_BACKTICKS: Final = re.compile("`+")
#: GitHub allows 65,536 characters in a comment.
_MAX_CHARACTERS: Final = 60_000
_MAX_TABLE_CHARACTERS: Final = 20_000
_MAX_ROWS: Final = 100
_MAX_LINES: Final = 200


def as_markdown(difference: BehaviorDiff) -> str:
    """A summary, tables, and line diffs to unfold."""
    between = (
        f"{_code(difference.base.commit[:12])} → {_code(difference.head.commit[:12])}. Changes"
        " of text that do not change behavior are left out."
    )
    text = "\n".join([MARKER, f"### Operarios: {summary(difference)}", "", between, "", ""])
    text += _table("| effect | operario | change |", [*map(_row, difference.changes)])
    text += _table(
        "| alert | matched by | now matched by | example |", [*map(_winner_row, difference.winners)]
    )
    return text + _details(difference, _MAX_CHARACTERS - len(text))


def _table(head: str, rows: list[str]) -> str:
    """A table with as many rows as fit; empty without rows."""
    if not rows:
        return ""
    room = _MAX_TABLE_CHARACTERS
    shown = []
    for row in rows[:_MAX_ROWS]:
        room -= len(row)
        if room < 0:
            break
        shown.append(row)
    columns = head.count("|") - 1
    if left := len(rows) - len(shown):
        shown.append("| " * (columns - 1) + f"| and {left} more |")
    return "\n".join([head, "|---" * columns + "|", *shown]) + "\n\n"


def _row(change: BehaviorChange) -> str:
    word = change.effect.value
    if change.effect in (ChangeEffect.BREAKS, ChangeEffect.WIDENS):
        word = f"**{word}**"
    return f"| {word} | {_subject(change)} | {_sentence(change.sentence)} |"


def _winner_row(winner: Winner) -> str:
    alert = f"{_code(winner.alertname)} ({winner.status})"
    return f"| {alert} | {_name(winner.before)} | {_name(winner.after)} | {_example(winner)} |"


def _example(winner: Winner) -> str:
    if winner.always:
        return ""
    return _code(labels(winner.labels)) if winner.labels else "without labels"


def _name(operario: str) -> str:
    return _code(operario) if operario else "no operario"


def _subject(change: BehaviorChange) -> str:
    if change.operario:
        return _code(change.operario)
    return _code("openfero.yaml") if change.kind is ChangeKind.ENVELOPE else ""


def _details(difference: BehaviorDiff, room: int) -> str:
    """The line diffs of the changes, as many as fit."""
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
        blocks.append(
            f"The line diffs of {plural(left_out, 'change')} do not fit into this comment; run "
            "`openfero-gitops diff` to see them.\n"
        )
    return "\n".join(blocks)


def _block(change: BehaviorChange, lines: list[str]) -> str:
    shown = lines[:_MAX_LINES]
    if len(lines) > _MAX_LINES:
        shown.append(f" … {len(lines) - _MAX_LINES} more lines")
    body = "\n".join(shown)
    longest = max((len(run) for run in _BACKTICKS.findall(body)), default=0)
    fence = "`" * max(3, longest + 1)
    title = f"{_subject(change)} {_sentence(change.sentence)}"
    return f"<details><summary>{title}</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n"


def _sentence(sentence: Sentence) -> str:
    return "".join(_code(part) if isinstance(part, Quote) else _escaped(part) for part in sentence)


def _escaped(text: str) -> str:
    """Our own text, without any Markdown."""
    return re.sub(r"[|<>&*_`\[\]\\]", _character_reference, text)


def _code(text: str) -> str:
    """Untrusted text that is rendered as text."""
    return (
        f"<code>{_SPECIAL.sub(_character_reference, printable(text, _MAX_QUOTE_CHARACTERS))}</code>"
    )


def _character_reference(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"
