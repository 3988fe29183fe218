"""Our verdict on generated Jobs compared with that of the API server.

`JOBS=20000 SEED=5 make test ARGS=tests/integration/test_verdicts.py` tests more Jobs.
"""

from __future__ import annotations

import asyncio
import copy
import os
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.differences import (
    REFUSED_HERE,
    REFUSED_THERE,
    Comparison,
    listed,
    unlisted,
)
from tests.support.dry_run import DryRun
from tests.support.mutated_jobs import VERSION, Mutant, judge, mutants, sound_jobs
from tests.support.optional import missing
from tests.support.paths import FIXTURES
from tests.support.recording import cases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

SEED = int(os.environ.get("SEED", "1"))
JOBS = int(os.environ.get("JOBS", "600"))
CORPUS = FIXTURES / "refused_jobs.yaml"


@pytest.fixture
async def server(kubeconfig: Path, shared_namespace: str) -> AsyncIterator[DryRun]:
    """Connect to the API server for dry runs in the namespace."""
    async with DryRun(kubeconfig, shared_namespace) as dry_run:
        if await dry_run.version() != VERSION:
            missing(f"Kubernetes {VERSION}", "unset KUBECONFIG")
        yield dry_run


async def test_sound_jobs_are_sound_to_both(server: DryRun, shared_namespace: str) -> None:
    """The unmodified Jobs are accepted by us, and their rendered Jobs by Kubernetes.

    (Otherwise every Job derived from them would be invalid twice, and prove nothing.)
    """
    for name, job in sound_jobs().items():
        ours = judge(job, shared_namespace)
        assert ours.errors == (), name
        assert ours.manifest is not None
        assert await server.refusal(job) is None, name
        assert await server.refusal(ours.manifest) is None, name


async def test_the_corpus_is_judged_alike(server: DryRun, shared_namespace: str) -> None:
    """Kubernetes agrees with the verdict on every Job of the rules' tests."""
    ours, disagreements = listed(REFUSED_HERE), []
    for case in yaml.safe_load(CORPUS.read_text()):
        job = copy.deepcopy(dict(sound_jobs()["plain"]))
        pod = job["spec"]["template"]["spec"]
        job["metadata"] |= case.get("metadata", {})
        pod |= case.get("pod", {})
        pod["containers"][0] |= case.get("container", {})
        job["spec"] |= case.get("spec", {})
        verdict = judge(job, shared_namespace)
        if await server.refusal(job) is None:
            disagreements += [(cause, case) for cause in unlisted(verdict.errors, ours)]
        elif not verdict.errors:
            disagreements.append(("refused there", case))
    assert disagreements == []


async def test_values_of_versions_are_judged_alike(server: DryRun, shared_namespace: str) -> None:
    """Values that depend on the version are refused, or dropped with a warning, as there."""
    comparison = Comparison(older=False)
    disagreements: list[tuple[str, str]] = []
    for case in cases():
        answer = await server.answer(case.job)
        verdict = judge(case.job, shared_namespace)
        disagreements += [(found, case.made) for found in comparison.disagreements(verdict, answer)]
    assert disagreements == []


async def test_nothing_is_dropped_without_a_warning(server: DryRun, shared_namespace: str) -> None:
    """Of a Job that both accept, each field that the API server drops has a warning."""
    comparison = Comparison(older=False)
    generated = list(mutants(SEED, JOBS))
    disagreements = []
    for start in range(0, len(generated), 100):
        batch = generated[start : start + 100]
        answers = await asyncio.gather(*(server.answer(mutant.job) for mutant in batch))
        for mutant, answer in zip(batch, answers, strict=True):
            found = comparison.disagreements(judge(mutant.job, shared_namespace), answer)
            if any(cause.startswith("dropped") for cause in found):
                disagreements.append((found, mutant.changes))
    assert disagreements == []


async def test_the_api_server_says_what_we_say(server: DryRun, shared_namespace: str) -> None:
    """Kubernetes agrees with our verdicts, except for the differences in the page."""
    ours, api_servers = listed(REFUSED_HERE), listed(REFUSED_THERE)
    assert ours
    assert api_servers
    sound = wrong = 0

    async def disagreement(mutant: Mutant) -> str:
        nonlocal sound, wrong
        verdict = judge(mutant.job, shared_namespace)
        if verdict.manifest is not None:
            sound += 1
            refusal = await server.refusal(verdict.manifest)
            unexplained = unlisted(refusal.causes, api_servers) if refusal else []
            return f"refused there: {unexplained} ({mutant.changes})" if unexplained else ""
        wrong += 1
        if await server.refusal(mutant.job) is not None:
            return ""
        unexplained = unlisted(verdict.errors, ours)
        return f"refused here: {unexplained} ({mutant.changes})" if unexplained else ""

    generated = list(mutants(SEED, JOBS))
    disagreements: list[str] = []
    for start in range(0, len(generated), 100):
        batch = generated[start : start + 100]
        disagreements += filter(
            None, await asyncio.gather(*(disagreement(mutant) for mutant in batch))
        )
    assert disagreements == []
    assert min(sound, wrong) > JOBS // 5
