"""Read the annotations `openfero.io/…` of a definition file: the options of its author.

`domain.operario.Options` declares them. `openfero.io/alertname` and `openfero.io/status`, which
name the alert, are read by `catalog.forms`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.checks.advice import NO_EFFECT
from openfero_gitops.domain import keys
from openfero_gitops.domain.operario import OPTIONS, Options
from openfero_gitops.domain.rule import Finding, Pointer, error
from openfero_gitops.domain.text import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

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

_SELECTORS: Final = frozenset({keys.ALERTNAME, keys.STATUS})
# An annotation of OpenFero's examples that it does not read either.
_IDLE: Final = frozenset({keys.PREFIX + "template-variables"})


@dataclass(frozen=True, slots=True)
class Given:
    """The value of an annotation and its place."""

    value: Any
    pointer: Pointer


def read_options(annotations: Mapping[str, Given], base: Options) -> tuple[Options, list[Finding]]:
    """Override options with annotations; an invalid annotation overrides nothing.

    Keys without the prefix `openfero.io/` are ignored. A value that is not a string is reported by
    the schema.
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
                chosen[option.field] = option.type.parse(given.value.strip())
            except ValueError as problem:
                findings.append(OPTION_VALUE.at(given.pointer, f"{key}: {problem}", option.hint))
    return replace(base, **chosen), findings


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
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        option.type.parse(text)
    except ValueError:
        return option.hint
    return f'write {key}: "{text}"'


def _unknown(key: str, pointer: Pointer) -> Finding:
    if key in _IDLE:
        return NO_EFFECT.at(
            pointer,
            f"{key} has no effect: command, args and env can use fields of the alert directly",
            "delete it",
        )
    if key in _WRITTEN:
        return UNKNOWN_OPTION.at(pointer, f"{key} is reserved for the controller", "delete it")
    names = sorted(known.removeprefix(keys.PREFIX) for known in (*_SELECTORS, *_BY_KEY))
    meant = nearest(key.removeprefix(keys.PREFIX), names)
    suggestion = (
        f"did you mean {keys.PREFIX}{meant}?" if meant else f"the options are {', '.join(names)}"
    )
    return UNKNOWN_OPTION.at(pointer, f"{key} is not an option", suggestion)


_BY_KEY: Final = {option.key: option for option in OPTIONS}
_WRITTEN: Final = frozenset(
    value
    for value in vars(keys).values()
    if isinstance(value, str) and value.startswith(keys.PREFIX) and value != keys.PREFIX
) - {*_BY_KEY, *_SELECTORS}
