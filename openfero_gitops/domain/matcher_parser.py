r"""Parse Alertmanager's matcher syntax: `{severity="critical", pod=~"web-.*"}`, braces optional.

Alertmanager has two parsers. By default it uses the classic parser and, if that fails, the UTF-8
parser; so does this module. The classic parser is lenient (it keeps an unknown escape such as `\d`
as it is) and accepts only names of `[a-zA-Z0-9_:]`. The UTF-8 parser accepts any name in quotes,
with Go's escapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from openfero_gitops.domain.matcher import Matcher, Operator, RegexError

_SPACES: Final = "\t\n\f\r "  # Go's \s
_SPACE: Final = f"[{_SPACES}]*"
_CLASSIC: Final = re.compile(
    rf"{_SPACE}([a-zA-Z_:][a-zA-Z0-9_:]*){_SPACE}(=~|=|!=|!~){_SPACE}((?s:.*))"
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
    r"\\(?:(?P<single>[abfnrtv\\\"])|x(?P<hex>[0-9a-fA-F]{2})|(?P<octal>[0-7]{3})"
    r"|u(?P<four>[0-9a-fA-F]{4})|U(?P<eight>[0-9a-fA-F]{8})|(?P<none>.?))",
    re.DOTALL,
)
_SINGLE_ESCAPES: Final = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))
_MAX_CODE_POINT: Final = 0x10FFFF


class MatcherError(ValueError):
    """A text is not a list of matchers; `position` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        """Keep the position of the error."""
        super().__init__(message)
        self.position = position


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Parse a list of matchers; the empty list `{}` matches every alert.

    Raises:
        MatcherError: both of Alertmanager's parsers reject the text.
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
            # (A comma in quotes does not end an escape: a bug of Alertmanager.)
            escaped = False
        piece += character
    if last := piece.strip(_WHITE):
        pieces.append(last)
    return tuple(_classic_matcher(piece) for piece in pieces)


def _classic_matcher(text: str) -> Matcher:
    match = _CLASSIC.fullmatch(text)
    if match is None:
        raise MatcherError("not a classic matcher", 0)
    name, operator, raw = match.groups()
    # Not part of the expression, which would search for the end of the value in quadratic time.
    return _matcher(name, operator, _classic_value(raw.rstrip(_SPACES)), 0)


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
                raise MatcherError("unescaped quotation mark", 0)
            open_quote = False
        else:
            value += character
    if open_quote:
        raise MatcherError("missing closing quotation mark", 0)
    return value


# The UTF-8 parser.


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


class _Tokens:
    """The tokens of a text, with one token of lookahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.next = self._scan()

    def take(self, *kinds: str) -> _Token | None:
        """Return the next token if it has one of the kinds or texts, and advance."""
        token = self.next
        if token.kind not in kinds and token.text not in kinds:
            return None
        self.next = self._scan()
        return token

    def _scan(self) -> _Token:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:  # (white space alone is `end`)
            return _Token("end", "", len(self._text))
        self._at = match.end()
        return _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))


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
            raise _unexpected(tokens.next, "a value in double quotes")
        matchers.append(_matcher(_text(name), operator.text, _text(value), value.position))
        if tokens.take(",") is None:
            break
    if braces and tokens.take("}") is None:
        raise _unexpected(tokens.next, "a comma or }")
    if tokens.next.kind != "end":
        raise _unexpected(tokens.next, "a comma" if matchers and not braces else "the end")
    return tuple(matchers)


def _unexpected(token: _Token, expected: str) -> MatcherError:
    if token.kind == "end":
        return MatcherError(f"unexpected end: expected {expected}", token.position)
    if token.text == '"':
        return MatcherError("missing closing quotation mark", token.position)
    return MatcherError(f"unexpected {token.text!r}: expected {expected}", token.position)


def _text(token: _Token) -> str:
    """Unquote a word or a quoted string with Go's escapes."""
    if token.kind == "word":
        return token.text
    inside = token.text[1:-1]
    if "\n" in inside:
        raise MatcherError(
            "a quoted string must not contain a line break; write \\n", token.position
        )
    # (\x is a byte, and several bytes may be one character.)
    parts: list[bytes] = []
    end = 0
    for escape in _ESCAPE.finditer(inside):
        parts += (inside[end : escape.start()].encode(errors="replace"), _unescape(escape, token))
        end = escape.end()
    parts.append(inside[end:].encode(errors="replace"))
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise MatcherError("the escapes (\\x…) are not valid UTF-8", token.position) from None


def _unescape(escape: re.Match[str], token: _Token) -> bytes:
    if escape["single"]:
        return _SINGLE_ESCAPES[escape["single"]].encode()
    if escape["hex"] or escape["octal"]:
        code = int(escape["hex"], 16) if escape["hex"] else int(escape["octal"], 8)
        if code <= 0xFF:  # noqa: PLR2004
            return bytes([code])
    elif escape["four"] or escape["eight"]:
        code = int(escape["four"] or escape["eight"], 16)
        if code <= _MAX_CODE_POINT and not 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004
            return chr(code).encode()
    raise MatcherError(
        f"{escape[0]} is not an escape; write a literal backslash as \\\\",
        token.position + 1 + escape.start(),
    )
