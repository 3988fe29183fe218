"""Finds the line and column of a value. Used only for files with problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from openfero_gitops.catalog.yaml.compose import Unreadable, compose, decode, is_merge, lines_of
from openfero_gitops.catalog.yaml.document import key_text

if TYPE_CHECKING:
    from openfero_gitops.domain.rule import Pointer

    # The mark and the node of a member or an item.
    _Place = tuple[yaml.Mark, yaml.Node]


class Locator:
    """Finds places in one file that can be parsed; the file is composed on first use."""

    def __init__(self, content: bytes) -> None:
        """Keep the bytes of the file."""
        self._content = content
        self._documents: list[yaml.Node | None] | None = None
        self._lines: list[str] = []
        # By the ID of a node, which lives as long as the documents: each is read once, however
        # many places are in it.
        self._members: dict[int, tuple[dict[str, _Place], list[yaml.Node]]] = {}
        self._inner: dict[int, tuple[Locator, list[str]]] = {}

    def place(self, document: int, pointer: Pointer) -> tuple[int, int]:
        """Line and column, from 1, of a pointer's target or its nearest existing parent.

        The place of a member is its key, that of an item its beginning. A pointer can continue
        inside a block of text that is YAML itself, such as the Job in a ConfigMap.
        """
        node = self._document(document)
        if node is None:
            return 1, 1
        mark = node.start_mark
        for depth, part in enumerate(pointer):
            member = self._member(node, part)
            if member is None:
                if isinstance(node, yaml.ScalarNode) and node.style == "|":
                    inner, _ = self._inside(node)
                    return self._shift(node, *inner.place(0, pointer[depth:]))
                break
            mark, node = member
        return mark.line + 1, mark.column + 1

    def within(self, document: int, pointer: Pointer, line: int, column: int) -> tuple[int, int]:
        """The place in the file of a line and column in the text at a pointer."""
        node = self._document(document)
        for part in pointer:
            member = self._member(node, part) if node is not None else None
            node = member[1] if member else None
        if isinstance(node, yaml.ScalarNode) and node.style == "|" and line:
            return self._shift(node, line, column)
        return self.place(document, pointer)

    def _document(self, index: int) -> yaml.Node | None:
        if self._documents is None:
            text = decode(self._content)
            self._lines = lines_of(text)
            try:
                self._documents = list(compose(text))
            except Unreadable:  # JSON that is not YAML: its findings have no place
                self._documents = []
        return self._documents[index] if index < len(self._documents) else None

    def _shift(self, node: yaml.ScalarNode, line: int, column: int) -> tuple[int, int]:
        """Convert a place in the text of a block (`|`) to a place in the file."""
        number = node.start_mark.line + line  # counts from 0
        _, inner = self._inside(node)
        if number >= len(self._lines) or line > len(inner):
            return node.start_mark.line + 1, node.start_mark.column + 1
        return number + 1, column + max(0, len(self._lines[number]) - len(inner[line - 1]))

    def _inside(self, node: yaml.ScalarNode) -> tuple[Locator, list[str]]:
        """A locator for the text of a block, and its lines."""
        if (inside := self._inner.get(id(node))) is None:
            inside = Locator(node.value.encode()), node.value.split("\n")
            self._inner[id(node)] = inside
        return inside

    def _member(self, node: yaml.Node, part: str | int) -> _Place | None:
        """The mark and the node of a member or an item."""
        if isinstance(node, yaml.SequenceNode):
            if isinstance(part, int) and part < len(node.value):
                return node.value[part].start_mark, node.value[part]
            return None
        if not isinstance(node, yaml.MappingNode):
            return None
        if (known_members := self._members.get(id(node))) is None:
            known_members = self._members[id(node)] = _members(node)
        members, merged = known_members
        if isinstance(part, str) and part in members:
            return members[part]
        return next((member for source in merged if (member := self._member(source, part))), None)


def _members(node: yaml.MappingNode) -> tuple[dict[str, _Place], list[yaml.Node]]:
    """The members of a mapping by key, and the mappings that are merged into it."""
    members: dict[str, _Place] = {}
    merged: list[yaml.Node] = []
    for key, value in node.value:
        if is_merge(key):
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
        else:
            members.setdefault(key_text(key), (key.start_mark, value))
    return members, merged
