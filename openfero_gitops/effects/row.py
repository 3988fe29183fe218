"""How many runs of an operario in a row did not heal their alerts."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from openfero_gitops.domain.effect import FINAL_EFFECTS, Effect
from openfero_gitops.effects.assess import is_dry_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openfero_gitops.domain.remediation import Remediation


def not_healed_in_row(remediations: Iterable[Remediation]) -> Mapping[str, int]:
    """Count the latest runs of each operario whose recorded effect is `not-healed`.

    Counted are runs of one version of the operario, on all its targets, back to the first that
    healed. Runs whose effect is pending or unknown are skipped. Operarios without such a run at the
    end are left out.
    """
    settled: dict[str, list[Remediation]] = defaultdict(list)
    for job in remediations:
        if job.effect in FINAL_EFFECTS and not is_dry_run(job):
            settled[job.operario].append(job)
    rows: dict[str, int] = {}
    for operario, jobs in settled.items():
        jobs.sort(key=lambda job: (job.started_at or job.received_at, job.order), reverse=True)
        version = jobs[0].spec_digest
        for job in jobs:
            if job.effect is not Effect.NOT_HEALED or job.spec_digest != version:
                break
            rows[operario] = rows.get(operario, 0) + 1
    return rows
