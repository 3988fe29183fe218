from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.labels import PackedLabels, compact

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(st.dictionaries(TEXTS, TEXTS, max_size=60))
def test_compact_labels_equal_the_labels(labels: dict[str, str]) -> None:
    """Names, values, order and equality are those of the labels, whether packed or not."""
    for packed in (compact(labels), PackedLabels(labels)):
        assert packed == labels
        assert dict(packed) == labels
        assert list(packed.items()) == list(labels.items())
        assert list(packed) == list(labels)
        assert len(packed) == len(labels)
        assert all(packed[name] == value for name, value in labels.items())
        assert packed.get("not\0there") is None


def test_few_short_labels_are_kept_as_they_are() -> None:
    """Ordinary labels are not packed."""
    labels = {f"label-{n}": f"value-{n}" for n in range(20)}
    assert compact(labels) is labels


@pytest.mark.parametrize(
    "labels",
    [
        {f"{n:x}": "" for n in range(2300)},
        {"a": "x" * 16_000 + "\U0001f600"},
        {"x" * 8000: "y" * 8000},
    ],
    ids=["many", "wide characters", "long"],
)
def test_packed_labels_need_the_memory_of_their_text(labels: dict[str, str]) -> None:
    """Labels of 16 KiB need 17 KiB, however many they are and whatever they contain."""
    PackedLabels(labels)
    tracemalloc.start()
    kept = [compact({**labels, "n": f"{n}"}) for n in range(50)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert size < 25 * 1024
