"""What API servers of other versions than the test cluster's say about generated Jobs.

`python -m tests.support.recording 1.30.14` builds one, which takes minutes, asks it, and writes a
file that is committed; the tests then compare our verdicts with the file. A file for other Jobs
than those that are generated now is refused.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.cluster.controlplane import COMPONENTS, HERE, ControlPlane
from tests.support.dry_run import Answer, DryRun
from tests.support.mutated_jobs import mutants, sound_jobs
from tests.support.paths import FIXTURES, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER: Final = FIXTURES / "verdicts"
CASES: Final = FIXTURES / "version_values.yaml"
#: The releases whose answers are recorded.
RELEASES: Final = ("1.30.14",)
SEED: Final = 1
MUTANTS: Final = 600
_MAX_CAUSES: Final = 4
_MAX_CAUSE_CHARACTERS: Final = 160


@dataclass(frozen=True)
class Asked:
    """A Job, and how it was made."""

    job: Mapping[str, Any]
    made: str


@dataclass(frozen=True)
class Recording:
    """The answers of one API server, in the order of `asked`."""

    release: str
    digest: str
    answers: tuple[Answer, ...]

    @property
    def version(self) -> str:
        """Its version: `1.30`."""
        return self.release.rpartition(".")[0]


def cases() -> list[Asked]:
    """Return the Jobs with values that depend on the version."""
    made = []
    for changes in yaml.safe_load(CASES.read_text()):
        job = copy.deepcopy(dict(sound_jobs()["plain"]))
        pod = job["spec"]["template"]["spec"]
        pod |= changes.get("pod", {})
        pod["containers"][0] |= changes.get("container", {})
        if "init" in changes:
            first = {"name": "first", "image": "registry.example/tools:1.4.2"}
            pod["initContainers"] = [first | changes["init"]]
        job["spec"] |= changes.get("spec", {})
        made.append(Asked(json.loads(json.dumps(job)), json.dumps(changes)))
    return made


def asked() -> list[Asked]:
    """Return every Job that an API server is asked about.

    Their metadata are sound: of those in a file, a rendered Job has only labels and annotations.
    """
    metadata = sound_jobs()["plain"]["metadata"]
    made = [
        Asked({**mutant.job, "metadata": metadata}, mutant.changes)
        for mutant in mutants(SEED, MUTANTS)
        if isinstance(mutant.job.get("spec"), dict)
    ]
    return [*cases(), *made]


def digest(jobs: Sequence[Asked]) -> str:
    """Identify the Jobs."""
    text = json.dumps([asked_job.job for asked_job in jobs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: Path) -> Recording:
    """Read a recording."""
    head, *lines = path.read_text("utf-8").splitlines()
    answers = []
    for line in lines:
        value: dict[str, list[str]] = json.loads(line)
        answers.append(Answer(tuple(value.get("causes", ())), tuple(value.get("dropped", ()))))
    return Recording(**json.loads(head), answers=tuple(answers))


def write(recording: Recording) -> Path:
    """Write a recording: a line for each answer, with little of what identifies it."""
    lines = [json.dumps({"release": recording.release, "digest": recording.digest})]
    for answer in recording.answers:
        causes = [cause[:_MAX_CAUSE_CHARACTERS] for cause in answer.causes[:_MAX_CAUSES]]
        value = {"causes": causes, "dropped": list(answer.dropped)}
        kept = {name: texts for name, texts in value.items() if texts}
        lines.append(json.dumps(kept, ensure_ascii=False))
    path = FOLDER / f"{recording.release}.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


async def _ask(kubeconfig: Path, jobs: Sequence[Asked]) -> list[Answer]:
    async with DryRun(kubeconfig, "default") as server:
        answers: list[Answer] = []
        for start in range(0, len(jobs), 100):
            batch = jobs[start : start + 100]
            answers += await asyncio.gather(*(server.answer(item.job) for item in batch))
        return answers


def record(release: str) -> Recording:
    """Build an API server, and ask it."""
    built = subprocess.run(
        [HERE / "build-apiserver", release], stdout=subprocess.PIPE, text=True, check=True
    )
    jobs = asked()
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(
            Path(folder) / "cluster",
            components=COMPONENTS[:2],
            programs={"kube-apiserver": Path(built.stdout.strip())},
        )
        plane.start()
        try:
            answers = asyncio.run(_ask(plane.kubeconfig, jobs))
        finally:
            plane.stop()
    return Recording(release, digest(jobs), tuple(answers))


def main(releases: Sequence[str]) -> None:
    """Record the answers of some releases."""
    FOLDER.mkdir(exist_ok=True)
    for release in releases or RELEASES:
        path = write(record(release))
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
