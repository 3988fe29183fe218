"""A bounded cache for functions of short texts.

Manifests consist of the same few words, but their authors may also write long ones. With a bound on
both the number and the length of the texts, the memory of the cache is bounded.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def cache_short_texts(*, max_entries: int, max_characters: int) -> Callable[[_Function], _Function]:
    """Cache the last results of a function for texts of together at most `max_characters`.

    The first argument is a text; the others must be hashable. Results are shared, so callers must
    not change them.
    """

    def decorate(function: _Function) -> _Function:
        cached = lru_cache(maxsize=max_entries)(function)

        @wraps(function)
        def call(text: str, *arguments: Hashable) -> Any:
            characters = len(text)
            for argument in arguments:
                if isinstance(argument, str):
                    characters += len(argument)
            is_short = characters <= max_characters
            return cached(text, *arguments) if is_short else function(text, *arguments)

        return cast("_Function", call)

    return decorate
