"""The bytes of a file to the nodes of its YAML, in bounded time and memory.

libyaml composes; a node knows where it stands, so this is also what positions are read from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

# (PyYAML exports it here alone.)
from yaml._yaml import CParser

from openfero_gitops.catalog.yaml.scalar import NOT_TEXT
from openfero_gitops.domain.rule import FILE_TOO_LARGE, Rule, error

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_DIRECTIVES: Final = 100
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one file may hold."""

    size: int
    values: int
    documents: int


#: Of a file of operarios.
_OPERARIOS: Final = Bounds(512 * 1024, MAX_VALUES, 1000)

NOT_UTF_8 = error(
    "not-utf-8",
    "A file must be UTF-8 text.",
    "Kubernetes reads only UTF-8. In another encoding the meaning of a byte could only be guessed.",
)
SYNTAX = error(
    "syntax",
    "A file must be well-formed YAML or JSON.",
    "A file that cannot be parsed is rejected as a whole: none of its operarios is "
    "read, not even those before the error.",
)
NESTING = error(
    "nesting",
    "Values must not be nested more than 64 levels deep.",
    "No Kubernetes object is nested this deep, and recursive parsers crash on such a file.",
)
TOO_MANY_DOCUMENTS = error(
    "too-many-documents",
    "A file must not contain more than 1,000 documents.",
    "A file with this many documents is generated and cannot be reviewed.",
)

#: The tags of scalars that have none in the file.
PLAIN: Final = "plain"
QUOTED: Final = "quoted"
STANDARD: Final = "tag:yaml.org,2002:"
MERGE: Final = "<<"

_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# The characters that YAML 1.1 does not allow in a stream.
_NOT_PRINTABLE_IN_YAML: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)
_CONFLICT: Final = re.compile(r"^(?:<{7}|={7}|>{7})(?: .*)?$", re.MULTILINE)

# What libyaml says, in our words. It is told where the trouble shows, or (`_FROM_BEGINNING`)
# where that began which has no end.
_WORDING: Final = {
    "found a tab character that violates indentation": "a tab indents the line: write spaces",
    "mapping values are not allowed in this context": "a second `: ` in one value, or a line "
    "indented too far: quote the value, or move the line",
    "did not find expected key": "the line fits no mapping that is open above it: check its "
    "indentation, and the quotes before it",
    "did not find expected '-' indicator": "the line fits no list that is open above it: check "
    "its indentation",
    "block sequence entries are not allowed in this context": "a list begins on the line of its "
    "key: put it on the next line",
    "could not find expected ':'": "a key has no `:` after it",
    "found unexpected end of stream": "a quotation mark is not closed",
    "did not find expected ',' or ']'": "a [ is not closed, or a comma is missing in it",
    "did not find expected ',' or '}'": "a { is not closed, or a comma is missing in it",
    "did not find expected node content": "a value is missing, or a bracket is one too many",
    "found undefined alias": "an alias (*name) has no anchor (&name) before it",
    "found unknown escape character": r"in double quotes \ begins an escape, and this is none: "
    r"write \\, or single quotes",
    "found invalid Unicode character escape code": r"an escape (\u…) names no character",
    "found undefined tag handle": "a tag (!x!y) is not declared",
    "found incompatible YAML document": "the %YAML line names a version other than 1.1",
    "did not find expected <document start>": "a further document begins without ---",
    "did not find expected comment or line break": "after | or > the line must end",
    "did not find expected alphabetic or numeric character": "a value that begins with * or & "
    "must be quoted",
}
_FROM_BEGINNING: Final = {
    "could not find expected ':'",
    "found unexpected end of stream",
    "did not find expected ',' or ']'",
    "did not find expected ',' or '}'",
}


class Unreadable(Exception):
    """A file that gives no values; line and column count from 1, 0 where there is no place."""

    def __init__(
        self, rule: Rule, line: int, column: int, message: str, suggestion: str = ""
    ) -> None:
        """Keep what a Problem needs."""
        super().__init__(message)
        self.rule = rule
        self.line = line
        self.column = column
        self.message = message
        self.suggestion = suggestion


def unreadable(rule: Rule, node: yaml.Node, message: str, suggestion: str = "") -> Unreadable:
    """The same, at a node."""
    mark = node.start_mark
    return Unreadable(rule, mark.line + 1, mark.column + 1, message, suggestion)


def decode(content: bytes, bounds: Bounds = _OPERARIOS) -> str:
    """The text of a file, without a byte order mark; raises Unreadable."""
    if len(content) > bounds.size:
        raise Unreadable(
            FILE_TOO_LARGE,
            0,
            0,
            f"the file has {len(content)} bytes, more than {bounds.size}",
            "split it, or move it out of the configured path",
        )
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        before = lines_of(content[: problem.start].decode(errors="replace"))
        utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise Unreadable(
            NOT_UTF_8,
            len(before),
            len(before[-1]) + 1,
            "the file is UTF-16"
            if utf_16
            else f"the byte 0x{content[problem.start]:02x} is not UTF-8",
            "save the file as UTF-8",
        ) from None


def lines_of(text: str) -> list[str]:
    """The lines of a text as YAML counts them."""
    return _BREAK.split(text)


def compose(text: str, bounds: Bounds = _OPERARIOS) -> Iterator[yaml.Node | None]:
    """The root nodes of a text's documents, None for an empty one.

    Raises:
        Unreadable: the text is no YAML, or there is too much of it.
    """
    _bound(text, bounds.values)
    count = 0
    try:
        parser = _Composer(text)
        while parser.check_node():
            node = parser.get_node()
            count += 1
            if count > bounds.documents:
                line = node.start_mark.line + 1 if node else 0
                message = f"the file has more than {bounds.documents} documents"
                raise Unreadable(TOO_MANY_DOCUMENTS, line, min(line, 1), message, "split it")
            yield node
    except yaml.YAMLError as problem:
        raise _worded(problem, text) from None


def too_deep(line: int, column: int) -> Unreadable:
    """The refusal of a value that nests too deeply."""
    return Unreadable(
        NESTING,
        line,
        column,
        f"values nest deeper than {MAX_DEPTH}",
        "does an alias stand inside of its own anchor?",
    )


class _Composer(CParser):
    """libyaml's composer; a scalar's tag says only whether it was plain or quoted."""

    def resolve(self, kind: type[yaml.Node], _value: str, implicit: tuple[bool, bool]) -> str:
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else QUOTED
        return ""

    def descend_resolver(self, parent: yaml.Node, index: object) -> None:
        """Nothing: tags do not depend on where a value stands."""

    def ascend_resolver(self) -> None:
        """The same."""


def _bound(text: str, most: int) -> None:
    """Refuse what nests too deeply or holds too much, before memory or C's stack pays for it.

    The composer recurses in C. Only a text that could be deep or large, by a bound that costs
    next to nothing, is looked at event by event.
    """
    if text.count("\n%") > _MAX_DIRECTIVES:  # libyaml compares each with all others
        raise Unreadable(SYNTAX, 1, 1, f"there are more than {_MAX_DIRECTIVES} directives (%…)")
    brackets = text.count("[") + text.count("{")
    widest = max(map(len, text.split("\n")))
    separators = brackets + sum(text.count(mark) for mark in ",:-?\n")
    if brackets + 2 * widest <= 1000 and 2 * separators <= most:  # noqa: PLR2004
        return
    depth = values = 0
    try:
        parser = _Composer(text)
        while (event := parser.get_event()) is not None:
            values += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            mark = event.start_mark
            if mark and (depth > MAX_DEPTH or values > most):
                line, column = mark.line + 1, mark.column + 1
                if depth > MAX_DEPTH:
                    raise too_deep(line, column)
                message = f"the file has more than {most} values"
                raise Unreadable(FILE_TOO_LARGE, line, column, message, "split it")
    except yaml.YAMLError as problem:
        raise _worded(problem, text) from None


def _worded(problem: yaml.YAMLError, text: str) -> Unreadable:
    """Tell libyaml's complaint in our words."""
    if conflict := _CONFLICT.search(text):
        line = len(lines_of(text[: conflict.start()]))
        return Unreadable(SYNTAX, line, 1, "a merge conflict is not resolved")
    if isinstance(problem, yaml.reader.ReaderError):
        found = _NOT_PRINTABLE_IN_YAML.search(text)
        before = lines_of(text[: found.start()] if found else "")
        character = f" U+{ord(found[0]):04X}" if found else ""
        return Unreadable(
            SYNTAX,
            len(before),
            len(before[-1]) + 1,
            f"the character{character} may not stand in YAML",
            "is this a text file?",
        )
    if not isinstance(problem, yaml.MarkedYAMLError) or not problem.problem_mark:
        return Unreadable(SYNTAX, 0, 0, f"not YAML: {problem}")
    said = problem.problem or ""
    mark = problem.problem_mark
    if said in _FROM_BEGINNING and problem.context_mark:
        mark = problem.context_mark
    message = _WORDING.get(said, f"not YAML: {said}")
    if said == "found character that cannot start any token":
        character = lines_of(text)[mark.line][mark.column : mark.column + 1]
        message = (
            "a tab indents the line: write spaces"
            if character == "\t"
            else f"a value that begins with {character} must be quoted"
        )
    elif said == "second occurrence" and problem.context_mark:
        message = f"an anchor (&name) has the name of one on line {problem.context_mark.line + 1}"
    return Unreadable(SYNTAX, mark.line + 1, mark.column + 1, message)


# What documents and positions both ask of a node.


def is_merge(node: yaml.Node) -> bool:
    """Whether a key is `<<`, unquoted."""
    return (
        isinstance(node, yaml.ScalarNode)
        and node.value == MERGE
        and (node.tag is PLAIN or node.tag == STANDARD + "merge")
    )


def is_text(node: yaml.ScalarNode) -> bool:
    """Whether a scalar's value is its text, at first sight."""
    return node.tag is QUOTED or (node.tag is PLAIN and node.value[:1] not in NOT_TEXT)
