from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.validation import shell
from openfero_gitops.catalog.validation.quoting import is_plainly_quoted
from tests.support.fleet import EXAMPLE

# What scripts are made of, and what the two ways to read them could see differently.
PIECES = st.sampled_from(
    [
        *" \t\r\n;&|()<>{}#'\"`\\$=/.-\f",
        *("$A", "${A}", "${A:-x}", '"$A"', '"${A}"', "${x#$A}", "${x #", "$#", "$@", "$$A"),
        *("$(", "<<", "<<'E'", "\n\tE\n", "\\\n", "[[ ", " ]]", "case ", " esac", " in ", "x=$A"),
        *("sh", "ba", "/", "-c ", "eval ", "word", "é", "s", "h", "x" * 63, " # it's", "it's"),
    ]
)


def is_alert_data(name: str) -> bool:
    """Return whether the variable is the one of the scripts that holds alert data."""
    return name == "A"


def is_safe(script: str) -> bool:
    """Return whether the words of a script cannot read alert data unquoted, or as a script."""
    words = shell.split_words(script)
    names = {name for word in words for name in word.bare}
    runs = any(word.text.rpartition("/")[2] in shell.SHELLS for word in words)
    return "A" not in names and not runs and all(word.text != "eval" for word in words)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_what_is_plainly_quoted_is_safe_by_its_words(script: str) -> None:
    """A script that is plainly quoted has no word that reads alert data unquoted, and no shell."""
    assert not is_plainly_quoted(script, is_alert_data) or is_safe(script)


@pytest.mark.parametrize(
    ("script", "is_plain"),
    [
        ('kubectl delete pod -- "$A"', True),
        (': "${A:?the alert has no pod}" # it\'s required\n[ $# -gt 0 ] && x=${1##*/}', True),
        ("kubectl delete pod -- $A", False),
        ("kubectl delete pod -- ${A}", False),
        ('echo \\"$A\\"', False),
        ('ba"sh" -c "$A"', False),
        ("cat <<EOF\n$A\nEOF", False),
        ('x="$(kubectl get pod $A)"', False),
    ],
)
def test_only_what_is_certain_is_plainly_quoted(script: str, *, is_plain: bool) -> None:
    """Variables in double quotes are certain, and nothing where a word could differ."""
    assert is_plainly_quoted(script, is_alert_data) is is_plain


def test_most_scripts_of_the_example_are_plainly_quoted() -> None:
    """Most scripts of the example repository need no second look."""
    scripts = [
        argument
        for path in EXAMPLE.rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if isinstance(document, dict) and document.get("kind") == "Job"
        for container in document["spec"]["template"]["spec"]["containers"]
        for argument in container.get("args", ())
        if "\n" in argument
    ]
    plain = [
        script
        for script in scripts
        if is_plainly_quoted(script, lambda name: name.startswith("OPENFERO_"))
    ]
    assert len(plain) > 0.5 * len(scripts)
