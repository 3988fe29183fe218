"""What the RBAC objects in the repository let a ServiceAccount do.

The controller does not apply them, but they are reviewed in the same pull request as the
operarios. A binding without a namespace (kustomize adds it later) is assumed to apply to an
operario's ServiceAccount of that name.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.domain.sentence import Quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from openfero_gitops.domain.catalog import SourceFile
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.sentence import Sentence

_GROUP: Final = "rbac.authorization.k8s.io"
_ANY: Final = "*"
#: The namespace of a binding that names none.
_NO_NAMESPACE: Final = "-"
_MAX_RIGHTS_PER_RULE: Final = 20_000
_MAX_CLAUSES: Final = 20


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource; empty means all namespaces (`namespace`) or all names (`name`).

    Only `role` is set if a role is granted whose rules are not in the repository.
    """

    namespace: str
    verb: str = ""
    group: str = ""
    resource: str = ""
    name: str = ""
    url: str = ""
    role: str = ""

    def covers(self, other: Right) -> bool:
        """Whether this right implies the other."""
        if self == other:
            return True
        if self.role or other.role or bool(self.url) != bool(other.url):
            return False
        if self.namespace and self.namespace != other.namespace:
            return False
        if self.verb not in (_ANY, other.verb):
            return False
        if self.url:
            return self.url == other.url or (
                self.url.endswith(_ANY) and other.url.startswith(self.url[:-1])
            )
        return (
            self.group in (_ANY, other.group)
            and self._resource_covers(other.resource)
            and self.name in ("", other.name)
        )

    def _resource_covers(self, resource: str) -> bool:
        if self.resource in (_ANY, resource):
            return True
        # `*/scale` is the subresource of every resource.
        _, slash, sub = self.resource.partition("/")
        return self.resource.startswith("*/") and bool(slash) and resource.endswith(f"/{sub}")


@dataclass(frozen=True, slots=True, order=True)
class RbacSubject:
    """A subject of a binding."""

    kind: str
    name: str
    namespace: str = ""

    def text(self) -> Sentence:
        """The subject as part of a sentence."""
        namespace = (" in ", Quote(self.namespace)) if self.namespace else ()
        return (f"{self.kind} ", Quote(self.name), *namespace)


@dataclass(frozen=True, slots=True)
class Grants:
    """The rights that the bindings of a revision grant, by subject."""

    by_subject: Mapping[RbacSubject, frozenset[Right]]
    _by_account: Mapping[str, list[RbacSubject]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Index the subjects by the name of their ServiceAccount; empty for groups."""
        index: dict[str, list[RbacSubject]] = defaultdict(list)
        for subject in self.by_subject:
            index[_account(subject)].append(subject)
        object.__setattr__(self, "_by_account", index)

    def of(self, operario: Operario) -> tuple[frozenset[Right], frozenset[RbacSubject]]:
        """The rights of an operario's ServiceAccount, and the subjects that it belongs to."""
        account = account_of(operario)
        subjects = frozenset(
            subject
            for key in (account, "")
            for subject in self._by_account.get(key, ())
            if _may_be_in(subject, operario.namespace)
        )
        rights = (right for subject in subjects for right in self.by_subject[subject])
        return frozenset(rights), subjects


def account_of(operario: Operario) -> str:
    """The name of the ServiceAccount that an operario's Pods run as."""
    pod = operario.job["spec"]["template"]["spec"]
    return pod.get("serviceAccountName") or pod.get("serviceAccount") or "default"


def _account(subject: RbacSubject) -> str:
    """The name of the ServiceAccount that a subject is; empty for other subjects."""
    if subject.kind == "ServiceAccount":
        return subject.name
    parts = subject.name.split(":")
    if subject.kind == "User" and parts[:2] == ["system", "serviceaccount"]:
        return parts[-1]
    return ""


def _may_be_in(subject: RbacSubject, namespace: str | None) -> bool:
    """Whether a subject may include a ServiceAccount of a namespace; None matches any."""
    if subject.kind == "ServiceAccount":
        return namespace is None or subject.namespace in ("", namespace)
    group, _, place = subject.name.rpartition(":")
    if subject.kind == "User":
        account, _, place = group.rpartition(":")
        return account == "system:serviceaccount" and namespace in (None, place)
    if subject.name in ("system:authenticated", "system:serviceaccounts"):
        return True
    return group == "system:serviceaccounts" and namespace in (None, place)


def read_grants(*revisions: Iterable[SourceFile]) -> tuple[Grants, ...]:
    """Read the roles and bindings of some revisions; a file that cannot be read grants nothing.

    A file that is the same in several revisions is read once.
    """
    cache: dict[tuple[bytes, bool], list[dict[str, Any]]] = {}
    return tuple(
        _grants(document for file in files for document in _documents(file, cache))
        for files in revisions
    )


def _grants(documents: Iterable[dict[str, Any]]) -> Grants:
    roles: dict[tuple[str, str, str], list[Any]] = {}
    labelled: list[tuple[Mapping[str, Any], list[Any]]] = []
    aggregated: list[tuple[str, Any]] = []
    bindings: list[Mapping[str, Any]] = []
    for document in documents:
        kind, metadata = document["kind"], _mapping(document.get("metadata"))
        name, namespace = _text(metadata.get("name")), _text(metadata.get("namespace"))
        if kind in ("RoleBinding", "ClusterRoleBinding"):
            bindings.append(document)
            continue
        rules = _list(document.get("rules"))
        if kind == "Role":
            roles[kind, namespace, name] = rules
        elif kind == "ClusterRole":
            roles[kind, "", name] = list(rules)
            labelled.append((_mapping(metadata.get("labels")), rules))
            aggregated += (
                (name, selector)
                for selector in _list(
                    _mapping(document.get("aggregationRule")).get("clusterRoleSelectors")
                )
            )
    for name, selector in aggregated:
        wanted = _mapping(_mapping(selector).get("matchLabels")).items()
        for labels, rules in labelled:
            if wanted and wanted <= labels.items():
                roles["ClusterRole", "", name] += rules
    granted: dict[RbacSubject, set[Right]] = defaultdict(set)
    for binding in bindings:
        rights = _bound(binding, roles)
        for subject in _subjects(binding):
            granted[subject] |= rights
    return Grants({subject: frozenset(rights) for subject, rights in granted.items()})


def _documents(
    file: SourceFile, cache: dict[tuple[bytes, bool], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The RBAC objects of one file."""
    if _GROUP.encode() not in file.content:
        return []
    key = file.content, file.path.endswith(".json")
    if key not in cache:
        cache[key] = list(_read(*key))
    return cache[key]


def _read(content: bytes, is_json: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001 - one key
    try:
        documents = load(content, is_json=is_json)
    except Unreadable:
        return
    for document in documents:
        inner = _mapping(document).get("items")
        for item in _list(inner) if inner else [document]:
            version = _text(_mapping(item).get("apiVersion"))
            if version.startswith(f"{_GROUP}/") and isinstance(item.get("kind"), str):
                yield item


def _bound(
    binding: Mapping[str, Any], roles: Mapping[tuple[str, str, str], list[Any]]
) -> set[Right]:
    namespace = ""
    if binding["kind"] == "RoleBinding":
        namespace = _text(_mapping(binding.get("metadata")).get("namespace")) or _NO_NAMESPACE
    reference = _mapping(binding.get("roleRef"))
    kind, name = _text(reference.get("kind")), _text(reference.get("name"))
    in_cluster = kind == "ClusterRole" or namespace == _NO_NAMESPACE
    rules = roles.get((kind, "" if in_cluster else namespace, name))
    if rules is None:
        return {Right(namespace, role=f"{kind} {name}")}
    return {right for rule in rules for right in _rights(_mapping(rule), namespace)}


def _rights(rule: Mapping[str, Any], namespace: str) -> Iterator[Right]:
    verbs = _texts(rule.get("verbs"))
    names = _texts(rule.get("resourceNames")) or [""]
    groups, resources = _texts(rule.get("apiGroups")), _texts(rule.get("resources"))
    urls = _texts(rule.get("nonResourceURLs"))
    if len(verbs) * (len(names) * len(groups) * len(resources) + len(urls)) > _MAX_RIGHTS_PER_RULE:
        yield Right(namespace, role="a rule that is too long to compare")
        return
    for verb in verbs:
        for group in groups:
            for resource in resources:
                for name in names:
                    yield Right(namespace, verb, group, resource, name)
        for url in urls:
            yield Right(namespace, verb, url=url)


def _subjects(binding: Mapping[str, Any]) -> Iterator[RbacSubject]:
    for subject in map(_mapping, _list(binding.get("subjects"))):
        kind, name = _text(subject.get("kind")), _text(subject.get("name"))
        namespace = _text(subject.get("namespace")) if kind == "ServiceAccount" else ""
        if name:
            yield RbacSubject(kind, name, namespace)


def not_covered(some: frozenset[Right], others: frozenset[Right]) -> list[Right]:
    """The rights of `some` that no right of `others` implies, in order."""
    wide = [right for right in others if _is_wide(right)]
    return sorted(
        right
        for right in some
        if right not in others and not any(other.covers(right) for other in wide)
    )


def _is_wide(right: Right) -> bool:
    """Whether a right may cover others besides itself."""
    return (
        not right.namespace
        or not right.name
        or _ANY in (right.verb, right.group)
        or _ANY in right.resource
        or right.url.endswith(_ANY)
    )


def rights_text(rights: Iterable[Right]) -> Sentence:
    """Format rights: `get, list pods in monitoring; patch nodes in all namespaces`."""
    grouped: dict[tuple[str, str, str, str, str, str], list[str]] = defaultdict(list)
    for right in rights:
        key = (right.namespace, right.role, right.url, right.group, right.resource, right.name)
        grouped[key].append(right.verb)
    clauses: list[Sentence] = []
    for (namespace, role, url, group, resource, name), verbs in sorted(grouped.items()):
        if role:
            action: Sentence = ("do everything that ", Quote(role), " allows")
        else:
            shown = "do anything with" if _ANY in verbs else ", ".join(sorted(verbs))
            action = (Quote(f"{shown} {url or _resource_text(resource, group)}"),)
            if name:
                action += (" named ", Quote(name))
        if namespace == _NO_NAMESPACE:
            place: Sentence = (" in the namespace it is applied to",)
        else:
            place = (" in ", Quote(namespace)) if namespace else (" in all namespaces",)
        clauses.append((*action, *place))
    listed = clauses if len(clauses) <= _MAX_CLAUSES else clauses[: _MAX_CLAUSES - 1]
    sentence: list[str] = []
    for clause in listed:
        sentence += (("; ",) if sentence else ()) + clause
    if len(listed) < len(clauses):
        sentence.append(f"; and {len(clauses) - len(listed)} more")
    return tuple(sentence)


def _resource_text(resource: str, group: str) -> str:
    """A resource as kubectl names it."""
    if resource == _ANY:
        of_group = f" of API group {group}" if group else " of the core API group"
        return "all resources" + ("" if group == _ANY else of_group)
    return resource if group in ("", _ANY) else f"{resource}.{group}"


def includes_secrets(rights: Iterable[Right]) -> bool:
    """Whether some of these rights read Secrets through a wildcard."""
    return any(
        right.resource == _ANY
        and right.covers(Right(right.namespace, verb, "", "secrets", right.name))
        for right in rights
        for verb in ("get", "list", "watch")
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [item for item in _list(value) if isinstance(item, str)]
