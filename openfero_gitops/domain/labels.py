"""Labels of an alert that need little memory, even if an alert has thousands of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator

#: More labels than this, or longer ones, are kept as text.
_MAX_LABELS: Final = 32
_MAX_CHARACTERS: Final = 2048


def compact(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return equal labels; many or long ones are packed.

    A dict of short texts needs up to 25 times the memory of the texts.
    """
    few = len(labels) <= _MAX_LABELS
    if few and sum(map(len, labels)) + sum(map(len, labels.values())) <= _MAX_CHARACTERS:
        return labels
    return PackedLabels(labels)


class PackedLabels(Mapping[str, str]):
    """Labels that are kept as JSON, and unpacked at each access."""

    __slots__ = ("_text",)

    def __init__(self, labels: Mapping[str, str]) -> None:
        """Pack these labels; their texts must be valid Unicode."""
        self._text = json.dumps(dict(labels), ensure_ascii=False, separators=(",", ":")).encode()

    def __getitem__(self, name: str) -> str:
        """Return the value of a label."""
        return _unpacked(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(_unpacked(self._text))

    def items(self) -> ItemsView[str, str]:
        """Return the names and values."""
        return _unpacked(self._text).items()

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(_unpacked(self._text))


# A caller who reads one label after the other would unpack all of them each time.
@lru_cache(maxsize=8)
def _unpacked(text: bytes) -> dict[str, str]:
    labels: dict[str, str] = json.loads(text)
    return labels
