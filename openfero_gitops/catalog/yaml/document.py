"""The bytes of one file to plain values, read as Kubernetes reads them.

Kubernetes reads YAML through go-yaml v2 (`scalar`), then as JSON: keys become strings, merge keys
are allowed. What its readers disagree on is refused: a key that stands twice, and a merge over
a key before it. So is what would not end: files, documents, values and nesting are bounded, and
an alias counts for all that it stands for.
"""

from __future__ import annotations

import json
import re
import sys
from functools import lru_cache
from typing import Any, Final

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

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_MAX_CHARACTERS: Final = 4 * 1024 * 1024
_SHORT: Final = 32  # characters of a key that is worth remembering

DUPLICATE_KEY = error(
    "duplicate-key",
    "A key must occur only once in a mapping.",
    "YAML parsers disagree on which of the values they use, so what runs may differ "
    "from what was reviewed.",
)
KEY_NOT_TEXT = error(
    "key-not-text",
    "A key must be a string, not a list, a mapping or null.",
    "Kubernetes objects are JSON, where keys are strings. A common cause is a value "
    "that begins with `{{` and is not quoted: YAML reads it as a mapping used as a "
    "key.",
)
NOT_A_NUMBER = error(
    "not-a-number",
    "A number must be one that JSON can represent.",
    "Kubernetes objects are JSON, which has neither infinity nor NaN.",
)
CUSTOM_TAG = error(
    "custom-tag",
    "A value must not have a custom tag (`!name`).",
    "A tag tells the parser to construct a special object, which in some parsers "
    "runs code. No custom tag is interpreted here.",
)
ALIAS_BOMB = error(
    "alias-bomb",
    "The aliases of a file must not expand to more than 100,000 values or 4 MiB of text.",
    "A few lines of aliases can expand to gigabytes. They are counted before they are expanded.",
)


def load(content: bytes, *, is_json: bool = False) -> list[Any]:
    """The documents of a file in its order, empty ones as None.

    Values are dict (with str keys), list, str, int, float (finite), bool and None.

    Raises:
        Unreadable: nothing of the file is used.
    """
    text = decode(content)
    return _load_json(text) if is_json else load_text(text)


def load_text(text: str) -> list[Any]:
    """The documents of a YAML text; raises Unreadable."""
    builder = _Builder()
    return [None if node is None else builder.value(node, 0) for node in compose(text)]


def key_text(node: yaml.Node) -> str:
    """A key as Kubernetes' JSON has it; raises Unreadable where it is no scalar."""
    key = None
    if isinstance(node, yaml.ScalarNode):
        key = _key(node.value if is_text(node) else _scalar(node))
    if key is None:
        raise unreadable(
            KEY_NOT_TEXT,
            node,
            "a key is text, and this is nothing, a list or a mapping",
            "if a value begins with {{ or with [, quote it",
        )
    return key


def _key(value: object) -> str | None:
    """A scalar as a key, None for nothing."""
    match value:
        case str(text):
            return text
        case bool(truth):
            return "true" if truth else "false"
        case int(whole):
            return str(whole)
        case float(real):
            return f"{real:g}"
    return None


# (Ten thousand files have the same few keys: one text for all of them.)
@lru_cache(maxsize=2048)
def _word_as_key(word: str) -> str:
    """A word without quotes as a key; empty for one that is none, or says more than a key."""
    try:
        return sys.intern("" if word == MERGE else _key(plain(word)) or "")
    except ValueError:
        return ""


class _Builder:
    """Nodes to values, with one budget for a whole file."""

    def __init__(self) -> None:
        self._values = MAX_VALUES
        self._characters = _MAX_CHARACTERS

    def value(self, node: yaml.Node, depth: int) -> Any:
        self._values -= 1
        if self._values < 0 or self._characters < 0:
            raise unreadable(
                ALIAS_BOMB,
                node,
                f"the aliases (*name) stand for more than {MAX_VALUES} values or"
                f" {_MAX_CHARACTERS // 1024 // 1024} MiB of text",
                "write the values out, and fewer of them",
            )
        if isinstance(node, yaml.ScalarNode):
            tag, text = node.tag, node.value
            self._characters -= len(text)
            if tag is QUOTED or (tag is PLAIN and text[:1] not in NOT_TEXT):  # `is_text`
                return text
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
            known = _word_as_key(word) if 0 < len(word) <= _SHORT else ""
            if not known and is_merge(key_node):
                if merged is not None:
                    raise _duplicate(node, key_node, MERGE)
                merged = self._merged(value_node, depth)
                self._values -= len(merged)
                for key, value in merged.items():
                    if result.setdefault(key, value) != value:
                        raise _merged_over(node, key_node, key)
                continue
            key = known or sys.intern(key_text(key_node))
            if key in result:
                if merged is None or key not in merged:
                    raise _duplicate(node, key_node, key)
                del merged[key]
            self._characters -= len(key)
            result[key] = self.value(value_node, depth)
        return result

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """What `<<` brings; of several mappings the first one's value stays."""
        result: dict[str, Any] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                raise unreadable(
                    SYNTAX,
                    node,
                    "<< merges mappings, and this is none",
                    "name the anchor of a mapping, <<: *name, or quote the key",
                )
            for key, value in self.value(source, depth).items():
                result.setdefault(key, value)
        return result


def _duplicate(mapping: yaml.MappingNode, node: yaml.Node, key: str) -> Unreadable:
    first, second = _places(mapping, node, key)
    message = f"the key {shown(key)} stands twice: on {first} and on {second}"
    return unreadable(DUPLICATE_KEY, node, message, "delete one of them")


def _merged_over(mapping: yaml.MappingNode, node: yaml.Node, key: str) -> Unreadable:
    first, second = _places(mapping, node, key)
    return unreadable(
        DUPLICATE_KEY,
        node,
        f"the key {shown(key)} stands on {first} and is merged again on {second}: readers of YAML"
        " differ on which one counts",
        "put the << first in its mapping",
    )


def _places(mapping: yaml.MappingNode, node: yaml.Node, key: str) -> tuple[str, str]:
    """Where a key stands first, and where again; with columns where both are on one line."""
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
        raise _tagged(node)


def _tagged(node: yaml.Node) -> Unreadable:
    tag = node.tag.replace(STANDARD, "!!")
    return unreadable(
        CUSTOM_TAG,
        node,
        f"the tag {shown(tag)} means nothing to Kubernetes here",
        "delete the tag; quote a value that begins with !",
    )


_TAGGED: Final[dict[str, type | tuple[type, ...]]] = {
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
        raise unreadable(
            NOT_A_NUMBER, node, f"{text} is no number that JSON can write", f'quote it: "{text}"'
        ) from None
    if node.tag is PLAIN:
        return value
    kind = _TAGGED.get(node.tag)
    truth_as_number = isinstance(value, bool) and kind in (int, (int, float))
    if kind is None or not isinstance(value, kind) or truth_as_number:
        raise _tagged(node)
    return value


# JSON.


class _TwiceError(ValueError):
    """An object holds a key twice; its text is the key."""


def _load_json(text: str) -> list[Any]:
    if not text.strip():
        return []
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_int=_json_number,
            parse_float=_json_number,
        )
    except json.JSONDecodeError as problem:
        message = f"not JSON: {problem.msg[:1].lower()}{problem.msg[1:]}"
        raise Unreadable(SYNTAX, problem.lineno, problem.colno, message) from None
    except _TwiceError as problem:
        message = f"the key {problem} stands twice in one object"
        twice = Unreadable(DUPLICATE_KEY, 0, 0, message, "delete one of them")
        try:
            load_text(text)  # JSON is YAML, nearly always: it says on which lines
        except Unreadable as located:
            twice = located if located.rule is DUPLICATE_KEY else twice
        raise twice from None
    except RecursionError:
        raise too_deep(0, 0) from None
    _require_shallow(value)
    _require_characters(text, value)
    return [value]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _TwiceError(shown(key))
        result[key] = value
    return result


def _json_number(text: str) -> int | float:
    value = number(text)
    return _no_number(text) if value is None else value


def _no_number(text: str) -> int:
    message = f"{shown(text)} is no number that Kubernetes can read"
    raise Unreadable(NOT_A_NUMBER, 0, 0, message, "quote it")


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


def _require_characters(text: str, value: Any) -> None:
    """Refuse half of a surrogate pair, which no UTF-8 can hold."""
    found = _SURROGATE.search(text)
    if found and _SURROGATES.search(json.dumps(value, ensure_ascii=False)):
        before = lines_of(text[: found.start()])
        message = f"the escape {found[0]} is half a character"
        raise Unreadable(SYNTAX, len(before), len(before[-1]) + 1, message)
