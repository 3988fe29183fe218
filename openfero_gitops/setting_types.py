"""The types of settings: how each is written, and which values it may have."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, PlainValidator
from pydantic_settings import NoDecode

from openfero_gitops.domain.dns import is_dns_label, is_dns_subdomain
from openfero_gitops.domain.duration import parse_duration
from openfero_gitops.domain.http_url import http_url
from openfero_gitops.domain.labels import with_replica_labels
from openfero_gitops.domain.network import Network, parse_network
from openfero_gitops.domain.quantity import parse_size
from openfero_gitops.domain.url_template import check_template

_HEADER: Final = re.compile("[A-Za-z0-9-]{1,64}")
#: Headers that clients, not proxies, set for other purposes.
_OTHER_HEADERS: Final = frozenset(
    {"authorization", "connection", "cookie", "host", "origin", "user-agent", "x-forwarded-for"}
)


def _duration(value: object) -> object:
    # (Pydantic would read a bare number as seconds.)
    return value if isinstance(value, timedelta) else parse_duration(str(value))


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be greater than 0")
    return value


def _split(value: object) -> object:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return value
    return tuple(part.strip() for item in value for part in item.split(",") if part.strip())


def _namespace(name: str) -> str:
    if not is_dns_label(name):
        raise ValueError(f"{name!r} is not a valid namespace name")
    return name


def _host(name: str) -> str:
    if not is_dns_subdomain(name.lower()):
        raise ValueError(f"{name!r} is not a host name; use a name without scheme and port")
    return name.lower()


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name) or name.lower() in _OTHER_HEADERS:
        raise ValueError(f"{name!r} is not a header that names a user, such as X-Forwarded-User")
    return name


def _network(value: object) -> object:
    return parse_network(value) if isinstance(value, str) else value


def _url(text: str) -> str:
    return http_url(text) if text else ""


def _replica_labels(names: tuple[str, ...]) -> tuple[str, ...]:
    with_replica_labels(names)
    return names


class Size(int):
    """A number of bytes, written as a Kubernetes quantity."""

    __slots__ = ()


def _size(value: object) -> object:
    return value if isinstance(value, Size) else Size(parse_size(str(value)))


Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
#: May be 0, unlike a `Duration`.
Delay = Annotated[timedelta, BeforeValidator(_duration)]
Bytes = Annotated[Size, PlainValidator(_size)]
Namespace = Annotated[str, AfterValidator(_namespace)]
Namespaces = Annotated[tuple[Namespace, ...], NoDecode, BeforeValidator(_split)]
LabelNames = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_replica_labels)
]
Host = Annotated[str, AfterValidator(_host)]
Header = Annotated[str, AfterValidator(_header)]
Networks = Annotated[
    tuple[Annotated[Network, PlainValidator(_network)], ...], NoDecode, BeforeValidator(_split)
]
Url = Annotated[str, AfterValidator(_url)]
#: Of a link; an empty one is not used.
Template = Annotated[str, AfterValidator(check_template)]
Urls = Annotated[tuple[Url, ...], NoDecode, BeforeValidator(_split)]
Hosts = Annotated[tuple[Host, ...], NoDecode, BeforeValidator(_split)]
