"""Our verdicts for older versions compared with the recorded answers of their API servers.

`make versions` records them anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support import recording
from tests.support.differences import OLDER_REFUSED_HERE, OLDER_REFUSED_THERE, Comparison
from tests.support.mutated_jobs import judge
from tests.support.recording import FOLDER, RELEASES, Recording

if TYPE_CHECKING:
    from pathlib import Path

RECORDINGS = sorted(FOLDER.iterdir())
MAX_BYTES = 200_000


def test_every_release_is_recorded() -> None:
    """Each file is of a release that `make versions` records, and small."""
    assert [path.stem for path in RECORDINGS] == sorted(RELEASES)
    assert all(path.stat().st_size < MAX_BYTES for path in RECORDINGS)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_older_api_servers_say_what_we_say(path: Path) -> None:
    """Each Job is refused, accepted, or accepted without some fields, as it is there.

    The differences are exactly those in docs/reference/verdicts.md.
    """
    recorded = recording.read(path)
    jobs = recording.asked()
    assert recorded.digest == recording.digest(jobs), "other Jobs are generated: run make versions"
    assert len(recorded.answers) == len(jobs)
    comparison = Comparison(older=True)
    disagreements: list[tuple[str, str]] = []
    refused = 0
    for asked, answer in zip(jobs, recorded.answers, strict=True):
        verdict = judge(asked.job, "jobs", recorded.version)
        refused += bool(verdict.errors)
        disagreements += [
            (found, asked.made) for found in comparison.disagreements(verdict, answer)
        ]
    assert disagreements == []
    assert comparison.unused(OLDER_REFUSED_HERE, OLDER_REFUSED_THERE) == []
    assert len(jobs) // 5 < refused < len(jobs) * 4 // 5


def test_a_recording_is_read_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head names the release and the Jobs."""
    monkeypatch.setattr(recording, "FOLDER", tmp_path)
    monkeypatch.setattr(recording, "ROOT", tmp_path)
    recorded = recording.read(RECORDINGS[0])
    written: Recording = recording.read(recording.write(replace(recorded, release="1.29.1")))
    assert written == replace(recorded, release="1.29.1")
