"""Prometheus' alerting rules: which alerts there are, and what is known of their labels.

Read are plain rule files (`groups:` at the top), PrometheusRule objects of the Prometheus
operator, and lists of them, several documents in a file. Recording rules are passed over. Of a
rule's labels only those that it writes itself are known, and of those not the templated ones: what
else an alert carries comes from its expression, from Prometheus and from relabelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

from openfero_gitops.catalog.yaml.compose import Bounds, Unreadable, compose, decode, is_merge
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: All rules of a large installation in one file.
_BOUNDS: Final = Bounds(size=32 * 1024 * 1024, values=2_000_000, documents=20_000)
_KIND: Final = "PrometheusRule"
_ADVICE: Final = (
    "give a file with PrometheusRule objects, or with groups of rules as Prometheus reads them"
)


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alerting rule; `labels` are those whose value is known, `path` is as it was given."""

    name: str
    labels: Mapping[str, str]
    path: str
    line: int


def read_rules(content: bytes, path: str) -> list[AlertRule]:
    """Read every alerting rule of a file.

    Raises:
        UsageError: it is no file of rules; the text names the line.
    """
    rules: list[AlertRule] = []
    found = False
    try:
        for document in compose(decode(content, _BOUNDS), _BOUNDS):
            for groups in _groups(document, path):
                found = True
                rules += _of_groups(groups, path)
    except Unreadable as reason:
        place = f"{path}:{reason.line}" if reason.line else path
        hint = ""
        if b"{{" in content and reason.line:
            hint = "; if it is a template of a Helm chart, render it first (helm template)"
        raise UsageError(f"{place}: {reason.message}{hint}") from None
    if not found:
        raise UsageError(f"{path}: there are no rules in it; {_ADVICE}")
    return rules


def _groups(document: yaml.Node | None, path: str) -> Iterator[yaml.Node]:
    """The groups of one document: of a rule file, of an object, or of each object of a list."""
    pending = [document] if document is not None else []
    while pending:
        one = pending.pop(0)
        members = _members(one)
        kind = _text(members.get("kind"))
        if kind == _KIND:
            groups = _members(members.get("spec")).get("groups")
            if groups is not None:  # (a PrometheusRule may be empty)
                yield groups
            else:
                yield yaml.SequenceNode("", [])
        elif kind.endswith("List") and one is document:
            pending += _items(members.get("items"), path, "items")
        elif not kind and "groups" in members:
            yield members["groups"]


def _of_groups(groups: yaml.Node, path: str) -> Iterator[AlertRule]:
    for group in _items(groups, path, "groups"):
        members = _members(group)
        if not members:
            raise _wrong(path, group, "a group is a mapping with a name and rules")
        around = _labels(members.get("labels"), path)
        for rule in _items(members.get("rules"), path, "rules"):
            fields = _members(rule)
            alert = fields.get("alert")
            if alert is None:
                if "record" not in fields:
                    raise _wrong(path, rule, "a rule has neither alert nor record")
                continue
            name = _text(alert)
            if not name:
                raise _wrong(path, alert, "alert is the name of an alert")
            labels = {**around, **_labels(fields.get("labels"), path)}
            known = {key: value for key, value in labels.items() if "{{" not in value}
            yield AlertRule(name, known, path, alert.start_mark.line + 1)


def _labels(node: yaml.Node | None, path: str) -> dict[str, str]:
    if node is not None and not isinstance(node, yaml.MappingNode) and _text(node):
        raise _wrong(path, node, "labels are a mapping")
    return {key: _text(value) for key, value in _members(node).items()}


def _members(node: yaml.Node | None, around: frozenset[int] = frozenset()) -> dict[str, yaml.Node]:
    """A mapping's values by key, those that are merged in below its own; nothing for another."""
    if not isinstance(node, yaml.MappingNode) or id(node) in around:
        return {}  # (An anchor may be merged into itself.)
    merged: dict[str, yaml.Node] = {}
    own: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if is_merge(key):
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in sources:
                merged = {**_members(source, around | {id(node)}), **merged}
        elif isinstance(key, yaml.ScalarNode):
            own[key.value] = value
    return {**merged, **own}


def _items(node: yaml.Node | None, path: str, what: str) -> list[yaml.Node]:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~")):
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _wrong(path, node, f"{what} is a list")
    return list(node.value)


def _text(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _wrong(path: str, node: yaml.Node, message: str) -> UsageError:
    return UsageError(f"{printable(path)}:{node.start_mark.line + 1}: {message}; {_ADVICE}")
