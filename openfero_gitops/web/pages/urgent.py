"""What to run next about a remediation that needs a person."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from openfero_gitops.domain.remediation import Phase

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation


def next_command(remediation: Remediation, *, held_back: bool = False) -> str:
    """Return the command that helps most, quoted for a shell.

    `held_back`: it does not start because its operario does not help.
    """
    job = shlex.quote(str(remediation.key))
    if remediation.phase is Phase.AWAITING_APPROVAL or (remediation.waiting and held_back):
        return f"openfero-gitops approve {job}"
    if remediation.phase is Phase.HELD:
        return f"openfero-gitops cancel {job}"
    if remediation.phase is Phase.FAILED:
        return f"openfero-gitops logs {job}"
    return f"openfero-gitops trace {job}"
