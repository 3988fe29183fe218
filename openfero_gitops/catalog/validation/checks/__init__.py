"""The rules about a Job's body, one function each; importing this package registers them.

A check yields any number of breaches and ignores missing fields, which the schema reports. The
tests compare the verdicts on generated Jobs with the API server's; the page `verdicts.md` lists
the
intended differences.
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
    placeholders,
    resources,
    scheduling,
    scripts,
    system,
    versions,
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
    "placeholders",
    "resources",
    "scheduling",
    "scripts",
    "system",
    "versions",
    "volumes",
]
