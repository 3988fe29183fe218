"""How rules are applied to a Job's body: one function for each, in `catalog.validation.checks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Rule

    Check = Callable[[Body], Iterator["Breach"]]

#: What to do instead (empty: the rule's advice). A function where that is slow to find out: it is
#: called for the first findings of a file only.
Suggestion = str | Callable[[], str]
#: A pointer, what is wrong there, and what to do instead.
Breach = tuple[Pointer, str, Suggestion]
#: The reason of every rule that only repeats what Kubernetes requires.
API_SERVER_REJECTS: Final = (
    "The API server rejects such a Job; without this rule that would be noticed only when the"
    " alert fires."
)
CHECKS: Final[list[tuple[Rule, Check]]] = []


def kubernetes_error(name: str, text: str, advice: str = "") -> Rule:
    """Declare a rule that only repeats what Kubernetes requires."""
    return error(name, text, API_SERVER_REJECTS, advice)


def check(rule: Rule) -> Callable[[Check], Check]:
    """Register a function as a check of a rule."""

    def register(function: Check) -> Check:
        CHECKS.append((rule, function))
        return function

    return register


def duplicates(
    kind: str, field: str, items: Iterable[tuple[Pointer, Mapping[str, Any]]]
) -> Iterator[Breach]:
    """Report items whose value of a field is not unique; empty values are ignored."""
    seen: set[str] = set()
    for pointer, item in items:
        value = item.get(field)
        if not value:
            continue
        if value in seen:
            yield (*pointer, field), f"{kind} {shown(value)} is not unique", "rename one of them"
        seen.add(value)
