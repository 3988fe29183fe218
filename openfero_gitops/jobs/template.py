r"""The two kinds of references to alert data in an operario's texts.

Field references, `{{ .Alert.Labels.pod }}`: fields only, without functions, pipelines or blocks; a
value is never interpreted as a template. An Operarius has those of OpenFero's templates. A Job and
a ConfigMap, which OpenFero does not evaluate as templates, have two of them. All other double
braces are text: `kubectl`, `docker` and many others have templates of their own.

Kubernetes' own variable references, `$(OPENFERO_POD)`, in which `$$` means one dollar sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.operario import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Matches a field reference with its braces.
Grammar = re.Pattern[str]

_KEY: Final = r"(?P<kind>Labels|Annotations)\.(?P<key>[A-Za-z_][A-Za-z0-9_]*)"
#: Of a Job and a ConfigMap.
ALERT_FIELDS: Final = re.compile(rf"\{{\{{\s*\.Alert\.{_KEY}\s*\}}\}}")
#: Of an Operarius.
ALL_FIELDS: Final = re.compile(
    rf"\{{\{{\s*\.(?:(?:Alert\.)?{_KEY}"
    r"|(?P<name>HookMessage\.Status|HookMessage\.GroupKey|GroupKey|Status))\s*\}\}"
)
_REFERENCE: Final = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\))")
_DOLLARS: Final = re.compile(r"\$(?:\$|\([^)]*\))?")
_UNPAIRED_DOLLARS: Final = re.compile(r"\$\$?")

#: Alert data that is allowed in a command or an argument: no option, no `..`, no white space, no
#: character that a shell interprets.
_SAFE_ARGUMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")


@dataclass(frozen=True, slots=True)
class Field:
    """One field reference: `kind` is Labels, Annotations, Status, GroupKey or GroupStatus.

    `written` is the reference as it is in the file, with its braces.
    """

    kind: str
    key: str = ""
    written: str = field(default="", compare=False)

    def __str__(self) -> str:
        """The reference as in a template, without braces."""
        return f".{self.kind}.{self.key}" if self.key else f".{self.kind}"


_NAMED: Final = {
    "HookMessage.Status": Field("GroupStatus"),
    "HookMessage.GroupKey": Field("GroupKey"),
    "GroupKey": Field("GroupKey"),
    "Status": Field("Status"),
}


def grammar_of(form: Form) -> Grammar:
    """Return the field references that operarios of a form can have."""
    return ALL_FIELDS if form is Form.OPERARIUS else ALERT_FIELDS


def fields(text: str, grammar: Grammar = ALL_FIELDS) -> list[Field]:
    """Return the field references in a text."""
    return [field for _, field in _pieces(text, grammar) if field is not None]


def other_braces(text: str, grammar: Grammar = ALL_FIELDS) -> list[str]:
    """Return every `{{ … }}` in a text that is not a field reference, as it is written.

    One that is not closed ends with its line, or before a field reference.
    """
    found: list[str] = []
    for literal, _ in _pieces(text, grammar):
        position = 0
        while (opens := literal.find("{{", position)) >= 0:
            closes = literal.find("}}", opens + 2)
            if closes < 0:
                found.append(literal[opens:].split("\n", 1)[0].rstrip())
                break
            position = closes + 2
            found.append(literal[opens:position])
    return found


def substitute(text: str, value_of: Callable[[Field], str], grammar: Grammar = ALL_FIELDS) -> str:
    """Replace field references by values; anything else is kept.

    An author's `$` that is not part of a complete `$$` or `$(NAME)` before the replacement is
    doubled. Kubernetes turns it back into one, and the value after it cannot make it a reference
    (`${{ .Labels.x }}` if x is `(TOKEN)`, `$({{ .Labels.x }})` if it is `TOKEN`).
    """
    if "{{" not in text:
        return text
    parts: list[str] = []
    has_fields = False
    for literal, reference in _pieces(text, grammar):
        parts.append(_self_contained(literal))
        if reference is not None:
            has_fields = True
            parts.append(value_of(reference))
    return "".join(parts) if has_fields else text


def references(text: str, grammar: Grammar = ALL_FIELDS) -> list[str]:
    """Return the variables that Kubernetes would expand in a text after `substitute`."""
    if "$(" not in text:
        return []
    return [
        match["name"]
        for literal, _ in _pieces(text, grammar)
        # No reference ends after the last parenthesis; searching there takes quadratic time.
        for match in _REFERENCE.finditer(literal, 0, literal.rfind(")") + 1)
        if match["name"] is not None
    ]


def _pieces(text: str, grammar: Grammar) -> Iterator[tuple[str, Field | None]]:
    """Yield the author's text before each field reference, and the field; None at the end."""
    position = 0
    for match in grammar.finditer(text) if "{{" in text else ():
        yield text[position : match.start()], _field(match)
        position = match.end()
    yield text[position:], None


def _field(match: re.Match[str]) -> Field:
    if kind := match["kind"]:
        return Field(kind, match["key"], match[0])
    return replace(_NAMED[match["name"]], written=match[0])


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
