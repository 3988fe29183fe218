r"""The two ways in which an operario's text may ask for alert data.

OpenFero's field references, `{{ .Alert.Labels.pod }}`: fields alone, no functions, pipelines
or blocks, and a value is never read as a template again. Kubernetes' own variable references,
`$(OPENFERO_POD)`, in which `$$` stands for one dollar sign.
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
_LONE: Final = re.compile(r"\$\$?")

#: What alert data may look like inside a command or an argument: no flag, no path upwards, no
#: white space, nothing that a shell reads.
SAFE_ARGUMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")


@dataclass(frozen=True, slots=True)
class Field:
    """One field reference: `kind` is Labels, Annotations, Status, GroupKey or GroupStatus."""

    kind: str
    key: str = ""

    def __str__(self) -> str:
        """As an author would write it."""
        return f".{self.kind}.{self.key}" if self.key else f".{self.kind}"


_NAMED: Final = {
    "HookMessage.Status": Field("GroupStatus"),
    "HookMessage.GroupKey": Field("GroupKey"),
    "GroupKey": Field("GroupKey"),
    "Status": Field("Status"),
}


def parse_field(inside: str) -> Field | None:
    """The field named between two pairs of braces, None where it is no plain field."""
    found = _FIELD.fullmatch(inside.strip())
    if found is None:
        return None
    if found["kind"]:
        return Field(found["kind"], found["key"])
    return _NAMED[found["name"]]


def fields(text: str) -> list[Field | str]:
    """Every reference in a text; one that is no plain field comes as the text it is."""
    return [
        parse_field(inside) or f"{{{{{inside}}}}}"
        for _, inside in _split(text)
        if inside is not None
    ]


def substitute(text: str, value_of: Callable[[Field], str]) -> str:
    """Put values in the place of field references, once; anything else stays as it is.

    A `$` of the author's that is no whole `$$` or `$(NAME)` before the values are there is
    doubled: Kubernetes gives it back as one, and it does not become a reference by what follows
    (`${{ .Labels.x }}` where x is `(TOKEN)`, `$({{ .Labels.x }})` where it is `TOKEN`).
    """
    parts: list[str] = []
    found = False
    for literal, field in _pieces(text):
        parts.append(_self_contained(literal))
        if field is not None:
            found = True
            parts.append(value_of(field))
    return "".join(parts) if found else text


def references(text: str) -> list[str]:
    """The variables that Kubernetes would expand in a text, in its own grammar.

    Of a text with field references, those of what `substitute` makes of it.
    """
    return [
        match["name"]
        for literal, _ in _pieces(text)
        # No reference ends behind the last parenthesis; to look would take quadratic time.
        for match in _REFERENCE.finditer(literal, 0, literal.rfind(")") + 1)
        if match["name"] is not None
    ]


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    """A text before each pair of double braces, and what they hold; None at the text's end."""
    position = 0
    while (opens := text.find("{{", position)) >= 0:
        closes = text.find("}}", opens + 2)
        if closes < 0:
            break
        yield text[position:opens], text[opens + 2 : closes]
        position = closes + 2
    yield text[position:], None


def _pieces(text: str) -> Iterator[tuple[str, Field | None]]:
    """The author's own text before each field reference, and the field; None at the end."""
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
    """The same to Kubernetes' expansion, whatever text follows it."""
    end = literal.rfind(")") + 1
    return _DOLLARS.sub(_doubled, literal[:end]) + _LONE.sub(_doubled, literal[end:])


def _doubled(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) > 1 else "$$"


def escape(value: str) -> str:
    """A value that Kubernetes' expansion gives back unchanged; NUL cannot be in a variable."""
    return value.replace("\0", "").replace("$", "$$")


def is_safe_argument(value: str) -> bool:
    """Whether alert data may become part of a command or an argument."""
    return SAFE_ARGUMENT.fullmatch(value) is not None and ".." not in value
