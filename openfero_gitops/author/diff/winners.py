"""Which alerts another operario answers than before: the controller's own choice, asked twice.

Alerts differ in labels without end, but only those that some matcher looks at can change a choice.
So the matchers of both revisions say with which values the question is asked.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.author.diff.change import Winner
from openfero_gitops.delivery.match import Match, match
from openfero_gitops.domain.alert import Alert
from openfero_gitops.domain.matcher import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.matcher import Matcher
    from openfero_gitops.domain.operario import Operario

_OTHER: Final = "other"
_MOST: Final = 2000
_WORDS: Final = re.compile(r"[A-Za-z0-9_./:-]+")


def winners(base: Catalog, head: Catalog) -> Iterator[Winner]:
    """Every alert, by name and state, that is answered otherwise, with an example each."""
    for name in sorted({*base.by_alert, *head.by_alert}):
        before, after = base.by_alert.get(name, ()), head.by_alert.get(name, ())
        for status in sorted({one.status for one in (*before, *after)}):
            old = [one for one in before if one.status is status]
            new = [one for one in after if one.status is status]
            if _choice(old) != _choice(new):
                matchers = [m for one in (*old, *new) for m in one.options.matchers]
                yield from _transitions((new or old)[0], matchers, base, head)


def _choice(operarios: Sequence[Operario]) -> list[tuple[str, bool, tuple[Matcher, ...]]]:
    return [(one.name.lower(), one.options.enabled, one.options.matchers) for one in operarios]


def _transitions(
    one: Operario, matchers: Sequence[Matcher], base: Catalog, head: Catalog
) -> Iterator[Winner]:
    """What becomes of the alerts of one operario's name and state."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for labels in _samples(matchers):
        named = {"alertname": one.alertname, **labels}
        alert = Alert(one.status, named, {}, None, None, "", "")
        # (The first that is found has the fewest labels.)
        found.setdefault((_winner(alert, base), _winner(alert, head)), labels)
    for (before, after), labels in sorted(found.items()):
        if before.lower() != after.lower():
            yield Winner(one.alertname, one.status, before, after, labels, always=len(found) == 1)


def _winner(alert: Alert, catalog: Catalog) -> str:
    found = match(alert, catalog, ())
    return found.operario.name if isinstance(found, Match) else ""


def _samples(matchers: Sequence[Matcher]) -> Iterator[dict[str, str]]:
    """Label sets that matchers tell apart, few labels first."""
    values: dict[str, dict[str, None]] = {}
    for matcher in matchers:
        of_label = values.setdefault(matcher.name, {"": None, _OTHER: None})
        of_label.update(dict.fromkeys(_values(matcher)))
    names = sorted(values)
    sets = [
        {name: value for name, value in zip(names, chosen, strict=True) if value}
        for chosen in itertools.islice(itertools.product(*(values[name] for name in names)), _MOST)
    ]
    yield from sorted(sets, key=len)


def _values(matcher: Matcher) -> Iterator[str]:
    """Values that a matcher may tell from others: its own, or words of its expression."""
    if matcher.operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        yield matcher.value
        return
    pattern = matcher.value
    filled = re.sub(r"\.[*+]|\.", "x", pattern)
    for text in (pattern, filled, re.sub(r"\.\*", "", pattern)):
        yield text
        yield from re.split(r"[|()]", text)
    yield from _WORDS.findall(pattern)
