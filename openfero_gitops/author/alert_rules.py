"""Read Prometheus alerting rules: the names of alerts, and the labels that are known.

Supported are rule files (`groups:` at the top level, also Grafana's), manifests with `spec.groups`
(PrometheusRule, VMRule, AlertingRule, Rules and others) and lists of them, with several documents
in a file, and the answer of the rules API (`/api/v1/rules` of Prometheus, Thanos, Loki and others).
Recording rules are skipped. Only labels that a rule sets itself, without a template, are known; an
alert gets more labels from its expression, from Prometheus and by relabelling.
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

#: Enough for all rules of a large installation in one file.
_BOUNDS: Final = Bounds(size=32 * 1024 * 1024, values=2_000_000, documents=20_000)
#: How the kinds of manifests with rules end. Their groups must be correct; those of other kinds may
#: be something else.
_KINDS: Final = ("Rule", "Rules", "RuleGroup")
_ADVICE: Final = (
    "expected a rule file (groups:), manifests with spec.groups, such as PrometheusRule or VMRule, "
    "or the answer of /api/v1/rules"
)
_TEMPLATE_ADVICE: Final = "if it is a template of a Helm chart, render it first with helm template"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alerting rule; `labels` are those whose value is known."""

    name: str
    labels: Mapping[str, str]
    path: str
    line: int


def read_rules(content: bytes, path: str) -> list[AlertRule]:
    """Read the alerting rules of a file.

    Raises:
        UsageError: it is not a file with rules; the message names the line.
    """
    rules: list[AlertRule] = []
    has_groups = False
    try:
        for document in compose(decode(content, _BOUNDS), _BOUNDS):
            for groups in _groups(document, path):
                has_groups = True
                rules += _of_groups(groups, path)
    except Unreadable as reason:
        place = f"{path}:{reason.line}" if reason.line else path
        hint = ""
        if b"{{" in content and reason.line:
            hint = f"; {_TEMPLATE_ADVICE}"
        raise UsageError(f"{place}: {reason.message}{hint}") from None
    if not has_groups:
        raise UsageError(f"{path}: no rules found; {_ADVICE}")
    return rules


def _groups(document: yaml.Node | None, path: str) -> Iterator[yaml.Node]:
    """The groups of one document: rules, a manifest, a list of manifests, or an API's answer."""
    pending = [document] if document is not None else []
    while pending:
        node = pending.pop(0)
        members = _members(node)
        kind = _text(members.get("kind"))
        if kind.endswith("List") and node is document:
            pending += _items(members.get("items"), path, "items")
        elif kind:
            groups = _members(members.get("spec")).get("groups")
            if groups is not None and (kind.endswith(_KINDS) or _has_rules(groups)):
                yield groups
            elif kind.endswith(_KINDS):  # a PrometheusRule may be empty
                yield yaml.SequenceNode("", [])
        elif "groups" in members:
            yield members["groups"]
        elif "groups" in (data := _members(members.get("data"))):
            yield data["groups"]


def _has_rules(groups: yaml.Node) -> bool:
    """Whether these are groups of rules, whatever the kind of their manifest."""
    return isinstance(groups, yaml.SequenceNode) and any(
        "rules" in _members(group) for group in groups.value
    )


def _of_groups(groups: yaml.Node, path: str) -> Iterator[AlertRule]:
    for group in _items(groups, path, "groups"):
        members = _members(group)
        if not members:
            raise _wrong(path, group, "a group must be a mapping with name and rules")
        group_labels = _labels(members.get("labels"), path)
        for rule in _items(members.get("rules"), path, "rules"):
            fields = _members(rule)
            alert = _alert(fields)
            if alert is None:
                if "record" not in fields and _text(fields.get("type")) != "recording":
                    raise _wrong(path, rule, "a rule has neither alert nor record")
                continue
            name = _text(alert)
            if not name:
                raise _wrong(path, alert, "alert must be the name of an alert")
            if "{{" in name:
                place = f"{printable(path)}:{alert.start_mark.line + 1}"
                message = f"the name of the alert is a template: {printable(name)}"
                raise UsageError(f"{place}: {message}; {_TEMPLATE_ADVICE}")
            labels = {**group_labels, **_labels(fields.get("labels"), path)}
            fixed_labels = {key: value for key, value in labels.items() if "{{" not in value}
            yield AlertRule(name, fixed_labels, path, alert.start_mark.line + 1)


def _alert(fields: Mapping[str, yaml.Node]) -> yaml.Node | None:
    """The name of the alert of a rule; None if it is another rule."""
    if _text(fields.get("type")) == "alerting":  # the rules API
        return fields.get("name")
    if "uid" in fields and "condition" in fields:  # provisioned in Grafana
        return fields.get("title")
    return fields.get("alert")


def _labels(node: yaml.Node | None, path: str) -> dict[str, str]:
    if node is not None and not isinstance(node, yaml.MappingNode) and _text(node):
        raise _wrong(path, node, "labels must be a mapping")
    return {key: _text(value) for key, value in _members(node).items()}


def _members(node: yaml.Node | None, parents: frozenset[int] = frozenset()) -> dict[str, yaml.Node]:
    """The values of a mapping by key, with merge keys (<<) applied; empty for other nodes."""
    if not isinstance(node, yaml.MappingNode) or id(node) in parents:
        return {}  # An anchor may be merged into itself.
    merged: dict[str, yaml.Node] = {}
    own: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if is_merge(key):
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in sources:
                merged = {**_members(source, parents | {id(node)}), **merged}
        elif isinstance(key, yaml.ScalarNode):
            own[key.value] = value
    return {**merged, **own}


def _items(node: yaml.Node | None, path: str, name: str) -> list[yaml.Node]:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~")):
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _wrong(path, node, f"{name} must be a list")
    return list(node.value)


def _text(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _wrong(path: str, node: yaml.Node, message: str) -> UsageError:
    return UsageError(f"{printable(path)}:{node.start_mark.line + 1}: {message}; {_ADVICE}")
