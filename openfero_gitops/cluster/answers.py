"""Reads the answers of an API server in bounded memory.

Users who can create objects determine the size of answers: a Job can have 1.5 MiB (the limit of
etcd), and in JSON six times as much. So an answer is counted while it is read, at most a few large
ones are held at a time, and the members that nobody needs are skipped without building them. A page
of a list is kept as text, of which one object is parsed at a time.
"""

from __future__ import annotations

import asyncio
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from openfero_gitops.cluster.api import Change, WatchEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import aiohttp

    from openfero_gitops.cluster.api import Object, Resource

#: Of any answer, and of an event of a watch. The largest object in etcd (1.5 MiB) has at most
#: 9 MiB in JSON, if all its characters must be escaped.
MAX_ANSWER_BYTES: Final = 16 * 2**20
#: Of a page with more than one object; 500 ordinary Jobs have 2 to 5 MiB.
MAX_PAGE_BYTES: Final = 8 * 2**20
#: Of the answer to a request that failed; one that is longer is not parsed.
MAX_ERROR_BYTES: Final = 256 * 1024
#: An answer of more bytes is large, and waits for one of the slots.
LARGE_BYTES: Final = 256 * 1024
LARGE_ANSWERS: Final = 2
#: Objects per page of a list, as in client-go.
PAGE_SIZE: Final = 500
#: A page with too many bytes is requested again with so many times fewer objects.
PAGE_SHRINK: Final = 8
#: Objects that are read before other tasks run.
OBJECTS_AT_ONCE: Final = 50

_Text = bytes | bytearray | msgspec.Raw


class TooLongError(Exception):
    """An answer has more bytes than allowed; the rest was not read."""


class ListMetadata(msgspec.Struct):
    """The metadata of a list."""

    resource_version: str = msgspec.field(name="resourceVersion", default="")
    next_page: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    """A page of a list, whose objects have not been parsed."""

    metadata: ListMetadata | None = None
    items: list[msgspec.Raw] | None = None


_Object = TypeVar("_Object")


class _Line(msgspec.Struct, Generic[_Object]):
    """A line of a watch."""

    type: str
    object: _Object


_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MEMBERS_OR_NULL: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_VALUE: Final = msgspec.json.Decoder()
_PAGE: Final = msgspec.json.Decoder(Page)
_LINE: Final = msgspec.json.Decoder(_Line[msgspec.Raw])


class AnswerBody:
    """The body of a response; a large one holds a slot of `large_answers` within the block.

    Entering it raises `TooLongError` if the body has more than `max_bytes`; the connection is
    closed then.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, max_bytes: int, large_answers: asyncio.Semaphore
    ) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._large_answers = large_answers
        self._holds_slot = False

    async def __aenter__(self) -> bytearray:
        """Read the body."""
        try:
            return await self._receive()
        except BaseException:
            self._response.close()
            self._release_slot()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Let another large body be read."""
        self._release_slot()

    def _release_slot(self) -> None:
        if self._holds_slot:
            self._large_answers.release()

    async def _receive(self) -> bytearray:
        if (self._response.content_length or 0) > self._max_bytes:
            raise TooLongError
        received = bytearray()
        content = self._response.content
        while not content.at_eof():
            chunk = await content.readany()
            total = len(received) + len(chunk)
            if total > self._max_bytes:
                raise TooLongError
            if total > LARGE_BYTES and not self._holds_slot:
                await self._large_answers.acquire()
                self._holds_slot = True
            received += chunk
        return received


@lru_cache(maxsize=8)
def _object_decoder(members: Any) -> msgspec.json.Decoder[Object]:
    return msgspec.json.Decoder(members)


@lru_cache(maxsize=8)
def _line_decoder(members: Any) -> msgspec.json.Decoder[_Line[Object]]:
    return msgspec.json.Decoder(_Line[members])


def parse_object(text: _Text, resource: Resource | None = None) -> Object:
    """Parse an object, without the members of a resource that need not be read.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    if resource is not None and resource.members is not None:
        try:
            return _object_decoder(resource.members).decode(text)
        except (msgspec.ValidationError, RecursionError):
            pass  # it is decoded whole, so that nothing depends on what is usual
    unread = resource.unread if resource else {}
    try:
        if not unread:
            return _OBJECT.decode(text)
        members: dict[str, Any] = {}
        for name, value in _MEMBERS.decode(text).items():
            if name not in unread:
                members[name] = _VALUE.decode(value)
            elif (names := unread[name]) is not None:
                members[name] = _without(value, names)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return members


def _without(text: msgspec.Raw, names: frozenset[str]) -> Object | None:
    members = _MEMBERS_OR_NULL.decode(text)
    if members is None:
        return None
    return {name: _VALUE.decode(value) for name, value in members.items() if name not in names}


def parse_page(text: _Text) -> Page:
    """Parse a page of a list, but not its objects; raises ValueError."""
    try:
        return _PAGE.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_event(line: bytes, resource: Resource) -> WatchEvent | Object:
    """Parse a line of a watch; return the `Status` of an error.

    Raises:
        ValueError: it is not a watch event.
    """
    if resource.members is not None:
        try:
            parsed = _line_decoder(resource.members).decode(line)
            str(parsed.object["metadata"]["resourceVersion"])  # an error has none
            return WatchEvent(Change(parsed.type), parsed.object)
        except (ValueError, LookupError, RecursionError):
            pass
    try:
        event = _LINE.decode(line)
        if event.type == "ERROR":
            return _OBJECT.decode(event.object)
        changed = parse_object(event.object, resource)
        str(changed["metadata"]["resourceVersion"])  # from which a watch is resumed
        return WatchEvent(Change(event.type), changed)
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("not a watch event") from error


class Pages:
    """What was read of a list so far, and how to request the next page."""

    def __init__(
        self, resource: Resource, read: Callable[[Object], Any] | None, max_objects: int | None
    ) -> None:
        self.resource = resource
        self._read = read
        self._max_objects = math.inf if max_objects is None else max_objects
        self._size = PAGE_SIZE
        self.restart()

    def restart(self) -> None:
        """Begin again: the continue token has expired."""
        self.items: list[Any] = []
        self.resource_version = ""
        self.complete = False
        self._next_page = ""
        self._objects = 0

    @property
    def max_bytes(self) -> int:
        """How large the next page may be."""
        return MAX_PAGE_BYTES if self._size > 1 else MAX_ANSWER_BYTES

    def query(self) -> dict[str, str]:
        """Return the parameters of the request for the next page."""
        query = {"limit": str(min(self._size, self._max_objects - self._objects))}
        return {**query, "continue": self._next_page} if self._next_page else query

    def shrink(self) -> bool:
        """Request fewer objects from now on; False if it was only one."""
        if self._size == 1:
            return False
        self._size = max(1, self._size // PAGE_SHRINK)
        return True

    async def read(self, text: bytearray) -> None:
        """Read the objects of a page one by one; raises ValueError."""
        page = parse_page(text)
        # The items of a list do not repeat the kind and apiVersion of the list.
        common = {"apiVersion": self.resource.api_version, "kind": self.resource.kind}
        since_pause = 0
        for number, raw in enumerate(page.items or ()):
            if number % OBJECTS_AT_ONCE == 0 or since_pause > LARGE_BYTES:
                since_pause = 0
                await asyncio.sleep(0)
            since_pause += len(memoryview(raw))
            item = {**parse_object(raw, self.resource), **common}
            kept = item if self._read is None else self._read(item)
            if kept is not None:
                self.items.append(kept)
        metadata = page.metadata or ListMetadata()
        self.resource_version = metadata.resource_version
        self._next_page = metadata.next_page
        self._objects += len(page.items or ())
        self.complete = not self._next_page or self._objects >= self._max_objects
        if len(text) < MAX_PAGE_BYTES // 4:
            self._size = min(PAGE_SIZE, self._size * 2)


class Lines:
    """Splits chunks into lines; aiohttp limits the length of its lines to less than is needed."""

    def __init__(self, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        """Limit the bytes of one line."""
        self._max_bytes = max_bytes
        self._begun = bytearray()

    @property
    def rest(self) -> bytes:
        """What follows the last line break."""
        return bytes(self._begun)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that a chunk completes.

        Raises:
            TooLongError: a line has too many bytes.
        """
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._append(chunk[start:end])
            line = bytes(self._begun)
            self._begun.clear()
            yield line
            start = end + 1
        self._append(chunk[start:])

    def _append(self, part: bytes) -> None:
        if len(self._begun) + len(part) > self._max_bytes:
            raise TooLongError
        self._begun += part
