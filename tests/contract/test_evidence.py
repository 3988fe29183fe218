"""What the pages read about one remediation, from both API servers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.jobs import JobStore
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.jobs.observe import observe
from openfero_gitops.web.evidence import EvidenceReader
from tests.contract.objects import job
from tests.support.copying import replace
from tests.support.pages import remediation

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer


async def test_evidence_of_a_job_that_failed(api: ApiServer, ns: str) -> None:
    """The Job with its Pod template, its Pods with exit codes, Events, and the end of its log."""
    played = {"fail": "true", "exit-code": "3", "message": "no disk"}
    created = (await api.create(JOBS, ns, job("heal", played, suspend=False))).object
    async with asyncio.timeout(120):
        while True:
            stored = await api.get(JOBS, ns, "heal")
            if stored["status"].get("failed"):
                break
            await asyncio.sleep(0.05)
    sample = remediation("Disk", Phase.FAILED, datetime(2026, 11, 21, tzinfo=UTC))
    sample = replace(sample, key=JobKey(ns, "heal"), uid=created["metadata"]["uid"])
    found = await EvidenceReader(JobStore(api, (ns,), observe)).read(sample)
    assert found.missing == ()
    assert found.job
    assert found.job["spec"]["template"]["spec"]["containers"][0]["name"] == "main"
    [pod] = found.pods
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["message"]) == (3, "no disk")
    [log] = found.logs
    if isinstance(api, MemoryCluster):
        assert "simulated" in log.text
    else:  # kwok's nodes have no logs, but the Job controller writes Events
        assert log.missing
        assert "SuccessfulCreate" in {event["reason"] for event in found.events}
