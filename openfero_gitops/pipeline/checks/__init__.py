"""The rules about a Job's body, one function each; to import this is to register them.

A check yields any number of breaches and tolerates what is missing: what a schema says has been
said before.
"""

from openfero_gitops.pipeline.checks import (
    advice,
    alertdata,
    containers,
    job,
    names,
    resources,
)

__all__ = ["advice", "alertdata", "containers", "job", "names", "resources"]
