"""The rules that only a cluster can find violated: what it says about a Job in a dry run.

They are not in the register `domain.rule.RULES`, because a file alone cannot violate them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.problem import Severity
from openfero_gitops.domain.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSED: Final = Rule(
    "dry-run-refused",
    Severity.ERROR,
    "The API server and the cluster's policies must accept the Job.",
    "The cluster would refuse the Job when the alert fires, and nothing would be healed.",
)
WARNED: Final = Rule(
    "dry-run-warning",
    Severity.WARNING,
    "The API server should accept the Job without warnings.",
    "Pod Security, for example, accepts the Job with a warning and refuses its Pods.",
)
NO_ROOM: Final = Rule(
    "dry-run-forbidden",
    Severity.WARNING,
    "The Job's namespace should exist and its quotas should allow the Job.",
    "The Job is valid, but the cluster could not take it at the moment.",
)
NOT_ALLOWED: Final = Rule(
    "dry-run-not-allowed",
    Severity.WARNING,
    "The caller should have the permissions that dry runs need.",
    "Without them nobody knows whether the cluster accepts the Jobs of the namespace.",
    "grant the verb create on jobs in the namespace, and get on serviceaccounts",
)
UNDECIDED: Final = Rule(
    "dry-run-undecided",
    Severity.WARNING,
    "The cluster should be able to decide in a dry run whether it accepts the Job.",
    "An admission webhook that fails, or does not support dry runs, leaves the answer open.",
    "declare sideEffects: None in the webhook's configuration if it has none, and check that it"
    " responds",
)
ACCOUNT_MISSING: Final = Rule(
    "service-account-missing",
    Severity.WARNING,
    "The ServiceAccount that a Job uses should exist.",
    "Until it exists, the Job cannot create a Pod.",
)
CLUSTER_RULES: Final[Mapping[str, Rule]] = {
    rule.id: rule for rule in (REFUSED, WARNED, NO_ROOM, NOT_ALLOWED, UNDECIDED, ACCOUNT_MISSING)
}
