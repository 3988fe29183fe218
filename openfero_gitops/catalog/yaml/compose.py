"""Parse the bytes of a file into YAML nodes, in bounded time and memory.

libyaml composes the nodes. They have positions, which `locate` uses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

# PyYAML exports it only here.
from yaml._yaml import CParser

from openfero_gitops.catalog.yaml.characters import find_structural
from openfero_gitops.catalog.yaml.scalar import NOT_TEXT
from openfero_gitops.domain.rule import FILE_TOO_LARGE, Rule, error

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_DIRECTIVES: Final = 100
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The maximum size in bytes, number of values and number of documents of a file."""

    size: int
    values: int
    documents: int


_OPERARIOS: Final = Bounds(512 * 1024, MAX_VALUES, 1000)

NOT_UTF_8 = error(
    "not-utf-8",
    "A file must be UTF-8 text.",
    "Kubernetes reads only UTF-8. In another encoding the meaning of a byte could only be guessed.",
    "save the file as UTF-8",
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
    "check for an alias inside its own anchor",
)
TOO_MANY_DOCUMENTS = error(
    "too-many-documents",
    "A file must not contain more than 1,000 documents.",
    "A file with this many documents is generated and cannot be reviewed.",
    "split the file",
)

ENCRYPTED = error(
    "encrypted",
    "An operario must not be encrypted.",
    "The controller does not decrypt files. The Job would run with the encrypted text, or the "
    "operario could not be read at all. What is secret belongs in a Secret that the Pod uses.",
    "commit it unencrypted, and read what is secret from a Secret",
)

#: What a file begins with that is encrypted as a whole, and by which program.
_ENCRYPTED_FILES: Final = {
    b"\0GITCRYPT\0": "git-crypt",
    b"$ANSIBLE_VAULT;": "ansible-vault",
    b"age-encryption.org/": "age",
    b"-----BEGIN AGE ENCRYPTED FILE-----": "age",
    b"-----BEGIN PGP MESSAGE-----": "OpenPGP",
}
#: The tags of scalars that have none in the file.
PLAIN: Final = "plain"
QUOTED: Final = "quoted"
STANDARD: Final = "tag:yaml.org,2002:"
MERGE: Final = "<<"

_DIRECTIVE: Final = re.compile("(?:^|[\\n\\r\\x85\\u2028\\u2029])\ufeff?%")
_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# The characters that YAML 1.1 does not allow in a stream.
_NOT_PRINTABLE_IN_YAML: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)
_CONFLICT: Final = re.compile(r"^(?:<{7}|={7}|>{7})(?: .*)?$", re.MULTILINE)

# libyaml's messages, and ours for them. A problem is reported where libyaml noticed it or, if it is
# in _REPORTED_AT_BEGINNING, where the unclosed construct begins.
_MESSAGES: Final = {
    "found a tab character that violates indentation": "a tab indents the line: use spaces",
    "mapping values are not allowed in this context": "unexpected `: ` in a value, or wrong "
    "indentation: quote the value, or indent the line as its siblings",
    "did not find expected key": "the line does not belong to any open mapping: check its "
    "indentation and the quotes before it",
    "did not find expected '-' indicator": "the line does not belong to any open list: check its "
    "indentation",
    "block sequence entries are not allowed in this context": "a list begins on the line of its "
    "key: put it on the next line",
    "could not find expected ':'": "`:` is missing after a key",
    "found unexpected end of stream": "a quotation mark is not closed",
    "did not find expected ',' or ']'": "[ is not closed, or a comma is missing",
    "did not find expected ',' or '}'": "{ is not closed, or a comma is missing",
    "did not find expected node content": "a value is missing, or there is an extra bracket",
    "found undefined alias": "alias (*name) without an anchor (&name) before it",
    "found unknown escape character": r"invalid escape sequence in double quotes: write \\ or use "
    "single quotes",
    "found invalid Unicode character escape code": r"\u… is not a valid character",
    "found undefined tag handle": "the tag handle (!x!) is not declared",
    "found incompatible YAML document": "only %YAML 1.1 is supported",
    "did not find expected <document start>": "--- is missing before another document",
    "did not find expected comment or line break": "unexpected text after | or >: begin a new line",
    "did not find expected alphabetic or numeric character": "a value that begins with * or & must "
    "be quoted",
}
_REPORTED_AT_BEGINNING: Final = {
    "could not find expected ':'",
    "found unexpected end of stream",
    "did not find expected ',' or ']'",
    "did not find expected ',' or '}'",
}


class Unreadable(Exception):
    """A file that cannot be parsed; line and column count from 1, 0 if there is no place."""

    def __init__(
        self, rule: Rule, line: int, column: int, message: str, suggestion: str = ""
    ) -> None:
        """Keep the members of a Problem."""
        super().__init__(message)
        self.rule = rule
        self.line = line
        self.column = column
        self.message = message
        self.suggestion = suggestion or rule.advice


def unreadable(rule: Rule, node: yaml.Node, message: str, suggestion: str = "") -> Unreadable:
    """An error at a node."""
    mark = node.start_mark
    return Unreadable(rule, mark.line + 1, mark.column + 1, message, suggestion)


def decode(content: bytes, bounds: Bounds = _OPERARIOS) -> str:
    """Decode a file, without its byte order mark.

    Raises:
        Unreadable: it is too large or not UTF-8.
    """
    if len(content) > bounds.size:
        raise Unreadable(
            FILE_TOO_LARGE,
            0,
            0,
            f"the file has {len(content)} bytes; at most {bounds.size} are allowed",
        )
    content = content.removeprefix(b"\xef\xbb\xbf")
    for begin, program in _ENCRYPTED_FILES.items():
        if content.startswith(begin):
            message = f"the file is encrypted by {program}, and is not decrypted here"
            raise Unreadable(ENCRYPTED, 1, 1, message)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = lines_of(content[: error.start].decode(errors="replace"))
        is_utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise Unreadable(
            NOT_UTF_8,
            len(before),
            len(before[-1]) + 1,
            "the file is UTF-16"
            if is_utf_16
            else f"byte 0x{content[error.start]:02x} is not valid UTF-8",
        ) from None


def lines_of(text: str) -> list[str]:
    """Split a text into lines as YAML counts them."""
    return _BREAK.split(text)


def compose(text: str, bounds: Bounds = _OPERARIOS) -> Iterator[yaml.Node | None]:
    """Compose the root node of each document, None for an empty one.

    Raises:
        Unreadable: the text is not YAML or exceeds the bounds.
    """
    _check_bounds(text, bounds.values)
    count = 0
    try:
        parser = _Composer(text)
        while parser.check_node():
            node = parser.get_node()
            count += 1
            if count > bounds.documents:
                line = node.start_mark.line + 1 if node else 0
                message = f"the file has more than {bounds.documents} documents"
                raise Unreadable(TOO_MANY_DOCUMENTS, line, min(line, 1), message)
            yield node
    except yaml.YAMLError as error:
        raise _translate(error, text) from None


def too_deep(line: int, column: int) -> Unreadable:
    """The error for a value that is nested too deeply."""
    return Unreadable(NESTING, line, column, f"values are nested more than {MAX_DEPTH} levels deep")


class _Composer(CParser):
    """libyaml's composer; the tag of a scalar only tells whether it was plain or quoted."""

    def resolve(self, kind: type[yaml.Node], _value: str, implicit: tuple[bool, bool]) -> str:
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else QUOTED
        return ""

    def descend_resolver(self, parent: yaml.Node, index: object) -> None:
        """Do nothing: tags do not depend on the position of a value."""

    def ascend_resolver(self) -> None:
        """Do nothing, as above."""


def _check_bounds(text: str, max_values: int) -> None:
    """Reject a text that is nested too deeply or has too many values, before it is composed.

    The composer recurses in C. To save time, events are counted only if an estimate that is never
    too low exceeds the bounds.
    """
    # libyaml compares each with all others, in one call during which no other thread runs.
    if text.count("%") > _MAX_DIRECTIVES and len(_DIRECTIVE.findall(text)) > _MAX_DIRECTIVES:
        raise Unreadable(SYNTAX, 1, 1, f"the file has more than {_MAX_DIRECTIVES} directives (%…)")
    brackets = text.count("[") + text.count("{")
    widest = max(map(len, text.split("\n")))
    separators = brackets + sum(text.count(mark) for mark in ",:-?\n")
    if brackets + 2 * widest <= 1000 and 2 * separators <= max_values:  # noqa: PLR2004
        return
    depth = values = 0
    try:
        parser = _Composer(text)
        while (event := parser.get_event()) is not None:
            values += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            mark = event.start_mark
            if mark and (depth > MAX_DEPTH or values > max_values):
                line, column = mark.line + 1, mark.column + 1
                if depth > MAX_DEPTH:
                    raise too_deep(line, column)
                message = f"the file has more than {max_values} values"
                raise Unreadable(FILE_TOO_LARGE, line, column, message)
    except yaml.YAMLError as error:
        raise _translate(error, text) from None


def _translate(error: yaml.YAMLError, text: str) -> Unreadable:
    """Report an error of libyaml in our words."""
    if conflict := _CONFLICT.search(text):
        line = len(lines_of(text[: conflict.start()]))
        message = "unresolved merge conflict"
        return Unreadable(SYNTAX, line, 1, message, "resolve it and delete the markers")
    if isinstance(error, yaml.reader.ReaderError):
        match = _NOT_PRINTABLE_IN_YAML.search(text)
        before = lines_of(text[: match.start()] if match else "")
        character = f"character U+{ord(match[0]):04X}" if match else "a character"
        message = f"{character} is not allowed in YAML"
        return Unreadable(
            SYNTAX, len(before), len(before[-1]) + 1, message, "check that it is a text file"
        )
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return Unreadable(SYNTAX, 0, 0, f"not valid YAML: {error}")
    problem = error.problem or ""
    mark = error.problem_mark
    if structural := find_structural(text, mark.index):
        return Unreadable(SYNTAX, *structural)
    if problem in _REPORTED_AT_BEGINNING and error.context_mark:
        mark = error.context_mark
    message = _MESSAGES.get(problem, f"not valid YAML: {problem}")
    if problem == "found character that cannot start any token":
        character = lines_of(text)[mark.line][mark.column : mark.column + 1]
        message = (
            _MESSAGES["found a tab character that violates indentation"]
            if character == "\t"
            else f"a value that begins with {character} must be quoted"
        )
    elif problem == "second occurrence" and error.context_mark:
        message = f"the anchor (&name) is already defined on line {error.context_mark.line + 1}"
    return Unreadable(SYNTAX, mark.line + 1, mark.column + 1, message)


# Shared by `document` and `locate`.


def is_merge(node: yaml.Node) -> bool:
    """Whether a key is `<<`, unquoted."""
    return (
        isinstance(node, yaml.ScalarNode)
        and node.value == MERGE
        and (node.tag is PLAIN or node.tag == STANDARD + "merge")
    )


def is_text(node: yaml.ScalarNode) -> bool:
    """Whether a scalar is certainly a string; False means that it must be parsed."""
    return node.tag is QUOTED or (node.tag is PLAIN and node.value[:1] not in NOT_TEXT)
