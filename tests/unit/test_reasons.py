from __future__ import annotations

import re

from openfero_gitops.domain.reason import Reason
from tests.support.paths import ROOT

PAGE = ROOT / "docs/reference/reasons.md"


def test_the_documentation_lists_every_reason_with_its_text() -> None:
    """The page lists the same reasons as the code, in the same order."""
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)

    assert rows == [(reason.value, reason.text) for reason in Reason]


def test_reasons_are_words_that_machines_and_people_read() -> None:
    """Each reason is kebab case, with a text that can follow a colon or be in a table."""
    for reason in Reason:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reason.value)
        assert str(reason) == reason.value
        assert re.fullmatch(r"[a-z][^|\n]*[a-z)]", reason.text)
