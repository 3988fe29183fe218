"""Objects to YAML that people read: multi-line text as a block, and every text still a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.catalog.yaml.scalar import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDTH: Final = 4096
# What some readers take for the end of a line: to be written as escapes.
_BREAKS: Final = re.compile("[\r\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """Writes what `document.load` reads back as the same value, and so does Kubernetes."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Write everything out: a reader looks for no anchor."""
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
    """Whether an unquoted word stays text for Kubernetes, whose numbers are not PyYAML's."""
    try:
        return isinstance(plain(value), str)
    except ValueError:
        return False


_Dumper.add_representer(str, _text)


def to_yaml(objects: Iterable[Any], *, sort_keys: bool = False) -> str:
    """Several objects as one YAML stream; nothing for none."""
    return yaml.dump_all(
        list(objects), Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True, width=_WIDTH
    )
