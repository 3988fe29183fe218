"""What the chart's admission policy allows users to do with the controller's Jobs.

The controller calls the in-memory cluster directly; every request over HTTP is a user's. Compared
with the policy, what may be combined is simplified: a user may write the annotations of an
approval, a refusal or a cancellation in their own name, and set the deadline that ends a Job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.cluster.api import Object

_ANNOTATIONS: Final = frozenset(
    {keys.APPROVED_BY, keys.APPROVAL_REASON, keys.DECISION, keys.REASON, keys.MESSAGE}
)
_DEADLINE: Final = "activeDeadlineSeconds"


def check_new_job(job: Object) -> None:
    """Refuse a Job of a user with the controller's label.

    Raises:
        Forbidden: it has the label.
    """
    if _is_ours(job):
        raise _denied("only the controller creates Jobs with its label")


def check_changed_job(old: Object, new: Object, user: str) -> None:
    """Refuse a change of one of the controller's Jobs that only the controller may make.

    Raises:
        Forbidden: the change is neither an approval, a refusal nor a cancellation by `user`.
    """
    if not (_is_ours(old) or _is_ours(new)):
        return
    before, after = _annotations(old), _annotations(new)
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    if keys.APPROVED_BY in changed and after.get(keys.APPROVED_BY) != user:
        raise _denied(f"{keys.APPROVED_BY} must be the name of the requesting user, {user}")
    if keys.MESSAGE in changed and f" by {user}" not in after.get(keys.MESSAGE, ""):
        raise _denied(f"{keys.MESSAGE} must name the requesting user, {user}")
    spec = {**new["spec"]}
    if spec.get(_DEADLINE) == 0:
        spec[_DEADLINE] = old["spec"].get(_DEADLINE)
    if (
        changed - _ANNOTATIONS
        or _labels(old) != _labels(new)
        or _without_none(spec) != _without_none(old["spec"])
    ):
        raise _denied("only the controller starts and changes this Job")


def _is_ours(job: Object) -> bool:
    return _labels(job).get(keys.MANAGED_BY) == keys.MANAGER


def _labels(job: Object) -> Mapping[str, str]:
    return job["metadata"].get("labels") or {}


def _annotations(job: Object) -> Mapping[str, str]:
    return job["metadata"].get("annotations") or {}


def _without_none(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value is not None}


def _denied(why: str) -> Forbidden:
    return Forbidden(f"the demo's admission policy denied request: {why}")
