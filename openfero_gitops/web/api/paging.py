"""Cuts lists into pages.

A token names the last item of a page, not a number of items: new items do not shift the pages.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openfero_gitops.web.api.parameters import PagingQuery, PathParameters
    from openfero_gitops.web.api.route import Call

T = TypeVar("T")


def take_page(
    values: Iterable[T],
    position: Callable[[T], str],
    call: Call[PathParameters, PagingQuery],
    *,
    descending: bool = False,
) -> tuple[list[T], str | None]:
    """Return the page of a list that is requested, and the token of the next one.

    `position` returns a unique text by which the list is sorted.

    Raises:
        web.HTTPBadRequest: the token was not made for this list.
    """
    pairs = [(position(value), value) for value in values]
    if call.query.continue_:
        last = read_token(call.request.path, call.query.continue_)
        pairs = [pair for pair in pairs if (pair[0] < last if descending else pair[0] > last)]
    pairs.sort(key=lambda pair: pair[0], reverse=descending)
    page = pairs[: call.query.limit]
    token = make_token(call.request.path, page[-1][0]) if len(pairs) > len(page) else None
    return [value for _, value in page], token


def make_token(path: str, last: str) -> str:
    """Make an opaque token for a position in a list."""
    return base64.urlsafe_b64encode(f"{path} {last}".encode("utf-8", "surrogateescape")).decode()


def read_token(path: str, token: str) -> str:
    """Read a token; raise 400 if it was not made for this list."""
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode(
            "utf-8", "surrogateescape"
        )
    except ValueError:
        text = ""
    made_for, _, last = text.partition(" ")
    if made_for != path or not last:
        raise web.HTTPBadRequest(
            text="continue is not a token of this list; read the list from its first page"
        )
    return last
