"""Which names, keys and values Kubernetes accepts."""

from __future__ import annotations

import re
from typing import Final

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DATA_KEY: Final = re.compile(r"[-._A-Za-z0-9]+")
_MAX_LABEL_CHARACTERS: Final = 63
_MAX_SUBDOMAIN_CHARACTERS: Final = 253


def is_dns_label(text: str) -> bool:
    """Whether it is valid as the name of a container, a volume or a namespace."""
    return len(text) <= _MAX_LABEL_CHARACTERS and _LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """Whether it is valid as the name of most objects."""
    return len(text) <= _MAX_SUBDOMAIN_CHARACTERS and _SUBDOMAIN.fullmatch(text) is not None


def is_qualified_name(text: str) -> bool:
    """Whether it is valid as a label key; an annotation key must be lower-cased first."""
    prefix, slash, name = text.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        return False
    return len(name) <= _MAX_LABEL_CHARACTERS and _QUALIFIED.fullmatch(name) is not None


def is_label_value(text: str) -> bool:
    """Whether it is valid as a label value."""
    return not text or (
        len(text) <= _MAX_LABEL_CHARACTERS and _QUALIFIED.fullmatch(text) is not None
    )


def is_data_key(text: str) -> bool:
    """Whether it is valid as a key of a ConfigMap or a Secret."""
    return len(text) <= _MAX_SUBDOMAIN_CHARACTERS and _DATA_KEY.fullmatch(text) is not None
