"""Highlights YAML and JSON, line by line.

The text is untrusted: it is escaped, and its invisible characters are replaced by their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape
from pygments.token import Comment, Keyword, Literal, Name, Number, String

from openfero_gitops.web.formats import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pygments.lexer import Lexer
    from pygments.token import _TokenType

#: Longer texts are cut: nobody reads them on a page, and highlighting takes 2 s per MiB.
_MAX_LINES: Final = 1000
_MAX_CHARACTERS: Final = 48 * 1024
#: The lexers need a time that is quadratic in the length of some lines.
_MAX_LINE_CHARACTERS: Final = 400
#: The style class of each kind of token; the first that contains the token counts.
_CLASSES: Final = (
    (Comment, "comment"),
    (Name.Tag, "key"),
    (Name.Attribute, "key"),
    (Number, "number"),
    (String, "string"),
    (Literal.Scalar, "scalar"),
    (Keyword, "constant"),
    (Name, "anchor"),
)


@dataclass(frozen=True, slots=True)
class HighlightedText:
    """The lines of a text as HTML, and how many further lines are left out.

    `cut` says that of the last of these lines, only the beginning is shown.
    """

    lines: tuple[Markup, ...]
    left_out: int = 0
    cut: bool = False


def language_of(path: str) -> str:
    """Return the language of a file, by its name."""
    return "json" if path.lower().endswith(".json") else "yaml"


@lru_cache(maxsize=16)
def highlight(text: str, language: str) -> HighlightedText:
    """Highlight a text in `yaml` or `json`; one with very long lines stays plain."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    total = text.count("\n") + 1
    shown, cut = _beginning(text)
    if max(map(len, shown)) > _MAX_LINE_CHARACTERS:
        plain = tuple(escape(visible(line)) for line in shown)
        return HighlightedText(plain, total - len(shown), cut)
    lines: list[list[str]] = [[]]
    for style, value in _tokens("\n".join(shown), language):
        first, *others = value.split("\n")
        lines[-1].append(_span(style, first))
        lines.extend([_span(style, part)] for part in others)
    return HighlightedText(
        tuple(Markup("".join(line)) for line in lines),  # noqa: S704 - each part is escaped
        total - len(shown),
        cut,
    )


def _beginning(text: str) -> tuple[list[str], bool]:
    """Return the lines to show, and whether only the beginning of the last one is among them."""
    lines = text[:_MAX_CHARACTERS].split("\n")
    cut = text[_MAX_CHARACTERS : _MAX_CHARACTERS + 1] not in ("", "\n")
    if cut and not lines[-1]:
        lines.pop()
        cut = False
    return lines[:_MAX_LINES], cut and len(lines) <= _MAX_LINES


def _tokens(text: str, language: str) -> Iterator[tuple[str, str]]:
    tokens = _lexer(language).get_tokens(text)
    for style, group in groupby(tokens, key=lambda token: _class_of(token[0])):
        yield style, "".join(value for _, value in group)


@cache
def _lexer(language: str) -> Lexer:
    """Make a lexer when it is first needed, since the import would slow every start."""
    from pygments.lexers.data import JsonLexer, YamlLexer  # noqa: PLC0415

    return {"json": JsonLexer, "yaml": YamlLexer}[language](ensurenl=False, stripnl=False)


@cache
def _class_of(token: _TokenType) -> str:
    return next((style for kind, style in _CLASSES if token in kind), "")


def _span(style: str, text: str) -> str:
    escaped = escape(visible(text))
    return f'<span class="{style}">{escaped}</span>' if style and text else str(escaped)
