"""A difference for a terminal, and for a program."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.diff.change import ChangeEffect, ChangeKind, Quote
from openfero_gitops.domain.text import labels, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.author.diff.change import BehaviourChange, BehaviourDiff, Sentence, Winner

NO_CHANGE: Final = "no change in behaviour"
_NOBODY: Final = "nobody"
_LONGEST_QUOTE: Final = 300
_LONGEST_LINE: Final = 400


def sentence_text(sentence: Sentence) -> str:
    """A sentence on one line, its quotes made fit to be printed."""
    return "".join(
        printable(part, _LONGEST_QUOTE) if isinstance(part, Quote) else part for part in sentence
    )


def difference_lines(change: BehaviourChange) -> list[str]:
    """What is shown line against line, of one change."""
    lines = difflib.unified_diff(
        change.before.splitlines(), change.after.splitlines(), lineterm="", n=2
    )
    # (Without the two lines that would name files.)
    return [printable(line, _LONGEST_LINE) for line in list(lines)[2:]]


def summary(difference: BehaviourDiff) -> str:
    """The whole in one line."""
    told = [
        f"{number} {(_ONE if number == 1 else _MANY)[effect]}"
        for effect in ChangeEffect
        if (number := sum(change.effect is effect for change in difference.changes))
    ]
    if difference.winners:
        told.append(f"{plural(len(difference.winners), 'alert')} answered otherwise")
    if told:
        return ", ".join(told)
    files = f" ({plural(difference.files, 'file')} changed)" if difference.files else ""
    return NO_CHANGE + files


_ONE: Final = {
    ChangeEffect.BREAKS: "change breaks something",
    ChangeEffect.WIDENS: "allows more",
    ChangeEffect.CHANGES: "changes what happens",
    ChangeEffect.NARROWS: "allows less",
}
_MANY: Final = {
    ChangeEffect.BREAKS: "changes break something",
    ChangeEffect.WIDENS: "allow more",
    ChangeEffect.CHANGES: "change what happens",
    ChangeEffect.NARROWS: "allow less",
}


def winner_text(winner: Winner) -> str:
    """Who answered an alert, who does now, and for which labels."""
    who = f"{printable(winner.before) or _NOBODY} → {printable(winner.after) or _NOBODY}"
    return f"alert {printable(winner.alertname)} ({winner.status}): {who}{where_text(winner)}"


def where_text(winner: Winner) -> str:
    """For which labels, for example."""
    if winner.always:
        return ""
    return f", for example with {labels(winner.labels)}" if winner.labels else ", without labels"


def as_text(difference: BehaviourDiff) -> str:
    """For a terminal: the most dangerous first, each change with its lines."""
    return "\n".join([*_lines(difference), summary(difference)])


def _lines(difference: BehaviourDiff) -> Iterator[str]:
    for change in difference.changes:
        whose = f"{change.operario}: " if change.operario else ""
        if change.kind is ChangeKind.ENVELOPE:
            whose = "openfero.yaml: "
        yield f"{change.effect.value}: {whose}{sentence_text(change.sentence)}"
        yield from (f"    {line}" for line in difference_lines(change))
    yield from map(winner_text, difference.winners)


def as_json(difference: BehaviourDiff) -> dict[str, Any]:
    """For programs; null is what there is not."""
    return {
        "base": difference.base.commit,
        "head": difference.head.commit,
        "changes": [
            {
                "effect": change.effect.value.replace(" ", "-"),
                "kind": change.kind.value,
                "operario": change.operario or None,
                "message": sentence_text(change.sentence),
                "before": change.before or None,
                "after": change.after or None,
            }
            for change in difference.changes
        ],
        "alerts": [
            {
                "alertname": winner.alertname,
                "status": winner.status.value,
                "before": winner.before or None,
                "after": winner.after or None,
                "labels": dict(winner.labels),
                "always": winner.always,
            }
            for winner in difference.winners
        ],
        "files": difference.files,
    }
