"""The rules about a Job's body, one function each; to import this is to register them.

A check yields any number of breaches and tolerates what is missing: what a schema says has been
said before. Generated Jobs are held against the API server's own verdict; where the two differ,
the list beside that test says why.
"""

from openfero_gitops.catalog.validation.checks import (
    advice,
    alertdata,
    containers,
    fields,
    handlers,
    job,
    names,
    network,
    resources,
    scheduling,
    system,
    volumes,
)

__all__ = [
    "advice",
    "alertdata",
    "containers",
    "fields",
    "handlers",
    "job",
    "names",
    "network",
    "resources",
    "scheduling",
    "system",
    "volumes",
]
