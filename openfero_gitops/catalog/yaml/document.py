"""Parse the bytes of a file into plain values, as Kubernetes reads them.

Kubernetes reads YAML with go-yaml v2 (`scalar`) and converts it to JSON: keys become strings, merge
keys are supported. What YAML parsers disagree on is rejected: a duplicate key, and a merge after a
key that it would set. Files, documents, values and nesting are bounded, and an alias counts as
everything that it expands to.
"""

from __future__ import annotations

import json
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.catalog.yaml.compose import (
    MAX_DEPTH,
    MAX_VALUES,
    MERGE,
    PLAIN,
    QUOTED,
    STANDARD,
    SYNTAX,
    Unreadable,
    compose,
    decode,
    is_merge,
    is_text,
    lines_of,
    too_deep,
    unreadable,
)
from openfero_gitops.catalog.yaml.scalar import NOT_TEXT, number, plain
from openfero_gitops.domain.rule import error
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_CHARACTERS: Final = 4 * 1024 * 1024
_MAX_CACHED_KEY_CHARACTERS: Final = 32
#: Longer texts are rarely the same in two files.
_MAX_SHARED_CHARACTERS: Final = 64
# See `catalog.effort`.
_CHARACTERS_PER_STEP: Final = 100
_VALUES_PER_STEP: Final = 4

DUPLICATE_KEY = error(
    "duplicate-key",
    "A key must occur only once in a mapping.",
    "YAML parsers disagree on which of the values they use, so what runs may differ "
    "from what was reviewed.",
    "delete one of them",
)
KEY_NOT_TEXT = error(
    "key-not-text",
    "A key must be a string, not a list, a mapping or null.",
    "Kubernetes objects are JSON, where keys are strings. A common cause is a value "
    "that begins with `{{` and is not quoted: YAML reads it as a mapping used as a "
    "key.",
    "quote a value that begins with {{ or [",
)
NOT_A_NUMBER = error(
    "not-a-number",
    "A number must be one that JSON can represent.",
    "Kubernetes objects are JSON, which has neither infinity nor NaN.",
    "quote it",
)
CUSTOM_TAG = error(
    "custom-tag",
    "A value must not have a custom tag (`!name`).",
    "A tag tells the parser to construct a special object, which in some parsers "
    "runs code. No custom tag is interpreted here.",
    "delete the tag; quote a value that begins with !",
)
ALIAS_BOMB = error(
    "alias-bomb",
    "The aliases of a file must not expand to more than 100,000 values or 4 MiB of text.",
    "A few lines of aliases can expand to gigabytes. They are counted before they are expanded.",
    "replace the aliases by values",
)


def _nothing(_steps: int) -> None:
    """Count nothing."""


def load(
    content: bytes, *, is_json: bool = False, spend: Callable[[int], None] = _nothing
) -> list[Any]:
    """Parse the documents of a file, empty ones as None.

    Values are dict (with str keys), list, str, int, float (finite), bool and None.

    Args:
        content: the bytes of the file.
        is_json: whether it is JSON; otherwise YAML.
        spend: is called with the steps that each document has cost; may raise.

    Raises:
        Unreadable: the file cannot be parsed; no part of it is used.
    """
    text = decode(content)
    if not is_json:
        return load_text(text, spend)
    spend(len(text) // _CHARACTERS_PER_STEP)
    return _load_json(text)


def load_text(text: str, spend: Callable[[int], None] = _nothing) -> list[Any]:
    """Parse the documents of a YAML text.

    Raises:
        Unreadable: it cannot be parsed.
    """
    spend(len(text) // _CHARACTERS_PER_STEP)
    builder = _Builder()
    documents = []
    for node in compose(text):
        before = builder.values
        documents.append(None if node is None else builder.value(node, 0))
        spend((before - builder.values) // _VALUES_PER_STEP)
    return documents


def key_text(node: yaml.Node) -> str:
    """Convert a key to the string that Kubernetes' JSON has for it.

    Raises:
        Unreadable: it is not a scalar.
    """
    key = None
    if isinstance(node, yaml.ScalarNode):
        key = _key(node.value if is_text(node) else _scalar(node))
    if key is None:
        raise unreadable(
            KEY_NOT_TEXT, node, "a key must be a string, not null, a list or a mapping"
        )
    return key


def _key(value: object) -> str | None:
    """Convert a scalar to a key; None for null."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return f"{value:g}"
    return None


# Thousands of files have the same few keys; they share one string for each.
@lru_cache(maxsize=2048)
def _plain_key(word: str) -> str:
    """Convert an unquoted word to a key; empty for null, a merge key and an invalid number."""
    try:
        return sys.intern("" if word == MERGE else _key(plain(word)) or "")
    except ValueError:
        return ""


class _Builder:
    """Converts nodes to values, with one budget for a whole file.

    `values` is how many more are allowed.
    """

    def __init__(self) -> None:
        self.values = MAX_VALUES
        self._characters = _MAX_CHARACTERS

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.values -= 1
        if self.values < 0 or self._characters < 0:
            raise unreadable(
                ALIAS_BOMB,
                node,
                f"the aliases (*name) expand to more than {MAX_VALUES} values or"
                f" {_MAX_CHARACTERS // 1024 // 1024} MiB of text",
            )
        if isinstance(node, yaml.ScalarNode):
            tag, text = node.tag, node.value
            self._characters -= len(text)
            if tag is QUOTED or (tag is PLAIN and text[:1] not in NOT_TEXT):  # is_text, inlined
                # Thousands of files have the same images, quantities and names, too.
                return sys.intern(text) if len(text) <= _MAX_SHARED_CHARACTERS else text
            return _scalar(node)
        if depth >= MAX_DEPTH:
            raise too_deep(node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth + 1)
        _require_tag(node, "seq")
        return [self.value(item, depth + 1) for item in node.value]

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        _require_tag(node, "map")
        result: dict[str, Any] = {}
        merged: dict[str, Any] | None = None
        for key_node, value_node in node.value:
            word = key_node.value if key_node.tag is PLAIN else ""
            key = _plain_key(word) if 0 < len(word) <= _MAX_CACHED_KEY_CHARACTERS else ""
            if not key and is_merge(key_node):
                if merged is not None:
                    raise _duplicate(node, key_node, MERGE)
                merged = self._merged(value_node, depth)
                self.values -= len(merged)
                for merged_key, value in merged.items():
                    if result.setdefault(merged_key, value) != value:
                        raise _merged_over(node, key_node, merged_key)
                continue
            key = key or sys.intern(key_text(key_node))
            if key in result:
                if merged is None or key not in merged:
                    raise _duplicate(node, key_node, key)
                del merged[key]
            self._characters -= len(key)
            result[key] = self.value(value_node, depth)
        return result

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """The members that `<<` adds; of several mappings the first has priority."""
        result: dict[str, Any] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                raise unreadable(
                    SYNTAX,
                    node,
                    "<< must be followed by a mapping",
                    "write the alias of a mapping, <<: *name, or quote the key",
                )
            for key, value in self.value(source, depth).items():
                result.setdefault(key, value)
        return result


def _duplicate(mapping: yaml.MappingNode, node: yaml.Node, key: str) -> Unreadable:
    first, second = _places(mapping, node, key)
    message = f"key {shown(key)} occurs twice: on {first} and on {second}"
    return unreadable(DUPLICATE_KEY, node, message)


def _merged_over(mapping: yaml.MappingNode, node: yaml.Node, key: str) -> Unreadable:
    first, second = _places(mapping, node, key)
    return unreadable(
        DUPLICATE_KEY,
        node,
        f"key {shown(key)} on {first} is merged again on {second}: YAML parsers disagree on which"
        " value they use",
        "put << first in its mapping",
    )


def _places(mapping: yaml.MappingNode, node: yaml.Node, key: str) -> tuple[str, str]:
    """The first and the second place of a key; with columns if both are on one line."""
    first = next(
        other.start_mark
        for other, _ in mapping.value
        if (MERGE if is_merge(other) else key_text(other)) == key
    )
    second = node.start_mark
    if first.line == second.line:
        line = first.line + 1
        return (
            f"line {line}, column {first.column + 1},",
            f"line {line}, column {second.column + 1}",
        )
    return f"line {first.line + 1}", f"line {second.line + 1}"


def _require_tag(node: yaml.Node, kind: str) -> None:
    if node.tag and node.tag != STANDARD + kind:
        raise _custom_tag(node)


def _custom_tag(node: yaml.Node) -> Unreadable:
    tag = node.tag.replace(STANDARD, "!!")
    return unreadable(CUSTOM_TAG, node, f"tag {shown(tag)} is not supported")


_TYPES_OF_TAGS: Final[dict[str, type | tuple[type, ...]]] = {
    STANDARD + "bool": bool,
    STANDARD + "null": type(None),
    STANDARD + "int": int,
    STANDARD + "float": (int, float),
}


def _scalar(node: yaml.ScalarNode) -> Any:
    """The value of a scalar that is plain or has a tag."""
    text: str = node.value
    if node.tag in (QUOTED, STANDARD + "str"):
        return text
    try:
        value = plain(text)
    except ValueError:
        message = f"{text} cannot be represented in JSON"
        raise unreadable(NOT_A_NUMBER, node, message, f'quote it: "{text}"') from None
    if node.tag is PLAIN:
        return value
    type_ = _TYPES_OF_TAGS.get(node.tag)
    is_bool_as_number = isinstance(value, bool) and type_ in (int, (int, float))
    if type_ is None or not isinstance(value, type_) or is_bool_as_number:
        raise _custom_tag(node)
    return value


# JSON.


class _DuplicateKeyError(ValueError):
    """An object has a key twice; the error's text is the key."""


def _load_json(text: str) -> list[Any]:
    if not text.strip():
        return []
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_reject_number,
            parse_int=_json_number,
            parse_float=_json_number,
        )
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise Unreadable(SYNTAX, error.lineno, error.colno, message) from None
    except _DuplicateKeyError as error:
        duplicate = Unreadable(DUPLICATE_KEY, 0, 0, f"key {error} occurs twice in one object")
        try:
            load_text(text)  # nearly all JSON is YAML, whose error has the lines
        except Unreadable as located:
            duplicate = located if located.rule is DUPLICATE_KEY else duplicate
        raise duplicate from None
    except RecursionError:
        raise too_deep(0, 0) from None
    _require_shallow(value)
    _require_whole_characters(text, value)
    return [value]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _DuplicateKeyError(shown(key))
        result[key] = value
    return result


def _json_number(text: str) -> int | float:
    value = number(text)
    return _reject_number(text) if value is None else value


def _reject_number(text: str) -> int:
    message = f"{shown(text)} is not a number that Kubernetes can read"
    raise Unreadable(NOT_A_NUMBER, 0, 0, message)


def _require_shallow(value: Any) -> None:
    level, depth = [value], 0
    while containers := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise too_deep(0, 0)
        level = [
            inner
            for outer in containers
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]


def _require_whole_characters(text: str, value: Any) -> None:
    """Reject half of a surrogate pair, which UTF-8 cannot encode."""
    match = _SURROGATE_ESCAPE.search(text)
    if match and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        before = lines_of(text[: match.start()])
        message = f"the escape sequence {match[0]} is only half of a character"
        raise Unreadable(SYNTAX, len(before), len(before[-1]) + 1, message)
