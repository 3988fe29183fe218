"""What all models of answers have in common.

The JSON that an answer is serialised to is a public contract: a model's fields are its members, in
camelCase. Text from outside is never checked or changed, so that one odd character does not hide
a whole list.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

T = TypeVar("T")


class _AnyText:
    """Accepts any text. Pydantic's own type refuses lone surrogates, which JSON can have."""

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string"}


#: Any text.
Text = Annotated[str, _AnyText()]
#: A time; RFC 3339 in UTC with microseconds.
Moment = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Shape(BaseModel):
    """A JSON object of an answer."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=False,
        serialize_by_alias=True,
        frozen=True,
        extra="forbid",
        defer_build=True,
    )


class ListShape(Shape, Generic[T]):
    """One page of a list."""

    items: list[T]
    continue_: Annotated[Text | None, Field(alias="continue")]
    """Token of the next page, for the parameter `continue`; null on the last page."""


class PlainPage(list[T]):
    """One page of a list that is a plain array, because a client expects that.

    `continue_` is the token of the next page, which only the header Link has.
    """

    def __init__(self, items: Iterable[T], continue_: str | None) -> None:
        """Take the items, and the token."""
        super().__init__(items)
        self.continue_ = continue_


def to_json(value: Shape | Sequence[Shape]) -> Any:
    """Convert an answer to what `json.dumps` serialises.

    (Pydantic's own JSON cannot hold lone surrogates.)
    """
    return value.model_dump() if isinstance(value, Shape) else [v.model_dump() for v in value]


def encode(value: Shape | Sequence[Shape]) -> bytes:
    """Serialise an answer."""
    return json.dumps(to_json(value)).encode()


#: Is excluded from an answer if it has no value: for clients that expect it so.
def _is_none(value: Any) -> bool:
    return value is None


OMITTED: Final = Field(default=None, exclude_if=_is_none)
