"""Where in a file a value stands: asked of the few files of which something must be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from openfero_gitops.catalog.yaml.compose import Unreadable, compose, decode, is_merge, lines_of
from openfero_gitops.catalog.yaml.document import key_text

if TYPE_CHECKING:
    from openfero_gitops.domain.rule import Pointer


class Locator:
    """One readable file; nothing is composed before something is asked."""

    def __init__(self, content: bytes) -> None:
        """Take the file's bytes."""
        self._content = content
        self._documents: list[yaml.Node | None] | None = None
        self._lines: list[str] = []

    def place(self, document: int, pointer: Pointer) -> tuple[int, int]:
        """Line and column, from 1, of the nearest thing there is.

        That is the key of a mapping's member, or the beginning of a list's item. A pointer into
        a text (a ConfigMap's wrapped Job) goes on in the YAML that the text holds.
        """
        node = self._document(document)
        if node is None:
            return 1, 1
        mark = node.start_mark
        for depth, part in enumerate(pointer):
            found = _member(node, part)
            if found is None:
                if isinstance(node, yaml.ScalarNode) and node.style == "|":
                    inner = Locator(node.value.encode()).place(0, pointer[depth:])
                    return self._shift(node, *inner)
                break
            mark, node = found
        return mark.line + 1, mark.column + 1

    def within(self, document: int, pointer: Pointer, line: int, column: int) -> tuple[int, int]:
        """The place in the file of a line and column in the text that a pointer names."""
        node = self._document(document)
        for part in pointer:
            found = _member(node, part) if node is not None else None
            node = found[1] if found else None
        if isinstance(node, yaml.ScalarNode) and node.style == "|" and line:
            return self._shift(node, line, column)
        return self.place(document, pointer)

    def _document(self, index: int) -> yaml.Node | None:
        if self._documents is None:
            text = decode(self._content)
            self._lines = lines_of(text)
            try:
                self._documents = list(compose(text))
            except Unreadable:  # JSON that is no YAML: what is found in it has no place
                self._documents = []
        return self._documents[index] if index < len(self._documents) else None

    def _shift(self, node: yaml.ScalarNode, line: int, column: int) -> tuple[int, int]:
        """From a block's text (`|`) to the file: below its mark, right of its indentation."""
        number = node.start_mark.line + line  # counts from 0
        inner = node.value.split("\n")
        if number >= len(self._lines) or line > len(inner):
            return node.start_mark.line + 1, node.start_mark.column + 1
        return number + 1, column + max(0, len(self._lines[number]) - len(inner[line - 1]))


def _member(node: yaml.Node, part: str | int) -> tuple[yaml.Mark, yaml.Node] | None:
    """Where a member of a node is named, and the node that it is."""
    if isinstance(node, yaml.SequenceNode):
        if isinstance(part, int) and part < len(node.value):
            return node.value[part].start_mark, node.value[part]
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    merged: list[yaml.Node] = []
    for key, value in node.value:
        if is_merge(key):
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
        elif key_text(key) == part:
            return key.start_mark, value
    return next((found for source in merged if (found := _member(source, part))), None)
