"""A shell's script as far as alert data in it is concerned: its words, and what they expand.

No shell is imitated: what is told apart is whether a variable stands in quotes, through quotes,
`${…}`, `$(…)`, here-documents and comments. Where none splits a value (`x=$y`, `case $x in`,
`[[ $x ]]`), it counts as quoted. Time is linear, whatever the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

#: The programs that take a script after `-c`.
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
_LONGEST_TEXT: Final = 64  # to name commands and flags; a script is one word in no time
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*\+?=")
# A command follows these words.
_BEFORE_COMMANDS: Final = frozenset(
    {"!", "{", "do", "elif", "else", "if", "then", "time", "until", "while"}
)


class Word(NamedTuple):
    """One word of a command.

    `text` is without quotes, and the beginning of a long one; `leads` says that it is the command
    itself. `bare` are the variables whose values become words of their own, `quoted` those that
    stay within this one.
    """

    text: str
    leads: bool
    bare: tuple[str, ...]
    quoted: tuple[str, ...]


@dataclass(slots=True)
class _Command:
    """A list of commands while it is read: the whole script, or what `$(…)` holds."""

    leads: bool = True
    is_open: bool = False  # whether a word has begun
    text: str = ""
    bare: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    cases: int = 0
    last: str = ""
    in_test: bool = False

    def add(self, text: str) -> None:
        self.is_open = True
        if len(self.text) < _LONGEST_TEXT:
            self.text += text

    def add_word(self, text: str, found: list[Word]) -> None:
        """Add what ends a word."""
        if self.is_open or self.leads or self.in_test or self.last:
            self.add(text)
            self.end_word(found)
        else:  # the commonest by far: a word in the middle, that expands nothing
            found.append(Word(text, leads=False, bare=(), quoted=()))

    def end_word(self, found: list[Word]) -> None:
        if not self.is_open:
            return
        text, bare, quoted = self.text, self.bare, self.quoted
        assigns = self.leads and "=" in text and _ASSIGNMENT.match(text) is not None
        if assigns or self.in_test or self.last == "case":
            bare, quoted = (), bare + quoted
        found.append(Word(text, self.leads and not assigns, bare, quoted))
        if self.leads:
            self.cases += (text == "case") - (text == "esac" and self.cases > 0)
            self.in_test = text != "]]" and (self.in_test or text == "[[")
            self.last = text
            self.leads = assigns or text in _BEFORE_COMMANDS
        else:
            self.in_test = self.in_test and text != "]]"
            self.last = ""
        self.is_open, self.text, self.bare, self.quoted = False, "", (), ()

    def end(self, found: list[Word]) -> None:
        self.end_word(found)
        self.leads, self.last = True, ""


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is open: it ends at `closes`; a list of commands is one in which words end."""

    closes: str
    command: _Command
    is_quoted: bool = False
    has_words: bool = True


def words(script: str) -> list[Word]:
    """The words of a script, those of a `$(…)` before the word that holds it."""
    found: list[Word] = []
    frames = [_Frame("", _Command())]
    documents: list[str] = []
    position = 0
    while position < len(script):
        position = _read(script, position, frames, documents, found)
    for frame in reversed(frames):
        frame.command.end(found)
    return found


def _read(  # noqa: C901, PLR0912 - one branch for each kind of token
    script: str, position: int, frames: list[_Frame], documents: list[str], found: list[Word]
) -> int:
    """Read token by token until one says that the script goes on elsewhere; where that is."""
    frame = frames[-1]
    command, has_words = frame.command, frame.has_words
    for token in _TOKEN.finditer(script, position):
        kind = token.lastgroup
        if kind == "whole" and has_words:
            command.add_word(token[0].rstrip(_BLANKS), found)
        elif kind in _PLAIN or (kind == "space" and not has_words):
            command.add(token[0])
        elif kind == "space":
            command.end_word(found)
        elif kind == "end" and has_words:
            command.end(found)
            if documents and token[0] == "\n":
                return _after(script, token.end(), documents)
        elif kind in _CLOSED and frame.closes == '"':  # its first mark ends what is open
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
            command.quoted += (token["valued"],)
            command.add(token[0][1:-1])
        elif not has_words or not _ends(text := token[0], token, command):
            _inside(token, frames, found)
            frame = frames[-1]
            command, has_words = frame.command, frame.has_words
        elif text == "#":
            end = script.find("\n", token.end())
            return len(script) if end < 0 else end
        elif kind == "document":
            command.end_word(found)
            documents.append(token["ends"])
        else:
            _bracket(text, frames, found)
            frame = frames[-1]
            command, has_words = frame.command, frame.has_words
    return len(script)  # (Every character is of some token.)


def _inside(token: re.Match[str], frames: list[_Frame], found: list[Word]) -> None:
    """Read what is part of a word, and what it opens or closes."""
    text, frame = token[0], frames[-1]
    command = frame.command
    if name := token["name"] or token["braced"]:
        if frame.is_quoted:
            command.quoted += (name,)
        else:
            command.bare += (name,)
    if text == frame.closes:
        frames.pop()
        if frame.has_words:
            command.end(found)
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


def _bracket(text: str, frames: list[_Frame], found: list[Word]) -> None:
    """End a command, and with a parenthesis more than that."""
    frame = frames[-1]
    frame.command.end_word(found)  # (An `esac` ends a case.)
    if text == "(":
        frames.append(_Frame(")", _Command()))
    elif text == frame.closes and not frame.command.cases:
        frames.pop()
    frame.command.end(found)


def _ends(text: str, token: re.Match[str], command: _Command) -> bool:
    """Whether a token is more than a part of a word where words end."""
    return text in "()" or (text == "#" and not command.is_open) or bool(token["document"])


def _after(script: str, position: int, documents: list[str]) -> int:
    """Where the script goes on behind the here-documents that begin here; none is left."""
    for ends in documents:
        found = re.compile(rf"^\t*{ends}$", re.MULTILINE).search(script, position)
        position = found.end() if found else len(script)
    documents.clear()
    return position
