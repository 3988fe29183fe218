"""Replace what depends on the commit, the file or the clock by `<name>` in a rendered Job."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.jobs import environment

if TYPE_CHECKING:
    from openfero_gitops.jobs.render import Rendered

#: Those of our annotations that say what a Job does, not where it came from.
_BEHAVIOR: Final = frozenset(
    {
        keys.OPERARIUS,
        keys.ALERT,
        keys.STARTS_AT,
        keys.ATTEMPT,
        keys.FINGERPRINT,
        keys.TARGET,
        keys.REPLICA_LABELS,
        keys.OPTIONS,
        keys.QUEUE,
        keys.DECISION,
        keys.REASON,
        keys.MESSAGE,
    }
)
_COMMIT: Final = environment.PREFIX + "COMMIT"


def with_placeholders(rendered: Rendered) -> dict[str, Any]:
    """Return a Job with `<name>` for each value that depends on the commit, file or clock."""
    manifest = copy.deepcopy(rendered.manifest)
    metadata = manifest["metadata"]
    annotations = metadata["annotations"]
    commit = annotations[keys.COMMIT]
    for key in annotations:
        if is_provenance(key):
            annotations[key] = f"<{key.removeprefix(keys.PREFIX)}>"
    if rendered.occurrence.starts_at is None:
        # Each delivery of such an alert is another occurrence.
        slug = metadata["name"].rpartition("-")[0]
        metadata["name"] = f"{slug}-<occurrence>"
        metadata["labels"][keys.OCCURRENCE] = "<occurrence>"
    pod = manifest["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
        for variable in container.get("env", ()):
            if variable["name"] == _COMMIT and variable.get("value") == commit:
                variable["value"] = "<commit>"
    return manifest


def is_provenance(key: str) -> bool:
    """Whether an annotation of ours says where a Job came from, not what it does."""
    return key.startswith(keys.PREFIX) and key not in _BEHAVIOR
