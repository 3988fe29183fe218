"""Imports what is used of the library `kubernetes`, and nothing else of it.

Its packages import all of it as soon as any part is imported, with a second client and the
libraries of that: 9 MiB of a replica's memory, and half a second of every command. So the two
packages above the parts that are used are not run meanwhile. Whoever imports them later gets them.
"""

from __future__ import annotations

import importlib.util
import sys

_entered = []
for _name in ("kubernetes", "kubernetes.aio"):
    if _name not in sys.modules and (_spec := importlib.util.find_spec(_name)) is not None:
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _entered.append(_name)

from kubernetes.aio.client import ApiClient, Configuration  # noqa: E402
from kubernetes.aio.config import ConfigException, load_kube_config  # noqa: E402
from kubernetes.aio.config.incluster_config import (  # noqa: E402
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

for _name in _entered:
    del sys.modules[_name]

__all__ = [
    "SERVICE_HOST_ENV_NAME",
    "SERVICE_TOKEN_FILENAME",
    "ApiClient",
    "ConfigException",
    "Configuration",
    "InClusterConfigLoader",
    "load_kube_config",
]
