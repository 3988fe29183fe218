"""Which names, keys and values Kubernetes takes."""

from __future__ import annotations

import re
from typing import Final

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DATA_KEY: Final = re.compile(r"[-._A-Za-z0-9]+")
_LABEL_LENGTH: Final = 63
_SUBDOMAIN_LENGTH: Final = 253


def is_dns_label(text: str) -> bool:
    """Whether Kubernetes takes it as the name of a container, a volume or a namespace."""
    return len(text) <= _LABEL_LENGTH and _LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """Whether Kubernetes takes it as the name of most objects."""
    return len(text) <= _SUBDOMAIN_LENGTH and _SUBDOMAIN.fullmatch(text) is not None


def is_qualified_name(text: str) -> bool:
    """Whether Kubernetes takes it as the key of a label (of an annotation in lower case)."""
    prefix, slash, name = text.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        return False
    return len(name) <= _LABEL_LENGTH and _QUALIFIED.fullmatch(name) is not None


def is_label_value(text: str) -> bool:
    """Whether Kubernetes takes it as the value of a label."""
    return not text or (len(text) <= _LABEL_LENGTH and _QUALIFIED.fullmatch(text) is not None)


def is_data_key(text: str) -> bool:
    """Whether Kubernetes takes it as a key of a ConfigMap or a Secret."""
    return len(text) <= _SUBDOMAIN_LENGTH and _DATA_KEY.fullmatch(text) is not None
