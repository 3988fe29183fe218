r"""The two kinds of references to alert data in an operario's texts.

OpenFero's field references, `{{ .Alert.Labels.pod }}`: fields only, without functions, pipelines
or blocks; a value is never interpreted as a template. Kubernetes' own variable references,
`$(OPENFERO_POD)`, in which `$$` means one dollar sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIELD: Final = re.compile(
    r"\.(?:(?:Alert\.)?(?P<kind>Labels|Annotations)\.(?P<key>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<name>HookMessage\.Status|HookMessage\.GroupKey|GroupKey|Status))"
)
_REFERENCE: Final = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\))")
_DOLLARS: Final = re.compile(r"\$(?:\$|\([^)]*\))?")
_UNPAIRED_DOLLARS: Final = re.compile(r"\$\$?")

#: Alert data that is allowed in a command or an argument: no option, no `..`, no white space, no
#: character that a shell interprets.
_SAFE_ARGUMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")


@dataclass(frozen=True, slots=True)
class Field:
    """One field reference: `kind` is Labels, Annotations, Status, GroupKey or GroupStatus."""

    kind: str
    key: str = ""

    def __str__(self) -> str:
        """The reference as in a template, without braces."""
        return f".{self.kind}.{self.key}" if self.key else f".{self.kind}"


_NAMED: Final = {
    "HookMessage.Status": Field("GroupStatus"),
    "HookMessage.GroupKey": Field("GroupKey"),
    "GroupKey": Field("GroupKey"),
    "Status": Field("Status"),
}


def parse_field(inside: str) -> Field | None:
    """Parse the text between double braces; None if it is not a field reference."""
    match = _FIELD.fullmatch(inside.strip())
    if match is None:
        return None
    if match["kind"]:
        return Field(match["kind"], match["key"])
    return _NAMED[match["name"]]


def fields(text: str) -> list[Field | str]:
    """Return the references in a text; one that is not a field reference as its text."""
    return [
        parse_field(inside) or f"{{{{{inside}}}}}"
        for _, inside in _split(text)
        if inside is not None
    ]


def substitute(text: str, value_of: Callable[[Field], str]) -> str:
    """Replace field references by values; anything else is kept.

    An author's `$` that is not part of a complete `$$` or `$(NAME)` before the replacement is
    doubled. Kubernetes turns it back into one, and the value after it cannot make it a reference
    (`${{ .Labels.x }}` if x is `(TOKEN)`, `$({{ .Labels.x }})` if it is `TOKEN`).
    """
    parts: list[str] = []
    has_fields = False
    for literal, field in _pieces(text):
        parts.append(_self_contained(literal))
        if field is not None:
            has_fields = True
            parts.append(value_of(field))
    return "".join(parts) if has_fields else text


def references(text: str) -> list[str]:
    """Return the variables that Kubernetes would expand in a text after `substitute`."""
    return [
        match["name"]
        for literal, _ in _pieces(text)
        # No reference ends after the last parenthesis; searching there takes quadratic time.
        for match in _REFERENCE.finditer(literal, 0, literal.rfind(")") + 1)
        if match["name"] is not None
    ]


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the text before each pair of double braces and their content; None at the end."""
    position = 0
    while (opens := text.find("{{", position)) >= 0:
        closes = text.find("}}", opens + 2)
        if closes < 0:
            break
        yield text[position:opens], text[opens + 2 : closes]
        position = closes + 2
    yield text[position:], None


def _pieces(text: str) -> Iterator[tuple[str, Field | None]]:
    """Yield the author's text before each field reference, and the field; None at the end."""
    literal = ""
    for before, inside in _split(text):
        literal += before
        field = None if inside is None else parse_field(inside)
        if inside is not None and field is None:
            literal += f"{{{{{inside}}}}}"
            continue
        yield literal, field
        literal = ""


def _self_contained(literal: str) -> str:
    """Escape a text so that what follows it cannot change how Kubernetes expands it."""
    end = literal.rfind(")") + 1
    return _DOLLARS.sub(_doubled, literal[:end]) + _UNPAIRED_DOLLARS.sub(_doubled, literal[end:])


def _doubled(match: re.Match[str]) -> str:
    return match[0] if len(match[0]) > 1 else "$$"


def escape(value: str) -> str:
    """Escape a value so that Kubernetes' expansion returns it; drop NUL, which cannot be passed."""
    return value.replace("\0", "").replace("$", "$$")


def is_safe_argument(value: str) -> bool:
    """Whether alert data is allowed in a command or an argument."""
    return _SAFE_ARGUMENT.fullmatch(value) is not None and ".." not in value
