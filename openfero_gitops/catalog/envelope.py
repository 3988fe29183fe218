"""`openfero.yaml`, the safety envelope: the limits that hold for every operario.

What it says is taken whole or not at all: an unknown key or a wrong value refuses the sync, since
a limit with a slip in its name would otherwise be no limit.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.domain.catalog import Envelope, JobDefaults, Limits
from openfero_gitops.domain.dns import is_dns_label
from openfero_gitops.domain.duration import format_duration, parse_duration
from openfero_gitops.domain.operario import Mode
from openfero_gitops.domain.rule import Finding, Pointer, error, warning
from openfero_gitops.domain.text import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME: Final = "openfero.yaml"
#: Names that look like it and are not it.
LIKE_NAME: Final = ("openfero.yml", "openfero.json")

ENVELOPE_KEY = error(
    "envelope-key",
    "Every key in `openfero.yaml` must be known.",
    "A mistyped limit is no limit. The whole revision is rejected, and the active catalog is kept.",
)
ENVELOPE_VALUE = error(
    "envelope-value",
    "Every value in `openfero.yaml` must be valid.",
    "An invalid limit is no limit. The whole revision is rejected, and the active catalog is kept.",
)
ENVELOPE_DOCUMENTS = error(
    "envelope-documents",
    "`openfero.yaml` must be a single YAML document.",
    "With two documents it would depend on the parser which limits apply.",
)
ENVELOPE_NAME = error(
    "envelope-name",
    "The safety envelope must be named `openfero.yaml`.",
    "A file with another name is not read, so its limits do not apply.",
)
ENVELOPE_MISSING = error(
    "envelope-missing",
    "`openfero.yaml` must not be deleted; it may be empty.",
    "An accidental deletion must not remove the limits of the whole cluster.",
)
SHORT_REMEMBER = warning(
    "short-remember",
    "`remember` should be longer than the time after which Alertmanager repeats an alert.",
    "Alertmanager repeats an alert while it fires. If the controller has already "
    "forgotten the alert, the repeat starts another Job.",
)
TTL_BELOW_REMEMBER = warning(
    "ttl-below-remember",
    "A Job's `ttlSecondsAfterFinished` should be at least `remember`.",
    "The finished Job is the controller's record of its alert: without it, a repeat "
    "of the alert starts another Job. The Job is therefore kept for `remember`, even "
    "if its TTL is shorter.",
)

_SHORTEST_REMEMBER: Final = timedelta(minutes=1)
#: Alertmanager's own default for repeat_interval.
_REPEAT_INTERVAL: Final = timedelta(hours=4)
_MOST: Final = 2**31 - 1
_PAUSED_LINE: Final = re.compile(
    r"""^paused[ \t]*:[ \t]*["']?(?:true|yes|on|y)["']?[ \t]*(?:#.*)?\r?$""",
    re.MULTILINE | re.IGNORECASE,
)


def read_envelope(value: Any) -> tuple[Envelope, list[Finding]]:
    """Read the one document of `openfero.yaml`; None, an empty one, is all defaults."""
    if value is None:
        return Envelope(), []
    findings: list[Finding] = []
    chosen = _fields(value, (), _TOP, findings)
    chosen |= {
        field: make(**_fields(value[key], (key,), parsers, findings))
        for key, (field, make, parsers) in _GROUPS.items()
        if isinstance(value, dict) and key in value
    }
    envelope = Envelope(**chosen)
    if envelope.remember < _REPEAT_INTERVAL:
        message = (
            f"remember is {format_duration(envelope.remember)}: an alert that Alertmanager"
            " repeats later is healed anew (its repeat_interval is 4h unless set)"
        )
        findings.append(
            SHORT_REMEMBER.at(("remember",), message, "write at least twice your repeat_interval")
        )
    at = ("defaults", "ttlSecondsAfterFinished")
    if isinstance(value, dict) and at[1] in (value.get(at[0]) or {}):
        findings += ttl_below(envelope.defaults.ttl_seconds_after_finished, envelope, at)
    return envelope, findings


def ttl_below(seconds: int, envelope: Envelope, pointer: Pointer) -> list[Finding]:
    """What is said of a TTL: it is raised to `remember` when a Job is rendered."""
    if timedelta(seconds=seconds) >= envelope.remember:
        return []
    remember = int(envelope.remember.total_seconds())
    return [
        TTL_BELOW_REMEMBER.at(
            pointer,
            f"ttlSecondsAfterFinished is {seconds}, less than remember: Jobs are kept for"
            f" {remember} seconds all the same",
            f"write {remember}, or leave it out",
        )
    ]


def says_paused(content: bytes) -> bool:
    """Whether a broken `openfero.yaml` still says `paused: true`: then nothing may start."""
    try:
        documents = load(content)
    except Unreadable:
        return _PAUSED_LINE.search(content.decode(errors="replace")) is not None
    return any(
        isinstance(document, dict)
        and str(document.get("paused")).strip().lower() in ("true", "yes", "on", "y")
        for document in documents
    )


def _fields(
    value: Any, at: Pointer, parsers: Mapping[str, _Parser], findings: list[Finding]
) -> dict[str, Any]:
    """The fields that a mapping sets; what is wrong with it is added to `findings`."""
    groups = () if at else tuple(_GROUPS)
    known = (*parsers, *groups)
    if not isinstance(value, dict):
        message = f"{_name(at)} is a mapping, not {shown(value)}"
        findings.append(ENVELOPE_VALUE.at(at, message, f"its keys are {', '.join(known)}"))
        return {}
    chosen: dict[str, Any] = {}
    for key, inner in value.items():
        here = (*at, key)
        if key not in known:
            message = f"{_name(at)} has no key {shown(key)}"
            findings.append(ENVELOPE_KEY.at(here, message, _meant(key, known)))
        elif key in parsers:
            field, parse, example = parsers[key]
            try:
                chosen[field] = parse(inner)
            except ValueError as problem:
                message = f"{_name(here)} is {problem}, not {shown(inner)}"
                findings.append(ENVELOPE_VALUE.at(here, message, f"for example {key}: {example}"))
    return chosen


def _name(at: Pointer) -> str:
    return ".".join(str(part) for part in at) or NAME


def _meant(key: str, known: tuple[str, ...]) -> str:
    """The key that was meant, here or (`concurrent` at the top) in another mapping."""
    if near := nearest(key, known):
        return f"did you mean {near}?"
    for group, (_, _, parsers) in _GROUPS.items():
        if key in parsers:
            return f"did you mean {group}.{key}?"
    return f"the keys are {', '.join(known)}"


# A parser says in its error what it wants, as it follows "KEY is".


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - a value of the file, not of a caller
    return value


def _number(least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
            raise ValueError(f"a whole number, {least} or more")
        return value

    return parse


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value

    return parse


def _mode(value: Any) -> Mode:
    return Mode(_one_of(*(mode.value for mode in Mode))(value))


def _remember(value: Any) -> timedelta:
    try:
        found = parse_duration(value if isinstance(value, str) else str(value))
    except ValueError:
        raise ValueError("a duration with its unit, ten years at most") from None
    if found < _SHORTEST_REMEMBER:
        raise ValueError(f"a duration of {format_duration(_SHORTEST_REMEMBER)} or more")
    return found


def _namespaces(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of names (left out, it allows what the controller was given)")
    for name in value:
        if not isinstance(name, str) or not is_dns_label(name):
            raise ValueError(f"a list of namespaces' names ({shown(name)} is none)")
    return tuple(value)


#: A key's field in the value that is made, how it is read, and a right example.
_Parser = tuple[str, "Callable[[Any], Any]", str]

_TOP: Final[Mapping[str, _Parser]] = {
    "paused": ("paused", _boolean, "true"),
    "mode": ("mode", _mode, "dry-run"),
    "namespaces": ("namespaces", _namespaces, "[openfero-jobs]"),
    "remember": ("remember", _remember, "24h"),
}
_LIMITS: Final[Mapping[str, _Parser]] = {
    "concurrent": ("concurrent", _number(0), "20"),
    "perMinute": ("per_minute", _number(0), "60"),
    "history": ("history", _number(0), "100"),
}
_DEFAULTS: Final[Mapping[str, _Parser]] = {
    "backoffLimit": ("backoff_limit", _number(0), "0"),
    "activeDeadlineSeconds": ("active_deadline_seconds", _number(1), "900"),
    "podReplacementPolicy": (
        "pod_replacement_policy",
        _one_of("Failed", "TerminatingOrFailed"),
        "Failed",
    ),
    "ttlSecondsAfterFinished": ("ttl_seconds_after_finished", _number(0), "86400"),
}
_GROUPS: Final[Mapping[str, tuple[str, type[Limits | JobDefaults], Mapping[str, _Parser]]]] = {
    "limits": ("limits", Limits, _LIMITS),
    "defaults": ("defaults", JobDefaults, _DEFAULTS),
}
