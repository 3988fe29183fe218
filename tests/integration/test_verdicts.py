"""Our verdict on Jobs beside the API server's own, over Jobs that are generated from a seed.

`JOBS=20000 SEED=5 make test ARGS=tests/integration/test_verdicts.py` looks further.
"""

from __future__ import annotations

import asyncio
import copy
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.dry_run import DryRun
from tests.support.mutated_jobs import VERSION, Mutant, judge, mutants, sound_jobs
from tests.support.optional import missing
from tests.support.paths import FIXTURES, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

SEED = int(os.environ.get("SEED", "1"))
JOBS = int(os.environ.get("JOBS", "600"))
TABLE = ROOT / "docs" / "verdicts.md"
ROW = re.compile(r"\| `(?P<pattern>.+)` \| (?P<why>.+) \|")
CORPUS = FIXTURES / "refused_jobs.yaml"
OURS, THEIRS = "## Refused here", "## Refused there"


@dataclass(frozen=True)
class Difference:
    """One row of docs/verdicts.md: what it is about, and the reason that it gives."""

    pattern: re.Pattern[str]
    why: str


def listed(title: str) -> list[Difference]:
    """The rows of a section of the page."""
    section = TABLE.read_text().partition(f"{title}\n")[2].partition("\n## ")[0]
    rows = [found for line in section.splitlines() if (found := ROW.fullmatch(line))]
    # (In a table of Markdown a bar is written `\|`.)
    return [Difference(re.compile(row["pattern"].replace(r"\|", "|")), row["why"]) for row in rows]


def unlisted(found: tuple[str, ...], among: list[Difference]) -> list[str]:
    """What no row is about."""
    return [one for one in found if not any(row.pattern.match(one) for row in among)]


@pytest.fixture
async def server(kubeconfig: Path, namespace: str) -> AsyncIterator[DryRun]:
    """Give the API server, to be asked for Jobs of the namespace."""
    async with DryRun(kubeconfig, namespace) as one:
        if await one.version() != VERSION:
            missing(f"Kubernetes {VERSION}", "unset KUBECONFIG")
        yield one


async def test_sound_jobs_are_sound_to_both(server: DryRun, namespace: str) -> None:
    """What the generated Jobs are made from is taken by us, and what we make of it by Kubernetes.

    (Else every Job that is made from it would be wrong twice, and show nothing.)
    """
    for name, job in sound_jobs().items():
        ours = judge(job, namespace)
        assert ours.errors == (), name
        assert ours.manifest is not None
        assert await server.refusal(job) is None, name
        assert await server.refusal(ours.manifest) is None, name


async def test_the_corpus_is_judged_alike(server: DryRun, namespace: str) -> None:
    """Every Job that a rule is tested with is refused or taken by Kubernetes, too."""
    ours, found = listed(OURS), []
    for case in yaml.safe_load(CORPUS.read_text()):
        job = copy.deepcopy(dict(sound_jobs()["plain"]))
        pod = job["spec"]["template"]["spec"]
        job["metadata"] |= case.get("metadata", {})
        pod |= case.get("pod", {})
        pod["containers"][0] |= case.get("container", {})
        job["spec"] |= case.get("spec", {})
        verdict = judge(job, namespace)
        if await server.refusal(job) is None:
            found += [(one, case) for one in unlisted(verdict.errors, ours)]
        elif not verdict.errors:
            found.append(("refused there", case))
    assert found == []


async def test_the_api_server_says_what_we_say(server: DryRun, namespace: str) -> None:
    """What we take is created, what we refuse is refused, or docs/verdicts.md says why not."""
    ours, theirs = listed(OURS), listed(THEIRS)
    assert ours
    assert theirs
    sound = wrong = 0

    async def disagreement(mutant: Mutant) -> str:
        nonlocal sound, wrong
        verdict = judge(mutant.job, namespace)
        if verdict.manifest is not None:
            sound += 1
            refusal = await server.refusal(verdict.manifest)
            left = unlisted(refusal.causes, theirs) if refusal else []
            return f"refused there: {left} ({mutant.changes})" if left else ""
        wrong += 1
        if await server.refusal(mutant.job) is not None:
            return ""
        left = unlisted(verdict.errors, ours)
        return f"refused here: {left} ({mutant.changes})" if left else ""

    generated = list(mutants(SEED, JOBS))
    found: list[str] = []
    for start in range(0, len(generated), 100):
        some = generated[start : start + 100]
        found += filter(None, await asyncio.gather(*(disagreement(one) for one in some)))
    assert found == []
    assert min(sound, wrong) > JOBS // 5
