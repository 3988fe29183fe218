"""Splits a shell script into words and finds the variables that each word expands.

This is not a full shell parser: it determines whether a variable is quoted, across quotes, `${…}`,
`$(…)`, here-documents and comments. Where the shell does not split a value (`x=$y`, `case $x in`,
`[[ $x ]]`), the variable counts as quoted. The time is linear in the length of the script.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: Programs that run a script given after `-c`.
SHELLS: Final = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})

_TOKEN: Final = re.compile(
    r"""(?P<whole>[^\\'"$`()}\#;&|\s<]+[ \t\r]+)
    | (?P<plain>[^\\'"$`()}\#;&|\s<]+)
    | (?P<space>[ \t\r]+)
    | (?P<end>[\n;&|])
    | (?P<text>"[^"\\$`]*")
    | (?P<value>"\$(?P<valued>[A-Za-z_]\w*)")
    | '(?P<raw>[^']*)'?
    | \\.?
    | \$(?P<name>[A-Za-z_]\w*)
    | (?P<brace>\$\{!?(?P<braced>[A-Za-z_]?\w*))
    | (?P<substitution>\$\()
    | <<<
    | (?P<document><<-?[ \t]*["'\\]?(?P<ends>\w+)["']?)
    | .""",
    re.DOTALL | re.VERBOSE,
)
_BLANKS: Final = " \t\r"
_PLAIN: Final = ("plain", "whole")
_CLOSED: Final = ("text", "value")
_MAX_WORD_CHARACTERS: Final = 64  # enough for the names of commands and options
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*\+?=")
# Words after which a command begins.
_BEFORE_COMMANDS: Final = frozenset(
    {"!", "{", "do", "elif", "else", "if", "then", "time", "until", "while"}
)


class Word(NamedTuple):
    """One word of a command.

    `text` is without quotes, and cut if it is long; `leads` is True for the name of the command.
    `bare` are the unquoted variables, whose values the shell splits into words; `quoted` are the
    others.
    """

    text: str
    leads: bool
    bare: tuple[str, ...]
    quoted: tuple[str, ...]


@dataclass(slots=True)
class _Command:
    """The state of parsing a list of commands: the whole script, or the content of `$(…)`."""

    leads: bool = True
    is_open: bool = False  # whether a word has begun
    text: str = ""
    bare: list[str] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)
    cases: int = 0
    last: str = ""
    in_test: bool = False

    def add(self, text: str) -> None:
        self.is_open = True
        if len(self.text) < _MAX_WORD_CHARACTERS:
            self.text += text
        elif text:  # no command has such a name
            self.text = f"{self.text[:_MAX_WORD_CHARACTERS]}…"

    def add_word(self, text: str, words: list[Word]) -> None:
        """Add text that ends a word."""
        if self.is_open or self.leads or self.in_test or self.last:
            self.add(text)
            self.end_word(words)
        else:  # the most common case: a word in the middle without variables
            words.append(Word(text, leads=False, bare=(), quoted=()))

    def end_word(self, words: list[Word]) -> None:
        if not self.is_open:
            return
        text, bare, quoted = self.text, self.bare, self.quoted
        assigns = self.leads and "=" in text and _ASSIGNMENT.match(text) is not None
        if assigns or self.in_test or self.last == "case":
            bare, quoted = [], bare + quoted
        words.append(Word(text, self.leads and not assigns, tuple(bare), tuple(quoted)))
        if self.leads:
            self.cases += (text == "case") - (text == "esac" and self.cases > 0)
            self.in_test = text != "]]" and (self.in_test or text == "[[")
            self.last = text
            self.leads = assigns or text in _BEFORE_COMMANDS
        else:
            self.in_test = self.in_test and text != "]]"
            self.last = ""
        self.is_open, self.text, self.bare, self.quoted = False, "", [], []

    def end(self, words: list[Word]) -> None:
        self.end_word(words)
        self.leads, self.last = True, ""


@dataclass(frozen=True, slots=True)
class _Frame:
    """An open construct that ends at `closes`; `has_words` if it is a list of commands."""

    closes: str
    command: _Command
    is_quoted: bool = False
    has_words: bool = True


def split_words(script: str) -> list[Word]:
    """Split a script into words; those of a `$(…)` come before the word that contains it."""
    words: list[Word] = []
    frames = [_Frame("", _Command())]
    documents: list[str] = []
    position = 0
    while position < len(script):
        position = _scan(script, position, frames, documents, words)
    for frame in reversed(frames):
        frame.command.end(words)
    return words


def _scan(  # noqa: C901, PLR0912 - one branch for each kind of token
    script: str, position: int, frames: list[_Frame], documents: list[str], words: list[Word]
) -> int:
    """Read tokens until one moves the position; return the position to continue at."""
    frame = frames[-1]
    command, has_words = frame.command, frame.has_words
    for token in _TOKEN.finditer(script, position):
        kind = token.lastgroup
        if kind == "whole" and has_words:
            command.add_word(token[0].rstrip(_BLANKS), words)
        elif kind in _PLAIN or (kind == "space" and not has_words):
            command.add(token[0])
        elif kind == "space":
            command.end_word(words)
        elif kind == "end" and has_words:
            command.end(words)
            if documents and token[0] == "\n":
                return _after(script, token.end(), documents)
        elif kind in _CLOSED and frame.closes == '"':  # its first quote closes the frame
            frames.pop()
            return token.start() + 1
        elif kind == "text":
            command.add(token[0][1:-1])
        elif kind == "raw" and frame.is_quoted:  # an apostrophe
            command.add("'")
            return token.start() + 1
        elif kind == "raw":
            command.add(token["raw"])
        elif kind == "value":
            command.quoted.append(token["valued"])
            command.add(token[0][1:-1])
        elif not has_words or not _ends(text := token[0], token, command):
            _inside(token, frames, words)
            frame = frames[-1]
            command, has_words = frame.command, frame.has_words
        elif text == "#":
            end = script.find("\n", token.end())
            return len(script) if end < 0 else end
        elif kind == "document":
            command.end_word(words)
            documents.append(token["ends"])
        else:
            _bracket(text, frames, words)
            frame = frames[-1]
            command, has_words = frame.command, frame.has_words
    return len(script)  # every character belongs to a token


def _inside(token: re.Match[str], frames: list[_Frame], words: list[Word]) -> None:
    """Handle a token inside a word, which may open or close a frame."""
    text, frame = token[0], frames[-1]
    command = frame.command
    if name := token["name"] or token["braced"]:
        if frame.is_quoted:
            command.quoted.append(name)
        else:
            command.bare.append(name)
    if text == frame.closes:
        frames.pop()
        if frame.has_words:
            command.end(words)
    elif token["brace"]:
        command.add(text)
        frames.append(_Frame("}", command, frame.is_quoted, has_words=False))
    elif text in ("$(", "`"):
        command.add(text)
        frames.append(_Frame("`" if text == "`" else ")", _Command()))
    elif text == '"':
        command.add("")
        frames.append(_Frame('"', command, is_quoted=True, has_words=False))
    elif text != "\\\n":
        command.add(text.removeprefix("\\"))


def _bracket(text: str, frames: list[_Frame], words: list[Word]) -> None:
    """Handle a token that ends a command; a parenthesis also opens or closes a frame."""
    frame = frames[-1]
    frame.command.end_word(words)  # an `esac` ends a case
    if text == "(":
        frames.append(_Frame(")", _Command()))
    elif text == frame.closes and not frame.command.cases:
        frames.pop()
    frame.command.end(words)


def _ends(text: str, token: re.Match[str], command: _Command) -> bool:
    """Whether a token ends a word in a list of commands."""
    return text in "()" or (text == "#" and not command.is_open) or bool(token["document"])


def _after(script: str, position: int, documents: list[str]) -> int:
    """Skip the here-documents that begin here; return the position after them."""
    for delimiter in documents:
        if position == len(script):
            break
        match = re.compile(rf"^\t*{delimiter}$", re.MULTILINE).search(script, position)
        position = match.end() if match else len(script)
    documents.clear()
    return position
