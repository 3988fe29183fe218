from __future__ import annotations

import json
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.cluster.client import STREAMED_BYTES, encode_body
from openfero_gitops.domain.errors import Invalid

#: What an operario or an alert may contain; also half of a surrogate pair.
_TEXTS = st.text(st.characters(exclude_categories=()))
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda values: st.lists(values) | st.dictionaries(_TEXTS, values),
    max_leaves=20,
)


@given(_VALUES)
def test_a_body_is_what_the_json_module_writes(value: object) -> None:
    """A body has the content that Python's own serializer gives it."""
    body = encode_body(value)
    assert isinstance(body, bytes)
    assert json.loads(body) == json.loads(json.dumps(value))


def test_a_large_body_is_sent_in_pieces() -> None:
    """A large body becomes a file, which does not block the event loop."""
    assert isinstance(encode_body("x" * STREAMED_BYTES), BytesIO)


def test_a_body_that_is_not_json_is_invalid() -> None:
    """An object that JSON cannot represent is refused before it is sent."""
    endless: list[object] = []
    endless.append(endless)
    for body in (object(), endless):
        with pytest.raises(Invalid, match="cannot be serialized"):
            encode_body(body)
