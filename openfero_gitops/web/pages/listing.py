"""What lists of definitions have in common: pages by number, and a search for words.

Unlike remediations, definitions do not arrive one after the other while somebody reads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, TypeVar
from urllib.parse import urlencode

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from multidict import MultiMapping

T = TypeVar("T")
_MAX_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which rows of a list are shown; a list adds members, each a text with a default."""

    #: The page of the list, relative to `/`.
    path_of_page: ClassVar[str]

    def address(self, page: int = 1) -> str:
        """The address of a page with this filter, relative to `/`."""
        pairs = [
            (member.name, getattr(self, member.name))
            for member in fields(self)
            if getattr(self, member.name) != member.default
        ]
        if page > 1:
            pairs.append(("page", str(page)))
        return f"{self.path_of_page}?{urlencode(pairs)}" if pairs else self.path_of_page


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list a page shows; pages count from 1."""

    total: int
    size: int
    page: int = 1

    @property
    def first(self) -> int:
        """The number of the first row on the page, from 1; beyond the list on no page of it."""
        return (self.page - 1) * self.size + 1

    @property
    def last(self) -> int:
        """The number of the last row on the page."""
        return min(self.page * self.size, self.total)

    @property
    def previous(self) -> int | None:
        """The page before; None if this is the first."""
        return min(self.page - 1, self.pages) if self.page > 1 else None

    @property
    def next(self) -> int | None:
        """The page after; None if this is the last."""
        return self.page + 1 if self.page < self.pages else None

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // self.size))

    def cut(self, rows: Sequence[T]) -> Sequence[T]:
        """Return the rows of the page."""
        return rows[self.first - 1 : self.last]


def read_page(query: MultiMapping[str]) -> int:
    """Read the number of the page.

    Raises:
        web.HTTPBadRequest: it is no number from 1.
    """
    text = query.get("page", "") or "1"
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not is_number or int(text) < 1:
        raise web.HTTPBadRequest(text="page must be a number from 1")
    return int(text)


def contains_words(wanted: str, texts: Iterable[str]) -> bool:
    """Whether each word occurs in one of the texts, ignoring case."""
    if not wanted:
        return True
    text = "\n".join(texts).casefold()
    return all(word in text for word in wanted.casefold().split())
