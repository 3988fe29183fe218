"""How an operario's option is declared: its type, its default and its documentation.

`domain.operario.Options` declares every option once, as a field. What an author writes, what is
recorded on a Job, what the API returns and what pages and diffs show follow from the declaration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from openfero_gitops.domain import keys
from openfero_gitops.domain.duration import format_duration, parse_duration
from openfero_gitops.domain.matcher_parser import MatcherError, parse_matchers
from openfero_gitops.domain.text import did_you_mean, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from openfero_gitops.domain.matcher import Matcher

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)
_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
# Since Prometheus 3, a label can have any name. Those here are the likely ones.
_LABEL_NAME: Final = re.compile(
    r"[^\s,;|+&*$()\[\]{}<>\"'`=!~\\.-][^\s,;|+&*$()\[\]{}<>\"'`=!~\\]*"
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_LABELS: Final = frozenset({"alert", "labels", "label", "by", "on", "and"})
_MAX_HINT_CHARACTERS: Final = 100
_MAX_MATCHERS_CHARACTERS: Final = 16 * 1024
_MAX_MATCHERS: Final = 100
_METADATA_KEY: Final = "option"
_OFF: Final = "off"


@dataclass(frozen=True, slots=True)
class OptionType(Generic[_T]):
    """What values an option takes, and how they are written.

    Attributes:
        parse: reads the text of an annotation; raises ValueError with a message for its author.
        text: writes a value as an author does; empty for no value.
        to_json: writes a value as JSON.
        from_json: reads `to_json`'s value back; raises TypeError or ValueError. Only recorded
            options need it.
        to_api: writes a value for the API, if that is not `to_json`.
    """

    parse: Callable[[str], _T]
    text: Callable[[_T], str]
    to_json: Callable[[_T], Any]
    from_json: Callable[[Any], _T] | None = None
    to_api: Callable[[_T], Any] | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """The declaration of one option.

    Attributes:
        name: the annotation's key without the prefix.
        type: what values it takes.
        default: the value without the annotation.
        example: a valid value.
        description: what the option does, for the documentation.
        recorded: whether the value is recorded on a Job when it is rendered.
        if_unreadable: the value if the record on a Job is missing or damaged.
        first_renderer: version of the renderer that first recorded the option.
        permits: how much a value permits (a larger result permits more); None if values cannot
            be compared.
    """

    name: str
    type: OptionType[Any]
    default: Any
    example: str
    description: str
    recorded: bool
    if_unreadable: Any
    first_renderer: int
    permits: Callable[[Any], Any] | None

    @property
    def field(self) -> str:
        """The field of `Options`."""
        return self.name.replace("-", "_")

    @property
    def member(self) -> str:
        """The member of the API, in camelCase."""
        first, *rest = self.name.split("-")
        return first + "".join(word.capitalize() for word in rest)

    @property
    def key(self) -> str:
        """The annotation's key."""
        return keys.PREFIX + self.name

    @property
    def hint(self) -> str:
        """A suggestion that shows a valid value."""
        quote = "'" if '"' in self.example else '"'
        return f"for example {self.key}: {quote}{self.example}{quote}"

    def of(self, options: Any) -> Any:
        """Return the option's value."""
        return getattr(options, self.field)

    def to_api(self, value: Any) -> Any:
        """Write a value for the API."""
        return (self.type.to_api or self.type.to_json)(value)

    def from_json(self, value: Any) -> Any:
        """Read a recorded value; a missing or damaged one is `if_unreadable`."""
        try:
            return self.type.from_json(value) if self.type.from_json else self.default
        except (TypeError, ValueError):
            return self.if_unreadable


def option(
    option_type: OptionType[_T],
    description: str,
    *,
    default: _T,
    example: str,
    recorded: bool = True,
    if_unreadable: _T | None = None,
    first_renderer: int = 1,
    permits: Callable[[_T], Any] | None = None,
) -> _T:
    """Declare a field of `Options`; the option's name is the field's."""
    declared = Option(
        name="",
        type=option_type,
        default=default,
        example=example,
        description=description,
        recorded=recorded,
        if_unreadable=default if if_unreadable is None else if_unreadable,
        first_renderer=first_renderer,
        permits=permits,
    )
    return field(default=default, metadata={_METADATA_KEY: declared})


def declared_options(options: type) -> tuple[Option, ...]:
    """List the options that a dataclass declares, in order."""
    return tuple(
        replace(member.metadata[_METADATA_KEY], name=member.name.replace("_", "-"))
        for member in fields(options)
    )


# The types. A ValueError's message follows the annotation's key and a colon.


def _matchers(text: str) -> tuple[Matcher, ...]:
    if len(text) > _MAX_MATCHERS_CHARACTERS:
        raise ValueError(
            f"has {len(text)} characters; at most {_MAX_MATCHERS_CHARACTERS} are allowed"
        )
    try:
        matchers = parse_matchers(text)
    except MatcherError as error:
        raise ValueError(f"{error} (at its character {error.position + 1})") from None
    if len(matchers) > _MAX_MATCHERS:
        raise ValueError(f"has {len(matchers)} matchers; at most {_MAX_MATCHERS} are allowed")
    return matchers


def _target(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not _LABEL_NAME.fullmatch(name):
            problem = f"{shown(name)} is not a label name" if name else "a label name is missing"
            words = [word for word in _WORD.findall(text) if word.lower() not in _NOT_LABELS]
            meant = ",".join(dict.fromkeys(words))
            if meant and len(meant) <= _MAX_HINT_CHARACTERS:
                raise ValueError(f"{problem}; did you mean {meant}?")
            raise ValueError(f"{problem}; write label names separated by commas")
    if len(set(names)) < len(names):
        raise ValueError("a label name is repeated")
    return tuple(names)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"must be true or false, not {shown(text)}")
    return text == "true"


def _approval(text: str) -> bool:
    return _choice(text, ["required", "none"]) == "required"


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"must be an integer, not {shown(text)}")
    return int(text)


def _count(text: str) -> int:
    number = _integer(text)
    if number < 0:
        raise ValueError(f"must not be negative, but is {number}; 0 starts no Job")
    return number


def _runs(text: str) -> int:
    number = _integer(text)
    if number < 1:
        raise ValueError(
            f"must be at least 1, but is {number}; to disable the operario, use enabled"
        )
    return number


def _duration_above_0(text: str) -> timedelta:
    duration = parse_duration(text)
    if not duration:
        raise ValueError("must be longer than 0")
    return duration


def _count_or_off(text: str) -> int | None:
    if text == _OFF:
        return None
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"must be a number or off, not {shown(text)}")
    if int(text) < 1:
        raise ValueError(f"must be at least 1, but is {int(text)}; off disables it")
    return int(text)


def _choice(text: str, choices: list[str]) -> str:
    if text not in choices:
        hint = f"; {did_you_mean(text, choices)}" if nearest(text, choices) else ""
        raise ValueError(f"must be one of {', '.join(choices)}, not {shown(text)}{hint}")
    return text


def _json_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("no boolean")
    return value


def _json_integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("no integer")
    return value


def _json_count_or_off(value: Any) -> int | None:
    if value == _OFF:
        return None
    if (count := _json_integer(value)) < 1:
        raise ValueError("below 1")
    return count


def _json_duration_above_0(value: Any) -> timedelta:
    return _duration_above_0(value if isinstance(value, str) else "")


def _json_duration(value: Any) -> timedelta:
    return parse_duration(value if isinstance(value, str) else "")


def choice(values: type[_E]) -> OptionType[_E]:
    """One of the values of an enumeration."""
    return OptionType(
        parse=lambda text: values(_choice(text, [value.value for value in values])),
        text=lambda value: value.value,
        to_json=lambda value: value.value,
        from_json=values,
    )


MATCHERS: Final = OptionType(
    parse=_matchers,
    text=lambda matchers: ", ".join(map(str, matchers)),
    to_json=lambda matchers: [str(matcher) for matcher in matchers],
)
LABEL_NAMES: Final = OptionType(
    parse=_target,
    text=",".join,
    to_json=lambda names: list(names) or None,
)
BOOLEAN: Final = OptionType(
    parse=_boolean,
    text=lambda value: "true" if value else "false",
    to_json=bool,
    from_json=_json_boolean,
)
APPROVAL: Final = OptionType(
    parse=_approval,
    text=lambda required: "required" if required else "none",
    to_json=bool,
    from_json=_json_boolean,
    to_api=lambda required: "required" if required else None,
)
INTEGER: Final = OptionType(_integer, str, int, _json_integer)
COUNT: Final = OptionType(_count, str, int, _json_integer)
RUNS: Final = OptionType(_runs, str, int, _json_integer)
COUNT_OR_OFF: Final = OptionType(
    parse=_count_or_off,
    text=lambda count: _OFF if count is None else str(count),
    to_json=lambda count: _OFF if count is None else count,
    from_json=_json_count_or_off,
    to_api=lambda count: count,
)
DURATION: Final = OptionType(parse_duration, format_duration, format_duration, _json_duration)
DURATION_ABOVE_0: Final = OptionType(
    _duration_above_0, format_duration, format_duration, _json_duration_above_0
)
