"""Finds what YAML or a word processor has done to a script: joined lines, typographic characters.

Each is valid for the API server, and the container fails when the alert fires.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from openfero_gitops.catalog.yaml.characters import named
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from openfero_gitops.catalog.validation import shell

_QUOTES: Final = (
    "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\uff02\uff07"
)
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d"
_BLANKS: Final = "\xa0\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
# Quoted text, comments, arithmetic and escaped characters are skipped, here-documents are found.
_TOKEN: Final = re.compile(
    rf"""\\(?P<escaped>[ \t]+\n|.)
    | '[^']*'?
    | "(?:[^"\\]|\\.)*"?
    | (?:^|(?<=[\s;&|(]))\#[^\n]*
    | <<<
    | \(\([^()]*\)\)
    | (?P<document><<-?[ \t]*["'\\]?(?P<ends>[A-Za-z_]\w*)["']?)
    | (?P<quote>(?<![^\W_])[{_QUOTES}]|[{_QUOTES}](?!\w))
    | (?:^|(?<=[\s=]))(?P<dash>[{_DASHES}])(?=[\w{_DASHES}-])
    | (?P<blank>[{_BLANKS}])""",
    re.DOTALL | re.VERBOSE | re.MULTILINE,
)
_AT_AN_END: Final = re.compile(rf"^[{_QUOTES}{_DASHES}]|[{_QUOTES}]$")
#: The words that must follow each of these, at the beginning of a command.
_FOLLOWERS: Final = {
    "if": ("then", "fi"),
    "case": ("esac",),
    "for": ("do", "done"),
    "while": ("do", "done"),
    "until": ("do", "done"),
    "select": ("do", "done"),
}
# Such a word behind another word of the same command; to save time, as most scripts have none.
_JOINED: Final = re.compile(r"[^\s;&|(){}!][ \t]+(?:then|fi|esac|do|done)(?![^\s;&|)])")
_CONTINUED: Final = re.compile(r"\\[ \t]")
_WRITE_BLOCK: Final = "write the script as a literal block (|), which keeps its lines"
_MAX_DOCUMENTS: Final = 20
_MAX_TEXT_CHARACTERS: Final = 40


class Slip(NamedTuple):
    """What is wrong with a script or an argument, and what to do about it."""

    message: str
    suggestion: str


def typographic(script: str) -> Slip | None:
    """Find the first typographic character in a script, apart from quoted text and comments."""
    if script.isascii():
        return None
    for match in _tokens(script):
        kind = match.lastgroup
        if kind in ("quote", "dash", "blank"):
            around = script[max(0, match.start() - 10) : match.end() + 15].strip()
            message = f"{named(match[0])} in the script, near {shown(around, _MAX_TEXT_CHARACTERS)}"
            return Slip(message, _instead(kind))
    return None


def typographic_argument(text: str) -> Slip | None:
    """Find a typographic dash in front of an argument, or quotation marks around it."""
    match = _AT_AN_END.search(text)
    if match is None:
        return None
    kind = "quote" if match[0] in _QUOTES else "dash"
    message = f"{named(match[0])} in {shown(text, _MAX_TEXT_CHARACTERS)}"
    return Slip(f"{message} is part of the argument", _instead(kind))


def _instead(kind: str) -> str:
    return {
        "quote": "write \" or '",
        "dash": "write - or --",
        "blank": "use a space, or delete it",
    }[kind]


def broken_lines(script: str, split_words: Callable[[str], list[shell.Word]]) -> Iterator[Slip]:
    """Find lines that were joined or continued wrongly.

    Args:
        script: as a shell gets it.
        split_words: is called only where it is necessary.
    """
    if "\r" in script:
        yield Slip(
            "the script contains a carriage return, which the shell takes as part of a word",
            "save it with line feeds (LF) only",
        )
    if _CONTINUED.search(script):
        yield from _continuation(script)
    if "<<" in script and (name := _unclosed_document(script)):
        yield Slip(
            f"the here-document {name} has no end: no later line is exactly {name}",
            f"{_WRITE_BLOCK}, and do not indent {name}",
        )
    if script.lstrip().startswith("#") and "\n" not in script.strip():
        yield Slip("the whole script is a comment", _WRITE_BLOCK)
    elif _JOINED.search(script) and (word := _joined_keyword(split_words(script))):
        yield Slip(
            f"{word} does not begin a command, as if lines of the script were joined",
            _WRITE_BLOCK,
        )


def _continuation(script: str) -> Iterator[Slip]:
    for match in _tokens(script):
        escaped = match["escaped"]
        before = script[match.start() - 1 : match.start()]
        if escaped and escaped[-1] == "\n" and len(escaped) > 1:
            yield Slip(
                "white space follows the backslash at the end of a line, so the line is not"
                " continued",
                "delete the white space after the backslash",
            )
            return
        if escaped in (" ", "\t") and (not before or before.isspace()):
            yield Slip(
                "a backslash before a space does not continue a line: it makes the space an"
                " argument",
                f"{_WRITE_BLOCK}, or delete the backslash",
            )
            return


def _tokens(script: str) -> Iterator[re.Match[str]]:
    """Yield the tokens of a script without those in here-documents."""
    position = 0
    is_closed = True
    while match := _TOKEN.search(script, position):
        position = match.end()
        yield match
        if match["document"] and is_closed:
            end = _end_of_document(script, match)
            is_closed = end > 0  # looking for the end of each other one takes quadratic time
            if is_closed:
                # The rest of the line belongs to the command.
                yield from _TOKEN.finditer(script, position, script.find("\n", position))
                position = end


def _end_of_document(script: str, match: re.Match[str]) -> int:
    """Where the here-document that begins with a token ends; 0 if it does not."""
    tabs = r"\t*" if match["document"].startswith("<<-") else ""
    ends = re.compile(rf"^{tabs}{match['ends']}$", re.MULTILINE)
    found = ends.search(script, match.end())
    return found.end() if found else 0


def _unclosed_document(script: str) -> str:
    """The name of the first here-document that no line ends; empty if there is none."""
    documents = (match for match in _tokens(script) if match["document"])
    return next(
        (
            match["ends"]
            for match in islice(documents, _MAX_DOCUMENTS)
            if not _end_of_document(script, match)
        ),
        "",
    )


def _joined_keyword(words: Sequence[shell.Word]) -> str:
    """The first keyword that is missing at the beginning of a command, but is elsewhere."""
    expected: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for word in words:
        if word.leads and word.text in _FOLLOWERS:
            expected.update(_FOLLOWERS[word.text])
        elif word.leads:
            expected[word.text] -= 1
        else:
            elsewhere[word.text] += 1
    keywords = dict.fromkeys(word for words in _FOLLOWERS.values() for word in words)
    return next((word for word in keywords if expected[word] > 0 and elsewhere[word]), "")
