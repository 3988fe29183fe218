"""Draws pages of a sample state, and parses them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from openfero_gitops.web.auth import Guard
from openfero_gitops.web.errors import problems
from openfero_gitops.web.pages import add_pages
from openfero_gitops.web.webhook import add_alerts_check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pages import Showcase

OPEN = Guard(None, certificate=False)
VOID = frozenset({"meta", "link", "img", "input", "br", "wbr"})
INLINE = frozenset({"a", "bdi", "code", "span", "strong", "time", "svg", "q", "button", "wbr"})


class Element:
    """One element of a page."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element | str] = []

    def walk(self) -> Iterator[Element]:
        """Iterate over the element and its descendants, in document order."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, tag: str = "", css: str = "", **attributes: str) -> list[Element]:
        """Find elements by tag, class and attributes."""
        return [
            element
            for element in self.walk()
            if (not tag or element.tag == tag)
            and (not css or css in element.attributes.get("class", "").split())
            and all(element.attributes.get(name) == value for name, value in attributes.items())
        ]

    def find(self, tag: str = "", css: str = "", **attributes: str) -> Element:
        """Find the only such element."""
        matching = self.all(tag, css, **attributes)
        assert len(matching) == 1, f"{tag}.{css} {attributes}: there are {len(matching)}"
        return matching[0]

    def find_items(self) -> list[Element]:
        """Find the items of a list, without those of lists in it."""
        return [child for child in self.children if isinstance(child, Element)]

    @property
    def text(self) -> str:
        """The visible text, with single spaces."""
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            elif child.tag in INLINE:
                yield from child._texts()
            else:
                yield " "
                yield from child._texts()
                yield " "


class Reader(HTMLParser):
    """Parses a page, and fails if an end tag does not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root], f"<{self._open[-1].tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Add an empty element."""
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Close the open element."""
        assert self._open[-1].tag == tag, f"</{tag}> ends <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        """Add text."""
        self._open[-1].children.append(data)


def application(state: Showcase, guard: Guard = OPEN) -> TestClient:
    """Serve the pages of a state, as the server does."""
    app = web.Application(middlewares=[problems])
    add_pages(app, state, guard, now=lambda: state.moment)
    add_alerts_check(app, guard)
    return TestClient(TestServer(app))


async def draw(state: Showcase, address: str = "/") -> Element:
    """Request a page and parse it."""
    async with application(state) as client:
        answer = await client.get(address, headers={"Accept": "text/html"})
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/html"
        return Reader(await answer.text()).root
