"""Imports what is used of the library `kubernetes`, and nothing else of it.

Its packages import all of it as soon as any part is imported, with a second client and the
libraries of that: 9 MiB of a replica's memory, and half a second of every command. So the two
packages above the parts that are used run only when something is looked up that they define.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def _enter(name: str) -> None:
    """Make the parts of a package known, but not yet the package itself."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or (loader := spec.loader) is None:
        return  # the imports below say what is missing
    package = importlib.util.module_from_spec(spec)

    def define(attribute: str) -> Any:
        del package.__getattr__
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__getattr__ = define  # type: ignore[method-assign]
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)


_enter("kubernetes")
_enter("kubernetes.aio")

from kubernetes.aio.client import ApiClient, Configuration  # noqa: E402
from kubernetes.aio.config import ConfigException, load_kube_config  # noqa: E402
from kubernetes.aio.config.incluster_config import (  # noqa: E402
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

__all__ = [
    "SERVICE_HOST_ENV_NAME",
    "SERVICE_TOKEN_FILENAME",
    "ApiClient",
    "ConfigException",
    "Configuration",
    "InClusterConfigLoader",
    "load_kube_config",
]
