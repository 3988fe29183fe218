"""Applies JSON Patches (RFC 6902) as the API server does, as far as they are used here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.demo.cluster.store import copied, through_json
from openfero_gitops.domain.errors import Invalid
from openfero_gitops.domain.text import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.cluster.api import Object, Operation

_REFUSED: Final = "the server rejected our request due to an error in our request"
_INDEX: Final = re.compile(r"0|[1-9][0-9]*")


def apply_patch(document: Object, operations: Iterable[Operation]) -> Object:
    """Return a patched copy of `document`.

    The operations are `test`, `add`, `replace` and `remove`. As in the API server, a `test` for
    null succeeds if the last member of its path is absent, but not if one before it is; and
    `replace` adds a missing member.

    Raises:
        Invalid: a `test` failed, a path does not exist, or the operation is not supported.
    """
    patched: Object = copied(document)
    for operation in operations:
        _apply(patched, operation)
    return patched


def _equal(first: Any, second: Any) -> bool:
    """Compare JSON values by their text: 1, 1.0 and true are different."""
    return canonical_json(first) == canonical_json(second)


def _apply(document: Object, operation: Operation) -> None:
    path = operation.get("path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise Invalid(_REFUSED)
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))
    parent: Any = document
    for part in parents:
        parent = _member(parent, part)
    value = through_json(operation.get("value"))
    match operation.get("op"):
        case "test":
            absent = isinstance(parent, dict) and last not in parent
            if not _equal(None if absent else _member(parent, last), value):
                raise Invalid(_REFUSED)
        case "add" if isinstance(parent, list):
            parent.insert(len(parent) if last == "-" else _position(last, len(parent)), value)
        case "add" if isinstance(parent, dict):
            parent[last] = value
        case "replace" if isinstance(parent, dict):
            parent[last] = value
        case "replace":
            _member(parent, last)
            parent[_key(parent, last)] = value
        case "remove":
            _member(parent, last)
            del parent[_key(parent, last)]
        case _:
            raise Invalid(_REFUSED)


def _member(parent: Any, part: str) -> Any:
    try:
        return parent[_key(parent, part)]
    except LookupError:
        raise Invalid(_REFUSED) from None


def _key(parent: Any, part: str) -> str | int:
    """Return the key of a Python container for a part of a path."""
    if isinstance(parent, dict):
        return part
    if isinstance(parent, list):
        return _position(part, len(parent))
    raise Invalid(_REFUSED)


def _position(part: str, highest: int) -> int:
    if not _INDEX.fullmatch(part) or int(part) > highest:
        raise Invalid(_REFUSED)
    return int(part)
