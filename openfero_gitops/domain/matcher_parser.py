r"""Alertmanager's matcher syntax: `{severity="critical", pod=~"web-.*"}`, braces optional.

Alertmanager has two parsers and, by default, reads a text by its classic one where that can, else
by its UTF-8 one. So is it done here. The classic one is lenient (a `\d` in quotes stands for
itself) and knows only names of `[a-zA-Z0-9_:]`; the UTF-8 one takes any name in quotes, with Go's
escapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from openfero_gitops.domain.matcher import Matcher, Operator, RegexError

_SPACE: Final = "[\\t\\n\\f\\r ]*"  # Go's \s
_CLASSIC: Final = re.compile(
    rf"{_SPACE}([a-zA-Z_:][a-zA-Z0-9_:]*){_SPACE}(=~|=|!=|!~){_SPACE}((?s:.*?)){_SPACE}"
)
_WHITE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_TOKEN: Final = re.compile(
    rf"""[{_WHITE}]*(?:(?P<mark>[{{}},])|(?P<operator>=~|=|!=|!~)|(?P<quoted>"(?:[^"\\]|\\.)*")"""
    rf"""|(?P<word>[^{_WHITE}{{}}!=~,\\"'`]+)|(?P<end>$)|(?P<other>.))""",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<one>[abfnrtv\\\"])|x(?P<hex>[0-9a-fA-F]{2})|(?P<octal>[0-7]{3})"
    r"|u(?P<four>[0-9a-fA-F]{4})|U(?P<eight>[0-9a-fA-F]{8})|(?P<none>.?))",
    re.DOTALL,
)
_ONE: Final = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))
_TOP: Final = 0x10FFFF


class MatcherError(ValueError):
    """The text is no list of matchers; `position` counts its characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        """Keep where the trouble is."""
        super().__init__(message)
        self.position = position


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Read a list of matchers; an empty one, `{}`, matches every alert.

    Raises:
        MatcherError: Alertmanager would refuse the text, by either parser.
    """
    try:
        return _classic(text)
    except MatcherError:
        return _utf_8(text)


def _matcher(name: str, operator: str, value: str, position: int) -> Matcher:
    try:
        return Matcher(name, Operator(operator), value)
    except RegexError as error:
        raise MatcherError(f"invalid regular expression {value!r}: {error}", position) from None


# The classic parser.


def _classic(text: str) -> tuple[Matcher, ...]:
    pieces: list[str] = []
    piece = ""
    quoted = escaped = False
    for character in text.removeprefix("{").removesuffix("}"):
        if character == "," and not quoted:
            pieces.append(piece)
            piece = ""
            continue
        if character == '"' and not escaped:
            quoted = not quoted
        if character == "\\":
            escaped = not escaped
        elif character != ",":
            # (A comma inside of quotes leaves an escape open: Alertmanager's own slip.)
            escaped = False
        piece += character
    if last := piece.strip(_WHITE):
        pieces.append(last)
    return tuple(_classic_matcher(piece) for piece in pieces)


def _classic_matcher(text: str) -> Matcher:
    found = _CLASSIC.fullmatch(text)
    if found is None:
        raise MatcherError("no classic matcher", 0)
    name, operator, raw = found.groups()
    return _matcher(name, operator, _classic_value(raw), 0)


def _classic_value(raw: str) -> str:
    open_quote = raw.startswith('"')
    raw = raw.removeprefix('"')
    value = ""
    escaped = False
    for index, character in enumerate(raw):
        last = index == len(raw) - 1
        if escaped:
            escaped = False
            value += {"n": "\n", '"': '"', "\\": "\\"}.get(character, "\\" + character)
        elif character == "\\" and not last:
            escaped = True
        elif character == '"':
            if not open_quote or not last:
                raise MatcherError("an unescaped quotation mark", 0)
            open_quote = False
        else:
            value += character
    if open_quote:
        raise MatcherError("a quotation mark is not closed", 0)
    return value


# The UTF-8 parser.


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


class _Tokens:
    """The tokens of a text, one ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.next = self._scan()

    def take(self, *kinds: str) -> _Token | None:
        """The next token, if it is of such a kind or is such a mark."""
        token = self.next
        if token.kind not in kinds and token.text not in kinds:
            return None
        self.next = self._scan()
        return token

    def _scan(self) -> _Token:
        found = _TOKEN.match(self._text, self._at)
        if found is None or found.lastgroup is None:  # (white space alone is `end`)
            return _Token("end", "", len(self._text))
        self._at = found.end()
        return _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup))


def _utf_8(text: str) -> tuple[Matcher, ...]:
    tokens = _Tokens(text)
    braces = tokens.take("{") is not None
    matchers: list[Matcher] = []
    while tokens.next.kind != "end" and tokens.next.text != "}":
        name = tokens.take("word", "quoted")
        if name is None:
            raise _unexpected(tokens.next, "a label name")
        operator = tokens.take("operator")
        if operator is None:
            raise _unexpected(tokens.next, "=, !=, =~ or !~")
        value = tokens.take("word", "quoted")
        if value is None:
            raise _unexpected(tokens.next, "a value, in double quotes")
        matchers.append(_matcher(_text(name), operator.text, _text(value), value.position))
        if tokens.take(",") is None:
            break
    if braces and tokens.take("}") is None:
        raise _unexpected(tokens.next, "a comma or }")
    if tokens.next.kind != "end":
        raise _unexpected(tokens.next, "a comma" if matchers and not braces else "the end")
    return tuple(matchers)


def _unexpected(token: _Token, wanted: str) -> MatcherError:
    if token.kind == "end":
        return MatcherError(f"it ends where {wanted} should follow", token.position)
    if token.text == '"':
        return MatcherError("a quotation mark is not closed", token.position)
    return MatcherError(f"{token.text!r} stands where {wanted} should", token.position)


def _text(token: _Token) -> str:
    """What a word or a quoted text says, by Go's escapes."""
    if token.kind == "word":
        return token.text
    inside = token.text[1:-1]
    if "\n" in inside:
        raise MatcherError("a quoted text goes over a line's end: write \\n", token.position)
    # (A \x names a byte, and several of them may make up one character.)
    parts: list[bytes] = []
    end = 0
    for found in _ESCAPE.finditer(inside):
        parts += (inside[end : found.start()].encode(errors="replace"), _unescape(found, token))
        end = found.end()
    parts.append(inside[end:].encode(errors="replace"))
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise MatcherError("the escapes (\\x…) make no UTF-8", token.position) from None


def _unescape(found: re.Match[str], token: _Token) -> bytes:
    if found["one"]:
        return _ONE[found["one"]].encode()
    if found["hex"] or found["octal"]:
        code = int(found["hex"], 16) if found["hex"] else int(found["octal"], 8)
        if code <= 0xFF:  # noqa: PLR2004
            return bytes([code])
    elif found["four"] or found["eight"]:
        code = int(found["four"] or found["eight"], 16)
        if code <= _TOP and not 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004
            return chr(code).encode()
    raise MatcherError(
        f"{found[0]} is no escape: a backslash before anything else is written \\\\",
        token.position + 1 + found.start(),
    )
