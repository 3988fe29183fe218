"""Compare alerting rules with operarios: rules without an operario, and unreachable operarios.

A matcher contradicts a rule if the rule itself sets the label to a value that does not match. A
label that the rule does not set may still come with the alert, so a matcher for it may match: such
a rule is covered for some labels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.text import labels, nearest, plural, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from openfero_gitops.author.alert_rules import AlertRule
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.matcher import Matcher
    from openfero_gitops.domain.operario import Operario


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """One alerting rule and the operarios for its alerts.

    `operarios` may match the firing alert, in the order of precedence; with `always`, one of them
    matches whatever the labels. `resolved` may match the resolved alert. `reason` explains why
    no operario matches, or for which labels.
    """

    rule: AlertRule
    operarios: tuple[str, ...]
    always: bool
    resolved: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UnreachableOperario:
    """An operario that no alerting rule can reach, and why."""

    operario: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """The coverage of all rules; `ignored` counts the rules that were ignored."""

    rules: tuple[RuleCoverage, ...]
    unreachable: tuple[UnreachableOperario, ...]
    notes: tuple[str, ...]
    ignored: int

    @property
    def gaps(self) -> tuple[RuleCoverage, ...]:
        """The rules without an operario."""
        return tuple(rule for rule in self.rules if not rule.operarios)

    @property
    def percentage(self) -> float:
        """The percentage of rules with an operario, rounded down: 100 means all of them."""
        total = len(self.rules)
        return (total - len(self.gaps)) * 1000 // total / 10 if total else 0.0

    @property
    def complete(self) -> bool:
        """Whether every rule has an operario, and every operario can be reached."""
        return bool(self.rules) and not self.gaps and not self.unreachable


def cover(catalog: Catalog, rules: Iterable[AlertRule], ignore: Collection[str] = ()) -> Coverage:
    """Compare a catalog with alerting rules.

    `ignore` are names of alerts that need no operario, such as that of the watchdog, which always
    fires.
    """
    ignored_names = {name.lower() for name in ignore}
    if catalog.envelope.watchdog is not None:
        ignored_names.add(catalog.envelope.watchdog.alertname.lower())
    rules = sorted(rules, key=lambda rule: (rule.name, rule.path, rule.line))
    reached: set[str] = set()
    covered = []
    ignored = 0
    for rule in rules:
        firing, always = _matching(rule, catalog, Status.FIRING)
        resolved, _ = _matching(rule, catalog, Status.RESOLVED)
        reached |= {operario.name for operario in (*firing, *resolved)}
        if rule.name.lower() in ignored_names:
            ignored += 1
            continue
        covered.append(
            RuleCoverage(
                rule,
                tuple(operario.name for operario in firing),
                always,
                tuple(operario.name for operario in resolved),
                "" if always else _reason(rule, firing, catalog),
            )
        )
    return Coverage(
        rules=tuple(covered),
        unreachable=tuple(_unreachable(catalog, rules, reached)),
        notes=tuple(_notes(catalog)),
        ignored=ignored,
    )


def _matching(rule: AlertRule, catalog: Catalog, status: Status) -> tuple[list[Operario], bool]:
    """The operarios that may match a rule's alerts, up to the first that always does."""
    operarios = []
    for operario in _of_name(rule.name, catalog):
        if operario.status is not status or not operario.options.enabled:
            continue
        matchers = operario.options.matchers
        if any(_contradicts(rule, matcher) for matcher in matchers):
            continue
        operarios.append(operario)
        if all(_is_known(rule, matcher) for matcher in matchers):
            return operarios, True
    return operarios, False


def _of_name(name: str, catalog: Catalog) -> Sequence[Operario]:
    return catalog.by_alert.get(name.lower(), ())


def _is_known(rule: AlertRule, matcher: Matcher) -> bool:
    return matcher.name == "alertname" or matcher.name in rule.labels


def _contradicts(rule: AlertRule, matcher: Matcher) -> bool:
    return _is_known(rule, matcher) and not matcher.matches({**rule.labels, "alertname": rule.name})


def _reason(rule: AlertRule, firing: Sequence[Operario], catalog: Catalog) -> str:
    """Why no operario matches, or for which labels one does."""
    if firing:
        return "; ".join(
            f"{operario.name} if {_unknown_matchers(operario, rule)}" for operario in firing
        )
    operarios = _of_name(rule.name, catalog)
    if not operarios:
        near = nearest(rule.name, {operario.alertname for operario in catalog.operarios})
        return f"there is an operario for {near}, is that the same alert?" if near else ""
    reasons = []
    for operario in operarios:
        if operario.status is not Status.FIRING:
            reasons.append(f"{operario.name} matches only the resolved alert")
        elif not operario.options.enabled:
            reasons.append(f"{operario.name} is disabled")
        else:
            reasons.append(f"{operario.name} does not match: {_contradiction(operario, rule)}")
    return "; ".join(reasons)


def _unknown_matchers(operario: Operario, rule: AlertRule) -> str:
    return ", ".join(
        printable(str(matcher))
        for matcher in operario.options.matchers
        if not _is_known(rule, matcher)
    )


def _contradiction(operario: Operario, rule: AlertRule) -> str:
    matcher = next(matcher for matcher in operario.options.matchers if _contradicts(rule, matcher))
    label = labels({matcher.name: rule.labels.get(matcher.name, rule.name)})
    return f"matcher {printable(str(matcher))} contradicts the rule's {label}"


def _unreachable(
    catalog: Catalog, rules: Sequence[AlertRule], reached: Collection[str]
) -> Iterator[UnreachableOperario]:
    by_name: dict[str, list[AlertRule]] = defaultdict(list)
    for rule in rules:
        by_name[rule.name.lower()].append(rule)
    for operario in sorted(catalog.operarios, key=lambda operario: operario.name):
        if operario.name in reached or not operario.options.enabled:
            continue
        of_name = by_name.get(operario.alertname.lower())
        if of_name is None:
            reason = f"no rule has the name {printable(operario.alertname)}"
            if near := nearest(operario.alertname, {rule.name for rule in rules}):
                reason += f" (did you mean {printable(near)}?)"
        elif contradicted := [
            rule
            for rule in of_name
            if any(_contradicts(rule, matcher) for matcher in operario.options.matchers)
        ]:
            reason = _contradiction(operario, contradicted[0])
            if len(contradicted) < len(of_name):
                reason += ", and the other rules match an operario that comes before it"
        else:
            first = _matching(of_name[0], catalog, operario.status)[0][-1]
            reason = f"{first.name} comes before it and matches whatever the labels"
        yield UnreachableOperario(operario.name, operario.origin.path, reason)


def _notes(catalog: Catalog) -> Iterator[str]:
    """Operarios for resolved alerts whose Jobs never start, because no firing Job precedes them."""
    for operario in sorted(catalog.operarios, key=lambda operario: operario.name):
        if operario.status is Status.RESOLVED and not any(
            other.status is Status.FIRING and other.options.enabled
            for other in _of_name(operario.alertname, catalog)
        ):
            yield (
                f"{operario.name} is for the resolved alert {printable(operario.alertname)}, but"
                " there is no operario for the firing one: its Jobs never start"
            )


# Output


def as_text(coverage: Coverage) -> str:
    """For a terminal: gaps first, then partial coverage, then a summary."""
    lines = [f"no operario: {_rule_text(gap)}" for gap in coverage.gaps]
    lines += (
        f"unreachable: {unreachable.operario} ({unreachable.path}): {unreachable.reason}"
        for unreachable in coverage.unreachable
    )
    partly = [rule for rule in coverage.rules if rule.operarios and not rule.always]
    lines += (f"some labels: {_rule_text(rule)}" for rule in partly)
    lines += (f"note: {note}" for note in coverage.notes)
    total = len(coverage.rules)
    if not total:
        lines.append("no alerting rules: all rules are recording rules, or ignored")
    summary = (
        f"{total - len(coverage.gaps)} of {plural(total, 'alerting rule')}"
        f" {'has' if total == 1 else 'have'} an operario"
        f" ({coverage.percentage:g} %)"
    )
    if partly:
        summary += f", {len(partly)} of them for some labels only"
    if resolved := sum(bool(rule.resolved) for rule in coverage.rules):
        summary += f"; {resolved} also when resolved"
    if coverage.unreachable:
        summary += f"; {plural(len(coverage.unreachable), 'operario')} unreachable"
    if coverage.ignored:
        summary += f"; {plural(coverage.ignored, 'rule')} ignored"
    return "\n".join([*lines, summary])


def _rule_text(coverage: RuleCoverage) -> str:
    rule = coverage.rule
    rule_labels = "{" + labels(rule.labels) + "}" if rule.labels else ""
    reason = f": {coverage.reason}" if coverage.reason else ""
    return f"{printable(rule.name)}{rule_labels} ({printable(rule.path)}:{rule.line}){reason}"


def as_json(coverage: Coverage) -> dict[str, Any]:
    """For programs."""
    return {
        "percentage": coverage.percentage,
        "alerts": [
            {
                "alertname": covered.rule.name,
                "labels": dict(covered.rule.labels),
                "path": covered.rule.path,
                "line": covered.rule.line,
                "covered": "yes" if covered.always else "some" if covered.operarios else "no",
                "operarios": list(covered.operarios),
                "resolved": list(covered.resolved),
                "message": covered.reason or None,
            }
            for covered in coverage.rules
        ],
        "unreachable": [
            {
                "operario": unreachable.operario,
                "path": unreachable.path,
                "message": unreachable.reason,
            }
            for unreachable in coverage.unreachable
        ],
        "notes": list(coverage.notes),
        "leftOut": coverage.ignored,
    }
