r"""Go's regular expressions, as Alertmanager's matchers use them: the whole text must match.

Python's `re` reads some of them differently (`$` before a final newline, `\s`, `(?i)` in the
middle, `[[:alpha:]]`, `\z`) and takes exponential time for others; what is matched here comes
from a stranger's alert. So they are parsed by Go's grammar (`regexp/syntax`, flags Perl) into a
nondeterministic automaton, which is walked in time linear in the text. Groups capture nothing and
greed does not matter, since only yes or no is asked. Unicode classes (`\p{Greek}`) are refused:
they are the one part of the grammar that is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOP: Final = 0x10FFFF
_MAX_REPEAT: Final = 1000  # Go's own
_MAX_DEPTH: Final = 100
_MAX_STEPS: Final = 2000
_MAX_MEMO: Final = 4096

_K = TypeVar("_K")
_Ranges = tuple[tuple[int, int], ...]

_DIGIT: Final[_Ranges] = ((0x30, 0x39),)
_SPACE: Final[_Ranges] = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
_WORD: Final[_Ranges] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_PERL: Final = {"d": _DIGIT, "s": _SPACE, "w": _WORD}
_POSIX: Final[dict[str, _Ranges]] = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0x00, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0x00, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": _WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_CONTROL: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_LOOK_AROUND: Final = ("?=", "?!", "?<=", "?<!")
# In ASCII two letters have a third case: the Kelvin sign and the long s.
_THIRD_CASE: Final = {0x4B: 0x212A, 0x6B: 0x212A, 0x53: 0x17F, 0x73: 0x17F}
# (Nothing cased lies above it.)
_LAST_CASED: Final = 0x1E943


class RegexError(ValueError):
    """The text is no regular expression of Go's; `position` counts its characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        """Keep where the trouble is."""
        super().__init__(message)
        self.position = position


# A parsed expression.


@dataclass(frozen=True, slots=True)
class _Chars:
    ranges: _Ranges


@dataclass(frozen=True, slots=True)
class _Assertion:
    """What holds between two characters: `^` `$` (of a line), `A` `z` (of the text), `b`, `B`."""

    kind: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _Chars | _Assertion | _Sequence | _Choice | _Repeat


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    lines: bool = False
    dot_all: bool = False


class _Parser:
    """One pass over the pattern, by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._flags = _Flags()
        self._depth = 0
        self._names: set[str] = set()

    def parse(self) -> _Node:
        node = self._choice()
        if self._at < len(self._text):
            raise RegexError("a ) closes no group", self._at)
        return node

    def _peek(self, ahead: int = 0) -> str:
        return self._text[self._at + ahead : self._at + ahead + 1]

    def _take(self, what: str) -> bool:
        if self._text.startswith(what, self._at):
            self._at += len(what)
            return True
        return False

    def _choice(self) -> _Node:
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._at < len(self._text) and self._peek() not in "|)":
            if self._take(r"\Q"):
                literal, end, _ = self._text[self._at :].partition(r"\E")
                if not end:  # (Alone Go would allow it, but not in the group around the whole.)
                    raise RegexError(r"a \Q is not closed by \E", self._at - 2)
                self._at += len(literal) + len(end)
                parts += (self._chars(ord(character)) for character in literal)
                if literal and (repeat := self._quantifier()):
                    parts.append(_Repeat(parts.pop(), *repeat))
                continue
            atom = self._atom()
            if atom is None:
                continue
            repeat = self._quantifier()
            parts.append(atom if repeat is None else _Repeat(atom, *repeat))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _quantifier(self) -> tuple[int, int | None] | None:
        found = self._one_quantifier()
        if found is None:
            return None
        self._take("?")
        start = self._at
        if self._one_quantifier() is not None:
            raise RegexError("a repetition of a repetition: put the inner one in ( )", start)
        return found

    def _one_quantifier(self) -> tuple[int, int | None] | None:
        match self._peek():
            case "*":
                found: tuple[int, int | None] = (0, None)
            case "+":
                found = (1, None)
            case "?":
                found = (0, 1)
            case "{":
                return self._counted()
            case _:
                return None
        self._at += 1
        return found

    def _counted(self) -> tuple[int, int | None] | None:
        """`{2}`, `{2,}`, `{2,5}`; any other brace stands for itself."""
        start = self._at
        end = self._text.find("}", start)
        inside = self._text[start + 1 : end] if end > 0 else ""
        least, comma, most = inside.partition(",")
        if not _is_count(least) or (most and not _is_count(most)):
            return None
        self._at = end + 1
        low = int(least[:5])
        high = (int(most[:5]) if most else None) if comma else low
        if low > _MAX_REPEAT or (high is not None and not low <= high <= _MAX_REPEAT):
            raise RegexError(f"{{{inside}}} repeats more than {_MAX_REPEAT} times or less", start)
        return low, high

    def _atom(self) -> _Node | None:  # noqa: PLR0911 - one return for each kind of atom
        start = self._at
        character = self._peek()
        self._at += 1
        match character:
            case "(":
                return self._group()
            case "[":
                return self._class(start)
            case ".":
                newline = () if self._flags.dot_all else ((10, 10),)
                return _Chars(_negate(newline))
            case "^":
                return _Assertion("^" if self._flags.lines else "A")
            case "$":
                return _Assertion("$" if self._flags.lines else "z")
            case "\\":
                return self._escape(start)
            case "*" | "+" | "?":
                raise RegexError(f"{character} has nothing to repeat", start)
            case _:
                self._at = start
                if self._peek() == "{" and self._counted() is not None:
                    raise RegexError("{ has nothing to repeat", start)
                self._at = start + 1
                return self._chars(ord(character))

    def _cased(self, ranges: _Ranges) -> _Ranges:
        return _fold(ranges) if self._flags.fold else ranges

    def _chars(self, code: int) -> _Chars:
        return _Chars(self._cased(((code, code),)))

    def _group(self) -> _Node | None:
        start = self._at - 1
        flags = self._flags
        if self._peek() == "?":
            if any(self._text.startswith(mark, self._at) for mark in _LOOK_AROUND):
                raise RegexError("Go has no look-ahead and no look-behind", start)
            if self._take("?P<") or self._take("?<"):
                self._name(start)
            else:
                self._at += 1
                if not self._set_flags(start):
                    return None  # they hold up to the end of the group around them
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise RegexError(f"groups nest deeper than {_MAX_DEPTH}", start)
        node = self._choice()
        self._depth -= 1
        if not self._take(")"):
            raise RegexError("a ( is not closed", start)
        self._flags = flags
        return node

    def _name(self, start: int) -> None:
        name, end, _ = self._text[self._at :].partition(">")
        if not end or not name.isascii() or not name.replace("_", "a").isalnum():
            raise RegexError("a group's name is letters, digits and _ between < and >", start)
        if name in self._names:
            raise RegexError(f"two groups are named {name}", start)
        self._names.add(name)
        self._at += len(name) + 1

    def _set_flags(self, start: int) -> bool:
        """Read `i-s:` or `i)`; whether a group follows."""
        fold, lines, dot_all = self._flags.fold, self._flags.lines, self._flags.dot_all
        on, seen = True, False
        while True:
            character = self._peek()
            self._at += 1
            match character:
                case "i":
                    fold = on
                case "m":
                    lines = on
                case "s":
                    dot_all = on
                case "U":
                    pass
                case "-" if on:
                    on, seen = False, False
                    continue
                case ":" | ")" if on or seen:
                    self._flags = _Flags(fold, lines, dot_all)
                    return character == ":"
                case _:
                    raise RegexError("Go knows (?: and (?P<name> and the flags i, m, s, U", start)
            seen = True

    def _escape(self, start: int) -> _Node:
        character = self._peek()
        if character and character in "AzbB":
            self._at += 1
            return _Assertion(character)
        if (ranges := self._perl_class()) is not None:
            return _Chars(ranges)
        return self._chars(self._escaped(start))

    def _perl_class(self) -> _Ranges | None:
        r"""`\d`, `\S` and so on, the backslash already read."""
        character = self._peek()
        ranges = _PERL.get(character.lower())
        if ranges is None:
            return None
        self._at += 1
        ranges = self._cased(ranges)
        return ranges if character.islower() else _negate(ranges)

    def _escaped(self, start: int) -> int:
        """The one character that an escape means, the backslash already read."""
        character = self._peek()
        self._at += 1
        if character in _CONTROL:
            return _CONTROL[character]
        if character == "x":
            return self._hexadecimal(start)
        if character and character in "01234567":
            following = self._peek()
            if character == "0" or (following and following in "01234567"):
                code = int(character)
                for _ in range(2):
                    if not self._peek() or self._peek() not in "01234567":
                        break
                    code = code * 8 + int(self._peek())
                    self._at += 1
                return code
        if character and character in "123456789":
            raise RegexError("Go has no references back to a group", start)
        if character and character in "pP":
            raise RegexError("Unicode classes are not read here: write the characters", start)
        if not character or not character.isascii() or character.isalnum():
            shown = f"\\{character}" if character else "a \\ at the end"
            raise RegexError(f"Go knows no escape {shown}", start)
        return ord(character)

    def _hexadecimal(self, start: int) -> int:
        if self._take("{"):
            digits, end, _ = self._text[self._at :].partition("}")
            self._at += len(digits) + len(end)
        else:
            digits = self._text[self._at : self._at + 2]
            end = "}" if len(digits) == 2 else ""  # noqa: PLR2004
            self._at += len(digits)
        if not end or not digits or not all(c in "0123456789abcdefABCDEF" for c in digits):
            raise RegexError(r"a character by number is \x7F or \x{10FFFF}", start)
        code = int(digits[-8:], 16) if digits.lstrip("0")[8:] == "" else _TOP + 1
        if code > _TOP:
            raise RegexError("there is no such character", start)
        return code

    def _class(self, start: int) -> _Node:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            if self._at >= len(self._text):
                raise RegexError("a [ is not closed", start)
            if (named := self._posix_class()) is not None:
                ranges += named
            elif self._peek() == "\\" and self._peek(1).lower() in _PERL:
                self._at += 1
                ranges += self._perl_class() or ()
            else:
                ranges += self._cased((self._range(start),))
        self._at += 1
        return _Chars(_negate(_merge(ranges)) if negated else _merge(ranges))

    def _range(self, start: int) -> tuple[int, int]:
        begin = self._at
        low = high = self._class_character(start)
        if self._peek() == "-" and self._peek(1) not in ("]", ""):
            self._at += 1
            high = self._class_character(start)
        if high < low:
            raise RegexError(f"the range {self._text[begin : self._at]} runs backwards", begin)
        return low, high

    def _class_character(self, start: int) -> int:
        character = self._peek()
        if not character:
            raise RegexError("a [ is not closed", start)
        self._at += 1
        return self._escaped(self._at - 1) if character == "\\" else ord(character)

    def _posix_class(self) -> _Ranges | None:
        """`[:alpha:]` or `[:^alpha:]`, inside of brackets."""
        start = self._at
        end = self._text.find(":]", start + 2)
        if not self._text.startswith("[:", start) or end < 0:
            return None
        name = self._text[start + 2 : end]
        ranges = _POSIX.get(name.removeprefix("^"))
        if ranges is None:
            raise RegexError(f"there is no class [:{name[:40]}:]", start)
        self._at = end + 2
        ranges = self._cased(ranges)
        return _negate(ranges) if name.startswith("^") else ranges


def _is_count(text: str) -> bool:
    """Whether Go reads a number here: digits, and no zero before others."""
    return text.isascii() and text.isdecimal() and (text == "0" or not text.startswith("0"))


# Sets of characters.


def _merge(ranges: Iterable[tuple[int, int]]) -> _Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _negate(ranges: _Ranges) -> _Ranges:
    gaps: list[tuple[int, int]] = []
    low = 0
    for start, end in _merge(ranges):
        if start > low:
            gaps.append((low, start - 1))
        low = end + 1
    if low <= _TOP:
        gaps.append((low, _TOP))
    return tuple(gaps)


def _fold(ranges: _Ranges) -> _Ranges:
    """Add every character that differs from one of these in case alone."""
    found: list[tuple[int, int]] = list(ranges)
    for low, high in ranges:
        for code in range(low, min(high, 0x7F) + 1):
            other = ord(chr(code).swapcase())
            found.append((other, other))
            if code in _THIRD_CASE:
                found.append((_THIRD_CASE[code], _THIRD_CASE[code]))
        if high > 0x7F:  # noqa: PLR2004
            cases = _cases()
            for code in range(max(low, 0x80), min(high, _LAST_CASED) + 1):
                found += ((other, other) for other in cases.get(code, ()))
    return _merge(found)


@cache
def _cases() -> dict[int, tuple[int, ...]]:
    """Every character that has more than one case, to all of its cases (simple folding)."""
    orbits: dict[str, list[int]] = {}
    for code in range(_LAST_CASED + 1):
        character = chr(code)
        folded = character.casefold()
        if len(folded) > 1:
            folded = character.lower()
        orbits.setdefault(folded if len(folded) == 1 else character, []).append(code)
    return {code: tuple(orbit) for orbit in orbits.values() if len(orbit) > 1 for code in orbit}


# The automaton. A step is what it asks for (a character, an assertion, nothing) and which steps
# may come next; it is named by its index, and 0 is the end.


class Regex:
    """A compiled expression."""

    __slots__ = ("_closures", "_compiled", "_moves", "_start", "_steps", "pattern")

    def __init__(self, pattern: str) -> None:
        """Compile.

        Raises:
            RegexError: Go would refuse the pattern, or it is too large.
        """
        self.pattern = pattern
        self._steps: list[tuple[_Chars | _Assertion | None, tuple[int, ...]]] = [(None, ())]
        self._compiled = 0
        self._start = frozenset({self._compile(_Parser(pattern).parse(), 0)})
        # What has been found out so far; forgotten when it grows too large.
        self._closures: dict[tuple[frozenset[int], str, str], frozenset[int]] = {}
        self._moves: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def fullmatch(self, text: str) -> bool:
        """Whether the whole text matches."""
        states, before = self._start, ""
        for character in text:
            states = self._move(self._closure(states, before, character), character)
            if not states:
                return False
            before = character
        return 0 in self._closure(states, before, "")

    def _compile(self, node: _Node, after: int) -> int:
        """Write the steps of a node in front of step `after`; the step to enter it by."""
        self._compiled += 1
        if self._compiled > _MAX_STEPS:
            raise RegexError("the expression is too large: its repetitions multiply", 0)
        match node:
            case _Chars() | _Assertion():
                return self._step(node, (after,))
            case _Sequence(parts):
                for part in reversed(parts):
                    after = self._compile(part, after)
                return after
            case _Choice(options):
                return self._step(None, tuple(self._compile(o, after) for o in options))
            case _Repeat(part, least, most):
                if most is None:
                    loop = self._step(None, ())
                    self._steps[loop] = (None, (self._compile(part, loop), after))
                    after = loop
                for _ in range((most or least) - least):
                    after = self._step(None, (self._compile(part, after), after))
                for _ in range(least):
                    after = self._compile(part, after)
                return after

    def _step(self, what: _Chars | _Assertion | None, following: tuple[int, ...]) -> int:
        self._steps.append((what, following))
        return len(self._steps) - 1

    def _closure(self, states: frozenset[int], before: str, after: str) -> frozenset[int]:
        """The consuming steps, and the end (0), that these lead to between two characters."""
        key = (states, _kind(before), _kind(after))
        known = self._closures.get(key)
        if known is not None:
            return known
        pending, seen, found = list(states), set(states), set()
        while pending:
            step = pending.pop()
            what, following = self._steps[step]
            if step == 0 or isinstance(what, _Chars):
                found.add(step)
            elif what is None or _holds(what.kind, before, after):
                pending += (one for one in following if one not in seen)
                seen.update(following)
        return _remember(self._closures, key, frozenset(found))

    def _move(self, states: frozenset[int], character: str) -> frozenset[int]:
        key = (states, character)
        known = self._moves.get(key)
        if known is not None:
            return known
        code = ord(character)
        found: set[int] = set()
        for step in states:
            what, following = self._steps[step]
            if isinstance(what, _Chars) and any(low <= code <= high for low, high in what.ranges):
                found.update(following)
        return _remember(self._moves, key, frozenset(found))


def _remember(memo: dict[_K, frozenset[int]], key: _K, value: frozenset[int]) -> frozenset[int]:
    if len(memo) >= _MAX_MEMO:
        memo.clear()
    memo[key] = value
    return value


def _kind(character: str) -> str:
    """What an assertion can tell about a character; empty for the edge of the text."""
    if not character or character == "\n":
        return character
    return "w" if character.isascii() and (character.isalnum() or character == "_") else "."


def _holds(assertion: str, before: str, after: str) -> bool:
    match assertion:
        case "A":
            return not before
        case "z":
            return not after
        case "^":
            return not before or before == "\n"
        case "$":
            return not after or after == "\n"
        case _:
            boundary = (_kind(before) == "w") is not (_kind(after) == "w")
            return boundary is (assertion == "b")
