"""Reads the parameters of a request into models; raises 400 that says what is wrong."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args, get_origin

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multidict import MultiMapping
    from pydantic.fields import FieldInfo

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_DIGITS: Final = re.compile("[0-9]{1,4}")
_MAX_SHOWN_CHARACTERS: Final = 200

_Q = TypeVar("_Q", bound="QueryParameters")
_P = TypeVar("_P", bound="PathParameters")


class QueryParameters(BaseModel):
    """The parameters of a query. A field that is a tuple may be given several times."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class PathParameters(BaseModel):
    """The variable parts of a path."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _read_limit(text: Any) -> Any:
    if isinstance(text, str) and (not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"limit must be a number from 1 to {MAX_LIMIT}")
    return text


class PagingQuery(QueryParameters):
    """The parameters of a list that is read page by page."""

    limit: Annotated[int, BeforeValidator(_read_limit), Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    """The maximum number of items."""
    continue_: Annotated[str | None, Field(alias="continue")] = None
    """The token of the next page, from the page before; its other parameters must be the same."""


def read_query(model: type[_Q], query: MultiMapping[str]) -> _Q:
    """Read the parameters of a query.

    Raises:
        web.HTTPBadRequest: one of them is unknown, given too often or wrong.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    values: dict[str, Any] = {}
    for name in query:
        if name not in fields:
            raise web.HTTPBadRequest(text=_unknown(name, fields))
        texts = query.getall(name)
        if _is_list(fields[name]):
            values[name] = texts
        elif len(texts) == 1:
            values[name] = texts[0]
        else:
            raise web.HTTPBadRequest(text=f"{name} is given {len(texts)} times; give it once")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise web.HTTPBadRequest(text=_explain(error, fields)) from error


def read_path(model: type[_P], match: Mapping[str, str]) -> _P:
    """Read the variable parts of a path; raises 404 if nothing can have such a name."""
    try:
        return model.model_validate(dict(match))
    except ValidationError as error:
        raise web.HTTPNotFound from error


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _unknown(name: str, fields: Mapping[str, FieldInfo]) -> str:
    """Refuse parameters that would have no effect, such as a misspelled filter."""
    use = f"use {', '.join(sorted(fields))}" if fields else "this path takes no parameters"
    return f"unknown parameter {name[:_MAX_SHOWN_CHARACTERS]!r}; {use}"


def _explain(error: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """Say what is wrong with the first wrong parameter, and what to use."""
    details = error.errors(include_url=False)[0]
    name = str(details["loc"][0]) if details["loc"] else ""
    shown = repr(str(details["input"])[:_MAX_SHOWN_CHARACTERS])
    match details["type"]:
        case "enum":
            return f"unknown {name} {shown}; use {', '.join(_choices(fields[name]))}"
        case "value_error":
            return str(details["ctx"]["error"])
    return f"{name} {shown}: {details['msg']}"


def _choices(field: FieldInfo) -> list[str]:
    kinds = (field.annotation, *get_args(field.annotation))
    return [
        str(member.value)
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Enum)
        for member in kind
    ]
