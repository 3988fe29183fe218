"""What the active catalog requires of waiting Jobs, besides what is recorded on them.

Users who can change Jobs can edit the options recorded on one, but not the operario in Git.
So a waiting Job meets the stricter of the two, option by option. If its operario became stricter in
Git while it waits, that counts at once; if it became less strict, the recorded options still count.
A Job whose operario is not in the active catalog must be approved, whatever is recorded: somebody
removed it from Git, or wrote another name on the Job. So must a Job whose operario was disabled,
and one from another repository than that of the active catalog, as after a change of the settings:
its operario was reviewed elsewhere.

A Job of another version of its operario than that of the active catalog gets the digest of the
active one, so that admission does not wait for a person to approve what was changed in Git.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import structs

from openfero_gitops.domain.location import same_repository
from openfero_gitops.domain.operario import stricter_options
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario, Options
    from openfero_gitops.domain.remediation import Remediation

_MAX_ADDRESS_CHARACTERS: Final = 256


class _Required(NamedTuple):
    """The options that count, and why a Job must be approved if the record does not say so.

    `spec_digest` is that of the operario in the active catalog; empty if there is none.
    """

    options: Options
    message: str = ""
    spec_digest: str = ""


def with_requirements(
    remediations: Iterable[Remediation], catalog: Catalog | None
) -> list[Remediation]:
    """Return the remediations with the options, and the phase, that count for admission.

    All that need no others are returned as they are. Without a catalog nothing starts.
    """
    if catalog is None:
        return list(remediations)
    required: dict[tuple[int, str, str, Status, str], _Required] = {}
    effective = []
    for remediation in remediations:
        if remediation.waiting:
            recorded = remediation.options
            key = (
                id(recorded),
                remediation.operario,
                remediation.alertname,
                remediation.status,
                remediation.repository,
            )
            if key not in required:
                required[key] = _requirements(remediation, catalog)
            options, message, spec_digest = required[key]
            if options is not recorded:
                remediation = _with_options(remediation, options, message)  # noqa: PLW2901
            if spec_digest not in ("", remediation.spec_digest):
                remediation = structs.replace(remediation, active_digest=spec_digest)  # noqa: PLW2901
        effective.append(remediation)
    return effective


def active_operario(remediation: Remediation, catalog: Catalog) -> Operario | None:
    """Return the operario of a Job in the active catalog; None if it was removed."""
    for operario in catalog.by_alert.get(remediation.alertname.lower(), ()):
        if operario.name == remediation.operario and operario.status is remediation.status:
            return operario
    return None


def _requirements(remediation: Remediation, catalog: Catalog) -> _Required:
    recorded = remediation.options
    if (operario := active_operario(remediation, catalog)) is not None:
        options = stricter_options(recorded, operario.options)
        if message := _other_repository(remediation, catalog):
            return _Required(replace(options, approval=True), message)
        if not (operario.options.enabled or recorded.approval):
            message = (
                f"operario {shown(operario.name)} was disabled in Git; the Job starts only if it is"
                " approved"
            )
            return _Required(replace(options, approval=True), message, operario.spec_digest)
        if options.approval and not recorded.approval:
            message = (
                f"operario {shown(operario.name)} requires approval in Git, but the options "
                "recorded on the Job do not: one of them was changed since"
            )
            return _Required(options, message, operario.spec_digest)
        return _Required(options, spec_digest=operario.spec_digest)
    if recorded.approval:
        return _Required(recorded)
    message = (
        f"the active catalog has no operario {shown(remediation.operario)} for this alert: it was "
        "removed, or the Job was changed; the Job starts only if it is approved"
    )
    return _Required(replace(recorded, approval=True), message)


def _other_repository(remediation: Remediation, catalog: Catalog) -> str:
    """Why a Job of another repository must be approved; empty if it is of the catalog's."""
    theirs, ours = remediation.repository, catalog.revision.repository
    if not theirs or not ours or same_repository(theirs, ours):
        return ""
    return (
        f"its operario comes from the repository {shown(theirs, _MAX_ADDRESS_CHARACTERS)}, but the "
        f"active catalog comes from {shown(ours, _MAX_ADDRESS_CHARACTERS)}; the Job starts only if"
        " it is approved"
    )


def _with_options(remediation: Remediation, options: Options, message: str) -> Remediation:
    unapproved = options.approval and not remediation.approved_by
    return structs.replace(
        remediation,
        options=options,
        phase=Phase.AWAITING_APPROVAL if unapproved else Phase.WAITING,
        message=message,
    )
