"""The changes as text for a terminal, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.diff.change import ChangeEffect, ChangeKind
from openfero_gitops.author.report.lines import diff_lines
from openfero_gitops.domain.sentence import sentence_text
from openfero_gitops.domain.text import labels, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.author.diff.change import BehaviorChange, BehaviorDiff, Winner

NO_CHANGE: Final = "no change in behavior"
_NO_OPERARIO: Final = "no operario"


def difference_lines(change: BehaviorChange) -> list[str]:
    """The line diff of one change."""
    return diff_lines(change.before, change.after, context=2)[2:]  # without the names of files


def summary(difference: BehaviorDiff) -> str:
    """The whole in one line."""
    parts = [
        f"{number} {(_SINGULAR if number == 1 else _PLURAL)[effect]}"
        for effect in ChangeEffect
        if (number := sum(change.effect is effect for change in difference.changes))
    ]
    if difference.winners:
        parts.append(f"{plural(len(difference.winners), 'alert')} matched differently")
    if parts:
        return ", ".join(parts)
    files = f" ({plural(difference.files, 'file')} changed)" if difference.files else ""
    return NO_CHANGE + files


_SINGULAR: Final = {
    ChangeEffect.BREAKS: "breaking change",
    ChangeEffect.WIDENS: "change allows more",
    ChangeEffect.CHANGES: "change in behavior",
    ChangeEffect.NARROWS: "change allows less",
}
_PLURAL: Final = {
    ChangeEffect.BREAKS: "breaking changes",
    ChangeEffect.WIDENS: "changes allow more",
    ChangeEffect.CHANGES: "changes in behavior",
    ChangeEffect.NARROWS: "changes allow less",
}


def winner_text(winner: Winner) -> str:
    """Which operario matched an alert, which one does now, and an example of its labels."""
    before = printable(winner.before) or _NO_OPERARIO
    after = printable(winner.after) or _NO_OPERARIO
    alert = f"alert {printable(winner.alertname)} ({winner.status})"
    return f"{alert}: {before} → {after}{_example_text(winner)}"


def _example_text(winner: Winner) -> str:
    if winner.always:
        return ""
    return f", for example with {labels(winner.labels)}" if winner.labels else ", without labels"


def as_text(difference: BehaviorDiff) -> str:
    """For a terminal: the most dangerous changes first, each with its line diff."""
    return "\n".join([*_lines(difference), summary(difference)])


def _lines(difference: BehaviorDiff) -> Iterator[str]:
    for change in difference.changes:
        subject = f"{change.operario}: " if change.operario else ""
        if change.kind is ChangeKind.ENVELOPE:
            subject = "openfero.yaml: "
        yield f"{change.effect.value}: {subject}{sentence_text(change.sentence)}"
        yield from (f"    {line}" for line in difference_lines(change))
    yield from map(winner_text, difference.winners)


def as_json(difference: BehaviorDiff) -> dict[str, Any]:
    """For programs; absent members are null."""
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
