"""Read `openfero.yaml`, the safety envelope: the limits that apply to all operarios.

It is accepted as a whole or not at all: an unknown key or an invalid value refuses the revision,
because a limit with a misspelled name would otherwise be no limit.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.ignore import check_patterns
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.domain.catalog import Envelope, JobDefaults, Limits
from openfero_gitops.domain.dns import is_dns_label
from openfero_gitops.domain.duration import format_duration, parse_duration
from openfero_gitops.domain.operario import Mode
from openfero_gitops.domain.rule import Finding, Pointer, error, warning
from openfero_gitops.domain.text import is_printable, nearest, shown
from openfero_gitops.domain.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME: Final = "openfero.yaml"
#: Names that are easily confused with it.
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

#: Alertmanager does not repeat alerts more often.
_MIN_DURATION: Final = timedelta(minutes=1)
_MAX_ALERTNAME_CHARACTERS: Final = 200
#: Of Alertmanager.
_DEFAULT_REPEAT_INTERVAL: Final = timedelta(hours=4)
_MAX_INTEGER: Final = 2**31 - 1
_PAUSED_LINE: Final = re.compile(
    r"""^paused[ \t]*:[ \t]*["']?(?:true|yes|on|y)["']?[ \t]*(?:#.*)?\r?$""",
    re.MULTILINE | re.IGNORECASE,
)


def read_envelope(value: Any) -> tuple[Envelope, list[Finding]]:
    """Read the document of `openfero.yaml`; None, an empty document, gives the defaults."""
    if value is None:
        return Envelope(), []
    findings: list[Finding] = []
    values = _fields(value, (), TOP, findings)
    values |= {
        field: make(**_fields(value[key], (key,), parsers, findings))
        for key, (field, make, parsers) in GROUPS.items()
        if isinstance(value, dict) and key in value
    }
    envelope = Envelope(**values)
    if envelope.remember < _DEFAULT_REPEAT_INTERVAL:
        message = (
            f"remember is {format_duration(envelope.remember)}: an alert that Alertmanager"
            " repeats later starts another Job (the default repeat_interval is 4h)"
        )
        findings.append(
            SHORT_REMEMBER.at(("remember",), message, "write at least twice the repeat_interval")
        )
    pointer = ("defaults", "ttlSecondsAfterFinished")
    if isinstance(value, dict) and pointer[1] in (value.get(pointer[0]) or {}):
        findings += ttl_below(envelope.defaults.ttl_seconds_after_finished, envelope, pointer)
    return envelope, findings


def ttl_below(seconds: int, envelope: Envelope, pointer: Pointer) -> list[Finding]:
    """Report a TTL that is raised to `remember` when a Job is rendered."""
    if timedelta(seconds=seconds) >= envelope.remember:
        return []
    remember = int(envelope.remember.total_seconds())
    return [
        TTL_BELOW_REMEMBER.at(
            pointer,
            f"ttlSecondsAfterFinished is {seconds}, less than remember: Jobs are kept for"
            f" {remember} seconds instead",
            f"write {remember}, or delete the line",
        )
    ]


def says_paused(content: bytes) -> bool:
    """Whether an invalid `openfero.yaml` sets `paused: true`: then nothing may start."""
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
    value: Any, pointer: Pointer, parsers: Mapping[str, _Parser], findings: list[Finding]
) -> dict[str, Any]:
    """Read the fields of a mapping; errors are added to `findings`."""
    groups = () if pointer else tuple(GROUPS)
    known_keys = (*parsers, *groups)
    if not isinstance(value, dict):
        message = f"{_name(pointer)} must be a mapping, not {shown(value)}"
        keys = ", ".join(known_keys)
        findings.append(ENVELOPE_VALUE.at(pointer, message, f"its keys are {keys}"))
        return {}
    values: dict[str, Any] = {}
    for key, inner in value.items():
        inner_pointer = (*pointer, key)
        if key not in known_keys:
            message = f"{_name(pointer)} has no key {shown(key)}"
            findings.append(ENVELOPE_KEY.at(inner_pointer, message, _suggest(key, known_keys)))
        elif key in parsers:
            field, parse, example = parsers[key]
            try:
                values[field] = parse(inner)
            except ValueError as error:
                message = f"{_name(inner_pointer)} must be {error}, not {shown(inner)}"
                findings.append(
                    ENVELOPE_VALUE.at(inner_pointer, message, f"for example {key}: {example}")
                )
    return values


def _name(pointer: Pointer) -> str:
    return ".".join(str(part) for part in pointer) or NAME


def _suggest(key: str, known_keys: tuple[str, ...]) -> str:
    """Suggest a key of this mapping or (for `concurrent` at the top level) of another one."""
    if similar := nearest(key, known_keys):
        return f"did you mean {similar}?"
    for group, (_, _, parsers) in GROUPS.items():
        if key in parsers:
            return f"did you mean {group}.{key}?"
    return f"the keys are {', '.join(known_keys)}"


# The message of a parser's error follows "KEY must be".


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - a value of the file, not of a caller
    return value


def _number(least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not least <= value <= _MAX_INTEGER
        ):
            raise ValueError(f"an integer, {least} or more")
        return value

    return parse


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return parse


def _mode(value: Any) -> Mode:
    return Mode(_one_of(*(mode.value for mode in Mode))(value))


def _duration(value: Any) -> timedelta:
    try:
        duration = parse_duration(value if isinstance(value, str) else str(value))
    except ValueError:
        raise ValueError("a duration with a unit, at most ten years") from None
    if duration < _MIN_DURATION:
        raise ValueError(f"a duration of {format_duration(_MIN_DURATION)} or more")
    return duration


def _alertname(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ALERTNAME_CHARACTERS:
        raise ValueError("the name of an alert")
    if value != value.strip() or not is_printable(value):
        raise ValueError("the name of an alert, without white space around it")
    return value


def _ignore(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of patterns as in .gitignore")
    patterns = tuple(value)
    if reason := check_patterns(patterns, NAME):
        raise ValueError(f"a list of patterns as in .gitignore ({reason})")
    return patterns


def _namespaces(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of namespaces (default: all that are granted to the controller)")
    for name in value:
        if not isinstance(name, str) or not is_dns_label(name):
            raise ValueError(f"a list of namespaces ({shown(name)} is not a valid name)")
    return tuple(value)


#: The field of a key, its parser, and an example of a valid value.
_Parser = tuple[str, "Callable[[Any], Any]", str]

TOP: Final[Mapping[str, _Parser]] = {
    "paused": ("paused", _boolean, "true"),
    "mode": ("mode", _mode, "dry-run"),
    "namespaces": ("namespaces", _namespaces, "[openfero-jobs]"),
    "remember": ("remember", _duration, "24h"),
    "ignore": ("ignore", _ignore, "[docs/, '*.json']"),
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
_WATCHDOG: Final[Mapping[str, _Parser]] = {
    "alertname": ("alertname", _alertname, "Watchdog"),
    "within": ("within", _duration, "15m"),
}
GROUPS: Final[
    Mapping[str, tuple[str, type[Limits | JobDefaults | Watchdog], Mapping[str, _Parser]]]
] = {
    "limits": ("limits", Limits, _LIMITS),
    "defaults": ("defaults", JobDefaults, _DEFAULTS),
    "watchdog": ("watchdog", Watchdog, _WATCHDOG),
}
