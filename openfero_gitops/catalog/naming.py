"""The names of operarios that say their alert, and names that were meant to be such."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.dns import is_dns_subdomain
from openfero_gitops.domain.text import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX: Final = "openfero"
#: What the name of an operario begins with.
NAME_PREFIX: Final = f"{_PREFIX}-"
#: A name that says the alert and its status.
OPERARIO_NAME_PATTERN: Final = re.compile(
    r"openfero-(?P<alert>.+)-(?P<status>firing|resolved)", re.IGNORECASE
)
_OPERARIO_NAME_INSIDE: Final = re.compile(r"\bopenfero-\S+-(?:firing|resolved)\b", re.IGNORECASE)
_JOB_INSIDE: Final = re.compile(
    r"(?:^|[{,])[ \t]*[\"']?kind[\"']?[ \t]*:[ \t]*[\"']?Job\b", re.MULTILINE
)
_SEPARATORS: Final = re.compile(r"[-_.]+")
# Kustomize appends ten of these characters, which it calls a hash.
_KUSTOMIZE_HASH: Final = re.compile(r"-[bcdfghkmt24-9]{10}")
_STATUSES: Final = {
    **{status.value: status for status in Status},
    "fire": Status.FIRING,
    "fired": Status.FIRING,
    "active": Status.FIRING,
    "resolve": Status.RESOLVED,
    "resolving": Status.RESOLVED,
}
_MAX_NAME_CHARACTERS: Final = 253


def has_similar_prefix(name: str) -> bool:
    """Whether a name begins like that of an operario, perhaps mistyped."""
    return _without_prefix(_parts(name)) is not None


def nearest_name(name: str, alertname: str = "") -> str:
    """Return the name that an author probably meant; empty if that cannot be told.

    Args:
        name: what they wrote: `openfero-disk-fireing`, `firing-openfero-disk`, `disk-firing`.
        alertname: the alert, if it is known otherwise.
    """
    name = name[:_MAX_NAME_CHARACTERS]
    if match := _KUSTOMIZE_HASH.search(name):
        name = name[: match.start()] if match.end() == len(name) else name
    parts = _parts(name)
    rest = _without_prefix(parts)
    # The prefix may stand after something else.
    if rest is None and _PREFIX in parts:
        rest = [part for part in parts if part != _PREFIX]
    has_prefix = rest is not None
    rest = parts if rest is None else rest
    status, rest = _take_status(rest)
    if not has_prefix and status is None and not alertname:
        return ""
    alert = alertname.lower() or "-".join(rest)
    meant = f"{NAME_PREFIX}{alert}-{status or Status.FIRING}"
    return meant if alert and is_dns_subdomain(meant) else ""


def _parts(name: str) -> list[str]:
    return [part for part in _SEPARATORS.split(name.lower()) if part]


def _without_prefix(parts: list[str]) -> list[str] | None:
    """Remove the prefix, perhaps mistyped or in two parts; None if there is none."""
    for count in (1, 2):
        begin = "".join(parts[:count])
        if begin == _PREFIX or (count == 1 and nearest(begin, (_PREFIX,))):
            return parts[count:]
    return None


def _take_status(parts: list[str]) -> tuple[Status | None, list[str]]:
    """Find the part that is a status, perhaps mistyped, beginning with the last one."""
    for index in reversed(range(len(parts))):
        if word := nearest(parts[index], _STATUSES):
            return _STATUSES[word], parts[:index] + parts[index + 1 :]
    return None, parts


def wrapped_keys(data: Mapping[str, Any]) -> list[str]:
    """List the keys of a ConfigMap whose value is the YAML or JSON of a Job."""
    return [key for key, text in data.items() if isinstance(text, str) and _JOB_INSIDE.search(text)]


def is_misnamed_config_map(name: str, labels: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap without an operario's name or annotations was meant to be an operario."""
    keys_of_jobs = wrapped_keys(data)
    if not keys_of_jobs:
        return False
    if labels.get("app") == _PREFIX or has_similar_prefix(name) or _PREFIX in _parts(name):
        return True
    return any(_OPERARIO_NAME_INSIDE.search(data[key]) for key in keys_of_jobs)


def advise(name: str, alertname: str = "") -> str:
    """Suggest how to name the alert of an operario whose name does not."""
    alert, status = alertname or "<alertname>", Status.FIRING
    meant = nearest_name(name, alertname)
    if match := OPERARIO_NAME_PATTERN.fullmatch(meant):
        alert, status = alertname or match["alert"], Status(match["status"])
    annotations = (
        f"add the annotations {keys.ALERTNAME}: {_yaml(alert)} and {keys.STATUS}: {status}"
    )
    if not meant:
        return (
            annotations
            if alertname
            else f"name it {NAME_PREFIX}<alertname>-firing, or {annotations}"
        )
    if _KUSTOMIZE_HASH.fullmatch(name[len(meant) :]):
        return f"kustomize has added a hash to the name: {annotations}"
    return f"did you mean {meant}? Or {annotations}"


def _yaml(alertname: str) -> str:
    """Write the name of an alert as a value in YAML."""
    return alertname if re.fullmatch(r"[A-Za-z<][\w<>-]*", alertname) else shown(alertname)
