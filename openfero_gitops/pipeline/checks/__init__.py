"""The rules about a Job's body, one function each; to import this is to register them.

A check yields any number of breaches and tolerates what is missing: what a schema says has been
said before. What the API server refuses and no rule here knows is rare: odd fields of DNS, hosts
and Windows, and the volumes of single vendors.
"""

from openfero_gitops.pipeline.checks import (
    advice,
    alertdata,
    containers,
    handlers,
    job,
    names,
    resources,
    scheduling,
    volumes,
)

__all__ = [
    "advice",
    "alertdata",
    "containers",
    "handlers",
    "job",
    "names",
    "resources",
    "scheduling",
    "volumes",
]
