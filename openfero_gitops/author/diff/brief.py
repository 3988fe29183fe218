"""What an activated catalog changes in behavior, in a few lines for a page.

The words are those of `diff`. The files that hold no operarios are not kept with a catalog; of
those, only roles and bindings matter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.diff import ChangeKind, Side, compare
from openfero_gitops.author.diff.plain import summary, winner_text
from openfero_gitops.domain.catalog import Snapshot
from openfero_gitops.domain.sentence import sentence_text
from openfero_gitops.domain.sync import BehaviorLine, BehaviorNote
from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Catalog, SourceFile

_MAX_LINES: Final = 30
_MAX_CHARACTERS: Final = 400
_WINNER: Final = "matching"


def note_behavior(
    before: Catalog,
    after: Catalog,
    roles: tuple[tuple[SourceFile, ...], tuple[SourceFile, ...]] | None,
) -> BehaviorNote:
    """Describe what `after` changes.

    `roles` are the files with roles and bindings before and after. None if those of before are not
    known, because it was read from the mirror, which has no problems of files either: then neither
    is compared.
    """
    old_roles, new_roles = roles or ((), ())
    difference = compare(_side(before, old_roles), _side(after, new_roles))
    changes = [
        change
        for change in difference.changes
        if roles is not None or change.kind is not ChangeKind.QUARANTINE
    ]
    lines = [
        BehaviorLine(
            change.effect.value,
            "openfero.yaml" if change.kind is ChangeKind.ENVELOPE else printable(change.operario),
            printable(sentence_text(change.sentence), _MAX_CHARACTERS),
        )
        for change in changes[:_MAX_LINES]
    ]
    lines += [
        BehaviorLine(_WINNER, "", printable(winner_text(winner), _MAX_CHARACTERS))
        for winner in difference.winners[: _MAX_LINES - len(lines)]
    ]
    total = len(changes) + len(difference.winners)
    shown = replace(difference, changes=tuple(changes))
    return BehaviorNote(summary(shown), tuple(lines), total - len(lines))


def _side(catalog: Catalog, roles: tuple[SourceFile, ...]) -> Side:
    return Side(Snapshot(catalog.revision, catalog.root, catalog.files + roles), catalog)
