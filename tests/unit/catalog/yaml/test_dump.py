from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.yaml.document import load_text
from openfero_gitops.catalog.yaml.dump import to_yaml

#: Strings that some YAML parsers read as other types.
ODD = ("017", "0o17", "1_000", "y", "NO", "~", "", "null", ".inf", "1e3", "<<", "=", "2026-11-21")
TEXTS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=("Cs",))),
    st.lists(st.sampled_from([" ", "\n", "\t", "a", ":", "#", "-", "'", '"', "🔥", "\r", "\x85"]))
    .map("".join),
)  # fmt: skip


@given(st.dictionaries(TEXTS, st.lists(TEXTS, max_size=4), min_size=1, max_size=3))
def test_what_is_written_reads_back_as_the_same(given_object: dict[str, list[str]]) -> None:
    """Written YAML is read as the same values, strings as strings."""
    assert load_text(to_yaml([given_object, {"n": 1, "b": True}])) == [
        given_object,
        {"n": 1, "b": True},
    ]


def test_a_script_stays_a_script() -> None:
    """A text of several lines is written as a block, and there are no aliases."""
    script = ["set -e\necho «heal»\n"]
    written = to_yaml([{"a": script, "b": script}])

    assert "- |\n  set -e\n  echo «heal»\n" in written
    assert "*" not in written
    assert yaml.safe_load(written) == {"a": script, "b": script}


def test_no_objects_are_an_empty_text() -> None:
    """Without objects there are no documents."""
    assert to_yaml([]) == ""
