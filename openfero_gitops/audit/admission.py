"""Whether a Job started in the way the controller starts Jobs.

What a Job records about its start is compared with the operario and the envelope of its commit, and
with itself. It cannot be derived again: where no admission policy prevents it, users who can change
Jobs can write a complete and consistent record.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.keys import SOMEBODY_ELSE
from openfero_gitops.domain.operario import Mode
from openfero_gitops.domain.text import shown
from openfero_gitops.domain.timestamp import format_seconds, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation

#: Two clocks may differ from the API server's by 30 s each, and a Job's times are of several.
_CLOCK_TOLERANCE: Final = timedelta(minutes=2)
#: A stamp after the identity of the leader: number and time of its term, number of the stamp.
_STAMP: Final = re.compile(r"/[0-9]+(?:/([^/#]*))?#[0-9]+")


def find_violations(remediation: Remediation, started_at: datetime | None) -> Iterator[str]:
    """Yield what is wrong about the start of a Job, whatever its operario says.

    `started_at` is when Kubernetes first created Pods for it, or did so after it was resumed.
    """
    if not remediation.started:
        return
    if remediation.decision == "refused":
        yield "the Job was refused, but it started"
    admitted_at, admitted_by = remediation.admitted_at, remediation.admitted_by
    if admitted_at is None or admitted_by == SOMEBODY_ELSE:
        yield "the Job was started by somebody else than the controller"
        return
    term = remediation.term or ""
    stamp = _STAMP.fullmatch(term.removeprefix(admitted_by)) if admitted_by else None
    if stamp is None or not term.startswith(admitted_by):
        yield (
            f"the Job was not admitted by a leader: admitted-by {shown(admitted_by)} and term "
            f"{shown(term)} do not belong together"
        )
    elif (term_began := parse_time(stamp[1])) and term_began > admitted_at + _CLOCK_TOLERANCE:
        yield (
            f"the Job was admitted at {format_seconds(admitted_at)}, before the term of its leader "
            f"began at {format_seconds(term_began)}"
        )
    if admitted_at < remediation.received_at - _CLOCK_TOLERANCE:
        yield (
            f"the Job was admitted at {format_seconds(admitted_at)}, before its alert was received "
            f"at {format_seconds(remediation.received_at)}"
        )
    if started_at is not None and started_at < admitted_at - _CLOCK_TOLERANCE:
        yield (
            f"the Job started at {format_seconds(started_at)}, before it was admitted at "
            f"{format_seconds(admitted_at)}"
        )


def find_broken_rules(
    remediation: Remediation, operario: Operario, envelope: Envelope
) -> Iterator[str]:
    """Yield which rules of its operario and envelope the start of a Job broke."""
    if not remediation.started:
        return
    if operario.options.approval and not remediation.approved_by:
        yield f"operario {shown(operario.name)} requires approval, but the Job started without it"
    if Mode.DRY_RUN in (operario.options.mode, envelope.mode):
        yield "mode is dry-run, but the Job started"
