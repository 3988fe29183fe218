"""What the active catalog requires of waiting Jobs, besides what is recorded on them.

Users who can change Jobs can edit the options recorded on one, but not the operario in Git.
So a waiting Job meets the stricter of the two, option by option. If its operario became stricter in
Git while it waits, that counts at once; if it became less strict, the recorded options still count.
A Job whose operario is not in the active catalog must be approved, whatever is recorded: somebody
removed it from Git, or wrote another name on the Job.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from openfero_gitops.domain.operario import stricter_options
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Options
    from openfero_gitops.domain.remediation import Remediation


def with_requirements(
    remediations: Iterable[Remediation], catalog: Catalog | None
) -> list[Remediation]:
    """Return the remediations with the options, and the phase, that count for admission.

    All that need no other options are returned as they are. Without a catalog nothing starts.
    """
    if catalog is None:
        return list(remediations)
    required: dict[tuple[int, str, str, Status], tuple[Options, str]] = {}
    effective = []
    for remediation in remediations:
        if remediation.waiting:
            recorded = remediation.options
            key = id(recorded), remediation.operario, remediation.alertname, remediation.status
            if key not in required:
                required[key] = _requirements(remediation, catalog)
            options, message = required[key]
            if options is not recorded:
                remediation = _with_options(remediation, options, message)  # noqa: PLW2901
        effective.append(remediation)
    return effective


def _requirements(remediation: Remediation, catalog: Catalog) -> tuple[Options, str]:
    """The options that count, and why the Job must be approved if the record does not say so."""
    recorded = remediation.options
    for operario in catalog.by_alert.get(remediation.alertname.lower(), ()):
        if operario.name == remediation.operario and operario.status is remediation.status:
            options = stricter_options(recorded, operario.options)
            if options.approval and not recorded.approval:
                message = (
                    f"operario {shown(operario.name)} requires approval in Git, but the options "
                    "recorded on the Job do not: one of them was changed since"
                )
                return options, message
            return options, ""
    if recorded.approval:
        return recorded, ""
    message = (
        f"the active catalog has no operario {shown(remediation.operario)} for this alert: it was "
        "removed, or the Job was changed; the Job starts only if it is approved"
    )
    return replace(recorded, approval=True), message


def _with_options(remediation: Remediation, options: Options, message: str) -> Remediation:
    unapproved = options.approval and not remediation.approved_by
    return replace(
        remediation,
        options=options,
        phase=Phase.AWAITING_APPROVAL if unapproved else Phase.WAITING,
        message=message,
    )
