"""What a remediation holds is bounded, no matter who created its Job."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cluster.answers import parse_object
from openfero_gitops.cluster.api import JOB_STATES
from openfero_gitops.domain import keys
from openfero_gitops.domain import labels as labels_module
from openfero_gitops.domain.remediation import Foreign, Remediation
from openfero_gitops.jobs.observe import observe
from tests.support.build import alert, rendered, stored

if TYPE_CHECKING:
    from collections.abc import Callable


def size_of(make: Callable[[int], Remediation | Foreign], count: int = 100) -> float:
    """Return how many bytes each result of a function holds."""
    make(count)
    tracemalloc.start()
    kept = [make(n) for n in range(count)]
    labels_module._unpacked.cache_clear()
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return size


LONG = (keys.TERM, keys.REF, keys.REPOSITORY, keys.MESSAGE, keys.REASON, keys.PATH, keys.QUEUE)


@pytest.mark.parametrize("key", LONG)
def test_a_long_annotation_is_cut(key: str) -> None:
    """Users who can change Jobs cannot make the memory of a remediation grow."""
    text = json.dumps(stored(annotations={key: "x" * 200_000}))

    def read(n: int) -> Remediation | Foreign:
        return observe(json.loads(text.replace("x" * 20, f"{n:020}", 1)))

    assert isinstance(read(0), Remediation)
    assert size_of(read) < 12 * 1024


@pytest.mark.parametrize(
    "labels",
    [{f"l{n}": str(n % 10) for n in range(1100)}, {"long": "x" * 14_000 + "\U0001f600"}],
    ids=["many labels", "a long label"],
)
def test_labels_of_any_form_need_the_memory_of_their_text(labels: dict[str, str]) -> None:
    """The largest alert that is recorded costs 25 KiB, whatever its labels are."""
    texts = []
    for n in range(30):
        named = alert(labels={**labels, "alertname": "PodCrashLooping", "pod": str(n)})
        texts.append(json.dumps(stored(rendered(named).manifest)))

    def read(n: int) -> Remediation | Foreign:
        return observe(json.loads(texts[n % len(texts)]))

    assert isinstance(read(0), Remediation)
    assert size_of(read, len(texts)) < 25 * 1024


def test_a_long_target_is_shortened_and_equal_for_equal_targets() -> None:
    """Two Jobs with the same long target still exclude each other."""

    def read(pod: str) -> str:
        labels = {"alertname": "PodCrashLooping", "pod": pod * 3000}
        remediation = observe(stored(rendered(alert(labels=labels)).manifest))
        assert isinstance(remediation, Remediation)
        return remediation.target

    assert len(read("a")) < 100
    assert read("a") == read("a") != read("b")


def test_a_record_of_any_size_is_not_parsed() -> None:
    """A record that no release wrote is foreign."""
    labels = {f"{n:x}": "" for n in range(20_000)}
    read = observe(stored(annotations={keys.ALERT: json.dumps({"labels": labels})}))
    assert isinstance(read, Foreign)
    assert "larger than 64 KiB" in read.why


def test_a_job_state_is_read_like_the_whole_job() -> None:
    """What the client leaves out of an answer changes nothing."""
    job = stored(status={"active": 1}, annotations={keys.TERM: "a#1"})
    job["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert observe(parse_object(json.dumps(job).encode(), JOB_STATES)) == observe(job)
