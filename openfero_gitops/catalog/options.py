"""The annotations `openfero.io/…` of a definition file: what an author may choose.

`OPTIONS` is the list of them, each with its grammar, a right example and what it does; the
documentation is made from it. `openfero.io/alertname` and `openfero.io/status`, which say what
an operario answers, are read by `catalog.forms`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from openfero_gitops.catalog.matchers import MatcherError, parse_matchers
from openfero_gitops.catalog.validation.checks.advice import NO_EFFECT
from openfero_gitops.domain import keys
from openfero_gitops.domain.duration import parse_duration
from openfero_gitops.domain.operario import Mode, OnResolve, Options
from openfero_gitops.domain.rule import Finding, Pointer, error
from openfero_gitops.domain.text import did_you_mean, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openfero_gitops.domain.matcher import Matcher

OPTION_VALUE = error(
    "option-value",
    "An option must have a valid value.",
    "An invalid value could only be replaced by the default, which is not what the author wanted.",
)
UNKNOWN_OPTION = error(
    "unknown-option",
    "An annotation under `openfero.io/` must be a known option.",
    "A mistyped limit is no limit. An operario with an unknown option is rejected "
    "rather than run without it.",
)

_E = TypeVar("_E", bound=StrEnum)
_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
_LABEL_NAME: Final = re.compile(r"[^\s,\"'`{}=!~\\]+")
_SELECTORS: Final = frozenset({keys.ALERTNAME, keys.STATUS})
# An annotation of OpenFero's examples that it does not read either.
_IDLE: Final = frozenset({keys.PREFIX + "template-variables"})


@dataclass(frozen=True, slots=True)
class Option:
    """One annotation: `field` is its place in `Options`, `example` a right value."""

    name: str
    field: str
    example: str
    text: str
    parse: Callable[[str], Any]

    @property
    def key(self) -> str:
        """The annotation's whole key."""
        return keys.PREFIX + self.name

    @property
    def hint(self) -> str:
        """The suggestion that shows how a right value is written."""
        quote = "'" if '"' in self.example else '"'
        return f"for example {self.key}: {quote}{self.example}{quote}"


@dataclass(frozen=True, slots=True)
class Given:
    """An annotation's value and where it stands."""

    value: Any
    pointer: Pointer


def read_options(annotations: Mapping[str, Given], base: Options) -> tuple[Options, list[Finding]]:
    """Lay annotations over options; what is wrong keeps the value below it.

    Keys are whole; others than `openfero.io/…` are passed over. A value that is no text is the
    schema's to report.
    """
    chosen: dict[str, Any] = {}
    findings: list[Finding] = []
    for key, given in annotations.items():
        if not key.startswith(keys.PREFIX) or key in _SELECTORS:
            continue
        option = _BY_KEY.get(key)
        if option is None:
            findings.append(_unknown(key, given.pointer))
        elif isinstance(given.value, str):
            try:
                chosen[option.field] = option.parse(given.value.strip())
            except ValueError as problem:
                findings.append(OPTION_VALUE.at(given.pointer, f"{key}: {problem}", option.hint))
    return replace(base, **chosen), findings


def as_text(key: str, value: Any) -> str:
    """How to write an annotation whose value YAML takes for something else than a text.

    In quotes, where the text is one that the option takes; else as its example. Empty for what is
    no option.
    """
    if key == keys.STATUS:
        return f"for example {key}: firing"
    option = _BY_KEY.get(key)
    if option is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        option.parse(text)
    except ValueError:
        return option.hint
    return f'write {key}: "{text}"'


def _unknown(key: str, pointer: Pointer) -> Finding:
    if key in _IDLE:
        return NO_EFFECT.at(
            pointer,
            f"{key} has no effect: the fields in command, args and env say what they need",
            "delete it",
        )
    if key in _WRITTEN:
        return UNKNOWN_OPTION.at(
            pointer, f"{key} is written by the controller, never by an author", "delete it"
        )
    names = sorted(known.removeprefix(keys.PREFIX) for known in (*_SELECTORS, *_BY_KEY))
    meant = nearest(key.removeprefix(keys.PREFIX), names)
    suggestion = (
        f"did you mean {keys.PREFIX}{meant}?" if meant else f"the options are {', '.join(names)}"
    )
    return UNKNOWN_OPTION.at(pointer, f"there is no option {key}", suggestion)


def _matchers(text: str) -> tuple[Matcher, ...]:
    try:
        return parse_matchers(text)
    except MatcherError as problem:
        raise ValueError(f"{problem} (at its character {problem.position + 1})") from None


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{shown(text)} is neither true nor false")
    return text == "true"


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{shown(text)} is no whole number")
    return int(text)


def _count(text: str) -> int:
    number = _integer(text)
    if number < 0:
        raise ValueError(f"{number} is negative; 0 admits nothing")
    return number


def _runs(text: str) -> int:
    number = _integer(text)
    if number < 1:
        raise ValueError(f"{number} is less than one run; to switch it off, write enabled")
    return number


def _target(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not _LABEL_NAME.fullmatch(name):
            what = f"{shown(name)} is no label name" if name else "a label name is missing"
            raise ValueError(f"{what}: write them with commas between them")
    if len(set(names)) < len(names):
        raise ValueError("a label name stands twice")
    return tuple(names)


def _word(words: type[_E]) -> Callable[[str], _E]:
    def parse(text: str) -> _E:
        try:
            return words(text)
        except ValueError:
            raise ValueError(_not_one_of(text, [word.value for word in words])) from None

    return parse


def _approval(text: str) -> bool:
    if text not in ("required", "none"):
        raise ValueError(_not_one_of(text, ["required", "none"]))
    return text == "required"


def _not_one_of(text: str, words: list[str]) -> str:
    hint = did_you_mean(text, words) if nearest(text, words) else ""
    return f"{shown(text)} is none of {', '.join(words)}" + (f"; {hint}" if hint else "")


#: All options, in the order in which they are documented.
OPTIONS: Final = (
    Option(
        "matchers",
        "matchers",
        'severity="critical", namespace!="dev"',
        "Alertmanager's matchers, besides the alert's name: all of them must hold.",
        _matchers,
    ),
    Option(
        "priority",
        "priority",
        "10",
        "Of several operarios for an alert the highest priority wins, then the first name.",
        _integer,
    ),
    Option("enabled", "enabled", "false", "false switches the operario off.", _boolean),
    Option(
        "mode",
        "mode",
        "dry-run",
        "dry-run lets the API server judge each Job, and then refuses it.",
        _word(Mode),
    ),
    Option(
        "target",
        "target",
        "namespace,pod",
        "The labels that name what is healed: one Job at a time for each target, over all"
        " operarios. Left out: all labels but alertname and severity.",
        _target,
    ),
    Option(
        "cooldown",
        "cooldown",
        "30m",
        "After a Job that started has ended, the next one for its target waits this long.",
        parse_duration,
    ),
    Option(
        "max-concurrent",
        "max_concurrent",
        "5",
        "As many Jobs of the operario run at a time; more wait.",
        _count,
    ),
    Option(
        "max-per-hour",
        "max_per_hour",
        "30",
        "As many Jobs of the operario start in an hour; more wait.",
        _count,
    ),
    Option(
        "max-wait",
        "max_wait",
        "1h",
        "A Job that has waited longer is refused, since it would run late and unseen; 0 is off.",
        parse_duration,
    ),
    Option(
        "rerun-after",
        "rerun_after",
        "1h",
        "An alert that still fires this long after its Job ended gets another one; 0 is off.",
        parse_duration,
    ),
    Option(
        "max-runs",
        "max_runs",
        "3",
        "As many Jobs start for one occurrence, with rerun-after.",
        _runs,
    ),
    Option(
        "approval",
        "approval",
        "required",
        "required lets a person admit each Job; waiting for it counts toward max-wait.",
        _approval,
    ),
    Option(
        "on-resolve",
        "on_resolve",
        "cancel",
        "What becomes of Jobs whose alert is resolved: cancel refuses those that wait,"
        " cancel-running also stops those that run, keep lets all of them be.",
        _word(OnResolve),
    ),
    Option(
        "resolve-delay",
        "resolve_delay",
        "5m",
        "An operario for resolved alerts waits this long, in case the alert fires again.",
        parse_duration,
    ),
    Option(
        "own-jobs",
        "own_jobs",
        "true",
        "true answers alerts about the controller's own Jobs, too.",
        _boolean,
    ),
)
_BY_KEY: Final = {option.key: option for option in OPTIONS}
_WRITTEN: Final = frozenset(
    value
    for value in vars(keys).values()
    if isinstance(value, str) and value.startswith(keys.PREFIX) and value != keys.PREFIX
) - {*_BY_KEY, *_SELECTORS}
