"""What is made of short texts, remembered; of long ones it is made each time.

Manifests are written in the same few words, but whoever writes them may also write long ones: so
the number of what is remembered bounds the memory that it takes.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_Reader = TypeVar("_Reader", bound="Callable[..., Any]")


def remembered(*, most: int, longest: int) -> Callable[[_Reader], _Reader]:
    """Remember the last `most` results of a function for texts of at most `longest` characters.

    The text comes first; what follows must be hashable, and what is returned is not to be changed.
    """

    def decorate(read: _Reader) -> _Reader:
        known = lru_cache(maxsize=most)(read)

        @wraps(read)
        def recall(text: str, *rest: Hashable) -> Any:
            return known(text, *rest) if len(text) <= longest else read(text, *rest)

        return cast("_Reader", recall)

    return decorate
