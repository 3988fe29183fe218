from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.domain import keys
from openfero_gitops.domain.operario import Form
from openfero_gitops.jobs.render import RENDERER, RENDERERS
from tests.bench import fuzz
from tests.support.build import alert, job_spec, operario, rendered
from tests.support.paths import ROOT

#: What a process makes of the same operarios and alerts, as one digest; run in others, too.
PROGRAM = "from tests.unit.test_determinism import digest; print(digest())"
VALUES = [
    *("web-1", "it's", 'say "hi"', "$(id)", "`id`", "a\nb", "{{ .Labels.pod }}", "x" * 10_000),
    *("a\0b", "🙈", "\ud800", "$(SECRET)", "--all", "..", "$$", "", "é", "a/../b"),
]


def bodies() -> list[str]:
    """Deliveries whose labels are hostile, and collide as variables."""
    made = []
    for value in VALUES:
        labels = {"alertname": "DiskFull", "pod": value, "a-b": "1", "a_b": value, "A_b": "3"}
        made.append(json.dumps({"status": "firing", "labels": labels, "annotations": {"s": value}}))
    return made


def digest() -> str:
    """What is found in a repository and rendered from it, in the order in which it comes."""
    made = hashlib.sha256()
    for number in range(0, 200, 2):  # (files; the payloads between them are others)
        kind, content = fuzz.content(3, number)
        for problem in fuzz.problems_of(kind, content):
            made.update(repr(problem).encode(errors="replace"))
    for body in bodies():
        for manifest in fuzz.rendered_from(read_payload(body)):
            made.update(json.dumps(manifest).encode())
    return made.hexdigest()


def test_every_process_gives_the_same_bytes() -> None:
    """Neither the order of sets nor anything else of a process shows in findings or in Jobs."""
    # (This process has a seed of its own.)
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.strip() == digest()


#: The digest of each renderer version. Jobs are derived again from what they record, so a change of
#: the digest needs a new version.
FROZEN = {
    1: "e65bba288fe94e51524b73e41116d59196ecebc1e66fc32fbe25ba82fa4395a0",
    2: "e0578539641daa7df79a39dec269db46e9e6fed33d84cff8308662c57f41bbc2",
    3: "49181eaf5ab68326b4d19c06b55906469fe2069ea56e4081451322ec4ae076b7",
    4: "87d04c0a87a16c540bd8cb523b2c9ea563930ee243a0f0ea95df79ccb806bcf1",
}


def vector(renderer: int) -> str:
    """Return a digest of Jobs for hostile alerts, without the texts of refusals."""
    first = operario(
        spec=job_spec(
            command=["heal", "--pod", "{{ .Alert.Labels.pod }}"],
            args=["$(OWN)", "$$(OPENFERO_POD)"],
            env=[{"name": "OWN", "value": "<{{ .Annotations.s }}>$(OPENFERO_STATUS)"}],
        ),
        labels={"team": "storage", "kueue.x-k8s.io/queue-name": "healing"},
        annotations={"example.com/note": "n"},
    )
    second = operario("other", spec=job_spec(env=[{"name": "OWN", "value": "{{ .Labels.pod }}"}]))
    text = "{{ .Alert.Labels.pod }}{{ .Labels.pod }}"
    plain = operario("plain", spec=job_spec(env=[{"name": "OWN", "value": text}]), form=Form.JOB)
    jobs_digest = hashlib.sha256()
    for value in VALUES:
        whole = value.replace("\ud800", "\ufffd")
        labels = {"alertname": "DiskFull", "pod": whole, "a-b": "1", "a_b": whole, "A_b": "3"}
        if renderer >= 3:
            labels |= {"service.name": "4", "k8s.io/app": whole, "c.d": "5", "c/d": "6"}
        for source in (first, second, *([] if renderer < 3 else [plain])):
            job = rendered(
                alert(labels=labels, annotations={"s": whole}), source, renderer=renderer
            ).manifest
            job["metadata"]["annotations"].pop(keys.MESSAGE, None)
            jobs_digest.update(json.dumps(job).encode())
    return jobs_digest.hexdigest()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_renderer_version_always_makes_the_same_jobs(renderer: int) -> None:
    """The Jobs do not depend on the Python version or the time."""
    assert vector(renderer) == FROZEN[renderer]


def test_new_jobs_are_of_the_newest_version() -> None:
    """Older versions are for verification only."""
    assert max(RENDERERS) == RENDERER
