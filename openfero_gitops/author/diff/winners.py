"""Alerts for which the matching operario changes, found by matching examples against both catalogs.

An alert may have any labels, but only labels that some matcher uses can change the match. So the
examples have the values that the matchers of both revisions distinguish.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.diff.change import (
    BehaviorChange,
    ChangeEffect,
    ChangeKind,
    Winner,
)
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.domain.alert import Alert
from openfero_gitops.domain.operario import Mode
from openfero_gitops.domain.sentence import Quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.matcher import Matcher
    from openfero_gitops.domain.operario import Operario

_OTHER_VALUE: Final = "other"
_MAX_EXAMPLES: Final = 2000


def winners(base: Catalog, head: Catalog) -> Iterator[Winner]:
    """Find the alerts, by name and status, whose operario changes, with one example each."""
    for name in sorted({*base.by_alert, *head.by_alert}):
        before, after = base.by_alert.get(name, ()), head.by_alert.get(name, ())
        for status in sorted({operario.status for operario in (*before, *after)}):
            old = [operario for operario in before if operario.status is status]
            new = [operario for operario in after if operario.status is status]
            if _choice(old) != _choice(new):
                matchers = [
                    matcher for operario in (*old, *new) for matcher in operario.options.matchers
                ]
                yield from _transitions((new or old)[0], matchers, base, head)


def takeovers(changed: Sequence[Winner], base: Catalog, head: Catalog) -> Iterator[BehaviorChange]:
    """Find the alerts whose Jobs no longer wait for approval, or are no longer dry runs.

    No option of any operario needs to change for that: it is enough that the operario with the
    option is removed, is disabled or has a lower priority than another one.
    """
    old = {operario.name: operario for operario in base.operarios}
    new = {operario.name: operario for operario in head.operarios}
    for winner in changed:
        if not (winner.before and winner.after):
            continue
        before, after = old[winner.before], new[winner.after]
        alert = ("matches alert ", Quote(winner.alertname), f" ({winner.status}) instead of ")
        for held_back, sentence in (
            (_needs_approval, ", which requires approval; its own Jobs start without approval"),
            (_is_dry, ", whose Jobs are dry runs; its own Jobs run"),
        ):
            if held_back(before) and not held_back(after):
                yield BehaviorChange(
                    ChangeEffect.WIDENS,
                    ChangeKind.OPTION,
                    after.name,
                    (*alert, Quote(before.name), sentence),
                )


def _needs_approval(operario: Operario) -> bool:
    return operario.options.approval


def _is_dry(operario: Operario) -> bool:
    return operario.options.mode is Mode.DRY_RUN


def _choice(operarios: Sequence[Operario]) -> list[tuple[str, bool, tuple[Matcher, ...]]]:
    """What the match depends on."""
    return [
        (operario.name.lower(), operario.options.enabled, operario.options.matchers)
        for operario in operarios
    ]


def _transitions(
    operario: Operario, matchers: Sequence[Matcher], base: Catalog, head: Catalog
) -> Iterator[Winner]:
    """The changes for alerts with an operario's alert name and status."""
    alertname, status = operario.alertname, operario.status
    examples: dict[tuple[str, str], dict[str, str]] = {}
    for labels in _samples(matchers):
        alert = Alert(status, {"alertname": alertname, **labels}, {}, None, None, "", "")
        # The first example of a transition has the fewest labels.
        examples.setdefault((_winner(alert, base), _winner(alert, head)), labels)
    for (before, after), labels in sorted(examples.items()):
        if before.lower() != after.lower():
            yield Winner(alertname, status, before, after, labels, always=len(examples) == 1)


def _winner(alert: Alert, catalog: Catalog) -> str:
    result = match(alert, catalog, ())
    return result.operario.name if isinstance(result, Match) else ""


def _samples(matchers: Sequence[Matcher]) -> Iterator[dict[str, str]]:
    """Label sets that the matchers distinguish, small sets first."""
    values: dict[str, dict[str, None]] = {}
    for matcher in matchers:
        of_label = values.setdefault(matcher.name, {"": None, _OTHER_VALUE: None})
        of_label.update(dict.fromkeys(matcher.candidates()))
    names = sorted(values)
    products = itertools.product(*(values[name] for name in names))
    sets = [
        {name: value for name, value in zip(names, product, strict=True) if value}
        for product in itertools.islice(products, _MAX_EXAMPLES)
    ]
    yield from sorted(sets, key=len)
