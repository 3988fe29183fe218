"""Compare two Jobs, or parts of them, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.text import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openfero_gitops.domain.rule import Pointer


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field with two different values; None means that the field is absent."""

    pointer: Pointer
    before: Any
    after: Any


def is_same(_pointer: Pointer, before: Any, after: Any) -> bool:
    """Whether two values are equal as JSON, where 1 and true are different."""
    return canonical_json(before) == canonical_json(after)


def compare(
    before: Any,
    after: Any,
    *,
    max_depth: int | None = None,
    is_equal: Callable[[Pointer, Any, Any], bool] = is_same,
    pointer: Pointer = (),
) -> Iterator[FieldDifference]:
    """Find the fields that differ.

    Mappings are compared by key, lists of the same length by index, and everything else by
    `is_equal`.

    Args:
        before: a value that consists of JSON types.
        after: the same.
        max_depth: the depth from which values are compared as a whole; None for no limit.
        is_equal: compares two values that are not both mappings or both such lists.
        pointer: where the values are.
    """
    pairs: list[tuple[str | int, Any, Any]] | None = None
    if max_depth != 0:
        if isinstance(before, dict) and isinstance(after, dict):
            pairs = [(key, before.get(key), after.get(key)) for key in sorted({*before, *after})]
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            pairs = [(n, *items) for n, items in enumerate(zip(before, after, strict=True))]
    if pairs is None:
        if not is_equal(pointer, before, after):
            yield FieldDifference(pointer, before, after)
        return
    for key, old, new in pairs:
        yield from compare(
            old,
            new,
            max_depth=None if max_depth is None else max_depth - 1,
            is_equal=is_equal,
            pointer=(*pointer, key),
        )
