"""Writes objects as readable YAML: multi-line text as a block, and every string still a string."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.catalog.yaml.scalar import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDTH: Final = 4096
# Line breaks to some YAML parsers: written as escape sequences.
_BREAKS: Final = re.compile("[\r\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """Writes YAML that `document.load` and Kubernetes read as the same value."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Write every value in full, without anchors."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style: str | None
    if _BREAKS.search(value):
        style = '"'
    elif "\n" in value:
        style = "|"
    else:
        style = None if _is_text(value) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _is_text(value: str) -> bool:
    """Whether Kubernetes reads it as a string without quotes; its numbers differ from PyYAML's."""
    try:
        return isinstance(plain(value), str)
    except ValueError:
        return False


_Dumper.add_representer(str, _text)


def to_yaml(objects: Iterable[Any], *, sort_keys: bool = False) -> str:
    """Write objects as one YAML stream, empty if there are none."""
    return yaml.dump_all(
        list(objects), Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True, width=_WIDTH
    )
