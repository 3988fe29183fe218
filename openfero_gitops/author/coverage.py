"""Alerting rules beside operarios: which alerts nobody answers, which operarios nobody reaches.

A matcher contradicts a rule where the rule itself gives the label another value. A label that the
rule does not write may come with the alert, so a matcher on it may hold: such an alert is covered
for some of its labels.
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
class Answered:
    """One alerting rule and who answers its alerts.

    `operarios` may answer the firing alert, in the order of choice; `surely` says that one of
    them does, whatever labels it comes with. `resolved` may answer the resolved one. `why` is
    there where nobody answers, or for some labels alone.
    """

    rule: AlertRule
    operarios: tuple[str, ...]
    surely: bool
    resolved: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Unreached:
    """An operario that no rule can reach, and why."""

    operario: str
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """The whole; `left_out` counts the rules that were asked to be left out."""

    answered: tuple[Answered, ...]
    unreached: tuple[Unreached, ...]
    notes: tuple[str, ...]
    left_out: int

    @property
    def gaps(self) -> tuple[Answered, ...]:
        """The rules whose alerts nobody answers."""
        return tuple(one for one in self.answered if not one.operarios)

    @property
    def percentage(self) -> float:
        """How many of a hundred rules are answered, cut: 100 is all of them, and none is 0."""
        total = len(self.answered)
        return (total - len(self.gaps)) * 1000 // total / 10 if total else 0.0

    @property
    def complete(self) -> bool:
        """Whether there is no gap on either side."""
        return bool(self.answered) and not self.gaps and not self.unreached


def cover(catalog: Catalog, rules: Iterable[AlertRule], ignore: Collection[str] = ()) -> Coverage:
    """Hold a catalog against alerting rules; `ignore` are names of alerts that need nobody."""
    passed = {name.lower() for name in ignore}
    known = sorted(rules, key=lambda rule: (rule.name, rule.path, rule.line))
    asked = [rule for rule in known if rule.name.lower() not in passed]
    reached: set[str] = set()
    answered = []
    for rule in known:
        firing, surely = _answering(rule, catalog, Status.FIRING)
        resolved, _ = _answering(rule, catalog, Status.RESOLVED)
        reached |= {one.name for one in (*firing, *resolved)}
        if rule.name.lower() not in passed:
            answered.append(
                Answered(
                    rule,
                    tuple(one.name for one in firing),
                    surely,
                    tuple(one.name for one in resolved),
                    "" if surely else _why(rule, firing, catalog),
                )
            )
    return Coverage(
        answered=tuple(answered),
        unreached=tuple(_unreached(catalog, known, reached)),
        notes=tuple(_notes(catalog)),
        left_out=len(known) - len(asked),
    )


def _answering(rule: AlertRule, catalog: Catalog, status: Status) -> tuple[list[Operario], bool]:
    """Who may answer a rule's alerts in a state, up to the first who surely does."""
    found = []
    for operario in _of_name(rule.name, catalog):
        if operario.status is not status or not operario.options.enabled:
            continue
        matchers = operario.options.matchers
        if any(_contradicts(rule, one) for one in matchers):
            continue
        found.append(operario)
        if all(_is_known(rule, one) for one in matchers):
            return found, True
    return found, False


def _of_name(name: str, catalog: Catalog) -> Sequence[Operario]:
    return catalog.by_alert.get(name.lower(), ())


def _is_known(rule: AlertRule, matcher: Matcher) -> bool:
    return matcher.name == "alertname" or matcher.name in rule.labels


def _contradicts(rule: AlertRule, matcher: Matcher) -> bool:
    return _is_known(rule, matcher) and not matcher.matches({**rule.labels, "alertname": rule.name})


def _why(rule: AlertRule, firing: Sequence[Operario], catalog: Catalog) -> str:
    """Why nobody answers, or for which labels somebody does."""
    if firing:
        return "; ".join(f"{one.name} where {_matchers(one, rule)}" for one in firing)
    named = _of_name(rule.name, catalog)
    if not named:
        near = nearest(rule.name, {one.alertname for one in catalog.operarios})
        return f"an operario is there for {near}: is that meant?" if near else ""
    reasons = []
    for one in named:
        if one.status is not Status.FIRING:
            reasons.append(f"{one.name} answers it when it is resolved, alone")
        elif not one.options.enabled:
            reasons.append(f"{one.name} is switched off (enabled: false)")
        else:
            reasons.append(f"{one.name} does not, {_contradiction(one, rule)}")
    return "; ".join(reasons)


def _matchers(operario: Operario, rule: AlertRule) -> str:
    return ", ".join(
        printable(str(one)) for one in operario.options.matchers if not _is_known(rule, one)
    )


def _contradiction(operario: Operario, rule: AlertRule) -> str:
    matcher = next(one for one in operario.options.matchers if _contradicts(rule, one))
    has = labels({matcher.name: rule.labels.get(matcher.name, rule.name)})
    return f"its matcher {printable(str(matcher))} contradicts the rule's {has}"


def _unreached(
    catalog: Catalog, rules: Sequence[AlertRule], reached: Collection[str]
) -> Iterator[Unreached]:
    by_name: dict[str, list[AlertRule]] = defaultdict(list)
    for rule in rules:
        by_name[rule.name.lower()].append(rule)
    for operario in sorted(catalog.operarios, key=lambda one: one.name):
        if operario.name in reached or not operario.options.enabled:
            continue
        named = by_name.get(operario.alertname.lower())
        if named is None:
            why = f"no rule is named {printable(operario.alertname)}"
            if near := nearest(operario.alertname, {rule.name for rule in rules}):
                why += f" (did you mean {printable(near)}?)"
        elif contradicted := [
            rule
            for rule in named
            if any(_contradicts(rule, one) for one in operario.options.matchers)
        ]:
            why = _contradiction(operario, contradicted[0])
            if len(contradicted) < len(named):
                why += ", and before it comes one that answers the others"
        else:
            first = _answering(named[0], catalog, operario.status)[0][-1]
            why = f"{first.name} goes first, whatever the labels"
        yield Unreached(operario.name, operario.origin.path, why)


def _notes(catalog: Catalog) -> Iterator[str]:
    """Operarios for resolved alerts that never have anything to undo."""
    for operario in sorted(catalog.operarios, key=lambda one: one.name):
        if operario.status is Status.RESOLVED and not any(
            one.status is Status.FIRING and one.options.enabled
            for one in _of_name(operario.alertname, catalog)
        ):
            yield (
                f"{operario.name} answers {printable(operario.alertname)} when it is resolved, and"
                " no operario answers it firing: there is nothing to undo"
            )


# What is told.


def as_text(coverage: Coverage) -> str:
    """For a terminal: gaps first, then what is covered in part, then a line that counts."""
    lines = [f"no operario: {_rule(one.rule)}{_reason(one.why)}" for one in coverage.gaps]
    lines += (f"unreachable: {one.operario} ({one.path}): {one.why}" for one in coverage.unreached)
    partly = [one for one in coverage.answered if one.operarios and not one.surely]
    lines += (f"some labels: {_rule(one.rule)}{_reason(one.why)}" for one in partly)
    lines += (f"note: {note}" for note in coverage.notes)
    total = len(coverage.answered)
    if not total:
        lines.append("no alert: the rules are recording rules, or left out")
    resolved = sum(bool(one.resolved) for one in coverage.answered)
    summary = (
        f"{total - len(coverage.gaps)} of {plural(total, 'alerting rule')}"
        f" {'has' if total == 1 else 'have'} an operario"
        f" ({coverage.percentage:g} %)"
    )
    if partly:
        summary += f", {len(partly)} of them for some labels alone"
    if resolved:
        summary += f"; {resolved} also when resolved"
    if coverage.unreached:
        summary += f"; {plural(len(coverage.unreached), 'operario')} unreachable"
    if coverage.left_out:
        summary += f"; {plural(coverage.left_out, 'rule')} left out"
    return "\n".join([*lines, summary])


def _rule(rule: AlertRule) -> str:
    known = "{" + labels(rule.labels) + "}" if rule.labels else ""
    return f"{printable(rule.name)}{known} ({printable(rule.path)}:{rule.line})"


def _reason(why: str) -> str:
    return f": {why}" if why else ""


def as_json(coverage: Coverage) -> dict[str, Any]:
    """For programs."""
    return {
        "percentage": coverage.percentage,
        "alerts": [
            {
                "alertname": one.rule.name,
                "labels": dict(one.rule.labels),
                "path": one.rule.path,
                "line": one.rule.line,
                "covered": "yes" if one.surely else "some" if one.operarios else "no",
                "operarios": list(one.operarios),
                "resolved": list(one.resolved),
                "message": one.why or None,
            }
            for one in coverage.answered
        ],
        "unreachable": [
            {"operario": one.operario, "path": one.path, "message": one.why}
            for one in coverage.unreached
        ],
        "notes": list(coverage.notes),
        "leftOut": coverage.left_out,
    }
