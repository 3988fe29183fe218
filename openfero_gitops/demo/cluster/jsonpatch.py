"""JSON Patch (RFC 6902), the part that is used here, as the API server applies it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.demo.cluster.store import copied
from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.cluster.api import Object, Operation

_REFUSED: Final = "the server rejected our request due to an error in our request"
_INDEX: Final = re.compile(r"0|[1-9][0-9]*")


def apply_patch(document: Object, operations: Iterable[Operation]) -> Object:
    """Return what `document`, which is left alone, becomes.

    `test`, `add`, `replace` and `remove` are known. As in the API server, a `test` for null holds
    where the last member of its path is absent, but not where something before it is; and
    `replace` adds a member that is not there.

    Raises:
        Invalid: a `test` failed, a path leads nowhere, or an operation is none of these.
    """
    patched: Object = copied(document)
    for operation in operations:
        _apply(patched, operation)
    return patched


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are one: 1, 1.0 and true are three, as text tells them."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _apply(document: Object, operation: Operation) -> None:
    path = operation.get("path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise Invalid(_REFUSED)
    *way, last = (part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))
    parent: Any = document
    for part in way:
        parent = _member(parent, part)
    value = json.loads(json.dumps(operation.get("value")))
    match operation.get("op"):
        case "test":
            absent = isinstance(parent, dict) and last not in parent
            if not same(None if absent else _member(parent, last), value):
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
    """What a part of a path is to a Python container."""
    if isinstance(parent, dict):
        return part
    if isinstance(parent, list):
        return _position(part, len(parent))
    raise Invalid(_REFUSED)


def _position(part: str, highest: int) -> int:
    if not _INDEX.fullmatch(part) or int(part) > highest:
        raise Invalid(_REFUSED)
    return int(part)
