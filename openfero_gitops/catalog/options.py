"""Read the annotations `openfero.io/…` of a definition file: the options of its author.

`domain.operario.Options` declares them. `openfero.io/alertname` and `openfero.io/status`, which
name the alert, are read by `catalog.forms`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.effort import Effort
from openfero_gitops.catalog.validation.checks.advice import NO_EFFECT
from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.operario import OPTIONS, Options
from openfero_gitops.domain.rule import Finding, Pointer, error, warning
from openfero_gitops.domain.text import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
OPTION_PREFIX = warning(
    "option-prefix",
    "An option must have the prefix `openfero.io/`.",
    "An annotation with another prefix is not read. An operario whose `approval` has the wrong "
    "prefix would run without approval.",
)
SHORT_MAX_WAIT = warning(
    "short-max-wait",
    "`max-wait` should be longer than `resolve-delay`.",
    "The delay counts toward `max-wait`. A Job that may start only after a longer time is refused "
    "before, and a repeated delivery of the resolved alert creates no other one.",
)

_SELECTORS: Final = frozenset({keys.ALERTNAME, keys.STATUS})
# OpenFero's examples have this annotation, but OpenFero ignores it, too.
_RESOLVE_DELAY: Final = keys.PREFIX + "resolve-delay"
#: OpenFero's own prefix, and what people write instead.
_SIMILAR_PREFIXES: Final = frozenset({"openfero", "openfero.com", "openfero.dev", "openfero.org"})
_WITHOUT_EFFECT: Final = frozenset({keys.PREFIX + "template-variables"})


@dataclass(frozen=True, slots=True)
class AnnotationValue:
    """The value of an annotation and its place."""

    value: Any
    pointer: Pointer


def read_options(
    annotations: Mapping[str, AnnotationValue], base: Options, effort: Effort | None = None
) -> tuple[Options, list[Finding]]:
    """Override options with annotations; an invalid annotation overrides nothing.

    Keys without the prefix `openfero.io/` are ignored. A value that is not a string is reported by
    the schema.
    """
    effort = effort or Effort()
    values: dict[str, Any] = {}
    findings: list[Finding] = []
    for key, annotation in annotations.items():
        if not key.startswith(keys.PREFIX) or key in _SELECTORS:
            prefix, _, name = key.rpartition("/")
            if prefix in _SIMILAR_PREFIXES and keys.PREFIX + name in {*_BY_KEY, *_SELECTORS}:
                message = f"{key} is not read: its prefix is not {keys.PREFIX}"
                suggestion = f"did you mean {keys.PREFIX}{name}?"
                findings.append(OPTION_PREFIX.at(annotation.pointer, message, suggestion))
            continue
        option = _BY_KEY.get(key)
        if option is None:
            if effort.admits(NO_EFFECT if key in _WITHOUT_EFFECT else UNKNOWN_OPTION):
                findings.append(_unknown(key, annotation.pointer))
        elif isinstance(annotation.value, str):
            try:
                values[option.field] = option.type.parse(annotation.value.strip())
            except ValueError as invalid:
                findings.append(
                    OPTION_VALUE.at(annotation.pointer, f"{key}: {invalid}", option.hint)
                )
    return replace(base, **values), findings


def check_resolve_delay(
    options: Options, status: Status, annotations: Mapping[str, AnnotationValue]
) -> Iterator[Finding]:
    """Report a delay that cannot work as its author wants."""
    delay = annotations.get(_RESOLVE_DELAY)
    if delay is None or not options.resolve_delay:
        return
    if status is Status.FIRING:
        message = f"{_RESOLVE_DELAY} has no effect: the operario is for firing alerts"
        yield NO_EFFECT.at(delay.pointer, message)
    elif options.max_wait and options.max_wait <= options.resolve_delay:
        message = (
            f"the Job waits {format_duration(options.resolve_delay)} ({_RESOLVE_DELAY}), but is "
            f"refused after {format_duration(options.max_wait)} (max-wait)"
        )
        suggestion = f"write {keys.PREFIX}max-wait: {format_duration(2 * options.resolve_delay)}"
        yield SHORT_MAX_WAIT.at(delay.pointer, message, suggestion)


def as_text(key: str, value: Any) -> str:
    """Suggest how to write an annotation whose value is not a string in YAML.

    Suggests quotes if the quoted value is valid, otherwise the option's example. Empty if the key
    is no option.
    """
    if key == keys.STATUS:
        return f"for example {key}: firing"
    option = _BY_KEY.get(key)
    if option is None:
        return ""
    texts = [str(value)]
    if isinstance(value, bool):  # YAML 1.1 also reads `on` and `off` as booleans
        texts = [str(value).lower(), "on" if value else "off"]
    for text in texts:
        with contextlib.suppress(ValueError):
            option.type.parse(text)
            return f'write {key}: "{text}"'
    return option.hint


def _unknown(key: str, pointer: Pointer) -> Finding:
    if key in _WITHOUT_EFFECT:
        return NO_EFFECT.at(
            pointer,
            f"{key} has no effect: command, args and env can use fields of the alert directly",
            "delete it",
        )
    if key in _RESERVED:
        return UNKNOWN_OPTION.at(pointer, f"{key} is reserved for the controller", "delete it")
    names = sorted(key.removeprefix(keys.PREFIX) for key in (*_SELECTORS, *_BY_KEY))
    similar = nearest(key.removeprefix(keys.PREFIX), names)
    suggestion = (
        f"did you mean {keys.PREFIX}{similar}?"
        if similar
        else f"the options are {', '.join(names)}"
    )
    return UNKNOWN_OPTION.at(pointer, f"{key} is not an option", suggestion)


_BY_KEY: Final = {option.key: option for option in OPTIONS}
_RESERVED: Final = frozenset(
    value
    for value in vars(keys).values()
    if isinstance(value, str) and value.startswith(keys.PREFIX) and value != keys.PREFIX
) - {*_BY_KEY, *_SELECTORS}
