"""Since which version of Kubernetes each feature gate of a Job's fields is enabled by default.

While its gate is disabled, the API server drops a field in silence, or refuses some of its values.
`gates.json` is written by `tests/cluster/make_schema.py` from Kubernetes' source.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Final

#: A version of Kubernetes: major and minor.
Release = tuple[int, int]

_FILE: Final = "gates.json"
_RELEASE: Final = re.compile(r"v?([0-9]+)\.([0-9]+)(?:[.+-].*)?")


def release_of(version: str) -> Release | None:
    """Parse `1.33`, or a version as clusters report it: `v1.33.4-eks-1`; None if it is neither."""
    match = _RELEASE.fullmatch(version.strip())
    return (int(match[1]), int(match[2])) if match else None


def text_of(release: Release) -> str:
    """Write a release: `1.33`."""
    return f"{release[0]}.{release[1]}"


@functools.cache
def enabled_since(gate: str) -> Release | None:
    """The first version that enables a feature gate by default; None if none does so far."""
    since = _gates()[gate]
    return None if since is None else release_of(since)


def is_enabled(gate: str, release: Release) -> bool:
    """Whether a version enables a feature gate by default."""
    since = enabled_since(gate)
    return since is not None and since <= release


@functools.cache
def _gates() -> dict[str, str | None]:
    text = resources.files(__package__).joinpath(_FILE).read_text("utf-8")
    return dict(json.loads(text))
